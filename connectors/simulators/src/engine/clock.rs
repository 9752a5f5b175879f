//! One clock for windows, jobs and stamps, so that a test with paused time moves all of them together.

use std::time::{SystemTime, UNIX_EPOCH};

/// Microseconds since 1970, never going back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    started_us: i64,
    start: tokio::time::Instant,
}

pub(crate) const SECOND_US: i64 = 1_000_000;

impl Clock {
    pub fn new() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started_us: i64::try_from(since_epoch.as_micros()).unwrap_or(0), start: tokio::time::Instant::now() }
    }

    pub fn now_us(&self) -> i64 {
        self.started_us + i64::try_from(self.start.elapsed().as_micros()).unwrap_or(i64::MAX / 2)
    }
}

/// With microseconds: `2026-09-04T13:39:37.131026+00:00`.
pub(crate) fn stamp(us: i64) -> String {
    format(us, "%Y-%m-%dT%H:%M:%S%.6f+00:00")
}

/// To the second.
pub(crate) fn stamp_seconds(us: i64) -> String {
    format(us, "%Y-%m-%dT%H:%M:%S+00:00")
}

pub(crate) fn format(us: i64, pattern: &str) -> String {
    jiff::Timestamp::from_microsecond(us).unwrap_or_default().strftime(pattern).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_iso_8601() {
        assert_eq!(stamp(1_788_529_177_131_026), "2026-09-04T13:39:37.131026+00:00");
        assert_eq!(stamp_seconds(1_788_529_177_131_026), "2026-09-04T13:39:37+00:00");
    }
}
