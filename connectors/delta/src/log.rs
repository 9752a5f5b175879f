//! One commit of the log as its writer left it: only what a reader of changes needs. The log's JSON is Delta's protocol
//! (<https://github.com/delta-io/delta/blob/master/PROTOCOL.md#actions>), so it is read as such.
//!
//! Lines end at `\n` and nowhere else: statistics may hold U+2028 unescaped.

use std::collections::{HashMap, HashSet};

use delta_kernel::actions::deletion_vector::DeletionVectorDescriptor;
use serde::Deserialize;

/// Partition values by physical column name; null where the partition is null.
pub(crate) type PartitionValues = HashMap<String, Option<String>>;

/// A data file that a commit adds.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Add {
    pub path: String,
    #[serde(default)]
    pub partition_values: PartitionValues,
    pub size: u64,
    pub data_change: bool,
    pub deletion_vector: Option<DeletionVectorDescriptor>,
    /// A JSON object with `numRecords` and more.
    pub stats: Option<String>,
}

/// A data file that a commit removes.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Remove {
    pub path: String,
    /// Left out by writers without extended file metadata.
    pub partition_values: Option<PartitionValues>,
    pub size: Option<u64>,
    #[serde(default = "yes")]
    pub data_change: bool,
    pub deletion_vector: Option<DeletionVectorDescriptor>,
}

/// A file of changes that the writer recorded; where a commit has one, its added and removed files say nothing more.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Cdc {
    pub path: String,
    #[serde(default)]
    pub partition_values: PartitionValues,
    pub size: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Metadata {
    #[serde(default)]
    pub configuration: HashMap<String, Option<String>>,
    pub schema_string: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CommitInfo {
    pub operation: Option<String>,
    #[serde(default)]
    pub operation_parameters: Option<HashMap<String, serde_json::Value>>,
    #[serde(default)]
    pub operation_metrics: Option<HashMap<String, serde_json::Value>>,
    pub in_commit_timestamp: Option<i64>,
    /// Which program wrote the commit.
    pub client_version: Option<String>,
}

/// The actions of one commit, each kind in the order of the file.
#[derive(Debug, Default)]
pub(crate) struct Actions {
    pub adds: Vec<Add>,
    pub removes: Vec<Remove>,
    pub cdc: Vec<Cdc>,
    pub metadata: Option<Metadata>,
    /// The commit has a protocol action.
    pub protocol: bool,
    pub info: CommitInfo,
    /// Lines of any kind.
    pub lines: usize,
    /// The last line is the `commitInfo`.
    pub ends_with_info: bool,
}

/// Whether a commit's file is all of it, as far as the commit itself can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// No action: nobody writes such a commit on purpose.
    Empty,
    /// It announces more files than it has.
    Short,
    /// Nothing says how many actions it should have.
    Unknown,
    Whole,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    add: Option<Add>,
    remove: Option<Remove>,
    cdc: Option<Cdc>,
    meta_data: Option<Metadata>,
    protocol: Option<serde::de::IgnoredAny>,
    commit_info: Option<CommitInfo>,
}

fn yes() -> bool {
    true
}

fn count(files: usize) -> u64 {
    u64::try_from(files).unwrap_or(u64::MAX)
}

// === impl Actions ===

impl Actions {
    /// Reads a commit.
    ///
    /// # Errors
    /// The number of the line that is no action, and what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut actions = Self::default();
        for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let line: Line = serde_json::from_slice(line).map_err(|error| format!("line {}: {error}", index + 1))?;
            actions.lines += 1;
            actions.ends_with_info = line.commit_info.is_some();
            actions.adds.extend(line.add);
            actions.removes.extend(line.remove);
            actions.cdc.extend(line.cdc);
            actions.metadata = line.meta_data.or(actions.metadata);
            actions.protocol |= line.protocol.is_some();
            actions.info = line.commit_info.unwrap_or(actions.info);
        }
        Ok(actions)
    }

    /// Whether the file is all of the commit. Spark writes `commitInfo` first and counts the commit's files in it; delta-rs writes it
    /// last. Other writers say nothing. Only actions that bring, take away or describe rows count.
    pub fn extent(&self) -> Extent {
        if self.lines == 0 {
            return Extent::Empty;
        }
        let by_delta_rs = self.info.client_version.as_deref().is_some_and(|name| name.starts_with("delta-rs"));
        if by_delta_rs && self.ends_with_info && self.lines > 1 {
            return Extent::Whole;
        }
        let operation = self.info.operation.as_deref().unwrap_or_default();
        match operation {
            // It has no row and no schema.
            "VACUUM START" | "VACUUM END" | "CLUSTER BY" => return Extent::Whole,
            "CREATE TABLE" if self.metadata.is_some() && self.protocol => return Extent::Whole,
            // No other action of these counts.
            "SET TBLPROPERTIES"
            | "UNSET TBLPROPERTIES"
            | "ADD COLUMNS"
            | "CHANGE COLUMN"
            | "CHANGE COLUMNS"
            | "RENAME COLUMN"
            | "DROP COLUMNS"
            | "ADD CONSTRAINT"
            | "DROP CONSTRAINT"
                if self.metadata.is_some() =>
            {
                return Extent::Whole;
            }
            _ => {}
        }
        if operation == "WRITE"
            && self.parameter("mode").is_some_and(|mode| mode.trim_matches('"').eq_ignore_ascii_case("append"))
        {
            return self.extent_of_append();
        }
        self.extent_by_files(operation)
    }

    fn extent_of_append(&self) -> Extent {
        let Some(announced) = self.metric(&["numFiles", "numAddedFiles", "num_added_files"]) else {
            return Extent::Unknown;
        };
        let files = count(self.adds.len());
        if announced == files {
            return Extent::Whole;
        }
        // A file without rows is counted, and is left out of the commit: then the rows tell.
        let rows = self.metric(&["numOutputRows", "num_added_rows"]);
        if rows.is_some() && rows == self.rows_added() {
            return Extent::Whole;
        }
        if announced > files { Extent::Short } else { Extent::Unknown }
    }

    fn extent_by_files(&self, operation: &str) -> Extent {
        let added =
            self.metric(&["numFiles", "numAddedFiles", "numTargetFilesAdded", "num_added_files", "numRestoredFiles"]);
        let removed = self.metric(&["numRemovedFiles", "numTargetFilesRemoved", "num_removed_files"]);
        let changes = self.metric(&["numAddedChangeFiles", "numTargetChangeFilesAdded"]).unwrap_or(0);
        let (Some(added), Some(removed)) = (added, removed) else { return Extent::Unknown };
        // A file that gets a deletion vector is removed and added again, and counts as neither.
        let vectors = self.metric(&["numDeletionVectorsAdded", "numTargetDeletionVectorsAdded"]).unwrap_or(0);
        let added = added.saturating_add(vectors);
        let (adds, removes, cdc) = (count(self.adds.len()), count(self.removes.len()), count(self.cdc.len()));
        if added > adds || removed.max(vectors) > removes || changes > cdc {
            return Extent::Short;
        }
        let all_removed = removes == removed.saturating_add(vectors)
            // An UPDATE counts the files with a new vector among the removed ones.
            || (operation == "UPDATE" && removes == removed);
        if added == adds && changes == cdc && all_removed && self.vectors_are_paired() {
            return Extent::Whole;
        }
        Extent::Unknown
    }

    /// Whether each file that is added with a deletion vector is removed without it, or with another one.
    fn vectors_are_paired(&self) -> bool {
        let removed: HashSet<&str> = self.removes.iter().map(|remove| remove.path.as_str()).collect();
        let mut with_vector = self.adds.iter().filter(|add| add.deletion_vector.is_some());
        with_vector.all(|add| removed.contains(add.path.as_str()))
    }

    /// The rows of the added files; none where the statistics of one do not say.
    fn rows_added(&self) -> Option<u64> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Stats {
            num_records: Option<u64>,
        }
        self.adds.iter().try_fold(0_u64, |sum, add| {
            let stats: Stats = serde_json::from_str(add.stats.as_deref()?).ok()?;
            sum.checked_add(stats.num_records?)
        })
    }

    fn metric(&self, names: &[&str]) -> Option<u64> {
        let metrics = self.info.operation_metrics.as_ref()?;
        match names.iter().find_map(|name| metrics.get(*name))? {
            serde_json::Value::String(text) => text.parse().ok(),
            other => other.as_u64(),
        }
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        self.info.operation_parameters.as_ref()?.get(name)?.as_str()
    }

    /// A MERGE that touched no row, whatever files it rewrote: Spark gives no changes for it (`CDCReader`,
    /// `shouldSkipFileActionsInCommit`).
    pub fn is_merge_without_effect(&self) -> bool {
        let zero = |name: &str| self.metric(&[name]) == Some(0);
        self.info.operation.as_deref() == Some("MERGE")
            && zero("numTargetRowsInserted")
            && zero("numTargetRowsUpdated")
            && zero("numTargetRowsDeleted")
    }
}

impl Metadata {
    /// Whether the change feed is on after this commit.
    pub fn change_feed(&self) -> bool {
        self.configuration
            .get("delta.enableChangeDataFeed")
            .and_then(Option::as_deref)
            .is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_separator_inside_of_statistics_ends_no_line() {
        let commit = "{\"add\":{\"path\":\"a\",\"partitionValues\":{},\"size\":1,\"dataChange\":true,\"stats\":\"\u{2028}\"}}\n\n{\"remove\":{\"path\":\"b\"}}\n";
        let actions = Actions::parse(commit.as_bytes()).unwrap();
        assert_eq!(actions.adds.len(), 1);
        assert!(actions.removes[0].data_change);
    }

    #[test]
    fn a_merge_is_without_effect_only_if_all_three_numbers_are_known_to_be_zero() {
        let merge = |metrics: &str| {
            let line = format!(r#"{{"commitInfo":{{"operation":"MERGE","operationMetrics":{{{metrics}}}}}}}"#);
            Actions::parse(line.as_bytes()).unwrap().is_merge_without_effect()
        };
        let zeros = r#""numTargetRowsInserted":"0","numTargetRowsUpdated":"0","numTargetRowsDeleted":"0""#;
        assert!(merge(zeros));
        assert!(!merge(r#""numTargetRowsInserted":"0","numTargetRowsUpdated":"0""#));
        assert!(!merge(r#""numTargetRowsInserted":"0","numTargetRowsUpdated":"0","numTargetRowsDeleted":"1""#));
        let write = zeros.replace("MERGE", "WRITE");
        let line = format!(r#"{{"commitInfo":{{"operation":"WRITE","operationMetrics":{{{write}}}}}}}"#);
        assert!(!Actions::parse(line.as_bytes()).unwrap().is_merge_without_effect());
    }

    #[test]
    fn a_line_that_is_no_action_is_named() {
        let error = Actions::parse(b"{\"commitInfo\":{}}\n{\"add\":").unwrap_err();
        assert!(error.starts_with("line 2:"), "{error}");
    }

    // Issue 10, A1: a commit of which only the beginning is written counted as complete.
    #[test]
    fn a_commit_is_whole_when_its_writer_says_so() {
        let add = r#"{"add":{"path":"a","partitionValues":{},"size":1,"dataChange":true}}"#;
        let remove = r#"{"remove":{"path":"b"}}"#;
        let info = |rest: &str| format!(r#"{{"commitInfo":{{"operation":"WRITE",{rest}}}}}"#);
        let append =
            info(r#""operationParameters":{"mode":"Append"},"operationMetrics":{"numFiles":"1","numOutputRows":"4"}"#);
        let empty =
            info(r#""operationParameters":{"mode":"Append"},"operationMetrics":{"numFiles":"1","numOutputRows":"0"}"#);
        let update =
            info(r#""operationMetrics":{"numAddedFiles":"1","numRemovedFiles":"1","numAddedChangeFiles":"0"}"#);
        let rows =
            info(r#""operationParameters":{"mode":"Append"},"operationMetrics":{"numFiles":"2","numOutputRows":"4"}"#);
        let counted =
            r#"{"add":{"path":"a","partitionValues":{},"size":1,"dataChange":true,"stats":"{\"numRecords\":4}"}}"#;
        // A DELETE that marks rows in one file.
        let vector =
            info(r#""operationMetrics":{"numAddedFiles":"0","numRemovedFiles":"0","numDeletionVectorsAdded":"1"}"#);
        let marked = r#"{"add":{"path":"a","partitionValues":{},"size":1,"dataChange":true,"deletionVector":{"storageType":"u","pathOrInlineDv":"ab^-aqEH.-t@S}K{vb[*k^","sizeInBytes":1,"cardinality":1}}}"#;
        let delta_rs = info(r#""clientVersion":"delta-rs.0.25.0""#);
        for (lines, expected) in [
            (vec![], Extent::Empty),
            (vec!["", " "], Extent::Empty),
            (vec![add], Extent::Unknown),
            (vec![&append], Extent::Short),
            (vec![&append, add], Extent::Whole),
            (vec![&empty], Extent::Whole),
            (vec![&rows], Extent::Short),
            (vec![&rows, add], Extent::Short),
            (vec![&rows, counted], Extent::Whole),
            (vec![&update], Extent::Short),
            (vec![&update, add], Extent::Short),
            (vec![&update, add, remove], Extent::Whole),
            (vec![&vector], Extent::Short),
            (vec![&vector, marked], Extent::Short),
            (vec![&vector, marked, remove], Extent::Unknown),
            (vec![&vector, marked, r#"{"remove":{"path":"a"}}"#], Extent::Whole),
            (vec![r#"{"commitInfo":{"operation":"VACUUM END"}}"#], Extent::Whole),
            (vec![r#"{"commitInfo":{"operation":"ADD COLUMNS"}}"#], Extent::Unknown),
            (vec![r#"{"commitInfo":{"operation":"ADD COLUMNS"}}"#, r#"{"metaData":{}}"#], Extent::Whole),
            (vec![r#"{"commitInfo":{"operation":"CREATE TABLE"}}"#, r#"{"metaData":{}}"#], Extent::Unknown),
            (vec![add, &delta_rs], Extent::Whole),
            (vec![&delta_rs], Extent::Unknown),
            (vec![&delta_rs, add], Extent::Unknown),
        ] {
            assert_eq!(Actions::parse(lines.join("\n").as_bytes()).unwrap().extent(), expected, "{lines:?}");
        }
    }

    // Issue 10, A1: a DELETE with deletion vectors counts no files, so its first line alone was taken for all of it.
    #[test]
    fn no_beginning_of_a_commit_of_spark_is_whole() {
        let lake = std::env::var_os("TAILWATER_LAKE").map_or_else(
            || std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/lake"),
            std::path::PathBuf::from,
        );
        // Without the lake of Spark's tables there is nothing to look at.
        let Ok(tables) = std::fs::read_dir(&lake) else { return };
        let mut unknown = Vec::new();
        for log in tables.flatten().filter_map(|table| std::fs::read_dir(table.path().join("_delta_log")).ok()) {
            for path in log.flatten().map(|entry| entry.path()) {
                // A commit; a checkpoint may end in the same way.
                if path.file_name().is_none_or(|name| name.len() != "00000000000000000000.json".len()) {
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap();
                let lines: Vec<&str> = text.lines().collect();
                for cut in 0..lines.len() {
                    let rest = Actions::parse(lines[cut..].join("\n").as_bytes()).unwrap();
                    let counts = rest.adds.len() + rest.removes.len() + rest.cdc.len();
                    if counts > 0 || rest.metadata.is_some() {
                        let begun = Actions::parse(lines[..cut].join("\n").as_bytes()).unwrap();
                        assert_ne!(begun.extent(), Extent::Whole, "{}, {cut} lines", path.display());
                    }
                }
                if Actions::parse(text.as_bytes()).unwrap().extent() != Extent::Whole {
                    unknown.push(path);
                }
            }
        }
        // A clone counts no added files.
        assert!(unknown.iter().all(|path| path.to_string_lossy().contains("shallow_clone")), "{unknown:?}");
    }
}
