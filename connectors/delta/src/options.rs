//! What a reader is told: where the table is, where to start, what belongs together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tailwater_core::schema::SchemaRecord;

use crate::progress::Progress;

/// Rows in one [`crate::Rows`] unless asked otherwise: a batch of one kilobyte rows stays within a few megabytes.
pub const ROWS_MAX: usize = 2_000;

/// Bytes of JSON in one [`crate::Rows`], whatever the number of rows; a single row may exceed it.
pub const ROWS_BYTES_MAX: usize = 8 * 1024 * 1024;

/// How long a commit in a folder has to stay as it is until it is taken for complete, where neither the commit itself nor a later version
/// shows that it is. Object stores show a commit when it is whole.
pub const SETTLE: Duration = Duration::from_secs(60);

/// Where a reader without a cursor begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// What the table holds now as inserts, then the changes after it.
    #[default]
    Snapshot,
    /// Only the changes after now.
    Latest,
    /// The changes of this version and all after it; without what the table held before.
    Version(u64),
}

/// What to do when the table behind the path is no longer the one that the cursor belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnReplaced {
    /// End with [`crate::Error::Replaced`]: a person decides.
    #[default]
    Fail,
    /// Begin a new generation with the new table's snapshot.
    Snapshot,
}

/// What to read and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// A folder, or a URL that `object_store` knows: `s3://`, `abfss://`, `gs://`, `file://`, `http(s)://`.
    pub table: String,
    /// Options of the object store by their names in `object_store` (`aws_region`, `azure_storage_sas_key`, …). Values that
    /// turn up in an error are masked.
    pub storage_options: BTreeMap<String, SecretString>,
    /// The column that identifies a row, or the dotted path of a field in a struct. Without it the images of an update
    /// cannot be paired: the row after the update is given alone.
    pub key: Option<String>,
    pub start: Start,
    /// Whether a delete and an insert of one key in one version are one change, or none when nothing differs.
    pub coalesce: bool,
    /// Whether a column that a rewrite added makes each of its rows a changed one.
    pub added_columns_differ: bool,
    /// Column names of today and what they were called before; for the comparison of a rewrite, and to find the key and the
    /// required columns.
    pub aliases: BTreeMap<String, Vec<String>>,
    /// Whether an update carries the row before it.
    pub before_image: bool,
    /// Rows in one step, at most.
    pub rows_max: usize,
    pub on_replaced: OnReplaced,
    /// Columns that whoever takes the rows cannot do without. A version whose schema lacks one is not begun.
    pub required: Vec<Required>,
    /// The schemas before the cursor's, newest first: to say what took the place of a column.
    pub history: Vec<SchemaRecord>,
    /// See [`SETTLE`].
    pub settle: Duration,
    /// Counts what the reader does within a step, and stops it.
    pub progress: Arc<Progress>,
}

/// A column that the configuration names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Required {
    /// The key that names it: `identifiers`, `event_time`.
    pub key: &'static str,
    /// A column, or the dotted path of a field in a struct.
    pub column: String,
}

// === impl Options ===

impl Options {
    /// The defaults for a table: snapshot first, coalescing on, an added column is a difference, no key, no before images.
    pub fn new(table: impl Into<String>) -> Self {
        Self {
            table: table.into(),
            storage_options: BTreeMap::new(),
            key: None,
            start: Start::Snapshot,
            coalesce: true,
            added_columns_differ: true,
            aliases: BTreeMap::new(),
            before_image: false,
            rows_max: ROWS_MAX,
            on_replaced: OnReplaced::Fail,
            required: Vec::new(),
            history: Vec::new(),
            settle: SETTLE,
            progress: Arc::default(),
        }
    }

    /// The older names of a column.
    pub(crate) fn aliases_of(&self, column: &str) -> &[String] {
        self.aliases.get(column).map_or(&[], Vec::as_slice)
    }
}
