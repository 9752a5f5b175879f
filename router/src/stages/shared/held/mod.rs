//! What route and send remember about people who wait: records held because the destination's key is missing (route), or because a
//! merge is not through yet (both). In state, so that they outlive the records in Kafka, the process and its disk.
//!
//! How it is written: [`bytes`].

mod bytes;
pub mod fences;
pub mod group;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tailwater_core::delivery::Reason;
use tailwater_core::envelope::{Merge, Role};
use tailwater_core::{ProfileId, Timestamp, code};

pub(in crate::stages) use self::bytes::BEGINNING;
use self::bytes::{HELD, IDENTIFIERS, MOVING, PAUSE, RELEASED, SINCE, WAITS};
use self::bytes::{
    awaited, damaged, decode, encode, held_key, merge_key, moving_merge, moving_value, profile_key, profile_of,
    since_key, split_since,
};
use crate::kafka::Record;
use crate::stages::shared::dead_letter;
use crate::state::{self, Map};

/// The profiles of one process's partitions that have something waiting, so that the others cost no look into the store.
#[derive(Debug, Default)]
pub struct Waiting {
    by_partition: BTreeMap<i32, BTreeMap<ProfileId, Wait>>,
    /// Records of those among them that wait for no merge.
    ready: u64,
    /// What the open plan has changed, so that it can be undone together with the state's overlay.
    journal: Vec<(i32, ProfileId, Wait)>,
    /// Profiles whose records go on as soon as they may.
    going: BTreeSet<(i32, ProfileId)>,
    /// The records of these profiles.
    going_records: u64,
    /// Merges that profiles wait for.
    merges: u64,
    /// Bytes that a record of the state's topic may have; `None` where nothing limits it.
    record_bytes_max: Option<usize>,
}

/// What came of holding a record.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// It waits.
    Waits,
    /// It does not fit the state's topic.
    TooLarge { bytes: usize, bytes_max: usize },
}

/// Why and how much a profile waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wait {
    /// Waiting records.
    pub records: u64,
    /// Merges that it waits for.
    pub merges: u32,
    /// Nothing is missing any more: the records go on, batch by batch.
    pub released: bool,
    /// The profile was absorbed: the records go to the survivor, batch by batch.
    pub moving: bool,
}

impl Hold {
    /// Why a record cannot wait.
    pub fn refusal(bytes: usize, bytes_max: usize) -> Reason {
        let message = format!(
            "the record has to wait, and has {bytes} bytes with what is kept beside it; the state's topic takes {bytes_max} (`max.message.bytes`)"
        );
        Reason::new(code::KAFKA_RECORD_TOO_LARGE, message)
    }
}

/// Bytes that the frame of a state record takes, generously.
const FRAME_BYTES: usize = 128;

/// A record in the queue of its profile.
#[derive(Debug, Clone)]
pub struct Held {
    pub record: Arc<Record>,
    pub since: Timestamp,
    key: Vec<u8>,
}

// === impl Wait ===

impl Wait {
    const fn ready(&self) -> u64 {
        if self.merges == 0 { self.records } else { 0 }
    }
}

// === impl Waiting ===

impl Waiting {
    /// `record_bytes_max` is how large a record of the state's topic may be.
    pub fn new(record_bytes_max: Option<usize>) -> Self {
        Self { record_bytes_max, ..Self::default() }
    }

    /// Learns what waits in the partitions that were just restored.
    ///
    /// # Errors
    /// The state could not be read.
    pub fn load(&mut self, store: &impl Map, partitions: &[i32]) -> Result<(), state::Error> {
        self.forget(partitions);
        for partition in partitions {
            let mut index: BTreeMap<ProfileId, Wait> = BTreeMap::new();
            for tag in [HELD, WAITS, RELEASED, MOVING] {
                store.each_key(*partition, &[tag], |key| {
                    let Some(profile) = profile_of(key) else { return };
                    let wait = index.entry(profile).or_default();
                    match tag {
                        HELD => wait.records += 1,
                        WAITS => wait.merges += 1,
                        RELEASED => wait.released = true,
                        _ => wait.moving = true,
                    }
                })?;
            }
            for (profile, wait) in index {
                self.set(*partition, profile, wait);
            }
        }
        Ok(())
    }

    pub fn forget(&mut self, partitions: &[i32]) {
        for partition in partitions {
            for profile in self.by_partition.remove(partition).unwrap_or_default().into_iter().collect::<Vec<_>>() {
                self.count(*partition, profile.0, profile.1, Wait::default());
            }
        }
    }

    pub fn get(&self, partition: i32, profile: ProfileId) -> Option<Wait> {
        self.by_partition.get(&partition)?.get(&profile).copied()
    }

    /// Whether nobody of the partition has anything waiting.
    pub fn is_empty(&self, partition: i32) -> bool {
        self.by_partition.get(&partition).is_none_or(BTreeMap::is_empty)
    }

    /// The profiles of these partitions that have something waiting, with their partition.
    pub fn profiles(&self, partitions: &[i32]) -> Vec<(ProfileId, i32)> {
        partitions
            .iter()
            .filter_map(|partition| self.by_partition.get(partition).map(|index| (*partition, index)))
            .flat_map(|(partition, index)| index.keys().map(move |profile| (*profile, partition)))
            .collect()
    }

    /// All waiting records.
    pub fn records(&self) -> u64 {
        self.by_partition.values().flat_map(BTreeMap::values).map(|wait| wait.records).sum()
    }

    /// Waiting records of profiles that wait for no merge.
    pub const fn ready(&self) -> u64 {
        self.ready
    }

    fn change(&mut self, partition: i32, profile: ProfileId, change: impl FnOnce(&mut Wait)) {
        let mut wait = self.get(partition, profile).unwrap_or_default();
        self.journal.push((partition, profile, wait));
        change(&mut wait);
        self.set(partition, profile, wait);
    }

    fn set(&mut self, partition: i32, profile: ProfileId, wait: Wait) {
        let index = self.by_partition.entry(partition).or_default();
        let before = if wait == Wait::default() { index.remove(&profile) } else { index.insert(profile, wait) };
        self.count(partition, profile, before.unwrap_or_default(), wait);
    }

    /// Keeps the sums in step with a change.
    fn count(&mut self, partition: i32, profile: ProfileId, before: Wait, after: Wait) {
        self.merges = (self.merges + u64::from(after.merges)).saturating_sub(u64::from(before.merges));
        self.ready = (self.ready + after.ready()).saturating_sub(before.ready());
        if before.goes_on() {
            self.going.remove(&(partition, profile));
            self.going_records = self.going_records.saturating_sub(before.records);
        }
        if after.goes_on() {
            self.going.insert((partition, profile));
            self.going_records += after.records;
        }
    }

    /// The profiles whose records go on as soon as they may.
    pub const fn going(&self) -> &BTreeSet<(i32, ProfileId)> {
        &self.going
    }

    /// The records of these profiles.
    pub const fn going_records(&self) -> u64 {
        self.going_records
    }

    /// Whether anybody waits for a merge.
    pub const fn has_merges(&self) -> bool {
        self.merges > 0
    }

    /// The plan is carried out.
    pub fn accept(&mut self) {
        self.journal.clear();
    }

    /// The plan is thrown away.
    pub fn undo(&mut self) {
        while let Some((partition, profile, wait)) = self.journal.pop() {
            self.set(partition, profile, wait);
        }
    }

    /// Puts a record behind everything that waits for the profile; one that a merge handed over goes before the survivor's own.
    ///
    /// # Errors
    /// The partition is not restored.
    pub fn hold(
        &mut self,
        store: &mut impl Map,
        partition: i32,
        profile: ProfileId,
        record: &Record,
        handed_over: bool,
        now: Timestamp,
    ) -> Result<Hold, state::Error> {
        let key = held_key(profile, handed_over, record.offset);
        if store.get(partition, &key)?.is_some() {
            // Read for the second time: it waits since the first.
            return Ok(Hold::Waits);
        }
        let value = encode(record, now);
        let bytes = key.len() + value.len() + FRAME_BYTES;
        if let Some(bytes_max) = self.record_bytes_max.filter(|bytes_max| bytes > *bytes_max) {
            return Ok(Hold::TooLarge { bytes, bytes_max });
        }
        let since = since_key(now, &key);
        self.change(partition, profile, |wait| wait.records += 1);
        store.put(partition, key, Some(value))?;
        store.put(partition, since, Some(Vec::new()))?;
        Ok(Hold::Waits)
    }

    /// Everything that waits for a profile, in order.
    ///
    /// # Errors
    /// The state could not be read.
    pub fn queue(
        &self,
        store: &impl Map,
        partition: i32,
        profile: ProfileId,
        topic: &Arc<str>,
    ) -> Result<Vec<Held>, state::Error> {
        self.queue_first(store, partition, profile, topic, usize::MAX)
    }

    /// The first of what waits for a profile, in order: at most `max`.
    ///
    /// # Errors
    /// The state could not be read.
    pub fn queue_first(
        &self,
        store: &impl Map,
        partition: i32,
        profile: ProfileId,
        topic: &Arc<str>,
        max: usize,
    ) -> Result<Vec<Held>, state::Error> {
        let entries = store.scan_first(partition, &profile_key(HELD, profile), max)?;
        Ok(entries.into_iter().take(max).map(|(key, value)| waiting(store, topic, partition, key, &value)).collect())
    }

    /// A fence that an earlier version queued behind the records of its profile. The queue is read record by record: it may be long.
    ///
    /// # Errors
    /// The state could not be read.
    pub fn queued_fence(
        &self,
        store: &impl Map,
        partition: i32,
        profile: ProfileId,
        topic: &Arc<str>,
    ) -> Result<Option<Merge>, state::Error> {
        let mut keys = Vec::new();
        store.each_key(partition, &profile_key(HELD, profile), |key| keys.push(key.to_vec()))?;
        for key in keys {
            let Some(value) = store.get(partition, &key)? else { continue };
            let held = waiting(store, topic, partition, key, &value);
            if let Ok(Role::Fence(merge)) = held.record.envelope().map(|envelope| envelope.role) {
                return Ok(Some(merge));
            }
        }
        Ok(None)
    }

    /// Takes a record out of its queue.
    ///
    /// # Errors
    /// The partition is not restored.
    pub fn take(
        &mut self,
        store: &mut impl Map,
        partition: i32,
        profile: ProfileId,
        held: &Held,
    ) -> Result<(), state::Error> {
        if store.get(partition, &held.key)?.is_none() {
            return Ok(());
        }
        store.put(partition, held.key.clone(), None)?;
        store.put(partition, since_key(held.since, &held.key), None)?;
        self.change(partition, profile, |wait| wait.records = wait.records.saturating_sub(1));
        if self.get(partition, profile).is_some_and(|wait| wait.records == 0 && wait.released) {
            self.hold_back(store, partition, profile)?;
        }
        self.forget_identifiers(store, partition, profile)
    }

    /// Nothing of the profile waits any more: nobody will ask for its identifiers.
    fn forget_identifiers(&self, store: &mut impl Map, partition: i32, profile: ProfileId) -> Result<(), state::Error> {
        if self.get(partition, profile).is_none() {
            store.put(partition, profile_key(IDENTIFIERS, profile), None)?;
        }
        Ok(())
    }

    /// Nothing is missing any more: what waits for the profile goes on as soon as it may, in this batch or in later ones.
    ///
    /// # Errors
    /// The partition is not restored.
    pub fn release(&mut self, store: &mut impl Map, partition: i32, profile: ProfileId) -> Result<(), state::Error> {
        if self.get(partition, profile).is_some_and(|wait| wait.records > 0 && !wait.released) {
            self.change(partition, profile, |wait| wait.released = true);
            store.put(partition, profile_key(RELEASED, profile), Some(Vec::new()))?;
        }
        Ok(())
    }

    /// What was released and is still here waits again.
    ///
    /// # Errors
    /// The partition is not restored.
    pub fn hold_back(&mut self, store: &mut impl Map, partition: i32, profile: ProfileId) -> Result<(), state::Error> {
        if self.get(partition, profile).is_some_and(|wait| wait.released) {
            self.change(partition, profile, |wait| wait.released = false);
            store.put(partition, profile_key(RELEASED, profile), None)?;
        }
        Ok(())
    }

    /// The profile was absorbed: what waits for it goes to the survivor as soon as no earlier merge is waited for.
    ///
    /// # Errors
    /// The partition is not restored.
    pub fn move_to(&mut self, store: &mut impl Map, partition: i32, merge: Merge) -> Result<(), state::Error> {
        let absorbed = merge.absorbed;
        if self.get(partition, absorbed).is_none_or(|wait| !wait.moving) {
            self.change(partition, absorbed, |wait| wait.moving = true);
            store.put(partition, profile_key(MOVING, absorbed), Some(moving_value(merge)))?;
        }
        Ok(())
    }

    /// The merge that has absorbed a profile whose records are still on their way.
    ///
    /// # Errors
    /// The state could not be read.
    pub fn moving(&self, store: &impl Map, partition: i32, absorbed: ProfileId) -> Result<Option<Merge>, state::Error> {
        let key = profile_key(MOVING, absorbed);
        let Some(value) = store.get(partition, &key)? else { return Ok(None) };
        let merge = moving_merge(absorbed, &value);
        merge.map(Some).ok_or_else(|| store.damaged(partition, &key, "a merge", &format!("{} bytes", value.len())))
    }

    /// All records of an absorbed profile are with the survivor.
    ///
    /// # Errors
    /// The partition is not restored.
    pub fn moved(&mut self, store: &mut impl Map, partition: i32, absorbed: ProfileId) -> Result<(), state::Error> {
        if self.get(partition, absorbed).is_some_and(|wait| wait.moving) {
            self.change(partition, absorbed, |wait| wait.moving = false);
            store.put(partition, profile_key(MOVING, absorbed), None)?;
            self.forget_identifiers(store, partition, absorbed)?;
        }
        Ok(())
    }

    /// Merges that are waited for in a partition, at most `max` or a few more.
    ///
    /// # Errors
    /// The state could not be read.
    pub fn awaited(&self, store: &impl Map, partition: i32, max: usize) -> Result<Vec<Merge>, state::Error> {
        let entries = store.scan_first(partition, &[WAITS], max)?;
        Ok(entries.iter().filter_map(|(key, value)| awaited(key, value)).collect())
    }

    /// The profile waits for a merge from now on.
    ///
    /// # Errors
    /// The partition is not restored.
    pub fn wait_for(&mut self, store: &mut impl Map, partition: i32, merge: Merge) -> Result<(), state::Error> {
        let key = merge_key(merge.survivor, merge.number);
        if store.get(partition, &key)?.is_none() {
            self.change(partition, merge.survivor, |wait| wait.merges += 1);
            store.put(partition, key, Some(merge.absorbed.as_bytes().to_vec()))?;
        }
        Ok(())
    }

    /// The merge is through.
    ///
    /// # Errors
    /// The partition is not restored.
    pub fn released(
        &mut self,
        store: &mut impl Map,
        partition: i32,
        profile: ProfileId,
        merge: u64,
    ) -> Result<(), state::Error> {
        let key = merge_key(profile, merge);
        if store.get(partition, &key)?.is_some() {
            self.change(partition, profile, |wait| wait.merges = wait.merges.saturating_sub(1));
            store.put(partition, key, None)?;
            self.forget_identifiers(store, partition, profile)?;
        }
        Ok(())
    }

    /// Records that have waited since before `limit`, oldest first, at most `max` of a partition. Profiles that wait for a merge or for their
    /// turn are left out: they lack nothing.
    ///
    /// # Errors
    /// The state could not be read.
    pub fn expired(
        &self,
        store: &impl Map,
        partition: i32,
        topic: &Arc<str>,
        limit: Timestamp,
        max: usize,
    ) -> Result<Vec<(ProfileId, Held)>, state::Error> {
        let mut found = Vec::new();
        for (key, _) in store.scan_first(partition, &[SINCE], max.saturating_mul(2))? {
            let Some((since, rest)) = split_since(&key) else { continue };
            if since > limit || found.len() >= max {
                break;
            }
            let mut held_key = vec![HELD];
            held_key.extend_from_slice(rest);
            let Some(profile) = profile_of(&held_key) else { continue };
            if self.get(partition, profile).is_some_and(|wait| wait.merges > 0 || wait.goes_on()) {
                continue;
            }
            if let Some(value) = store.get(partition, &held_key)? {
                found.push((profile, Held { since, ..waiting(store, topic, partition, held_key, &value) }));
            }
        }
        Ok(found)
    }
}

// === impl Wait ===

impl Wait {
    /// Whether the records go on as soon as they may.
    pub const fn goes_on(&self) -> bool {
        (self.released || self.moving) && self.merges == 0
    }
}

/// The place in its queue of a record that waits for its own sake (not handed over), if it does.
///
/// # Errors
/// The state could not be read.
pub fn find(
    store: &impl Map,
    partition: i32,
    profile: ProfileId,
    record: &Arc<Record>,
) -> Result<Option<Held>, state::Error> {
    let key = held_key(profile, false, record.offset);
    let Some(value) = store.get(partition, &key)? else { return Ok(None) };
    Ok(Some(waiting(store, &record.topic, partition, key, &value)))
}

/// Remembers the identifiers in use of a profile that waits.
///
/// # Errors
/// The partition is not restored.
pub fn remember_identifiers(
    store: &mut impl Map,
    partition: i32,
    profile: ProfileId,
    identifiers: &[(String, String)],
) -> Result<(), state::Error> {
    // Strings into memory: serialising them has no way to fail.
    let value = serde_json::to_vec(identifiers).unwrap_or_default();
    store.put(partition, profile_key(IDENTIFIERS, profile), Some(value))
}

/// The identifiers in use of a waiting profile that were seen last.
///
/// # Errors
/// The state could not be read.
pub fn identifiers(
    store: &impl Map,
    partition: i32,
    profile: ProfileId,
) -> Result<Option<Vec<(String, String)>>, state::Error> {
    store.get_json(partition, &profile_key(IDENTIFIERS, profile), "the identifiers of a profile that waits")
}

/// Writes down why the route is paused, or that it is not any more.
///
/// # Errors
/// The partition is not restored.
pub fn set_pause(store: &mut impl Map, partition: i32, reason: Option<&serde_json::Value>) -> Result<(), state::Error> {
    let value = reason.map(|reason| reason.to_string().into_bytes());
    if store.get(partition, PAUSE)? == value {
        return Ok(());
    }
    store.put(partition, PAUSE.to_vec(), value)
}

/// Writes down what is paused and why, by route (empty for the whole destination). What is not among it is not paused any more.
///
/// # Errors
/// The partition is not restored.
pub fn set_pauses(
    store: &mut impl Map,
    partition: i32,
    notes: &BTreeMap<String, serde_json::Value>,
) -> Result<bool, state::Error> {
    let mut wanted: BTreeMap<Vec<u8>, Vec<u8>> =
        notes.iter().map(|(route, note)| ([PAUSE, route.as_bytes()].concat(), note.to_string().into_bytes())).collect();
    let mut changed = false;
    for (key, value) in store.scan(partition, PAUSE)? {
        match wanted.remove(&key) {
            Some(note) if note == value => {}
            note => {
                changed = true;
                store.put(partition, key, note)?;
            }
        }
    }
    for (key, note) in wanted {
        changed = true;
        store.put(partition, key, Some(note))?;
    }
    Ok(changed)
}

/// What a state record of route says, for the tools that read the topic from outside.
pub enum Entry {
    Held { profile: ProfileId, held: Held },
    Pause(serde_json::Value),
    Other,
}

/// Reads a record of `state.route.<destination>` or `state.send.<destination>`.
pub fn read_entry(topic: &Arc<str>, partition: i32, key: &[u8], value: &[u8]) -> Entry {
    match key.first() {
        Some(&HELD) => match (profile_of(key), decode(topic, partition, key.to_vec(), value)) {
            (Some(profile), Some(held)) => Entry::Held { profile, held },
            _ => Entry::Other,
        },
        _ if key.starts_with(PAUSE) => serde_json::from_slice(value).map_or(Entry::Other, Entry::Pause),
        _ => Entry::Other,
    }
}

/// A waiting record of the state; one that cannot be read is never taken for none.
fn waiting(store: &impl Map, topic: &Arc<str>, partition: i32, key: Vec<u8>, value: &[u8]) -> Held {
    decode(topic, partition, key.clone(), value).unwrap_or_else(|| {
        let detail = format!("{} bytes of an unknown form", value.len());
        let message = store.damaged(partition, &key, "a waiting record", &detail).to_string();
        damaged(topic, partition, key, value, message)
    })
}

/// Why a waiting record is a dead letter whatever it waits for, if its entry could not be read.
pub fn damage(record: &Record) -> Option<Reason> {
    dead_letter::refusal_of(record).filter(|reason| reason.code == code::STATE_DAMAGED && record.envelope().is_err())
}

impl Held {
    /// Whose record it is, whatever the record says.
    pub fn owner(&self) -> Option<ProfileId> {
        profile_of(&self.key)
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
