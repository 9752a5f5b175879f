//! The stage before: the product's own plans of route ([`crate::stages::route::plan`]), with a log of `resolved`, state and
//! transactions made up here. A plan is thrown away now and then, and the process that made it dies.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tailwater_core::envelope::{Envelope, Merge, Role};
use tailwater_core::{ProfileId, Timestamp};

use super::broker::{Broker, Kind, place};
use super::chance::Chance;
use super::state::{Entries, State};
use super::truth::Truth;
use crate::config::model::OnMissingKey;
use crate::kafka::Record;
use crate::stages::Error;
use crate::stages::route::existence::Age;
use crate::stages::route::plan::{Action, ActionKind, Planner, Stand, handed_over};
use crate::stages::route::subscribed::{Subscribed, Subscriptions, Wanted};
use crate::stages::shared::held::Waiting;
use crate::stages::shared::held::fences::{FencedPartitions, Fences};

/// The destination's name.
pub const DESTINATION: &str = "d";

/// The identifier type that the destination needs.
pub const KEY: &str = "email";

/// A destination that wants every event.
struct Wants;

pub struct Upstream {
    topic: Arc<str>,
    logs: Vec<VecDeque<Arc<Record>>>,
    next: Vec<i64>,
    state: State,
    waiting: Waiting,
    fences: Fences,
    /// The places of routes that are paused: none, or the only one.
    paused: BTreeSet<usize>,
    blocked: BTreeSet<(i32, ProfileId)>,
    /// No fault happens any more.
    calm: bool,
}

/// The partitions of `resolved`, whose records are forgotten once they were read.
struct Logs<'a> {
    logs: &'a [VecDeque<Arc<Record>>],
    next: &'a [i64],
}

impl FencedPartitions for Logs<'_> {
    fn partition_of(&self, profile: ProfileId) -> i32 {
        i32::try_from(profile.partition(u32::try_from(self.logs.len()).expect("a few"))).expect("a few partitions")
    }

    fn partition_end(&mut self, partition: i32) -> Result<i64, Error> {
        Ok(self.next[place(partition)])
    }

    fn has_read(&mut self, partition: i32, end: i64) -> Result<bool, Error> {
        Ok(self.logs[place(partition)].front().is_none_or(|record| record.offset >= end))
    }
}

impl Subscriptions for Wants {
    fn destination(&self) -> &str {
        DESTINATION
    }

    fn key(&self) -> &str {
        KEY
    }

    fn on_missing_key(&self) -> OnMissingKey {
        OnMissingKey::Hold
    }

    fn hold_for(&self) -> Duration {
        Duration::from_secs(30 * 86_400)
    }

    fn age(&self, _record: &Record, _envelope: &Envelope<'_>) -> Age {
        Age::Live
    }

    fn subscribed(&self, _record: &Record, _envelope: &Envelope<'_>) -> Result<Subscribed, Error> {
        Ok(Subscribed::Routes(Wanted { routes: vec![0], ..Wanted::default() }))
    }
}

impl Upstream {
    pub fn new(partitions: usize) -> Self {
        let mut state = State::default();
        for partition in 0..partitions {
            state.restore(i32::try_from(partition).expect("a few partitions"), Entries::new());
        }
        Self {
            topic: Arc::from("simulated.resolved"),
            logs: vec![VecDeque::new(); partitions],
            next: vec![0; partitions],
            state,
            waiting: Waiting::default(),
            fences: Fences::default(),
            paused: BTreeSet::new(),
            blocked: BTreeSet::new(),
            calm: false,
        }
    }

    /// No route pauses any more.
    pub fn calm(&mut self) {
        self.calm = true;
        self.paused.clear();
        self.blocked.clear();
    }

    /// Appends a record to a partition of `resolved`.
    pub fn append(&mut self, partition: usize, value: Option<&[u8]>, header: &[u8]) {
        let number = i32::try_from(partition).expect("a few partitions");
        let offset = self.next[partition];
        self.next[partition] += 1;
        let topic = Arc::clone(&self.topic);
        let record = Record::new(topic, number, offset, Timestamp::default(), None, value, Some(header), vec![]);
        self.logs[partition].push_back(Arc::new(record));
    }

    /// Plans the next records of a partition, and carries the plan out as one transaction unless something happens to it.
    pub fn flow(&mut self, broker: &mut Broker, now: Timestamp, steady: Timestamp, truth: &Truth, chance: &mut Chance) {
        self.ask_for_fences(steady, truth);
        if !self.calm && chance.in_thousand(5) {
            self.blocked.clear();
            self.paused = if self.paused.is_empty() { BTreeSet::from([0]) } else { BTreeSet::new() };
            truth.tell(|| format!("routes are paused: {:?}", self.paused));
        }
        let partition = chance.below(self.logs.len());
        let records: Vec<_> = self.logs[partition].iter().take(1 + chance.below(4)).cloned().collect();
        let ready: Vec<_> = self.waiting.going().iter().copied().collect();
        let stand = Stand { routes: &self.paused, blocked: &self.blocked, undecided: &BTreeSet::new() };
        let mut planner = Planner::new(Wants, &mut self.state, &mut self.waiting, now, stand);
        planner.budget.records = 1 + chance.below(3);
        planner.go_on(ready, &self.topic).expect("a plan");
        for (number, record) in records.iter().enumerate() {
            planner.record(number, record).expect("a plan");
        }
        let (actions, blocked) = (planner.actions, planner.blocked);
        if chance.in_thousand(100) {
            self.state.abort();
            if chance.in_thousand(500) {
                self.waiting.undo();
            } else {
                // Another process takes over.
                self.waiting = Waiting::default();
                let partitions: Vec<i32> =
                    (0..self.logs.len()).map(|partition| i32::try_from(partition).expect("a few")).collect();
                self.waiting.load(&self.state, &partitions).expect("state in memory");
            }
            return;
        }
        self.logs[partition].drain(..records.len());
        self.blocked.extend(blocked);
        for action in actions {
            let trimmed = !self.calm && chance.in_thousand(100);
            self.carry_out(action, broker, now, truth, trimmed);
        }
        self.state.keep();
        self.waiting.accept();
        if chance.in_thousand(300) {
            broker.mark(partition);
        }
    }

    /// `trimmed`: a fence that is passed on is removed before it is read, if nothing lies before it that was not read.
    fn carry_out(&mut self, action: Action, broker: &mut Broker, now: Timestamp, truth: &Truth, trimmed: bool) {
        match action.kind {
            ActionKind::Transform(work) => {
                let envelope = work.record.envelope().expect("an envelope of the simulation");
                let event = envelope.ingest.expect("the coordinates of an event").offset;
                let event = usize::try_from(event).expect("an event");
                truth.tell(|| format!("partition {} gets event {event} for {:?}", action.partition, envelope.profile));
                let (value, header) =
                    (work.record.value().unwrap_or_default(), work.record.header().unwrap_or_default());
                broker.append(place(action.partition), Kind::Event(event), now, value.to_vec(), header.to_vec());
            }
            ActionKind::End { .. } => {}
            ActionKind::DeadLetter { reason, .. } => panic!("route dead-letters: {reason:?}"),
            ActionKind::HandOver { record, to, backfill } => {
                truth.tell(|| format!("{} is handed over to {to:?}", record.coordinates()));
                let moved = handed_over(&record, to, DESTINATION, backfill);
                self.append(broker.partition_of(to), moved.value(), moved.header().unwrap_or_default());
            }
            ActionKind::Release(merge) => {
                let envelope =
                    Envelope { only_destination: Some(DESTINATION), ..control(merge.survivor, Role::Release(merge)) };
                self.append(broker.partition_of(merge.survivor), None, &envelope.to_bytes());
            }
            ActionKind::Forward { profile, role } => {
                let partition = broker.partition_of(profile);
                if trimmed && matches!(role, Role::Fence(_)) && broker.partitions[partition].is_read() {
                    truth.tell(|| format!("{role:?} is passed on and trimmed"));
                    return broker.mark(partition);
                }
                truth.tell(|| format!("{role:?} is passed on"));
                let header = control(profile, role).to_bytes();
                broker.append(broker.partition_of(profile), Kind::Control, now, vec![], header);
            }
        }
    }

    /// As route does it for holds whose fence was trimmed.
    fn ask_for_fences(&mut self, steady: Timestamp, truth: &Truth) {
        let owned = (0..self.logs.len()).map(|partition| i32::try_from(partition).expect("a few"));
        let due = self.fences.due(&self.waiting, &self.state, owned, steady).expect("state in memory");
        let mut partitions = Logs { logs: &self.logs, next: &self.next };
        let missing = self.fences.missing(&due, &mut partitions, steady).expect("logs in memory");
        for merge in missing {
            truth.tell(|| format!("the fence of {merge} is asked for again in resolved"));
            let partition = place(Logs { logs: &self.logs, next: &self.next }.partition_of(merge.absorbed));
            self.append(partition, None, &control(merge.absorbed, Role::Fence(merge)).to_bytes());
        }
    }

    /// As resolve tells of a merge: the fence to the absorbed profile's partition, the hold to the survivor's.
    ///
    /// `trimmed`: the fence is removed before it is read, if nothing lies before it that was not read.
    pub fn announce(&mut self, broker: &Broker, merge: Merge, trimmed: bool) {
        for (profile, role) in [(merge.absorbed, Role::Fence(merge)), (merge.survivor, Role::Hold(merge))] {
            let partition = broker.partition_of(profile);
            if trimmed && matches!(role, Role::Fence(_)) && self.logs[partition].is_empty() {
                self.next[partition] += 1;
                continue;
            }
            self.append(broker.partition_of(profile), None, &control(profile, role).to_bytes());
        }
    }

    /// Nothing is left to read, and nobody waits.
    pub fn is_dry(&self) -> bool {
        self.logs.iter().all(VecDeque::is_empty) && self.state.is_empty()
    }
}

pub fn control(profile: ProfileId, role: Role) -> Envelope<'static> {
    Envelope { workspace: "w", profile: Some(profile), role, ..Envelope::default() }
}
