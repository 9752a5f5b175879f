//! The send stage: delivers operations to a destination, in order per person, within the vendor's limits.
//!
//! One consumer group per destination reads `outbound.<destination>`. A gate lets one record of a person go at a time; what is ready
//! is gathered into batches, and the connector answers with one outcome per delivery. State, ledger, history and offsets are
//! committed together; the calls to the vendor are outside, so they are made at least once, with keys that let a repeat be recognised.
//!
//! A record that was sent keeps its turn until what became of it is committed. What a crash makes repeat is therefore at most the last
//! record of a person that the vendor has seen: never an older one after a newer one.
//!
//! All state belongs to one thread. Calls run elsewhere and come back through a channel; right before a request the connector asks
//! whether this process still owns the lanes, so that one that was stopped and woke up again sends nothing.

mod calls;
mod memory;
mod open;
mod outcome;

pub use self::memory::read_parked;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::topic_partition_list::TopicPartitionList;
use tailwater_connectors::Destination as Connector;
use tailwater_core::delivery::{Reason, Ticket};
use tailwater_core::envelope::{Merge, Role};
use tailwater_core::gate::{Gate, Turn};
use tailwater_core::ledger::{End, Stage};
use tailwater_core::limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, DELIVERIES_OPEN_MAX};
use tailwater_core::retry::RetryPolicy;
use tailwater_core::tracker::{Bounds, OffsetTracker};
use tailwater_core::{ProfileId, Timestamp, code};
use tracing::{debug, warn};

use self::calls::{Answer, Job, Waiting as Ready};
use self::open::{Item, Open};
use super::age::Age;
use super::dead_letter::{self, Failure};
use super::held::{self, Held, Waiting};
use super::ledger::Ledger;
use super::{Error, IDLE_WAIT, now};
use crate::app::Shared;
use crate::config::model::Destination;
use crate::failpoint;
use crate::kafka::consumer::{Event, Ownership, Partition, Polled};
use crate::kafka::{Consumer, Outgoing, Producer, Record, client};
use crate::state::Store;
use crate::telemetry::Heartbeat;
use crate::telemetry::events::{Ownership as Change, Paused, Rebalanced, Resumed};

/// How long calls may take to end when lanes are given back or the process stops.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// Answers that wait to be taken in: one for each call that may run, and for a probe; more than that cannot be on their way.
const ANSWERS_MAX: usize = 256;

/// How often a paused destination is asked whether its credentials work again.
const PROBE_INTERVAL: Duration = Duration::from_secs(30);

/// Runs the stage for one destination until shutdown.
///
/// # Errors
/// Kafka or the local state fail in a way that a new attempt may or may not cure (see [`Error::is_recoverable`]).
pub fn run(shared: &Arc<Shared>, destination: &str) -> Result<(), Error> {
    let mut session = Session::open(shared, destination)?;
    let ended = session.follow();
    if ended.is_err() {
        session.let_calls_end();
    }
    ended
}

struct Session<'a> {
    shared: &'a Arc<Shared>,
    name: &'a str,
    config: Destination,
    connector: Arc<dyn Connector>,
    generation: u64,
    retry: RetryPolicy,
    consumer: Consumer,
    ownership: Arc<Ownership>,
    producer: Producer,
    store: Store,
    ledger: Ledger,
    waiting: Waiting,
    gate: Gate<ProfileId, Item>,
    trackers: BTreeMap<i32, OffsetTracker>,
    /// When the open records of each lane were appended, in their order.
    appended: BTreeMap<i32, VecDeque<(i64, Timestamp)>>,
    age: Age,
    /// Where each lane stands: the offset that was committed last, or where it was taken over.
    committed: BTreeMap<i32, i64>,
    /// Records that the gate had no room for.
    backlog: VecDeque<(Arc<Record>, Option<Held>)>,
    /// Parked records that are on their way out of state, by lane and offset, so that none goes twice.
    unparked: HashSet<(i32, i64)>,
    ready: Ready,
    /// Turns of records that the vendor has seen and whose ends the next commit carries; only then may the person's next one go.
    settling: Vec<(ProfileId, Turn)>,
    calls_running: usize,
    jobs: BTreeMap<Ticket, Job>,
    answers: (SyncSender<Answer>, Receiver<Answer>),
    /// Nothing is started before this time: the account's trouble.
    not_before: Timestamp,
    paused: Option<Pause>,
    reading: bool,
    /// Something was produced or written since the last commit.
    dirty: bool,
    topic: Arc<str>,
    heartbeat: Heartbeat,
}

/// The credentials do not work.
struct Pause {
    reason: Reason,
    probed: Instant,
}

impl<'a> Session<'a> {
    fn open(shared: &'a Arc<Shared>, name: &'a str) -> Result<Self, Error> {
        let kafka = &shared.config.kafka;
        let names = &shared.names;
        let id = names.transactional_id("send", Some(name), shared.cache.instance());
        let topic = names.outbound(name);
        let outputs =
            [names.deliveries(), names.ledger(), names.state_send(name), names.dlq_destination(name), topic.clone()];
        let consumer = Consumer::subscribe(kafka, &names.group("send", Some(name)), std::slice::from_ref(&topic))?;
        let routes = shared.live.routes(name)?;
        let config = routes.destination.clone();
        Ok(Self {
            shared,
            name,
            retry: policy(&config),
            config,
            connector: Arc::clone(&routes.connector),
            generation: routes.generation,
            ownership: consumer.ownership(),
            consumer,
            producer: Producer::connect(kafka, Some(&id), &outputs)?,
            store: Store::new(kafka, &shared.cache, &names.state_send(name)),
            ledger: Ledger::new(names.ledger(), Stage::Send, kafka.lanes),
            waiting: Waiting::default(),
            gate: Gate::new(DELIVERIES_OPEN_MAX),
            trackers: BTreeMap::new(),
            appended: BTreeMap::new(),
            age: Age::new("send", name, kafka.retention, shared.telemetry.metrics().oldest_open("send", name)),
            committed: BTreeMap::new(),
            backlog: VecDeque::new(),
            unparked: HashSet::new(),
            ready: Ready::default(),
            settling: Vec::new(),
            calls_running: 0,
            jobs: BTreeMap::new(),
            answers: sync_channel(ANSWERS_MAX),
            not_before: Timestamp::default(),
            paused: None,
            reading: true,
            dirty: false,
            topic: Arc::from(topic),
            heartbeat: shared.telemetry.heartbeat(&format!("send.{name}")),
        })
    }

    fn follow(&mut self) -> Result<(), Error> {
        let name = format!("send.{}", self.name);
        let readiness = self.shared.telemetry.readiness(&name);
        let interval = client::commit_interval(self.shared.config.kafka.latency);
        let joined = Instant::now();
        let mut committed = Instant::now();
        while !self.shared.shutdown.is_requested() {
            self.heartbeat.tick();
            self.reload()?;
            let wait = if self.is_busy() { Duration::from_millis(5) } else { IDLE_WAIT };
            self.intake(wait)?;
            if !self.consumer.assignment().is_empty() || joined.elapsed() > Duration::from_secs(15) {
                readiness.ready();
            }
            self.answered()?;
            self.look_after_pause();
            // Before the next calls are made: a commit lets people go on whose last record it carries.
            if committed.elapsed() >= interval {
                self.commit()?;
                committed = Instant::now();
            }
            self.start()?;
        }
        self.drain(|_| true)?;
        self.commit()
    }

    fn is_busy(&self) -> bool {
        self.calls_running > 0 || !self.ready.is_empty() || self.dirty || !self.backlog.is_empty()
    }

    /// Takes over what was reloaded: limits, retries, credentials.
    fn reload(&mut self) -> Result<(), Error> {
        let routes = self.shared.live.routes(self.name)?;
        if routes.generation != self.generation {
            self.generation = routes.generation;
            self.config = routes.destination.clone();
            self.retry = policy(&self.config);
            self.connector = Arc::clone(&routes.connector);
            self.share();
            self.resume();
        }
        Ok(())
    }

    /// The account's limit is shared by the lanes that this process owns.
    fn share(&self) {
        let lanes = self.shared.config.kafka.lanes.max(1);
        let owned = u32::try_from(self.consumer.assignment().len()).unwrap_or(lanes);
        self.connector.set_share(f64::from(owned) / f64::from(lanes));
    }

    fn intake(&mut self, wait: Duration) -> Result<(), Error> {
        while let Some((record, parked)) = self.backlog.pop_front() {
            if self.gate.is_full() {
                self.backlog.push_front((record, parked));
                break;
            }
            self.take(record, parked)?;
        }
        let full = !self.backlog.is_empty() || self.trackers.values().any(OffsetTracker::is_full);
        if full == self.reading {
            let partitions: Vec<Partition> = self.consumer.assignment().iter().cloned().collect();
            // Resumed only when half of it is done: pausing throws away what was fetched ahead.
            if full || self.gate.len() < DELIVERIES_OPEN_MAX / 2 {
                self.consumer.pause(&partitions, full)?;
                self.reading = !full;
            }
        }
        match self.consumer.poll(BATCH_RECORDS_MAX, BATCH_BYTES_MAX, wait)? {
            Polled::Event(event) => self.rebalance(event),
            Polled::Records(records) => {
                for record in records {
                    let tracker =
                        self.trackers.entry(record.partition).or_insert_with(|| OffsetTracker::new(Bounds::default()));
                    tracker.seen(record.offset).map_err(|error| Error::Invalid {
                        code: code::KAFKA_OFFSET_LOST,
                        message: format!("{} of {}[{}]", error, record.topic, record.partition),
                    })?;
                    self.appended.entry(record.partition).or_default().push_back((record.offset, record.timestamp));
                    if self.backlog.is_empty() && !self.gate.is_full() {
                        self.take(Arc::new(record), None)?;
                    } else {
                        self.backlog.push_back((Arc::new(record), None));
                    }
                }
                Ok(())
            }
        }
    }

    /// Lets a record into the gate, or parks it behind a merge.
    fn take(&mut self, record: Arc<Record>, parked: Option<Held>) -> Result<(), Error> {
        let lane = record.partition;
        let role = match record.envelope() {
            Ok(envelope) => envelope.role,
            Err(_) => Role::Event,
        };
        match role {
            Role::Event => {}
            Role::Fence(merge) => {
                // In a chain of merges the absorbed profile may wait for an earlier one: the fence queues behind what is parked.
                if parked.is_none() && self.parks(lane, merge.absorbed, &record)? {
                    return Ok(());
                }
                return self.offer(merge.absorbed, Item::Fence { merge, record, parked });
            }
            Role::Hold(merge) => {
                if !memory::is_passed(&self.store, lane, merge.number)? {
                    self.waiting.wait_for(&mut self.store, lane, merge.survivor, merge.number)?;
                }
                self.done(lane, record.offset);
                return Ok(());
            }
            Role::Release(merge) => return self.release(lane, record.offset, merge),
        }
        let open = match Open::read(&record) {
            Ok(open) => Box::new(Open { parked, ..open }),
            Err(reason) => {
                self.dead_letter(&record, &reason, 0)?;
                let profile = record.envelope().ok().and_then(|envelope| envelope.profile);
                return match (profile, parked) {
                    (Some(profile), Some(held)) => self.leave(lane, profile, &held),
                    _ => {
                        self.done(lane, record.offset);
                        Ok(())
                    }
                };
            }
        };
        if open.parked.is_none() && self.parks(lane, open.profile, &record)? {
            self.note(lane, &record, End::Parked, "merge");
            return Ok(());
        }
        self.offer(open.profile, Item::Record(open))
    }

    /// Whether a record that was read has to wait behind a merge, or waits already because it is read for the second time. It waits
    /// in state, so that the release behind it in the lane can be read.
    fn parks(&mut self, lane: i32, profile: ProfileId, record: &Record) -> Result<bool, Error> {
        let Some(wait) = self.waiting.get(lane, profile) else { return Ok(false) };
        if wait.merges > 0 {
            self.waiting.hold(&mut self.store, lane, profile, record, false, now())?;
        } else if !held::is_held(&self.store, lane, profile, record.offset)? {
            return Ok(false);
        }
        self.done(lane, record.offset);
        Ok(true)
    }

    /// A parked record is through.
    fn leave(&mut self, lane: i32, profile: ProfileId, held: &Held) -> Result<(), Error> {
        self.waiting.take(&mut self.store, lane, profile, held)?;
        self.unparked.remove(&(lane, held.record.offset));
        self.dirty = true;
        Ok(())
    }

    fn offer(&mut self, profile: ProfileId, item: Item) -> Result<(), Error> {
        let profile = if failpoint::bug("bug.gate_removed") { self.key_of_its_own(profile) } else { profile };
        self.gate.offer(profile, item).map_err(|_| Error::Invalid {
            code: code::TASK_FAILED,
            message: "the gate was full although it had been asked".into(),
        })
    }

    /// The wait for a merge is over: what was parked goes on, in order.
    fn release(&mut self, lane: i32, offset: i64, merge: Merge) -> Result<(), Error> {
        // Remembered for good: the hold may be read later than this, or once more after a start, and must not wait then.
        memory::set_passed(&mut self.store, lane, merge.number)?;
        self.waiting.released(&mut self.store, lane, merge.survivor, merge.number)?;
        self.done(lane, offset);
        self.unpark(lane, merge.survivor)
    }

    fn unpark(&mut self, lane: i32, profile: ProfileId) -> Result<(), Error> {
        if self.waiting.get(lane, profile).is_none_or(|wait| wait.merges > 0) {
            return Ok(());
        }
        // In front of what was read since: that may hold later records of the same person.
        for held in self.waiting.queue(&self.store, lane, profile, &self.topic)?.into_iter().rev() {
            if self.unparked.insert((lane, held.record.offset)) {
                self.backlog.push_front((Arc::clone(&held.record), Some(held)));
            }
        }
        Ok(())
    }

    /// An offset is through: everything about it is acknowledged with the next commit.
    fn done(&mut self, lane: i32, offset: i64) {
        self.dirty = true;
        if let Some(tracker) = self.trackers.get_mut(&lane) {
            tracker.complete(offset);
        }
    }

    fn note(&mut self, lane: i32, record: &Record, end: End, reason: &str) {
        let Ok(envelope) = record.envelope() else { return };
        if let Some(place) = &envelope.ingest {
            let round = envelope.replay.map_or(0, |replay| replay.count);
            self.ledger.note(self.name, lane, place, round, end, reason);
        }
    }

    fn dead_letter(&mut self, record: &Record, reason: &Reason, attempts: u32) -> Result<(), Error> {
        let failure = Failure {
            stage: "send",
            connector: self.name,
            destination: Some(self.name),
            transform: None,
            attempts,
            reason,
            stack: None,
        };
        dead_letter::produce(&mut self.producer, &self.shared.names.dlq_destination(self.name), record, &failure)?;
        self.note(record.partition, record, End::DeadLettered, reason.code.as_str());
        self.shared.telemetry.metrics().dead_lettered("send", self.name, reason.code.as_str());
        self.dirty = true;
        warn!(destination = self.name, code = %reason.code, at = %record.coordinates(), "dead-lettered: {}", reason.message);
        Ok(())
    }

    fn rebalance(&mut self, event: Event) -> Result<(), Error> {
        let lanes_of = |partitions: &[Partition]| partitions.iter().map(|(_, lane)| *lane).collect::<Vec<_>>();
        let (lanes, change) = match event {
            Event::Assign(partitions) => {
                let lanes = lanes_of(&partitions);
                // What is decided must be safe before the ledger begins anew, and no transaction may be open while state is
                // restored: that can take longer than a transaction may.
                self.commit()?;
                let starts = self.consumer.starts(&partitions, |_| self.producer.is_transactional())?;
                self.store.restore(&lanes, &|| self.heartbeat.tick())?;
                self.waiting.load(&self.store, &lanes)?;
                self.ledger.reset();
                failpoint::hit("rebalance.send");
                self.consumer.assigned(&starts)?;
                self.committed.extend(starts.iter().map(|start| (start.partition, start.offset)));
                if !self.reading {
                    self.consumer.pause(&partitions, true)?;
                }
                for (profile, lane) in self.waiting.profiles(&lanes) {
                    self.unpark(lane, profile)?;
                }
                (lanes, Change::Assigned)
            }
            Event::Revoke { partitions, lost } => {
                let lanes = lanes_of(&partitions);
                self.consumer.renounce(&partitions);
                if lost {
                    // Others own the lanes already; whatever is open here must not be committed. Everything is read again.
                    return Err(crate::kafka::Error::Aborted {
                        during: "keep the lanes",
                        detail: "they were lost to another process".into(),
                    }
                    .into());
                }
                self.drain(|lane| lanes.contains(&lane))?;
                failpoint::hit("rebalance.revoke.send");
                self.commit()?;
                self.forget(&lanes);
                self.consumer.revoked(&partitions)?;
                (lanes, Change::Revoked)
            }
        };
        self.share();
        self.shared.telemetry.emit(&Rebalanced {
            stage: "send",
            flow: self.name,
            change,
            partitions: &lanes,
            owned: self.consumer.assignment().len(),
        });
        Ok(())
    }

    /// Waits for the calls that carry deliveries of these lanes; what does not end in time has no outcome and is made again by the next owner.
    fn drain(&mut self, concerns: impl Fn(i32) -> bool) -> Result<(), Error> {
        let until = Instant::now() + DRAIN_MAX;
        self.give_back_ready();
        while self.calls_concern(&concerns) && Instant::now() < until {
            self.wait_answer(Duration::from_millis(20))?;
        }
        Ok(())
    }

    /// The stage has failed and will start anew: what is on its way to the vendor must not arrive after what is sent then. Nothing
    /// new is sent meanwhile, and the answers count for nothing.
    fn let_calls_end(&mut self) {
        let partitions: Vec<Partition> = self.consumer.assignment().iter().cloned().collect();
        self.consumer.renounce(&partitions);
        let until = Instant::now() + DRAIN_MAX;
        while self.calls_running > 0 && Instant::now() < until {
            self.heartbeat.tick();
            if let Ok(Answer::Delivered { .. } | Answer::Confirmed { .. }) =
                self.answers.1.recv_timeout(Duration::from_millis(50))
            {
                self.calls_running = self.calls_running.saturating_sub(1);
            }
        }
    }

    fn forget(&mut self, lanes: &[i32]) {
        let all = self.shared.config.kafka.lanes;
        let gone = |profile: &ProfileId| lanes.contains(&memory::lane_of(*profile, all));
        self.gate.remove(|profile| gone(profile));
        self.backlog.retain(|(record, _)| !lanes.contains(&record.partition));
        self.unparked.retain(|(lane, _)| !lanes.contains(lane));
        self.forget_calls(gone);
        for lane in lanes {
            self.trackers.remove(lane);
            self.appended.remove(lane);
            self.committed.remove(lane);
        }
        self.waiting.forget(lanes);
        self.store.release(lanes);
    }

    /// The append time of the oldest record that is open.
    fn oldest_open(&mut self) -> Option<Timestamp> {
        for (lane, tracker) in &self.trackers {
            let (Some(watermark), Some(appended)) = (tracker.watermark(), self.appended.get_mut(lane)) else {
                continue;
            };
            while appended.front().is_some_and(|(offset, _)| *offset < watermark) {
                appended.pop_front();
            }
        }
        self.appended.values().filter_map(|appended| appended.front()).map(|(_, time)| *time).min()
    }

    /// Commits what has been decided: state, ledger, history, dead letters, offsets.
    fn commit(&mut self) -> Result<(), Error> {
        let mut next = self.committed.clone();
        for (lane, tracker) in &self.trackers {
            if let Some(watermark) = tracker.watermark() {
                next.insert(*lane, watermark);
            }
        }
        let oldest = self.oldest_open();
        self.age.observe(oldest, now());
        debug_assert!(self.dirty || self.settling.is_empty(), "a person waits for a commit that nobody makes");
        if next == self.committed && !self.dirty {
            return Ok(());
        }
        // Every lane's offset travels, moved or not: it is what makes the broker refuse a process whose lanes have moved on.
        let started = Instant::now();
        self.store.produce(&mut self.producer)?;
        if !failpoint::bug("bug.ledger_skipped") {
            self.ledger.produce(&mut self.producer)?;
        }
        failpoint::hit_after("send.produced", || self.producer.acknowledged())?;
        let mut offsets = TopicPartitionList::with_capacity(next.len());
        for (lane, offset) in &next {
            offsets
                .add_partition_offset(&self.topic, *lane, Offset::Offset(*offset))
                .map_err(|source| crate::kafka::Error::Client { during: "name an offset", source })?;
        }
        if self.producer.is_transactional() {
            self.producer.commit(&offsets, &self.consumer.group_metadata()?)?;
        } else {
            self.producer.commit_without_offsets()?;
            self.consumer.commit(&offsets)?;
        }
        failpoint::hit("send.committed");
        self.store.committed(&self.producer)?;
        self.waiting.accept();
        for (profile, turn) in self.settling.drain(..) {
            // A lane that was given up meanwhile has taken its turns along.
            self.gate.finish(&profile, turn);
        }
        self.committed = next;
        self.dirty = false;
        let metrics = self.shared.telemetry.metrics();
        metrics.transaction_seconds("send", started.elapsed());
        let open = self.trackers.values().map(OffsetTracker::open).sum();
        metrics.deliveries(self.name, open, self.gate.in_flight());
        metrics.queue(&format!("send.{}", self.name), self.gate.len(), DELIVERIES_OPEN_MAX);
        Ok(())
    }

    fn pause(&mut self, reason: Reason) {
        if self.paused.is_some() {
            return;
        }
        self.shared.telemetry.emit(&Paused {
            destination: self.name,
            stage: "send",
            route: "",
            code: reason.code,
            message: &reason.message,
        });
        self.paused = Some(Pause { reason, probed: Instant::now() });
    }

    fn resume(&mut self) {
        if self.paused.take().is_some() {
            self.shared.telemetry.emit(&Resumed { destination: self.name, stage: "send" });
            self.not_before = Timestamp::default();
            self.gate.expedite();
        }
    }

    /// A paused destination is asked from time to time whether it works again, without a delivery at stake.
    fn look_after_pause(&mut self) {
        let Some(pause) = &mut self.paused else { return };
        if pause.probed.elapsed() < PROBE_INTERVAL {
            return;
        }
        pause.probed = Instant::now();
        debug!(destination = self.name, code = %pause.reason.code, "asking whether the credentials work again");
        let connector = Arc::clone(&self.connector);
        let answers = self.answers.0.clone();
        self.shared.runtime.spawn(async move {
            let works = connector.probe().await.is_ok();
            // The stage may have ended meanwhile; then nobody needs the answer.
            answers.send(Answer::Probed { works }).ok();
        });
    }

    /// Sends a control record to the survivor's lane: the fence of a merge is passed.
    fn pass_fence(&mut self, merge: Merge) -> Result<(), Error> {
        let envelope = tailwater_core::envelope::Envelope {
            workspace: &self.shared.config.workspace,
            profile: Some(merge.survivor),
            role: Role::Release(merge),
            ..Default::default()
        };
        let header = envelope.to_bytes();
        let key = merge.survivor.to_string();
        let lane = memory::lane_of(merge.survivor, self.shared.config.kafka.lanes);
        self.producer.send(&Outgoing::to(&self.topic).partition(lane).key(key.as_bytes()).envelope(&header))?;
        failpoint::hit_after("merge.passed", || self.producer.acknowledged())?;
        self.dirty = true;
        Ok(())
    }
}

fn policy(config: &Destination) -> RetryPolicy {
    RetryPolicy {
        attempts_max: config.retry.attempts_max,
        backoff_min: config.retry.backoff_min,
        backoff_max: config.retry.backoff_max,
    }
}
