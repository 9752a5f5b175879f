//! What route and send remember about people who wait: records held because the destination's key is missing (route), or because a
//! merge is not through yet (both). In state, so that they outlive the records in Kafka, the process and its disk.
//!
//! How it is written: [`bytes`].

mod bytes;

use std::collections::BTreeMap;
use std::sync::Arc;

use tailwater_core::{ProfileId, Timestamp};

use self::bytes::{HELD, IDENTIFIERS, PAUSE, SINCE, WAITS};
use self::bytes::{decode, encode, held_key, merge_key, profile_key, profile_of, since_key, split_since};
use crate::kafka::Record;
use crate::state::{self, Map};

/// The profiles of one process's lanes that have something waiting, so that the others cost no look into the store.
#[derive(Debug, Default)]
pub struct Waiting {
    by_lane: BTreeMap<i32, BTreeMap<ProfileId, Wait>>,
    /// Records of those among them that wait for no merge.
    ready: u64,
    /// What the open plan has changed, so that it can be undone together with the state's overlay.
    journal: Vec<(i32, ProfileId, Wait)>,
}

/// Why and how much a profile waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wait {
    /// Waiting records.
    pub records: u64,
    /// Merges that it waits for.
    pub merges: u32,
}

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
    /// Learns what waits in the lanes that were just restored.
    ///
    /// # Errors
    /// The state could not be read.
    pub fn load(&mut self, store: &impl Map, lanes: &[i32]) -> Result<(), state::Error> {
        for lane in lanes {
            let index = self.by_lane.entry(*lane).or_default();
            self.ready -= index.values().map(Wait::ready).sum::<u64>();
            index.clear();
            store.each_key(*lane, &[HELD], |key| {
                if let Some(profile) = profile_of(key) {
                    index.entry(profile).or_default().records += 1;
                }
            })?;
            store.each_key(*lane, &[WAITS], |key| {
                if let Some(profile) = profile_of(key) {
                    index.entry(profile).or_default().merges += 1;
                }
            })?;
            self.ready += index.values().map(Wait::ready).sum::<u64>();
        }
        Ok(())
    }

    pub fn forget(&mut self, lanes: &[i32]) {
        for lane in lanes {
            let index = self.by_lane.remove(lane).unwrap_or_default();
            self.ready -= index.values().map(Wait::ready).sum::<u64>();
        }
    }

    pub fn get(&self, lane: i32, profile: ProfileId) -> Option<Wait> {
        self.by_lane.get(&lane)?.get(&profile).copied()
    }

    /// Whether nobody of the lane has anything waiting.
    pub fn is_empty(&self, lane: i32) -> bool {
        self.by_lane.get(&lane).is_none_or(BTreeMap::is_empty)
    }

    /// The profiles of these lanes that have something waiting, with their lane.
    pub fn profiles(&self, lanes: &[i32]) -> Vec<(ProfileId, i32)> {
        lanes
            .iter()
            .filter_map(|lane| self.by_lane.get(lane).map(|index| (*lane, index)))
            .flat_map(|(lane, index)| index.keys().map(move |profile| (*profile, lane)))
            .collect()
    }

    /// All waiting records.
    pub fn records(&self) -> u64 {
        self.by_lane.values().flat_map(BTreeMap::values).map(|wait| wait.records).sum()
    }

    /// Waiting records of profiles that wait for no merge.
    pub const fn ready(&self) -> u64 {
        self.ready
    }

    fn change(&mut self, lane: i32, profile: ProfileId, change: impl FnOnce(&mut Wait)) {
        let mut wait = self.get(lane, profile).unwrap_or_default();
        self.journal.push((lane, profile, wait));
        change(&mut wait);
        self.set(lane, profile, wait);
    }

    fn set(&mut self, lane: i32, profile: ProfileId, wait: Wait) {
        let index = self.by_lane.entry(lane).or_default();
        let before = if wait == Wait::default() { index.remove(&profile) } else { index.insert(profile, wait) };
        self.ready += wait.ready();
        self.ready -= before.unwrap_or_default().ready();
    }

    /// The plan is carried out.
    pub fn accept(&mut self) {
        self.journal.clear();
    }

    /// The plan is thrown away.
    pub fn undo(&mut self) {
        while let Some((lane, profile, wait)) = self.journal.pop() {
            self.set(lane, profile, wait);
        }
    }

    /// Puts a record behind everything that waits for the profile; one that a merge handed over goes before the survivor's own.
    ///
    /// # Errors
    /// The lane is not restored.
    pub fn hold(
        &mut self,
        store: &mut impl Map,
        lane: i32,
        profile: ProfileId,
        record: &Record,
        handed_over: bool,
        now: Timestamp,
    ) -> Result<(), state::Error> {
        let key = held_key(profile, handed_over, record.offset);
        if store.get(lane, &key)?.is_some() {
            // Read for the second time: it waits since the first.
            return Ok(());
        }
        let value = encode(record, now);
        let since = since_key(now, &key);
        self.change(lane, profile, |wait| wait.records += 1);
        store.put(lane, key, Some(value))?;
        store.put(lane, since, Some(Vec::new()))
    }

    /// Everything that waits for a profile, in order.
    ///
    /// # Errors
    /// The state could not be read.
    pub fn queue(
        &self,
        store: &impl Map,
        lane: i32,
        profile: ProfileId,
        topic: &Arc<str>,
    ) -> Result<Vec<Held>, state::Error> {
        let entries = store.scan(lane, &profile_key(HELD, profile))?;
        entries.into_iter().map(|(key, value)| waiting(store, topic, lane, key, &value)).collect()
    }

    /// The first of what waits for a profile, in order: at most `max`.
    ///
    /// # Errors
    /// The state could not be read.
    pub fn queue_first(
        &self,
        store: &impl Map,
        lane: i32,
        profile: ProfileId,
        topic: &Arc<str>,
        max: usize,
    ) -> Result<Vec<Held>, state::Error> {
        let entries = store.scan_first(lane, &profile_key(HELD, profile), max)?;
        entries.into_iter().take(max).map(|(key, value)| waiting(store, topic, lane, key, &value)).collect()
    }

    /// Takes a record out of its queue.
    ///
    /// # Errors
    /// The lane is not restored.
    pub fn take(
        &mut self,
        store: &mut impl Map,
        lane: i32,
        profile: ProfileId,
        held: &Held,
    ) -> Result<(), state::Error> {
        if store.get(lane, &held.key)?.is_none() {
            return Ok(());
        }
        store.put(lane, held.key.clone(), None)?;
        store.put(lane, since_key(held.since, &held.key), None)?;
        self.change(lane, profile, |wait| wait.records = wait.records.saturating_sub(1));
        if self.get(lane, profile).is_none() {
            store.put(lane, profile_key(IDENTIFIERS, profile), None)?;
        }
        Ok(())
    }

    /// The profile waits for a merge from now on.
    ///
    /// # Errors
    /// The lane is not restored.
    pub fn wait_for(
        &mut self,
        store: &mut impl Map,
        lane: i32,
        profile: ProfileId,
        merge: u64,
    ) -> Result<(), state::Error> {
        let key = merge_key(profile, merge);
        if store.get(lane, &key)?.is_none() {
            self.change(lane, profile, |wait| wait.merges += 1);
            store.put(lane, key, Some(Vec::new()))?;
        }
        Ok(())
    }

    /// The merge is through.
    ///
    /// # Errors
    /// The lane is not restored.
    pub fn released(
        &mut self,
        store: &mut impl Map,
        lane: i32,
        profile: ProfileId,
        merge: u64,
    ) -> Result<(), state::Error> {
        let key = merge_key(profile, merge);
        if store.get(lane, &key)?.is_some() {
            self.change(lane, profile, |wait| wait.merges = wait.merges.saturating_sub(1));
            store.put(lane, key, None)?;
            if self.get(lane, profile).is_none() {
                store.put(lane, profile_key(IDENTIFIERS, profile), None)?;
            }
        }
        Ok(())
    }

    /// Records that have waited since before `limit`, oldest first, at most `max` of a lane. Profiles that wait for a merge are left
    /// out: they lack nothing.
    ///
    /// # Errors
    /// The state could not be read.
    pub fn expired(
        &self,
        store: &impl Map,
        lane: i32,
        topic: &Arc<str>,
        limit: Timestamp,
        max: usize,
    ) -> Result<Vec<(ProfileId, Held)>, state::Error> {
        let mut found = Vec::new();
        for (key, _) in store.scan_first(lane, &[SINCE], max.saturating_mul(2))? {
            let Some((since, rest)) = split_since(&key) else { continue };
            if since > limit || found.len() >= max {
                break;
            }
            let mut held_key = vec![HELD];
            held_key.extend_from_slice(rest);
            let Some(profile) = profile_of(&held_key) else { continue };
            if self.get(lane, profile).is_some_and(|wait| wait.merges > 0) {
                continue;
            }
            if let Some(value) = store.get(lane, &held_key)? {
                found.push((profile, waiting(store, topic, lane, held_key, &value)?));
            }
        }
        Ok(found)
    }
}

/// The place in its queue of a record that waits for its own sake (not handed over), if it does.
///
/// # Errors
/// The state could not be read.
pub fn find(
    store: &impl Map,
    lane: i32,
    profile: ProfileId,
    record: &Arc<Record>,
) -> Result<Option<Held>, state::Error> {
    let key = held_key(profile, false, record.offset);
    let Some(value) = store.get(lane, &key)? else { return Ok(None) };
    waiting(store, &record.topic, lane, key, &value).map(Some)
}

/// Remembers the identifiers in use of a profile that waits.
///
/// # Errors
/// The lane is not restored.
pub fn remember_identifiers(
    store: &mut impl Map,
    lane: i32,
    profile: ProfileId,
    identifiers: &[(String, String)],
) -> Result<(), state::Error> {
    // Strings into memory: serialising them has no way to fail.
    let value = serde_json::to_vec(identifiers).unwrap_or_default();
    store.put(lane, profile_key(IDENTIFIERS, profile), Some(value))
}

/// The identifiers in use of a waiting profile that were seen last.
///
/// # Errors
/// The state could not be read.
pub fn identifiers(
    store: &impl Map,
    lane: i32,
    profile: ProfileId,
) -> Result<Option<Vec<(String, String)>>, state::Error> {
    store.get_json(lane, &profile_key(IDENTIFIERS, profile), "the identifiers of a profile that waits")
}

/// Writes down why the route is paused, or that it is not any more.
///
/// # Errors
/// The lane is not restored.
pub fn set_pause(store: &mut impl Map, lane: i32, reason: Option<&serde_json::Value>) -> Result<(), state::Error> {
    let value = reason.map(|reason| reason.to_string().into_bytes());
    if store.get(lane, PAUSE)? == value {
        return Ok(());
    }
    store.put(lane, PAUSE.to_vec(), value)
}

/// What a state record of route says, for the tools that read the topic from outside.
pub enum Entry {
    Held { profile: ProfileId, held: Held },
    Pause(serde_json::Value),
    Other,
}

/// Reads a record of `state.route.<destination>`.
pub fn read_entry(topic: &Arc<str>, lane: i32, key: &[u8], value: &[u8]) -> Entry {
    match key.first() {
        Some(&HELD) => match (profile_of(key), decode(topic, lane, key.to_vec(), value)) {
            (Some(profile), Some(held)) => Entry::Held { profile, held },
            _ => Entry::Other,
        },
        _ if key == PAUSE => serde_json::from_slice(value).map_or(Entry::Other, Entry::Pause),
        _ => Entry::Other,
    }
}

/// A waiting record of the state; one that cannot be read is never taken for none.
fn waiting(store: &impl Map, topic: &Arc<str>, lane: i32, key: Vec<u8>, value: &[u8]) -> Result<Held, state::Error> {
    let shown = key.clone();
    decode(topic, lane, key, value).ok_or_else(|| {
        store.damaged(lane, &shown, "a waiting record", &format!("{} bytes of an unknown form", value.len()))
    })
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Store;

    fn record_at(offset: i64) -> Record {
        Record::new(
            Arc::from("t.resolved"),
            0,
            offset,
            Timestamp::from_millis(0),
            None,
            Some(b"{}"),
            Some(b"\x01"),
            vec![],
        )
    }

    fn offsets(waiting: &Waiting, store: &Store, profile: ProfileId) -> Vec<i64> {
        let queue = waiting.queue(store, 0, profile, &Arc::from("t.resolved")).unwrap();
        queue.iter().map(|held| held.record.offset).collect()
    }

    #[test]
    fn what_a_merge_handed_over_goes_before_the_survivors_own_and_nothing_else_changes_order() {
        let (mut store, _folder) = Store::without_broker(&[0]);
        let mut waiting = Waiting::default();
        let profile = ProfileId::of("w", "email", "a@b.c", 0);
        for (offset, handed_over) in [(300, false), (7, false), (900, true), (800, true)] {
            waiting.hold(&mut store, 0, profile, &record_at(offset), handed_over, Timestamp::from_millis(1)).unwrap();
        }
        assert_eq!(offsets(&waiting, &store, profile), [800, 900, 7, 300]);
    }

    #[test]
    fn a_damaged_record_is_told_and_not_passed_over() {
        let (mut store, _folder) = Store::without_broker(&[0]);
        let mut waiting = Waiting::default();
        let profile = ProfileId::of("w", "email", "a@b.c", 0);
        let topic: Arc<str> = Arc::from("t.resolved");
        for offset in [1, 2] {
            waiting.hold(&mut store, 0, profile, &record_at(offset), false, Timestamp::from_millis(1)).unwrap();
        }
        store.put(0, held_key(profile, false, 2), Some(vec![9])).unwrap();
        let code = |error: state::Error| error.code();
        assert_eq!(waiting.queue(&store, 0, profile, &topic).map_err(code).unwrap_err().as_str(), "state_damaged");
        let expired = waiting.expired(&store, 0, &topic, Timestamp::from_millis(50), 10);
        assert_eq!(expired.map_err(code).unwrap_err().as_str(), "state_damaged");
        store.put(0, profile_key(IDENTIFIERS, profile), Some(b"[".to_vec())).unwrap();
        assert_eq!(identifiers(&store, 0, profile).map_err(code).unwrap_err().as_str(), "state_damaged");
    }

    #[test]
    fn a_record_that_is_read_twice_waits_once_and_since_the_first_time() {
        let (mut store, _folder) = Store::without_broker(&[0]);
        let mut waiting = Waiting::default();
        let profile = ProfileId::of("w", "email", "a@b.c", 0);
        waiting.hold(&mut store, 0, profile, &record_at(5), false, Timestamp::from_millis(1)).unwrap();
        store.keep();
        waiting.hold(&mut store, 0, profile, &record_at(5), false, Timestamp::from_millis(9)).unwrap();
        assert_eq!(waiting.records(), 1);
        let found = |offset| find(&store, 0, profile, &Arc::new(record_at(offset))).unwrap();
        assert!(found(5).is_some() && found(6).is_none());
        let held = waiting.queue(&store, 0, profile, &Arc::from("t")).unwrap().remove(0);
        assert_eq!(held.since.as_millis(), 1);
        // Taken twice, it is gone once, and no other record's count goes with it.
        waiting.hold(&mut store, 0, profile, &record_at(6), false, Timestamp::from_millis(9)).unwrap();
        waiting.take(&mut store, 0, profile, &held).unwrap();
        waiting.take(&mut store, 0, profile, &held).unwrap();
        assert_eq!(waiting.get(0, profile), Some(Wait { records: 1, merges: 0 }));
        assert_eq!(store.scan(0, &[SINCE]).unwrap().len(), 1);
    }

    #[test]
    fn a_profile_waits_until_each_of_its_merges_is_through() {
        let (mut store, _folder) = Store::without_broker(&[0]);
        let mut waiting = Waiting::default();
        let profile = ProfileId::of("w", "email", "a@b.c", 0);
        for merge in [5, 7, 5] {
            waiting.wait_for(&mut store, 0, profile, merge).unwrap();
        }
        waiting.released(&mut store, 0, profile, 9).unwrap();
        waiting.released(&mut store, 0, profile, 7).unwrap();
        assert_eq!(waiting.get(0, profile), Some(Wait { records: 0, merges: 1 }));
        waiting.released(&mut store, 0, profile, 5).unwrap();
        assert_eq!(waiting.get(0, profile), None);
    }

    #[test]
    fn a_plan_that_is_thrown_away_leaves_the_index_as_a_restart_would_find_it() {
        let (mut store, _folder) = Store::without_broker(&[0]);
        let mut waiting = Waiting::default();
        let profile = ProfileId::of("w", "email", "a@b.c", 0);
        waiting.hold(&mut store, 0, profile, &record_at(1), false, Timestamp::from_millis(1)).unwrap();
        waiting.wait_for(&mut store, 0, profile, 3).unwrap();
        store.keep();
        waiting.accept();
        waiting.hold(&mut store, 0, profile, &record_at(2), false, Timestamp::from_millis(1)).unwrap();
        waiting.released(&mut store, 0, profile, 3).unwrap();
        store.aborted();
        waiting.undo();
        let mut fresh = Waiting::default();
        fresh.load(&store, &[0]).unwrap();
        assert_eq!(waiting.get(0, profile), Some(Wait { records: 1, merges: 1 }));
        assert_eq!(fresh.get(0, profile), waiting.get(0, profile));
    }

    #[test]
    fn holds_end_by_age_but_not_while_a_merge_is_waited_for() {
        let (mut store, _folder) = Store::without_broker(&[0]);
        let mut waiting = Waiting::default();
        let topic: Arc<str> = Arc::from("t.resolved");
        let (old, merging) = (ProfileId::of("w", "email", "a", 0), ProfileId::of("w", "email", "b", 0));
        for (profile, offset, since) in [(old, 1, 10), (merging, 2, 10), (old, 3, 99)] {
            waiting.hold(&mut store, 0, profile, &record_at(offset), false, Timestamp::from_millis(since)).unwrap();
        }
        waiting.wait_for(&mut store, 0, merging, 1).unwrap();
        let expired = waiting.expired(&store, 0, &topic, Timestamp::from_millis(50), 10).unwrap();
        assert_eq!(expired.iter().map(|(_, held)| held.record.offset).collect::<Vec<_>>(), [1]);
    }
}
