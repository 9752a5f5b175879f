//! The sandbox: runs the users' JavaScript in V8.
//!
//! Route hands a [`Batch`] of rows to a [`Transform`] and gets one [`RowResult`] per row back, in order. The rows cross the
//! border as JSON text, hundreds at a time, because building objects field by field costs more than parsing. A [`Pool`] has a
//! few threads with one isolate each; every transform has a context of its own in each of them, so that no transform sees
//! another's state.
//!
//! What this crate keeps:
//! - A row that fails fails alone: when a batch as a whole fails (an exception, a wrong length, a limit), its rows are run
//!   again one by one. A transform must therefore be a function of its rows; what it keeps in variables is not kept for it.
//! - No transform can stop the process: time and memory are limited, an isolate that hit its memory limit is replaced, and so is a
//!   thread that does not return.
//! - No row is blamed for another's doing: work that an earlier call left behind does not run in a later one.
//! - No transform can reach out: there is no I/O, no timer, no `eval`, no WebAssembly, no import, and no clock but the batch's.
//! - Nothing is lost on the way without a word: a column that is not there, an integer that would be rounded and a number
//!   that is not finite are errors or are reported, never silently something else.
//!
//! This is the only crate of the workspace with `unsafe`: what V8's callbacks need (`engine`, `host`), the loan of a batch to the
//! threads while its caller waits (`lent`), and the clock and priority of another thread (`clock`). It must never know Kafka, HTTP or a vendor.

mod answer;
mod batch;
#[allow(unsafe_code, reason = "the processor time and priority of another thread are calls into libc")]
mod clock;
mod encode;
#[allow(unsafe_code, reason = "V8's callback at the heap limit")]
mod engine;
mod error;
#[allow(unsafe_code, reason = "V8's callbacks while a batch runs")]
mod host;
mod job;
#[allow(unsafe_code, reason = "the loan of a batch to the workers' threads")]
mod lent;
mod numbers;
mod options;
mod platform;
mod pool;
mod queue;
mod realm;
mod schema;
mod types;
mod watchdog;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;

pub use batch::{
    Backdrop, Batch, BatchReport, ConsoleLevel, ConsoleLine, Headers, NonFinite, Output, Row, RowResult, Timing,
};
pub use error::{Error, LoadError, LoadErrorKind, RowError, RowErrorKind};
pub use options::Options;
pub use platform::{initialize, initialize_for_tests};
pub use pool::{Pool, Stats, Transform};
pub use schema::RowSchema;
