//! Prescribed answers: what a test wants the vendor to do wrong, and how often.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::answer::{Answer, Body};
use super::clock::SECOND_US;

/// Prescriptions that may be open at once.
pub(super) const PRESCRIPTIONS_MAX: usize = 1_000;
/// Longest delay of one answer.
pub(super) const DELAY_MAX: Duration = Duration::from_secs(600);

/// What the next matching requests get. The first open prescription that matches is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Prescription {
    /// Only requests with this method.
    pub method: Option<String>,
    /// Only requests with this path; a `*` at its end stands for anything.
    pub path: Option<String>,
    /// Only requests that name this email, phone number, external id or profile id, in the body or in the address.
    pub identifier: Option<String>,
    /// Matching requests that pass untouched before it takes effect.
    pub skip: u64,
    /// How many requests it is for.
    pub times: u64,
    /// Ends this long after it was given, used up or not.
    pub for_seconds: Option<u64>,
    pub effect: Effect,
}

/// A prescription as it is written in JSON: exactly one of the effects.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Written {
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    identifier: Option<String>,
    skip: u64,
    times: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    for_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<PrescribedAnswer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disconnect: Option<Disconnect>,
    #[serde(skip_serializing_if = "Option::is_none")]
    import_error: Option<PrescribedImportError>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cancel_job: Option<bool>,
}

/// What is prescribed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// An answer in place of the vendor's.
    Answer(PrescribedAnswer),
    /// The vendor's own answer, this many milliseconds late. The request has taken effect before.
    DelayMs(u64),
    /// The connection breaks.
    Disconnect(Disconnect),
    /// The profile fails inside of a bulk job (needs `identifier`; `method` and `path` have no meaning).
    ImportError(PrescribedImportError),
    /// The next bulk job is cancelled by the vendor: nobody in it is imported.
    CancelJob,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrescribedAnswer {
    pub status: u16,
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// An object or array is sent as JSON, a string as it is, null as nothing.
    #[serde(default)]
    pub body: Value,
    #[serde(default)]
    pub delay_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrescribedImportError {
    #[serde(default = "invalid")]
    pub code: String,
    #[serde(default)]
    pub detail: String,
}

/// When the connection breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Disconnect {
    /// The body is not read. `identifier` cannot match here.
    BeforeReading,
    /// The request was read and has no effect.
    AfterReading,
    /// The request took effect, and its answer is lost.
    AfterProcessing,
}

/// The open prescriptions, in the order in which they were given.
#[derive(Debug, Default)]
pub struct Prescriptions {
    open: Vec<Open>,
}

#[derive(Debug)]
struct Open {
    prescription: Prescription,
    ends_us: Option<i64>,
}

/// A request as far as it has been read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub query: &'a [(String, String)],
    /// `None` before the body was read.
    pub body: Option<&'a [u8]>,
    pub now_us: i64,
}

fn invalid() -> String {
    "invalid".into()
}

// === impl Written ===

impl TryFrom<Written> for Prescription {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let effects = [
            written.answer.map(Effect::Answer),
            written.delay_ms.map(Effect::DelayMs),
            written.disconnect.map(Effect::Disconnect),
            written.import_error.map(Effect::ImportError),
            written.cancel_job.filter(|cancel| *cancel).map(|_| Effect::CancelJob),
        ];
        let mut effects = effects.into_iter().flatten();
        let (Some(effect), None) = (effects.next(), effects.next()) else {
            return Err("exactly one of answer, delay_ms, disconnect, import_error and cancel_job must be given");
        };
        Ok(Self {
            method: written.method,
            path: written.path,
            identifier: written.identifier,
            skip: written.skip,
            times: written.times.unwrap_or(1),
            for_seconds: written.for_seconds,
            effect,
        })
    }
}

impl From<Prescription> for Written {
    fn from(prescription: Prescription) -> Self {
        let mut written = Self {
            method: prescription.method,
            path: prescription.path,
            identifier: prescription.identifier,
            skip: prescription.skip,
            times: Some(prescription.times),
            for_seconds: prescription.for_seconds,
            ..Self::default()
        };
        match prescription.effect {
            Effect::Answer(answer) => written.answer = Some(answer),
            Effect::DelayMs(ms) => written.delay_ms = Some(ms),
            Effect::Disconnect(when) => written.disconnect = Some(when),
            Effect::ImportError(error) => written.import_error = Some(error),
            Effect::CancelJob => written.cancel_job = Some(true),
        }
        written
    }
}

// === impl Prescription ===

impl Prescription {
    /// For every request, once.
    pub fn new(effect: Effect) -> Self {
        Self { method: None, path: None, identifier: None, skip: 0, times: 1, for_seconds: None, effect }
    }

    /// An answer with this status and an empty body, for every request, once.
    pub fn status(status: u16) -> Self {
        Self::new(Effect::Answer(PrescribedAnswer { status, headers: Vec::new(), body: Value::Null, delay_ms: 0 }))
    }

    #[must_use]
    pub fn on(mut self, method: &str, path: &str) -> Self {
        self.method = Some(method.to_owned());
        self.path = Some(path.to_owned());
        self
    }

    #[must_use]
    pub fn naming(mut self, identifier: &str) -> Self {
        self.identifier = Some(identifier.to_owned());
        self
    }

    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.times = times;
        self
    }

    /// What is wrong with it, if anything.
    pub(super) fn problem(&self) -> Option<String> {
        match &self.effect {
            Effect::Answer(answer) => {
                if !(200..=599).contains(&answer.status) {
                    return Some(format!("status {} is outside of 200 to 599", answer.status));
                }
                let bad = answer.headers.iter().find(|(name, value)| {
                    name.parse::<axum::http::HeaderName>().is_err() || value.parse::<axum::http::HeaderValue>().is_err()
                });
                if let Some((name, _)) = bad {
                    return Some(format!("header {name} is not valid"));
                }
                too_long(answer.delay_ms)
            }
            Effect::DelayMs(ms) => too_long(*ms),
            Effect::Disconnect(Disconnect::BeforeReading) if self.identifier.is_some() => {
                Some("before_reading cannot look for an identifier: the body is not read".into())
            }
            Effect::ImportError(_) if self.identifier.is_none() => Some("import_error needs an identifier".into()),
            Effect::Disconnect(_) | Effect::ImportError(_) | Effect::CancelJob => None,
        }
    }

    fn matches(&self, seen: &Seen<'_>) -> bool {
        let method = self.method.as_ref().is_none_or(|method| method.eq_ignore_ascii_case(seen.method));
        let path = self.path.as_ref().is_none_or(|path| match path.strip_suffix('*') {
            Some(prefix) => seen.path.starts_with(prefix),
            None => path.trim_end_matches('/') == seen.path.trim_end_matches('/'),
        });
        method && path && self.identifier.as_ref().is_none_or(|identifier| names(seen, identifier))
    }
}

fn too_long(ms: u64) -> Option<String> {
    (Duration::from_millis(ms) > DELAY_MAX).then(|| format!("a delay must not exceed {} seconds", DELAY_MAX.as_secs()))
}

/// Whether a request names somebody: as a string anywhere in the body, in the path or in the query.
fn names(seen: &Seen<'_>, identifier: &str) -> bool {
    seen.path.split('/').any(|segment| segment == identifier)
        || seen.query.iter().any(|(_, value)| value.contains(identifier))
        || seen
            .body
            .is_some_and(|body| serde_json::from_slice::<Value>(body).is_ok_and(|body| holds(&body, identifier)))
}

fn holds(value: &Value, text: &str) -> bool {
    match value {
        Value::String(found) => found.eq_ignore_ascii_case(text),
        Value::Array(items) => items.iter().any(|item| holds(item, text)),
        Value::Object(fields) => fields.values().any(|field| holds(field, text)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

// === impl Prescriptions ===

impl Prescriptions {
    /// Adds one; false if there are too many.
    pub(super) fn add(&mut self, prescription: Prescription, now_us: i64) -> bool {
        self.open.retain(|open| !open.over(now_us));
        if self.open.len() >= PRESCRIPTIONS_MAX {
            return false;
        }
        let length =
            prescription.for_seconds.map(|seconds| i64::try_from(seconds).unwrap_or(i64::MAX / (2 * SECOND_US)));
        let ends_us = length.map(|seconds| now_us.saturating_add(seconds.saturating_mul(SECOND_US)));
        self.open.push(Open { prescription, ends_us });
        true
    }

    pub(super) fn clear(&mut self) {
        self.open.clear();
    }

    /// What is still open.
    pub(super) fn list(&self) -> Vec<Prescription> {
        self.open.iter().map(|open| open.prescription.clone()).collect()
    }

    /// The effect for a request, used up by one. Before the body is read only a disconnect of that kind takes effect, afterwards all
    /// others.
    pub(super) fn take(&mut self, seen: &Seen<'_>) -> Option<Effect> {
        let reading = seen.body.is_none();
        self.take_first(seen.now_us, |prescription| {
            let before = prescription.effect == Effect::Disconnect(Disconnect::BeforeReading);
            let of_requests =
                matches!(prescription.effect, Effect::Answer(_) | Effect::DelayMs(_) | Effect::Disconnect(_));
            of_requests && before == reading && prescription.matches(seen)
        })
    }

    /// The error that a profile of a bulk job gets.
    pub fn import_error(&mut self, payload: &Value, now_us: i64) -> Option<PrescribedImportError> {
        let effect = self.take_first(now_us, |prescription| {
            matches!(prescription.effect, Effect::ImportError(_))
                && prescription.identifier.as_ref().is_some_and(|identifier| holds(payload, identifier))
        });
        match effect {
            Some(Effect::ImportError(error)) => Some(error),
            _ => None,
        }
    }

    /// Whether the job that is being made is to be cancelled.
    pub fn cancel_job(&mut self, now_us: i64) -> bool {
        let effect = self.take_first(now_us, |prescription| matches!(prescription.effect, Effect::CancelJob));
        effect.is_some()
    }

    fn take_first(&mut self, now_us: i64, wanted: impl Fn(&Prescription) -> bool) -> Option<Effect> {
        self.open.retain(|open| !open.over(now_us));
        let index = self.open.iter().position(|open| wanted(&open.prescription))?;
        let open = &mut self.open[index];
        if open.prescription.skip > 0 {
            open.prescription.skip -= 1;
            return None;
        }
        let effect = open.prescription.effect.clone();
        open.prescription.times = open.prescription.times.saturating_sub(1);
        if open.prescription.times == 0 {
            self.open.remove(index);
        }
        Some(effect)
    }
}

impl Open {
    fn over(&self, now_us: i64) -> bool {
        self.ends_us.is_some_and(|ends_us| ends_us <= now_us) || self.prescription.times == 0
    }
}

impl PrescribedAnswer {
    pub(super) fn to_answer(&self, media_type: &str) -> Answer {
        let body = match &self.body {
            Value::Null => Body::Empty,
            Value::String(text) => Body::Text(text.clone()),
            other => Body::Json(other.clone()),
        };
        let mut headers = self.headers.clone();
        let typed = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        if matches!(body, Body::Json(_)) && !typed {
            headers.push(("content-type".into(), media_type.into()));
        }
        Answer::new(self.status, headers, body)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn seen<'a>(path: &'a str, body: Option<&'a [u8]>) -> Seen<'a> {
        Seen { method: "POST", path, query: &[], body, now_us: 0 }
    }

    #[test]
    fn a_prescription_is_read_from_json() {
        let prescription: Prescription = serde_json::from_value(json!({
            "method": "POST", "path": "/api/profile-import", "identifier": "a@b.co", "times": 3, "answer": {"status": 503}
        }))
        .unwrap();
        assert_eq!(prescription, Prescription::status(503).on("POST", "/api/profile-import").naming("a@b.co").times(3));
        let lost: Prescription = serde_json::from_value(json!({"disconnect": "after_processing"})).unwrap();
        assert_eq!(lost, Prescription::new(Effect::Disconnect(Disconnect::AfterProcessing)));
    }

    #[test]
    fn it_is_used_up_after_its_times() {
        let mut open = Prescriptions::default();
        open.add(Prescription::status(500).times(2), 0);
        assert!(open.take(&seen("/api/events", Some(b""))).is_some());
        assert!(open.take(&seen("/api/events", Some(b""))).is_some());
        assert!(open.take(&seen("/api/events", Some(b""))).is_none());
    }

    #[test]
    fn an_identifier_is_looked_for_in_the_body() {
        let mut open = Prescriptions::default();
        open.add(Prescription::status(500).naming("a@b.co"), 0);
        assert!(open.take(&seen("/api/events", Some(br#"{"data":{"email":"x@b.co"}}"#))).is_none());
        assert!(open.take(&seen("/api/events", Some(br#"{"data":{"email":"A@b.co"}}"#))).is_some());
    }

    #[test]
    fn a_path_may_end_in_a_star() {
        let mut open = Prescriptions::default();
        open.add(Prescription::status(500).on("POST", "/api/profile*"), 0);
        assert!(open.take(&seen("/api/events", Some(b""))).is_none());
        assert!(open.take(&seen("/api/profile-import", Some(b""))).is_some());
    }

    #[test]
    fn skipped_requests_pass_and_time_ends_it() {
        let mut open = Prescriptions::default();
        open.add(Prescription { skip: 1, for_seconds: Some(5), times: 9, ..Prescription::status(500) }, 0);
        assert!(open.take(&seen("/x", Some(b""))).is_none());
        assert!(open.take(&seen("/x", Some(b""))).is_some());
        assert!(open.take(&Seen { now_us: 5 * SECOND_US, ..seen("/x", Some(b"")) }).is_none());
    }

    #[test]
    fn before_reading_takes_effect_before_reading_only() {
        let mut open = Prescriptions::default();
        open.add(Prescription::new(Effect::Disconnect(Disconnect::BeforeReading)), 0);
        assert!(open.take(&seen("/x", Some(b""))).is_none());
        assert!(open.take(&seen("/x", None)).is_some());
    }
}
