use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tailwater_core::code;
use tailwater_core::delivery::{Outcome, Scope};

use super::spec::check_request;
use super::{
    customerio, deliver_all, deliveries, delivery, event, join, owned, reason, relate, upserts, with_create, word,
    words,
};
use crate::customerio::Api;
use crate::destination::Context;
use crate::scripted::{Received, Reply, Server};

const ENTITY: &str = "/api/v2/entity";
const BATCH: &str = "/api/v2/batch";

fn fine(_: &Received, _: usize) -> Reply {
    Reply::json(200, &json!({}))
}

/// The people in a request, by their ids.
fn ids(received: &Received) -> Vec<String> {
    let items = received.body["batch"].as_array().cloned().unwrap_or_else(|| vec![received.body.clone()]);
    items.iter().map(|item| item["identifiers"]["id"].as_str().unwrap_or_default().to_owned()).collect()
}

fn actions(received: &[Received]) -> Vec<Vec<String>> {
    let of = |received: &Received| {
        let items = received.body["batch"].as_array().cloned().unwrap_or_else(|| vec![received.body.clone()]);
        items.iter().map(|item| format!("{} {}", item["type"], item["action"]).replace('"', "")).collect()
    };
    received.iter().map(of).collect()
}

#[tokio::test]
async fn items_of_all_kinds_travel_in_one_request_and_one_goes_alone() {
    let server = Server::start(check_request, fine).await;
    let customerio = customerio(server.url(), Api::Track);
    let mut batch = upserts(&customerio, 3);
    batch.push(event(&customerio, 3));
    assert_eq!(words(&deliver_all(&customerio, &batch, &owned()).await), ["delivered"; 4]);
    assert_eq!(words(&deliver_all(&customerio, &upserts(&customerio, 1), &owned()).await), ["delivered"]);
    let received = server.received();
    assert_eq!(received.iter().map(|one| one.path.as_str()).collect::<Vec<_>>(), [BATCH, ENTITY]);
    assert_eq!(ids(&received[0]), ["0", "1", "2", "3"]);
}

#[tokio::test]
async fn a_batch_stays_below_the_vendors_size() {
    let server = Server::start(check_request, fine).await;
    let customerio = customerio(server.url(), Api::Track);
    let text = "x".repeat(20_000);
    let output = |number: usize| json!({"type": "track", "userId": number, "event": "x", "properties": {"text": text}});
    let batch: Vec<_> = (0..60).map(|number| delivery(&customerio, number, &output(number))).collect();
    assert_eq!(words(&deliver_all(&customerio, &batch, &owned()).await), ["delivered"; 60]);
    let received = server.received();
    assert_eq!(received.len(), 3);
    assert!(received.iter().all(|received| received.body_bytes < 500_000));
}

#[tokio::test]
async fn items_that_a_207_lists_are_rejected_and_all_others_delivered() {
    let server = Server::start(check_request, |_, _| {
        let error = |index: usize| {
            json!({"batch_index": index, "reason": "invalid", "field": "attributes.score", "message": "attribute value cannot be longer than 1000 bytes"})
        };
        Reply::json(207, &json!({"errors": [error(1), error(3)]}))
    })
    .await;
    let customerio = customerio(server.url(), Api::Track);
    let outcomes = deliver_all(&customerio, &upserts(&customerio, 5), &owned()).await;
    assert_eq!(
        words(&outcomes),
        ["delivered", "rejected vendor_rejected", "delivered", "rejected vendor_rejected", "delivered"]
    );
    assert_eq!(
        reason(&outcomes[1]),
        "the vendor says `invalid`: attribute value cannot be longer than 1000 bytes (at attributes.score)"
    );
    assert_eq!(server.received().len(), 1, "a 207 is never repeated");
}

#[tokio::test]
async fn a_207_that_does_not_say_whom_it_means_is_asked_again_in_parts() {
    let server = Server::start(check_request, |received, _| {
        let bad = ids(received).iter().any(|id| id == "2");
        if bad {
            Reply::json(207, &json!({"errors": [{"reason": "invalid", "message": "no"}]}))
        } else {
            fine(received, 0)
        }
    })
    .await;
    let customerio = customerio(server.url(), Api::Track);
    let batch = upserts(&customerio, 5);
    let first = deliver_all(&customerio, &batch, &owned()).await;
    assert_eq!(words(&first), ["retry vendor_rejected"; 5]);
    assert!(matches!(&first[0], Outcome::Retry { scope: Scope::Endpoint, .. }), "nobody is blamed: {first:?}");
    let again: Vec<_> = batch
        .into_iter()
        .map(|mut delivery| {
            delivery.attempt = 2;
            delivery
        })
        .collect();
    let second = deliver_all(&customerio, &again, &owned()).await;
    assert_eq!(word(&second[2]), "rejected vendor_rejected");
    assert_eq!(words(&second).iter().filter(|word| *word == "delivered").count(), 4);
}

#[tokio::test]
async fn an_item_that_spoils_its_request_is_found_and_the_others_are_delivered() {
    for api in [Api::Track, Api::Pipelines] {
        let server = Server::start(check_request, |received, _| {
            if received.body.to_string().contains(r#""score":6"#) {
                Reply::json(400, &json!({"errors": [{"reason": "malformed", "message": "the request is malformed"}]}))
            } else {
                fine(received, 0)
            }
        })
        .await;
        let customerio = customerio(server.url(), api);
        let outcomes = deliver_all(&customerio, &upserts(&customerio, 9), &owned()).await;
        for (number, outcome) in outcomes.iter().enumerate() {
            assert_eq!(word(outcome), if number == 6 { "rejected vendor_rejected" } else { "delivered" }, "{number}");
        }
        assert!(reason(&outcomes[6]).contains("malformed"), "{:?}", outcomes[6]);
    }
}

#[tokio::test]
async fn a_refusal_that_names_its_items_costs_one_more_request() {
    let server = Server::start(check_request, |received, _| match ids(received).iter().position(|id| id == "4") {
        Some(index) => {
            Reply::json(400, &json!({"errors": [{"batch_index": index, "reason": "invalid", "message": "no"}]}))
        }
        None => fine(received, 0),
    })
    .await;
    let customerio = customerio(server.url(), Api::Track);
    let outcomes = deliver_all(&customerio, &upserts(&customerio, 6), &owned()).await;
    assert_eq!(word(&outcomes[4]), "rejected vendor_rejected");
    assert_eq!(server.received().len(), 2);
}

#[tokio::test]
async fn an_object_exists_before_the_first_relationship_to_it_is_sent() {
    let server = Server::start(check_request, fine).await;
    let customerio = customerio(server.url(), Api::Track);
    let account = json!({"type": "object", "identifiers": {"object_type_id": "1", "object_id": "acme"}, "action": "identify", "attributes": {"plan": "pro"}});
    let mut batch =
        vec![relate(&customerio, 0, "acme"), relate(&customerio, 1, "beta"), delivery(&customerio, 2, &account)];
    assert_eq!(words(&deliver_all(&customerio, &batch, &owned()).await), ["delivered"; 3]);
    let received = server.received();
    assert_eq!(
        actions(&received),
        [vec!["object identify"], vec!["object identify"], vec!["person add_relationships"; 2]]
    );
    assert_eq!(received[0].body["attributes"], json!({"plan": "pro"}));
    assert_eq!(received[1].body["identifiers"], json!({"object_type_id": "1", "object_id": "beta"}));
    assert_eq!(received[1].body["attributes"], json!({}));
    // Objects that were sent lately are known to exist.
    batch = vec![relate(&customerio, 3, "acme"), relate(&customerio, 4, "beta")];
    assert_eq!(words(&deliver_all(&customerio, &batch, &owned()).await), ["delivered"; 2]);
    assert_eq!(actions(&server.received()[3..]), [vec!["person add_relationships"; 2]]);
    // Until they are deleted.
    let delete =
        json!({"type": "object", "identifiers": {"object_type_id": "1", "object_id": "acme"}, "action": "delete"});
    deliver_all(&customerio, &[delivery(&customerio, 5, &delete)], &owned()).await;
    deliver_all(&customerio, &[relate(&customerio, 6, "acme")], &owned()).await;
    assert_eq!(
        actions(&server.received()[4..]),
        [["object delete"], ["object identify"], ["person add_relationships"]]
    );
}

#[tokio::test]
async fn an_object_that_is_refused_gets_no_relationship() {
    let server = Server::start(check_request, |received, _| match received.body["type"].as_str() {
        Some("object") => Reply::json(
            400,
            &json!({"errors": [{"reason": "invalid", "field": "object_type_id", "message": "no such type"}]}),
        ),
        _ => fine(received, 0),
    })
    .await;
    let customerio = customerio(server.url(), Api::Track);
    let outcomes = deliver_all(&customerio, &[relate(&customerio, 0, "acme")], &owned()).await;
    assert!(reason(&outcomes[0]).contains("no such type"), "{outcomes:?}");
    assert_eq!(actions(&server.received()), [["object identify"]]);
}

// The vendor does nothing, and says nothing, where the primary person does not exist.
#[tokio::test]
async fn the_person_who_remains_exists_before_a_merge() {
    let output = |number: usize| json!({"type": "person", "action": "merge", "primary": {"id": number}, "secondary": {"email": super::email(number)}});
    let server = Server::start(check_request, fine).await;
    let creating = customerio(server.url(), Api::Track);
    assert_eq!(words(&deliver_all(&creating, &[delivery(&creating, 7, &output(7))], &owned()).await), ["delivered"]);
    assert_eq!(actions(&server.received()), [["person identify"], ["person merge"]]);
    let careful = with_create(server.url(), Api::Track, false);
    let outcomes = deliver_all(&careful, &[delivery(&careful, 8, &output(8))], &owned()).await;
    assert_eq!(words(&outcomes), ["delivered delivered_in_part"]);
    assert!(reason(&outcomes[0]).contains("does not know the primary person"), "{outcomes:?}");
    assert_eq!(server.received().len(), 3);
}

#[tokio::test]
async fn people_of_a_segment_go_together_by_direction_and_a_thousand_at_a_time() {
    let server = Server::start(check_request, fine).await;
    let customerio = customerio(server.url(), Api::Track);
    let mut batch: Vec<_> = (0..1_001).map(|number| join(&customerio, number, 7)).collect();
    batch.push(join(&customerio, 1_001, 8));
    batch.push(delivery(
        &customerio,
        1_002,
        &json!({"_operation": "remove_from_list", "segment_id": 7, "ids": [1_002]}),
    ));
    let by_email = json!({"_operation": "add_to_list", "segment_id": 7, "identifiers": {"email": super::email(1_003)}});
    batch.push(delivery(&customerio, 1_003, &by_email));
    let outcomes = deliver_all(&customerio, &batch, &owned()).await;
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Delivered));
    let mut shown: Vec<_> = server
        .received()
        .iter()
        .map(|one| {
            format!("{}?id_type={} {}", one.path, one.query["id_type"], one.body["ids"].as_array().unwrap().len())
        })
        .collect();
    shown.sort_unstable();
    assert_eq!(
        shown,
        [
            "/api/v1/segments/7/add_customers?id_type=email 1",
            "/api/v1/segments/7/add_customers?id_type=id 1",
            "/api/v1/segments/7/add_customers?id_type=id 1000",
            "/api/v1/segments/7/remove_customers?id_type=id 1",
            "/api/v1/segments/8/add_customers?id_type=id 1",
        ]
    );
}

#[tokio::test]
async fn a_segment_that_cannot_be_changed_is_named() {
    for status in [400, 404] {
        let server = Server::start(check_request, move |_, _| {
            Reply::json(status, &json!({"meta": {"errors": ["segment is not a manual segment"]}}))
        })
        .await;
        let customerio = customerio(server.url(), Api::Track);
        let batch: Vec<_> = (0..4).map(|number| join(&customerio, number, 7)).collect();
        let outcomes = deliver_all(&customerio, &batch, &owned()).await;
        assert_eq!(words(&outcomes), ["rejected vendor_rejected"; 4]);
        assert!(reason(&outcomes[0]).contains("the segment `7` could not be changed"), "{outcomes:?}");
        assert_eq!(server.received().len(), 1);
    }
}

#[tokio::test]
async fn what_was_left_out_or_converted_is_said_with_the_delivery() {
    let server = Server::start(check_request, fine).await;
    let customerio = customerio(server.url(), Api::Track);
    let late = json!({"type": "track", "userId": 0, "event": "x", "timestamp": 1_772_352_000_267_i64});
    let batch = vec![delivery(&customerio, 0, &late), event(&customerio, 1)];
    let outcomes = deliver_all(&customerio, &batch, &owned()).await;
    assert_eq!(words(&outcomes), ["delivered delivered_in_part", "delivered"]);
    assert!(reason(&outcomes[0]).contains("counts milliseconds"), "{outcomes:?}");
}

// Facts §4, C3: without strict mode the vendor answers 200 to what it drops.
#[tokio::test]
async fn the_pipelines_api_is_asked_in_strict_mode_and_contexts_do_not_mix() {
    let server = Server::start(check_request, fine).await;
    let customerio = customerio(server.url(), Api::Pipelines);
    let mut batch = upserts(&customerio, 2);
    let with_context = json!({"type": "track", "userId": 2, "event": "x", "context": {"ip": "8.8.8.8"}});
    batch.push(delivery(&customerio, 2, &with_context));
    batch.extend(deliveries(
        &customerio,
        3,
        &json!({"type": "group", "userId": 3, "groupId": "acme", "traits": {"plan": "pro"}}),
    ));
    batch.push(delivery(&customerio, 4, &json!({"type": "track", "userId": 4, "event": "User Deleted"})));
    assert_eq!(words(&deliver_all(&customerio, &batch, &owned()).await), ["delivered"; 6]);
    let received = server.received();
    assert!(received.iter().all(|received| received.headers["x-strict-mode"] == "1"));
    let alone = server.received_at("/v1/track");
    assert_eq!(alone.len(), 1);
    assert_eq!(alone[0].body["context"], json!({"ip": "8.8.8.8"}));
    assert!(received.iter().filter(|one| one.path == "/v1/batch").all(|one| !one.body.to_string().contains("context")));
}

#[tokio::test]
async fn a_repeated_event_has_the_id_of_the_first_time() {
    let server = Server::start(check_request, fine).await;
    let customerio = customerio(server.url(), Api::Track);
    for _ in 0..2 {
        deliver_all(&customerio, &[event(&customerio, 1)], &owned()).await;
    }
    deliver_all(&customerio, &[event(&customerio, 2)], &owned()).await;
    let ids: Vec<Value> = server.received().iter().map(|received| received.body["id"].clone()).collect();
    assert_eq!(ids[0], ids[1]);
    assert_ne!(ids[0], ids[2]);
}

#[tokio::test]
async fn a_refused_key_pauses_and_names_no_secret() {
    let server = Server::start(check_request, |_, _| {
        Reply::json(401, &json!({"meta": {"error": format!("no key {}", super::KEY)}}))
    })
    .await;
    let customerio = customerio(server.url(), Api::Track);
    let outcomes = deliver_all(&customerio, &upserts(&customerio, 3), &owned()).await;
    for outcome in &outcomes {
        let Outcome::Retry { scope: Scope::Credentials, reason, .. } = outcome else { panic!("{outcome:?}") };
        assert_eq!(reason.code, code::UNAUTHORIZED);
        assert!(!reason.message.contains("0123456789"), "{}", reason.message);
    }
    assert!(!format!("{customerio:?}").contains("0123456789"));
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_names_the_region() {
    let elsewhere = Server::start(check_request, fine).await;
    let server = Server::start(check_request, |_, _| {
        Reply::json(307, &Value::Null).header("location", "https://track-eu.customer.io/api/v2/entity")
    })
    .await;
    let customerio = customerio(server.url(), Api::Track);
    let outcomes = deliver_all(&customerio, &upserts(&customerio, 1), &owned()).await;
    assert!(matches!(&outcomes[0], Outcome::Retry { scope: Scope::Credentials, .. }), "{outcomes:?}");
    assert!(reason(&outcomes[0]).contains("write `region: eu`"), "{outcomes:?}");
    assert!(elsewhere.received().is_empty());
}

#[tokio::test]
async fn a_vendor_in_trouble_is_waited_for_as_long_as_it_asks() {
    let server = Server::start(check_request, |_, _| Reply::json(429, &json!({})).header("retry-after", "7")).await;
    let customerio = customerio(server.url(), Api::Track);
    let outcomes = deliver_all(&customerio, &upserts(&customerio, 2), &owned()).await;
    let Outcome::Retry { after: Some(after), scope: Scope::Endpoint, reason } = &outcomes[0] else {
        panic!("{outcomes:?}")
    };
    assert_eq!(reason.code, code::RATE_LIMITED);
    assert!(*after >= Duration::from_secs(6), "{after:?}");

    for status in [408, 500, 502, 503, 504, 522, 524] {
        let server = Server::start(check_request, move |_, _| Reply::json(status, &Value::Null)).await;
        let customerio = super::customerio(server.url(), Api::Track);
        let outcomes = deliver_all(&customerio, &upserts(&customerio, 2), &owned()).await;
        assert_eq!(words(&outcomes), ["retry vendor_unavailable"; 2], "{status}");
    }
    let server = Server::start(check_request, |_, _| Reply::Disconnect).await;
    let customerio = super::customerio(server.url(), Api::Track);
    let outcomes = deliver_all(&customerio, &upserts(&customerio, 2), &owned()).await;
    assert_eq!(words(&outcomes), ["retry vendor_unavailable"; 2]);
}

#[tokio::test]
async fn nothing_is_sent_once_the_partition_is_lost() {
    let server = Server::start(check_request, fine).await;
    let customerio = customerio(server.url(), Api::Track);
    let context = Context { still_owned: &|| false };
    assert_eq!(words(&deliver_all(&customerio, &upserts(&customerio, 3), &context).await), ["retry not_owned"; 3]);
    assert!(server.received().is_empty());
    // Lost between the object and its relationship.
    let (owned, asked) = (AtomicBool::new(true), AtomicUsize::new(0));
    let still_owned = || {
        if asked.fetch_add(1, Ordering::SeqCst) > 0 && !server.received().is_empty() {
            owned.store(false, Ordering::SeqCst);
        }
        owned.load(Ordering::SeqCst)
    };
    let context = Context { still_owned: &still_owned };
    let outcomes = deliver_all(&customerio, &[relate(&customerio, 1, "acme")], &context).await;
    assert_eq!(words(&outcomes), ["retry not_owned"]);
    assert_eq!(actions(&server.received()), [["object identify"]]);
}

#[tokio::test]
async fn what_another_version_or_another_api_recorded_is_rejected_with_a_reason() {
    let server = Server::start(check_request, fine).await;
    let track = customerio(server.url(), Api::Track);
    let pipelines = customerio(server.url(), Api::Pipelines);
    let mut odd = upserts(&track, 1);
    odd[0].operation.body = serde_json::value::RawValue::from_string("[]".to_owned()).unwrap();
    let outcomes = deliver_all(&track, &odd, &owned()).await;
    assert_eq!(words(&outcomes), ["rejected output_invalid"]);
    let merge =
        json!({"type": "person", "action": "merge", "primary": {"id": 1}, "secondary": {"email": super::email(1)}});
    let batch = [join(&track, 0, 7), delivery(&track, 1, &merge)];
    assert_eq!(words(&deliver_all(&pipelines, &batch, &owned()).await), ["rejected output_invalid"; 2]);
    // What both APIs can say waits for either.
    assert_eq!(words(&deliver_all(&pipelines, &upserts(&track, 2), &owned()).await), ["delivered"; 2]);
    assert_eq!(server.received().len(), 1);
}
