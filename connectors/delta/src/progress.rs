//! What a reader does while a step takes long: opening a table and pairing a rewrite of millions of rows take minutes, in which
//! whoever waits for the step wants to know that it goes on, and may want it to stop.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Counters of a reader's work, shared with whoever waits for it.
#[derive(Debug, Default)]
pub struct Progress {
    files: AtomicU64,
    rows: AtomicU64,
    stop: AtomicBool,
    /// The data file that is being read.
    file: Mutex<Option<String>>,
}

// === impl Progress ===

impl Progress {
    /// Data files opened so far; a file that is read twice counts twice.
    pub fn files(&self) -> u64 {
        self.files.load(Ordering::Relaxed)
    }

    /// Rows read so far.
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// Makes the step that is at work end with [`crate::Error::Stopped`], and every later one.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(crate) fn opened(&self, file: &str) {
        self.files.fetch_add(1, Ordering::Relaxed);
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = Some(file.to_owned());
    }

    pub(crate) fn closed(&self) {
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(crate) fn read(&self, rows: usize) {
        self.rows.fetch_add(u64::try_from(rows).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The data file that was opened last and not read to its end.
    pub(crate) fn file(&self) -> Option<String> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
