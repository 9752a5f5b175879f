//! Where the identity state is read from. Writing is not part of it: a batch's writes go out with the batch's events in one
//! transaction, which is the caller's affair.

use std::collections::BTreeMap;

use crate::decision::Write;
use crate::key::Key;

/// A failure of the store, with its own cause.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct StoreError {
    what: String,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl StoreError {
    /// `what` says what failed, lower case and without a full stop.
    pub fn new(what: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { what: what.into(), source: Some(source.into()) }
    }
}

/// A snapshot of the identity state. While one batch is resolved it must not change underneath.
pub trait Store {
    /// The values of `keys`, in the same order; `None` for a key that is absent. May do I/O and block.
    ///
    /// # Errors
    /// The state could not be read.
    fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Vec<u8>>>, StoreError>;
}

/// A store in memory, for tests and for trying rules out on a sample.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryStore {
    entries: BTreeMap<Key, Vec<u8>>,
}

impl MemoryStore {
    /// Applies the writes of a batch.
    pub fn apply(&mut self, writes: &[Write]) {
        for write in writes {
            match &write.value {
                Some(value) => {
                    self.entries.insert(write.key, value.clone());
                }
                None => {
                    self.entries.remove(&write.key);
                }
            }
        }
    }

    /// Everything in it, by key.
    pub fn entries(&self) -> impl Iterator<Item = (&Key, &[u8])> {
        self.entries.iter().map(|(key, value)| (key, value.as_slice()))
    }
}

impl Store for MemoryStore {
    fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        Ok(keys.iter().map(|key| self.entries.get(key).cloned()).collect())
    }
}
