//! Plans, with conditions and routes made up here. Issue 10: B9, B10, C1.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tailwater_core::delivery::Reason;
use tailwater_core::envelope::{Envelope, Identifier, Merge, Role};
use tailwater_core::judge::Signature;
use tailwater_core::ledger::End;
use tailwater_core::{ProfileId, Timestamp, code};

use super::existence::Age;
use super::failed::Failed;
use super::plan::{Action, ActionKind, BEHIND_PAUSE_PERSON_MAX, Budget, Planner, Stand};
use super::subscribed::{Subscribed, Subscriptions, Wanted};
use crate::config::model::OnMissingKey;
use crate::kafka::Record;
use crate::stages::Error;
use crate::stages::shared::held::Waiting;
use crate::state::Store;

/// A destination with two routes: the source's name is the place of the route, and the condition of `broken` cannot be evaluated.
#[derive(Clone, Copy)]
struct Wants(OnMissingKey);

impl Subscriptions for Wants {
    fn destination(&self) -> &'static str {
        "d"
    }

    fn key(&self) -> &'static str {
        "email"
    }

    fn on_missing_key(&self) -> OnMissingKey {
        self.0
    }

    fn hold_for(&self) -> Duration {
        Duration::from_secs(60)
    }

    fn age(&self, _record: &Record, _envelope: &Envelope<'_>) -> Age {
        Age::Live
    }

    fn subscribed(&self, _record: &Record, envelope: &Envelope<'_>) -> Result<Subscribed, Error> {
        let wanted = match envelope.source.parse() {
            Ok(route) => Wanted { routes: vec![route], ..Wanted::default() },
            Err(_) => {
                let reason = Reason::new(code::MISSING_COLUMN, "no column `tier`");
                let signature = Signature::new(code::MISSING_COLUMN, Some("tier"), "");
                let failed = Failed { reason, signature, stack: None };
                Wanted { routes: vec![0], failed: vec![(0, failed)], ..Wanted::default() }
            }
        };
        Ok(Subscribed::Routes(wanted))
    }
}

fn person(name: &str) -> ProfileId {
    ProfileId::of("w", "email", name, 0)
}

fn event(offset: i64, profile: ProfileId, source: &str, has_key: bool) -> Arc<Record> {
    let identifiers = if has_key { &[Identifier { kind: "email", value: "a@b.c" }][..] } else { &[] };
    record(
        offset,
        &Envelope {
            source,
            profile: Some(profile),
            identifiers: identifiers.iter().copied().collect(),
            ..Envelope::default()
        },
    )
}

fn record(offset: i64, envelope: &Envelope<'_>) -> Arc<Record> {
    let header = envelope.to_bytes();
    let value = Some(&b"{}"[..]);
    Arc::new(Record::new("t".into(), 0, offset, Timestamp::default(), None, value, Some(&header), vec![]))
}

/// The stage, batch by batch.
struct Stage {
    store: Store,
    _folder: tempfile::TempDir,
    waiting: Waiting,
    paused: BTreeSet<usize>,
    blocked: BTreeSet<(i32, ProfileId)>,
    budget: usize,
    wants: Wants,
}

impl Stage {
    fn new() -> Self {
        let (store, folder) = Store::without_broker(&[0]);
        Self {
            store,
            _folder: folder,
            waiting: Waiting::default(),
            paused: BTreeSet::new(),
            blocked: BTreeSet::new(),
            budget: usize::MAX,
            wants: Wants(OnMissingKey::Hold),
        }
    }

    /// Plans a batch and carries it out. What it does, and the place of the first record that has no room.
    fn batch(&mut self, records: &[Arc<Record>]) -> (Vec<String>, Option<usize>) {
        let ready: Vec<_> = self.waiting.going().iter().copied().collect();
        let stand = Stand { routes: &self.paused, blocked: &self.blocked, undecided: &BTreeSet::new() };
        let mut planner = Planner::new(self.wants, &mut self.store, &mut self.waiting, Timestamp::default(), stand);
        planner.budget = Budget { records: self.budget, bytes: usize::MAX };
        planner.go_on(ready, &Arc::from("t")).unwrap();
        for (place, record) in records.iter().enumerate() {
            planner.record(place, record).unwrap();
        }
        let (actions, blocked, full) = (planner.actions, planner.blocked, planner.full.get(&0).copied());
        self.blocked.extend(blocked);
        self.store.keep();
        self.waiting.accept();
        (actions.iter().map(shown).collect(), full)
    }

    /// As another process finds it.
    fn restart(&mut self) {
        self.waiting = Waiting::default();
        self.waiting.load(&self.store, &[0]).unwrap();
        self.blocked.clear();
    }
}

fn shown(action: &Action) -> String {
    match &action.kind {
        ActionKind::Transform(work) if work.failed.is_empty() => format!("run {}", work.record.offset),
        ActionKind::Transform(work) => format!("fail {}", work.record.offset),
        ActionKind::End { record, end: End::Held, reason } => format!("hold {} ({reason})", record.offset),
        ActionKind::End { record, reason, .. } => format!("end {} ({reason})", record.offset),
        ActionKind::DeadLetter { record, reason } => format!("dead {} ({})", record.offset, reason.code),
        ActionKind::HandOver { record, .. } => format!("hand over {}", record.offset),
        ActionKind::Release(merge) => format!("release {}", merge.number),
        ActionKind::Forward { .. } => "forward".to_owned(),
    }
}

#[test]
fn a_person_behind_a_paused_route_waits_in_order_and_everybody_else_goes_on() {
    let mut stage = Stage::new();
    stage.paused.insert(1);
    let (ada, bob) = (person("ada"), person("bob"));
    let records =
        [event(0, ada, "1", true), event(1, bob, "0", true), event(2, ada, "0", true), event(3, bob, "0", true)];
    let (done, full) = stage.batch(&records);
    assert_eq!(done, ["hold 0 (route_paused)", "run 1", "hold 2 (route_paused)", "run 3"]);
    assert_eq!(full, None);
    // Nothing of hers moves while the pause lasts, and a restart forgets nothing.
    assert_eq!(stage.batch(&[event(4, bob, "0", true)]).0, ["run 4"]);
    stage.restart();
    assert_eq!(stage.batch(&[event(5, ada, "0", true)]).0, ["hold 5 (route_paused)"]);
    // The pause is over: what waits goes first.
    stage.paused.clear();
    stage.blocked.clear();
    assert_eq!(stage.batch(&[event(6, ada, "0", true)]).0, ["run 0", "run 2", "run 5", "run 6"]);
    assert!(stage.store.scan(0, b"").unwrap().is_empty());
}

#[test]
fn what_waits_behind_a_pause_is_bounded_by_not_reading_on() {
    let mut stage = Stage::new();
    stage.paused.insert(1);
    let (ada, bob) = (person("ada"), person("bob"));
    let share = i64::try_from(BEHIND_PAUSE_PERSON_MAX).unwrap();
    let records: Vec<_> = (0..share).map(|offset| event(offset, ada, "1", true)).collect();
    assert_eq!(stage.batch(&records).1, None);
    let more = [event(share, bob, "0", true), event(share + 1, ada, "0", true), event(share + 2, bob, "0", true)];
    // Behind the first record without room nothing is taken, not even for others: offsets of a partition are committed in order.
    assert_eq!(stage.batch(&more), (vec![format!("run {share}")], Some(1)));
}

#[test]
fn a_long_queue_goes_on_in_several_batches_and_in_order() {
    let mut stage = Stage::new();
    stage.budget = 2;
    let ada = person("ada");
    let records: Vec<_> = (0..5).map(|offset| event(offset, ada, "0", false)).collect();
    assert_eq!(stage.batch(&records).0.len(), 5);
    // The key arrives with an event that is itself behind what waits.
    assert_eq!(stage.batch(&[event(5, ada, "0", true)]).0, ["run 0", "run 1", "hold 5 (no_key)"]);
    stage.restart();
    assert_eq!(stage.batch(&[]).0, ["run 2", "run 3"]);
    assert_eq!(stage.batch(&[event(6, ada, "0", true)]).0, ["run 4", "run 5", "run 6"]);
    assert!(stage.store.scan(0, b"").unwrap().is_empty() && stage.waiting.going().is_empty());
}

#[test]
fn an_absorbed_profiles_records_are_handed_over_in_several_batches_before_its_fence_is_passed() {
    let mut stage = Stage::new();
    stage.budget = 2;
    let merge = Merge { number: 7, survivor: person("ada"), absorbed: person("bob") };
    let records: Vec<_> = (0..3).map(|offset| event(offset, merge.absorbed, "0", false)).collect();
    stage.batch(&records);
    let fence = |offset| {
        record(offset, &Envelope { profile: Some(merge.absorbed), role: Role::Fence(merge), ..Envelope::default() })
    };
    assert_eq!(stage.batch(&[fence(3)]).0, ["hand over 0", "hand over 1"]);
    stage.restart();
    assert_eq!(stage.batch(&[]).0, ["hand over 2", "release 7", "forward"]);
    assert!(stage.store.scan(0, b"").unwrap().is_empty());
    // A fence that is read once more changes nothing.
    assert_eq!(stage.batch(&[fence(9)]).0, ["release 7", "forward"]);
}

#[test]
fn a_condition_that_cannot_be_evaluated_is_judged_even_if_the_person_lacks_the_key() {
    let ada = person("ada");
    for (on_missing_key, expected) in [
        (OnMissingKey::DeadLetter, "fail 0"),
        (OnMissingKey::Skip, "fail 0"),
        // It waits, and is evaluated when the key is there.
        (OnMissingKey::Hold, "hold 0 (no_key)"),
    ] {
        let mut stage = Stage::new();
        stage.wants = Wants(on_missing_key);
        assert_eq!(stage.batch(&[event(0, ada, "broken", false)]).0, [expected]);
    }
    assert_eq!(Stage::new().batch(&[event(0, ada, "broken", true)]).0, ["fail 0"]);
}

#[test]
fn a_record_that_does_not_fit_the_state_becomes_a_dead_letter_and_the_next_one_waits() {
    let mut stage = Stage::new();
    stage.waiting = Waiting::new(Some(400));
    let ada = person("ada");
    let header = event(0, ada, "0", false).header().unwrap().to_vec();
    let large = [b'x'; 300];
    let large = Record::new("t".into(), 0, 0, Timestamp::default(), None, Some(&large), Some(&header), vec![]);
    let (done, _) = stage.batch(&[Arc::new(large), event(1, ada, "0", false)]);
    assert_eq!(done, ["dead 0 (kafka_record_too_large)", "hold 1 (no_key)"]);
}
