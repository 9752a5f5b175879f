//! Waiting for something to become so.

use std::time::{Duration, Instant};

/// How long most things may take on a machine that does other work too.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Asks until the answer is `Ok`; panics with the last `Err` when `patience` is over.
pub fn eventually<T>(what: &str, patience: Duration, mut look: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        match look() {
            Ok(value) => return value,
            Err(seen) if Instant::now() >= deadline => {
                panic!("{what}: not so after {} s; last seen: {seen}", patience.as_secs())
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// Asks until the values are equal.
pub fn eventually_equal<T: PartialEq + std::fmt::Debug>(what: &str, expected: &T, mut look: impl FnMut() -> T) {
    eventually(what, PATIENCE, || {
        let seen = look();
        if seen == *expected { Ok(()) } else { Err(format!("{seen:?}, expected {expected:?}")) }
    });
}

/// Looks again and again for `time`, and panics as soon as it is not so: for what must *not* happen.
pub fn steadily(what: &str, time: Duration, mut look: impl FnMut() -> Result<(), String>) {
    let deadline = Instant::now() + time;
    while Instant::now() < deadline {
        if let Err(seen) = look() {
            panic!("{what}: {seen}");
        }
        std::thread::sleep(PAUSE);
    }
}
