//! `tailwater trace`: tells what became of a person's events.

use crate::cli::args::TraceArgs;
use crate::cli::{Error, Exit, Global};

/// # Errors
/// Always: the command is not part of this build.
pub fn execute(_args: &TraceArgs, _global: &Global) -> Result<Exit, Error> {
    Err(Error::NotInBuild { command: "trace" })
}
