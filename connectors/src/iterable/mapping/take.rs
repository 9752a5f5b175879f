//! Taking a value out of an output: as the vendor takes it, or with an error that says where it is, what it is and what was
//! expected.

use serde_json::{Map, Number, Value};
use tailwater_core::{Timestamp, code};

use crate::destination::ClassifyError;
use crate::iterable::schema::Shape;
use crate::output::nearest;

/// Takes a value as the vendor takes it, where nothing is lost by the conversion.
pub(super) fn coerce(value: Value, shape: Shape, at: &str) -> Result<Value, ClassifyError> {
    match (shape, value) {
        (Shape::Text, Value::String(text)) => Ok(Value::from(text.trim())),
        (Shape::Text, Value::Number(number)) => Ok(Value::String(number.to_string())),
        (Shape::Text, other) => Err(wrong_type(at, "a text", &other)),
        (Shape::Number, Value::Number(number)) => Ok(Value::Number(number)),
        (Shape::Number, Value::String(text)) => match plain_number(&text) {
            Some(number) => Ok(Value::Number(number)),
            None => Err(invalid(at, "is no number; expected something like `19.9`")),
        },
        (Shape::Number, other) => Err(wrong_type(at, "a number", &other)),
        (Shape::Integer, value @ (Value::Number(_) | Value::String(_))) => match integer(&value) {
            Some(number) => Ok(Value::from(number)),
            None => Err(invalid(at, "is no whole number")),
        },
        (Shape::Integer, other) => Err(wrong_type(at, "a whole number", &other)),
        (Shape::Boolean, Value::Bool(flag)) => Ok(Value::Bool(flag)),
        (Shape::Boolean, other) => Err(wrong_type(at, "true or false", &other)),
        (Shape::Time, value) => seconds(&value, at).map(Value::from),
        (Shape::Texts, value) => each(value, Shape::Text, at),
        (Shape::Integers, value) => each(value, Shape::Integer, at),
    }
}

fn each(value: Value, shape: Shape, at: &str) -> Result<Value, ClassifyError> {
    let Value::Array(items) = value else { return Err(wrong_type(at, "an array", &value)) };
    let items = items.into_iter().enumerate();
    items
        .map(|(index, item)| coerce(item, shape, &format!("{at}[{index}]")))
        .collect::<Result<Vec<_>, _>>()
        .map(Value::Array)
}

/// A number in JSON's own notation. A price such as `19,90` or `€ 5` is not read as one.
fn plain_number(text: &str) -> Option<Number> {
    serde_json::from_str(text.trim()).ok()
}

/// A whole number, also as a text or as a number with only zeros after its point.
pub(super) fn integer(value: &Value) -> Option<i64> {
    let number = match value {
        Value::Number(number) => number.clone(),
        Value::String(text) => plain_number(text)?,
        _ => return None,
    };
    /// Above this, not every whole number has a double of its own.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    number.as_i64().or_else(|| {
        let float = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() <= EXACT_MAX)?;
        format!("{float:.0}").parse().ok()
    })
}

/// Seconds since 1970, which is what the vendor takes. The unit of a number is told by its size: milliseconds, as JavaScript counts, have
/// three digits more.
fn seconds(value: &Value, at: &str) -> Result<i64, ClassifyError> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        other => return Err(wrong_type(at, "a time", other)),
    };
    match Timestamp::read(&text, None) {
        Ok(time) => Ok(time.as_millis().div_euclid(1_000)),
        Err(problem) => Err(invalid(
            at,
            &format!(
                "is no time ({}); expected seconds since 1970 or something like `2026-03-01T08:00:00Z`",
                problem.as_str()
            ),
        )),
    }
}

/// A date-time with an offset in the vendor's own format (`2026-03-01 08:00:00 +00:00`); `None` for any other text. A text without an
/// offset stays: which moment it means is not known.
pub(super) fn vendor_date(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let is_date_time = (20..=40).contains(&bytes.len()) && bytes.get(10) == Some(&b'T') && bytes.get(13) == Some(&b':');
    let offset =
        text.get(19..).unwrap_or_default().trim_start_matches(|char: char| char == '.' || char.is_ascii_digit());
    let has_offset = offset == "Z" || (offset.len() == 6 && offset.starts_with(['+', '-']));
    if !is_date_time || !has_offset {
        return None;
    }
    // RFC 3339 in UTC with four digits of a year: `2026-03-01T08:00:00.267Z`.
    let utc = Timestamp::parse(text)?.to_string();
    let (day, time) = (utc.get(..10)?, utc.get(11..19)?);
    (utc.len() == 24).then(|| format!("{day} {time} +00:00"))
}

/// Converts the dates in a value, at every depth.
pub(super) fn convert_dates(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Some(date) = vendor_date(text) {
                *text = date;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(convert_dates),
        Value::Object(object) => object.values_mut().for_each(convert_dates),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

pub(super) fn object(value: Value, at: &str, expected: &str) -> Result<Map<String, Value>, ClassifyError> {
    match value {
        Value::Object(object) => Ok(object),
        other => Err(wrong_type(at, expected, &other)),
    }
}

/// Nothing may be left over: what is not understood would be lost silently.
pub(super) fn refuse_rest<'a>(
    rest: &Map<String, Value>,
    at: &str,
    known: impl IntoIterator<Item = &'a str>,
    advice: &str,
) -> Result<(), ClassifyError> {
    let Some(name) = rest.keys().next() else { return Ok(()) };
    let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
    let hint = nearest(name, known).map_or(String::new(), |near| format!("; did you mean `{near}`?"));
    Err(invalid(&path, &format!("is not known to the vendor here{hint}{advice}")))
}

pub(super) fn wrong_type(at: &str, expected: &str, got: &Value) -> ClassifyError {
    let got = match got {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    invalid(at, &format!("is {got}; expected {expected}"))
}

pub(super) fn invalid(at: &str, message: &str) -> ClassifyError {
    ClassifyError { code: code::OUTPUT_INVALID, message: format!("{at}: {message}") }
}

/// A path below another one, which is empty for the output itself.
pub(super) fn below(at: &str, name: &str) -> String {
    if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn dates_with_an_offset_get_the_vendors_format_and_others_stay() {
        let cases = [
            ("2026-03-01T08:00:00Z", Some("2026-03-01 08:00:00 +00:00")),
            ("2026-03-01T09:00:00.267+01:00", Some("2026-03-01 08:00:00 +00:00")),
            ("2026-03-01T00:30:00.123456+01:00", Some("2026-02-28 23:30:00 +00:00")),
            ("2026-03-01T08:00:00", None),
            ("2026-03-01", None),
            ("2026-03-01 08:00:00 +00:00", None),
            ("TTTTTTTTTTTTTTTTTTTTTT", None),
            ("2026-13-01T08:00:00Z", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(vendor_date(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn times_are_sent_in_seconds_whatever_their_unit() {
        for value in
            [json!(1_772_352_000), json!(1_772_352_000_999_i64), json!("1772352000"), json!("2026-03-01T08:00:00.5Z")]
        {
            assert_eq!(coerce(value.clone(), Shape::Time, "createdAt").unwrap(), json!(1_772_352_000), "{value}");
        }
        for value in [json!("yesterday"), json!(20_260_301.5), json!({}), json!(true)] {
            assert!(coerce(value.clone(), Shape::Time, "createdAt").is_err(), "{value}");
        }
    }

    #[test]
    fn a_price_is_a_plain_number_or_refused() {
        assert_eq!(coerce(json!("19.9"), Shape::Number, "price").unwrap(), json!(19.9));
        for value in [json!("19,90"), json!("€ 5"), json!(""), json!(null), json!("NaN")] {
            assert!(coerce(value.clone(), Shape::Number, "price").is_err(), "{value}");
        }
        assert_eq!(coerce(json!(2.0), Shape::Integer, "quantity").unwrap(), json!(2));
        assert_eq!(coerce(json!("12"), Shape::Integer, "listId").unwrap(), json!(12));
        assert!(coerce(json!(2.5), Shape::Integer, "quantity").is_err());
    }
}
