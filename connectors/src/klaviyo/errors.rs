//! What Klaviyo's refusals say: the error envelope, and the item that a pointer names.
//!
//! The vendor's own words go into the reason, cut to length; its pointers are read but never trusted to be in range.

use serde::Deserialize;

use crate::http::vendor::excerpt;
use crate::http::{Answer, Refusal, Response, named};

/// Names identifiers that were valid in shape but ignored, on an answer that is otherwise a success.
const PARTIAL_FAILURE: &str = "x-klaviyo-partial-failure";

/// The envelope around errors: `{"errors":[…]}`.
#[derive(Debug, Deserialize)]
struct Envelope {
    errors: Vec<VendorError>,
}

/// One error as the vendor states it. Everything may be missing: a proxy's HTML page has none of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct VendorError {
    #[serde(deserialize_with = "or_default")]
    pub code: String,
    #[serde(deserialize_with = "or_default")]
    pub title: String,
    #[serde(deserialize_with = "or_default")]
    pub detail: String,
    #[serde(deserialize_with = "or_default")]
    pub source: Source,
    #[serde(deserialize_with = "or_default")]
    pub meta: Meta,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Source {
    #[serde(deserialize_with = "or_default")]
    pub pointer: String,
    #[serde(deserialize_with = "or_default")]
    pub parameter: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Meta {
    #[serde(deserialize_with = "or_default")]
    pub duplicate_profile_id: String,
}

/// The vendor writes `null`, an empty array (for an empty object) or another type now and then; none of that may hide the rest.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + serde::de::DeserializeOwned,
{
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).unwrap_or_default())
}

// === impl VendorError ===

impl VendorError {
    /// The vendor's words in one sentence: ``the vendor says `invalid`: Invalid email address (at /data/…)``.
    pub fn describe(&self) -> String {
        let text = if self.detail.is_empty() { &self.title } else { &self.detail };
        let text = if text.is_empty() { "no explanation" } else { text.trim_end_matches('.') };
        let code = if self.code.is_empty() { String::new() } else { format!(" `{}`", self.code) };
        let place = match (self.source.pointer.as_str(), self.source.parameter.as_str()) {
            ("" | "/data" | "/data/", "") => String::new(),
            ("", parameter) => format!(" (parameter {parameter})"),
            (pointer, _) => format!(" (at {pointer})"),
        };
        format!("the vendor says{code}: {text}{place}")
    }

    pub fn is_duplicate_profile(&self) -> bool {
        self.code == "duplicate_profile"
    }

    /// The index that the error's pointer names below `prefix`: `/data/attributes/profiles/data/7/attributes/email` names 7.
    pub fn index_below(&self, prefix: &str) -> Option<usize> {
        pointer_index(&self.source.pointer, prefix)
    }
}

/// The index that follows `prefix` in a JSON pointer.
pub(super) fn pointer_index(pointer: &str, prefix: &str) -> Option<usize> {
    let rest = pointer.strip_prefix(prefix)?.strip_prefix('/')?;
    rest.split('/').next()?.parse().ok()
}

/// Reads the errors of an answer; a body that is none of the vendor's gives one error with its beginning.
pub(super) fn read(body: &[u8]) -> Vec<VendorError> {
    match serde_json::from_slice::<Envelope>(body) {
        Ok(envelope) if !envelope.errors.is_empty() => envelope.errors,
        Ok(_) | Err(_) => {
            let detail = excerpt(body);
            vec![VendorError { detail, ..VendorError::default() }]
        }
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

/// What the vendor has against a request; none on success.
pub(super) fn of(answer: &Answer) -> Vec<VendorError> {
    if answer.is_success() { Vec::new() } else { read(answer.body()) }
}

/// Whom a refusal means: the members that pointers name below `pointer`.
pub(super) fn judge(answer: &Answer, members: &[usize], pointer: &str) -> Refusal {
    let places = of(answer).into_iter().filter_map(|error| Some((error.index_below(pointer)?, error.describe())));
    named(answer, members, places)
}

/// What the vendor ignored as invalid in a request that it took.
pub(super) fn partial_failure(response: &Response) -> Option<String> {
    let ignored = response.header(PARTIAL_FAILURE).filter(|ignored| !ignored.trim().is_empty())?;
    let ignored: Vec<String> = ignored.split(',').map(|field| format!("`{}`", field.trim())).collect();
    Some(format!("the vendor took the request and ignored {} as invalid", ignored.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_in_the_vendors_words() {
        let body = br#"{"errors":[{"id":"1","status":400,"code":"invalid","title":"Invalid input.","detail":"Invalid email address.",
            "source":{"pointer":"/data/attributes/email"},"links":[],"meta":[]},{"code":null}]}"#;
        let errors = read(body);
        assert_eq!(
            errors[0].describe(),
            "the vendor says `invalid`: Invalid email address (at /data/attributes/email)"
        );
        assert_eq!(
            summary(&errors),
            "the vendor says `invalid`: Invalid email address (at /data/attributes/email), and 1 more"
        );
    }

    #[test]
    fn a_page_of_a_proxy_is_told_by_its_beginning() {
        assert_eq!(summary(&read(b"<html>Bad gateway</html>")), "the vendor says: <html>Bad gateway</html>");
        assert_eq!(summary(&read(b"")), "the vendor says: an empty answer");
        assert_eq!(summary(&read(br#"{"errors":[]}"#)), r#"the vendor says: {"errors":[]}"#);
        assert_eq!(summary(&read(&[0xff, 0xfe])), "the vendor says: \u{fffd}\u{fffd}");
    }

    #[test]
    fn a_pointer_names_an_item_or_nothing() {
        let prefix = "/data/attributes/profiles/data";
        let cases = [
            ("/data/attributes/profiles/data/7/attributes/email", Some(7)),
            ("/data/attributes/profiles/data/0", Some(0)),
            ("/data/attributes/profiles/data", None),
            ("/data/attributes/profiles/data/x", None),
            ("/data/attributes/profiles/data/-1", None),
            ("/data/attributes/profiles/database/1", None),
            ("/data/relationships/lists/data/0", None),
            ("", None),
        ];
        for (pointer, index) in cases {
            assert_eq!(pointer_index(pointer, prefix), index, "{pointer}");
        }
    }
}
