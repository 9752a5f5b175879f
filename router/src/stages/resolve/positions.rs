//! Where resolve stands in the sources' topics.
//!
//! The group's committed offsets are not enough: resolve assigns its partitions by hand and never subscribes to the topics, so the broker
//! drops the offsets of a partition that was quiet for `offsets.retention.minutes` (seven days). The next start would then read
//! the source again from its beginning. So the position of each partition is in the stage's state as well, in the same transaction, and
//! what the broker forgot is committed again. Where the group has an offset, it counts: an operator who resets it means it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tailwater_core::SourcePosition;
use tracing::{debug, error, warn};

use super::Session;
use super::decode::Event;
use crate::kafka::consumer::{Partition, Start, removed_only_a_marker};
use crate::kafka::lease::Lease;
use crate::kafka::read::Range;
use crate::kafka::{self, Record};
use crate::stages::Error;
use crate::state::Map as _;

/// Begins the keys of the positions that were applied last, in the same state as the identities.
pub(super) const POSITION: u8 = b'o';

/// Begins the keys of how far each partition was read.
const READ: u8 = b'r';

/// How often offsets are committed again that have not moved: far below the week after which the broker drops them.
const COMMIT_AGAIN: Duration = Duration::from_secs(6 * 3600);

/// A partition that brought nothing for this long may have been deleted and recreated meanwhile. To delete a topic, to create it and to write
/// as many records as were read takes longer.
const QUIET: Duration = Duration::from_secs(1);

/// How often partitions that bring nothing are looked at, and how many of them at a time.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
const LOOKED_AT_MAX: usize = 16;

/// The positions of one session.
#[derive(Default)]
pub(super) struct Positions {
    /// Where each partition of a table's rows stands; known of those that rows came from.
    applied: BTreeMap<Partition, Applied>,
    /// How far each partition was read; known of those that records came from, now or before.
    read: BTreeMap<Partition, i64>,
    /// The last record that was read of each partition, and when it was known to be there.
    last: BTreeMap<Partition, (ReadTo, Instant)>,
    /// When quiet partitions are looked at, and the one that was looked at last.
    look: Option<Instant>,
    looked_at: Option<Partition>,
    /// When offsets that have not moved are committed again.
    commit_again: Option<Instant>,
}

/// The position of the last row that was applied of a partition.
struct Applied {
    position: Option<TablePosition>,
    /// It has moved since it was written.
    moved: bool,
}

/// Generation, version and ordinal of a table's row.
type TablePosition = (u32, u64, u64);

/// How far a partition was read. Frozen: the state topic holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct ReadTo {
    /// The next offset.
    next: i64,
    /// The last record that was read, and its timestamp: another one there tells that the topic was deleted and recreated.
    last: i64,
    timestamp: i64,
}

impl Session<'_> {
    /// Where partitions are read from: where the group left off, or, if the broker has dropped that, where the state says.
    pub(super) fn starts(
        &mut self,
        partitions: &[Partition],
        transactional: impl Fn(&str) -> bool,
    ) -> Result<Vec<Start>, Error> {
        let mut starts = self.consumer.starts(partitions, &transactional)?;
        for start in &mut starts {
            if !start.committed {
                self.remembered(start, &transactional)?;
            }
            if start.committed {
                let partition = (Arc::clone(&start.topic), start.partition);
                let key = partition_key(READ, &start.topic, start.partition);
                // An operator who resets the offset has seen what the topic holds.
                if let Some(read) = self.unit.store().get_json::<ReadTo>(0, &key, "how far a partition was read")?
                    && read.next == start.offset
                {
                    self.positions.last.insert(partition.clone(), (read, Instant::now()));
                }
                self.positions.read.insert(partition, start.offset);
            }
        }
        let known: Vec<Partition> = self.positions.last.keys().cloned().collect();
        self.require_same(&known)?;
        Ok(starts)
    }

    /// Fails if a partition that brought records after it was quiet, or one of those that are quiet, was deleted and recreated: it has other
    /// records at the offsets that were read, and those would never be read.
    pub(super) fn look_at_topics(&mut self, records: &[Record]) -> Result<(), Error> {
        let quiet = |last: &(ReadTo, Instant)| last.1.elapsed() >= QUIET;
        let mut moved: Vec<Partition> = Vec::new();
        for record in records {
            let partition = (Arc::clone(&record.topic), record.partition);
            if moved.last() != Some(&partition)
                && !moved.contains(&partition)
                && self.positions.last.get(&partition).is_some_and(quiet)
            {
                moved.push(partition);
            }
        }
        self.require_same(&moved)?;
        let due = *self.positions.look.get_or_insert_with(|| Instant::now() + LOOK_INTERVAL);
        if Instant::now() < due {
            return Ok(());
        }
        self.positions.look = Some(Instant::now() + LOOK_INTERVAL);
        let known = &self.positions.last;
        let after = match &self.positions.looked_at {
            Some(partition) => known.range((Bound::Excluded(partition.clone()), Bound::Unbounded)),
            None => known.range::<Partition, _>(..),
        };
        let next: Vec<Partition> = after.take(LOOKED_AT_MAX).map(|(partition, _)| partition.clone()).collect();
        self.positions.looked_at = next.last().cloned();
        match self.require_same(&next) {
            Err(error @ Error::Kafka(kafka::Error::TopicRecreated { .. })) => Err(error),
            // A topic that is gone is noticed by who reads it.
            Err(error) => {
                debug!("could not look at what was read last: {error}");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Fails if one of the partitions does not hold the record any more that was read of it last.
    fn require_same(&mut self, partitions: &[Partition]) -> Result<(), Error> {
        let mut ranges = Vec::new();
        let recreated = |topic: &str, partition: i32, read: &ReadTo| kafka::Error::TopicRecreated {
            group: self.consumer.group().to_owned(),
            topic: topic.to_owned(),
            partition,
            committed: read.next,
            last: read.last,
        };
        for (topic, partition) in partitions {
            let Some((read, _)) = self.positions.last.get(&(Arc::clone(topic), *partition)) else { continue };
            let (low, high) = self.consumer.watermarks(topic, *partition)?;
            if read.last >= high {
                return Err(recreated(topic, *partition, read).into());
            }
            if read.last >= low {
                let topic = topic.to_string();
                ranges.push(Range { topic, partition: *partition, start: read.last, end: read.last + 1 });
            }
        }
        if ranges.is_empty() {
            return Ok(());
        }
        let mut other = None;
        self.reader.read::<Error>(&ranges, |record| {
            let found = self.positions.last.get(&(Arc::clone(&record.topic), record.partition));
            if let Some((read, _)) = found
                && record.offset == read.last
                && record.timestamp.as_millis() != read.timestamp
            {
                other = Some(recreated(&record.topic, record.partition, read));
            }
            Ok(true)
        })?;
        if let Some(error) = other {
            return Err(error.into());
        }
        for partition in partitions {
            if let Some((_, seen)) = self.positions.last.get_mut(partition) {
                *seen = Instant::now();
            }
        }
        Ok(())
    }

    fn remembered(&mut self, start: &mut Start, transactional: impl Fn(&str) -> bool) -> Result<(), Error> {
        let (topic, partition) = (Arc::clone(&start.topic), start.partition);
        let key = partition_key(READ, &topic, partition);
        let Some(read): Option<ReadTo> = self.unit.store().get_json(0, &key, "how far a partition was read")? else {
            return Ok(());
        };
        let (low, high) = self.consumer.watermarks(&topic, partition)?;
        if read.next > high || !self.is_the_same(&topic, partition, &read, low)? {
            error!(
                %topic, partition, code = %tailwater_core::code::KAFKA_OFFSET_LOST,
                "the topic holds other records than before: it was deleted and recreated, and is read from its beginning"
            );
            return Ok(());
        }
        if transactional(&topic) && removed_only_a_marker(read.next, low, high) {
            start.offset = low;
        } else if read.next < low {
            return Err(kafka::Error::OffsetLost {
                group: self.consumer.group().to_owned(),
                topic: topic.to_string(),
                partition,
                committed: read.next,
                low,
                high,
            }
            .into());
        } else {
            start.offset = read.next;
        }
        warn!(
            %topic, partition, offset = start.offset,
            "the broker has dropped the group's offset; reading goes on where the state says"
        );
        start.committed = true;
        self.positions.commit_again = Some(Instant::now());
        Ok(())
    }

    /// Whether the topic still holds the record that was read last, as far as that can be told.
    fn is_the_same(&self, topic: &str, partition: i32, read: &ReadTo, low: i64) -> Result<bool, Error> {
        if read.last < low {
            return Ok(true);
        }
        let range = Range { topic: topic.to_owned(), partition, start: read.last, end: read.last + 1 };
        let mut same = true;
        self.reader.read::<Error>(&[range], |record| {
            if record.offset == read.last {
                same = record.timestamp.as_millis() == read.timestamp;
            }
            Ok(false)
        })?;
        Ok(same)
    }

    /// Whether this row was applied before: a source that was killed between producing and saving its cursor repeats rows.
    pub(super) fn is_repeat(&mut self, record: &Record, event: &Event<'_>) -> Result<bool, Error> {
        let Some(SourcePosition::Table { generation, version, ordinal }) = event.envelope.position else {
            return Ok(false);
        };
        if event.envelope.replay.is_some() {
            return Ok(false);
        }
        let position = (generation, version, ordinal);
        let partition: Partition = (Arc::clone(&record.topic), record.partition);
        let applied = match self.positions.applied.entry(partition) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => {
                let key = partition_key(POSITION, &record.topic, record.partition);
                let position = self.unit.store().get_json(0, &key, "the position that was applied last")?;
                unknown.insert(Applied { position, moved: false })
            }
        };
        if applied.position.is_some_and(|last| position <= last) {
            return Ok(true);
        }
        *applied = Applied { position: Some(position), moved: true };
        Ok(false)
    }

    /// Writes the positions that have moved, one for each partition and batch, and returns the offsets to commit.
    pub(super) fn keep_positions(&mut self, records: &[&Record]) -> Result<Vec<(Partition, i64)>, Error> {
        for ((topic, partition), applied) in &mut self.positions.applied {
            if std::mem::take(&mut applied.moved) {
                // Three numbers into memory: serialising them has no way to fail.
                let value = serde_json::to_vec(&applied.position).unwrap_or_default();
                self.unit.store_mut().put(0, partition_key(POSITION, topic, *partition), Some(value))?;
            }
        }
        let mut last: BTreeMap<Partition, &Record> = BTreeMap::new();
        for record in records {
            last.insert((Arc::clone(&record.topic), record.partition), record);
        }
        let mut offsets = Vec::with_capacity(last.len());
        for ((topic, partition), record) in last {
            let read = ReadTo { next: record.offset + 1, last: record.offset, timestamp: record.timestamp.as_millis() };
            let value = serde_json::to_vec(&read).unwrap_or_default();
            self.unit.store_mut().put(0, partition_key(READ, &topic, partition), Some(value))?;
            offsets.push(((Arc::clone(&topic), partition), read.next));
            self.positions.last.insert((Arc::clone(&topic), partition), (read, Instant::now()));
            self.positions.read.insert((topic, partition), read.next);
        }
        Ok(offsets)
    }

    /// Commits again what has not moved for a long time, or what the broker had dropped.
    pub(super) fn commit_again(&mut self, lease: &Lease) -> Result<(), Error> {
        let due = *self.positions.commit_again.get_or_insert_with(|| Instant::now() + COMMIT_AGAIN);
        if Instant::now() < due {
            return Ok(());
        }
        self.positions.commit_again = Some(Instant::now() + COMMIT_AGAIN);
        let read = self.positions.read.iter();
        self.unit.commit(read.map(|((topic, partition), next)| (&**topic, *partition, *next)), lease)
    }
}

fn partition_key(tag: u8, topic: &str, partition: i32) -> Vec<u8> {
    let mut key = vec![tag];
    key.extend_from_slice(topic.as_bytes());
    key.push(0);
    key.extend_from_slice(&partition.to_be_bytes());
    key
}
