//! What several stages have in common: the commit of a batch, the records that wait, bodies, dead letters, the ledger.
//!
//! Nothing in here knows a stage. What only one stage needs is in that stage's folder.

pub mod age;
pub mod body;
pub mod commit;
pub mod dead_letter;
pub mod destination;
pub mod held;
pub mod ledger;
pub mod pace;
