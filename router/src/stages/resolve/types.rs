//! Checks the values of a row against the types that the configuration declares for its columns. Pure.
//!
//! A value of another type is found here, before a transform sees it: a base64 text in a decimal column (Kafka Connect's form of it) would
//! reach the vendor as text. Null is a value of every type, and an absent column is null.
//!
//! Text columns take numbers and booleans too, as Spark reads them: an id that one producer writes as a number is no mistake. Doubles take
//! `"NaN"`, `"Infinity"` and `"-Infinity"`, which is how Spark writes them, because JSON has no such numbers.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

use serde::de::{DeserializeSeed, Deserializer as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use tailwater_core::Timestamp;
use tailwater_core::schema::Schema;

/// Invalid values that are kept of one row. A row with more of them is a dead letter, whatever the source says about single ones.
pub const INVALID_MAX: usize = 10_000;

/// The declared columns of a source.
#[derive(Debug, Clone)]
pub struct Types {
    columns: HashMap<String, (Type, String)>,
}

/// A value that is none of its column's type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// The column, and the way inside of it: `lines[].price`.
    pub path: String,
    /// The column's type as it is declared.
    pub declared: String,
    /// What the value is instead; it does not quote it.
    pub found: &'static str,
    /// Where it stands in the row's bytes.
    pub place: Range<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Type {
    /// Not checked: a type of a later version.
    Any,
    Text,
    Binary,
    Boolean,
    /// Of so many bits.
    Integer {
        bits: u8,
        /// The column becomes a text, so it may be one already: a producer in JavaScript has no other way for a large one.
        or_text: bool,
    },
    Float,
    Double,
    Decimal {
        precision: usize,
        scale: usize,
    },
    Date,
    Timestamp,
    Array(Box<Type>),
    Map(Box<Type>),
    Struct(Vec<(String, Type)>),
}

// === impl Types ===

impl Types {
    pub fn new(schema: &Schema) -> Self {
        let columns = schema.columns.iter().map(|column| {
            let checked = Type::parse(&column.data_type, column.longs_as_strings);
            (column.name.clone(), (checked, column.data_type.clone()))
        });
        Self { columns: columns.collect() }
    }

    /// The values of a row that are none of their column's type.
    ///
    /// # Errors
    /// The row is no JSON object.
    pub fn check(&self, row: &[u8]) -> Result<Vec<Invalid>, serde_json::Error> {
        let mut invalid = Vec::new();
        members(row, &mut |name, value| {
            let Some((checked, declared)) = self.columns.get(name) else { return };
            let mut path = name.to_owned();
            checked.check(value, &mut path, &mut |path, value, found| {
                if invalid.len() < INVALID_MAX {
                    let start = (value.as_ptr() as usize).saturating_sub(row.as_ptr() as usize);
                    let place = start..start + value.len();
                    invalid.push(Invalid { path: path.to_owned(), declared: declared.clone(), found, place });
                }
            });
        })?;
        Ok(invalid)
    }
}

/// The row with null in these places.
pub fn without(row: &[u8], invalid: &[Invalid]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(row.len());
    let mut copied = 0;
    for one in invalid {
        bytes.extend_from_slice(row.get(copied..one.place.start).unwrap_or_default());
        bytes.extend_from_slice(b"null");
        copied = one.place.end;
    }
    bytes.extend_from_slice(row.get(copied..).unwrap_or_default());
    bytes
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "column `{}` is declared as {} and holds {}", self.path, self.declared, self.found)
    }
}

// === impl Type ===

impl Type {
    /// Reads a canonical type, as the configuration has checked it.
    fn parse(text: &str, longs_as_strings: bool) -> Self {
        read(text, longs_as_strings).map_or(Self::Any, |(read, rest)| if rest.is_empty() { read } else { Self::Any })
    }

    fn check<'v>(&self, value: &'v str, path: &mut String, tell: &mut dyn FnMut(&str, &'v str, &'static str)) {
        if value == "null" {
            return;
        }
        let wrong = match self {
            Self::Any => None,
            Self::Text => structured(value),
            Self::Binary => (!is_text(value)).then(|| kind(value)),
            Self::Boolean => (!matches!(value, "true" | "false")).then(|| kind(value)),
            Self::Integer { bits, or_text } => integer(value, *bits, *or_text),
            Self::Float => float(value, |text| text.parse().is_ok_and(f32::is_finite)),
            Self::Double => float(value, |text| text.parse().is_ok_and(f64::is_finite)),
            Self::Decimal { precision, scale } => decimal(value, *precision, *scale),
            Self::Date => time(
                value,
                |text| text.len() == 10 && Timestamp::parse(text).is_some(),
                "a text that is no date (YYYY-MM-DD)",
            ),
            Self::Timestamp => time(
                value,
                |text| Timestamp::parse(text).is_some(),
                "a text that is no time (such as 2026-03-01T08:00:00Z)",
            ),
            Self::Array(item) => {
                if value.starts_with('[') {
                    inside(path, "[]", |path| items(value, &mut |value| item.check(value, path, tell)));
                    None
                } else {
                    Some(kind(value))
                }
            }
            Self::Map(item) => {
                if value.starts_with('{') {
                    inside(path, "{}", |path| fields_of(value, &mut |_, value| item.check(value, path, tell)));
                    None
                } else {
                    Some(kind(value))
                }
            }
            Self::Struct(fields) => {
                if value.starts_with('{') {
                    let mut each = |name: &str, value: &'v str| {
                        if let Some((_, field)) = fields.iter().find(|(known, _)| known == name) {
                            inside(path, &format!(".{name}"), |path| field.check(value, path, tell));
                        }
                    };
                    fields_of(value, &mut each);
                    None
                } else {
                    Some(kind(value))
                }
            }
        };
        if let Some(found) = wrong {
            tell(path, value, found);
        }
    }
}

/// Does something with a longer path.
fn inside(path: &mut String, step: &str, each: impl FnOnce(&mut String)) {
    let length = path.len();
    path.push_str(step);
    each(path);
    path.truncate(length);
}

fn read(text: &str, longs_as_strings: bool) -> Option<(Type, &str)> {
    let end = text.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    let integer = |bits| Type::Integer { bits, or_text: bits == 64 && longs_as_strings };
    let simple = match word {
        "string" => Type::Text,
        "binary" => Type::Binary,
        "boolean" => Type::Boolean,
        "long" => integer(64),
        "integer" => integer(32),
        "short" => integer(16),
        "byte" => integer(8),
        "float" => Type::Float,
        "double" => Type::Double,
        "date" => Type::Date,
        "timestamp" | "timestamp_ntz" => Type::Timestamp,
        "decimal" => {
            let (numbers, rest) = rest.strip_prefix('(')?.split_once(')')?;
            let (precision, scale) = numbers.split_once(',')?;
            return Some((Type::Decimal { precision: precision.parse().ok()?, scale: scale.parse().ok()? }, rest));
        }
        "array" => {
            let (item, rest) = read(rest.strip_prefix('<')?, longs_as_strings)?;
            return Some((Type::Array(Box::new(item)), rest.strip_prefix('>')?));
        }
        "map" => {
            // Keys of a JSON object are texts, whatever the map's are.
            let (_, rest) = read(rest.strip_prefix('<')?, false)?;
            let (value, rest) = read(rest.strip_prefix(',')?, longs_as_strings)?;
            return Some((Type::Map(Box::new(value)), rest.strip_prefix('>')?));
        }
        "struct" => {
            let mut fields = Vec::new();
            let mut rest = rest.strip_prefix('<')?;
            loop {
                let (name, after) = rest.split_once(':')?;
                let (field, after) = read(after, longs_as_strings)?;
                fields.push((name.to_owned(), field));
                match after.strip_prefix(',') {
                    Some(next) => rest = next,
                    None => return Some((Type::Struct(fields), after.strip_prefix('>')?)),
                }
            }
        }
        _ => return None,
    };
    Some((simple, rest))
}

// === values ===

fn is_text(value: &str) -> bool {
    value.starts_with('"')
}

fn is_number(value: &str) -> bool {
    value.starts_with(|first: char| first == '-' || first.is_ascii_digit())
}

fn kind(value: &str) -> &'static str {
    match value.as_bytes().first() {
        Some(b'"') => "a text",
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b't' | b'f') => "a boolean",
        Some(_) | None => "a number",
    }
}

fn structured(value: &str) -> Option<&'static str> {
    value.starts_with(['{', '[']).then(|| kind(value))
}

fn integer(value: &str, bits: u8, or_text: bool) -> Option<&'static str> {
    let digits = match value.strip_prefix('"') {
        Some(text) if or_text => text.strip_suffix('"').unwrap_or(text),
        Some(_) => return Some("a text"),
        None if is_number(value) => value,
        None => return Some(kind(value)),
    };
    // A producer whose numbers are all doubles writes 12.0.
    let whole = digits
        .split_once('.')
        .map_or(digits, |(whole, rest)| if rest.bytes().all(|zero| zero == b'0') { whole } else { "" });
    match whole.parse::<i64>() {
        Ok(number) if bits >= 64 || (-(1_i64 << (bits - 1))..1_i64 << (bits - 1)).contains(&number) => None,
        Ok(_) => Some("a number beyond its range"),
        Err(_) if is_text(value) => Some("a text that is no whole number"),
        Err(error)
            if matches!(error.kind(), std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow) =>
        {
            Some("a number beyond its range")
        }
        Err(_) => Some("a number that is not whole"),
    }
}

fn float(value: &str, fits: impl Fn(&str) -> bool) -> Option<&'static str> {
    if is_text(value) {
        return (!matches!(value, "\"NaN\"" | "\"Infinity\"" | "\"-Infinity\"")).then_some("a text");
    }
    if !is_number(value) {
        return Some(kind(value));
    }
    (!fits(value)).then_some("a number beyond its range")
}

/// A decimal holds the value as it is written, so one that would have to be rounded is none of its type.
fn decimal(value: &str, precision: usize, scale: usize) -> Option<&'static str> {
    if !is_number(value) {
        return Some(kind(value));
    }
    let unsigned = value.trim_start_matches('-');
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_start_matches('0').trim_end_matches('0').len();
    if significant == 0 {
        return None;
    }
    let Ok(exponent) = exponent.trim_start_matches('+').parse::<i64>() else {
        return Some("a number beyond its range");
    };
    let length = |text: &str| i64::try_from(text.len()).unwrap_or(i64::MAX);
    // Digits before the point, and behind it, without the zeros that say nothing.
    let (leading, trailing) = (digits.trim_start_matches('0'), digits.trim_end_matches('0'));
    let before = exponent.saturating_add(length(whole) - (length(&digits) - length(leading)));
    let behind = (length(fraction) - (length(&digits) - length(trailing))).saturating_sub(exponent);
    let most = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    if before > most(precision - scale.min(precision)) {
        Some("a number beyond its range")
    } else if behind > most(scale) {
        Some("a number with more decimal places")
    } else {
        None
    }
}

fn time(value: &str, reads: impl Fn(&str) -> bool, otherwise: &'static str) -> Option<&'static str> {
    if !is_text(value) {
        return Some(kind(value));
    }
    let text = value.trim_matches('"').trim();
    (!reads(text)).then_some(otherwise)
}

// === reading ===

/// Calls `each` with the members of an object.
fn members<'j>(json: &'j [u8], each: &mut dyn FnMut(&str, &'j str)) -> Result<(), serde_json::Error> {
    serde_json::Deserializer::from_slice(json).deserialize_map(Members(each))
}

/// Calls `each` with the fields of an object within a row. The row was read before, so what is in it cannot be broken.
fn fields_of<'j>(json: &'j str, each: &mut dyn FnMut(&str, &'j str)) {
    members(json.as_bytes(), each).ok();
}

/// Calls `each` with the items of an array within a row.
fn items<'j>(json: &'j str, each: &mut dyn FnMut(&'j str)) {
    serde_json::Deserializer::from_str(json).deserialize_seq(Items(each)).ok();
}

struct Members<'f, 'j>(&'f mut dyn FnMut(&str, &'j str));

impl<'j> Visitor<'j> for Members<'_, 'j> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'j>>(self, mut map: A) -> Result<(), A::Error> {
        // The name is handed to the closure before its value is read, so it is kept in between; most names are short.
        let mut name = String::new();
        while map.next_key_seed(Name(&mut name))?.is_some() {
            let value: &'j RawValue = map.next_value()?;
            (self.0)(&name, value.get());
        }
        Ok(())
    }
}

struct Items<'f, 'j>(&'f mut dyn FnMut(&'j str));

impl<'j> Visitor<'j> for Items<'_, 'j> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON array")
    }

    fn visit_seq<A: SeqAccess<'j>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(value) = seq.next_element::<&'j RawValue>()? {
            (self.0)(value.get());
        }
        Ok(())
    }
}

/// Reads a key into a text that is used again.
struct Name<'n>(&'n mut String);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<(), E> {
        self.0.clear();
        self.0.push_str(key);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tailwater_core::schema::Column;

    use super::*;

    fn types(columns: &[(&str, &str)]) -> Types {
        let column = |(name, data_type): &(&str, &str)| Column {
            longs_as_strings: *name == "text_long",
            ..Column::new(*name, *data_type)
        };
        Types::new(&Schema { columns: columns.iter().map(column).collect() })
    }

    fn is_valid(data_type: &str, value: &str) -> bool {
        let row = format!("{{\"other\":\"x\",\"c\": {value} }}");
        types(&[("c", data_type)]).check(row.as_bytes()).unwrap().is_empty()
    }

    /// Issue 10: a declared decimal or double took any text.
    #[test]
    fn values_of_another_type_are_found() {
        let cases: &[(&str, &[&str], &[&str])] = &[
            (
                "decimal(12,2)",
                &["12.50", "-0.5", "12", "1e3", "1.50000", "0", "0.000", "9999999999.99", "12e-2"],
                &[
                    "\"AcnDgA==\"",
                    "\"12,50\"",
                    "\"12.50\"",
                    "{\"scale\":2,\"value\":\"AJw=\"}",
                    "12345678901",
                    "0.125",
                    "1e11",
                    "true",
                    "[1]",
                    "1e-3",
                    "1e99999999999999999999",
                ],
            ),
            (
                "double",
                &["1", "-1.5e300", "0.1", "\"NaN\"", "\"Infinity\"", "\"-Infinity\""],
                &["\"AJw=\"", "\"1.5\"", "1e400", "true", "{}", "\"nan\"", "\"\""],
            ),
            ("float", &["1.5"], &["1e39", "\"1.5\""]),
            ("long", &["9223372036854775807", "-5", "12.0"], &["9223372036854775808", "12.5", "\"12\"", "1e3", "true"]),
            ("integer", &["2147483647", "-2147483648"], &["2147483648", "-2147483649"]),
            ("short", &["-32768"], &["32768"]),
            ("byte", &["127"], &["128"]),
            ("boolean", &["true", "false"], &["\"true\"", "1", "0"]),
            (
                "date",
                &["\"2026-03-01\""],
                &["\"2026-02-30\"", "\"01.03.2026\"", "20513", "\"2026-03-01T08:00:00Z\"", "\"\""],
            ),
            (
                "timestamp",
                &[
                    "\"2026-03-01T08:00:00Z\"",
                    "\"2026-03-01T08:00:00.123456+01:00\"",
                    "\"2026-03-01 08:00:00\"",
                    "\"2026-03-01\"",
                ],
                &["1772352000", "\"yesterday\"", "\"\"", "true"],
            ),
            ("timestamp_ntz", &["\"2026-03-01T08:00:00\""], &["5"]),
            ("string", &["\"x\"", "5", "true"], &["{\"a\":1}", "[1]"]),
            ("binary", &["\"AJw=\""], &["5", "{}"]),
            ("array<double>", &["[]", "[1,null,2.5]"], &["[1,\"x\"]", "\"x\"", "{}"]),
            ("map<string,long>", &["{}", "{\"a\":1,\"b\":null}"], &["{\"a\":1.5}", "[1]"]),
            (
                "struct<low:double,tags:array<string>>",
                &["{}", "{\"low\":1,\"more\":[]}", "{\"tags\":[\"a\"]}"],
                &["{\"low\":\"1\"}", "{\"tags\":[[]]}", "5"],
            ),
        ];
        for (data_type, valid, invalid) in cases {
            assert!(is_valid(data_type, "null"), "{data_type}");
            for value in *valid {
                assert!(is_valid(data_type, value), "{value} is a {data_type}");
            }
            for value in *invalid {
                assert!(!is_valid(data_type, value), "{value} is no {data_type}");
            }
        }
    }

    #[test]
    fn a_column_that_becomes_a_text_may_be_one_already() {
        let types = types(&[("text_long", "long"), ("long", "long")]);
        assert!(types.check(br#"{"text_long":"9007199254740993"}"#).unwrap().is_empty());
        assert_eq!(types.check(br#"{"text_long":"12x","long":"1"}"#).unwrap().len(), 2);
    }

    #[test]
    fn an_invalid_value_is_named_with_its_place_and_never_quoted() {
        let types = types(&[("spend", "decimal(12,2)"), ("lines", "array<struct<price:double>>")]);
        let row = br#"{"spend": "AcnDgA==", "lines": [{"price": 1}, {"price": "2"}], "x": "AcnDgA=="}"#;
        let invalid = types.check(row).unwrap();
        let said: Vec<String> = invalid.iter().map(Invalid::to_string).collect();
        assert_eq!(
            said,
            [
                "column `spend` is declared as decimal(12,2) and holds a text",
                "column `lines[].price` is declared as array<struct<price:double>> and holds a text"
            ]
        );
        let cured = without(row, &invalid);
        let expected = r#"{"spend": null, "lines": [{"price": 1}, {"price": null}], "x": "AcnDgA=="}"#;
        assert_eq!(String::from_utf8(cured).unwrap(), expected);
        assert!(types.check(expected.as_bytes()).unwrap().is_empty());
    }

    proptest::proptest! {
        /// What is taken out leaves an object that is right, whatever the values are.
        #[test]
        fn a_row_without_its_invalid_values_has_none(values in proptest::collection::vec(
            "-?[0-9]{1,20}(\\.[0-9]{1,4})?(e-?[0-9]{1,3})?|\"[a-zA-Z0-9=]{0,5}\"|true|null|\\[1,\"x\"\\]|\\{\"a\":\"b\"\\}", 1..6
        )) {
            let names = ["decimal(5,2)", "double", "integer", "date", "array<long>", "struct<a:long>"];
            let columns: Vec<(&str, &str)> = names.iter().map(|name| (*name, *name)).collect();
            let types = types(&columns);
            let fields: Vec<String> = names.iter().zip(&values).map(|(name, value)| format!("\"{name}\":{value}")).collect();
            let row = format!("{{{}}}", fields.join(","));
            if let Ok(invalid) = types.check(row.as_bytes()) {
                let cured = without(row.as_bytes(), &invalid);
                proptest::prop_assert!(types.check(&cured).unwrap().is_empty(), "{}", String::from_utf8_lossy(&cured));
            }
        }
    }
}
