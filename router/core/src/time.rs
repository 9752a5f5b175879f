//! A point in time as the envelope carries it: milliseconds since 1970-01-01T00:00:00Z.
//!
//! The core has no clock of its own; whoever calls a decision hands it the time.

use std::fmt;
use std::time::Duration;

/// Milliseconds since the Unix epoch, UTC. Negative before 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    pub const fn from_millis(ms: i64) -> Self {
        Self(ms)
    }

    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Adds a duration, stopping at the end of the range instead of wrapping.
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// The time that passed since `earlier`; zero if `earlier` lies ahead (a clock that was set back).
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Reads RFC 3339 ("2026-03-01T08:00:00.267459Z") or a civil date ("2026-03-01", taken as midnight UTC); microseconds
    /// are cut. `None` when the text is neither.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(instant) = text.parse::<jiff::Timestamp>() {
            return Some(Self(instant.as_millisecond()));
        }
        if let Ok(civil) = text.parse::<jiff::civil::DateTime>() {
            return civil.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|zoned| Self(zoned.timestamp().as_millisecond()));
        }
        None
    }
}

/// RFC 3339 with milliseconds, UTC: `2026-03-01T08:00:00.267Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(instant) => write!(f, "{instant:.3}"),
            Err(_) => write!(f, "{} ms", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_goes_there_and_back() {
        let at = Timestamp::parse("2026-03-01T08:00:00.267459Z").unwrap();
        assert_eq!(at.to_string(), "2026-03-01T08:00:00.267Z");
        assert_eq!(Timestamp::parse("2026-03-01").unwrap().to_string(), "2026-03-01T00:00:00.000Z");
        assert_eq!(Timestamp::parse("yesterday"), None);
    }

    #[test]
    fn a_clock_that_was_set_back_gives_no_negative_duration() {
        assert_eq!(Timestamp::from_millis(5).since(Timestamp::from_millis(9)), Duration::ZERO);
    }
}
