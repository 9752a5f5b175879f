//! When each person was last written, and by which kind of call.
//!
//! The vendor processes single and bulk calls separately. Two calls of different kinds for one person, close together, can be applied in
//! either order; and what depends on an update (a list that starts a journey, which reads the profile) must come after the update is
//! effective. The vendor names 60 seconds for both. So a person stays with one kind of call for that time, and what depends on their
//! update waits for it.
//!
//! Entries are bounded: when there are too many, everybody counts as written just now, which costs time and never order. The same holds
//! for everybody at the start of a process and when partitions move to it: what the other process sent is not known.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// People per generation: more than the vendor's limits let through in a minute (5 bulk requests of 1,000 a second).
const PEOPLE_MAX: usize = 400_000;

/// How a person was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Single,
    Bulk,
}

/// The people who were written lately, in two generations.
#[derive(Debug)]
pub(super) struct Writes {
    /// How long a write is recent.
    settle: Duration,
    people_max: usize,
    start: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    young: HashMap<u64, (Duration, Way)>,
    old: HashMap<u64, (Duration, Way)>,
    /// When the younger generation began.
    since: Duration,
    /// Everybody without an entry may have been written up to this moment, in an unknown way.
    unknown_until: Option<Duration>,
}

/// What is known about a person's last write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Last {
    /// Long ago.
    Settled,
    /// The way, and how long it is recent for.
    Recent(Way, Duration),
    /// Perhaps recent, in either way.
    Unknown(Duration),
}

// === impl Writes ===

impl Writes {
    pub fn new(settle: Duration) -> Self {
        Self { settle, people_max: PEOPLE_MAX, start: Instant::now(), state: Mutex::default() }
    }

    /// Partitions may have come from another process, whose calls are not known here.
    pub fn forget(&self) {
        self.forget_at(self.start.elapsed());
    }

    fn forget_at(&self, now: Duration) {
        self.lock().unknown_until = Some(now);
    }

    /// A person is about to be written: a request that gets no answer may have been carried out.
    pub fn write(&self, person: u64, way: Way) {
        self.write_at(person, way, self.start.elapsed());
    }

    fn write_at(&self, person: u64, way: Way, now: Duration) {
        let mut state = self.lock();
        state.turn(now, self.settle, self.people_max);
        state.young.insert(person, (now, way));
    }

    pub fn last(&self, person: u64) -> Last {
        self.last_at(person, self.start.elapsed())
    }

    fn last_at(&self, person: u64, now: Duration) -> Last {
        let state = self.lock();
        let left = |at: Duration| (at + self.settle).checked_sub(now).filter(|left| !left.is_zero());
        let known = state.young.get(&person).or_else(|| state.old.get(&person));
        match (known, state.unknown_until) {
            (Some((at, way)), unknown) if unknown.is_none_or(|until| until <= *at) => {
                left(*at).map_or(Last::Settled, |left| Last::Recent(*way, left))
            }
            (_, Some(until)) => left(until).map_or(Last::Settled, Last::Unknown),
            (_, None) => Last::Settled,
        }
    }

    /// The values behind the lock are whole at every point where a panic could happen, so a poisoned lock is still good.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Begins a generation when the younger one is old or full.
    fn turn(&mut self, now: Duration, settle: Duration, people_max: usize) {
        let is_old = now.saturating_sub(self.since) >= settle;
        if !is_old && self.young.len() < people_max {
            return;
        }
        let dropped = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
        self.since = now;
        // Of a generation that was full before its time, entries that are still recent are dropped.
        if dropped.values().any(|(at, _)| *at + settle > now) {
            self.unknown_until = Some(now);
        }
    }
}

// === impl Last ===

impl Last {
    /// How long something waits that depends on the person's last update.
    pub fn wait_for_effect(self) -> Option<Duration> {
        match self {
            Self::Settled => None,
            Self::Recent(_, left) | Self::Unknown(left) => Some(left),
        }
    }

    /// How long a call of this kind waits, so that it is not mixed with one of the other kind.
    pub fn wait_for(self, way: Way) -> Option<Duration> {
        match self {
            Self::Recent(last, left) if last != way => Some(left),
            Self::Settled | Self::Recent(..) | Self::Unknown(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    const fn second(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    // I4: single and bulk calls for one person are applied in either order.
    #[test]
    fn a_person_stays_with_one_kind_of_call_for_a_minute() {
        let writes = Writes::new(MINUTE);
        writes.write_at(1, Way::Bulk, second(10));
        assert_eq!(writes.last_at(1, second(30)), Last::Recent(Way::Bulk, second(40)));
        assert_eq!(writes.last_at(1, second(30)).wait_for(Way::Single), Some(second(40)));
        assert_eq!(writes.last_at(1, second(30)).wait_for(Way::Bulk), None);
        assert_eq!(writes.last_at(2, second(30)), Last::Settled);
        assert_eq!(writes.last_at(1, second(70)), Last::Settled);
    }

    #[test]
    fn what_another_process_may_have_sent_counts_as_recent() {
        let writes = Writes::new(MINUTE);
        writes.write_at(1, Way::Single, second(5));
        writes.forget_at(second(10));
        writes.write_at(2, Way::Bulk, second(11));
        assert_eq!(writes.last_at(1, second(20)), Last::Unknown(second(50)));
        assert_eq!(writes.last_at(3, second(20)).wait_for_effect(), Some(second(50)));
        assert_eq!(writes.last_at(2, second(20)), Last::Recent(Way::Bulk, second(51)));
        assert_eq!(writes.last_at(3, second(70)), Last::Settled);
    }

    proptest! {
        // Whatever the bound drops: nobody who was written within the minute counts as settled, and the entries are bounded.
        #[test]
        fn nobody_written_within_a_minute_counts_as_settled(steps in prop::collection::vec((0_u64..40, 0_u64..20), 1..80)) {
            let writes = Writes { people_max: 4, ..Writes::new(MINUTE) };
            let mut now = 0;
            let mut last = std::collections::BTreeMap::new();
            for (person, step) in steps {
                now += step;
                writes.write_at(person, Way::Bulk, second(now));
                last.insert(person, now);
                for (person, at) in &last {
                    let is_recent = now - at < 60;
                    prop_assert!(!is_recent || writes.last_at(*person, second(now)) != Last::Settled);
                }
                let state = writes.lock();
                prop_assert!(state.young.len() + state.old.len() <= 8);
            }
        }
    }
}
