//! Logical schemas: what a reader of a table sees, how two of them differ, and what took the place of a missing column.
//!
//! The compacted topic `schemas` maps a fingerprint to a [`SchemaRecord`]. A route follows the predecessors to explain a
//! column that a transform reads in vain.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

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
    /// Renames that the table itself declares: (old, new), by column id.
    pub renamed: Vec<(String, String)>,
}

/// A column that a transform reads and the schema does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingColumn {
    pub column: String,
    /// The version in which the column vanished, if it was ever there and versions are known.
    pub vanished_in: Option<u64>,
    /// Whether any earlier schema of the source had it.
    pub known: bool,
    /// What may have taken its place, best first: one name is the answer, several are candidates, none is chosen.
    pub candidates: Vec<String>,
}

impl Schema {
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The fingerprint: the same for the same columns in the same order, whatever else the table's metadata says.
    pub fn id(&self, source: &str) -> SchemaId {
        // Serialising strings and numbers to memory has no way to fail; the empty text would only make an odd fingerprint.
        SchemaId::of(source, &serde_json::to_vec(&self.columns).unwrap_or_default())
    }

    /// What a reader of `self` finds changed against `before`.
    pub fn difference(&self, before: &Self) -> Difference {
        let mut difference = Difference::default();
        for column in &self.columns {
            match before.column(&column.name) {
                Some(old) if old.data_type != column.data_type => difference.retyped.push(column.name.clone()),
                Some(_) => {}
                None => match column.id.and_then(|id| before.columns.iter().find(|old| old.id == Some(id))) {
                    Some(old) if self.column(&old.name).is_none() => {
                        difference.renamed.push((old.name.clone(), column.name.clone()));
                    }
                    Some(_) | None => difference.added.push(column.name.clone()),
                },
            }
        }
        for old in &before.columns {
            let renamed = difference.renamed.iter().any(|(from, _)| *from == old.name);
            if !renamed && self.column(&old.name).is_none() {
                difference.removed.push(old.name.clone());
            }
        }
        difference
    }
}

impl SchemaRecord {
    fn has(&self, column: &str) -> bool {
        self.columns.iter().any(|had| had.name == column)
    }
}

impl Difference {
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.retyped.is_empty() && self.renamed.is_empty()
    }
}

/// Explains a missing column from the source's schemas, newest first (each the predecessor of the one before it).
///
/// Candidates are the columns that appeared in the version in which the column vanished: by column id if the table maps
/// columns, else those of the same type, else all of them, nearest name first. One that has vanished again since is replaced by
/// what took its place in turn, so that every candidate can be read from the newest schema.
pub fn explain_missing(column: &str, history: &[SchemaRecord]) -> MissingColumn {
    let mut missing =
        MissingColumn { column: column.to_owned(), vanished_in: None, known: false, candidates: Vec::new() };
    let Some(last) = history.iter().position(|record| record.has(column)) else { return missing };
    missing.known = true;
    let Some(successor) = last.checked_sub(1) else { return missing };
    missing.vanished_in = history[successor].version;
    let mut seen = BTreeSet::new();
    follow(column, history, last, &mut seen, &mut missing.candidates);
    missing
}

/// Adds to `found` what took the place of a column that `history[last]` had and its successor has not. A name that was followed before is
/// not followed again: when several columns are renamed in every version, the ways through them double each time.
fn follow(column: &str, history: &[SchemaRecord], last: usize, seen: &mut BTreeSet<String>, found: &mut Vec<String>) {
    let Some(successor) = last.checked_sub(1) else { return };
    for candidate in successors(column, &history[last], &history[successor]) {
        if !seen.insert(candidate.clone()) {
            continue;
        }
        // A column of the successor was last seen there or later, so this ends.
        match history.iter().position(|record| record.has(&candidate)) {
            Some(0) | None => found.push(candidate),
            Some(position) => follow(&candidate, history, position, seen, found),
        }
    }
}

/// The columns that appeared when `column` vanished, best first.
fn successors(column: &str, before: &SchemaRecord, after: &SchemaRecord) -> Vec<String> {
    let Some(old) = before.columns.iter().find(|had| had.name == column) else { return Vec::new() };
    if let Some(renamed) = after.columns.iter().find(|new| old.id.is_some() && new.id == old.id) {
        return vec![renamed.name.clone()];
    }
    let appeared: Vec<&Column> = after.columns.iter().filter(|new| !before.has(&new.name)).collect();
    let same_type: Vec<&Column> = appeared.iter().copied().filter(|new| new.data_type == old.data_type).collect();
    let mut ranked = if same_type.is_empty() { appeared } else { same_type };
    ranked.sort_by_key(|new| std::cmp::Reverse(shared_letters(&new.name, column)));
    ranked.into_iter().map(|new| new.name.clone()).collect()
}

/// How many letters two names share at their beginnings and ends: enough to put `ltv_score` before `rank` for `ltv_predicted`.
fn shared_letters(a: &str, b: &str) -> usize {
    let front = a.bytes().zip(b.bytes()).take_while(|(x, y)| x == y).count();
    let back = a.bytes().rev().zip(b.bytes().rev()).take_while(|(x, y)| x == y).count();
    front + back
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, data_type: &str, id: Option<i64>) -> Column {
        Column { name: name.into(), data_type: data_type.into(), nullable: true, id, longs_as_strings: false }
    }

    fn record(columns: Vec<Column>, version: u64) -> SchemaRecord {
        SchemaRecord {
            source: "ltv".into(),
            columns,
            predecessor: None,
            version: Some(version),
            difference: Difference::default(),
        }
    }

    #[test]
    fn a_rename_is_recognised_by_its_type_although_another_column_is_new_too() {
        let old = record(vec![column("id", "string", None), column("ltv_predicted", "double", None)], 0);
        let new = record(
            vec![
                column("id", "string", None),
                column("confidence_interval", "struct<low:double>", None),
                column("ltv_score", "double", None),
            ],
            4,
        );
        let missing = explain_missing("ltv_predicted", &[new, old]);
        assert_eq!(missing.candidates, ["ltv_score"]);
        assert_eq!(missing.vanished_in, Some(4));
    }

    #[test]
    fn two_candidates_of_one_type_are_both_named_nearest_first() {
        let old = record(vec![column("ltv_predicted", "double", None)], 0);
        let new = record(vec![column("rank", "double", None), column("ltv_score", "double", None)], 2);
        assert_eq!(explain_missing("ltv_predicted", &[new, old]).candidates, ["ltv_score", "rank"]);
    }

    #[test]
    fn a_column_id_decides_over_the_type() {
        let old = record(vec![column("risk", "double", Some(3))], 0);
        let new = record(vec![column("other", "double", Some(9)), column("churn", "float", Some(3))], 2);
        assert_eq!(explain_missing("risk", &[new, old]).candidates, ["churn"]);
    }

    #[test]
    fn a_column_that_was_renamed_twice_is_found_under_its_latest_name() {
        let first = record(vec![column("ltv_predicted", "double", None)], 0);
        let second = record(vec![column("ltv_score", "double", None)], 4);
        let third = record(vec![column("ltv", "double", None)], 6);
        let missing = explain_missing("ltv_predicted", &[third, second, first]);
        assert_eq!(missing.candidates, ["ltv"]);
        assert_eq!(missing.vanished_in, Some(4));
    }

    #[test]
    fn columns_that_are_all_renamed_again_and_again_are_followed_once() {
        let version = |number: u64| {
            let columns = (0..6).map(|place| column(&format!("c{place}_{number}"), "double", None)).collect();
            record(columns, number)
        };
        // 6^99 ways lead from the oldest version to the newest.
        let history: Vec<SchemaRecord> = (0..100).rev().map(version).collect();
        assert_eq!(explain_missing("c0_0", &history).candidates.len(), 6);
    }

    #[test]
    fn a_fingerprint_is_frozen() {
        let schema = Schema { columns: vec![column("id", "string", None), column("score", "double", Some(7))] };
        assert_eq!(
            serde_json::to_string(&schema.columns).unwrap(),
            r#"[{"name":"id","type":"string","nullable":true},{"name":"score","type":"double","nullable":true,"id":7}]"#
        );
        assert_eq!(schema.id("ltv").to_string(), include_str!("golden/schema.txt").trim_end());
    }

    #[test]
    fn a_column_that_never_existed_has_no_candidates() {
        let only = record(vec![column("upgrade_score", "double", None)], 0);
        let missing = explain_missing("churn_risk_score", &[only]);
        assert!(!missing.known);
        assert!(missing.candidates.is_empty());
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
}
