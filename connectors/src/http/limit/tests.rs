use proptest::prelude::*;

use super::*;

const RATE: Rate = Rate { windows: &[Window::per_second(10), Window::per_minute(150)] };

static ONE: Endpoint = Endpoint::new("POST /one", RATE);
static TWO: Endpoint = Endpoint::new("POST /two", RATE);
static ONE_AS_WELL: Endpoint = Endpoint::new("PUT /one", RATE).limited_by("POST /one");

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
    let limit = limiter.limit(&ONE);
    while hands.now() < end {
        match limiter.step(&limit) {
            Step::Go => passed.push(hands.now()),
            Step::Wait(wait) | Step::Closed(Closed { remaining: wait, .. }) => {
                hands.advance(wait.max(Duration::from_nanos(1)));
            }
        }
    }
    passed
}

/// A limiter with these windows everywhere.
fn limiter(windows: &[Window], part: f64, hands: &Hands) -> Arc<Limiter> {
    let limiter = Limiter::with_clock(part, hands.clock());
    limiter.set_every_rate(windows.to_vec());
    limiter
}

/// Windows as vendors document them: of 1 s, 3 s, a minute and an hour, in any company.
fn windows() -> impl Strategy<Value = Vec<Window>> {
    let window = (prop::sample::select(vec![1_u64, 3, 60, 3_600]), 1_u32..400)
        .prop_map(|(seconds, requests)| Window::new(requests, Duration::from_secs(seconds)));
    prop::collection::vec(window, 1..4)
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
    fn no_window_is_ever_exceeded_and_nine_tenths_of_the_limit_are_used(windows in windows()) {
        let hands = Hands::default();
        let longest = windows.iter().map(|window| window.per).max().unwrap();
        let end = longest * 3;
        let passed = greedy(&limiter(&windows, 1.0, &hands), &hands, end);
        for window in &windows {
            let most = fullest(&passed, window.per);
            prop_assert!(most <= window.requests as usize, "{most} in {window:?}");
        }
        // What the tightest window lets through.
        let allowed = windows.iter().map(|window| f64::from(window.requests) * end.div_duration_f64(window.per));
        let allowed = allowed.fold(f64::INFINITY, f64::min);
        #[expect(clippy::cast_precision_loss, reason = "a test's small numbers")]
        let used = passed.len() as f64;
        prop_assert!(used >= 0.9 * allowed - 1.0, "{used} of {allowed}");
    }

    #[test]
    fn processes_that_share_an_account_keep_its_windows_together(
        windows in windows(), parts in prop::collection::vec(0.05f64..1.0, 2..6),
    ) {
        let sum: f64 = parts.iter().sum();
        let mut passed = Vec::new();
        for part in &parts {
            let hands = Hands::default();
            let limiter = limiter(&windows, 0.95, &hands);
            let seat = limiter.sit();
            seat.set_share(part / sum);
            passed.extend(greedy(&limiter, &hands, Duration::from_secs(180)));
        }
        passed.sort_unstable();
        for window in windows {
            let (most, allowed) = (fullest(&passed, window.per), window.requests as usize);
            // A process can always ask now and then, even where its part is less than one request in a window.
            prop_assert!(most <= allowed.max(parts.len()), "{most} in {window:?}");
        }
    }

    #[test]
    fn a_share_that_changes_all_the_time_gains_nothing(shares in prop::collection::vec(0.0f64..1.0, 1..40)) {
        let hands = Hands::default();
        let limiter = Limiter::with_clock(0.9, hands.clock());
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
    let limiter = Limiter::with_clock(0.9, hands.clock());
    let passed = greedy(&limiter, &hands, Duration::from_secs(600)).len();
    assert!(passed > 1_290, "{passed} of 1,350 in ten minutes");
}

#[test]
fn a_restart_stays_within_the_documented_window() {
    let hands = Hands::default();
    let mut passed = greedy(&Limiter::with_clock(0.9, hands.clock()), &hands, Duration::from_secs(30));
    passed.extend(greedy(&Limiter::with_clock(0.9, hands.clock()), &hands, Duration::from_secs(120)));
    assert!(fullest(&passed, Duration::from_secs(60)) <= 150);
    assert!(fullest(&passed, Duration::from_secs(1)) <= 10);
}

#[test]
fn two_destinations_of_an_account_share_it() {
    let hands = Hands::default();
    let limiter = Limiter::with_clock(1.0, hands.clock());
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
    let limiter = Limiter::with_clock(0.9, hands.clock());
    assert_eq!(limiter.throttled(&ONE, Some(Duration::from_secs(30))), Duration::from_secs(30));
    limiter.throttled(&ONE, Some(Duration::from_secs(10)));
    assert!((limiter.throttle(&ONE) - DECREASE).abs() < 1e-9, "the siblings in flight count once");
    assert!((limiter.throttle(&TWO) - 1.0).abs() < 1e-9);
    let closed = Closed { remaining: Duration::from_secs(30), gate: Gate::Throttled };
    assert_eq!(limiter.step(&limiter.limit(&ONE)), Step::Closed(closed));
    assert_eq!(limiter.step(&limiter.limit(&TWO)), Step::Go);
    hands.advance(Duration::from_secs(29));
    assert_eq!(limiter.step(&limiter.limit(&ONE)), Step::Wait(Duration::from_secs(1)));
    hands.advance(Duration::from_secs(1));
    assert!(!matches!(limiter.step(&limiter.limit(&ONE)), Step::Closed(_)));
}

#[test]
fn an_endpoint_that_fails_is_shut_by_itself_and_the_account_shuts_all() {
    let hands = Hands::default();
    let limiter = Limiter::with_clock(0.9, hands.clock());
    limiter.failing(&ONE, None);
    assert_eq!((limiter.gate_remaining(&ONE), limiter.gate_remaining(&TWO)), (GATE_FIRST, Duration::ZERO));
    limiter.pause(Duration::from_secs(9));
    let closed = Closed { remaining: Duration::from_secs(9), gate: Gate::Account };
    for endpoint in [&ONE, &TWO] {
        assert_eq!(limiter.step(&limiter.limit(endpoint)), Step::Closed(closed));
    }
}

#[test]
fn a_429_without_a_wish_waits_longer_each_time_and_success_forgets() {
    let hands = Hands::default();
    let limiter = Limiter::with_clock(0.9, hands.clock());
    let mut waits = Vec::new();
    for _ in 0..9 {
        waits.push(limiter.throttled(&ONE, None).as_secs());
        hands.advance(limiter.gate_remaining(&ONE));
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    limiter.succeeded(&ONE);
    assert_eq!(limiter.throttled(&ONE, None), Duration::from_secs(1));
}

#[test]
fn endpoints_of_one_key_share_its_windows_and_its_gate() {
    let hands = Hands::default();
    let limiter = limiter(&[Window::per_second(2)], 1.0, &hands);
    assert_eq!(limiter.step(&limiter.limit(&ONE)), Step::Go);
    assert!(matches!(limiter.step(&limiter.limit(&ONE_AS_WELL)), Step::Wait(_)));
    assert_eq!(limiter.step(&limiter.limit(&TWO)), Step::Go);
    limiter.throttled(&ONE_AS_WELL, Some(Duration::from_secs(30)));
    assert_eq!(limiter.gate_remaining(&ONE), Duration::from_secs(30));
    assert_eq!(limiter.gate_remaining(&TWO), Duration::ZERO);
}

#[test]
fn a_window_of_a_day_spreads_what_it_allows_and_does_not_stop_the_minute() {
    let hands = Hands::default();
    let limiter = limiter(&[Window::per_day(1_000), Window::per_second(3)], 1.0, &hands);
    let passed = greedy(&limiter, &hands, Duration::from_secs(86_400));
    assert!((900..=1_000).contains(&passed.len()), "{}", passed.len());
    assert!(passed[19] < Duration::from_secs(10), "a few are let go at once");
}

#[test]
fn a_lowered_rate_recovers_step_by_step() {
    let hands = Hands::default();
    let limiter = Limiter::with_clock(0.9, hands.clock());
    limiter.throttled(&ONE, Some(Duration::ZERO));
    limiter.succeeded(&ONE);
    assert!((limiter.throttle(&ONE) - 0.7).abs() < 1e-9, "not at once");
    for expected in [0.8, 0.9, 1.0, 1.0] {
        hands.advance(INCREASE_AFTER);
        limiter.succeeded(&ONE);
        assert!((limiter.throttle(&ONE) - expected).abs() < 1e-9);
    }
}

#[tokio::test]
async fn a_request_does_not_wait_at_a_gate_that_stays_shut() {
    let limiter = Limiter::new(0.9);
    limiter.pause(Duration::from_secs(120));
    let closed = limiter.acquire(&ONE).await.unwrap_err();
    assert!(closed.remaining > Duration::from_secs(100));
}
