//! `tailwater config`: the schema and the reference, generated from the types that read the file.

use crate::cli::args::{ConfigArgs, ConfigCommand};
use crate::cli::{Error, Exit, output};
use crate::config::{page, schema};

/// # Errors
/// Standard output is closed.
pub fn execute(args: &ConfigArgs) -> Result<Exit, Error> {
    match args.command {
        ConfigCommand::Schema => output::text(&schema::text())?,
        ConfigCommand::Reference => output::text(&page())?,
    }
    Ok(Exit::Success)
}
