//! How fast an account may be spoken to.
//!
//! A vendor counts requests per account and endpoint in fixed windows, of a second and of a minute. Two limiters in series keep
//! below both, at a configured part of what is documented. Three things make this hold in practice:
//!
//! - *Small bursts.* A limiter that starts anew has a full burst; it is a twentieth of a window, so that a restart cannot go
//!   beyond it. One that is rebuilt because a rate changed starts empty.
//! - *Shares.* Processes share an account by the lanes that they own; the destinations of one account in one process hold a
//!   [`Seat`] each, and the account's share is the mean of theirs, so that all processes together make one.
//! - *Answers.* A 429 shuts the gate of its endpoint for as long as the vendor asks, and lowers the endpoint's rate; success raises it
//!   again, step by step. The vendor counts each endpoint by itself, so the other endpoints go on: one that is overrun must not keep
//!   back what needs another. The account's own gate is shut only for trouble that all endpoints share.
//!
//! Nothing in here sends. Time comes from one clock that tests replace.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::sync::Semaphore;

use super::retry_after::RETRY_AFTER_MAX;

/// What a vendor documents for one endpoint: requests per second and per minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub per_second: u32,
    pub per_minute: u32,
}

/// A gate is shut for longer than a request should wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed {
    pub remaining: Duration,
    pub gate: Gate,
}

/// Which gate is shut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// The endpoint's, after a 429.
    Throttled,
    /// The endpoint's, after failures of the vendor.
    Failing,
    /// The account's.
    Account,
}

/// The limits of one account, shared by everything in this process that speaks to it.
#[derive(Debug)]
pub struct Limiter {
    endpoints: Vec<Endpoint>,
    /// The part of the documented limits that is used.
    part: f64,
    seats: Mutex<BTreeMap<u64, f64>>,
    seat_next: AtomicU64,
    gate: Mutex<Shut>,
    clock: Clock,
}

/// A destination's place at an account. It counts until it is dropped.
#[derive(Debug)]
pub struct Seat {
    limiter: Arc<Limiter>,
    number: u64,
}

/// The lowest part of a rate that is kept, so that a process which owns almost nothing can still ask.
const PART_MIN: f64 = 0.001;

/// The highest part that can be asked for. Above 1 is for simulators: benchmarks and crash tests want no limit.
pub const PART_MAX: f64 = 10_000.0;

/// The burst is this part of a window: with the usual nine tenths of the limit in use, a full window, and the burst of a restart
/// within it, still stay below what is documented.
const BURST_PART: f64 = 0.05;

/// A request waits this long at a shut gate; beyond it the send stage hears about it and shows it.
pub const GATE_WAIT_MAX: Duration = Duration::from_secs(2);

/// Without a `Retry-After`, the first 429 shuts the gate for this long, and each further one for twice as long.
const GATE_FIRST: Duration = Duration::from_secs(1);

/// The longest of those.
const GATE_LAST: Duration = Duration::from_secs(60);

/// What is left of an endpoint's rate after a 429.
const DECREASE: f64 = 0.7;

/// The lowest that 429s bring a rate to.
const THROTTLE_MIN: f64 = 0.1;

/// What a rate regains, and how long it must have gone well for that.
const INCREASE: f64 = 0.1;
const INCREASE_AFTER: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Endpoint {
    rate: Rate,
    /// One at a time, first come first served: whoever holds it waits for the windows.
    turnstile: Semaphore,
    pace: Mutex<Pace>,
    gate: Mutex<Shut>,
}

#[derive(Debug)]
struct Pace {
    throttle: f64,
    /// When `throttle` changed last, on the limiter's clock.
    changed: Duration,
    windows: Arc<Windows>,
}

type Window = RateLimiter<NotKeyed, InMemoryState, Clock, NoOpMiddleware<Duration>>;

#[derive(Debug)]
struct Windows {
    steady: Window,
    burst: Window,
}

/// Until when a gate is shut.
#[derive(Debug, Default)]
struct Shut {
    not_before: Duration,
    /// 429s in a row that came without a `Retry-After`.
    strikes: u32,
    /// Shut because the endpoint fails, not because it was overrun.
    failing: bool,
}

/// What a request has to do next.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Go,
    Wait(Duration),
    Closed(Closed),
}

#[derive(Clone)]
struct Clock(Arc<dyn Fn() -> Duration + Send + Sync>);

// === impl Limiter ===

impl Limiter {
    /// `rates` are the documented limits, one per endpoint; callers name an endpoint by its index. `part` is the part of them that
    /// is used, above 0 and up to 1; of a simulator, up to [`PART_MAX`].
    pub fn new(rates: &[Rate], part: f64) -> Arc<Self> {
        let start = Instant::now();
        Self::with_clock(rates, part, Clock(Arc::new(move || start.elapsed())))
    }

    fn with_clock(rates: &[Rate], part: f64, clock: Clock) -> Arc<Self> {
        let part = if part.is_finite() { part.clamp(PART_MIN, PART_MAX) } else { PART_MIN };
        let endpoints = rates
            .iter()
            .map(|&rate| Endpoint {
                rate,
                turnstile: Semaphore::new(1),
                pace: Mutex::new(Pace {
                    throttle: 1.0,
                    changed: clock.now(),
                    windows: Arc::new(Windows::new(rate, part, &clock)),
                }),
                gate: Mutex::default(),
            })
            .collect();
        Arc::new(Self {
            endpoints,
            part,
            seats: Mutex::default(),
            seat_next: AtomicU64::new(0),
            gate: Mutex::default(),
            clock,
        })
    }

    /// Takes a seat. Until it says otherwise, its share is the whole.
    pub fn sit(self: &Arc<Self>) -> Seat {
        let number = self.seat_next.fetch_add(1, Ordering::Relaxed);
        let seat = Seat { limiter: Arc::clone(self), number };
        seat.set_share(1.0);
        seat
    }

    /// Waits until a request to the endpoint may be sent. Requests of one endpoint go in the order in which they asked.
    ///
    /// # Errors
    /// The gate stays shut for longer than a request should wait.
    pub async fn acquire(&self, endpoint: usize) -> Result<(), Closed> {
        let Some(place) = self.endpoints.get(endpoint) else {
            debug_assert!(false, "endpoint {endpoint} has no documented rate");
            return Ok(());
        };
        // The semaphore is never closed, so there is always a turn.
        let _turn = place.turnstile.acquire().await;
        let mut steady_passed = false;
        loop {
            match self.step(place, &mut steady_passed) {
                Step::Go => return Ok(()),
                Step::Wait(wait) => tokio::time::sleep(wait).await,
                Step::Closed(closed) => return Err(closed),
            }
        }
    }

    fn step(&self, endpoint: &Endpoint, steady_passed: &mut bool) -> Step {
        if let Some(closed) = self.shut(endpoint) {
            return if closed.remaining > GATE_WAIT_MAX { Step::Closed(closed) } else { Step::Wait(closed.remaining) };
        }
        let windows = Arc::clone(&lock(&endpoint.pace).windows);
        // The minute is the scarcer window, so it is waited for first; its cell is kept while the second fills up.
        if !*steady_passed {
            if let Err(not_until) = windows.steady.check() {
                return Step::Wait(not_until.wait_time_from(self.clock.now()));
            }
            *steady_passed = true;
        }
        match windows.burst.check() {
            Ok(()) => Step::Go,
            Err(not_until) => Step::Wait(not_until.wait_time_from(self.clock.now())),
        }
    }

    /// How long requests to the endpoint have to wait because a gate is shut; zero when all are open.
    pub fn gate_remaining(&self, endpoint: usize) -> Duration {
        self.endpoints.get(endpoint).and_then(|endpoint| self.shut(endpoint)).map_or(Duration::ZERO, |it| it.remaining)
    }

    /// The gate that keeps requests to the endpoint back for the longest time.
    fn shut(&self, endpoint: &Endpoint) -> Option<Closed> {
        let now = self.clock.now();
        let account = lock(&self.gate).not_before.saturating_sub(now);
        let own = {
            let gate = lock(&endpoint.gate);
            let why = if gate.failing { Gate::Failing } else { Gate::Throttled };
            Closed { remaining: gate.not_before.saturating_sub(now), gate: why }
        };
        let longest = if account > own.remaining { Closed { remaining: account, gate: Gate::Account } } else { own };
        (!longest.remaining.is_zero()).then_some(longest)
    }

    /// The vendor answered 429. Shuts the endpoint's gate for as long as it asks, else for a growing while, and lowers the endpoint's rate
    /// once per closing: the siblings that were in flight tell nothing new. Answers how long to wait.
    pub fn throttled(&self, endpoint: usize, retry_after: Option<Duration>) -> Duration {
        let Some(endpoint) = self.endpoints.get(endpoint) else { return retry_after.unwrap_or(GATE_FIRST) };
        let (wait, was_open) = self.close(&endpoint.gate, retry_after, false);
        if was_open {
            let mut pace = lock(&endpoint.pace);
            pace.throttle = (pace.throttle * DECREASE).max(THROTTLE_MIN);
            self.rebuild(endpoint.rate, &mut pace);
        }
        wait
    }

    /// The endpoint fails for everybody. Shuts its gate for as long as the vendor asks, else for a growing while; the other endpoints go
    /// on. Answers how long to wait.
    pub fn failing(&self, endpoint: usize, retry_after: Option<Duration>) -> Duration {
        let Some(endpoint) = self.endpoints.get(endpoint) else { return retry_after.unwrap_or(GATE_FIRST) };
        self.close(&endpoint.gate, retry_after, true).0
    }

    /// How long the gate stays shut now, and whether it was open before.
    fn close(&self, gate: &Mutex<Shut>, retry_after: Option<Duration>, failing: bool) -> (Duration, bool) {
        let now = self.clock.now();
        let mut gate = lock(gate);
        let was_open = gate.not_before <= now;
        let wait = retry_after.map_or_else(
            || {
                if was_open {
                    gate.strikes = gate.strikes.saturating_add(1);
                }
                GATE_FIRST.saturating_mul(1 << gate.strikes.saturating_sub(1).min(10)).min(GATE_LAST)
            },
            |wait| wait.min(RETRY_AFTER_MAX),
        );
        gate.failing = failing;
        gate.not_before = gate.not_before.max(now + wait);
        (wait, was_open)
    }

    /// The account as a whole is asked to wait, or fails.
    pub fn pause(&self, wait: Duration) {
        let mut gate = lock(&self.gate);
        gate.not_before = gate.not_before.max(self.clock.now() + wait.min(RETRY_AFTER_MAX));
    }

    /// A request was answered without trouble.
    pub fn succeeded(&self, endpoint: usize) {
        let Some(endpoint) = self.endpoints.get(endpoint) else { return };
        lock(&endpoint.gate).strikes = 0;
        let mut pace = lock(&endpoint.pace);
        if pace.throttle < 1.0 && self.clock.now().saturating_sub(pace.changed) >= INCREASE_AFTER {
            pace.throttle = (pace.throttle + INCREASE).min(1.0);
            self.rebuild(endpoint.rate, &mut pace);
        }
    }

    /// Which part of its rate an endpoint has left after 429s, between 0 and 1: what a gauge shows.
    pub fn throttle(&self, endpoint: usize) -> f64 {
        self.endpoints.get(endpoint).map_or(1.0, |endpoint| lock(&endpoint.pace).throttle)
    }

    /// The part of the account that belongs to this process: the mean of the seats' shares.
    fn share(&self) -> f64 {
        let seats = lock(&self.seats);
        if seats.is_empty() {
            return 1.0;
        }
        #[expect(clippy::cast_precision_loss, reason = "a handful of destinations")]
        let count = seats.len() as f64;
        seats.values().sum::<f64>() / count
    }

    fn rebuild_all(&self) {
        for endpoint in &self.endpoints {
            let mut pace = lock(&endpoint.pace);
            let changed = pace.changed;
            self.rebuild(endpoint.rate, &mut pace);
            // A new share says nothing about how the vendor takes it.
            pace.changed = changed;
        }
    }

    fn rebuild(&self, rate: Rate, pace: &mut Pace) {
        let part = (self.part * self.share() * pace.throttle).max(PART_MIN);
        pace.windows = Arc::new(Windows::drained(rate, part, &self.clock));
        pace.changed = self.clock.now();
    }
}

// === impl Seat ===

impl Seat {
    /// Tells which part of the account's limits belongs to this destination in this process: the share of its lanes that are
    /// owned here, between 0 and 1.
    pub fn set_share(&self, share: f64) {
        let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 1.0 };
        let before = lock(&self.limiter.seats).insert(self.number, share);
        if before != Some(share) {
            self.limiter.rebuild_all();
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        lock(&self.limiter.seats).remove(&self.number);
        self.limiter.rebuild_all();
    }
}

// === impl Windows ===

impl Windows {
    fn new(rate: Rate, part: f64, clock: &Clock) -> Self {
        let steady = quota(rate.per_minute, Duration::from_secs(60), part);
        let burst = quota(rate.per_second, Duration::from_secs(1), part);
        Self {
            steady: RateLimiter::direct_with_clock(steady, clock.clone()),
            burst: RateLimiter::direct_with_clock(burst, clock.clone()),
        }
    }

    /// Windows whose bursts are used up already, so that replacing a limiter never lets more through than keeping it.
    fn drained(rate: Rate, part: f64, clock: &Clock) -> Self {
        let windows = Self::new(rate, part, clock);
        for (window, limit, length) in [(&windows.steady, rate.per_minute, 60), (&windows.burst, rate.per_second, 1)] {
            let burst = quota(limit, Duration::from_secs(length), part).burst_size();
            // A fresh window has its whole burst, so this always conforms.
            let taken = window.check_n(burst);
            debug_assert!(matches!(taken, Ok(Ok(()))), "a fresh window gave less than its burst");
        }
        windows
    }
}

/// The quota that lets at most `limit * part` requests into any stretch of one window's length (one, where that is less than one,
/// at a correspondingly longer distance).
fn quota(limit: u32, window: Duration, part: f64) -> Quota {
    let capacity = f64::from(limit.max(1)) * part;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and a u32")]
    let (whole, burst) = (capacity.floor().max(1.0) as u32, (capacity * BURST_PART).floor().max(1.0) as u32);
    // After `burst` at once, one each period: a window then holds `burst + window / period - 1`.
    let period = if capacity < 1.0 {
        window.div_f64(capacity)
    } else {
        window / (whole - burst + 1).max(1) + Duration::from_nanos(1)
    };
    let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
    Quota::with_period(period).unwrap_or(Quota::per_second(NonZeroU32::MIN)).allow_burst(burst)
}

// === impl Clock ===

impl Clock {
    fn now(&self) -> Duration {
        (self.0)()
    }
}

impl governor::clock::Clock for Clock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        (self.0)()
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

/// The values behind these locks are whole at every point where a panic could happen, so a poisoned lock is still good.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
