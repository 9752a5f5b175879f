//! The route stage: from events of a person to operations for one destination.
//!
//! One consumer group per destination reads `resolved`. For each event: does a route want it (`when`), does the person have the
//! destination's key (else it is held), what does the transform make of it, does the connector accept that. What comes out is one record
//! on `outbound.<destination>` with all operations of the event.
//!
//! A batch is planned ([`plan`]), its transforms are run ([`transform`]), the failures are judged ([`verdict`]), and only then anything is
//! written. Where the route has to pause, the plan is thrown away and made anew for the records before the failing one; those and
//! all behind them stay where they are, uncommitted, and are run again first when something was reloaded.

pub mod existence;
mod failed;
// Plans are seen from elsewhere by the simulation of send, which runs them before it.
mod pauses;
pub(in crate::stages) mod plan;
mod routes;
pub(in crate::stages) mod subscribed;
#[cfg(test)]
mod tests;
mod transform;
mod verdict;
mod write;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tailwater_core::envelope::{Envelope, Role};
use tailwater_core::ledger;
use tailwater_core::limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX};
use tracing::debug;

pub use self::routes::{CompileError, Routes};

use self::pauses::Pauses;
use self::plan::{Planner, Stand};
use self::subscribed::Compiled;
use self::transform::Results;
use self::verdict::{Cut, Windows};
use super::{Error, IDLE_WAIT};
use crate::failpoint;
use crate::kafka::consumer::{Event, Partition, Polled};
use crate::kafka::{Consumer, Producer, Record, client};
use crate::runtime::Context;
use crate::runtime::clock::{now, steady, surely};
use crate::stages::shared::age::Age;
use crate::stages::shared::commit::{Stage, UnitOfWork};
use crate::stages::shared::destination::Slot;
use crate::stages::shared::held::fences::Fences;
use crate::stages::shared::held::group::GroupPartitions;
use crate::stages::shared::held::{self, Waiting};
use crate::stages::shared::ledger::Ledger;
use crate::stages::shared::pace::Pace;
use crate::state::Store;
use crate::telemetry::Heartbeat;
use crate::telemetry::events::{FenceLost, Ownership, Rebalanced};

/// How often holds are looked at for their time limit.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(60);

/// Runs the stage for one destination until shutdown.
///
/// # Errors
/// Kafka or the local state fail in a way that a new attempt may or may not cure (see [`Error::is_recoverable`]).
pub fn run(shared: &Arc<Context>, routes: &Slot<Routes>) -> Result<(), Error> {
    let destination = routes.load().handle.config.name.clone();
    Session::open(shared, &destination)?.follow(routes)
}

struct Session<'a> {
    shared: &'a Arc<Context>,
    destination: &'a str,
    consumer: Consumer,
    pace: Pace,
    unit: UnitOfWork,
    waiting: Waiting,
    /// Read and not committed yet, in the order of each partition.
    pending: Vec<Arc<Record>>,
    results: Results,
    windows: Windows,
    pauses: Pauses,
    fences: Fences,
    expiry_looked: Instant,
    /// The last batch moved nothing, because failures wait for their verdict.
    stalled: bool,
    /// False while the partitions are not read because enough is pending.
    reading: bool,
    /// Where each partition stands: the offset that was committed last, or where it was taken over.
    positions: BTreeMap<i32, i64>,
    /// The offset of each partition from which on the destination exists.
    begins: BTreeMap<i32, i64>,
    heartbeat: Heartbeat,
    age: Age,
    topic: Arc<str>,
    /// The topic of the operations.
    outbound: String,
}

impl<'a> Session<'a> {
    fn open(shared: &'a Arc<Context>, destination: &'a str) -> Result<Self, Error> {
        let kafka = &shared.config.kafka;
        let names = &shared.names;
        let id = names.transactional_id("route", Some(destination), shared.cache.instance());
        let outputs = [
            names.outbound(destination),
            names.resolved(),
            names.ledger(),
            names.state_route(destination),
            names.dlq_destination(destination),
        ];
        let producer = Producer::connect(kafka, Some(&id), &outputs)?;
        Ok(Self {
            shared,
            destination,
            consumer: Consumer::subscribe(kafka, &names.group("route", Some(destination)), &[names.resolved()])?,
            pace: Pace::new(client::commit_interval(kafka.latency)),
            waiting: Waiting::new(producer.record_bytes_max()),
            unit: UnitOfWork::new(
                Stage::Route,
                producer,
                Store::new(kafka, &shared.cache, &names.state_route(destination)),
                Some(Ledger::new(names.ledger(), ledger::Stage::Route, kafka.partitions)),
            ),
            pending: Vec::new(),
            results: Results::default(),
            windows: Windows::default(),
            pauses: Pauses::default(),
            fences: Fences::default(),
            expiry_looked: Instant::now(),
            stalled: false,
            reading: true,
            positions: BTreeMap::new(),
            begins: BTreeMap::new(),
            heartbeat: shared.telemetry.heartbeat(&format!("route.{destination}")),
            age: Age::new(
                "route",
                destination,
                kafka.retention,
                shared.telemetry.metrics().oldest_open("route", destination),
            ),
            topic: Arc::from(names.resolved()),
            outbound: names.outbound(destination),
        })
    }

    fn follow(mut self, slot: &Slot<Routes>) -> Result<(), Error> {
        let name = format!("route.{}", self.destination);
        let readiness = self.shared.telemetry.readiness(&name);
        let joined = Instant::now();
        let mut routes = slot.load_full();
        while !self.shared.shutdown.is_requested() {
            self.heartbeat.tick();
            self.shared.telemetry.flush_lines();
            let loaded = slot.load_full();
            if loaded.handle.generation != routes.handle.generation {
                routes = loaded;
                self.results.clear();
                self.windows = Windows::default();
                self.resume()?;
            }
            let stands_still = self.stands_still(&routes);
            self.gather(stands_still)?;
            let open = self.pending.iter().chain(&self.pauses.unread).map(|record| record.timestamp);
            self.age.observe(open.min(), now());
            // A group may have more members than partitions; a member without any is ready all the same.
            if !self.consumer.assignment().is_empty() || joined.elapsed() > Duration::from_secs(15) {
                readiness.ready();
            }
            if !self.stands_still(&routes) {
                self.batch(&routes)?;
            }
            self.ask_for_fences()?;
        }
        Ok(())
    }

    /// Takes records for one transaction: until the interval is over, or the batch is full.
    fn gather(&mut self, stands_still: bool) -> Result<(), Error> {
        let mut until: Option<Instant> = None;
        let mut bytes: usize = self.pending.iter().map(|record| record.size()).sum();
        let is_full = |records: usize, bytes: usize| records >= BATCH_RECORDS_MAX || bytes >= BATCH_BYTES_MAX;
        if !stands_still {
            // What is pending waits for a verdict: nothing more is read, but the membership must be looked after.
            let rests = self.stalled && is_full(self.pending.len(), bytes);
            if rests == self.reading {
                let open = |partition: &&Partition| !self.pauses.full.contains(&partition.1);
                let partitions: Vec<Partition> = self.consumer.assignment().iter().filter(open).cloned().collect();
                self.consumer.pause(&partitions, rests)?;
                self.reading = !rests;
            }
        }
        loop {
            if is_full(self.pending.len(), bytes) && !stands_still && self.reading {
                return Ok(());
            }
            let left = BATCH_RECORDS_MAX.saturating_sub(self.pending.len());
            let wait = until.map_or(IDLE_WAIT, |until| until.saturating_duration_since(Instant::now()));
            // While paused, the partitions are paused too: polling keeps the membership and brings nothing.
            match self.consumer.poll(left.max(1), BATCH_BYTES_MAX, wait)? {
                Polled::Records(records) if records.is_empty() => return Ok(()),
                Polled::Records(records) => {
                    for record in records.into_iter().map(Arc::new) {
                        if self.pauses.full.contains(&record.partition) {
                            self.pauses.unread.push(record);
                        } else {
                            bytes += record.size();
                            self.pending.push(record);
                        }
                    }
                }
                Polled::Event(event) => {
                    self.rebalance(event)?;
                    return Ok(());
                }
            }
            if Instant::now() >= *until.get_or_insert_with(|| Instant::now() + self.pace.interval()) {
                return Ok(());
            }
        }
    }

    fn rebalance(&mut self, event: Event) -> Result<(), Error> {
        let numbers_of = |partitions: &[Partition]| partitions.iter().map(|(_, number)| *number).collect::<Vec<_>>();
        let (numbers, change) = match event {
            Event::Assign(partitions) => {
                let numbers = numbers_of(&partitions);
                let starts = self.consumer.starts(&partitions, |_| self.unit.is_transactional())?;
                self.unit.store_mut().restore(&numbers, &|| self.heartbeat.tick())?;
                self.waiting.load(self.unit.store(), &numbers)?;
                self.unit.reset_ledger();
                for (topic, number) in &partitions {
                    let (_, end) = self.consumer.watermarks(topic, *number)?;
                    let beginning = existence::load(self.unit.store_mut(), *number, end, now())?;
                    self.begins.insert(*number, beginning.offset);
                }
                if self.pauses.routes.is_empty() {
                    // A pause that an earlier owner wrote down is over: what failed is about to be run again.
                    for number in &numbers {
                        held::set_pause(self.unit.store_mut(), *number, None)?;
                    }
                    self.commit(&BTreeMap::new())?;
                }
                failpoint::hit("rebalance.route");
                self.consumer.assigned(&starts)?;
                self.positions.extend(starts.iter().map(|start| (start.partition, start.offset)));
                if self.pauses.all || !self.reading {
                    self.consumer.pause(&partitions, true)?;
                }
                (numbers, Ownership::Assigned)
            }
            Event::Revoke { partitions, lost } => {
                // Every batch is committed as a whole, so there is nothing to finish: what is pending is read again by the next owner.
                let numbers = numbers_of(&partitions);
                self.pending.retain(|record| !numbers.contains(&record.partition));
                self.pauses.forget(&numbers);
                self.results.retain(|(number, ..)| !numbers.contains(number));
                self.windows.retain(|(number, ..)| !numbers.contains(number));
                self.positions.retain(|number, _| !numbers.contains(number));
                self.begins.retain(|number, _| !numbers.contains(number));
                self.unit.store_mut().release(&numbers);
                self.waiting.forget(&numbers);
                self.consumer.revoked(&partitions)?;
                (numbers, if lost { Ownership::Lost } else { Ownership::Revoked })
            }
        };
        self.shared.telemetry.emit(&Rebalanced {
            stage: "route",
            component: self.destination,
            change,
            partitions: &numbers,
            owned: self.consumer.assignment().len(),
        });
        Ok(())
    }

    /// Plans, runs, judges and writes what is pending, as far as it may go.
    fn batch(&mut self, routes: &Routes) -> Result<(), Error> {
        let expiry_due = self.expiry_looked.elapsed() > EXPIRY_INTERVAL;
        if self.pending.is_empty() && !expiry_due && self.go_on_first(1).is_empty() {
            self.stalled = false;
            return Ok(());
        }
        let started = Instant::now();
        let records: Vec<Arc<Record>> = self.pending.iter().take(BATCH_RECORDS_MAX).cloned().collect();
        let mut cut = Cut::default();
        let ready = self.go_on_first(BATCH_RECORDS_MAX);
        let (actions, pause, dead, blocked) = loop {
            let wants = Compiled { routes, schemas: &self.shared.schemas, begins: &self.begins };
            let stand = Stand { routes: &self.pauses.routes, blocked: &self.pauses.blocked, undecided: &cut.people };
            let mut planner = Planner::new(wants, self.unit.store_mut(), &mut self.waiting, now(), stand);
            if expiry_due {
                let partitions: Vec<i32> = self.consumer.assignment().iter().map(|(_, partition)| *partition).collect();
                planner.expired(&partitions, &self.topic, surely())?;
            }
            planner.go_on(ready.iter().copied(), &self.topic)?;
            for (place, record) in records.iter().enumerate() {
                if cut.admits(record.partition, place) {
                    planner.record(place, record)?;
                }
            }
            let (actions, blocked, full) = (planner.actions, planner.blocked, planner.full);
            let went_on = planner.went_on;
            self.results.run(&actions, routes, &self.shared.schemas, now(), self.shared.telemetry.metrics())?;
            match self.windows.judge(&actions, &self.results, routes, steady()) {
                verdict::Verdict::Proceed { dead } => {
                    for (partition, place) in full {
                        cut.stop(partition, place);
                        self.pauses.full.insert(partition);
                    }
                    self.pauses.cursor = went_on;
                    break (actions, cut.pause.take(), dead, blocked);
                }
                verdict::Verdict::Cut(more) => {
                    self.unit.store_mut().aborted();
                    self.waiting.undo();
                    cut.tighten(more);
                }
            }
        };
        self.waiting.accept();
        self.pauses.blocked.extend(blocked);
        if expiry_due {
            self.expiry_looked = Instant::now();
        }
        let next = next_offsets(&records, &cut);
        self.stalled = next.is_empty();
        self.stop_reading_full()?;
        if next.is_empty() && actions.is_empty() && pause.is_none() {
            return Ok(());
        }
        if let Some(pause) = pause {
            self.pause(pause, routes)?;
        }
        let written = self.write(&actions, routes, &dead)?;
        let committing = Instant::now();
        self.commit(&next)?;
        self.pace.committed(committing.elapsed());
        let is_left = |record: &Arc<Record>| next.get(&record.partition).is_none_or(|next| record.offset >= *next);
        self.pending.retain(is_left);
        self.pauses.unread.retain(is_left);
        let open: HashSet<(i32, i64)> = self.pending.iter().map(|record| (record.partition, record.offset)).collect();
        self.windows.written(&actions, &self.results);
        self.results.retain(|(partition, offset, _)| {
            let place = (*partition, *offset);
            open.contains(&place) || cut.kept.contains(&place)
        });
        let metrics = self.shared.telemetry.metrics();
        metrics.stage_component_records("route", self.destination, records.len());
        metrics.written("route", self.destination, written);
        metrics.transaction_seconds("route", started.elapsed());
        metrics.held(self.destination, usize::try_from(self.waiting.records()).unwrap_or(usize::MAX));
        debug!(
            destination = self.destination,
            records = records.len(),
            written,
            ms = started.elapsed().as_millis(),
            "routed a batch"
        );
        Ok(())
    }

    /// Appends the fences once more that can no longer arrive.
    fn ask_for_fences(&mut self) -> Result<(), Error> {
        let owned = self.consumer.assignment().iter().map(|(_, partition)| *partition);
        let due = self.fences.due(&self.waiting, self.unit.store(), owned, steady())?;
        let kafka = &self.shared.config.kafka;
        let mut partitions = GroupPartitions { kafka, consumer: &self.consumer, topic: &self.topic };
        let missing = self.fences.missing(&due, &mut partitions, steady())?;
        for merge in &missing {
            self.shared.telemetry.emit(&FenceLost { destination: self.destination, stage: "route", merge: *merge });
            let envelope = Envelope {
                workspace: &self.shared.config.workspace,
                profile: Some(merge.absorbed),
                role: Role::Fence(*merge),
                only_destination: Some(self.destination),
                ..Envelope::default()
            };
            self.append_resolved(merge.absorbed, None, Some(&envelope.to_bytes()))?;
        }
        if missing.is_empty() { Ok(()) } else { self.commit(&BTreeMap::new()) }
    }

    fn commit(&mut self, next: &BTreeMap<i32, i64>) -> Result<(), Error> {
        // Every partition's offset travels, moved or not: it is what makes the broker refuse a process whose partitions have moved on.
        let mut positions = self.positions.clone();
        positions.extend(next);
        let offsets = positions.iter().map(|(partition, offset)| (&*self.topic, *partition, *offset));
        self.unit.commit(offsets, &self.consumer)?;
        self.positions = positions;
        Ok(())
    }
}

/// The next offset to read of every partition that the batch moves forward.
fn next_offsets(records: &[Arc<Record>], cut: &Cut) -> BTreeMap<i32, i64> {
    let mut next = BTreeMap::new();
    for (place, record) in records.iter().enumerate() {
        if cut.admits(record.partition, place) {
            next.insert(record.partition, record.offset + 1);
        }
    }
    next
}
