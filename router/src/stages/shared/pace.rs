//! How long a stage gathers before it commits.
//!
//! A transaction costs the broker about the same however little it holds. One that has fallen behind is not helped by more of
//! them: each waits for the others, everything gets later, and the later it gets the less each one holds. So a stage waits as long
//! as its last commit took, if that is longer than the configured interval, and spends at most half of its time on commits.

use std::time::Duration;

/// A single slow commit (an election, a broker that restarts) says nothing about the next one.
const INTERVAL_MAX: Duration = Duration::from_millis(500);

/// What is gathered at least, also when somebody waits.
const URGENT_MIN: Duration = Duration::from_millis(10);

#[derive(Debug, Clone, Copy)]
pub struct Pace {
    least: Duration,
    interval: Duration,
    /// How long the last commit took.
    took: Duration,
}

impl Pace {
    /// `least` is the configured interval.
    pub const fn new(least: Duration) -> Self {
        Self { least, interval: least, took: Duration::ZERO }
    }

    /// How long to gather for the next transaction.
    pub const fn interval(&self) -> Duration {
        self.interval
    }

    /// How long to gather when somebody waits for the commit: no longer than the broker needs.
    pub fn urgent_interval(&self) -> Duration {
        self.took.clamp(self.least.min(URGENT_MIN), INTERVAL_MAX).min(self.interval)
    }

    /// A commit was done and took so long.
    pub fn committed(&mut self, took: Duration) {
        self.took = took;
        self.interval = took.clamp(self.least, INTERVAL_MAX.max(self.least));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_commits_are_made_less_often_and_quick_ones_as_configured() {
        let ms = Duration::from_millis;
        let mut pace = Pace::new(ms(10));
        assert_eq!(pace.interval(), ms(10));
        for (took, interval) in [(3, 10), (40, 40), (60_000, 500), (0, 10)] {
            pace.committed(ms(took));
            assert_eq!(pace.interval(), ms(interval), "after {took} ms");
        }
        let mut lazy = Pace::new(ms(100));
        for (took, urgent) in [(3, 10), (40, 40), (60_000, 500)] {
            lazy.committed(ms(took));
            assert_eq!(lazy.urgent_interval(), ms(urgent), "after {took} ms");
        }
        let mut slow = Pace::new(ms(800));
        slow.committed(ms(60_000));
        assert_eq!(slow.interval(), ms(800));
    }
}
