//! Standard output, which belongs to what a command prints. Logs and errors go to standard error.

use std::io::{self, Write as _};

use serde::Serialize;

use super::error::Error;

/// Writes a text as it is. A reader that went away is an error that ends the command quietly.
pub fn text(text: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Error::Output)
}

pub fn line(line: &str) -> Result<(), Error> {
    text(&format!("{line}\n"))
}

/// A text for a person on standard error.
pub fn complaint(text: &str) {
    // Where standard error is closed there is nobody left to tell.
    writeln!(io::stderr(), "{text}").ok();
}

/// One JSON value on one line, for programs.
pub fn json(value: &impl Serialize) -> Result<(), Error> {
    let json = serde_json::to_string(value).map_err(|error| Error::Output(error.into()))?;
    line(&json)
}
