//! Customer.io as it is used: outputs are classified as a route does it, deliveries go to a scripted vendor on localhost, and every
//! request that arrives there is checked against the vendor's published specifications.

mod config;
mod conformance;
mod deliver;
mod mapping;
mod plan;
mod probe;
mod simulator;
mod spec;

use std::sync::{Arc, Mutex};

use serde_json::value::RawValue;
use serde_json::{Value, json};
use tailwater_core::delivery::{Delivery, Outcome};
use tailwater_core::{DeliveryKey, EventId, ProfileId, Timestamp};

use super::{Account, Api, Config, Connection, Customerio, Milliseconds, Region};
use crate::config::Secret;
use crate::connector::Shared;
use crate::destination::{ClassifyInput, Context, Destination};
use crate::http::Window;
use crate::outcomes::Outcomes;
use crate::output::{NonFinite, Nulls};

pub(super) const KEY: &str = "sk_0123456789abcdef0123456789abcd4f2a";
pub(super) const TIME: Timestamp = Timestamp::from_millis(1_772_352_000_267);

pub(super) fn shared() -> Shared {
    let identifiers = [("id", "user_id"), ("email", "email")];
    Shared {
        name: "customerio".to_owned(),
        identifier: "user_id".to_owned(),
        identifiers: identifiers.map(|(field, kind)| (field.to_owned(), kind.to_owned())).into(),
    }
}

pub(super) fn account(base_url: &str, api: Api) -> Account {
    Account {
        secret_key: Some(Secret::from(KEY)),
        site_id: None,
        api_key: None,
        region: Region::Us,
        api,
        base_url: Some(base_url.to_owned()),
        rate: 100,
    }
}

/// A destination that creates people, whose limits no test reaches.
pub(super) fn customerio(base_url: &str, api: Api) -> Customerio {
    with_create(base_url, api, true)
}

pub(super) fn with_create(base_url: &str, api: Api, create: bool) -> Customerio {
    let connection = Connection::new(&account(base_url, api)).unwrap();
    connection.http.limiter.set_every_rate(vec![Window::per_second(10_000_000)]);
    let options = super::Options {
        create,
        implicit_create: true,
        nulls: Nulls::Omit,
        non_finite: NonFinite::Omit,
        milliseconds: Milliseconds::Convert,
        state_timestamps: false,
    };
    Customerio::new(Arc::new(connection), Config::new(&options, &shared()).unwrap())
}

pub(super) fn owned() -> Context<'static> {
    Context { still_owned: &|| true }
}

/// Delivers a batch and waits for all of its outcomes.
pub(super) async fn deliver_all(
    destination: &dyn Destination,
    batch: &[Delivery],
    context: &Context<'_>,
) -> Vec<Outcome> {
    let places: Mutex<Vec<Option<Outcome>>> = Mutex::new(vec![None; batch.len()]);
    let outcomes = Outcomes::new(batch.len(), |indexes, outcome| {
        for &index in indexes {
            let before = places.lock().unwrap()[index].replace(outcome.clone());
            assert!(before.is_none(), "a second outcome of a delivery");
        }
    });
    destination.deliver(batch, &outcomes, context).await;
    drop(outcomes);
    places.into_inner().unwrap().into_iter().map(|outcome| outcome.expect("one outcome per delivery")).collect()
}

pub(super) fn email(number: usize) -> String {
    format!("person{number}@example.com")
}

/// The deliveries of an output about a person, classified as a route does it.
pub(super) fn deliveries(customerio: &Customerio, number: usize, output: &Value) -> Vec<Delivery> {
    let identifiers = vec![("user_id".to_owned(), number.to_string()), ("email".to_owned(), email(number))];
    let borrowed: Vec<_> = identifiers.iter().map(|(kind, value)| (kind.as_str(), value.as_str())).collect();
    let output = RawValue::from_string(output.to_string()).unwrap();
    let input = ClassifyInput {
        output: &output,
        route: "upgrade",
        ordinal: 0,
        identifiers: &borrowed,
        time: TIME,
        non_finite: &[],
    };
    let operations = customerio.classify(&input).unwrap_or_else(|error| panic!("{output}: {error}"));
    let event = EventId::of_fact("acme", "upgrade", &number.to_string());
    let delivery = |(place, operation): (usize, tailwater_core::operation::Operation)| Delivery {
        key: DeliveryKey::of(
            event,
            "customerio",
            "upgrade",
            operation.kind.as_str(),
            &format!("{place}{}", operation.place),
        ),
        profile: ProfileId::of("acme", "user_id", &number.to_string(), 0),
        event,
        time: TIME,
        position: None,
        identifiers: identifiers.clone(),
        backfill: false,
        attempt: 1,
        operation,
    };
    operations.into_iter().enumerate().map(delivery).collect()
}

/// The only delivery of an output.
pub(super) fn delivery(customerio: &Customerio, number: usize, output: &Value) -> Delivery {
    let mut all = deliveries(customerio, number, output);
    assert_eq!(all.len(), 1, "{output}");
    all.remove(0)
}

/// An update of a person's score.
pub(super) fn upserts(customerio: &Customerio, count: usize) -> Vec<Delivery> {
    let output = |number: usize| json!({"type": "identify", "userId": number, "traits": {"email": email(number), "score": number}});
    (0..count).map(|number| delivery(customerio, number, &output(number))).collect()
}

/// A person's relationship with an account.
pub(super) fn relate(customerio: &Customerio, number: usize, object: &str) -> Delivery {
    let relation = json!({"identifiers": {"object_type_id": "1", "object_id": object}, "relationship_attributes": {"role": "admin"}});
    delivery(
        customerio,
        number,
        &json!({"type": "person", "identifiers": {"id": number}, "action": "add_relationships", "cio_relationships": [relation]}),
    )
}

pub(super) fn event(customerio: &Customerio, number: usize) -> Delivery {
    delivery(
        customerio,
        number,
        &json!({"type": "track", "userId": number, "event": "upgrade_likely", "properties": {"score": 0.7}}),
    )
}

pub(super) fn join(customerio: &Customerio, number: usize, segment: u32) -> Delivery {
    delivery(
        customerio,
        number,
        &json!({"_operation": "add_to_list", "segment_id": segment, "identifiers": {"id": number}}),
    )
}

/// What an outcome is, in a word: `delivered`, or its kind and its code.
pub(super) fn word(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Delivered => "delivered".to_owned(),
        Outcome::DeliveredInPart(reason) => format!("delivered {}", reason.code),
        Outcome::Accepted(_) => "accepted".to_owned(),
        Outcome::Retry { reason, .. } => format!("retry {}", reason.code),
        Outcome::Rejected(reason) => format!("rejected {}", reason.code),
        Outcome::Skipped(reason) => format!("skipped {}", reason.code),
    }
}

pub(super) fn words(outcomes: &[Outcome]) -> Vec<String> {
    outcomes.iter().map(word).collect()
}

pub(super) fn reason(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::DeliveredInPart(reason)
        | Outcome::Retry { reason, .. }
        | Outcome::Rejected(reason)
        | Outcome::Skipped(reason) => &reason.message,
        Outcome::Delivered | Outcome::Accepted(_) => "",
    }
}
