//! One changelog topic as a map from keys to values, partition by partition.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fjall::{Keyspace, PersistMode};
use tracing::{debug, info, warn};

use super::Error;
use super::cache::{APPLIED, Cache, MARKER};
use super::redo::{self, Assembly, REDO};
use crate::config::model::Kafka;
use crate::failpoint;
use crate::kafka::read::{Range, Reader};
use crate::kafka::topics;
use crate::kafka::{Log, Outgoing, Record};

/// Entries that are written to disk at once during a restore.
const RESTORE_BATCH: usize = 10_000;

/// How long a cache may have been left behind and still be caught up, at most; see [`cache_age_max`].
const CACHE_AGE_MAX: Duration = Duration::from_secs(3 * 86_400);

/// For how long a broker keeps deletions if nobody has told it otherwise. Assumed where the topic's setting may not be read.
const DELETE_RETENTION_DEFAULT: Duration = Duration::from_secs(86_400);

/// How far ahead of now a cache may have been written before its age counts as unknown.
const CLOCK_SKEW_MAX_MS: i64 = 300_000;

/// Writes to a partition that are not committed yet; `None` deletes.
type Overlay = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// A key and its value.
pub type Entry = (Vec<u8>, Vec<u8>);

/// The keys that a batch has written, by partition.
#[derive(Debug, Default)]
pub struct Batch(Vec<(i32, Vec<Vec<u8>>)>);

/// The state of one stage. In which order its writes reach the changelog, and after what, is decided in `stages/shared/commit`.
pub struct Store {
    topic: Arc<str>,
    kafka: Kafka,
    cache: Cache,
    partitions: HashMap<i32, Partition>,
    /// What the first bytes of keys are that a planted defect hides.
    forgotten: Vec<u8>,
}

struct Partition {
    keyspace: Keyspace,
    cluster: Arc<str>,
    /// The offset of the changelog up to which the cache has followed it.
    applied: i64,
    /// `None` until the partition holds state.
    marker: Option<Marker>,
    /// The marker that the open transaction writes.
    announced: Option<String>,
    overlay: Overlay,
    /// The keys of the overlay that have not been produced in the open transaction.
    unproduced: Vec<Vec<u8>>,
    /// Keys that an earlier owner wrote as part of a batch and not under their own names (see [`redo`]).
    unfinished: BTreeSet<Vec<u8>>,
    /// They are part of the open batch.
    finishing: bool,
}

/// Where a cache stands; it belongs to one cluster and one life of the topic.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
struct Applied {
    cluster: String,
    offset: i64,
    /// When it stood there, in milliseconds since the epoch.
    #[serde(default)]
    at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    marker: Option<Marker>,
}

/// The record that names one life of a partition.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Marker {
    offset: i64,
    name: String,
}

/// A partition that is about to be restored.
struct Found {
    number: i32,
    keyspace: Keyspace,
    low: i64,
    high: i64,
    /// What the cache says about itself, if it belongs to this cluster.
    applied: Option<Applied>,
}

// === impl Store ===

impl Store {
    pub fn new(kafka: &Kafka, cache: &Cache, topic: &str) -> Self {
        Self {
            topic: Arc::from(topic),
            kafka: kafka.clone(),
            cache: cache.clone(),
            partitions: HashMap::new(),
            forgotten: vec![],
        }
    }

    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Names what a stage remembers of what was done: the entries whose keys begin with one of these bytes. The planted defect
    /// `bug.dedupe_off` hides them from every reader.
    #[must_use]
    pub fn forgetful(mut self, tags: &[u8]) -> Self {
        self.forgotten.extend_from_slice(tags);
        self
    }

    fn is_hidden(&self, key: &[u8]) -> bool {
        failpoint::bug("bug.dedupe_off") && key.first().is_some_and(|tag| self.forgotten.contains(tag))
    }

    /// Takes partitions over: follows the changelog from where the cache stands to its end. Blocks until they have caught up, and
    /// calls `alive` now and then. What was followed is kept: a process that is killed meanwhile goes on where it stopped.
    ///
    /// # Errors
    /// No broker answers, the disk refuses, or the topic is not the one any more that the cache has followed.
    pub fn restore(&mut self, partitions: &[i32], alive: &dyn Fn()) -> Result<(), Error> {
        let reader = Reader::connect(&self.kafka)?;
        let cluster: Arc<str> = Arc::from(reader.cluster_id().unwrap_or_default());
        let mut all = Vec::with_capacity(partitions.len());
        for &number in partitions {
            let (low, high) = reader.settled_watermarks(&self.topic, number)?;
            let keyspace = self.cache.keyspace(&self.keyspace_name(number))?;
            let applied =
                keyspace.get(APPLIED)?.and_then(|bytes| serde_json::from_slice::<Applied>(&bytes).ok()).filter(|applied| {
                    let same = applied.cluster == *cluster;
                    if !same {
                        warn!(topic = %self.topic, partition = number, "the local state belongs to another Kafka cluster; it is dropped, and what the topic holds counts");
                    }
                    same
                });
            all.push(Found { number, keyspace, low, high, applied });
        }
        self.check_lives(&reader, &all)?;
        let is_behind = |found: &Found| found.applied.as_ref().is_some_and(|applied| applied.offset < found.high);
        let age_max = if all.iter().any(is_behind) {
            cache_age_max(topics::delete_retention(&self.kafka, &self.topic)?)
        } else {
            CACHE_AGE_MAX
        };
        for found in all {
            self.follow(&reader, found, &cluster, age_max, alive)?;
        }
        Ok(())
    }

    /// Whether the topic is still the one that the caches have followed.
    fn check_lives(&self, reader: &Reader, all: &[Found]) -> Result<(), Error> {
        let lost = |partition: i32, detail: String| Error::Lost { topic: self.topic.to_string(), partition, detail };
        let mut missing: BTreeMap<i32, &Marker> = BTreeMap::new();
        for found in all {
            let Some(applied) = &found.applied else { continue };
            if applied.offset > found.high {
                let detail =
                    format!("this process has followed it to offset {}, and it ends at {}", applied.offset, found.high);
                return Err(lost(found.number, detail));
            }
            if let Some(marker) = &applied.marker {
                missing.insert(found.number, marker);
            }
        }
        let ranges: Vec<Range> = missing
            .iter()
            .map(|(&partition, marker)| Range {
                topic: self.topic.to_string(),
                partition,
                start: marker.offset,
                end: marker.offset + 1,
            })
            .collect();
        reader.read::<Error>(&ranges, |record| {
            if missing.get(&record.partition).is_some_and(|marker| marker.is(&record)) {
                missing.remove(&record.partition);
            }
            Ok(true)
        })?;
        match missing.first_key_value() {
            None => Ok(()),
            Some((partition, marker)) => Err(lost(
                *partition,
                format!("the marker {} that this process knows at offset {} is not there", marker.name, marker.offset),
            )),
        }
    }

    fn follow(
        &mut self,
        reader: &Reader,
        found: Found,
        cluster: &Arc<str>,
        age_max: Duration,
        alive: &dyn Fn(),
    ) -> Result<(), Error> {
        let Found { number, keyspace, low, high, applied } = found;
        let started = Instant::now();
        let applied = applied
            .filter(|applied| applied.is_usable(high, self.cache.now_ms(), age_max))
            .filter(|_| !failpoint::bug("bug.state_not_restored"));
        if applied.is_none() && !keyspace.is_empty()? {
            keyspace.clear()?;
        }
        let from = applied.as_ref().map_or(low, |applied| applied.offset).max(low);
        let from = if failpoint::bug("bug.state_not_restored") { high } else { from };
        let mut partition = Partition {
            keyspace,
            cluster: Arc::clone(cluster),
            applied: from,
            marker: applied.and_then(|applied| applied.marker),
            announced: None,
            overlay: Overlay::new(),
            unproduced: Vec::new(),
            unfinished: BTreeSet::new(),
            finishing: false,
        };
        let mut assembly = Assembly::default();
        let range = Range { topic: self.topic.to_string(), partition: number, start: from, end: high };
        let mut restored = 0_usize;
        let mut batch = self.cache.database().batch();
        reader.read::<Error>(&[range], |record| {
            let Some(key) = record.key() else { return Ok(true) };
            match record.value() {
                Some(value) if key == MARKER => partition.marker = Some(Marker::at(record.offset, value)),
                Some(value) if key.starts_with(REDO) => {
                    for (key, value) in self.redone(number, key, assembly.take(record.offset, value))? {
                        match value {
                            Some(value) => batch.insert(&partition.keyspace, key, value),
                            None => batch.remove(&partition.keyspace, key),
                        }
                    }
                }
                Some(value) => {
                    assembly.wrote(key);
                    batch.insert(&partition.keyspace, key, value);
                }
                None => {
                    assembly.wrote(key);
                    batch.remove(&partition.keyspace, key);
                }
            }
            restored += 1;
            if restored.is_multiple_of(RESTORE_BATCH) || failpoint::is_armed("restore.half") {
                alive();
                partition.applied = assembly.start().unwrap_or(record.offset + 1);
                batch.insert(&partition.keyspace, APPLIED, partition.applied_bytes(self.cache.now_ms()));
                std::mem::replace(&mut batch, self.cache.database().batch()).commit()?;
                failpoint::hit("restore.half");
            }
            Ok(true)
        })?;
        partition.applied = assembly.start().unwrap_or(high);
        partition.unfinished = assembly.unfinished();
        batch.insert(&partition.keyspace, APPLIED, partition.applied_bytes(self.cache.now_ms()));
        batch.commit()?;
        debug!(topic = %self.topic, partition = number, from, to = high, restored, ms = started.elapsed().as_millis(), "state restored");
        if started.elapsed().as_secs() >= 5 {
            info!(topic = %self.topic, partition = number, restored, seconds = started.elapsed().as_secs(), "state restored");
        }
        self.partitions.insert(number, partition);
        Ok(())
    }

    /// The writes of a batch that was read whole; none before its last chunk.
    fn redone(
        &self,
        partition: i32,
        key: &[u8],
        taken: Result<Option<Vec<redo::Write>>, redo::Unreadable>,
    ) -> Result<Vec<redo::Write>, Error> {
        use super::Map as _;
        taken.map(Option::unwrap_or_default).map_err(|error| self.damaged(partition, key, "a batch of state", &error))
    }

    fn keyspace_name(&self, partition: i32) -> String {
        // Keyspace names are file names; topic names allow nothing that those do not.
        format!("{}-{partition}", self.topic)
    }

    /// Gives partitions up. What was committed stays on disk for the next time.
    pub fn release(&mut self, partitions: &[i32]) {
        for partition in partitions {
            self.partitions.remove(partition);
        }
    }

    fn partition(&self, number: i32) -> Result<&Partition, Error> {
        self.partitions.get(&number).ok_or_else(|| Error::NotOpen { topic: self.topic.to_string(), partition: number })
    }

    /// The value of a key, writes of the open batch included.
    ///
    /// # Errors
    /// The partition is not restored, or the disk refuses.
    pub fn get(&self, partition: i32, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let partition = self.partition(partition)?;
        if self.is_hidden(key) {
            return Ok(None);
        }
        if let Some(written) = partition.overlay.get(key) {
            return Ok(written.clone());
        }
        Ok(partition.keyspace.get(key)?.map(|value| value.to_vec()))
    }

    /// All entries whose keys begin with `prefix`, in the order of their keys, writes of the open batch included.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn scan(&self, partition: i32, prefix: &[u8]) -> Result<Vec<Entry>, Error> {
        self.scan_first(partition, prefix, usize::MAX)
    }

    /// As [`Self::scan`], but only the first entries: at least `max` of them, if there are as many.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn scan_first(&self, partition: i32, prefix: &[u8], max: usize) -> Result<Vec<Entry>, Error> {
        let partition = self.partition(partition)?;
        if self.is_hidden(prefix) {
            return Ok(Vec::new());
        }
        let mut found: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        // Deletions of the open batch may hide some of what is read.
        let max = max.saturating_add(partition.overlay.len());
        for entry in partition.keyspace.prefix(prefix).take(max) {
            let (key, value) = entry.into_inner()?;
            if key.first() != Some(&0) {
                found.insert(key.to_vec(), value.to_vec());
            }
        }
        for (key, value) in partition.overlay.range(prefix.to_vec()..) {
            if !key.starts_with(prefix) {
                break;
            }
            match value {
                Some(value) => {
                    found.insert(key.clone(), value.clone());
                }
                None => {
                    found.remove(key);
                }
            }
        }
        Ok(found.into_iter().collect())
    }

    /// Looks at every key that begins with `prefix`, in their order and without their values, however many there are.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn each_key(&self, partition: i32, prefix: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), Error> {
        let partition = self.partition(partition)?;
        if self.is_hidden(prefix) {
            return Ok(());
        }
        for entry in partition.keyspace.prefix(prefix) {
            let key = entry.key()?;
            // What the open batch has written or deleted is known better below.
            if key.first() != Some(&0) && !partition.overlay.contains_key(&key[..]) {
                each(&key);
            }
        }
        for (key, value) in partition.overlay.range(prefix.to_vec()..) {
            if !key.starts_with(prefix) {
                break;
            }
            if value.is_some() {
                each(key);
            }
        }
        Ok(())
    }

    /// Writes a key into the open batch; `None` deletes it. Keys must not begin with a zero byte.
    ///
    /// # Errors
    /// The partition is not restored.
    pub fn put(&mut self, partition: i32, key: Vec<u8>, value: Option<Vec<u8>>) -> Result<(), Error> {
        debug_assert!(key.first() != Some(&0), "zero bytes are the cache's own");
        let topic = Arc::clone(&self.topic);
        let open = self
            .partitions
            .get_mut(&partition)
            .ok_or_else(|| Error::NotOpen { topic: topic.to_string(), partition })?;
        open.unproduced.push(key.clone());
        open.overlay.insert(key, value);
        Ok(())
    }

    /// Whether there is anything to write to the changelog.
    pub fn is_dirty(&self) -> bool {
        self.partitions.values().any(|one| !one.unproduced.is_empty() || !one.unfinished.is_empty())
    }

    /// Whether keys were written that no batch has taken.
    pub fn has_written(&self) -> bool {
        self.partitions.values().any(|one| !one.unproduced.is_empty())
    }

    /// Takes the keys that were written since the last call.
    pub fn batch(&mut self) -> Batch {
        let mut batch = Batch::default();
        for (number, partition) in &mut self.partitions {
            let mut keys = std::mem::take(&mut partition.unproduced);
            if !keys.is_empty() {
                keys.sort_unstable();
                keys.dedup();
                batch.0.push((*number, keys));
            }
        }
        batch
    }

    /// Writes under their own keys what an earlier owner was killed over (see [`redo`]); true if there was any.
    ///
    /// # Errors
    /// A value exceeds the size limit, or the client cannot go on.
    pub fn finish(&mut self, log: &mut impl Log) -> Result<bool, Error> {
        for (number, partition) in &mut self.partitions {
            for key in std::mem::take(&mut partition.unfinished) {
                let value = partition.keyspace.get(&key)?;
                let outgoing = Outgoing::to(&self.topic).partition(*number).key(&key).value(value.as_deref());
                log.send_tracked(&outgoing)?;
                partition.finishing = true;
            }
        }
        Ok(self.partitions.values().any(|partition| partition.finishing))
    }

    /// Writes each partition's part of a batch as one piece (see [`redo`]), for a broker without transactions.
    ///
    /// # Errors
    /// As [`Self::finish`].
    pub fn write_whole(&self, log: &mut impl Log, batch: &Batch) -> Result<(), Error> {
        for (number, keys) in &batch.0 {
            let partition = self.partition(*number)?;
            let writes = keys.iter().map(|key| (key.as_slice(), partition.overlay.get(key).and_then(Option::as_deref)));
            for (key, value) in redo::chunks(uuid::Uuid::new_v4().as_bytes(), writes) {
                log.send(&Outgoing::to(&self.topic).partition(*number).key(&key).value(Some(&value)))?;
            }
        }
        Ok(())
    }

    /// Writes a batch under its keys.
    ///
    /// # Errors
    /// As [`Self::finish`].
    pub fn write_keys(&mut self, log: &mut impl Log, batch: &Batch) -> Result<(), Error> {
        for (number, keys) in &batch.0 {
            let Some(partition) = self.partitions.get_mut(number) else { continue };
            if partition.marker.is_none() && partition.announced.is_none() {
                let name = uuid::Uuid::new_v4().simple().to_string();
                let marker = Outgoing::to(&self.topic).partition(*number).key(MARKER).value(Some(name.as_bytes()));
                log.send_noted(&marker)?;
                partition.announced = Some(name);
            }
            let mut keys = keys.iter().peekable();
            while let Some(key) = keys.next() {
                let value = partition.overlay.get(key).and_then(Option::as_deref);
                let outgoing = Outgoing::to(&self.topic).partition(*number).key(key).value(value);
                // A partition's records are written in order: where the last one stands is where all of them end.
                if keys.peek().is_some() { log.send(&outgoing)? } else { log.send_tracked(&outgoing)? }
            }
        }
        Ok(())
    }

    /// The transaction is committed: what was written reaches the disk.
    ///
    /// # Errors
    /// The disk refuses: the state in Kafka is right all the same. Or the topic was made anew since the partition was restored.
    pub fn committed(&mut self, log: &impl Log) -> Result<(), Error> {
        let mut batch = self.cache.database().batch();
        for (number, partition) in &mut self.partitions {
            debug_assert!(partition.unproduced.is_empty(), "written but not produced");
            if partition.overlay.is_empty() && !std::mem::take(&mut partition.finishing) {
                continue;
            }
            partition.finishing = false;
            for (key, value) in std::mem::take(&mut partition.overlay) {
                match value {
                    Some(value) => batch.insert(&partition.keyspace, key, value),
                    None => batch.remove(&partition.keyspace, key),
                }
            }
            if let Some(name) = partition.announced.take()
                && let Some(offset) = log.offset_of(&self.topic, *number)
            {
                partition.marker = Some(Marker { offset, name });
            }
            if let Some(end) = log.end_of(&self.topic, *number) {
                if end <= partition.applied {
                    // What this transaction wrote is in the new topic, what was remembered before is in the cache alone.
                    let detail = format!(
                        "this process has followed it to offset {}, and what was written now ends at {end}",
                        partition.applied
                    );
                    return Err(Error::Lost { topic: self.topic.to_string(), partition: *number, detail });
                }
                partition.applied = end;
                batch.insert(&partition.keyspace, APPLIED, partition.applied_bytes(self.cache.now_ms()));
            }
        }
        batch.durability(Some(PersistMode::Buffer)).commit()?;
        Ok(())
    }

    /// The transaction was aborted: forgets what was written.
    pub fn aborted(&mut self) {
        for partition in self.partitions.values_mut() {
            partition.overlay.clear();
            partition.unproduced.clear();
            partition.announced = None;
        }
    }
}

#[cfg(test)]
impl Store {
    pub const fn kafka(&self) -> &Kafka {
        &self.kafka
    }

    /// A store whose partitions are open and empty, without a broker; and the folder that it lives in.
    pub fn without_broker(partitions: &[i32]) -> (Self, tempfile::TempDir) {
        let kafka = Kafka {
            brokers: "localhost:1".into(),
            embedded: false,
            prefix: "t.".into(),
            partitions: 1,
            replication_factor: 1,
            latency: crate::config::model::Latency::Low,
            transactions: true,
            create_topics: false,
            retention: Duration::ZERO,
            ledger_retention: Duration::ZERO,
            options: BTreeMap::new(),
            session_timeout: Duration::from_secs(10),
        };
        let folder = tempfile::tempdir().expect("a folder for the test");
        let cache = Cache::open(folder.path(), || tailwater_core::Timestamp::from_millis(0)).expect("an empty cache");
        let mut store = Self::new(&kafka, &cache, "t.state");
        for &number in partitions {
            let keyspace = cache.keyspace(&store.keyspace_name(number)).expect("an empty keyspace");
            let partition = Partition {
                keyspace,
                cluster: Arc::from("test"),
                applied: 0,
                marker: None,
                announced: None,
                overlay: Overlay::new(),
                unproduced: Vec::new(),
                unfinished: BTreeSet::new(),
                finishing: false,
            };
            store.partitions.insert(number, partition);
        }
        (store, folder)
    }

    /// As [`Self::committed`], without a producer.
    pub fn keep(&mut self) {
        for partition in self.partitions.values_mut() {
            partition.unproduced.clear();
            for (key, value) in std::mem::take(&mut partition.overlay) {
                match value {
                    Some(value) => partition.keyspace.insert(key, value).expect("a write"),
                    None => partition.keyspace.remove(key).expect("a removal"),
                }
            }
        }
    }
}

impl Partition {
    fn applied_bytes(&self, now_ms: i64) -> Vec<u8> {
        let applied = Applied {
            cluster: self.cluster.to_string(),
            offset: self.applied,
            at: now_ms,
            marker: self.marker.clone(),
        };
        // Strings and numbers into memory: serialising them has no way to fail.
        serde_json::to_vec(&applied).unwrap_or_default()
    }
}

impl Applied {
    /// Whether the changelog, whose end is `high`, can be followed from here without having missed a deletion.
    fn is_usable(&self, high: i64, now_ms: i64, age_max: Duration) -> bool {
        if self.offset == high {
            return true;
        }
        let age = now_ms.saturating_sub(self.at);
        // A cache from the future was written, or is read, under a wrong clock: nobody knows how old it is.
        let max = i64::try_from(age_max.as_millis()).unwrap_or(i64::MAX);
        self.offset < high && age > -CLOCK_SKEW_MAX_MS && age < max
    }
}

/// How old a cache may be when the topic keeps deletions for so long (`delete.retention.ms`). A cache that has missed a deletion
/// would bring back what was deleted. Half of the time is left for clocks that differ and a restore that takes long.
fn cache_age_max(delete_retention: Option<Duration>) -> Duration {
    CACHE_AGE_MAX.min(delete_retention.unwrap_or(DELETE_RETENTION_DEFAULT) / 2)
}

impl Marker {
    fn at(offset: i64, name: &[u8]) -> Self {
        Self { offset, name: String::from_utf8_lossy(name).into_owned() }
    }

    fn is(&self, record: &Record) -> bool {
        record.key() == Some(MARKER) && record.value() == Some(self.name.as_bytes()) && record.offset == self.offset
    }
}

#[cfg(test)]
mod tests;
