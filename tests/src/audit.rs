//! What `tailwater audit --json` says, as numbers, and the same numbers counted from the ledger by hand: two readers of one ledger
//! that must agree.

use std::collections::BTreeMap;

use serde_json::Value;
use tailwater_core::ledger::{End, Key, decode_entries};

use crate::topics::Topics;

/// The ends of one source's records at one destination.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    pub total: u64,
    pub delivered: u64,
    pub skipped: u64,
    pub dead_lettered: u64,
    pub held: u64,
    pub in_flight: u64,
    pub unaccounted: u64,
}

impl Counts {
    /// Everything was delivered.
    pub fn delivered(total: u64) -> Self {
        Self { total, delivered: total, ..Self::default() }
    }

    /// The row of a source and a destination; all zeros if there is none.
    pub fn find(audit: &Value, source: &str, destination: &str) -> Self {
        row(audit, source, destination).map_or_else(Self::default, |row| Self {
            total: total(&row["in"]),
            delivered: total(&row["delivered"]),
            skipped: total(&row["skipped"]),
            dead_lettered: total(&row["dead_lettered"]),
            held: total(&row["held"]),
            in_flight: total(&row["in_flight"]),
            unaccounted: total(&row["unaccounted"]),
        })
    }
}

/// Counts the ends of a source's records at a destination from the ledger itself. What is in the topic and has no end counts as in flight:
/// whether it is late or lost is for the audit to say.
pub fn count(topics: &Topics, ledger: &str, ingest: &str, destination: &str) -> Counts {
    let mut ends: BTreeMap<(i32, i64), (u32, End)> = BTreeMap::new();
    let mut latest: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for record in topics.read(ledger) {
        if let (Some(key), Some(value)) = (record.key, record.value) {
            latest.insert(key, value);
        }
    }
    for (key, value) in latest {
        let key = Key::decode(&key).unwrap_or_else(|error| panic!("{error}"));
        if key.topic != ingest || !(key.destination.is_empty() || key.destination == destination) {
            continue;
        }
        let entries = decode_entries(&value).unwrap_or_else(|error| panic!("{error}"));
        for ((end, _), bitmap) in &entries {
            for offset in bitmap.offsets(key.block) {
                let seen = ends.entry((key.partition, offset)).or_insert((key.round, *end));
                *seen = (*seen).max((key.round, *end));
            }
        }
    }
    let open =
        topics.read(ingest).iter().filter(|record| !ends.contains_key(&(record.partition, record.offset))).count();
    let mut counts = Counts { total: (ends.len() + open) as u64, in_flight: open as u64, ..Counts::default() };
    for (_, end) in ends.values() {
        match end {
            End::Held => counts.held += 1,
            End::Resolved | End::Routed | End::Parked => counts.in_flight += 1,
            End::Skipped => counts.skipped += 1,
            End::Delivered => counts.delivered += 1,
            End::DeadLettered => counts.dead_lettered += 1,
        }
    }
    counts
}

/// The object that names the source and the destination, wherever it stands.
pub fn row<'a>(value: &'a Value, source: &str, destination: &str) -> Option<&'a Value> {
    match value {
        Value::Object(fields) => {
            if value["source"] == source && value["destination"] == destination {
                return Some(value);
            }
            fields.values().find_map(|field| row(field, source, destination))
        }
        Value::Array(items) => items.iter().find_map(|item| row(item, source, destination)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// A number, the sum of the numbers by reason, or the length of a list of coordinates.
fn total(value: &Value) -> u64 {
    match value {
        Value::Number(number) => number.as_u64().unwrap_or(0),
        Value::Object(fields) => fields.values().map(total).sum(),
        Value::Array(items) => items.len() as u64,
        Value::Null | Value::Bool(_) | Value::String(_) => 0,
    }
}
