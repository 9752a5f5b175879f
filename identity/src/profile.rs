//! A profile in memory: a person's identifiers, and what the resolver remembers about them.

use std::sync::Arc;

use tailwater_core::{ProfileId, Timestamp};

use crate::decision::InUse;
use crate::rules::Rules;

/// The most bytes of identifiers in one profile. A profile is one record of the changelog and has to pass a broker with the
/// default limit of 1 MB; a profile at this bound takes no further identifiers, as at `max_identifiers`.
pub const PROFILE_BYTES_MAX: usize = 512 * 1024;

/// What a value costs beyond its text: lengths, times, the name of its type.
const VALUE_OVERHEAD_BYTES: usize = 100;

/// The type of a stored identifier.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A declared type, by its rank.
    Declared(usize),
    /// A type that was declared when the identifier was linked and is no longer. Its values stay, count towards the total, and are
    /// neither matched nor delivered.
    Former(Arc<str>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Value {
    pub(crate) kind: Kind,
    pub(crate) match_key: Arc<str>,
    pub(crate) delivery: Arc<str>,
    /// When it was linked, by the event's time.
    pub(crate) added: Timestamp,
    /// The resolver's count when an event last brought it. No two are equal, so the most recent one of a type is always
    /// decided.
    pub(crate) seen: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Profile {
    /// The resolver's count when it was made: the lower one is older and survives a merge.
    pub(crate) created: u64,
    /// Events so far.
    pub(crate) sequence: u64,
    /// Every profile that it ever absorbed, in the order of the merges; those that the absorbed ones had absorbed before them.
    pub(crate) absorbed: Vec<ProfileId>,
    pub(crate) values: Vec<Value>,
}

/// A profile as people see it: what `tailwater trace` shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    pub profile: ProfileId,
    /// Events so far.
    pub sequence: u64,
    /// The profiles that became part of this one.
    pub absorbed: Vec<ProfileId>,
    /// All identifiers, strongest type first, the most recent of a type first.
    pub identifiers: Vec<Held>,
}

/// An identifier of a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub kind: Arc<str>,
    pub match_key: Arc<str>,
    /// As it is delivered.
    pub value: Arc<str>,
    pub added: Timestamp,
    /// Whether it is the value of its type that stands for the profile.
    pub in_use: bool,
}

// === impl Kind ===

impl Kind {
    pub(crate) fn of(rules: &Rules, name: &str) -> Self {
        rules.rank(name).map_or_else(|| Self::Former(Arc::from(name)), Self::Declared)
    }

    pub(crate) fn name<'a>(&'a self, rules: &'a Rules) -> &'a Arc<str> {
        match self {
            Self::Declared(rank) => &rules.types()[*rank].name,
            Self::Former(name) => name,
        }
    }
}

// === impl Value ===

impl Value {
    pub(crate) fn bytes(&self) -> usize {
        // The delivery value is stored apart only where it differs.
        let delivery = if self.delivery == self.match_key { 0 } else { self.delivery.len() };
        self.match_key.len() + delivery + VALUE_OVERHEAD_BYTES
    }
}

// === impl Profile ===

impl Profile {
    pub(crate) fn bytes(&self) -> usize {
        self.values.iter().map(Value::bytes).sum()
    }

    /// Whether this value is the one in use of its type.
    pub(crate) fn is_primary(&self, value: &Value) -> bool {
        !self.values.iter().any(|other| other.kind == value.kind && other.seen > value.seen)
    }

    /// The value in use of each declared type, strongest type first.
    pub(crate) fn in_use(&self, rules: &Rules) -> Vec<InUse> {
        let mut latest: Vec<Option<&Value>> = vec![None; rules.types().len()];
        for value in &self.values {
            if let Kind::Declared(rank) = value.kind
                && latest[rank].is_none_or(|other| other.seen < value.seen)
            {
                latest[rank] = Some(value);
            }
        }
        latest
            .into_iter()
            .flatten()
            .map(|value| InUse { kind: Arc::clone(value.kind.name(rules)), value: Arc::clone(&value.delivery) })
            .collect()
    }

    pub(crate) fn to_person(&self, id: ProfileId, rules: &Rules) -> Person {
        let mut values: Vec<&Value> = self.values.iter().collect();
        values.sort_by(|a, b| a.kind.cmp(&b.kind).then(b.seen.cmp(&a.seen)));
        let identifiers = values
            .into_iter()
            .map(|value| Held {
                kind: Arc::clone(value.kind.name(rules)),
                match_key: Arc::clone(&value.match_key),
                value: Arc::clone(&value.delivery),
                added: value.added,
                in_use: self.is_primary(value),
            })
            .collect();
        Person { profile: id, sequence: self.sequence, absorbed: self.absorbed.clone(), identifiers }
    }
}
