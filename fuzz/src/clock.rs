//! How long a thread has really worked. On a machine that is busy with other things an input of a millisecond may take seconds by the
//! clock on the wall, and would be called slow for it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The processor time of one thread; the time on the wall where the system does not tell (Linux does).
#[derive(Debug, Clone)]
pub(crate) struct ThreadTime {
    statistics: Option<PathBuf>,
    start: Instant,
}

impl ThreadTime {
    /// Of the thread that calls this; the value may be asked from another one.
    pub fn of_this_thread() -> Self {
        let thread = std::fs::read_link("/proc/thread-self").ok();
        let statistics = thread.map(|thread| Path::new("/proc").join(thread).join("schedstat"));
        Self { statistics: statistics.filter(|path| path.exists()), start: Instant::now() }
    }

    /// Only differences mean something.
    pub fn now(&self) -> Duration {
        let text = self.statistics.as_ref().and_then(|path| std::fs::read_to_string(path).ok());
        // The first number is the time on a processor, in nanoseconds.
        match text.and_then(|text| text.split(' ').next()?.parse().ok()) {
            Some(nanoseconds) => Duration::from_nanos(nanoseconds),
            None => self.start.elapsed(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_time() {
        let clock = ThreadTime::of_this_thread();
        let start = clock.now();
        let mut sum = 0_u64;
        while clock.now() == start {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(clock.now() > start);
    }
}
