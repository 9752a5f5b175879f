//! Reads the changes of a Delta table, in order, without loss, as JSON rows.
//!
//! [`Reader`] gives what a table held when it was first read (the snapshot) and then every change after it, version by
//! version. Each batch of [`Rows`] comes with the [`Cursor`] to store in the same transaction; a reader that is opened with
//! it goes on at exactly the next row, in the middle of a version or of the snapshot.
//!
//! `delta_kernel` knows the table (its schema, features, files and deletion vectors at a version); what makes changes of it is
//! here, because four things decide whether the rows are right, and the kernel's own change feed has none of them:
//! * each version is read with its own schema, and what a commit removes with the schema of the version before it;
//! * a MERGE that says that it touched no row has none, although it rewrote files;
//! * the images of an update become one change, and a whole-table rewrite the few changes it really is ([`CoalesceReport`]);
//! * values keep what they are: long integers, decimals, microseconds, NaN.
//!
//! ```text
//! reader ─ which version is next, cursor, schema announcements
//!   version ─ one commit: which files, on which side, in which order; rows out
//!     pairs, compare ─ which rows belong together, and whether they differ
//!     files ─ one data file: selected rows, partition values
//!       parquet, adapt ─ its batches as the schema has them
//!       encode, layout ─ Arrow to JSON under a schema
//!   settle, required ─ whether a version may be begun: it is complete, and has the columns that the configuration names
//!   table, log, paths ─ the kernel's engine, listing, commits, files by whichever spelling
//!     view, schema_problem ─ what is done where the kernel cannot read the log
//! ```
//!
//! Everything blocks; a reader lives on a thread of its own. It knows nothing of Kafka and keeps nothing on disk.

mod adapt;
mod compare;
mod cursor;
mod encode;
mod error;
mod files;
#[cfg(test)]
mod fuzz;
mod layout;
mod log;
mod options;
mod pairs;
mod parquet;
mod paths;
mod progress;
mod reader;
mod required;
mod schema_problem;
mod settle;
mod step;
mod table;
mod text;
mod variant;
mod version;
mod view;
mod watch;

pub use cursor::{Cursor, FORMAT as CURSOR_FORMAT, ReadCommit};
pub use error::Error;
pub use options::{OnReplaced, Options, Required, SETTLE, Start};
pub use progress::Progress;
pub use reader::Reader;
pub use required::{Missing, Why};
pub use step::{CoalesceOff, CoalesceReport, Row, Rows, SchemaChange, Step, Waiting};
