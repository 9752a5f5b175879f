//! Partitions that come and go: what is done before one is served, and before it is given back.

use std::time::Duration;

use tailwater_core::ProfileId;

use super::outside::{Answer, Outside};
use super::{Session, memory};
use crate::failpoint;
use crate::kafka;
use crate::kafka::consumer::{Event, Partition};
use crate::stages::Error;
use crate::telemetry::events::{Ownership as Change, Rebalanced};

/// How long requests that are in flight may take to end when partitions are given back: the group waits for it.
const DRAIN_MAX: Duration = Duration::from_secs(10);

impl<O: Outside> Session<O> {
    pub(super) fn rebalance(&mut self, event: Event) -> Result<(), Error> {
        let (numbers, change) = match event {
            Event::Assign(partitions) => (self.assign(&partitions)?, Change::Assigned),
            Event::Revoke { partitions, lost } => (self.revoke(&partitions, lost)?, Change::Revoked),
        };
        self.outside.share();
        self.setup.telemetry.emit(&Rebalanced {
            stage: "send",
            component: &self.setup.name,
            change,
            partitions: &numbers,
            owned: self.outside.assignment().len(),
        });
        Ok(())
    }

    fn assign(&mut self, partitions: &[Partition]) -> Result<Vec<i32>, Error> {
        let numbers = numbers_of(partitions);
        // What is decided must be safe before the ledger begins anew, and no transaction may be open while state is restored: that
        // can take longer than a transaction may.
        self.commit()?;
        let starts = self.outside.starts(partitions)?;
        self.outside.restore(&numbers)?;
        self.waiting.load(self.outside.state(), &numbers)?;
        self.facts.load(self.outside.state(), &numbers)?;
        for start in &starts {
            self.dirty |= self.finished.load(self.outside.state_mut(), start)?;
        }
        self.outside.forget_ends();
        failpoint::hit("rebalance.send");
        self.outside.assigned(&starts)?;
        self.notes.taken_over();
        self.committed.extend(starts.iter().map(|start| (start.partition, start.offset)));
        if !self.reading {
            self.outside.pause(partitions, true)?;
        }
        // What was parked before the committed offset goes first. The others go on where they are read again: before them there may be
        // records of the same person that were never parked.
        for start in &starts {
            self.parked.taken_over(start.partition, start.offset);
            self.unpark(start.partition);
        }
        Ok(numbers)
    }

    fn revoke(&mut self, partitions: &[Partition], lost: bool) -> Result<Vec<i32>, Error> {
        let numbers = numbers_of(partitions);
        self.outside.renounce(partitions);
        if lost {
            // Others own the partitions already; whatever is open here must not be committed. Everything is read again.
            return Err(kafka::Error::Aborted {
                during: "keep the partitions",
                detail: "they were lost to another process".into(),
            }
            .into());
        }
        self.drain(DRAIN_MAX, |number| numbers.contains(&number))?;
        failpoint::hit("rebalance.revoke.send");
        self.commit()?;
        self.forget(&numbers);
        self.outside.revoked(partitions)?;
        Ok(numbers)
    }

    /// Waits for the outcomes of these partitions' deliveries that are in flight, and commits them as they come: an orchestrator may lose its
    /// patience any moment. What has no outcome in time is made again by the next owner. The partitions were renounced before, so that nothing
    /// new is sent meanwhile and what waits for a rate limit comes back at once.
    pub(super) fn drain(&mut self, at_most: Duration, concerns: impl Fn(i32) -> bool) -> Result<(), Error> {
        let until = self.outside.instant() + at_most;
        self.give_back_ready();
        while self.calls_concern(&concerns) && self.outside.instant() < until {
            self.outside.alive();
            if let Some(answer) = self.outside.answer(Duration::from_millis(20)) {
                self.answer(answer)?;
                self.answered()?;
            }
            self.commit_if_due()?;
        }
        Ok(())
    }

    /// The stage has failed and will start anew: what is on its way to the vendor must not arrive after what is sent then. Nothing
    /// new is sent meanwhile, and the answers count for nothing.
    pub(super) fn let_calls_end(&mut self) {
        let partitions = self.outside.assignment();
        self.outside.renounce(&partitions);
        let until = self.outside.instant() + DRAIN_MAX;
        while self.calls_running > 0 && self.outside.instant() < until {
            self.outside.alive();
            if let Some(Answer::Ended { .. }) = self.outside.answer(Duration::from_millis(50)) {
                self.calls_running = self.calls_running.saturating_sub(1);
            }
        }
    }

    fn forget(&mut self, partitions: &[i32]) {
        let all = self.setup.partitions;
        let gone = |profile: &ProfileId| partitions.contains(&memory::partition_of(*profile, all));
        self.gate.remove(|profile| gone(profile));
        self.backlog.retain(|record| !partitions.contains(&record.partition));
        self.forget_parked(partitions);
        self.forget_calls(gone);
        for partition in partitions {
            self.trackers.remove(partition);
            self.appended.remove(partition);
            self.committed.remove(partition);
        }
        self.finished.forget(partitions);
        self.facts.forget(partitions);
        self.waiting.forget(partitions);
        self.outside.release(partitions);
    }
}

fn numbers_of(partitions: &[Partition]) -> Vec<i32> {
    partitions.iter().map(|(_, partition)| *partition).collect()
}
