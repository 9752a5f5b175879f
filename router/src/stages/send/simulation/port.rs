//! The world as one session sees it.

use std::cell::{RefCell, RefMut};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tailwater_connectors::Limits;
use tailwater_core::delivery::{Delivery, Outcome, Reason, Ticket};
use tailwater_core::envelope::{Merge, Role};
use tailwater_core::ledger::End;
use tailwater_core::retry::RetryPolicy;
use tailwater_core::{Coordinates, ProfileId, Timestamp, code};

use super::broker::{Kind, Member, place};
use super::state::{self, State};
use super::upstream::control;
use super::vendor;
use super::world::{Plant, World};
use crate::kafka::consumer::{Partition, Polled, Start};
use crate::kafka::{self, Record};
use crate::stages::Error;
use crate::stages::send::outside::{Answer, Outside, Settings};
use crate::stages::shared::held::fences::FencedPartitions;

pub struct Port {
    world: Rc<RefCell<World>>,
    pub member: Member,
    state: State,
    /// Where each partition that is read stands.
    positions: BTreeMap<i32, i64>,
    paused: BTreeSet<i32>,
    open: Transaction,
}

/// What the next commit carries, besides state.
#[derive(Default)]
struct Transaction {
    ends: Vec<(usize, End)>,
    /// Operations that were delivered.
    delivered: Vec<(usize, usize)>,
    /// Operations that a job has taken.
    accepted: Vec<(usize, usize)>,
    dead: Vec<usize>,
    releases: Vec<(Merge, Vec<u8>)>,
    fences: Vec<Merge>,
}

impl Port {
    pub fn new(world: &Rc<RefCell<World>>, member: Member) -> Self {
        Self {
            world: Rc::clone(world),
            member,
            state: State::default(),
            positions: BTreeMap::new(),
            paused: BTreeSet::new(),
            open: Transaction::default(),
        }
    }

    fn world(&self) -> RefMut<'_, World> {
        self.world.borrow_mut()
    }

    fn write(&mut self, offsets: &BTreeMap<i32, i64>) {
        let mut world = self.world.borrow_mut();
        let world = &mut *world;
        let transaction = std::mem::take(&mut self.open);
        let member = self.member;
        world.truth.tell(|| format!("member {member} commits {offsets:?}"));
        for (partition, writes) in self.state.writes() {
            state::apply(&mut world.broker.partitions[place(partition)].state, writes.clone());
        }
        self.state.keep();
        for (event, operation) in transaction.delivered {
            world.truth.delivered(member, event, operation);
        }
        for (event, operation) in transaction.accepted {
            world.truth.in_job(event, operation, true);
        }
        for event in transaction.dead {
            world.truth.dead_lettered(event);
        }
        for (event, end) in transaction.ends {
            world.truth.ended(event, end);
        }
        for (merge, memory) in transaction.releases {
            world.truth.tell(|| format!("merge {} is released", merge.number));
            let partition = world.broker.partition_of(merge.survivor);
            let header = control(merge.survivor, Role::Release(merge)).to_bytes();
            world.broker.append(partition, Kind::Control, world.now(), memory, header);
            world.broker.mark(partition);
        }
        for merge in transaction.fences {
            world.truth.tell(|| format!("the fence of {merge} is asked for again in outbound"));
            let partition = world.broker.partition_of(merge.absorbed);
            let header = control(merge.absorbed, Role::Fence(merge)).to_bytes();
            world.broker.append(partition, Kind::Control, world.now(), vec![], header);
        }
        for (partition, offset) in offsets {
            let early = world.plant == Some(Plant::CommitBeforeOutcome);
            let offset = if early { self.positions.get(partition).copied().unwrap_or(*offset) } else { *offset };
            for kind in world.broker.pass(*partition, offset) {
                if let Kind::Event(event) = kind {
                    world.truth.passed(event);
                }
            }
        }
    }
}

fn aborted(detail: &str) -> Error {
    kafka::Error::Aborted { during: "commit", detail: detail.into() }.into()
}

pub fn settings(attempts_max: u32) -> Settings {
    let (backoff_min, backoff_max) = (Duration::from_millis(100), Duration::from_secs(5));
    Settings { retry: RetryPolicy { attempts_max, backoff_min, backoff_max }, skip_unchanged: false }
}

impl FencedPartitions for Port {
    fn partition_of(&self, profile: ProfileId) -> i32 {
        i32::try_from(self.world().broker.partition_of(profile)).expect("a few partitions")
    }

    fn partition_end(&mut self, partition: i32) -> Result<i64, Error> {
        Ok(self.world().broker.partitions[place(partition)].end())
    }

    fn has_read(&mut self, partition: i32, end: i64) -> Result<bool, Error> {
        Ok(self.world().broker.partitions[place(partition)].has_read(end))
    }
}

impl Outside for Port {
    type State = State;

    fn now(&self) -> Timestamp {
        self.world().now()
    }

    fn steady(&self) -> Timestamp {
        self.world().steady()
    }

    fn instant(&self) -> Instant {
        self.world().instant()
    }

    fn chance(&mut self) -> f64 {
        self.world().chance.share()
    }

    fn alive(&self) {}

    fn reload(&mut self) -> Result<Option<Settings>, Error> {
        let mut world = self.world();
        let attempts_max = world.plan.attempts_max;
        let process = world.processes.get_mut(&self.member).expect("a session has a process");
        Ok(std::mem::take(&mut process.reload).then(|| settings(attempts_max)))
    }

    fn poll(&mut self, wait: Duration) -> Result<Polled, Error> {
        let mut world = self.world.borrow_mut();
        let now = world.time();
        world.processes.get_mut(&self.member).expect("a session has a process").polled = now;
        if let Some(event) = world.broker.event(self.member) {
            return Ok(Polled::Event(event));
        }
        let max = world.plan.poll_max;
        let mut left = 1 + world.chance.below(max);
        let mut records = vec![];
        for (partition, position) in &mut self.positions {
            if self.paused.contains(partition) {
                continue;
            }
            let read = world.broker.read(*partition, *position, left);
            left -= read.len();
            if let Some(last) = read.last() {
                *position = last.offset + 1;
            }
            records.extend(read);
        }
        if records.is_empty() {
            let wait = u64::try_from(wait.as_millis()).expect("a short time");
            let waited = world.chance.between(0, wait);
            world.advance(waited);
        }
        Ok(Polled::Records(records))
    }

    fn assignment(&self) -> Vec<Partition> {
        let topic = self.world().broker.topic();
        self.positions.keys().map(|partition| (Arc::clone(&topic), *partition)).collect()
    }

    fn pause(&mut self, partitions: &[Partition], pause: bool) -> Result<(), Error> {
        for (_, partition) in partitions {
            assert!(self.positions.contains_key(partition), "partition {partition} is not assigned");
            if pause {
                self.paused.insert(*partition)
            } else {
                self.paused.remove(partition)
            };
        }
        Ok(())
    }

    fn starts(&mut self, partitions: &[Partition]) -> Result<Vec<Start>, Error> {
        let world = self.world();
        let start = |(topic, number): &Partition| {
            let committed = world.broker.partitions[place(*number)].committed;
            let offset = committed.unwrap_or(0);
            Start { topic: Arc::clone(topic), partition: *number, offset, committed: committed.is_some() }
        };
        Ok(partitions.iter().map(start).collect())
    }

    fn assigned(&mut self, starts: &[Start]) -> Result<(), Error> {
        let mut world = self.world.borrow_mut();
        for start in starts {
            self.positions.insert(start.partition, start.offset);
            self.paused.remove(&start.partition);
            world.broker.taken(self.member, start.partition);
            world.truth.tell(|| format!("member {} takes {start:?}", self.member));
            let process = world.processes.get_mut(&self.member).expect("a session has a process");
            process.owned.insert(start.partition);
        }
        Ok(())
    }

    fn renounce(&mut self, partitions: &[Partition]) {
        let member = self.member;
        let mut world = self.world();
        let process = world.processes.get_mut(&member).expect("a session has a process");
        for (_, partition) in partitions {
            process.owned.remove(partition);
        }
    }

    fn revoked(&mut self, partitions: &[Partition]) -> Result<(), Error> {
        self.renounce(partitions);
        self.world().truth.forget(self.member);
        let mut world = self.world.borrow_mut();
        for (_, partition) in partitions {
            self.positions.remove(partition);
            self.paused.remove(partition);
            world.broker.given_back(self.member, *partition);
        }
        Ok(())
    }

    fn share(&mut self) {}

    fn state(&self) -> &State {
        &self.state
    }

    fn state_mut(&mut self) -> &mut State {
        &mut self.state
    }

    fn restore(&mut self, partitions: &[i32]) -> Result<(), Error> {
        let world = self.world.borrow();
        for partition in partitions {
            let lost = world.plant == Some(Plant::StateLost);
            let committed =
                if lost { state::Entries::new() } else { world.broker.partitions[place(*partition)].state.clone() };
            self.state.restore(*partition, committed);
        }
        Ok(())
    }

    fn release(&mut self, partitions: &[i32]) {
        for partition in partitions {
            self.state.release(*partition);
        }
    }

    fn end(&mut self, _partition: i32, place: &Coordinates<'_>, _round: u32, end: End, _reason: &str) {
        let skipped = self.world().plant == Some(Plant::EndSkipped) && self.world().chance.in_thousand(5);
        if !skipped {
            let event = usize::try_from(place.offset).expect("an event");
            self.open.ends.push((event, end));
            if end != End::Parked {
                self.world().truth.decided(self.member, event);
            }
        }
    }

    fn forget_ends(&mut self) {
        assert!(self.open.ends.is_empty(), "ends are forgotten that no commit has carried");
    }

    fn history(&mut self, _record: &Record, delivery: &Delivery, outcome: &Outcome) -> Result<(), Error> {
        let (event, operation) = vendor::read(delivery);
        if matches!(outcome, Outcome::Accepted(_)) {
            self.open.accepted.push((event, operation));
            return Ok(());
        }
        if matches!(outcome, Outcome::Skipped(reason) if reason.code == code::SUPERSEDED) {
            self.world().truth.superseded(event);
        }
        if matches!(outcome, Outcome::Skipped(reason) if reason.code == code::DUPLICATE) {
            self.world().truth.duplicate(event);
        }
        if matches!(outcome, Outcome::Delivered | Outcome::DeliveredInPart(_)) {
            self.open.delivered.push((event, operation));
        }
        self.open.accepted.retain(|taken| *taken != (event, operation));
        self.world().truth.in_job(event, operation, false);
        Ok(())
    }

    fn dead_letter(&mut self, record: &Record, _reason: &Reason, _attempts: u32) -> Result<(), Error> {
        let envelope = record.envelope().expect("an envelope of the simulation");
        let ingest = envelope.ingest.expect("only events are dead-lettered");
        self.open.dead.push(usize::try_from(ingest.offset).expect("an event"));
        Ok(())
    }

    fn pass_fence(&mut self, merge: Merge, memory: &[u8]) -> Result<(), Error> {
        let left_behind = self.world().plant == Some(Plant::MemoryLeftBehind);
        let memory = if left_behind { b"{}".to_vec() } else { memory.to_vec() };
        self.open.releases.push((merge, memory));
        Ok(())
    }

    fn ask_for_fence(&mut self, merge: Merge) -> Result<(), Error> {
        self.open.fences.push(merge);
        Ok(())
    }

    fn commit(&mut self, offsets: &BTreeMap<i32, i64>) -> Result<(), Error> {
        if !self.world().broker.takes(self.member, offsets.keys().copied()) {
            return Err(aborted("the group has moved on"));
        }
        let fails = self.world().plan.commits_fail;
        if self.world().chance.in_thousand(fails / 2) {
            return Err(aborted("the broker is away"));
        }
        self.write(offsets);
        if self.world().chance.in_thousand(fails / 2) {
            return Err(aborted("the answer to a commit that has happened was lost"));
        }
        Ok(())
    }

    fn limits(&self) -> Limits {
        let plan = &self.world().plan;
        Limits {
            batch_deliveries_max: plan.batch_max,
            batch_age_max: Duration::from_millis(20),
            calls_max: plan.calls_max,
        }
    }

    fn deliver(&mut self, call: u64, deliveries: Vec<Delivery>, partitions: Vec<i32>) {
        let member = self.member;
        let world = &mut *self.world();
        assert!(deliveries.len() <= world.plan.batch_max, "a batch is too large");
        world.vendor.deliver(member, call, deliveries, partitions, &mut world.chance);
    }

    fn confirm(&mut self, call: u64, ticket: &Ticket, members: Vec<Delivery>, partitions: Vec<i32>) {
        let member = self.member;
        self.world().vendor.confirm(member, call, ticket, members, partitions);
    }

    fn probe(&mut self) {
        let member = self.member;
        self.world().vendor.probe(member);
    }

    fn answer(&mut self, wait: Duration) -> Option<Answer> {
        let member = self.member;
        let mut world = self.world();
        if let Some(answer) = world.vendor.answer(member) {
            return Some(answer);
        }
        if wait.is_zero() {
            return None;
        }
        world.advance(u64::try_from(wait.as_millis()).expect("a short time"));
        world.vendor_step();
        world.vendor.answer(member)
    }
}
