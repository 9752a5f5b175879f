//! What can be wrong with a destination before it delivers anything: its configuration or its client. What goes wrong with a
//! delivery is no error but an outcome.

use tailwater_core::{Code, code};

/// One thing that is wrong in a configuration: where, what was expected, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub code: Code,
    /// The field below the account or the destination: `base_url`.
    pub path: String,
    pub message: String,
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
}

// === impl Problem ===

impl Problem {
    pub fn new(code: Code, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code, path: path.into(), message: message.into() }
    }
}

// === impl Error ===

impl Error {
    pub fn code(&self) -> Code {
        match self {
            Self::Config(problems) => problems.first().map_or(code::CONFIG_INVALID_VALUE, |problem| problem.code),
            Self::Client(_) => code::TASK_FAILED,
        }
    }
}

fn join(problems: &[Problem]) -> String {
    let lines: Vec<_> = problems.iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect();
    lines.join("; ")
}
