//! What can be said on the command line. The comments are the help texts.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::exit;
use super::since::Since;
use crate::telemetry::logging::Format;

/// Carries what a data team computes in Delta tables to the tools that act on it, through Kafka, and loses nothing on the way.
#[derive(Debug, Parser)]
#[command(name = "tailwater", version, propagate_version = true, arg_required_else_help = true, after_help = AFTER_HELP, max_term_width = 110)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = const_str(&concat_help());

/// The examples and the exit codes, joined when the program is compiled.
const fn concat_help() -> [u8; EXAMPLES.len() + exit::HELP.len()] {
    let mut joined = [0; EXAMPLES.len() + exit::HELP.len()];
    let mut index = 0;
    while index < joined.len() {
        joined[index] = if index < EXAMPLES.len() {
            EXAMPLES.as_bytes()[index]
        } else {
            exit::HELP.as_bytes()[index - EXAMPLES.len()]
        };
        index += 1;
    }
    joined
}

const fn const_str(bytes: &'static [u8]) -> &'static str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(_) => "",
    }
}

const EXAMPLES: &str = "\
Begin:
  tailwater init --template winback winback    lay out an example
  tailwater validate                           find everything that is wrong, without a network
  tailwater run --dry-run                      do everything but the calls, and show them
  tailwater run                                run every stage in one process

Look:
  tailwater status                             what works, what does not, and how far is it behind?
  tailwater audit                              does every record have an end?
  tailwater trace ana@example.com              why was this person's event held, skipped or delivered?
  tailwater tap resolved --limit 5             what do the records look like?
  tailwater dlq list                           what could not be delivered, and why?
  tailwater destinations                       which kinds of destination are there, and what can each do?
  tailwater probe                              do the credentials of every account work?

";

/// Options of every command.
#[derive(Debug, Args)]
pub struct Global {
    /// The configuration file.
    #[arg(long, short, global = true, env = "TAILWATER_CONFIG", default_value = "tailwater.yaml", value_name = "FILE")]
    pub config: PathBuf,
    /// How log lines are written to standard error.
    #[arg(long, global = true, env = "TAILWATER_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text, help_heading = "Logging")]
    pub log_format: LogFormat,
    /// What is logged: a level (error, warn, info, debug, trace), or levels by part: info,tailwater=debug. Default: info for `run` and
    /// `simulate`, warn otherwise.
    #[arg(long, global = true, env = "TAILWATER_LOG", value_name = "FILTER", help_heading = "Logging")]
    pub log_level: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One readable line an event.
    Text,
    /// One JSON object an event.
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Run(RunArgs),
    Validate(ValidateArgs),
    Config(ConfigArgs),
    Init(InitArgs),
    Topics(TopicsArgs),
    Tap(TapArgs),
    Status(StatusArgs),
    Audit(AuditArgs),
    Trace(TraceArgs),
    Dlq(DlqArgs),
    Destinations(DestinationsArgs),
    Probe(ProbeArgs),
    Simulate(SimulateArgs),
    Completions(CompletionsArgs),
}

/// Run the stages until the process is asked to stop.
///
/// After SIGTERM or SIGINT no request to a vendor is started any more. Requests that are in flight end, what became of them is committed,
/// and the process ends: at once if nothing is in flight, after `--grace` at the latest. A second signal ends it at once. Neither loses
/// anything; what was not committed is read again, and a request whose answer did not come in time is made again. The transforms and conditions of the configuration are reloaded when their files change.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The stages that this process runs, separated by commas. Default: all of them.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "ROLES")]
    pub roles: Vec<Role>,
    /// Do everything but the calls to vendors, and print the requests that would be sent.
    #[arg(long)]
    pub dry_run: bool,
    /// How long what has begun may take to end after SIGTERM or SIGINT. Keep it some seconds below what the orchestrator grants before
    /// it kills the process.
    #[arg(long, env = "TAILWATER_GRACE", value_name = "PERIOD", default_value = "25s", value_parser = grace)]
    pub grace: std::time::Duration,
    /// Start a broker as a child process, with its data in `<state_dir>/broker`. It listens at `kafka.brokers` (127.0.0.1:9092 if that is
    /// not set), where every other command finds it too.
    #[arg(long)]
    pub embedded: bool,
    /// Another program for the embedded broker. Default: Apache Kafka, which needs Java 17 and is fetched once, with Maven.
    #[arg(long, env = "TAILWATER_BROKER", value_name = "PATH", requires = "embedded")]
    pub broker_binary: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Reads tables into `ingest.*`.
    Source,
    /// Finds out whose event it is: `ingest.*` to `resolved`. One process of a workspace does this; a second one waits.
    Resolve,
    /// Runs conditions and transforms: `resolved` to `outbound.*`.
    Route,
    /// Delivers `outbound.*` to the vendors.
    Send,
}

/// Check the configuration and report everything that is wrong with it.
///
/// Needs no network. References that cannot be resolved here are warnings, because a configuration is checked where its secrets
/// are not; `run` takes them for errors. Exit code 1 if there is an error.
#[derive(Debug, Args)]
pub struct ValidateArgs {
    /// The configuration file; it wins over `--config`.
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Print the problems as JSON: an object with `valid` and `problems`.
    #[arg(long)]
    pub json: bool,
    /// Take warnings for errors.
    #[arg(long)]
    pub strict: bool,
    /// Check it for `run --embedded`: refuse what the embedded broker cannot promise.
    #[arg(long)]
    pub embedded: bool,
}

/// Print the configuration's schema or its reference.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    pub command: ConfigCommand,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum ConfigCommand {
    /// The JSON Schema, for editors: tailwater config schema > tailwater.schema.json
    Schema,
    /// The reference of all keys, as Markdown.
    Reference,
}

/// Lay out a new project in a folder.
///
/// Files that are there already are never overwritten: then nothing is written, and they are named.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// What to lay out.
    #[arg(long, value_parser = templates(), default_value = "minimal")]
    pub template: String,
    /// The folder; it is made if it does not exist.
    #[arg(default_value = ".")]
    pub dir: PathBuf,
}

/// The kinds of destination that there are.
fn kinds() -> clap::builder::PossibleValuesParser {
    tailwater_connectors::registry::KINDS.iter().map(|kind| kind.spec().kind).collect::<Vec<_>>().into()
}

/// The examples under `deploy/examples`, each with the first line of its `init.txt`.
fn templates() -> clap::builder::PossibleValuesParser {
    let values = super::templates::TEMPLATES.iter();
    values
        .map(|template| clap::builder::PossibleValue::new(template.name).help(template.summary))
        .collect::<Vec<_>>()
        .into()
}

/// Show or make the topics that the configuration needs.
#[derive(Debug, Args)]
pub struct TopicsArgs {
    #[command(subcommand)]
    pub command: TopicsCommand,
}

#[derive(Debug, Subcommand)]
pub enum TopicsCommand {
    /// Print what is missing or different, and change nothing. Exit code 1 if there is something.
    Plan(TopicsPlanArgs),
    /// Create what is missing. What is there with other settings is reported and left alone.
    Apply(TopicsPlanArgs),
}

#[derive(Debug, Args)]
pub struct TopicsPlanArgs {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Print the records of a topic, with the header decoded.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tailwater tap resolved --limit 5\n  tailwater tap outbound.crm --from end --follow\n  tailwater tap deliveries --json | jq .value"
)]
pub struct TapArgs {
    /// The topic, with or without the workspace's prefix: `resolved`, `ingest.orders`, `tailwater.deliveries`.
    pub topic: String,
    /// Where to begin. `end` shows the last 10 records, or as many as `--limit` says; with `--follow` only new ones.
    #[arg(long, value_enum, default_value_t = From::Beginning)]
    pub from: From,
    /// End after this many records.
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
    /// Wait for new records at the end of the topic.
    #[arg(long, short)]
    pub follow: bool,
    /// Print one JSON object a record.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum From {
    Beginning,
    End,
}

/// Show on one screen what works, what does not, and how far each part is behind.
///
/// Per source, route and destination: its state (paused, failing, stopped, waiting, stalled, throttled, running, idle) with the reason, the
/// records that are left (lag), the rate, when it is through at this rate, what waits for the destination's key, and open dead letters.
/// It reads Kafka, so it works from any machine and also when no process runs; processes whose admin endpoint answers add what only they
/// know. Exit code 0 if everything is fine (throttled is: it passes by itself), 6 if something needs attention.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tailwater status\n  tailwater status --admin 10.0.0.7:9464 --admin 10.0.0.8:9464\n  tailwater status --json | jq '.destinations[] | select(.state == \"failing\")'"
)]
pub struct StatusArgs {
    /// The admin endpoint of a process to ask as well; may be given several times. Default: `admin.listen`, if something answers there.
    #[arg(long, value_name = "ADDRESS")]
    pub admin: Vec<SocketAddr>,
    /// How long the rates are measured.
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "2")]
    pub sample: std::time::Duration,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Prove that every record has an end.
///
/// Per source and destination, with the routes between them: what came in, and what of it was delivered, skipped, dead-lettered, is held
/// or in flight. What has none of these ends is *unaccounted*; it must be 0, otherwise the exit code is 1 and the coordinates are printed.
/// A route that is paused is named, with its reason, and the exit code is 6.
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// Only records since then: 2h, 7d, 2026-03-01, 2026-03-01T08:00:00Z. Default: all that Kafka still has.
    #[arg(long, value_name = "WHEN")]
    pub since: Option<Since>,
    /// Print the audit anew when it changes, until nothing is in flight.
    #[arg(long, short)]
    pub follow: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Tell what became of a person's events, or of one event.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tailwater trace ana@example.com\n  tailwater trace customer_id=cust_00042\n  tailwater trace cust_00042 --type customer_id\n  tailwater trace 5f0c1d2e3a4b5c6d7e8f901234567890"
)]
pub struct TraceArgs {
    /// An identifier of the person, the profile's id, or an event's id (32 hexadecimal digits).
    #[arg(value_name = "IDENTIFIER | EVENT")]
    pub what: String,
    /// The type of the identifier. Default: every type for which the value is possible.
    #[arg(long = "type", value_name = "TYPE")]
    pub kind: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Work on dead letters: records that could not be decoded, resolved or delivered.
#[derive(Debug, Args)]
pub struct DlqArgs {
    #[command(subcommand)]
    pub command: DlqCommand,
}

#[derive(Debug, Subcommand)]
pub enum DlqCommand {
    List(DlqListArgs),
    Show(DlqShowArgs),
    Replay(DlqReplayArgs),
    Discard(DlqDiscardArgs),
}

/// List dead letters, newest last, with their reasons.
#[derive(Debug, Args)]
pub struct DlqListArgs {
    #[command(flatten)]
    pub selection: Selection,
    /// Show at most this many.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub limit: u64,
    /// Also those that were replayed or discarded.
    #[arg(long)]
    pub all_states: bool,
    /// Print one JSON object a record.
    #[arg(long)]
    pub json: bool,
}

/// Show one dead letter whole: key, value, headers, and why it is one.
#[derive(Debug, Args)]
pub struct DlqShowArgs {
    /// The record, as `dlq list` names it: destination.crm/3/42
    #[arg(value_name = "RECORD")]
    pub record: RecordRef,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Send dead letters again, to the stage that refused them and to that destination only.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tailwater dlq replay destination.crm/3/42\n  tailwater dlq replay --all --destination crm --code missing_column --dry-run\n  tailwater dlq replay --all --code field_type_mismatch --transform"
)]
pub struct DlqReplayArgs {
    #[command(flatten)]
    pub which: Which,
    /// Also those that were replayed so often that they count as poison.
    #[arg(long)]
    pub force: bool,
    /// Run the transform again, on the row as its source brought it: for letters that the vendor refused, after the transform was
    /// corrected. Otherwise the vendor gets what was made for it before.
    #[arg(long)]
    pub transform: bool,
    /// Only say what would be replayed.
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask. Nobody is asked either where standard input is no terminal.
    #[arg(long, short)]
    pub yes: bool,
}

/// Give dead letters up: the audit counts their records as skipped (`discarded`).
#[derive(Debug, Args)]
pub struct DlqDiscardArgs {
    #[command(flatten)]
    pub which: Which,
    /// Why; it is kept with the record.
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Only say what would be discarded.
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask. Nobody is asked either where standard input is no terminal.
    #[arg(long, short)]
    pub yes: bool,
}

/// Single dead letters, or all that a selection holds.
#[derive(Debug, Args)]
pub struct Which {
    /// The records, as `dlq list` names them.
    #[arg(value_name = "RECORD", required_unless_present = "all")]
    pub records: Vec<RecordRef>,
    /// All dead letters, or all that the options below select.
    #[arg(long, conflicts_with = "records")]
    pub all: bool,
    #[command(flatten)]
    pub selection: Selection,
}

/// Which dead letters.
#[derive(Debug, Args)]
pub struct Selection {
    /// Those of this destination.
    #[arg(long, value_name = "NAME")]
    pub destination: Option<String>,
    /// Those of this source: what could not be decoded or resolved.
    #[arg(long, value_name = "NAME", conflicts_with = "destination")]
    pub source: Option<String>,
    /// Those with this error code.
    #[arg(long, value_name = "CODE", value_parser = error_code)]
    pub code: Option<tailwater_core::Code>,
    /// Those since then: 2h, 7d, 2026-03-01.
    #[arg(long, value_name = "WHEN")]
    pub since: Option<Since>,
}

/// Show the kinds of destination: what each can do, its limits, and whether a repeat is harmless.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct DestinationsArgs {
    #[command(subcommand)]
    pub command: Option<DestinationsCommand>,
    /// Print JSON: one object per kind.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum DestinationsCommand {
    /// One kind in full: its operations, its limits, and the keys of its configuration.
    Show(DestinationsShowArgs),
}

#[derive(Debug, Args)]
pub struct DestinationsShowArgs {
    /// The kind, as the `type` of an account names it.
    #[arg(value_parser = kinds())]
    pub kind: String,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Check every account of the configuration at its vendor, and change nothing there.
///
/// Each destination asks its vendor whether its credentials are valid for that address and reach as far as they must. Exit code 1 if one
/// of them fails; each line says what is wrong and what to do.
#[derive(Debug, Args)]
pub struct ProbeArgs {
    /// Only these destinations. Default: all.
    #[arg(value_name = "DESTINATION")]
    pub destinations: Vec<String>,
    /// Print JSON: one object per line.
    #[arg(long)]
    pub json: bool,
}

/// Run a vendor on this machine, to try things without an account.
#[derive(Debug, Args)]
pub struct SimulateArgs {
    #[command(subcommand)]
    pub command: tailwater_simulators::Command,
}

/// Print a script that completes commands and options.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tailwater completions bash > /etc/bash_completion.d/tailwater\n  tailwater completions zsh > \"${fpath[1]}/_tailwater\""
)]
pub struct CompletionsArgs {
    #[arg(value_enum)]
    pub shell: Shell,
}

/// A dead letter: `destination.crm/3/42` is offset 42 of partition 3 of `dlq.destination.crm`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordRef {
    /// The topic without the prefix and `dlq.`.
    pub queue: String,
    pub partition: i32,
    pub offset: i64,
}

/// The text names no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected queue/partition/offset as `tailwater dlq list` prints it, such as destination.crm/3/42")]
pub struct NoRecord;

impl std::str::FromStr for RecordRef {
    type Err = NoRecord;

    fn from_str(text: &str) -> Result<Self, NoRecord> {
        let mut parts = text.rsplitn(3, '/');
        let (offset, partition, queue) = (parts.next(), parts.next(), parts.next());
        // `parse` alone would take a sign.
        let digits = |text: &&str| text.bytes().all(|byte| byte.is_ascii_digit());
        let offset = offset.filter(digits).and_then(|text| text.parse().ok()).ok_or(NoRecord)?;
        let partition = partition.filter(digits).and_then(|text| text.parse().ok()).ok_or(NoRecord)?;
        let queue =
            queue.filter(|queue| queue.starts_with("source.") || queue.starts_with("destination.")).ok_or(NoRecord)?;
        Ok(Self { queue: queue.to_owned(), partition, offset })
    }
}

impl std::fmt::Display for RecordRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.queue, self.partition, self.offset)
    }
}

impl std::convert::From<LogFormat> for Format {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Text => Self::Text,
            LogFormat::Json => Self::Json,
        }
    }
}

fn error_code(text: &str) -> Result<tailwater_core::Code, String> {
    tailwater_core::Code::find(text)
        .ok_or_else(|| "there is no such error code; `tailwater dlq list` shows them".to_owned())
}

fn grace(text: &str) -> Result<std::time::Duration, String> {
    let period = crate::config::Period::parse(text).map(|period| period.0);
    let allowed = std::time::Duration::from_secs(1)..=std::time::Duration::from_secs(3_600);
    period
        .filter(|period| allowed.contains(period))
        .ok_or_else(|| "expected a period from 1s to 1h, such as 25s".to_owned())
}

fn seconds(text: &str) -> Result<std::time::Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.0..=86_400.0).contains(seconds));
    seconds
        .map(std::time::Duration::from_secs_f64)
        .ok_or_else(|| "expected a number of seconds, such as 2 or 0.5".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_teaches_with_examples_and_exit_codes() {
        let help = Cli::command().render_long_help().to_string();
        assert!(help.contains("tailwater init --template winback") && help.contains("Exit codes:"), "{help}");
        for name in
            ["run", "validate", "config", "init", "topics", "tap", "audit", "trace", "dlq", "simulate", "completions"]
        {
            assert!(help.lines().any(|line| line.trim_start().starts_with(name)), "{name}");
        }
    }

    #[test]
    fn commands_are_read() {
        let read =
            |line: &str| Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}")).command;
        let Command::Run(run) = read("tailwater run --roles route,send --dry-run") else { panic!() };
        assert_eq!((run.roles, run.dry_run), (vec![Role::Route, Role::Send], true));
        let Command::Tap(tap) = read("tailwater tap resolved --from end --limit 5 --follow --json") else { panic!() };
        assert_eq!(
            (tap.topic.as_str(), tap.from, tap.limit, tap.follow, tap.json),
            ("resolved", From::End, Some(5), true, true)
        );
        let Command::Audit(audit) = read("tailwater audit --since 2h --follow --json") else { panic!() };
        assert_eq!(audit.since, Some(Since::Ago(std::time::Duration::from_secs(7_200))));
        let Command::Simulate(SimulateArgs { command }) =
            read("tailwater simulate klaviyo --listen 127.0.0.1:0 --list A=One --no-limits --job-seconds 0.5")
        else {
            panic!()
        };
        assert_eq!(command.kind(), "klaviyo");
        let Command::Dlq(DlqArgs { command: DlqCommand::Replay(replay) }) =
            read("tailwater dlq replay destination.klaviyo/3/42")
        else {
            panic!()
        };
        assert_eq!(replay.which.records, [RecordRef { queue: "destination.klaviyo".into(), partition: 3, offset: 42 }]);
        for line in [
            "tailwater topics plan",
            "tailwater topics apply --json",
            "tailwater dlq list --destination klaviyo --code missing_column --since 7d",
            "tailwater dlq show source.orders/0/1",
            "tailwater dlq discard --all --source orders --reason test",
            "tailwater trace ana@example.com",
            "tailwater config schema",
            "tailwater validate other.yaml --strict",
            "tailwater init --template winback x",
            "tailwater completions zsh",
            "tailwater validate --json --config other.yaml --log-level debug",
        ] {
            read(line);
        }
    }

    #[test]
    fn what_makes_no_sense_is_a_usage_error() {
        for line in [
            "tailwater",
            "tailwater run --roles cook",
            "tailwater dlq replay",
            "tailwater dlq replay --all source.orders/0/1",
            "tailwater dlq show klaviyo/3/42",
            "tailwater dlq show destination.klaviyo/-3/42",
            "tailwater dlq list --code nonsense",
            "tailwater dlq discard --all",
            "tailwater audit --since yesterday",
            "tailwater simulate klaviyo --list A",
            "tailwater simulate klaviyo --job-seconds -1",
        ] {
            assert_eq!(Cli::try_parse_from(line.split(' ')).map(|_| ()).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn a_record_reads_back_what_it_prints() {
        let record: RecordRef = "destination.klaviyo/3/42".parse().unwrap();
        assert_eq!(record.to_string().parse(), Ok(record));
    }
}
