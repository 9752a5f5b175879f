//! The kernel's engine on a log without some of its checkpoints. A checkpoint that is gone or cut, or a `_last_checkpoint` that names
//! one that was never there, says nothing that the commits before it do not say: where they are all there, the table can be read.

use std::collections::BTreeSet;
use std::sync::Arc;

use delta_kernel::{
    Engine, EvaluationHandler, FileMeta, FileSlice, JsonHandler, KernelError, KernelResult, KernelResultIteratorStatic,
    ParquetHandler, StorageHandler,
};
use url::Url;

pub(crate) struct LogView {
    inner: Arc<dyn Engine>,
    storage: Arc<Storage>,
}

struct Storage {
    inner: Arc<dyn StorageHandler>,
    /// The versions whose checkpoints are not shown.
    hidden: BTreeSet<u64>,
}

// === impl LogView ===

impl LogView {
    pub fn without(inner: Arc<dyn Engine>, hidden: BTreeSet<u64>) -> Self {
        let storage = Arc::new(Storage { inner: inner.storage_handler(), hidden });
        Self { inner, storage }
    }
}

impl Engine for LogView {
    fn evaluation_handler(&self) -> Arc<dyn EvaluationHandler> {
        self.inner.evaluation_handler()
    }

    fn storage_handler(&self) -> Arc<dyn StorageHandler> {
        self.storage.clone()
    }

    fn json_handler(&self) -> Arc<dyn JsonHandler> {
        self.inner.json_handler()
    }

    fn parquet_handler(&self) -> Arc<dyn ParquetHandler> {
        self.inner.parquet_handler()
    }
}

// === impl Storage ===

impl Storage {
    fn shows(&self, location: &Url) -> bool {
        shows(location, &self.hidden)
    }

    fn missing(location: &Url) -> KernelError {
        KernelError::FileNotFound(location.to_string())
    }
}

impl StorageHandler for Storage {
    fn list_from(&self, path: &Url) -> KernelResult<KernelResultIteratorStatic<FileMeta>> {
        let hidden = self.hidden.clone();
        let files = self.inner.list_from(path)?;
        Ok(Box::new(files.filter(move |file| file.as_ref().map_or(true, |file| shows(&file.location, &hidden)))))
    }

    fn read_files(&self, files: Vec<FileSlice>) -> KernelResult<KernelResultIteratorStatic<bytes::Bytes>> {
        match files.iter().find(|(location, _)| !self.shows(location)) {
            // As a store gives it: an item of the answer.
            Some((location, _)) => Ok(Box::new(std::iter::once(Err(Self::missing(location))))),
            None => self.inner.read_files(files),
        }
    }

    fn copy_atomic(&self, source: &Url, target: &Url) -> KernelResult<()> {
        self.inner.copy_atomic(source, target)
    }

    fn put(&self, path: &Url, data: bytes::Bytes, overwrite: bool) -> KernelResult<()> {
        self.inner.put(path, data, overwrite)
    }

    fn head(&self, path: &Url) -> KernelResult<FileMeta> {
        if self.shows(path) { self.inner.head(path) } else { Err(Self::missing(path)) }
    }

    fn delete(&self, path: &Url) -> KernelResult<()> {
        self.inner.delete(path)
    }
}

/// Whether the kernel may see a file. What is derived from commits besides checkpoints (checksums, compacted commits, the hint at the last
/// checkpoint) is not shown at all: one thing in this log is wrong already.
fn shows(location: &Url, hidden: &BTreeSet<u64>) -> bool {
    let path = location.path();
    let Some((folder, name)) = path.rsplit_once('/') else { return true };
    if !folder.ends_with("/_delta_log") {
        return true;
    }
    if name == "_last_checkpoint" || name.ends_with(".crc") || name.ends_with(".compacted.json") {
        return false;
    }
    checkpoint_version(name).is_none_or(|version| !hidden.contains(&version))
}

/// The version of a checkpoint's file or of a part of it.
pub(crate) fn checkpoint_version(name: &str) -> Option<u64> {
    let (digits, rest) = name.split_at_checked(20)?;
    (rest.starts_with(".checkpoint.") && digits.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_hidden_checkpoints_and_what_is_derived_are_not_shown() {
        let shown = |name: &str| {
            let location = Url::parse(&format!("s3://bucket/t/_delta_log/{name}")).unwrap();
            shows(&location, &BTreeSet::from([10]))
        };
        for (name, expected) in [
            ("00000000000000000010.json", true),
            ("00000000000000000010.checkpoint.parquet", false),
            ("00000000000000000010.checkpoint.0000000001.0000000002.parquet", false),
            ("00000000000000000010.checkpoint.80a083e8-7026-4e79-81be-64bd76c43a11.json", false),
            ("00000000000000000005.checkpoint.parquet", true),
            ("00000000000000000010.crc", false),
            ("00000000000000000001.00000000000000000010.compacted.json", false),
            ("_last_checkpoint", false),
            ("_sidecars/a.parquet", true),
        ] {
            assert_eq!(shown(name), expected, "{name}");
        }
        assert!(shows(&Url::parse("s3://bucket/t/_last_checkpoint").unwrap(), &BTreeSet::new()));
    }
}
