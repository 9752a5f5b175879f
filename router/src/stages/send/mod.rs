//! The send stage: delivers operations to a destination, in order per person, within the vendor's limits.
//!
//! One consumer group per destination reads `outbound.<destination>`. A gate lets one record of a person go at a time; what is ready
//! is gathered into batches, and the connector answers with one outcome per delivery. State, ledger, history and offsets are
//! committed together; the calls to the vendor are outside, so they are made at least once, with keys that let a repeat be recognised.
//!
//! A record that was sent keeps its turn until what became of it is committed. What a crash makes repeat is therefore at most the last
//! record of a person that the vendor has seen: never an older one after a newer one. What is finished behind an open record is
//! remembered ([`finished`]), so that nothing is repeated whose end is committed, however far the offset lags behind.
//!
//! All state belongs to one thread. [`Session`] is the state machine: it decides, and asks through [`outside::Outside`] for everything
//! that is not a decision. [`clients`] is the world that it runs in; `simulation` is another one, with faults at every step.

mod calls;
mod clients;
mod commit;
mod finished;
mod history;
mod intake;
mod lanes;
mod memory;
mod open;
mod outcome;
mod outside;
mod pause;
#[cfg(test)]
mod simulation;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tailwater_core::delivery::Ticket;
use tailwater_core::gate::{Gate, Turn};
use tailwater_core::tracker::{Bounds, OffsetTracker};
use tailwater_core::{ProfileId, Timestamp};

use self::calls::{Job, Waiting as Ready};
use self::clients::Clients;
use self::finished::Finished;
use self::open::Item;
use self::outside::{Outside, Settings};
use self::pause::Pause;
use super::age::Age;
use super::held::{Held, Waiting};
use super::pace::Pace;
use super::{Error, IDLE_WAIT};
use crate::app::Shared;
use crate::kafka::Record;
use crate::telemetry::{Telemetry, Vendor};

/// How long the loop waits for records while something else may happen any moment.
const BUSY_WAIT: Duration = Duration::from_millis(5);

/// A process that was given no lane is ready after this time all the same: others have them.
const UNASSIGNED_MAX: Duration = Duration::from_secs(15);

/// Runs the stage for one destination until shutdown.
///
/// # Errors
/// Kafka or the local state fail in a way that a new attempt may or may not cure (see [`Error::is_recoverable`]).
pub fn run(shared: &Arc<Shared>, destination: &str) -> Result<(), Error> {
    let (clients, setup) = Clients::connect(shared, destination)?;
    let mut session = Session::new(clients, setup);
    let ended = follow(shared, &mut session);
    if ended.is_err() {
        session.let_calls_end();
    }
    ended
}

fn follow(shared: &Arc<Shared>, session: &mut Session<Clients<'_>>) -> Result<(), Error> {
    let readiness = shared.telemetry.readiness(&format!("send.{}", session.setup.name));
    let joined = Instant::now();
    while !shared.shutdown.is_requested() {
        session.round()?;
        shared.telemetry.flush_lines();
        if session.outside.is_serving() || joined.elapsed() > UNASSIGNED_MAX {
            readiness.ready();
        }
    }
    session.end()
}

/// What a session is told once.
struct Setup {
    /// The destination's name.
    name: String,
    topic: Arc<str>,
    /// Partitions of the topic.
    lanes: u32,
    settings: Settings,
    /// The configured one.
    commit_interval: Duration,
    /// How long the topic keeps its records.
    retention: Duration,
    /// Records that may be in the gate.
    open_max: usize,
    /// Offsets that one lane may have open.
    bounds: Bounds,
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
    /// When the open records of each lane were appended, in their order.
    appended: BTreeMap<i32, VecDeque<(i64, Timestamp)>>,
    age: Age,
    /// Where each lane stands: the offset that was committed last, or where it was taken over.
    committed: BTreeMap<i32, i64>,
    committed_at: Instant,
    pace: Pace,
    /// Records that the gate had no room for.
    backlog: VecDeque<(Arc<Record>, Option<Held>)>,
    /// Parked records that are on their way out of state, by lane and offset, so that none goes twice.
    unparked: HashSet<(i32, i64)>,
    ready: Ready,
    /// Turns of records that the vendor has seen and whose ends the next commit carries; only then may the person's next one go.
    settling: Vec<(ProfileId, Turn)>,
    calls_running: usize,
    jobs: BTreeMap<Ticket, Job>,
    /// Nothing is started before this time: the account's trouble.
    not_before: Timestamp,
    paused: Option<Pause>,
    /// How the vendor answers, for people to see.
    vendor: Vendor,
    reading: bool,
    /// Something was produced or written since the last commit.
    dirty: bool,
}

impl<O: Outside> Session<O> {
    fn new(outside: O, setup: Setup) -> Self {
        let gauge = setup.telemetry.metrics().oldest_open("send", &setup.name);
        Self {
            waiting: Waiting::default(),
            gate: Gate::new(setup.open_max),
            trackers: BTreeMap::new(),
            finished: Finished::default(),
            appended: BTreeMap::new(),
            age: Age::new("send", &setup.name, setup.retention, gauge),
            committed: BTreeMap::new(),
            committed_at: outside.instant(),
            pace: Pace::new(setup.commit_interval),
            backlog: VecDeque::new(),
            unparked: HashSet::new(),
            ready: Ready::default(),
            settling: Vec::new(),
            calls_running: 0,
            jobs: BTreeMap::new(),
            not_before: Timestamp::default(),
            paused: None,
            vendor: Vendor::new(&setup.telemetry, &setup.name),
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
        self.look_after_pause();
        // Before the next calls are made: a commit lets people go on whose last record it carries.
        if self.outside.instant().saturating_duration_since(self.committed_at) >= self.pace.interval() {
            self.commit()?;
        }
        self.start()
    }

    /// The process stops: what is on its way may end, and what has ended is committed.
    fn end(&mut self) -> Result<(), Error> {
        self.drain(|_| true)?;
        self.commit()
    }

    fn is_busy(&self) -> bool {
        self.calls_running > 0 || !self.ready.is_empty() || self.dirty || !self.backlog.is_empty()
    }

    /// Takes over what was reloaded: limits, retries, credentials.
    fn reload(&mut self) -> Result<(), Error> {
        if let Some(settings) = self.outside.reload()? {
            self.setup.settings = settings;
            self.outside.share();
            self.resume();
        }
        Ok(())
    }
}
