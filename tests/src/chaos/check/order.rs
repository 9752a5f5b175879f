//! The order: which rows come before which, and which arrivals came behind a later one.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::super::receiver::{Answer, Arrival, Item, Kind};
use super::{Case, Finding, Produced, Row, Source, Verdict};

/// The rows of each person and source with their components, in the order in which they were produced, and each once.
pub(super) fn rows(produced: &[Produced]) -> HashMap<(Source, u32), Vec<Row>> {
    let mut rows: HashMap<(Source, u32), Vec<Row>> = HashMap::new();
    let mut seen: HashSet<(Source, u32, u32)> = HashSet::new();
    let mut components: HashMap<(Source, u32), Vec<u64>> = HashMap::new();
    for row in produced {
        let key = (row.source, row.person);
        if !seen.insert((row.source, row.person, row.seq)) {
            continue;
        }
        let nodes = row.component_event.0;
        let component = connect(components.entry(key).or_default(), nodes);
        let row = Row { seq: row.seq, tracks: row.tracks, nodes, component, component_at_end: component };
        rows.entry(key).or_default().push(row);
    }
    for (key, rows) in &mut rows {
        for row in rows {
            let at_end = components.get(key).into_iter().flatten().find(|component| **component & row.nodes != 0);
            row.component_at_end = at_end.copied().unwrap_or(row.component);
        }
    }
    rows
}

/// Makes one component of these nodes and all that they touch.
fn connect(components: &mut Vec<u64>, nodes: u64) -> u64 {
    let mut component = nodes;
    components.retain(|other| {
        let touches = other & nodes != 0;
        component |= if touches { *other } else { 0 };
        !touches
    });
    components.push(component);
    component
}

/// What counts as having come: an attempt that failed, or that changed nothing before its connection broke, does not.
fn counts(arrival: &Arrival) -> bool {
    match arrival.answer {
        Answer::Failure(_) => false,
        Answer::Success | Answer::Broken | Answer::None => arrival.took_effect,
    }
}

/// Where the rows of a person stand, and what has come of one kind so far.
struct Line<'a> {
    rows: &'a [Row],
    position_by_seq: HashMap<u32, usize>,
    /// position of the row → the place of its latest arrival
    come: BTreeMap<usize, usize>,
}

pub(super) fn find(case: &Case<'_>, verdict: &mut Verdict) {
    let mut lines: HashMap<(Kind, u32), Line<'_>> = HashMap::new();
    for (place, arrival) in case.arrivals.iter().enumerate() {
        let Item { kind, person, seq } = arrival.item;
        if arrival.stray.is_some() || !counts(arrival) {
            continue;
        }
        let Some(rows) = case.rows.get(&(kind.source(), person)) else { continue };
        let line = lines.entry((kind, person)).or_insert_with(|| Line::new(rows));
        let Some(position) = line.position_by_seq.get(&seq).copied() else { continue };
        // The vendor takes an event once: the repeat of one that has come is not a second arrival.
        let known = line.come.get(&position).and_then(|first| case.arrivals.get(*first));
        if kind == Kind::Track && known.is_some_and(|first| first.key.is_some() && first.key == arrival.key) {
            continue;
        }
        if let Some(later) = line.came_before(position) {
            verdict.reordered.push(behind(case, place, later));
        }
        if let Some(earlier) = line.unfinished(position, place, case.arrivals) {
            verdict.reordered.push(too_early(case, place, earlier));
        }
        line.come.insert(position, place);
    }
}

fn behind(case: &Case<'_>, place: usize, later: usize) -> Finding {
    let item = |place: usize| case.arrivals.get(place).map(|arrival| arrival.item);
    let (Some(this), Some(other)) = (item(place), item(later)) else {
        return Finding { item: None, text: "an arrival is missing".to_owned() };
    };
    let again = case.attempts(this).first().is_some_and(|first| *first < place);
    let text = format!(
        "{}: it arrived {}{}, behind {} of the same person, which had arrived {}",
        case.name(this),
        if again { "again " } else { "" },
        case.tell(place),
        other.seq,
        case.tell(later)
    );
    Finding { item: Some(this), text }
}

fn too_early(case: &Case<'_>, place: usize, earlier: usize) -> Finding {
    let item = |place: usize| case.arrivals.get(place).map(|arrival| arrival.item);
    let (Some(this), Some(other)) = (item(place), item(earlier)) else {
        return Finding { item: None, text: "an arrival is missing".to_owned() };
    };
    let text = format!(
        "{}: it arrived {}, before the job was over with {}, which had arrived {}",
        case.name(this),
        case.tell(place),
        other.seq,
        case.tell(earlier)
    );
    Finding { item: Some(this), text }
}

// === impl Line ===

impl<'a> Line<'a> {
    fn new(rows: &'a [Row]) -> Self {
        let position_by_seq = rows.iter().enumerate().map(|(position, row)| (row.seq, position)).collect();
        Self { rows, position_by_seq, come: BTreeMap::new() }
    }

    /// Whether one row has to come before another one, which was produced later.
    fn precedes(&self, earlier: usize, later: usize) -> bool {
        let (Some(earlier), Some(later)) = (self.rows.get(earlier), self.rows.get(later)) else { return false };
        earlier.nodes & later.component != 0
    }

    /// The place of an arrival of a row that should have come after this one.
    fn came_before(&self, position: usize) -> Option<usize> {
        self.come.range(position + 1..).find(|(later, _)| self.precedes(position, **later)).map(|(_, place)| *place)
    }

    /// The place of an arrival in a job of a row that comes before this one, when that job was not over by now.
    fn unfinished(&self, position: usize, place: usize, arrivals: &[Arrival]) -> Option<usize> {
        let open = |earlier: &usize| {
            arrivals.get(*earlier).and_then(|arrival| arrival.effect_after).is_some_and(|after| after > place)
        };
        // Nearly always the row before is the last that came; all others were over when that one came, or have been found then.
        let (_, earlier) = self.come.range(..position).rev().find(|(earlier, _)| self.precedes(**earlier, position))?;
        Some(*earlier).filter(open)
    }
}

#[cfg(test)]
mod tests {
    use super::super::ComponentEvent;
    use super::*;

    fn row(seq: u32, nodes: &[u32]) -> Produced {
        Produced {
            person: 1,
            seq,
            source: Source::Activity,
            component_event: ComponentEvent::of(nodes),
            repeated: false,
            tracks: false,
        }
    }

    /// All pairs (earlier, later) that have an order.
    fn ordered(produced: &[Produced]) -> Vec<(u32, u32)> {
        let rows = rows(produced);
        let line = Line::new(&rows[&(Source::Activity, 1)]);
        let mut pairs = Vec::new();
        for later in 0..produced.len() {
            pairs.extend((0..later).filter(|earlier| line.precedes(*earlier, later)).map(|earlier| (earlier, later)));
        }
        pairs.into_iter().map(|(earlier, later)| (produced[earlier].seq, produced[later].seq)).collect()
    }

    #[test]
    fn two_sides_have_no_order_before_their_merge_and_both_come_before_what_follows() {
        let produced = [row(1, &[1]), row(2, &[0]), row(3, &[0, 1]), row(4, &[1])];
        assert_eq!(ordered(&produced), [(1, 3), (2, 3), (1, 4), (2, 4), (3, 4)]);
    }

    #[test]
    fn a_device_of_its_own_has_an_order_with_itself_only() {
        let produced = [row(1, &[1]), row(2, &[0]), row(3, &[1]), row(4, &[2])];
        assert_eq!(ordered(&produced), [(1, 3)]);
    }

    #[test]
    fn components_are_connected_over_other_devices() {
        let produced = [row(1, &[3]), row(2, &[1, 2]), row(3, &[2, 3]), row(4, &[1])];
        assert_eq!(ordered(&produced), [(1, 3), (2, 3), (1, 4), (2, 4), (3, 4)]);
        assert!(!rows(&produced)[&(Source::Activity, 1)][0].could_go());
    }

    #[test]
    fn a_row_that_was_sent_twice_is_one() {
        assert_eq!(rows(&[row(1, &[0]), row(1, &[0]), row(2, &[0])])[&(Source::Activity, 1)].len(), 2);
    }
}
