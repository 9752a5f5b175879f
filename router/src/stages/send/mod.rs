//! The send stage: delivers operations to a destination, in order per person, within the vendor's limits.
//!
//! One consumer group per destination reads `outbound.<destination>`. A gate lets one record of a person go at a time; what is ready
//! is gathered into batches, and the connector answers with one outcome per delivery. State, ledger, history and offsets are
//! committed together; the calls to the vendor are outside, so they are made at least once, with keys that let a repeat be recognised.
//!
//! A person's next state goes when what became of the one before is committed: a crash repeats the last state that the vendor has
//! seen, and never an older one after a newer one. Events need not wait for that, up to a maximum: the vendor knows a repeated event
//! again by its key, and a crash repeats them in their order. What is finished behind an open record is
//! remembered ([`finished`]), so that nothing is repeated whose end is committed, however far the offset lags behind.
//!
//! All state belongs to one thread. [`Session`] is the state machine: it decides, and asks through [`outside::Outside`] for everything
//! that is not a decision. [`clients`] is the world that it runs in; `simulation` is another one, with faults at every step.

mod calls;
mod clients;
mod commit;
mod facts;
mod finished;
mod handover;
mod history;
mod intake;
mod memory;
mod open;
mod outcome;
mod outside;
mod parked;
mod pause;
mod planted;
mod rebalance;
mod rejections;
#[cfg(test)]
mod simulation;
mod stall;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tailwater_core::delivery::Ticket;
use tailwater_core::gate::{Capacity, Gate};
use tailwater_core::tracker::{Bounds, OffsetTracker};
use tailwater_core::{ProfileId, Timestamp};

use self::calls::{Job, Waiting as Ready};
use self::clients::Clients;
use self::facts::Facts;
use self::finished::Finished;
use self::open::Item;
use self::outside::{Outside, Settings};
use self::parked::Parked;
use self::pause::{Notes, Pause};
use self::rejections::Rejections;
use super::{Error, IDLE_WAIT};
use crate::kafka::Record;
use crate::runtime::Context;
use crate::stages::shared::age::Age;
use crate::stages::shared::destination::{Handle, Slot};
use crate::stages::shared::held::Waiting;
use crate::stages::shared::held::fences::Fences;
use crate::stages::shared::pace::Pace;
use crate::telemetry::{Telemetry, Vendor};

/// How long the loop waits for records while something else may happen any moment.
const BUSY_WAIT: Duration = Duration::from_millis(5);

/// A process that was given no partition is ready after this time all the same: others have them.
const UNASSIGNED_MAX: Duration = Duration::from_secs(15);

/// Runs the stage for one destination until shutdown.
///
/// # Errors
/// Kafka or the local state fail in a way that a new attempt may or may not cure (see [`Error::is_recoverable`]).
pub fn run(shared: &Arc<Context>, destination: &Slot<Handle>) -> Result<(), Error> {
    let (clients, setup) = Clients::connect(shared, destination)?;
    let mut session = Session::new(clients, setup);
    let ended = follow(shared, &mut session);
    if ended.is_err() {
        session.let_calls_end();
    }
    ended
}

fn follow(shared: &Arc<Context>, session: &mut Session<Clients<'_>>) -> Result<(), Error> {
    let readiness = shared.telemetry.readiness(&format!("send.{}", session.setup.name));
    let joined = Instant::now();
    while !shared.shutdown.is_requested() {
        session.round()?;
        shared.telemetry.flush_lines();
        if session.outside.is_serving() || joined.elapsed() > UNASSIGNED_MAX {
            readiness.ready();
        }
    }
    // The rest of the grace period is for the last commit.
    session.end(shared.shutdown.left().mul_f64(0.8))
}

/// What a session is told once.
struct Setup {
    /// The destination's name.
    name: String,
    topic: Arc<str>,
    /// Partitions of the topic.
    partitions: u32,
    settings: Settings,
    /// The configured one.
    commit_interval: Duration,
    /// How long the topic keeps its records.
    retention: Duration,
    capacity: Capacity,
    /// Records of one person in the gate.
    share_max: usize,
    /// Records that may wait in state only because their person has many of them.
    parked_max: u64,
    /// How large a record of the state's topic may be.
    record_bytes_max: Option<usize>,
    /// Offsets that one partition may have open.
    bounds: Bounds,
    /// By source: how long the ids of its facts are remembered.
    dedupe: BTreeMap<String, Duration>,
    telemetry: Telemetry,
}

/// The state machine of one destination in one process, from joining the group to its end or its first error.
struct Session<O: Outside> {
    setup: Setup,
    outside: O,
    waiting: Waiting,
    gate: Gate<ProfileId, Item>,
    trackers: BTreeMap<i32, OffsetTracker>,
    finished: Finished,
    facts: Facts,
    /// When the open records of each partition were appended, in their order.
    appended: BTreeMap<i32, VecDeque<(i64, Timestamp)>>,
    age: Age,
    /// Where each partition stands: the offset that was committed last, or where it was taken over.
    committed: BTreeMap<i32, i64>,
    committed_at: Instant,
    pace: Pace,
    /// Records that were read while the gate was full.
    backlog: VecDeque<Arc<Record>>,
    parked: Parked,
    ready: Ready,
    calls_running: usize,
    jobs: BTreeMap<Ticket, Job>,
    fences: Fences,
    /// Nothing is started before this time: the account's trouble.
    not_before: Timestamp,
    paused: Option<Pause>,
    notes: Notes,
    /// How the vendor answers, for people to see.
    vendor: Vendor,
    rejections: Rejections,
    reading: bool,
    /// Something was produced or written since the last commit.
    dirty: bool,
}

impl<O: Outside> Session<O> {
    fn new(outside: O, setup: Setup) -> Self {
        let gauge = setup.telemetry.metrics().oldest_open("send", &setup.name);
        Self {
            waiting: Waiting::new(setup.record_bytes_max),
            gate: Gate::new(setup.capacity),
            trackers: BTreeMap::new(),
            finished: Finished::default(),
            facts: Facts::new(setup.dedupe.clone()),
            appended: BTreeMap::new(),
            age: Age::new("send", &setup.name, setup.retention, gauge),
            committed: BTreeMap::new(),
            committed_at: outside.instant(),
            pace: Pace::new(setup.commit_interval),
            backlog: VecDeque::new(),
            parked: Parked::default(),
            ready: Ready::default(),
            calls_running: 0,
            jobs: BTreeMap::new(),
            fences: Fences::default(),
            not_before: Timestamp::default(),
            paused: None,
            notes: Notes::default(),
            vendor: Vendor::new(&setup.telemetry, &setup.name),
            rejections: Rejections::default(),
            reading: true,
            dirty: false,
            setup,
            outside,
        }
    }

    /// One turn of the loop.
    fn round(&mut self) -> Result<(), Error> {
        self.outside.alive();
        self.reload()?;
        let wait = if self.is_busy() { BUSY_WAIT } else { IDLE_WAIT };
        self.intake(wait)?;
        self.answered()?;
        self.judge_rejections()?;
        self.look_after_pause();
        self.look_after_fences()?;
        self.note_pauses()?;
        // Before the next calls are made: a commit lets people go on whose last record it carries.
        self.commit_if_due()?;
        self.start()
    }

    /// The process stops: no request is started any more, what is in flight may take this long to end, and what is known is committed.
    fn end(&mut self, at_most: Duration) -> Result<(), Error> {
        let partitions = self.outside.assignment();
        self.outside.renounce(&partitions);
        self.drain(at_most, |_| true)?;
        self.commit()
    }

    fn is_busy(&self) -> bool {
        self.calls_running > 0
            || !self.ready.is_empty()
            || self.dirty
            || !self.backlog.is_empty()
            || !self.parked.is_idle()
    }

    /// Takes over what was reloaded: limits, retries, credentials.
    fn reload(&mut self) -> Result<(), Error> {
        if let Some(settings) = self.outside.reload()? {
            self.setup.settings = settings;
            self.outside.share();
            self.resume();
            self.retry_routes();
        }
        Ok(())
    }
}
