//! Whether the process lives and whether it is ready.
//!
//! *Live* asks only whether the registered loops still turn: a process that hangs is cured by a restart. *Ready* asks whether every
//! registered part has what it needs. Neither ever asks about lag or a vendor: a restart cures no outage at a vendor, and an
//! orchestrator that believed it would turn one into a crash loop.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// How long a loop may take for one turn. The longest honest turn is a Kafka transaction that waits for a broker (30 s) and a batch
/// that waits for V8 (a few seconds).
pub const TICK_MAX: Duration = Duration::from_secs(60);

/// The registered loops and parts.
#[derive(Default)]
pub struct Registry {
    beats: Mutex<Vec<Weak<Beat>>>,
    parts: Mutex<Vec<Weak<Part>>>,
    stopping: AtomicBool,
}

/// A loop that ticks.
#[derive(Debug, Clone)]
pub struct Heartbeat(Arc<Beat>);

#[derive(Debug)]
struct Beat {
    name: String,
    registered: Instant,
    /// Milliseconds from `registered` to the last tick.
    last_ms: AtomicU64,
}

/// A part that is ready or not.
#[derive(Debug, Clone)]
pub struct Readiness(Arc<Part>);

#[derive(Debug)]
struct Part {
    name: String,
    /// Why it is not ready; `None` when it is.
    missing: Mutex<Option<String>>,
}

// === impl Heartbeat ===

impl Heartbeat {
    /// One turn of the loop is done. A clock reading and an atomic store.
    pub fn tick(&self) {
        self.0.last_ms.store(millis(self.0.registered.elapsed()), Ordering::Relaxed);
    }
}

// === impl Readiness ===

impl Readiness {
    pub fn ready(&self) {
        self.set(None);
    }

    /// `why` says what is missing, for the person who reads `/readyz`.
    pub fn not_ready(&self, why: impl Into<String>) {
        self.set(Some(why.into()));
    }

    fn set(&self, missing: Option<String>) {
        *self.0.missing.lock().unwrap_or_else(PoisonError::into_inner) = missing;
    }
}

// === impl Registry ===

impl Registry {
    pub(super) fn heartbeat(&self, name: &str) -> Heartbeat {
        let beat = Arc::new(Beat { name: name.to_owned(), registered: Instant::now(), last_ms: AtomicU64::new(0) });
        register(&self.beats, &beat);
        Heartbeat(beat)
    }

    pub(super) fn readiness(&self, name: &str) -> Readiness {
        let part = Arc::new(Part { name: name.to_owned(), missing: Mutex::new(Some("is starting".to_owned())) });
        register(&self.parts, &part);
        Readiness(part)
    }

    /// From now on the process is not ready: it drains, and nothing new should be sent to it.
    pub fn stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// The loops that stand still, each with the time since its last tick; none means that the process lives.
    pub fn stuck(&self) -> Vec<(String, Duration)> {
        self.stuck_for(TICK_MAX)
    }

    fn stuck_for(&self, max: Duration) -> Vec<(String, Duration)> {
        registered(&self.beats)
            .into_iter()
            .filter_map(|beat| {
                let age = beat
                    .registered
                    .elapsed()
                    .saturating_sub(Duration::from_millis(beat.last_ms.load(Ordering::Relaxed)));
                (age >= max).then(|| (beat.name.clone(), age))
            })
            .collect()
    }

    /// What is missing before the process is ready; nothing means that it is.
    pub fn missing(&self) -> Vec<String> {
        if self.stopping.load(Ordering::Relaxed) {
            return vec!["the process is shutting down".to_owned()];
        }
        let parts = registered(&self.parts);
        if parts.is_empty() {
            // Otherwise the process would be ready for a moment before its first part has registered.
            return vec!["the process is starting".to_owned()];
        }
        parts
            .into_iter()
            .filter_map(|part| {
                let missing = part.missing.lock().unwrap_or_else(PoisonError::into_inner);
                missing.as_ref().map(|why| format!("{}: {why}", part.name))
            })
            .collect()
    }
}

/// Adds an entry and forgets those that nobody holds any more, so that the list is as long as what lives.
fn register<T>(list: &Mutex<Vec<Weak<T>>>, entry: &Arc<T>) {
    let mut list = list.lock().unwrap_or_else(PoisonError::into_inner);
    list.retain(|entry| entry.strong_count() > 0);
    list.push(Arc::downgrade(entry));
}

fn registered<T>(list: &Mutex<Vec<Weak<T>>>) -> Vec<Arc<T>> {
    list.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_without_registered_parts_is_starting() {
        assert_eq!(Registry::default().missing(), ["the process is starting"]);
    }

    #[test]
    fn every_part_has_to_be_ready_and_the_missing_ones_are_named() {
        let registry = Registry::default();
        let kafka = registry.readiness("kafka");
        let route = registry.readiness("route.klaviyo");
        assert_eq!(registry.missing(), ["kafka: is starting", "route.klaviyo: is starting"]);
        kafka.ready();
        route.not_ready("restores its state");
        assert_eq!(registry.missing(), ["route.klaviyo: restores its state"]);
        route.ready();
        assert!(registry.missing().is_empty());
        registry.stopping();
        assert_eq!(registry.missing(), ["the process is shutting down"]);
    }

    #[test]
    fn a_part_that_is_gone_is_not_missed() {
        let registry = Registry::default();
        registry.readiness("kept").ready();
        let kept = registry.readiness("kept");
        kept.ready();
        drop(registry.readiness("gone"));
        assert!(registry.missing().is_empty());
    }

    #[test]
    fn a_loop_that_does_not_tick_is_stuck_and_one_that_has_ended_is_not() {
        let registry = Registry::default();
        let beat = registry.heartbeat("send");
        assert!(registry.stuck().is_empty());
        assert_eq!(registry.stuck_for(Duration::ZERO)[0].0, "send");
        drop(beat);
        assert!(registry.stuck_for(Duration::ZERO).is_empty());
    }

    #[test]
    fn a_tick_sets_the_age_back() {
        let registry = Registry::default();
        let early = Instant::now().checked_sub(Duration::from_secs(100)).unwrap();
        let beat = Arc::new(Beat { name: "old".into(), registered: early, last_ms: AtomicU64::new(0) });
        register(&registry.beats, &beat);
        assert_eq!(registry.stuck().len(), 1);
        Heartbeat(beat.clone()).tick();
        assert!(registry.stuck().is_empty());
    }
}
