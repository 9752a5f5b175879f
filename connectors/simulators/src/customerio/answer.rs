//! What the vendor says.

use serde_json::{Value, json};

use crate::engine::Answer;
use crate::shape::{Misfit, Why};

pub(super) const MEDIA_TYPE: &str = "application/json";

/// Why an item is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub reason: &'static str,
    pub field: String,
    pub message: String,
}

// === impl Refusal ===

impl Refusal {
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reason: "invalid", field: field.into(), message: message.into() }
    }

    pub fn required(field: impl Into<String>) -> Self {
        let field = field.into();
        Self { reason: "required", message: format!("{field} is required"), field }
    }

    pub fn too_long(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reason: "length", field: field.into(), message: message.into() }
    }

    pub fn of_misfit(misfit: &Misfit) -> Self {
        let field = misfit.path.trim_start_matches('.').to_owned();
        match misfit.why {
            Why::Missing => Self::required(field),
            Why::Unknown => Self::invalid(field.clone(), format!("{field} is not a known field")),
            Why::Expected(kind) => Self::invalid(field.clone(), format!("{field} must be of type {kind}")),
        }
    }

    fn to_json(&self) -> Value {
        json!({"reason": self.reason, "field": self.field, "message": self.message})
    }
}

/// `{}` and a line feed, as recorded.
pub(super) fn success() -> Answer {
    let headers = vec![("content-type".to_owned(), MEDIA_TYPE.to_owned())];
    Answer::new(200, headers, crate::engine::Body::Text("{}\n".to_owned()))
}

pub(super) fn json(status: u16, body: Value) -> Answer {
    Answer::json(status, MEDIA_TYPE, body)
}

/// The whole request is refused.
pub(super) fn refused(refusals: &[Refusal]) -> Answer {
    let errors: Vec<Value> = refusals.iter().map(Refusal::to_json).collect();
    json(400, json!({ "errors": errors }))
}

/// Some items are refused, all others are accepted.
pub(super) fn partly(refused: &[(usize, Refusal)]) -> Answer {
    let errors: Vec<Value> = refused
        .iter()
        .map(|(index, refusal)| {
            let mut error = refusal.to_json();
            error["batch_index"] = json!(index);
            error
        })
        .collect();
    json(207, json!({ "errors": errors }))
}

/// Track v1 and everything before an item is looked at.
pub(super) fn error(status: u16, message: &str) -> Answer {
    json(status, json!({"meta": {"error": message}}))
}

pub(super) fn unauthorized() -> Answer {
    error(401, "Unauthorized request")
}

pub(super) fn full(what: &str) -> Answer {
    error(503, &format!("The simulator keeps no more {what}; reset it."))
}

pub(super) fn throttled(seconds: Option<u64>) -> Answer {
    let answer = error(429, "Too many requests");
    match seconds {
        Some(seconds) => answer.with_header("retry-after", seconds.to_string()),
        None => answer,
    }
}
