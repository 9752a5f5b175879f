//! A commit or a restore that takes long, as the calls see it that run meanwhile.
//!
//! While the stage's thread waits for a broker that is away, or restores partitions that it takes over, the calls go on, and what they
//! deliver is not committed. If the transaction is aborted in the end, or the process killed, all of it is delivered again. So nothing
//! new is sent while the thread is stalled: what may be repeated is what the vendor takes in a second, and what is in flight.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long it may take before requests wait for it: far longer than a healthy commit takes.
const STALL_MAX: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Stall {
    epoch: Instant,
    /// When it began, in milliseconds after the epoch and one; 0 while the thread is at work.
    since_ms: AtomicU64,
}

// === impl Stall ===

impl Stall {
    pub fn new() -> Self {
        Self { epoch: Instant::now(), since_ms: AtomicU64::new(0) }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub fn begins(&self) {
        self.since_ms.store(self.now_ms().saturating_add(1), Ordering::Release);
    }

    pub fn ends(&self) {
        self.since_ms.store(0, Ordering::Release);
    }

    /// Whether it takes too long for anything to be sent.
    pub fn is_on(&self) -> bool {
        let since = self.since_ms.load(Ordering::Acquire);
        since > 0 && is_late(since - 1, self.now_ms())
    }
}

fn is_late(since_ms: u64, now_ms: u64) -> bool {
    Duration::from_millis(now_ms.saturating_sub(since_ms)) > STALL_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_commit_that_takes_long_holds_requests_back() {
        let stall = Stall::new();
        assert!(!stall.is_on());
        stall.begins();
        assert!(!stall.is_on(), "it has only begun");
        assert!(!is_late(5_000, 5_900));
        assert!(is_late(5_000, 6_100));
        stall.ends();
        assert!(!stall.is_on());
    }
}
