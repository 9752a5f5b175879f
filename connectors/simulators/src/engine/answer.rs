//! An answer of a vendor, before it becomes HTTP.

use serde_json::Value;

use super::observe::Effects;

/// An answer before it becomes HTTP.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Body,
    pub took: Took,
    /// What was accepted and dropped without a word: the client is not told, the journal is.
    pub dropped: Vec<String>,
}

#[derive(Debug, Clone)]
pub enum Body {
    Empty,
    Json(Value),
    Text(String),
}

/// Which items of the request took effect, for an observer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Took {
    /// All of them where the status is a success, none otherwise.
    ByStatus,
    /// [`Vendor::advance`](super::Vendor::advance) reports it when the work is done.
    Later,
    Exactly(Effects),
}

// === impl Answer ===

impl Answer {
    pub fn json(status: u16, media_type: &str, body: Value) -> Self {
        Self::new(status, vec![("content-type".into(), media_type.into())], Body::Json(body))
    }

    pub fn empty(status: u16) -> Self {
        Self::new(status, Vec::new(), Body::Empty)
    }

    pub fn new(status: u16, headers: Vec<(String, String)>, body: Body) -> Self {
        Self { status, headers, body, took: Took::ByStatus, dropped: Vec::new() }
    }

    #[must_use]
    pub fn with_header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    #[must_use]
    pub fn took(mut self, took: Took) -> Self {
        self.took = took;
        self
    }

    /// What took effect; `None` while that is open.
    pub(super) fn effects(&self) -> Option<Effects> {
        match &self.took {
            _ if !(200..300).contains(&self.status) => Some(Effects::Nothing),
            Took::ByStatus => Some(Effects::All),
            Took::Later => None,
            Took::Exactly(effects) => Some(effects.clone()),
        }
    }
}
