//! `tailwater topics`: shows or makes the topics that the configuration needs.

use crate::cli::args::TopicsArgs;
use crate::cli::{Error, Exit, Global};

/// # Errors
/// Always: the command is not part of this build.
pub fn execute(_args: &TopicsArgs, _global: &Global) -> Result<Exit, Error> {
    Err(Error::NotInBuild { command: "topics" })
}
