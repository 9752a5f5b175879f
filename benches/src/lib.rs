//! The workshop for `make bench`: each thing that Tailwater does, measured beside the least that it could cost.
//!
//! A *limit* is a small program that does only what cannot be left out: a consumer and a producer without a router between them, a
//! loop of requests without a send stage, a table read without making rows of it. Ours and its limit take turns in the same run
//! on the same machine, and what counts is their ratio: absolute figures say as much about the machine. Where a process is
//! measured, it is the real binary on a real Kafka, seen from outside: its processor time from `/proc`, its progress from the
//! offsets that it commits, its deliveries from what the simulated vendor received.
//!
//! Nothing in here reaches into the product beyond what the bench is about, and nothing in here decides what is good enough: goals
//! stand beside figures, for people.

#![allow(clippy::panic, reason = "a benchmark that cannot be set up has nothing else to do")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "what was measured is printed")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "figures are rounded for people; counts stay far below 2^53"
)]

pub mod machine;
pub mod parts;
pub mod pipe;
pub mod process;
pub mod progress;
pub mod report;
pub mod requests;
pub mod rows;
pub mod table;
pub mod workspace;
