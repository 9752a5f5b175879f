//! `tailwater tap`: prints the records of a topic.

use crate::cli::args::TapArgs;
use crate::cli::{Error, Exit, Global};

/// # Errors
/// Always: the command is not part of this build.
pub fn execute(_args: &TapArgs, _global: &Global) -> Result<Exit, Error> {
    Err(Error::NotInBuild { command: "tap" })
}
