//! Why a command could not do its work.

use std::io;

use tailwater_core::{Code, code};

use super::exit::Exit;
use crate::config::Problem;
use crate::runtime::supervisor::TaskError;

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
}

impl Error {
    /// An error of a lower layer, with the causes that its own message leaves out.
    pub fn failed(code: Code, error: &dyn std::error::Error) -> Self {
        let TaskError { code, message, .. } = TaskError::new(code, error);
        Self::Failed { code, message }
    }

    pub fn code(&self) -> Code {
        match self {
            Self::Configuration(problems) => problems
                .iter()
                .find(|problem| problem.is_error())
                .map_or(code::CONFIG_INVALID_VALUE, |problem| problem.code),
            Self::Failed { code, .. } => *code,
            Self::Output(_) => code::TASK_FAILED,
        }
    }

    pub fn exit(&self) -> Exit {
        match self {
            Self::Configuration(_) => Exit::Configuration,
            Self::Failed { code, .. } => Exit::of(*code),
            // Whoever reads our output may stop reading: `tailwater tap … | head`.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Success,
            Self::Output(_) => Exit::Problem,
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

impl From<crate::operator::Error> for Error {
    fn from(error: crate::operator::Error) -> Self {
        match error {
            crate::operator::Error::Output(error) => Self::Output(error),
            other => Self::failed(other.code(), &other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Path;

    #[test]
    fn an_end_of_reading_is_no_failure() {
        let error = Error::Output(io::ErrorKind::BrokenPipe.into());
        assert_eq!((error.exit(), error.report()), (Exit::Success, None));
        assert_eq!(Error::Output(io::ErrorKind::StorageFull.into()).exit(), Exit::Problem);
    }

    #[test]
    fn a_broken_configuration_is_told_whole() {
        let problem = |path| Problem::error(code::CONFIG_MISSING_KEY, &Path::of([path]), "the key is missing");
        let error = Error::Configuration(vec![problem("kafka"), problem("sources")]);
        assert_eq!((error.exit(), error.code()), (Exit::Configuration, code::CONFIG_MISSING_KEY));
        let report = error.report().unwrap();
        assert!(
            report.contains("kafka: ") && report.contains("sources: ") && report.contains("tailwater validate"),
            "{report}"
        );
    }

    #[test]
    fn the_causes_of_an_error_are_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("could not read the folder")]
        struct Outer(#[source] io::Error);
        let error = Error::failed(code::KAFKA_UNREACHABLE, &Outer(io::Error::other("no such folder")));
        assert_eq!(error.to_string(), "could not read the folder: no such folder");
        assert_eq!(error.exit(), Exit::KafkaUnreachable);
    }
}
