//! What a command is doing, on one line of standard error, where that is a terminal.

use std::io::{self, IsTerminal as _, Write as _};

/// Tells what is being done; it replaces what was told before.
pub fn show(what: &str) {
    if io::stderr().is_terminal() {
        // Progress is a courtesy; a closed terminal must not end the command.
        write!(io::stderr(), "\r\x1b[2K{what} …").ok();
    }
}

/// Takes the line away before a result is printed.
pub fn clear() {
    if io::stderr().is_terminal() {
        write!(io::stderr(), "\r\x1b[2K").ok();
    }
}
