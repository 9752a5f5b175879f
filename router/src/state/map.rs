//! What a stage's decisions see of its state: keys and values, partition by partition, with the writes of the open batch on top.
//!
//! [`super::Store`] is this for a changelog topic. Decisions ask for no more than this, so that the same code can be run over a
//! state that is not in Kafka: the simulation of send does that.

use std::fmt::Display;

use serde::de::DeserializeOwned;
use tailwater_core::hex;

use super::Error;
use super::store::{Entry, Store};

/// Bytes of a key that an error shows.
const KEY_SHOWN_MAX: usize = 64;

/// State as decisions read and write it.
pub trait Map {
    /// The topic that holds it, for errors.
    fn topic(&self) -> &str;

    /// The value of a key.
    ///
    /// # Errors
    /// The partition is not restored, or the disk refuses.
    fn get(&self, partition: i32, key: &[u8]) -> Result<Option<Vec<u8>>, Error>;

    /// Writes a key into the open batch; `None` deletes it. Keys must not begin with a zero byte.
    ///
    /// # Errors
    /// The partition is not restored.
    fn put(&mut self, partition: i32, key: Vec<u8>, value: Option<Vec<u8>>) -> Result<(), Error>;

    /// The first entries whose keys begin with `prefix`, in the order of their keys: at least `max` of them, if there are as many.
    ///
    /// # Errors
    /// As [`Self::get`].
    fn scan_first(&self, partition: i32, prefix: &[u8], max: usize) -> Result<Vec<Entry>, Error>;

    /// Looks at every key that begins with `prefix`, without their values, however many there are.
    ///
    /// # Errors
    /// As [`Self::get`].
    fn each_key(&self, partition: i32, prefix: &[u8], each: impl FnMut(&[u8])) -> Result<(), Error>;

    /// All entries whose keys begin with `prefix`, in the order of their keys.
    ///
    /// # Errors
    /// As [`Self::get`].
    fn scan(&self, partition: i32, prefix: &[u8]) -> Result<Vec<Entry>, Error> {
        self.scan_first(partition, prefix, usize::MAX)
    }

    /// As [`Self::get`], for an entry in JSON; `what` names it to people.
    ///
    /// # Errors
    /// As [`Self::get`]; or the entry cannot be read, which is never taken for an absent one.
    fn get_json<T: DeserializeOwned>(
        &self,
        partition: i32,
        key: &[u8],
        what: &'static str,
    ) -> Result<Option<T>, Error> {
        let Some(bytes) = self.get(partition, key)? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| self.damaged(partition, key, what, &error))
    }

    /// The error of an entry that cannot be read.
    fn damaged(&self, partition: i32, key: &[u8], what: &'static str, detail: &dyn Display) -> Error {
        // Keys hold ids and hashes, no personal data.
        let key = hex(key.get(..KEY_SHOWN_MAX).unwrap_or(key));
        Error::Damaged { topic: self.topic().to_owned(), partition, key, what, detail: detail.to_string() }
    }
}

impl Map for Store {
    fn topic(&self) -> &str {
        Self::topic(self)
    }

    fn get(&self, partition: i32, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        Self::get(self, partition, key)
    }

    fn put(&mut self, partition: i32, key: Vec<u8>, value: Option<Vec<u8>>) -> Result<(), Error> {
        Self::put(self, partition, key, value)
    }

    fn scan_first(&self, partition: i32, prefix: &[u8], max: usize) -> Result<Vec<Entry>, Error> {
        Self::scan_first(self, partition, prefix, max)
    }

    fn each_key(&self, partition: i32, prefix: &[u8], each: impl FnMut(&[u8])) -> Result<(), Error> {
        Self::each_key(self, partition, prefix, each)
    }
}
