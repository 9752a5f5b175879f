//! Reads what there is about a person: only their partitions, and the dead letters.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde::Deserialize;
use tailwater_core::envelope::{Envelope, Role};
use tailwater_core::ledger::{self, BLOCK, End};
use tailwater_core::operation::Outbound;
use tailwater_core::{EventId, ProfileId, Timestamp};
use tailwater_identity::Person;

use crate::config::model::Config;
use crate::kafka::read::{Range, Reader};
use crate::kafka::topics::Names;
use crate::kafka::{Consumer, Record};
use crate::operator::Error;
use crate::operator::dlq::{Action, Dlq, Filter, Letter, Queue, Reference};
use crate::operator::shown::Place;
use crate::stages::shared::held::{self, Entry};

/// Events of one person that are told; the newest ones.
pub const EVENTS_MAX: usize = 1000;

/// Everything that was found.
#[derive(Debug, Default)]
pub struct Gathered {
    /// By the place in the ingest topic: one record that came in, whatever happened to it since.
    pub events: BTreeMap<Place, Facts>,
    /// Older events that are left out.
    pub left_out: usize,
    /// Destination → why its route is paused.
    pub pauses: BTreeMap<String, Pause>,
    /// Dead letters of sources that mention the person.
    pub mentions: Vec<Letter>,
    /// Destinations at which the person waits for a merge.
    pub merging: BTreeSet<String>,
}

/// One record of the topic `deliveries`.
#[derive(Debug, Clone, Deserialize)]
pub struct Attempt {
    pub at: String,
    pub destination: String,
    pub event: String,
    pub kind: String,
    pub attempt: u32,
    pub outcome: String,
    #[serde(default)]
    pub code: Option<String>,
    #[serde(default)]
    pub message: Option<String>,
    #[serde(default)]
    pub ticket: Option<String>,
    #[serde(default)]
    pub target: Option<String>,
}

/// Why a route stands still, as it notes in its state.
#[derive(Debug, Clone, Deserialize)]
pub struct Pause {
    pub route: String,
    pub code: String,
    pub message: String,
    pub since: String,
}

/// What is known of one event.
#[derive(Debug, Default, Clone)]
pub struct Facts {
    pub id: Option<EventId>,
    pub source: String,
    pub event_type: String,
    pub time: Timestamp,
    /// When it came in.
    pub came_in: Timestamp,
    pub position: String,
    pub change: &'static str,
    pub sequence: u64,
    pub backfill: bool,
    /// Identifiers of the row that are not used for the profile: their types, and why.
    pub refusals: Vec<(String, String)>,
    pub resolved: Vec<Passed>,
    pub destinations: BTreeMap<String, At>,
}

/// A record of `resolved` or `outbound` that carries the event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    pub at: Place,
    /// The number of the replay, 0 for the first time.
    pub replay: u32,
    /// Operations, for outbound.
    pub operations: Vec<String>,
    /// Records before it that the next stage has not committed; `None` if it has committed this one.
    pub behind: Option<i64>,
    /// For this destination alone.
    pub only: Option<String>,
}

/// What is known of the event at one destination.
#[derive(Debug, Default, Clone)]
pub struct At {
    pub held: Option<Timestamp>,
    pub parked: Option<Timestamp>,
    /// The number of the replay that route has not read yet, and the records before it.
    pub unrouted: Option<(u32, i64)>,
    pub outbound: Vec<Passed>,
    pub attempts: Vec<Attempt>,
    pub letters: Vec<DeadLetter>,
    /// What the ledger says, by round.
    pub ends: BTreeMap<u32, BTreeSet<(End, String)>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    pub at: Reference,
    pub code: String,
    pub message: String,
    pub settled: Option<Action>,
}

struct Gatherer<'a> {
    config: &'a Config,
    reader: &'a Reader,
    names: &'a Names,
    profiles: Vec<ProfileId>,
    partitions: BTreeSet<i32>,
    only: Option<EventId>,
    found: Gathered,
}

/// Reads everything about a person, or about one of their events.
pub fn gather(
    config: &Config,
    reader: &Reader,
    names: &Names,
    person: &Person,
    only: Option<EventId>,
    progress: &mut dyn FnMut(&str),
) -> Result<Gathered, Error> {
    let profiles: Vec<ProfileId> = std::iter::once(person.profile).chain(person.absorbed.iter().copied()).collect();
    let partitions =
        profiles.iter().map(|id| i32::try_from(id.partition(config.kafka.partitions)).unwrap_or(0)).collect();
    let mut gatherer = Gatherer { config, reader, names, profiles, partitions, only, found: Gathered::default() };
    progress("reading resolved");
    gatherer.resolved()?;
    for destination in config.destinations.keys() {
        progress(&format!("reading what is on its way to {destination}"));
        gatherer.route_behind(destination)?;
        gatherer.waiting(destination, &names.state_route(destination), true)?;
        gatherer.outbound(destination)?;
        gatherer.waiting(destination, &names.state_send(destination), false)?;
    }
    progress("reading the history");
    gatherer.deliveries()?;
    gatherer.letters(progress)?;
    progress("reading the ledger");
    gatherer.ledger()?;
    Ok(gatherer.found)
}

impl Gatherer<'_> {
    /// The person's partitions of a topic; none if there is no such topic.
    fn partitions_of(&self, topic: &str) -> Result<Vec<Range>, Error> {
        let Some(count) = self.reader.partitions(topic)? else { return Ok(Vec::new()) };
        let mut ranges = Vec::new();
        // Some topics may have fewer partitions than there are partitions; a stage then folds the partition into what is there.
        let partitions: BTreeSet<i32> = self.partitions.iter().map(|partition| partition.rem_euclid(count)).collect();
        for partition in partitions {
            let (start, end) = self.reader.watermarks(topic, partition)?;
            ranges.push(Range { topic: topic.to_owned(), partition, start, end });
        }
        Ok(ranges)
    }

    /// Notes the event that a record carries, if it is one of those that are asked for.
    fn note<'f>(
        found: &'f mut Gathered,
        profiles: &[ProfileId],
        only: Option<EventId>,
        record: &Record,
        envelope: &Envelope<'_>,
    ) -> Option<&'f mut Facts> {
        if envelope.role != Role::Event || !envelope.profile.is_some_and(|profile| profiles.contains(&profile)) {
            return None;
        }
        if only.is_some() && envelope.event_id != only {
            return None;
        }
        let facts = found.events.entry(envelope.ingest?.into()).or_default();
        if facts.id.is_none() {
            facts.id = envelope.event_id;
            facts.source = envelope.source.to_owned();
            facts.event_type = envelope.event_type.to_owned();
            facts.time = envelope.time;
            facts.came_in = record.timestamp;
            facts.position = envelope.position.map(|position| position.to_string()).unwrap_or_default();
            facts.change = envelope.change.as_str();
            facts.sequence = envelope.sequence;
            facts.backfill = envelope.backfill.is_some();
            facts.refusals =
                envelope.refusals.iter().map(|refusal| (refusal.kind.to_owned(), refusal.to_string())).collect();
        }
        Some(facts)
    }

    fn resolved(&mut self) -> Result<(), Error> {
        let ranges = self.partitions_of(&self.names.resolved())?;
        let Self { reader, profiles, only, found, .. } = self;
        reader.read::<Error>(&ranges, |record| {
            let Ok(envelope) = record.envelope() else { return Ok(true) };
            if let Some(facts) = Self::note(found, profiles, *only, &record, &envelope) {
                facts.resolved.push(passed(&record, &envelope));
            }
            if found.events.len() >= EVENTS_MAX * 2 {
                forget_oldest(found);
            }
            Ok(true)
        })?;
        forget_oldest(&mut self.found);
        Ok(())
    }

    /// How far a stage has come in the person's partitions.
    fn committed(&self, stage: &str, destination: &str, topic: &str) -> Result<HashMap<i32, i64>, Error> {
        let Some(count) = self.reader.partitions(topic)? else { return Ok(HashMap::new()) };
        let consumer = Consumer::create(&self.config.kafka, &self.names.group(stage, Some(destination)))?;
        let topic: Arc<str> = Arc::from(topic);
        let partitions: Vec<_> = self
            .partitions
            .iter()
            .filter(|partition| **partition < count)
            .map(|partition| (Arc::clone(&topic), *partition))
            .collect();
        let mut next = HashMap::new();
        for ((topic, partition), offset) in consumer.committed(&partitions)? {
            // A group that has not begun begins at the beginning.
            let offset = match offset {
                Some(offset) => offset,
                None => self.reader.watermarks(&topic, partition)?.0,
            };
            next.insert(partition, offset);
        }
        Ok(next)
    }

    fn route_behind(&mut self, destination: &str) -> Result<(), Error> {
        let committed = self.committed("route", destination, &self.names.resolved())?;
        for facts in self.found.events.values_mut() {
            let at = facts.destinations.entry(destination.to_owned()).or_default();
            let concerned =
                facts.resolved.iter().rfind(|passed| passed.only.as_ref().is_none_or(|only| only == destination));
            if let Some(passed) = concerned {
                let committed = committed.get(&passed.at.partition).copied().unwrap_or(0);
                at.unrouted = (passed.at.offset >= committed).then(|| (passed.replay, passed.at.offset - committed));
            }
        }
        Ok(())
    }

    /// What waits in the state of route or send.
    fn waiting(&mut self, destination: &str, topic: &str, route: bool) -> Result<(), Error> {
        let ranges = self.partitions_of(topic)?;
        let name: Arc<str> = Arc::from(topic);
        let mut entries: BTreeMap<(i32, Vec<u8>), Vec<u8>> = BTreeMap::new();
        let prefixes: Vec<Vec<u8>> = self
            .profiles
            .iter()
            .flat_map(|profile| [b'h', b'w'].map(|tag| [&[tag], profile.as_bytes().as_slice()].concat()))
            .chain([b"p".to_vec()])
            .collect();
        self.reader.read::<Error>(&ranges, |record| {
            let Some(key) = record.key() else { return Ok(true) };
            let ours =
                prefixes.iter().any(|prefix| if prefix.len() == 1 { key == prefix } else { key.starts_with(prefix) });
            if ours {
                // The topic may hold several versions of a key until it is compacted: the last one counts.
                match record.value() {
                    Some(value) => entries.insert((record.partition, key.to_vec()), value.to_vec()),
                    None => entries.remove(&(record.partition, key.to_vec())),
                };
            }
            Ok(true)
        })?;
        for ((partition, key), value) in entries {
            match held::read_entry(&name, partition, &key, &value) {
                Entry::Held { held, .. } => {
                    let Ok(envelope) = held.record.envelope() else { continue };
                    let Self { profiles, only, found, .. } = self;
                    if let Some(facts) = Self::note(found, profiles, *only, &held.record, &envelope) {
                        let at = facts.destinations.entry(destination.to_owned()).or_default();
                        *(if route { &mut at.held } else { &mut at.parked }) = Some(held.since);
                    }
                }
                Entry::Pause(pause) if route => match serde_json::from_value::<Pause>(pause) {
                    Ok(pause) => {
                        self.found.pauses.insert(destination.to_owned(), pause);
                    }
                    Err(error) => tracing::warn!(topic, "the note of a pause could not be read: {error}"),
                },
                Entry::Pause(_) | Entry::Other => {
                    if key.first() == Some(&b'w') {
                        self.found.merging.insert(destination.to_owned());
                    }
                }
            }
        }
        Ok(())
    }

    fn outbound(&mut self, destination: &str) -> Result<(), Error> {
        let topic = self.names.outbound(destination);
        let committed = self.committed("send", destination, &topic)?;
        let ranges = self.partitions_of(&topic)?;
        let Self { reader, profiles, only, found, .. } = self;
        reader.read::<Error>(&ranges, |record| {
            let Ok(envelope) = record.envelope() else { return Ok(true) };
            if !found.events.contains_key(&envelope.ingest.map_or_else(nowhere, Place::from)) && found.left_out > 0 {
                return Ok(true);
            }
            if let Some(facts) = Self::note(found, profiles, *only, &record, &envelope) {
                let at = facts.destinations.entry(destination.to_owned()).or_default();
                let mut passed = passed(&record, &envelope);
                let outbound = serde_json::from_slice::<Outbound>(record.value().unwrap_or_default());
                passed.operations = outbound.map_or_else(
                    |error| vec![format!("no list of operations: {error}")],
                    |outbound| outbound.operations.iter().map(describe).collect(),
                );
                let committed = committed.get(&record.partition).copied().unwrap_or(0);
                passed.behind = (record.offset >= committed).then(|| record.offset - committed);
                // It was routed after all, since the distance was taken.
                at.unrouted = at.unrouted.filter(|(replay, _)| *replay > passed.replay);
                at.outbound.push(passed);
            }
            Ok(true)
        })
    }

    fn deliveries(&mut self) -> Result<(), Error> {
        let ranges = self.partitions_of(&self.names.deliveries())?;
        let mut places: HashMap<String, Vec<Place>> = HashMap::new();
        for (place, facts) in &self.found.events {
            if let Some(id) = facts.id {
                places.entry(id.to_string()).or_default().push(place.clone());
            }
        }
        let Self { reader, found, .. } = self;
        reader.read::<Error>(&ranges, |record| {
            let Some(Ok(attempt)) = record.value().map(serde_json::from_slice::<Attempt>) else { return Ok(true) };
            for place in places.get(&attempt.event).into_iter().flatten() {
                if let Some(facts) = found.events.get_mut(place) {
                    facts.destinations.entry(attempt.destination.clone()).or_default().attempts.push(attempt.clone());
                }
            }
            Ok(true)
        })
    }

    fn letters(&mut self, progress: &mut dyn FnMut(&str)) -> Result<(), Error> {
        let dlq = Dlq::connect(self.config)?;
        for destination in self.config.destinations.keys() {
            let topic = Queue::Destination(destination.clone()).topic(self.names);
            if self.reader.partitions(&topic)?.is_none() {
                continue;
            }
            let filter = Filter { destination: Some(destination.clone()), ..Filter::default() };
            dlq.each(&filter, progress, |letter, mark| {
                let Some(facts) = letter.ingest.as_ref().and_then(|place| self.found.events.get_mut(place)) else {
                    return;
                };
                facts.destinations.entry(destination.clone()).or_default().letters.push(DeadLetter {
                    at: letter.at,
                    code: letter.code,
                    message: letter.message,
                    settled: mark.map(|mark| mark.action),
                });
            })?;
        }
        Ok(())
    }

    fn ledger(&mut self) -> Result<(), Error> {
        let ranges = self.partitions_of(&self.names.ledger())?;
        let blocks: BTreeSet<(String, i32, i64)> = self
            .found
            .events
            .keys()
            .map(|place| (place.topic.clone(), place.partition, place.offset.div_euclid(BLOCK)))
            .collect();
        let Self { reader, found, .. } = self;
        reader.read::<Error>(&ranges, |record| {
            let (Some(key), Some(value)) = (record.key(), record.value()) else { return Ok(true) };
            let failed = |source| Error::Ledger { at: record.coordinates().to_string(), source };
            let key = ledger::Key::decode(key).map_err(failed)?;
            if key.destination.is_empty() || !blocks.contains(&(key.topic.clone(), key.partition, key.block)) {
                return Ok(true);
            }
            let entries = ledger::decode_entries(value).map_err(failed)?;
            let first = Place { topic: key.topic.clone(), partition: key.partition, offset: key.block * BLOCK };
            let last = Place { offset: first.offset + BLOCK - 1, ..first.clone() };
            for (place, facts) in found.events.range_mut(first..=last) {
                for ((end, reason), bitmap) in &entries {
                    if bitmap.contains(place.offset) {
                        let at = facts.destinations.entry(key.destination.clone()).or_default();
                        at.ends.entry(key.round).or_default().insert((*end, reason.clone()));
                    }
                }
            }
            Ok(true)
        })
    }
}

fn nowhere() -> Place {
    Place { topic: String::new(), partition: 0, offset: 0 }
}

fn passed(record: &Record, envelope: &Envelope<'_>) -> Passed {
    Passed {
        at: record.coordinates().into(),
        replay: envelope.replay.map_or(0, |replay| replay.count),
        operations: Vec::new(),
        behind: None,
        only: envelope.only_destination.map(str::to_owned),
    }
}

fn describe(operation: &tailwater_core::operation::Operation) -> String {
    format!("{} by route {}", operation.describe(), operation.route)
}

/// Keeps the newest events.
fn forget_oldest(found: &mut Gathered) {
    let excess = found.events.len().saturating_sub(EVENTS_MAX);
    if excess == 0 {
        return;
    }
    let mut ages: Vec<(Timestamp, u64, Place)> =
        found.events.iter().map(|(place, facts)| (facts.came_in, facts.sequence, place.clone())).collect();
    ages.sort_unstable();
    for (.., place) in ages.drain(..excess) {
        found.events.remove(&place);
    }
    found.left_out += excess;
}
