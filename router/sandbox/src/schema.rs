//! The schema as a row's reader sees it: which columns there are, which hold long integers, and which names are other names
//! of the same column.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use tailwater_core::schema::Schema;

/// Built once per schema and shared by the batches that have it: contexts recognise it by a number and keep what they made of it.
#[derive(Debug)]
pub struct RowSchema {
    /// Unique in the process; 0 is no schema.
    id: u64,
    columns: HashSet<String>,
    longs: HashSet<String>,
    /// What the driver builds the rows' prototype from.
    text: String,
}

#[derive(Serialize)]
struct Spec<'a> {
    strict: bool,
    columns: Vec<&'a str>,
    longs: Vec<&'a str>,
    aliases: Vec<Vec<&'a str>>,
}

impl RowSchema {
    /// `aliases` maps a column's new name to its old ones; a row answers to all of them with the one that it has. With `strict`, reading any
    /// other name is an error; without, it is `undefined`.
    pub fn new(schema: &Schema, aliases: &BTreeMap<String, Vec<String>>, strict: bool) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let longs =
            || schema.columns.iter().filter(|column| column.longs_as_strings).map(|column| column.name.as_str());
        let columns = || schema.columns.iter().map(|column| column.name.as_str());
        let spec = Spec {
            strict,
            columns: columns().collect(),
            longs: longs().collect(),
            aliases: aliases
                .iter()
                .map(|(new, old)| std::iter::once(new.as_str()).chain(old.iter().map(String::as_str)).collect())
                .collect(),
        };
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            columns: columns().map(str::to_owned).collect(),
            longs: longs().map(str::to_owned).collect(),
            // Strings and booleans have no way to fail; were there one, every row would fail loudly on the empty text.
            text: serde_json::to_string(&spec).unwrap_or_default(),
        }
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn has_column(&self, name: &str) -> bool {
        self.columns.contains(name)
    }

    /// Whether the integers of this column are strings in a row.
    pub(crate) fn is_long(&self, name: &str) -> bool {
        self.longs.contains(name)
    }
}
