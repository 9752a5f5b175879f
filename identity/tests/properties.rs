//! What holds for every stream of events, whatever its order and wherever it is cut into batches.
//!
//! The universe is small on purpose: few values, so that streams conflict, merge and run into limits all the time.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test may stop at the first surprise")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use support::WORKSPACE;
use tailwater_core::envelope::Identifier;
use tailwater_core::{ProfileId, Timestamp};
use tailwater_identity::{
    BatchDecision, Decision, Globals, Incoming, Limit, MemoryStore, Person, Resolver, Rules, TypeRule, Why, Write,
};

const KINDS: [&str; 3] = ["user_id", "email", "cookie"];

/// An event of the small universe.
#[derive(Debug, Clone)]
struct Event {
    /// Type and value.
    ids: Vec<(usize, String)>,
    time: i64,
}

#[derive(Debug, Clone)]
struct Bounds {
    max: [u32; 3],
    cookie_window: Option<u64>,
    globals: Globals,
}

fn event() -> impl Strategy<Value = Event> {
    (vec((0..3_usize, 1..5_u8), 1..5), 0..30_i64)
        .prop_map(|(ids, time)| Event { ids: ids.into_iter().map(|(kind, n)| (kind, format!("{n}x"))).collect(), time })
}

fn stream() -> impl Strategy<Value = Vec<Event>> {
    vec(event(), 1..40)
}

fn bounds() -> impl Strategy<Value = Bounds> {
    (3..8_usize, 0..4_usize, 2..5_usize, [1..4_u32, 1..4_u32, 1..4_u32], proptest::option::of(1..15_u64)).prop_map(
        |(max_identifiers, max_merges, max_ids_per_event, max, cookie_window)| Bounds {
            max: max.map(|max| max.min(max_identifiers as u32)),
            cookie_window,
            globals: Globals { max_identifiers, max_merges, max_ids_per_event, default_blocklist: true },
        },
    )
}

impl Bounds {
    fn none() -> Self {
        Self { max: [1000; 3], cookie_window: None, globals: Globals { max_merges: 1000, ..Globals::default() } }
    }

    fn limit(&self, kind: usize) -> Limit {
        let window = self.cookie_window.filter(|_| kind == 2).map(Duration::from_millis);
        Limit { max: self.max[kind], window }
    }

    fn rules(&self) -> Rules {
        let types = (0..3)
            .map(|kind| TypeRule { limit: self.limit(kind), ..TypeRule::new(KINDS[kind], kind as u32 + 1) })
            .collect();
        Rules::new(types, self.globals).unwrap()
    }
}

/// Resolves the stream in batches that end at the cuts.
fn run(rules: &Rules, events: &[Event], cuts: &BTreeSet<usize>) -> (MemoryStore, Vec<Decision>, Vec<Write>) {
    let (mut store, mut decisions, mut log) = (MemoryStore::default(), Vec::new(), Vec::new());
    let mut start = 0;
    for end in cuts.iter().copied().filter(|cut| (1..events.len()).contains(cut)).chain([events.len()]) {
        let BatchDecision { decisions: decided, writes } = resolve(rules, &store, &events[start..end]);
        store.apply(&writes);
        decisions.extend(decided);
        log.extend(writes);
        start = end;
    }
    (store, decisions, log)
}

fn resolve(rules: &Rules, store: &MemoryStore, events: &[Event]) -> BatchDecision {
    let identifiers: Vec<Vec<Identifier<'_>>> = events
        .iter()
        .map(|event| event.ids.iter().map(|(kind, value)| Identifier { kind: KINDS[*kind], value }).collect())
        .collect();
    let incoming: Vec<Incoming<'_>> = events
        .iter()
        .zip(&identifiers)
        .map(|(event, identifiers)| Incoming { identifiers, time: Timestamp::from_millis(event.time) })
        .collect();
    Resolver::new(rules, WORKSPACE).resolve(store, &incoming).unwrap()
}

fn one_by_one(events: &[Event]) -> BTreeSet<usize> {
    (1..events.len()).collect()
}

/// Everybody in the store.
fn people(rules: &Rules, store: &MemoryStore) -> BTreeMap<ProfileId, Person> {
    let resolver = Resolver::new(rules, WORKSPACE);
    store
        .entries()
        .filter_map(|(key, _)| key.as_profile())
        .map(|id| resolver.get(store, id).unwrap().unwrap())
        .map(|person| (person.profile, person))
        .collect()
}

fn held(person: &Person) -> BTreeSet<(String, String)> {
    person.identifiers.iter().map(|held| (held.kind.to_string(), held.match_key.to_string())).collect()
}

/// The groups of identifiers that belong together.
fn groups(rules: &Rules, store: &MemoryStore) -> BTreeSet<BTreeSet<(String, String)>> {
    people(rules, store).values().map(held).collect()
}

fn keeps(limit: Limit, mut times: Vec<i64>) -> bool {
    times.sort_unstable();
    match limit.window {
        None => times.len() <= limit.max as usize,
        // Every window that begins at a value.
        Some(window) => times.iter().all(|start| {
            let end = start + window.as_millis() as i64;
            times.iter().filter(|time| (*start..end).contains(time)).count() <= limit.max as usize
        }),
    }
}

// === the naive model: one person is a set, every event looks at all of them ===

#[derive(Default, Clone)]
struct ModelPerson {
    ids: BTreeMap<(usize, String), i64>,
    merges: usize,
}

#[derive(Default)]
struct Model {
    /// In the order in which they were made; `None` once absorbed.
    people: Vec<Option<ModelPerson>>,
}

struct ModelAnswer {
    person: usize,
    absorbed: Vec<usize>,
    refused: BTreeSet<(usize, String, Why)>,
}

impl Model {
    fn answer(&mut self, bounds: &Bounds, event: &Event) -> ModelAnswer {
        let sorted: BTreeSet<(usize, String)> = event.ids.iter().cloned().collect();
        let mut used: Vec<(usize, String)> = sorted.into_iter().collect();
        let excess = used.split_off(used.len().min(bounds.globals.max_ids_per_event));
        let mut refused: BTreeSet<_> = excess.into_iter().map(|(kind, value)| (kind, value, Why::TooMany)).collect();
        let mut aside = Vec::new();
        let (members, union) = loop {
            let members: Vec<usize> = (0..self.people.len())
                .filter(|n| self.people[*n].as_ref().is_some_and(|p| used.iter().any(|id| p.ids.contains_key(id))))
                .collect();
            let mut union = ModelPerson { merges: members.len().saturating_sub(1), ..ModelPerson::default() };
            for n in &members {
                let person = self.people[*n].clone().unwrap();
                union.merges += person.merges;
                union.ids.extend(person.ids);
            }
            for id in &used {
                union.ids.entry(id.clone()).or_insert(event.time);
            }
            let fits = (0..3).all(|kind| {
                let times = union.ids.iter().filter(|((k, _), _)| *k == kind).map(|(_, time)| *time).collect();
                keeps(bounds.limit(kind), times)
            }) && union.ids.len() <= bounds.globals.max_identifiers
                && union.merges <= bounds.globals.max_merges;
            if fits {
                break (members, union);
            }
            aside.push(used.pop().unwrap());
        };
        let person = members.first().copied().unwrap_or_else(|| {
            self.people.push(None);
            self.people.len() - 1
        });
        for n in &members {
            self.people[*n] = None;
        }
        self.people[person] = Some(union);
        for (kind, value) in aside {
            let id = (kind, value.clone());
            match self.people.iter().position(|p| p.as_ref().is_some_and(|p| p.ids.contains_key(&id))) {
                Some(owner) if owner == person => {}
                Some(_) => drop(refused.insert((kind, value, Why::OwnedByAnother))),
                None => drop(refused.insert((kind, value, Why::Demoted))),
            }
        }
        ModelAnswer { person, absorbed: members.into_iter().skip(1).collect(), refused }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_profile_ever_exceeds_a_limit(events in stream(), bounds in bounds()) {
        let rules = bounds.rules();
        let mut store = MemoryStore::default();
        for event in &events {
            store.apply(&resolve(&rules, &store, std::slice::from_ref(event)).writes);
            for person in people(&rules, &store).values() {
                for (kind, name) in KINDS.iter().enumerate() {
                    let times = person.identifiers.iter().filter(|held| *held.kind == **name).map(|held| held.added.as_millis());
                    prop_assert!(keeps(bounds.limit(kind), times.collect()), "{person:?}");
                }
                prop_assert!(person.identifiers.len() <= bounds.globals.max_identifiers);
                prop_assert!(person.absorbed.len() <= bounds.globals.max_merges);
            }
        }
    }

    #[test]
    fn decisions_are_those_of_the_naive_model(events in stream(), bounds in bounds()) {
        let rules = bounds.rules();
        let (store, decisions, _) = run(&rules, &events, &one_by_one(&events));
        let mut model = Model::default();
        let mut ids: BTreeMap<usize, ProfileId> = BTreeMap::new();
        let mut merges = 0;
        for (event, decision) in events.iter().zip(&decisions) {
            let expected = model.answer(&bounds, event);
            let got = decision.resolution().unwrap();
            prop_assert_eq!(got.created, !ids.contains_key(&expected.person));
            let profile = *ids.entry(expected.person).or_insert(got.profile);
            prop_assert_eq!(got.profile, profile);
            let absorbed: Vec<ProfileId> = expected.absorbed.iter().map(|n| ids[n]).collect();
            prop_assert_eq!(got.merges.iter().map(|merge| merge.absorbed).collect::<Vec<_>>(), absorbed);
            for merge in &got.merges {
                merges += 1;
                prop_assert_eq!((merge.number, merge.survivor), (merges, profile));
            }
            let refused: BTreeSet<_> = got
                .refused
                .iter()
                .map(|refusal| (KINDS.iter().position(|kind| **kind == *refusal.kind).unwrap(), refusal.value.to_string(), refusal.why))
                .collect();
            prop_assert_eq!(refused, expected.refused);
        }
        let expected: BTreeSet<BTreeSet<(String, String)>> = model
            .people
            .iter()
            .flatten()
            .map(|person| person.ids.keys().map(|(kind, value)| (KINDS[*kind].to_owned(), value.clone())).collect())
            .collect();
        prop_assert_eq!(groups(&rules, &store), expected);
    }

    #[test]
    fn without_limits_people_are_the_connected_components_in_every_order(
        (events, shuffled) in stream().prop_flat_map(|events| (Just(events.clone()), Just(events).prop_shuffle())),
    ) {
        let rules = Bounds::none().rules();
        let mut components: Vec<BTreeSet<(String, String)>> = Vec::new();
        for event in &events {
            let mut joined: BTreeSet<_> = event.ids.iter().map(|(kind, value)| (KINDS[*kind].to_owned(), value.clone())).collect();
            components.retain(|component| {
                let apart = component.is_disjoint(&joined);
                if !apart {
                    joined.extend(component.iter().cloned());
                }
                apart
            });
            components.push(joined);
        }
        let components: BTreeSet<_> = components.into_iter().collect();
        for events in [events, shuffled] {
            let (store, decisions, _) = run(&rules, &events, &BTreeSet::new());
            prop_assert!(decisions.iter().all(|decision| decision.refused().is_empty()));
            prop_assert_eq!(&groups(&rules, &store), &components);
        }
    }

    #[test]
    fn cutting_the_stream_into_other_batches_changes_nothing(
        events in stream(), bounds in bounds(), cuts in proptest::collection::btree_set(0..40_usize, 0..8),
    ) {
        let rules = bounds.rules();
        let (store, decisions, _) = run(&rules, &events, &cuts);
        for cuts in [BTreeSet::new(), one_by_one(&events)] {
            let (other, others, _) = run(&rules, &events, &cuts);
            prop_assert_eq!(&decisions, &others);
            prop_assert_eq!(&store, &other);
        }
    }

    #[test]
    fn the_last_write_of_each_key_restores_the_store(
        events in stream(), bounds in bounds(), cuts in proptest::collection::btree_set(0..40_usize, 0..8),
    ) {
        let rules = bounds.rules();
        let (store, _, log) = run(&rules, &events, &cuts);
        let compacted: BTreeMap<_, _> = log.into_iter().map(|write| (write.key, write)).collect();
        let mut restored = MemoryStore::default();
        restored.apply(&compacted.into_values().collect::<Vec<_>>());
        prop_assert_eq!(&restored, &store);
        // And what follows is decided alike.
        prop_assert_eq!(resolve(&rules, &restored, &events), resolve(&rules, &store, &events));
    }

    #[test]
    fn an_event_shows_its_own_persons_identifiers_and_no_others(events in stream(), bounds in bounds()) {
        let rules = bounds.rules();
        let resolver = Resolver::new(&rules, WORKSPACE);
        let mut store = MemoryStore::default();
        for event in &events {
            let batch = resolve(&rules, &store, std::slice::from_ref(event));
            store.apply(&batch.writes);
            let got = batch.decisions[0].resolution().unwrap();
            let person = resolver.get(&store, got.profile).unwrap().unwrap();
            for in_use in &got.identifiers {
                prop_assert!(person.identifiers.iter().any(|held| held.in_use && held.kind == in_use.kind && held.value == in_use.value));
            }
            prop_assert_eq!(got.identifiers.len(), person.identifiers.iter().filter(|held| held.in_use).count());
            let refused: BTreeSet<(&str, &str)> = got.refused.iter().map(|refusal| (&*refusal.kind, &*refusal.value)).collect();
            for (kind, value) in &event.ids {
                let owner = resolver.find(&store, KINDS[*kind], value).unwrap().map(|owner| owner.profile);
                let late = got.refused.iter().any(|refusal| refusal.why == Why::TooMany && *refusal.value == **value);
                prop_assert!(late || (owner == Some(got.profile)) != refused.contains(&(KINDS[*kind], value)));
            }
        }
        // Every identifier that a profile lists leads back to it.
        for (id, person) in people(&rules, &store) {
            for held in &person.identifiers {
                prop_assert_eq!(resolver.find(&store, &held.kind, &held.match_key).unwrap().map(|owner| owner.profile), Some(id));
            }
        }
    }
}
