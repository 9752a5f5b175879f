//! The board behind `/status`: named values by section, written by the parts that know, read by people and by the console.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde_json::{Map, Value, json};

/// Entries on the board. They are named after what the configuration names, so this is far beyond any real one; it keeps a mistake
/// (a name made from data) from growing without end.
const ENTRIES_MAX: usize = 10_000;

pub(super) struct Board {
    started: Instant,
    entries: Mutex<BTreeMap<(String, String), Value>>,
}

impl Default for Board {
    fn default() -> Self {
        Self { started: Instant::now(), entries: Mutex::default() }
    }
}

impl Board {
    pub(super) fn set(&self, name: &str, value: Value) {
        let (section, entry) = name.split_once('.').unwrap_or(("process", name));
        let key = (section.to_owned(), entry.to_owned());
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if value.is_null() {
            entries.remove(&key);
        } else if entries.len() < ENTRIES_MAX || entries.contains_key(&key) {
            entries.insert(key, value);
        } else {
            drop(entries);
            tracing::error!(name, max = ENTRIES_MAX, "the status board is full, an entry is not shown");
        }
    }

    pub(super) fn page(&self) -> Value {
        let mut page = Map::new();
        page.insert("version".into(), json!(env!("CARGO_PKG_VERSION")));
        page.insert("uptime_seconds".into(), json!(self.started.elapsed().as_secs()));
        for ((section, name), value) in self.entries.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let section = page.entry(section.as_str()).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(section) = section {
                section.insert(name.clone(), value.clone());
            }
        }
        Value::Object(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_shown_by_section_and_null_takes_one_away() {
        let board = Board::default();
        board.set("destination.klaviyo", json!({"state": "running"}));
        board.set("destination.iterable", json!({"state": "paused"}));
        board.set("roles", json!(["route", "send"]));
        board.set("destination.iterable", Value::Null);
        let page = board.page();
        assert_eq!(page["destination"], json!({"klaviyo": {"state": "running"}}));
        assert_eq!(page["process"]["roles"], json!(["route", "send"]));
        assert_eq!(page["version"], json!(env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn names_made_from_data_cannot_fill_the_memory() {
        let board = Board::default();
        for number in 0..=ENTRIES_MAX {
            board.set(&format!("person.{number}"), json!(1));
        }
        assert_eq!(board.entries.lock().unwrap().len(), ENTRIES_MAX);
        board.set("person.0", json!(2));
        assert_eq!(board.page()["person"]["0"], json!(2));
    }
}
