//! The state as one batch sees it: what the store holds, read at most once, under the batch's own changes.
//!
//! Lookups go through hash maps; whatever leaves this module is sorted by key first, so that their order never shows.

use std::collections::HashMap;

use tailwater_core::ProfileId;

use crate::decision::Write;
use crate::error::Error;
use crate::key::Key;
use crate::profile::Profile;
use crate::record::{self, Counters, Record};
use crate::rules::Rules;
use crate::store::Store;

pub(crate) struct Snapshot<'a, S: ?Sized> {
    store: &'a S,
    rules: &'a Rules,
    counters: Counters,
    counters_changed: bool,
    owners: HashMap<Key, Owner>,
    profiles: HashMap<ProfileId, Slot>,
}

/// Who owns an identifier.
struct Owner {
    profile: Option<ProfileId>,
    changed: bool,
}

/// What is known of a profile id.
enum Slot {
    /// Nobody has it.
    Free,
    /// Somebody has or had it; the record has not been read further.
    Taken,
    Live(Box<Live>),
    Alias {
        survivor: ProfileId,
        number: u64,
        changed: bool,
        end_activity: bool,
    },
}

pub(crate) struct Live {
    pub(crate) profile: Profile,
    /// The identifiers, or what is in use, changed.
    pub(crate) record_changed: bool,
    pub(crate) activity_changed: bool,
    /// The store has an activity record of it.
    stored: bool,
}

// === impl Snapshot ===

impl<'a, S: Store + ?Sized> Snapshot<'a, S> {
    /// Reads the counters and the owners of these identifiers. The keys are sorted and distinct.
    pub(crate) fn open(store: &'a S, rules: &'a Rules, identifiers: &[Key]) -> Result<Self, Error> {
        let mut keys = Vec::with_capacity(identifiers.len() + 1);
        keys.push(Key::COUNTERS);
        keys.extend_from_slice(identifiers);
        let mut values = read(store, &keys)?.into_iter();
        let counters = match values.next().flatten() {
            Some(bytes) => Counters::decode(&bytes)?,
            None => Counters::default(),
        };
        let mut owners = HashMap::with_capacity(identifiers.len());
        for (key, value) in identifiers.iter().zip(values) {
            let profile = value.map(|bytes| record::decode_owner(*key, &bytes)).transpose()?;
            owners.insert(*key, Owner { profile, changed: false });
        }
        Ok(Self { store, rules, counters, counters_changed: false, owners, profiles: HashMap::new() })
    }

    /// Reads profiles that own something, and asks of others only whether their ids are taken.
    pub(crate) fn load(&mut self, owners: &[ProfileId], seeds: &[ProfileId]) -> Result<(), Error> {
        let owners: Vec<ProfileId> = owners
            .iter()
            .filter(|id| !matches!(self.profiles.get(id), Some(Slot::Free | Slot::Live(_) | Slot::Alias { .. })))
            .copied()
            .collect();
        let seeds: Vec<ProfileId> = seeds.iter().filter(|id| !self.profiles.contains_key(id)).copied().collect();
        let mut keys = Vec::with_capacity(owners.len() * 2 + seeds.len());
        for id in &owners {
            keys.extend([Key::profile(*id), Key::activity(*id)]);
        }
        keys.extend(seeds.iter().map(|id| Key::profile(*id)));
        if keys.is_empty() {
            return Ok(());
        }
        let mut values = read(self.store, &keys)?.into_iter();
        for id in owners {
            let (profile, activity) = (values.next().flatten(), values.next().flatten());
            let slot = match profile {
                None => Slot::Free,
                Some(bytes) => match record::decode_record(id, &bytes, activity.as_deref(), self.rules)? {
                    Record::Live(profile) => Slot::Live(Box::new(Live {
                        profile,
                        record_changed: false,
                        activity_changed: false,
                        stored: true,
                    })),
                    Record::Alias { survivor, number } => {
                        Slot::Alias { survivor, number, changed: false, end_activity: false }
                    }
                },
            };
            self.profiles.insert(id, slot);
        }
        for (id, value) in seeds.into_iter().zip(values) {
            // An id can be both: an owner that was read above stays as it is.
            self.profiles.entry(id).or_insert(if value.is_some() { Slot::Taken } else { Slot::Free });
        }
        Ok(())
    }

    pub(crate) fn owner(&mut self, key: Key) -> Result<Option<ProfileId>, Error> {
        if let Some(owner) = self.owners.get(&key) {
            return Ok(owner.profile);
        }
        let value = read(self.store, &[key])?.pop().flatten();
        let profile = value.map(|bytes| record::decode_owner(key, &bytes)).transpose()?;
        self.owners.insert(key, Owner { profile, changed: false });
        Ok(profile)
    }

    pub(crate) fn set_owner(&mut self, key: Key, profile: ProfileId) {
        self.owners.insert(key, Owner { profile: Some(profile), changed: true });
    }

    /// Whether a profile has or had this id.
    pub(crate) fn is_taken(&mut self, id: ProfileId) -> Result<bool, Error> {
        self.load(&[], &[id])?;
        Ok(!matches!(self.profiles.get(&id), Some(Slot::Free)))
    }

    /// A profile that has been loaded. An identifier or an alias led to it, so it must be there.
    pub(crate) fn live(&self, id: ProfileId) -> Result<&Profile, Error> {
        match self.profiles.get(&id) {
            Some(Slot::Live(live)) => Ok(&live.profile),
            Some(Slot::Free | Slot::Taken | Slot::Alias { .. }) | None => Err(Error::Dangling { profile: id }),
        }
    }

    pub(crate) fn live_mut(&mut self, id: ProfileId) -> Result<&mut Live, Error> {
        match self.profiles.get_mut(&id) {
            Some(Slot::Live(live)) => Ok(live),
            Some(Slot::Free | Slot::Taken | Slot::Alias { .. }) | None => Err(Error::Dangling { profile: id }),
        }
    }

    /// The profile under this id, or the one that absorbed it.
    pub(crate) fn current(&mut self, id: ProfileId) -> Result<Option<ProfileId>, Error> {
        self.load(&[id], &[])?;
        match self.profiles.get(&id) {
            Some(Slot::Live(_)) => Ok(Some(id)),
            Some(Slot::Alias { survivor, .. }) => {
                let survivor = *survivor;
                self.load(&[survivor], &[])?;
                Ok(Some(survivor))
            }
            Some(Slot::Free | Slot::Taken) | None => Ok(None),
        }
    }

    pub(crate) fn insert(&mut self, id: ProfileId, profile: Profile) {
        let live = Live { profile, record_changed: true, activity_changed: true, stored: false };
        self.profiles.insert(id, Slot::Live(Box::new(live)));
    }

    /// Takes a profile out and leaves an alias to `survivor` in its place, and in that of everything it had absorbed.
    pub(crate) fn retire(&mut self, id: ProfileId, survivor: ProfileId, number: u64) -> Result<Profile, Error> {
        let Some(Slot::Live(live)) = self.profiles.remove(&id) else {
            return Err(Error::Dangling { profile: id });
        };
        for earlier in &live.profile.absorbed {
            // Its activity ended when it was absorbed; whether that end still has to be written does not change.
            let end_activity = matches!(self.profiles.get(earlier), Some(Slot::Alias { end_activity: true, .. }));
            self.profiles.insert(*earlier, Slot::Alias { survivor, number, changed: true, end_activity });
        }
        self.profiles.insert(id, Slot::Alias { survivor, number, changed: true, end_activity: live.stored });
        Ok(live.profile)
    }

    pub(crate) fn next_count(&mut self) -> u64 {
        self.counters_changed = true;
        self.counters.count = self.counters.count.saturating_add(1);
        self.counters.count
    }

    pub(crate) fn next_merge(&mut self) -> u64 {
        self.counters_changed = true;
        self.counters.merges = self.counters.merges.saturating_add(1);
        self.counters.merges
    }

    /// The final state of everything that changed, by key.
    pub(crate) fn into_writes(self) -> Vec<Write> {
        let mut writes = Vec::with_capacity(self.owners.len() + self.profiles.len() + 1);
        if self.counters_changed {
            writes.push(Write { key: Key::COUNTERS, value: Some(self.counters.encode()) });
        }
        for (key, owner) in self.owners {
            if owner.changed {
                writes.push(Write { key, value: owner.profile.map(record::encode_owner) });
            }
        }
        for (id, slot) in self.profiles {
            match slot {
                Slot::Free | Slot::Taken => {}
                Slot::Live(live) => {
                    if live.record_changed {
                        let value = Some(record::encode_profile(&live.profile, self.rules));
                        writes.push(Write { key: Key::profile(id), value });
                    }
                    if live.activity_changed {
                        let value = Some(record::encode_activity(&live.profile, self.rules));
                        writes.push(Write { key: Key::activity(id), value });
                    }
                }
                Slot::Alias { survivor, number, changed, end_activity } => {
                    if changed {
                        let value = Some(record::encode_alias(survivor, number));
                        writes.push(Write { key: Key::profile(id), value });
                    }
                    if end_activity {
                        writes.push(Write { key: Key::activity(id), value: None });
                    }
                }
            }
        }
        writes.sort_unstable_by_key(|write| write.key);
        writes
    }
}

/// Reads keys, and holds the store to its word: one answer for each.
fn read<S: Store + ?Sized>(store: &S, keys: &[Key]) -> Result<Vec<Option<Vec<u8>>>, Error> {
    let values = store.get_many(keys)?;
    if values.len() != keys.len() {
        return Err(Error::Answers { asked: keys.len(), got: values.len() });
    }
    Ok(values)
}
