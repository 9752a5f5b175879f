//! Taking a value out of an output: as the vendor wants it, or with an error that says where it stands, what it is and what was
//! expected.

use serde_json::{Map, Value};
use tailwater_core::code;

use crate::destination::ClassifyError;
use crate::klaviyo::requests::Field;
use crate::klaviyo::schema::{PROFILE, REFUSED, Shape};
use crate::output::nearest;

/// Takes a value as the vendor wants it, where nothing is lost by it.
pub(super) fn coerce(value: Value, shape: Shape, at: &str) -> Result<Value, ClassifyError> {
    match (shape, value) {
        (Shape::Text | Shape::TextOrNumber, Value::String(text)) => Ok(Value::from(text.trim())),
        (Shape::Text, Value::Number(number)) => Ok(Value::String(number.to_string())),
        (Shape::Text, other) => Err(wrong_type(at, "a text", &other)),
        (Shape::TextOrNumber, Value::Number(number)) => Ok(Value::Number(number)),
        (Shape::TextOrNumber, other) => Err(wrong_type(at, "a text or a number", &other)),
        (Shape::Time, Value::String(text)) => match tailwater_core::Timestamp::parse(text.trim()) {
            Some(time) => Ok(Value::String(time.to_string())),
            None => Err(invalid(at, "is no time; expected something like `2026-03-01T08:00:00Z`")),
        },
        (Shape::Time, other) => Err(wrong_type(at, "a time as text", &other)),
        (Shape::Number, Value::Number(number)) => Ok(Value::Number(number)),
        (Shape::Number, Value::String(text)) => match serde_json::from_str::<serde_json::Number>(text.trim()) {
            Ok(number) => Ok(Value::Number(number)),
            Err(_) => Err(invalid(at, "is no number")),
        },
        (Shape::Number, other) => Err(wrong_type(at, "a number", &other)),
        (Shape::Boolean, Value::Bool(flag)) => Ok(Value::Bool(flag)),
        (Shape::Boolean, other) => Err(wrong_type(at, "true or false", &other)),
    }
}

pub(super) fn object(value: Value, at: &str, expected: &str) -> Result<Map<String, Value>, ClassifyError> {
    match value {
        Value::Object(object) => Ok(object),
        other => Err(wrong_type(at, expected, &other)),
    }
}

pub(super) fn expect_type(value: Option<Value>, expected: &str, at: &str) -> Result<(), ClassifyError> {
    match value {
        Some(Value::String(kind)) if kind == expected => Ok(()),
        Some(Value::String(kind)) => {
            Err(invalid(&format!("{at}.type"), &format!("is `{kind}`; expected `{expected}`")))
        }
        Some(other) => Err(wrong_type(&format!("{at}.type"), &format!("`{expected}`"), &other)),
        None => Err(invalid(at, &format!("has no `type`; expected `type: '{expected}'`"))),
    }
}

/// Nothing may be left over: what is not understood would be lost silently.
pub(super) fn refuse_rest(rest: &Map<String, Value>, at: &str, known: &[&'static str]) -> Result<(), ClassifyError> {
    let Some(name) = rest.keys().next() else { return Ok(()) };
    let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
    if REFUSED.iter().any(|(refused, _)| refused == name) {
        return Err(refused(&path, name));
    }
    Err(unknown(&path, name, known.iter().copied(), ""))
}

pub(super) fn unknown_attribute(at: &str, name: &str) -> ClassifyError {
    if REFUSED.iter().any(|(refused, _)| *refused == name) {
        return refused(at, name);
    }
    let known =
        PROFILE.iter().map(|(known, _)| *known).chain(Field::ALL.map(Field::as_str)).chain(["location", "properties"]);
    unknown(at, name, known, "; custom fields go under data.attributes.properties")
}

pub(super) fn unknown<'a>(
    at: &str,
    name: &str,
    known: impl IntoIterator<Item = &'a str>,
    advice: &str,
) -> ClassifyError {
    let hint = nearest(name, known).map_or(String::new(), |near| format!("; did you mean `{near}`?"));
    invalid(at, &format!("is not known to the vendor{hint}{advice}"))
}

pub(super) fn refused(at: &str, name: &str) -> ClassifyError {
    let reason =
        REFUSED.iter().find(|(refused, _)| *refused == name).map_or("it cannot be checked", |(_, reason)| reason);
    invalid(at, &format!("is refused: {reason}"))
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
