//! Reads from Kafka what the audit adds up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tailwater_core::ledger::{Key, decode_entries};
use tailwater_core::{Coordinates, Timestamp, envelope};

use super::tally::{self, Known, Ledger, Places};
use super::{Error, Paused};
use crate::config::model::{Config, SourceInput};
use crate::kafka::consumer::Partition;
use crate::kafka::read::{Range, Reader};
use crate::kafka::topics::{self, Names};
use crate::kafka::{Consumer, Record};
use crate::stages::shared::held;
use crate::stages::source::TROUBLE;

/// The committed offsets of a group.
pub type Committed = BTreeMap<(String, i32), Option<i64>>;

/// One look at the topics.
pub struct Read<'a> {
    config: &'a Config,
    names: Names,
    reader: Reader,
    /// The first offset that Kafka still has of each ingest partition.
    pub removed_before: BTreeMap<(String, i32), i64>,
    ledger_read_to: BTreeMap<i32, i64>,
    /// The pauses that route and send have written down; every partition of a destination holds the same one.
    pub paused: BTreeSet<Paused>,
}

impl<'a> Read<'a> {
    pub fn connect(config: &'a Config) -> Result<Self, Error> {
        Ok(Self {
            config,
            names: Names::new(&config.kafka.prefix),
            reader: Reader::reach(&config.kafka)?,
            removed_before: BTreeMap::new(),
            ledger_read_to: BTreeMap::new(),
            paused: BTreeSet::new(),
        })
    }

    /// The topics of all sources.
    pub fn ingest_topics(&self) -> Vec<String> {
        self.config.sources.values().flat_map(|source| topics::input_topics(&self.names, source)).collect()
    }

    /// How far a stage's group has come in these topics; `None` where it has not begun.
    pub fn committed(&self, stage: &str, part: Option<&str>, topics: &[String]) -> Result<Committed, Error> {
        let consumer = Consumer::create(&self.config.kafka, &self.names.group(stage, part))?;
        let mut partitions: Vec<Partition> = Vec::new();
        for topic in topics {
            for partition in 0..self.reader.partitions(topic)?.unwrap_or(0) {
                partitions.push((Arc::from(topic.as_str()), partition));
            }
        }
        let offsets = consumer.committed(&partitions)?;
        Ok(offsets.into_iter().map(|((topic, partition), offset)| ((topic.to_string(), partition), offset)).collect())
    }

    /// Every record that the ingest topics hold.
    pub fn ingest(&mut self, resolved_to: &Committed, since: Option<Timestamp>) -> Result<Known, Error> {
        let mut known = Known::default();
        for topic in self.ingest_topics() {
            if self.reader.partitions(&topic)?.is_none() {
                continue;
            }
            let ranges = self.reader.whole(&topic)?;
            for range in &ranges {
                self.removed_before.insert((range.topic.clone(), range.partition), range.start);
            }
            self.reader.read::<Error>(&ranges, |record| {
                if since.is_some_and(|since| record.timestamp < since) {
                    return Ok(true);
                }
                let resolved = resolved_to.get(&(topic.clone(), record.partition)).copied().flatten().unwrap_or(0);
                if record.offset < resolved {
                    known.add(&topic, record.partition, record.offset);
                } else {
                    *known.unresolved.entry(topic.clone()).or_default() += 1;
                }
                Ok(true)
            })?;
        }
        Ok(known)
    }

    /// What a stage has not committed yet of a topic.
    fn behind(&self, topic: &str, committed: &Committed) -> Result<Vec<Range>, Error> {
        let mut ranges = self.reader.whole(topic)?;
        for range in &mut ranges {
            if let Some(Some(offset)) = committed.get(&(topic.to_owned(), range.partition)) {
                range.start = range.start.max(*offset);
            }
        }
        Ok(ranges)
    }

    pub fn on_its_way_to_route(&self, destination: &str, places: &mut Places) -> Result<(), Error> {
        let topic = self.names.resolved();
        if self.reader.partitions(&topic)?.is_none() {
            return Ok(());
        }
        let committed = self.committed("route", Some(destination), std::slice::from_ref(&topic))?;
        self.reader.read::<Error>(&self.behind(&topic, &committed)?, |record| {
            note(&record, Some(destination), &mut places.route);
            Ok(true)
        })
    }

    pub fn on_its_way_to_send(&self, destination: &str, places: &mut Places) -> Result<(), Error> {
        let topic = self.names.outbound(destination);
        if self.reader.partitions(&topic)?.is_none() {
            return Ok(());
        }
        let committed = self.committed("send", Some(destination), std::slice::from_ref(&topic))?;
        self.reader.read::<Error>(&self.behind(&topic, &committed)?, |record| {
            note(&record, None, &mut places.send);
            Ok(true)
        })
    }

    /// The records that wait in route's state.
    pub fn held(&mut self, destination: &str, places: &mut Places) -> Result<(), Error> {
        let notes = self.waiting(&self.names.state_route(destination), &mut places.held)?;
        self.paused.extend(notes.iter().map(|note| paused("", destination, note)));
        Ok(())
    }

    /// The records that wait in send's state.
    pub fn parked(&mut self, destination: &str, places: &mut Places) -> Result<(), Error> {
        let notes = self.waiting(&self.names.state_send(destination), &mut places.parked)?;
        self.paused.extend(notes.iter().map(|note| paused("", destination, note)));
        Ok(())
    }

    /// Tables that cannot be read on, from the notes that their sources leave.
    pub fn failing_sources(&mut self) -> Result<(), Error> {
        for source in self.config.sources.values() {
            let topic = self.names.state_source(&source.name);
            if !matches!(source.input, SourceInput::Delta(_)) || self.reader.partitions(&topic)?.is_none() {
                continue;
            }
            let mut trouble = None;
            self.reader.read::<Error>(&self.reader.whole(&topic)?, |record| {
                if record.key() == Some(TROUBLE) {
                    trouble = record.value().and_then(|value| serde_json::from_slice(value).ok());
                }
                Ok(true)
            })?;
            if let Some(note) = trouble {
                self.paused.insert(paused(&source.name, "", &note));
            }
        }
        Ok(())
    }

    /// Notes the records that wait in a state topic; the pauses that it holds.
    fn waiting(
        &self,
        topic: &str,
        blocks: &mut BTreeMap<tally::BlockId, tailwater_core::ledger::Bitmap>,
    ) -> Result<Vec<serde_json::Value>, Error> {
        if self.reader.partitions(topic)?.is_none() {
            return Ok(Vec::new());
        }
        let mut pauses: BTreeMap<(i32, Vec<u8>), serde_json::Value> = BTreeMap::new();
        let name: Arc<str> = Arc::from(topic);
        // The topic may hold several versions of a key until it is compacted: the last one counts.
        let mut held: BTreeMap<(i32, Vec<u8>), Arc<Record>> = BTreeMap::new();
        self.reader.read::<Error>(&self.reader.whole(topic)?, |record| {
            let Some(key) = record.key() else { return Ok(true) };
            match record.value() {
                None => {
                    held.remove(&(record.partition, key.to_vec()));
                    pauses.remove(&(record.partition, key.to_vec()));
                }
                Some(value) => match held::read_entry(&name, record.partition, key, value) {
                    held::Entry::Held { held: entry, .. } => {
                        held.insert((record.partition, key.to_vec()), entry.record);
                    }
                    held::Entry::Pause(note) => {
                        pauses.insert((record.partition, key.to_vec()), note);
                    }
                    held::Entry::Other => {}
                },
            }
            Ok(true)
        })?;
        for record in held.values() {
            note(record, None, blocks);
        }
        Ok(pauses.into_values().collect())
    }

    /// Reads on in the ledger.
    pub fn ledger(&mut self, ledger: &mut Ledger) -> Result<(), Error> {
        let topic = self.names.ledger();
        if self.reader.partitions(&topic)?.is_none() {
            return Ok(());
        }
        let mut ranges = self.reader.whole(&topic)?;
        for range in &mut ranges {
            let read_to = self.ledger_read_to.entry(range.partition).or_insert(range.start);
            range.start = (*read_to).max(range.start);
            *read_to = range.end;
        }
        self.reader.read::<Error>(&ranges, |record| {
            let (Some(key), Some(value)) = (record.key(), record.value()) else { return Ok(true) };
            let failed = |source| Error::Ledger { at: record.coordinates().to_string(), source };
            ledger.add(Key::decode(key).map_err(failed)?, decode_entries(value).map_err(failed)?);
            Ok(true)
        })
    }
}

fn paused(source: &str, destination: &str, note: &serde_json::Value) -> Paused {
    let text = |name: &str| note[name].as_str().unwrap_or_default().to_owned();
    Paused {
        source: source.to_owned(),
        destination: destination.to_owned(),
        route: text("route"),
        code: text("code"),
        message: text("message"),
        since: text("since"),
    }
}

/// Notes the ingest coordinates of a record that carries an event; for one destination, if only its records count.
fn note(
    record: &Record,
    destination: Option<&str>,
    blocks: &mut BTreeMap<tally::BlockId, tailwater_core::ledger::Bitmap>,
) {
    let Ok(envelope) = record.envelope() else { return };
    if envelope.role != envelope::Role::Event {
        return;
    }
    if let (Some(destination), Some(only)) = (destination, envelope.only_destination)
        && destination != only
    {
        return;
    }
    if let Some(Coordinates { topic, partition, offset }) = envelope.ingest {
        tally::add(blocks, topic, partition, offset);
    }
}
