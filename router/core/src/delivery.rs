//! An operation on its way to a destination, and what became of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::code::Code;
use crate::ids::{DeliveryKey, EventId, ProfileId};
use crate::limits::REASON_BYTES_MAX;
use crate::operation::Operation;
use crate::position::OwnedPosition;
use crate::time::Timestamp;

/// One operation on its way.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The idempotency key.
    pub key: DeliveryKey,
    /// The ordering key: at most one delivery of a profile is in flight.
    pub profile: ProfileId,
    pub event: EventId,
    /// When the event happened, as its source says.
    pub time: Timestamp,
    /// Where the event stands in its source.
    pub position: Option<OwnedPosition>,
    /// The identifiers in use for the profile when the event was routed: (type, value).
    pub identifiers: Vec<(String, String)>,
    /// A backfill or a replay: it must trigger no campaign.
    pub backfill: bool,
    /// 1 for the first attempt.
    pub attempt: u32,
    pub operation: Operation,
}

/// Why a delivery was rejected, skipped or has to be tried again: a code for machines and a sentence for people. It must hold
/// no secret; a vendor's text is cut to [`crate::limits::REASON_BYTES_MAX`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    pub code: Code,
    pub message: String,
    /// The vendor's HTTP status, where one answered.
    pub status: Option<u16>,
}

/// Whose trouble a retry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// This delivery's alone: the others go on.
    Delivery,
    /// One endpoint's for the moment (a 429; a 5xx that no unrelated request has met): the deliveries that need the endpoint wait and are
    /// not given up for it, the others go on.
    Endpoint,
    /// The account's for the moment (an outage, no connection): everything of the account waits.
    Account,
    /// The account's until a person acts (a wrong key): the destination pauses with one alert.
    Credentials,
}

/// A running job at the vendor; opaque to everyone but the connector that wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ticket(pub String);

/// What became of one delivery; one per delivery, in the same order. A cancelled request has no outcome.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The vendor has applied it, or has documented that it will.
    Delivered,
    /// As `Delivered`, except for a part that the vendor ignored or that was left out. The reason names the part; it stands in the history,
    /// and its code in the ledger.
    DeliveredInPart(Reason),
    /// A job runs; `confirm` brings the outcome.
    Accepted(Ticket),
    /// Not now. `after` is the vendor's own wish, else the retry policy decides.
    Retry { after: Option<Duration>, scope: Scope, reason: Reason },
    /// Never: the sender's fault. Ends as a dead letter.
    Rejected(Reason),
    /// Nothing to do.
    Skipped(Reason),
}

// === impl Reason ===

impl Reason {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: cut(message.into()), status: None }
    }

    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }
}

fn cut(mut message: String) -> String {
    const MARK: char = '…';
    if message.len() > REASON_BYTES_MAX {
        message.truncate(message.floor_char_boundary(REASON_BYTES_MAX - MARK.len_utf8()));
        message.push(MARK);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_cut_between_letters_and_within_the_maximum() {
        for extra in 0..4 {
            let message = "a".repeat(extra) + &"é".repeat(REASON_BYTES_MAX);
            let reason = Reason::new(crate::code::VENDOR_REJECTED, message);
            assert!(reason.message.len() <= REASON_BYTES_MAX);
            assert!(reason.message.ends_with('…'));
        }
        let fits = "a".repeat(REASON_BYTES_MAX);
        assert_eq!(Reason::new(crate::code::VENDOR_REJECTED, fits.clone()).message, fits);
    }
}
