//! The clocks of the stages. Decisions are handed the time; this is where it comes from.
//!
//! The wall clock can be stepped, by hours and in both directions: by an operator, by NTP after a start with a wrong clock, by a virtual
//! machine that was moved. Three clocks keep that from doing harm:
//!
//! - [`now`] is the wall clock, for what people read and for what must mean the same in another process and after a restart;
//! - [`steady`] runs at one speed whatever happens to the wall clock, for everything that waits in memory: when a retry is due, how long
//!   a window has been open;
//! - [`surely`] is never ahead of either, for what takes something away when its time is over.
//!
//! Leases, the ownership of partitions, rate limits and heartbeats use `Instant` and know no wall clock at all.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tailwater_core::Timestamp;

use crate::failpoint;

/// Where both clocks stood when the first of them was asked.
static START: LazyLock<(Instant, Start)> = LazyLock::new(|| (Instant::now(), Start(now())));

/// What the wall clock showed at first.
#[derive(Debug, Clone, Copy)]
struct Start(Timestamp);

/// The wall clock.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let ms = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_millis(ms.saturating_add(failpoint::clock_shift_ms()))
}

/// A clock that is never stepped: the wall clock of the process's start and the time that has passed since. It means nothing to another
/// process, so it is never written down.
pub fn steady() -> Timestamp {
    let (instant, start) = *START;
    start.steady(instant.elapsed())
}

/// A time that has come by the wall clock and by what this process has seen pass: a clock that is stepped forwards brings nothing to
/// its end early, for as long as the process lives. What cannot be helped: a process that *starts* with a clock that is ahead believes
/// it, because nothing it could ask knows better.
pub fn surely() -> Timestamp {
    let (instant, start) = *START;
    start.surely(now(), instant.elapsed())
}

impl Start {
    fn steady(self, passed: Duration) -> Timestamp {
        self.0.saturating_add(passed)
    }

    fn surely(self, wall: Timestamp, passed: Duration) -> Timestamp {
        wall.min(self.steady(passed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steady_clock_goes_on_and_agrees_with_the_wall_clock_that_nobody_steps() {
        let first = steady();
        let second = steady();
        assert!(second >= first);
        // Whoever runs the tests may have a clock that is being corrected, by less than this.
        let apart = (now().as_millis() - second.as_millis()).abs();
        assert!(apart < 60_000, "{apart} ms apart");
        assert!(surely() <= steady());
    }

    #[test]
    fn a_clock_that_is_stepped_back_keeps_no_retry_waiting() {
        let start = Start(Timestamp::from_millis(10_000_000));
        let due = start.steady(Duration::from_secs(5)).saturating_add(Duration::from_secs(2));
        // An hour back between the failure and the retry: the wall clock would be there again after an hour.
        assert!(start.steady(Duration::from_secs(7)) >= due);
    }

    #[test]
    fn a_clock_that_is_stepped_forwards_ends_no_hold_early() {
        let start = Start(Timestamp::from_millis(10_000_000));
        let held = start.0;
        let month = Duration::from_secs(30 * 86_400);
        let stepped = start.0.saturating_add(month * 2);
        assert!(start.surely(stepped, Duration::from_secs(60)).since(held) < month);
        // By both clocks: now it has really been so long.
        assert_eq!(start.surely(stepped, month).since(held), month);
        // Back: nothing is over, and nothing is torn out either when it comes right again.
        assert_eq!(start.surely(Timestamp::from_millis(0), month).as_millis(), 0);
    }
}
