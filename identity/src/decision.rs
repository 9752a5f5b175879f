//! What goes into a decision and what comes out of it.

use std::sync::Arc;

use tailwater_core::envelope::{Identifier, Merge};
use tailwater_core::{Code, ProfileId, Timestamp, code};

use crate::key::Key;

/// What an event says about its person.
#[derive(Debug, Clone, Copy)]
pub struct Incoming<'a> {
    /// Type and raw value, in the order in which the source's configuration lists them. A column that is null or missing is left
    /// out. Where one type has several values, the first one becomes the value in use.
    pub identifiers: &'a [Identifier<'a>],
    /// The time that the log gave the event; limits with a window are measured by it. Never the wall clock.
    pub time: Timestamp,
}

/// What became of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Decision {
    Resolved(Resolution),
    /// The event has no identifier, or every one of them is blocked or invalid. It changed nothing.
    NoIdentifiers {
        refused: Vec<Refusal>,
    },
}

/// The person of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    pub profile: ProfileId,
    /// Counts the events of the person, from 1. After a merge it goes on from the sum of both, so it is above either.
    pub sequence: u64,
    /// The value in use of each type that the profile has, strongest type first: the one that an event brought most recently.
    pub identifiers: Vec<InUse>,
    /// Identifiers of the event that were not used.
    pub refused: Vec<Refusal>,
    /// Merges that the event caused, by number. They have to be announced before the event.
    pub merges: Vec<Merge>,
    /// The event made the profile.
    pub created: bool,
}

/// The value of a type that stands for the profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InUse {
    pub kind: Arc<str>,
    /// As it is delivered: clean, otherwise as the source wrote it; a phone number in E.164.
    pub value: Arc<str>,
}

/// An identifier of the event that was not used; its columns show null.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Its place in [`Incoming::identifiers`].
    pub index: usize,
    pub kind: Arc<str>,
    /// As the event brought it.
    pub value: Arc<str>,
    pub why: Why,
}

/// Why an identifier was not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Why {
    /// The value is on a blocklist.
    Blocked,
    /// The value is none of its type: no address, no phone number, too long, or with control or lost characters.
    Invalid,
    /// The type is not declared.
    UnknownType,
    /// The event has more identifiers than `max_ids_per_event`; it is one of the weakest.
    TooMany,
    /// A limit forbids to link it, or it was set aside while a conflict was resolved. Nobody owns it.
    Demoted,
    /// It belongs to another profile, and a limit forbids the merge.
    OwnedByAnother,
}

/// The decisions of a batch, and what they change.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct BatchDecision {
    /// One per event, in the same order.
    pub decisions: Vec<Decision>,
    /// The final state of every key that the batch changed, by key; for the changelog and the store.
    pub writes: Vec<Write>,
}

/// A key's new value, or its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub key: Key,
    pub value: Option<Vec<u8>>,
}

// === impl Decision ===

impl Decision {
    pub fn resolution(&self) -> Option<&Resolution> {
        match self {
            Self::Resolved(resolution) => Some(resolution),
            Self::NoIdentifiers { .. } => None,
        }
    }

    pub fn refused(&self) -> &[Refusal] {
        match self {
            Self::Resolved(Resolution { refused, .. }) | Self::NoIdentifiers { refused } => refused,
        }
    }
}

// === impl Why ===

impl Why {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Invalid => "invalid",
            Self::UnknownType => "unknown_type",
            Self::TooMany => "too_many",
            Self::Demoted => "demoted",
            Self::OwnedByAnother => "owned_by_another",
        }
    }

    pub const fn code(self) -> Code {
        code::IDENTIFIER_REFUSED
    }
}
