//! The book of arrivals: written by the simulator's observer, read at the end.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tailwater_simulators::klaviyo::{Arriving, Effects, Ending, Observer, Ruling};

use super::script::{Script, Scripts};
use super::{Answer, Arrival, Item, Stats, body};

#[derive(Debug, Default)]
pub(super) struct Book(Mutex<Pages>);

#[derive(Debug, Default)]
struct Pages {
    arrivals: Vec<Arrival>,
    open: HashMap<u64, Open>,
    scripts: Scripts,
    rejected: Vec<Item>,
    rejected_once: HashSet<Item>,
    stats: Stats,
}

/// A request about which something is still to be told.
#[derive(Debug)]
struct Open {
    /// Its first arrival; the others follow it.
    first: usize,
    /// The place in the body of each arrival.
    places: Vec<usize>,
    settled: bool,
    ended: bool,
}

// === impl Book ===

impl Book {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_scripts(&self, scripts: Vec<Script>) {
        self.pages().scripts = Scripts::new(scripts);
    }

    pub fn steps_left(&self) -> usize {
        self.pages().scripts.left()
    }

    pub fn arrivals(&self) -> Vec<Arrival> {
        self.pages().arrivals.clone()
    }

    pub fn count(&self) -> usize {
        self.pages().arrivals.len()
    }

    pub fn stats(&self) -> Stats {
        self.pages().stats
    }

    pub fn rejected(&self) -> Vec<Item> {
        self.pages().rejected.clone()
    }

    /// Requests about which something is still to be told.
    #[cfg(test)]
    pub fn open_requests(&self) -> usize {
        self.pages().open.len()
    }
}

impl Observer for Book {
    fn arrived(&self, arriving: Arriving<'_>) -> Ruling {
        let at = Instant::now();
        let carried = body::read(arriving.carrier, arriving.body);
        let mut pages = self.pages();
        let pages = &mut *pages;
        let scene = pages.scripts.play(&carried);
        pages.stats.requests += 1;
        pages.stats.scripted += u64::from(scene.ruling != Ruling::Normal);
        let first = pages.arrivals.len();
        let mut places = Vec::with_capacity(carried.len());
        for (index, carried) in carried.into_iter().enumerate() {
            let refused = scene.refused.binary_search(&index).is_ok();
            if refused && pages.rejected_once.insert(carried.item) {
                pages.rejected.push(carried.item);
            }
            pages.stats.arrivals += 1;
            pages.stats.strays += u64::from(carried.stray.is_some());
            places.push(carried.place);
            pages.arrivals.push(Arrival {
                at,
                item: carried.item,
                request: arriving.request,
                answer: Answer::None,
                answered: None,
                took_effect: false,
                effect_after: None,
                refused,
                key: carried.key,
                stray: carried.stray,
            });
        }
        pages.open.insert(arriving.request, Open { first, places, settled: false, ended: false });
        scene.ruling
    }

    fn settled(&self, request: u64, effects: Effects) {
        let mut pages = self.pages();
        let now = pages.arrivals.len();
        pages.update(
            request,
            |place, arrival| {
                arrival.took_effect = match &effects {
                    Effects::All => true,
                    Effects::Nothing => false,
                    Effects::AllBut(failed) => failed.binary_search(&place).is_err(),
                };
                arrival.effect_after = arrival.took_effect.then_some(now);
            },
            |open| open.settled = true,
        );
    }

    fn ended(&self, request: u64, ending: Ending) {
        let answer = match ending {
            Ending::Written(status) if (200..300).contains(&status) => Answer::Success,
            Ending::Written(status) => Answer::Failure(status),
            Ending::Broken => Answer::Broken,
        };
        let at = Instant::now();
        let mut pages = self.pages();
        match answer {
            Answer::Success => pages.stats.succeeded += 1,
            Answer::Failure(_) => pages.stats.failed += 1,
            Answer::Broken | Answer::None => pages.stats.broken += 1,
        }
        pages.update(
            request,
            |_, arrival| {
                arrival.answer = answer;
                arrival.answered = Some(at);
            },
            |open| open.ended = true,
        );
    }
}

// === impl Pages ===

impl Pages {
    /// Writes something down about every arrival of a request, and closes the request when nothing is left to be told.
    fn update(&mut self, request: u64, mut write: impl FnMut(usize, &mut Arrival), mark: impl FnOnce(&mut Open)) {
        let Some(open) = self.open.get_mut(&request) else { return };
        let arrivals = self.arrivals.iter_mut().skip(open.first);
        for (place, arrival) in open.places.iter().zip(arrivals) {
            write(*place, arrival);
        }
        mark(open);
        if open.settled && open.ended {
            self.open.remove(&request);
        }
    }
}
