//! One thing to do at a destination, made by a connector from a transform's output.
//!
//! An outbound record carries all operations of one (event, destination) as JSON: `{"operations":[…]}`. They are delivered
//! in their order.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// What an operation does; also part of the idempotency key, so the names are frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OperationKind {
    /// Create or update a person, list memberships included where the vendor takes them together.
    UpsertProfile,
    /// Record that something happened. Never superseded.
    TrackEvent,
}

impl OperationKind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UpsertProfile => "upsert_profile",
            Self::TrackEvent => "track_event",
        }
    }

    /// Whether a later state makes an earlier one pointless.
    pub const fn is_state(self) -> bool {
        match self {
            Self::UpsertProfile => true,
            Self::TrackEvent => false,
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Operation {
    pub kind: OperationKind,
    /// The route that made it: the name its configuration gives, by default the source's.
    pub route: String,
    /// The ordinal of the output within its event, or the author's own `_key`.
    pub place: String,
    /// The vendor's own JSON, checked and cleaned, ready to be put into a request.
    pub body: Box<RawValue>,
    /// The lists that the person joins once the update is effective; sorted, without repeats.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lists: Vec<String>,
    /// Paths of numbers that are not finite and were left out of the body.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub non_finite: Vec<String>,
}

/// The value of an outbound record. It can be written from operations that stay where they are: `Outbound<&Operation>`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outbound<O = Operation> {
    pub operations: Vec<O>,
}
