//! The identity state, read from its topic: who somebody is, without the resolver.
//!
//! The state may be larger than this process should be, and a look concerns a few keys. So nothing is kept but what is asked for: each question
//! reads the topic once, up to the same end, and answers are remembered. Finding a person takes two such passes, one more for each profile that
//! absorbed another.

use std::cell::RefCell;
use std::collections::HashMap;

use tailwater_core::ProfileId;
use tailwater_identity::{Key, Person, Resolver, Store, StoreError};

use super::Error;
use crate::config::model::Config;
use crate::kafka::read::{Range, Reader};
use crate::kafka::topics::Names;

pub struct Identities<'a> {
    config: &'a Config,
    reader: &'a Reader,
    ranges: Vec<Range>,
    known: RefCell<HashMap<Key, Option<Vec<u8>>>>,
}

impl<'a> Identities<'a> {
    /// # Errors
    /// No broker answers.
    pub fn open(config: &'a Config, reader: &'a Reader) -> Result<Self, Error> {
        let topic = Names::new(&config.kafka.prefix).state_resolve();
        let ranges = if reader.partitions(&topic)?.is_some() { reader.whole(&topic)? } else { Vec::new() };
        Ok(Self { config, reader, ranges, known: RefCell::new(HashMap::new()) })
    }

    /// The people who have this value: as an identifier of `kind`, or of every type for which it is possible.
    ///
    /// # Errors
    /// No broker answers, or the state contradicts itself.
    pub fn find(&self, kind: Option<&str>, value: &str) -> Result<Vec<Person>, Error> {
        let rules = &self.config.identity.rules;
        let kinds: Vec<&str> = rules.type_names().filter(|name| kind.is_none_or(|kind| kind == *name)).collect();
        // One pass for all types together.
        let keys: Vec<Key> = kinds
            .iter()
            .filter_map(|kind| {
                rules.match_key(kind, value).ok().map(|key| Key::identifier(&self.config.workspace, kind, &key))
            })
            .chain([Key::COUNTERS])
            .collect();
        self.read(&keys)?;
        let mut people: Vec<Person> = Vec::new();
        for kind in kinds {
            if let Some(person) = self.resolver().find(self, kind, value)?
                && !people.iter().any(|known| known.profile == person.profile)
            {
                people.push(person);
            }
        }
        Ok(people)
    }

    /// The profile of this id, or the one that absorbed it.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub fn get(&self, id: ProfileId) -> Result<Option<Person>, Error> {
        Ok(self.resolver().get(self, id)?)
    }

    /// Reads what questions about these profiles will need, in one pass.
    ///
    /// # Errors
    /// No broker answers.
    pub fn prepare(&self, profiles: impl IntoIterator<Item = ProfileId>) -> Result<(), Error> {
        let keys: Vec<Key> =
            profiles.into_iter().flat_map(|id| [Key::profile(id), Key::activity(id)]).chain([Key::COUNTERS]).collect();
        Ok(self.read(&keys)?)
    }

    fn resolver(&self) -> Resolver<'_> {
        Resolver::new(&self.config.identity.rules, &self.config.workspace)
    }

    /// Looks for the keys that were not looked for yet.
    fn read(&self, keys: &[Key]) -> Result<(), crate::kafka::Error> {
        let mut found: HashMap<Key, Option<Vec<u8>>> = {
            let known = self.known.borrow();
            keys.iter().filter(|key| !known.contains_key(key)).map(|key| (*key, None)).collect()
        };
        if found.is_empty() {
            return Ok(());
        }
        self.reader.read::<crate::kafka::Error>(&self.ranges, |record| {
            if let Some(key) = record.key().and_then(Key::from_bytes)
                && let Some(value) = found.get_mut(&key)
            {
                *value = record.value().map(<[u8]>::to_vec);
            }
            Ok(true)
        })?;
        self.known.borrow_mut().extend(found);
        Ok(())
    }
}

impl Store for Identities<'_> {
    fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        self.read(keys).map_err(|error| StoreError::new("could not read the topic of the identities", error))?;
        let known = self.known.borrow();
        Ok(keys.iter().map(|key| known.get(key).cloned().flatten()).collect())
    }
}
