//! `tailwater tap`: prints the records of a topic.

use std::io::{self, IsTerminal as _};

use crate::cli::args::{self, TapArgs};
use crate::cli::load::{Purpose, load};
use crate::cli::{Error, Exit, Global};
use crate::operator::tap::{self, Format, From, Options};

/// # Errors
/// The configuration cannot be used, there is no such topic, or no broker answers.
pub fn execute(args: &TapArgs, global: &Global) -> Result<Exit, Error> {
    let config = load(global, Purpose::Look)?;
    let options = Options {
        topic: args.topic.clone(),
        from: match args.from {
            args::From::Beginning => From::Beginning,
            args::From::End => From::End,
        },
        limit: args.limit,
        follow: args.follow,
        format: if args.json { Format::Json } else { Format::Text { lay_out: io::stdout().is_terminal() } },
    };
    tap::tap(&config, &options, &mut io::stdout().lock())?;
    Ok(Exit::Success)
}
