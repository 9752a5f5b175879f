//! Klaviyo as it is used: outputs are classified as a route does it, deliveries go to a scripted vendor on localhost, and every
//! request that arrives there is held against the vendor's specification.

mod conformance;
mod deliver;
mod jobs;
mod lookup;
mod mapping;
mod plan;
mod retry;
mod server;
mod simulator;
mod spec;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use serde_json::value::RawValue;
use tailwater_core::delivery::{Delivery, Outcome, Ticket};
use tailwater_core::{Code, DeliveryKey, EventId, ProfileId};

use super::{Account, Config, Klaviyo, OnConflict, config, endpoint};
use crate::config::Secret;
use crate::destination::{ClassifyInput, Context, Destination};
use crate::error::Problem;
use crate::http::Window;
use crate::outcomes::Outcomes;
use crate::output::{NonFinite, Nulls};

pub(super) const KEY: &str = "pk_0123456789abcdef0123456789abcd4f2a";

/// Far above what a test sends, so that none waits.
const FAST: [Window; 1] = [Window::per_second(1_000_000)];

pub(super) fn config() -> Config {
    let identifiers = [("email", "email"), ("phone_number", "phone"), ("external_id", "customer_id")];
    Config {
        create: true,
        identifier: "email".to_owned(),
        identifiers: identifiers.map(|(field, kind)| (field.to_owned(), kind.to_owned())).into(),
        nulls: Nulls::Omit,
        non_finite: NonFinite::Omit,
        on_conflict: OnConflict::Reject,
        bulk_from: 3,
    }
}

pub(super) fn account_config(base_url: &str) -> config::Account {
    config::Account { api_key: Secret::from(KEY), base_url: base_url.to_owned(), rate_share: 0.9 }
}

/// A destination whose limits no test reaches.
pub(super) fn klaviyo(base_url: &str, config: Config) -> Klaviyo {
    let account = Account::new(&account_config(base_url)).unwrap();
    account.0.limiter.set_every_rate(FAST.to_vec());
    Klaviyo::new(Arc::new(account), config).unwrap()
}

pub(super) fn owned() -> Context<'static> {
    Context { still_owned: &|| true }
}

/// The outcomes of a call while they are reported.
struct Reported(Mutex<Vec<Option<Outcome>>>);

impl Reported {
    fn new(count: usize) -> Self {
        Self(Mutex::new(vec![None; count]))
    }

    fn outcomes(&self) -> Outcomes<'_> {
        let places = self.0.lock().unwrap();
        Outcomes::new(places.len(), |indexes, outcome| {
            let mut places = self.0.lock().unwrap();
            for &index in indexes {
                assert!(places[index].replace(outcome.clone()).is_none(), "a second outcome of a delivery");
            }
        })
    }

    fn all(self) -> Vec<Outcome> {
        self.0.into_inner().unwrap().into_iter().map(|outcome| outcome.expect("one outcome per delivery")).collect()
    }
}

/// Delivers a batch and waits for all of its outcomes.
pub(super) async fn deliver_all(
    destination: &dyn Destination,
    batch: &[Delivery],
    context: &Context<'_>,
) -> Vec<Outcome> {
    let reported = Reported::new(batch.len());
    destination.deliver(batch, &reported.outcomes(), context).await;
    reported.all()
}

/// Asks for the outcomes of a job's members.
pub(super) async fn confirm_all(
    destination: &dyn Destination,
    ticket: &Ticket,
    members: &[Delivery],
    context: &Context<'_>,
) -> Vec<Outcome> {
    let reported = Reported::new(members.len());
    destination.confirm(ticket, members, &reported.outcomes(), context).await;
    reported.all()
}

/// A person with all three identifiers, told apart by a number.
pub(super) fn person(number: usize) -> Vec<(String, String)> {
    let identifiers =
        [("email", email(number)), ("phone", format!("+1555{number:07}")), ("customer_id", format!("cust_{number}"))];
    identifiers.map(|(kind, value)| (kind.to_owned(), value)).into()
}

pub(super) fn email(number: usize) -> String {
    format!("person{number}@example.com")
}

/// A delivery of an output about a person, classified as a route does it.
pub(super) fn delivery(klaviyo: &Klaviyo, number: usize, output: &Value) -> Delivery {
    let identifiers = person(number);
    let borrowed: Vec<_> = identifiers.iter().map(|(kind, value)| (kind.as_str(), value.as_str())).collect();
    let output = RawValue::from_string(output.to_string()).unwrap();
    let input = ClassifyInput {
        output: &output,
        route: "ltv",
        ordinal: 0,
        identifiers: &borrowed,
        time: tailwater_core::Timestamp::default(),
        non_finite: &[],
    };
    let operation = klaviyo.classify(&input).unwrap().remove(0);
    let event = EventId::of_fact("acme", "ltv", &number.to_string());
    Delivery {
        key: DeliveryKey::of(event, "klaviyo", "ltv", operation.kind.as_str(), &operation.place),
        profile: ProfileId::of("acme", "email", &email(number), 0),
        event,
        time: tailwater_core::Timestamp::default(),
        position: None,
        identifiers,
        backfill: false,
        attempt: 1,
        operation,
    }
}

/// An update of a person's score, and lists to join.
pub(super) fn upsert(klaviyo: &Klaviyo, number: usize, lists: &[&str]) -> Delivery {
    let output = serde_json::json!({"data": {
        "type": "profile",
        "attributes": {"email": email(number), "properties": {"ltv": number}},
        "relationships": {"lists": lists},
    }});
    delivery(klaviyo, number, &output)
}

pub(super) fn upserts(klaviyo: &Klaviyo, count: usize, lists: &[&str]) -> Vec<Delivery> {
    (0..count).map(|number| upsert(klaviyo, number, lists)).collect()
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

/// How many there are of each.
pub(super) fn tally(outcomes: &[Outcome]) -> BTreeMap<String, usize> {
    let mut tally = BTreeMap::new();
    for outcome in outcomes {
        *tally.entry(word(outcome)).or_default() += 1;
    }
    tally
}

#[test]
fn all_problems_of_a_destination_are_told_at_once() {
    let mut wrong = config();
    wrong.identifier = "shopify_id".to_owned();
    wrong.identifiers.insert("e_mail".to_owned(), "email".to_owned());
    let problems = wrong.check();
    assert_eq!(problems.iter().map(Problem::place).collect::<Vec<_>>(), ["identifiers.e_mail", "identifier"]);
    assert!(problems[0].message.contains("did you mean `email`?"), "{}", problems[0].message);
    assert!(Klaviyo::new(Arc::new(Account::new(&account_config(super::BASE_URL)).unwrap()), wrong).is_err());
}

#[test]
fn the_target_shows_whom_it_speaks_to_without_the_key() {
    let klaviyo = klaviyo(super::BASE_URL, config());
    assert_eq!(klaviyo.target(), "klaviyo pk_…4f2a at a.klaviyo.com");
    assert!(!format!("{klaviyo:?}").contains("0123456789"));
}

#[test]
fn two_destinations_share_the_limits_of_their_account() {
    let account = Arc::new(Account::new(&account_config(super::BASE_URL)).unwrap());
    let one = Klaviyo::new(Arc::clone(&account), config()).unwrap();
    let other = Klaviyo::new(Arc::clone(&account), config()).unwrap();
    account.0.limiter.pause(std::time::Duration::from_secs(60));
    assert!(!one.sender.account().limiter.gate_remaining(&endpoint::EVENTS).is_zero());
    assert!(!other.sender.account().limiter.gate_remaining(&endpoint::EVENTS).is_zero());
}
