//! What a vendor adds to the shared HTTP: how it words errors, and where its statuses mean something else than elsewhere.

use serde_json::Value;
use tailwater_core::code;
use tailwater_core::delivery::Scope;

use super::client::Response;
use super::endpoint::Endpoint;
use super::halt::Halt;

/// What an answer speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// Of the request itself: a success, or a refusal of what was in it. Whoever sent the request judges it.
    Request,
    /// The credentials are refused (401).
    Unauthorized,
    /// The credentials lack a permission (403).
    Forbidden,
    /// Too many requests (429).
    Throttled,
    /// The vendor has trouble (408, 5xx). Whether others have it too is judged by `health`.
    Unavailable,
    /// Nothing can be sent this way: a redirect, a wrong path or method. Rejecting people for it would reject them all.
    WrongPlace,
}

/// A vendor's part. Every method has a default that fits a common JSON API.
pub trait Vendor: Send + Sync + std::fmt::Debug {
    /// What the credentials are called: `API key`.
    fn credentials(&self) -> &'static str {
        "API key"
    }

    /// What to put in their place when they are refused.
    fn valid_credentials(&self) -> &'static str {
        "a valid one"
    }

    /// What an answer speaks of. Override it for statuses that mean something else at this vendor, and fall back to
    /// [`Meaning::of_status`].
    fn meaning(&self, response: &Response, endpoint: &Endpoint) -> Meaning {
        Meaning::of_status(response.status, endpoint)
    }

    /// The vendor's words in an answer that is no success, as one sentence: ``the vendor says `invalid`: Invalid email address``.
    fn words(&self, response: &Response) -> String {
        describe(&response.body)
    }

    /// What the vendor took a request without, although it answered with success.
    fn remark(&self, _response: &Response) -> Option<String> {
        None
    }
}

/// A vendor with nothing of its own.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plain;

impl Vendor for Plain {}

// === impl Meaning ===

impl Meaning {
    /// The table of statuses that vendors commonly have.
    pub const fn of_status(status: u16, endpoint: &Endpoint) -> Self {
        match status {
            200..=299 | 400 | 409 | 413 | 414 | 422 | 431 => Self::Request,
            404 if endpoint.names_resource => Self::Request,
            401 => Self::Unauthorized,
            403 => Self::Forbidden,
            429 => Self::Throttled,
            408 | 500..=599 => Self::Unavailable,
            _ => Self::WrongPlace,
        }
    }

    /// How a request ends with such an answer; `None` where the answer speaks of the request.
    pub(super) fn halt(self, status: u16, words: &str, vendor: &dyn Vendor, endpoint: &Endpoint) -> Option<Halt> {
        let (label, credentials) = (endpoint.label, vendor.credentials());
        let (code, scope, advice) = match self {
            Self::Request => return None,
            Self::Unauthorized => (
                code::UNAUTHORIZED,
                Scope::Credentials,
                format!("the {credentials} is refused; put {} in place", vendor.valid_credentials()),
            ),
            Self::Forbidden => (code::FORBIDDEN, Scope::Credentials, missing_scopes(credentials, endpoint)),
            Self::Throttled => (
                code::RATE_LIMITED,
                Scope::Endpoint,
                format!("the account is asked to slow down at {label}; other tools may share its limits"),
            ),
            // It is open whether others have the same trouble.
            Self::Unavailable => (
                code::VENDOR_UNAVAILABLE,
                Scope::Account,
                format!("the vendor has trouble with {label}; the request is repeated later"),
            ),
            Self::WrongPlace => (
                code::VENDOR_REJECTED,
                Scope::Credentials,
                format!(
                    "{label}: the address does not speak this revision of the API; check base_url and update Tailwater"
                ),
            ),
        };
        let mut halt = Halt::new(code, scope, format!("{advice}; {words}"));
        halt.reason = halt.reason.with_status(status);
        Some(halt)
    }
}

fn missing_scopes(credentials: &str, endpoint: &Endpoint) -> String {
    let (label, scopes) = (endpoint.label, endpoint.scopes);
    let scopes: Vec<String> = scopes.iter().map(|scope| format!("`{scope}`")).collect();
    let noun = match scopes.len() {
        0 => {
            return format!(
                "the {credentials} may not use {label}; give it the permission, or put another one in place"
            );
        }
        1 => "scope",
        _ => "scopes",
    };
    format!(
        "the {credentials} may not use {label}, which needs the {noun} {}; give it what is missing, or put another one in place",
        scopes.join(" and ")
    )
}

/// The words of an error body, whatever its shape: a code and a message where common names hold them, else its beginning.
pub fn describe(body: &[u8]) -> String {
    let value: Option<Value> = serde_json::from_slice(body).ok();
    let object = value.as_ref().and_then(|value| match value {
        Value::Object(object) => Some(object),
        Value::Array(items) => items.first().and_then(Value::as_object),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    });
    let text = |names: &[&str]| {
        names.iter().find_map(|name| object.and_then(|object| object.get(*name)).and_then(Value::as_str))
    };
    let code = text(&["code", "error_code", "type"]).map_or(String::new(), |code| format!(" `{code}`"));
    match text(&["message", "msg", "detail", "error_description", "error", "reason", "title"]) {
        Some(message) if !message.trim().is_empty() => {
            format!("the vendor says{code}: {}", message.trim().trim_end_matches('.'))
        }
        _ => format!("the vendor says: {}", excerpt(body)),
    }
}

/// The beginning of a body that is not the vendor's own: enough to recognize a proxy's page.
pub fn excerpt(body: &[u8]) -> String {
    const CHARS_MAX: usize = 200;
    // A body can be megabytes long, and a character takes up to four bytes.
    let start = body.get(..CHARS_MAX * 4).unwrap_or(body);
    let text: String = String::from_utf8_lossy(start).chars().take(CHARS_MAX).collect();
    if text.trim().is_empty() { "an empty answer".to_owned() } else { text.trim().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Rate;

    const EVENTS: Endpoint = Endpoint::new("POST /api/events", Rate { windows: &[] }).scopes(&["events:write"]);
    const JOB: Endpoint = Endpoint::new("GET /api/jobs/{id}", Rate { windows: &[] }).names_resource();

    #[test]
    fn a_wrong_address_pauses_instead_of_rejecting_everything() {
        let scope = |status, endpoint: &Endpoint| {
            Meaning::of_status(status, endpoint).halt(status, "", &Plain, endpoint).map(|halt| halt.scope)
        };
        assert_eq!(scope(404, &EVENTS), Some(Scope::Credentials));
        assert_eq!(scope(404, &JOB), None);
        assert_eq!(scope(301, &JOB), Some(Scope::Credentials));
        assert_eq!(scope(400, &EVENTS), None);
        assert_eq!(scope(503, &JOB), Some(Scope::Account));
        assert_eq!(scope(429, &JOB), Some(Scope::Endpoint));
    }

    #[test]
    fn a_missing_permission_names_the_scope() {
        let halt = Meaning::Forbidden.halt(403, "the vendor says `permission_denied`", &Plain, &EVENTS).unwrap();
        assert!(halt.reason.message.contains("POST /api/events, which needs the scope `events:write`"), "{halt:?}");
        let halt = Meaning::Forbidden.halt(403, "", &Plain, &JOB).unwrap();
        assert!(halt.reason.message.contains("may not use GET /api/jobs/{id}"), "{halt:?}");
    }

    #[test]
    fn an_error_is_told_in_the_vendors_words_whatever_its_shape() {
        let cases: [(&[u8], &str); 7] = [
            (
                br#"{"code":"BadParams","msg":"Invalid email.","params":{}}"#,
                "the vendor says `BadParams`: Invalid email",
            ),
            (br#"{"message":"no"}"#, "the vendor says: no"),
            (br#"[{"error":"no","x":1}]"#, "the vendor says: no"),
            (b"<html>Bad gateway</html>", "the vendor says: <html>Bad gateway</html>"),
            (b"", "the vendor says: an empty answer"),
            (b"\xff\xfe", "the vendor says: \u{fffd}\u{fffd}"),
            (br#"{"message":7}"#, r#"the vendor says: {"message":7}"#),
        ];
        for (body, words) in cases {
            assert_eq!(describe(body), words);
        }
        assert!(describe(&vec![b'x'; 5_000_000]).len() < 300);
    }
}
