//! A destination whose credentials do not work: nothing is started until a person has acted, and it is found out when that was.

use std::time::{Duration, Instant};

use tailwater_core::Timestamp;
use tailwater_core::delivery::Reason;
use tracing::debug;

use super::Session;
use super::outside::Outside;
use crate::telemetry::events::{Paused, Resumed};

/// How often a paused destination is asked whether its credentials work again.
const PROBE_INTERVAL: Duration = Duration::from_secs(30);

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
        self.paused = Some(Pause { reason, probed: self.outside.instant() });
    }

    pub(super) fn resume(&mut self) {
        if self.paused.take().is_some() {
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
