//! Loading the configuration for a command.

use tailwater_sandbox::{Options, Pool};

use super::{Error, Global};
use crate::config::{Checked, Config, LoadOptions, TransformProblem, check};

/// What a command needs the configuration for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To run: every reference must resolve, every transform must parse.
    Run,
    /// To be judged: references that cannot be resolved here are warnings.
    Validate,
    /// To look at Kafka: transforms are not parsed.
    Look,
}

/// The configuration, for a command that cannot go on without it. Warnings are logged.
///
/// # Errors
/// All problems of the configuration.
pub fn load(global: &Global, purpose: Purpose) -> Result<Config, Error> {
    let Checked { config, problems } = checked(global, purpose)?;
    let Some(config) = config else { return Err(Error::Configuration(problems)) };
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
pub fn checked(global: &Global, purpose: Purpose) -> Result<Checked, Error> {
    let options = LoadOptions { tolerate_unresolved: purpose == Purpose::Validate, ..LoadOptions::default() };
    if purpose == Purpose::Look {
        return Ok(check(&global.config, &options));
    }
    // One thread is enough to parse; the limits that matter are those of running.
    let pool = Pool::start(Options { threads: std::num::NonZero::<usize>::MIN, ..Options::default() })
        .map_err(|error| Error::failed(error.code(), &error))?;
    let parse = |name: &str, source: &str| match pool.load(name, source) {
        Ok(_) => Ok(()),
        Err(error) => Err(TransformProblem { code: error.code(), message: error.to_string() }),
    };
    Ok(check(&global.config, &LoadOptions { check_transform: Some(&parse), ..options }))
}
