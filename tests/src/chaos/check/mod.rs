//! The judgement: what was produced against what arrived. Pure, over plain data, so that every rule has a small history that breaks it.
//!
//! The words are Jepsen's. What is *lost* was produced and never took effect, though nobody says that it could not go. What is *unseen* has no end at
//! the end. What is *reordered* arrived behind something of its person that it should have come before. What is *duplicated* arrived again
//! for no reason. An *ambiguous* repeat had one: the sender could not know what became of the attempt before, or was stopped before it had
//! noted it; such a repeat carries the same key and changes nothing at the vendor.
//!
//! # Order
//! It is judged per person and kind: kinds have no order between them, because upserts and events, and two sources, take different ways. A row
//! comes before a later one of the same source if, by then, it is about the same component: the identifiers of the two are connected by rows up
//! to the later one. Before a merge, two sides have no order between them; what comes after the merge comes after both.
//!
//! The product starts no state of a person before it has committed what became of the state before. So even after a crash only the last
//! state may arrive again, and an arrival behind a later one is never excused, whatever was disturbed. Of events a few may be repeated,
//! in their order: the repeat of one that took effect, under the same key, is none at the vendor.

mod order;
mod repeats;
mod report;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use super::receiver::{Answer, Arrival, Item, Kind};

/// Where a row was produced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    Activity,
    Score,
}

/// Which of its person's identifiers a row names, as a set of small numbers: 0 is the customer, who has the destination's key, and 1 and above are
/// devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ComponentEvent(u64);

/// A row, as its producer sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Produced {
    pub person: u32,
    pub seq: u32,
    pub source: Source,
    pub component_event: ComponentEvent,
    /// The producer sent it twice; it is expected once all the same.
    pub repeated: bool,
    /// An event is made of it as well.
    pub tracks: bool,
}

/// Something was done to the product or around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disturbance {
    pub from: Instant,
    pub until: Instant,
    pub what: String,
}

/// What the judgement depends on besides the history.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How long after an answer the sender may need to commit it, and how long after a disturbance its consequences last.
    pub grace: Duration,
    /// From when the times in findings are counted; from the first arrival if it is not given.
    pub start: Option<Instant>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { grace: Duration::from_secs(3), start: None }
    }
}

/// One thing that should not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// `None` where it cannot be told.
    pub item: Option<Item>,
    /// One line, to look into it.
    pub text: String,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Verdict {
    pub lost: Vec<Finding>,
    pub duplicated: Vec<Finding>,
    pub reordered: Vec<Finding>,
    pub unseen: Vec<Finding>,
    /// What nobody produced, or what is about the wrong person.
    pub strays: Vec<Finding>,
    /// Repeats that the vendor asked for with its answer.
    pub asked: usize,
    /// How many for which answer.
    pub asked_by: BTreeMap<&'static str, usize>,
    /// Repeats whose sender could not know better.
    pub ambiguous: usize,
    /// How many had which.
    pub ambiguous_by: BTreeMap<&'static str, usize>,
    pub arrivals: usize,
    /// Items that had to arrive.
    pub expected: usize,
}

/// Judges a history by the usual settings.
///
/// `produced` is in the order of each source, a row that was sent twice once or twice; `arrivals` in the order of arrival. `rejected` are the items that the vendor refused: a dead letter is
/// expected of them. `held` are the rows that the audit lists as held at the end, and `unaccounted` the rows that it can say nothing of.
pub fn check(
    produced: &[Produced],
    arrivals: &[Arrival],
    rejected: &[Item],
    held: &HashSet<(Source, u32, u32)>,
    unaccounted: u64,
    disturbances: &[Disturbance],
) -> Verdict {
    check_with(Settings::default(), produced, arrivals, rejected, held, unaccounted, disturbances)
}

/// Judges a history.
#[allow(clippy::too_many_arguments, reason = "they are the history, and each is used as it is")]
pub fn check_with(
    settings: Settings,
    produced: &[Produced],
    arrivals: &[Arrival],
    rejected: &[Item],
    held: &HashSet<(Source, u32, u32)>,
    unaccounted: u64,
    disturbances: &[Disturbance],
) -> Verdict {
    let case = Case::new(settings, produced, arrivals, disturbances);
    let mut verdict = Verdict { arrivals: arrivals.len(), ..Verdict::default() };
    case.find_strays(&mut verdict);
    case.find_missing(rejected, held, &mut verdict);
    if unaccounted > 0 {
        let text = format!("{unaccounted} deliveries have no end in the ledger");
        verdict.unseen.push(Finding { item: None, text });
    }
    repeats::find(&case, &mut verdict);
    order::find(&case, &mut verdict);
    verdict
}

/// The history, sorted by what the rules ask for.
struct Case<'a> {
    settings: Settings,
    start: Instant,
    arrivals: &'a [Arrival],
    disturbances: &'a [Disturbance],
    /// The rows of each person and source, in their order, each once.
    rows: HashMap<(Source, u32), Vec<Row>>,
    /// item → the places of its arrivals, in order; strays are not among them.
    attempts: HashMap<Item, Vec<usize>>,
}

/// A row with what is known of its component.
#[derive(Debug, Clone, Copy)]
struct Row {
    seq: u32,
    tracks: bool,
    /// The identifiers that it names.
    nodes: u64,
    /// Those that are connected with them once this row is known.
    component: u64,
    /// Those that are in the end.
    component_at_end: u64,
}

// === impl ComponentEvent ===

impl ComponentEvent {
    /// The customer's number.
    pub const CUSTOMER: u32 = 0;
    /// Numbers that a person's identifiers may have.
    pub const NODES_MAX: u32 = u64::BITS;

    /// # Panics
    /// A number is not below [`Self::NODES_MAX`].
    pub fn of(nodes: &[u32]) -> Self {
        Self(nodes.iter().fold(0, |set, node| {
            assert!(*node < Self::NODES_MAX, "a person has at most {} identifiers, not number {node}", Self::NODES_MAX);
            set | 1 << node
        }))
    }

    pub fn names(self, node: u32) -> bool {
        node < Self::NODES_MAX && self.0 & (1 << node) != 0
    }
}

// === impl Kind and Source ===

impl Kind {
    pub fn source(self) -> Source {
        match self {
            Self::Activity | Self::Track => Source::Activity,
            Self::Score => Source::Score,
        }
    }
}

impl Source {
    /// The kind of the upsert that is made of each of its rows.
    pub fn upsert(self) -> Kind {
        match self {
            Self::Activity => Kind::Activity,
            Self::Score => Kind::Score,
        }
    }
}

impl Row {
    fn kinds(&self, source: Source) -> impl Iterator<Item = Kind> {
        [Some(source.upsert()), self.tracks.then_some(Kind::Track)].into_iter().flatten()
    }

    /// Whether the destination's key is known for it in the end.
    fn could_go(&self) -> bool {
        ComponentEvent(self.component_at_end).names(ComponentEvent::CUSTOMER)
    }
}

// === impl Verdict ===

impl Verdict {
    /// Nothing was found; ambiguous repeats may have been.
    pub fn is_clean(&self) -> bool {
        [&self.lost, &self.duplicated, &self.reordered, &self.unseen, &self.strays].iter().all(|found| found.is_empty())
    }
}

// === impl Case ===

impl<'a> Case<'a> {
    fn new(
        settings: Settings,
        produced: &[Produced],
        arrivals: &'a [Arrival],
        disturbances: &'a [Disturbance],
    ) -> Self {
        let start = settings.start.or_else(|| arrivals.first().map(|arrival| arrival.at)).unwrap_or_else(Instant::now);
        let mut attempts: HashMap<Item, Vec<usize>> = HashMap::new();
        for (place, arrival) in arrivals.iter().enumerate().filter(|(_, arrival)| arrival.stray.is_none()) {
            attempts.entry(arrival.item).or_default().push(place);
        }
        Self { settings, start, arrivals, disturbances, rows: order::rows(produced), attempts }
    }

    fn attempts(&self, item: Item) -> &[usize] {
        self.attempts.get(&item).map(Vec::as_slice).unwrap_or_default()
    }

    fn find_strays(&self, verdict: &mut Verdict) {
        let mut known: HashSet<Item> = HashSet::new();
        for ((source, person), rows) in &self.rows {
            let items = rows.iter().flat_map(|row| row.kinds(*source).map(move |kind| (kind, row.seq)));
            known.extend(items.map(|(kind, seq)| Item { kind, person: *person, seq }));
        }
        for (place, arrival) in self.arrivals.iter().enumerate() {
            let why = match &arrival.stray {
                Some(why) => why,
                None if known.contains(&arrival.item) => continue,
                None => "nobody produced it",
            };
            let text = format!("{}: {why}; it arrived {}", self.name(arrival.item), self.tell(place));
            verdict.strays.push(Finding { item: Some(arrival.item), text });
        }
    }

    /// What was produced, may go, and never took effect.
    fn find_missing(&self, rejected: &[Item], held: &HashSet<(Source, u32, u32)>, verdict: &mut Verdict) {
        let rejected: HashSet<Item> = rejected.iter().copied().collect();
        let mut people: Vec<_> = self.rows.iter().collect();
        people.sort_by_key(|(key, _)| **key);
        for ((source, person), rows) in people {
            for row in rows {
                let is_held = held.contains(&(*source, *person, row.seq));
                for item in row.kinds(*source).map(|kind| Item { kind, person: *person, seq: row.seq }) {
                    self.judge(item, row, is_held, rejected.contains(&item), verdict);
                }
            }
        }
    }

    fn judge(&self, item: Item, row: &Row, is_held: bool, is_rejected: bool, verdict: &mut Verdict) {
        let attempts = self.attempts(item);
        let arrived =
            attempts.iter().find(|place| self.arrivals.get(**place).is_some_and(|arrival| arrival.took_effect));
        let name = self.name(item);
        let finding = |text| Finding { item: Some(item), text };
        match (is_held, arrived) {
            (true, Some(place)) => {
                let text = format!("{name}: the ledger holds it, and yet it arrived {}", self.tell(*place));
                verdict.unseen.push(finding(text));
            }
            (true, None) if row.could_go() => {
                verdict.unseen.push(finding(format!("{name}: it is held, though the customer is known")));
            }
            (true, None) => {}
            (false, found) => {
                verdict.expected += 1;
                if found.is_none() && !is_rejected {
                    let tries = match attempts {
                        [] => "it never arrived".to_owned(),
                        [.., last] => format!(
                            "none of its {} attempts took effect, the last arrived {}",
                            attempts.len(),
                            self.tell(*last)
                        ),
                    };
                    verdict.lost.push(finding(format!("{name}: {tries}")));
                }
            }
        }
    }

    // --- words for findings ---

    fn name(&self, item: Item) -> String {
        format!("person {} {} {}", item.person, item.kind, item.seq)
    }

    /// When an arrival came, in which request, and what became of it.
    fn tell(&self, place: usize) -> String {
        let Some(arrival) = self.arrivals.get(place) else { return "at an unknown time".to_owned() };
        let answer = match (arrival.answer, arrival.answered) {
            (Answer::None, _) => "not answered".to_owned(),
            (Answer::Success, answered) => format!("answered{}", self.tell_time(answered)),
            (Answer::Failure(status), answered) => format!("answered {status}{}", self.tell_time(answered)),
            (Answer::Broken, answered) => format!("broken{}", self.tell_time(answered)),
        };
        let effect = if arrival.took_effect { "" } else { ", no effect" };
        format!("at {} s (request {}, {answer}{effect})", self.seconds(arrival.at), arrival.request)
    }

    fn tell_time(&self, at: Option<Instant>) -> String {
        at.map_or_else(String::new, |at| format!(" at {} s", self.seconds(at)))
    }

    fn seconds(&self, at: Instant) -> String {
        match at.checked_duration_since(self.start) {
            Some(after) => format!("{:.3}", after.as_secs_f64()),
            None => format!("-{:.3}", self.start.duration_since(at).as_secs_f64()),
        }
    }
}
