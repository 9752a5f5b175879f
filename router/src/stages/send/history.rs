//! A record of the topic `deliveries`: one attempt, or the decision not to make one.

use serde::Serialize;
use tailwater_core::Timestamp;
use tailwater_core::delivery::{Delivery, Outcome};

use crate::kafka::Record;

#[derive(Serialize)]
struct History<'a> {
    at: String,
    destination: &'a str,
    event: String,
    source: &'a str,
    profile: String,
    route: &'a str,
    kind: &'a str,
    place: &'a str,
    delivery: String,
    attempt: u32,
    outcome: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ticket: Option<&'a str>,
    /// What the operation is about besides the person: the id of a list, an object or a catalog item.
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'a str>,
    /// Numbers that are not finite and were left out.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    non_finite: &'a [String],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    backfill: bool,
}

/// The outcome's word in the history and in the metrics.
pub const fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Delivered | Outcome::DeliveredInPart(_) => "delivered",
        Outcome::Accepted(_) => "accepted",
        Outcome::Retry { .. } => "retry",
        Outcome::Rejected(_) => "rejected",
        Outcome::Skipped(_) => "skipped",
    }
}

/// The value of the record.
pub fn encode(at: Timestamp, destination: &str, record: &Record, delivery: &Delivery, outcome: &Outcome) -> Vec<u8> {
    let (reason, ticket) = match outcome {
        Outcome::Delivered => (None, None),
        Outcome::Accepted(ticket) => (None, Some(ticket.0.as_str())),
        Outcome::DeliveredInPart(reason)
        | Outcome::Retry { reason, .. }
        | Outcome::Rejected(reason)
        | Outcome::Skipped(reason) => (Some(reason), None),
    };
    let envelope = record.envelope().unwrap_or_default();
    let entry = History {
        at: at.to_string(),
        destination,
        event: delivery.event.to_string(),
        source: envelope.source,
        profile: delivery.profile.to_string(),
        route: &delivery.operation.route,
        kind: delivery.operation.kind.as_str(),
        place: &delivery.operation.place,
        delivery: delivery.key.to_string(),
        attempt: delivery.attempt,
        outcome: word(outcome),
        code: reason.map(|reason| reason.code.as_str()),
        message: reason.map(|reason| reason.message.as_str()),
        status: reason.and_then(|reason| reason.status),
        ticket,
        target: delivery.operation.target.as_deref(),
        non_finite: &delivery.operation.non_finite,
        backfill: delivery.backfill,
    };
    // Strings and numbers into memory: serialising them has no way to fail.
    serde_json::to_vec(&entry).unwrap_or_default()
}
