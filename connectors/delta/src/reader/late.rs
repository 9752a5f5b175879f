//! Commits that grow: whether the next one is complete, and what is done about one that was read and has grown since.

use std::sync::Arc;

use tailwater_core::code;
use tracing::warn;

use super::{Next, Reader, size};
use crate::cursor::ReadCommit;
use crate::error::Error;
use crate::log::Actions;
use crate::settle::Settled;
use crate::table::Commit;
use crate::version::{Plan, VersionReader};
use crate::watch::Growth;

impl Reader {
    /// Whether a commit is complete. The commits behind it in the listing follow it.
    pub(super) fn settled(&mut self, commit: &Commit, bytes: &[u8], actions: &Actions) -> Settled {
        let followed = self.cursor.version > commit.version + 1
            || self.listed.back().is_some_and(|last| last.version > commit.version && last.size > 0);
        let quiet = self.table.quiet(&self.options);
        self.settle.look(commit, size(bytes), actions, quiet, followed)
    }

    /// A commit has grown since it was read: begins with what was added to it.
    pub(super) fn read_rest(&mut self, commit: &Commit) -> Result<Next, Error> {
        let version = commit.version;
        let (actions, bytes) = self.table.actions_and_bytes(commit)?;
        if let Settled::Growing(why) = self.settled(commit, &bytes, &actions) {
            return Ok(Next::Waiting(commit.clone(), why));
        }
        let Some(read) = self.cursor.watched(version).cloned() else { return Ok(Next::Begun) };
        let mut now = ReadCommit::of(version, &bytes, false, read.snapshot);
        let rest = match read.growth(&bytes) {
            Growth::Unreadable(why) => return Err(self.grown_error(&read, &bytes, why)),
            Growth::Harmless { protocol } => {
                if protocol {
                    self.state = None;
                }
                now.rows = read.rows;
                if let Some(watched) = self.cursor.watched(version) {
                    *watched = now;
                }
                return Ok(Next::Begun);
            }
            Growth::Rows(rest) => rest,
        };
        // What resolve has seen of later versions would make it take these rows for repeated ones.
        if self.cursor.version > version + 1 {
            return Err(self.grown_error(&read, &bytes, "later versions have been read since"));
        }
        let Some(first) = read.rows else {
            return Err(self.grown_error(&read, &bytes, "it was still being read"));
        };
        let state = self.table.state(Some(version), &self.options)?;
        if self.cursor.schema.as_ref() != Some(state.schema.as_ref()) {
            return Err(self.grown_error(&read, &bytes, "the schema has changed since"));
        }
        warn!(
            table = %self.table.name,
            version,
            code = %code::DELTA_COMMIT_INCOMPLETE,
            "the commit had {} bytes when it was read and has {} now; what was added to it is read now",
            read.bytes,
            now.bytes
        );
        let in_commit = actions.info.in_commit_timestamp.filter(|_| state.in_commit_timestamps);
        let timestamp = in_commit.unwrap_or(commit.modified);
        let mut plan = Plan::of_commit(&self.table, &state, *rest, version, Some(timestamp), || {
            self.table.state(Some(version.saturating_sub(1)), &self.options).map(Arc::new)
        })?;
        plan.snapshot = read.snapshot;
        let from = read.late.unwrap_or(first);
        self.work = Some(VersionReader::open_at(self.table.clone(), plan, &self.options, first, from)?);
        self.late = Some(now);
        Ok(Next::Begun)
    }

    /// Refuses to go on in the middle of a version whose commit is no longer what it was when the version was begun.
    pub(super) fn require_same(&self, version: u64, bytes: &[u8]) -> Result<(), Error> {
        let begun = self.cursor.ordinal > 0;
        let Some(read) = self.cursor.read.iter().find(|read| begun && read.version == version) else { return Ok(()) };
        match read.growth(bytes) {
            Growth::Harmless { .. } => Ok(()),
            // Files are given in the order of the commit, and those of a snapshot by name.
            Growth::Rows(_) if !read.snapshot => Ok(()),
            Growth::Rows(_) => Err(self.grown_error(read, bytes, "it was still being read")),
            Growth::Unreadable(why) => Err(self.grown_error(read, bytes, why)),
        }
    }

    fn grown_error(&self, read: &ReadCommit, bytes: &[u8], why: &'static str) -> Error {
        Error::Grown {
            table: self.table.name.clone(),
            version: read.version,
            read: read.bytes,
            bytes: size(bytes),
            why,
        }
    }
}
