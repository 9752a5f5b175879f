//! Whose trouble a failed request is: its own, its endpoint's, or the account's.
//!
//! A vendor that answers 5xx, hangs up or does not answer may be down, or may stumble over what one request holds. Both look alike in a
//! single failure, and both mistakes are costly: an outage that is taken for a bad row dead-letters good ones, a bad row that is taken
//! for an outage stops everybody. What tells them apart is *who else* fails. So a failure is trouble of all only when several unrelated
//! requests failed, that is requests with nobody in common, and none was answered in between. A half of a batch that failed as a whole
//! tells nothing new; another half does.
//!
//! ```text
//! the batch {a b c d} fails ─ {a b} fails ─ {a} fails             one suspect: the request's own trouble
//! {a b} fails ─ {c d} fails ─ {e f} fails                         three: everybody's, until one is answered
//! ```
//!
//! Where only one endpoint fails while others answer, the endpoint is shut and the others go on.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Unrelated requests that have to fail before it is everybody's trouble. Two would be two bad rows that happen to be neighbors; a real
/// outage has three at once.
pub const UNRELATED_MIN: usize = 3;

/// Failures that are kept apart. More would not change the verdict.
const SUSPECTS_MAX: usize = 16;

/// A failure says nothing about the vendor's health after this time.
const AGE_MAX: Duration = Duration::from_secs(600);

/// The failures of an account that nobody has contradicted yet.
#[derive(Debug, Default)]
pub struct Health(Mutex<State>);

/// Whose trouble a failure is.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The request's own, as far as can be told.
    Request,
    /// The endpoint fails for everybody, while others answer.
    Endpoint,
    /// The account's, or the vendor's as a whole.
    Account,
}

#[derive(Debug, Default)]
struct State {
    /// By the endpoint's label.
    endpoints: HashMap<&'static str, Answered>,
    suspects: Vec<Suspect>,
}

#[derive(Debug, Clone, Default)]
struct Answered {
    count: u64,
    last: Option<Instant>,
}

/// A failed request that has nobody in common with the other suspects.
#[derive(Debug)]
struct Suspect {
    endpoint: &'static str,
    people: HashSet<u64>,
    since: Instant,
}

// === impl Health ===

impl Health {
    /// A request was answered by the vendor itself, well or not: the endpoint works.
    pub fn answered(&self, endpoint: &'static str) {
        self.answered_at(endpoint, Instant::now());
    }

    fn answered_at(&self, endpoint: &'static str, now: Instant) {
        let mut state = self.lock();
        let answered = state.endpoints.entry(endpoint).or_default();
        answered.count += 1;
        answered.last = Some(now);
        state.suspects.retain(|suspect| suspect.endpoint != endpoint);
    }

    /// A request failed. `people` tells whom it is about, so that requests with somebody in common count once.
    pub fn failed(&self, endpoint: &'static str, people: &[u64]) -> Trouble {
        self.failed_at(endpoint, people, Instant::now())
    }

    fn failed_at(&self, endpoint: &'static str, people: &[u64], now: Instant) -> Trouble {
        let mut state = self.lock();
        state.suspects.retain(|suspect| now.saturating_duration_since(suspect.since) < AGE_MAX);
        let people: HashSet<u64> = people.iter().copied().collect();
        let mut related = state.suspects.iter().enumerate().filter(|(_, suspect)| !suspect.people.is_disjoint(&people));
        if let Some((index, suspect)) = related.next() {
            // The smaller of the two leaves more room for others that have nothing to do with it. All suspects stay without anybody in
            // common, so there are never more of them than causes.
            if related.next().is_none() && people.len() < suspect.people.len() {
                state.suspects[index].people = people;
            }
            return Trouble::Request;
        }
        if state.suspects.len() < SUSPECTS_MAX {
            state.suspects.push(Suspect { endpoint, people, since: now });
        }
        if state.suspects.len() < UNRELATED_MIN {
            return Trouble::Request;
        }
        let first = state.suspects.iter().map(|suspect| suspect.since).min().unwrap_or(now);
        let alive = state.endpoints.values().any(|answered| answered.last.is_some_and(|last| last >= first));
        let here = state.suspects.iter().filter(|suspect| suspect.endpoint == endpoint).count();
        match (alive, here >= UNRELATED_MIN) {
            (true, true) => Trouble::Endpoint,
            (true, false) => Trouble::Request,
            (false, _) => Trouble::Account,
        }
    }

    /// How many requests the endpoint has answered: who fails twice with an answer in between fails by itself.
    pub fn answers(&self, endpoint: &'static str) -> u64 {
        self.lock().endpoints.get(endpoint).map_or(0, |answered| answered.count)
    }

    /// The values behind the lock are whole at every point where a panic could happen, so a poisoned lock is still good.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parts_of_one_batch_are_one_failure_until_they_have_nobody_in_common() {
        let health = Health::default();
        assert_eq!(health.failed("a", &[1, 2, 3, 4, 5, 6]), Trouble::Request);
        assert_eq!(health.failed("a", &[1, 2]), Trouble::Request);
        assert_eq!(health.failed("a", &[1]), Trouble::Request);
        assert_eq!(health.failed("a", &[3, 4]), Trouble::Request, "a second one");
        assert_eq!(health.failed("a", &[5, 6]), Trouble::Account);
        assert_eq!(health.failed("a", &[5]), Trouble::Request, "the same again says nothing new");
        health.answered("a");
        assert_eq!(health.failed("a", &[7]), Trouble::Request);
    }

    #[test]
    fn an_endpoint_that_fails_alone_is_not_the_account() {
        let health = Health::default();
        for person in 1..=2 {
            assert_eq!(health.failed("a", &[person]), Trouble::Request);
        }
        health.answered("b");
        assert_eq!(health.failed("a", &[3]), Trouble::Endpoint);
        assert_eq!(health.failed("b", &[4]), Trouble::Request, "the endpoint that answers is not the failing one");
    }

    #[test]
    fn old_failures_are_forgotten() {
        let health = Health::default();
        let start = Instant::now();
        for person in 1..=2 {
            assert_eq!(health.failed_at("a", &[person], start), Trouble::Request);
        }
        assert_eq!(health.failed_at("a", &[3], start + AGE_MAX), Trouble::Request);
    }

    proptest! {
        // However many requests fail: as long as each of them holds one of two people, it is not everybody's trouble.
        #[test]
        fn two_bad_people_are_never_everybodys_trouble(
            requests in prop::collection::vec((prop::collection::hash_set(2_u64..50, 0..20), any::<bool>(), prop::sample::select(vec!["a", "b", "c"])), 1..60),
        ) {
            let health = Health::default();
            for (others, first, endpoint) in requests {
                let mut people: Vec<u64> = others.into_iter().collect();
                people.push(u64::from(first));
                prop_assert_eq!(health.failed(endpoint, &people), Trouble::Request);
                prop_assert!(health.lock().suspects.len() <= 2);
            }
        }
    }
}
