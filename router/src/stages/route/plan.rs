//! The first half of a batch: what is to be done with each record, in order. It reads and writes the stage's state, and nothing else.
//!
//! A plan can be thrown away (the state's overlay with it) and made anew for fewer records: that is how a batch is cut at the row
//! where a route has to pause.

use std::sync::Arc;

use tailwater_core::delivery::Reason;
use tailwater_core::envelope::{Envelope, Identifier, Merge, Role};
use tailwater_core::ledger::End;
use tailwater_core::{Code, ProfileId, SchemaId, Timestamp, code};

use super::subscribed::{Subscribed, Subscriptions};
use crate::config::model::OnMissingKey;
use crate::kafka::Record;
use crate::stages::held::{self, Held, Waiting};
use crate::stages::{Error, dead_letter};
use crate::state::Map;

/// Held records that may end by their time limit in one batch.
const EXPIRED_MAX: usize = 1000;

/// One thing to do, and the record of the batch that caused it.
#[derive(Debug)]
pub struct Action {
    /// The place of the record in the batch; what is due to time belongs to no record.
    pub trigger: Option<usize>,
    pub lane: i32,
    pub kind: ActionKind,
}

#[derive(Debug)]
pub enum ActionKind {
    /// Run the transforms of these routes for the event.
    Transform(Work),
    /// The event ends here.
    End {
        record: Arc<Record>,
        end: End,
        reason: Code,
    },
    DeadLetter {
        record: Arc<Record>,
        reason: Reason,
    },
    /// A held record of an absorbed profile goes to the survivor's lane.
    HandOver {
        record: Arc<Record>,
        to: ProfileId,
    },
    /// A control record for the survivor's lane of `resolved`: the fence is passed here.
    Release(Merge),
    /// A fence or a hold, passed on to send.
    Forward {
        profile: ProfileId,
        role: Role,
    },
}

/// An event for one or several routes.
#[derive(Debug)]
pub struct Work {
    pub record: Arc<Record>,
    pub routes: Vec<usize>,
    /// The identifiers in use when it goes on, which may be newer than those in its envelope.
    pub identifiers: Vec<(String, String)>,
    /// What else the transforms need of its envelope, so that it is not read again for each of them.
    pub schema: Option<SchemaId>,
    /// The columns whose own values this profile may not use.
    pub refused: Vec<String>,
}

impl Work {
    fn new(
        record: &Arc<Record>,
        envelope: &Envelope<'_>,
        routes: Vec<usize>,
        identifiers: Vec<(String, String)>,
    ) -> Self {
        Self {
            record: Arc::clone(record),
            routes,
            identifiers,
            schema: envelope.schema,
            refused: envelope.refused.iter().map(|&column| column.to_owned()).collect(),
        }
    }
}

/// What a plan needs to know.
pub struct Planner<'a, W, S> {
    pub wants: W,
    pub store: &'a mut S,
    pub waiting: &'a mut Waiting,
    pub now: Timestamp,
    pub actions: Vec<Action>,
    trigger: Option<usize>,
}

impl<'a, W: Subscriptions, S: Map> Planner<'a, W, S> {
    pub const fn new(wants: W, store: &'a mut S, waiting: &'a mut Waiting, now: Timestamp) -> Self {
        Self { wants, store, waiting, now, actions: Vec::new(), trigger: None }
    }

    fn act(&mut self, lane: i32, kind: ActionKind) {
        self.actions.push(Action { trigger: self.trigger, lane, kind });
    }

    /// Plans one record of `resolved`.
    ///
    /// # Errors
    /// The state could not be read or written.
    pub fn record(&mut self, place: usize, record: &Arc<Record>) -> Result<(), Error> {
        self.trigger = Some(place);
        let lane = record.partition;
        let envelope = match record.envelope() {
            Ok(envelope) => envelope,
            Err(error) => {
                let message = format!("the header `tw` of {} could not be read: {error}", record.coordinates());
                let reason = Reason::new(code::DECODE_FAILED, message);
                self.act(lane, ActionKind::DeadLetter { record: Arc::clone(record), reason });
                return Ok(());
            }
        };
        if envelope.only_destination.is_some_and(|only| only != self.wants.destination()) {
            return Ok(());
        }
        match envelope.role {
            Role::Event => self.event(record, &envelope),
            Role::Fence(merge) => self.fence(record, merge),
            Role::Hold(merge) => {
                self.waiting.wait_for(self.store, lane, merge.survivor, merge.number)?;
                self.act(lane, ActionKind::Forward { profile: merge.survivor, role: envelope.role });
                Ok(())
            }
            Role::Release(merge) => {
                self.waiting.released(self.store, lane, merge.survivor, merge.number)?;
                self.pass_parked_fence(lane, merge.survivor, &record.topic)?;
                self.drain(lane, merge.survivor, &record.topic)
            }
        }
    }

    fn event(&mut self, record: &Arc<Record>, envelope: &Envelope<'_>) -> Result<(), Error> {
        let lane = record.partition;
        let Some(profile) = envelope.profile else {
            let reason = Reason::new(code::DECODE_FAILED, "the event names no profile");
            self.act(lane, ActionKind::DeadLetter { record: Arc::clone(record), reason });
            return Ok(());
        };
        let handed_over = envelope.only_destination.is_some() && envelope.replay.is_none();
        let wait = self.waiting.get(lane, profile);
        if wait.is_some() && !handed_over && envelope.replay.is_none() {
            // The newest event knows the person best; what waits goes on with what it says. A replay is no news.
            held::remember_identifiers(self.store, lane, profile, &owned(&envelope.identifiers))?;
        }
        let routes = match self.wants.subscribed(record, envelope)? {
            Subscribed::None => {
                if wait.is_some() {
                    self.drain(lane, profile, &record.topic)?;
                }
                return Ok(());
            }
            Subscribed::Ends(end, reason) => {
                self.act(lane, ActionKind::End { record: Arc::clone(record), end, reason });
                if wait.is_some() {
                    self.drain(lane, profile, &record.topic)?;
                }
                return Ok(());
            }
            Subscribed::Fails(reason) => {
                self.act(lane, ActionKind::DeadLetter { record: Arc::clone(record), reason });
                return Ok(());
            }
            Subscribed::Routes(routes) => routes,
        };
        let identifiers = owned(&envelope.identifiers);
        let has_key = identifiers.iter().any(|(kind, _)| *kind == self.wants.key());
        if wait.is_some_and(|wait| wait.merges > 0)
            || wait.is_some_and(|wait| wait.records > 0 && !has_key)
            || handed_over && wait.is_some()
        {
            self.hold(record, profile, handed_over)?;
            // A person without the key, but with everything else in place: the queue may have been waiting for this very event.
            return self.drain(lane, profile, &record.topic);
        }
        if wait.is_some_and(|wait| wait.records > 0) {
            self.drain(lane, profile, &record.topic)?;
        }
        if has_key {
            self.act(lane, ActionKind::Transform(Work::new(record, envelope, routes, identifiers)));
            return Ok(());
        }
        match self.wants.on_missing_key() {
            OnMissingKey::Hold => {
                self.hold(record, profile, handed_over)?;
                held::remember_identifiers(self.store, lane, profile, &identifiers)?;
                Ok(())
            }
            OnMissingKey::Skip => {
                self.act(lane, ActionKind::End { record: Arc::clone(record), end: End::Skipped, reason: code::NO_KEY });
                Ok(())
            }
            OnMissingKey::DeadLetter => {
                let reason = self.no_key();
                self.act(lane, ActionKind::DeadLetter { record: Arc::clone(record), reason });
                Ok(())
            }
        }
    }

    fn no_key(&self) -> Reason {
        let message = format!(
            "expected an identifier of type {} (destination {}, `key`), the profile has none",
            self.wants.key(),
            self.wants.destination()
        );
        Reason::new(code::NO_KEY, message)
    }

    fn hold(&mut self, record: &Arc<Record>, profile: ProfileId, handed_over: bool) -> Result<(), Error> {
        let lane = record.partition;
        self.waiting.hold(self.store, lane, profile, record, handed_over, self.now)?;
        self.act(lane, ActionKind::End { record: Arc::clone(record), end: End::Held, reason: code::NO_KEY });
        Ok(())
    }

    /// Lets go on what waits for a profile, if nothing stands in its way any more.
    fn drain(&mut self, lane: i32, profile: ProfileId, topic: &Arc<str>) -> Result<(), Error> {
        let Some(wait) = self.waiting.get(lane, profile) else { return Ok(()) };
        if wait.merges > 0 || wait.records == 0 {
            return Ok(());
        }
        let Some(identifiers) = held::identifiers(self.store, lane, profile)? else { return Ok(()) };
        if !identifiers.iter().any(|(kind, _)| *kind == self.wants.key()) {
            return Ok(());
        }
        for held in self.waiting.queue(self.store, lane, profile, topic)? {
            self.waiting.take(self.store, lane, profile, &held)?;
            let Ok(envelope) = held.record.envelope() else { continue };
            match self.wants.subscribed(&held.record, &envelope)? {
                // The configuration has changed meanwhile and does not want the event any more.
                Subscribed::None => self.act(
                    lane,
                    ActionKind::End { record: Arc::clone(&held.record), end: End::Skipped, reason: code::FILTERED },
                ),
                Subscribed::Ends(end, reason) => {
                    self.act(lane, ActionKind::End { record: Arc::clone(&held.record), end, reason });
                }
                Subscribed::Fails(reason) => {
                    self.act(lane, ActionKind::DeadLetter { record: Arc::clone(&held.record), reason });
                }
                Subscribed::Routes(routes) => self
                    .act(lane, ActionKind::Transform(Work::new(&held.record, &envelope, routes, identifiers.clone()))),
            }
        }
        Ok(())
    }

    /// The absorbed profile's lane: what waits there moves to the survivor, then the fence is passed.
    fn fence(&mut self, record: &Arc<Record>, merge: Merge) -> Result<(), Error> {
        let lane = record.partition;
        if self.waiting.get(lane, merge.absorbed).is_some_and(|wait| wait.merges > 0) {
            // In a chain of merges the absorbed profile waits for an earlier one itself, whose records are not here yet: the fence
            // queues behind them.
            return Ok(self.waiting.hold(self.store, lane, merge.absorbed, record, false, self.now)?);
        }
        self.pass(lane, merge, &record.topic)
    }

    /// An earlier merge is through: a fence that had to queue behind it is passed now.
    fn pass_parked_fence(&mut self, lane: i32, profile: ProfileId, topic: &Arc<str>) -> Result<(), Error> {
        if self.waiting.get(lane, profile).is_none_or(|wait| wait.merges > 0) {
            return Ok(());
        }
        let queue = self.waiting.queue(self.store, lane, profile, topic)?;
        let fence = queue.iter().find_map(|held| match held.record.envelope().ok()?.role {
            Role::Fence(merge) => Some((held, merge)),
            Role::Event | Role::Hold(_) | Role::Release(_) => None,
        });
        match fence {
            Some((held, merge)) => {
                self.waiting.take(self.store, lane, profile, held)?;
                self.pass(lane, merge, topic)
            }
            None => Ok(()),
        }
    }

    fn pass(&mut self, lane: i32, merge: Merge, topic: &Arc<str>) -> Result<(), Error> {
        for held in self.waiting.queue(self.store, lane, merge.absorbed, topic)? {
            self.waiting.take(self.store, lane, merge.absorbed, &held)?;
            self.act(lane, ActionKind::HandOver { record: held.record, to: merge.survivor });
        }
        self.act(lane, ActionKind::Release(merge));
        self.act(lane, ActionKind::Forward { profile: merge.absorbed, role: Role::Fence(merge) });
        Ok(())
    }

    /// Plans what is due because of its age: holds whose time is over. `surely` is a time that no step of a clock has brought early.
    ///
    /// # Errors
    /// The state could not be read or written.
    pub fn expired(&mut self, lanes: &[i32], topic: &Arc<str>, surely: Timestamp) -> Result<(), Error> {
        self.trigger = None;
        let age = i64::try_from(self.wants.hold_for().as_millis()).unwrap_or(i64::MAX);
        let limit = Timestamp::from_millis(surely.as_millis().saturating_sub(age));
        for &lane in lanes {
            for (profile, held) in self.waiting.expired(self.store, lane, topic, limit, EXPIRED_MAX)? {
                self.waiting.take(self.store, lane, profile, &held)?;
                self.dead_letter_expired(lane, held);
            }
        }
        Ok(())
    }

    fn dead_letter_expired(&mut self, lane: i32, held: Held) {
        let message = format!(
            "waited since {} for an identifier of type {}, longer than `hold_for` of destination {} allows",
            held.since,
            self.wants.key(),
            self.wants.destination()
        );
        let reason = Reason::new(code::HOLD_EXPIRED, message);
        self.act(lane, ActionKind::DeadLetter { record: held.record, reason });
    }
}

fn owned(identifiers: &[Identifier<'_>]) -> Vec<(String, String)> {
    identifiers.iter().map(|identifier| (identifier.kind.to_owned(), identifier.value.to_owned())).collect()
}

/// A held record for the survivor of a merge: the same event, now the survivor's, for this destination alone.
pub fn handed_over(record: &Record, to: ProfileId, destination: &str) -> Record {
    let Ok(envelope) = record.envelope() else { return record.clone() };
    dead_letter::with_envelope(record, &Envelope { profile: Some(to), only_destination: Some(destination), ..envelope })
}
