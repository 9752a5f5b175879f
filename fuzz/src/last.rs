//! Keeps the input that is being tried where it outlives the process.
//!
//! A stack that overflows and a memory that is exhausted end the process without a chance to say which input it was. The file costs two
//! calls into the page cache for each input.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

pub(crate) struct Last {
    file: File,
    path: PathBuf,
}

impl Last {
    pub fn create(target: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tailwater-fuzz-{target}-{}.last", std::process::id()));
        let file = File::create(&path).unwrap_or_else(|error| panic!("{} could not be made: {error}", path.display()));
        Self { file, path }
    }

    pub fn note(&self, input: &[u8]) {
        let noted = self.file.set_len(0).and_then(|()| self.file.write_all_at(input, 0));
        noted.unwrap_or_else(|error| panic!("{} could not be written: {error}", self.path.display()));
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All went well, or the input is kept elsewhere.
    pub fn remove(self) {
        // One that stays behind harms nobody: the next process has another name for its own.
        drop(std::fs::remove_file(&self.path));
    }
}
