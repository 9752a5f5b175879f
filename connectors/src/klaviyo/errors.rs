//! What Klaviyo's refusals say: the error envelope, the item that a pointer names, and whose trouble a status is.
//!
//! The vendor's own words go into the reason, cut to length; its pointers are read but never trusted to be in range.

use std::time::Duration;

use serde::Deserialize;
use tailwater_core::delivery::{Outcome, Reason, Scope};
use tailwater_core::{Code, code};

use super::requests::Endpoint;

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

/// A request that ended without an answer about what was in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Halt {
    pub after: Option<Duration>,
    pub scope: Scope,
    pub reason: Reason,
    /// The request was sent and failed, and nothing shows that others fail as well: what is in it may be the reason.
    pub failed: bool,
    /// How many requests the endpoint had answered when this one was sent.
    pub answers: u64,
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

// === impl Halt ===

impl Halt {
    pub fn new(code: Code, scope: Scope, message: impl Into<String>) -> Self {
        Self { after: None, scope, reason: Reason::new(code, message), failed: false, answers: 0 }
    }

    pub fn outcome(&self) -> Outcome {
        Outcome::Retry { after: self.after, scope: self.scope, reason: self.reason.clone() }
    }

    pub fn not_owned() -> Self {
        Self::new(code::NOT_OWNED, Scope::Delivery, "the lane moved to another process before the request was sent")
    }
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
    /// What is kept of a body that is not the vendor's envelope: enough to recognise a proxy's page.
    const EXCERPT_CHARS_MAX: usize = 200;
    match serde_json::from_slice::<Envelope>(body) {
        Ok(envelope) if !envelope.errors.is_empty() => envelope.errors,
        Ok(_) | Err(_) => {
            let excerpt: String = String::from_utf8_lossy(body).chars().take(EXCERPT_CHARS_MAX).collect();
            let detail =
                if excerpt.trim().is_empty() { "an empty answer".to_owned() } else { excerpt.trim().to_owned() };
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

/// Whose trouble a status is, where it is nobody's delivery: credentials, rate, the vendor's own, or a request that this vendor
/// cannot know. `None` leaves the answer to whoever sent the request. With the scope `Account` it is open whether others have the same
/// trouble.
pub(super) fn halt_of(status: u16, words: &str, endpoint: Endpoint) -> Option<Halt> {
    let (code, scope, advice) = match status {
        401 => (
            code::UNAUTHORIZED,
            Scope::Credentials,
            "the API key is refused; put a valid private key in place".to_owned(),
        ),
        403 => (code::FORBIDDEN, Scope::Credentials, missing_scopes(endpoint)),
        429 => (
            code::RATE_LIMITED,
            Scope::Endpoint,
            format!("the account is asked to slow down at {}; other tools may share its limits", endpoint.label()),
        ),
        408 | 500..=599 => (
            code::VENDOR_UNAVAILABLE,
            Scope::Account,
            format!("the vendor has trouble with {}; the request is repeated later", endpoint.label()),
        ),
        404 if !endpoint.names_resource() => (code::VENDOR_REJECTED, Scope::Credentials, WRONG_PLACE.to_owned()),
        // Refusals of what was sent; everything else that is no success says that nothing can be sent this way, and rejecting
        // people for it would reject them all.
        200..=299 | 400 | 404 | 409 | 413 | 414 | 422 | 431 => return None,
        _ => (code::VENDOR_REJECTED, Scope::Credentials, WRONG_PLACE.to_owned()),
    };
    let mut halt = Halt::new(code, scope, format!("{advice}; {words}"));
    halt.reason = halt.reason.with_status(status);
    Some(halt)
}

fn missing_scopes(endpoint: Endpoint) -> String {
    let scopes: Vec<String> = endpoint.scopes().iter().map(|scope| format!("`{scope}`")).collect();
    let noun = if scopes.len() == 1 { "scope" } else { "scopes" };
    format!(
        "the API key may not use {}, which needs the {noun} {}; give the key what is missing, or put another key in place",
        endpoint.label(),
        scopes.join(" and ")
    )
}

const WRONG_PLACE: &str = "the address does not speak this revision of the API; check base_url and update Tailwater";

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

    #[test]
    fn a_wrong_address_pauses_instead_of_rejecting_everything() {
        assert_eq!(halt_of(404, "", Endpoint::Events).unwrap().scope, Scope::Credentials);
        assert_eq!(halt_of(404, "", Endpoint::Job), None);
        assert_eq!(halt_of(301, "", Endpoint::Job).unwrap().scope, Scope::Credentials);
        assert_eq!(halt_of(400, "", Endpoint::Events), None);
        assert_eq!(halt_of(503, "", Endpoint::Job).unwrap().scope, Scope::Account);
        assert_eq!(halt_of(429, "", Endpoint::Job).unwrap().scope, Scope::Endpoint);
    }

    #[test]
    fn a_missing_permission_names_the_scope() {
        let halt = halt_of(403, "the vendor says `permission_denied`", Endpoint::Events).unwrap();
        assert!(halt.reason.message.contains("POST /api/events, which needs the scope `events:write`"), "{halt:?}");
    }
}
