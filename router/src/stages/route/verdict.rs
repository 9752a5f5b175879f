//! What the failures of a batch mean: go on and dead-letter them, wait for more rows, or pause the route.
//!
//! The decision itself is pure and lives in `tailwater_core::judge`; here it is applied to a batch, and its result is a [`Cut`]: for
//! each partition, the first record that must stay where it is, and the people whose queues must.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use tailwater_core::delivery::Reason;
use tailwater_core::judge::{self, Window};
use tailwater_core::{ProfileId, Timestamp, code};

use super::failed::Failed;
use super::plan::{Action, ActionKind, Trigger};
use super::routes::Routes;
use super::transform::{Cell, Made, Results, cell};

/// The failures since the first one that is not judged yet, by route.
#[derive(Debug, Default)]
pub struct Windows {
    by_route: BTreeMap<usize, Open>,
    /// Rows whose verdict is a dead letter, until they are written: when the batch is cut for another route's sake, they are not
    /// judged a second time.
    dead: HashSet<Cell>,
}

#[derive(Debug, Default)]
struct Open {
    /// What earlier windows have left to count on.
    before: Window,
    /// When the first failure that is still undecided was seen.
    since: Option<Timestamp>,
    /// Rows that succeeded since then and have been written.
    good: u64,
}

/// How far a batch may go.
#[derive(Debug, Default)]
pub struct Cut {
    /// By partition, the place in the batch of the first record that stays.
    stops: BTreeMap<i32, usize>,
    /// People whose queues stay as they are.
    pub people: BTreeSet<(i32, ProfileId)>,
    /// What those queues would have let go, so that results are not thrown away that are needed again.
    pub kept: HashSet<(i32, i64)>,
    pub pause: Option<Pause>,
}

/// Why a route stopped.
#[derive(Debug, Clone)]
pub struct Pause {
    /// The place of the route.
    pub place: usize,
    /// Its name.
    pub route: String,
    pub reason: Reason,
}

/// What is to be done with a batch.
#[derive(Debug)]
pub enum Verdict {
    /// Everything may be written; these cells end as dead letters.
    Proceed { dead: HashSet<Cell> },
    /// Plan again, without what stays.
    Cut(Cut),
}

impl Cut {
    /// Whether the record at this place of the batch may be worked on.
    pub fn admits(&self, partition: i32, place: usize) -> bool {
        self.stops.get(&partition).is_none_or(|stop| place < *stop)
    }

    /// Joins two cuts: the earlier stop of each partition counts.
    pub fn tighten(&mut self, other: Self) {
        for (partition, stop) in other.stops {
            let mine = self.stops.entry(partition).or_insert(stop);
            *mine = (*mine).min(stop);
        }
        self.people.extend(other.people);
        self.kept.extend(other.kept);
        if self.pause.is_none() {
            self.pause = other.pause;
        }
    }

    /// Records of the partition stay from this place on.
    pub fn stop(&mut self, partition: i32, place: usize) {
        let stop = self.stops.entry(partition).or_insert(place);
        *stop = (*stop).min(place);
    }

    fn hold_up(&mut self, partition: i32, trigger: Trigger) {
        match trigger {
            Trigger::Record(place) => self.stop(partition, place),
            Trigger::Queue(profile) => {
                self.people.insert((partition, profile));
            }
            Trigger::Clock => {}
        }
    }

    fn is_empty(&self) -> bool {
        self.stops.is_empty() && self.people.is_empty()
    }
}

/// A row that failed, and the record that brought it.
struct Failure<'a> {
    partition: i32,
    trigger: Trigger,
    route: usize,
    cell: Cell,
    failed: &'a Failed,
}

impl Windows {
    /// Judges the failures of a planned batch.
    pub fn judge(&mut self, actions: &[Action], results: &Results, routes: &Routes, now: Timestamp) -> Verdict {
        let name = |route: usize| routes.routes.get(route).map_or_else(String::new, |route| route.name.clone());
        self.judge_rows(actions, results, &name, now)
    }

    /// The plan is carried out: its dead rows are done with, its good ones count for windows that are still open.
    pub fn written(&mut self, actions: &[Action], results: &Results) {
        for action in actions {
            let ActionKind::Transform(work) = &action.kind else { continue };
            for &route in &work.routes {
                self.dead.remove(&cell(&work.record, route));
                if let Some(open) = self.by_route.get_mut(&route)
                    && matches!(results.get(&work.record, route), Some(Made::Operations(_) | Made::Skipped))
                {
                    match open.since {
                        Some(_) => open.good = open.good.saturating_add(1),
                        None => open.before.succeeded(1),
                    }
                }
            }
        }
    }

    /// Keeps what is known about rows that are still to be written.
    pub fn retain(&mut self, keep: impl Fn(&Cell) -> bool) {
        self.dead.retain(|cell| keep(cell));
    }

    fn judge_rows(
        &mut self,
        actions: &[Action],
        results: &Results,
        name: &dyn Fn(usize) -> String,
        now: Timestamp,
    ) -> Verdict {
        let mut failures: Vec<Failure<'_>> = Vec::new();
        let mut succeeded: BTreeMap<usize, u64> = BTreeMap::new();
        let mut cut = Cut::default();
        for action in actions {
            let ActionKind::Transform(work) = &action.kind else { continue };
            for &route in &work.routes {
                match results.get(&work.record, route) {
                    Some(Made::Failed(_)) if self.dead.contains(&cell(&work.record, route)) => {}
                    Some(Made::Failed(failed)) => failures.push(Failure {
                        partition: action.partition,
                        trigger: action.trigger,
                        route,
                        cell: cell(&work.record, route),
                        failed,
                    }),
                    Some(Made::NotRun) | None => {
                        cut.hold_up(action.partition, action.trigger);
                    }
                    Some(Made::Operations(_) | Made::Skipped) => *succeeded.entry(route).or_default() += 1,
                }
            }
        }
        let mut judged: Vec<usize> = failures.iter().map(|failure| failure.route).collect();
        judged.sort_unstable();
        judged.dedup();
        for route in judged {
            let of_route: Vec<&Failure<'_>> = failures.iter().filter(|failure| failure.route == route).collect();
            let open = self.by_route.entry(route).or_default();
            let since = *open.since.get_or_insert(now);
            let mut window = open.before.clone();
            for failure in &of_route {
                window.failed(failure.failed.signature.clone(), since);
            }
            window.succeeded(open.good.saturating_add(succeeded.get(&route).copied().unwrap_or(0)));
            match window.judge(now) {
                judge::Verdict::Wait => {
                    for failure in of_route {
                        cut.hold_up(failure.partition, failure.trigger);
                    }
                }
                judge::Verdict::DeadLetter => {
                    self.dead.extend(of_route.iter().map(|failure| failure.cell));
                    window.close();
                    *open = Open { before: window, since: None, good: 0 };
                }
                judge::Verdict::Pause(pattern) => {
                    for failure in &of_route {
                        cut.hold_up(failure.partition, failure.trigger);
                    }
                    *open = Open::default();
                    cut.pause = Some(pause(&of_route, &pattern, name));
                }
            }
        }
        if cut.is_empty() {
            return Verdict::Proceed { dead: self.dead.clone() };
        }
        for action in actions {
            if let (Trigger::Queue(profile), ActionKind::Transform(work)) = (action.trigger, &action.kind)
                && cut.people.contains(&(action.partition, profile))
            {
                cut.kept.insert((work.record.partition, work.record.offset));
            }
        }
        Verdict::Cut(cut)
    }
}

fn pause(failures: &[&Failure<'_>], pattern: &judge::Pattern, name: &dyn Fn(usize) -> String) -> Pause {
    let example = failures
        .iter()
        .find(|failure| failure.failed.signature == pattern.signature)
        .or_else(|| failures.first())
        .map_or_else(|| Reason::new(code::TRANSFORM_THREW, ""), |failure| failure.failed.reason.clone());
    let place = failures.first().map_or(0, |failure| failure.route);
    let name = name(place);
    let mut reason = example;
    if reason.code != code::MISSING_COLUMN {
        reason.message = format!("{} of {} rows fail alike: {}", pattern.failed, pattern.rows, reason.message);
    }
    Pause { place, route: name, reason }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tailwater_core::judge::Signature;

    use super::*;
    use crate::kafka::Record;
    use crate::stages::route::plan::Work;

    /// Two routes; each row names its partition, its offset, its route and whether it fails.
    fn batch(rows: &[(i32, i64, usize, bool)]) -> (Vec<Action>, Results) {
        let mut results = Results::default();
        let mut actions = Vec::new();
        for (place, &(partition, offset, route, fails)) in rows.iter().enumerate() {
            let record = Arc::new(Record::new(
                "t".into(),
                partition,
                offset,
                Timestamp::from_millis(0),
                None,
                None,
                None,
                vec![],
            ));
            let made = if fails {
                Made::Failed(Failed {
                    reason: Reason::new(code::TRANSFORM_THREW, "boom"),
                    signature: Signature::new(code::TRANSFORM_THREW, None, "boom"),
                    stack: None,
                })
            } else {
                Made::Skipped
            };
            results.insert(cell(&record, route), made);
            let work = Work {
                record,
                routes: vec![route],
                failed: vec![],
                backfill: false,
                identifiers: vec![],
                schema: None,
                refused: vec![],
            };
            actions.push(Action { trigger: Trigger::Record(place), partition, kind: ActionKind::Transform(work) });
        }
        (actions, results)
    }

    /// As the stage does it: judged again without what was cut, until it may go on. The dead rows, and whether anything was cut.
    fn settle(windows: &mut Windows, rows: &[(i32, i64, usize, bool)], now: i64) -> (HashSet<Cell>, Cut) {
        let (actions, results) = batch(rows);
        let mut cut = Cut::default();
        loop {
            let planned: Vec<Action> = batch(rows)
                .0
                .into_iter()
                .filter(
                    |action| !matches!(action.trigger, Trigger::Record(place) if !cut.admits(action.partition, place)),
                )
                .collect();
            match windows.judge_rows(&planned, &results, &|route| route.to_string(), Timestamp::from_millis(now)) {
                Verdict::Proceed { dead } => {
                    windows.written(&planned, &results);
                    assert!(actions.len() >= planned.len());
                    return (dead, cut);
                }
                Verdict::Cut(more) => cut.tighten(more),
            }
        }
    }

    #[test]
    fn a_failure_waits_ten_seconds_and_ends_as_a_dead_letter() {
        let mut windows = Windows::default();
        let rows = [(0, 5, 0, true), (0, 6, 0, false)];
        let (dead, cut) = settle(&mut windows, &rows, 0);
        assert!(dead.is_empty() && !cut.admits(0, 0) && !cut.admits(0, 1));
        let (dead, cut) = settle(&mut windows, &rows, 10_000);
        assert!(dead.contains(&(0, 5, 0)) && cut.admits(0, 1));
    }

    #[test]
    fn two_routes_whose_rows_fail_at_different_times_both_end() {
        let mut windows = Windows::default();
        let first = [(0, 1, 0, true)];
        let both = [(0, 1, 0, true), (1, 1, 1, true)];
        settle(&mut windows, &first, 0);
        settle(&mut windows, &both, 5_000);
        // The first one's time is over; that the other still waits must not make it wait anew.
        let (dead, _) = settle(&mut windows, &both, 10_000);
        assert!(dead.contains(&(0, 1, 0)) && !dead.contains(&(1, 1, 1)));
        let (dead, _) = settle(&mut windows, &both[1..], 15_000);
        assert!(dead.contains(&(1, 1, 1)));
    }

    #[test]
    fn a_verdict_outlives_a_cut_that_keeps_its_row_back() {
        let mut windows = Windows::default();
        // Both in one partition: route 1's row stands before route 0's.
        let both = [(0, 1, 1, true), (0, 2, 0, true)];
        settle(&mut windows, &both[1..], 0);
        settle(&mut windows, &both, 5_000);
        settle(&mut windows, &both, 10_000);
        let (dead, cut) = settle(&mut windows, &both, 15_000);
        assert_eq!(dead.len(), 2);
        assert!(cut.admits(0, 1));
        windows.retain(|_| false);
        assert!(settle(&mut windows, &[(0, 9, 0, false)], 15_001).0.is_empty());
    }

    #[test]
    fn good_rows_of_other_partitions_count_while_failures_wait() {
        let mut windows = Windows::default();
        let bad: Vec<(i32, i64, usize, bool)> = (0..15).map(|offset| (0, offset, 0, true)).collect();
        settle(&mut windows, &bad, 0);
        for round in 0..20_i64 {
            let mut rows = bad.clone();
            rows.push((1, round, 0, false));
            settle(&mut windows, &rows, 100 + round);
        }
        // 15 of 35 rows: less than half, so these are single bad rows and no pattern.
        let (dead, cut) = settle(&mut windows, &bad, 10_000);
        assert_eq!(dead.len(), 15);
        assert!(cut.pause.is_none());
    }

    // Issue 10, B10.
    #[test]
    fn a_failure_in_a_queue_holds_up_that_person_and_no_partition() {
        let mut windows = Windows::default();
        let (mut actions, results) = batch(&[(0, 5, 0, true), (0, 6, 0, false), (0, 7, 0, false)]);
        let ada = ProfileId::of("w", "email", "a@b.c", 0);
        for action in &mut actions[..2] {
            action.trigger = Trigger::Queue(ada);
        }
        let now = Timestamp::from_millis(0);
        let Verdict::Cut(cut) = windows.judge_rows(&actions, &results, &|route| route.to_string(), now) else {
            panic!("it is too early for a verdict")
        };
        assert!(cut.people.contains(&(0, ada)) && cut.admits(0, 2));
        // What the queue would have let go is not run a second time.
        assert_eq!(cut.kept, HashSet::from([(0, 5), (0, 6)]));
    }

    #[test]
    fn many_rows_that_fail_alike_pause_at_the_first_of_them() {
        let mut windows = Windows::default();
        let rows: Vec<(i32, i64, usize, bool)> = (0..120).map(|offset| (0, offset, 0, offset >= 20)).collect();
        let (dead, cut) = settle(&mut windows, &rows, 0);
        assert!(dead.is_empty());
        assert!(cut.admits(0, 19) && !cut.admits(0, 20));
        assert!(cut.pause.is_some_and(|pause| pause.reason.message.starts_with("100 of 120 rows fail alike")));
    }
}
