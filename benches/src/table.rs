//! A Delta table of narrow rows, written with arrow: data files of a given size and a log by hand.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use delta_kernel::arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use delta_kernel::parquet::arrow::ArrowWriter;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::rows::now_us;

/// A table in a folder that goes away with it.
pub struct Table {
    folder: TempDir,
    version: u64,
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
        let mut table = Self { folder, version: 0 };
        fs::create_dir(table.path().join("_delta_log")).unwrap_or_else(|error| panic!("no log: {error}"));
        let fields: Vec<Value> = COLUMNS
            .iter()
            .map(|(name, kind)| json!({"name": name, "type": kind, "nullable": true, "metadata": {}}))
            .collect();
        table.append(&[
            json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 4}}),
            json!({"metaData": {
                "id": "bench",
                "format": {"provider": "parquet", "options": {}},
                "schemaString": json!({"type": "struct", "fields": fields}).to_string(),
                "partitionColumns": [],
                "configuration": {"delta.enableChangeDataFeed": "true"},
                "createdTime": 0,
            }}),
        ]);
        table
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Commits rows of these people in files of at most `file_rows`. Answers when they appeared, in microseconds since 1970.
    pub fn commit(&mut self, people: std::ops::Range<usize>, due_us: i64, file_rows: usize) -> i64 {
        let starts = people.clone().step_by(file_rows.max(1));
        let actions: Vec<Value> = starts
            .map(|start| {
                let name = format!("part-{}-{start}.parquet", self.version);
                let size = self.file(&name, start..(start + file_rows).min(people.end), due_us);
                json!({"add": {"path": name, "partitionValues": {}, "size": size, "modificationTime": 0, "dataChange": true}})
            })
            .collect();
        self.append(&actions);
        now_us()
    }

    fn append(&mut self, actions: &[Value]) {
        let log = self.path().join("_delta_log");
        let staged: PathBuf = log.join(".staged");
        let lines: Vec<String> = actions.iter().map(Value::to_string).collect();
        let name = format!("{:020}.json", self.version);
        fs::write(&staged, lines.join("\n") + "\n")
            .and_then(|()| fs::rename(&staged, log.join(&name)))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        self.version += 1;
    }

    fn file(&self, name: &str, people: std::ops::Range<usize>, due_us: i64) -> u64 {
        let texts = |text: &dyn Fn(usize) -> String| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(people.clone().map(text)))
        };
        let columns: [ArrayRef; 5] = [
            texts(&|person| format!("C{person:07}")),
            texts(&|person| format!("customer{person}@example.com")),
            Arc::new(Float64Array::from_iter_values(people.clone().map(|person| 100.5 + (person % 900) as f64))),
            texts(&|person| ["champions", "at_risk", "loyal"][person % 3].to_owned()),
            Arc::new(Int64Array::from_iter_values(people.clone().map(|_| due_us))),
        ];
        let batch = RecordBatch::try_from_iter_with_nullable(
            COLUMNS.iter().zip(columns).map(|((name, _), column)| (*name, column, true)),
        )
        .unwrap_or_else(|error| panic!("{name}: {error}"));
        let path = self.path().join(name);
        let file = fs::File::create(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        let written = ArrowWriter::try_new(file, batch.schema(), None).and_then(|mut writer| {
            writer.write(&batch)?;
            writer.close()
        });
        written.unwrap_or_else(|error| panic!("{name}: {error}"));
        fs::metadata(&path).map_or(0, |metadata| metadata.len())
    }
}

impl Default for Table {
    fn default() -> Self {
        Self::new()
    }
}
