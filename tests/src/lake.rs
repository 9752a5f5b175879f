//! Delta tables that Spark wrote: the project's own sample, and the larger shared lake where it is there.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::root;

/// The folder of an example, which is always there.
pub fn example(name: &str) -> PathBuf {
    root().join("deploy/examples").join(name)
}

/// The folder of the winback example.
pub fn winback() -> PathBuf {
    example("winback")
}

/// A table of the shared lake; says so visibly and gives `None` where the lake is absent.
pub fn shared(table: &str) -> Option<PathBuf> {
    let lake = root().join("../shared/data/lake");
    let found = lake.join(table);
    if found.is_dir() {
        return Some(found);
    }
    eprintln!("SKIPPED: the shared lake with the table {table} is not at {}", lake.display());
    None
}

/// A copy of a table whose later commits are played one by one.
#[derive(Debug)]
pub struct Table {
    from: PathBuf,
    path: PathBuf,
}

impl Table {
    /// Copies a table as it was at `version`; the data files of later versions are there already, as with a commit that is about to
    /// be made.
    pub fn copy(from: &Path, to: &Path, version: u64) -> Self {
        copy_files(from, to, &|path| !is_later(path, version));
        Self { from: from.to_path_buf(), path: to.to_path_buf() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Plays one commit: its log entry appears whole or not at all.
    pub fn commit(&self, version: u64) {
        let name = format!("{version:020}.json");
        let staged = self.path.join("_delta_log").join(format!(".{name}.tmp"));
        copy(&self.from.join("_delta_log").join(&name), &staged);
        fs::rename(&staged, self.path.join("_delta_log").join(&name))
            .unwrap_or_else(|error| panic!("commit {version} of {}: {error}", self.path.display()));
    }
}

/// Copies a folder with everything in it.
pub fn copy_folder(from: &Path, to: &Path) {
    copy_files(from, to, &|_| true);
}

/// Rows of an `.ndjson` file.
pub fn rows(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{} cannot be read: {error}", path.display()));
    // Values hold U+2028 and the like: only a line feed ends a line.
    text.split('\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{}: {error}: {line}", path.display())))
        .collect()
}

fn copy_files(from: &Path, to: &Path, wanted: &dyn Fn(&Path) -> bool) {
    fs::create_dir_all(to).unwrap_or_else(|error| panic!("{} cannot be made: {error}", to.display()));
    let entries = fs::read_dir(from).unwrap_or_else(|error| panic!("{} cannot be read: {error}", from.display()));
    for entry in entries {
        let entry = entry.unwrap_or_else(|error| panic!("{}: {error}", from.display()));
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_files(&entry.path(), &target, wanted);
        } else if wanted(&entry.path()) {
            copy(&entry.path(), &target);
        }
    }
}

/// Makes a file one that was written a while ago. A commit that says nothing of how long it should be is read when it has not grown for a
/// while.
pub fn age(file: &Path) -> std::io::Result<()> {
    fs::File::open(file)?.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(600))
}

fn copy(from: &Path, to: &Path) {
    fs::copy(from, to)
        .and_then(|_| age(to))
        .unwrap_or_else(|error| panic!("{} cannot be copied to {}: {error}", from.display(), to.display()));
}

/// Whether a file of the log belongs to a later version. `_last_checkpoint` is a hint that may be absent, and might point beyond.
fn is_later(path: &Path, version: u64) -> bool {
    let in_log = path.parent().and_then(Path::file_name).is_some_and(|folder| folder == "_delta_log");
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if !in_log {
        return false;
    }
    name == "_last_checkpoint"
        || name.get(..20).and_then(|digits| digits.parse::<u64>().ok()).is_some_and(|of| of > version)
}
