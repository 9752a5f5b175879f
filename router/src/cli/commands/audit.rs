//! `tailwater audit`: over the ledger, whether every record has an end.

use std::time::Duration;

use tailwater_core::code;

use crate::cli::args::AuditArgs;
use crate::cli::load::{Purpose, load};
use crate::cli::{Error, Exit, Global, output, progress};
use crate::operator::audit::{Audit, audit};
use crate::runtime::clock::now;

/// The pause between two looks with `--follow`.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(1);

/// # Errors
/// The configuration cannot be used, or no broker answers.
pub fn execute(args: &AuditArgs, global: &Global) -> Result<Exit, Error> {
    let config = load(global, Purpose::Look)?;
    let since = args.since.map(|since| since.from(now()));
    let mut shown: Option<Audit> = None;
    loop {
        let found = audit(&config, since, &mut progress::show).map_err(|error| Error::failed(error.code(), &error))?;
        progress::clear();
        if shown.as_ref() != Some(&found) {
            if args.json { output::json(&found)? } else { output::text(&found.to_text())? }
        }
        if !args.follow || !found.is_moving() {
            if found.unaccounted() > 0 {
                return Err(Error::Failed {
                    code: code::UNACCOUNTED,
                    message: format!("{} records have no end and are nowhere", found.unaccounted()),
                });
            }
            // What a pause holds back is accounted for, and stays where it is until somebody acts.
            return Ok(if found.paused.is_empty() { Exit::Success } else { Exit::Attention });
        }
        shown = Some(found);
        std::thread::sleep(FOLLOW_INTERVAL);
    }
}
