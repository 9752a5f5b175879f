//! The wish to stop, readable from threads and from tasks alike.
//!
//! It is only a wish: a task notices it, finishes what it has begun, commits, and returns. Nothing is cancelled by it. What takes its time
//! to finish asks how much of the grace period is left.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::GRACE;

/// A flag that is raised once. Clones share it.
#[derive(Debug, Clone)]
pub struct Shutdown(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// For loops that ask at every turn: one atomic load.
    requested: AtomicBool,
    /// Why it was asked for and when, and what wakes the threads that wait.
    reason: Mutex<Option<(String, Instant)>>,
    raised: Condvar,
    /// What wakes the tasks that wait.
    watch: watch::Sender<bool>,
    grace: Duration,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

impl Shutdown {
    /// One with the usual grace period.
    pub fn new() -> Self {
        Self::with_grace(GRACE)
    }

    /// One that gives everybody so long to stop.
    pub fn with_grace(grace: Duration) -> Self {
        Self(Arc::new(Inner {
            requested: AtomicBool::new(false),
            reason: Mutex::default(),
            raised: Condvar::new(),
            watch: watch::Sender::new(false),
            grace,
        }))
    }

    /// Asks everybody to stop. False if that was done before; the first reason stays.
    pub fn request(&self, reason: impl Into<String>) -> bool {
        let mut slot = self.0.reason.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.is_some() {
            return false;
        }
        *slot = Some((reason.into(), Instant::now()));
        self.0.requested.store(true, Ordering::SeqCst);
        drop(slot);
        self.0.raised.notify_all();
        self.0.watch.send_replace(true);
        true
    }

    pub fn is_requested(&self) -> bool {
        self.0.requested.load(Ordering::SeqCst)
    }

    /// Why, once it was requested.
    pub fn reason(&self) -> Option<String> {
        self.0.reason.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(reason, _)| reason.clone())
    }

    /// How much of the grace period is left: all of it before the shutdown is requested.
    pub fn left(&self) -> Duration {
        let slot = self.0.reason.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = slot.as_ref().map_or(Duration::ZERO, |(_, since)| since.elapsed());
        self.0.grace.saturating_sub(elapsed)
    }

    /// For tasks: done when it is requested. Safe to cancel.
    pub async fn requested(&self) {
        let mut watch = self.0.watch.subscribe();
        // The sender lives in this very handle, so waiting cannot fail.
        let _raised = watch.wait_for(|raised| *raised).await;
    }

    /// For threads: sleeps until it is requested, but at most this long. True if it is requested.
    pub fn wait(&self, at_most: Duration) -> bool {
        let slot = self.0.reason.lock().unwrap_or_else(PoisonError::into_inner);
        let _slot = self
            .0
            .raised
            .wait_timeout_while(slot, at_most, |reason| reason.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        self.is_requested()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_stays() {
        let shutdown = Shutdown::new();
        assert!(!shutdown.is_requested());
        assert!(!shutdown.wait(Duration::ZERO));
        assert!(shutdown.request("SIGTERM"));
        assert!(!shutdown.request("SIGINT"));
        assert_eq!(shutdown.reason().as_deref(), Some("SIGTERM"));
        assert!(shutdown.wait(Duration::from_secs(3600)));
    }

    #[test]
    fn the_grace_period_runs_from_the_request() {
        let shutdown = Shutdown::with_grace(Duration::from_millis(50));
        assert!(!shutdown.wait(Duration::from_millis(60)));
        assert_eq!(shutdown.left(), Duration::from_millis(50));
        shutdown.request("SIGTERM");
        std::thread::sleep(Duration::from_millis(60));
        assert_eq!(shutdown.left(), Duration::ZERO);
    }

    #[test]
    fn it_wakes_threads_and_tasks_that_wait() {
        let shutdown = Shutdown::new();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let waiting = shutdown.clone();
        let thread = std::thread::spawn(move || waiting.wait(Duration::from_secs(3600)));
        let waiting = shutdown.clone();
        let task = runtime.spawn(async move { waiting.requested().await });
        shutdown.request("test");
        assert!(thread.join().unwrap());
        runtime.block_on(task).unwrap();
        runtime.block_on(shutdown.requested());
    }
}
