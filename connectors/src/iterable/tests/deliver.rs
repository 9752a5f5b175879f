//! Single requests, waiting for what must be effective, people whom the vendor does not know, and trouble of the account.

use std::time::Duration;

use serde_json::{Value, json};
use tailwater_core::delivery::{Outcome, Scope};

use super::server::{Reply, Server};
use super::{config, deliver_all, deliveries, delivery, email, iterable, message, upsert, upserts, words};
use crate::destination::{Context, Destination};
use crate::iterable::Config;
use crate::iterable::person::Identity;
use crate::outcomes::Outcomes;

#[tokio::test]
async fn every_operation_has_its_request() {
    let server = Server::start(|received, _| match received.path.as_str() {
        "/api/lists/subscribe" => Reply::json(200, &json!({"successCount": 1, "failCount": 0})),
        _ => Reply::success(),
    })
    .await;
    let iterable = iterable(server.url(), Config { bulk_from: 100, ..config() });
    let (new, old) = (email(0), "old0@example.com");
    let item = json!({"id": "1", "name": "Tea", "price": 1, "quantity": 1});
    let cases = [
        (json!({"email": new, "dataFields": {"x": 1}}), "POST /api/users/update"),
        (json!({"email": new, "eventName": "order"}), "POST /api/events/track"),
        (json!({"user": {"email": new}, "items": [item], "total": 1}), "POST /api/commerce/trackPurchase"),
        (json!({"user": {"email": new}, "items": [item]}), "POST /api/commerce/updateCart"),
        (json!({"_operation": "add_to_list", "listId": 1, "email": new}), "POST /api/lists/subscribe"),
        (json!({"currentEmail": old, "newEmail": new}), "POST /api/users/updateEmail"),
        (json!({"sourceEmail": old, "destinationEmail": new}), "POST /api/users/merge"),
        (json!({"_operation": "delete_profile", "email": new}), "DELETE /api/users/person0%40example.com"),
        (json!({"_operation": "suppress", "email": new}), "POST /api/users/forget"),
        (json!({"_operation": "unsuppress", "email": new}), "POST /api/users/unforget"),
        (json!({"email": new, "unsubscribedChannelIds": [1]}), "POST /api/users/updateSubscriptions"),
        (
            json!({"_operation": "subscribe", "email": new, "subscriptionGroup": "messageChannel", "subscriptionGroupId": 9}),
            "PATCH /api/subscriptions/messageChannel/9/user/person0%40example.com",
        ),
        (
            json!({"_operation": "unsubscribe", "email": new, "subscriptionGroup": "messageType", "subscriptionGroupId": 9}),
            "DELETE /api/subscriptions/messageType/9/user/person0%40example.com",
        ),
    ];
    for (output, expected) in cases {
        let delivery = delivery(&iterable, 0, &output);
        assert!(iterable.spec().supported(delivery.operation.kind).is_ok());
        assert_eq!(words(&deliver_all(&iterable, std::slice::from_ref(&delivery)).await), ["delivered"], "{output}");
        let last = server.received().pop().unwrap();
        assert_eq!(format!("{} {}", last.method, last.path), expected);
        let planned = iterable.plan(std::slice::from_ref(&delivery));
        assert_eq!(planned[0].body, if last.body.is_null() { String::new() } else { planned[0].body.clone() });
        assert!(planned[0].url.ends_with(&last.path), "{planned:?}");
        assert_eq!(planned[0].headers[0], ("api-key".to_owned(), "…4f2a".to_owned()));
    }
}

#[tokio::test]
async fn an_event_has_the_deliverys_key_as_its_id_unless_the_author_gave_one() {
    let server = Server::start(|_, _| Reply::success()).await;
    let iterable = iterable(server.url(), config());
    let event = |id: Value| delivery(&iterable, 0, &json!({"email": email(0), "eventName": "order", "id": id}));
    let purchase = delivery(&iterable, 0, &json!({"user": {"email": email(0)}, "items": [], "total": 1}));
    for delivery in [event(json!(null)), event(json!("o-1")), purchase.clone()] {
        deliver_all(&iterable, &[delivery]).await;
    }
    let ids: Vec<Value> = server.received().iter().map(|received| received.body["id"].clone()).collect();
    assert_eq!(ids, [json!(event(json!(null)).key.to_string()), json!("o-1"), json!(purchase.key.to_string())]);
}

#[tokio::test]
async fn refusals_of_one_person_have_codes_of_their_own() {
    let cases = [
        (400, "InvalidEmailAddressError", "Invalid email: x", "rejected vendor_rejected"),
        (409, "ForgottenUserError", "forgotten", "rejected forgotten_user"),
        (409, "EmailAlreadyExists", "exists", "rejected duplicate_profile"),
        (400, "UnknownUserIdError", "unknown", "rejected unknown_user"),
        (200, "Success", "Event spam is disallowed from tracking", "rejected event_disallowed"),
        (400, "UniqueFieldsLimitExceeded", "too many fields", "rejected vendor_rejected"),
        (413, "BatchTooLarge", "too large", "rejected payload_too_large"),
    ];
    for (status, code, text, expected) in cases {
        let server = Server::start(move |_, _| Reply::plain(status, code, text)).await;
        let iterable = iterable(server.url(), config());
        let outcomes = deliver_all(&iterable, &[upsert(&iterable, 0)]).await;
        assert_eq!(words(&outcomes), [expected], "{code}");
        assert!(message(&outcomes[0]).contains(text), "{}", message(&outcomes[0]));
    }
}

#[tokio::test]
async fn a_single_row_of_the_wrong_type_says_what_was_expected() {
    let server = Server::start(|_, _| {
        let params = json!({"validationErrors": {"signupDate": {"incomingTypes": ["string", "keyword"], "expectedType": "date",
            "_type": "UnexpectedType", "offendingValue": "GGG", "category": "user"}}});
        Reply::json(400, &json!({"code": "RequestFieldsTypesMismatched", "msg": "Project 1: no", "params": params}))
    })
    .await;
    let iterable = iterable(server.url(), config());
    let wrong = delivery(&iterable, 0, &json!({"email": email(0), "dataFields": {"signupDate": "GGG"}}));
    let outcomes = deliver_all(&iterable, &[wrong]).await;
    assert_eq!(words(&outcomes), ["rejected field_type_mismatch"]);
    assert!(
        message(&outcomes[0])
            .starts_with("dataFields.signupDate: expected date, the row has string since table version 12")
    );
}

#[tokio::test]
async fn fields_that_a_single_update_lost_are_a_remark() {
    let server = Server::start(|_, _| {
        Reply::json(200, &json!({"code": "Success", "msg": "", "params": {"filteredOutFields": ["ltv"]}}))
    })
    .await;
    let iterable = iterable(server.url(), config());
    assert_eq!(words(&deliver_all(&iterable, &[upsert(&iterable, 0)]).await), ["delivered fields_filtered"]);
}

#[tokio::test]
async fn a_page_of_a_proxy_is_no_success() {
    for body in ["<html>hi</html>", "", "null", "[]", r#"{"code":7}"#] {
        let server =
            Server::start(move |_, _| Reply::Answer { status: 200, headers: Vec::new(), body: body.to_owned() }).await;
        let iterable = iterable(server.url(), config());
        let item = delivery(&iterable, 0, &json!({"catalogName": "shoes", "itemId": "a", "value": {}}));
        let outcomes = deliver_all(&iterable, &[upsert(&iterable, 0)]).await;
        assert_eq!(words(&outcomes), ["retry vendor_unavailable"], "{body}");
        let expected = if body.is_empty() { "delivered" } else { "retry vendor_unavailable" };
        assert_eq!(words(&deliver_all(&iterable, &[item]).await), [expected], "{body}");
    }
}

// I4: single and bulk calls are processed separately.
#[tokio::test]
async fn whoever_was_written_lately_stays_with_the_same_kind_of_call() {
    let server = Server::start(|received, _| match received.body["users"].as_array() {
        Some(users) => Reply::json(200, &json!({"successCount": users.len(), "failCount": 0})),
        None => Reply::success(),
    })
    .await;
    let iterable = iterable(server.url(), Config { settle: Duration::from_secs(60), ..config() });
    deliver_all(&iterable, &[upsert(&iterable, 0)]).await;
    deliver_all(&iterable, &upserts(&iterable, 5)).await;
    deliver_all(&iterable, &[upsert(&iterable, 4)]).await;
    let paths: Vec<_> = server
        .received()
        .iter()
        .map(|received| (received.path.clone(), received.body["users"].as_array().map(Vec::len)))
        .collect();
    let (single, bulk) = ("/api/users/update".to_owned(), "/api/users/bulkUpdate".to_owned());
    assert_eq!(paths[0], (single.clone(), None));
    let mut second = paths[1..3].to_vec();
    second.sort();
    assert_eq!(second, [(bulk.clone(), Some(4)), (single, None)], "person 0 stays with single calls");
    assert_eq!(paths[3], (bulk, Some(1)), "person 4 stays with bulk calls");
    let cart = delivery(&iterable, 4, &json!({"user": {"email": email(4)}, "items": []}));
    let outcomes = deliver_all(&iterable, &[cart]).await;
    assert_eq!(words(&outcomes), ["retry not_effective"]);
    let Outcome::Retry { after: Some(after), scope: Scope::Endpoint, .. } = &outcomes[0] else {
        panic!("{outcomes:?}")
    };
    assert!(*after > Duration::from_secs(55) && *after <= Duration::from_secs(60), "{after:?}");
    assert_eq!(server.received().len(), 4);
}

#[tokio::test]
async fn a_list_waits_until_the_update_before_it_is_effective() {
    let server = Server::start(|received, _| match received.path.as_str() {
        "/api/lists/subscribe" => Reply::json(200, &json!({"successCount": 1, "failCount": 0})),
        _ => Reply::success(),
    })
    .await;
    let iterable = iterable(server.url(), Config { settle: Duration::from_millis(300), ..config() });
    let output = json!({"_operation": "add_to_list", "listId": 1, "subscribers": [{"email": email(0), "dataFields": {"churn": 0.8}}]});
    let made = deliveries(&iterable, 0, &output);
    assert_eq!(words(&deliver_all(&iterable, &made[..1]).await), ["delivered"]);
    let outcomes = deliver_all(&iterable, &made[1..]).await;
    assert_eq!(words(&outcomes), ["retry not_effective"]);
    let Outcome::Retry { after: Some(after), .. } = outcomes[0] else { panic!("{outcomes:?}") };
    tokio::time::sleep(after).await;
    assert_eq!(words(&deliver_all(&iterable, &made[1..]).await), ["delivered"]);
    // Partitions that come from another process bring people who may have been updated just now.
    iterable.set_share(1.0);
    let other = delivery(&iterable, 1, &json!({"_operation": "add_to_list", "listId": 1, "email": email(1)}));
    let outcomes = deliver_all(&iterable, &[other]).await;
    assert!(message(&outcomes[0]).contains("before this process began"), "{outcomes:?}");
}

#[tokio::test]
async fn nobody_is_created_who_is_not_known() {
    let server =
        Server::start(|received, _| match (received.path.as_str(), received.query.get("email").map(String::as_str)) {
            ("/api/users/getByEmail", Some("person1@example.com")) => {
                Reply::json(200, &json!({"user": {"email": "person1@example.com", "dataFields": {}}}))
            }
            ("/api/users/getByEmail", Some("person2@example.com")) => {
                Reply::plain(400, "InvalidEmailAddressError", "bad")
            }
            ("/api/users/getByEmail", _) => Reply::json(200, &json!({})),
            _ => Reply::success(),
        })
        .await;
    let iterable = iterable(server.url(), Config { create: false, bulk_from: 100, ..config() });
    let event = delivery(&iterable, 3, &json!({"email": email(3), "eventName": "order"}));
    let batch = [upsert(&iterable, 0), upsert(&iterable, 1), upsert(&iterable, 2), event];
    let expected = ["skipped would_create", "delivered", "rejected vendor_rejected", "skipped would_create"];
    assert_eq!(words(&deliver_all(&iterable, &batch).await), expected);
    assert_eq!(server.received_at("/api/users/update").len(), 1);
    assert_eq!(server.received_at("/api/users/getByEmail").len(), 4);
    deliver_all(&iterable, &batch[1..2]).await;
    assert_eq!(server.received_at("/api/users/getByEmail").len(), 4, "whoever was found is remembered");
    let planned = iterable.plan(&batch[..1]);
    assert_eq!(planned.iter().map(|planned| planned.method).collect::<Vec<_>>(), ["GET", "POST"]);
}

#[tokio::test]
async fn nobody_unknown_is_put_on_a_list() {
    let server =
        Server::start(|received, _| match (received.path.as_str(), received.query.get("userId").map(String::as_str)) {
            ("/api/users/byUserId", Some("u-1")) => Reply::json(200, &json!({})),
            ("/api/users/byUserId", _) => Reply::json(200, &json!({"user": {"email": "x@example.com"}})),
            _ => Reply::json(
                200,
                &json!({"successCount": 1, "failCount": 1, "failedUpdates": {"notFoundUserIds": ["u-2"]}}),
            ),
        })
        .await;
    let iterable = iterable(server.url(), Config { create: false, identity: Identity::UserId, ..config() });
    let add = |number: usize| {
        delivery(&iterable, number, &json!({"_operation": "add_to_list", "listId": 7, "userId": format!("u-{number}")}))
    };
    let outcomes = deliver_all(&iterable, &[add(0), add(1), add(2)]).await;
    assert_eq!(words(&outcomes), ["delivered", "skipped would_create", "skipped would_create"]);
    assert_eq!(server.received_at("/api/lists/subscribe")[0].body["updateExistingUsersOnly"], json!(true));
}

#[tokio::test]
async fn a_change_of_address_that_was_made_before_is_recognized() {
    let server = Server::start(|received, _| match received.path.as_str() {
        "/api/users/getByEmail" => Reply::json(200, &json!({"user": {"email": email(0)}})),
        _ => Reply::plain(400, "BadParams", "Cannot change user. User does not exist"),
    })
    .await;
    let iterable = iterable(server.url(), config());
    let change = delivery(&iterable, 0, &json!({"currentEmail": "old0@example.com", "newEmail": email(0)}));
    let merge = delivery(&iterable, 0, &json!({"sourceEmail": "old0@example.com", "destinationEmail": email(0)}));
    assert_eq!(words(&deliver_all(&iterable, &[change]).await), ["delivered delivered_in_part"]);
    assert_eq!(words(&deliver_all(&iterable, &[merge]).await), ["delivered delivered_in_part"]);
    let gone = delivery(&iterable, 0, &json!({"_operation": "delete_profile", "email": email(0)}));
    assert_eq!(words(&deliver_all(&iterable, &[gone]).await), ["skipped unknown_user"]);
}

#[tokio::test]
async fn the_vendors_wish_to_wait_is_obeyed_for_its_endpoint_alone() {
    let server = Server::start(|received, _| match received.path.as_str() {
        "/api/users/update" => Reply::plain(429, "RateLimitExceeded", "Exceeded rate limit").header("retry-after", "7"),
        _ => Reply::success(),
    })
    .await;
    let iterable = iterable(server.url(), config());
    let event = delivery(&iterable, 1, &json!({"email": email(1), "eventName": "order"}));
    let outcomes = deliver_all(&iterable, &[upsert(&iterable, 0), event]).await;
    assert_eq!(words(&outcomes), ["retry rate_limited", "delivered"]);
    let Outcome::Retry { after: Some(after), scope: Scope::Endpoint, .. } = outcomes[0] else { panic!("{outcomes:?}") };
    assert!(after >= Duration::from_secs(6), "{after:?}");
}

#[tokio::test]
async fn a_refused_key_pauses_the_account_and_shows_no_part_of_it() {
    for (status, code) in [(401, "BadApiKey"), (400, "BadAuthorizationHeader"), (403, "Forbidden")] {
        let server =
            Server::start(move |_, _| Reply::plain(status, code, &format!("Invalid key {}", super::KEY))).await;
        let iterable = iterable(server.url(), config());
        let outcomes = deliver_all(&iterable, &[upsert(&iterable, 0)]).await;
        assert!(matches!(&outcomes[0], Outcome::Retry { scope: Scope::Credentials, .. }), "{outcomes:?}");
        assert!(!message(&outcomes[0]).contains("0123456789"), "{}", message(&outcomes[0]));
        assert!(iterable.probe().await.is_err());
    }
}

#[tokio::test]
async fn a_probe_changes_nothing_and_learns_the_types_of_fields() {
    let server = Server::start(|received, _| match received.path.as_str() {
        "/api/users/getFields" => Reply::json(200, &json!({"fields": {"ltv": "double", "tier": "string"}})),
        _ => Reply::json(200, &json!({"successCount": 1, "failCount": 0})),
    })
    .await;
    let iterable = iterable(server.url(), Config { bulk_from: 1, ..config() });
    iterable.probe().await.unwrap();
    assert!(server.received().iter().all(|received| received.method == "GET"));
    let wrong = delivery(&iterable, 9, &json!({"email": email(9), "dataFields": {"ltv": "high"}}));
    let mut batch = upserts(&iterable, 3);
    batch.push(wrong);
    deliver_all(&iterable, &batch).await;
    let counts: Vec<usize> =
        server.received_at("/api/users/bulkUpdate").iter().map(|received| received.emails().len()).collect();
    assert_eq!(counts, [3, 1], "the row in doubt goes by itself");
}

#[tokio::test]
async fn nothing_is_sent_for_partitions_that_were_lost() {
    let server = Server::start(|_, _| Reply::success()).await;
    let iterable = iterable(server.url(), config());
    let batch = upserts(&iterable, 5);
    let outcomes = Outcomes::new(batch.len(), |_, outcome| {
        assert!(
            matches!(outcome, Outcome::Retry { reason, .. } if reason.code == tailwater_core::code::NOT_OWNED),
            "{outcome:?}"
        );
    });
    iterable.deliver(&batch, &outcomes, &Context { still_owned: &|| false }).await;
    assert_eq!(outcomes.finish(), 0);
    assert!(server.received().is_empty());
}

#[tokio::test]
async fn an_outage_blames_nobody() {
    let server = Server::start(|_, _| Reply::Disconnect).await;
    let iterable = iterable(server.url(), config());
    for outcome in deliver_all(&iterable, &upserts(&iterable, 6)).await {
        assert!(matches!(outcome, Outcome::Retry { scope: Scope::Endpoint | Scope::Account, .. }), "{outcome:?}");
    }
}

#[tokio::test]
async fn the_person_of_an_event_is_created_where_that_is_allowed() {
    let server = Server::start(|received, before| match (received.path.as_str(), before) {
        ("/api/events/track", 0) => Reply::plain(400, "UnknownEmailError", "unknown"),
        _ => Reply::success(),
    })
    .await;
    let iterable = iterable(server.url(), config());
    let mut event = delivery(&iterable, 0, &json!({"email": email(0), "eventName": "order"}));
    assert_eq!(words(&deliver_all(&iterable, std::slice::from_ref(&event)).await), ["retry not_effective"]);
    event.attempt = 2;
    assert_eq!(words(&deliver_all(&iterable, &[event]).await), ["delivered"]);
    let paths: Vec<String> = server.received().iter().map(|received| received.path.clone()).collect();
    assert_eq!(paths, ["/api/events/track", "/api/users/update", "/api/events/track"]);
    assert_eq!(server.received()[1].body["email"], json!(email(0)));
}

#[tokio::test]
async fn an_event_of_somebody_who_stays_unknown_ends() {
    let server = Server::start(|received, _| match received.path.as_str() {
        "/api/events/track" => Reply::plain(400, "UnknownEmailError", "unknown"),
        _ => Reply::success(),
    })
    .await;
    let iterable = iterable(server.url(), config());
    let mut event = delivery(&iterable, 0, &json!({"email": email(0), "eventName": "order"}));
    for (attempt, expected) in [(1, "retry not_effective"), (2, "rejected unknown_user")] {
        event.attempt = attempt;
        assert_eq!(words(&deliver_all(&iterable, std::slice::from_ref(&event)).await), [expected]);
    }
}

// I2: the answer to a single update does not name what was dropped.
#[tokio::test]
async fn fields_that_the_project_does_not_have_are_a_remark_on_single_updates() {
    let server = Server::start(|received, _| match received.path.as_str() {
        "/api/users/getFields" => Reply::json(200, &json!({"fields": {"tier": "string"}})),
        "/api/events/trackBulk" => {
            Reply::json(200, &json!({"successCount": 1, "failCount": 0, "filteredOutFields": ["x"]}))
        }
        _ => Reply::success(),
    })
    .await;
    let iterable = iterable(server.url(), Config { create_new_fields: false, ..config() });
    let tier = delivery(&iterable, 1, &json!({"email": email(1), "dataFields": {"tier": "gold"}}));
    let outcomes = deliver_all(&iterable, &[upsert(&iterable, 0), tier]).await;
    assert_eq!(words(&outcomes), ["delivered fields_filtered", "delivered"]);
    assert!(message(&outcomes[0]).contains("did not store `ltv`"), "{}", message(&outcomes[0]));
    deliver_all(&iterable, &[upsert(&iterable, 2)]).await;
    assert_eq!(server.received_at("/api/users/getFields").len(), 1, "asked once a minute");
    let event = delivery(&iterable, 3, &json!({"email": email(3), "eventName": "order", "dataFields": {"x": 1}}));
    assert_eq!(words(&deliver_all(&iterable, &[event]).await), ["delivered fields_filtered"], "in bulk, which tells");
}
