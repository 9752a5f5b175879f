//! What every destination is: the contract between the send stage and a vendor.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::value::RawValue;
use tailwater_core::delivery::{Delivery, Ticket};
use tailwater_core::operation::{Operation, OperationKind};
use tailwater_core::{Code, Timestamp, code};

use crate::outcomes::Outcomes;
use crate::output::NonFinite;

/// How often a request that waits for its turn asks whether it may still be sent.
const OWNERSHIP_INTERVAL: Duration = Duration::from_millis(50);

/// Static facts about a kind of destination.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    /// The name in the configuration: `klaviyo`.
    pub kind: &'static str,
    /// The vendor's fields that can identify a person, the default key first: `email`, `phone_number`, `external_id`.
    pub identifier_fields: &'static [&'static str],
    pub limits: Limits,
    /// What it can do. An output that asks for anything else is refused: see [`Spec::supported`].
    pub operations: &'static [OperationSpec],
}

/// How a destination performs one kind of operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OperationSpec {
    pub kind: OperationKind,
    pub idempotent: Idempotent,
    /// Deliveries of this kind that one request may carry; 1 where there is no bulk call.
    pub batch_max: usize,
    /// What somebody who uses it has to know, in one sentence; empty where there is nothing to say.
    pub note: &'static str,
}

/// What a repeat of a delivered operation does at the vendor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idempotent {
    /// It says the same again.
    Yes,
    /// The vendor recognizes the delivery's id and ignores the repeat or overwrites the first one.
    ById,
    /// It happens twice.
    No,
}

/// How a destination wants its deliveries.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Deliveries that one call of `deliver` may carry.
    pub batch_deliveries_max: usize,
    /// How long the send stage may wait for a fuller batch.
    pub batch_age_max: Duration,
    /// Calls of `deliver` at the same time.
    pub calls_max: usize,
}

/// What a route needs to know to turn an output into operations.
#[derive(Debug, Clone, Copy)]
pub struct ClassifyInput<'a> {
    /// One output of the transform: the vendor's own JSON.
    pub output: &'a RawValue,
    pub route: &'a str,
    /// The ordinal of the output within its event; the operation's place, unless the author gave a `_key`, which the route stage
    /// then puts there.
    pub ordinal: usize,
    /// The profile's identifiers in use: (type, value).
    pub identifiers: &'a [(&'a str, &'a str)],
    /// The time of the source's event. An event of the vendor's without a time of its own gets it: without one, the vendor takes the
    /// moment of delivery, which can be long after.
    pub time: Timestamp,
    /// Paths of numbers that are not finite; the sandbox has already taken them out of `output`.
    pub non_finite: &'a [String],
}

/// An output that cannot be delivered, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ClassifyError {
    pub code: Code,
    pub message: String,
}

/// A request as it would be sent, with secrets masked: what `--dry-run` shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    pub method: &'static str,
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
    /// The deliveries that travel in it, by their index in the batch.
    pub deliveries: Vec<usize>,
}

/// The credentials or the connection do not work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ProbeError {
    pub code: Code,
    pub message: String,
}

/// What a call may ask its caller.
pub struct Context<'a> {
    /// Whether requests for this batch may still be started: no, once this process gives up the batch's partitions, stops, or cannot
    /// commit what was sent. Asked right before each request; when it answers no, the call sends nothing more, requests that are in
    /// flight end, and the remaining deliveries come back at once as `Retry` with the code `not_owned`, which counts as not attempted.
    pub still_owned: &'a (dyn Fn() -> bool + Send + Sync),
}

/// A vendor that operations can be delivered to.
#[async_trait]
pub trait Destination: Send + Sync {
    fn spec(&self) -> &'static Spec;

    /// A name for people, secrets masked: `klaviyo pk_…4f2a at a.klaviyo.com`.
    fn target(&self) -> String;

    /// What the sandbox does with a number that is not finite in an output for this destination.
    fn non_finite(&self) -> NonFinite {
        NonFinite::default()
    }

    /// Turns one output of a transform into operations. Pure. The vendor's keys in it must be among the profile's identifiers.
    ///
    /// # Errors
    /// The output does not fit the vendor's schema, or names somebody else.
    fn classify(&self, input: &ClassifyInput<'_>) -> Result<Vec<Operation>, ClassifyError>;

    /// The requests that `deliver` would send for this batch. Pure.
    fn plan(&self, batch: &[Delivery]) -> Vec<Planned>;

    /// Delivers a batch in which every profile occurs at most once. May do I/O and wait for rate limits; must not spawn. Reports one
    /// outcome per delivery, each as soon as it is known: it is committed while the rest of the batch runs, so nothing further may be
    /// sent for that delivery. Dropping the future means that what was not reported has no outcome.
    async fn deliver(&self, batch: &[Delivery], outcomes: &Outcomes<'_>, context: &Context<'_>);

    /// Asks once for the outcomes of the deliveries that run in a job. Reports one outcome per delivery, as `deliver` does: `Accepted`
    /// with the same ticket while the job runs, and while its state cannot be learned (the vendor is away), since sending again would
    /// overtake it. `members` are all deliveries of the ticket, in the order in which they were sent.
    async fn confirm(&self, ticket: &Ticket, members: &[Delivery], outcomes: &Outcomes<'_>, context: &Context<'_>);

    /// Checks credentials and connection without changing anything at the vendor.
    ///
    /// # Errors
    /// What is wrong, and what to do about it.
    async fn probe(&self) -> Result<(), ProbeError>;

    /// Tells which part of the account's rate limit belongs to this process, between 0 and 1: the share of partitions that it owns.
    fn set_share(&self, share: f64);
}

// === impl Spec ===

impl Spec {
    /// How the destination performs a kind of operation.
    ///
    /// # Errors
    /// It cannot: `unsupported_operation`, with the list of what it can.
    pub fn supported(&self, kind: OperationKind) -> Result<&'static OperationSpec, ClassifyError> {
        self.operations.iter().find(|operation| operation.kind == kind).ok_or_else(|| {
            let message = format!("{} cannot `{kind}`; it can {}", self.kind, self.operation_names());
            ClassifyError { code: code::UNSUPPORTED_OPERATION, message }
        })
    }

    /// The names of the operations, for a message: `` `upsert_profile`, `track_event` ``.
    pub fn operation_names(&self) -> String {
        let names: Vec<_> = self.operations.iter().map(|operation| format!("`{}`", operation.kind)).collect();
        names.join(", ")
    }
}

// === impl Idempotent ===

impl Idempotent {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::ById => "by id",
            Self::No => "no",
        }
    }
}

// === impl Context ===

impl Context<'_> {
    /// Returns when no further request may be started. A request that waits for a rate limit waits for this as well: a limit of a few
    /// requests a minute must not hold up a shutdown.
    pub async fn lost(&self) {
        while (self.still_owned)() {
            tokio::time::sleep(OWNERSHIP_INTERVAL).await;
        }
    }
}
