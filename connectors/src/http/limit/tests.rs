use proptest::prelude::*;

use super::*;

const RATE: Rate = Rate { per_second: 10, per_minute: 150 };

/// A clock that stands still until it is moved.
#[derive(Clone, Default)]
struct Hands(Arc<AtomicU64>);

impl Hands {
    fn clock(&self) -> Clock {
        let nanos = Arc::clone(&self.0);
        Clock(Arc::new(move || Duration::from_nanos(nanos.load(Ordering::Relaxed))))
    }

    fn advance(&self, by: Duration) {
        self.0.fetch_add(u64::try_from(by.as_nanos()).unwrap(), Ordering::Relaxed);
    }

    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

/// The times at which requests pass when there is always one waiting, until `end`.
fn greedy(limiter: &Limiter, hands: &Hands, end: Duration) -> Vec<Duration> {
    let mut passed = Vec::new();
    let mut steady_passed = false;
    while hands.now() < end {
        match limiter.step(&limiter.endpoints[0], &mut steady_passed) {
            Step::Go => {
                passed.push(hands.now());
                steady_passed = false;
            }
            Step::Wait(wait) | Step::Closed(Closed { remaining: wait, .. }) => {
                hands.advance(wait.max(Duration::from_nanos(1)));
            }
        }
    }
    passed
}

/// The most that any stretch of the window's length holds.
fn fullest(passed: &[Duration], window: Duration) -> usize {
    let mut first = 0;
    let mut most = 0;
    for (index, at) in passed.iter().enumerate() {
        while passed[first] + window <= *at {
            first += 1;
        }
        most = most.max(index + 1 - first);
    }
    most
}

proptest! {
    // A case simulates three minutes, request by request.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_stretch_of_a_window_holds_more_than_its_part(per_second in 1u32..400, minutes in 1u32..15, part in 0.01f64..1.0) {
        let rate = Rate { per_second, per_minute: (per_second * minutes).max(1) };
        let hands = Hands::default();
        let limiter = Limiter::with_clock(&[rate], part, hands.clock());
        let passed = greedy(&limiter, &hands, Duration::from_secs(180));
        prop_assert!(!passed.is_empty());
        for (limit, window) in [(rate.per_second, 1), (rate.per_minute, 60)] {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a test's small numbers")]
            let allowed = (f64::from(limit) * part).floor().max(1.0) as usize;
            let most = fullest(&passed, Duration::from_secs(window));
            prop_assert!(most <= allowed, "{most} in {window} s, allowed {allowed}");
        }
    }

    #[test]
    fn a_share_that_changes_all_the_time_gains_nothing(shares in prop::collection::vec(0.0f64..1.0, 1..40)) {
        let hands = Hands::default();
        let limiter = Limiter::with_clock(&[RATE], 0.9, hands.clock());
        let seat = limiter.sit();
        let mut passed = Vec::new();
        for share in shares {
            seat.set_share(share);
            passed.extend(greedy(&limiter, &hands, hands.now() + Duration::from_secs(3)));
        }
        prop_assert!(fullest(&passed, Duration::from_secs(60)) <= 135);
        prop_assert!(fullest(&passed, Duration::from_secs(1)) <= 9);
    }
}

#[test]
fn most_of_the_configured_rate_is_really_used() {
    let hands = Hands::default();
    let limiter = Limiter::with_clock(&[RATE], 0.9, hands.clock());
    let passed = greedy(&limiter, &hands, Duration::from_secs(600)).len();
    assert!(passed > 1_290, "{passed} of 1,350 in ten minutes");
}

#[test]
fn a_restart_stays_within_the_documented_window() {
    let hands = Hands::default();
    let mut passed = greedy(&Limiter::with_clock(&[RATE], 0.9, hands.clock()), &hands, Duration::from_secs(30));
    passed.extend(greedy(&Limiter::with_clock(&[RATE], 0.9, hands.clock()), &hands, Duration::from_secs(120)));
    assert!(fullest(&passed, Duration::from_secs(60)) <= 150);
    assert!(fullest(&passed, Duration::from_secs(1)) <= 10);
}

#[test]
fn two_destinations_of_an_account_share_it() {
    let hands = Hands::default();
    let limiter = Limiter::with_clock(&[RATE], 1.0, hands.clock());
    let (one, other) = (limiter.sit(), limiter.sit());
    one.set_share(1.0);
    other.set_share(0.5);
    assert!((limiter.share() - 0.75).abs() < f64::EPSILON);
    drop(one);
    assert!((limiter.share() - 0.5).abs() < f64::EPSILON);
}

// Issue 10: a 429 at one endpoint stopped all of them.
#[test]
fn a_429_shuts_the_gate_of_its_endpoint_only_and_lowers_its_rate_once() {
    let hands = Hands::default();
    let limiter = Limiter::with_clock(&[RATE, RATE], 0.9, hands.clock());
    assert_eq!(limiter.throttled(0, Some(Duration::from_secs(30))), Duration::from_secs(30));
    limiter.throttled(0, Some(Duration::from_secs(10)));
    assert!((limiter.throttle(0) - DECREASE).abs() < 1e-9, "the siblings in flight count once");
    assert!((limiter.throttle(1) - 1.0).abs() < 1e-9);
    let closed = Closed { remaining: Duration::from_secs(30), gate: Gate::Throttled };
    assert_eq!(limiter.step(&limiter.endpoints[0], &mut false), Step::Closed(closed));
    assert_eq!(limiter.step(&limiter.endpoints[1], &mut false), Step::Go);
    hands.advance(Duration::from_secs(29));
    assert_eq!(limiter.step(&limiter.endpoints[0], &mut false), Step::Wait(Duration::from_secs(1)));
    hands.advance(Duration::from_secs(1));
    assert!(!matches!(limiter.step(&limiter.endpoints[0], &mut false), Step::Closed(_)));
}

#[test]
fn an_endpoint_that_fails_is_shut_by_itself_and_the_account_shuts_all() {
    let hands = Hands::default();
    let limiter = Limiter::with_clock(&[RATE, RATE], 0.9, hands.clock());
    limiter.failing(0, None);
    assert_eq!((limiter.gate_remaining(0), limiter.gate_remaining(1)), (GATE_FIRST, Duration::ZERO));
    limiter.pause(Duration::from_secs(9));
    let closed = Closed { remaining: Duration::from_secs(9), gate: Gate::Account };
    for endpoint in &limiter.endpoints {
        assert_eq!(limiter.step(endpoint, &mut false), Step::Closed(closed));
    }
}

#[test]
fn a_429_without_a_wish_waits_longer_each_time_and_success_forgets() {
    let hands = Hands::default();
    let limiter = Limiter::with_clock(&[RATE], 0.9, hands.clock());
    let mut waits = Vec::new();
    for _ in 0..9 {
        waits.push(limiter.throttled(0, None).as_secs());
        hands.advance(limiter.gate_remaining(0));
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    limiter.succeeded(0);
    assert_eq!(limiter.throttled(0, None), Duration::from_secs(1));
}

#[test]
fn a_lowered_rate_recovers_step_by_step() {
    let hands = Hands::default();
    let limiter = Limiter::with_clock(&[RATE], 0.9, hands.clock());
    limiter.throttled(0, Some(Duration::ZERO));
    limiter.succeeded(0);
    assert!((limiter.throttle(0) - 0.7).abs() < 1e-9, "not at once");
    for expected in [0.8, 0.9, 1.0, 1.0] {
        hands.advance(INCREASE_AFTER);
        limiter.succeeded(0);
        assert!((limiter.throttle(0) - expected).abs() < 1e-9);
    }
}

#[tokio::test]
async fn a_request_does_not_wait_at_a_gate_that_stays_shut() {
    let limiter = Limiter::new(&[RATE], 0.9);
    limiter.pause(Duration::from_secs(120));
    let closed = limiter.acquire(0).await.unwrap_err();
    assert!(closed.remaining > Duration::from_secs(100));
}
