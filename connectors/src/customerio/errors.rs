//! What Customer.io's answers say: which items of a batch were refused, in the vendor's own words.
//!
//! A 207 lists the items that were refused; all others were taken. It is never repeated as a whole.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// What is kept of a body that has none of the vendor's forms: enough to recognize a proxy's page.
const EXCERPT_CHARS_MAX: usize = 200;

/// Errors that are read of one answer. A batch has at most a thousand items, and each has a handful of mistakes.
const ERRORS_MAX: usize = 10_000;

/// One error as the vendor states it. Everything may be missing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct VendorError {
    /// The place of the item in the request.
    pub batch_index: Option<usize>,
    pub reason: String,
    pub field: String,
    pub message: String,
}

/// A 207 by the items of its request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Split {
    /// What the vendor has against each refused item.
    pub rejected: BTreeMap<usize, Vec<VendorError>>,
    /// It refuses something and does not say which item it is.
    pub unplaced: Vec<VendorError>,
}

/// All forms in which the vendor lists errors: the Track API v2 has `errors`, the older one `meta`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Envelope {
    errors: Value,
    meta: Value,
    error: Value,
    message: Value,
}

// === impl VendorError ===

impl VendorError {
    /// The vendor's words in one sentence: ``the vendor says `invalid`: name is required (at attributes.plan)``.
    pub fn describe(&self) -> String {
        let text = if self.message.is_empty() { "no explanation" } else { self.message.trim_end_matches('.') };
        let reason = if self.reason.is_empty() { String::new() } else { format!(" `{}`", self.reason) };
        let place = if self.field.is_empty() { String::new() } else { format!(" (at {})", self.field) };
        format!("the vendor says{reason}: {text}{place}")
    }

    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::String(message) => Some(Self { message: message.clone(), ..Self::default() }),
            Value::Object(members) => {
                let text = |name: &str| match members.get(name) {
                    Some(Value::String(text)) => text.clone(),
                    Some(Value::Number(number)) => number.to_string(),
                    _ => String::new(),
                };
                let message =
                    [text("message"), text("error"), text("detail")].into_iter().find(|text| !text.is_empty());
                let batch_index = members.get("batch_index").and_then(Value::as_u64);
                Some(Self {
                    batch_index: batch_index.and_then(|index| usize::try_from(index).ok()),
                    reason: text("reason"),
                    field: text("field"),
                    message: message.unwrap_or_default(),
                })
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => None,
        }
    }
}

/// Reads the errors of an answer; a body that is none of the vendor's gives one error with its beginning.
pub(super) fn read(body: &[u8]) -> Vec<VendorError> {
    let envelope: Envelope = serde_json::from_slice(body).unwrap_or_default();
    let listed = [&envelope.errors, envelope.meta.get("errors").unwrap_or(&Value::Null)]
        .into_iter()
        .filter_map(Value::as_array)
        .flatten();
    let single = [envelope.meta.get("error").unwrap_or(&Value::Null), &envelope.error, &envelope.message];
    let mut errors: Vec<VendorError> = listed.filter_map(VendorError::of).take(ERRORS_MAX).collect();
    if errors.is_empty() {
        errors = single.into_iter().filter_map(VendorError::of).take(1).collect();
    }
    if errors.is_empty() {
        let excerpt: String = String::from_utf8_lossy(body).trim().chars().take(EXCERPT_CHARS_MAX).collect();
        let message = if excerpt.is_empty() { "an empty answer".to_owned() } else { excerpt };
        errors.push(VendorError { message, ..VendorError::default() });
    }
    errors
}

/// What a success has against items of its request: nothing, mostly. `None` where it has something against somebody (207) and its list
/// cannot be read.
pub(super) fn listed(status: u16, body: &[u8]) -> Option<Vec<VendorError>> {
    /// `{}` and a line break.
    const EMPTY_BYTES: usize = 3;
    if status != 207 && body.len() <= EMPTY_BYTES {
        return Some(Vec::new());
    }
    let envelope: Option<Envelope> = serde_json::from_slice(body).ok();
    let errors = envelope.as_ref().and_then(|envelope| envelope.errors.as_array());
    match errors {
        Some(errors) => {
            Some(errors.iter().take(ERRORS_MAX).map(|error| VendorError::of(error).unwrap_or_default()).collect())
        }
        None if status == 207 => None,
        None => Some(Vec::new()),
    }
}

/// The first error's words, and how many more there are.
pub(super) fn summary(errors: &[VendorError]) -> String {
    match errors {
        [] => VendorError::default().describe(),
        [only] => only.describe(),
        [first, rest @ ..] => format!("{}, and {} more", first.describe(), rest.len()),
    }
}

/// Whom the errors of a 207 mean among `count` items. With one item there is no question.
pub(super) fn split(errors: Vec<VendorError>, count: usize) -> Split {
    let mut split = Split::default();
    for error in errors {
        match error.batch_index {
            Some(index) if index < count => split.rejected.entry(index).or_default().push(error),
            Some(_) | None if count == 1 => split.rejected.entry(0).or_default().push(error),
            Some(_) | None => split.unplaced.push(error),
        }
    }
    split
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_an_error_is_told_in_the_vendors_words() {
        let cases = [
            (
                r#"{"errors":[{"batch_index":1,"reason":"invalid","field":"attributes.plan","message":"too long."},{"batch_index":2}]}"#,
                "the vendor says `invalid`: too long (at attributes.plan), and 1 more",
            ),
            (
                r#"{"errors":[{"reason":"required","field":"name","message":null}]}"#,
                "the vendor says `required`: no explanation (at name)",
            ),
            (r#"{"meta":{"error":"invalid id"}}"#, "the vendor says: invalid id"),
            (r#"{"meta":{"errors":["one","two"]}}"#, "the vendor says: one, and 1 more"),
            (
                r#"{"errors":["attribute name cannot be longer than 150 bytes"]}"#,
                "the vendor says: attribute name cannot be longer than 150 bytes",
            ),
            (r#"{"error":"throttled"}"#, "the vendor says: throttled"),
            ("<html>Bad gateway</html>", "the vendor says: <html>Bad gateway</html>"),
            ("{}", "the vendor says: {}"),
            ("", "the vendor says: an empty answer"),
        ];
        for (body, words) in cases {
            assert_eq!(summary(&read(body.as_bytes())), words, "{body}");
        }
        assert_eq!(summary(&read(&[0xff, 0xfe])), "the vendor says: \u{fffd}\u{fffd}");
    }

    #[test]
    fn a_success_lists_nothing_and_a_207_may_not_be_readable() {
        for (status, body, count) in [
            (200, "{}\n", Some(0)),
            (200, "", Some(0)),
            (200, "<html>fine</html>", Some(0)),
            (200, r#"{"errors":[{"batch_index":0}]}"#, Some(1)),
            (207, r#"{"errors":[]}"#, Some(0)),
            (207, r#"{"errors":[{"batch_index":0},7]}"#, Some(2)),
            (207, "{}", None),
            (207, "", None),
            (207, "<html>", None),
        ] {
            assert_eq!(listed(status, body.as_bytes()).map(|errors| errors.len()), count, "{status} {body}");
        }
    }

    #[test]
    fn an_index_names_an_item_of_the_request_or_nothing() {
        let body = br#"{"errors":[{"batch_index":0,"message":"a"},{"batch_index":2,"message":"b"},{"batch_index":0,"message":"c"},{"batch_index":-1},{"batch_index":9},{"message":"d"}]}"#;
        let split_of = |count| split(read(body), count);
        let many = split_of(3);
        assert_eq!(many.rejected.keys().copied().collect::<Vec<_>>(), [0, 2]);
        assert_eq!(many.rejected[&0].len(), 2);
        assert_eq!(many.unplaced.len(), 3);
        assert!(split_of(1).unplaced.is_empty(), "one item is the only one that can be meant");
    }
}
