//! The ids of facts that were delivered, for a window, so that a fact that its producer sends again changes nothing.
//!
//! What was delivered *last* ([`super::memory`]) recognizes a repeat only while nothing newer of the same row was delivered. A
//! fact that comes again later would restore an old value by an upsert. So the delivery keys of facts are remembered for the
//! source's `dedupe` window, for upserts as well as for events.
//!
//! ```text
//! 'b' bucket                        a bucket of the window; the value says when it is closed and when it expires
//! 'f' bucket profile delivery key   a fact was delivered
//! ```
//!
//! Buckets make forgetting cheap: a whole bucket expires at once, in bounded steps, and a lookup asks for a handful of keys. A fact
//! is remembered for the window at least, and for a quarter more at most.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tailwater_core::{DeliveryKey, ProfileId, Timestamp};

use crate::state::{self, Map};

const BUCKET: u8 = b'b';
pub(super) const FACT: u8 = b'f';

/// Buckets that cover one window.
const BUCKETS_PER_WINDOW: u32 = 4;

/// The shortest time that a bucket takes in facts.
const BUCKET_MIN: Duration = Duration::from_secs(60);

/// Entries that one commit forgets, so that an expired bucket never makes a transaction large.
const FORGET_MAX: usize = 2_000;

/// What is remembered of the facts of the partitions that this process serves.
#[derive(Debug, Default)]
pub struct Facts {
    /// By source: how long its facts are remembered.
    windows: BTreeMap<String, Duration>,
    partitions: BTreeMap<i32, Vec<Bucket>>,
}

/// A part of the window. Frozen: state topics hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Bucket {
    #[serde(skip)]
    number: u32,
    /// It takes in facts until this time, in milliseconds since 1970.
    closes: i64,
    /// It is forgotten after this time.
    expires: i64,
}

// === impl Facts ===

impl Facts {
    pub fn new(windows: BTreeMap<String, Duration>) -> Self {
        Self { windows, partitions: BTreeMap::new() }
    }

    /// Whether facts of this source are remembered.
    pub fn covers(&self, source: &str) -> bool {
        self.windows.contains_key(source)
    }

    /// Learns which buckets there are in partitions that were just restored.
    ///
    /// # Errors
    /// The state could not be read.
    pub fn load(&mut self, state: &impl Map, partitions: &[i32]) -> Result<(), state::Error> {
        for partition in partitions {
            let mut buckets = Vec::new();
            for (key, value) in state.scan(*partition, &[BUCKET])? {
                let bucket = read(&key, &value);
                buckets.push(bucket.map_err(|detail| state.damaged(*partition, &key, "a bucket of facts", &detail))?);
            }
            self.partitions.insert(*partition, buckets);
        }
        Ok(())
    }

    pub fn forget(&mut self, partitions: &[i32]) {
        for partition in partitions {
            self.partitions.remove(partition);
        }
    }

    /// Whether a delivery of this key was made within the window.
    ///
    /// # Errors
    /// The state could not be read.
    pub fn contains(
        &self,
        state: &impl Map,
        partition: i32,
        profile: ProfileId,
        key: DeliveryKey,
    ) -> Result<bool, state::Error> {
        for bucket in self.buckets(partition).iter().rev() {
            if state.get(partition, &fact_key(bucket.number, profile, key))?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A fact was delivered.
    ///
    /// # Errors
    /// The partition is not restored.
    pub fn remember(
        &mut self,
        state: &mut impl Map,
        partition: i32,
        profile: ProfileId,
        key: DeliveryKey,
        now: Timestamp,
    ) -> Result<(), state::Error> {
        if self.windows.is_empty() {
            return Ok(());
        }
        let number = self.open_bucket(state, partition, now)?;
        state.put(partition, fact_key(number, profile, key), Some(Vec::new()))
    }

    /// The delivery keys that are remembered for a profile, the oldest bucket first.
    ///
    /// # Errors
    /// The state could not be read.
    pub fn of(&self, state: &impl Map, partition: i32, profile: ProfileId) -> Result<Vec<DeliveryKey>, state::Error> {
        let mut keys = Vec::new();
        for bucket in self.buckets(partition) {
            let prefix = profile_prefix(bucket.number, profile);
            state.each_key(partition, &prefix, |key| {
                if let Some(Ok(bytes)) = key.get(prefix.len()..).map(<[u8; 16]>::try_from) {
                    keys.push(DeliveryKey::from_bytes(bytes));
                }
            })?;
        }
        Ok(keys)
    }

    /// Forgets what is remembered for a profile: it was handed over to another one.
    ///
    /// # Errors
    /// The partition is not restored.
    pub fn drop_profile(&self, state: &mut impl Map, partition: i32, profile: ProfileId) -> Result<(), state::Error> {
        for bucket in self.buckets(partition) {
            let mut keys = Vec::new();
            state.each_key(partition, &profile_prefix(bucket.number, profile), |key| keys.push(key.to_vec()))?;
            for key in keys {
                state.put(partition, key, None)?;
            }
        }
        Ok(())
    }

    /// Forgets a bounded part of what has expired. True if anything was written.
    ///
    /// # Errors
    /// The state could not be read.
    pub fn expire(&mut self, state: &mut impl Map, now: Timestamp) -> Result<bool, state::Error> {
        let mut left = FORGET_MAX;
        let mut wrote = false;
        for (partition, buckets) in &mut self.partitions {
            while left > 0
                && let Some(place) = buckets.iter().position(|bucket| bucket.expires <= now.as_millis())
            {
                let number = buckets[place].number;
                let mut entries = state.scan_first(*partition, &bucket_prefix(number), left)?;
                entries.truncate(left);
                let done = entries.len() < left;
                left -= entries.len();
                wrote = true;
                for (key, _) in entries {
                    state.put(*partition, key, None)?;
                }
                if done {
                    state.put(*partition, bucket_key(number), None)?;
                    buckets.remove(place);
                }
            }
        }
        Ok(wrote)
    }

    /// The buckets of a partition, the oldest first.
    fn buckets(&self, partition: i32) -> &[Bucket] {
        self.partitions.get(&partition).map_or(&[], Vec::as_slice)
    }

    /// The number of the bucket that takes in facts now.
    fn open_bucket(&mut self, state: &mut impl Map, partition: i32, now: Timestamp) -> Result<u32, state::Error> {
        let window = self.windows.values().max().copied().unwrap_or_default();
        let buckets = self.partitions.entry(partition).or_default();
        let now = now.as_millis();
        if let Some(newest) = buckets.last()
            && now < newest.closes
        {
            return Ok(newest.number);
        }
        let length = (window / BUCKETS_PER_WINDOW).max(BUCKET_MIN);
        let closes = now.saturating_add(millis(length));
        let bucket = Bucket {
            number: buckets.last().map_or(0, |newest| newest.number.wrapping_add(1)),
            closes,
            expires: closes.saturating_add(millis(window)),
        };
        // Numbers into memory: serializing them has no way to fail.
        let value = serde_json::to_vec(&bucket).unwrap_or_default();
        state.put(partition, bucket_key(bucket.number), Some(value))?;
        buckets.push(bucket);
        Ok(bucket.number)
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn read(key: &[u8], value: &[u8]) -> Result<Bucket, String> {
    let number = key.get(1..).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
    let number = number.map(u32::from_be_bytes).ok_or_else(|| "its key has another length".to_owned())?;
    let bucket: Bucket = serde_json::from_slice(value).map_err(|error| error.to_string())?;
    Ok(Bucket { number, ..bucket })
}

fn bucket_key(number: u32) -> Vec<u8> {
    let mut key = vec![BUCKET];
    key.extend_from_slice(&number.to_be_bytes());
    key
}

fn bucket_prefix(number: u32) -> Vec<u8> {
    let mut key = Vec::with_capacity(37);
    key.push(FACT);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

fn profile_prefix(number: u32, profile: ProfileId) -> Vec<u8> {
    let mut key = bucket_prefix(number);
    key.extend_from_slice(profile.as_bytes());
    key
}

fn fact_key(number: u32, profile: ProfileId, delivery: DeliveryKey) -> Vec<u8> {
    let mut key = profile_prefix(number, profile);
    key.extend_from_slice(delivery.as_bytes());
    key
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::state::Store;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn facts() -> Facts {
        Facts::new(BTreeMap::from([("orders".to_owned(), HOUR)]))
    }

    fn key(number: u8) -> DeliveryKey {
        DeliveryKey::from_bytes([number; 16])
    }

    fn person(name: &str) -> ProfileId {
        ProfileId::of("w", "email", name, 0)
    }

    #[test]
    fn a_bucket_that_has_expired_is_forgotten_with_all_of_its_facts_in_bounded_steps() {
        let (mut store, _folder) = Store::without_broker(&[0]);
        let mut facts = facts();
        facts.load(&store, &[0]).unwrap();
        for number in 0..5_000_u32 {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&number.to_be_bytes());
            let key = DeliveryKey::from_bytes(bytes);
            facts.remember(&mut store, 0, person("a"), key, Timestamp::from_millis(0)).unwrap();
        }
        assert!(!facts.expire(&mut store, Timestamp::from_millis(3_600_000)).unwrap(), "it is still in the window");
        let late = Timestamp::from_millis(3_600_000 + 900_000);
        let mut steps = 0;
        while facts.expire(&mut store, late).unwrap() {
            steps += 1;
        }
        assert_eq!(steps, 3);
        assert!(store.scan(0, b"f").unwrap().is_empty() && store.scan(0, b"b").unwrap().is_empty());
    }

    #[test]
    fn a_bucket_that_cannot_be_read_stops_the_stage_instead_of_sending_again() {
        let (mut store, _folder) = Store::without_broker(&[0]);
        store.put(0, bucket_key(3), Some(b"[]".to_vec())).unwrap();
        assert_eq!(facts().load(&store, &[0]).unwrap_err().code().as_str(), "state_damaged");
    }

    proptest! {
        /// Within the window a fact is known, whatever came in between, whoever restores the state, and however often it expires.
        #[test]
        fn a_fact_is_known_for_its_window_and_not_much_longer(
            steps in proptest::collection::vec((0..8_u8, 0..2_usize, 0..900_000_i64), 1..60)
        ) {
            let (mut store, _folder) = Store::without_broker(&[0]);
            let mut facts = facts();
            facts.load(&store, &[0]).unwrap();
            let mut delivered: BTreeMap<(u8, usize), i64> = BTreeMap::new();
            let mut now = 0;
            for (number, who, passes) in steps {
                now += passes;
                let profile = person(["a", "b"][who]);
                while facts.expire(&mut store, Timestamp::from_millis(now)).unwrap() {}
                let known = facts.contains(&store, 0, profile, key(number)).unwrap();
                if let Some(at) = delivered.get(&(number, who)) {
                    let age = now - at;
                    prop_assert!(known || age > 3_600_000, "forgotten after {age} ms");
                    prop_assert!(!known || age <= 3_600_000 + 900_000, "known after {age} ms");
                } else {
                    prop_assert!(!known);
                }
                if !known {
                    facts.remember(&mut store, 0, profile, key(number), Timestamp::from_millis(now)).unwrap();
                    delivered.insert((number, who), now);
                }
                store.keep();
                facts.load(&store, &[0]).unwrap();
            }
        }
    }
}
