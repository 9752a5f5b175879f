//! How far a table has been read. Stored as JSON by whoever takes the rows, in the same transaction as the rows.
//!
//! The format is frozen by a test: a changed one would make a running source lose its place or send a table again.

use serde::{Deserialize, Serialize};
use tailwater_core::schema::Schema;

/// The format that this version writes, and the only one so far.
pub const FORMAT: u32 = 1;

/// The next row to be read.
///
/// Rows are counted within a version in a fixed order: the rows that the commit took away or changed, as they were, by file
/// and position; then the rows that it brought. Neither `key` nor `coalesce` changes the count (a row that is dropped or
/// merged into another leaves a gap), so a cursor stays true when the options change. A snapshot is counted by file name and
/// position, so it stays true when the table moves on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    pub format: u32,
    /// The table's id (`metaData.id`).
    pub table: String,
    /// How often the table has become another one under the same path; part of each row's position.
    pub generation: u32,
    pub version: u64,
    /// The next row's place within the version.
    pub ordinal: u64,
    /// The version is being read as a snapshot: everything it holds, not what it changed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub snapshot: bool,
    /// The schema that was announced last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Schema>,
    /// The commits that were read last, to notice if one of them grows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub read: Vec<ReadCommit>,
}

/// A commit as it was when it was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadCommit {
    pub version: u64,
    pub bytes: u64,
    /// The first half of the SHA-256 of these bytes, in hexadecimal.
    pub digest: String,
    /// The place behind its last row; none while it is being read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// It was read as the end of a snapshot.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub snapshot: bool,
    /// It was shown to be complete.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub proven: bool,
    /// The place of the next row of what was added to it since; none if nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late: Option<u64>,
}

#[cfg(test)]
mod tests {
    use tailwater_core::schema::Column;

    use super::*;

    #[test]
    fn the_format_is_frozen() {
        let cursor = Cursor {
            format: FORMAT,
            table: "41486939-8476-41f6-955a-7bc20abb9454".into(),
            generation: 1,
            version: 4,
            ordinal: 17,
            snapshot: true,
            schema: Some(Schema {
                columns: vec![Column { nullable: false, id: Some(3), ..Column::new("id", "bigint") }],
            }),
            read: vec![ReadCommit {
                version: 3,
                bytes: 812,
                digest: "9f86d081884c7d659a2feaa0c55ad015".into(),
                rows: Some(2),
                snapshot: true,
                proven: true,
                late: Some(2),
            }],
        };
        let golden = concat!(
            r#"{"format":1,"table":"41486939-8476-41f6-955a-7bc20abb9454","generation":1,"version":4,"ordinal":17,"#,
            r#""snapshot":true,"schema":{"columns":[{"name":"id","type":"bigint","nullable":false,"id":3}]},"#,
            r#""read":[{"version":3,"bytes":812,"digest":"9f86d081884c7d659a2feaa0c55ad015","rows":2,"snapshot":true,"#,
            r#""proven":true,"late":2}]}"#
        );
        assert_eq!(serde_json::to_string(&cursor).unwrap(), golden);
        assert_eq!(serde_json::from_str::<Cursor>(golden).unwrap(), cursor);
    }

    #[test]
    fn what_is_usual_is_left_out() {
        let golden = r#"{"format":1,"table":"t","generation":0,"version":4,"ordinal":0}"#;
        let cursor: Cursor = serde_json::from_str(golden).unwrap();
        assert!(!cursor.snapshot && cursor.schema.is_none());
        assert_eq!(serde_json::to_string(&cursor).unwrap(), golden);
    }
}
