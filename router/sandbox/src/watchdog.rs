//! The time limit: one thread looks after all isolates and stops what runs too long.
//!
//! An isolate's slot is locked while it is stopped, and its worker takes the same lock when it is done. So a stop can never come late
//! and hit the call after the one that it was meant for.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock::ThreadClock;

/// How exact the limit is. Nothing ticks while no transform runs.
const TICK: Duration = Duration::from_millis(5);

pub(crate) struct Watchdog {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    slots: Vec<Mutex<Slot>>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    armed: usize,
    stopped: bool,
}

#[derive(Default)]
struct Slot {
    isolate: Option<v8::IsolateHandle>,
    clock: Option<ThreadClock>,
    /// On the worker's own clock.
    deadline: Option<Duration>,
    fired: bool,
}

/// One worker's end of it.
#[derive(Clone)]
pub(crate) struct Watch {
    shared: Arc<Shared>,
    index: usize,
}

/// A panic while one of these locks is held leaves nothing half-done that the next holder could trip over.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Watchdog ===

impl Watchdog {
    pub(crate) fn start(workers: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            slots: (0..workers).map(|_| Mutex::default()).collect(),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let watched = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("sandbox-watchdog".to_owned()).spawn(move || watched.watch())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    pub(crate) fn watch(&self, index: usize) -> Watch {
        Watch { shared: Arc::clone(&self.shared), index }
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
    fn watch(&self) {
        let mut state = lock(&self.state);
        while !state.stopped {
            state = if state.armed == 0 {
                self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
            } else {
                self.changed.wait_timeout(state, TICK).unwrap_or_else(PoisonError::into_inner).0
            };
            drop(state);
            for slot in &self.slots {
                lock(slot).check();
            }
            state = lock(&self.state);
        }
    }
}

impl Slot {
    fn check(&mut self) {
        let (Some(deadline), Some(clock), Some(isolate)) = (self.deadline, self.clock, &self.isolate) else { return };
        if !self.fired && clock.now().is_some_and(|now| now >= deadline) {
            self.fired = true;
            isolate.terminate_execution();
        }
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
        *lock(&self.shared.slots[self.index]) = Slot { isolate: Some(isolate), clock, deadline: None, fired: false };
    }

    /// From now on the isolate may run for this long.
    pub(crate) fn arm(&self, limit: Duration) {
        {
            let mut slot = lock(&self.shared.slots[self.index]);
            slot.deadline = slot.clock.and_then(|clock| clock.now()).map(|now| now + limit);
            slot.fired = false;
        }
        let mut state = lock(&self.shared.state);
        state.armed += 1;
        if state.armed == 1 {
            self.shared.changed.notify_all();
        }
    }

    /// Ends the limit and says whether it was hit. After this no stop of the call before can come.
    pub(crate) fn disarm(&self) -> bool {
        let fired = {
            let mut slot = lock(&self.shared.slots[self.index]);
            slot.deadline = None;
            slot.fired
        };
        let mut state = lock(&self.shared.state);
        state.armed = state.armed.saturating_sub(1);
        fired
    }
}
