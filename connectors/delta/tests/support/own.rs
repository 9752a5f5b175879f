//! Small tables of the tests' own: data files written by arrow, the log by hand.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use delta_kernel::arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray};
use delta_kernel::parquet::arrow::ArrowWriter;
use serde_json::{Value, json};
use tailwater_delta::Options;

/// A table in a folder that goes away with it.
pub struct OwnTable {
    folder: tempfile::TempDir,
    pub id: &'static str,
}

/// A row: key, score, and what it is in a change file.
pub type Row<'a> = (Option<&'a str>, f64, &'a str);

impl OwnTable {
    /// A table with the columns `id` (string) and `score` (double) and the change feed on, at version 0.
    pub fn new() -> Self {
        let table = Self { folder: tempfile::tempdir().expect("a folder"), id: "first" };
        std::fs::create_dir(table.path().join("_delta_log")).expect("a log");
        table.commit(0, &[protocol(), metadata(table.id, &[("id", "string"), ("score", "double")], true)]);
        table
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().to_path_buf()
    }

    pub fn options(&self) -> Options {
        let mut options = Options::new(self.path().to_string_lossy());
        options.key = Some("id".to_owned());
        options.before_image = true;
        options
    }

    pub fn commit(&self, version: u64, actions: &[Value]) {
        let lines: Vec<String> = actions.iter().map(Value::to_string).collect();
        std::fs::write(self.commit_path(version), lines.join("\n") + "\n").expect("a commit");
        self.age(version);
    }

    /// Makes a commit one that was written a while ago: it is complete.
    pub fn age(&self, version: u64) {
        let file = std::fs::File::open(self.commit_path(version)).expect("a commit");
        file.set_modified(SystemTime::now() - Duration::from_secs(600)).expect("a time");
    }

    pub fn commit_path(&self, version: u64) -> PathBuf {
        self.path().join(format!("_delta_log/{version:020}.json"))
    }

    /// Writes a data file with the columns; returns its size.
    pub fn file(&self, name: &str, columns: Vec<(&str, ArrayRef)>) -> u64 {
        let batch =
            RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
                .expect("a batch");
        std::fs::create_dir_all(self.path().join(name).parent().expect("a folder")).expect("a folder");
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).expect("a writer");
        writer.write(&batch).expect("rows");
        writer.close().expect("a footer");
        std::fs::write(self.path().join(name), &bytes).expect("a data file");
        bytes.len() as u64
    }

    /// Writes a file of ids and scores and returns the action that adds it.
    pub fn add(&self, name: &str, rows: &[(Option<&str>, f64)]) -> Value {
        let size = self.file(
            name,
            vec![("id", ids(rows.iter().map(|row| row.0))), ("score", scores(rows.iter().map(|row| row.1)))],
        );
        add(name, size)
    }

    /// Writes a change file and returns its action.
    pub fn changes(&self, name: &str, rows: &[Row<'_>]) -> Value {
        let kinds: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.2)));
        let size = self.file(
            name,
            vec![
                ("id", ids(rows.iter().map(|row| row.0))),
                ("score", scores(rows.iter().map(|row| row.1))),
                ("_change_type", kinds),
            ],
        );
        json!({"cdc": {"path": name, "partitionValues": {}, "size": size, "dataChange": false}})
    }
}

pub fn ids<'a>(values: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}

pub fn scores(values: impl Iterator<Item = f64>) -> ArrayRef {
    Arc::new(Float64Array::from_iter_values(values))
}

pub fn add(path: &str, size: u64) -> Value {
    json!({"add": {"path": path, "partitionValues": {}, "size": size, "modificationTime": 0, "dataChange": true}})
}

pub fn remove(path: &str) -> Value {
    json!({"remove": {"path": path, "deletionTimestamp": 0, "dataChange": true, "extendedFileMetadata": true, "partitionValues": {}}})
}

pub fn protocol() -> Value {
    json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 4}})
}

pub fn metadata(id: &str, columns: &[(&str, &str)], change_feed: bool) -> Value {
    partitioned_metadata(id, columns, &[], change_feed)
}

pub fn partitioned_metadata(id: &str, columns: &[(&str, &str)], partitions: &[&str], change_feed: bool) -> Value {
    let fields: Vec<Value> = columns
        .iter()
        .map(|(name, data_type)| {
            let data_type = serde_json::from_str(data_type).unwrap_or_else(|_| json!(data_type));
            json!({"name": name, "type": data_type, "nullable": true, "metadata": {}})
        })
        .collect();
    json!({"metaData": {
        "id": id,
        "format": {"provider": "parquet", "options": {}},
        "schemaString": json!({"type": "struct", "fields": fields}).to_string(),
        "partitionColumns": partitions,
        "configuration": {"delta.enableChangeDataFeed": change_feed.to_string()},
        "createdTime": 0,
    }})
}
