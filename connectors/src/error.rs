//! What can be wrong with a destination before it delivers anything: its configuration or its client. What goes wrong with a
//! delivery is no error but an outcome.

use std::fmt;

use tailwater_core::{Code, code};

/// Whether the configuration can be used in spite of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Error,
    Warning,
}

/// One thing that is wrong in a configuration: where, what was expected, and what to do. It never quotes a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub severity: Severity,
    pub code: Code,
    /// The way to it below the account or the destination: `base_url`, or `identifiers` and `email`.
    pub path: Vec<String>,
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// All problems at once, never the first alone.
    #[error("{}", join(.0))]
    Config(Vec<Problem>),
    /// The platform's TLS or resolver could not be set up.
    #[error("could not set up the HTTP client: {0}")]
    Client(String),
    /// Settings of one kind of destination were handed to another: a mistake of ours.
    #[error("settings of another kind were handed to a destination of the kind `{kind}`")]
    Kind { kind: &'static str },
}

// === impl Problem ===

impl Problem {
    pub fn new(code: Code, key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, code, path: vec![key.into()], message: message.into(), hint: None }
    }

    pub fn warning(code: Code, key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::new(code, key, message) }
    }

    /// The problem lies further down: at a key of the section or the map.
    #[must_use]
    pub fn below(mut self, key: impl Into<String>) -> Self {
        self.path.push(key.into());
        self
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// `identifiers.email`, for people.
    pub fn place(&self) -> String {
        self.path.join(".")
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place(), self.message)?;
        self.hint.iter().try_for_each(|hint| write!(f, " ({hint})"))
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

// === impl Error ===

impl Error {
    pub fn code(&self) -> Code {
        match self {
            Self::Config(problems) => problems.first().map_or(code::CONFIG_INVALID_VALUE, |problem| problem.code),
            Self::Client(_) | Self::Kind { .. } => code::TASK_FAILED,
        }
    }

    /// The configuration's errors, if there are any among its problems.
    ///
    /// # Errors
    /// At least one of the problems is an error.
    pub fn unless_usable(problems: Vec<Problem>) -> Result<(), Self> {
        if problems.iter().any(Problem::is_error) { Err(Self::Config(problems)) } else { Ok(()) }
    }
}

fn join(problems: &[Problem]) -> String {
    let lines: Vec<_> = problems.iter().map(Problem::to_string).collect();
    lines.join("; ")
}
