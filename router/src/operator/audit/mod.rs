//! The audit: proves, from what the stages recorded, that every source record has an end at every destination that is subscribed to it.
//!
//! *In* is what the ingest topics hold, read record by record, so that a loss in resolve itself comes to light; for records that Kafka has
//! removed, what resolve noted of them. Against it stand the ends of the ledger. What has none must be on its way: before resolve's committed
//! offset, in `resolved` before route's, in `outbound.*` before send's, or in the state of held and parked records. All of these are read, not
//! assumed: a held record whose state is gone is *unaccounted*, and so is one that was routed and is in no topic.
//!
//! The stages go on while the audit reads. A record that moves on just then could be missed at both places, so a finding counts
//! only when a second look confirms it.

mod read;
mod report;
mod tally;

use std::collections::BTreeMap;
use std::time::Duration;

use tailwater_core::{Code, Timestamp, code};

pub use self::report::{Audit, Flow, Lost, Paused};

use crate::config::model::Config;
use crate::kafka;

/// Looks that must agree before a record is called unaccounted, and the time between them.
const LOOKS: usize = 3;
const LOOK_AGAIN: Duration = Duration::from_millis(700);

/// Why the audit could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    #[error("the ledger could not be read at {at}: {source}")]
    Ledger {
        at: String,
        #[source]
        source: tailwater_core::ledger::DecodeError,
    },
}

impl Error {
    pub fn code(&self) -> Code {
        match self {
            Self::Kafka(error) => error.code(),
            Self::Ledger { .. } => code::DECODE_FAILED,
        }
    }
}

/// A place in an ingest topic.
pub type Place = (String, i32, i64);

/// Makes an audit of the records that were appended since `since`, or of all that is known. `progress` is told what is being read.
///
/// # Errors
/// No broker answers, or a record of the ledger cannot be read.
pub fn audit(config: &Config, since: Option<Timestamp>, progress: &mut dyn FnMut(&str)) -> Result<Audit, Error> {
    let mut audit = look(config, since, progress)?;
    for _ in 1..LOOKS {
        if audit.unaccounted() == 0 {
            break;
        }
        progress("looking again at what has no end yet");
        std::thread::sleep(LOOK_AGAIN);
        let again = look(config, since, progress)?;
        audit = audit.confirmed_by(again);
    }
    Ok(audit)
}

fn look(config: &Config, since: Option<Timestamp>, progress: &mut dyn FnMut(&str)) -> Result<Audit, Error> {
    let mut reader = read::Read::connect(config)?;
    progress("reading committed offsets");
    let resolved_to = reader.committed("resolve", None, &reader.ingest_topics())?;
    progress("reading the ingest topics");
    let mut known = reader.ingest(&resolved_to, since)?;
    let mut open: BTreeMap<String, tally::Places> = BTreeMap::new();
    for destination in config.destinations.keys() {
        progress(&format!("reading what is on its way to {destination}"));
        let places = open.entry(destination.clone()).or_default();
        reader.on_its_way_to_route(destination, places)?;
        reader.held(destination, places)?;
    }
    progress("reading the ledger");
    let mut ledger = tally::Ledger::default();
    reader.ledger(&mut ledger)?;
    for destination in config.destinations.keys() {
        let places = open.entry(destination.clone()).or_default();
        reader.on_its_way_to_send(destination, places)?;
        reader.parked(destination, places)?;
    }
    progress("reading how the sources do");
    reader.failing_sources()?;
    progress("reading the ledger to its end");
    reader.ledger(&mut ledger)?;
    ledger.add_removed(&mut known, &reader.removed_before, since.is_some());
    let mut audit = tally::tally(config, &known, &ledger, &open);
    audit.paused = reader.paused.into_iter().collect();
    Ok(audit)
}
