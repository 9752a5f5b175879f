//! Fixed-window limits: a burst window of one second and a steady window of one minute per endpoint, a daily one where documented.
//!
//! Windows begin at whole seconds and minutes of the clock. A request that is refused uses nothing up. The headers of an answer name
//! the window that is nearest to its end, as the live service does (`ratelimit-limit: 75, 75;w=1, 750;w=60`).

use std::collections::HashMap;

use super::clock::SECOND_US;
use super::endpoints::{Endpoint, Variant};

/// Requests that a tier allows per second and per minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tier {
    pub burst: u32,
    pub steady: u32,
}

/// The five tiers of the vendor's documentation, with the figures of revision 2026-07-15.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tiers {
    pub xs: Tier,
    pub s: Tier,
    pub m: Tier,
    pub l: Tier,
    pub xl: Tier,
}

impl Default for Tiers {
    fn default() -> Self {
        Self {
            xs: Tier { burst: 1, steady: 15 },
            s: Tier { burst: 3, steady: 60 },
            m: Tier { burst: 10, steady: 150 },
            l: Tier { burst: 75, steady: 750 },
            xl: Tier { burst: 350, steady: 3500 },
        }
    }
}

/// Which tier an endpoint belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TierName {
    Xs,
    M,
    L,
    Xl,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    seconds: u32,
    max: u32,
}

/// What every endpoint has used of its windows.
#[derive(Debug, Default)]
pub(super) struct Usage {
    counts: HashMap<(Endpoint, Variant, u32), Count>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Count {
    window: i64,
    used: u32,
}

/// Whether a request may pass.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass { headers: Vec<(String, String)> },
    Throttled { retry_after_s: u64 },
}

// === impl Tiers ===

impl Tiers {
    pub(super) fn get(&self, name: TierName) -> Tier {
        match name {
            TierName::Xs => self.xs,
            TierName::M => self.m,
            TierName::L => self.l,
            TierName::Xl => self.xl,
        }
    }
}

// === impl Usage ===

impl Usage {
    /// Counts a request, or says when the next one may come.
    pub fn take(&mut self, endpoint: Endpoint, variant: Variant, tiers: &Tiers, now_us: i64) -> Verdict {
        let windows = windows(endpoint, variant, tiers);
        let exhausted = windows
            .iter()
            .filter(|window| self.used(endpoint, variant, window, now_us) >= window.max)
            .map(|window| left_us(window, now_us))
            .max();
        if let Some(left_us) = exhausted {
            let seconds =
                u64::try_from(left_us.div_euclid(SECOND_US) + i64::from(left_us % SECOND_US != 0)).unwrap_or(1);
            return Verdict::Throttled { retry_after_s: seconds.max(1) };
        }
        for window in &windows {
            let index = index(window, now_us);
            let count = self.counts.entry((endpoint, variant, window.seconds)).or_default();
            if count.window != index {
                *count = Count { window: index, used: 0 };
            }
            count.used += 1;
        }
        Verdict::Pass { headers: self.headers(endpoint, variant, &windows, now_us) }
    }

    fn used(&self, endpoint: Endpoint, variant: Variant, window: &Window, now_us: i64) -> u32 {
        self.counts
            .get(&(endpoint, variant, window.seconds))
            .filter(|count| count.window == index(window, now_us))
            .map_or(0, |count| count.used)
    }

    fn headers(&self, endpoint: Endpoint, variant: Variant, windows: &[Window], now_us: i64) -> Vec<(String, String)> {
        let tightest = windows
            .iter()
            .map(|window| (window.max.saturating_sub(self.used(endpoint, variant, window, now_us)), window))
            .min_by_key(|(remaining, window)| (*remaining, window.seconds));
        let Some((remaining, tightest)) = tightest else { return Vec::new() };
        let mut limit = tightest.max.to_string();
        for window in windows {
            limit.push_str(&format!(", {};w={}", window.max, window.seconds));
        }
        vec![
            ("ratelimit-limit".into(), limit),
            ("ratelimit-remaining".into(), remaining.to_string()),
            ("ratelimit-reset".into(), (left_us(tightest, now_us) / SECOND_US).to_string()),
        ]
    }
}

fn windows(endpoint: Endpoint, variant: Variant, tiers: &Tiers) -> Vec<Window> {
    let tier = tiers.get(endpoint.tier(variant));
    let mut windows = vec![Window { seconds: 1, max: tier.burst }, Window { seconds: 60, max: tier.steady }];
    if let Some(max) = endpoint.daily_max() {
        windows.push(Window { seconds: 86_400, max });
    }
    windows
}

fn index(window: &Window, now_us: i64) -> i64 {
    now_us.div_euclid(i64::from(window.seconds) * SECOND_US)
}

fn left_us(window: &Window, now_us: i64) -> i64 {
    let length = i64::from(window.seconds) * SECOND_US;
    length - now_us.rem_euclid(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_US: i64 = 60 * SECOND_US;

    fn take(usage: &mut Usage, at_us: i64) -> Verdict {
        usage.take(Endpoint::CreateImportJob, Variant::Plain, &Tiers::default(), 1_000 * MINUTE_US + at_us)
    }

    #[test]
    fn the_first_answer_has_the_recorded_headers() {
        let Verdict::Pass { headers } = take(&mut Usage::default(), 0) else { panic!("was throttled") };
        assert_eq!(headers[0], ("ratelimit-limit".into(), "10, 10;w=1, 150;w=60".into()));
        assert_eq!(headers[1], ("ratelimit-remaining".into(), "9".into()));
        assert_eq!(headers[2], ("ratelimit-reset".into(), "1".into()));
    }

    #[test]
    fn the_eleventh_request_of_a_second_waits_for_the_next_second() {
        let mut usage = Usage::default();
        for _ in 0..10 {
            assert!(matches!(take(&mut usage, 100), Verdict::Pass { .. }));
        }
        assert_eq!(take(&mut usage, 200), Verdict::Throttled { retry_after_s: 1 });
        assert!(matches!(take(&mut usage, SECOND_US), Verdict::Pass { .. }));
    }

    #[test]
    fn the_steady_window_outlasts_the_burst_window() {
        let mut usage = Usage::default();
        for second in 0..15 {
            for _ in 0..10 {
                assert!(matches!(take(&mut usage, second * SECOND_US), Verdict::Pass { .. }));
            }
        }
        assert_eq!(take(&mut usage, 15 * SECOND_US), Verdict::Throttled { retry_after_s: 45 });
        assert!(matches!(take(&mut usage, MINUTE_US), Verdict::Pass { .. }));
    }

    #[test]
    fn a_refused_request_uses_nothing_up() {
        let mut usage = Usage::default();
        for _ in 0..10 {
            take(&mut usage, 0);
        }
        for _ in 0..500 {
            assert!(matches!(take(&mut usage, 10), Verdict::Throttled { .. }));
        }
        assert!(matches!(take(&mut usage, SECOND_US), Verdict::Pass { .. }));
    }

    #[test]
    fn endpoints_have_windows_of_their_own() {
        let mut usage = Usage::default();
        for _ in 0..10 {
            take(&mut usage, 0);
        }
        let other = usage.take(Endpoint::GetImportJob, Variant::Plain, &Tiers::default(), 1_000 * MINUTE_US);
        assert!(matches!(other, Verdict::Pass { .. }));
    }

    #[test]
    fn creating_lists_has_a_daily_window() {
        let mut usage = Usage::default();
        let mut passed = 0;
        for second in 0..40 {
            for _ in 0..10 {
                let at = second * 6 * SECOND_US;
                if matches!(
                    usage.take(Endpoint::CreateList, Variant::Plain, &Tiers::default(), at),
                    Verdict::Pass { .. }
                ) {
                    passed += 1;
                }
            }
        }
        assert_eq!(passed, 150);
    }
}
