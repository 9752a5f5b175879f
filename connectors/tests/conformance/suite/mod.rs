//! The suite: what an adapter gives, and how deliveries are made and driven to their end.

pub mod cases;
pub mod server;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use serde_json::Value;
use serde_json::value::RawValue;
use tailwater_connectors::destination::{ClassifyError, ClassifyInput, Context, Destination};
use tailwater_connectors::http::client::{Timeouts, set_timeouts};
use tailwater_connectors::{Kind, Outcomes, Shared};
use tailwater_core::delivery::{Delivery, Outcome, Ticket};
use tailwater_core::operation::Operation;
use tailwater_core::{Code, DeliveryKey, EventId, ProfileId, Timestamp};

use server::{Received, Reply};

/// What an adapter says about a kind.
pub struct Subject {
    pub kind: Kind,
    /// `accounts.<name>` for a server at this address, without limits.
    pub account: fn(&str) -> Value,
    /// The connector's own keys of `destinations.<name>`.
    pub options: Value,
    /// The vendor's field → the type of identifier: `email` is the one that is needed. People have an `email` and a `customer_id`.
    pub identifiers: &'static [(&'static str, &'static str)],
    /// An update of person number so and so, with a note in one of its properties.
    pub output: fn(usize, &str) -> Value,
    /// What the vendor answers when all is well.
    pub healthy: fn(&Received) -> Reply,
    /// The secret in the account, which must appear nowhere.
    pub secret: &'static str,
}

/// The numbers of deliveries that a batch is tried with: alone, a few, and enough for bulk calls.
pub const COUNTS: [usize; 3] = [1, 3, 40];

/// Polls that a job may take, and attempts that deliveries may need, before the suite gives up.
const POLLS_MAX: usize = 500;
const ROUNDS_MAX: usize = 120;

/// The longest that the suite waits where a delivery wishes to be tried later.
const WAIT_MAX: Duration = Duration::from_millis(250);

/// A server that hangs is given up within seconds here.
pub fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        set_timeouts(Timeouts {
            connect: Duration::from_millis(500),
            read: Duration::from_secs(1),
            request: Duration::from_secs(3),
        });
    });
}

pub fn owned() -> Context<'static> {
    Context { still_owned: &|| true }
}

// === impl Subject ===

impl Subject {
    pub fn name(&self) -> &'static str {
        self.kind.spec().kind
    }

    /// A destination at a server; every one has its own account, so that trouble of one case does not reach another.
    pub fn destination(&self, base_url: &str) -> Arc<dyn Destination> {
        let account = self.kind.account(&(self.account)(base_url)).expect("the account has its form");
        assert!(account.check().is_empty(), "{:?}", account.check());
        let options = self.kind.options(&self.options).expect("the options have their form");
        let shared = Shared {
            name: self.name().to_owned(),
            identifier: "email".to_owned(),
            identifiers: self
                .identifiers
                .iter()
                .map(|(field, kind)| ((*field).to_owned(), (*kind).to_owned()))
                .collect(),
        };
        let problems = account.check_destination(&options, &shared);
        assert!(problems.is_empty(), "{problems:?}");
        account.open().expect("the account opens").connect(&options, &shared).expect("the destination connects")
    }

    /// Deliveries of these people, classified as a route does it.
    pub fn batch(&self, destination: &dyn Destination, people: impl IntoIterator<Item = usize>) -> Vec<Delivery> {
        people.into_iter().map(|number| self.delivery(destination, number, "fine")).collect()
    }

    pub fn delivery(&self, destination: &dyn Destination, number: usize, note: &str) -> Delivery {
        let output = (self.output)(number, note);
        let mut operations =
            classify(destination, &output, number).unwrap_or_else(|error| panic!("{}: {output}: {error}", self.name()));
        let operation = operations.remove(0);
        let event = EventId::of_fact("acme", "scores", &number.to_string());
        Delivery {
            key: DeliveryKey::of(event, self.name(), "scores", operation.kind.as_str(), &operation.place),
            profile: ProfileId::of("acme", "email", &email(number), 0),
            event,
            time: Timestamp::from_millis(1_772_352_000_000),
            position: None,
            identifiers: person(number),
            backfill: false,
            attempt: 1,
            operation,
        }
    }
}

pub fn email(number: usize) -> String {
    format!("person{number}@example.com")
}

fn person(number: usize) -> Vec<(String, String)> {
    vec![("email".to_owned(), email(number)), ("customer_id".to_owned(), format!("c{number}"))]
}

/// Classifies an output about a person.
pub fn classify(destination: &dyn Destination, output: &Value, number: usize) -> Result<Vec<Operation>, ClassifyError> {
    let output = RawValue::from_string(output.to_string()).unwrap();
    let identifiers = person(number);
    let identifiers: Vec<_> = identifiers.iter().map(|(kind, value)| (kind.as_str(), value.as_str())).collect();
    destination.classify(&ClassifyInput {
        output: &output,
        route: "scores",
        ordinal: 0,
        identifiers: &identifiers,
        time: Timestamp::from_millis(1_772_352_000_000),
        non_finite: &[],
    })
}

/// Delivers a batch and answers the outcome of each; there is exactly one.
pub async fn deliver(destination: &dyn Destination, batch: &[Delivery], context: &Context<'_>) -> Vec<Outcome> {
    let reported = Reported::new(batch.len());
    destination.deliver(batch, &reported.outcomes(), context).await;
    reported.all()
}

async fn confirm(destination: &dyn Destination, ticket: &Ticket, members: &[Delivery]) -> Vec<Outcome> {
    let reported = Reported::new(members.len());
    destination.confirm(ticket, members, &reported.outcomes(), &owned()).await;
    reported.all()
}

/// The outcomes of a call while they are reported.
pub struct Reported(Mutex<Vec<Option<Outcome>>>);

impl Reported {
    pub fn new(count: usize) -> Self {
        Self(Mutex::new(vec![None; count]))
    }

    pub fn outcomes(&self) -> Outcomes<'_> {
        let count = self.0.lock().unwrap().len();
        Outcomes::new(count, |indexes, outcome| {
            let mut places = self.0.lock().unwrap();
            for &index in indexes {
                assert!(places[index].replace(outcome.clone()).is_none(), "a second outcome of a delivery");
            }
        })
    }

    pub fn all(self) -> Vec<Outcome> {
        self.0.into_inner().unwrap().into_iter().map(|outcome| outcome.expect("one outcome per delivery")).collect()
    }
}

/// Delivers a batch once; jobs are asked for until they have an end.
pub async fn settle(destination: &dyn Destination, batch: &[Delivery]) -> Vec<Outcome> {
    let mut outcomes = deliver(destination, batch, &owned()).await;
    for _ in 0..POLLS_MAX {
        let ticket = outcomes
            .iter()
            .find_map(|outcome| if let Outcome::Accepted(ticket) = outcome { Some(ticket.clone()) } else { None });
        let Some(ticket) = ticket else { return outcomes };
        let running: Vec<usize> = (0..batch.len())
            .filter(|&index| matches!(&outcomes[index], Outcome::Accepted(own) if *own == ticket))
            .collect();
        let members: Vec<_> = running.iter().map(|&index| batch[index].clone()).collect();
        let confirmed = confirm(destination, &ticket, &members).await;
        for (index, outcome) in running.into_iter().zip(confirmed) {
            outcomes[index] = outcome;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("a job has no end: {outcomes:?}");
}

/// Delivers as the send stage does: whatever has to be tried again is, until `enough` says that the outcomes of the round are.
pub async fn drive(
    destination: &dyn Destination,
    batch: Vec<Delivery>,
    enough: impl Fn(usize, &Outcome) -> bool,
) -> BTreeMap<usize, Outcome> {
    let mut ends = BTreeMap::new();
    let mut open: Vec<(usize, Delivery)> = batch.into_iter().enumerate().collect();
    for _ in 0..ROUNDS_MAX {
        let deliveries: Vec<Delivery> = open.iter().map(|(_, delivery)| delivery.clone()).collect();
        let outcomes = settle(destination, &deliveries).await;
        let mut wait = Duration::ZERO;
        let mut left = Vec::new();
        for ((index, mut delivery), outcome) in open.into_iter().zip(outcomes) {
            if !matches!(outcome, Outcome::Retry { .. }) || enough(index, &outcome) {
                ends.insert(index, outcome);
                continue;
            }
            if let Outcome::Retry { after: Some(after), .. } = &outcome {
                wait = wait.max(*after);
            }
            delivery.attempt += 1;
            left.push((index, delivery));
        }
        if left.is_empty() {
            return ends;
        }
        open = left;
        tokio::time::sleep(wait.min(WAIT_MAX)).await;
    }
    panic!("these have no end: {:?}", open.iter().map(|(index, _)| index).collect::<Vec<_>>());
}

/// The code of an outcome that has one.
pub fn code_of(outcome: &Outcome) -> Option<Code> {
    match outcome {
        Outcome::Delivered | Outcome::Accepted(_) => None,
        Outcome::DeliveredInPart(reason)
        | Outcome::Retry { reason, .. }
        | Outcome::Rejected(reason)
        | Outcome::Skipped(reason) => Some(reason.code),
    }
}

/// The message of an outcome that has one.
pub fn message_of(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Delivered | Outcome::Accepted(_) => "",
        Outcome::DeliveredInPart(reason)
        | Outcome::Retry { reason, .. }
        | Outcome::Rejected(reason)
        | Outcome::Skipped(reason) => &reason.message,
    }
}

pub fn is_retry(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Retry { .. })
}

pub fn is_delivered(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Delivered | Outcome::DeliveredInPart(_))
}
