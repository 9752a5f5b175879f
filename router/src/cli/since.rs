//! A point in time as a person types it: `90s`, `2h`, `7d` ago, or a date or time.

use std::str::FromStr;
use std::time::Duration;

use tailwater_core::Timestamp;

use crate::config::Period;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    Ago(Duration),
    At(Timestamp),
}

/// Neither a period nor a time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a period such as 90s, 15m, 2h or 7d, or a time such as 2026-03-01 or 2026-03-01T08:00:00Z")]
pub struct NoTime;

impl Since {
    /// The point in time, given the present one.
    pub fn from(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Ago(period) => Timestamp::from_millis(
                now.as_millis().saturating_sub(i64::try_from(period.as_millis()).unwrap_or(i64::MAX)),
            ),
            Self::At(time) => time,
        }
    }
}

impl FromStr for Since {
    type Err = NoTime;

    fn from_str(text: &str) -> Result<Self, NoTime> {
        match Period::parse(text) {
            Some(period) => Ok(Self::Ago(period.0)),
            None => Timestamp::parse(text).map(Self::At).ok_or(NoTime),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_count_back_and_times_stand() {
        let now = Timestamp::parse("2026-03-01T08:00:00Z").unwrap();
        for (text, expected) in [
            ("2h", "2026-03-01T06:00:00.000Z"),
            ("1d", "2026-02-28T08:00:00.000Z"),
            ("2026-02-01", "2026-02-01T00:00:00.000Z"),
        ] {
            assert_eq!(text.parse::<Since>().unwrap().from(now).to_string(), expected, "{text}");
        }
        assert_eq!("yesterday".parse::<Since>(), Err(NoTime));
    }
}
