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
//! Leases, the ownership of lanes, rate limits and heartbeats use `Instant` and know no wall clock at all.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tailwater_core::Timestamp;

use crate::failpoint;

/// Where both clocks stood when the first of them was asked.
static START: LazyLock<(Instant, Timestamp)> = LazyLock::new(|| (Instant::now(), now()));

/// The wall clock.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let ms = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_millis(ms.saturating_add(failpoint::clock_shift_ms()))
}

/// A clock that is never stepped: the wall clock of the process's start and the time that has passed since. It means nothing to another
/// process, so it is never written down.
pub fn steady() -> Timestamp {
    let (instant, wall) = *START;
    wall.saturating_add(instant.elapsed())
}

/// A time that has come by the wall clock and by what this process has seen pass: a clock that is stepped forwards brings nothing to
/// its end early, for as long as the process lives. What cannot be helped: a process that *starts* with a clock that is ahead believes
/// it, because nothing it could ask knows better.
pub fn surely() -> Timestamp {
    now().min(steady())
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
}
