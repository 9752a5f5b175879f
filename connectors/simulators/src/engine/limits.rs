//! Fixed-window limits: any number of windows per key, all of which must have room.
//!
//! Windows begin at whole multiples of their length on the clock. A request that is refused uses nothing up.

use std::collections::HashMap;
use std::hash::Hash;

use super::clock::SECOND_US;

/// Requests that are allowed in a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub seconds: u32,
    pub max: u32,
}

/// What every key has used of its windows.
#[derive(Debug)]
pub struct Usage<K> {
    counts: HashMap<(K, u32), Count>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Count {
    window: i64,
    used: u32,
}

// === impl Window ===

impl Window {
    pub fn per_second(max: u32) -> Self {
        Self { seconds: 1, max }
    }

    pub fn per_minute(max: u32) -> Self {
        Self { seconds: 60, max }
    }

    pub fn per_day(max: u32) -> Self {
        Self { seconds: 86_400, max }
    }

    fn index(&self, now_us: i64) -> i64 {
        now_us.div_euclid(i64::from(self.seconds) * SECOND_US)
    }

    /// Time until the next window.
    pub(crate) fn left_us(&self, now_us: i64) -> i64 {
        let length = i64::from(self.seconds) * SECOND_US;
        length - now_us.rem_euclid(length)
    }
}

// === impl Usage ===

impl<K> Default for Usage<K> {
    fn default() -> Self {
        Self { counts: HashMap::new() }
    }
}

impl<K: Copy + Eq + Hash> Usage<K> {
    /// Counts a request.
    ///
    /// # Errors
    /// A window is full: the seconds until the next request may come.
    pub fn take(&mut self, key: K, windows: &[Window], now_us: i64) -> Result<(), u64> {
        let exhausted = windows
            .iter()
            .filter(|window| self.used(key, window, now_us) >= window.max)
            .map(|window| window.left_us(now_us))
            .max();
        if let Some(left_us) = exhausted {
            let seconds = left_us.div_euclid(SECOND_US) + i64::from(left_us % SECOND_US != 0);
            return Err(u64::try_from(seconds).unwrap_or(1).max(1));
        }
        for window in windows {
            let index = window.index(now_us);
            let count = self.counts.entry((key, window.seconds)).or_default();
            if count.window != index {
                *count = Count { window: index, used: 0 };
            }
            count.used += 1;
        }
        Ok(())
    }

    /// Requests that a window still has room for.
    pub fn remaining(&self, key: K, window: &Window, now_us: i64) -> u32 {
        window.max.saturating_sub(self.used(key, window, now_us))
    }

    fn used(&self, key: K, window: &Window, now_us: i64) -> u32 {
        self.counts
            .get(&(key, window.seconds))
            .filter(|count| count.window == window.index(now_us))
            .map_or(0, |count| count.used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_US: i64 = 60 * SECOND_US;
    const WINDOWS: [Window; 2] = [Window { seconds: 1, max: 10 }, Window { seconds: 60, max: 150 }];

    fn take(usage: &mut Usage<&'static str>, at_us: i64) -> Result<(), u64> {
        usage.take("job", &WINDOWS, 1_000 * MINUTE_US + at_us)
    }

    #[test]
    fn the_eleventh_request_of_a_second_waits_for_the_next_second() {
        let mut usage = Usage::default();
        for _ in 0..10 {
            take(&mut usage, 100).unwrap();
        }
        assert_eq!(take(&mut usage, 200), Err(1));
        take(&mut usage, SECOND_US).unwrap();
    }

    #[test]
    fn the_longer_window_outlasts_the_shorter_one() {
        let mut usage = Usage::default();
        for second in 0..15 {
            for _ in 0..10 {
                take(&mut usage, second * SECOND_US).unwrap();
            }
        }
        assert_eq!(take(&mut usage, 15 * SECOND_US), Err(45));
        take(&mut usage, MINUTE_US).unwrap();
    }

    #[test]
    fn a_refused_request_uses_nothing_up() {
        let mut usage = Usage::default();
        for _ in 0..10 {
            take(&mut usage, 0).unwrap();
        }
        for _ in 0..500 {
            take(&mut usage, 10).unwrap_err();
        }
        take(&mut usage, SECOND_US).unwrap();
    }

    #[test]
    fn keys_have_windows_of_their_own() {
        let mut usage = Usage::default();
        for _ in 0..10 {
            take(&mut usage, 0).unwrap();
        }
        usage.take("other", &WINDOWS, 1_000 * MINUTE_US).unwrap();
    }
}
