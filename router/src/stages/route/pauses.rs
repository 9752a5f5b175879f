//! Routes that are paused, while the others of the destination go on.
//!
//! A route pauses with one alert when many rows fail alike. While it does not run, an event that is for it waits in state, and later events
//! of the same person wait behind it: their order holds. Everybody else goes on. What may wait is bounded, for each person and for all
//! together; a partition with an event that has no room is not read any further. When every route is paused nothing could go on, so nothing is
//! moved: all partitions stay where they are.
//!
//! After a reload, what waits goes first.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use tailwater_core::ProfileId;
use tracing::warn;

use super::plan::{BEHIND_PAUSE_MAX, BEHIND_PAUSE_PERSON_MAX};
use super::verdict::Pause;
use super::{Routes, Session};
use crate::kafka::Record;
use crate::kafka::consumer::Partition;
use crate::runtime::clock::now;
use crate::stages::Error;
use crate::stages::shared::held;
use crate::telemetry::events::{Paused, Resumed};

/// What stands still.
#[derive(Debug, Default)]
pub struct Pauses {
    /// The places of the routes.
    pub routes: BTreeSet<usize>,
    /// No route of the destination runs.
    pub all: bool,
    /// People whose next record is for a paused route. Nothing of theirs goes on before a reload.
    pub blocked: BTreeSet<(i32, ProfileId)>,
    /// Partitions with a record that has no room behind the pause.
    pub full: BTreeSet<i32>,
    /// What was read of these partitions and not taken, in the order of each partition.
    pub unread: Vec<Arc<Record>>,
    /// The person whose queue went on last, so that all have their turn.
    pub cursor: Option<(i32, ProfileId)>,
}

impl Pauses {
    pub fn forget(&mut self, partitions: &[i32]) {
        self.unread.retain(|record| !partitions.contains(&record.partition));
        self.full.retain(|partition| !partitions.contains(partition));
        self.blocked.retain(|(partition, _)| !partitions.contains(partition));
    }
}

impl Session<'_> {
    /// Whether every route is paused.
    pub(super) fn stands_still(&self, routes: &Routes) -> bool {
        !self.pauses.routes.is_empty() && self.pauses.routes.len() >= routes.routes.len()
    }

    /// People whose queues may go on, at most so many, beginning behind those that went on last.
    pub(super) fn go_on_first(&self, max: usize) -> Vec<(i32, ProfileId)> {
        let ready = self.waiting.going();
        let after = self.pauses.cursor.map_or(Bound::Unbounded, Bound::Excluded);
        let until = self.pauses.cursor.map(|cursor| ready.range(..=cursor)).into_iter().flatten();
        let open = |person: &&(i32, ProfileId)| !self.pauses.blocked.contains(*person);
        ready.range((after, Bound::Unbounded)).chain(until).filter(open).take(max).copied().collect()
    }

    /// Pauses a route with one alert. The partitions stay assigned, so that nobody else runs into the same row.
    pub(super) fn pause(&mut self, pause: Pause, routes: &Routes) -> Result<(), Error> {
        self.shared.telemetry.emit(&Paused {
            destination: self.destination,
            stage: "route",
            route: &pause.route,
            code: pause.reason.code,
            message: &pause.reason.message,
        });
        let note = serde_json::json!({
            "route": pause.route,
            "code": pause.reason.code.as_str(),
            "message": pause.reason.message,
            "since": now().to_string(),
        });
        let partitions: Vec<Partition> = self.consumer.assignment().iter().cloned().collect();
        for (_, partition) in &partitions {
            held::set_pause(self.unit.store_mut(), *partition, Some(&note))?;
        }
        self.pauses.routes.insert(pause.place);
        self.pauses.all = self.stands_still(routes);
        if self.pauses.all {
            self.consumer.pause(&partitions, true)?;
        }
        Ok(())
    }

    /// Stops reading partitions whose next record has no room behind a pause.
    pub(super) fn stop_reading_full(&mut self) -> Result<(), Error> {
        let full = &self.pauses.full;
        let (stuck, pending): (Vec<_>, Vec<_>) =
            self.pending.drain(..).partition(|record| full.contains(&record.partition));
        self.pending = pending;
        if stuck.is_empty() {
            return Ok(());
        }
        let numbers: BTreeSet<i32> = stuck.iter().map(|record| record.partition).collect();
        self.pauses.unread.extend(stuck);
        let partitions: Vec<Partition> =
            self.consumer.assignment().iter().filter(|(_, number)| numbers.contains(number)).cloned().collect();
        self.consumer.pause(&partitions, true)?;
        warn!(
            destination = self.destination,
            partitions = ?numbers,
            waiting = self.waiting.going_records(),
            person_max = BEHIND_PAUSE_PERSON_MAX,
            total_max = BEHIND_PAUSE_MAX,
            code = tailwater_core::code::ROUTE_PAUSED.as_str(),
            "no more events may wait behind the paused route; these partitions are not read until it is resumed"
        );
        Ok(())
    }

    /// Something was reloaded: what failed is run again first.
    pub(super) fn resume(&mut self) -> Result<(), Error> {
        if self.pauses.routes.is_empty() {
            return Ok(());
        }
        let mut pauses = std::mem::take(&mut self.pauses);
        self.pauses.cursor = pauses.cursor;
        // Partitions that were full have nothing in `pending`.
        pauses.unread.append(&mut self.pending);
        self.pending = pauses.unread;
        let partitions: Vec<Partition> = self.consumer.assignment().iter().cloned().collect();
        for (_, partition) in &partitions {
            held::set_pause(self.unit.store_mut(), *partition, None)?;
        }
        self.commit(&std::collections::BTreeMap::new())?;
        self.consumer.pause(&partitions, false)?;
        self.reading = true;
        self.stalled = false;
        self.shared.telemetry.emit(&Resumed { destination: self.destination, stage: "route" });
        Ok(())
    }
}
