//! The local disk: one embedded database for the whole process, one keyspace for each partition of a changelog.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fjall::{Database, Keyspace, KeyspaceCreateOptions};
use tailwater_core::Timestamp;

use super::Error;

/// The key under which a keyspace keeps how far it has followed its topic. State keys never begin with a zero byte.
pub(super) const APPLIED: &[u8] = b"\0applied";

/// The key of a partition's marker in its changelog. Frozen: state topics hold it.
pub(super) const MARKER: &[u8] = b"\0generation";

/// What a keyspace keeps in memory before it is written out, in bytes, from when it is made; one that exists keeps what it was made
/// with. There is a keyspace for each partition of each stage, and each may fill its own: with the database's default of 64 MB, forty of
/// them would take more memory than everything else together.
const MEMTABLE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// About what the journals may hold before the oldest writes are written out, in bytes: what a start may have to read again, and disk.
const JOURNAL_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// The process's share of the disk. Cheap to clone.
#[derive(Clone)]
pub struct Cache {
    database: Database,
    instance: Arc<str>,
    /// Held for as long as the process lives, so that two processes cannot share a folder.
    _lock: Arc<File>,
    path: PathBuf,
    /// The wall clock: how old a cache is must mean the same after a restart.
    clock: fn() -> Timestamp,
}

impl Cache {
    /// Opens the folder, or makes it; `clock` tells how old what is in there is. The folder also holds this process's instance id: it is part of the transactional ids, so that a
    /// process that is started again ends at once what its predecessor left open.
    ///
    /// # Errors
    /// Another process uses the folder, or the disk refuses.
    pub fn open(folder: &Path, clock: fn() -> Timestamp) -> Result<Self, Error> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Open {
            path: folder.display().to_string(),
            source,
        };
        std::fs::create_dir_all(folder).map_err(|error| failed(error.into()))?;
        let lock = File::create(folder.join("lock")).map_err(|error| failed(error.into()))?;
        lock.try_lock().map_err(|error| failed(error.to_string().into()))?;
        let instance_file = folder.join("instance-id");
        let instance = match std::fs::read_to_string(&instance_file) {
            Ok(text) if !text.trim().is_empty() => text.trim().to_owned(),
            Ok(_) | Err(_) => {
                let new = uuid::Uuid::new_v4().simple().to_string();
                std::fs::write(&instance_file, &new).map_err(|error| failed(error.into()))?;
                new
            }
        };
        let database = Database::builder(folder.join("db"))
            .max_journaling_size(JOURNAL_BYTES_MAX)
            .open()
            .map_err(|error| failed(error.into()))?;
        Ok(Self { database, instance: instance.into(), _lock: Arc::new(lock), path: folder.to_owned(), clock })
    }

    pub fn instance(&self) -> &str {
        &self.instance
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn now_ms(&self) -> i64 {
        (self.clock)().as_millis()
    }

    pub(super) const fn database(&self) -> &Database {
        &self.database
    }

    pub(super) fn keyspace(&self, name: &str) -> Result<Keyspace, Error> {
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES_MAX);
        Ok(self.database.keyspace(name, options)?)
    }
}
