//! Who an event is about: identifiers resolve to profiles, deterministically.
//!
//! Resolution is online connected components under constraints. Without constraints it does not depend on the order of
//! the events; with any limit it does, so *deterministic* can only mean *a pure function of one totally ordered log*. That
//! is what this crate is: [`Resolver::resolve`] takes a batch of that log and a [`Store`], and returns one [`Decision`]
//! per event and the writes that bring the store to the state after the batch. Whoever calls it commits both together
//! with the events' offsets, or none of it.
//!
//! What it keeps, whatever the order of the events:
//! - no profile ever exceeds a limit that was configured when its identifiers were linked;
//! - an identifier belongs to one profile at a time, and a refused one never moves the event to its owner;
//! - the writes alone restore the store, and cutting the log into other batches changes nothing.
//!
//! On a conflict the weakest identifier of the *incoming* event is set aside and the rest is tried again (policy *keep*);
//! what is already linked stays. The other policies of the field (newest link wins, nobody owns what is shared) give other
//! answers on the same input and are not built here.
//!
//! The crate must never do I/O of its own, read a clock, or let the iteration order of a hash map reach a result. The
//! formats of keys and values ([`key`], `record`) are frozen by golden tests: changelogs hold them.

mod blocklist;
mod clean;
mod decision;
mod email;
mod error;
#[cfg(test)]
mod fuzz;
pub mod key;
mod limits;
mod normalise;
pub mod number;
mod phone;
mod profile;
mod record;
mod resolver;
mod rules;
mod snapshot;
mod store;

pub use blocklist::DEFAULT_BLOCKED;
pub use decision::{BatchDecision, Decision, InUse, Incoming, Refusal, Resolution, Why, Write};
pub use error::Error;
pub use key::Key;
pub use normalise::{Normaliser, VALUE_BYTES_MAX};
pub use profile::{Held, PROFILE_BYTES_MAX, Person};
pub use resolver::Resolver;
pub use rules::{Globals, Limit, RuleProblem, Rules, TypeRule};
pub use store::{MemoryStore, Store, StoreError};
