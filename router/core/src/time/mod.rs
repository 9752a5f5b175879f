//! A point in time as the envelope carries it: milliseconds since 1970-01-01T00:00:00Z.
//!
//! The core has no clock of its own; whoever calls a decision hands it the time.
//!
//! A millisecond is precise enough: the order of a person's events is the order of the log, never that of their times, and no
//! vendor keeps more.

use std::fmt;
use std::time::Duration;

use jiff::fmt::rfc2822;

/// Numbers without a unit are read by their magnitude, where only one unit gives a plausible year. These are the bounds in seconds:
/// 1973-03-03 and the year 2477. Between the bands of two units a number is read by neither.
const PLAUSIBLE_SECONDS: std::ops::Range<i128> = 100_000_000..16_000_000_000;

/// The longest text that is read as a time. The longest known form, an RFC 9557 timestamp with a zone, has about 70 characters.
const TEXT_BYTES_MAX: usize = 128;

/// Decimal places by which a number may be shifted. An `i128` has 39 digits, so more would always overflow or leave nothing.
const SHIFT_MAX: i64 = 40;

/// Milliseconds since the Unix epoch, UTC. Negative before 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

/// What a number counts since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeUnit {
    Seconds,
    Milliseconds,
    Microseconds,
    Nanoseconds,
}

/// Why a value is no time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum TimeProblem {
    #[error("it has none of the accepted formats, such as `2026-03-01T08:00:00.267Z`")]
    Unreadable,
    #[error(
        "the number is no plausible time in seconds, milliseconds, microseconds or nanoseconds; configure the unit (`event_time: {{ path, unit }}`)"
    )]
    UnitUnclear,
    #[error("the number is outside of the years -9999 to 9999 in the configured unit; check the unit")]
    OutOfRange,
}

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

    /// Reads a text. Accepted are:
    /// - RFC 3339 and ISO 8601 with an offset: `2026-03-01T08:00:00.267459Z`, `2026-03-01 09:00:00+01:00`
    /// - the same without an offset, or followed by ` UTC` or ` GMT`: UTC
    /// - a date: midnight UTC
    /// - RFC 2822 and HTTP dates: `Sun, 01 Mar 2026 08:00:00 GMT`
    ///
    /// What is finer than a millisecond is cut off. `None` when the text is none of these: a format whose fields could be read in two
    /// orders (`03/02/2026`) or a zone that has to be looked up is not accepted.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        iso(text).or_else(|| http(text)).map(Self::from_jiff)
    }

    /// Reads a text as [`Self::parse`] does, or a number that counts since 1970-01-01T00:00:00Z: in `unit`, or without one in the unit
    /// that its magnitude shows.
    ///
    /// # Errors
    /// The value is no time, or a number whose unit is not clear.
    pub fn read(text: &str, unit: Option<TimeUnit>) -> Result<Self, TimeProblem> {
        let text = text.trim();
        let Some(number) = Decimal::parse(text) else {
            return Self::parse(text).ok_or(TimeProblem::Unreadable);
        };
        match unit.or_else(|| number.unit()) {
            Some(unit) => number.to_time(unit).ok_or(TimeProblem::OutOfRange),
            // A date without separators (`20260301`) is far below any plausible number of seconds.
            None => Self::parse(text).ok_or(TimeProblem::UnitUnclear),
        }
    }

    /// Rounds toward the past on both sides of 1970, so that the order of two times is kept.
    fn from_jiff(instant: jiff::Timestamp) -> Self {
        Self(i64::try_from(instant.as_nanosecond().div_euclid(1_000_000)).unwrap_or_default())
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

// === impl TimeUnit ===

impl TimeUnit {
    pub const ALL: [Self; 4] = [Self::Seconds, Self::Milliseconds, Self::Microseconds, Self::Nanoseconds];

    /// Decimal places from one unit to one second.
    const fn places(self) -> i64 {
        match self {
            Self::Seconds => 0,
            Self::Milliseconds => 3,
            Self::Microseconds => 6,
            Self::Nanoseconds => 9,
        }
    }
}

// === impl TimeProblem ===

impl TimeProblem {
    /// One word for a metric.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::UnitUnclear => "unit_unclear",
            Self::OutOfRange => "out_of_range",
        }
    }
}

/// ISO 8601 in its several spellings.
fn iso(text: &str) -> Option<jiff::Timestamp> {
    if let Ok(instant) = text.parse() {
        return Some(instant);
    }
    let (text, utc) = match text.strip_suffix(" UTC").or_else(|| text.strip_suffix(" GMT")) {
        Some(rest) => (rest.trim_end(), true),
        None => (text, false),
    };
    // `2026-03-01 08:00:00 +0000`, as Ruby and Go write it, is right ISO 8601 but for the second space.
    if let Some((rest, offset)) = text.rsplit_once(' ')
        && offset.starts_with(['+', '-'])
        && rest.contains(':')
    {
        let instant: jiff::Timestamp = format!("{rest}{offset}").parse().ok()?;
        let is_utc = offset.bytes().all(|byte| matches!(byte, b'+' | b'-' | b':' | b'0'));
        return (!utc || is_utc).then_some(instant);
    }
    // The parser of civil times skips offsets and zones, which would put the time into the wrong hour.
    if text.bytes().any(|byte| !matches!(byte, b'0'..=b'9' | b'-' | b':' | b'.' | b',' | b' ' | b'T' | b't')) {
        return None;
    }
    let time = text.find([' ', 'T', 't']).and_then(|at| text.get(at..)).unwrap_or_default();
    if time.contains('-') {
        return None;
    }
    let civil: jiff::civil::DateTime = text.parse().ok()?;
    Some(civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
}

/// RFC 2822 with a zone that is certain: the RFC reads names that it does not know as UTC.
fn http(text: &str) -> Option<jiff::Timestamp> {
    let zone = text.rsplit(' ').next()?;
    let certain = matches!(zone, "GMT" | "UTC" | "UT" | "Z") || zone.starts_with(['+', '-']);
    if !certain || !text.contains(':') {
        return None;
    }
    rfc2822::DateTimeParser::new().parse_timestamp(text.replace(" UTC", " GMT")).ok()
}

/// A decimal number, exactly: `mantissa × 10^exponent`. A double would lose the milliseconds of a nanosecond count.
#[derive(Clone, Copy)]
struct Decimal {
    mantissa: i128,
    exponent: i64,
}

// === impl Decimal ===

impl Decimal {
    /// `None` when the text is no number, or one with more digits than a time can have.
    fn parse(text: &str) -> Option<Self> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (digits, exponent) = match digits.split_once(['e', 'E']) {
            Some((digits, exponent)) => (digits, exponent.parse::<i32>().ok()?),
            None => (digits, 0),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let mut mantissa: i128 = 0;
        for digit in whole.bytes().chain(fraction.bytes()) {
            mantissa = mantissa.checked_mul(10)?.checked_add(i128::from(digit - b'0'))?;
        }
        let exponent = i64::from(exponent) - i64::try_from(fraction.len()).ok()?;
        Some(Self { mantissa: if negative { -mantissa } else { mantissa }, exponent })
    }

    /// The number times `10^places`, rounded down. `None` when it overflows.
    fn shifted(self, places: i64) -> Option<i128> {
        let shift = self.exponent.checked_add(places)?;
        if self.mantissa == 0 {
            return Some(0);
        }
        let power = |shift: i64| 10_i128.checked_pow(u32::try_from(shift).ok()?);
        if shift >= 0 {
            return self.mantissa.checked_mul(power(shift)?);
        }
        // Less than any digit that is left.
        if shift < -SHIFT_MAX {
            return Some(if self.mantissa < 0 { -1 } else { 0 });
        }
        Some(match power(-shift) {
            Some(power) => self.mantissa.div_euclid(power),
            None if self.mantissa < 0 => -1,
            None => 0,
        })
    }

    /// The unit in which the number is a plausible time.
    fn unit(self) -> Option<TimeUnit> {
        TimeUnit::ALL.into_iter().find(|unit| {
            self.shifted(-unit.places())
                .and_then(i128::checked_abs)
                .is_some_and(|seconds| PLAUSIBLE_SECONDS.contains(&seconds))
        })
    }

    fn to_time(self, unit: TimeUnit) -> Option<Timestamp> {
        let nanoseconds = self.shifted(TimeUnit::Nanoseconds.places() - unit.places())?;
        jiff::Timestamp::from_nanosecond(nanoseconds).ok().map(Timestamp::from_jiff)
    }
}

#[cfg(test)]
mod tests;
