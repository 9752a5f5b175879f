//! Values that the configuration writes as text with a meaning: periods of time, sizes, secrets, names.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A period of time: `250ms`, `2s`, `15m`, `12h`, `30d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub Duration);

/// A number of bytes: `64MB`. Units are powers of 1024, as memory is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// A text that is never shown. The schema marks it, so that a literal value is reported.
#[derive(Clone)]
pub struct Secret(SecretString);

/// What Tailwater's own things are called: part of topic names, so letters, digits, `_` and `-` in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Name(pub String);

/// Names have at most 64 characters: a topic's name has 249 and holds a prefix, a stage and one name.
pub const NAME_PATTERN: &str = "^[a-z][a-z0-9_-]{0,63}$";

const PERIOD_UNITS: &[(&str, u64)] = &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const SIZE_UNITS: &[(&str, u64)] = &[("GB", 1 << 30), ("MB", 1 << 20), ("KB", 1 << 10), ("B", 1)];

impl Period {
    /// The longest period. Ten years are longer than any retention, and sums of such periods stay far from overflowing.
    pub const MAX: Self = Self::days(3_653);

    pub const fn millis(count: u64) -> Self {
        Self(Duration::from_millis(count))
    }

    pub const fn seconds(count: u64) -> Self {
        Self(Duration::from_secs(count))
    }

    pub const fn days(count: u64) -> Self {
        Self(Duration::from_secs(count * 86_400))
    }

    pub fn parse(text: &str) -> Option<Self> {
        let period = Self(Duration::from_millis(parse(text, PERIOD_UNITS)?));
        (period <= Self::MAX).then_some(period)
    }
}

impl Size {
    pub const fn megabytes(count: u64) -> Self {
        Self(count << 20)
    }

    pub fn parse(text: &str) -> Option<Self> {
        parse(text, SIZE_UNITS).map(Self)
    }
}

impl Secret {
    /// The text itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    pub fn inner(&self) -> &SecretString {
        &self.0
    }

    pub fn into_inner(self) -> SecretString {
        self.0
    }

    pub fn is_empty(&self) -> bool {
        self.expose().is_empty()
    }
}

/// A whole number and its unit, nothing between them.
fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// The largest unit that states the number exactly.
fn print(number: u64, units: &[(&str, u64)], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let exact = units.iter().find(|(_, factor)| number > 0 && number.is_multiple_of(*factor));
    match exact.or_else(|| units.last()) {
        Some((unit, factor)) => write!(f, "{}{unit}", number / factor),
        None => write!(f, "{number}"),
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX), PERIOD_UNITS, f)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(self.0, SIZE_UNITS, f)
    }
}

macro_rules! written_as_text {
    ($type:ident, $name:literal, $pattern:literal, $expected:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<str>::deserialize(deserializer)?;
                Self::parse(&text).ok_or_else(|| serde::de::Error::custom(concat!("expected ", $expected)))
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern, "x-expected": $expected })
            }
        }
    };
}

written_as_text!(
    Period,
    "Period",
    "^[0-9]+(ms|s|m|h|d)$",
    "a period of at most ten years, such as 250ms, 2s, 15m, 12h or 30d"
);
written_as_text!(Size, "Size", "^[0-9]+(B|KB|MB|GB)$", "a size such as 64MB, 512KB or 1GB");

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(text.into()))
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

/// Whether a reload changed it. Both values are the operator's own, so a comparison in constant time protects nothing.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "x-secret": true })
    }
}

impl JsonSchema for Name {
    fn schema_name() -> Cow<'static, str> {
        "Name".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": NAME_PATTERN,
            "x-expected": "a name of lower-case letters, digits, `_` and `-` that begins with a letter (at most 64 characters)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_and_sizes_are_read_and_written() {
        for (text, ms) in
            [("250ms", 250), ("2s", 2_000), ("15m", 900_000), ("12h", 43_200_000), ("30d", 2_592_000_000), ("0s", 0)]
        {
            assert_eq!(Period::parse(text).unwrap().0, Duration::from_millis(ms), "{text}");
        }
        for text in ["", "5", "s", "1.5s", "5 s", "-1s", "1w", "9999999999999d", "4000d", "1S"] {
            assert_eq!(Period::parse(text), None, "{text}");
        }
        assert_eq!(Size::parse("128MB"), Some(Size(128 << 20)));
        assert_eq!(Size::parse("128MiB"), None);
        assert_eq!(Size::parse("99999999999999999999GB"), None);
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_reads_back(ms in 0u64..300_000_000_000) {
            let period = Period::millis(ms);
            proptest::prop_assert_eq!(Period::parse(&period.to_string()), Some(period));
            let size = Size(ms);
            proptest::prop_assert_eq!(Size::parse(&size.to_string()), Some(size));
        }
    }
}
