//! What every vendor's mapping does alike with a transform's output: nulls, numbers that are not finite, names that are
//! almost right, operations that are named, and bodies for another vendor. Pure.

mod operation;
mod vendor;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use operation::{OPERATION, take_operation};
pub use vendor::{or_wrong_vendor, recognize};

/// What a `null` in a transform's output means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Nulls {
    /// It is left out: what the vendor has stays.
    #[default]
    Omit,
    /// It is cleared at the vendor.
    Clear,
}

/// What becomes of a number that is not finite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NonFinite {
    /// The property is left out, and the delivery says so.
    #[default]
    Omit,
    /// The delivery becomes a dead letter.
    Reject,
    /// The property is cleared at the vendor.
    Clear,
}

/// Takes the members that are null out of an object, at every depth. Elements of arrays stay: a null there clears nothing,
/// because an array is replaced as a whole, and taking it out would move the others.
pub(crate) fn omit_nulls(object: &mut Map<String, Value>) {
    object.retain(|_, value| !value.is_null());
    for value in object.values_mut() {
        omit_nulls_below(value);
    }
}

fn omit_nulls_below(value: &mut Value) {
    match value {
        Value::Object(object) => omit_nulls(object),
        Value::Array(items) => items.iter_mut().for_each(omit_nulls_below),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Puts null at a path such as `data.attributes.properties.ltv` or `a.b[0].c`. Answers whether the place exists: every step but
/// the last must be there already.
pub(crate) fn put_null(root: &mut Value, path: &str) -> bool {
    let mut at = root;
    let mut rest = path;
    loop {
        // A name may itself hold a dot, so the longest name that leads on wins over the first dot.
        match at {
            Value::Object(object) => {
                if !rest.contains(['.', '[']) {
                    object.insert(rest.to_owned(), Value::Null);
                    return true;
                }
                let step = rest.match_indices(['.', '[']).map(|(end, _)| end).rev().find(|&end| {
                    rest.get(..end)
                        .and_then(|name| object.get(name))
                        .is_some_and(|value| value.is_object() || value.is_array())
                });
                let Some(end) = step else {
                    // What is left is one name with dots in it.
                    object.insert(rest.to_owned(), Value::Null);
                    return true;
                };
                let (name, tail) = rest.split_at(end);
                let Some(next) = object.get_mut(name) else { return false };
                at = next;
                rest = tail.strip_prefix('.').unwrap_or(tail);
            }
            Value::Array(items) => {
                let Some((index, tail)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) else {
                    return false;
                };
                let Some(item) = index.parse::<usize>().ok().and_then(|index| items.get_mut(index)) else {
                    return false;
                };
                if tail.is_empty() {
                    *item = Value::Null;
                    return true;
                }
                at = item;
                rest = tail.strip_prefix('.').unwrap_or(tail);
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return false,
        }
    }
}

/// The known name that was probably meant, if one is close enough.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Below this likeness a guess misleads more than it helps; `emial`/`email` has 0.95, `name`/`title` 0.48.
    const LIKENESS_MIN: f64 = 0.8;
    let lowered = name.to_lowercase();
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&lowered, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nulls_leave_objects_at_every_depth_and_stay_in_arrays() {
        let mut value = json!({"a": null, "b": {"c": null, "d": [1, null, {"e": null, "f": 2}]}});
        omit_nulls(value.as_object_mut().unwrap());
        assert_eq!(value, json!({"b": {"d": [1, null, {"f": 2}]}}));
    }

    #[test]
    fn null_is_put_where_a_number_was_taken_out() {
        let mut value = json!({"data": {"attributes": {"properties": {"kept": 1}, "a.b": {}}, "items": [{"x": 1}]}});
        assert!(put_null(&mut value, "data.attributes.properties.ltv"));
        assert!(put_null(&mut value, "data.attributes.a.b.c"));
        assert!(put_null(&mut value, "data.items[0].y"));
        assert!(!put_null(&mut value, "data.items[4].y"));
        assert_eq!(
            value,
            json!({"data": {"attributes": {"properties": {"kept": 1, "ltv": null}, "a.b": {"c": null}}, "items": [{"x": 1, "y": null}]}})
        );
    }

    #[test]
    fn a_slip_of_the_pen_is_recognised_and_a_stranger_is_not() {
        let known = ["email", "phone_number", "first_name"];
        assert_eq!(nearest("emial", known), Some("email"));
        assert_eq!(nearest("firstName", known), Some("first_name"));
        assert_eq!(nearest("rfm_segment", known), None);
    }
}
