//! Delta tables that tests write themselves: data files by arrow, the log by hand. A commit appears whole or not at all, as Spark's do.

use std::fs;
use std::path::{Path, PathBuf};

use delta_kernel::arrow::array::{ArrayRef, RecordBatch};
use delta_kernel::parquet::arrow::ArrowWriter;
use serde_json::{Value, json};

/// A table without checkpoints, to which rows are appended, or which is written anew.
#[derive(Debug)]
pub struct Table {
    path: PathBuf,
    columns: Vec<String>,
    version: u64,
    /// The data files of the newest version.
    files: Vec<String>,
}

// === impl Table ===

impl Table {
    /// An empty table with the change feed on, of columns with their names and Delta's names of their types.
    ///
    /// # Panics
    /// The folder cannot be written.
    pub fn create(path: &Path, columns: &[(&str, &str)]) -> Self {
        fs::create_dir_all(path.join("_delta_log")).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let fields: Vec<Value> = columns
            .iter()
            .map(|(name, kind)| json!({"name": name, "type": kind, "nullable": true, "metadata": {}}))
            .collect();
        let columns = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
        let mut table = Self { path: path.to_path_buf(), columns, version: 0, files: Vec::new() };
        table.append(&[
            json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 4}}),
            json!({"metaData": {
                "id": "made-by-a-test",
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
        &self.path
    }

    /// Commits rows, one data file for each set of columns.
    ///
    /// # Panics
    /// The columns are not those of the table, or the folder cannot be written.
    pub fn commit(&mut self, files: impl IntoIterator<Item = Vec<ArrayRef>>) {
        self.change(files, Vec::new());
    }

    /// Writes the whole table anew in one commit, as an overwrite or a merge without a change feed does.
    ///
    /// # Panics
    /// As [`Self::commit`].
    pub fn replace(&mut self, files: impl IntoIterator<Item = Vec<ArrayRef>>) {
        let old = std::mem::take(&mut self.files);
        let removes =
            old.into_iter().map(|name| json!({"remove": {"path": name, "deletionTimestamp": 0, "dataChange": true}}));
        self.change(files, removes.collect());
    }

    fn change(&mut self, files: impl IntoIterator<Item = Vec<ArrayRef>>, mut actions: Vec<Value>) {
        let adds: Vec<Value> = files
            .into_iter()
            .enumerate()
            .map(|(index, columns)| {
                let name = format!("part-{}-{index}.parquet", self.version);
                let size = self.file(&name, columns);
                self.files.push(name.clone());
                json!({"add": {"path": name, "partitionValues": {}, "size": size, "modificationTime": 0, "dataChange": true}})
            })
            .collect();
        actions.extend(adds);
        self.append(&actions);
    }

    fn append(&mut self, actions: &[Value]) {
        let log = self.path.join("_delta_log");
        let staged = log.join(".staged");
        let lines: Vec<String> = actions.iter().map(Value::to_string).collect();
        let name = format!("{:020}.json", self.version);
        fs::write(&staged, lines.join("\n") + "\n")
            .and_then(|()| crate::lake::age(&staged))
            .and_then(|()| fs::rename(&staged, log.join(&name)))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        self.version += 1;
    }

    fn file(&self, name: &str, columns: Vec<ArrayRef>) -> u64 {
        assert_eq!(columns.len(), self.columns.len(), "columns of a file and of its table");
        let batch = RecordBatch::try_from_iter_with_nullable(
            self.columns.iter().zip(columns).map(|(name, column)| (name, column, true)),
        )
        .unwrap_or_else(|error| panic!("{name}: {error}"));
        let path = self.path.join(name);
        let file = fs::File::create(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        let written = ArrowWriter::try_new(file, batch.schema(), None).and_then(|mut writer| {
            writer.write(&batch)?;
            writer.close()
        });
        written.unwrap_or_else(|error| panic!("{name}: {error}"));
        fs::metadata(&path).map_or(0, |metadata| metadata.len())
    }
}
