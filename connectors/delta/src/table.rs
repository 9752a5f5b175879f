//! A table's location: the kernel's engine on it, the listing of its log, its commits, and what it looks like at a version.

use std::collections::BTreeSet;
use std::num::NonZero;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use delta_kernel::object_store::DynObjectStore;
use delta_kernel::snapshot::Snapshot;
use delta_kernel::{Engine, KernelError, SnapshotRef};
use delta_kernel_default_engine::DefaultEngineBuilder;
use delta_kernel_default_engine::executor::tokio::TokioBackgroundExecutor;
use delta_kernel_default_engine::storage::store_from_url_opts;
use secrecy::{ExposeSecret as _, SecretString};
use tailwater_core::schema::Schema;
use tracing::warn;
use url::Url;

use crate::error::{Error, Meaning, meaning, short};
use crate::layout::Layout;
use crate::log::Actions;
use crate::options::Options;
use crate::schema_problem::schema_problem;
use crate::view::{LogView, checkpoint_version};

/// Files of the log (checkpoints and their parts) that the kernel fetches ahead.
const LOG_FILES_AHEAD: usize = 4;

/// Commits taken from one listing of the log; the next listing brings more.
const LISTING_MAX: usize = 1_000;

/// Bytes of one commit of the log. A commit is held in memory while its version is read.
const COMMIT_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Checkpoints that are left out one after the other, newest first, before all of them are.
const CHECKPOINTS_TRIED_MAX: usize = 5;

/// Commits looked at to name the first version with a change feed in an error.
const SEARCH_MAX: usize = 10_000;

pub(crate) struct Table {
    /// For people: an absolute path, or the URL without credentials and query.
    pub name: String,
    pub root: Url,
    pub engine: Arc<dyn Engine>,
    /// The engine on the log without the checkpoints that could not be read, once there was one.
    view: Mutex<Option<Arc<dyn Engine>>>,
    pub store: Arc<DynObjectStore>,
    /// Runs what the store does, for the kernel's engine and for the files.
    pub executor: Arc<TokioBackgroundExecutor>,
    secrets: Vec<SecretString>,
}

/// A commit's file in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Commit {
    pub version: u64,
    pub size: u64,
    /// Milliseconds since 1970.
    pub modified: i64,
}

/// What a table looks like from one version until the next commit with metadata.
pub(crate) struct State {
    pub version: u64,
    /// The table's id.
    pub id: String,
    pub snapshot: SnapshotRef,
    /// The change feed is on.
    pub change_feed: bool,
    pub in_commit_timestamps: bool,
    pub schema: Arc<Schema>,
    pub layout: Arc<Layout>,
}

// === impl Table ===

impl Table {
    pub fn open(options: &Options) -> Result<Self, Error> {
        let secrets: Vec<SecretString> = options.storage_options.values().cloned().collect();
        let location = |detail: String| Error::Location { table: public_name(&options.table), detail };
        let root = root(&options.table).map_err(&location)?;
        let name = match root.to_file_path() {
            Ok(path) => path.to_string_lossy().trim_end_matches('/').to_owned(),
            Err(()) => public_name(root.as_str()),
        };
        let opts = options.storage_options.iter().map(|(key, value)| (key.as_str(), value.expose_secret().to_owned()));
        let store = store_from_url_opts(&root, opts).map_err(|error| location(short(&error.to_string(), &secrets)))?;
        let executor = Arc::new(TokioBackgroundExecutor::new());
        let mut builder = DefaultEngineBuilder::new(store.clone()).with_task_executor(executor.clone());
        if let Some(ahead) = NonZero::new(LOG_FILES_AHEAD) {
            builder = builder.with_buffer_size(ahead);
        }
        Ok(Self { name, root, engine: Arc::new(builder.build()), view: Mutex::new(None), store, executor, secrets })
    }

    /// How long a commit has to stay as it is to be taken for complete; none where the store shows only whole files.
    pub fn quiet(&self, options: &Options) -> Option<Duration> {
        (self.root.scheme() == "file").then_some(options.settle)
    }

    /// Fails when the reader is to stop.
    pub fn go_on(&self, options: &Options) -> Result<(), Error> {
        if options.progress.is_stopped() { Err(Error::Stopped { table: self.name.clone() }) } else { Ok(()) }
    }

    /// The engine for what the kernel reads of the log.
    pub fn log_engine(&self) -> Arc<dyn Engine> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or_else(|| self.engine.clone())
    }

    /// The statement that enables the change feed.
    pub fn enabling_statement(&self) -> String {
        let name = self.name.replace('`', "``");
        format!("ALTER TABLE delta.`{name}` SET TBLPROPERTIES (delta.enableChangeDataFeed = true)")
    }

    /// The commits from `from` on, in order, [`LISTING_MAX`] at most. Versions that the log no longer has are simply not
    /// among them.
    pub fn commits(&self, from: u64) -> Result<Vec<Commit>, Error> {
        let mut commits = Vec::new();
        self.list_log(from, |name, size, modified| {
            if let Some(version) = commit_version(name) {
                commits.push(Commit { version, size, modified });
            }
            commits.len() < LISTING_MAX
        })?;
        Ok(commits)
    }

    /// Gives the names, sizes and modification times of the log's files from a version on, in order, until `take` has enough. Everything but
    /// commits, checksums and checkpoints is named with an underscore, sorts after the digits, and is not given.
    fn list_log(&self, from: u64, mut take: impl FnMut(&str, u64, i64) -> bool) -> Result<(), Error> {
        let failed = |error: KernelError| match meaning(&error, &self.secrets) {
            // A folder without a log, or no folder at all: whoever asks says what that means.
            Meaning::FileMissing(_) => None,
            _ => Some(self.error(None, "list the log", &error)),
        };
        // The name without its ending lies right before the commit, its checksum and its checkpoints.
        let start = self.log_url(&format!("{from:020}."))?;
        let listing = match self.engine.storage_handler().list_from(&start) {
            Ok(listing) => listing,
            Err(error) => return failed(error).map_or(Ok(()), Err),
        };
        for file in listing {
            let file = match file {
                Ok(file) => file,
                Err(error) => return failed(error).map_or(Ok(()), Err),
            };
            let path = file.location.path();
            let name = path.rsplit('/').next().unwrap_or_default();
            if !name.starts_with(|c: char| c.is_ascii_digit())
                || !path.ends_with(&format!("/_delta_log/{name}"))
                || !take(name, file.size, file.last_modified)
            {
                break;
            }
        }
        Ok(())
    }

    /// Reads a commit.
    pub fn actions(&self, commit: &Commit) -> Result<Actions, Error> {
        Ok(self.actions_and_bytes(commit)?.0)
    }

    /// Reads a commit; with the bytes that were read of it.
    pub fn actions_and_bytes(&self, commit: &Commit) -> Result<(Actions, Vec<u8>), Error> {
        let version = commit.version;
        let read = |detail: String| Error::Read {
            table: self.name.clone(),
            version: Some(version),
            doing: "read a commit",
            detail,
            transient: false,
        };
        if commit.size > COMMIT_BYTES_MAX {
            return Err(read(format!("it has {} bytes, {COMMIT_BYTES_MAX} at most are read", commit.size)));
        }
        let url = self.log_url(&format!("{version:020}.json"))?;
        let mut bytes = Vec::new();
        let parts = self.engine.storage_handler().read_files(vec![(url, None)]);
        for part in parts.map_err(|error| self.commit_error(version, &error))? {
            bytes.extend_from_slice(&part.map_err(|error| self.commit_error(version, &error))?);
        }
        let actions = Actions::parse(&bytes).map_err(|detail| read(short(&detail, &self.secrets)))?;
        Ok((actions, bytes))
    }

    /// The table at a version, or its latest one.
    pub fn state(&self, version: Option<u64>, options: &Options) -> Result<State, Error> {
        let snapshot = match self.snapshot(version, &self.log_engine()) {
            Ok(snapshot) => snapshot,
            Err(error) => match self.of_commits(version, &error, |snapshot, _| Ok(snapshot))? {
                Some(snapshot) => snapshot,
                None => return Err(self.no_snapshot(version, &error)),
            },
        };
        State::of(self, snapshot, options)
    }

    /// The table's latest version, complete or not. One that the kernel cannot read is left to whoever reads its commit.
    pub fn latest_state(&self, options: &Options) -> Result<State, Error> {
        let error = match self.state(None, options) {
            Err(error @ Error::Read { transient: false, .. }) => error,
            other => return other,
        };
        let before = self.latest_commit().and_then(|version| version.checked_sub(1));
        match before.map(|version| self.state(Some(version), options)) {
            Some(Ok(state)) => Ok(state),
            Some(Err(_)) | None => Err(error),
        }
    }

    fn snapshot(&self, version: Option<u64>, engine: &Arc<dyn Engine>) -> Result<SnapshotRef, KernelError> {
        let mut builder = Snapshot::builder_for(self.root.as_str());
        if let Some(version) = version {
            builder = builder.at_version(version);
        }
        builder.build(engine.as_ref())
    }

    fn no_snapshot(&self, version: Option<u64>, error: &KernelError) -> Error {
        let unsupported = |feature| Error::Unsupported {
            table: self.name.clone(),
            version: version.or_else(|| self.latest_commit()).unwrap_or_default(),
            feature,
        };
        match meaning(error, &self.secrets) {
            Meaning::NoTable | Meaning::FileMissing(_) if version.is_none() => {
                Error::NotATable { table: self.name.clone(), detail: "it has no log".to_owned() }
            }
            Meaning::NoTable | Meaning::FileMissing(_) => self.gone(version.unwrap_or_default()),
            Meaning::Unsupported(_) | Meaning::Other(_) => match self.schema_problem(version) {
                Some(problem) => unsupported(problem),
                None => self.error(version.or_else(|| self.latest_commit()), "read the schema", error),
            },
            Meaning::VersionMissing { .. } | Meaning::Transient(_) => {
                self.error(version.or_else(|| self.latest_commit()), "read the schema", error)
            }
        }
    }

    /// What is wrong with the schema of a version, as far as commits still have it.
    fn schema_problem(&self, version: Option<u64>) -> Option<String> {
        let mut schema = None;
        let mut from = 0;
        loop {
            let commits = self.commits(from).ok()?;
            let Some(last) = commits.last() else { break };
            from = last.version + 1;
            for commit in commits.iter().filter(|commit| version.is_none_or(|version| commit.version <= version)) {
                let metadata = self.actions(commit).ok()?.metadata;
                schema = metadata.and_then(|metadata| metadata.schema_string).or(schema);
            }
        }
        schema_problem(&schema?)
    }

    // --- a log whose checkpoints cannot be read ---

    /// The table out of its commits, where a checkpoint cannot be read and every commit since the one before it is there. What is left out
    /// stays left out.
    pub fn of_commits<T>(
        &self,
        version: Option<u64>,
        problem: &KernelError,
        make: impl Fn(SnapshotRef, &Arc<dyn Engine>) -> Result<T, KernelError>,
    ) -> Result<Option<T>, Error> {
        match meaning(problem, &self.secrets) {
            Meaning::Unsupported(_) => return Ok(None),
            // A cut file in a folder is read beyond its end.
            Meaning::Transient(_) if self.root.scheme() != "file" => return Ok(None),
            Meaning::Transient(_)
            | Meaning::FileMissing(_)
            | Meaning::VersionMissing { .. }
            | Meaning::NoTable
            | Meaning::Other(_) => {}
        }
        let (mut commits, mut checkpoints) = (BTreeSet::new(), BTreeSet::new());
        self.list_log(0, |name, _, _| {
            commits.extend(commit_version(name));
            checkpoints.extend(checkpoint_version(name));
            true
        })?;
        let Some(end) = version.or_else(|| commits.last().copied()) else { return Ok(None) };
        checkpoints.retain(|&checkpoint| checkpoint <= end);
        let mut hidden = BTreeSet::new();
        // With nothing left out first: the hint at the last checkpoint alone may be wrong.
        for attempt in 0..=CHECKPOINTS_TRIED_MAX + 1 {
            if attempt > CHECKPOINTS_TRIED_MAX {
                hidden.append(&mut checkpoints);
            } else if attempt > 0 {
                let Some(newest) = checkpoints.pop_last() else { break };
                hidden.insert(newest);
            }
            let from = checkpoints.last().map_or(0, |base| base + 1);
            if !(from..=end).all(|version| commits.contains(&version)) {
                continue;
            }
            let view: Arc<dyn Engine> = Arc::new(LogView::without(self.engine.clone(), hidden.clone()));
            let Ok(made) = self.snapshot(version, &view).and_then(|snapshot| make(snapshot, &view)) else { continue };
            warn!(
                table = %self.name,
                version = end,
                without = ?hidden,
                problem = %short(&problem.to_string(), &self.secrets),
                "a checkpoint of the table's log cannot be read; its commits are read instead"
            );
            *self.view.lock().unwrap_or_else(PoisonError::into_inner) = Some(view);
            return Ok(Some(made));
        }
        Ok(None)
    }

    /// The last version that the log has, for an error that should name it.
    fn latest_commit(&self) -> Option<u64> {
        let mut latest = None;
        while let Some(commit) = self.commits(latest.map_or(0, |version| version + 1)).ok()?.last() {
            latest = Some(commit.version);
        }
        latest
    }

    /// The version is not in the log: which is the first that can be read?
    pub fn gone(&self, version: u64) -> Error {
        let earliest = self.commits(0).ok().and_then(|commits| commits.first().map(|commit| commit.version));
        Error::VersionGone {
            table: self.name.clone(),
            version,
            earliest: earliest.filter(|&earliest| earliest > version),
        }
    }

    /// The feed is off at `version`: from which version on can changes be read?
    pub fn change_feed_disabled(&self, version: u64) -> Result<Error, Error> {
        let mut first_version = None;
        let mut from = version + 1;
        let mut seen = 0;
        'search: loop {
            let commits = self.commits(from)?;
            let Some(last) = commits.last() else { break };
            from = last.version + 1;
            for commit in &commits {
                seen += 1;
                if seen > SEARCH_MAX {
                    break 'search;
                }
                if self.actions(commit)?.metadata.is_some_and(|metadata| metadata.change_feed()) {
                    first_version = Some(commit.version);
                    break 'search;
                }
            }
        }
        Ok(Error::CdfDisabled {
            table: self.name.clone(),
            version,
            statement: self.enabling_statement(),
            first_version,
        })
    }

    /// Translates a kernel error. `doing` completes "could not …".
    pub fn error(&self, version: Option<u64>, doing: &'static str, error: &KernelError) -> Error {
        let table = self.name.clone();
        match meaning(error, &self.secrets) {
            Meaning::Unsupported(feature) => {
                Error::Unsupported { table, version: version.unwrap_or_default(), feature }
            }
            Meaning::FileMissing(file) => Error::FileGone { table, version: version.unwrap_or_default(), file },
            Meaning::VersionMissing { version, earliest } => Error::VersionGone { table, version, earliest },
            Meaning::NoTable => Error::NotATable { table, detail: "it has no log".to_owned() },
            Meaning::Transient(detail) => Error::Read { table, version, doing, detail, transient: true },
            Meaning::Other(detail) => Error::Read { table, version, doing, detail, transient: false },
        }
    }

    fn commit_error(&self, version: u64, error: &KernelError) -> Error {
        match meaning(error, &self.secrets) {
            Meaning::FileMissing(_) => self.gone(version),
            _ => self.error(Some(version), "read a commit", error),
        }
    }

    fn log_url(&self, name: &str) -> Result<Url, Error> {
        self.root
            .join("_delta_log/")
            .and_then(|log| log.join(name))
            .map_err(|error| Error::Location { table: self.name.clone(), detail: error.to_string() })
    }

    /// Where a file of the table lies. Paths in the log are relative URLs, or absolute ones in a shallow clone.
    pub fn file_url(&self, version: u64, path: &str) -> Result<Url, Error> {
        let url = self.root.join(path).map_err(|error| Error::Read {
            table: self.name.clone(),
            version: Some(version),
            doing: "locate a data file",
            detail: error.to_string(),
            transient: false,
        })?;
        if url.scheme() != self.root.scheme() || url.host_str() != self.root.host_str() {
            return Err(Error::Unsupported {
                table: self.name.clone(),
                version,
                feature: format!(
                    "a file lies in another store, {} (a clone whose source is elsewhere)",
                    public_name(url.as_str())
                ),
            });
        }
        Ok(url)
    }
}

// === impl State ===

impl State {
    pub fn of(table: &Table, snapshot: SnapshotRef, options: &Options) -> Result<Self, Error> {
        let version = snapshot.version();
        let configuration = snapshot.table_configuration();
        if configuration.is_catalog_managed() {
            return Err(Error::Unsupported {
                table: table.name.clone(),
                version,
                feature:
                    "it is catalog-managed (table feature catalogManaged), so its commits are the catalog's to give"
                        .to_owned(),
            });
        }
        let layout = Layout::of(table, &snapshot, options)?;
        let set = |name: &str| {
            configuration.metadata().configuration().get(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
        };
        Ok(Self {
            version,
            id: configuration.metadata().id().to_owned(),
            change_feed: set("delta.enableChangeDataFeed"),
            in_commit_timestamps: set("delta.enableInCommitTimestamps"),
            schema: Arc::new(layout.schema()),
            layout: Arc::new(layout),
            snapshot,
        })
    }
}

// === names ===

/// The version of a commit's file name: twenty digits and `.json`.
fn commit_version(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".json")?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// The table's folder as a URL that ends in a slash.
fn root(table: &str) -> Result<Url, String> {
    // A single letter before the colon is a drive of Windows.
    let is_url = table.split_once(':').is_some_and(|(scheme, rest)| {
        scheme.len() > 1
            && rest.starts_with('/')
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'+')
    });
    if is_url {
        let mut url = Url::parse(table).map_err(|error| error.to_string())?;
        if !url.path().ends_with('/') {
            let path = format!("{}/", url.path());
            url.set_path(&path);
        }
        return Ok(url);
    }
    let path = std::path::absolute(table).map_err(|error| error.to_string())?;
    Url::from_directory_path(&path).map_err(|()| "it is no path of a folder".to_owned())
}

/// A location without user, password and query.
fn public_name(location: &str) -> String {
    match Url::parse(location) {
        Ok(url) if !url.cannot_be_a_base() => {
            let mut name = format!("{}://", url.scheme());
            if let Some(host) = url.host_str() {
                // `abfss://container@account` names a container where others name a user.
                if url.password().is_none() && !url.username().is_empty() && !url.scheme().starts_with("http") {
                    name.push_str(url.username());
                    name.push('@');
                }
                name.push_str(host);
            }
            name.push_str(url.path().trim_end_matches('/'));
            name
        }
        _ => location.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_commits_are_commits() {
        assert_eq!(commit_version("00000000000000000012.json"), Some(12));
        assert_eq!(commit_version("00000000000000000012.checkpoint.parquet"), None);
        assert_eq!(commit_version("00000000000000000012.crc"), None);
        assert_eq!(commit_version("00000000000000000012.3f.json"), None);
        assert_eq!(commit_version("00000000000000000009.00000000000000000012.compacted.json"), None);
    }

    #[test]
    fn a_location_is_shown_without_credentials() {
        assert_eq!(public_name("https://user:pass@host/a/b/?sig=xyz"), "https://host/a/b");
        assert_eq!(
            public_name("abfss://box@account.dfs.core.windows.net/t"),
            "abfss://box@account.dfs.core.windows.net/t"
        );
        assert_eq!(public_name("s3://bucket/t/"), "s3://bucket/t");
    }

    #[test]
    fn a_folder_is_a_url_that_ends_in_a_slash() {
        assert_eq!(root("/a/b c").unwrap().as_str(), "file:///a/b%20c/");
        assert_eq!(root("s3://bucket/t").unwrap().as_str(), "s3://bucket/t/");
    }
}
