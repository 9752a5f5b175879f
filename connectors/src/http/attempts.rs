//! What is known of a delivery between two of its attempts: how it has failed, and what the vendor's connector notes itself.
//!
//! A delivery that failed together with others goes in a smaller company next time, until it is alone (see [`super::parts`]). A delivery
//! that takes several requests notes here which of them have succeeded, so that none is repeated.
//!
//! All of it is advice: after a restart it is gone, and a repeated step says the same again. It is bounded by number, and an entry ends
//! with its delivery.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tailwater_core::DeliveryKey;

/// Entries per generation; with two generations, more deliveries than a destination has open at once.
const ENTRIES_MAX: usize = 25_000;

/// Entries by delivery, in two generations: when the younger one is full, it becomes the older one.
#[derive(Debug)]
pub struct Attempts<S = ()>(Mutex<Generations<S>>);

#[derive(Debug)]
struct Generations<S> {
    young: HashMap<DeliveryKey, Attempt<S>>,
    old: HashMap<DeliveryKey, Attempt<S>>,
}

/// What earlier attempts have shown. `own` is the vendor's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attempt<S = ()> {
    /// The most deliveries that a request with this one may carry, since a larger one failed as a whole.
    pub part_max: Option<usize>,
    /// The endpoint that the delivery failed at by itself, and how many requests the endpoint had answered when the first failed one was sent.
    pub failed: Option<(&'static str, u64)>,
    pub own: S,
}

// === impl Attempts ===

impl<S> Default for Attempts<S> {
    fn default() -> Self {
        Self(Mutex::new(Generations { young: HashMap::new(), old: HashMap::new() }))
    }
}

impl<S: Default + Clone> Attempts<S> {
    pub fn get(&self, key: DeliveryKey) -> Attempt<S> {
        let generations = self.lock();
        generations.young.get(&key).or_else(|| generations.old.get(&key)).cloned().unwrap_or_default()
    }

    /// Changes what is known of a delivery, and answers what `change` answers.
    pub fn update<T>(&self, key: DeliveryKey, change: impl FnOnce(&mut Attempt<S>) -> T) -> T {
        let mut generations = self.lock();
        if generations.young.len() >= ENTRIES_MAX && !generations.young.contains_key(&key) {
            generations.old = std::mem::take(&mut generations.young);
        }
        let known = generations.old.remove(&key);
        let entry = generations.young.entry(key).or_insert_with(|| known.unwrap_or_default());
        change(entry)
    }

    /// The delivery has ended, or begins again from its start.
    pub fn forget(&self, key: DeliveryKey) {
        let mut generations = self.lock();
        generations.young.remove(&key);
        generations.old.remove(&key);
    }

    /// The values behind the lock are whole at every point where a panic could happen, so a poisoned lock is still good.
    fn lock(&self) -> MutexGuard<'_, Generations<S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tailwater_core::EventId;

    use super::*;

    fn key(number: usize) -> DeliveryKey {
        DeliveryKey::of(EventId::of_fact("acme", "ltv", &number.to_string()), "klaviyo", "ltv", "upsert_profile", "0")
    }

    #[test]
    fn entries_are_bounded_and_the_latest_are_kept() {
        let attempts: Attempts = Attempts::default();
        for number in 0..ENTRIES_MAX * 3 {
            attempts.update(key(number), |attempt| attempt.part_max = Some(number));
        }
        {
            let generations = attempts.lock();
            assert!(generations.young.len() + generations.old.len() <= 2 * ENTRIES_MAX);
        }
        let latest = ENTRIES_MAX * 3 - 1;
        assert_eq!(attempts.get(key(latest)).part_max, Some(latest));
        assert_eq!(attempts.get(key(0)), Attempt::default());
        attempts.forget(key(latest));
        assert_eq!(attempts.get(key(latest)), Attempt::default());
    }
}
