//! The command line: from arguments to a command, from its end to an exit code.
//!
//! One file per command under `commands`, each with `execute(args, global) -> Result<Exit, Error>`. A command prints its result to standard
//! output and nothing else; logs, progress and errors go to standard error. Commands build a runtime themselves if they need one, because
//! V8 has to be initialised before any other thread exists.

pub mod args;
pub mod commands;
pub mod error;
pub mod exit;
pub mod load;
pub mod output;
mod progress;
mod runtime;
mod since;
mod templates;

use std::panic::{AssertUnwindSafe, catch_unwind};

use clap::Parser as _;

pub use self::args::{Cli, Command, Global};
pub use self::error::Error;
pub use self::exit::Exit;
pub use self::runtime::runtime;
pub use self::since::Since;
use crate::telemetry::logging;

/// Reads the arguments. `--help`, `--version` and what cannot be understood end the process here (0, 0 and 2).
pub fn parse() -> Cli {
    Cli::parse()
}

/// Sets up logging as the arguments say. Commands that print a result log warnings only, so that it is not buried.
///
/// # Errors
/// The filter cannot be read.
pub fn start_logging(cli: &Cli) -> Result<(), Error> {
    let default = match cli.command {
        Command::Run(_) | Command::Simulate(_) => logging::FILTER_DEFAULT,
        _ => "warn",
    };
    let filter = cli.global.log_level.as_deref().filter(|filter| !filter.trim().is_empty()).unwrap_or(default);
    logging::init(cli.global.log_format.into(), Some(filter)).map_err(|error| Error::failed(error.code(), &error))
}

/// Runs the command.
///
/// # Errors
/// The command could not do its work.
pub fn dispatch(cli: &Cli) -> Result<Exit, Error> {
    let global = &cli.global;
    match &cli.command {
        Command::Run(args) => commands::run::execute(args, global),
        Command::Validate(args) => commands::validate::execute(args, global),
        Command::Config(args) => commands::config::execute(args),
        Command::Init(args) => commands::init::execute(args),
        Command::Topics(args) => commands::topics::execute(args, global),
        Command::Tap(args) => commands::tap::execute(args, global),
        Command::Status(args) => commands::status::execute(args, global),
        Command::Audit(args) => commands::audit::execute(args, global),
        Command::Trace(args) => commands::trace::execute(args, global),
        Command::Dlq(args) => commands::dlq::execute(args, global),
        Command::Destinations(args) => commands::destinations::execute(args),
        Command::Probe(args) => commands::probe::execute(args, global),
        Command::Simulate(args) => commands::simulate::execute(args),
        Command::Completions(args) => commands::completions::execute(args),
    }
}

/// Does something and tells its end: errors on standard error, and an exit code. A panic is a bug and ends with 70.
pub fn report(action: impl FnOnce() -> Result<Exit, Error>) -> Exit {
    match catch_unwind(AssertUnwindSafe(action)) {
        Ok(Ok(exit)) => exit,
        Ok(Err(error)) => {
            if let Some(text) = error.report() {
                output::complaint(&text);
            }
            error.exit()
        }
        // The panic hook has logged what happened.
        Err(_) => Exit::Internal,
    }
}
