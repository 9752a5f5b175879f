//! Exit codes: what a script or Kubernetes learns from how a command ended. Part of the interface; `tailwater --help` lists them.

use std::process::ExitCode;

use tailwater_core::{Code, code};

/// How a command ended.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Everything is as it should be.
    Success = 0,
    /// The command did its work and found a problem (`validate`: an error; `audit`: something unaccounted), or it failed.
    Problem = 1,
    /// The command line was not understood. Given by the parser of arguments.
    Usage = 2,
    /// The configuration cannot be used.
    Configuration = 3,
    /// No Kafka broker answers.
    KafkaUnreachable = 4,
    /// `run` was asked to stop and something did not end in time. Nothing is lost: what was not committed is read again.
    NotDrained = 5,
    /// `status` found something that needs a person: paused, failing, stopped, waiting or stalled; `audit` found a pause or a source that is not read.
    Attention = 6,
    /// A bug in Tailwater.
    Internal = 70,
}

/// The table of `--help`.
pub const HELP: &str = "\
Exit codes:
   0  everything is as it should be
   1  a problem was found, or the command failed
   2  the command line was not understood
   3  the configuration cannot be used
   4  no Kafka broker answers
   5  stopped, but something did not end in time (nothing is lost)
   6  something needs attention (`status`: paused, failing, stopped, waiting or stalled; `audit`: paused, or a source is not read)
  70  a bug in tailwater";

impl Exit {
    /// The exit code that belongs to an error's code.
    pub fn of(code: Code) -> Self {
        match code {
            code::KAFKA_UNREACHABLE => Self::KafkaUnreachable,
            code if code.as_str().starts_with("config_") => Self::Configuration,
            _ => Self::Problem,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_stands_in_the_help() {
        use Exit::*;
        for exit in [Success, Problem, Usage, Configuration, KafkaUnreachable, NotDrained, Attention, Internal] {
            let number = (exit as u8).to_string();
            assert!(HELP.lines().any(|line| line.split_whitespace().next() == Some(&number)), "{exit:?}");
        }
    }

    #[test]
    fn an_error_code_leads_to_an_exit_code() {
        assert_eq!(Exit::of(code::KAFKA_UNREACHABLE), Exit::KafkaUnreachable);
        assert_eq!(Exit::of(code::CONFIG_UNREADABLE), Exit::Configuration);
        assert_eq!(Exit::of(code::TASK_FAILED), Exit::Problem);
    }
}
