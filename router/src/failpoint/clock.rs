//! The injected clock: a file says how far the wall clock is off.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Instant;

use tracing::{error, warn};

use super::Unusable;

const VARIABLE: &str = "TAILWATER_CLOCK_FILE";

/// How long a reading holds.
const INTERVAL_MS: u64 = 100;

static CLOCK: OnceLock<Clock> = OnceLock::new();

struct Clock {
    path: PathBuf,
    epoch: Instant,
    /// When the file is read again, in milliseconds of `epoch`.
    next_ms: AtomicU64,
    shift_ms: AtomicI64,
}

pub(super) fn prepare() -> Result<(), Unusable> {
    let Some(path) = std::env::var_os(VARIABLE).map(PathBuf::from) else { return Ok(()) };
    let shift = read(&path)
        .ok_or_else(|| Unusable(format!("{VARIABLE}: expected a number of milliseconds in {}", path.display())))?;
    let clock =
        Clock { path, epoch: Instant::now(), next_ms: AtomicU64::new(INTERVAL_MS), shift_ms: AtomicI64::new(shift) };
    warn!(shift_ms = shift, "the wall clock is injected");
    CLOCK.set(clock).map_err(|_| Unusable("the clock was prepared twice".into()))
}

/// What is added to the wall clock, in milliseconds.
pub fn shift_ms() -> i64 {
    CLOCK.get().map_or(0, Clock::shift)
}

impl Clock {
    fn shift(&self) -> i64 {
        let elapsed = u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX);
        let due = self.next_ms.load(Ordering::Relaxed);
        let is_ours = elapsed >= due
            && self.next_ms.compare_exchange(due, elapsed + INTERVAL_MS, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if is_ours {
            // A file that is being written anew is empty for a moment: the last reading holds.
            match read(&self.path) {
                Some(shift) => {
                    let before = self.shift_ms.swap(shift, Ordering::Relaxed);
                    if before != shift {
                        warn!(before_ms = before, shift_ms = shift, "the wall clock is stepped");
                    }
                }
                None if !self.path.exists() => error!("{} is gone; the clock stays as it is", self.path.display()),
                None => {}
            }
        }
        self.shift_ms.load(Ordering::Relaxed)
    }
}

fn read(path: &Path) -> Option<i64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_seen_when_the_file_is_due_and_half_a_file_changes_nothing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "-3600000\n").unwrap();
        let clock = Clock {
            path: file.path().to_owned(),
            epoch: Instant::now(),
            next_ms: AtomicU64::new(0),
            shift_ms: AtomicI64::new(0),
        };
        assert_eq!(clock.shift(), -3_600_000);
        std::fs::write(file.path(), "5").unwrap();
        clock.next_ms.store(u64::MAX, Ordering::Relaxed);
        assert_eq!(clock.shift(), -3_600_000);
        clock.next_ms.store(0, Ordering::Relaxed);
        assert_eq!(clock.shift(), 5);
        std::fs::write(file.path(), "").unwrap();
        clock.next_ms.store(0, Ordering::Relaxed);
        assert_eq!(clock.shift(), 5);
    }
}
