//! What the vendor says: `{"msg", "code", "params"}`, as recorded.

use serde_json::{Value, json};

use crate::engine::Answer;
use crate::shape::{Misfit, Why};

pub(super) const MEDIA_TYPE: &str = "application/json";

/// Misfits that one answer lists.
const MISFITS_MAX: usize = 20;

pub(super) fn json(body: Value) -> Answer {
    Answer::json(200, MEDIA_TYPE, body)
}

pub(super) fn success(message: &str, params: Value) -> Answer {
    json(json!({"msg": message, "code": "Success", "params": params}))
}

pub(super) fn accepted(message: &str) -> Answer {
    Answer::json(202, MEDIA_TYPE, json!({"msg": message, "code": "Success", "params": null}))
}

pub(super) fn error(status: u16, code: &str, message: impl Into<String>, params: Value) -> Answer {
    Answer::json(status, MEDIA_TYPE, json!({"msg": message.into(), "code": code, "params": params}))
}

pub(super) fn bad_params(message: impl Into<String>) -> Answer {
    error(400, "BadParams", message, Value::Null)
}

pub(super) fn not_found(message: impl Into<String>) -> Answer {
    error(404, "NotFound", message, Value::Null)
}

pub(super) fn too_large() -> Answer {
    error(413, "BatchTooLarge", "Request body is larger than the maximum of 4MB", Value::Null)
}

pub(super) fn full(what: &str) -> Answer {
    error(503, "GenericError", format!("The simulator keeps no more {what}; reset it."), Value::Null)
}

/// The 400 for a body of the wrong shape: a path and what was expected there.
pub(super) fn bad_body(misfits: &[Misfit]) -> Answer {
    let params: serde_json::Map<String, Value> = misfits
        .iter()
        .take(MISFITS_MAX)
        .map(|misfit| {
            let text = match misfit.why {
                Why::Missing => "Required field missing".to_owned(),
                Why::Unknown => "Unknown field".to_owned(),
                Why::Expected(kind) => format!("{kind} value expected"),
            };
            (format!("obj{}", misfit.path), Value::String(text))
        })
        .collect();
    error(400, "BadJsonBody", "[/api] Invalid JSON body", Value::Object(params))
}

pub(super) fn throttled(endpoint: &str, project: u32, seconds: Option<u64>) -> Answer {
    let message = format!("Exceeded rate limit for endpoint: {endpoint}, project: {project}");
    let answer = error(429, "RateLimitExceeded", message, json!({}));
    match seconds {
        Some(seconds) => answer.with_header("retry-after", seconds.to_string()),
        None => answer,
    }
}
