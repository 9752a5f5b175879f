//! The words of Tailwater and its pure decisions.
//!
//! Every other crate speaks in these types: an [`envelope`] travels with each event, an [`operation`] is one thing to do at
//! a destination, a [`delivery`] is an operation on its way and has exactly one outcome, and the [`ledger`] remembers
//! that outcome so that nothing can disappear unseen.
//!
//! This crate must never do I/O, start a task, read the wall clock or know Kafka, HTTP or V8: decisions are functions of
//! their arguments, so that they can be tested with a simulated clock and random schedules. What is *frozen* here (the
//! envelope, the ids, the ledger's keys) is pinned by golden bytes, because records that are already in Kafka carry it.

pub mod code;
pub mod delivery;
pub mod envelope;
pub mod gate;
mod hex;
pub mod ids;
pub mod judge;
pub mod ledger;
pub mod limits;
pub mod operation;
pub mod path;
pub mod position;
pub mod retry;
pub mod schema;
pub mod time;
pub mod tracker;
mod wire;

pub use code::Code;
pub use hex::hex;
pub use ids::{DeliveryKey, EventId, ProfileId, SchemaId};
pub use position::{ChangeKind, Coordinates, OwnedPosition, SourcePosition};
pub use time::Timestamp;
