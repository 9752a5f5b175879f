//! `tailwater status`: one screen about everything.

use crate::cli::args::StatusArgs;
use crate::cli::load::{Purpose, load};
use crate::cli::{Error, Exit, Global, output, progress};
use crate::operator::status::{Options, gather};

/// # Errors
/// The configuration cannot be used, or no broker answers.
pub fn execute(args: &StatusArgs, global: &Global) -> Result<Exit, Error> {
    let config = load(global, Purpose::Look)?;
    let options = Options { admin: args.admin.clone(), sample: args.sample };
    let status = gather(&config, &options, &mut progress::show).map_err(|error| Error::failed(error.code(), &error))?;
    progress::clear();
    if args.json {
        output::json(&status)?;
    } else {
        output::text(&status.to_text())?;
    }
    Ok(if status.fine { Exit::Success } else { Exit::Attention })
}
