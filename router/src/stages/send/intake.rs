//! From the lane into the gate: what is read takes its turn there, waits in the backlog when the gate is full, or is parked in state
//! behind a merge of profiles.

use std::sync::Arc;
use std::time::Duration;

use tailwater_core::delivery::Reason;
use tailwater_core::envelope::{Merge, Role};
use tailwater_core::ledger::End;
use tailwater_core::tracker::OffsetTracker;
use tailwater_core::{ProfileId, code};

use super::open::{Item, Open};
use super::outside::Outside;
use super::{Session, memory};
use crate::failpoint;
use crate::kafka::Record;
use crate::kafka::consumer::Polled;
use crate::stages::Error;
use crate::stages::held::{self, Held};

/// Where a record belongs that may have to wait behind a merge.
enum Place {
    /// In state, for now.
    Parked,
    /// Behind what was offered before, and out of its queue if it has waited.
    Next(Option<Held>),
}

impl<O: Outside> Session<O> {
    pub(super) fn intake(&mut self, wait: Duration) -> Result<(), Error> {
        while let Some((record, parked)) = self.backlog.pop_front() {
            if self.gate.is_full() {
                self.backlog.push_front((record, parked));
                break;
            }
            self.take(record, parked)?;
        }
        let full = !self.backlog.is_empty() || self.trackers.values().any(OffsetTracker::is_full);
        if full == self.reading {
            // Resumed only when half of it is done: pausing throws away what was fetched ahead.
            if full || self.gate.len() < self.setup.open_max / 2 {
                let partitions = self.outside.assignment();
                self.outside.pause(&partitions, full)?;
                self.reading = !full;
            }
        }
        match self.outside.poll(wait)? {
            Polled::Event(event) => self.rebalance(event),
            Polled::Records(records) => {
                for record in records {
                    self.read(record)?;
                }
                Ok(())
            }
        }
    }

    fn read(&mut self, record: Record) -> Result<(), Error> {
        let bounds = self.setup.bounds;
        let tracker = self.trackers.entry(record.partition).or_insert_with(|| OffsetTracker::new(bounds));
        tracker.seen(record.offset).map_err(|error| Error::Invalid {
            code: code::KAFKA_OFFSET_LOST,
            message: format!("{} of {}[{}]", error, record.topic, record.partition),
        })?;
        self.appended.entry(record.partition).or_default().push_back((record.offset, record.timestamp));
        let (lane, offset) = (record.partition, record.offset);
        let record = Arc::new(record);
        let mut parked = None;
        let finished = self.finished.contains(self.outside.state_mut(), lane, offset, record.timestamp)?;
        if finished && !failpoint::bug("bug.dedupe_off") {
            self.done(lane, offset);
            parked = self.goes_on(&record)?;
            if parked.is_none() {
                return Ok(());
            }
        }
        if self.backlog.is_empty() && !self.gate.is_full() {
            return self.take(record, parked);
        }
        self.backlog.push_back((record, parked));
        Ok(())
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
                let parked = match self.parks(lane, merge.absorbed, &record, parked)? {
                    Place::Parked => return Ok(()),
                    Place::Next(parked) => parked,
                };
                return self.offer(merge.absorbed, Item::Fence { merge, record, parked });
            }
            Role::Hold(merge) => {
                let state = self.outside.state_mut();
                if !memory::is_passed(state, lane, merge.number)? {
                    self.waiting.wait_for(state, lane, merge.survivor, merge.number)?;
                }
                self.done(lane, record.offset);
                return Ok(());
            }
            Role::Release(merge) => return self.release(lane, record.offset, merge),
        }
        let mut open = match Open::read(&record) {
            Ok(open) => Box::new(open),
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
        match self.parks(lane, open.profile, &record, parked)? {
            Place::Parked => {
                self.note(lane, &record, End::Parked, "merge");
                Ok(())
            }
            Place::Next(parked) => {
                open.parked = parked;
                self.offer(open.profile, Item::Record(open))
            }
        }
    }

    /// Whether a record that was read has to wait behind a merge. It waits in state, so that the release behind it in the lane can be
    /// read. One that waits already, because it is read for the second time, takes its place now if the wait is over.
    fn parks(
        &mut self,
        lane: i32,
        profile: ProfileId,
        record: &Arc<Record>,
        parked: Option<Held>,
    ) -> Result<Place, Error> {
        if parked.is_some() {
            return Ok(Place::Next(parked));
        }
        let Some(wait) = self.waiting.get(lane, profile) else { return Ok(Place::Next(None)) };
        if wait.merges > 0 {
            let now = self.outside.now();
            self.waiting.hold(self.outside.state_mut(), lane, profile, record, false, now)?;
            self.done(lane, record.offset);
            return Ok(Place::Parked);
        }
        let parked = self.goes_on(record)?;
        if parked.is_some() {
            self.done(lane, record.offset);
        }
        Ok(Place::Next(parked))
    }

    /// The place in its queue of a record that was parked, is read again and need not wait any longer.
    fn goes_on(&mut self, record: &Arc<Record>) -> Result<Option<Held>, Error> {
        let lane = record.partition;
        if self.waiting.is_empty(lane) {
            return Ok(None);
        }
        let Ok(envelope) = record.envelope() else { return Ok(None) };
        let Some(profile) = envelope.profile else { return Ok(None) };
        if self.waiting.get(lane, profile).is_none_or(|wait| wait.merges > 0) {
            return Ok(None);
        }
        let held = held::find(self.outside.state(), lane, profile, record)?;
        Ok(held.filter(|_| self.unparked.insert((lane, record.offset))))
    }

    /// A parked record is through.
    pub(super) fn leave(&mut self, lane: i32, profile: ProfileId, held: &Held) -> Result<(), Error> {
        self.waiting.take(self.outside.state_mut(), lane, profile, held)?;
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
        memory::set_passed(self.outside.state_mut(), lane, merge.number)?;
        self.waiting.released(self.outside.state_mut(), lane, merge.survivor, merge.number)?;
        self.done(lane, offset);
        self.unpark(lane, merge.survivor, offset)
    }

    /// Parked records go on: those that lie before `end` in the lane.
    pub(super) fn unpark(&mut self, lane: i32, profile: ProfileId, end: i64) -> Result<(), Error> {
        if self.waiting.get(lane, profile).is_none_or(|wait| wait.merges > 0) {
            return Ok(());
        }
        let queue = self.waiting.queue(self.outside.state(), lane, profile, &self.setup.topic)?;
        // In front of what was read since: that may hold later records of the same person.
        for held in queue.into_iter().rev().filter(|held| held.record.offset < end) {
            if self.unparked.insert((lane, held.record.offset)) {
                self.backlog.push_front((Arc::clone(&held.record), Some(held)));
            }
        }
        Ok(())
    }

    /// An offset is through: everything about it is acknowledged with the next commit.
    pub(super) fn done(&mut self, lane: i32, offset: i64) {
        self.dirty = true;
        if let Some(tracker) = self.trackers.get_mut(&lane) {
            tracker.complete(offset);
            self.finished.note(lane, offset);
        }
    }

    pub(super) fn note(&mut self, lane: i32, record: &Record, end: End, reason: &str) {
        let Ok(envelope) = record.envelope() else { return };
        if let Some(place) = &envelope.ingest {
            let round = envelope.replay.map_or(0, |replay| replay.count);
            self.outside.end(lane, place, round, end, reason);
        }
    }

    pub(super) fn dead_letter(&mut self, record: &Record, reason: &Reason, attempts: u32) -> Result<(), Error> {
        self.outside.dead_letter(record, reason, attempts)?;
        self.note(record.partition, record, End::DeadLettered, reason.code.as_str());
        let name = &self.setup.name;
        self.setup.telemetry.metrics().dead_lettered("send", name, reason.code.as_str());
        self.dirty = true;
        self.setup.telemetry.dead_letter_line("send", name, reason, &record.coordinates());
        Ok(())
    }
}
