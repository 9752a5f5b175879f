//! How fast an account may be spoken to.
//!
//! A vendor counts requests per account and limit key (mostly an endpoint, sometimes several together) in windows of a second, a minute, a
//! day. The limiter keeps below all of them ([`window`]), at a configured part of what is documented. Three things make this hold in
//! practice:
//!
//! - *Small bursts.* A limiter that starts anew has a full burst; it is a fiftieth of a window, so that a restart cannot go
//!   beyond it. One that is rebuilt because a rate changed starts empty.
//! - *Shares.* Processes share an account by the partitions that they own; the destinations of one account in one process hold a
//!   [`Seat`] each, and the account's share is the mean of theirs, so that all processes together make one.
//! - *Answers.* A 429 shuts the gate of its limit for as long as the vendor asks, and lowers the rate; success raises it
//!   again, step by step. The vendor counts each limit by itself, so other endpoints go on: one that is overrun must not keep
//!   back what needs another. The account's own gate is shut only for trouble that all endpoints share.
//!
//! Endpoints with the same limit key share its windows and its gate. What is kept of a key is made when it is first asked for.
//!
//! Nothing in here sends. Time comes from one clock that tests replace.

mod window;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::endpoint::Endpoint;
use super::retry_after::RETRY_AFTER_MAX;
use window::Schedule;
pub use window::{Rate, Window};

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
    limits: Mutex<HashMap<&'static str, Arc<Limit>>>,
    /// Windows that take the place of the documented ones.
    every_rate: Mutex<Option<Vec<Window>>>,
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

/// A request waits this long at a shut gate; beyond it the send stage hears about it and shows it.
pub const GATE_WAIT_MAX: Duration = Duration::from_secs(2);

/// A request that waits for its turn looks at the limits again after this time at the latest.
const WAIT_STEP_MAX: Duration = Duration::from_secs(1);

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

/// What is kept of one limit key.
#[derive(Debug)]
struct Limit {
    windows: Vec<Window>,
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
    schedule: Schedule,
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
    /// `part` is the part of the documented limits that is used, above 0 and up to 1; of a simulator, up to [`PART_MAX`].
    pub fn new(part: f64) -> Arc<Self> {
        let start = Instant::now();
        Self::with_clock(part, Clock(Arc::new(move || start.elapsed())))
    }

    fn with_clock(part: f64, clock: Clock) -> Arc<Self> {
        let part = if part.is_finite() { part.clamp(PART_MIN, PART_MAX) } else { PART_MIN };
        Arc::new(Self {
            limits: Mutex::default(),
            every_rate: Mutex::default(),
            part,
            seats: Mutex::default(),
            seat_next: AtomicU64::new(0),
            gate: Mutex::default(),
            clock,
        })
    }

    /// Uses these windows for every limit key instead of what the endpoints document. To be called before the first request.
    pub fn set_every_rate(&self, windows: Vec<Window>) {
        *lock(&self.every_rate) = Some(windows);
    }

    fn limit(&self, endpoint: &Endpoint) -> Arc<Limit> {
        let mut limits = lock(&self.limits);
        let limit = limits.entry(endpoint.limit_key).or_insert_with(|| {
            let windows = lock(&self.every_rate).clone().unwrap_or_else(|| endpoint.rate.windows.to_vec());
            let schedule = Schedule::new(&windows, self.part * self.share(), self.is_shared());
            let pace = Mutex::new(Pace { throttle: 1.0, changed: self.clock.now(), schedule });
            Arc::new(Limit { windows, turnstile: Semaphore::new(1), pace, gate: Mutex::default() })
        });
        Arc::clone(limit)
    }

    /// Takes a seat. Until it says otherwise, its share is the whole.
    pub fn sit(self: &Arc<Self>) -> Seat {
        let number = self.seat_next.fetch_add(1, Ordering::Relaxed);
        let seat = Seat { limiter: Arc::clone(self), number };
        seat.set_share(1.0);
        seat
    }

    /// Waits until a request to the endpoint may be sent. Requests of one limit key go in the order in which they asked.
    ///
    /// # Errors
    /// The gate stays shut for longer than a request should wait.
    pub async fn acquire(&self, endpoint: &Endpoint) -> Result<(), Closed> {
        let limit = self.limit(endpoint);
        // The semaphore is never closed, so there is always a turn.
        let _turn = limit.turnstile.acquire().await;
        loop {
            match self.step(&limit) {
                Step::Go => return Ok(()),
                Step::Wait(wait) => tokio::time::sleep(wait).await,
                Step::Closed(closed) => return Err(closed),
            }
        }
    }

    fn step(&self, limit: &Limit) -> Step {
        if let Some(closed) = self.shut(limit) {
            return if closed.remaining > GATE_WAIT_MAX { Step::Closed(closed) } else { Step::Wait(closed.remaining) };
        }
        match lock(&limit.pace).schedule.take(self.clock.now()) {
            Ok(()) => Step::Go,
            // It is asked for again now and then: the share may change meanwhile, and a window of a day must not hide that.
            Err(wait) => Step::Wait(wait.min(WAIT_STEP_MAX)),
        }
    }

    /// How long requests to the endpoint have to wait because a gate is shut; zero when all are open.
    pub fn gate_remaining(&self, endpoint: &Endpoint) -> Duration {
        self.shut(&self.limit(endpoint)).map_or(Duration::ZERO, |closed| closed.remaining)
    }

    /// The gate that keeps requests of a limit back for the longest time.
    fn shut(&self, limit: &Limit) -> Option<Closed> {
        let now = self.clock.now();
        let account = lock(&self.gate).not_before.saturating_sub(now);
        let own = {
            let gate = lock(&limit.gate);
            let why = if gate.failing { Gate::Failing } else { Gate::Throttled };
            Closed { remaining: gate.not_before.saturating_sub(now), gate: why }
        };
        let longest = if account > own.remaining { Closed { remaining: account, gate: Gate::Account } } else { own };
        (!longest.remaining.is_zero()).then_some(longest)
    }

    /// The vendor answered 429. Shuts the endpoint's gate for as long as it asks, else for a growing while, and lowers the endpoint's rate
    /// once per closing: the siblings that were in flight tell nothing new. Answers how long to wait.
    pub fn throttled(&self, endpoint: &Endpoint, retry_after: Option<Duration>) -> Duration {
        let limit = self.limit(endpoint);
        let (wait, was_open) = self.close(&limit.gate, retry_after, false);
        if was_open {
            let mut pace = lock(&limit.pace);
            pace.throttle = (pace.throttle * DECREASE).max(THROTTLE_MIN);
            self.rebuild(&limit.windows, &mut pace);
        }
        wait
    }

    /// The endpoint fails for everybody. Shuts its gate for as long as the vendor asks, else for a growing while; the other endpoints go
    /// on. Answers how long to wait.
    pub fn failing(&self, endpoint: &Endpoint, retry_after: Option<Duration>) -> Duration {
        self.close(&self.limit(endpoint).gate, retry_after, true).0
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
    pub fn succeeded(&self, endpoint: &Endpoint) {
        let limit = self.limit(endpoint);
        lock(&limit.gate).strikes = 0;
        let mut pace = lock(&limit.pace);
        if pace.throttle < 1.0 && self.clock.now().saturating_sub(pace.changed) >= INCREASE_AFTER {
            pace.throttle = (pace.throttle + INCREASE).min(1.0);
            self.rebuild(&limit.windows, &mut pace);
        }
    }

    /// Which part of its rate an endpoint has left after 429s, between 0 and 1: what a gauge shows.
    pub fn throttle(&self, endpoint: &Endpoint) -> f64 {
        lock(&self.limit(endpoint).pace).throttle
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

    /// Whether other processes use a part of the account.
    fn is_shared(&self) -> bool {
        self.share() < 1.0
    }

    fn rebuild_all(&self) {
        let limits: Vec<Arc<Limit>> = lock(&self.limits).values().map(Arc::clone).collect();
        for limit in limits {
            let mut pace = lock(&limit.pace);
            let changed = pace.changed;
            self.rebuild(&limit.windows, &mut pace);
            // A new share says nothing about how the vendor takes it.
            pace.changed = changed;
        }
    }

    fn rebuild(&self, windows: &[Window], pace: &mut Pace) {
        let part = (self.part * self.share() * pace.throttle).max(PART_MIN);
        let now = self.clock.now();
        pace.schedule = Schedule::drained(windows, part, self.is_shared(), now);
        pace.changed = now;
    }
}

// === impl Seat ===

impl Seat {
    /// Tells which part of the account's limits belongs to this destination in this process: the share of its partitions that are
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

// === impl Clock ===

impl Clock {
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
