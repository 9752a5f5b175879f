//! Whether this process still owns a partition, for whoever is about to do what cannot be taken back.
//!
//! Written by the thread that polls, read by any. It must never answer yes from hope: what was not polled for longer than its
//! session may belong to another process already.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

/// Tells, from any thread, whether this process still owns a partition: right before a request that cannot be taken back.
#[derive(Debug)]
pub struct Ownership {
    epoch: Instant,
    polled_ms: AtomicU64,
    session_timeout: Duration,
    owned: RwLock<BTreeSet<i32>>,
}

// === impl Ownership ===

impl Ownership {
    pub(super) fn new(session_timeout: Duration) -> Self {
        Self {
            epoch: Instant::now(),
            polled_ms: AtomicU64::new(0),
            session_timeout,
            owned: RwLock::new(BTreeSet::new()),
        }
    }

    /// The client was polled just now.
    pub(super) fn polled(&self) {
        let elapsed = u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.polled_ms.store(elapsed, Ordering::Release);
    }

    pub(super) fn set(&self, change: impl FnOnce(&mut BTreeSet<i32>)) {
        change(&mut self.owned.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Whether the partition was assigned here at the last poll, and that poll is recent: a process that was stopped for
    /// longer than its session answers no until it has polled again.
    pub fn owns(&self, partition: i32) -> bool {
        let polled = Duration::from_millis(self.polled_ms.load(Ordering::Acquire));
        let fresh = self.epoch.elapsed().saturating_sub(polled) < self.session_timeout.mul_f32(0.8);
        fresh && self.owned.read().unwrap_or_else(PoisonError::into_inner).contains(&partition)
    }

    /// How many partitions are owned.
    pub fn count(&self) -> usize {
        self.owned.read().unwrap_or_else(PoisonError::into_inner).len()
    }
}
