//! Adds up: what came in against what the ledger says and what is on its way. Pure.

use std::collections::BTreeMap;

use tailwater_core::ledger::{BLOCK, Bitmap, End, Entries, Key};

use super::report::{Audit, Flow, LOST_MAX, Lost};
use crate::config::model::Config;
use crate::kafka::topics::{self, Names};

/// A block of an ingest partition: topic, partition, offset / 1024.
pub type BlockId = (String, i32, i64);

/// Records of ingest topics, by block.
#[derive(Debug, Default)]
pub struct Known {
    pub blocks: BTreeMap<BlockId, Bitmap>,
    /// Records behind resolve's committed offset, by topic.
    pub unresolved: BTreeMap<String, u64>,
}

/// Records that are on their way to a destination, and where.
#[derive(Debug, Default)]
pub struct Places {
    pub route: BTreeMap<BlockId, Bitmap>,
    pub held: BTreeMap<BlockId, Bitmap>,
    pub send: BTreeMap<BlockId, Bitmap>,
    pub parked: BTreeMap<BlockId, Bitmap>,
}

/// All segments of the ledger, joined: destination → block → round → ends.
#[derive(Debug, Default)]
pub struct Ledger {
    ends: BTreeMap<String, BTreeMap<BlockId, BTreeMap<u32, Entries>>>,
}

impl Known {
    pub fn add(&mut self, topic: &str, partition: i32, offset: i64) {
        add(&mut self.blocks, topic, partition, offset);
    }
}

/// Sets the bit of a place.
pub fn add(blocks: &mut BTreeMap<BlockId, Bitmap>, topic: &str, partition: i32, offset: i64) {
    blocks.entry((topic.to_owned(), partition, offset.div_euclid(BLOCK))).or_default().set(offset);
}

impl Ledger {
    /// Joins one record of the ledger.
    pub fn add(&mut self, key: Key, entries: Entries) {
        let block = (key.topic, key.partition, key.block);
        let rounds = self.ends.entry(key.destination).or_default().entry(block).or_default();
        let joined = rounds.entry(key.round).or_default();
        for (end, bitmap) in entries {
            joined.entry(end).or_default().join(&bitmap);
        }
    }

    /// Adds the records that Kafka has removed, from what resolve noted of them. With a time limit they lie before it.
    pub fn add_removed(&self, known: &mut Known, removed_before: &BTreeMap<(String, i32), i64>, limited: bool) {
        if limited {
            return;
        }
        for (block, rounds) in self.ends.get("").into_iter().flatten() {
            let Some(low) = removed_before.get(&(block.0.clone(), block.1)) else { continue };
            for bitmap in rounds.values().flat_map(Entries::values) {
                for offset in bitmap.offsets(block.2).filter(|offset| offset < low) {
                    known.add(&block.0, block.1, offset);
                }
            }
        }
    }

    fn rounds(&self, destination: &str, block: &BlockId) -> impl Iterator<Item = (u32, &Entries)> {
        self.ends
            .get(destination)
            .and_then(|blocks| blocks.get(block))
            .into_iter()
            .flatten()
            .map(|(round, entries)| (*round, entries))
    }

    /// The records of a block that resolve noted for another source, which read the topic at that time.
    fn of_another_source(&self, source: &str, block: &BlockId) -> Bitmap {
        let mut others = Bitmap::default();
        for (_, entries) in self.rounds("", block) {
            // Earlier versions wrote no name; one topic had one source then as well.
            let named =
                entries.iter().filter(|((end, name), _)| *end == End::Resolved && !name.is_empty() && name != source);
            for (_, bitmap) in named {
                others.join(bitmap);
            }
        }
        others
    }

    /// The ends of a block at a destination, those that hold for all destinations included, latest round first.
    fn of(&self, destination: &str, block: &BlockId) -> Vec<Entries> {
        let mut rounds: BTreeMap<u32, Entries> = BTreeMap::new();
        for (round, entries) in self.rounds(destination, block).chain(self.rounds("", block)) {
            let joined = rounds.entry(round).or_default();
            for (end, bitmap) in entries {
                joined.entry(end.clone()).or_default().join(bitmap);
            }
        }
        rounds.into_values().rev().collect()
    }
}

/// Adds everything up, per source and destination.
pub fn tally(config: &Config, known: &Known, ledger: &Ledger, open: &BTreeMap<String, Places>) -> Audit {
    let names = Names::new(&config.kafka.prefix);
    let nowhere = Places::default();
    let mut flows = Vec::new();
    let mut lost = Vec::new();
    for (name, destination) in &config.destinations {
        let places = open.get(name).unwrap_or(&nowhere);
        for source in config.sources.values() {
            if !destination.routes.iter().any(|route| route.from == source.name) {
                continue;
            }
            let topics = topics::input_topics(&names, source);
            let mut flow = Flow::new(&source.name, name);
            flow.routes = destination
                .routes
                .iter()
                .filter(|route| route.from == source.name)
                .map(|route| route.name.clone())
                .collect();
            let unresolved: u64 = topics.iter().filter_map(|topic| known.unresolved.get(topic)).sum();
            flow.came_in = unresolved;
            flow.in_flight = unresolved;
            for (block, bitmap) in known.blocks.iter().filter(|(block, _)| topics.contains(&block.0)) {
                let own = bitmap.without(&ledger.of_another_source(&source.name, block));
                flow.came_in += own.count();
                let left = count(&mut flow, own, &ledger.of(name, block), places, block);
                flow.unaccounted += left.count();
                for offset in left.offsets(block.2).take(LOST_MAX.saturating_sub(lost.len())) {
                    lost.push(Lost {
                        source: source.name.clone(),
                        destination: name.clone(),
                        place: (block.0.clone(), block.1, offset),
                        last_seen: last_seen(&ledger.of(name, block), offset),
                    });
                }
            }
            flows.push(flow);
        }
    }
    Audit { flows, lost, paused: Vec::new() }
}

/// Counts one block; what is left has no end and is nowhere.
fn count(flow: &mut Flow, all: Bitmap, rounds: &[Entries], places: &Places, block: &BlockId) -> Bitmap {
    let at = |places: &BTreeMap<BlockId, Bitmap>| places.get(block).cloned().unwrap_or_default();
    let (route, held, send, parked) = (at(&places.route), at(&places.held), at(&places.send), at(&places.parked));
    let mut left = all;
    let mut undecided = Bitmap::default();
    for entries in rounds {
        // A record that was replayed is judged by its latest round alone.
        let mut mine = Bitmap::default();
        for ((end, _), bitmap) in entries {
            if *end != End::Resolved {
                mine.join(bitmap);
            }
        }
        let mut mine = left.both(&mine);
        left = left.without(&mine);
        for ((end, reason), bitmap) in entries.iter().rev() {
            let here = mine.both(bitmap);
            match end {
                End::DeadLettered => note(&mut flow.dead_lettered, reason, &here),
                End::Delivered => {
                    note(&mut flow.delivered, reason, &here);
                }
                End::Skipped => note(&mut flow.skipped, reason, &here),
                End::Parked | End::Routed | End::Held | End::Resolved => continue,
            }
            mine = mine.without(&here);
        }
        // Whatever the ledger says last about the rest, it has to be found there; earlier rounds have no say in it.
        undecided.join(&mine);
    }
    left.join(&undecided);
    let mut waiting = left.both(&held);
    for entries in rounds {
        for ((_, reason), bitmap) in entries.iter().rev().filter(|((end, _), _)| *end == End::Held) {
            let here = waiting.both(bitmap);
            note(&mut flow.held_reasons, reason, &here);
            waiting = waiting.without(&here);
        }
    }
    let mut take = |bitmap: &Bitmap| {
        let here = left.both(bitmap);
        left = left.without(&here);
        here.count()
    };
    flow.held += take(&held);
    flow.in_flight += take(&route) + take(&send) + take(&parked);
    left
}

fn note(counts: &mut BTreeMap<String, u64>, reason: &str, here: &Bitmap) {
    let found = here.count();
    if found > 0 {
        *counts.entry(reason.to_owned()).or_default() += found;
    }
}

/// The last thing that the ledger knows of a record.
fn last_seen(rounds: &[Entries], offset: i64) -> Option<&'static str> {
    rounds.iter().find_map(|entries| {
        entries.iter().rev().find(|(_, bitmap)| bitmap.contains(offset)).map(|((end, _), _)| end.as_str())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: &str = "t.ingest.ltv";

    fn bits(offsets: &[i64]) -> Bitmap {
        let mut bitmap = Bitmap::default();
        for offset in offsets {
            bitmap.set(*offset);
        }
        bitmap
    }

    fn entries(list: &[(End, &str, &[i64])]) -> Entries {
        list.iter().map(|(end, reason, offsets)| ((*end, (*reason).to_owned()), bits(offsets))).collect()
    }

    fn block() -> BlockId {
        (TOPIC.to_owned(), 0, 0)
    }

    fn places(route: &[i64], held: &[i64], send: &[i64], parked: &[i64]) -> Places {
        let at = |offsets: &[i64]| BTreeMap::from([(block(), bits(offsets))]);
        Places { route: at(route), held: at(held), send: at(send), parked: at(parked) }
    }

    fn counted(all: &[i64], rounds: &[Entries], places: &Places) -> (Flow, Vec<i64>) {
        let mut flow = Flow::new("ltv", "klaviyo");
        let left = count(&mut flow, bits(all), rounds, places, &block());
        (flow, left.offsets(0).collect())
    }

    #[test]
    fn the_strongest_end_of_a_record_counts_once() {
        let round = entries(&[
            (End::Resolved, "", &[0, 1, 2, 3]),
            (End::Held, "no_key", &[0]),
            (End::Routed, "", &[0, 1]),
            (End::Skipped, "unchanged", &[1]),
            (End::Delivered, "", &[0, 1]),
            (End::DeadLettered, "vendor_rejected", &[1]),
        ]);
        let (flow, left) = counted(&[0, 1], &[round], &places(&[], &[], &[], &[]));
        assert_eq!(flow.delivered.values().sum::<u64>(), 1);
        assert_eq!(flow.dead_lettered["vendor_rejected"], 1);
        assert!(flow.skipped.is_empty());
        assert!(left.is_empty());
    }

    #[test]
    fn a_record_that_left_a_stage_and_is_nowhere_is_unaccounted() {
        let round =
            entries(&[(End::Resolved, "", &[0, 1, 2, 3]), (End::Routed, "", &[1, 2]), (End::Held, "no_key", &[3])]);
        // 0 was resolved and is not in `resolved`; 1 was routed and is not in `outbound`; 2 is; 3 is held but not in the state.
        let (flow, left) = counted(&[0, 1, 2, 3], &[round], &places(&[], &[], &[2], &[]));
        assert_eq!(left, [0, 1, 3]);
        assert_eq!(flow.in_flight, 1);
        assert_eq!(flow.held, 0);
    }

    // Issue 10, D: the text gave reasons for what was skipped, and none for what is held.
    #[test]
    fn a_held_record_tells_what_it_waits_for_last() {
        let first = entries(&[(End::Held, "no_key", &[0, 1, 2])]);
        let second = entries(&[(End::Held, "merge", &[1])]);
        let (flow, left) = counted(&[0, 1, 2], &[second, first], &places(&[], &[0, 1], &[2], &[]));
        assert!(left.is_empty());
        assert_eq!(flow.held, 2);
        assert_eq!(flow.held_reasons, BTreeMap::from([("merge".to_owned(), 1), ("no_key".to_owned(), 1)]));
    }

    #[test]
    fn a_record_of_which_no_stage_knows_is_unaccounted() {
        let (_, left) = counted(&[5], &[], &places(&[], &[], &[], &[]));
        assert_eq!(left, [5]);
    }

    #[test]
    fn a_replay_outweighs_the_dead_letter_that_it_was_made_from() {
        let first = entries(&[(End::DeadLettered, "vendor_rejected", &[0, 1])]);
        let second = entries(&[(End::Routed, "", &[0, 1]), (End::Delivered, "", &[0])]);
        let (flow, left) = counted(&[0, 1], &[second, first], &places(&[], &[], &[1], &[]));
        assert_eq!(flow.delivered.values().sum::<u64>(), 1);
        assert_eq!(flow.in_flight, 1);
        assert!(flow.dead_lettered.is_empty());
        assert!(left.is_empty());
    }

    #[test]
    fn repeats_and_several_segments_change_nothing() {
        let mut ledger = Ledger::default();
        for segment in [1, 2, 2] {
            let key = Key {
                stage: tailwater_core::ledger::Stage::Send,
                destination: "klaviyo".into(),
                output_partition: 0,
                topic: TOPIC.into(),
                partition: 0,
                block: 0,
                round: 0,
                segment,
            };
            ledger.add(key, entries(&[(End::Delivered, "", &[0, segment.cast_signed()])]));
        }
        let (flow, left) = counted(&[0, 1, 2], &ledger.of("klaviyo", &block()), &places(&[], &[], &[], &[]));
        assert_eq!(flow.delivered.values().sum::<u64>(), 3);
        assert!(left.is_empty());
    }

    /// Issue 10: the topic belonged to another source once; its records are that source's, not this one's.
    #[test]
    fn records_that_another_source_brought_are_not_counted_for_this_one() {
        let mut ledger = Ledger::default();
        let key = Key {
            stage: tailwater_core::ledger::Stage::Resolve,
            destination: String::new(),
            output_partition: 0,
            topic: TOPIC.into(),
            partition: 0,
            block: 0,
            round: 0,
            segment: 1,
        };
        let noted = [(End::Resolved, "", &[0][..]), (End::Resolved, "first", &[1, 2]), (End::Resolved, "ltv", &[3])];
        ledger.add(key, entries(&noted));
        assert_eq!(ledger.of_another_source("ltv", &block()).offsets(0).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(ledger.of_another_source("first", &block()).offsets(0).collect::<Vec<_>>(), [3]);
    }

    #[test]
    fn removed_records_are_known_from_what_resolve_noted() {
        let mut ledger = Ledger::default();
        let key = Key {
            stage: tailwater_core::ledger::Stage::Resolve,
            destination: String::new(),
            output_partition: 0,
            topic: TOPIC.into(),
            partition: 0,
            block: 0,
            round: 0,
            segment: 1,
        };
        ledger.add(key, entries(&[(End::Resolved, "", &[0, 1, 7]), (End::Skipped, "tombstone", &[2])]));
        let mut known = Known::default();
        ledger.add_removed(&mut known, &BTreeMap::from([((TOPIC.to_owned(), 0), 5)]), false);
        assert_eq!(known.blocks[&block()].offsets(0).collect::<Vec<_>>(), [0, 1, 2]);
    }
}
