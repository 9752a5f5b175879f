//! Taking a value out of an output: as the vendor wants it, or with an error that says where it stands, what it is and what was
//! expected.

use serde_json::{Map, Value};
use tailwater_core::code;

use crate::destination::ClassifyError;
use crate::output::nearest;

pub(in crate::customerio) fn object(
    value: Value,
    at: &str,
    expected: &str,
) -> Result<Map<String, Value>, ClassifyError> {
    match value {
        Value::Object(object) => Ok(object),
        other => Err(wrong_type(at, expected, &other)),
    }
}

/// A member that must be there and hold a text; a number is written as one.
pub(super) fn required_text(
    object: &mut Map<String, Value>,
    name: &str,
    at: &str,
    example: &str,
) -> Result<String, ClassifyError> {
    match optional_text(object, name, at)? {
        Some(text) => Ok(text),
        None => Err(invalid(at, &format!("has no `{name}`; expected `{name}: {example}`"))),
    }
}

/// A member that may be there; null and blank count as absent.
pub(super) fn optional_text(
    object: &mut Map<String, Value>,
    name: &str,
    at: &str,
) -> Result<Option<String>, ClassifyError> {
    let text = match object.remove(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text.trim().to_owned(),
        Some(Value::Number(number)) => number.to_string(),
        Some(other) => return Err(wrong_type(&join(at, name), "a text", &other)),
    };
    Ok(Some(text).filter(|text| !text.is_empty()))
}

/// A member that may be there and hold an object; null counts as absent.
pub(super) fn optional_object(
    object: &mut Map<String, Value>,
    name: &str,
    at: &str,
) -> Result<Option<Map<String, Value>>, ClassifyError> {
    match object.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(members)) => Ok(Some(members)),
        Some(other) => Err(wrong_type(&join(at, name), "an object", &other)),
    }
}

/// Nothing may be left over: what is not understood would be lost silently.
pub(super) fn refuse_rest(rest: &Map<String, Value>, at: &str, known: &[&str]) -> Result<(), ClassifyError> {
    let Some(name) = rest.keys().next() else { return Ok(()) };
    let hint = nearest(name, known.iter().copied()).map_or(String::new(), |near| format!("; did you mean `{near}`?"));
    Err(invalid(&join(at, name), &format!("is not known to the vendor here{hint}")))
}

/// The path of a member; `at` is empty at the top of the output.
pub(super) fn join(at: &str, name: &str) -> String {
    if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") }
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

/// An error at a path; an empty path is the output itself.
pub(in crate::customerio) fn invalid(at: &str, message: &str) -> ClassifyError {
    let at = if at.is_empty() { "the output" } else { at };
    ClassifyError { code: code::OUTPUT_INVALID, message: format!("{at}: {message}") }
}
