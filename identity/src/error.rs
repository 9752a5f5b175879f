//! Why a batch could not be resolved. None of it is an event's fault: an event that cannot be used is a decision, not an
//! error. A batch that ends in an error has no effect and can be resolved again.

use tailwater_core::{Code, ProfileId, code};

use crate::key::Key;
use crate::store::StoreError;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("could not read the identity state")]
    Store(#[from] StoreError),
    /// The store's answer does not fit the question.
    #[error("the identity store answered {got} of {asked} keys; it has to answer each, absent ones with none")]
    Answers { asked: usize, got: usize },
    #[error(
        "the identity state has a record of format {format} under key {key}, this version reads format {expected}; \
         run the version of tailwater that wrote it, or a later one"
    )]
    Format { key: Key, format: u8, expected: u8 },
    #[error(
        "the identity state has a damaged record under key {key}; delete the local state so that it is restored from its topic"
    )]
    Damaged { key: Key },
    /// An identifier or an alias points at a profile that has no live record.
    #[error(
        "the identity state names profile {profile}, which has no live record; delete the local state so that it is restored from its topic"
    )]
    Dangling { profile: ProfileId },
    #[error(
        "the profile ids of an identifier of type {kind} are used up to generation {generation}; no further one is made"
    )]
    Generations { kind: String, generation: u32 },
}

impl Error {
    pub fn code(&self) -> Code {
        match self {
            Self::Store(_)
            | Self::Answers { .. }
            | Self::Format { .. }
            | Self::Damaged { .. }
            | Self::Dangling { .. }
            | Self::Generations { .. } => code::STATE_UNREADABLE,
        }
    }
}
