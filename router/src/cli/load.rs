//! Loading the configuration for a command.

use std::path::Path;

use tailwater_core::code;
use tailwater_sandbox::{Options, Pool};

use super::{Error, Global};
use crate::config::{Broker, Checked, Config, LoadOptions, Problem, TransformProblem, check};

/// What a command needs the configuration for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To run, on this broker: every reference must resolve, every transform must parse.
    Run(Broker),
    /// To be judged: references that cannot be resolved here are warnings.
    Validate(Broker),
    /// To look at Kafka: transforms are not parsed, and the vendors' secrets may be elsewhere.
    Look,
}

/// The sections that a command needs whole to look at Kafka.
const NEEDED_TO_LOOK: &[&str] = &["workspace", "kafka", "identity", "state_dir"];

/// The configuration, for a command that cannot go on without it. Warnings are logged.
///
/// # Errors
/// All problems of the configuration.
pub fn load(global: &Global, purpose: Purpose) -> Result<Config, Error> {
    let Checked { config, problems } = checked(&global.config, purpose)?;
    let Some(config) = config else { return Err(Error::Configuration(problems)) };
    if purpose == Purpose::Look {
        let (needed, _): (Vec<Problem>, Vec<Problem>) = problems.into_iter().partition(is_needed_to_look);
        return if needed.is_empty() { Ok(config) } else { Err(Error::Configuration(needed)) };
    }
    for problem in problems {
        let hint = problem.hint.as_deref().unwrap_or_default();
        tracing::warn!(code = %problem.code, path = problem.path, line = problem.place.map(|place| place.line), hint, "{}", problem.message);
    }
    Ok(config)
}

/// Everything that there is to say about the configuration.
///
/// # Errors
/// The sandbox that parses transforms does not start.
pub fn checked(file: &Path, purpose: Purpose) -> Result<Checked, Error> {
    let (tolerate_unresolved, broker) = match purpose {
        Purpose::Run(broker) => (false, broker),
        Purpose::Validate(broker) => (true, broker),
        Purpose::Look => (true, Broker::Either),
    };
    let options = LoadOptions { tolerate_unresolved, broker, ..LoadOptions::default() };
    if purpose == Purpose::Look {
        return Ok(check(file, &options));
    }
    // One thread is enough to parse; the limits that matter are those of running.
    let pool = Pool::start(Options { threads: std::num::NonZero::<usize>::MIN, ..Options::default() })
        .map_err(|error| Error::failed(error.code(), &error))?;
    let parse = |name: &str, source: &str| match pool.load(name, source) {
        Ok(_) => Ok(()),
        Err(error) => Err(TransformProblem { code: error.code(), message: error.to_string() }),
    };
    Ok(check(file, &LoadOptions { check_transform: Some(&parse), ..options }))
}

/// A reference that could not be resolved, in a section without which Kafka cannot be looked at.
fn is_needed_to_look(problem: &Problem) -> bool {
    let section = problem.path.split(['.', '[']).next().unwrap_or_default();
    problem.code == code::CONFIG_SECRET_UNRESOLVED && NEEDED_TO_LOOK.contains(&section)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::cli::args::LogFormat;

    fn look(brokers: &str, api_key: &str) -> Result<Config, Error> {
        let folder = tempfile::tempdir().unwrap();
        let file: PathBuf = folder.path().join("tailwater.yaml");
        let text = format!(
            "version: 1\nworkspace: w\nkafka: {{ brokers: \"{brokers}\" }}\n\
             identity: {{ types: {{ email: {{ priority: 1, max: 5 }} }} }}\n\
             sources: {{ app: {{ type: kafka, kind: events, strict: false, identifiers: {{ email: email }} }} }}\n\
             accounts: {{ main: {{ type: klaviyo, api_key: \"{api_key}\" }} }}\n"
        );
        std::fs::write(&file, text).unwrap();
        load(&Global { config: file, log_format: LogFormat::Text, log_level: None }, Purpose::Look)
    }

    #[test]
    fn looking_at_kafka_needs_kafkas_secrets_and_no_others() {
        assert!(look("localhost:9092", "${env:TAILWATER_TEST_NOT_SET}").is_ok());
        let Err(Error::Configuration(problems)) =
            look("${env:TAILWATER_TEST_NOT_SET}", "${env:TAILWATER_TEST_NOT_SET}")
        else {
            panic!("brokers that are not known were accepted")
        };
        assert_eq!(problems.iter().map(|problem| problem.path.as_str()).collect::<Vec<_>>(), ["kafka.brokers"]);
    }
}
