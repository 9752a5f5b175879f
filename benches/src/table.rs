//! A Delta table of narrow rows of many people.

use std::path::Path;
use std::sync::Arc;

use delta_kernel::arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};
use tempfile::TempDir;

use crate::rows::now_us;

/// A table in a folder that goes away with it.
pub struct Table {
    table: tailwater_tests::table::Table,
    _folder: TempDir,
}

const COLUMNS: [(&str, &str); 5] = [
    ("customer_id", "string"),
    ("email", "string"),
    ("ltv_predicted", "double"),
    ("rfm_segment", "string"),
    ("due_us", "long"),
];

// === impl Table ===

impl Table {
    /// An empty table with the change feed on.
    pub fn new() -> Self {
        let folder = TempDir::new().unwrap_or_else(|error| panic!("no folder for a table: {error}"));
        Self { table: tailwater_tests::table::Table::create(folder.path(), &COLUMNS), _folder: folder }
    }

    pub fn path(&self) -> &Path {
        self.table.path()
    }

    /// Commits rows of these people in files of at most `file_rows`. Answers when they appeared, in microseconds since 1970.
    pub fn commit(&mut self, people: std::ops::Range<usize>, due_us: i64, file_rows: usize) -> i64 {
        let end = people.end;
        let starts = people.step_by(file_rows.max(1));
        self.table.commit(starts.map(|start| columns(start..(start + file_rows).min(end), |_| due_us)));
        now_us()
    }

    /// Writes the table anew: the rows of these people, one in `every` of them with another time.
    pub fn rewrite(&mut self, people: std::ops::Range<usize>, every: usize, due_us: i64, file_rows: usize) {
        let end = people.end;
        let starts = people.step_by(file_rows.max(1));
        let due = |person: usize| if person.is_multiple_of(every) { due_us } else { 0 };
        self.table.replace(starts.map(|start| columns(start..(start + file_rows).min(end), due)));
    }
}

fn columns(people: std::ops::Range<usize>, due_us: impl Fn(usize) -> i64) -> Vec<ArrayRef> {
    let texts = |text: &dyn Fn(usize) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(people.clone().map(text)))
    };
    vec![
        texts(&|person| format!("C{person:07}")),
        texts(&|person| format!("customer{person}@example.com")),
        Arc::new(Float64Array::from_iter_values(people.clone().map(|person| 100.5 + (person % 900) as f64))),
        texts(&|person| ["champions", "at_risk", "loyal"][person % 3].to_owned()),
        Arc::new(Int64Array::from_iter_values(people.map(due_us))),
    ]
}

impl Default for Table {
    fn default() -> Self {
        Self::new()
    }
}
