//! The processor time of a thread, readable by another one.

use std::time::Duration;

/// The clock of the thread that made it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ThreadClock {
    #[cfg(target_os = "linux")]
    id: libc::clockid_t,
    #[cfg(target_os = "linux")]
    thread: libc::pid_t,
    #[cfg(not(target_os = "linux"))]
    start: std::time::Instant,
}

#[cfg(target_os = "linux")]
impl ThreadClock {
    /// `None` if the system has no such clock.
    pub(crate) fn of_this_thread() -> Option<Self> {
        let mut id: libc::clockid_t = 0;
        // SAFETY: `id` is a valid place for the result, and `pthread_self` is this thread, which is alive.
        let failed = unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &raw mut id) } != 0;
        // SAFETY: no arguments; it cannot fail.
        let thread = unsafe { libc::gettid() };
        (!failed).then_some(Self { id, thread })
    }

    /// How long the thread has run; `None` when it is gone.
    pub(crate) fn now(&self) -> Option<Duration> {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is a valid place for the result. The clock of a thread that has ended is an error, not a fault: the
        // identifier names it by number.
        let failed = unsafe { libc::clock_gettime(self.id, &raw mut time) } != 0;
        if failed {
            return None;
        }
        Some(Duration::new(u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?))
    }

    /// Lets every other thread go first.
    pub(crate) fn lower_priority(&self) {
        let Ok(thread) = libc::id_t::try_from(self.thread) else { return };
        // SAFETY: no pointers; on Linux the call takes a thread's number, and one that is gone is an error. The kernel reuses a number
        // only after its thread has ended, and the caller knows that this one has not.
        let failed = unsafe { libc::setpriority(libc::PRIO_PROCESS, thread, 19) } != 0;
        if failed {
            tracing::debug!("the priority of a thread that was given up could not be lowered");
        }
    }
}

/// Elsewhere the limits are in wall time.
#[cfg(not(target_os = "linux"))]
impl ThreadClock {
    pub(crate) fn of_this_thread() -> Option<Self> {
        Some(Self { start: std::time::Instant::now() })
    }

    pub(crate) fn now(&self) -> Option<Duration> {
        Some(self.start.elapsed())
    }

    pub(crate) fn lower_priority(&self) {}
}
