//! A job of a worker, as its three parties share it: the worker, the caller who waits, and the watchdog, which may give the
//! worker up.
//!
//! Whoever ends the job first answers it. The loan of the batch ends before the answer is sent, so the caller gets the batch back
//! although a thread that was given up may still run.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::engine::Chunk;
use crate::error::{LoadError, LoadErrorKind};
use crate::lent::Lent;
use crate::pool::Program;

/// No row is run alone.
const TOGETHER: usize = usize::MAX;

/// What the watchdog does with a job whose thread does not return.
pub(crate) trait Abandon: Send + Sync {
    /// Answers the job for its thread. Nothing that the thread does later reaches the caller or the caller's batch.
    fn abandon(&self);
}

/// Rows to run.
pub(crate) struct RunJob {
    pub(crate) program: Arc<Program>,
    pub(crate) lent: Lent,
    pub(crate) range: Range<usize>,
    /// The row that runs alone, or [`TOGETHER`].
    alone: AtomicUsize,
    answer: Mutex<Option<SyncSender<Answer>>>,
}

/// What became of a job's rows.
pub(crate) enum Answer {
    Done {
        range: Range<usize>,
        chunk: Chunk,
        busy: Duration,
    },
    /// The thread did not return. `alone` is the row that it was running, if it was running one alone.
    Lost {
        range: Range<usize>,
        alone: Option<usize>,
    },
}

/// A transform to load.
pub(crate) struct LoadJob {
    pub(crate) program: Arc<Program>,
    answer: Mutex<Option<SyncSender<Result<(), LoadError>>>>,
}

// === impl Answer ===

impl Answer {
    pub(crate) fn start(&self) -> usize {
        match self {
            Self::Done { range, .. } | Self::Lost { range, .. } => range.start,
        }
    }
}

// === impl RunJob ===

impl RunJob {
    pub(crate) fn new(program: Arc<Program>, lent: Lent, range: Range<usize>, answer: SyncSender<Answer>) -> Self {
        Self { program, lent, range, alone: AtomicUsize::new(TOGETHER), answer: Mutex::new(Some(answer)) }
    }

    /// Notes the row that is run alone from now on.
    pub(crate) fn runs_alone(&self, row: usize) {
        self.alone.store(row, Ordering::Relaxed);
    }

    /// Ends the loan and answers, unless that has been done.
    pub(crate) fn finish(&self, chunk: Chunk, busy: Duration) {
        self.end(Some(Answer::Done { range: self.range.clone(), chunk, busy }));
    }

    fn end(&self, answer: Option<Answer>) {
        // In this order: with the last sender the caller takes the batch back.
        self.lent.end();
        let sender = self.answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        // The channel has room for every answer, and the caller reads it to its end.
        if let (Some(sender), Some(answer)) = (sender, answer)
            && sender.send(answer).is_err()
        {
            tracing::error!("nobody waits for a batch that was run");
        }
    }
}

impl Abandon for RunJob {
    fn abandon(&self) {
        self.program.lost.fetch_add(1, Ordering::Relaxed);
        let alone = match self.alone.load(Ordering::Relaxed) {
            TOGETHER => None,
            row => Some(row),
        };
        self.end(Some(Answer::Lost { range: self.range.clone(), alone }));
    }
}

impl Drop for RunJob {
    fn drop(&mut self) {
        self.end(None);
    }
}

// === impl LoadJob ===

impl LoadJob {
    pub(crate) fn new(program: Arc<Program>, answer: SyncSender<Result<(), LoadError>>) -> Self {
        Self { program, answer: Mutex::new(Some(answer)) }
    }

    pub(crate) fn finish(&self, loaded: Result<(), LoadError>) {
        let sender = self.answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if sender.is_some_and(|sender| sender.send(loaded).is_err()) {
            tracing::debug!("nobody waits for a transform that was loaded");
        }
    }
}

impl Abandon for LoadJob {
    fn abandon(&self) {
        self.finish(Err(LoadError {
            kind: LoadErrorKind::Timeout,
            name: self.program.name.clone(),
            message: "its top level calls a built-in function that does not return; its thread was given up".to_owned(),
            line: None,
            column: None,
            excerpt: None,
        }));
    }
}
