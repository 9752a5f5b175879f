//! `tailwater trace`: what became of a person's events, or of one event.

use crate::cli::args::TraceArgs;
use crate::cli::load::{Purpose, load};
use crate::cli::{Error, Exit, Global, output, progress};
use crate::operator::trace::{Found, Mention, trace};

/// Exit code 1 if nobody has the identifier, or there is no such event.
///
/// # Errors
/// The configuration cannot be used, or no broker answers.
pub fn execute(args: &TraceArgs, global: &Global) -> Result<Exit, Error> {
    let config = load(global, Purpose::Look)?;
    let found = trace(&config, &args.what, args.kind.as_deref(), &mut progress::show);
    progress::clear();
    match found? {
        Found::Story(story) => {
            if args.json {
                output::json(&story)?;
            } else {
                output::text(&story.to_string())?;
            }
            Ok(Exit::Success)
        }
        Found::Nobody { message, mentions } => {
            output::complaint(&format!("tailwater: {message}"));
            for mention in mentions.iter().map(Mention::of) {
                output::complaint(mention.to_string().trim_end());
            }
            Ok(Exit::Problem)
        }
    }
}
