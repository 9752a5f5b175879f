//! Makes what has been decided safe: state, ledger, history, dead letters and offsets, in one transaction.

use tailwater_core::Timestamp;
use tailwater_core::tracker::OffsetTracker;

use super::Session;
use super::outside::Outside;
use crate::stages::Error;

impl<O: Outside> Session<O> {
    /// Commits as often as configured, or as the broker keeps up with while a person waits for it.
    pub(super) fn commit_if_due(&mut self) -> Result<(), Error> {
        let urgent = self.gate.awaits_settlement();
        let interval = if urgent { self.pace.urgent_interval() } else { self.pace.interval() };
        if self.outside.instant().saturating_duration_since(self.committed_at) < interval {
            return Ok(());
        }
        self.commit()
    }

    /// Commits what has been decided. Every partition's offset travels, moved or not: it is what makes the broker refuse a process
    /// whose partitions have moved on.
    pub(super) fn commit(&mut self) -> Result<(), Error> {
        let started = self.outside.instant();
        let mut next = self.committed.clone();
        for (partition, tracker) in &self.trackers {
            if let Some(watermark) = tracker.watermark() {
                next.insert(*partition, watermark);
            }
        }
        let oldest = self.oldest_open();
        self.age.observe(oldest, self.outside.now());
        debug_assert!(self.dirty || !self.gate.awaits_settlement(), "a person waits for a commit that nobody makes");
        self.committed_at = started;
        let now = self.outside.now();
        self.dirty |= self.facts.expire(self.outside.state_mut(), now)?;
        if next == self.committed && !self.dirty {
            return Ok(());
        }
        for (partition, appended) in &self.appended {
            if let Some(watermark) = next.get(partition) {
                self.finished.write(self.outside.state_mut(), *partition, *watermark, appended.front().copied())?;
            }
        }
        self.outside.commit(&next)?;
        self.waiting.accept();
        self.gate.settled();
        self.committed = next;
        self.dirty = false;
        self.committed_at = self.outside.instant();
        let metrics = self.setup.telemetry.metrics();
        let took = self.committed_at.saturating_duration_since(started);
        self.pace.committed(took);
        metrics.transaction_seconds("send", took);
        let open = self.trackers.values().map(OffsetTracker::open).sum();
        metrics.deliveries(&self.setup.name, open, self.gate.in_flight());
        self.setup.telemetry.status(
            &format!("destination.{}.load", self.setup.name),
            serde_json::json!({
                "queue": self.gate.len(), "in_flight": self.gate.in_flight(), "parked": self.waiting.records(),
            }),
        );
        metrics.parked(&self.setup.name, self.waiting.ready());
        metrics.queue(&format!("send.{}", self.setup.name), self.gate.len(), self.gate.items_max());
        Ok(())
    }

    /// The append time of the oldest record that is open.
    fn oldest_open(&mut self) -> Option<Timestamp> {
        for (partition, tracker) in &self.trackers {
            let (Some(watermark), Some(appended)) = (tracker.watermark(), self.appended.get_mut(partition)) else {
                continue;
            };
            while appended.front().is_some_and(|(offset, _)| *offset < watermark) {
                appended.pop_front();
            }
        }
        self.appended.values().filter_map(|appended| appended.front()).map(|(_, time)| *time).min()
    }
}
