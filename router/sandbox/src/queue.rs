//! The jobs that wait for a worker: one queue for all, so that no worker rests while there is work.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::options::JOBS_MAX;

pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    jobs: VecDeque<T>,
    /// Counts the transforms that were dropped: a worker that has seen fewer looks which of its contexts are left over.
    dropped: u64,
    closed: bool,
}

/// What a worker is to do next.
pub(crate) enum Next<T> {
    Job(T),
    /// Transforms were dropped; the count to come back with.
    Sweep(u64),
    Stop,
}

impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::new(State { jobs: VecDeque::new(), dropped: 0, closed: false }), changed: Condvar::new() }
    }

    /// Waits for a place; gives the job back when the queue is closed.
    pub(crate) fn push(&self, job: T) -> Result<(), T> {
        let mut state = self.lock();
        while state.jobs.len() >= JOBS_MAX && !state.closed {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed {
            return Err(job);
        }
        state.jobs.push_back(job);
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// Waits for something to do.
    pub(crate) fn next(&self, seen: u64) -> Next<T> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return Next::Stop;
            }
            if state.dropped != seen {
                return Next::Sweep(state.dropped);
            }
            if let Some(job) = state.jobs.pop_front() {
                let was_full = state.jobs.len() + 1 == JOBS_MAX;
                drop(state);
                if was_full {
                    self.changed.notify_all();
                }
                return Next::Job(job);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(crate) fn sweep(&self) {
        self.lock().dropped += 1;
        self.changed.notify_all();
    }

    /// Lets go of the jobs that wait, and of everybody who waits.
    pub(crate) fn close(&self) {
        let jobs = {
            let mut state = self.lock();
            state.closed = true;
            std::mem::take(&mut state.jobs)
        };
        self.changed.notify_all();
        // Dropped outside of the lock: a job that goes may drop a transform, which comes back here.
        drop(jobs);
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().jobs.len()
    }

    /// A panic while the lock is held leaves a state that is still whole: every change is a single step.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
