//! What goes into a transform and what comes out.

use std::sync::Arc;
use std::time::Duration;

use crate::error::RowError;
use crate::schema::RowSchema;

/// Rows for one transform. It borrows what it can: [`Transform::run`](crate::Transform::run) blocks until it is done with it.
#[derive(Debug)]
pub struct Batch<'a> {
    pub rows: Vec<Row<'a>>,
    pub headers: Headers,
    /// What `Date.now()` and `new Date()` say inside, in milliseconds since 1970: the result must not depend on when a
    /// batch is run. `Math.random()` depends on the headers alone, for the same reason.
    pub now_ms: i64,
    pub non_finite: NonFinite,
    /// The schema of all rows. Without one, a column that is not there is `undefined`, as everywhere in JavaScript.
    pub schema: Option<Arc<RowSchema>>,
}

/// One row as the transform sees it.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// The event's data: a JSON object.
    pub data: &'a [u8],
    /// What is laid over the data: a column, or a dotted path into structs, and its value. A name that is a column of the schema is
    /// that column even if it has a dot in it.
    pub overlay: &'a [(&'a str, Option<&'a str>)],
    pub backdrop: &'a dyn Backdrop,
}

/// What stands behind a row. Most transforms never look at it, so its texts are made only when one does.
pub trait Backdrop: std::fmt::Debug + Sync {
    /// `row._event`: a JSON object, to which `data` (the row without the overlay) is added; empty for none.
    fn event(&self) -> Vec<u8>;

    /// `row._profile`: a JSON object; empty for none.
    fn profile(&self) -> Vec<u8>;
}

/// Nothing behind the row.
impl Backdrop for () {
    fn event(&self) -> Vec<u8> {
        Vec::new()
    }

    fn profile(&self) -> Vec<u8> {
        Vec::new()
    }
}

/// Event and profile as texts that are there already.
impl Backdrop for (&[u8], &[u8]) {
    fn event(&self) -> Vec<u8> {
        self.0.to_vec()
    }

    fn profile(&self) -> Vec<u8> {
        self.1.to_vec()
    }
}

/// The second argument of `send(payload, headers)`: `{source, destination, batch_id}`.
#[derive(Debug, Clone, Default)]
pub struct Headers {
    pub source: String,
    pub destination: String,
    pub batch: String,
}

/// What becomes of a number in an output that is not finite (and of an invalid date), which JSON cannot express.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NonFinite {
    /// The property is left out and reported; a list that holds one goes as a whole.
    #[default]
    Omit,
    /// The row fails.
    Reject,
    /// It becomes null and is reported.
    Clear,
}

/// What became of a batch.
#[derive(Debug)]
#[must_use]
pub struct BatchReport {
    /// One per row, in the rows' order.
    pub results: Vec<RowResult>,
    pub console: Vec<ConsoleLine>,
    /// Lines of the console that were dropped because there were too many.
    pub console_dropped: u64,
    /// Threads that were given up meanwhile, because a built-in function did not return.
    pub threads_lost: u64,
    /// So many threads were lost that the process should end.
    pub exhausted: bool,
    pub timing: Timing,
}

#[derive(Debug, Clone, PartialEq)]
pub enum RowResult {
    /// At least one output.
    Outputs(Vec<Output>),
    /// The transform returned null, or an empty array.
    Skipped,
    Failed(RowError),
    /// The row was not judged, and must be run again: too many rows of its batch hit a limit before its turn came, or the pool was
    /// shut down.
    NotRun,
}

/// One output of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// A JSON object, as `JSON.stringify` made it, without `_key`.
    pub json: String,
    /// The author's `_key`: takes the place of the output's ordinal in the idempotency key.
    pub key: Option<String>,
    /// Paths of the properties that were left out or cleared because their numbers are not finite: `data.attributes.ltv`.
    pub non_finite: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsoleLine {
    pub level: ConsoleLevel,
    pub text: String,
    /// Which row, where the rows were run one by one.
    pub row: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsoleLevel {
    Debug,
    Info,
    Warn,
    Error,
}

/// What a batch cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timing {
    /// Time of the threads that worked on it, added up.
    pub busy: Duration,
    /// Parts into which it was split.
    pub chunks: usize,
    /// Rows that were run one by one because their chunk failed as a whole.
    pub rows_alone: usize,
}
