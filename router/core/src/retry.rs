//! When a delivery that did not succeed is tried again, and when it is given up. Pure: the time and the chance come from the caller.
//!
//! Waits grow exponentially and are drawn at random between the shortest and the current longest one ("full jitter" above a
//! floor), so that many deliveries that failed together do not come back together. A vendor that says how long to wait is
//! believed. Only a delivery's own trouble is ever given up: trouble of an endpoint or the account (rate limit, outage, a wrong key) says
//! nothing about the delivery, and giving up would turn an outage into lost data.

use std::time::Duration;

use crate::Timestamp;
use crate::code::{Code, RETRIES_EXHAUSTED};
use crate::delivery::{Reason, Scope};

/// The longest wait that a vendor can ask for. A `Retry-After` of a day is more likely a mistake than a wish; after an hour
/// one request finds out.
pub const VENDOR_WAIT_MAX: Duration = Duration::from_secs(3600);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts, the first one included, for trouble of the delivery alone.
    pub attempts_max: u32,
    /// The shortest wait.
    pub backoff_min: Duration,
    /// The longest wait, unless the vendor asks for more.
    pub backoff_max: Duration,
}

/// What to do with a delivery that has to be tried again.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Not before this time.
    At(Timestamp),
    /// It ends as a dead letter with the code `retries_exhausted`.
    GiveUp,
}

// === impl RetryPolicy ===

impl RetryPolicy {
    /// Decides about an outcome `Retry { after, scope, .. }`.
    ///
    /// `attempt` is the number of the attempt that has just failed, 1 for the first. `chance` is a random number between 0 and 1.
    pub fn decide(&self, attempt: u32, after: Option<Duration>, scope: Scope, now: Timestamp, chance: f64) -> Decision {
        match scope {
            Scope::Delivery if attempt >= self.attempts_max => Decision::GiveUp,
            Scope::Delivery | Scope::Endpoint | Scope::Account | Scope::Credentials => {
                Decision::At(now.saturating_add(self.wait(attempt, after, chance)))
            }
        }
    }

    /// How long to wait after this attempt.
    pub fn wait(&self, attempt: u32, after: Option<Duration>, chance: f64) -> Duration {
        if let Some(after) = after {
            return after.min(VENDOR_WAIT_MAX);
        }
        let doublings = attempt.min(32);
        let ceiling =
            self.backoff_min.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX)).min(self.backoff_max);
        // A chance that is no number between 0 and 1 must not become a panic in `mul_f64`.
        let chance = if chance.is_finite() { chance.clamp(0.0, 1.0) } else { 1.0 };
        let spread = ceiling.saturating_sub(self.backoff_min);
        // Milliseconds are all that a timestamp keeps; rounding up keeps the wait from ending before its floor.
        let wait = self.backoff_min.min(self.backoff_max) + spread.mul_f64(chance);
        Duration::from_millis(u64::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(u64::MAX))
    }
}

/// Why a delivery was given up: the last failure, under the code of dead letters that were tried too often.
pub fn exhausted(attempts: u32, last: &Reason) -> Reason {
    const CODE: Code = RETRIES_EXHAUSTED;
    let mut reason = Reason::new(
        CODE,
        format!("given up after {attempts} attempts, the last one failed with {}: {}", last.code, last.message),
    );
    reason.status = last.status;
    reason
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::code;

    const POLICY: RetryPolicy =
        RetryPolicy { attempts_max: 5, backoff_min: Duration::from_millis(500), backoff_max: Duration::from_secs(60) };
    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn wait_ms(decision: Decision) -> u128 {
        match decision {
            Decision::At(at) => at.since(NOW).as_millis(),
            Decision::GiveUp => panic!("given up"),
        }
    }

    #[test]
    fn the_longest_wait_doubles_up_to_the_maximum() {
        let longest: Vec<_> = (1..=9).map(|attempt| POLICY.wait(attempt, None, 1.0).as_millis()).collect();
        assert_eq!(longest, [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000]);
    }

    #[test]
    fn the_shortest_wait_stays() {
        assert_eq!(POLICY.wait(9, None, 0.0), POLICY.backoff_min);
    }

    #[test]
    fn a_delivery_is_given_up_after_its_last_attempt() {
        assert!(matches!(POLICY.decide(4, None, Scope::Delivery, NOW, 0.5), Decision::At(_)));
        assert_eq!(POLICY.decide(5, None, Scope::Delivery, NOW, 0.5), Decision::GiveUp);
        assert_eq!(POLICY.decide(5, Some(Duration::from_secs(1)), Scope::Delivery, NOW, 0.5), Decision::GiveUp);
    }

    #[test]
    fn trouble_that_is_not_the_deliverys_is_never_given_up() {
        for scope in [Scope::Endpoint, Scope::Account, Scope::Credentials] {
            assert!(wait_ms(POLICY.decide(u32::MAX, None, scope, NOW, 1.0)) == 60_000);
        }
    }

    #[test]
    fn the_vendor_is_believed_within_reason() {
        let after = |seconds| wait_ms(POLICY.decide(1, Some(Duration::from_secs(seconds)), Scope::Account, NOW, 0.3));
        assert_eq!(after(7), 7_000);
        assert_eq!(after(120), 120_000);
        assert_eq!(after(86_400), VENDOR_WAIT_MAX.as_millis());
    }

    #[test]
    fn a_reason_for_giving_up_names_the_last_failure() {
        let reason = exhausted(5, &Reason::new(code::VENDOR_UNAVAILABLE, "502 from the gateway").with_status(502));
        assert_eq!(reason.code, code::RETRIES_EXHAUSTED);
        assert_eq!(reason.status, Some(502));
        assert_eq!(
            reason.message,
            "given up after 5 attempts, the last one failed with vendor_unavailable: 502 from the gateway"
        );
    }

    proptest! {
        #[test]
        fn a_wait_lies_between_the_bounds_whatever_the_policy(
            attempt: u32, chance: f64, min_ms in 0_u64..100_000, max_ms in 0_u64..10_000_000,
        ) {
            let policy = RetryPolicy {
                attempts_max: 3,
                backoff_min: Duration::from_millis(min_ms),
                backoff_max: Duration::from_millis(max_ms),
            };
            let wait = policy.wait(attempt, None, chance);
            prop_assert!(wait >= policy.backoff_min.min(policy.backoff_max));
            prop_assert!(wait <= policy.backoff_max);
        }
    }
}
