//! A destination whose credentials do not work: nothing is started until a person has acted, and it is found out when that was.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::json;
use tailwater_core::delivery::Reason;
use tailwater_core::{Code, Timestamp};
use tracing::debug;

use super::Session;
use super::outside::Outside;
use crate::stages::Error;
use crate::stages::shared::held;
use crate::telemetry::events::{Paused, Resumed};

/// How often a paused destination is asked whether its credentials work again.
const PROBE_INTERVAL: Duration = Duration::from_secs(30);

/// What is paused and why, for those who look from outside, by route; empty for the whole destination.
#[derive(Default)]
pub(super) struct Notes {
    notes: BTreeMap<String, serde_json::Value>,
    /// What the partitions hold may be another thing.
    due: bool,
}

impl Notes {
    pub(super) fn paused(&mut self, route: &str, code: Code, message: &str, since: Timestamp) {
        let note = json!({"route": route, "code": code.as_str(), "message": message, "since": since.to_string()});
        self.notes.insert(route.to_owned(), note);
        self.due = true;
    }

    pub(super) fn resumed(&mut self, route: &str) {
        self.due |= self.notes.remove(route).is_some();
    }

    /// Partitions were taken over, with the notes of whoever had them.
    pub(super) const fn taken_over(&mut self) {
        self.due = true;
    }
}

/// The credentials do not work.
pub(super) struct Pause {
    reason: Reason,
    probed: Instant,
}

impl<O: Outside> Session<O> {
    pub(super) fn pause(&mut self, reason: Reason) {
        if self.paused.is_some() {
            return;
        }
        self.setup.telemetry.emit(&Paused {
            destination: &self.setup.name,
            stage: "send",
            route: "",
            code: reason.code,
            message: &reason.message,
        });
        self.notes.paused("", reason.code, &reason.message, self.outside.now());
        self.paused = Some(Pause { reason, probed: self.outside.instant() });
    }

    /// Writes down what is paused, in every partition, as route does.
    pub(super) fn note_pauses(&mut self) -> Result<(), Error> {
        if !std::mem::take(&mut self.notes.due) {
            return Ok(());
        }
        for (_, partition) in self.outside.assignment() {
            self.dirty |= held::set_pauses(self.outside.state_mut(), partition, &self.notes.notes)?;
        }
        Ok(())
    }

    pub(super) fn resume(&mut self) {
        if self.paused.take().is_some() {
            self.notes.resumed("");
            self.setup.telemetry.emit(&Resumed { destination: &self.setup.name, stage: "send" });
            self.not_before = Timestamp::default();
            self.gate.expedite();
        }
    }

    /// A paused destination is asked from time to time whether it works again, without a delivery at stake.
    pub(super) fn look_after_pause(&mut self) {
        let now = self.outside.instant();
        let Some(pause) = &mut self.paused else { return };
        if now.saturating_duration_since(pause.probed) < PROBE_INTERVAL {
            return;
        }
        pause.probed = now;
        debug!(destination = %self.setup.name, code = %pause.reason.code, "asking whether the credentials work again");
        self.outside.probe();
    }
}
