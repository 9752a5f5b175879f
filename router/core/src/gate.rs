//! The gate that keeps order per key: at most one item of a key is in flight, and nothing overtakes within a key, while
//! keys have nothing to do with one another.
//!
//! An item is offered as it is read, started when its turn comes (`ready`), and finished, or put back to the front of its key to
//! be tried again later (`retry`). Among the keys that may start, the item that was offered first goes first; so the oldest
//! open offset is worked on before younger ones, and no key can starve another.
//!
//! Two ways to make a key wait for a merge of profiles: a *marker* that is offered like any item takes its turn after
//! everything before it and blocks everything behind it until it is finished, which is what fences need; [`Gate::hold`] stops
//! the whole key at once, whatever was offered before.
//!
//! It is pure: the time comes from the caller, and nothing is started here.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;

use crate::Timestamp;

/// Orders items by key.
#[derive(Debug)]
pub struct Gate<K, T> {
    items_max: usize,
    keys: HashMap<K, Key<T>>,
    /// The keys whose first item may start now, by that item's arrival.
    startable: BTreeMap<u64, K>,
    /// The keys whose first item waits to be tried again, by the time and the item's arrival.
    delayed: BTreeMap<(Timestamp, u64), K>,
    arrivals: u64,
    turns: u64,
    waiting: usize,
    in_flight: usize,
    keys_held: usize,
}

#[derive(Debug)]
struct Key<T> {
    queue: VecDeque<Waiting<T>>,
    in_flight: Option<(Turn, u64)>,
    holds: u32,
}

#[derive(Debug)]
struct Waiting<T> {
    item: T,
    /// Its place among all items ever offered; kept when it is tried again.
    arrival: u64,
    /// Not before this time; only the first item of a key can have one.
    due: Option<Timestamp>,
}

/// An item whose turn has come.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub struct Started<K, T> {
    pub key: K,
    pub item: T,
    pub turn: Turn,
}

/// Names one start of one item, so that an answer that comes late, after its key was removed and has come back, cannot
/// finish what somebody else has started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Turn(u64);

/// The gate has its maximum of items; the item is given back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the gate holds its maximum of items")]
pub struct Full<T>(pub T);

// === impl Gate ===

impl<K: Clone + Eq + Hash, T> Gate<K, T> {
    /// A gate for at most `items_max` items, those in flight included.
    pub fn new(items_max: usize) -> Self {
        Self {
            items_max,
            keys: HashMap::new(),
            startable: BTreeMap::new(),
            delayed: BTreeMap::new(),
            arrivals: 0,
            turns: 0,
            waiting: 0,
            in_flight: 0,
            keys_held: 0,
        }
    }

    /// Puts an item behind all others of its key.
    ///
    /// # Errors
    /// The gate is full; the caller keeps the item and stops reading.
    pub fn offer(&mut self, key: K, item: T) -> Result<(), Full<T>> {
        if self.is_full() {
            return Err(Full(item));
        }
        let arrival = self.arrivals;
        self.arrivals += 1;
        self.waiting += 1;
        let entry = self.keys.entry(key.clone()).or_insert_with(Key::new);
        entry.queue.push_back(Waiting { item, arrival, due: None });
        // Only the first item of a free key can start; behind another one it waits for that one's end.
        if entry.queue.len() == 1 && entry.is_free() {
            self.startable.insert(arrival, key);
        }
        Ok(())
    }

    /// Starts up to `max` items, the longest waiting first, at most one of each key.
    pub fn ready(&mut self, now: Timestamp, max: usize) -> Vec<Started<K, T>> {
        while let Some(entry) = self.delayed.first_entry() {
            let (due, arrival) = *entry.key();
            if due > now {
                break;
            }
            let key = entry.remove();
            if let Some(first) = self.keys.get_mut(&key).and_then(|entry| entry.queue.front_mut()) {
                first.due = None;
            }
            self.startable.insert(arrival, key);
        }
        let mut started = Vec::with_capacity(max.min(self.startable.len()));
        while started.len() < max {
            let Some((arrival, key)) = self.startable.pop_first() else { break };
            let Some(entry) = self.keys.get_mut(&key) else { continue };
            debug_assert!(entry.is_free(), "a key with something in flight or held was startable");
            let Some(first) = entry.queue.pop_front() else { continue };
            debug_assert!(first.arrival == arrival, "an item has overtaken another one of its key");
            let turn = Turn(self.turns);
            self.turns += 1;
            entry.in_flight = Some((turn, arrival));
            self.waiting -= 1;
            self.in_flight += 1;
            started.push(Started { key, item: first.item, turn });
        }
        started
    }

    /// When the next item that waits to be tried again is due; nothing happens earlier unless something is offered, finished or
    /// released.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.delayed.first_key_value().map(|((due, _), _)| *due)
    }

    /// The item in flight is done with; the next one of the key may start. False if this turn is not in flight (any more).
    pub fn finish(&mut self, key: &K, turn: Turn) -> bool {
        if self.land(key, turn).is_none() {
            return false;
        }
        self.settle(key);
        true
    }

    /// The item in flight goes back to the front of its key and may start again at `due`.
    ///
    /// # Errors
    /// This turn is not in flight (any more); the item is given back, and nobody waits for it.
    pub fn retry(&mut self, key: &K, turn: Turn, item: T, due: Timestamp) -> Result<(), T> {
        let Some(arrival) = self.land(key, turn) else { return Err(item) };
        if let Some(entry) = self.keys.get_mut(key) {
            entry.queue.push_front(Waiting { item, arrival, due: Some(due) });
            self.waiting += 1;
        }
        self.settle(key);
        Ok(())
    }

    /// Starts nothing of this key, whether offered before or later, until it has been released as often as it was held. What is
    /// in flight stays in flight.
    pub fn hold(&mut self, key: K) {
        let entry = self.keys.entry(key).or_insert_with(Key::new);
        if entry.holds == 0 {
            self.keys_held += 1;
            if entry.in_flight.is_none()
                && let Some(first) = entry.queue.front()
            {
                match first.due {
                    Some(due) => self.delayed.remove(&(due, first.arrival)),
                    None => self.startable.remove(&first.arrival),
                };
            }
        }
        entry.holds = entry.holds.saturating_add(1);
    }

    /// Takes one hold away. False if the key was not held.
    pub fn release(&mut self, key: &K) -> bool {
        let Some(entry) = self.keys.get_mut(key) else { return false };
        if entry.holds == 0 {
            return false;
        }
        entry.holds -= 1;
        if entry.holds == 0 {
            self.keys_held -= 1;
            if entry.in_flight.is_none() {
                self.settle(key);
            }
        }
        true
    }

    /// Makes every item that waits to be tried again due at once: after a pause has ended, what failed is run again first.
    pub fn expedite(&mut self) {
        for ((_, arrival), key) in std::mem::take(&mut self.delayed) {
            if let Some(first) = self.keys.get_mut(&key).and_then(|entry| entry.queue.front_mut()) {
                first.due = None;
            }
            self.startable.insert(arrival, key);
        }
    }

    /// Forgets every key for which `is_gone` is true, with its items, its holds and its turn in flight: their lane has moved to another
    /// process. Returns how many items went.
    pub fn remove(&mut self, mut is_gone: impl FnMut(&K) -> bool) -> usize {
        let mut removed = 0;
        let gone: Vec<K> = self.keys.keys().filter(|key| is_gone(key)).cloned().collect();
        for key in gone {
            let Some(entry) = self.keys.remove(&key) else { continue };
            if entry.is_free()
                && let Some(first) = entry.queue.front()
            {
                match first.due {
                    Some(due) => self.delayed.remove(&(due, first.arrival)),
                    None => self.startable.remove(&first.arrival),
                };
            }
            self.waiting -= entry.queue.len();
            self.in_flight -= usize::from(entry.in_flight.is_some());
            self.keys_held -= usize::from(entry.holds > 0);
            removed += entry.queue.len() + usize::from(entry.in_flight.is_some());
        }
        removed
    }

    /// Items that have not started, those that wait to be tried again included.
    pub const fn waiting(&self) -> usize {
        self.waiting
    }

    /// Items that have started and neither finished nor gone back.
    pub const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Keys that are held.
    pub const fn keys_held(&self) -> usize {
        self.keys_held
    }

    /// Items that wait for the time at which they are tried again, without those of held keys.
    pub fn delayed(&self) -> usize {
        self.delayed.len()
    }

    /// All items, waiting and in flight.
    pub const fn len(&self) -> usize {
        self.waiting + self.in_flight
    }

    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether `offer` would refuse.
    pub const fn is_full(&self) -> bool {
        self.len() >= self.items_max
    }

    /// The maximum of items.
    pub const fn items_max(&self) -> usize {
        self.items_max
    }

    /// Whether anything of this key waits, is in flight, or is held.
    pub fn is_busy(&self, key: &K) -> bool {
        self.keys.contains_key(key)
    }

    /// Takes the item of this turn out of flight and gives its arrival.
    fn land(&mut self, key: &K, turn: Turn) -> Option<u64> {
        let entry = self.keys.get_mut(key)?;
        let (current, arrival) = entry.in_flight?;
        if current != turn {
            return None;
        }
        entry.in_flight = None;
        self.in_flight -= 1;
        Some(arrival)
    }

    /// Makes the first item of a key startable if it may start, and forgets a key that has nothing left.
    fn settle(&mut self, key: &K) {
        let Some(entry) = self.keys.get(key) else { return };
        if !entry.is_free() {
            return;
        }
        match entry.queue.front() {
            Some(Waiting { due: Some(due), arrival, .. }) => {
                self.delayed.insert((*due, *arrival), key.clone());
            }
            Some(Waiting { due: None, arrival, .. }) => {
                self.startable.insert(*arrival, key.clone());
            }
            None => {
                self.keys.remove(key);
            }
        }
    }
}

impl<T> Key<T> {
    const fn new() -> Self {
        Self { queue: VecDeque::new(), in_flight: None, holds: 0 }
    }

    const fn is_free(&self) -> bool {
        self.in_flight.is_none() && self.holds == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000);
    const LATER: Timestamp = Timestamp::from_millis(2_000);

    fn gate(items: &[(u8, u32)]) -> Gate<u8, u32> {
        let mut gate = Gate::new(100);
        for (key, item) in items {
            gate.offer(*key, *item).unwrap();
        }
        gate
    }

    fn items(started: &[Started<u8, u32>]) -> Vec<(u8, u32)> {
        started.iter().map(|started| (started.key, started.item)).collect()
    }

    #[test]
    fn one_item_of_each_key_starts_in_order_of_arrival() {
        let mut gate = gate(&[(2, 0), (2, 1), (1, 2), (3, 3)]);
        let first = gate.ready(NOW, 2);
        assert_eq!(items(&first), [(2, 0), (1, 2)]);
        assert_eq!(items(&gate.ready(NOW, 9)), [(3, 3)]);
        assert!(gate.ready(NOW, 9).is_empty());
        assert!(gate.finish(&2, first[0].turn));
        assert_eq!(items(&gate.ready(NOW, 9)), [(2, 1)]);
    }

    #[test]
    fn an_item_that_is_tried_again_stays_first_of_its_key_and_stops_no_other() {
        let mut gate = gate(&[(1, 10), (1, 11), (2, 20)]);
        let first = gate.ready(NOW, 1);
        gate.retry(&1, first[0].turn, 10, LATER).unwrap();
        assert_eq!(gate.next_due(), Some(LATER));
        assert_eq!(items(&gate.ready(NOW, 9)), [(2, 20)]);
        let again = gate.ready(LATER, 9);
        assert_eq!(items(&again), [(1, 10)]);
        assert!(gate.finish(&1, again[0].turn));
        assert_eq!(items(&gate.ready(LATER, 9)), [(1, 11)]);
    }

    #[test]
    fn a_held_key_starts_nothing_until_every_hold_is_released() {
        let mut gate = gate(&[(1, 10), (2, 20)]);
        gate.hold(1);
        gate.hold(1);
        assert_eq!(items(&gate.ready(NOW, 9)), [(2, 20)]);
        assert!(gate.release(&1));
        assert!(gate.ready(NOW, 9).is_empty());
        assert!(gate.release(&1));
        assert!(!gate.release(&1));
        assert_eq!(items(&gate.ready(NOW, 9)), [(1, 10)]);
    }

    #[test]
    fn a_key_can_be_held_before_anything_of_it_arrives_and_while_something_is_in_flight() {
        let mut gate = gate(&[(1, 10)]);
        let first = gate.ready(NOW, 9);
        gate.hold(1);
        gate.hold(2);
        gate.offer(2, 20).unwrap();
        gate.retry(&1, first[0].turn, 10, NOW).unwrap();
        assert!(gate.ready(LATER, 9).is_empty());
        assert_eq!(gate.keys_held(), 2);
        assert!(gate.release(&1) && gate.release(&2));
        assert_eq!(items(&gate.ready(LATER, 9)), [(1, 10), (2, 20)]);
    }

    #[test]
    fn a_full_gate_gives_the_item_back_but_takes_a_retry() {
        let mut gate = Gate::new(1);
        gate.offer(1, 10).unwrap();
        assert_eq!(gate.offer(2, 20), Err(Full(20)));
        let started = gate.ready(NOW, 9);
        assert!(gate.is_full());
        gate.retry(&1, started[0].turn, 10, NOW).unwrap();
        assert_eq!(gate.len(), 1);
    }

    #[test]
    fn a_late_answer_cannot_finish_what_came_after_it() {
        let mut gate = gate(&[(1, 10)]);
        let stale = gate.ready(NOW, 9)[0].turn;
        assert_eq!(gate.remove(|key| *key == 1), 1);
        gate.offer(1, 10).unwrap();
        let fresh = gate.ready(NOW, 9)[0].turn;
        assert!(!gate.finish(&1, stale));
        assert_eq!(gate.retry(&1, stale, 10, NOW), Err(10));
        assert_eq!(gate.in_flight(), 1);
        assert!(gate.finish(&1, fresh));
        assert!(!gate.is_busy(&1));
    }

    #[test]
    fn removed_keys_leave_nothing_behind() {
        let mut gate = gate(&[(1, 10), (1, 11), (2, 20), (3, 30)]);
        let started = gate.ready(NOW, 1);
        gate.retry(&1, started[0].turn, 10, LATER).unwrap();
        gate.hold(3);
        assert_eq!(gate.remove(|_| true), 4);
        assert!(gate.is_empty());
        assert_eq!((gate.waiting(), gate.in_flight(), gate.keys_held(), gate.delayed()), (0, 0, 0, 0));
        assert!(gate.ready(LATER, 9).is_empty());
    }

    #[test]
    fn what_was_delayed_can_be_run_at_once() {
        let mut gate = gate(&[(1, 10)]);
        let started = gate.ready(NOW, 1);
        gate.retry(&1, started[0].turn, 10, LATER).unwrap();
        gate.expedite();
        assert_eq!(items(&gate.ready(NOW, 9)), [(1, 10)]);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Offer(u8),
        Ready(usize),
        Finish(prop::sample::Index),
        Retry(prop::sample::Index, i64),
        Hold(u8),
        Release(u8),
        Wait(i64),
        Remove(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0_u8..5).prop_map(Step::Offer),
            4 => (0_usize..4).prop_map(Step::Ready),
            4 => any::<prop::sample::Index>().prop_map(Step::Finish),
            3 => (any::<prop::sample::Index>(), 0_i64..50).prop_map(|(index, wait)| Step::Retry(index, wait)),
            1 => (0_u8..5).prop_map(Step::Hold),
            2 => (0_u8..5).prop_map(Step::Release),
            2 => (0_i64..40).prop_map(Step::Wait),
            1 => (0_u8..5).prop_map(Step::Remove),
        ]
    }

    proptest! {
        /// Against a model that keeps, per key, the items not yet finished in order: only the first of them may ever start, never
        /// while it is in flight, held or not due; and in the end everything comes out.
        #[test]
        fn one_in_flight_per_key_and_nothing_overtakes(steps in prop::collection::vec(step(), 1..200)) {
            let mut gate: Gate<u8, u32> = Gate::new(30);
            let mut now = 0_i64;
            let mut next = 0_u32;
            let mut open: BTreeMap<u8, VecDeque<u32>> = BTreeMap::new();
            let mut holds: BTreeMap<u8, u32> = BTreeMap::new();
            let mut due: BTreeMap<u8, i64> = BTreeMap::new();
            let mut flights: Vec<(u8, u32, Turn)> = Vec::new();
            let at = Timestamp::from_millis;
            for step in steps {
                match step {
                    Step::Offer(key) => {
                        let total: usize = open.values().map(VecDeque::len).sum();
                        prop_assert_eq!(gate.offer(key, next).is_ok(), total < 30);
                        if total < 30 {
                            open.entry(key).or_default().push_back(next);
                        }
                        next += 1;
                    }
                    Step::Ready(max) => {
                        let may = open.iter().filter(|(key, items)| {
                            !items.is_empty()
                                && holds.get(key).is_none_or(|holds| *holds == 0)
                                && due.get(key).is_none_or(|due| *due <= now)
                                && !flights.iter().any(|(flying, ..)| flying == *key)
                        }).count();
                        let started = gate.ready(at(now), max);
                        prop_assert_eq!(started.len(), may.min(max));
                        for Started { key, item, turn } in started {
                            prop_assert!(!flights.iter().any(|(flying, ..)| *flying == key), "two in flight for {}", key);
                            prop_assert_eq!(open[&key].front(), Some(&item), "overtaken");
                            prop_assert!(holds.get(&key).is_none_or(|holds| *holds == 0));
                            prop_assert!(due.remove(&key).is_none_or(|due| due <= now));
                            flights.push((key, item, turn));
                        }
                    }
                    Step::Finish(index) if !flights.is_empty() => {
                        let (key, _, turn) = flights.swap_remove(index.index(flights.len()));
                        prop_assert!(gate.finish(&key, turn));
                        open.get_mut(&key).unwrap().pop_front();
                    }
                    Step::Retry(index, wait) if !flights.is_empty() => {
                        let (key, item, turn) = flights.swap_remove(index.index(flights.len()));
                        prop_assert!(gate.retry(&key, turn, item, at(now + wait)).is_ok());
                        due.insert(key, now + wait);
                    }
                    Step::Finish(_) | Step::Retry(..) => {}
                    Step::Hold(key) => {
                        gate.hold(key);
                        *holds.entry(key).or_default() += 1;
                    }
                    Step::Release(key) => {
                        let held = holds.entry(key).or_default();
                        prop_assert_eq!(gate.release(&key), *held > 0);
                        *held = held.saturating_sub(1);
                    }
                    Step::Wait(ms) => now += ms,
                    Step::Remove(key) => {
                        let gone = open.remove(&key).unwrap_or_default().len();
                        prop_assert_eq!(gate.remove(|other| *other == key), gone);
                        holds.remove(&key);
                        due.remove(&key);
                        flights.retain(|(flying, ..)| *flying != key);
                    }
                }
                prop_assert_eq!(gate.in_flight(), flights.len());
                prop_assert_eq!(gate.len(), open.values().map(VecDeque::len).sum::<usize>());
                prop_assert_eq!(gate.keys_held(), holds.values().filter(|holds| **holds > 0).count());
            }
            for (key, holds) in holds {
                for _ in 0..holds {
                    prop_assert!(gate.release(&key));
                }
            }
            for (key, _, turn) in flights {
                prop_assert!(gate.finish(&key, turn));
                open.get_mut(&key).unwrap().pop_front();
            }
            loop {
                let started = gate.ready(at(i64::MAX), 7);
                if started.is_empty() {
                    break;
                }
                for Started { key, item, turn } in started {
                    prop_assert_eq!(open.get_mut(&key).unwrap().pop_front(), Some(item));
                    prop_assert!(gate.finish(&key, turn));
                }
            }
            prop_assert!(gate.is_empty());
            prop_assert!(open.values().all(VecDeque::is_empty));
        }
    }
}
