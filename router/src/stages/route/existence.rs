//! Since when a destination exists, and what becomes of the events from before.
//!
//! `resolved` keeps days of history, and a new consumer group reads it from its beginning. A destination that is added to a
//! running workspace must not send that history as if it happened now: facts (an order of last week) end as `skipped
//! (before_start)`, states (a score) arrive marked as backfill, so that they trigger no campaign.
//!
//! The moment is a position in each partition of `resolved`, not a time: it depends on no clock, and rows that a producer wrote before the
//! very first start still count as live. It is written once, into `state.route.<destination>`, before the first process of
//! the workspace that knows the destination reads anything. A restart, an empty disk, a rebalance and a lost offset therefore leave it as
//! it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tailwater_core::Timestamp;
use tailwater_core::envelope::Role;

use crate::config::model::{Config, Destination, DestinationStart, Kafka, SourceKind};
use crate::kafka::consumer::Partition;
use crate::kafka::read::{Range, Reader};
use crate::kafka::topics::Names;
use crate::kafka::{self, Consumer, Log as _, Outgoing, Outputs as _, Producer};
use crate::stages::shared::held;
use crate::state::{self, Map};

/// The id of the backfill that history belongs to, where the source gave it none. People see it in `row._event.backfill`.
pub const BACKFILL: &str = "before-start";

/// Records of history that are read to count them one by one. Beyond it, the offsets give an upper bound.
const COUNTED_MAX: i64 = 100_000;

/// How an event relates to the moment from which on its destination exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    Live,
    /// It is delivered, marked as backfill.
    Backfill,
    /// It ends as `skipped (before_start)`.
    BeforeStart,
}

/// The moment, in one partition of `resolved`. State topics hold it, so its form is frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beginning {
    /// Records below this offset are from before.
    pub offset: i64,
    /// When that was written down, for people.
    pub at: Timestamp,
}

/// A destination that nothing was written down about yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct New {
    pub destination: String,
    /// The end of each partition.
    partitions: Vec<(i32, i64)>,
    pub history: History,
    start: DestinationStart,
}

/// What `resolved` holds for a destination that is new.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct History {
    pub skipped: u64,
    pub delivered: u64,
    /// Set instead of the counts where there is too much to count: at most that many.
    pub at_most: Option<u64>,
}

/// Decides about an event. `history` says that its record is older than the destination.
pub fn age(start: DestinationStart, kind: &SourceKind, time: Timestamp, history: bool) -> Age {
    let early = matches!(start, DestinationStart::At(at) if time < at);
    match (kind, start) {
        (SourceKind::State, _) if history || early => Age::Backfill,
        (SourceKind::Events { .. }, DestinationStart::At(_)) if early => Age::BeforeStart,
        (SourceKind::Events { .. }, DestinationStart::Now) if history => Age::BeforeStart,
        (SourceKind::Events { .. }, _) if history => Age::Backfill,
        (SourceKind::State | SourceKind::Events { .. }, _) => Age::Live,
    }
}

/// Reads what was written down for a partition whose log ends at `end`. A destination without an entry was there before this was
/// written down: to it, everything is live.
///
/// # Errors
/// The partition is not restored, or the entry cannot be read.
pub fn load(store: &mut impl Map, partition: i32, end: i64, now: Timestamp) -> Result<Beginning, state::Error> {
    let known: Option<Beginning> = store.get_json(partition, held::BEGINNING, "since when the destination exists")?;
    match known {
        Some(known) if known.offset <= end => return Ok(known),
        Some(known) => tracing::warn!(
            topic = store.topic(),
            partition,
            "the destination exists since offset {} of `resolved`, which ends at {end}: the topic was deleted and recreated, so all that it holds counts as live",
            known.offset
        ),
        None => {}
    }
    let beginning = Beginning { offset: 0, at: now };
    store.put(partition, held::BEGINNING.to_vec(), Some(beginning.to_bytes()))?;
    Ok(beginning)
}

/// The destinations whose moment has to be written down, with the history that lies before it.
///
/// # Errors
/// No broker answers.
pub fn find_new(config: &Config) -> Result<Vec<New>, kafka::Error> {
    let names = Names::new(&config.kafka.prefix);
    let reader = Reader::connect(&config.kafka)?;
    let topic = names.resolved();
    let partitions = reader.partitions(&topic)?.unwrap_or_default();
    let mut new = Vec::new();
    for destination in config.destinations.values() {
        // The ends are read before the state: whoever wrote the moment down meanwhile has written a later one.
        let mut ranges = Vec::new();
        for partition in 0..partitions {
            let (start, end) = reader.watermarks(&topic, partition)?;
            ranges.push(Range { topic: topic.clone(), partition, start, end });
        }
        if is_written(&reader, &names.state_route(&destination.name))?
            || has_begun(&config.kafka, &names, &destination.name, partitions)?
        {
            continue;
        }
        let mut ends: BTreeMap<i32, i64> =
            (0..i32::try_from(config.kafka.partitions).unwrap_or(0)).map(|partition| (partition, 0)).collect();
        ends.extend(ranges.iter().map(|range| (range.partition, range.end)));
        new.push(New {
            destination: destination.name.clone(),
            partitions: ends.into_iter().collect(),
            history: count(config, destination, &reader, &ranges)?,
            start: destination.start,
        });
    }
    Ok(new)
}

/// Writes down since when the destinations exist. Their topics must be there.
///
/// # Errors
/// No broker answers, or the right to write is missing.
pub fn write(kafka: &Kafka, new: &[New], now: Timestamp) -> Result<(), kafka::Error> {
    if new.is_empty() {
        return Ok(());
    }
    let names = Names::new(&kafka.prefix);
    let topics: Vec<String> = new.iter().map(|new| names.state_route(&new.destination)).collect();
    let mut producer = Producer::connect(kafka, None, &topics)?;
    for (new, topic) in new.iter().zip(&topics) {
        for &(partition, offset) in &new.partitions {
            let value = Beginning { offset, at: now }.to_bytes();
            let outgoing = Outgoing::to(topic).partition(partition).key(held::BEGINNING).value(Some(&value));
            producer.send(&outgoing)?;
        }
    }
    producer.commit_without_offsets()
}

/// Whether the state of a destination has ever held anything.
fn is_written(reader: &Reader, topic: &str) -> Result<bool, kafka::Error> {
    for partition in 0..reader.partitions(topic)?.unwrap_or_default() {
        if reader.watermarks(topic, partition)?.1 > 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether route has ever committed an offset for the destination.
fn has_begun(kafka: &Kafka, names: &Names, destination: &str, count: i32) -> Result<bool, kafka::Error> {
    let consumer = Consumer::create(kafka, &names.group("route", Some(destination)))?;
    let topic: Arc<str> = Arc::from(names.resolved());
    let partitions: Vec<Partition> = (0..count).map(|partition| (Arc::clone(&topic), partition)).collect();
    Ok(consumer.committed(&partitions)?.iter().any(|(_, offset)| offset.is_some()))
}

/// Counts the events of history that the routes of a destination read.
fn count(
    config: &Config,
    destination: &Destination,
    reader: &Reader,
    ranges: &[Range],
) -> Result<History, kafka::Error> {
    let records: i64 = ranges.iter().map(|range| range.end.saturating_sub(range.start).max(0)).sum();
    if records > COUNTED_MAX {
        return Ok(History { at_most: u64::try_from(records).ok(), ..History::default() });
    }
    let from: BTreeSet<&str> = destination.routes.iter().map(|route| route.from.as_str()).collect();
    let mut history = History::default();
    reader.read::<kafka::Error>(ranges, |record| {
        let Ok(envelope) = record.envelope() else { return Ok(true) };
        let concerns = matches!(envelope.role, Role::Event)
            && envelope.only_destination.is_none()
            && from.contains(envelope.source);
        if let Some(source) = config.sources.get(envelope.source).filter(|_| concerns) {
            match age(destination.start, &source.kind, envelope.time, true) {
                Age::BeforeStart => history.skipped += 1,
                Age::Backfill | Age::Live => history.delivered += 1,
            }
        }
        Ok(true)
    })?;
    Ok(history)
}

// === impl Beginning ===

impl Beginning {
    fn to_bytes(self) -> Vec<u8> {
        // Two numbers into memory: serializing them cannot fail.
        serde_json::to_vec(&self).unwrap_or_default()
    }
}

// === impl New ===

impl New {
    /// What it means for the events from before; nothing where there are none.
    pub fn notice(&self) -> Option<String> {
        let Self { destination, history, start, .. } = self;
        let effect = match (history.at_most, history.skipped, history.delivered) {
            (Some(records), ..) => {
                format!("up to {records} records of history: of these, facts are {}", facts_word(*start))
            }
            (None, 0, 0) => return None,
            (None, skipped, delivered) => format!(
                "{} events of history: {skipped} are skipped (before_start), {delivered} are delivered and marked as backfill",
                skipped + delivered
            ),
        };
        let states = if history.at_most.is_some() { ", states are delivered and marked as backfill" } else { "" };
        Some(format!(
            "destination {destination} is new, and there are {effect}{states}. `destinations.{destination}.start` decides, before the first start"
        ))
    }
}

const fn facts_word(start: DestinationStart) -> &'static str {
    match start {
        DestinationStart::Now => "skipped (before_start)",
        DestinationStart::Earliest => "delivered and marked as backfill",
        DestinationStart::At(_) => "skipped (before_start) if they are older than `start`",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Store;

    const FACTS: SourceKind = SourceKind::Events { id: None };

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    // Issue 10, A16.
    #[test]
    fn history_is_no_news_and_start_decides_about_facts() {
        let since = DestinationStart::At(at(50));
        for (start, kind, time, history, expected) in [
            (DestinationStart::Now, FACTS, 10, true, Age::BeforeStart),
            (DestinationStart::Now, FACTS, 10, false, Age::Live),
            (DestinationStart::Now, SourceKind::State, 10, true, Age::Backfill),
            (DestinationStart::Now, SourceKind::State, 10, false, Age::Live),
            (DestinationStart::Earliest, FACTS, 10, true, Age::Backfill),
            (DestinationStart::Earliest, FACTS, 10, false, Age::Live),
            (DestinationStart::Earliest, SourceKind::State, 10, true, Age::Backfill),
            (since, FACTS, 49, true, Age::BeforeStart),
            (since, FACTS, 50, true, Age::Backfill),
            (since, FACTS, 49, false, Age::BeforeStart),
            (since, FACTS, 50, false, Age::Live),
            (since, SourceKind::State, 49, false, Age::Backfill),
            (since, SourceKind::State, 50, true, Age::Backfill),
            (since, SourceKind::State, 50, false, Age::Live),
        ] {
            assert_eq!(age(start, &kind, at(time), history), expected, "{start:?} {kind:?} {time} {history}");
        }
    }

    #[test]
    fn the_moment_is_kept_and_a_destination_without_one_sees_everything_live() {
        let (mut store, _folder) = Store::without_broker(&[0, 1]);
        let written = Beginning { offset: 70, at: at(5) };
        store.put(0, held::BEGINNING.to_vec(), Some(written.to_bytes())).unwrap();
        assert_eq!(load(&mut store, 0, 100, at(9)).unwrap(), written);
        assert_eq!(load(&mut store, 1, 100, at(9)).unwrap(), Beginning { offset: 0, at: at(9) });
        // An existing destination stays one when its offset is lost later.
        store.keep();
        assert_eq!(load(&mut store, 1, 500, at(11)).unwrap(), Beginning { offset: 0, at: at(9) });
        // `resolved` was deleted and recreated: an offset of the old topic says nothing about the new one.
        assert_eq!(load(&mut store, 0, 3, at(12)).unwrap().offset, 0);
        assert_eq!(load(&mut store, 0, 300, at(13)).unwrap().offset, 0);
    }

    #[test]
    fn the_notice_counts_and_names_the_key() {
        let mut new = New {
            destination: "later".into(),
            partitions: vec![],
            history: History::default(),
            start: DestinationStart::Now,
        };
        assert_eq!(new.notice(), None);
        new.history = History { skipped: 50, delivered: 2, at_most: None };
        let notice = new.notice().unwrap();
        assert!(notice.contains("52 events") && notice.contains("50 are skipped (before_start)"), "{notice}");
        assert!(notice.contains("destinations.later.start"), "{notice}");
    }
}
