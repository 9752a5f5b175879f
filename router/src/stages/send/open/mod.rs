//! A record of `outbound.<destination>` that is being delivered: its operations, one after the other.

use std::sync::Arc;
use std::time::Instant;

use tailwater_core::delivery::{Delivery, Reason};
use tailwater_core::envelope::{Envelope, Merge};
use tailwater_core::gate::Repeat;
use tailwater_core::operation::{Operation, Outbound};
use tailwater_core::{DeliveryKey, EventId, ProfileId, code};

use super::memory::Subject;
use crate::kafka::Record;
use crate::stages::shared::held::Held;

/// What takes its turn in the gate.
#[derive(Debug)]
pub enum Item {
    Record(Box<Open>),
    /// Everything before it belongs to the time before a merge; when its turn comes, the survivor may go on.
    Fence {
        merge: Merge,
        record: Arc<Record>,
        parked: Option<Held>,
    },
}

/// A record whose operations are being delivered.
#[derive(Debug)]
pub struct Open {
    pub record: Arc<Record>,
    /// It waits in state, not in Kafka: it came out of a parked queue.
    pub parked: Option<Held>,
    /// When it came into the gate: it may have waited longer for its turn than a batch is gathered.
    pub since: Option<Instant>,
    pub event: EventId,
    pub profile: ProfileId,
    pub operations: Vec<Operation>,
    /// The operation whose turn it is.
    pub current: usize,
    /// Attempts of the current operation that were made.
    pub attempts: u32,
    /// Those among them that failed by the delivery's own fault: an outage of the vendor must not use up its attempts.
    pub failures: u32,
    /// The vendor has been asked to do something for it.
    pub sent: bool,
    /// Codes of what became of the operations before.
    pub delivered: bool,
    /// The code of what the deliveries went out without, if anything.
    pub left_out: Option<&'static str>,
    pub skipped: Option<&'static str>,
    /// Why it ends as a dead letter, and after how many attempts.
    pub dead: Option<(Reason, u32)>,
}

impl Item {
    /// Bytes that it takes in memory, roughly: the record, and its operations beside it.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Record(open) => 2 * open.record.size(),
            Self::Fence { record, .. } => record.size(),
        }
    }

    /// What it would do if a crash repeated it after newer ones of its person. The vendor knows an event again by its key, while a state
    /// would take the person back.
    pub fn repeat(&self) -> Repeat {
        match self {
            Self::Record(open) if open.has_state() => Repeat::Harmful,
            Self::Record(_) => Repeat::Harmless,
            Self::Fence { .. } => Repeat::Barrier,
        }
    }
}

impl Open {
    /// Whether it sends a state.
    fn has_state(&self) -> bool {
        self.operations.iter().any(|operation| operation.kind.is_state())
    }

    /// Reads a record.
    ///
    /// # Errors
    /// It is none that route has written.
    pub fn read(record: &Arc<Record>) -> Result<Self, Reason> {
        let broken = |what: String| Reason::new(code::DECODE_FAILED, format!("{} {what}", record.coordinates()));
        let envelope = record.envelope().map_err(|error| broken(format!("has no readable header `tw`: {error}")))?;
        let (Some(event), Some(profile)) = (envelope.event_id, envelope.profile) else {
            return Err(broken("names no event or no profile".into()));
        };
        let outbound: Outbound = serde_json::from_slice(record.value().unwrap_or_default())
            .map_err(|error| broken(format!("is no list of operations: {error}")))?;
        Ok(Self {
            record: Arc::clone(record),
            parked: None,
            since: None,
            event,
            profile,
            operations: outbound.operations,
            current: 0,
            attempts: 0,
            failures: 0,
            sent: false,
            delivered: false,
            left_out: None,
            skipped: None,
            dead: None,
        })
    }

    pub fn envelope(&self) -> Envelope<'_> {
        // It was read once when the record was opened.
        self.record.envelope().unwrap_or_default()
    }

    /// What the current operation is a version of.
    pub fn subject<'e>(partition: i32, envelope: &Envelope<'e>) -> Subject<'e> {
        Subject {
            partition,
            source: envelope.source,
            row_key: envelope.row_key.unwrap_or_default(),
            position: envelope.position,
        }
    }

    /// The delivery of the current operation; `None` when all are done.
    pub fn delivery(&self, destination: &str) -> Option<Delivery> {
        let operation = self.operations.get(self.current)?;
        let envelope = self.envelope();
        Some(Delivery {
            key: DeliveryKey::with_target(
                self.event,
                destination,
                &operation.route,
                operation.kind.as_str(),
                &operation.place,
                operation.target.as_deref(),
            ),
            profile: self.profile,
            event: self.event,
            time: envelope.time,
            position: envelope.position.map(Into::into),
            identifiers: envelope
                .identifiers
                .iter()
                .map(|identifier| (identifier.kind.to_owned(), identifier.value.to_owned()))
                .collect(),
            backfill: envelope.backfill.is_some() || envelope.replay.is_some(),
            attempt: self.attempts + 1,
            operation: operation.clone(),
        })
    }
}

#[cfg(test)]
mod fuzz;
