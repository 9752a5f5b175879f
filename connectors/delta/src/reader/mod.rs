//! Reads a table step by step: finds the next version, announces its schema, gives its rows, keeps the cursor.

mod late;
mod snapshot;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tailwater_core::code;
use tailwater_core::schema::Schema;
use tracing::{info, warn};

use crate::cursor::{Cursor, FORMAT, ReadCommit};
use crate::error::{Error, short};
use crate::layout::Key;
use crate::log::{Actions, Extent};
use crate::options::{OnReplaced, Options, Start};
use crate::progress::Progress;
use crate::required::missing;
use crate::settle::{Growing, Settle, Settled};
use crate::step::{Rows, SchemaChange, Step, Waiting};
use crate::table::{Commit, State, Table};
use crate::version::{Chunk, Plan, VersionReader};

/// Versions without rows that are passed before the caller is given the cursor: OPTIMIZE and the like leave many.
const EMPTY_VERSIONS_MAX: u32 = 100;

/// A table's reader. Blocking: it belongs on a thread of its own.
///
/// After an error it can be asked again: it goes on right behind the rows that it gave last.
///
/// ```no_run
/// use tailwater_delta::{Error, Options, Reader, Step};
///
/// fn follow(stored: Option<tailwater_delta::Cursor>) -> Result<(), Error> {
///     let mut options = Options::new("s3://lake/ltv_scores");
///     options.key = Some("customer_id".to_owned());
///     options.storage_options.insert("aws_region".to_owned(), "eu-central-1".to_owned().into());
///     let mut reader = Reader::open(options, stored)?;
///     loop {
///         match reader.next()? {
///             Step::Schema(change) => { /* publish it before the rows */ let _columns = &change.schema.columns; }
///             Step::Rows(rows) => { /* one transaction: the rows and */ let _next = &rows.cursor; }
///             Step::Coalesced(report) => { /* tell people */ let _dropped = report.unchanged; }
///             Step::Waiting(waiting) => { /* report it, ask again after a while */ let _why = waiting.why; return Ok(()); }
///             Step::CaughtUp { cursor, .. } => { /* store it, ask again after a while */ let _next = cursor; return Ok(()); }
///         }
///     }
/// }
/// ```
pub struct Reader {
    table: Arc<Table>,
    options: Options,
    cursor: Cursor,
    /// The table as of the version before the cursor's, if it is known.
    state: Option<Arc<State>>,
    /// Commits that were listed and not read yet.
    listed: VecDeque<Commit>,
    /// The commit that was read last, as it lay in the log: one that changed means another table.
    last: Option<Commit>,
    /// The commit that is waited for.
    settle: Settle,
    /// A commit that has grown since it was read.
    grown: Option<Commit>,
    work: Option<VersionReader>,
    /// The commit that `work` reads the rest of, as it is now; none while it reads the cursor's version.
    late: Option<ReadCommit>,
    pending: VecDeque<Step>,
    empty_versions: u32,
}

/// What became of the cursor's version.
enum Next {
    Begun,
    /// There is none yet; this is the latest one.
    CaughtUp(u64),
    /// Its commit may still grow.
    Waiting(Commit, Growing),
}

// === impl Reader ===

impl Reader {
    /// Opens a table: at the cursor, or where [`Options::start`] says.
    ///
    /// # Errors
    /// No table; no change feed; a cursor of another format or another table; a version or a file that is gone; a feature or a
    /// type that cannot be read; a key column that does not exist.
    pub fn open(options: Options, cursor: Option<Cursor>) -> Result<Self, Error> {
        let table = Arc::new(Table::open(&options)?);
        let progress = options.progress.clone();
        contained(&table.clone(), None, &progress, || Self::open_table(table, options, cursor))
    }

    fn open_table(table: Arc<Table>, options: Options, cursor: Option<Cursor>) -> Result<Self, Error> {
        let latest = Arc::new(match &cursor {
            // What the cursor has passed was complete.
            Some(_) => table.latest_state(&options)?,
            None => latest_complete(&table, &options)?,
        });
        let mut reader = Self {
            cursor: Cursor {
                format: FORMAT,
                table: latest.id.clone(),
                generation: 0,
                version: latest.version,
                ordinal: 0,
                snapshot: true,
                schema: None,
                read: Vec::new(),
            },
            table,
            options,
            state: None,
            listed: VecDeque::new(),
            last: None,
            settle: Settle::default(),
            grown: None,
            work: None,
            late: None,
            pending: VecDeque::new(),
            empty_versions: 0,
        };
        match cursor {
            Some(cursor) => reader.resume(cursor, &latest)?,
            None => reader.start(latest)?,
        }
        // What is wrong with the first version is told now, not at the first row.
        reader.begin()?;
        Ok(reader)
    }

    /// Where the reader is: behind the rows that it gave last.
    pub fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// The next step. [`Step::CaughtUp`] when there is nothing new: ask again after a while.
    ///
    /// # Errors
    /// See [`Reader::open`]; transient ones ([`Error::is_transient`]) besides.
    #[expect(clippy::should_implement_trait, reason = "it never ends and it fails, so it is no iterator")]
    pub fn next(&mut self) -> Result<Step, Error> {
        let (table, progress) = (self.table.clone(), self.options.progress.clone());
        contained(&table, Some(self.cursor.version), &progress, || self.step())
    }

    fn step(&mut self) -> Result<Step, Error> {
        loop {
            if let Some(step) = self.pending.pop_front() {
                return Ok(step);
            }
            match self.work.take() {
                // If it fails, it is gone, and the version is opened again at the cursor.
                Some(mut work) => match work.next()? {
                    Some(chunk) => {
                        self.give(&work, chunk);
                        self.work = Some(work);
                    }
                    None => self.finish(&work),
                },
                None => match self.begin()? {
                    Next::Begun => {}
                    Next::CaughtUp(version) => {
                        return Ok(Step::CaughtUp { version, cursor: self.cursor.clone() });
                    }
                    Next::Waiting(commit, why) => {
                        return Ok(Step::Waiting(Waiting {
                            version: commit.version,
                            bytes: commit.size,
                            why: why.text(),
                            cursor: self.cursor.clone(),
                        }));
                    }
                },
            }
        }
    }

    // --- where to begin ---

    fn start(&mut self, latest: Arc<State>) -> Result<(), Error> {
        match self.options.start {
            Start::Snapshot => self.require_change_feed(&latest),
            Start::Latest => {
                self.require_change_feed(&latest)?;
                self.require_columns(&latest)?;
                self.cursor.version = latest.version + 1;
                self.cursor.snapshot = false;
                self.announce(&latest.schema, latest.version);
                self.state = Some(latest);
                Ok(())
            }
            Start::Version(version) => {
                if version > latest.version + 1 {
                    let table = self.table.name.clone();
                    return Err(Error::VersionUnknown { table, version, latest: latest.version });
                }
                self.cursor.version = version;
                self.cursor.snapshot = false;
                if version > latest.version {
                    self.state = Some(latest);
                } else {
                    // The id that the table had then comes with the version.
                    self.cursor.table.clear();
                }
                Ok(())
            }
        }
    }

    fn resume(&mut self, cursor: Cursor, latest: &Arc<State>) -> Result<(), Error> {
        if cursor.format != FORMAT {
            let table = self.table.name.clone();
            return Err(Error::CursorFormat { table, format: cursor.format, expected: FORMAT });
        }
        self.cursor = cursor;
        // The version that has to be there, if the table is still the same.
        let known = if self.cursor.snapshot { self.cursor.version } else { self.cursor.version.saturating_sub(1) };
        if latest.version < known && self.cursor.version > 0 {
            return self.replaced(latest);
        }
        if self.cursor.table == latest.id {
            if known == latest.version {
                self.state = Some(latest.clone());
            }
            return Ok(());
        }
        // Another id: a commit since then changed it, which the log shows, or the table is another one.
        match self.table.state(Some(known), &self.options) {
            Ok(state) if state.id == self.cursor.table => Ok(()),
            Ok(_) => self.replaced(latest),
            Err(error) if error.is_transient() => Err(error),
            Err(_) => self.replaced(latest),
        }
    }

    fn replaced(&mut self, latest: &Arc<State>) -> Result<(), Error> {
        match self.options.on_replaced {
            OnReplaced::Fail => Err(Error::Replaced {
                table: self.table.name.clone(),
                version: self.cursor.version,
                expected: self.cursor.table.clone(),
                found: latest.id.clone(),
                latest: latest.version,
            }),
            OnReplaced::Snapshot => {
                info!(table = %self.table.name, generation = self.cursor.generation + 1, "the table was replaced, a new generation begins");
                self.cursor.table.clone_from(&latest.id);
                self.cursor.generation += 1;
                self.cursor.version = latest.version;
                self.cursor.ordinal = 0;
                self.cursor.snapshot = true;
                self.state = None;
                self.cursor.read.clear();
                self.listed.clear();
                self.last = None;
                self.require_change_feed(latest)
            }
        }
    }

    // --- the next version ---

    /// Opens the cursor's version.
    fn begin(&mut self) -> Result<Next, Error> {
        if self.work.is_some() {
            return Ok(Next::Begun);
        }
        self.late = None;
        if self.cursor.snapshot {
            let plan = self.snapshot_plan()?;
            self.open_version(plan)?;
            return Ok(Next::Begun);
        }
        let version = self.cursor.version;
        let commit = self.commit(version)?;
        if let Some(grown) = self.grown.take() {
            let rest = self.read_rest(&grown);
            self.listed.clear();
            return rest;
        }
        let Some(commit) = commit else {
            return Ok(if self.cursor.snapshot { Next::Begun } else { Next::CaughtUp(version.saturating_sub(1)) });
        };
        // What a commit that cannot be read looks like is asked for again.
        let (actions, bytes) = self.table.actions_and_bytes(&commit).inspect_err(|_| self.listed.clear())?;
        let settled = self.settled(&commit, &bytes, &actions);
        if let Settled::Growing(why) = settled {
            // Its size is asked for again, and later commits wait with it.
            self.listed.clear();
            return Ok(Next::Waiting(commit, why));
        }
        self.require_same(version, &bytes)?;
        if actions.extent() == Extent::Short {
            warn!(
                table = %self.table.name,
                version,
                code = %code::DELTA_COMMIT_INCOMPLETE,
                "the commit counts more files than it has, and has not grown for a long time; it is read as it is"
            );
        }
        let state = self.state_at(version, &actions)?;
        self.require_change_feed(&state)?;
        self.require_columns(&state)?;
        if self.cursor.table.is_empty() {
            self.cursor.table.clone_from(&state.id);
        } else if state.id != self.cursor.table {
            // The log goes on, so nothing is lost; but rows of the two must never be taken for versions of one another.
            info!(table = %self.table.name, version, "a commit gave the table another id, a new generation begins");
            self.cursor.table.clone_from(&state.id);
            self.cursor.generation += 1;
        }
        let timestamp =
            actions.info.in_commit_timestamp.filter(|_| state.in_commit_timestamps).unwrap_or(commit.modified);
        let previous = || match &self.state {
            Some(known) if known.version < version => Ok(known.clone()),
            _ => self.table.state(Some(version.saturating_sub(1)), &self.options).map(Arc::new),
        };
        let plan = Plan::of_commit(&self.table, &state, actions, version, Some(timestamp), previous)?;
        self.open_version(plan)?;
        self.cursor.watch(ReadCommit::of(version, &bytes, settled == Settled::Proven, false));
        self.listed.pop_front();
        self.last = Some(commit);
        self.state = Some(state);
        Ok(Next::Begun)
    }

    fn open_version(&mut self, plan: Plan) -> Result<(), Error> {
        let mut work = VersionReader::open(self.table.clone(), plan, &self.options, self.cursor.ordinal)?;
        if let Some(report) = work.take_report().filter(|_| self.cursor.ordinal == 0) {
            self.pending.push_back(Step::Coalesced(report));
        }
        self.work = Some(work);
        Ok(())
    }

    /// The commit of a version; none if the table has not come to it.
    fn commit(&mut self, version: u64) -> Result<Option<Commit>, Error> {
        if self.listed.front().is_none_or(|commit| commit.version != version) {
            // The version before it is listed too: if it is not what was read, the table is another one.
            let before = version.saturating_sub(1);
            let from = self.cursor.watched_from().map_or(before, |watched| watched.min(before));
            let mut listed: VecDeque<Commit> = self.table.commits(from)?.into();
            let watched: Vec<Commit> =
                std::iter::from_fn(|| listed.pop_front_if(|commit| commit.version < version)).collect();
            self.listed = listed;
            let before = watched.last().filter(|commit| commit.version == before).cloned();
            let same = match (&before, &self.last) {
                (Some(before), Some(last)) => before == last,
                (Some(_), None) => true,
                (None, _) => false,
            };
            if !same && version > 0 {
                self.verify(version)?;
                if self.cursor.snapshot {
                    return Ok(None);
                }
                self.last = before;
            }
            self.grown = watched.into_iter().find(|commit| {
                let mut read = self.cursor.read.iter().filter(|read| read.version == commit.version);
                read.any(|read| read.bytes != commit.size)
            });
        }
        match self.listed.front() {
            Some(commit) if commit.version == version => Ok(Some(commit.clone())),
            Some(_) => Err(self.table.gone(version)),
            None => Ok(None),
        }
    }

    /// Whether the table is still the one that was read: asked when its log is not as it was left.
    fn verify(&mut self, version: u64) -> Result<(), Error> {
        let latest = Arc::new(self.table.latest_state(&self.options)?);
        if latest.version + 1 < version {
            return self.replaced(&latest);
        }
        if latest.id == self.cursor.table || self.cursor.table.is_empty() {
            return Ok(());
        }
        match self.table.state(Some(version - 1), &self.options) {
            Ok(state) if state.id == self.cursor.table => Ok(()),
            Ok(_) => self.replaced(&latest),
            Err(error) => Err(error),
        }
    }

    /// The table as of a version whose actions are at hand.
    fn state_at(&self, version: u64, actions: &Actions) -> Result<Arc<State>, Error> {
        match &self.state {
            Some(state) if actions.metadata.is_none() && !actions.protocol && state.version < version => {
                Ok(state.clone())
            }
            Some(state) if state.version == version => Ok(state.clone()),
            _ => self.table.state(Some(version), &self.options).map(Arc::new),
        }
    }

    fn require_change_feed(&self, state: &State) -> Result<(), Error> {
        if state.change_feed {
            return Ok(());
        }
        Err(self.table.change_feed_disabled(state.version)?)
    }

    /// Refuses a version that lacks a column that the configuration names, before any row of it is given.
    fn require_columns(&self, state: &State) -> Result<(), Error> {
        let columns = || state.layout.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ");
        let latest = || self.table.latest_state(&self.options).ok().map(|latest| latest.schema.as_ref().clone());
        let missing = missing(&state.schema, self.cursor.schema.as_ref(), &latest, &self.options);
        if !missing.is_empty() {
            return Err(Error::Columns {
                table: self.table.name.clone(),
                version: state.version,
                missing,
                columns: columns(),
            });
        }
        if state.layout.key != Key::Missing {
            return Ok(());
        }
        Err(Error::Key {
            table: self.table.name.clone(),
            version: state.version,
            column: self.options.key.clone().unwrap_or_default(),
            columns: columns(),
        })
    }

    // --- what comes out ---

    fn give(&mut self, work: &VersionReader, chunk: Chunk) {
        self.announce(&chunk.schema, chunk.schema_version);
        if self.late.is_some() {
            if let Some(watched) = self.cursor.watched(work.version()) {
                watched.late = Some(chunk.next);
            }
        } else if chunk.last {
            self.move_on(work.version(), chunk.next);
        } else {
            self.cursor.ordinal = chunk.next;
        }
        self.empty_versions = 0;
        self.pending.push_back(Step::Rows(Rows {
            version: work.version(),
            rows: chunk.rows,
            cursor: self.cursor.clone(),
            snapshot: work.is_snapshot(),
            schema: chunk.schema,
        }));
    }

    /// The version has no more rows.
    fn finish(&mut self, work: &VersionReader) {
        if let Some(mut now) = self.late.take() {
            now.rows = Some(work.place());
            if let Some(watched) = self.cursor.watched(work.version()) {
                *watched = now;
            }
            return;
        }
        self.move_on(work.version(), work.place());
        let Some(state) = self.state.clone() else { return };
        // A schema may change without a row.
        self.announce(&state.schema, state.version);
        self.empty_versions += 1;
        if self.empty_versions >= EMPTY_VERSIONS_MAX {
            self.empty_versions = 0;
            self.pending.push_back(Step::Rows(Rows {
                version: work.version(),
                rows: Vec::new(),
                cursor: self.cursor.clone(),
                snapshot: work.is_snapshot(),
                schema: state.schema.clone(),
            }));
        }
    }

    /// The version is done; `rows` is the place behind its last row.
    fn move_on(&mut self, version: u64, rows: u64) {
        if self.cursor.version == version {
            self.cursor.watched_to(version, rows);
            self.cursor.version = version + 1;
            self.cursor.ordinal = 0;
            self.cursor.snapshot = false;
        }
    }

    fn announce(&mut self, schema: &Arc<Schema>, version: u64) {
        if self.cursor.schema.as_ref() == Some(schema.as_ref()) {
            return;
        }
        let previous = self.cursor.schema.replace(schema.as_ref().clone());
        let difference = previous.as_ref().map(|previous| schema.difference(previous)).unwrap_or_default();
        self.pending.push_back(Step::Schema(SchemaChange { version, schema: schema.clone(), previous, difference }));
    }
}

/// The latest version that is complete. What is read at first begins with it, and a later one comes when it is complete too.
fn latest_complete(table: &Table, options: &Options) -> Result<State, Error> {
    let latest = table.latest_state(options)?;
    let mut version = latest.version;
    let mut followed = false;
    // A version of which only the checkpoint is left is old.
    while let Some(commit) = table.commits(version)?.into_iter().next().filter(|commit| commit.version == version) {
        let (actions, bytes) = table.actions_and_bytes(&commit)?;
        let settled = Settle::default().look(&commit, size(&bytes), &actions, table.quiet(options), followed);
        if !matches!(settled, Settled::Growing(_)) {
            break;
        }
        followed |= commit.size > 0;
        version = version.checked_sub(1).ok_or_else(|| Error::Incomplete {
            table: table.name.clone(),
            version: 0,
            bytes: commit.size,
        })?;
    }
    if version == latest.version { Ok(latest) } else { table.state(Some(version), options) }
}

fn size(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// Makes a library's panic an error: a damaged parquet file can make one (parquet 60, column offsets), and a table is other
/// people's data. Nothing half-done stays behind: what was at work is dropped, and the cursor moves only with what was given.
fn contained<T>(
    table: &Table,
    version: Option<u64>,
    progress: &Progress,
    work: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        let file = progress.file().unwrap_or_else(|| "it".to_owned());
        Err(Error::Read {
            table: table.name.clone(),
            version,
            doing: "read a file",
            detail: format!(
                "{file} is damaged, or a library has a fault: {}",
                short(text.unwrap_or("no message"), &[])
            ),
            transient: false,
        })
    })
}
