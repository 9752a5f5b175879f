//! A request that ended without an answer about what was in it.

use std::time::Duration;

use tailwater_core::delivery::{Outcome, Reason, Scope};
use tailwater_core::{Code, code};

use super::endpoint::Endpoint;
use super::limit::{Closed, Gate};

/// Why a request was not sent, or failed, and whose trouble that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Halt {
    pub after: Option<Duration>,
    pub scope: Scope,
    pub reason: Reason,
    /// The request was sent and failed, and nothing shows that others fail as well: what is in it may be the reason.
    pub failed: bool,
    /// The vendor may have carried the request out: the connection ended without an answer.
    pub ambiguous: bool,
    /// How many requests the endpoint had answered when this one was sent.
    pub answers: u64,
}

// === impl Halt ===

impl Halt {
    pub fn new(code: Code, scope: Scope, message: impl Into<String>) -> Self {
        Self { after: None, scope, reason: Reason::new(code, message), failed: false, ambiguous: false, answers: 0 }
    }

    pub fn outcome(&self) -> Outcome {
        Outcome::Retry { after: self.after, scope: self.scope, reason: self.reason.clone() }
    }

    pub fn not_owned() -> Self {
        Self::new(
            code::NOT_OWNED,
            Scope::Delivery,
            "the partition moved to another process before the request was sent",
        )
    }

    /// A gate is shut for longer than a request should wait.
    pub(super) fn closed(closed: Closed, endpoint: &Endpoint) -> Self {
        let label = endpoint.label;
        let (code, scope, message) = match closed.gate {
            Gate::Throttled => (
                code::RATE_LIMITED,
                Scope::Endpoint,
                format!("{label} waits, as the vendor has asked; other endpoints go on"),
            ),
            Gate::Failing => (
                code::VENDOR_UNAVAILABLE,
                Scope::Endpoint,
                format!("{label} fails for everybody and is tried again later; other endpoints go on"),
            ),
            Gate::Account => (
                code::VENDOR_UNAVAILABLE,
                Scope::Account,
                "the account waits, as the vendor has asked while it has trouble".to_owned(),
            ),
        };
        let mut halt = Self::new(code, scope, message);
        halt.after = Some(closed.remaining);
        halt
    }
}
