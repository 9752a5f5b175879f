//! How a task and how the process ended: values that are told to people and turned into exit codes elsewhere.

use std::fmt;

use tailwater_core::Code;

use crate::kafka;

/// Why a task failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TaskError {
    pub code: Code,
    /// The error with its causes.
    pub message: String,
    /// Whether it passes by itself, so that the task may start again.
    pub recoverable: bool,
}

/// Why the process ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// Somebody asked for it: a signal, or a part that is done.
    Requested(String),
    /// Every task that had something to do has done it.
    Finished,
    /// A task failed.
    Failed { task: String, error: TaskError },
    /// A task panicked.
    Panicked { task: String, message: String },
}

/// How the process ended.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitReason {
    pub cause: Cause,
    /// Tasks that had not ended when their time was up. They lost nothing: what was not committed is read again.
    pub undrained: Vec<String>,
}

// === impl TaskError ===

impl TaskError {
    /// An error with all its causes in one sentence.
    pub fn new(code: Code, error: &dyn std::error::Error) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(next) = cause {
            let text = next.to_string();
            // Many errors repeat their cause; once is enough.
            if !message.contains(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            cause = next.source();
        }
        Self { code, message, recoverable: false }
    }

    /// One that a new start does not cure.
    pub const fn fatal(code: Code, message: String) -> Self {
        Self { code, message, recoverable: false }
    }
}

impl From<kafka::Error> for TaskError {
    fn from(error: kafka::Error) -> Self {
        Self { recoverable: error.is_recoverable(), ..Self::new(error.code(), &error) }
    }
}

// === impl ExitReason ===

impl ExitReason {
    /// 0 when the process ended as it was asked to, 1 when a part failed, 3 when something did not drain in time.
    pub fn exit_code(&self) -> u8 {
        match &self.cause {
            Cause::Failed { .. } | Cause::Panicked { .. } => 1,
            Cause::Requested(_) | Cause::Finished if self.undrained.is_empty() => 0,
            Cause::Requested(_) | Cause::Finished => 3,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requested(reason) => f.write_str(reason),
            Self::Finished => f.write_str("everything is done"),
            Self::Failed { task, error } => write!(f, "{task} failed with {}: {error}", error.code),
            Self::Panicked { task, message } => write!(f, "{task} panicked: {message}"),
        }
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)?;
        if self.undrained.is_empty() {
            Ok(())
        } else {
            write!(f, "; did not end in time: {}", self.undrained.join(", "))
        }
    }
}
