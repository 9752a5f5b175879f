//! A small stage for stories: events go in one by one, and the store can be looked at.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

use std::ops::Deref;

use tailwater_core::envelope::Identifier;
use tailwater_core::{ProfileId, Timestamp};
use tailwater_identity::{
    BatchDecision, Decision, Error, Globals, Incoming, MemoryStore, Normaliser, Person, Resolution, Resolver, Rules,
    TypeRule, Why,
};

pub const WORKSPACE: &str = "acme";

pub fn types() -> Vec<TypeRule> {
    vec![
        TypeRule::new("user_id", 1).max(1),
        TypeRule::new("email", 2).normaliser(Normaliser::Email).max(5),
        TypeRule::new("anonymous_id", 3).max(5),
    ]
}

pub fn rules() -> Rules {
    Rules::new(types(), Globals::default()).unwrap()
}

/// One event as a test writes it.
pub type Event = Vec<(&'static str, String)>;

pub struct Story {
    pub rules: Rules,
    pub store: MemoryStore,
    pub time: Timestamp,
}

/// A resolution that is easy to compare.
#[derive(Debug)]
pub struct Told(Resolution);

impl Deref for Told {
    type Target = Resolution;

    fn deref(&self) -> &Resolution {
        &self.0
    }
}

impl Told {
    pub fn in_use(&self) -> Vec<(&str, &str)> {
        self.identifiers.iter().map(|in_use| (&*in_use.kind, &*in_use.value)).collect()
    }

    pub fn why(&self) -> Vec<(&str, Why)> {
        self.refused.iter().map(|refusal| (&*refusal.kind, refusal.why)).collect()
    }
}

impl Story {
    pub fn new(rules: Rules) -> Self {
        Self { rules, store: MemoryStore::default(), time: Timestamp::default() }
    }

    pub fn try_decide(&mut self, identifiers: &[(&str, &str)]) -> Result<BatchDecision, Error> {
        let identifiers: Vec<Identifier<'_>> =
            identifiers.iter().map(|&(kind, value)| Identifier { kind, value }).collect();
        let event = Incoming { identifiers: &identifiers, time: self.time };
        let batch = Resolver::new(&self.rules, WORKSPACE).resolve(&self.store, &[event])?;
        self.store.apply(&batch.writes);
        Ok(batch)
    }

    pub fn decide(&mut self, identifiers: &[(&str, &str)]) -> BatchDecision {
        self.try_decide(identifiers).unwrap()
    }

    pub fn event(&mut self, identifiers: &[(&str, &str)]) -> Told {
        match self.decide(identifiers).decisions.remove(0) {
            Decision::Resolved(resolution) => Told(resolution),
            Decision::NoIdentifiers { refused } => panic!("nobody: {refused:?}"),
        }
    }

    pub fn get(&self, profile: ProfileId) -> Person {
        Resolver::new(&self.rules, WORKSPACE).get(&self.store, profile).unwrap().unwrap()
    }

    /// What a profile holds, as `type match_key`.
    pub fn holds(&self, profile: ProfileId) -> Vec<String> {
        self.get(profile).identifiers.iter().map(|held| format!("{} {}", held.kind, held.match_key)).collect()
    }
}
