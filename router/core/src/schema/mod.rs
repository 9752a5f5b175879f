//! Logical schemas: what a reader of a table sees, how two of them differ, and what took the place of a missing column.
//!
//! The compacted topic `schemas` maps a fingerprint to a [`SchemaRecord`]. A route follows the predecessors to explain a
//! column that a transform reads in vain ([`explain_missing`]), and to find names that belong to another column than before
//! ([`reassigned`]).

mod fields;
mod missing;
mod names;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use fields::{Field, Inner, push_step};
pub use missing::{MissingColumn, Reassigned, explain_missing, reassigned};
pub use names::{near_names, other_names};

use crate::ids::SchemaId;

/// One column as its readers see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    pub name: String,
    /// The type in Spark's notation: `double`, `struct<low:double,high:double>`.
    #[serde(rename = "type")]
    pub data_type: String,
    pub nullable: bool,
    /// The column's id where the table maps columns: it survives a rename.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<i64>,
    /// Integers that may exceed 2^53 are strings in a row (`longs: string`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub longs_as_strings: bool,
    /// Decimals are strings with all their digits in a row (`decimals: string`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub decimals_as_strings: bool,
    /// The ids of the fields of structs inside the column, by path ([`push_step`]), where the table maps columns.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub field_ids: BTreeMap<String, i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Schema {
    pub columns: Vec<Column>,
}

/// The value of a record in `schemas`; its key is the fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaRecord {
    pub source: String,
    pub columns: Vec<Column>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predecessor: Option<SchemaId>,
    /// The table version that brought it, where the source has versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    #[serde(default)]
    pub difference: Difference,
}

/// What changed from the predecessor. Names are of top-level columns.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Difference {
    pub added: Vec<String>,
    pub removed: Vec<String>,
    pub retyped: Vec<String>,
    /// Renames that the table itself declares: (old, new), by column id. Two columns that swapped names are two renames.
    pub renamed: Vec<(String, String)>,
    /// Names that a new column was given after the column of that name was dropped, by column id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaced: Vec<String>,
}

impl Schema {
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The type at a path: of a column, or else of a field inside of structs. A column whose name holds the dots comes first.
    pub fn type_at(&self, path: &str) -> Option<String> {
        let steps = fields::path_of(&self.columns, path)?;
        let places = fields::places(&self.columns);
        places.into_iter().find(|place| place.path == steps).map(|place| place.data_type)
    }

    /// The path itself if the schema has it, else the one of its other names that it has ([`other_names`]).
    pub fn resolve(&self, path: &str, aliases: &BTreeMap<String, Vec<String>>) -> Option<String> {
        let has = |path: &str| fields::path_of(&self.columns, path).is_some();
        if has(path) {
            return Some(path.to_owned());
        }
        other_names(path, aliases).into_iter().find(|other| has(other))
    }

    /// The fingerprint: the same for the same columns in the same order, whatever else the table's metadata says.
    pub fn id(&self, source: &str) -> SchemaId {
        // Serialising strings and numbers to memory has no way to fail; the empty text would only make an odd fingerprint.
        SchemaId::of(source, &serde_json::to_vec(&self.columns).unwrap_or_default())
    }

    /// What a reader of `self` finds changed against `before`. Where both have ids, ids say which column is which; else names do.
    pub fn difference(&self, before: &Self) -> Difference {
        let mut difference = Difference::default();
        // A table that was written anew gives every column a new id; only the names are left to compare.
        let by_id =
            self.columns.iter().any(|new| new.id.is_some() && before.columns.iter().any(|old| old.id == new.id));
        let same = |old: &Column, new: &Column| !by_id || old.id.is_none() || new.id.is_none() || old.id == new.id;
        for column in &self.columns {
            let named = before.column(&column.name);
            if let Some(old) = named.filter(|old| same(old, column)) {
                if old.data_type != column.data_type {
                    difference.retyped.push(column.name.clone());
                }
                continue;
            }
            let former = before.columns.iter().find(|old| {
                column.id.is_some()
                    && old.id == column.id
                    && old.name != column.name
                    && self.column(&old.name).is_none_or(|now| !same(old, now))
            });
            match (former, named) {
                (Some(old), _) => difference.renamed.push((old.name.clone(), column.name.clone())),
                (None, Some(_)) => difference.replaced.push(column.name.clone()),
                (None, None) => difference.added.push(column.name.clone()),
            }
        }
        for old in &before.columns {
            let renamed = |difference: &Difference| difference.renamed.iter().any(|(from, _)| *from == old.name);
            let taken = |difference: &Difference| difference.renamed.iter().any(|(_, to)| *to == old.name);
            if !renamed(&difference) && (self.column(&old.name).is_none() || taken(&difference)) {
                difference.removed.push(old.name.clone());
            }
        }
        difference
    }
}

impl Column {
    /// A column that may be null and has no ids.
    pub fn new(name: impl Into<String>, data_type: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            data_type: data_type.into(),
            nullable: true,
            id: None,
            longs_as_strings: false,
            decimals_as_strings: false,
            field_ids: BTreeMap::new(),
        }
    }
}

impl Difference {
    pub fn is_empty(&self) -> bool {
        let Self { added, removed, retyped, renamed, replaced } = self;
        added.is_empty() && removed.is_empty() && retyped.is_empty() && renamed.is_empty() && replaced.is_empty()
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, data_type: &str, id: Option<i64>) -> Column {
        Column { id, ..Column::new(name, data_type) }
    }

    #[test]
    fn a_fingerprint_is_frozen() {
        let schema = Schema { columns: vec![column("id", "string", None), column("score", "double", Some(7))] };
        assert_eq!(
            serde_json::to_string(&schema.columns).unwrap(),
            r#"[{"name":"id","type":"string","nullable":true},{"name":"score","type":"double","nullable":true,"id":7}]"#
        );
        assert_eq!(schema.id("ltv").to_string(), include_str!("../golden/schema.txt").trim_end());
    }

    #[test]
    fn a_difference_names_each_column_once() {
        let before = Schema {
            columns: vec![column("a", "int", Some(1)), column("b", "int", Some(2)), column("c", "int", None)],
        };
        let after = Schema {
            columns: vec![column("a", "long", Some(1)), column("bb", "int", Some(2)), column("d", "int", None)],
        };
        let difference = after.difference(&before);
        assert_eq!(difference.retyped, ["a"]);
        assert_eq!(difference.renamed, [("b".to_owned(), "bb".to_owned())]);
        assert_eq!(difference.added, ["d"]);
        assert_eq!(difference.removed, ["c"]);
    }

    #[test]
    fn ids_say_which_column_is_which_where_both_have_them() {
        let schema = |columns: &[(&str, &str, i64)]| Schema {
            columns: columns.iter().map(|(name, data_type, id)| column(name, data_type, Some(*id))).collect(),
        };
        let pair = |old: &str, new: &str| (old.to_owned(), new.to_owned());
        let before = schema(&[("id", "string", 1), ("a", "int", 2), ("b", "int", 3)]);
        let swapped = schema(&[("id", "string", 1), ("b", "int", 2), ("a", "int", 3)]).difference(&before);
        assert_eq!(swapped.renamed, [pair("a", "b"), pair("b", "a")]);
        assert!(swapped.removed.is_empty() && swapped.added.is_empty());
        let taken = schema(&[("id", "string", 1), ("a", "int", 3)]).difference(&before);
        assert_eq!((taken.renamed, taken.removed), (vec![pair("b", "a")], vec!["a".to_owned()]));
        let replaced = schema(&[("id", "string", 1), ("a", "int", 9), ("b", "int", 3)]).difference(&before);
        assert_eq!(replaced.replaced, ["a"]);
        assert!(replaced.removed.is_empty());
        let anew = schema(&[("id", "string", 7), ("a", "int", 8), ("b", "bigint", 9)]).difference(&before);
        assert_eq!((anew.retyped, anew.replaced.len()), (vec!["b".to_owned()], 0));
    }

    #[test]
    fn a_record_without_the_newer_fields_is_read() {
        let text = r#"{"source":"s","columns":[{"name":"a","type":"int","nullable":true}],"difference":{"added":[],"removed":[],"retyped":[],"renamed":[]}}"#;
        let record: SchemaRecord = serde_json::from_str(text).unwrap();
        assert_eq!(record.columns, [column("a", "int", None)]);
        assert_eq!(serde_json::to_string(&record).unwrap(), text);
    }
}
