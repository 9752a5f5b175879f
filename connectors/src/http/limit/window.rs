//! Rates and the windows that a vendor counts in.
//!
//! A vendor lets so many requests through in a second, in three seconds, in a minute, in a day, and often in several of them at once. Each
//! window is kept by a virtual schedule (GCRA): a small burst at once, then one request each period. A request goes when all windows let it,
//! and counts in all of them at that moment, so no stretch of any window's length ever holds more than the window allows.

use std::time::Duration;

/// So many requests in any stretch of so much time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub requests: u32,
    pub per: Duration,
}

/// What a vendor documents for one limit: any number of windows, each of which holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub windows: &'static [Window],
}

/// The burst is this part of a window: a limiter that starts anew while the vendor still counts the last window must stay below the limit
/// with it, at the part of the limit that is used by default.
const BURST_PART: f64 = 0.02;

/// When requests may go, by the windows of one limit. Time is counted from the start of the limiter's clock.
#[derive(Debug)]
pub(super) struct Schedule(Vec<Slot>);

/// One window: its state is the moment at which it will have recovered from everything that has gone.
#[derive(Debug)]
struct Slot {
    period: Duration,
    /// How far ahead of the schedule requests may be: the burst.
    ahead: Duration,
    recovered: Duration,
}

// === impl Window ===

impl Window {
    pub const fn new(requests: u32, per: Duration) -> Self {
        Self { requests, per }
    }

    pub const fn per_second(requests: u32) -> Self {
        Self::new(requests, Duration::from_secs(1))
    }

    pub const fn per_minute(requests: u32) -> Self {
        Self::new(requests, Duration::from_secs(60))
    }

    pub const fn per_day(requests: u32) -> Self {
        Self::new(requests, Duration::from_secs(86_400))
    }
}

// === impl Schedule ===

impl Schedule {
    /// Windows of which `part` is used. Where other processes use the rest, a part of a request more is nobody's.
    pub fn new(windows: &[Window], part: f64, is_shared: bool) -> Self {
        Self(windows.iter().map(|window| Slot::new(*window, part, is_shared)).collect())
    }

    /// As if the bursts were used up at `now`, so that replacing a schedule never lets more through than keeping it.
    pub fn drained(windows: &[Window], part: f64, is_shared: bool, now: Duration) -> Self {
        let mut schedule = Self::new(windows, part, is_shared);
        for slot in &mut schedule.0 {
            slot.recovered = now + slot.ahead + slot.period;
        }
        schedule
    }

    /// Lets a request go now, or tells how long it has to wait.
    pub fn take(&mut self, now: Duration) -> Result<(), Duration> {
        let wait = self.0.iter().map(|slot| slot.recovered.saturating_sub(now + slot.ahead)).max().unwrap_or_default();
        if !wait.is_zero() {
            return Err(wait);
        }
        for slot in &mut self.0 {
            slot.recovered = slot.recovered.max(now) + slot.period;
        }
        Ok(())
    }
}

impl Slot {
    /// Lets at most `requests * part` into any stretch of the window's length, rounded up, or down where the rate is shared (one, where
    /// that is less than one, at a correspondingly longer distance).
    fn new(window: Window, part: f64, is_shared: bool) -> Self {
        let capacity = (f64::from(window.requests.max(1)) * part).max(f64::MIN_POSITIVE);
        let capacity = if is_shared && capacity >= 1.0 { capacity.floor() } else { capacity };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "at most a u32 times the highest part"
        )]
        let burst = (capacity * BURST_PART).floor().clamp(1.0, f64::from(u32::MAX)) as u32;
        // After `burst` at once, one each period: a window then holds `burst` and as many as there are periods in it.
        let periods = capacity - f64::from(burst) + 1.0;
        let period = Duration::try_from_secs_f64(window.per.as_secs_f64() / periods)
            .unwrap_or(PERIOD_MAX)
            .min(PERIOD_MAX)
            // Rounding must not let one more in.
            .saturating_add(Duration::from_nanos(1));
        Self { period, ahead: period.saturating_mul(burst - 1).min(PERIOD_MAX), recovered: Duration::ZERO }
    }
}

/// Beyond this a limit means *never*; it keeps sums of durations far from their end.
const PERIOD_MAX: Duration = Duration::from_secs(366 * 86_400);
