//! The validated configuration: what the rest of the program works with. It can only be built by `Config::load`, so a value
//! of these types has passed every check that needs no network.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tailwater_connectors::Shared;
pub use tailwater_connectors::connector::{Account, Options};
use tailwater_core::Timestamp;
use tailwater_core::operation::OperationKind;
use tailwater_core::schema::Schema;
use tailwater_core::time::TimeUnit;

#[derive(Debug, Clone)]
pub struct Config {
    pub workspace: String,
    pub kafka: Kafka,
    pub identity: Identity,
    pub sources: BTreeMap<String, Source>,
    pub accounts: BTreeMap<String, Account>,
    pub destinations: BTreeMap<String, Destination>,
    pub state_dir: PathBuf,
    pub admin: Admin,
    pub sandbox: Sandbox,
    /// The file it was read from, and every other file that it refers to: what hot reload watches.
    pub files: Vec<PathBuf>,
}

#[derive(Debug, Clone)]
pub struct Kafka {
    pub brokers: String,
    /// Whether this process runs the broker itself (`run --embedded`); `brokers` is its one address then.
    pub embedded: bool,
    /// Every topic, group and key begins with it; ends in a dot by convention.
    pub prefix: String,
    pub partitions: u32,
    pub replication_factor: i32,
    pub latency: Latency,
    /// One Kafka transaction per batch; without it, at least once.
    pub transactions: bool,
    /// Whether `tailwater run` creates what is missing.
    pub create_topics: bool,
    /// How long `ingest.*`, `resolved`, `outbound.*` and `deliveries` keep records.
    pub retention: Duration,
    pub ledger_retention: Duration,
    /// librdkafka options, passed through; they win over our own.
    pub options: BTreeMap<String, SecretString>,
    pub session_timeout: Duration,
}

/// Sets linger, fetch, batch ages and the interval of transactions together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Latency {
    Low,
    Balanced,
    Throughput,
}

#[derive(Debug, Clone)]
pub struct Admin {
    /// Address of `/livez`, `/readyz` and `/metrics`.
    pub listen: std::net::SocketAddr,
}

#[derive(Debug, Clone)]
pub struct Sandbox {
    pub threads: usize,
    pub heap_bytes_max: usize,
    pub batch_timeout: Duration,
    pub row_timeout: Duration,
}

/// The identity section, in the resolver's own validated types.
#[derive(Debug, Clone)]
pub struct Identity {
    pub rules: Arc<tailwater_identity::Rules>,
}

#[derive(Debug, Clone)]
pub struct Source {
    pub name: String,
    pub input: SourceInput,
    pub kind: SourceKind,
    /// What says which row it is: a column or a path.
    pub primary_key: Option<String>,
    /// Column or path → identifier type. One type may be fed by several columns.
    pub identifiers: Vec<(String, String)>,
    /// Column or path of the time at which it happened.
    pub event_time: Option<String>,
    pub event_time_rules: EventTimeRules,
    /// Name of the events; default the source's name.
    pub event_type: String,
    pub on_delete: OnDelete,
    /// New column → the older names under which a transform may still read it.
    pub aliases: BTreeMap<String, Vec<String>>,
    /// Transforms see the row before a change (`row._event.before`).
    pub before_image: bool,
    /// How long the ids of delivered facts are remembered; `None` for states, for facts without an id, and where it is turned off.
    pub dedupe: Option<Duration>,
}

/// How the values of `event_time` are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EventTimeRules {
    /// What a number counts; `None`: its magnitude shows it.
    pub unit: Option<TimeUnit>,
    /// A row whose time is missing or unreadable becomes a dead letter; otherwise it gets the time of its record.
    pub dead_letter: bool,
}

#[derive(Debug, Clone)]
pub enum SourceInput {
    Delta(DeltaSource),
    Kafka(KafkaSource),
}

#[derive(Debug, Clone)]
pub struct DeltaSource {
    /// A local path or an object store URL.
    pub table: String,
    pub poll_interval: Duration,
    /// How long a commit must stay as it is that nothing shows to be complete.
    pub commit_settle: Duration,
    pub start: Start,
    pub coalesce: bool,
    /// A column that an overwrite adds counts as a difference.
    pub added_columns_differ: bool,
    pub longs: TextColumns,
    pub decimals: TextColumns,
    pub storage_options: BTreeMap<String, SecretString>,
}

/// Which columns' numbers of one type are strings in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextColumns {
    /// These; empty for none.
    Columns(Vec<String>),
    All,
}

impl TextColumns {
    pub fn contain(&self, column: &str) -> bool {
        match self {
            Self::All => true,
            Self::Columns(names) => names.iter().any(|name| name == column),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The table as it is now, then its changes.
    Snapshot,
    /// Changes after the latest version at the first start.
    Latest,
    /// Changes from this version on.
    Version(u64),
}

#[derive(Debug, Clone)]
pub struct KafkaSource {
    /// The topic as its producers name it: no prefix is added. Default `<prefix>ingest.<source>`.
    pub topic: String,
    /// The declared schema; `None` means `strict: false`.
    pub schema: Option<Schema>,
    /// What becomes of a value that is none of its column's declared type.
    pub on_invalid: OnInvalid,
    /// What happens when most records fail to decode.
    pub on_decode_failures: OnDecodeFailures,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnInvalid {
    /// The row ends as a dead letter.
    #[default]
    DeadLetter,
    /// The row goes on with null in place of the value.
    Omit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDecodeFailures {
    /// One alert; the records end as dead letters.
    #[default]
    Alert,
    /// One alert, and the source stops until a person acts.
    Pause,
}

impl Destination {
    /// The kind of destination, as the registry has it.
    pub fn kind(&self) -> &'static str {
        self.options.kind().spec().kind
    }

    /// What its connector gets of the keys that all destinations share.
    pub fn shared(&self) -> Shared {
        Shared { name: self.name.clone(), identifier: self.identifier.clone(), identifiers: self.identifiers.clone() }
    }
}

impl Source {
    pub const fn on_invalid(&self) -> OnInvalid {
        match &self.input {
            SourceInput::Delta(_) => OnInvalid::DeadLetter,
            SourceInput::Kafka(kafka) => kafka.on_invalid,
        }
    }

    pub const fn on_decode_failures(&self) -> OnDecodeFailures {
        match &self.input {
            SourceInput::Delta(_) => OnDecodeFailures::Alert,
            SourceInput::Kafka(kafka) => kafka.on_decode_failures,
        }
    }
}

#[cfg(test)]
impl KafkaSource {
    /// A topic of JSON without a schema.
    pub fn of(topic: &str) -> Self {
        Self {
            topic: topic.to_owned(),
            schema: None,
            on_invalid: OnInvalid::default(),
            on_decode_failures: OnDecodeFailures::default(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceKind {
    /// Rows that are overwritten.
    State,
    /// Facts; the path of their id. A producer's own topic may go without one: its coordinates serve.
    Events { id: Option<String> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDelete {
    Skip,
    Unset,
    Erase,
}

#[derive(Debug, Clone)]
pub struct Destination {
    pub name: String,
    pub account: String,
    /// What its connector alone reads.
    pub options: Options,
    /// The identifier type whose value the vendor needs.
    pub identifier: String,
    /// Vendor field → identifier type.
    pub identifiers: BTreeMap<String, String>,
    pub on_missing_key: OnMissingKey,
    pub hold_for: Duration,
    pub start: DestinationStart,
    pub skip_unchanged: bool,
    pub retry: Retry,
    pub routes: Vec<Route>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnMissingKey {
    Hold,
    DeadLetter,
    Skip,
}

/// What becomes of facts from before the destination existed, or from before a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DestinationStart {
    /// They are skipped.
    Now,
    /// They are delivered, marked as backfill.
    Earliest,
    /// Those that happened before this time are skipped, whenever they arrive.
    At(Timestamp),
}

#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// Attempts for trouble of the delivery alone; the account's trouble is retried without end.
    pub attempts_max: u32,
    pub backoff_min: Duration,
    pub backoff_max: Duration,
}

#[derive(Debug, Clone)]
pub struct Route {
    /// Part of the idempotency key: by default the source's name.
    pub name: String,
    pub from: String,
    /// The text of the CEL condition; it has been compiled once to check it.
    pub when: Option<String>,
    pub transform: Transform,
    /// Destructive operations that the transform may return.
    pub allow: Vec<OperationKind>,
}

#[derive(Debug, Clone)]
pub struct Transform {
    /// As the configuration names it: `transforms/ltv.js`.
    pub name: String,
    pub source: Arc<str>,
}
