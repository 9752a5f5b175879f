//! What the vendor says: statuses, headers and the JSON:API envelope of errors, as recorded from the live service.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use crate::engine::Answer;

/// The media type of every body.
pub(super) const MEDIA_TYPE: &str = "application/vnd.api+json";

/// Problems that one answer lists; more are cut off.
const PROBLEMS_MAX: usize = 100;

/// One element of `errors`.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    pub status: u16,
    pub code: Cow<'static, str>,
    pub title: &'static str,
    pub detail: String,
    pub source: Source,
    pub meta: Value,
    pub links: Value,
}

#[derive(Debug, Clone)]
pub(super) enum Source {
    Pointer(String),
    Parameter(&'static str),
}

/// A success with the vendor's media type.
pub(super) fn json(status: u16, body: Value) -> Answer {
    Answer::json(status, MEDIA_TYPE, body)
}

/// All problems under the status of the first.
pub(super) fn problems(problems: &[Problem]) -> Answer {
    let status = problems.first().map_or(400, |problem| problem.status);
    let errors: Vec<Value> = problems.iter().take(PROBLEMS_MAX).map(Problem::to_json).collect();
    json(status, json!({ "errors": errors }))
}

/// The documented 429: `retry-after` in whole seconds and none of the `ratelimit-*` headers.
pub(super) fn throttled(seconds: u64) -> Answer {
    let unit = if seconds == 1 { "second" } else { "seconds" };
    let mut problem = Problem::new(
        429,
        "throttled",
        "Request was throttled.",
        format!("Request was throttled. Expected available in {seconds} {unit}."),
        "/data",
    );
    problem.links =
        json!({"type": "https://developers.klaviyo.com/en/docs/rate_limits_and_error_handling#rate-limits"});
    problems(&[problem]).with_header("retry-after", seconds.to_string())
}

/// The limit of the simulator's own capacity; not an answer of the vendor.
pub(super) fn full(what: &str, max: usize) -> Answer {
    Problem::new(
        503,
        "simulator_full",
        "The simulator is full.",
        format!("The simulator keeps at most {max} {what}; reset it."),
        "/data",
    )
    .into()
}

impl From<Problem> for Answer {
    fn from(problem: Problem) -> Self {
        problems(&[problem])
    }
}

// === impl Problem ===

impl Problem {
    pub fn new(
        status: u16,
        code: impl Into<Cow<'static, str>>,
        title: &'static str,
        detail: impl Into<String>,
        pointer: impl Into<String>,
    ) -> Self {
        Self {
            status,
            code: code.into(),
            title,
            detail: detail.into(),
            source: Source::Pointer(pointer.into()),
            meta: Value::Array(Vec::new()),
            links: Value::Array(Vec::new()),
        }
    }

    pub fn invalid(detail: impl Into<String>, pointer: impl Into<String>) -> Self {
        Self::new(400, "invalid", "Invalid input.", detail, pointer)
    }

    pub fn parameter(detail: impl Into<String>, parameter: &'static str) -> Self {
        Self { source: Source::Parameter(parameter), ..Self::invalid(detail, "") }
    }

    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(404, "not_found", "Not found.", detail, "/data/")
    }

    pub fn duplicate_profile(id: &str, pointer: impl Into<String>) -> Self {
        let mut problem = Self::new(
            409,
            "duplicate_profile",
            "Conflict.",
            "A profile already exists with one of these identifiers.",
            pointer,
        );
        problem.meta = json!({ "duplicate_profile_id": id });
        problem
    }

    fn to_json(&self) -> Value {
        let mut source = Map::new();
        match &self.source {
            Source::Pointer(pointer) => source.insert("pointer".into(), Value::String(pointer.clone())),
            Source::Parameter(name) => source.insert("parameter".into(), Value::String((*name).to_owned())),
        };
        json!({
            "id": uuid::Uuid::new_v4().to_string(),
            "status": self.status,
            "code": self.code,
            "title": self.title,
            "detail": self.detail,
            "source": source,
            "links": self.links,
            "meta": self.meta,
        })
    }

    /// The element of a bulk job's `import-errors` for a profile that could not be imported.
    pub fn to_import_error(&self, payload: &Value) -> Value {
        let pointer = match &self.source {
            Source::Pointer(pointer) => pointer.as_str(),
            Source::Parameter(_) => "/data",
        };
        json!({
            "type": "import-error",
            "id": uuid::Uuid::new_v4().to_string(),
            "attributes": {
                "code": self.code,
                "title": self.title,
                "detail": self.detail,
                "source": {"pointer": pointer},
                "original_payload": payload,
            },
        })
    }
}
