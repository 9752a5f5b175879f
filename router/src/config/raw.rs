//! The configuration as it is written. The comments on the fields are the operator's documentation: the JSON Schema and the
//! reference page are generated from them.
//!
//! Values in here have the right form (the walk over the schema saw to that) but not yet the right meaning: the
//! `build` modules turn them into the types of `model`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tailwater_core::operation::OperationKind;

use tailwater_connectors::config::{Name, Period, Secret, Size};

/// The configuration of one workspace: which sources are read, who the people in them are, and where their events go.
///
/// Texts may hold references: `${env:NAME}`, `${env:NAME:-default}` and `${file:/run/secrets/name}`. Secrets must be
/// references. Periods are written `250ms`, `2s`, `15m`, `12h`, `30d`; sizes `512KB`, `128MB`. Relative paths start at
/// the folder of the configuration file.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Tailwater configuration")]
#[expect(
    dead_code,
    reason = "read section by section, so that one broken section does not hide another; this is its schema"
)]
pub struct RawConfig {
    /// The format of this file: `1`.
    #[schemars(range(min = 1, max = 1))]
    pub version: u32,
    /// The name of the workspace. It is part of every event's and every profile's id: changing it makes everybody a new person.
    pub workspace: Name,
    /// The Kafka cluster that carries everything.
    pub kafka: RawKafka,
    /// The folder of the local state cache, which is rebuilt from Kafka when it is missing.
    #[serde(default = "default::state_dir")]
    pub state_dir: String,
    /// The port for probes and metrics.
    #[serde(default)]
    pub admin: RawAdmin,
    /// Limits for transforms.
    #[serde(default)]
    pub sandbox: RawSandbox,
    /// Which identifiers there are, and how they make a person.
    pub identity: RawIdentity,
    /// Where events come from, by name. The name is part of every event's id.
    #[schemars(extend("minProperties" = 1, "propertyNames" = default::name_schema()))]
    pub sources: BTreeMap<String, RawSource>,
    /// Accounts at vendors: credentials and limits, shared by the destinations that use them.
    #[serde(default)]
    #[schemars(extend("propertyNames" = default::name_schema()))]
    pub accounts: BTreeMap<String, RawAccount>,
    /// Where events go, by name.
    #[serde(default)]
    #[schemars(extend("propertyNames" = default::name_schema()))]
    pub destinations: BTreeMap<String, RawDestination>,
}

/// The Kafka cluster and the topics in it.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-renamed" = { "lanes": "partitions" }))]
pub struct RawKafka {
    /// Bootstrap servers, separated by commas: `broker-1:9092,broker-2:9092`. Required, except with `run --embedded`: there it is the one
    /// address of this machine at which the embedded broker listens, by default `127.0.0.1:9092`.
    #[schemars(length(min = 1))]
    pub brokers: Option<String>,
    /// Every topic, consumer group and transactional id begins with it, so that several workspaces share a cluster.
    #[serde(default = "default::prefix")]
    #[schemars(regex(pattern = "^[A-Za-z0-9._-]{1,100}$"), extend("x-expected" = "1 to 100 letters, digits, dots, `_` and `-`, as Kafka allows in topic names"))]
    pub prefix: String,
    /// Partitions of `resolved` and `outbound.*`. Fixed when the topics are created: changing it moves people between partitions.
    #[serde(default = "default::partitions")]
    #[schemars(range(min = 1, max = 1024))]
    pub partitions: u32,
    /// Copies that the cluster keeps of each partition of the topics that Tailwater creates. Default: 3; with `run --embedded` 1, and
    /// nothing else.
    #[schemars(range(min = 1, max = 15))]
    pub replication_factor: Option<i32>,
    /// Sets linger, fetch waits, batch ages and the interval of transactions together. Where the broker takes longer to commit,
    /// the interval is what the last commit took, up to half a second.
    #[serde(default)]
    pub latency: RawLatency,
    /// Whether a batch is one Kafka transaction. `false` is for brokers that have none: repeats between stages are then
    /// possible, and are recognised by their ids.
    #[serde(default = "default::yes")]
    pub transactions: bool,
    /// Whether `tailwater run` creates missing topics. With `false` it names them and ends; `tailwater topics plan` prints them.
    #[serde(default = "default::yes")]
    pub create_topics: bool,
    /// How long `ingest.*`, `resolved`, `outbound.*` and `deliveries` keep records: the time within which trouble must be cured.
    #[serde(default = "default::retention")]
    pub retention: Period,
    /// How long the ledger behind `tailwater audit` remembers what became of a record. At least `retention`.
    #[serde(default = "default::ledger_retention")]
    pub ledger_retention: Period,
    /// After how long without a sign of life Kafka gives a process's partitions to another.
    #[serde(default = "default::session_timeout")]
    pub session_timeout: Period,
    /// Any option of librdkafka, passed through: `security.protocol`, `sasl.mechanism`, `ssl.ca.location`, … Options that carry
    /// a secret (`sasl.password`, `ssl.key.password`, …) must be references.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Scalar>", extend("x-secret-names" = true))]
    pub options: BTreeMap<String, Secret>,
}

#[derive(Deserialize, Serialize, JsonSchema, Clone, Copy, Default)]
#[serde(rename_all = "snake_case")]
pub enum RawLatency {
    /// 10 ms between transactions: fast, at a cost in throughput.
    Low,
    /// 50 ms.
    #[default]
    Balanced,
    /// 100 ms: the largest batches.
    Throughput,
}

/// The port for `/livez`, `/readyz` and `/metrics`.
#[derive(Deserialize, Serialize, JsonSchema, Default)]
#[serde(deny_unknown_fields, default)]
pub struct RawAdmin {
    /// Address and port. The default answers on this machine only; in a container use `0.0.0.0:9644`.
    pub listen: Listen,
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Listen(#[schemars(extend("x-expected" = "an IP address and a port, such as 127.0.0.1:9644"))] pub String);

/// Limits for transforms. They run without I/O in isolates of V8.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawSandbox {
    /// Threads that run transforms, one isolate each.
    #[schemars(range(min = 1, max = 256))]
    pub threads: usize,
    /// The most memory that one isolate may use. A transform that exceeds it fails; the process goes on.
    pub heap: Size,
    /// The most time that one call with a batch of rows may take.
    pub batch_timeout: Period,
    /// The most time that one row may take when a failed batch is run again row by row.
    pub row_timeout: Period,
}

/// Identifiers and the rules by which they make a person.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawIdentity {
    /// The types of identifiers, by name: `customer_id`, `email`, `shopify_id`, …
    #[schemars(extend("minProperties" = 1, "propertyNames" = default::name_schema()))]
    pub types: BTreeMap<String, RawIdentifierType>,
    /// Values that identify nobody: exact values, or regular expressions between slashes (`/^noreply@/`), which are held against
    /// the normalised value.
    #[serde(default)]
    pub blocklist: Vec<String>,
    /// Whether well-known placeholders (`null`, `anonymous`, `undefined`, zeros, …) identify nobody either.
    #[serde(default = "default::yes")]
    pub default_blocklist: bool,
    /// How many identifiers of all types together one person may have.
    #[serde(default = "default::max_identifiers")]
    #[schemars(range(min = 1, max = 10_000))]
    pub max_identifiers: usize,
    /// How many people one person may absorb.
    #[serde(default = "default::max_merges")]
    #[schemars(range(min = 0, max = 1_000))]
    pub max_merges: usize,
    /// How many identifiers of one event are looked at, the strongest first.
    #[serde(default = "default::max_ids_per_event")]
    #[schemars(range(min = 1, max = 100))]
    pub max_ids_per_event: usize,
}

/// One type of identifier.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawIdentifierType {
    /// Which identifier decides when two disagree: 1 is the strongest. Every type has its own.
    #[schemars(range(min = 1, max = 1000))]
    pub priority: u32,
    /// How many values of this type one person may have. Two people are never joined where this would be exceeded.
    #[schemars(range(min = 1, max = 1000))]
    pub max: u32,
    /// Within which time `max` counts, by the events' time. Default: for ever.
    pub window: Option<Period>,
    /// How values are brought into one form before they are compared.
    #[serde(default)]
    pub normalise: RawNormalise,
}

#[derive(Deserialize, Serialize, JsonSchema, Default, Clone)]
#[serde(rename_all = "snake_case")]
pub enum RawNormalise {
    /// Without invisible characters and the white space around the value. An integer written as a double (`12345.0`) is the integer.
    #[default]
    Trim,
    /// The same, in lower case.
    Lower,
    /// As an email address: lower case, the domain in its ASCII form, without punctuation around the address. Dots and plus signs in it stay.
    Email,
    /// As a telephone number in the international form (E.164).
    Phone {
        /// The country whose rules read numbers without a country code: `US`, `DE`, …
        #[schemars(regex(pattern = "^[A-Z]{2}$"), extend("x-expected" = "a country code of two capital letters, such as US or DE"))]
        region: String,
    },
}

/// A source of events.
#[derive(JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[expect(dead_code, reason = "the tag is read first and then the form that it names; this is its schema")]
pub enum RawSource {
    /// A Delta table: its rows as they are now, then its change data feed.
    Delta(Box<RawDeltaSource>),
    /// A topic into which any producer writes JSON.
    Kafka(Box<RawKafkaSource>),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-renamed" = { "key": "primary_key" }))]
pub struct RawDeltaSource {
    /// The table: a folder, or an URL (`s3://`, `abfss://`, `gs://`). Its change data feed must be enabled.
    #[schemars(length(min = 1))]
    pub table: String,
    /// What the rows are.
    pub kind: RawKind,
    /// The column whose value says which row it is. Needed for `kind: state`; for `kind: events` the default is `id`.
    pub primary_key: Option<String>,
    /// The column with the id of a fact. Needed for `kind: events`.
    pub id: Option<String>,
    /// How long the ids of delivered facts are remembered (`kind: events` with an `id`), so that a fact that is sent again changes nothing: it
    /// is skipped as `duplicate`. `0s` turns it off. Default: 7 days.
    pub dedupe: Option<Period>,
    /// Columns that hold identifiers, each with the type of identifier in it: `customer_id: customer_id`. A dot leads into structs; a name that
    /// has dots or spaces itself stands between backticks: ``"`contact.home`.`first name`": email``.
    #[schemars(extend("minProperties" = 1))]
    pub identifiers: BTreeMap<String, String>,
    /// The column with the time at which it happened. Default: the time of the commit.
    ///
    /// Accepted texts: ISO 8601 and RFC 3339 (`2026-03-01T08:00:00.267Z`, `2026-03-01 09:00:00+01:00`); the same without an offset or
    /// followed by `UTC`, which is UTC; a date, which is midnight UTC; RFC 2822 and HTTP dates. Accepted numbers: seconds, milliseconds,
    /// microseconds or nanoseconds since 1970, with or without a fraction. Without `unit`, the magnitude of a number shows its unit,
    /// for times from 1973 to 2477. Times are kept to the millisecond.
    pub event_time: Option<RawEventTime>,
    /// The name of the events. Default: the name of the source.
    pub event_type: Option<String>,
    /// What a deleted row leads to.
    #[serde(default)]
    pub on_delete: RawOnDelete,
    /// New columns with the older names under which transforms may still read them, while a rename is in flight:
    /// `ltv_score: [ltv_predicted]`. `identifiers`, `primary_key`, `id` and `event_time` may name such a column by any of its names.
    #[serde(default)]
    pub aliases: BTreeMap<String, Vec<String>>,
    /// Whether transforms see the row before its change, as `row._event.before`.
    #[serde(default)]
    pub before_image: bool,
    /// How often the table's log is looked at.
    #[serde(default = "default::poll_interval")]
    pub poll_interval: Period,
    /// How long a commit in a folder must stay unchanged before it is read, where neither its `commitInfo` nor a later version shows that
    /// it is complete. With a later version it is 10 seconds at most. Object stores show whole commits only.
    #[serde(default = "default::commit_settle")]
    pub commit_settle: Period,
    /// Where to begin when the source runs for the first time.
    #[serde(default)]
    pub start: RawStart,
    /// A commit that deletes and inserts everything is reduced to the rows that really differ. `false` delivers it as it is.
    #[serde(default)]
    pub coalesce: RawCoalesce,
    /// Which columns' 64-bit integers become texts, small ones too; no other numbers do. JavaScript cannot hold integers beyond 2^53
    /// exactly; reading one that is no text fails.
    #[serde(default)]
    pub longs: Option<RawTextColumns>,
    /// Which columns' decimals become texts with all their digits; no other numbers do. Reading a decimal that is no text fails where
    /// JavaScript would round it.
    #[serde(default)]
    pub decimals: Option<RawTextColumns>,
    /// Options of the object store: `aws_region`, `aws_access_key_id`, `azure_storage_account_name`, … Those that carry a secret must
    /// be references.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Scalar>", extend("x-secret-names" = true))]
    pub storage: BTreeMap<String, Secret>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-renamed" = { "key": "primary_key" }))]
pub struct RawKafkaSource {
    /// The topic, by its full name: no prefix is added. Default: `<prefix>ingest.<source>`.
    #[schemars(regex(pattern = "^[A-Za-z0-9._-]{1,249}$"), extend("x-expected" = "the name of a Kafka topic"))]
    pub topic: Option<String>,
    /// What the rows are.
    pub kind: RawKind,
    /// The path of the value that says which row it is: a replayed older state of the same row is skipped. Needed for `kind: state`. A row
    /// that lacks it (absent, null, or no single value) is delivered as a row of its own, known by its topic, partition and offset.
    pub primary_key: Option<String>,
    /// The path of a fact's id. Without one, a record is known by its topic, partition and offset.
    pub id: Option<String>,
    /// How long the ids of delivered facts are remembered (`kind: events` with an `id`), so that a fact that is sent again changes nothing: it
    /// is skipped as `duplicate`. `0s` turns it off. Default: 7 days.
    pub dedupe: Option<Period>,
    /// Paths that hold identifiers, each with the type of identifier in it: `user.email: email`. A name that has dots or spaces itself stands
    /// between backticks: ``"`user.contact`.`first name`": email``.
    #[schemars(extend("minProperties" = 1))]
    pub identifiers: BTreeMap<String, String>,
    /// The path of the time at which it happened. Default: the header `ce_time` of CloudEvents, or the record's timestamp.
    ///
    /// Accepted texts: ISO 8601 and RFC 3339 (`2026-03-01T08:00:00.267Z`, `2026-03-01 09:00:00+01:00`); the same without an offset or
    /// followed by `UTC`, which is UTC; a date, which is midnight UTC; RFC 2822 and HTTP dates. Accepted numbers: seconds, milliseconds,
    /// microseconds or nanoseconds since 1970, with or without a fraction. Without `unit`, the magnitude of a number shows its unit,
    /// for times from 1973 to 2477. Times are kept to the millisecond.
    pub event_time: Option<RawEventTime>,
    /// The name of the events. Default: the name of the source.
    pub event_type: Option<String>,
    /// What a deleted row leads to.
    #[serde(default)]
    pub on_delete: RawOnDelete,
    /// New columns with the older names under which transforms may still read them.
    #[serde(default)]
    pub aliases: BTreeMap<String, Vec<String>>,
    /// Whether transforms see the row before its change, as `row._event.before`.
    #[serde(default)]
    pub before_image: bool,
    /// The columns and their types, as Spark writes them: `upgrade_score: double`. A transform that reads any other column fails and
    /// says so. Either this or `strict: false`.
    pub schema: Option<BTreeMap<String, String>>,
    /// `false` for JSON without a schema: a column that is absent is then `undefined`, and a typing mistake goes unnoticed.
    pub strict: Option<bool>,
    /// Which columns' 64-bit integers become texts, small ones too; no other numbers do. Needs `schema`.
    #[serde(default)]
    pub longs: Option<RawTextColumns>,
    /// Which columns' decimals become texts; no other numbers do. Needs `schema`.
    #[serde(default)]
    pub decimals: Option<RawTextColumns>,
    /// What becomes of a value that is none of its column's declared type, such as the text `"12,50"` in a `double`; needs `schema`. Numbers
    /// in a `string` column are no mistake. Decimals that would have to be rounded are invalid.
    #[serde(default)]
    pub on_invalid: Option<RawOnInvalid>,
    /// What happens when most of the source's records cannot be used (they do not decode, hold invalid values, or have no identifier): of 100
    /// records, or within ten seconds, at least ten and at least half of them.
    #[serde(default)]
    pub on_decode_failures: RawOnDecodeFailures,
}

#[derive(Deserialize, Serialize, JsonSchema, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum RawOnInvalid {
    /// The row ends as a dead letter (`invalid_value`). The default.
    DeadLetter,
    /// The row goes on with null in place of the value; `tailwater_invalid_values_total` counts it. With `nulls: clear` at the destination
    /// the vendor's value is then cleared.
    Omit,
}

#[derive(Deserialize, Serialize, JsonSchema, Clone, Copy, Default, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum RawOnDecodeFailures {
    /// One alert for the source; the records end as dead letters.
    #[default]
    Alert,
    /// One alert, and the source stops where it is until the process starts again; other sources go on. Nothing more is dead-lettered.
    Pause,
}

#[derive(Deserialize, JsonSchema, Clone)]
#[serde(untagged)]
pub enum RawEventTime {
    /// The column or path.
    Path(String),
    /// The column or path, and how its values are read.
    Rules(RawEventTimeRules),
}

#[derive(Deserialize, JsonSchema, Clone)]
#[serde(deny_unknown_fields)]
pub struct RawEventTimeRules {
    /// The column or path.
    pub path: String,
    /// What numbers count since 1970-01-01T00:00:00Z.
    pub unit: Option<RawTimeUnit>,
    /// What happens to a row whose time is missing or cannot be read. Either way it is counted and logged.
    #[serde(default)]
    pub on_invalid: RawOnInvalidTime,
}

#[derive(Deserialize, JsonSchema, Clone, Copy, PartialEq, Eq)]
pub enum RawTimeUnit {
    /// Seconds.
    #[serde(rename = "s")]
    Seconds,
    /// Milliseconds.
    #[serde(rename = "ms")]
    Milliseconds,
    /// Microseconds.
    #[serde(rename = "us")]
    Microseconds,
    /// Nanoseconds.
    #[serde(rename = "ns")]
    Nanoseconds,
}

#[derive(Deserialize, Serialize, JsonSchema, Clone, Copy, PartialEq, Eq, Default)]
#[serde(rename_all = "snake_case")]
pub enum RawOnInvalidTime {
    /// It gets the time of its record or commit.
    #[default]
    RecordTime,
    /// It goes to the source's dead letters (`event_time_invalid`).
    DeadLetter,
}

#[derive(Deserialize, JsonSchema, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum RawKind {
    /// Rows that are overwritten: scores, attributes. The latest one counts; a replayed older one is skipped.
    State,
    /// Facts that happened once: orders, clicks. Each one counts.
    Events,
}

#[derive(Deserialize, Serialize, JsonSchema, Clone, Copy, Default, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum RawOnDelete {
    /// Nothing; the audit counts it.
    #[default]
    Skip,
    /// The properties that the row had set are removed at the destination, where it can.
    Unset,
    /// The person is erased at the destination, where it can.
    Erase,
}

#[derive(Deserialize, Serialize, JsonSchema, Clone, Copy, Default)]
#[serde(rename_all = "snake_case")]
pub enum RawStart {
    /// The rows as they are now, then the changes.
    #[default]
    Snapshot,
    /// The changes after the latest version.
    Latest,
    /// The changes from this version of the table on.
    Version(u64),
}

#[derive(Deserialize, Serialize, JsonSchema, Clone, Copy)]
#[serde(untagged)]
pub enum RawCoalesce {
    /// Whether commits are coalesced.
    Enabled(bool),
    /// Coalesced, with a rule.
    Rules(RawCoalesceRules),
}

#[derive(Deserialize, Serialize, JsonSchema, Clone, Copy)]
#[serde(deny_unknown_fields)]
pub struct RawCoalesceRules {
    /// Whether a column that the commit added makes every row different.
    pub added_columns: RawAddedColumns,
}

#[derive(Deserialize, Serialize, JsonSchema, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum RawAddedColumns {
    /// It does.
    Differ,
    /// It does not; rows that are equal otherwise are not delivered again.
    Ignore,
}

#[derive(Deserialize, JsonSchema, Clone)]
#[serde(untagged)]
pub enum RawTextColumns {
    /// `string`: all columns.
    All(RawText),
    /// Single columns: `order_no: string`.
    Columns(BTreeMap<String, RawText>),
}

#[derive(Deserialize, JsonSchema, Clone, Copy)]
#[serde(rename_all = "snake_case")]
pub enum RawText {
    String,
}

/// An account at a vendor.
// Stands in for the accounts of all kinds of destination: the schema puts the registry's in its place.
#[derive(JsonSchema)]
pub struct RawAccount {}

/// A destination: one account at a vendor, and what is sent there.
///
/// The keys that all destinations share. Each kind of destination adds its own beside them.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-renamed" = { "key": "identifier" }))]
pub struct RawDestination {
    /// The account, by its name under `accounts`. Its type is the type of the destination.
    pub account: String,
    /// The type of identifier without which nothing can be sent.
    pub identifier: String,
    /// The vendor's fields, each with the type of identifier that goes into it: `external_id: customer_id`. Default: the fields that are named
    /// like a type of identifier.
    pub identifiers: Option<BTreeMap<String, String>>,
    /// What becomes of an event whose person lacks the `identifier`.
    #[serde(default)]
    pub on_missing_key: RawOnMissingKey,
    /// How long such an event waits for the identifier before it becomes a dead letter.
    #[serde(default = "default::hold_for")]
    pub hold_for: Period,
    /// Which facts of a destination that is added to a running workspace are sent: `now` (those that arrive from then on), `earliest`
    /// (also what Kafka still holds from before, marked as backfill), or a time (`2026-03-01T00:00:00Z`): facts that happened before
    /// it are never sent. The others end as skipped (`before_start`). Rows of a source with `kind: state` are always
    /// sent, and marked as backfill if they are from before. It counts when the destination is first started: what was skipped then is not
    /// read again.
    #[serde(default = "default::destination_start")]
    pub start: String,
    /// Whether a delivery with the same content as the last one for the same person is skipped (`unchanged`).
    #[serde(default)]
    pub skip_unchanged: bool,
    /// How a delivery that failed by itself is tried again.
    #[serde(default)]
    pub retry: RawRetry,
    /// What is sent, from which source.
    #[schemars(length(min = 1))]
    pub routes: Vec<RawRoute>,
}

#[derive(Deserialize, Serialize, JsonSchema, Clone, Copy, Default, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum RawOnMissingKey {
    /// It waits until the identifier is known, with later events of the same person behind it.
    #[default]
    Hold,
    /// It becomes a dead letter.
    DeadLetter,
    /// It is skipped.
    Skip,
}

/// Retries of a delivery that failed by itself. Trouble of an endpoint or the whole account (no connection, 429, 5xx for everybody) is
/// retried without end.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawRetry {
    /// Attempts before the delivery becomes a dead letter.
    #[schemars(range(min = 1, max = 100))]
    pub attempts: u32,
    /// The pause after the first attempt; it doubles each time, with jitter.
    pub backoff_min: Period,
    /// The longest pause.
    pub backoff_max: Period,
}

/// A way from one source to the destination.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawRoute {
    /// The name of the route, part of the idempotency key: renaming it delivers replayed events again. Default: the name of the
    /// source. Needed where one source has two routes.
    pub name: Option<Name>,
    /// The source, by its name under `sources`.
    pub from: String,
    /// A condition in CEL; only events for which it is true go on, the others are skipped (`filtered`):
    /// `row.rfm_segment == "champions" && event.change != "delete"`. It reads `row`, `event` (`source`, `type`, `time`, `change`) and `profile`
    /// (an identifier by its type). A column that the row lacks and its schema has is null; one that the schema does not have fails.
    /// `has(row.x)` is true if the row has a value that is not null.
    pub when: Option<String>,
    /// The JavaScript file with the `send` function.
    #[schemars(length(min = 1))]
    pub transform: String,
    /// Destructive operations that the transform may return, such as `[unsubscribe, delete_profile]`. They take something away that the
    /// vendor does not give back, so a route without the operation's name here refuses it (`operation_not_allowed`).
    #[serde(default)]
    pub allow: Vec<RawDestructive>,
}

/// An operation that is destructive.
#[derive(Deserialize, Serialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum RawDestructive {
    /// A person is deleted at the vendor.
    DeleteProfile,
    /// Two people are joined at the vendor.
    MergeProfiles,
    /// A person gets another email or id at the vendor.
    ChangeIdentifier,
    /// A person agrees to no more messages.
    Unsubscribe,
    /// A person receives nothing at all.
    Suppress,
    /// An object is deleted at the vendor.
    DeleteObject,
    /// A person is disconnected from an object.
    Unrelate,
    /// An item of a catalog is deleted.
    DeleteCatalogItem,
}

/// A value that may be written as a number or a truth value but is read as the text that stands there.
#[derive(JsonSchema)]
#[schemars(inline, extend("type" = ["string", "number", "boolean"]))]
#[expect(dead_code, reason = "stands in for its schema only")]
pub struct Scalar(serde_json::Value);

impl RawDestructive {
    pub const fn kind(self) -> OperationKind {
        match self {
            Self::DeleteProfile => OperationKind::DeleteProfile,
            Self::MergeProfiles => OperationKind::MergeProfiles,
            Self::ChangeIdentifier => OperationKind::ChangeIdentifier,
            Self::Unsubscribe => OperationKind::Unsubscribe,
            Self::Suppress => OperationKind::Suppress,
            Self::DeleteObject => OperationKind::DeleteObject,
            Self::Unrelate => OperationKind::Unrelate,
            Self::DeleteCatalogItem => OperationKind::DeleteCatalogItem,
        }
    }
}

/// The defaults, in one place; the schema shows them because it is generated with them.
mod default {
    use super::*;

    pub fn name_schema() -> serde_json::Value {
        serde_json::json!({ "pattern": tailwater_connectors::config::NAME_PATTERN })
    }
    pub fn state_dir() -> String {
        "./state".to_owned()
    }
    pub fn prefix() -> String {
        "tailwater.".to_owned()
    }
    pub fn partitions() -> u32 {
        16
    }
    pub fn yes() -> bool {
        true
    }
    pub fn retention() -> Period {
        Period::days(7)
    }
    pub fn ledger_retention() -> Period {
        Period::days(90)
    }
    pub fn session_timeout() -> Period {
        Period::seconds(45)
    }
    pub fn poll_interval() -> Period {
        Period::seconds(2)
    }
    pub fn commit_settle() -> Period {
        Period::seconds(60)
    }
    pub fn hold_for() -> Period {
        Period::days(30)
    }
    pub fn destination_start() -> String {
        "now".to_owned()
    }
    pub fn max_identifiers() -> usize {
        1_000
    }
    pub fn max_merges() -> usize {
        100
    }
    pub fn max_ids_per_event() -> usize {
        20
    }
}

impl Default for Listen {
    fn default() -> Self {
        Self("127.0.0.1:9644".to_owned())
    }
}

impl Default for RawSandbox {
    fn default() -> Self {
        Self {
            threads: 2,
            heap: Size::megabytes(128),
            batch_timeout: Period::seconds(1),
            row_timeout: Period::millis(50),
        }
    }
}

impl Default for RawCoalesce {
    fn default() -> Self {
        Self::Rules(RawCoalesceRules { added_columns: RawAddedColumns::Differ })
    }
}

impl Default for RawRetry {
    fn default() -> Self {
        Self { attempts: 8, backoff_min: Period::millis(500), backoff_max: Period::seconds(60) }
    }
}
