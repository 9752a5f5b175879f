//! The whole destination against the simulator, which was built from the vendor's documents by other hands and knows nothing of this
//! crate: what arrives there is what counts.

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use serde_json::{Value, json};
use tailwater_core::delivery::{Delivery, Outcome, Scope};
use tailwater_simulators::engine::{Disconnect, Effect, Prescription};
use tailwater_simulators::iterable::{self as vendor, Options, Simulator};

use super::{KEY, config, deliver_all, deliveries, delivery, email, iterable, message, upserts, word, words};
use crate::destination::Destination;
use crate::iterable::person::Identity;
use crate::iterable::{Config, Iterable};

const LIST: u64 = 7;

fn options() -> Options {
    Options {
        api_key: KEY.to_owned(),
        limits: false,
        bulk_delay: Duration::from_millis(300),
        lists: vec![(LIST.to_string(), "Retention".to_owned())],
        ..Options::default()
    }
}

async fn simulator(options: Options) -> Simulator {
    Simulator::start(options).await.unwrap()
}

/// New fields are created, and the vendor takes less than this until an update is effective.
fn settings() -> Config {
    Config { create_new_fields: true, settle: Duration::from_millis(500), ..config() }
}

fn field(simulator: &Simulator, number: usize, name: &str) -> Option<Value> {
    simulator.profile("email", &email(number))?.pointer(&format!("/attributes/{name}")).cloned()
}

/// Delivers until everything has an end, as the send stage would.
async fn settle(iterable: &Iterable, batch: &[Delivery]) -> Vec<Outcome> {
    let mut outcomes = deliver_all(iterable, batch).await;
    for attempt in 2..60 {
        let waiting: Vec<usize> =
            (0..batch.len()).filter(|&index| matches!(outcomes[index], Outcome::Retry { .. })).collect();
        if waiting.is_empty() {
            return outcomes;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        let again: Vec<_> = waiting.iter().map(|&index| Delivery { attempt, ..batch[index].clone() }).collect();
        for (index, outcome) in waiting.into_iter().zip(deliver_all(iterable, &again).await) {
            outcomes[index] = outcome;
        }
    }
    panic!("a delivery has no end: {outcomes:?}");
}

#[tokio::test]
async fn what_is_delivered_one_by_one_and_in_bulk_is_at_the_vendor_once() {
    let simulator = simulator(options()).await;
    let iterable = iterable(&simulator.url(), settings());
    for count in [2, 40] {
        let batch = upserts(&iterable, count);
        let outcomes = settle(&iterable, &batch).await;
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Delivered), "{outcomes:?}");
        assert_eq!(settle(&iterable, &batch).await, outcomes, "repeated");
    }
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!((0..40).all(|number| field(&simulator, number, "ltv") == Some(json!(number))));
    let event = |number: usize| {
        delivery(&iterable, number, &json!({"email": email(number), "eventName": "order", "dataFields": {"x": 1}}))
    };
    for batch in [(0..2).map(event).collect::<Vec<_>>(), (2..12).map(event).collect()] {
        for _ in 0..2 {
            assert_eq!(words(&settle(&iterable, &batch).await), vec!["delivered"; batch.len()]);
        }
    }
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(simulator.events().len(), 12, "a repeated event is one event");
    assert_eq!(simulator.stats().unknown, 0, "nothing but the documented requests was sent");
}

// I4: a single call after a bulk request would be overwritten by it.
#[tokio::test]
async fn the_last_update_of_a_person_stands_whatever_came_together() {
    let simulator = simulator(options()).await;
    let iterable = iterable(&simulator.url(), settings());
    settle(&iterable, &upserts(&iterable, 5)).await;
    let newer = delivery(&iterable, 3, &json!({"email": email(3), "dataFields": {"ltv": 900}}));
    settle(&iterable, &[newer]).await;
    let cart = json!({"user": {"email": email(4), "dataFields": {"ltv": 901}}, "items": [{"id": "1", "name": "Tea", "price": 2, "quantity": 1}]});
    settle(&iterable, &[delivery(&iterable, 4, &cart)]).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(field(&simulator, 3, "ltv"), Some(json!(900)));
    assert_eq!(field(&simulator, 4, "ltv"), Some(json!(901)));
    assert_eq!(field(&simulator, 4, "shoppingCartItems/0/name"), Some(json!("Tea")));
}

#[tokio::test]
async fn a_list_is_joined_after_the_update_and_left_again() {
    let simulator = simulator(options()).await;
    let iterable = iterable(&simulator.url(), settings());
    let joined = json!({"_operation": "add_to_list", "listId": LIST, "subscribers": [{"email": email(0), "dataFields": {"churn": 0.8}}]});
    for one in deliveries(&iterable, 0, &joined) {
        assert_eq!(words(&settle(&iterable, &[one]).await), ["delivered"]);
    }
    let lists = || simulator.profile("email", &email(0)).unwrap()["lists"].clone();
    assert_eq!((lists(), field(&simulator, 0, "churn")), (json!([LIST.to_string()]), Some(json!(0.8))));
    let left = json!({"_operation": "remove_from_list", "listId": LIST, "email": email(0)});
    settle(&iterable, &[delivery(&iterable, 0, &left)]).await;
    assert_eq!(lists(), json!([]));
    let wrong = json!({"_operation": "add_to_list", "listId": 99, "email": email(0)});
    let outcomes = settle(&iterable, &[delivery(&iterable, 0, &wrong)]).await;
    assert!(message(&outcomes[0]).contains("the list `99` is refused"), "{outcomes:?}");
}

// I1
#[tokio::test]
async fn a_column_that_changes_its_type_takes_its_rows_out_and_no_others() {
    let simulator = simulator(options()).await;
    let iterable = iterable(&simulator.url(), settings());
    settle(&iterable, &upserts(&iterable, 10)).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    let row = |number: usize| {
        let ltv = if number.is_multiple_of(5) { json!(format!("tier {number}")) } else { json!(number + 100) };
        delivery(&iterable, number, &json!({"email": email(number), "dataFields": {"ltv": ltv}}))
    };
    let outcomes = settle(&iterable, &(0..50).map(row).collect::<Vec<_>>()).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    for (number, outcome) in outcomes.iter().enumerate() {
        if number.is_multiple_of(5) {
            assert_eq!(word(outcome), "rejected field_type_mismatch");
            assert!(
                message(outcome)
                    .starts_with("dataFields.ltv: expected long, the row has string since table version 12"),
                "{outcome:?}"
            );
        } else {
            assert_eq!(word(outcome), "delivered");
            assert_eq!(field(&simulator, number, "ltv"), Some(json!(number + 100)));
        }
    }
}

// I2
#[tokio::test]
async fn fields_that_the_project_does_not_have_are_a_remark() {
    let simulator = simulator(options()).await;
    let iterable = iterable(&simulator.url(), Config { create_new_fields: false, ..settings() });
    let outcomes = settle(&iterable, &upserts(&iterable, 5)).await;
    assert_eq!(words(&outcomes), ["delivered fields_filtered"; 5]);
}

#[tokio::test]
async fn somebody_who_was_forgotten_is_a_named_outcome_and_the_others_are_delivered() {
    let simulator = simulator(options()).await;
    let iterable = iterable(&simulator.url(), settings());
    settle(&iterable, &upserts(&iterable, 5)).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    let forget = delivery(&iterable, 2, &json!({"_operation": "suppress", "email": email(2)}));
    assert_eq!(words(&settle(&iterable, &[forget]).await), ["delivered"]);
    tokio::time::sleep(Duration::from_millis(600)).await;
    let outcomes = settle(&iterable, &upserts(&iterable, 5)).await;
    assert_eq!(words(&outcomes), ["delivered", "delivered", "rejected forgotten_user", "delivered", "delivered"]);
}

#[tokio::test]
async fn each_kind_of_project_names_people_in_its_own_way() {
    for (identity, other) in [
        (Identity::Email, vendor::Identity::Email),
        (Identity::UserId, vendor::Identity::UserId),
        (Identity::Hybrid, vendor::Identity::Hybrid),
    ] {
        let simulator = simulator(Options { identity: other, ..options() }).await;
        let iterable = iterable(&simulator.url(), Config { identity, ..settings() });
        let output = |number: usize| json!({"email": email(number), "userId": format!("u-{number}"), "dataFields": {"churn": 0.5}});
        let batch: Vec<_> = (0..5).map(|number| delivery(&iterable, number, &output(number))).collect();
        assert_eq!(words(&settle(&iterable, &batch).await), ["delivered"; 5], "{identity:?}");
        tokio::time::sleep(Duration::from_millis(600)).await;
        let person = simulator.profile("email", &email(3)).unwrap();
        assert_eq!((&person["userId"], &person["attributes"]["churn"]), (&json!("u-3"), &json!(0.5)), "{identity:?}");
    }
}

#[tokio::test]
async fn nobody_is_created_against_the_configuration() {
    let simulator = simulator(options()).await;
    let creating = iterable(&simulator.url(), settings());
    settle(&creating, &upserts(&creating, 2)).await;
    let iterable = iterable(&simulator.url(), Config { create: false, ..settings() });
    let outcomes = settle(&iterable, &upserts(&iterable, 4)).await;
    assert_eq!(words(&outcomes), ["delivered", "delivered", "skipped would_create", "skipped would_create"]);
    assert_eq!(simulator.profiles().len(), 2);
}

#[tokio::test]
async fn an_event_of_somebody_unknown_creates_them_first() {
    let simulator = simulator(options()).await;
    let iterable = iterable(&simulator.url(), settings());
    for count in [1, 5] {
        let event = |number: usize| delivery(&iterable, number, &json!({"email": email(number), "eventName": "order"}));
        let outcomes = settle(&iterable, &(0..count).map(event).collect::<Vec<_>>()).await;
        assert_eq!(words(&outcomes), vec!["delivered"; count]);
    }
}

#[tokio::test]
async fn a_change_of_address_whose_answer_is_lost_is_made_once() {
    let simulator = simulator(options()).await;
    let iterable = iterable(&simulator.url(), settings());
    let old = json!({"email": "old0@example.com", "dataFields": {"ltv": 1}});
    settle(&iterable, &[delivery(&iterable, 0, &old)]).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    let lost = Prescription {
        method: None,
        path: Some("/api/users/updateEmail".to_owned()),
        identifier: None,
        skip: 0,
        times: 1,
        for_seconds: None,
        effect: Effect::Disconnect(Disconnect::AfterProcessing),
    };
    simulator.prescribe(lost).unwrap();
    let change = delivery(&iterable, 0, &json!({"currentEmail": "old0@example.com", "newEmail": email(0)}));
    let outcomes = settle(&iterable, &[change]).await;
    assert_eq!(words(&outcomes), ["delivered delivered_in_part"]);
    assert_eq!(field(&simulator, 0, "ltv"), Some(json!(1)));
    assert!(simulator.profile("email", "old0@example.com").is_none());
}

#[tokio::test]
async fn the_documented_limits_are_kept_before_the_vendor_has_to() {
    let simulator = simulator(Options { limits: true, ..options() }).await;
    let account = crate::iterable::open(&SecretString::from(KEY), &simulator.url(), 0.95).unwrap();
    let iterable = Iterable::new(Arc::new(account), settings());
    for outcome in deliver_all(&iterable, &upserts(&iterable, 6_000)).await {
        assert_eq!(outcome, Outcome::Delivered);
    }
    let list = |number: usize| {
        delivery(&iterable, number, &json!({"_operation": "add_to_list", "listId": LIST, "email": email(number)}))
    };
    let outcomes = deliver_all(&iterable, &(6_000..6_010).map(list).collect::<Vec<_>>()).await;
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Delivered), "{outcomes:?}");
    assert_eq!(simulator.stats().throttled, 0);
}

#[tokio::test]
async fn a_wrong_key_pauses_and_a_right_one_passes() {
    let simulator = simulator(options()).await;
    let account = crate::iterable::open(&SecretString::from("another-key-0123456789"), &simulator.url(), 1.0).unwrap();
    let wrong = Iterable::new(Arc::new(account), settings());
    let outcomes = deliver_all(&wrong, &upserts(&wrong, 1)).await;
    assert!(matches!(&outcomes[0], Outcome::Retry { scope: Scope::Credentials, .. }), "{outcomes:?}");
    assert_eq!(wrong.probe().await.unwrap_err().code, tailwater_core::code::UNAUTHORIZED);
    iterable(&simulator.url(), settings()).probe().await.unwrap();
}
