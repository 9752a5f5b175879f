//! What a reader gives, one step after the other.

use std::fmt;
use std::sync::Arc;

use tailwater_core::position::ChangeKind;
use tailwater_core::schema::{Difference, Schema};

use crate::cursor::Cursor;

/// What comes next in the table.
#[derive(Debug, Clone)]
pub enum Step {
    /// The rows that follow have another schema than those before; always given before the first of them.
    Schema(SchemaChange),
    Rows(Rows),
    /// A rewrite was reduced to what it changed, or could not be; given before the version's rows.
    Coalesced(CoalesceReport),
    /// The next version is there and not complete. Ask again after a while; the cursor does not move on before it is.
    Waiting(Waiting),
    /// Nothing more for now. The cursor may lie behind versions without rows (OPTIMIZE): store it, or the log's clean-up may
    /// one day remove the version that an older one waits for.
    CaughtUp {
        /// The table's latest version.
        version: u64,
        cursor: Cursor,
    },
}

/// A version whose commit may still grow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub version: u64,
    /// The size of the commit in the log.
    pub bytes: u64,
    /// Why it is not taken for complete.
    pub why: &'static str,
    /// As with [`Step::CaughtUp`].
    pub cursor: Cursor,
}

/// A schema that is valid for the rows that follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaChange {
    /// The version whose schema it is.
    pub version: u64,
    pub schema: Arc<Schema>,
    /// What was announced before it; none at the very first.
    pub previous: Option<Schema>,
    /// May be empty: column ids or nullability alone changed.
    pub difference: Difference,
}

/// Rows of one version under one schema.
#[derive(Debug, Clone)]
pub struct Rows {
    pub version: u64,
    /// May be empty: many versions without rows were passed, and only the cursor moved.
    pub rows: Vec<Row>,
    /// To be stored in the same transaction as the rows.
    pub cursor: Cursor,
    /// The rows are what the table held, not what changed.
    pub snapshot: bool,
    /// The schema of `Row::data`. What a rewrite with another schema deleted comes under the old one, before the new one is
    /// announced.
    pub schema: Arc<Schema>,
}

/// One change of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The key as text; none if no key was asked for, or if it is null in this row.
    pub key: Option<Vec<u8>>,
    /// The row as a JSON object with every column of the schema, null ones too; of a delete, the row as it was.
    pub data: Vec<u8>,
    /// The row before an update, as JSON under the schema that it then had; where asked for.
    pub before: Option<Vec<u8>>,
    pub change: ChangeKind,
    /// The row's place within the version. Ascending, with gaps.
    pub ordinal: u64,
    /// When the version was committed, in milliseconds since 1970: the in-commit timestamp where the table has them, else
    /// the log file's modification time, which a copy of the table changes.
    pub timestamp: Option<i64>,
}

/// What became of a version whose deletes and inserts belong together by key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CoalesceReport {
    pub version: u64,
    /// Files whose rows the commit took away, all or some of them.
    pub files_removed: usize,
    /// Files whose rows it brought.
    pub files_added: usize,
    /// Rows that the commit took away; not counted if [`Self::off`].
    pub deleted: u64,
    /// Rows that it brought; not counted if [`Self::off`].
    pub inserted: u64,
    /// Keys of both whose row differs: updates.
    pub changed: u64,
    /// Keys of both whose row is the same: dropped.
    pub unchanged: u64,
    /// Rows that are inserts in the end.
    pub added: u64,
    /// Rows that are deletes in the end.
    pub removed: u64,
    /// The columns that were compared, by their names before and after.
    pub compared: Vec<(String, String)>,
    /// Columns of the new schema that had no counterpart.
    pub added_columns: Vec<String>,
    /// Why every row comes as it stands in the commit instead.
    pub off: Option<CoalesceOff>,
}

/// Why the deletes and inserts of a version were left apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CoalesceOff {
    /// These columns are gone and nothing took their place: whether a row changed cannot be said.
    ColumnsVanished(Vec<String>),
    /// The commit has more keys than are compared in memory.
    TooManyKeys { max: usize },
    /// The old rows have no key column of this name.
    NoKey { column: String },
}

// === impl CoalesceOff ===

impl fmt::Display for CoalesceOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ColumnsVanished(columns) => write!(
                f,
                "the rewrite dropped {} without a counterpart; name what took its place under aliases to compare the rows",
                columns.join(", ")
            ),
            Self::TooManyKeys { max } => write!(f, "the commit has more than {max} keys"),
            Self::NoKey { column } => write!(f, "the rows before the rewrite have no key column {column}"),
        }
    }
}
