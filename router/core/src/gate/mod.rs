//! The gate that keeps order per key: at most one item of a key is in flight, and nothing overtakes within a key, while
//! keys have nothing to do with one another.
//!
//! An item is offered as it is read, started when its turn comes (`ready`), and finished, or put back to the front of its key to
//! be tried again later (`retry`). Among the keys that may start, the item that was offered first goes first; so the oldest
//! open offset is worked on before younger ones, and no key can starve another.
//!
//! # Until it is settled
//!
//! What is finished is *settled* once that is committed. A crash before that repeats the finished items of a key and the one in flight,
//! in their order. Whether the next item may start before the one before is settled depends on what a repeat would do ([`Repeat`]):
//! an event repeats itself and nothing else, so a few of them may be unsettled; a state that is repeated after a newer one went out
//! takes the receiver back to the older one, so the next state waits.
//!
//! Two ways to make a key wait for a merge of profiles: a *marker* that is offered like any item takes its turn after
//! everything before it and blocks everything behind it until it is finished, which is what fences need; [`Gate::hold`] stops
//! the whole key at once, whatever was offered before.
//!
//! It is pure: the time comes from the caller, and nothing is started here.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::Hash;

use crate::Timestamp;

/// How much a gate holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Items, those in flight included.
    pub items_max: usize,
    /// Bytes of all items together; the last one may exceed it.
    pub bytes_max: usize,
    /// Items of one key that are finished and not settled: what a crash repeats of it, besides the one in flight.
    pub unsettled_max: usize,
}

/// What a repeat of an item does when later items of its key have gone before it: with that, when it may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// Nothing: the receiver knows it again by its id. It may start while others of its key are unsettled.
    Harmless,
    /// It undoes a later one of its kind. It starts when no other harmful one of its key is unsettled.
    Harmful,
    /// It tells others that everything before it is done. It starts when all of that is settled.
    Barrier,
}

/// Orders items by key.
#[derive(Debug)]
pub struct Gate<K, T> {
    capacity: Capacity,
    keys: HashMap<K, Key<T>>,
    /// The keys whose first item may start now, by that item's arrival.
    startable: BTreeMap<u64, K>,
    /// The keys whose first item waits to be tried again, by the time and the item's arrival.
    delayed: BTreeMap<(Timestamp, u64), K>,
    /// The keys with items that are finished and not settled.
    unsettled: HashSet<K>,
    /// An item waits for nothing but that.
    awaits_settlement: bool,
    arrivals: u64,
    turns: u64,
    waiting: usize,
    in_flight: usize,
    bytes: usize,
    keys_held: usize,
}

#[derive(Debug)]
struct Key<T> {
    queue: VecDeque<Waiting<T>>,
    in_flight: Option<Flight>,
    holds: u32,
    /// Finished items that are not settled, and whether a harmful one is among them.
    unsettled: usize,
    unsettled_harmful: bool,
}

#[derive(Debug)]
struct Waiting<T> {
    item: T,
    place: Place,
    /// Not before this time; only the first item of a key can have one.
    due: Option<Timestamp>,
}

/// What is known of an item besides itself.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Its place among all items ever offered; kept when it is tried again.
    arrival: u64,
    bytes: usize,
    repeat: Repeat,
}

#[derive(Debug)]
struct Flight {
    turn: Turn,
    place: Place,
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

/// The gate has its maximum of items or bytes; the item is given back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the gate holds its maximum of items")]
pub struct Full<T>(pub T);

// === impl Gate ===

impl<K: Clone + Eq + Hash, T> Gate<K, T> {
    /// An empty gate.
    pub fn new(capacity: Capacity) -> Self {
        Self {
            capacity,
            keys: HashMap::new(),
            startable: BTreeMap::new(),
            delayed: BTreeMap::new(),
            unsettled: HashSet::new(),
            awaits_settlement: false,
            arrivals: 0,
            turns: 0,
            waiting: 0,
            in_flight: 0,
            bytes: 0,
            keys_held: 0,
        }
    }

    /// Puts an item of so many bytes behind all others of its key.
    ///
    /// # Errors
    /// The gate is full; the caller keeps the item and stops reading.
    pub fn offer(&mut self, key: K, item: T, bytes: usize, repeat: Repeat) -> Result<(), Full<T>> {
        if self.is_full() {
            return Err(Full(item));
        }
        let place = Place { arrival: self.arrivals, bytes, repeat };
        self.arrivals += 1;
        self.waiting += 1;
        self.bytes += bytes;
        let entry = self.keys.entry(key.clone()).or_insert_with(Key::new);
        entry.queue.push_back(Waiting { item, place, due: None });
        // Only the first item of a free key can start; behind another one it waits for that one's end.
        if entry.queue.len() == 1 && entry.is_free() {
            self.schedule(&key);
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
            debug_assert!(first.place.arrival == arrival, "an item has overtaken another one of its key");
            let turn = Turn(self.turns);
            self.turns += 1;
            entry.in_flight = Some(Flight { turn, place: first.place });
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

    /// The item in flight is done with and left nothing that would have to be settled; the next one of the key may start. False if
    /// this turn is not in flight (any more).
    pub fn finish(&mut self, key: &K, turn: Turn) -> bool {
        let Some(place) = self.land(key, turn) else { return false };
        self.bytes -= place.bytes;
        self.schedule(key);
        true
    }

    /// The item in flight is done with, and a crash before [`Self::settled`] repeats it. The next one of the key may start if that is
    /// harmless. False if this turn is not in flight (any more).
    pub fn finish_unsettled(&mut self, key: &K, turn: Turn) -> bool {
        let Some(place) = self.land(key, turn) else { return false };
        self.bytes -= place.bytes;
        if let Some(entry) = self.keys.get_mut(key) {
            entry.unsettled += 1;
            entry.unsettled_harmful |= place.repeat == Repeat::Harmful;
            self.unsettled.insert(key.clone());
        }
        self.schedule(key);
        true
    }

    /// Everything that is finished is committed.
    pub fn settled(&mut self) {
        self.awaits_settlement = false;
        for key in std::mem::take(&mut self.unsettled) {
            if let Some(entry) = self.keys.get_mut(&key) {
                (entry.unsettled, entry.unsettled_harmful) = (0, false);
                if entry.is_free() {
                    self.schedule(&key);
                }
            }
        }
    }

    /// The item in flight goes back to the front of its key and may start again at `due`.
    ///
    /// # Errors
    /// This turn is not in flight (any more); the item is given back, and nobody waits for it.
    pub fn retry(&mut self, key: &K, turn: Turn, item: T, due: Timestamp) -> Result<(), T> {
        let Some(place) = self.land(key, turn) else { return Err(item) };
        if let Some(entry) = self.keys.get_mut(key) {
            entry.queue.push_front(Waiting { item, place, due: Some(due) });
            self.waiting += 1;
        }
        self.schedule(key);
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
                    Some(due) => self.delayed.remove(&(due, first.place.arrival)),
                    None => self.startable.remove(&first.place.arrival),
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
                self.schedule(key);
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

    /// Forgets every key for which `is_gone` is true, with its items, its holds and its turn in flight: their partition has moved to another
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
                    Some(due) => self.delayed.remove(&(due, first.place.arrival)),
                    None => self.startable.remove(&first.place.arrival),
                };
            }
            self.unsettled.remove(&key);
            self.waiting -= entry.queue.len();
            self.in_flight -= usize::from(entry.in_flight.is_some());
            self.bytes -= entry.queue.iter().map(|waiting| waiting.place.bytes).sum::<usize>();
            self.bytes -= entry.in_flight.as_ref().map_or(0, |flight| flight.place.bytes);
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

    /// Whether any item could start without waiting for a time, for another one's end, or for a commit.
    pub fn has_startable(&self) -> bool {
        !self.startable.is_empty()
    }

    /// Whether an item waits for nothing but [`Self::settled`].
    pub const fn awaits_settlement(&self) -> bool {
        self.awaits_settlement
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

    /// The items of one key, waiting and in flight.
    pub fn len_of(&self, key: &K) -> usize {
        self.keys.get(key).map_or(0, |entry| entry.queue.len() + usize::from(entry.in_flight.is_some()))
    }

    /// Bytes of all items.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether `offer` would refuse.
    pub const fn is_full(&self) -> bool {
        self.len() >= self.capacity.items_max || self.bytes >= self.capacity.bytes_max
    }

    /// The maximum of items.
    pub const fn items_max(&self) -> usize {
        self.capacity.items_max
    }

    /// Whether less than half of the gate is in use.
    pub const fn is_half_empty(&self) -> bool {
        self.len() < self.capacity.items_max.div_ceil(2) && self.bytes < self.capacity.bytes_max / 2
    }

    /// Whether anything of this key waits, is in flight, is unsettled, or is held.
    #[cfg(test)]
    pub fn is_busy(&self, key: &K) -> bool {
        self.keys.contains_key(key)
    }

    /// Takes the item of this turn out of flight.
    fn land(&mut self, key: &K, turn: Turn) -> Option<Place> {
        let flight = self.keys.get_mut(key)?.in_flight.take_if(|flight| flight.turn == turn)?;
        self.in_flight -= 1;
        Some(flight.place)
    }

    /// Makes the first item of a key startable if it may start, and forgets a key that has nothing left.
    fn schedule(&mut self, key: &K) {
        let Some(entry) = self.keys.get(key) else { return };
        if !entry.is_free() {
            return;
        }
        let Some(first) = entry.queue.front() else {
            if entry.unsettled == 0 {
                self.keys.remove(key);
            }
            return;
        };
        if !entry.settled_enough(first.place.repeat, self.capacity.unsettled_max) {
            self.awaits_settlement = true;
            return;
        }
        match first.due {
            Some(due) => {
                self.delayed.insert((due, first.place.arrival), key.clone());
            }
            None => {
                self.startable.insert(first.place.arrival, key.clone());
            }
        }
    }
}

impl<T> Key<T> {
    const fn new() -> Self {
        Self { queue: VecDeque::new(), in_flight: None, holds: 0, unsettled: 0, unsettled_harmful: false }
    }

    const fn is_free(&self) -> bool {
        self.in_flight.is_none() && self.holds == 0
    }

    /// Whether an item may go out while what went before it could be repeated by a crash.
    const fn settled_enough(&self, repeat: Repeat, unsettled_max: usize) -> bool {
        match repeat {
            _ if self.unsettled == 0 => true,
            Repeat::Harmless => self.unsettled < unsettled_max,
            Repeat::Harmful => self.unsettled < unsettled_max && !self.unsettled_harmful,
            Repeat::Barrier => false,
        }
    }
}

#[cfg(test)]
mod tests;
