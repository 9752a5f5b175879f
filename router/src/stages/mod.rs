//! The stages of the flow: `source → ingest → resolve → route → send`.
//!
//! Each stage is a loop on a thread of its own that owns its clients and its state. It takes a batch, decides, and commits outputs,
//! state, ledger and offsets in one transaction; whatever goes wrong, the batch is read again. Decisions live in pure modules beside
//! the loops, so that they can be tested without Kafka.
//!
//! A stage never drops a record: it goes on to the next topic, into state, into a dead-letter topic, or stays where it is.

pub mod resolve;
pub mod route;
pub mod send;
pub mod shared;
pub mod source;

use std::time::Duration;

use tailwater_core::Code;

use crate::runtime::supervisor::TaskError;
use crate::{kafka, state};

/// Why a stage stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    #[error(transparent)]
    State(#[from] state::Error),
    #[error("the stage cannot go on: {message}")]
    Invalid { code: Code, message: String },
}

impl Error {
    pub fn code(&self) -> Code {
        match self {
            Self::Kafka(error) => error.code(),
            Self::State(error) => error.code(),
            Self::Invalid { code, .. } => *code,
        }
    }

    /// Whether the stage may start again from its last commit. Everything else needs a person, so the process ends.
    pub const fn is_recoverable(&self) -> bool {
        match self {
            Self::Kafka(error) | Self::State(state::Error::Kafka(error)) => error.is_recoverable(),
            Self::State(_) | Self::Invalid { .. } => false,
        }
    }
}

impl From<Error> for TaskError {
    fn from(error: Error) -> Self {
        Self { recoverable: error.is_recoverable(), ..Self::new(error.code(), &error) }
    }
}

impl From<fjall::Error> for Error {
    fn from(error: fjall::Error) -> Self {
        Self::State(error.into())
    }
}

/// How long a stage waits for work before it looks after its other duties (reload, shutdown, heartbeats).
pub const IDLE_WAIT: Duration = Duration::from_millis(50);
