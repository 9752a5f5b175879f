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
//! With `--embedded` the fleet is one process that brings its own broker (`run --embedded`).
//!
//! Everything that is drawn is drawn from one seed. Threads and processes are not under its control, so the same seed gives the
//! same rows and the same faults, not the same interleaving.

pub mod brokers;
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

/// One of `count` places, for a draw between 0 and 1.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a product of two numbers that are not negative, and the counts here are far below what a float holds exactly"
)]
pub fn place(draw: f64, count: usize) -> usize {
    ((draw * count as f64) as usize).min(count.saturating_sub(1))
}
