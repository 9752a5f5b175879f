//! Requests with many people in them, and answers that concern some of them.

use serde_json::{Value, json};
use tailwater_core::delivery::{Outcome, Scope};

use super::server::{Received, Reply, Server};
use super::{config, deliver_all, delivery, email, iterable, message, upsert, upserts, words};
use crate::iterable::Config;

fn all_good(received: &Received) -> Reply {
    let count =
        ["users", "events", "subscribers"].iter().find_map(|name| received.body[*name].as_array()).map_or(0, Vec::len);
    Reply::json(200, &json!({"successCount": count, "failCount": 0, "failedUpdates": {}, "filteredOutFields": []}))
}

fn mismatch(field: &str, offending: &Value) -> Reply {
    let params = json!({"validationErrors": {field: {"incomingTypes": ["string", "keyword"], "expectedType": "double", "category": "user",
        "offendingValue": offending, "_type": "UnexpectedType"}}});
    Reply::json(
        400,
        &json!({"code": "RequestFieldsTypesMismatched", "msg": "Project 1: The request does not have the same data types", "params": params}),
    )
}

#[tokio::test]
async fn many_users_go_in_one_request_with_what_belongs_to_all_of_them() {
    let server = Server::start(|received, _| all_good(received)).await;
    let iterable = iterable(server.url(), config());
    let outcomes = deliver_all(&iterable, &upserts(&iterable, 5)).await;
    assert_eq!(words(&outcomes), ["delivered"; 5]);
    let received = server.received();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].path, "/api/users/bulkUpdate");
    assert_eq!(received[0].body["createNewFields"], json!(true));
    assert_eq!(received[0].body["users"][0]["mergeNestedObjects"], json!(true));
    assert_eq!(received[0].emails(), (0..5).map(email).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_request_has_at_most_a_thousand_items_and_keeps_the_size_limit() {
    let server = Server::start(|received, _| all_good(received)).await;
    let iterable = iterable(server.url(), config());
    deliver_all(&iterable, &upserts(&iterable, 1_500)).await;
    let large = |number| {
        let fields = json!({"text": "x".repeat(800_000)});
        delivery(&iterable, number, &json!({"email": email(number), "dataFields": fields}))
    };
    deliver_all(&iterable, &(0..6).map(large).collect::<Vec<_>>()).await;
    let received = server.received();
    let counts: Vec<usize> = received.iter().map(|received| received.emails().len()).collect();
    assert_eq!(counts, [1_000, 500, 4, 2]);
    assert!(received.iter().all(|received| received.body_bytes <= 4_000_000));
}

#[tokio::test]
async fn an_identifier_is_in_a_request_only_once() {
    let server = Server::start(|received, _| all_good(received)).await;
    let iterable = iterable(server.url(), config());
    let mut batch = upserts(&iterable, 4);
    let twin = json!({"email": email(0).to_uppercase(), "dataFields": {"ltv": 9}});
    batch.push(delivery(&iterable, 0, &twin));
    assert_eq!(words(&deliver_all(&iterable, &batch).await), ["delivered"; 5]);
    let counts: Vec<usize> = server.received().iter().map(|received| received.emails().len()).collect();
    assert_eq!(counts, [4, 1]);
}

// I2: a success that names failures.
#[tokio::test]
async fn a_success_with_failures_gives_each_delivery_its_own_outcome() {
    let server = Server::start(|_, _| {
        Reply::json(
            200,
            &json!({"successCount": 1, "failCount": 4, "failedUpdates": {"invalidEmails": [email(0)], "forgottenEmails": [email(1).to_uppercase()],
                "conflictUserIds": ["u-2"], "notFoundEmails": [email(3)]}}),
        )
    })
    .await;
    let iterable = iterable(server.url(), config());
    let mut batch = upserts(&iterable, 5);
    batch[2] = delivery(&iterable, 2, &json!({"email": email(2), "userId": "u-2", "dataFields": {}}));
    let expected = [
        "rejected vendor_rejected",
        "rejected forgotten_user",
        "rejected duplicate_profile",
        "rejected unknown_user",
        "delivered",
    ];
    assert_eq!(words(&deliver_all(&iterable, &batch).await), expected);
}

#[tokio::test]
async fn failures_that_name_nobody_are_found_by_sending_smaller_parts() {
    let server = Server::start(|received, _| match received.emails().len() {
        1 => all_good(received),
        _ => Reply::json(
            200,
            &json!({"successCount": 8, "failCount": 2, "failedUpdates": {"invalidEmails": ["stranger@example.com"]}}),
        ),
    })
    .await;
    let iterable = iterable(server.url(), Config { bulk_from: 1, ..config() });
    let batch = upserts(&iterable, 10);
    let outcomes = deliver_all(&iterable, &batch).await;
    assert_eq!(words(&outcomes), ["retry vendor_rejected"; 10]);
    assert!(
        outcomes.iter().all(|outcome| matches!(outcome, Outcome::Retry { scope: Scope::Endpoint, .. })),
        "nobody is blamed"
    );
    let again: Vec<_> = batch
        .into_iter()
        .map(|mut delivery| {
            delivery.attempt = 2;
            delivery
        })
        .collect();
    deliver_all(&iterable, &again).await;
    assert!(server.received()[1..].iter().all(|received| received.emails().len() <= 2));
}

#[tokio::test]
async fn an_answer_that_does_not_say_what_became_of_it_delivers_nothing() {
    for body in ["", "{}", "<html>ok</html>", r#"{"code":"Success"}"#] {
        let server =
            Server::start(move |_, _| Reply::Answer { status: 200, headers: Vec::new(), body: body.to_owned() }).await;
        let iterable = iterable(server.url(), config());
        assert_eq!(
            words(&deliver_all(&iterable, &upserts(&iterable, 3)).await),
            ["retry vendor_unavailable"; 3],
            "{body}"
        );
    }
}

// I1: one value of the wrong type fails a whole bulk request.
#[tokio::test]
async fn a_row_of_the_wrong_type_is_quarantined_and_the_others_are_sent_again() {
    let server = Server::start(|received, _| {
        let users = received.body["users"].as_array().unwrap();
        match users.iter().map(|user| &user["dataFields"]["ltv"]).find(|ltv| ltv.is_string()) {
            Some(offending) => mismatch("ltv", offending),
            None => all_good(received),
        }
    })
    .await;
    let iterable = iterable(server.url(), config());
    let wrong = |number: usize| {
        delivery(&iterable, number, &json!({"email": email(number), "dataFields": {"ltv": format!("high {number}")}}))
    };
    let mut batch = upserts(&iterable, 10);
    batch[3] = wrong(3);
    batch[7] = wrong(7);
    let outcomes = deliver_all(&iterable, &batch).await;
    for (index, outcome) in outcomes.iter().enumerate() {
        if matches!(index, 3 | 7) {
            assert_eq!(super::word(outcome), "rejected field_type_mismatch");
            let expected = "dataFields.ltv: expected double, the row has string since table version 12";
            assert!(message(outcome).starts_with(expected), "{}", message(outcome));
        } else {
            assert_eq!(super::word(outcome), "delivered", "{index}");
        }
    }
    assert_eq!(server.received().len(), 2, "located at once");
    // From now on, a row in doubt goes in a request of its own.
    let mut batch = upserts(&iterable, 5);
    batch[2] = wrong(2);
    let outcomes = deliver_all(&iterable, &batch).await;
    assert_eq!(outcomes.iter().filter(|outcome| super::word(outcome) == "delivered").count(), 4);
    let counts: Vec<usize> = server.received()[2..].iter().map(|received| received.emails().len()).collect();
    assert_eq!(counts, [4, 1]);
}

#[tokio::test]
async fn a_refusal_that_names_no_row_is_halved_until_the_row_is_alone() {
    let bad = email(5);
    let server = Server::start({
        let bad = bad.clone();
        move |received, _| {
            if received.emails().contains(&bad) {
                Reply::plain(400, "BadParams", "something is wrong")
            } else {
                all_good(received)
            }
        }
    })
    .await;
    let iterable = iterable(server.url(), config());
    let outcomes = deliver_all(&iterable, &upserts(&iterable, 8)).await;
    for (index, outcome) in outcomes.iter().enumerate() {
        assert_eq!(super::word(outcome), if index == 5 { "rejected vendor_rejected" } else { "delivered" }, "{index}");
    }
    assert!(message(&outcomes[5]).contains("`BadParams`: something is wrong"));
}

#[tokio::test]
async fn the_place_of_a_malformed_value_names_the_row() {
    let server = Server::start(|received, before| {
        if before > 0 {
            return all_good(received);
        }
        let params = json!({"obj.users[1].dataFields": "Object expected"});
        Reply::json(400, &json!({"code": "BadJsonBody", "msg": "Invalid JSON body", "params": params}))
    })
    .await;
    let iterable = iterable(server.url(), config());
    let outcomes = deliver_all(&iterable, &upserts(&iterable, 3)).await;
    assert_eq!(words(&outcomes), ["delivered", "rejected vendor_rejected", "delivered"]);
    assert_eq!(server.received().len(), 2);
}

// I2: fields that the project does not have are dropped in silence.
#[tokio::test]
async fn fields_that_were_not_stored_are_a_remark_on_the_deliveries_that_had_them() {
    let server = Server::start(|received, _| {
        let count = received.body["users"].as_array().unwrap().len();
        Reply::json(200, &json!({"successCount": count, "failCount": 0, "filteredOutFields": ["tier", "prefs.color"]}))
    })
    .await;
    let iterable = iterable(server.url(), Config { create_new_fields: false, ..config() });
    let with = |number: usize, fields: Value| {
        delivery(&iterable, number, &json!({"email": email(number), "dataFields": fields}))
    };
    let batch = [
        with(0, json!({"tier": "gold"})),
        with(1, json!({"ltv": 1})),
        with(2, json!({"tier": 1, "prefs": {"color": "red"}})),
        upsert(&iterable, 3),
    ];
    let outcomes = deliver_all(&iterable, &batch).await;
    assert_eq!(words(&outcomes), ["delivered fields_filtered", "delivered", "delivered fields_filtered", "delivered"]);
    assert!(message(&outcomes[0]).contains("did not store `tier`, which"), "{}", message(&outcomes[0]));
    assert!(
        message(&outcomes[2]).contains("`tier` and `prefs.color`")
            && message(&outcomes[2]).contains("create_new_fields: false")
    );
}

#[tokio::test]
async fn events_go_in_bulk_with_ids_and_are_split_by_their_names() {
    let server = Server::start(|_, _| {
        Reply::json(
            200,
            &json!({"successCount": 2, "failCount": 1, "disallowedEventNames": ["spam"], "failedUpdates": {}}),
        )
    })
    .await;
    let iterable = iterable(server.url(), config());
    let event = |number: usize, name: &str, id: Option<&str>| {
        delivery(
            &iterable,
            number,
            &json!({"email": email(number), "eventName": name, "id": id, "dataFields": {"x": 1}}),
        )
    };
    let batch = [event(0, "order", None), event(1, "spam", None), event(2, "order", Some("o-2"))];
    assert_eq!(words(&deliver_all(&iterable, &batch).await), ["delivered", "rejected event_disallowed", "delivered"]);
    let received = server.received();
    assert_eq!(received[0].path, "/api/events/trackBulk");
    let ids: Vec<&str> =
        received[0].body["events"].as_array().unwrap().iter().map(|event| event["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [batch[0].key.to_string().as_str(), batch[1].key.to_string().as_str(), "o-2"]);
    assert!(ids.iter().all(|id| id.len() <= 512));
}

#[tokio::test]
async fn memberships_go_together_by_list_and_an_unknown_list_refuses_all_of_its_people() {
    let server = Server::start(|received, _| {
        if received.body["listId"] == json!(13) {
            Reply::plain(400, "error.lists.invalidListId", "Invalid list id: 13")
        } else {
            all_good(received)
        }
    })
    .await;
    let iterable = iterable(server.url(), config());
    let membership = |number: usize, operation: &str, list: u64| {
        delivery(&iterable, number, &json!({"_operation": operation, "listId": list, "email": email(number)}))
    };
    let batch = [
        membership(0, "add_to_list", 42),
        membership(1, "remove_from_list", 42),
        membership(2, "add_to_list", 42),
        membership(3, "add_to_list", 13),
        membership(4, "add_to_list", 13),
    ];
    let outcomes = deliver_all(&iterable, &batch).await;
    assert_eq!(
        words(&outcomes),
        ["delivered", "delivered", "delivered", "rejected vendor_rejected", "rejected vendor_rejected"]
    );
    assert!(message(&outcomes[3]).contains("the list `13` is refused"), "{}", message(&outcomes[3]));
    assert_eq!(server.received_at("/api/lists/subscribe").len(), 2);
    let removed = server.received_at("/api/lists/unsubscribe");
    assert_eq!(removed[0].body, json!({"listId": 42, "subscribers": [{"email": email(1)}]}));
}

#[tokio::test]
async fn removing_somebody_who_is_not_there_is_nothing_to_do() {
    let server = Server::start(|_, _| {
        Reply::json(200, &json!({"successCount": 0, "failCount": 1, "failedUpdates": {"notFoundEmails": [email(0)]}}))
    })
    .await;
    let iterable = iterable(server.url(), config());
    let removal = delivery(&iterable, 0, &json!({"_operation": "remove_from_list", "listId": 42, "email": email(0)}));
    assert_eq!(words(&deliver_all(&iterable, &[removal]).await), ["skipped unknown_user"]);
}

#[tokio::test]
async fn catalog_items_go_together_by_catalog() {
    let server = Server::start(|_, _| Reply::plain(202, "Success", "")).await;
    let iterable = iterable(server.url(), config());
    let outputs = [
        json!({"catalogName": "shoes", "itemId": "a", "value": {"price": 1}}),
        json!({"catalogName": "shoes", "itemId": "b", "value": {"price": 2}}),
        json!({"catalogName": "shoes", "itemId": "c", "update": {"price": 3}}),
        json!({"_operation": "delete_catalog_item", "catalogName": "hats", "itemId": "d"}),
    ];
    let batch: Vec<_> =
        outputs.iter().enumerate().map(|(number, output)| delivery(&iterable, number, output)).collect();
    assert_eq!(words(&deliver_all(&iterable, &batch).await), ["delivered"; 4]);
    let mut received = server.received();
    received.sort_by_key(|received| (received.method.clone(), received.body.to_string()));
    let seen: Vec<_> = received
        .iter()
        .map(|received| (received.method.as_str(), received.path.as_str(), received.body.clone()))
        .collect();
    let documents =
        |changed: bool, documents: Value| json!({"replaceUploadedFieldsOnly": changed, "documents": documents});
    assert_eq!(
        seen,
        [
            ("DELETE", "/api/catalogs/hats/items", json!({"itemIds": ["d"]})),
            ("POST", "/api/catalogs/shoes/items", documents(false, json!({"a": {"price": 1}, "b": {"price": 2}}))),
            ("POST", "/api/catalogs/shoes/items", documents(true, json!({"c": {"price": 3}}))),
        ]
    );
}
