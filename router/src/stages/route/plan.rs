//! The first half of a batch: what is to be done with each record, in order. It reads and writes the stage's state, and nothing else.
//!
//! A plan can be thrown away (the state's overlay with it) and made anew for fewer records: that is how a batch is cut at the row
//! where a route has to pause.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tailwater_core::delivery::Reason;
use tailwater_core::envelope::{Envelope, Identifier, Merge, Role};
use tailwater_core::ledger::End;
use tailwater_core::limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX};
use tailwater_core::{Code, ProfileId, SchemaId, Timestamp, code};

use super::existence::{Age, BACKFILL};
use super::failed::Failed;
use super::subscribed::{Subscribed, Subscriptions, Wanted};
use crate::config::model::OnMissingKey;
use crate::kafka::Record;
use crate::stages::Error;
use crate::stages::shared::dead_letter;
use crate::stages::shared::held::{self, Held, Hold, Wait, Waiting};
use crate::state::Map;

/// Held records that may end by their time limit in one batch.
const EXPIRED_MAX: usize = 1000;

/// Waiting records that are let go in one batch: as many as it reads, so that a queue never grows while it is worked off. The rest
/// of a queue follows in the next batches.
const RELEASED_RECORDS_MAX: usize = BATCH_RECORDS_MAX;
const RELEASED_BYTES_MAX: usize = BATCH_BYTES_MAX;

/// Waiting records that are read from the state at once.
const QUEUE_CHUNK: usize = 64;

/// How many records of one person may wait behind a paused route, and how many of all people together. When there are more, the partition is not
/// read any further: Kafka keeps them better than state does.
pub const BEHIND_PAUSE_PERSON_MAX: u64 = 1_000;
pub const BEHIND_PAUSE_MAX: u64 = 50_000;

/// What caused an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// The record at this place of the batch.
    Record(usize),
    /// A person's queue, which goes on by itself.
    Queue(ProfileId),
    /// The time.
    Clock,
}

/// One thing to do, and what caused it.
#[derive(Debug)]
pub struct Action {
    pub trigger: Trigger,
    pub partition: i32,
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
    /// A held record of an absorbed profile goes to the survivor's partition.
    HandOver {
        record: Arc<Record>,
        to: ProfileId,
        /// The event is from before the destination existed, which its new position does not show.
        backfill: bool,
    },
    /// A control record for the survivor's partition of `resolved`: the fence is passed here.
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
    /// The routes among them whose condition could not be evaluated: their transforms do not run.
    pub failed: Vec<(usize, Failed)>,
    /// The event is from before the destination existed: it goes on as a backfill.
    pub backfill: bool,
    /// The identifiers in use when it goes on, which may be newer than those in its envelope.
    pub identifiers: Vec<(String, String)>,
    /// What else the transforms need of its envelope, so that it is not read again for each of them.
    pub schema: Option<SchemaId>,
    /// The columns whose own values this profile may not use.
    pub refused: Vec<String>,
}

impl Work {
    fn new(record: &Arc<Record>, envelope: &Envelope<'_>, wanted: Wanted, identifiers: Vec<(String, String)>) -> Self {
        Self {
            record: Arc::clone(record),
            routes: wanted.routes,
            failed: wanted.failed,
            backfill: wanted.backfill,
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
    /// By partition, the place in the batch of the first record that has no room behind a paused route.
    pub full: BTreeMap<i32, usize>,
    /// People whose next record is for a paused route.
    pub blocked: BTreeSet<(i32, ProfileId)>,
    /// The person whose queue went on last.
    pub went_on: Option<(i32, ProfileId)>,
    /// What may still be let go of what waits.
    pub budget: Budget,
    stand: Stand<'a>,
    trigger: Trigger,
}

/// What stands still for now.
#[derive(Debug, Clone, Copy)]
pub struct Stand<'a> {
    /// Routes that are paused.
    pub routes: &'a BTreeSet<usize>,
    /// People whose next record is known to be for one of these.
    pub blocked: &'a BTreeSet<(i32, ProfileId)>,
    /// People whose queue holds a failure that has no verdict yet.
    pub undecided: &'a BTreeSet<(i32, ProfileId)>,
}

/// How much of what waits a batch lets go.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    pub records: usize,
    pub bytes: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { records: RELEASED_RECORDS_MAX, bytes: RELEASED_BYTES_MAX }
    }
}

impl Budget {
    const fn is_spent(&self) -> bool {
        self.records == 0 || self.bytes == 0
    }

    fn spend(&mut self, record: &Record) {
        self.records = self.records.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(record.size());
    }
}

impl<'a, W: Subscriptions, S: Map> Planner<'a, W, S> {
    pub fn new(wants: W, store: &'a mut S, waiting: &'a mut Waiting, now: Timestamp, stand: Stand<'a>) -> Self {
        Self {
            wants,
            store,
            waiting,
            now,
            actions: Vec::new(),
            full: BTreeMap::new(),
            blocked: BTreeSet::new(),
            went_on: None,
            budget: Budget::default(),
            stand,
            trigger: Trigger::Clock,
        }
    }

    fn act(&mut self, partition: i32, kind: ActionKind) {
        self.actions.push(Action { trigger: self.trigger, partition, kind });
    }

    /// Lets queues go on that an earlier batch has begun, or that a pause has stopped. They come before what is read: it is behind them.
    ///
    /// # Errors
    /// The state could not be read or written.
    pub fn go_on(&mut self, people: impl IntoIterator<Item = (i32, ProfileId)>, topic: &Arc<str>) -> Result<(), Error> {
        for (partition, profile) in people {
            if self.budget.is_spent() {
                break;
            }
            self.trigger = Trigger::Queue(profile);
            self.went_on = Some((partition, profile));
            self.drain(partition, profile, topic)?;
        }
        Ok(())
    }

    /// Plans one record of `resolved`.
    ///
    /// # Errors
    /// The state could not be read or written.
    pub fn record(&mut self, place: usize, record: &Arc<Record>) -> Result<(), Error> {
        let partition = record.partition;
        if self.full.contains_key(&partition) {
            return Ok(());
        }
        self.trigger = Trigger::Record(place);
        let envelope = match record.envelope() {
            Ok(envelope) => envelope,
            Err(error) => {
                let message = format!("the header `tw` of {} could not be read: {error}", record.coordinates());
                let reason = Reason::new(code::DECODE_FAILED, message);
                self.act(partition, ActionKind::DeadLetter { record: Arc::clone(record), reason });
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
                self.waiting.wait_for(self.store, partition, merge)?;
                self.act(partition, ActionKind::Forward { profile: merge.survivor, role: envelope.role });
                Ok(())
            }
            Role::Release(merge) => {
                self.waiting.released(self.store, partition, merge.survivor, merge.number)?;
                if let Some(fence) = self.waiting.queued_fence(self.store, partition, merge.survivor, &record.topic)? {
                    self.waiting.move_to(self.store, partition, fence)?;
                }
                self.drain(partition, merge.survivor, &record.topic)
            }
        }
    }

    fn event(&mut self, record: &Arc<Record>, envelope: &Envelope<'_>) -> Result<(), Error> {
        let partition = record.partition;
        let Some(profile) = envelope.profile else {
            let reason = Reason::new(code::DECODE_FAILED, "the event names no profile");
            self.act(partition, ActionKind::DeadLetter { record: Arc::clone(record), reason });
            return Ok(());
        };
        let handed_over = envelope.only_destination.is_some() && envelope.replay.is_none();
        let wait = self.waiting.get(partition, profile);
        if wait.is_some() && !handed_over && envelope.replay.is_none() {
            // The newest event knows the person best; what waits goes on with what it says. A replay is no news.
            held::remember_identifiers(self.store, partition, profile, &owned(&envelope.identifiers))?;
        }
        let wanted = match self.wants.subscribed(record, envelope)? {
            Subscribed::None => {
                if wait.is_some() {
                    self.drain(partition, profile, &record.topic)?;
                }
                return Ok(());
            }
            Subscribed::Ends(end, reason) => {
                self.act(partition, ActionKind::End { record: Arc::clone(record), end, reason });
                if wait.is_some() {
                    self.drain(partition, profile, &record.topic)?;
                }
                return Ok(());
            }
            Subscribed::Fails(reason) => {
                self.act(partition, ActionKind::DeadLetter { record: Arc::clone(record), reason });
                return Ok(());
            }
            Subscribed::Routes(wanted) => wanted,
        };
        let identifiers = owned(&envelope.identifiers);
        let has_key = identifiers.iter().any(|(kind, _)| *kind == self.wants.key());
        if wait.is_some_and(|wait| wait.merges > 0 || wait.moving || wait.records > 0 && !has_key)
            || handed_over && wait.is_some()
        {
            self.hold(record, profile, handed_over, self.lack(envelope, has_key))?;
            // A person without the key, but with everything else in place: the queue may have been waiting for this very event.
            return self.drain(partition, profile, &record.topic);
        }
        if wait.is_some_and(|wait| wait.records > 0) {
            self.drain(partition, profile, &record.topic)?;
        }
        // Whether the event is for anybody is unknown while no condition could be evaluated: that must not end it for lack of a key.
        let undecided = wanted.failed.len() == wanted.routes.len() && self.wants.on_missing_key() != OnMissingKey::Hold;
        if has_key || undecided {
            let wait = self.waiting.get(partition, profile).unwrap_or_default();
            if wait.records > 0 || self.is_paused(&wanted) {
                return self.behind(record, profile, wait, &identifiers);
            }
            self.act(partition, ActionKind::Transform(Work::new(record, envelope, wanted, identifiers)));
            return Ok(());
        }
        match self.wants.on_missing_key() {
            OnMissingKey::Hold => {
                self.hold(record, profile, handed_over, self.lack(envelope, false))?;
                held::remember_identifiers(self.store, partition, profile, &identifiers)?;
                Ok(())
            }
            OnMissingKey::Skip => {
                let reason = self.lack(envelope, false);
                self.act(partition, ActionKind::End { record: Arc::clone(record), end: End::Skipped, reason });
                Ok(())
            }
            OnMissingKey::DeadLetter => {
                let reason = self.no_key(envelope);
                self.act(partition, ActionKind::DeadLetter { record: Arc::clone(record), reason });
                Ok(())
            }
        }
    }

    /// Why the person lacks the key: nobody has told it, or the row's own value was refused.
    fn lack(&self, envelope: &Envelope<'_>, has_key: bool) -> Code {
        let is_refused = !has_key && envelope.refusal(self.wants.key()).is_some();
        if is_refused { code::IDENTIFIER_REFUSED } else { code::NO_KEY }
    }

    fn no_key(&self, envelope: &Envelope<'_>) -> Reason {
        let mut message = format!(
            "expected an identifier of type {} (destination {}, `identifier`), the profile has none",
            self.wants.key(),
            self.wants.destination()
        );
        if let Some(refusal) = envelope.refusal(self.wants.key()) {
            message.push_str(&format!("; {refusal}"));
        }
        Reason::new(self.lack(envelope, false), message)
    }

    fn hold(&mut self, record: &Arc<Record>, profile: ProfileId, handed_over: bool, reason: Code) -> Result<(), Error> {
        let partition = record.partition;
        let kind = match self.waiting.hold(self.store, partition, profile, record, handed_over, self.now)? {
            Hold::Waits => ActionKind::End { record: Arc::clone(record), end: End::Held, reason },
            Hold::TooLarge { bytes, bytes_max } => {
                ActionKind::DeadLetter { record: Arc::clone(record), reason: Hold::refusal(bytes, bytes_max) }
            }
        };
        self.act(partition, kind);
        Ok(())
    }

    fn is_paused(&self, wanted: &Wanted) -> bool {
        wanted.routes.iter().any(|route| self.stand.routes.contains(route))
    }

    /// Whether a person's queue cannot go on in this batch.
    fn is_standing(&self, person: (i32, ProfileId)) -> bool {
        self.stand.blocked.contains(&person) || self.stand.undecided.contains(&person) || self.blocked.contains(&person)
    }

    /// The person's turn has not come: earlier records are still on their way out of the state, or a route is paused. Everybody else
    /// goes on.
    fn behind(
        &mut self,
        record: &Arc<Record>,
        profile: ProfileId,
        wait: Wait,
        identifiers: &[(String, String)],
    ) -> Result<(), Error> {
        let partition = record.partition;
        let is_full = wait.records >= BEHIND_PAUSE_PERSON_MAX || self.waiting.going_records() >= BEHIND_PAUSE_MAX;
        // Without a pause the queue shrinks with every batch.
        if let (true, false, Trigger::Record(place)) = (is_full, self.stand.routes.is_empty(), self.trigger) {
            self.full.insert(partition, place);
            return Ok(());
        }
        let reason = if self.stand.routes.is_empty() { code::NO_KEY } else { code::ROUTE_PAUSED };
        self.hold(record, profile, false, reason)?;
        if self.waiting.get(partition, profile).is_some() {
            if wait == Wait::default() {
                held::remember_identifiers(self.store, partition, profile, identifiers)?;
            }
            self.waiting.release(self.store, partition, profile)?;
        }
        Ok(())
    }

    /// Lets go on what waits for a profile, if nothing stands in its way any more; as much of it as the batch may carry.
    fn drain(&mut self, partition: i32, profile: ProfileId, topic: &Arc<str>) -> Result<(), Error> {
        let Some(wait) = self.waiting.get(partition, profile) else { return Ok(()) };
        if wait.merges > 0 {
            return Ok(());
        }
        if wait.moving {
            return self.hand_over(partition, profile, topic);
        }
        if wait.records == 0 || self.is_standing((partition, profile)) {
            return Ok(());
        }
        let identifiers = held::identifiers(self.store, partition, profile)?
            .filter(|identifiers| identifiers.iter().any(|(kind, _)| *kind == self.wants.key()));
        let Some(identifiers) = identifiers else {
            return Ok(self.waiting.hold_back(self.store, partition, profile)?);
        };
        loop {
            let queue = self.waiting.queue_first(self.store, partition, profile, topic, QUEUE_CHUNK)?;
            if queue.is_empty() {
                return Ok(());
            }
            for held in queue {
                if self.budget.is_spent() {
                    return Ok(self.waiting.release(self.store, partition, profile)?);
                }
                if !self.let_go(partition, profile, held, &identifiers)? {
                    self.blocked.insert((partition, profile));
                    return Ok(self.waiting.release(self.store, partition, profile)?);
                }
            }
        }
    }

    /// Takes a record out of its queue; false if it is for a paused route.
    fn let_go(
        &mut self,
        partition: i32,
        profile: ProfileId,
        held: Held,
        identifiers: &[(String, String)],
    ) -> Result<bool, Error> {
        let record = Arc::clone(&held.record);
        let kind = match record.envelope() {
            Err(_) if let Some(reason) = held::damage(&record) => {
                ActionKind::DeadLetter { record: Arc::clone(&record), reason }
            }
            Err(error) => {
                let message = format!("the header `tw` of {} could not be read: {error}", record.coordinates());
                let reason = Reason::new(code::DECODE_FAILED, message);
                ActionKind::DeadLetter { record: Arc::clone(&record), reason }
            }
            Ok(envelope) => match self.wants.subscribed(&record, &envelope)? {
                // The configuration has changed meanwhile and does not want the event any more.
                Subscribed::None => {
                    ActionKind::End { record: Arc::clone(&record), end: End::Skipped, reason: code::FILTERED }
                }
                Subscribed::Ends(end, reason) => ActionKind::End { record: Arc::clone(&record), end, reason },
                Subscribed::Fails(reason) => ActionKind::DeadLetter { record: Arc::clone(&record), reason },
                Subscribed::Routes(wanted) if self.is_paused(&wanted) => return Ok(false),
                Subscribed::Routes(wanted) => {
                    ActionKind::Transform(Work::new(&record, &envelope, wanted, identifiers.to_vec()))
                }
            },
        };
        self.budget.spend(&record);
        self.waiting.take(self.store, partition, profile, &held)?;
        self.act(partition, kind);
        Ok(true)
    }

    /// The absorbed profile's partition: what waits there moves to the survivor, then the fence is passed.
    fn fence(&mut self, record: &Arc<Record>, merge: Merge) -> Result<(), Error> {
        let partition = record.partition;
        if self.waiting.get(partition, merge.absorbed).is_none() {
            self.pass(partition, merge);
            return Ok(());
        }
        // In a chain of merges the absorbed profile may wait for an earlier one itself, whose records are not here yet.
        self.waiting.move_to(self.store, partition, merge)?;
        self.drain(partition, merge.absorbed, &record.topic)
    }

    /// Hands over what waits for an absorbed profile, as much of it as the batch may carry. With the last record the fence is passed.
    fn hand_over(&mut self, partition: i32, absorbed: ProfileId, topic: &Arc<str>) -> Result<(), Error> {
        let Some(merge) = self.waiting.moving(self.store, partition, absorbed)? else { return Ok(()) };
        loop {
            let queue = self.waiting.queue_first(self.store, partition, absorbed, topic, QUEUE_CHUNK)?;
            if queue.is_empty() {
                break;
            }
            for held in queue {
                if self.budget.is_spent() {
                    return Ok(());
                }
                self.budget.spend(&held.record);
                self.waiting.take(self.store, partition, absorbed, &held)?;
                let (is_event, backfill) = match held.record.envelope() {
                    Ok(envelope) => {
                        (envelope.role == Role::Event, self.wants.age(&held.record, &envelope) == Age::Backfill)
                    }
                    Err(_) => (true, false),
                };
                if let Some(reason) = held::damage(&held.record) {
                    self.act(partition, ActionKind::DeadLetter { record: held.record, reason });
                    continue;
                }
                // An earlier version queued the fence itself.
                if is_event {
                    self.act(partition, ActionKind::HandOver { record: held.record, to: merge.survivor, backfill });
                }
            }
        }
        self.waiting.moved(self.store, partition, absorbed)?;
        self.pass(partition, merge);
        Ok(())
    }

    fn pass(&mut self, partition: i32, merge: Merge) {
        self.act(partition, ActionKind::Release(merge));
        self.act(partition, ActionKind::Forward { profile: merge.absorbed, role: Role::Fence(merge) });
    }

    /// Plans what is due because of its age: holds whose time is over. `surely` is a time that no step of a clock has brought early.
    ///
    /// # Errors
    /// The state could not be read or written.
    pub fn expired(&mut self, partitions: &[i32], topic: &Arc<str>, surely: Timestamp) -> Result<(), Error> {
        self.trigger = Trigger::Clock;
        let age = i64::try_from(self.wants.hold_for().as_millis()).unwrap_or(i64::MAX);
        let limit = Timestamp::from_millis(surely.as_millis().saturating_sub(age));
        for &partition in partitions {
            for (profile, held) in self.waiting.expired(self.store, partition, topic, limit, EXPIRED_MAX)? {
                self.waiting.take(self.store, partition, profile, &held)?;
                self.dead_letter_expired(partition, held);
            }
        }
        Ok(())
    }

    fn dead_letter_expired(&mut self, partition: i32, held: Held) {
        if let Some(reason) = held::damage(&held.record) {
            return self.act(partition, ActionKind::DeadLetter { record: held.record, reason });
        }
        let mut message = format!(
            "waited since {} for an identifier of type {}, longer than `hold_for` of destination {} allows",
            held.since,
            self.wants.key(),
            self.wants.destination()
        );
        if let Some(refusal) = held.record.envelope().unwrap_or_default().refusal(self.wants.key()) {
            message.push_str(&format!("; {refusal}"));
        }
        let reason = Reason::new(code::HOLD_EXPIRED, message);
        self.act(partition, ActionKind::DeadLetter { record: held.record, reason });
    }
}

fn owned(identifiers: &[Identifier<'_>]) -> Vec<(String, String)> {
    identifiers.iter().map(|identifier| (identifier.kind.to_owned(), identifier.value.to_owned())).collect()
}

/// A held record for the survivor of a merge: the same event, now the survivor's, for this destination alone.
pub fn handed_over(record: &Record, to: ProfileId, destination: &str, backfill: bool) -> Record {
    let Ok(mut envelope) = record.envelope() else { return record.clone() };
    if backfill {
        envelope.backfill.get_or_insert(BACKFILL);
    }
    dead_letter::with_envelope(record, &Envelope { profile: Some(to), only_destination: Some(destination), ..envelope })
}
