//! `tailwater audit`: over the ledger, whether every record has an end.

use crate::cli::args::AuditArgs;
use crate::cli::{Error, Exit, Global};

/// # Errors
/// Always: the command is not part of this build.
pub fn execute(_args: &AuditArgs, _global: &Global) -> Result<Exit, Error> {
    Err(Error::NotInBuild { command: "audit" })
}
