//! The strictest question about repeats, put to the product's own history: an outcome is committed together with the offsets and the
//! state, so no delivery may ever have two committed outcomes that say *delivered*.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;

use crate::topics::Topics;

/// Findings that are kept.
const FINDINGS_MAX: usize = 20;

/// A record of the topic `deliveries`, as far as it matters here.
#[derive(Deserialize)]
struct Entry<'a> {
    delivery: &'a str,
    outcome: &'a str,
    kind: &'a str,
    event: &'a str,
    at: &'a str,
    #[serde(default)]
    code: &'a str,
}

/// What the history says.
#[derive(Debug, Default)]
pub struct History {
    /// Deliveries by outcome, attempts among them.
    pub outcomes: HashMap<String, u64>,
    /// Deliveries that were noted as delivered more than once.
    pub delivered_twice: Vec<String>,
    /// Events of whose states a newer one had been delivered: they must not be sent any more.
    pub superseded: HashSet<String>,
}

/// Reads the whole history; only what was committed.
pub fn read(topics: &Topics, topic: &str) -> History {
    let mut history = History::default();
    let mut delivered: HashMap<u128, String> = HashMap::new();
    topics.each(topic, |record| {
        let value = record.value.as_deref().unwrap_or_default();
        let entry: Entry<'_> = match serde_json::from_slice(value) {
            Ok(entry) => entry,
            Err(error) => panic!("{} is no entry of the history: {error}", record.at()),
        };
        *history.outcomes.entry(entry.outcome.to_owned()).or_insert(0) += 1;
        if entry.code == "superseded" {
            history.superseded.insert(entry.event.to_owned());
        }
        if entry.outcome != "delivered" {
            return;
        }
        let mut key = std::hash::DefaultHasher::new();
        std::hash::Hasher::write(&mut key, entry.delivery.as_bytes());
        let first = std::hash::Hasher::finish(&key);
        std::hash::Hasher::write(&mut key, entry.event.as_bytes());
        let key = (u128::from(first) << 64) | u128::from(std::hash::Hasher::finish(&key));
        let text = format!("{} at {}", record.at(), entry.at);
        if let Some(before) = delivered.insert(key, text.clone())
            && history.delivered_twice.len() < FINDINGS_MAX
        {
            history
                .delivered_twice
                .push(format!("{} {} of event {}: {before} and {text}", entry.kind, entry.delivery, entry.event));
        }
    });
    history
}
