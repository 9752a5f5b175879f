//! The tiers of the vendor: a burst window of one second and a steady window of one minute per endpoint, a daily one where documented.
//!
//! The headers of an answer name the window that is nearest to its end, as the live service does
//! (`ratelimit-limit: 75, 75;w=1, 750;w=60`).

use crate::engine::clock::SECOND_US;
use crate::engine::{Usage, Window};

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

/// Counts a request and returns the headers of its answer.
///
/// # Errors
/// A window is full: the seconds until the next request may come.
pub(super) fn take(
    usage: &mut Usage<(Endpoint, Variant)>,
    endpoint: Endpoint,
    variant: Variant,
    tiers: &Tiers,
    now_us: i64,
) -> Result<Vec<(String, String)>, u64> {
    let key = (endpoint, variant);
    let windows = windows(endpoint, variant, tiers);
    usage.take(key, &windows, now_us)?;
    let tightest = windows
        .iter()
        .map(|window| (usage.remaining(key, window, now_us), window))
        .min_by_key(|(remaining, window)| (*remaining, window.seconds));
    let Some((remaining, tightest)) = tightest else { return Ok(Vec::new()) };
    let mut limit = tightest.max.to_string();
    for window in &windows {
        limit.push_str(&format!(", {};w={}", window.max, window.seconds));
    }
    Ok(vec![
        ("ratelimit-limit".into(), limit),
        ("ratelimit-remaining".into(), remaining.to_string()),
        ("ratelimit-reset".into(), (tightest.left_us(now_us) / SECOND_US).to_string()),
    ])
}

fn windows(endpoint: Endpoint, variant: Variant, tiers: &Tiers) -> Vec<Window> {
    let tier = tiers.get(endpoint.tier(variant));
    let mut windows = vec![Window::per_second(tier.burst), Window::per_minute(tier.steady)];
    windows.extend(endpoint.daily_max().map(Window::per_day));
    windows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_answer_has_the_recorded_headers() {
        let at = 60_000 * SECOND_US;
        let headers =
            take(&mut Usage::default(), Endpoint::CreateImportJob, Variant::Plain, &Tiers::default(), at).unwrap();
        assert_eq!(headers[0], ("ratelimit-limit".into(), "10, 10;w=1, 150;w=60".into()));
        assert_eq!(headers[1], ("ratelimit-remaining".into(), "9".into()));
        assert_eq!(headers[2], ("ratelimit-reset".into(), "1".into()));
    }

    #[test]
    fn creating_lists_has_a_daily_window() {
        let mut usage = Usage::default();
        let mut passed = 0;
        for second in 0..40 {
            for _ in 0..10 {
                let at = second * 6 * SECOND_US;
                if take(&mut usage, Endpoint::CreateList, Variant::Plain, &Tiers::default(), at).is_ok() {
                    passed += 1;
                }
            }
        }
        assert_eq!(passed, 150);
    }
}
