//! What the failures of a batch mean: go on and dead-letter them, wait for more rows, or pause the route.
//!
//! The decision itself is pure and lives in `tailwater_core::judge`; here it is applied to a batch, and its result is a [`Cut`]: for
//! each lane, the first record that must stay where it is.

use std::collections::{BTreeMap, HashSet};

use tailwater_core::delivery::Reason;
use tailwater_core::judge::{self, Window};
use tailwater_core::{Timestamp, code};

use super::plan::{Action, ActionKind};
use super::routes::Routes;
use super::transform::{Cell, Failed, Made, Results, cell};

/// The failures since the first one that is not judged yet, by route.
#[derive(Debug, Default)]
pub struct Windows {
    by_route: BTreeMap<usize, Open>,
}

#[derive(Debug, Default)]
struct Open {
    /// What earlier windows have left to count on.
    before: Window,
    /// When the first failure that is still undecided was seen.
    since: Option<Timestamp>,
}

/// How far a batch may go.
#[derive(Debug, Default)]
pub struct Cut {
    /// By lane, the place in the batch of the first record that stays.
    stops: BTreeMap<i32, usize>,
    pub pause: Option<Pause>,
}

/// Why a route stopped.
#[derive(Debug, Clone)]
pub struct Pause {
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
    pub fn admits(&self, lane: i32, place: usize) -> bool {
        self.stops.get(&lane).is_none_or(|stop| place < *stop)
    }

    /// Joins two cuts: the earlier stop of each lane counts.
    pub fn tighten(&mut self, other: Self) {
        for (lane, stop) in other.stops {
            let mine = self.stops.entry(lane).or_insert(stop);
            *mine = (*mine).min(stop);
        }
        if self.pause.is_none() {
            self.pause = other.pause;
        }
    }

    fn stop(&mut self, lane: i32, place: usize) {
        let stop = self.stops.entry(lane).or_insert(place);
        *stop = (*stop).min(place);
    }
}

/// A row that failed, and the record that brought it.
struct Failure<'a> {
    lane: i32,
    trigger: Option<usize>,
    route: usize,
    cell: Cell,
    failed: &'a Failed,
}

impl Windows {
    /// Judges the failures of a planned batch.
    pub fn judge(&mut self, actions: &[Action], results: &Results, routes: &Routes, now: Timestamp) -> Verdict {
        let mut failures: Vec<Failure<'_>> = Vec::new();
        let mut succeeded: BTreeMap<usize, u64> = BTreeMap::new();
        let mut cut = Cut::default();
        for action in actions {
            let ActionKind::Transform(work) = &action.kind else { continue };
            for &route in &work.routes {
                match results.get(&work.record, route) {
                    Some(Made::Failed(failed)) => failures.push(Failure {
                        lane: action.lane,
                        trigger: action.trigger,
                        route,
                        cell: cell(&work.record, route),
                        failed,
                    }),
                    Some(Made::NotRun) | None => {
                        if let Some(place) = action.trigger {
                            cut.stop(action.lane, place);
                        }
                    }
                    Some(Made::Operations(_) | Made::Skipped) => *succeeded.entry(route).or_default() += 1,
                }
            }
        }
        let mut dead = HashSet::new();
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
            window.succeeded(succeeded.get(&route).copied().unwrap_or(0));
            match window.judge(now) {
                judge::Verdict::Wait => {
                    for failure in of_route {
                        if let Some(place) = failure.trigger {
                            cut.stop(failure.lane, place);
                        }
                    }
                }
                judge::Verdict::DeadLetter => {
                    dead.extend(of_route.iter().map(|failure| failure.cell));
                    window.close();
                    open.before = window;
                    open.since = None;
                }
                judge::Verdict::Pause(pattern) => {
                    for failure in &of_route {
                        if let Some(place) = failure.trigger {
                            cut.stop(failure.lane, place);
                        }
                    }
                    open.since = None;
                    open.before = Window::default();
                    cut.pause = Some(pause(&of_route, &pattern, routes));
                }
            }
        }
        if cut.stops.is_empty() { Verdict::Proceed { dead } } else { Verdict::Cut(cut) }
    }
}

fn pause(failures: &[&Failure<'_>], pattern: &judge::Pattern, routes: &Routes) -> Pause {
    let example = failures
        .iter()
        .find(|failure| failure.failed.signature == pattern.signature)
        .or_else(|| failures.first())
        .map_or_else(|| Reason::new(code::TRANSFORM_THREW, ""), |failure| failure.failed.reason.clone());
    let name = failures
        .first()
        .and_then(|failure| routes.routes.get(failure.route))
        .map_or_else(String::new, |route| route.name.clone());
    let mut reason = example;
    if reason.code != code::MISSING_COLUMN {
        reason.message = format!("{} of {} rows fail alike: {}", pattern.failed, pattern.rows, reason.message);
    }
    Pause { route: name, reason }
}
