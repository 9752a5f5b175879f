//! From the partition into the gate: what is read takes its turn there, waits in the backlog while the gate is full, or is parked in state.

use std::sync::Arc;
use std::time::Duration;

use tailwater_core::delivery::Reason;
use tailwater_core::envelope::{Merge, Role};
use tailwater_core::ledger::End;
use tailwater_core::tracker::OffsetTracker;
use tailwater_core::{ProfileId, code};

use super::open::Item;
use super::outside::Outside;
use super::parked::Place;
use super::{Session, memory};
use crate::kafka::Record;
use crate::kafka::consumer::Polled;
use crate::stages::Error;
use crate::telemetry::events::FenceLost;

impl<O: Outside> Session<O> {
    pub(super) fn intake(&mut self, wait: Duration) -> Result<(), Error> {
        self.refill()?;
        while !self.gate.is_full()
            && let Some(record) = self.backlog.pop_front()
        {
            if !self.take(&record)? {
                self.backlog.push_front(record);
                break;
            }
        }
        let full = !self.backlog.is_empty() || self.trackers.values().any(OffsetTracker::is_full);
        if full == self.reading {
            // Resumed only when half of it is done: pausing throws away what was fetched ahead.
            if full || self.gate.is_half_empty() {
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
        let (partition, offset) = (record.partition, record.offset);
        self.parked.read(partition, offset);
        let record = Arc::new(record);
        let finished = self.finished.contains(self.outside.state_mut(), partition, offset, record.timestamp)?;
        if finished {
            self.done(partition, offset);
            return self.reread(&record);
        }
        let goes = self.backlog.is_empty() && !self.gate.is_full() && self.take(&record)?;
        if !goes {
            self.backlog.push_back(record);
        }
        Ok(())
    }

    /// Lets a record into the gate, or parks it. False if there is room for it in neither.
    fn take(&mut self, record: &Arc<Record>) -> Result<bool, Error> {
        let partition = record.partition;
        let envelope = record.envelope().unwrap_or_default();
        let profile = match envelope.role {
            Role::Event => envelope.profile,
            // In a chain of merges the absorbed profile may wait for an earlier one: the fence queues behind what is parked.
            Role::Fence(merge) => Some(merge.absorbed),
            Role::Hold(merge) => {
                let state = self.outside.state_mut();
                if !memory::is_passed(state, partition, merge.number)? {
                    self.waiting.wait_for(state, partition, merge)?;
                }
                self.done(partition, record.offset);
                return Ok(true);
            }
            Role::Release(merge) => {
                self.release(record, merge)?;
                return Ok(true);
            }
        };
        let place = match profile {
            Some(profile) => self.parks(partition, profile, record)?,
            None => Place::Gate,
        };
        if place == Place::Gate {
            self.admit(partition, record, None)?;
        }
        Ok(place != Place::Nowhere)
    }

    pub(super) fn offer(&mut self, profile: ProfileId, item: Item) -> Result<(), Error> {
        let (bytes, repeat) = (item.bytes(), item.repeat());
        self.gate.offer(profile, item, bytes, repeat).map_err(|_| Error::Invalid {
            code: code::TASK_FAILED,
            message: "the gate was full although it had been asked".into(),
        })
    }

    /// The wait for a merge is over: what was parked goes on, in order.
    fn release(&mut self, record: &Record, merge: Merge) -> Result<(), Error> {
        let (partition, offset) = (record.partition, record.offset);
        if self.take_over(record, merge.survivor)? {
            self.done(partition, offset);
            return Ok(());
        }
        // Remembered for good: the hold may be read later than this, or once more after a start, and must not wait then.
        memory::set_passed(self.outside.state_mut(), partition, merge.number)?;
        self.waiting.released(self.outside.state_mut(), partition, merge.survivor, merge.number)?;
        self.done(partition, offset);
        self.parked.due(partition, merge.survivor);
        Ok(())
    }

    /// An offset is through: everything about it is acknowledged with the next commit.
    pub(super) fn done(&mut self, partition: i32, offset: i64) {
        self.dirty = true;
        if let Some(tracker) = self.trackers.get_mut(&partition) {
            tracker.complete(offset);
            self.finished.note(partition, offset);
        }
    }

    pub(super) fn note(&mut self, partition: i32, record: &Record, end: End, reason: &str) {
        let Ok(envelope) = record.envelope() else { return };
        if let Some(place) = &envelope.ingest {
            let round = envelope.replay.map_or(0, |replay| replay.count);
            self.outside.end(partition, place, round, end, reason);
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

    /// Asks for fences that can no longer arrive: their holds would wait forever.
    pub(super) fn look_after_fences(&mut self) -> Result<(), Error> {
        let now = self.outside.steady();
        let owned: Vec<i32> = self.committed.keys().copied().collect();
        let due = self.fences.due(&self.waiting, self.outside.state(), owned, now)?;
        for merge in self.fences.missing(&due, &mut self.outside, now)? {
            self.setup.telemetry.emit(&FenceLost { destination: &self.setup.name, stage: "send", merge });
            self.outside.ask_for_fence(merge)?;
            self.dirty = true;
        }
        Ok(())
    }
}
