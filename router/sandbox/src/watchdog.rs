//! The time limit: one thread looks after all isolates and stops what runs too long.
//!
//! An isolate's slot is locked while it is stopped, and its worker takes the same lock when it is done. So a stop can never come late
//! and hit the call after the one that it was meant for.
//!
//! Some built-in functions of V8 do not look for a stop while they work. A thread that does not return soon after it was stopped
//! (`Options::stop_grace`) is given up: the watchdog answers its job and starts another thread in its place. V8 cannot end the old thread, so it runs on
//! with the lowest priority.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::clock::ThreadClock;
use crate::job::Abandon;

/// How exact the limit is. Nothing ticks while no transform runs.
const TICK: Duration = Duration::from_millis(5);

/// What a thread gets to return in wall time, in case it waits for something instead of running.
const GRACE_WALL: Duration = Duration::from_secs(30);

pub(crate) struct Watchdog {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    grace: Duration,
    slots: Mutex<Vec<Arc<Mutex<Slot>>>>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    armed: usize,
    stopped: bool,
}

struct Slot {
    /// Which worker it is.
    index: usize,
    isolate: Option<v8::IsolateHandle>,
    clock: Option<ThreadClock>,
    job: Option<Arc<dyn Abandon>>,
    /// On the worker's own clock.
    deadline: Option<Duration>,
    /// When it was stopped, on the worker's clock and on the wall's.
    fired: Option<(Duration, Instant)>,
    abandoned: bool,
}

/// One worker's end of it.
#[derive(Clone)]
pub(crate) struct Watch {
    shared: Arc<Shared>,
    slot: Arc<Mutex<Slot>>,
}

/// What has to be done about a slot.
enum Finding {
    Nothing,
    /// Its thread does not return.
    Lost(usize, Option<Arc<dyn Abandon>>),
}

/// A panic while one of these locks is held leaves nothing half-done that the next holder could trip over.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Watchdog ===

impl Watchdog {
    /// `replace` is called with the index of a worker that was given up, and a watch for the thread that takes its place.
    pub(crate) fn start(grace: Duration, replace: impl Fn(usize, Watch) + Send + 'static) -> std::io::Result<Self> {
        let shared =
            Arc::new(Shared { grace, slots: Mutex::default(), state: Mutex::default(), changed: Condvar::new() });
        let watched = Arc::clone(&shared);
        let thread =
            std::thread::Builder::new().name("sandbox-watchdog".to_owned()).spawn(move || watched.watch(&replace))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    pub(crate) fn watch(&self, index: usize) -> Watch {
        self.shared.enlist(index)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        lock(&self.shared.state).stopped = true;
        self.shared.changed.notify_all();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the sandbox's watchdog panicked");
        }
    }
}

// === impl Shared ===

impl Shared {
    fn enlist(self: &Arc<Self>, index: usize) -> Watch {
        let slot = Arc::new(Mutex::new(Slot {
            index,
            isolate: None,
            clock: None,
            job: None,
            deadline: None,
            fired: None,
            abandoned: false,
        }));
        lock(&self.slots).push(Arc::clone(&slot));
        Watch { shared: Arc::clone(self), slot }
    }

    fn watch(self: &Arc<Self>, replace: &impl Fn(usize, Watch)) {
        let mut state = lock(&self.state);
        while !state.stopped {
            state = if state.armed == 0 {
                self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
            } else {
                self.changed.wait_timeout(state, TICK).unwrap_or_else(PoisonError::into_inner).0
            };
            drop(state);
            let slots = lock(&self.slots).clone();
            for slot in &slots {
                let finding = lock(slot).check(self.grace);
                if let Finding::Lost(index, job) = finding {
                    self.give_up(slot, index, job, replace);
                }
            }
            state = lock(&self.state);
        }
    }

    fn give_up(
        self: &Arc<Self>,
        slot: &Arc<Mutex<Slot>>,
        index: usize,
        job: Option<Arc<dyn Abandon>>,
        replace: &impl Fn(usize, Watch),
    ) {
        lock(&self.slots).retain(|other| !Arc::ptr_eq(other, slot));
        {
            let mut state = lock(&self.state);
            state.armed = state.armed.saturating_sub(1);
        }
        // The new thread first: whoever hears of the loss may have more work at once.
        replace(index, self.enlist(index));
        if let Some(job) = job {
            job.abandon();
        }
    }
}

impl Slot {
    fn check(&mut self, grace: Duration) -> Finding {
        let (Some(deadline), Some(clock), Some(isolate)) = (self.deadline, self.clock, &self.isolate) else {
            return Finding::Nothing;
        };
        let Some(now) = clock.now() else { return Finding::Nothing };
        match self.fired {
            None if now >= deadline => {
                self.fired = Some((now, Instant::now()));
                isolate.terminate_execution();
            }
            Some((at, since)) if now >= at + grace || since.elapsed() >= GRACE_WALL => {
                self.abandoned = true;
                self.deadline = None;
                clock.lower_priority();
                return Finding::Lost(self.index, self.job.take());
            }
            None | Some(_) => {}
        }
        Finding::Nothing
    }
}

// === impl Watch ===

impl Watch {
    /// Called on the worker's thread, whenever it has a new isolate.
    pub(crate) fn enroll(&self, isolate: v8::IsolateHandle) {
        let clock = ThreadClock::of_this_thread();
        if clock.is_none() {
            tracing::error!("a thread's processor time cannot be read here; transforms have no time limit");
        }
        let mut slot = lock(&self.slot);
        slot.isolate = Some(isolate);
        slot.clock = clock;
        (slot.deadline, slot.fired) = (None, None);
    }

    /// Which job the worker works on: the one that is answered if the worker does not return.
    pub(crate) fn begin(&self, job: Arc<dyn Abandon>) {
        lock(&self.slot).job = Some(job);
    }

    /// The worker is done with its job. Says whether it was given up meanwhile: then another thread has its place, and it must end.
    pub(crate) fn end(&self) -> bool {
        let mut slot = lock(&self.slot);
        slot.job = None;
        slot.abandoned
    }

    /// From now on the isolate may run for this long. False when its thread was given up: it must not run anything then, because nobody
    /// would stop it.
    #[must_use]
    pub(crate) fn arm(&self, limit: Duration) -> bool {
        {
            let mut slot = lock(&self.slot);
            if slot.abandoned {
                return false;
            }
            slot.deadline = slot.clock.and_then(|clock| clock.now()).map(|now| now + limit);
            slot.fired = None;
        }
        let mut state = lock(&self.shared.state);
        state.armed += 1;
        if state.armed == 1 {
            self.shared.changed.notify_all();
        }
        true
    }

    /// Ends the limit and says whether it was hit. After this no stop of the call before can come.
    pub(crate) fn disarm(&self) -> bool {
        let fired = {
            let mut slot = lock(&self.slot);
            if slot.abandoned {
                return true;
            }
            slot.deadline = None;
            slot.fired.take().is_some()
        };
        let mut state = lock(&self.shared.state);
        state.armed = state.armed.saturating_sub(1);
        fired
    }
}
