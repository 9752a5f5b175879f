//! The source stage for Delta tables: reads a table's changes and appends them to `ingest.<source>`.
//!
//! One process at a time reads a table; the others wait for its lease. Rows and the cursor that stands behind them are written in
//! one transaction, so a process that is killed repeats nothing and leaves nothing out. A schema is announced, and acknowledged, before
//! the first row that uses it. The row's bytes are passed on as they are: what they mean is resolve's to find out.
//!
//! A table that cannot be read (not there, no change data feed, files gone) stops nothing else: the source reports it once, says what to
//! do, and tries again. A version that lacks a column that the configuration names is not begun ([`columns`]): the source is paused before
//! it. A version that is still being written is waited for.

mod columns;
mod working;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tailwater_core::envelope::Envelope;
use tailwater_core::schema::{Schema, SchemaRecord};
use tailwater_core::{SchemaId, SourcePosition, Timestamp};
use tailwater_delta::{CoalesceReport, Cursor, OnReplaced, Options, Progress, Reader, Rows, SchemaChange, Step};
use tracing::{error, info, warn};

use super::{Error, IDLE_WAIT};
use crate::config::model::{DeltaSource, Source, Start};
use crate::kafka::lease::{Change, Lease};
use crate::kafka::{Outgoing, Outputs as _, Producer};
use crate::runtime::Context;
use crate::runtime::clock::now;
use crate::stages::shared::commit::{Stage, UnitOfWork};
use crate::stages::shared::dead_letter;
use crate::state::Store;
use crate::state::schemas;

/// Where the cursor lies in the source's state.
const CURSOR: &[u8] = b"cursor";

/// Where the reason lies why the table cannot be read now, for those who look from outside.
pub const TROUBLE: &[u8] = b"trouble";

/// The longest pause between two attempts at a table that cannot be read.
const TROUBLE_WAIT_MAX: Duration = Duration::from_secs(30);

/// How often a problem that only a person can cure is reported again.
const TROUBLE_REPEATED: Duration = Duration::from_secs(5 * 60);

/// How long a version may be waited for until its writer is taken to have given up on it.
const WAITING_WARN: Duration = Duration::from_secs(60);

/// Runs the source until shutdown.
///
/// # Errors
/// Kafka or the local state fail in a way that a new attempt may or may not cure (see [`Error::is_recoverable`]).
pub fn run(shared: &Arc<Context>, source: &Source, delta: &DeltaSource) -> Result<(), Error> {
    let topic = shared.names.state_source(&source.name);
    let mut lease = Lease::join(&shared.config.kafka, &shared.names.group("source", Some(&source.name)), &topic)?;
    let heartbeat = shared.telemetry.heartbeat(&format!("source.{}", source.name));
    let readiness = shared.telemetry.readiness(&format!("source.{}", source.name));
    // A process that waits for the lease is as ready as the one that has it.
    readiness.ready();
    while !shared.shutdown.is_requested() {
        heartbeat.tick();
        if lease.poll(IDLE_WAIT * 4)? == Change::Gained {
            info!(source = %source.name, table = %delta.table, "reading the table");
            Session::open(shared, source, delta)?.follow(&mut lease, &heartbeat)?;
        }
    }
    Ok(())
}

/// The time during which this process holds the lease.
struct Session<'a> {
    shared: &'a Arc<Context>,
    source: &'a Source,
    delta: &'a DeltaSource,
    unit: UnitOfWork,
    /// The topic of the state, whose one partition is the lease.
    state: String,
    cursor: Option<Cursor>,
    /// The schema that was announced last, and the one before it.
    schema: Option<(SchemaId, Option<SchemaId>)>,
    trouble: Option<Trouble>,
    waiting: Option<AwaitedVersion>,
    progress: Arc<Progress>,
    /// What was said about the types of identifiers.
    warned: BTreeSet<String>,
}

/// A version that is still being written.
struct AwaitedVersion {
    version: u64,
    since: Instant,
    /// It takes long, and that was said.
    warned: bool,
}

/// A table that cannot be read, and since when.
struct Trouble {
    text: String,
    wait: Duration,
    next: Instant,
    /// When it was logged last.
    logged: Instant,
}

impl<'a> Session<'a> {
    fn open(shared: &'a Arc<Context>, source: &'a Source, delta: &'a DeltaSource) -> Result<Self, Error> {
        let kafka = &shared.config.kafka;
        let id = shared.names.transactional_id("source", Some(&source.name), shared.cache.instance());
        let producer = Producer::connect(kafka, Some(&id), &[shared.names.ingest(&source.name)])?;
        let mut store = Store::new(kafka, &shared.cache, &shared.names.state_source(&source.name));
        store.restore(&[0], &|| {})?;
        let cursor = store.get(0, CURSOR)?.map(|bytes| serde_json::from_slice::<Cursor>(&bytes)).transpose().map_err(
            |error| Error::Invalid {
                code: tailwater_core::code::STATE_UNREADABLE,
                message: format!(
                    "the cursor of source {} in {} could not be read: {error}; a newer version may have written it",
                    source.name,
                    store.topic()
                ),
            },
        )?;
        let state = shared.names.state_source(&source.name);
        let mut session = Self {
            state,
            shared,
            source,
            delta,
            unit: UnitOfWork::new(Stage::Source, producer, store, None),
            cursor,
            schema: None,
            trouble: None,
            waiting: None,
            progress: Arc::default(),
            warned: BTreeSet::new(),
        };
        if let Some(schema) = session.cursor.as_ref().and_then(|cursor| cursor.schema.clone()) {
            let id = session.with_options(&schema).id(&source.name);
            let previous = shared.schemas.get(id)?.and_then(|record| record.predecessor);
            session.schema = Some((id, previous));
            session.warn_of_fractions(&schema);
        }
        Ok(session)
    }

    fn options(&self) -> Result<Options, Error> {
        let mut options = Options::new(self.delta.table.clone());
        options.storage_options.clone_from(&self.delta.storage_options);
        options.key.clone_from(&self.source.primary_key);
        options.start = match self.delta.start {
            Start::Snapshot => tailwater_delta::Start::Snapshot,
            Start::Latest => tailwater_delta::Start::Latest,
            Start::Version(version) => tailwater_delta::Start::Version(version),
        };
        options.coalesce = self.delta.coalesce;
        options.added_columns_differ = self.delta.added_columns_differ;
        options.aliases.clone_from(&self.source.aliases);
        options.before_image = self.source.before_image;
        options.on_replaced = OnReplaced::Fail;
        options.settle = self.delta.commit_settle;
        options.required = columns::required(self.source);
        options.progress = self.progress.clone();
        if let Some((schema, _)) = self.schema {
            options.history = self.shared.schemas.history(schema)?;
        }
        Ok(options)
    }

    /// Follows the table until the lease is lost or the process ends.
    fn follow(&mut self, lease: &mut Lease, heartbeat: &crate::telemetry::Heartbeat) -> Result<(), Error> {
        let mut reader: Option<Reader> = None;
        while !self.shared.shutdown.is_requested() {
            heartbeat.tick();
            if lease.poll(Duration::ZERO)? == Change::Lost {
                warn!(source = %self.source.name, "another process reads the table now");
                return Ok(());
            }
            if let Some(trouble) = &self.trouble
                && Instant::now() < trouble.next
            {
                if lease.poll(IDLE_WAIT)? == Change::Lost {
                    warn!(source = %self.source.name, "another process reads the table now");
                    return Ok(());
                }
                continue;
            }
            let report = |took: Duration| self.report(took);
            let mut watch = working::Watch {
                lease,
                alive: &|| heartbeat.tick(),
                stopping: &|| self.shared.shutdown.is_requested(),
                report: &report,
            };
            match working::step(reader.take(), self.options()?, self.cursor.clone(), &mut watch)? {
                working::Ended::Stopped => {
                    if !self.shared.shutdown.is_requested() {
                        warn!(source = %self.source.name, "another process reads the table now");
                    }
                    return Ok(());
                }
                // A table of which nothing is complete yet.
                working::Ended::Failed(tailwater_delta::Error::Incomplete { version, bytes, .. }) => {
                    self.wait_for(version, bytes, "it was changed a moment ago, or is empty", lease)?;
                    if self.pause(lease, heartbeat)? == Change::Lost {
                        return Ok(());
                    }
                }
                working::Ended::Failed(problem) => self.trouble(&problem, lease)?,
                working::Ended::Step(open, step) => {
                    reader = Some(*open);
                    if !matches!(step, Step::Waiting(_)) {
                        self.recovered(lease)?;
                    }
                    if self.take(step, lease)? && self.pause(lease, heartbeat)? == Change::Lost {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Waits until the table is looked at again.
    fn pause(&self, lease: &mut Lease, heartbeat: &crate::telemetry::Heartbeat) -> Result<Change, Error> {
        let until = Instant::now() + self.delta.poll_interval;
        while Instant::now() < until && !self.shared.shutdown.is_requested() {
            heartbeat.tick();
            let wait = until.saturating_duration_since(Instant::now()).min(IDLE_WAIT * 4);
            if lease.poll(wait)? == Change::Lost {
                return Ok(Change::Lost);
            }
        }
        Ok(Change::None)
    }

    /// Works through one step; true when there is nothing more for now.
    fn take(&mut self, step: Step, lease: &Lease) -> Result<bool, Error> {
        match step {
            Step::Schema(change) => {
                self.announce(&change, lease)?;
                Ok(false)
            }
            Step::Coalesced(report) => {
                self.coalesced(&report);
                Ok(false)
            }
            Step::Waiting(waiting) => {
                self.keep_if_new(&waiting.cursor, lease)?;
                self.wait_for(waiting.version, waiting.bytes, waiting.why, lease)?;
                Ok(true)
            }
            Step::Rows(rows) => {
                self.append(&rows)?;
                self.keep(rows.cursor)?;
                self.commit(lease)?;
                self.shared.telemetry.metrics().source_version(&self.source.name, rows.version);
                Ok(false)
            }
            Step::CaughtUp { version, cursor } => {
                self.keep_if_new(&cursor, lease)?;
                self.shared.telemetry.metrics().source_version(&self.source.name, version);
                self.shared.telemetry.status(
                    &format!("source.{}", self.source.name),
                    serde_json::json!({"state": "following", "version": version}),
                );
                Ok(true)
            }
        }
    }

    fn announce(&mut self, change: &SchemaChange, lease: &Lease) -> Result<(), Error> {
        let previous = change.previous.as_ref().map(|schema| self.with_options(schema).id(&self.source.name));
        let schema = self.with_options(&change.schema);
        let id = schema.id(&self.source.name);
        let record = SchemaRecord {
            source: self.source.name.clone(),
            columns: schema.columns,
            predecessor: previous.filter(|previous| *previous != id),
            version: Some(change.version),
            difference: change.difference.clone(),
        };
        schemas::announce(&mut self.unit, &self.shared.names.schemas(), id, &record)?;
        self.commit(lease)?;
        self.schema = Some((id, previous));
        self.warn_of_fractions(&change.schema);
        if change.previous.is_some() && !change.difference.is_empty() {
            let difference = &change.difference;
            warn!(
                source = %self.source.name,
                version = change.version,
                added = %difference.added.join(", "),
                removed = %difference.removed.join(", "),
                retyped = %difference.retyped.join(", "),
                renamed = %difference.renamed.iter().map(|(old, new)| format!("{old} to {new}")).collect::<Vec<_>>().join(", "),
                replaced = %difference.replaced.join(", "),
                "the table's schema has changed"
            );
            self.shared.telemetry.metrics().schema_changed(&self.source.name);
        }
        Ok(())
    }

    fn coalesced(&self, report: &CoalesceReport) {
        match &report.off {
            None => info!(
                source = %self.source.name,
                version = report.version,
                deleted = report.deleted,
                inserted = report.inserted,
                changed = report.changed,
                unchanged = report.unchanged,
                added = report.added,
                removed = report.removed,
                compared = %report.compared.iter().filter(|(old, new)| old != new).map(|(old, new)| format!("{old} as {new}")).collect::<Vec<_>>().join(", "),
                "a rewrite was reduced to what it changed"
            ),
            // Its rows are not counted beforehand.
            Some(off) => warn!(
                source = %self.source.name,
                version = report.version,
                files_removed = report.files_removed,
                files_added = report.files_added,
                "a rewrite could not be reduced to what it changed: {off}"
            ),
        }
    }

    /// Tells once for each column and type that an identifier is a number with a fraction.
    fn warn_of_fractions(&mut self, schema: &Schema) {
        for warning in columns::fractional_identifiers(self.source, schema) {
            if !self.warned.contains(&warning) {
                warn!(source = %self.source.name, table = %self.delta.table, "{warning}");
                self.warned.insert(warning);
            }
        }
    }

    /// Reports a version that is still being written: once when it is found, and once more when it takes long.
    fn wait_for(&mut self, version: u64, bytes: u64, why: &str, lease: &Lease) -> Result<(), Error> {
        let code = tailwater_core::code::DELTA_COMMIT_INCOMPLETE;
        let now = Instant::now();
        let waiting = match self.waiting.take().filter(|waiting| waiting.version == version) {
            Some(waiting) => waiting,
            None => {
                info!(source = %self.source.name, version, bytes, why, "a version is not complete, the source waits for it");
                AwaitedVersion { version, since: now, warned: false }
            }
        };
        let waited = now.duration_since(waiting.since);
        let message = format!("version {version} is not complete: {why}");
        let warned = waited >= WAITING_WARN;
        if warned && !waiting.warned {
            warn!(
                source = %self.source.name, version, bytes, why, %code,
                "a version has not been completed for {} s; the source waits for it, and reads no later version before it",
                waited.as_secs()
            );
            self.shared.telemetry.metrics().source_failed(&self.source.name, code);
            self.leave_note(code, &message, lease)?;
        }
        self.waiting = Some(AwaitedVersion { warned, ..waiting });
        self.status(serde_json::json!({
            "state": "waiting", "code": code.as_str(), "message": message, "version": version, "bytes": bytes,
            "waited_s": waited.as_secs(),
        }));
        Ok(())
    }

    /// Reports a step that takes long.
    fn report(&self, took: Duration) {
        let (files, rows) = (self.progress.files(), self.progress.rows());
        let version = self.cursor.as_ref().map(|cursor| cursor.version);
        info!(source = %self.source.name, version, files, rows, seconds = took.as_secs(), "still reading");
        self.status(serde_json::json!({
            "state": "reading", "version": version, "files": files, "rows": rows, "step_s": took.as_secs(),
        }));
    }

    fn status(&self, value: serde_json::Value) {
        self.shared.telemetry.status(&format!("source.{}", self.source.name), value);
    }

    /// The schema as rows use it: with the columns whose numbers the configuration turns into strings.
    fn with_options(&self, schema: &Schema) -> Schema {
        let mut schema = schema.clone();
        for column in &mut schema.columns {
            column.longs_as_strings = self.delta.longs.contain(&column.name);
            column.decimals_as_strings = self.delta.decimals.contain(&column.name);
        }
        schema
    }

    fn append(&mut self, rows: &Rows) -> Result<(), Error> {
        let topic = self.shared.names.ingest(&self.source.name);
        let schema = self.with_options(&rows.schema).id(&self.source.name);
        let previous = self.schema.filter(|(id, _)| *id == schema).and_then(|(_, previous)| previous);
        let backfill = rows.snapshot.then(|| format!("snapshot-{}-{}", rows.cursor.generation, rows.version));
        let mut header = Vec::with_capacity(256);
        for row in &rows.rows {
            let envelope = Envelope {
                workspace: &self.shared.config.workspace,
                source: &self.source.name,
                position: Some(SourcePosition::Table {
                    generation: rows.cursor.generation,
                    version: rows.version,
                    ordinal: row.ordinal,
                }),
                change: row.change,
                before: row.before.as_deref(),
                schema: Some(schema),
                previous_schema: previous,
                // When the version was committed. It is no timestamp for Kafka: a table of last year would be gone with the first
                // look of the broker at its retention.
                time: Timestamp::from_millis(row.timestamp.unwrap_or_default()),
                backfill: backfill.as_deref(),
                row_key: row.key.as_deref(),
                ..Envelope::default()
            };
            header.clear();
            envelope.encode(&mut header);
            let mut outgoing = Outgoing::to(&topic).value(Some(&row.data)).envelope(&header);
            if let Some(key) = &row.key {
                outgoing = outgoing.key(key);
            }
            match self.unit.send(&outgoing) {
                Err(crate::kafka::Error::TooLarge { bytes, .. }) => self.too_large(row, &header, bytes)?,
                other => other?,
            }
        }
        self.shared.telemetry.metrics().source_rows(&self.source.name, rows.rows.len());
        Ok(())
    }

    /// A row above the broker's limit is appended as a record without a value that says where the row stands; resolve makes a dead
    /// letter of it, so that it is counted like any other.
    fn too_large(&mut self, row: &tailwater_delta::Row, header: &[u8], bytes: usize) -> Result<(), Error> {
        let topic = self.shared.names.ingest(&self.source.name);
        let reason = format!(
            "the row has {bytes} bytes, more than the broker takes; it stands in the table {}",
            self.delta.table
        );
        error!(source = %self.source.name, code = "kafka_record_too_large", "{reason}");
        let headers = dead_letter::refused_at_source(tailwater_core::code::KAFKA_RECORD_TOO_LARGE, reason);
        let mut outgoing = Outgoing::to(&topic).envelope(header).headers(&headers);
        if let Some(key) = &row.key {
            outgoing = outgoing.key(key);
        }
        Ok(self.unit.send(&outgoing)?)
    }

    fn keep_if_new(&mut self, cursor: &Cursor, lease: &Lease) -> Result<(), Error> {
        if self.cursor.as_ref() != Some(cursor) {
            self.keep(cursor.clone())?;
            self.commit(lease)?;
        }
        Ok(())
    }

    fn keep(&mut self, cursor: Cursor) -> Result<(), Error> {
        // Strings and numbers into memory: serialising them has no way to fail.
        let bytes = serde_json::to_vec(&cursor).unwrap_or_default();
        self.unit.store_mut().put(0, CURSOR.to_vec(), Some(bytes))?;
        self.cursor = Some(cursor);
        Ok(())
    }

    /// Commits rows and cursor together. An offset in the lease's group travels with them, because that is what makes the broker
    /// refuse a process whose lease has moved on.
    fn commit(&mut self, lease: &Lease) -> Result<(), Error> {
        self.unit.commit([(self.state.as_str(), 0, 0)], lease)
    }

    fn trouble(&mut self, problem: &tailwater_delta::Error, lease: &Lease) -> Result<(), Error> {
        let text = problem.to_string();
        let now = Instant::now();
        let next = if problem.is_pause() { "" } else { "; trying again" };
        let (wait, logged) = match &self.trouble {
            Some(trouble) if trouble.text == text => {
                let repeated = !problem.is_transient() && now.duration_since(trouble.logged) >= TROUBLE_REPEATED;
                if repeated {
                    error!(source = %self.source.name, code = %problem.code(), "{text}{next}");
                }
                ((trouble.wait * 2).min(TROUBLE_WAIT_MAX), if repeated { now } else { trouble.logged })
            }
            Some(_) | None => {
                error!(source = %self.source.name, code = %problem.code(), "{text}{next}");
                self.leave_note(problem.code(), &text, lease)?;
                (self.delta.poll_interval.max(Duration::from_millis(500)), now)
            }
        };
        let state = if problem.is_pause() { "paused" } else { "failing" };
        self.status(serde_json::json!({"state": state, "code": problem.code().as_str(), "message": text}));
        self.shared.telemetry.metrics().source_failed(&self.source.name, problem.code());
        self.trouble = Some(Trouble { text, wait, next: now + wait, logged });
        Ok(())
    }

    /// Writes down why the table is not read on, for those who look from outside.
    fn leave_note(&mut self, code: tailwater_core::Code, text: &str, lease: &Lease) -> Result<(), Error> {
        let note = serde_json::json!({"code": code.as_str(), "message": text, "since": now().to_string()});
        self.unit.store_mut().put(0, TROUBLE.to_vec(), Some(note.to_string().into_bytes()))?;
        self.commit(lease)
    }

    fn recovered(&mut self, lease: &Lease) -> Result<(), Error> {
        // An earlier process may have left its note.
        if self.unit.store().get(0, TROUBLE)?.is_some() {
            self.unit.store_mut().put(0, TROUBLE.to_vec(), None)?;
            self.commit(lease)?;
        }
        if self.trouble.take().is_some() {
            info!(source = %self.source.name, "the table can be read again");
        }
        if let Some(waiting) = self.waiting.take() {
            info!(source = %self.source.name, version = waiting.version, "the version is complete");
        }
        self.status(
            serde_json::json!({"state": "reading", "version": self.cursor.as_ref().map(|cursor| cursor.version)}),
        );
        Ok(())
    }
}
