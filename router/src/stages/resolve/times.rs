//! Times that could not be read. Each is counted; the log tells of them once a minute, because a source with the wrong unit has nothing else.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tailwater_core::code;
use tracing::warn;

use super::Pending;
use crate::telemetry::Telemetry;

/// How often the log tells of the same source.
const INTERVAL: Duration = Duration::from_secs(60);

/// What has not been told yet, by source.
#[derive(Default)]
pub struct InvalidTimes(BTreeMap<String, Untold>);

#[derive(Default)]
struct Untold {
    rows: u64,
    example: String,
    told: Option<Instant>,
}

impl InvalidTimes {
    /// Counts a row that gets the time of its record instead of its own.
    pub fn note(&mut self, telemetry: &Telemetry, one: &Pending<'_>) {
        let Some(problem) = &one.event.time_problem else { return };
        telemetry.metrics().event_time_invalid(&one.source.name, problem.reason());
        let untold = self.0.entry(one.source.name.clone()).or_default();
        if untold.rows == 0 {
            untold.example = format!("{}, at {}", problem.message(one.source), one.record.coordinates());
        }
        untold.rows = untold.rows.saturating_add(1);
    }

    /// Tells of the sources whose turn it is.
    pub fn report(&mut self, now: Instant) {
        for (source, untold) in &mut self.0 {
            if untold.rows == 0 || untold.told.is_some_and(|told| now.duration_since(told) < INTERVAL) {
                continue;
            }
            warn!(
                source,
                rows = untold.rows,
                code = %code::EVENT_TIME_INVALID,
                "rows have no readable time of their own and get the time of their record: {}",
                untold.example
            );
            *untold = Untold { told: Some(now), ..Untold::default() };
        }
    }
}
