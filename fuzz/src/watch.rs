//! Ends the process when an input does not end: nothing can stop a thread that runs for ever, and a test that hangs says nothing.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock::ThreadTime;

/// When an input has not ended after so much processor time, it never will.
const HANG: Duration = Duration::from_secs(20);

/// How often it looks.
const TICK: Duration = Duration::from_secs(2);

/// No input is being tried.
const IDLE: u64 = 0;
/// The target is through.
const ENDED: u64 = u64::MAX;

pub(crate) struct Watch {
    /// The number of the input that is being tried, counted from 1; or one of the two above.
    current: Arc<AtomicU64>,
    inputs: Cell<u64>,
    /// Of the thread that tries them.
    clock: ThreadTime,
    thread: JoinHandle<()>,
}

impl Watch {
    /// Watches over the calling thread. `last` is where the input stands.
    pub fn start(target: &str, last: &Path) -> Self {
        let (current, clock) = (Arc::new(AtomicU64::new(IDLE)), ThreadTime::of_this_thread());
        let (watched, worked, target, last) = (Arc::clone(&current), clock.clone(), target.to_owned(), last.to_owned());
        let thread = std::thread::spawn(move || watch(&watched, &worked, &target, &last));
        Self { current, inputs: Cell::new(IDLE), clock, thread }
    }

    pub fn begin(&self) {
        self.inputs.set(self.inputs.get() + 1);
        self.current.store(self.inputs.get(), Ordering::Relaxed);
    }

    pub fn finish(&self) {
        self.current.store(IDLE, Ordering::Relaxed);
    }

    pub fn clock(&self) -> &ThreadTime {
        &self.clock
    }
}

/// However the target ends, by a panic too.
impl Drop for Watch {
    fn drop(&mut self) {
        self.current.store(ENDED, Ordering::Relaxed);
        self.thread.thread().unpark();
    }
}

fn watch(current: &AtomicU64, worked: &ThreadTime, target: &str, last: &Path) {
    // The input that was met last, and what the thread had worked then.
    let (mut met, mut since) = (IDLE, Duration::ZERO);
    loop {
        match current.load(Ordering::Relaxed) {
            ENDED => return,
            IDLE => met = IDLE,
            same if same == met => {
                if worked.now().saturating_sub(since) > HANG {
                    end(target, last);
                }
            }
            other => (met, since) = (other, worked.now()),
        }
        std::thread::park_timeout(TICK);
    }
}

#[expect(clippy::print_stderr, reason = "the process ends here, and somebody has to be told why")]
#[expect(clippy::disallowed_methods, reason = "a thread that runs for ever cannot be stopped in any other way")]
fn end(target: &str, last: &Path) -> ! {
    eprintln!("fuzz target {target}: an input has not ended after {HANG:?} of work\n  input: {}", last.display());
    std::process::abort()
}
