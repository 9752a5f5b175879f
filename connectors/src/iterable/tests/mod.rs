//! Iterable as it is used: outputs are classified as a route does it, deliveries go to a scripted vendor on localhost, and every request
//! that arrives there is checked against the vendor's specification.

mod bulk;
mod deliver;
mod mapping;
mod server;
mod simulator;
mod spec;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use secrecy::SecretString;
use serde_json::Value;
use serde_json::value::RawValue;
use tailwater_core::delivery::{Delivery, Outcome};
use tailwater_core::operation::Operation;
use tailwater_core::{Code, DeliveryKey, EventId, OwnedPosition, ProfileId, Timestamp};

use super::mapping::{Rules, classify};
use super::person::Identity;
use super::{Config, Iterable};
use crate::destination::{ClassifyError, ClassifyInput, Context, Destination};
use crate::outcomes::Outcomes;
use crate::output::{NonFinite, Nulls};

pub(super) const KEY: &str = "0123456789abcdef0123456789abcd4f2a";

pub(super) fn identifiers() -> BTreeMap<String, String> {
    [("email", "email"), ("userId", "user_id")].map(|(field, kind)| (field.to_owned(), kind.to_owned())).into()
}

pub(super) fn rules(identifiers: &BTreeMap<String, String>, identity: Identity) -> Rules<'_> {
    Rules {
        identifiers,
        identity,
        create: true,
        create_new_fields: false,
        merge_nested_objects: true,
        nulls: Nulls::Omit,
        non_finite: NonFinite::Omit,
        convert_dates: true,
    }
}

pub(super) const OWN: &[(&str, &str)] =
    &[("email", "Ada@Example.com"), ("email", "ada@old.example"), ("user_id", "u-1"), ("user_id", "anonymous-9")];

pub(super) fn classified(rules: Rules<'_>, output: &Value) -> Result<Vec<Operation>, ClassifyError> {
    classified_with(rules, output, &[])
}

pub(super) fn classified_with(
    rules: Rules<'_>,
    output: &Value,
    non_finite: &[String],
) -> Result<Vec<Operation>, ClassifyError> {
    let output = RawValue::from_string(output.to_string()).unwrap();
    let input = ClassifyInput {
        output: &output,
        route: "ltv",
        ordinal: 0,
        identifiers: OWN,
        time: Timestamp::from_millis(1_772_352_000_500),
        non_finite,
    };
    classify(rules, &input)
}

/// A project that identifies people by email. Nothing waits for anything to be effective.
pub(super) fn config() -> Config {
    Config {
        identity: Identity::Email,
        create: true,
        create_new_fields: true,
        merge_nested_objects: true,
        identifiers: identifiers(),
        nulls: Nulls::Omit,
        non_finite: NonFinite::Omit,
        convert_dates: true,
        bulk_from: 3,
        settle: Duration::ZERO,
    }
}

/// A destination whose limits no test reaches: a simulator may be asked for a multiple of them.
pub(super) fn iterable(base_url: &str, config: Config) -> Iterable {
    let account = super::open(&SecretString::from(KEY), base_url, 1_000.0).unwrap();
    Iterable::new(Arc::new(account), config)
}

pub(super) fn owned() -> Context<'static> {
    Context { still_owned: &|| true }
}

/// Delivers a batch and waits for all of its outcomes.
pub(super) async fn deliver_all(destination: &dyn Destination, batch: &[Delivery]) -> Vec<Outcome> {
    let places: Mutex<Vec<Option<Outcome>>> = Mutex::new(vec![None; batch.len()]);
    let outcomes = Outcomes::new(batch.len(), |indexes, outcome| {
        let mut places = places.lock().unwrap();
        for &index in indexes {
            assert!(places[index].replace(outcome.clone()).is_none(), "a second outcome of a delivery");
        }
    });
    destination.deliver(batch, &outcomes, &owned()).await;
    drop(outcomes);
    places.into_inner().unwrap().into_iter().map(|outcome| outcome.expect("one outcome per delivery")).collect()
}

pub(super) fn email(number: usize) -> String {
    format!("person{number}@example.com")
}

/// The first delivery of an output about a person, classified as a route does it.
pub(super) fn delivery(iterable: &Iterable, number: usize, output: &Value) -> Delivery {
    deliveries(iterable, number, output).remove(0)
}

pub(super) fn deliveries(iterable: &Iterable, number: usize, output: &Value) -> Vec<Delivery> {
    let identifiers: Vec<(String, String)> = [
        ("email", email(number)),
        ("email", format!("old{number}@example.com")),
        ("user_id", format!("u-{number}")),
        ("user_id", format!("anonymous-{number}")),
    ]
    .map(|(kind, value)| (kind.to_owned(), value))
    .into();
    let borrowed: Vec<_> = identifiers.iter().map(|(kind, value)| (kind.as_str(), value.as_str())).collect();
    let raw = RawValue::from_string(output.to_string()).unwrap();
    let time = Timestamp::from_millis(1_772_352_000_500);
    let input = ClassifyInput { output: &raw, route: "ltv", ordinal: 0, identifiers: &borrowed, time, non_finite: &[] };
    let event = EventId::of_fact("acme", "ltv", &format!("{number}{output}"));
    let operations = iterable.classify(&input).unwrap();
    operations
        .into_iter()
        .map(|operation| Delivery {
            key: DeliveryKey::of(event, "iterable", "ltv", operation.kind.as_str(), &operation.place),
            profile: ProfileId::of("acme", "email", &email(number), 0),
            event,
            time,
            position: Some(OwnedPosition::Table { generation: 0, version: 12, ordinal: 0 }),
            identifiers: identifiers.clone(),
            backfill: false,
            attempt: 1,
            operation,
        })
        .collect()
}

/// An update of a person's score.
pub(super) fn upsert(iterable: &Iterable, number: usize) -> Delivery {
    delivery(iterable, number, &serde_json::json!({"email": email(number), "dataFields": {"ltv": number}}))
}

pub(super) fn upserts(iterable: &Iterable, count: usize) -> Vec<Delivery> {
    (0..count).map(|number| upsert(iterable, number)).collect()
}

/// What an outcome is, in a word: `delivered`, or its kind and its code.
pub(super) fn word(outcome: &Outcome) -> String {
    let with = |kind: &str, code: Code| format!("{kind} {code}");
    match outcome {
        Outcome::Delivered => "delivered".to_owned(),
        Outcome::DeliveredInPart(reason) => with("delivered", reason.code),
        Outcome::Accepted(_) => "accepted".to_owned(),
        Outcome::Retry { reason, .. } => with("retry", reason.code),
        Outcome::Rejected(reason) => with("rejected", reason.code),
        Outcome::Skipped(reason) => with("skipped", reason.code),
    }
}

pub(super) fn words(outcomes: &[Outcome]) -> Vec<String> {
    outcomes.iter().map(word).collect()
}

pub(super) fn message(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Delivered | Outcome::Accepted(_) => "",
        Outcome::DeliveredInPart(reason)
        | Outcome::Rejected(reason)
        | Outcome::Skipped(reason)
        | Outcome::Retry { reason, .. } => &reason.message,
    }
}

#[test]
fn the_target_shows_whom_it_speaks_to_without_the_key() {
    let iterable = iterable("https://api.eu.iterable.com", config());
    assert_eq!(iterable.target(), "iterable …4f2a at api.eu.iterable.com");
    assert!(!format!("{iterable:?}").contains("0123456789"));
}
