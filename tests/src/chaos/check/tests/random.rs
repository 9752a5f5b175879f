//! Random histories: a model of the product that does everything right, and one mistake at a time.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

/// What a row is, before it has a number.
type Plan = (u32, bool, Vec<u32>, bool, bool);

const PEOPLE: u32 = 5;

fn plans() -> impl Strategy<Value = Vec<Plan>> {
    let nodes = prop_oneof![3 => vec(0..4_u32, 1), 1 => vec(0..4_u32, 2)];
    vec((0..PEOPLE, prop::bool::weighted(0.7), nodes, any::<bool>(), prop::bool::weighted(0.1)), 1..120)
}

/// What the product would do with these rows: whatever has no customer is held until it has, and everything else goes on at once.
fn play(plans: Vec<Plan>) -> History {
    let mut history = History::new();
    let mut waiting: Vec<Produced> = Vec::new();
    for (number, (person, is_activity, nodes, tracks, repeated)) in plans.into_iter().enumerate() {
        let source = if is_activity { Source::Activity } else { Source::Score };
        let component_event = ComponentEvent::of(if is_activity { &nodes } else { CUSTOMER });
        let seq = u32::try_from(number).unwrap();
        let row = Produced { person, seq, source, component_event, repeated, tracks: tracks && is_activity };
        for _ in 0..=usize::from(repeated) {
            history.produced.push(row.clone());
        }
        waiting.push(row);
        let linked = linked(&history.produced);
        let (free, held) = waiting.into_iter().partition(|row: &Produced| {
            row.source == Source::Score
                || linked.get(&row.person).is_some_and(|nodes| nodes & row.component_event.0 != 0)
        });
        waiting = held;
        free.iter().for_each(|row| history.deliver(row));
    }
    history.held = waiting.iter().map(|row| (row.source, row.person, row.seq)).collect();
    history
}

/// The identifiers of each person that are connected with the customer: found the slow and obvious way.
fn linked(produced: &[Produced]) -> HashMap<u32, u64> {
    let mut linked: HashMap<u32, u64> = (0..PEOPLE).map(|person| (person, 1)).collect();
    for _ in 0..ComponentEvent::NODES_MAX {
        for row in produced.iter().filter(|row| row.source == Source::Activity) {
            let nodes = linked.entry(row.person).or_default();
            *nodes |= if *nodes & row.component_event.0 == 0 { 0 } else { row.component_event.0 };
        }
    }
    linked
}

impl History {
    fn deliver(&mut self, row: &Produced) {
        for kind in [Some(row.source.upsert()), row.tracks.then_some(Kind::Track)].into_iter().flatten() {
            let seconds = self.arrivals.len() as f64;
            self.arrive_as(kind, row.seq, seconds).item.person = row.person;
        }
    }

    /// The arrivals in another order, with the times and numbers that they would have then.
    fn rearrange(&mut self, arrivals: Vec<Item>) {
        self.arrivals.clear();
        for item in arrivals {
            let seconds = self.arrivals.len() as f64 * 10.0;
            self.arrive_as(item.kind, item.seq, seconds).item.person = item.person;
        }
    }

    fn items(&self) -> Vec<Item> {
        self.arrivals.iter().map(|arrival| arrival.item).collect()
    }

    /// The places of two arrivals that have an order: of the same kind and person, and the later one names the customer, with whom
    /// everything that arrives is connected by then or was when it was released.
    fn ordered_pairs(&self) -> Vec<(usize, usize)> {
        let row = |item: &Item| {
            self.produced
                .iter()
                .position(|row| row.source == item.kind.source() && row.person == item.person && row.seq == item.seq)
        };
        let items = self.items();
        let mut pairs = Vec::new();
        for (later, item) in items.iter().enumerate() {
            let Some(row_of_later) = row(item) else { continue };
            for (earlier, other) in items.iter().enumerate().take(later) {
                let before = row(other).is_some_and(|row_of_earlier| row_of_earlier < row_of_later);
                let same = other.kind == item.kind && other.person == item.person;
                let names = self.produced[row_of_later].component_event.0;
                let shares = row(other).is_some_and(|row| self.produced[row].component_event.0 & names != 0);
                if before && same && shares {
                    pairs.push((earlier, later));
                }
            }
        }
        pairs
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_random_history_without_mistakes_is_clean(plans in plans()) {
        let history = play(plans);
        let verdict = history.check();
        prop_assert_eq!(counts(&verdict), CLEAN, "{}", verdict);
        prop_assert_eq!(verdict.expected, history.arrivals.len());
    }

    #[test]
    fn two_that_are_swapped_are_found(plans in plans(), which: Index) {
        let mut history = play(plans);
        let pairs = history.ordered_pairs();
        prop_assume!(!pairs.is_empty());
        let (earlier, later) = *which.get(&pairs);
        let mut items = history.items();
        items.swap(earlier, later);
        history.rearrange(items);
        let verdict = history.check();
        prop_assert!(!verdict.reordered.is_empty());
        prop_assert!(verdict.lost.is_empty() && verdict.duplicated.is_empty(), "{}", verdict);
    }

    #[test]
    fn one_that_is_dropped_is_found(plans in plans(), which: Index) {
        let mut history = play(plans);
        let mut items = history.items();
        prop_assume!(!items.is_empty());
        let dropped = items.remove(which.index(items.len()));
        history.rearrange(items);
        let verdict = history.check();
        prop_assert_eq!(counts(&verdict), LOST);
        prop_assert_eq!(verdict.lost[0].item, Some(dropped));
    }

    #[test]
    fn one_that_arrives_again_is_found(plans in plans(), which: Index) {
        let mut history = play(plans);
        let mut items = history.items();
        prop_assume!(!items.is_empty());
        let place = which.index(items.len());
        let again = items[place];
        items.insert(place + 1, again);
        history.rearrange(items);
        let verdict = history.check();
        prop_assert_eq!(counts(&verdict), DUPLICATED);
        prop_assert_eq!(verdict.duplicated[0].item, Some(again));
    }

    #[test]
    fn one_that_failed_before_is_ambiguous_only(plans in plans(), which: Index) {
        let mut history = play(plans);
        let mut items = history.items();
        prop_assume!(!items.is_empty());
        let place = which.index(items.len());
        items.insert(place, items[place]);
        history.rearrange(items);
        let failed = &mut history.arrivals[place];
        (failed.answer, failed.took_effect, failed.effect_after) = (Answer::Broken, false, None);
        prop_assert_eq!(history.counts(), AMBIGUOUS);
    }
}
