//! What the gate does, and a model of it over random schedules with crashes.

use proptest::prelude::*;

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_000);
const LATER: Timestamp = Timestamp::from_millis(2_000);

fn gate(items: &[(u8, u32)]) -> Gate<u8, u32> {
    let mut gate = Gate::new(capacity(100));
    for (key, item) in items {
        offer(&mut gate, *key, *item).unwrap();
    }
    gate
}

const fn capacity(items_max: usize) -> Capacity {
    Capacity { items_max, bytes_max: usize::MAX, unsettled_max: 2 }
}

fn offer(gate: &mut Gate<u8, u32>, key: u8, item: u32) -> Result<(), Full<u32>> {
    gate.offer(key, item, 1, Repeat::Harmful)
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
    offer(&mut gate, 2, 20).unwrap();
    gate.retry(&1, first[0].turn, 10, NOW).unwrap();
    assert!(gate.ready(LATER, 9).is_empty());
    assert_eq!(gate.keys_held(), 2);
    assert!(gate.release(&1) && gate.release(&2));
    assert_eq!(items(&gate.ready(LATER, 9)), [(1, 10), (2, 20)]);
}

#[test]
fn a_full_gate_gives_the_item_back_but_takes_a_retry() {
    let mut gate = Gate::new(capacity(1));
    offer(&mut gate, 1, 10).unwrap();
    assert_eq!(offer(&mut gate, 2, 20), Err(Full(20)));
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
    offer(&mut gate, 1, 10).unwrap();
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

#[test]
fn a_full_gate_is_full_of_items_or_of_bytes() {
    let mut gate: Gate<u8, u32> = Gate::new(Capacity { items_max: 10, bytes_max: 100, unsettled_max: 1 });
    gate.offer(1, 10, 99, Repeat::Harmless).unwrap();
    gate.offer(2, 20, 500, Repeat::Harmless).unwrap();
    assert_eq!(gate.offer(3, 30, 1, Repeat::Harmless), Err(Full(30)));
    let started = gate.ready(NOW, 9);
    assert!(gate.finish(&2, started[1].turn));
    assert_eq!(gate.bytes(), 99);
    gate.offer(3, 30, 1, Repeat::Harmless).unwrap();
    assert_eq!(gate.remove(|_| true), 2);
    assert_eq!(gate.bytes(), 0);
}

#[test]
fn what_may_start_before_the_one_before_is_settled() {
    use Repeat::{Barrier, Harmful, Harmless};
    for (before, next, starts) in [
        (&[Harmless][..], Harmless, true),
        (&[Harmless], Harmful, true),
        (&[Harmful], Harmless, true),
        (&[Harmful], Harmful, false),
        (&[Harmful, Harmless], Harmful, false),
        (&[Harmless, Harmless], Harmless, false),
        (&[Harmless], Barrier, false),
    ] {
        let mut gate: Gate<u8, u32> = Gate::new(capacity(100));
        for (item, repeat) in (0_u32..).zip(before) {
            gate.offer(1, item, 1, *repeat).unwrap();
            let turn = gate.ready(NOW, 1)[0].turn;
            assert!(gate.finish_unsettled(&1, turn));
        }
        gate.offer(1, 9, 1, next).unwrap();
        assert_eq!(gate.has_startable(), starts, "{before:?} {next:?}");
        assert_eq!(gate.awaits_settlement(), !starts);
        gate.settled();
        assert!(!gate.awaits_settlement());
        let started = gate.ready(NOW, 9);
        assert_eq!(items(&started), [(1, 9)], "{before:?} {next:?}");
        assert!(gate.finish(&1, started[0].turn));
        assert!(!gate.is_busy(&1));
    }
}

#[derive(Debug, Clone)]
enum Step {
    Offer(u8, Repeat),
    Ready(usize),
    Finish(prop::sample::Index),
    FinishUnsettled(prop::sample::Index),
    Settle,
    Retry(prop::sample::Index, i64),
    Hold(u8),
    Release(u8),
    Wait(i64),
    Remove(u8),
    /// The process dies: everything that is not settled is offered again to the next one, in its order.
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let repeat = prop_oneof![
        3 => Just(Repeat::Harmless),
        3 => Just(Repeat::Harmful),
        1 => Just(Repeat::Barrier),
    ];
    prop_oneof![
        12 => (0_u8..5, repeat).prop_map(|(key, repeat)| Step::Offer(key, repeat)),
        8 => (0_usize..4).prop_map(Step::Ready),
        4 => any::<prop::sample::Index>().prop_map(Step::Finish),
        6 => any::<prop::sample::Index>().prop_map(Step::FinishUnsettled),
        2 => Just(Step::Settle),
        6 => (any::<prop::sample::Index>(), 0_i64..50).prop_map(|(index, wait)| Step::Retry(index, wait)),
        2 => (0_u8..5).prop_map(Step::Hold),
        4 => (0_u8..5).prop_map(Step::Release),
        4 => (0_i64..40).prop_map(Step::Wait),
        1 => (0_u8..5).prop_map(Step::Remove),
        1 => Just(Step::Crash),
    ]
}

/// An item as the model knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    item: u32,
    repeat: Repeat,
    finished: bool,
}

/// What the gate should do: per key the items that are not settled, in order, the finished ones first.
#[derive(Debug, Default)]
struct Model {
    open: BTreeMap<u8, VecDeque<Known>>,
    holds: BTreeMap<u8, u32>,
    due: BTreeMap<u8, i64>,
    flights: Vec<(u8, u32, Turn)>,
    /// The newest harmful item of each key that ever went out.
    out: BTreeMap<u8, u32>,
}

impl Model {
    fn unsettled(&self, key: u8) -> Vec<Known> {
        self.open.get(&key).into_iter().flatten().filter(|known| known.finished).copied().collect()
    }

    fn next(&self, key: u8) -> Option<Known> {
        self.open.get(&key)?.iter().find(|known| !known.finished).copied()
    }

    fn len(&self) -> usize {
        self.open.values().flatten().filter(|known| !known.finished).count()
    }

    fn may_start(&self, key: u8, now: i64) -> bool {
        let Some(next) = self.next(key) else { return false };
        let unsettled = self.unsettled(key);
        let settled_enough = unsettled.is_empty()
            || unsettled.len() < 2
                && match next.repeat {
                    Repeat::Harmless => true,
                    Repeat::Harmful => unsettled.iter().all(|known| known.repeat != Repeat::Harmful),
                    Repeat::Barrier => false,
                };
        settled_enough
            && self.holds.get(&key).is_none_or(|holds| *holds == 0)
            && self.due.get(&key).is_none_or(|due| *due <= now)
            && !self.flights.iter().any(|(flying, ..)| *flying == key)
    }

    fn start(&mut self, started: &[Started<u8, u32>], now: i64) -> Result<(), TestCaseError> {
        for Started { key, item, turn } in started {
            prop_assert!(self.may_start(*key, now), "{} of {} may not start", item, key);
            let next = self.next(*key).unwrap();
            prop_assert_eq!(next.item, *item, "overtaken");
            // However often there was a crash, nothing harmful goes after a newer one.
            if next.repeat == Repeat::Harmful {
                let newest = self.out.entry(*key).or_insert(*item);
                prop_assert!(*newest <= *item, "{} undoes {}", item, newest);
                *newest = *item;
            }
            self.due.remove(key);
            self.flights.push((*key, *item, *turn));
        }
        Ok(())
    }

    fn settle(&mut self) {
        for known in self.open.values_mut() {
            known.retain(|known| !known.finished);
        }
    }

    fn finish(&mut self, key: u8, item: u32) {
        self.open.get_mut(&key).unwrap().iter_mut().find(|known| known.item == item).unwrap().finished = true;
    }
}

proptest! {
    /// Against a model that keeps, per key, the items not yet settled in order: only the first unfinished one may ever start, never
    /// while another is in flight, held or not due, nor while a crash could repeat what it must not come before; and in the end
    /// everything comes out.
    #[test]
    fn one_in_flight_per_key_and_nothing_overtakes(steps in prop::collection::vec(step(), 1..300)) {
        let mut gate: Gate<u8, u32> = Gate::new(capacity(30));
        let mut model = Model::default();
        let mut now = 0_i64;
        let mut next = 0_u32;
        let at = Timestamp::from_millis;
        for step in steps {
            match step {
                Step::Offer(key, repeat) => {
                    let fits = model.len() < 30;
                    prop_assert_eq!(gate.offer(key, next, 3, repeat).is_ok(), fits);
                    if fits {
                        model.open.entry(key).or_default().push_back(Known { item: next, repeat, finished: false });
                    }
                    next += 1;
                }
                Step::Ready(max) => {
                    let holds = &model.holds;
                    model.due.retain(|key, due| *due > now || holds.get(key).is_some_and(|holds| *holds > 0));
                    let may = (0..5).filter(|key| model.may_start(*key, now)).count();
                    let started = gate.ready(at(now), max);
                    prop_assert_eq!(started.len(), may.min(max));
                    model.start(&started, now)?;
                }
                Step::Finish(index) if !model.flights.is_empty() => {
                    let (key, item, turn) = model.flights.swap_remove(index.index(model.flights.len()));
                    prop_assert!(gate.finish(&key, turn));
                    // It had nothing to settle: a crash does not bring it back.
                    model.open.get_mut(&key).unwrap().retain(|known| known.item != item);
                }
                Step::FinishUnsettled(index) if !model.flights.is_empty() => {
                    let (key, item, turn) = model.flights.swap_remove(index.index(model.flights.len()));
                    prop_assert!(gate.finish_unsettled(&key, turn));
                    model.finish(key, item);
                }
                Step::Settle => {
                    gate.settled();
                    model.settle();
                }
                Step::Retry(index, wait) if !model.flights.is_empty() => {
                    let (key, item, turn) = model.flights.swap_remove(index.index(model.flights.len()));
                    prop_assert!(gate.retry(&key, turn, item, at(now + wait)).is_ok());
                    model.due.insert(key, now + wait);
                }
                Step::Finish(_) | Step::FinishUnsettled(_) | Step::Retry(..) => {}
                Step::Hold(key) => {
                    gate.hold(key);
                    *model.holds.entry(key).or_default() += 1;
                }
                Step::Release(key) => {
                    let held = model.holds.entry(key).or_default();
                    prop_assert_eq!(gate.release(&key), *held > 0);
                    *held = held.saturating_sub(1);
                }
                Step::Wait(ms) => now += ms,
                Step::Remove(key) => {
                    let gone = model.open.remove(&key).unwrap_or_default().iter().filter(|known| !known.finished).count();
                    prop_assert_eq!(gate.remove(|other| *other == key), gone);
                    model.holds.remove(&key);
                    model.due.remove(&key);
                    model.flights.retain(|(flying, ..)| *flying != key);
                    model.out.remove(&key);
                }
                Step::Crash => {
                    gate = Gate::new(capacity(30));
                    (model.holds, model.due, model.flights) = Default::default();
                    let mut left: Vec<(u8, Known)> =
                        model.open.iter().flat_map(|(key, known)| known.iter().map(move |known| (*key, *known))).collect();
                    left.sort_by_key(|(_, known)| known.item);
                    model.open.clear();
                    for (key, known) in left {
                        // What does not fit is read later, behind the others.
                        if gate.offer(key, known.item, 3, known.repeat).is_err() {
                            break;
                        }
                        model.open.entry(key).or_default().push_back(Known { finished: false, ..known });
                    }
                }
            }
            prop_assert_eq!(gate.in_flight(), model.flights.len());
            prop_assert_eq!(gate.len(), model.len());
            prop_assert_eq!(gate.bytes(), 3 * model.len());
            prop_assert_eq!(gate.keys_held(), model.holds.values().filter(|holds| **holds > 0).count());
            prop_assert_eq!(gate.has_startable() , (0..5).any(|key| model.may_start(key, now) && !model.due.contains_key(&key)));
            for key in 0..5 {
                let len = model.open.get(&key).into_iter().flatten().filter(|known| !known.finished).count();
                prop_assert_eq!(gate.len_of(&key), len);
            }
        }
        for (key, holds) in &model.holds {
            for _ in 0..*holds {
                prop_assert!(gate.release(key));
            }
        }
        model.holds.clear();
        model.due.clear();
        for (key, item, turn) in std::mem::take(&mut model.flights) {
            prop_assert!(gate.finish_unsettled(&key, turn));
            model.finish(key, item);
        }
        loop {
            gate.settled();
            model.settle();
            let started = gate.ready(at(i64::MAX), 7);
            if started.is_empty() {
                break;
            }
            model.start(&started, i64::MAX)?;
            for (key, item, turn) in std::mem::take(&mut model.flights) {
                prop_assert!(gate.finish_unsettled(&key, turn));
                model.finish(key, item);
            }
        }
        prop_assert!(gate.is_empty());
        prop_assert!(model.open.values().all(VecDeque::is_empty));
        prop_assert!((0..5).all(|key| !gate.is_busy(&key)));
    }
}
