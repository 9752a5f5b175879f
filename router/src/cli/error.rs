//! Why a command could not do its work.

use std::io;

use tailwater_core::{Code, code};

use super::exit::Exit;
use crate::config::Problem;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration has errors; all of them, and warnings.
    #[error("the configuration cannot be used")]
    Configuration(Vec<Problem>),
    /// Something below failed and has said all that there is to say.
    #[error("{message}")]
    Failed { code: Code, message: String },
    #[error("could not write to standard output: {0}")]
    Output(#[source] io::Error),
    #[error("`tailwater {command}` is not part of this build")]
    NotInBuild { command: &'static str },
}

impl Error {
    /// An error of a lower layer, with the causes that its own message leaves out.
    pub fn failed(code: Code, error: &dyn std::error::Error) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(next) = cause {
            let text = next.to_string();
            if !message.contains(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            cause = next.source();
        }
        Self::Failed { code, message }
    }

    pub fn code(&self) -> Code {
        match self {
            Self::Configuration(problems) => problems
                .iter()
                .find(|problem| problem.is_error())
                .map_or(code::CONFIG_INVALID_VALUE, |problem| problem.code),
            Self::Failed { code, .. } => *code,
            Self::Output(_) | Self::NotInBuild { .. } => code::TASK_FAILED,
        }
    }

    pub fn exit(&self) -> Exit {
        match self {
            Self::Configuration(_) => Exit::Configuration,
            Self::Failed { code, .. } => Exit::of(*code),
            // Whoever reads our output may stop reading: `tailwater tap … | head`.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Success,
            Self::Output(_) => Exit::Problem,
            Self::NotInBuild { .. } => Exit::Internal,
        }
    }

    /// What a person is told on standard error; `None` where there is nothing to tell.
    pub fn report(&self) -> Option<String> {
        match self {
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => None,
            Self::Configuration(problems) => {
                let mut lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
                lines.push(
                    "tailwater: the configuration cannot be used; `tailwater validate` checks it without a network"
                        .to_owned(),
                );
                Some(lines.join("\n"))
            }
            _ => Some(format!("tailwater: error[{}]: {self}", self.code())),
        }
    }
}
