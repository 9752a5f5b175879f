//! What a table holds at a version, as a plan to read it.

use std::sync::Arc;

use delta_kernel::scan::StatsOptions;
use delta_kernel::scan::state::ScanFile;
use delta_kernel::{Engine, KernelError, SnapshotRef};

use super::Reader;
use crate::cursor::ReadCommit;
use crate::error::Error;
use crate::files::{Content, DataFile, Kind, Selection};
use crate::log::{Actions, Extent};
use crate::paths::LastActions;
use crate::table::State;
use crate::version::{Part, Plan};

impl Reader {
    pub(super) fn snapshot_plan(&mut self) -> Result<Plan, Error> {
        let version = self.cursor.version;
        let state = Arc::new(self.table.state(Some(version), &self.options)?);
        self.require_columns(&state)?;
        let (mut files, checkpoint) = self.snapshot_files(&state)?;
        let mut last = LastActions::default();
        self.each_commit(checkpoint.map_or(0, |checkpoint| checkpoint + 1), version, |actions| {
            last.commit(&self.table, actions);
        })?;
        last.reconcile(&self.table, version, &mut files)?;
        // The order of the log's replay changes with each checkpoint, the names do not.
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let commit = self.table.commits(version)?.into_iter().next().filter(|commit| commit.version == version);
        let mut timestamp = commit.as_ref().map(|commit| commit.modified);
        if let Some(commit) = &commit {
            let (actions, bytes) = self.table.actions_and_bytes(commit)?;
            if state.in_commit_timestamps {
                timestamp = actions.info.in_commit_timestamp;
            }
            self.require_same(version, &bytes)?;
            let proven = actions.extent() == Extent::Whole || self.table.quiet(&self.options).is_none();
            self.cursor.watch(ReadCommit::of(version, &bytes, proven, true));
        }
        let part = |files: Vec<DataFile>| Part {
            layout: state.layout.clone(),
            schema: state.schema.clone(),
            schema_version: version,
            files: Arc::new(files),
        };
        let plan =
            Plan { version, timestamp, snapshot: true, before: part(Vec::new()), after: part(files), recorded: false };
        self.last = commit;
        self.state = Some(state);
        Ok(plan)
    }

    /// The files of a snapshot, and the version of the checkpoint that they come from in part.
    fn snapshot_files(&self, state: &State) -> Result<(Vec<DataFile>, Option<u64>), Error> {
        let list = |snapshot: SnapshotRef, engine: &Arc<dyn Engine>| {
            let checkpoint = snapshot.log_segment().checkpoint_version;
            let scan = snapshot.scan_builder().with_stats(StatsOptions::none()).build()?;
            let mut files: Vec<DataFile> = Vec::new();
            for metadata in scan.scan_metadata(engine.as_ref())? {
                files = metadata?.visit_scan_files(files, push_file)?;
            }
            Ok::<_, KernelError>((files, checkpoint))
        };
        match list(state.snapshot.clone(), &self.table.log_engine()) {
            Ok(files) => Ok(files),
            Err(error) => match self.table.of_commits(Some(state.version), &error, list)? {
                Some(files) => Ok(files),
                None => Err(self.table.error(Some(state.version), "list the files", &error)),
            },
        }
    }

    /// Reads the commits from `from` to `to`, those that the log still has.
    fn each_commit(&self, from: u64, to: u64, mut take: impl FnMut(&Actions)) -> Result<(), Error> {
        let mut next = from;
        while next <= to {
            let commits = self.table.commits(next)?;
            let Some(last) = commits.last() else { break };
            next = last.version + 1;
            for commit in commits.iter().filter(|commit| commit.version <= to) {
                self.table.go_on(&self.options)?;
                take(&self.table.actions(commit)?);
            }
        }
        Ok(())
    }
}

fn push_file(files: &mut Vec<DataFile>, file: ScanFile) {
    files.push(DataFile {
        path: file.path,
        size: u64::try_from(file.size).unwrap_or_default(),
        partition_values: file.partition_values.into_iter().map(|(name, value)| (name, Some(value))).collect(),
        selection: if file.dv_info.has_vector() { Selection::Except(file.dv_info) } else { Selection::All },
        content: Content::Rows(Kind::Insert),
    });
}
