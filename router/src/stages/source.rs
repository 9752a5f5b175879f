//! The source stage for Delta tables: reads a table's changes and appends them to `ingest.<source>`.
//!
//! One process at a time reads a table; the others wait for its lease. Rows and the cursor that stands behind them are written in
//! one transaction, so a process that is killed repeats nothing and leaves nothing out. A schema is announced, and acknowledged, before
//! the first row that uses it. The row's bytes are passed on as they are: what they mean is resolve's to find out.
//!
//! A table that cannot be read (not there, no change data feed, files gone) stops nothing else: the source reports it once, says what to
//! do, and tries again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::topic_partition_list::TopicPartitionList;
use tailwater_core::envelope::Envelope;
use tailwater_core::schema::{Schema, SchemaRecord};
use tailwater_core::{SchemaId, SourcePosition, Timestamp};
use tailwater_delta::{Cursor, OnReplaced, Options, Reader, Rows, Step};
use tracing::{error, info, warn};

use super::{Error, IDLE_WAIT, dead_letter, schemas};
use crate::app::Shared;
use crate::config::model::{DeltaSource, Source, Start};
use crate::failpoint;
use crate::kafka::lease::{Change, Lease};
use crate::kafka::{Outgoing, Producer};
use crate::state::Store;

/// Where the cursor lies in the source's state.
const CURSOR: &[u8] = b"cursor";

/// Where the reason lies why the table cannot be read now, for those who look from outside.
const TROUBLE: &[u8] = b"trouble";

/// The longest pause between two attempts at a table that cannot be read.
const TROUBLE_WAIT_MAX: Duration = Duration::from_secs(30);

/// Runs the source until shutdown.
///
/// # Errors
/// Kafka or the local state fail in a way that a new attempt may or may not cure (see [`Error::is_recoverable`]).
pub fn run(shared: &Arc<Shared>, source: &Source, delta: &DeltaSource) -> Result<(), Error> {
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
    shared: &'a Arc<Shared>,
    source: &'a Source,
    delta: &'a DeltaSource,
    producer: Producer,
    store: Store,
    cursor: Option<Cursor>,
    /// The schema that was announced last, and the one before it.
    schema: Option<(SchemaId, Option<SchemaId>)>,
    trouble: Option<Trouble>,
}

/// A table that cannot be read, and since when.
struct Trouble {
    text: String,
    wait: Duration,
    next: Instant,
}

impl<'a> Session<'a> {
    fn open(shared: &'a Arc<Shared>, source: &'a Source, delta: &'a DeltaSource) -> Result<Self, Error> {
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
        let mut session = Self { shared, source, delta, producer, store, cursor, schema: None, trouble: None };
        if let Some(schema) = session.cursor.as_ref().and_then(|cursor| cursor.schema.clone()) {
            let id = session.with_options(&schema).id(&source.name);
            let previous = shared.schemas.get(id)?.and_then(|record| record.predecessor);
            session.schema = Some((id, previous));
        }
        Ok(session)
    }

    fn options(&self) -> Options {
        let mut options = Options::new(self.delta.table.clone());
        options.storage_options.clone_from(&self.delta.storage_options);
        options.key.clone_from(&self.source.key);
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
        options
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
            let step = match reader.take() {
                Some(open) => Ok(open),
                None => Reader::open(self.options(), self.cursor.clone()),
            }
            .and_then(|mut open| {
                let step = open.next()?;
                reader = Some(open);
                Ok(step)
            });
            match step {
                Ok(step) => {
                    self.recovered(lease)?;
                    if self.take(step, lease)? {
                        let until = Instant::now() + self.delta.poll_interval;
                        while Instant::now() < until && !self.shared.shutdown.is_requested() {
                            heartbeat.tick();
                            let wait = until.saturating_duration_since(Instant::now()).min(IDLE_WAIT * 4);
                            if lease.poll(wait)? == Change::Lost {
                                return Ok(());
                            }
                        }
                    }
                }
                Err(problem) => self.trouble(&problem, lease)?,
            }
        }
        Ok(())
    }

    /// Works through one step; true when there is nothing more for now.
    fn take(&mut self, step: Step, lease: &Lease) -> Result<bool, Error> {
        match step {
            Step::Schema(change) => {
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
                schemas::announce(&mut self.producer, &self.shared.names.schemas(), id, &record)?;
                self.commit(lease)?;
                self.schema = Some((id, previous));
                if change.previous.is_some() && !change.difference.is_empty() {
                    let difference = &change.difference;
                    warn!(
                        source = %self.source.name,
                        version = change.version,
                        added = %difference.added.join(", "),
                        removed = %difference.removed.join(", "),
                        retyped = %difference.retyped.join(", "),
                        renamed = %difference.renamed.iter().map(|(old, new)| format!("{old} to {new}")).collect::<Vec<_>>().join(", "),
                        "the table's schema has changed"
                    );
                    self.shared.telemetry.metrics().schema_changed(&self.source.name);
                }
                Ok(false)
            }
            Step::Coalesced(report) => {
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
                    Some(off) => warn!(
                        source = %self.source.name,
                        version = report.version,
                        deleted = report.deleted,
                        inserted = report.inserted,
                        "a rewrite could not be reduced to what it changed: {off}"
                    ),
                }
                Ok(false)
            }
            Step::Rows(rows) => {
                self.append(&rows)?;
                failpoint::hit_after("source.produced", || self.producer.acknowledged())?;
                self.keep(rows.cursor)?;
                self.commit(lease)?;
                self.shared.telemetry.metrics().source_version(&self.source.name, rows.version);
                Ok(false)
            }
            Step::CaughtUp { version, cursor } => {
                if self.cursor.as_ref() != Some(&cursor) {
                    self.keep(cursor)?;
                    self.commit(lease)?;
                }
                self.shared.telemetry.metrics().source_version(&self.source.name, version);
                self.shared.telemetry.status(
                    &format!("source.{}", self.source.name),
                    serde_json::json!({"state": "following", "version": version}),
                );
                Ok(true)
            }
        }
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
            match self.producer.send(&outgoing) {
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
        Ok(self.producer.send(&outgoing)?)
    }

    fn keep(&mut self, cursor: Cursor) -> Result<(), Error> {
        // Strings and numbers into memory: serialising them has no way to fail.
        let bytes = serde_json::to_vec(&cursor).unwrap_or_default();
        self.store.put(0, CURSOR.to_vec(), Some(bytes))?;
        self.cursor = Some(cursor);
        Ok(())
    }

    /// Commits rows and cursor together. An offset in the lease's group travels with them, because that is what makes the broker
    /// refuse a process whose lease has moved on.
    fn commit(&mut self, lease: &Lease) -> Result<(), Error> {
        self.store.produce(&mut self.producer, lease)?;
        let mut fence = TopicPartitionList::new();
        fence
            .add_partition_offset(self.store.topic(), 0, Offset::Offset(0))
            .map_err(|source| crate::kafka::Error::Client { during: "name the fence's offset", source })?;
        self.producer.commit(&fence, lease)?;
        failpoint::hit("source.committed");
        self.store.committed(&self.producer)?;
        Ok(())
    }

    fn trouble(&mut self, problem: &tailwater_delta::Error, lease: &Lease) -> Result<(), Error> {
        let text = problem.to_string();
        let wait = match &self.trouble {
            Some(trouble) if trouble.text == text => (trouble.wait * 2).min(TROUBLE_WAIT_MAX),
            Some(_) | None => {
                error!(source = %self.source.name, code = %problem.code(), "{text}; trying again");
                let note = serde_json::json!({
                    "code": problem.code().as_str(),
                    "message": text,
                    "since": super::now().to_string(),
                });
                self.store.put(0, TROUBLE.to_vec(), Some(note.to_string().into_bytes()))?;
                self.commit(lease)?;
                self.delta.poll_interval.max(Duration::from_millis(500))
            }
        };
        self.shared.telemetry.status(
            &format!("source.{}", self.source.name),
            serde_json::json!({"state": "failing", "code": problem.code().as_str(), "message": text}),
        );
        self.shared.telemetry.metrics().source_failed(&self.source.name, problem.code());
        self.trouble = Some(Trouble { text, wait, next: Instant::now() + wait });
        Ok(())
    }

    fn recovered(&mut self, lease: &Lease) -> Result<(), Error> {
        // An earlier process may have left its note.
        if self.store.get(0, TROUBLE)?.is_some() {
            self.store.put(0, TROUBLE.to_vec(), None)?;
            self.commit(lease)?;
        }
        if self.trouble.take().is_some() {
            info!(source = %self.source.name, "the table can be read again");
        }
        self.shared.telemetry.status(
            &format!("source.{}", self.source.name),
            serde_json::json!({"state": "reading", "version": self.cursor.as_ref().map(|cursor| cursor.version)}),
        );
        Ok(())
    }
}
