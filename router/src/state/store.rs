//! One changelog topic as a map from keys to values, partition by partition.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use fjall::{Keyspace, PersistMode};
use tracing::{debug, info};

use super::cache::{APPLIED, Cache};
use super::Error;
use crate::config::model::Kafka;
use crate::kafka::read::{Range, Reader};
use crate::kafka::{Outgoing, Producer};

/// Entries that are written to disk at once during a restore.
const RESTORE_BATCH: usize = 10_000;

/// Writes to a partition that are not committed yet; `None` deletes.
type Overlay = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// The state of one stage.
pub struct Store {
    topic: Arc<str>,
    kafka: Kafka,
    cache: Cache,
    partitions: HashMap<i32, Partition>,
}

struct Partition {
    keyspace: Keyspace,
    /// The offset of the changelog up to which the cache has followed it.
    applied: i64,
    overlay: Overlay,
    /// How many keys of the overlay have been produced in the open transaction.
    unproduced: Vec<Vec<u8>>,
}

/// Where a cache stands; it belongs to one cluster and one life of the topic.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Applied {
    cluster: String,
    offset: i64,
}

// === impl Store ===

impl Store {
    pub fn new(kafka: &Kafka, cache: &Cache, topic: &str) -> Self {
        Self { topic: Arc::from(topic), kafka: kafka.clone(), cache: cache.clone(), partitions: HashMap::new() }
    }

    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Takes partitions over: follows the changelog from where the cache stands to its end. Blocks until they have caught up.
    ///
    /// # Errors
    /// No broker answers, or the disk refuses.
    pub fn restore(&mut self, partitions: &[i32]) -> Result<(), Error> {
        let reader = Reader::connect(&self.kafka)?;
        let cluster = reader.cluster_id().unwrap_or_default();
        for &number in partitions {
            let started = Instant::now();
            let (low, high) = reader.settled_watermarks(&self.topic, number)?;
            let keyspace = self.cache.keyspace(&self.keyspace_name(number))?;
            let cached = keyspace
                .get(APPLIED)?
                .and_then(|bytes| serde_json::from_slice::<Applied>(&bytes).ok())
                .filter(|applied| applied.cluster == cluster && applied.offset <= high)
                .map(|applied| applied.offset);
            if cached.is_none() && !keyspace.is_empty()? {
                keyspace.clear()?;
            }
            let from = cached.unwrap_or(low).max(low);
            let range = Range { topic: self.topic.to_string(), partition: number, start: from, end: high };
            let mut restored = 0_usize;
            let mut batch = self.cache.database().batch();
            reader.read::<Error>(&[range], |record| {
                if let Some(key) = record.key() {
                    match record.value() {
                        Some(value) => batch.insert(&keyspace, key, value),
                        None => batch.remove(&keyspace, key),
                    }
                    restored += 1;
                    if restored.is_multiple_of(RESTORE_BATCH) {
                        std::mem::replace(&mut batch, self.cache.database().batch()).commit()?;
                    }
                }
                Ok(true)
            })?;
            batch.insert(&keyspace, APPLIED, applied_bytes(&cluster, high));
            batch.commit()?;
            debug!(topic = %self.topic, partition = number, from, to = high, restored, ms = started.elapsed().as_millis(), "state restored");
            if started.elapsed().as_secs() >= 5 {
                info!(topic = %self.topic, partition = number, restored, seconds = started.elapsed().as_secs(), "state restored");
            }
            self.partitions
                .insert(number, Partition { keyspace, applied: high, overlay: Overlay::new(), unproduced: Vec::new() });
        }
        Ok(())
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
        self.partitions
            .get(&number)
            .ok_or_else(|| Error::NotOpen { topic: self.topic.to_string(), partition: number })
    }

    /// The value of a key, writes of the open batch included.
    ///
    /// # Errors
    /// The partition is not restored, or the disk refuses.
    pub fn get(&self, partition: i32, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let partition = self.partition(partition)?;
        if let Some(written) = partition.overlay.get(key) {
            return Ok(written.clone());
        }
        Ok(partition.keyspace.get(key)?.map(|value| value.to_vec()))
    }

    /// All entries whose keys begin with `prefix`, in the order of their keys, writes of the open batch included.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn scan(&self, partition: i32, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>, Error> {
        self.scan_first(partition, prefix, usize::MAX)
    }

    /// As [`Self::scan`], but only the first entries: at least `max` of them, if there are as many.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn scan_first(&self, partition: i32, prefix: &[u8], max: usize) -> Result<Vec<(Vec<u8>, Vec<u8>)>, Error> {
        let partition = self.partition(partition)?;
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

    /// Whether any key begins with `prefix`.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn has_prefix(&self, partition: i32, prefix: &[u8]) -> Result<bool, Error> {
        let open = self.partition(partition)?;
        if open.overlay.is_empty() {
            return Ok(open.keyspace.prefix(prefix).next().is_some());
        }
        Ok(!self.scan(partition, prefix)?.is_empty())
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

    /// Produces what was written since the last call to the changelog. Call it before the transaction is committed.
    ///
    /// # Errors
    /// A value exceeds the size limit, or the client cannot go on.
    pub fn produce(&mut self, producer: &mut Producer) -> Result<(), Error> {
        for (number, partition) in &mut self.partitions {
            let mut keys = std::mem::take(&mut partition.unproduced);
            keys.sort_unstable();
            keys.dedup();
            for key in keys {
                let value = partition.overlay.get(&key).and_then(Option::as_deref);
                producer.send_tracked(&Outgoing::to(&self.topic).partition(*number).key(&key).value(value))?;
            }
        }
        Ok(())
    }

    /// The transaction is committed: what was written reaches the disk.
    ///
    /// # Errors
    /// The disk refuses. The state in Kafka is right all the same; the stage starts again and follows it.
    pub fn committed(&mut self, producer: &Producer) -> Result<(), Error> {
        let mut batch = self.cache.database().batch();
        for (number, partition) in &mut self.partitions {
            debug_assert!(partition.unproduced.is_empty(), "written but not produced");
            if partition.overlay.is_empty() {
                continue;
            }
            for (key, value) in std::mem::take(&mut partition.overlay) {
                match value {
                    Some(value) => batch.insert(&partition.keyspace, key, value),
                    None => batch.remove(&partition.keyspace, key),
                }
            }
            if let Some(end) = producer.end_of(&self.topic, *number) {
                partition.applied = end;
                let cluster = partition
                    .keyspace
                    .get(APPLIED)?
                    .and_then(|bytes| serde_json::from_slice::<Applied>(&bytes).ok())
                    .map_or_else(String::new, |applied| applied.cluster);
                batch.insert(&partition.keyspace, APPLIED, applied_bytes(&cluster, end));
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
        }
    }
}

fn applied_bytes(cluster: &str, offset: i64) -> Vec<u8> {
    // A string and a number into memory: serialising them has no way to fail.
    serde_json::to_vec(&Applied { cluster: cluster.to_owned(), offset }).unwrap_or_default()
}
