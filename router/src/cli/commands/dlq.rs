//! `tailwater dlq`: works on dead letters.

use crate::cli::args::DlqArgs;
use crate::cli::{Error, Exit, Global};

/// # Errors
/// Always: the command is not part of this build.
pub fn execute(_args: &DlqArgs, _global: &Global) -> Result<Exit, Error> {
    Err(Error::NotInBuild { command: "dlq" })
}
