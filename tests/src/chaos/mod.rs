//! The chaos run: the real program in several processes on a real Kafka, everything going wrong, and checkers that look at what
//! the vendor saw.
//!
//! ```text
//! workload ─▶ feed ─▶ Kafka ─▶ fleet (resolve, route, send) ─▶ proxy ─▶ receiver
//!                                  ▲ failpoints                  ▲         │
//!                                  └────────── nemesis ──────────┘         ▼
//!                                                           check: lost, duplicated, reordered, unseen
//! ```
//!
//! Everything that is drawn is drawn from one seed. Threads and processes are not under its control, so the same seed gives the
//! same rows and the same faults, not the same interleaving.

pub mod check;
pub mod failpoints;
pub mod feed;
pub mod fleet;
pub mod history;
pub mod nemesis;
pub mod proxy;
pub mod receiver;
pub mod run;
pub mod workload;
