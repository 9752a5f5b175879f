//! The state of one session: what was committed when its partitions were restored, and the writes of the open transaction on top.

use std::collections::BTreeMap;

use crate::state::{self, Map};

/// Keys and values of one partition.
pub type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

/// Writes of the open transaction; `None` deletes.
pub type Writes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

#[derive(Debug, Default)]
pub struct State {
    partitions: BTreeMap<i32, (Entries, Writes)>,
}

impl State {
    pub fn restore(&mut self, partition: i32, committed: Entries) {
        self.partitions.insert(partition, (committed, Writes::new()));
    }

    pub fn release(&mut self, partition: i32) {
        self.partitions.remove(&partition);
    }

    /// What the open transaction would write.
    pub fn writes(&self) -> impl Iterator<Item = (i32, &Writes)> {
        self.partitions.iter().map(|(partition, (_, writes))| (*partition, writes))
    }

    /// The transaction is committed.
    pub fn keep(&mut self) {
        for (entries, writes) in self.partitions.values_mut() {
            apply(entries, std::mem::take(writes));
        }
    }

    /// The transaction is aborted.
    pub fn abort(&mut self) {
        for (_, writes) in self.partitions.values_mut() {
            writes.clear();
        }
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.partitions.values().all(|(entries, writes)| entries.is_empty() && writes.is_empty())
    }

    fn partition(&self, partition: i32) -> Result<&(Entries, Writes), state::Error> {
        self.partitions.get(&partition).ok_or(state::Error::NotOpen { topic: "simulated".into(), partition })
    }
}

pub fn apply(entries: &mut Entries, writes: Writes) {
    for (key, value) in writes {
        match value {
            Some(value) => entries.insert(key, value),
            None => entries.remove(&key),
        };
    }
}

impl Map for State {
    fn topic(&self) -> &'static str {
        "simulated.state"
    }

    fn get(&self, partition: i32, key: &[u8]) -> Result<Option<Vec<u8>>, state::Error> {
        let (entries, writes) = self.partition(partition)?;
        Ok(writes.get(key).cloned().unwrap_or_else(|| entries.get(key).cloned()))
    }

    fn put(&mut self, partition: i32, key: Vec<u8>, value: Option<Vec<u8>>) -> Result<(), state::Error> {
        let missing = state::Error::NotOpen { topic: "simulated".into(), partition };
        self.partitions.get_mut(&partition).ok_or(missing)?.1.insert(key, value);
        Ok(())
    }

    fn scan_first(&self, partition: i32, prefix: &[u8], max: usize) -> Result<Vec<(Vec<u8>, Vec<u8>)>, state::Error> {
        let (entries, writes) = self.partition(partition)?;
        let mut found: Entries = entries
            .range(prefix.to_vec()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        let written = writes.range(prefix.to_vec()..).take_while(|(key, _)| key.starts_with(prefix));
        apply(&mut found, written.map(|(key, value)| (key.clone(), value.clone())).collect());
        Ok(found.into_iter().take(max).collect())
    }

    fn each_key(&self, partition: i32, prefix: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), state::Error> {
        for (key, _) in self.scan(partition, prefix)? {
            each(&key);
        }
        Ok(())
    }
}
