//! Ends the process when an input does not end: nothing can stop a thread that runs for ever, and a test that hangs says nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// When an input has not ended after this time, it never will. Half a minute beyond what the busiest machine needs.
const HANG: Duration = Duration::from_secs(60);

/// How often it looks.
const TICK: Duration = Duration::from_secs(2);

/// No input is being tried.
const IDLE: u64 = u64::MAX;
/// The target is through.
const ENDED: u64 = u64::MAX - 1;

pub(crate) struct Watch {
    /// When the input was begun, in milliseconds since `start`; or one of the two above.
    begun: Arc<AtomicU64>,
    start: Instant,
    thread: JoinHandle<()>,
}

impl Watch {
    /// `last` is where the input stands.
    pub fn start(target: &str, last: &Path) -> Self {
        let (start, begun) = (Instant::now(), Arc::new(AtomicU64::new(IDLE)));
        let (watched, target, last) = (Arc::clone(&begun), target.to_owned(), last.to_owned());
        let thread = std::thread::spawn(move || watch(start, &watched, &target, &last));
        Self { begun, start, thread }
    }

    pub fn begin(&self) {
        self.begun.store(millis(self.start), Ordering::Relaxed);
    }

    pub fn finish(&self) {
        self.begun.store(IDLE, Ordering::Relaxed);
    }
}

/// However the target ends, by a panic too.
impl Drop for Watch {
    fn drop(&mut self) {
        self.begun.store(ENDED, Ordering::Relaxed);
        self.thread.thread().unpark();
    }
}

fn watch(start: Instant, begun: &AtomicU64, target: &str, last: &PathBuf) {
    loop {
        match begun.load(Ordering::Relaxed) {
            ENDED => return,
            IDLE => {}
            since if Duration::from_millis(millis(start).saturating_sub(since)) > HANG => end(target, last),
            _ => {}
        }
        std::thread::park_timeout(TICK);
    }
}

#[expect(clippy::print_stderr, reason = "the process ends here, and somebody has to be told why")]
#[expect(clippy::disallowed_methods, reason = "a thread that runs for ever cannot be stopped in any other way")]
fn end(target: &str, last: &Path) -> ! {
    eprintln!("fuzz target {target}: an input has not ended after {HANG:?}\n  input: {}", last.display());
    std::process::abort()
}

fn millis(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(0)
}
