//! `tailwater completions`: a script for the shell.

use clap::CommandFactory as _;

use crate::cli::args::{Cli, CompletionsArgs};
use crate::cli::{Error, Exit, output};

/// # Errors
/// Standard output is closed.
pub fn execute(args: &CompletionsArgs) -> Result<Exit, Error> {
    // Into memory first: the generator panics when its writer fails, as a closed pipe does.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "tailwater", &mut script);
    output::text(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Success)
}
