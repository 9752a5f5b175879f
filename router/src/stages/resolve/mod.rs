//! The resolve stage: from the records of all sources to events that belong to a person, in one order.
//!
//! One resolver works per workspace; the others wait for its lease. It reads every partition of every source's topic, decides with the
//! pure functions of `tailwater-identity`, and appends to `resolved`, keyed by profile, in the lane of the profile. Outputs, identity
//! state and offsets are one transaction, fenced by the lease: a resolver that was stopped and woke up again changes nothing.
//!
//! What cannot be resolved ends in `dlq.source.<source>`, and everything that ends here is noted in the ledger for all destinations.

mod decode;
#[cfg(test)]
mod fuzz;
mod identities;
mod shared;
mod times;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::topic_partition_list::TopicPartitionList;
use tailwater_core::delivery::Reason;
use tailwater_core::envelope::{Envelope, Identifier, Merge, Role};
use tailwater_core::ledger::{End, Stage};
use tailwater_core::limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX};
use tailwater_core::{SchemaId, SourcePosition, code};
use tailwater_identity::{Decision, Incoming, Refusal, Resolution, Resolver, Why};
use tracing::{debug, info, warn};

use self::decode::{Decoded, Event};
use self::identities::Identities;
use self::shared::SharedValues;
use self::times::InvalidTimes;
use super::dead_letter::{self, Failure};
use super::ledger::Ledger;
use super::pace::Pace;
use super::{Error, IDLE_WAIT, schemas};
use crate::app::Shared;
use crate::config::model::{Source, SourceInput};
use crate::failpoint;
use crate::kafka::consumer::{Partition, Polled};
use crate::kafka::lease::{Change, Lease};
use crate::kafka::read::Reader;
use crate::kafka::{Consumer, Outgoing, Producer, Record, client, topics};
use crate::state::{Map as _, Store};

/// How often the sources' topics are looked at for new partitions.
const METADATA_INTERVAL: Duration = Duration::from_secs(60);

/// Begins the keys of the positions that were applied last, in the same state as the identities.
const POSITION: u8 = b'o';

/// Runs the stage until shutdown.
///
/// # Errors
/// Kafka or the local state fail in a way that a new attempt may or may not cure (see [`Error::is_recoverable`]).
pub fn run(shared: &Arc<Shared>) -> Result<(), Error> {
    let group = shared.names.group("resolve", None);
    let mut lease = Lease::join(&shared.config.kafka, &group, &shared.names.state_resolve())?;
    let heartbeat = shared.telemetry.heartbeat("resolve");
    let readiness = shared.telemetry.readiness("resolve");
    let joined = Instant::now();
    let mut told = false;
    while !shared.shutdown.is_requested() {
        heartbeat.tick();
        if lease.poll(IDLE_WAIT * 4)? == Change::Gained {
            info!("resolving for workspace {}", shared.config.workspace);
            Session::open(shared, &group, &heartbeat)?.follow(&mut lease, &heartbeat, &readiness)?;
        } else if !told && joined.elapsed() > Duration::from_secs(15) {
            told = true;
            readiness.ready();
            info!("another process resolves for this workspace; this one waits to take over");
        }
    }
    Ok(())
}

/// The time during which this process holds the lease.
struct Session<'a> {
    shared: &'a Arc<Shared>,
    consumer: Consumer,
    producer: Producer,
    pace: Pace,
    store: Store,
    ledger: Ledger,
    /// The sources by their topic.
    sources: BTreeMap<String, Input<'a>>,
    /// The topic of what is resolved.
    resolved: String,
    /// Where each partition of a table's rows stands; known of those that rows came from.
    applied: BTreeMap<Partition, Applied>,
    reader: Reader,
    shared_values: SharedValues,
    invalid_times: InvalidTimes,
}

/// The position of the last row that was applied of a partition.
struct Applied {
    position: Option<TablePosition>,
    /// It has moved since it was written.
    moved: bool,
}

/// Generation, version and ordinal of a table's row.
type TablePosition = (u32, u64, u64);

/// A source, and the schema that the configuration declares for it.
#[derive(Clone, Copy)]
struct Input<'a> {
    source: &'a Source,
    declared: Option<SchemaId>,
}

/// An event on its way through a batch.
struct Pending<'r> {
    record: &'r Record,
    source: &'r Source,
    declared: Option<SchemaId>,
    event: Box<Event<'r>>,
}

impl<'r> Pending<'r> {
    /// Path and type of the values that are no identifiers whatever their type.
    fn unusable(&self) -> impl Iterator<Item = (&'r str, &'r str)> {
        let source = self.source;
        self.event
            .unusable
            .iter()
            .filter_map(|index| source.identifiers.get(*index))
            .map(|(path, kind)| (path.as_str(), kind.as_str()))
    }
}

impl<'a> Session<'a> {
    fn open(shared: &'a Arc<Shared>, group: &str, heartbeat: &crate::telemetry::Heartbeat) -> Result<Self, Error> {
        let kafka = &shared.config.kafka;
        let names = &shared.names;
        let id = names.transactional_id("resolve", None, shared.cache.instance());
        let mut outputs = vec![names.resolved(), names.state_resolve(), names.ledger()];
        outputs.extend(shared.config.sources.keys().map(|source| names.dlq_source(source)));
        let mut session = Self {
            shared,
            consumer: Consumer::create(kafka, group)?,
            producer: Producer::connect(kafka, Some(&id), &outputs)?,
            pace: Pace::new(client::commit_interval(kafka.latency)),
            store: Store::new(kafka, &shared.cache, &names.state_resolve()),
            ledger: Ledger::new(names.ledger(), Stage::Resolve, kafka.lanes),
            sources: shared
                .config
                .sources
                .values()
                .map(|source| (topics::input_topic(names, source), Input { source, declared: declared(source) }))
                .collect(),
            resolved: names.resolved(),
            applied: BTreeMap::new(),
            reader: Reader::connect(kafka)?,
            shared_values: SharedValues::default(),
            invalid_times: InvalidTimes::default(),
        };
        session.store.restore(&[0], &|| heartbeat.tick())?;
        session.announce_declared_schemas()?;
        Ok(session)
    }

    /// Schemas that the configuration declares must be known before the first row that is held against them.
    fn announce_declared_schemas(&mut self) -> Result<(), Error> {
        for Input { source, declared } in self.sources.values() {
            if let SourceInput::Kafka(kafka) = &source.input
                && let (Some(schema), Some(id)) = (&kafka.schema, *declared)
                && self.shared.schemas.get(id)?.is_none()
            {
                let record = schemas::first_record(&source.name, schema);
                schemas::announce(&mut self.producer, &self.shared.names.schemas(), id, &record)?;
            }
        }
        Ok(self.producer.commit_without_offsets()?)
    }

    fn follow(
        mut self,
        lease: &mut Lease,
        heartbeat: &crate::telemetry::Heartbeat,
        readiness: &crate::telemetry::Readiness,
    ) -> Result<(), Error> {
        let mut looked: Option<Instant> = None;
        while !self.shared.shutdown.is_requested() {
            heartbeat.tick();
            if lease.poll(Duration::ZERO)? == Change::Lost {
                warn!("another process resolves for this workspace now");
                self.shared_values.withdraw(&self.shared.telemetry);
                return Ok(());
            }
            if looked.is_none_or(|at| at.elapsed() > METADATA_INTERVAL) {
                self.take_partitions()?;
                looked = Some(Instant::now());
                readiness.ready();
            }
            let records = self.gather()?;
            if !records.is_empty() {
                self.batch(&records, lease)?;
            }
        }
        Ok(())
    }

    /// Assigns every partition of every source that is not assigned yet.
    fn take_partitions(&mut self) -> Result<(), Error> {
        let mut new: Vec<Partition> = Vec::new();
        for (topic, input) in &self.sources {
            let count = self.reader.partitions(topic)?;
            if matches!(input.source.input, SourceInput::Kafka(_)) {
                self.shared.telemetry.status(
                    &format!("source.{}", input.source.name),
                    match count {
                        Some(_) => serde_json::json!({"state": "following"}),
                        None => serde_json::json!({
                            "state": "waiting",
                            "code": code::TOPIC_MISSING.as_str(),
                            "message": format!("topic {topic} does not exist yet; its producer makes it"),
                        }),
                    },
                );
            }
            let Some(count) = count else {
                warn!(%topic, code = "topic_missing", "the topic of a source does not exist yet; looking again in a minute");
                continue;
            };
            for partition in 0..count {
                let partition: Partition = (Arc::from(topic.as_str()), partition);
                if !self.consumer.assignment().contains(&partition) {
                    new.push(partition);
                }
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        // Assigning by hand replaces the assignment, so what is already read is named again with where it stands.
        let all: Vec<Partition> = self.consumer.assignment().iter().cloned().chain(new).collect();
        // Delta sources write in transactions; what other producers do is not known.
        let ours = |topic: &str| {
            self.producer.is_transactional()
                && self.sources.get(topic).is_some_and(|input| matches!(input.source.input, SourceInput::Delta(_)))
        };
        let starts = self.consumer.starts(&all, ours)?;
        self.consumer.assigned(&starts)?;
        Ok(())
    }

    /// Takes records for one transaction: until the interval is over, or the batch is full.
    fn gather(&mut self) -> Result<Vec<Record>, Error> {
        let mut records: Vec<Record> = Vec::new();
        let mut bytes = 0;
        let mut until: Option<Instant> = None;
        loop {
            let wait = until.map_or(IDLE_WAIT, |until| until.saturating_duration_since(Instant::now()));
            let left = BATCH_RECORDS_MAX - records.len();
            match self.consumer.poll(left, BATCH_BYTES_MAX, wait)? {
                Polled::Records(more) if more.is_empty() => break,
                Polled::Records(more) => {
                    bytes += more.iter().map(Record::size).sum::<usize>();
                    records.extend(more);
                }
                // Partitions are assigned by hand; the group's membership is the lease's.
                Polled::Event(_) => {}
            }
            let until = *until.get_or_insert_with(|| Instant::now() + self.pace.interval());
            if records.len() >= BATCH_RECORDS_MAX || bytes >= BATCH_BYTES_MAX || Instant::now() >= until {
                break;
            }
        }
        Ok(records)
    }

    fn batch(&mut self, records: &[Record], lease: &Lease) -> Result<(), Error> {
        let started = Instant::now();
        let workspace = self.shared.config.workspace.clone();
        let mut pending = Vec::with_capacity(records.len());
        for record in records {
            let Some(Input { source, declared }) = self.sources.get(&*record.topic).copied() else { continue };
            match decode::decode(record, source, &workspace) {
                Decoded::Event(event) => {
                    if self.is_repeat(record, &event)? {
                        self.end(record, End::Skipped, code::SOURCE_REPEAT.as_str());
                    } else {
                        pending.push(Pending { record, source, declared, event });
                    }
                }
                Decoded::Skip(reason) => self.end(record, End::Skipped, reason.code.as_str()),
                Decoded::Reject(reason) => self.reject(record, source, &reason)?,
            }
        }
        self.resolve(&pending, &workspace)?;
        let committing = Instant::now();
        self.commit(records, lease)?;
        self.shared_values.report(&self.shared.telemetry);
        self.invalid_times.report(Instant::now());
        self.pace.committed(committing.elapsed());
        let metrics = self.shared.telemetry.metrics();
        metrics.stage_records("resolve", records.len());
        metrics.transaction_seconds("resolve", started.elapsed());
        debug!(records = records.len(), ms = started.elapsed().as_millis(), "resolved a batch");
        Ok(())
    }

    /// Decides whose the events are and writes them out, in their order.
    fn resolve(&mut self, pending: &[Pending<'_>], workspace: &str) -> Result<(), Error> {
        let identifiers: Vec<Vec<Identifier<'_>>> = pending
            .iter()
            .map(|one| {
                one.event
                    .identifiers
                    .iter()
                    .map(|(index, value)| Identifier { kind: &one.source.identifiers[*index].1, value })
                    .collect()
            })
            .collect();
        let incoming: Vec<Incoming<'_>> = pending
            .iter()
            .zip(&identifiers)
            .map(|(one, identifiers)| Incoming { identifiers, time: one.record.timestamp })
            .collect();
        let rules = Arc::clone(&self.shared.config.identity.rules);
        let decided = Resolver::new(&rules, workspace)
            .resolve(&Identities(&self.store), &incoming)
            .map_err(|error| Error::Invalid { code: error.code(), message: error.to_string() })?;
        for write in decided.writes {
            self.store.put(0, write.key.to_bytes(), write.value)?;
        }
        let mut header = Vec::with_capacity(512);
        for (one, decision) in pending.iter().zip(&decided.decisions) {
            self.refused(one, decision.refused());
            match decision {
                Decision::Resolved(resolution) => {
                    self.shared_values.note(&rules, workspace, resolution);
                    self.invalid_times.note(&self.shared.telemetry, one);
                    self.forward(one, resolution, workspace, &mut header)?;
                }
                Decision::NoIdentifiers { refused } => {
                    let columns: Vec<&str> = one.source.identifiers.iter().map(|(path, _)| path.as_str()).collect();
                    let mut message = format!(
                        "expected at least one identifier in {} (source {}, `identifiers`)",
                        columns.join(", "),
                        one.source.name
                    );
                    let unusable = one.unusable().map(|(_, kind)| (kind, Why::Invalid));
                    let refused: Vec<(&str, Why)> =
                        refused.iter().map(|refusal| (&*refusal.kind, refusal.why)).chain(unusable).collect();
                    if refused.is_empty() {
                        message.push_str("; all of them are missing or null");
                    } else {
                        let refused: Vec<String> =
                            refused.iter().map(|(kind, why)| format!("{kind} ({})", why.as_str())).collect();
                        message.push_str("; not usable: ");
                        message.push_str(&refused.join(", "));
                    }
                    self.reject(one.record, one.source, &Reason::new(code::NO_IDENTIFIERS, message))?;
                }
            }
        }
        Ok(())
    }

    /// Counts the identifiers of an event that were not used.
    fn refused(&self, one: &Pending<'_>, refused: &[Refusal]) {
        let metrics = self.shared.telemetry.metrics();
        for refusal in refused {
            metrics.identifier_refused(&refusal.kind, refusal.why.as_str());
        }
        for (_, kind) in one.unusable() {
            metrics.identifier_refused(kind, Why::Invalid.as_str());
        }
    }

    fn forward(
        &mut self,
        one: &Pending<'_>,
        resolution: &Resolution,
        workspace: &str,
        header: &mut Vec<u8>,
    ) -> Result<(), Error> {
        for merge in &resolution.merges {
            self.announce(merge, workspace)?;
        }
        let event = &one.event;
        let read = &event.envelope;
        let mut envelope = Envelope {
            workspace,
            event_id: Some(event.event_id),
            source: &one.source.name,
            event_type: event.event_type.as_deref().unwrap_or(&one.source.event_type),
            time: event.time,
            position: read.position,
            ingest: Some(one.record.coordinates()),
            sequence: resolution.sequence,
            change: event.change,
            before: read.before,
            schema: read.schema.or(one.declared),
            previous_schema: read.previous_schema,
            profile: Some(resolution.profile),
            backfill: read.backfill,
            replay: read.replay,
            only_destination: read.only_destination,
            trace_context: read.trace_context,
            row_key: read.row_key.or_else(|| one.record.key()),
            unknown: read.unknown.iter().copied().collect(),
            ..Envelope::default()
        };
        envelope
            .identifiers
            .extend(resolution.identifiers.iter().map(|value| Identifier { kind: &value.kind, value: &value.value }));
        for refusal in &resolution.refused {
            if let Some((index, _)) = event.identifiers.get(refusal.index) {
                envelope.refused.push(&one.source.identifiers[*index].0);
            }
        }
        envelope.refused.extend(one.unusable().map(|(path, _)| path));
        header.clear();
        envelope.encode(header);
        let lane = self.lane(resolution.profile);
        let key = resolution.profile.to_string();
        let outgoing =
            Outgoing::to(&self.resolved).partition(lane).key(key.as_bytes()).value(one.record.value()).envelope(header);
        match self.producer.send(&outgoing) {
            Err(crate::kafka::Error::TooLarge { bytes, topic }) => {
                let message =
                    format!("the event has {bytes} bytes and its metadata {}, more than {topic} takes", header.len());
                self.reject(one.record, one.source, &Reason::new(code::KAFKA_RECORD_TOO_LARGE, message))
            }
            Err(error) => Err(error.into()),
            Ok(()) => {
                self.end(one.record, End::Resolved, "");
                Ok(())
            }
        }
    }

    /// A merge is told to both lanes before the event that caused it: the absorbed profile's lane gets the fence, the
    /// survivor's the hold.
    fn announce(&mut self, merge: &Merge, workspace: &str) -> Result<(), Error> {
        for (profile, role) in [(merge.absorbed, Role::Fence(*merge)), (merge.survivor, Role::Hold(*merge))] {
            let header = Envelope { workspace, profile: Some(profile), role, ..Envelope::default() }.to_bytes();
            let lane = self.lane(profile);
            let key = profile.to_string();
            let outgoing = Outgoing::to(&self.resolved).partition(lane).key(key.as_bytes()).envelope(&header);
            self.producer.send(&outgoing)?;
            if matches!(role, Role::Fence(_)) {
                failpoint::hit_after("merge.announced", || self.producer.acknowledged())?;
            }
        }
        self.shared.telemetry.metrics().merged();
        debug!("{merge}");
        Ok(())
    }

    fn lane(&self, profile: tailwater_core::ProfileId) -> i32 {
        i32::try_from(profile.lane(self.shared.config.kafka.lanes)).unwrap_or(0)
    }

    /// Whether this row was applied before: a source that was killed between producing and saving its cursor repeats rows.
    fn is_repeat(&mut self, record: &Record, event: &Event<'_>) -> Result<bool, Error> {
        let Some(SourcePosition::Table { generation, version, ordinal }) = event.envelope.position else {
            return Ok(false);
        };
        if event.envelope.replay.is_some() || failpoint::bug("bug.dedupe_off") {
            return Ok(false);
        }
        let position = (generation, version, ordinal);
        let partition: Partition = (Arc::clone(&record.topic), record.partition);
        let applied = match self.applied.entry(partition) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => {
                let key = position_key(&record.topic, record.partition);
                let position = self.store.get_json(0, &key, "the position that was applied last")?;
                unknown.insert(Applied { position, moved: false })
            }
        };
        if applied.position.is_some_and(|last| position <= last) {
            return Ok(true);
        }
        *applied = Applied { position: Some(position), moved: true };
        Ok(false)
    }

    /// Writes the positions that have moved, one for each partition and batch.
    fn keep_positions(&mut self) -> Result<(), Error> {
        for ((topic, partition), applied) in &mut self.applied {
            if std::mem::take(&mut applied.moved) {
                // Three numbers into memory: serialising them has no way to fail.
                let value = serde_json::to_vec(&applied.position).unwrap_or_default();
                self.store.put(0, position_key(topic, *partition), Some(value))?;
            }
        }
        Ok(())
    }

    /// Notes an end that holds for every destination.
    fn end(&mut self, record: &Record, end: End, reason: &str) {
        self.ledger.note("", record.partition, &record.coordinates(), 0, end, reason);
        match end {
            End::Skipped => self.shared.telemetry.metrics().skipped("resolve", "", reason),
            End::DeadLettered => self.shared.telemetry.metrics().dead_lettered("resolve", "", reason),
            End::Resolved | End::Held | End::Routed | End::Parked | End::Delivered => {}
        }
    }

    fn reject(&mut self, record: &Record, source: &Source, reason: &Reason) -> Result<(), Error> {
        let failure = Failure {
            stage: "resolve",
            connector: &source.name,
            destination: None,
            transform: None,
            attempts: 1,
            reason,
            stack: None,
        };
        dead_letter::produce(&mut self.producer, &self.shared.names.dlq_source(&source.name), record, &failure)?;
        warn!(source = %source.name, code = %reason.code, at = %record.coordinates(), "dead-lettered: {}", reason.message);
        self.end(record, End::DeadLettered, reason.code.as_str());
        Ok(())
    }

    fn commit(&mut self, records: &[Record], lease: &Lease) -> Result<(), Error> {
        self.keep_positions()?;
        self.ledger.produce(&mut self.producer)?;
        self.store.produce(&mut self.producer, lease)?;
        failpoint::hit_after("resolve.produced", || self.producer.acknowledged())?;
        let mut next: BTreeMap<Partition, i64> = BTreeMap::new();
        for record in records {
            next.insert((Arc::clone(&record.topic), record.partition), record.offset + 1);
        }
        let mut offsets = TopicPartitionList::with_capacity(next.len());
        for ((topic, partition), offset) in &next {
            offsets
                .add_partition_offset(topic, *partition, Offset::Offset(*offset))
                .map_err(|source| crate::kafka::Error::Client { during: "name an offset", source })?;
        }
        self.producer.commit(&offsets, lease)?;
        failpoint::hit("resolve.committed");
        self.store.committed(&self.producer)?;
        Ok(())
    }
}

fn declared(source: &Source) -> Option<SchemaId> {
    match &source.input {
        SourceInput::Kafka(kafka) => kafka.schema.as_ref().map(|schema| schema.id(&source.name)),
        SourceInput::Delta(_) => None,
    }
}

fn position_key(topic: &str, partition: i32) -> Vec<u8> {
    let mut key = vec![POSITION];
    key.extend_from_slice(topic.as_bytes());
    key.push(0);
    key.extend_from_slice(&partition.to_be_bytes());
    key
}
