//! The simulators as commands: one line per kind in [`KINDS`], and everything else follows from it.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use clap::{ArgMatches, Args, FromArgMatches, Subcommand};

use crate::engine::{self, Error, Vendor};
use crate::{customerio, iterable, klaviyo};

/// The simulators, in the order in which help shows them.
pub static KINDS: &[Kind] =
    &[Kind::of::<klaviyo::Command>(), Kind::of::<iterable::Command>(), Kind::of::<customerio::Command>()];

/// The arguments of one simulator. The doc comment of the type is the command's help.
pub trait Arguments: Args {
    type Vendor: Vendor;

    fn options(self) -> <Self::Vendor as Vendor>::Options;
}

type Running<'a> = Pin<Box<dyn Future<Output = Result<(), Error>> + 'a>>;
type Announce<'a> = Box<dyn FnOnce(&str) + Send + 'a>;
type Shutdown = Pin<Box<dyn Future<Output = ()> + Send>>;
type Run = for<'a> fn(&ArgMatches, Announce<'a>, Shutdown) -> Result<Running<'a>, clap::Error>;

/// One kind of simulator.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    pub name: &'static str,
    augment: fn(clap::Command) -> clap::Command,
    run: Run,
}

/// A simulator that a command line asks for.
#[derive(Debug, Clone)]
pub struct Command {
    kind: Kind,
    matches: ArgMatches,
}

/// Arguments that all simulators have.
#[derive(Debug, Args)]
pub struct Common {
    /// Leave the vendor's rate limits out.
    #[arg(long)]
    pub no_limits: bool,
    /// A file to which every request is appended as a line of JSON.
    #[arg(long, value_name = "FILE")]
    pub persist: Option<std::path::PathBuf>,
}

// === impl Kind ===

impl Kind {
    const fn of<A: Arguments>() -> Self {
        Self { name: A::Vendor::KIND, augment: A::augment_args, run: run::<A> }
    }
}

fn run<'a, A: Arguments>(
    matches: &ArgMatches,
    announce: Announce<'a>,
    shutdown: Shutdown,
) -> Result<Running<'a>, clap::Error> {
    let options = A::from_arg_matches(matches)?.options();
    Ok(Box::pin(engine::serve::<A::Vendor>(options, announce, shutdown)))
}

// === impl Command ===

impl Command {
    pub fn kind(&self) -> &'static str {
        self.kind.name
    }

    /// Runs the simulator until `shutdown` is ready; once it listens, `announce` gets the lines for a person.
    ///
    /// # Errors
    /// The address cannot be listened on, the file cannot be opened, or the server fails.
    pub async fn run(
        &self,
        announce: impl FnOnce(&str) + Send,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), Error> {
        let running = (self.kind.run)(&self.matches, Box::new(announce), Box::pin(shutdown));
        running.map_err(|error| Error::Arguments(error.to_string()))?.await
    }
}

impl FromArgMatches for Command {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let chosen = matches.subcommand().and_then(|(name, matches)| {
            let kind = KINDS.iter().find(|kind| kind.name == name)?;
            Some(Self { kind: *kind, matches: matches.clone() })
        });
        let chosen = chosen.ok_or_else(|| clap::Error::new(clap::error::ErrorKind::MissingSubcommand))?;
        Ok(chosen)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Subcommand for Command {
    fn augment_subcommands(command: clap::Command) -> clap::Command {
        KINDS
            .iter()
            .fold(command, |command, kind| command.subcommand((kind.augment)(clap::Command::new(kind.name))))
            .subcommand_required(true)
            .arg_required_else_help(true)
    }

    fn augment_subcommands_for_update(command: clap::Command) -> clap::Command {
        Self::augment_subcommands(command)
    }

    fn has_subcommand(name: &str) -> bool {
        KINDS.iter().any(|kind| kind.name == name)
    }
}

/// `ID=NAME` on a command line.
pub(crate) fn list(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((id, name)) if !id.is_empty() && !name.is_empty() => Ok((id.to_owned(), name.to_owned())),
        _ => Err("expected ID=NAME, such as WINBCK=Winback".to_owned()),
    }
}

/// A number of seconds on a command line.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.0..=86_400.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "expected a number of seconds, such as 2 or 0.5".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> clap::Command {
        Command::augment_subcommands(clap::Command::new("simulate"))
    }

    fn read(line: &str) -> Result<Command, clap::Error> {
        Command::from_arg_matches(&command().try_get_matches_from(line.split(' '))?)
    }

    #[test]
    fn every_kind_has_a_sound_command_with_help() {
        command().debug_assert();
        for kind in KINDS {
            let found = command().find_subcommand(kind.name).unwrap().clone();
            assert!(found.get_about().is_some(), "{}", kind.name);
            assert_eq!(
                read(&format!("simulate {} --listen 127.0.0.1:0 --no-limits", kind.name)).unwrap().kind(),
                kind.name
            );
        }
    }

    #[test]
    fn default_addresses_differ() {
        let addresses: std::collections::BTreeSet<_> = KINDS
            .iter()
            .map(|kind| {
                let command = command().find_subcommand(kind.name).unwrap().clone();
                let argument = command.get_arguments().find(|argument| argument.get_id() == "listen").unwrap().clone();
                argument.get_default_values()[0].clone()
            })
            .collect();
        assert_eq!(addresses.len(), KINDS.len());
    }

    #[test]
    fn what_makes_no_sense_is_a_usage_error() {
        for line in ["simulate klaviyo --list A", "simulate klaviyo --job-seconds -1", "simulate nobody"] {
            assert_eq!(read(line).map(|_| ()).unwrap_err().exit_code(), 2, "{line}");
        }
        read("simulate klaviyo --listen 127.0.0.1:0 --list A=One --list B=Two --no-limits --job-seconds 0.5").unwrap();
    }
}
