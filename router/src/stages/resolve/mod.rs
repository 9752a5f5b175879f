//! The resolve stage: from the records of all sources to events that belong to a person, in one order.
//!
//! One resolver works per workspace; the others wait for its lease. It reads every partition of every source's topic, decides with the
//! pure functions of `tailwater-identity`, and appends to `resolved`, keyed by profile, in the partition of the profile. Outputs, identity
//! state and offsets are one transaction, fenced by the lease: a resolver that was stopped and woke up again changes nothing.
//!
//! What cannot be resolved ends in `dlq.source.<source>`, and everything that ends here is noted in the ledger for all destinations.

mod decode;
mod failures;
#[cfg(test)]
mod fuzz;
mod identities;
mod positions;
mod shared;
mod surrogates;
mod times;
mod types;
mod unreadable;
mod usable;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tailwater_core::delivery::Reason;
use tailwater_core::envelope::{self, Envelope, Identifier, Merge, Role};
use tailwater_core::ledger::{self, End};
use tailwater_core::limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX};
use tailwater_core::{SchemaId, code};
use tailwater_identity::{Decision, Incoming, Refusal, Resolution, Resolver, Why};
use tracing::{debug, info, warn};

use self::decode::{Decoded, Event};
use self::failures::Failures;
use self::identities::Identities;
use self::positions::Positions;
use self::shared::SharedValues;
use self::times::InvalidTimes;
use self::types::Types;
use super::{Error, IDLE_WAIT};
use crate::config::model::{Source, SourceInput};
use crate::failpoint;
use crate::kafka::consumer::{Partition, Polled};
use crate::kafka::lease::{Change, Lease};
use crate::kafka::read::Reader;
use crate::kafka::{Consumer, Outgoing, Outputs as _, Producer, Record, client, topics};
use crate::runtime::Context;
use crate::stages::shared::commit::{Stage, UnitOfWork};
use crate::stages::shared::dead_letter::{self, Failure};
use crate::stages::shared::ledger::Ledger;
use crate::stages::shared::pace::Pace;
use crate::state::Store;
use crate::state::schemas;

/// How often the sources' topics are looked at for new partitions.
const METADATA_INTERVAL: Duration = Duration::from_secs(60);

/// A row as `resolved` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub body: Vec<u8>,
    /// The row before the change, where the source keeps it.
    pub before: Option<Vec<u8>>,
}

/// The row in a record of an ingest topic, for whoever gives it to route once more.
///
/// # Errors
/// There is none in it.
pub fn row(record: &Record, source: &Source, workspace: &str) -> Result<Row, Reason> {
    let types = types_of(source);
    match decode::decode(record, source, types.as_deref(), workspace) {
        Decoded::Event(event) => {
            Ok(Row { body: event.body.into_owned(), before: event.envelope.before.map(<[u8]>::to_vec) })
        }
        Decoded::Skip(reason) | Decoded::Reject(reason) => Err(reason),
    }
}

/// Runs the stage until shutdown.
///
/// # Errors
/// Kafka or the local state fail in a way that a new attempt may or may not cure (see [`Error::is_recoverable`]).
pub fn run(shared: &Arc<Context>) -> Result<(), Error> {
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
    shared: &'a Arc<Context>,
    consumer: Consumer,
    pace: Pace,
    unit: UnitOfWork,
    /// The sources by their topic.
    sources: BTreeMap<String, Input<'a>>,
    /// The topic of what is resolved.
    resolved: String,
    positions: Positions,
    reader: Reader,
    shared_values: SharedValues,
    invalid_times: InvalidTimes,
    failures: Failures,
    /// Sources that stop until a person acts.
    paused: BTreeSet<String>,
}

/// A source, and the schema that the configuration declares for it.
#[derive(Clone)]
struct Input<'a> {
    source: &'a Source,
    declared: Option<SchemaId>,
    types: Option<Arc<Types>>,
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
    fn open(shared: &'a Arc<Context>, group: &str, heartbeat: &crate::telemetry::Heartbeat) -> Result<Self, Error> {
        let kafka = &shared.config.kafka;
        let names = &shared.names;
        let id = names.transactional_id("resolve", None, shared.cache.instance());
        let mut outputs = vec![names.resolved(), names.state_resolve(), names.ledger()];
        outputs.extend(shared.config.sources.keys().map(|source| names.dlq_source(source)));
        let mut session = Self {
            shared,
            consumer: Consumer::create(kafka, group)?,
            pace: Pace::new(client::commit_interval(kafka.latency)),
            unit: UnitOfWork::new(
                Stage::Resolve,
                Producer::connect(kafka, Some(&id), &outputs)?,
                Store::new(kafka, &shared.cache, &names.state_resolve()).forgetful(&[positions::POSITION]),
                Some(Ledger::new(names.ledger(), ledger::Stage::Resolve, kafka.partitions)),
            ),
            sources: shared
                .config
                .sources
                .values()
                .flat_map(|source| {
                    let input = Input { source, declared: declared(source), types: types_of(source) };
                    topics::input_topics(names, source).map(|topic| (topic, input.clone()))
                })
                .collect(),
            resolved: names.resolved(),
            positions: Positions::default(),
            reader: Reader::connect(kafka)?,
            shared_values: SharedValues::default(),
            invalid_times: InvalidTimes::default(),
            failures: Failures::default(),
            paused: BTreeSet::new(),
        };
        session.unit.store_mut().restore(&[0], &|| heartbeat.tick())?;
        session.announce_declared_schemas()?;
        Ok(session)
    }

    /// Schemas that the configuration declares must be known before the first row that is held against them.
    fn announce_declared_schemas(&mut self) -> Result<(), Error> {
        // All of them are looked up before the first one is announced: a look waits for what an open transaction has written, and
        // would wait for this one.
        let mut new = Vec::new();
        for Input { source, declared, .. } in self.sources.values() {
            if let SourceInput::Kafka(kafka) = &source.input
                && let (Some(schema), Some(id)) = (&kafka.schema, *declared)
                && self.shared.schemas.get(id)?.is_none()
            {
                new.push((id, schemas::first_record(&source.name, schema)));
            }
        }
        for (id, record) in new {
            schemas::announce(&mut self.unit, &self.shared.names.schemas(), id, &record)?;
        }
        self.unit.commit_outputs()
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
            self.look_at_topics(&records)?;
            if !records.is_empty() {
                self.batch(&records, lease)?;
            }
            self.judge()?;
            self.commit_again(lease)?;
            self.shared.telemetry.flush_lines();
        }
        Ok(())
    }

    /// Assigns every partition of every source that is not assigned yet.
    fn take_partitions(&mut self) -> Result<(), Error> {
        let mut new: Vec<Partition> = Vec::new();
        for (topic, input) in &self.sources {
            let count = self.reader.partitions(topic)?;
            let own = topics::input_topic(&self.shared.names, input.source) == *topic;
            if own && matches!(input.source.input, SourceInput::Kafka(_)) {
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
                if !own {
                    debug!(%topic, "nothing of the source was replayed yet");
                    continue;
                }
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
        // Delta sources and replays are written in transactions; what other producers do is not known.
        let transactional = self.unit.is_transactional();
        let ours: BTreeSet<String> = self
            .sources
            .iter()
            .filter(|(topic, input)| transactional && topics::is_trusted(input.source, topic))
            .map(|(topic, _)| topic.clone())
            .collect();
        let starts = self.starts(&all, |topic| ours.contains(topic))?;
        self.consumer.assigned(&starts)?;
        self.stop_paused()
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
        let understood = self.understand(records, &workspace)?;
        if understood.is_empty() {
            return Ok(());
        }
        let mut pending = Vec::with_capacity(understood.len());
        let mut finished = Vec::with_capacity(understood.len());
        for (record, Input { source, declared, .. }, decoded) in understood {
            finished.push(record);
            match decoded {
                Decoded::Event(event) => {
                    if !event.invalid.is_empty() {
                        self.replaced(record, source, &event.invalid);
                    }
                    if let Some(reason) = self.unknown_destination(&event) {
                        self.reject(record, source, &reason)?;
                    } else if self.is_repeat(record, &event)? {
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
        self.commit(&finished, lease)?;
        self.shared_values.report(&self.shared.telemetry);
        self.invalid_times.report(Instant::now());
        self.pace.committed(committing.elapsed());
        let metrics = self.shared.telemetry.metrics();
        metrics.stage_records("resolve", finished.len());
        metrics.transaction_seconds("resolve", started.elapsed());
        debug!(records = finished.len(), ms = started.elapsed().as_millis(), "resolved a batch");
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
            .resolve(&Identities(self.unit.store()), &incoming)
            .map_err(|error| Error::Invalid { code: error.code(), message: error.to_string() })?;
        for write in decided.writes {
            self.unit.store_mut().put(0, write.key.to_bytes(), write.value)?;
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
                    let unusable = one.unusable().map(|(_, kind)| (kind, Why::Invalid));
                    let refused: Vec<String> = refused
                        .iter()
                        .map(|refusal| (&*refusal.kind, refusal.why))
                        .chain(unusable)
                        .map(|(kind, why)| format!("{kind} ({})", why.as_str()))
                        .collect();
                    self.reject(one.record, one.source, &no_identifiers(one.source, &refused))?;
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
            row_key: event.row_key.as_deref(),
            unknown: read.unknown.iter().copied().collect(),
            ..Envelope::default()
        };
        envelope
            .identifiers
            .extend(resolution.identifiers.iter().map(|value| Identifier { kind: &value.kind, value: &value.value }));
        for refusal in &resolution.refused {
            if let Some((index, _)) = event.identifiers.get(refusal.index) {
                let column = one.source.identifiers[*index].0.as_str();
                envelope.refused.push(column);
                let why = refusal.why.as_str();
                envelope.refusals.push(envelope::Refusal { column, kind: &refusal.kind, why });
            }
        }
        for (column, kind) in one.unusable() {
            envelope.refused.push(column);
            envelope.refusals.push(envelope::Refusal { column, kind, why: Why::Invalid.as_str() });
        }
        header.clear();
        envelope.encode(header);
        let partition = self.partition(resolution.profile);
        let key = resolution.profile.to_string();
        let outgoing = Outgoing::to(&self.resolved)
            .partition(partition)
            .key(key.as_bytes())
            .value(Some(&event.body))
            .envelope(header);
        match self.unit.send(&outgoing) {
            Err(crate::kafka::Error::TooLarge { bytes, topic }) => {
                let message =
                    format!("the event has {bytes} bytes and its metadata {}, more than {topic} takes", header.len());
                self.reject(one.record, one.source, &Reason::new(code::KAFKA_RECORD_TOO_LARGE, message))
            }
            Err(error) => Err(error.into()),
            Ok(()) => {
                // The source's name: should the topic be another source's one day, the audit still counts it for this one.
                self.end(one.record, End::Resolved, &one.source.name);
                Ok(())
            }
        }
    }

    /// A merge is told to both partitions before the event that caused it: the absorbed profile's partition gets the fence, the
    /// survivor's the hold.
    fn announce(&mut self, merge: &Merge, workspace: &str) -> Result<(), Error> {
        for (profile, role) in [(merge.absorbed, Role::Fence(*merge)), (merge.survivor, Role::Hold(*merge))] {
            let header = Envelope { workspace, profile: Some(profile), role, ..Envelope::default() }.to_bytes();
            let partition = self.partition(profile);
            let key = profile.to_string();
            let outgoing = Outgoing::to(&self.resolved).partition(partition).key(key.as_bytes()).envelope(&header);
            self.unit.send(&outgoing)?;
            if matches!(role, Role::Fence(_)) {
                failpoint::hit("merge.announced");
            }
        }
        self.shared.telemetry.metrics().merged();
        debug!("{merge}");
        Ok(())
    }

    fn partition(&self, profile: tailwater_core::ProfileId) -> i32 {
        i32::try_from(profile.partition(self.shared.config.kafka.partitions)).unwrap_or(0)
    }

    /// A record for one destination alone that the configuration does not have would be read by nobody.
    fn unknown_destination(&self, event: &Event<'_>) -> Option<Reason> {
        let only = event.envelope.only_destination?;
        (!self.shared.config.destinations.contains_key(only)).then(|| {
            let message =
                format!("the record is for destination {only:?} alone, which the configuration does not have");
            Reason::new(code::DESTINATION_UNKNOWN, message)
        })
    }

    /// Notes an end that holds for every destination.
    fn end(&mut self, record: &Record, end: End, reason: &str) {
        self.unit.note("", record.partition, &record.coordinates(), 0, end, reason);
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
        dead_letter::produce(&mut self.unit, &self.shared.names.dlq_source(&source.name), record, &failure)?;
        self.shared.telemetry.dead_letter_line("resolve", &source.name, reason, &record.coordinates());
        self.end(record, End::DeadLettered, reason.code.as_str());
        Ok(())
    }

    fn commit(&mut self, records: &[&Record], lease: &Lease) -> Result<(), Error> {
        let offsets = self.keep_positions(records)?;
        self.unit.commit(offsets.iter().map(|((topic, partition), next)| (&**topic, *partition, *next)), lease)
    }
}

fn no_identifiers(source: &Source, refused: &[String]) -> Reason {
    let columns: Vec<&str> = source.identifiers.iter().map(|(path, _)| path.as_str()).collect();
    let mut message =
        format!("expected at least one identifier in {} (source {}, `identifiers`)", columns.join(", "), source.name);
    if refused.is_empty() {
        message.push_str("; all of them are missing or null");
    } else {
        message.push_str("; not usable: ");
        message.push_str(&refused.join(", "));
    }
    Reason::new(code::NO_IDENTIFIERS, message)
}

fn types_of(source: &Source) -> Option<Arc<Types>> {
    match &source.input {
        SourceInput::Kafka(kafka) => kafka.schema.as_ref().map(|schema| Arc::new(Types::new(schema))),
        SourceInput::Delta(_) => None,
    }
}

fn declared(source: &Source) -> Option<SchemaId> {
    match &source.input {
        SourceInput::Kafka(kafka) => kafka.schema.as_ref().map(|schema| schema.id(&source.name)),
        SourceInput::Delta(_) => None,
    }
}
