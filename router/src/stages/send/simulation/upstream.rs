//! The stage before: the product's own plans of route ([`crate::stages::route::plan`]), with a log of `resolved`, state and
//! transactions made up here. A plan is thrown away now and then, and the process that made it dies.

use std::collections::VecDeque;
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
use crate::stages::held::Waiting;
use crate::stages::route::plan::{Action, ActionKind, Planner, handed_over};
use crate::stages::route::subscribed::{Subscribed, Subscriptions};

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

    fn subscribed(&self, _record: &Record, _envelope: &Envelope<'_>) -> Result<Subscribed, Error> {
        Ok(Subscribed::Routes(vec![0]))
    }
}

impl Upstream {
    pub fn new(lanes: usize) -> Self {
        let mut state = State::default();
        for lane in 0..lanes {
            state.restore(i32::try_from(lane).expect("a few lanes"), Entries::new());
        }
        Self {
            topic: Arc::from("simulated.resolved"),
            logs: vec![VecDeque::new(); lanes],
            next: vec![0; lanes],
            state,
            waiting: Waiting::default(),
        }
    }

    /// Appends a record to a lane of `resolved`.
    pub fn append(&mut self, lane: usize, value: Option<&[u8]>, header: &[u8]) {
        let number = i32::try_from(lane).expect("a few lanes");
        let offset = self.next[lane];
        self.next[lane] += 1;
        let topic = Arc::clone(&self.topic);
        let record = Record::new(topic, number, offset, Timestamp::default(), None, value, Some(header), vec![]);
        self.logs[lane].push_back(Arc::new(record));
    }

    /// Plans the next records of a lane, and carries the plan out as one transaction unless something happens to it.
    pub fn flow(&mut self, broker: &mut Broker, now: Timestamp, truth: &Truth, chance: &mut Chance) {
        let lane = chance.below(self.logs.len());
        let records: Vec<_> = self.logs[lane].iter().take(1 + chance.below(4)).cloned().collect();
        let mut planner = Planner::new(Wants, &mut self.state, &mut self.waiting, now);
        for (number, record) in records.iter().enumerate() {
            planner.record(number, record).expect("a plan");
        }
        let actions = planner.actions;
        if chance.in_thousand(100) {
            self.state.abort();
            if chance.in_thousand(500) {
                self.waiting.undo();
            } else {
                // Another process takes over.
                self.waiting = Waiting::default();
                let lanes: Vec<i32> = (0..self.logs.len()).map(|lane| i32::try_from(lane).expect("a few")).collect();
                self.waiting.load(&self.state, &lanes).expect("state in memory");
            }
            return;
        }
        self.logs[lane].drain(..records.len());
        for action in actions {
            self.carry_out(action, broker, now, truth);
        }
        self.state.keep();
        self.waiting.accept();
        if chance.in_thousand(300) {
            broker.mark(lane);
        }
    }

    fn carry_out(&mut self, action: Action, broker: &mut Broker, now: Timestamp, truth: &Truth) {
        match action.kind {
            ActionKind::Transform(work) => {
                let envelope = work.record.envelope().expect("an envelope of the simulation");
                let event = envelope.ingest.expect("the coordinates of an event").offset;
                let event = usize::try_from(event).expect("an event");
                truth.tell(|| format!("lane {} gets event {event} for {:?}", action.lane, envelope.profile));
                let (value, header) =
                    (work.record.value().unwrap_or_default(), work.record.header().unwrap_or_default());
                broker.append(place(action.lane), Kind::Event(event), now, value.to_vec(), header.to_vec());
            }
            ActionKind::End { .. } => {}
            ActionKind::DeadLetter { reason, .. } => panic!("route dead-letters: {reason:?}"),
            ActionKind::HandOver { record, to } => {
                truth.tell(|| format!("{} is handed over to {to:?}", record.coordinates()));
                let moved = handed_over(&record, to, DESTINATION);
                self.append(broker.lane_of(to), moved.value(), moved.header().unwrap_or_default());
            }
            ActionKind::Release(merge) => {
                let envelope =
                    Envelope { only_destination: Some(DESTINATION), ..control(merge.survivor, Role::Release(merge)) };
                self.append(broker.lane_of(merge.survivor), None, &envelope.to_bytes());
            }
            ActionKind::Forward { profile, role } => {
                truth.tell(|| format!("{role:?} is passed on"));
                let header = control(profile, role).to_bytes();
                broker.append(broker.lane_of(profile), Kind::Control, now, vec![], header);
            }
        }
    }

    /// As resolve tells of a merge: the fence to the absorbed profile's lane, the hold to the survivor's.
    pub fn announce(&mut self, broker: &Broker, merge: Merge) {
        for (profile, role) in [(merge.absorbed, Role::Fence(merge)), (merge.survivor, Role::Hold(merge))] {
            self.append(broker.lane_of(profile), None, &control(profile, role).to_bytes());
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
