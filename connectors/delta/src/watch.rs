//! Whether a commit that was read has grown since. A commit that was cut at the end of a line looks like a whole one; if its rest comes
//! after it was read, that must never pass unnoticed.
//!
//! The cursor holds what was read of the last commits, so a restart changes nothing. What was added is read where that gives the rows
//! that the whole commit would have given: the rest only brings rows, nothing that was read depends on them, and no later version was read.
//! Everything else is an error that stays until a person acts.

use sha2::{Digest as _, Sha256};
use tailwater_core::hex;

use crate::cursor::{Cursor, ReadCommit};
use crate::log::Actions;

/// Commits that are watched. More than a table gets in a minute.
const WATCHED_MAX: usize = 16;

/// How many versions a commit is watched for. Whoever has written so many after it is done with it.
const VERSIONS_MAX: u64 = 100;

/// What was added to a commit after it was read.
pub(crate) enum Growth {
    /// Nothing that brings rows.
    Harmless {
        /// It has a protocol action.
        protocol: bool,
    },
    /// Files whose rows are read as if they had been there.
    Rows(Box<Actions>),
    /// It cannot be read as if it had been there.
    Unreadable(&'static str),
}

// === impl ReadCommit ===

impl ReadCommit {
    pub(crate) fn of(version: u64, bytes: &[u8], proven: bool, snapshot: bool) -> Self {
        Self {
            version,
            bytes: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            digest: digest(bytes),
            rows: None,
            snapshot,
            proven,
            late: None,
        }
    }

    /// What was added since, given all of the commit as it is now.
    pub(crate) fn growth(&self, bytes: &[u8]) -> Growth {
        let length = usize::try_from(self.bytes).unwrap_or(usize::MAX);
        let Some((read, rest)) = bytes.split_at_checked(length).filter(|(read, _)| digest(read) == self.digest) else {
            return Growth::Unreadable("what was read of it is not what it begins with now");
        };
        let whole_lines = read.ends_with(b"\n") || rest.starts_with(b"\n") || rest.is_empty();
        let (true, Ok(read), Ok(rest)) = (whole_lines, Actions::parse(read), Actions::parse(rest)) else {
            return Growth::Unreadable("what was added to it does not begin with a new line");
        };
        let adds = rest.adds.iter().any(|add| add.data_change);
        let removes = |actions: &Actions| actions.removes.iter().any(|remove| remove.data_change);
        if rest.metadata.is_some() {
            return Growth::Unreadable("what was added to it changes the schema");
        }
        if !rest.cdc.is_empty() {
            return Growth::Unreadable("what was added to it says which of its rows are changes");
        }
        if !read.cdc.is_empty() && !self.snapshot || !adds && !removes(&rest) {
            // Its change files have all of its rows.
            return Growth::Harmless { protocol: rest.protocol };
        }
        if removes(&rest) {
            return Growth::Unreadable("what was added to it removes rows");
        }
        if removes(&read) && !self.snapshot {
            return Growth::Unreadable("what was added to it may be the rows that were read as deleted");
        }
        Growth::Rows(Box::new(rest))
    }
}

// === the commits of a cursor ===

impl Cursor {
    /// The first version whose commit is watched.
    pub(crate) fn watched_from(&self) -> Option<u64> {
        self.read.iter().map(|commit| commit.version).min()
    }

    /// Watches a commit that is about to be read. Of those before it, the ones that were shown to be complete need no watching.
    pub(crate) fn watch(&mut self, commit: ReadCommit) {
        let oldest = commit.version.saturating_sub(VERSIONS_MAX);
        self.read.retain(|read| !read.proven && read.version >= oldest && read.version != commit.version);
        if self.read.len() >= WATCHED_MAX {
            self.read.remove(0);
        }
        self.read.push(commit);
    }

    /// The place behind the last row of a commit.
    pub(crate) fn watched_to(&mut self, version: u64, rows: u64) {
        if let Some(commit) = self.watched(version) {
            commit.rows = Some(rows);
        }
    }

    pub(crate) fn watched(&mut self, version: u64) -> Option<&mut ReadCommit> {
        self.read.iter_mut().find(|commit| commit.version == version)
    }
}

fn digest(bytes: &[u8]) -> String {
    hex(Sha256::digest(bytes).get(..16).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADD: &str = r#"{"add":{"path":"a","partitionValues":{},"size":1,"dataChange":true}}"#;
    const REMOVE: &str = r#"{"remove":{"path":"b"}}"#;
    const CDC: &str = r#"{"cdc":{"path":"c","partitionValues":{},"size":1}}"#;
    const INFO: &str = r#"{"commitInfo":{}}"#;

    #[test]
    fn what_was_added_is_read_only_where_it_gives_what_the_whole_commit_would() {
        let text = |lines: &[&str]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
        for (read, rest, snapshot, expected) in [
            (vec![INFO], vec![ADD], false, "rows"),
            (vec![ADD], vec![ADD], false, "rows"),
            (vec![ADD], vec![ADD], true, "rows"),
            (vec![REMOVE], vec![ADD], true, "rows"),
            (vec![ADD], vec![INFO], false, "harmless"),
            (vec![ADD], vec![r#"{"domainMetadata":{}}"#, r#"{"protocol":{}}"#], false, "harmless"),
            (vec![CDC], vec![ADD, REMOVE], false, "harmless"),
            (vec![REMOVE], vec![ADD], false, "deleted"),
            (vec![ADD], vec![REMOVE], false, "removes rows"),
            (vec![ADD], vec![REMOVE], true, "removes rows"),
            (vec![INFO], vec![CDC], false, "changes"),
            (vec![ADD], vec![r#"{"metaData":{}}"#, ADD], false, "schema"),
        ] {
            let commit = ReadCommit::of(3, text(&read).as_bytes(), false, snapshot);
            let grown = text(&read) + &text(&rest);
            let found = match commit.growth(grown.as_bytes()) {
                Growth::Rows(actions) => format!("rows {}", actions.adds.len()),
                Growth::Harmless { .. } => "harmless".to_owned(),
                Growth::Unreadable(why) => why.to_owned(),
            };
            assert!(found.contains(expected), "{read:?} + {rest:?}: {found}");
        }
        let commit = ReadCommit::of(3, text(&[ADD]).as_bytes(), false, false);
        for other in [text(&[INFO, ADD]), String::new(), text(&[ADD]) + "{"] {
            assert!(matches!(commit.growth(other.as_bytes()), Growth::Unreadable(_)), "{other:?}");
        }
    }

    #[test]
    fn only_the_last_commit_and_those_without_proof_are_watched() {
        let mut cursor: Cursor =
            serde_json::from_str(r#"{"format":1,"table":"t","generation":0,"version":4,"ordinal":0}"#).unwrap();
        for version in 0..40 {
            cursor.watch(ReadCommit::of(version, b"x", version % 2 == 0, false));
        }
        assert_eq!(cursor.read.len(), WATCHED_MAX);
        assert!(cursor.read.iter().all(|commit| !commit.proven));
        cursor.watch(ReadCommit::of(200, b"x", true, false));
        assert_eq!((cursor.read.len(), cursor.watched_from()), (1, Some(200)));
    }
}
