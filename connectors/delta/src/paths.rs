//! One file, however its path is spelled. Paths in the log are URLs: `a%20b` and `a b` are one file, as are a relative path and the
//! absolute one. Spark compares files by where they lie; the kernel compares the texts, so that a remove in another spelling leaves its
//! file, and with it deleted rows, in the snapshot.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use delta_kernel::KernelError;
use delta_kernel::object_store::path::Path;
use delta_kernel::scan::state::DvInfo;
use tracing::info;
use url::Url;

use crate::error::Error;
use crate::files::{DataFile, Selection};
use crate::log::Actions;
use crate::pairs::{Digest, digest};
use crate::table::Table;

/// Where a file lies in its store; as the kernel's engine finds it.
pub(crate) fn store_path(location: &Url) -> Result<Path, KernelError> {
    if location.scheme() == "file" {
        let path = location.to_file_path().map_err(|()| KernelError::InvalidTableLocation(location.to_string()))?;
        return Ok(Path::from_absolute_path(path)?);
    }
    Ok(Path::from_url_path(location.path())?)
}

impl Table {
    /// The same text for all spellings of a path.
    pub fn canonical(&self, path: &str) -> String {
        let Ok(url) = self.root.join(path) else { return path.to_owned() };
        let same_store = url.scheme() == self.root.scheme() && url.host_str() == self.root.host_str();
        match store_path(&url) {
            Ok(found) if same_store => found.to_string(),
            // A file in another store; reading it says so.
            Ok(_) | Err(_) => url.to_string(),
        }
    }
}

/// What the commits since the checkpoint did last with each file. Digests alone are kept, about 50 bytes a file.
#[derive(Default)]
pub(crate) struct LastActions {
    files: HashMap<Digest, Last>,
}

#[derive(Clone, Copy)]
struct Last {
    /// The spelling and the deletion vector.
    as_written: Digest,
    removed: bool,
}

// === impl LastActions ===

impl LastActions {
    /// Takes in the next commit.
    pub fn commit(&mut self, table: &Table, actions: &Actions) {
        // A commit that gives a file another deletion vector removes it and adds it.
        for remove in &actions.removes {
            let last = Last { as_written: 0, removed: true };
            self.files.insert(digest(table.canonical(&remove.path).as_bytes()), last);
        }
        for add in &actions.adds {
            let vector = add.deletion_vector.clone().map(DvInfo::from);
            let last = Last { as_written: as_written(&add.path, vector.as_ref()), removed: false };
            self.files.insert(digest(table.canonical(&add.path).as_bytes()), last);
        }
    }

    /// Takes out of the kernel's files those that a later action removed, or added again, under another spelling.
    ///
    /// # Errors
    /// A checkpoint has one file under two spellings: which of them is the last one cannot be known.
    pub fn reconcile(&self, table: &Table, version: u64, files: &mut Vec<DataFile>) -> Result<(), Error> {
        let before = files.len();
        let mut kept: HashMap<Digest, String> = HashMap::with_capacity(files.len());
        let mut twice = None;
        files.retain(|file| {
            let vector = match &file.selection {
                Selection::Except(vector) => Some(vector),
                Selection::All | Selection::Between(..) => None,
            };
            let key = digest(table.canonical(&file.path).as_bytes());
            let stays = self
                .files
                .get(&key)
                .is_none_or(|last| !last.removed && last.as_written == as_written(&file.path, vector));
            if stays {
                match kept.entry(key) {
                    Entry::Vacant(entry) => {
                        entry.insert(file.path.clone());
                    }
                    Entry::Occupied(entry) => twice = Some((entry.get().clone(), file.path.clone())),
                }
            }
            stays
        });
        if let Some((one, other)) = twice {
            return Err(Error::Unsupported {
                table: table.name.clone(),
                version,
                feature: format!(
                    "its checkpoint has one data file twice, as {one} and as {other}, and which of them counts cannot be known; write \
                     the table's rows anew (INSERT OVERWRITE)"
                ),
            });
        }
        if files.len() < before {
            let files = before - files.len();
            info!(table = %table.name, version, files, "files were removed under another spelling of their path");
        }
        Ok(())
    }
}

fn as_written(path: &str, vector: Option<&DvInfo>) -> Digest {
    let vector = vector.filter(|vector| vector.has_vector()).map_or_else(String::new, |vector| format!("{vector:?}"));
    digest(format!("{path}\n{vector}").as_bytes())
}
