//! What took the place of a column or of a struct's field, from the schemas that a source had.
//!
//! Two cases. A name is gone: `row.ltv_predicted`, `row.profile.score`. Or a name is still there and belongs to another column: the
//! table maps columns and two of them swapped names, or one was dropped and another one was given its name. Only the ids show the
//! second case, so a reader asks [`reassigned`] for it before the rows are read.

use std::collections::{BTreeMap, BTreeSet};

use super::fields::{Place, path_of, places};
use super::{Column, SchemaRecord};
use crate::path;

/// A column that is read and that the schema does not have, or has under another meaning. A field of a struct is named by its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingColumn {
    pub column: String,
    /// The version in which the column vanished, if it was ever there and versions are known.
    pub vanished_in: Option<u64>,
    /// Whether any earlier schema of the source had it.
    pub known: bool,
    /// What may have taken its place, best first: one name is the answer, several are candidates, none is chosen.
    pub candidates: Vec<String>,
    /// The name is there and belongs to another column now.
    pub reassigned: Option<Reassigned>,
    /// The names that can be read in its stead: the source's columns, or the fields of the struct.
    pub beside: Vec<String>,
}

/// A name that used to belong to another column: who reads it as before gets the other column's values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reassigned {
    /// The column, or the path of the field.
    pub column: String,
    /// The name that the column of this name had before, if it existed.
    pub formerly: Option<String>,
    /// The version since which the name means another column.
    pub since: Option<u64>,
}

// === impl Reassigned ===

impl Reassigned {
    /// Whether the source's `aliases` say that the change is known: `churn: [upgrade]` says that `churn` is what `upgrade` was.
    pub fn is_acknowledged(&self, aliases: &BTreeMap<String, Vec<String>>) -> bool {
        let Some(formerly) = &self.formerly else { return false };
        // Both are written with dots here; an alias may have backticks.
        let is = |path: &str, name: &str| path == name || path::steps(path).join(".") == name;
        aliases.iter().any(|(new, old)| is(new, &self.column) && old.iter().any(|old| is(old, formerly)))
    }
}

/// The names of the newest schema that belonged to another column in one before it, by column id. `history` is newest
/// first. Fields below a name that is reported are not reported again.
pub fn reassigned(history: &[SchemaRecord]) -> Vec<Reassigned> {
    let Some(newest) = history.first() else { return Vec::new() };
    // Without ids nothing is known, and nothing needs to be read.
    if newest.columns.iter().all(|column| column.id.is_none() && column.field_ids.is_empty()) {
        return Vec::new();
    }
    let all: Vec<Vec<Place>> = history.iter().map(|record| places(&record.columns)).collect();
    let mut found: Vec<Reassigned> = Vec::new();
    let mut below: Vec<Vec<String>> = Vec::new();
    for place in all.first().into_iter().flatten() {
        if below.iter().any(|parent| place.path.starts_with(parent)) {
            continue;
        }
        if let Some((owner, _)) = last_owner(place, &all) {
            found.push(reassignment(place, owner, &all, history));
            below.push(place.path.clone());
        }
    }
    found
}

/// The newest schema in which the name belonged to another column, and that column.
fn last_owner<'p>(place: &Place, all: &'p [Vec<Place>]) -> Option<(usize, &'p Place)> {
    let id = place.id?;
    let newest = all.first()?;
    let (at, owner) = all.iter().enumerate().skip(1).find_map(|(at, places)| {
        let owner = places.iter().find(|old| old.path == place.path && old.id.is_some_and(|old| old != id))?;
        Some((at, owner))
    })?;
    // A table that was written anew gives every column a new id. Names are all that is left then, and they mean what they did, as long as the
    // type is the same.
    let kept = || newest.iter().any(|new| new.id.is_some() && all[at].iter().any(|old| old.id == new.id));
    (owner.data_type != place.data_type || kept()).then_some((at, owner))
}

fn reassignment(place: &Place, owner: usize, all: &[Vec<Place>], history: &[SchemaRecord]) -> Reassigned {
    let formerly = all
        .iter()
        .skip(1)
        .find_map(|places| places.iter().find(|old| old.id.is_some() && old.id == place.id && old.path != place.path));
    Reassigned {
        column: place.path.join("."),
        formerly: formerly.map(|old| old.path.join(".")),
        since: owner.checked_sub(1).and_then(|successor| history[successor].version),
    }
}

/// Explains a missing column, or a missing field by its path, from the source's schemas, newest first (each the predecessor of the one
/// before it).
///
/// Candidates are what appeared beside it in the version in which it vanished: by id if the table maps columns, else of the same type, else
/// of the same kind of type, nearest name first. What is of another kind is no candidate. One that has vanished again since is replaced by
/// what took its place in turn, so that every candidate can be read from the newest schema.
pub fn explain_missing(column: &str, history: &[SchemaRecord]) -> MissingColumn {
    let mut missing = MissingColumn {
        column: column.to_owned(),
        vanished_in: None,
        known: false,
        candidates: Vec::new(),
        reassigned: None,
        beside: history.first().map(|newest| beside(column, &newest.columns)).unwrap_or_default(),
    };
    let had = |(at, record): (usize, &SchemaRecord)| Some((at, path_of(&record.columns, column)?));
    let Some((mut last, path)) = history.iter().enumerate().find_map(had) else { return missing };
    missing.known = true;
    let all: Vec<Vec<Place>> = history.iter().map(|record| places(&record.columns)).collect();
    let Some(mut place) = all[last].iter().find(|place| place.path == path).cloned() else { return missing };
    if last == 0 {
        let Some((owner, old)) = last_owner(&place, &all) else { return missing };
        missing.reassigned = Some(reassignment(&place, owner, &all, history));
        (last, place) = (owner, old.clone());
    }
    missing.vanished_in = last.checked_sub(1).and_then(|successor| history[successor].version);
    let mut search = Search { all: &all, seen: BTreeSet::from([path]), found: Vec::new() };
    search.follow(&place, last);
    missing.candidates = search.found;
    missing
}

struct Search<'h> {
    all: &'h [Vec<Place>],
    /// A name that was followed before is not followed again: when several columns are renamed in every version, the ways through
    /// them double each time.
    seen: BTreeSet<Vec<String>>,
    found: Vec<String>,
}

// === impl Search ===

impl Search<'_> {
    /// Adds what took the place of a column that the schema `last` had and its successor has not.
    fn follow(&mut self, place: &Place, last: usize) {
        let Some(successor) = last.checked_sub(1) else { return };
        for candidate in successors(place, &self.all[last], &self.all[successor]) {
            if !self.seen.insert(candidate.path.clone()) {
                continue;
            }
            // A column of the successor was last seen there or later, so this ends.
            match self.last_seen(&candidate).map(|(at, found)| (at, found.clone())) {
                Some((0, found)) => {
                    let name = found.path.join(".");
                    if !self.found.contains(&name) {
                        self.found.push(name);
                    }
                }
                Some((at, found)) => self.follow(&found, at),
                None => {}
            }
        }
    }

    /// The newest schema that has the column: by id, else by name.
    fn last_seen(&self, place: &Place) -> Option<(usize, &Place)> {
        let found = |same: &dyn Fn(&Place) -> bool| {
            self.all.iter().enumerate().find_map(|(at, places)| Some((at, places.iter().find(|place| same(place))?)))
        };
        match place.id {
            Some(id) => found(&|other| other.id == Some(id)),
            None => found(&|other| other.path == place.path),
        }
    }
}

/// What appeared where `place` vanished, best first.
fn successors(place: &Place, before: &[Place], after: &[Place]) -> Vec<Place> {
    if let Some(renamed) = after.iter().find(|new| place.id.is_some() && new.id == place.id) {
        return vec![renamed.clone()];
    }
    let Some((leaf, parent)) = place.path.split_last() else { return Vec::new() };
    let mut parent_after = parent.to_vec();
    if let Some(outer) = before.iter().find(|outer| outer.path == parent) {
        let same = |new: &&Place| if outer.id.is_some() { new.id == outer.id } else { new.path == outer.path };
        match after.iter().find(same) {
            Some(found) => parent_after.clone_from(&found.path),
            // The struct itself is gone: the field is in what took its place, if that has one of the name.
            None => {
                let inside = |outer: Place| {
                    let path = [outer.path.as_slice(), std::slice::from_ref(leaf)].concat();
                    after.iter().find(|new| new.path == path).cloned()
                };
                return successors(outer, before, after).into_iter().filter_map(inside).collect();
            }
        }
    }
    let within = |places: &[Place], parent: &[String]| -> Vec<Place> {
        let inside = |place: &&Place| place.path.len() == parent.len() + 1 && place.path.starts_with(parent);
        places.iter().filter(inside).cloned().collect()
    };
    let were = within(before, parent);
    let mut appeared = within(after, &parent_after);
    appeared.retain(|new| {
        new.path != place.path
            && !were.iter().any(|old| old.path.last() == new.path.last() || (new.id.is_some() && old.id == new.id))
    });
    let like =
        |same: &dyn Fn(&Place) -> bool| -> Vec<Place> { appeared.iter().filter(|new| same(new)).cloned().collect() };
    let mut ranked = like(&|new| new.data_type == place.data_type);
    if ranked.is_empty() {
        ranked = like(&|new| kind(&new.data_type) == kind(&place.data_type));
    }
    ranked.sort_by_key(|new| std::cmp::Reverse(new.path.last().map_or(0, |name| shared_letters(name, leaf))));
    ranked
}

/// What types have in common that hold the same kind of value: a `double` may become a `float`, and never a `string`.
fn kind(data_type: &str) -> &str {
    let name = data_type.split(['<', '(']).next().unwrap_or_default();
    match name {
        "tinyint" | "byte" | "smallint" | "short" | "int" | "integer" | "bigint" | "long" | "float" | "double"
        | "decimal" => "number",
        "date" | "timestamp" | "timestamp_ntz" => "time",
        other => other,
    }
}

/// How many letters two names share at their beginnings and ends: enough to put `ltv_score` before `rank` for `ltv_predicted`.
fn shared_letters(a: &str, b: &str) -> usize {
    let front = a.bytes().zip(b.bytes()).take_while(|(x, y)| x == y).count();
    let back = a.bytes().rev().zip(b.bytes().rev()).take_while(|(x, y)| x == y).count();
    front + back
}

/// What can be read where `text` was looked for: the fields of the innermost struct on the way, or the columns.
fn beside(text: &str, columns: &[Column]) -> Vec<String> {
    let mut outer = text;
    while let Some((before, _)) = outer.rsplit_once('.') {
        outer = before;
        if let Some(parent) = path_of(columns, outer) {
            let inside = |place: &Place| place.path.len() == parent.len() + 1 && place.path.starts_with(&parent);
            return places(columns).iter().filter(|place| inside(place)).map(|place| place.path.join(".")).collect();
        }
    }
    columns.iter().map(|column| column.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Difference;

    fn column(name: &str, data_type: &str, id: Option<i64>) -> Column {
        Column { id, ..Column::new(name, data_type) }
    }

    fn with_fields(name: &str, data_type: &str, id: i64, fields: &[(&str, i64)]) -> Column {
        let field_ids = fields.iter().map(|(path, id)| ((*path).to_owned(), *id)).collect();
        Column { field_ids, ..column(name, data_type, Some(id)) }
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

    fn aliases(new: &str, old: &str) -> BTreeMap<String, Vec<String>> {
        BTreeMap::from([(new.to_owned(), vec![old.to_owned()])])
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
        assert_eq!(missing.beside, ["id", "confidence_interval", "ltv_score"]);
    }

    #[test]
    fn two_candidates_of_one_type_are_both_named_nearest_first() {
        let old = record(vec![column("ltv_predicted", "double", None)], 0);
        let new = record(vec![column("rank", "double", None), column("ltv_score", "double", None)], 2);
        assert_eq!(explain_missing("ltv_predicted", &[new, old]).candidates, ["ltv_score", "rank"]);
    }

    // Issue 10, A3: a hint named a column that could not be it.
    #[test]
    fn a_column_of_another_kind_is_no_candidate_and_one_of_the_same_kind_is() {
        let old = record(vec![column("note", "string", None)], 0);
        let new = record(vec![column("rank", "int", None)], 2);
        assert!(explain_missing("note", &[new, old]).candidates.is_empty());
        let old = record(vec![column("ltv", "float", None)], 0);
        let new = record(vec![column("rank", "string", None), column("score", "decimal(10,2)", None)], 2);
        assert_eq!(explain_missing("ltv", &[new, old]).candidates, ["score"]);
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
    fn a_column_that_never_existed_has_no_candidates() {
        let only = record(vec![column("upgrade_score", "double", None)], 0);
        let missing = explain_missing("churn_risk_score", &[only]);
        assert!(!missing.known);
        assert!(missing.candidates.is_empty());
        assert_eq!(missing.beside, ["upgrade_score"]);
    }

    // Issue 10, A3: two columns swap names, and each is read as the other.
    #[test]
    fn columns_that_swapped_names_are_reassigned_however_many_commits_it_took() {
        let columns = |churn: (&str, i64), upgrade: (&str, i64)| {
            vec![
                column("id", "string", Some(1)),
                column(churn.0, "double", Some(churn.1)),
                column(upgrade.0, "double", Some(upgrade.1)),
            ]
        };
        let history = [
            record(columns(("upgrade", 2), ("churn", 3)), 9),
            record(columns(("spare", 2), ("churn", 3)), 8),
            record(columns(("spare", 2), ("upgrade", 3)), 7),
            record(columns(("churn", 2), ("upgrade", 3)), 1),
        ];
        let found = reassigned(&history);
        assert_eq!(found.iter().map(|name| name.column.as_str()).collect::<Vec<_>>(), ["upgrade", "churn"]);
        assert_eq!(found[1].formerly.as_deref(), Some("upgrade"));
        let missing = explain_missing("churn", &history);
        assert_eq!(missing.candidates, ["upgrade"]);
        assert_eq!(missing.vanished_in, Some(7));
        assert_eq!(missing.reassigned.as_ref(), Some(&found[1]));
        assert!(found[1].is_acknowledged(&aliases("churn", "upgrade")));
        assert!(found[1].is_acknowledged(&aliases("`churn`", "`upgrade`")));
        assert!(!found[1].is_acknowledged(&aliases("upgrade", "churn")));
        // Nothing is found before the swap, or between its commits for a name that nobody has.
        assert!(reassigned(&history[3..]).is_empty());
        assert!(reassigned(&history[2..]).is_empty());
    }

    #[test]
    fn a_later_schema_does_not_make_a_reassigned_name_safe() {
        let swapped = |extra: Option<Column>, version| {
            let mut columns = vec![column("b", "double", Some(1)), column("a", "double", Some(2))];
            columns.extend(extra);
            record(columns, version)
        };
        let first = record(vec![column("a", "double", Some(1)), column("b", "double", Some(2))], 0);
        let history = [swapped(Some(column("c", "int", Some(3))), 2), swapped(None, 1), first];
        assert_eq!(reassigned(&history[1..]).len(), 2);
        assert_eq!(reassigned(&history).len(), 2);
    }

    #[test]
    fn a_name_that_was_dropped_and_given_to_a_new_column_is_reassigned_without_a_candidate() {
        let old = record(vec![column("id", "string", Some(1)), column("note", "string", Some(2))], 0);
        let new = record(
            vec![column("id", "string", Some(1)), column("note", "double", Some(3)), column("rank", "double", Some(4))],
            5,
        );
        let history = [new, old];
        let missing = explain_missing("note", &history);
        assert!(missing.candidates.is_empty(), "{missing:?}");
        let reassigned = missing.reassigned.unwrap();
        assert_eq!((reassigned.formerly.as_deref(), reassigned.since), (None, Some(5)));
    }

    #[test]
    fn a_table_that_was_written_anew_keeps_its_names_where_the_types_are_the_same() {
        let old = record(vec![column("id", "string", Some(1)), column("score", "double", Some(2))], 0);
        let new = record(vec![column("id", "string", Some(3)), column("score", "string", Some(4))], 5);
        let found = reassigned(&[new, old]);
        assert_eq!(found.iter().map(|name| name.column.as_str()).collect::<Vec<_>>(), ["score"]);
    }

    #[test]
    fn ids_that_come_with_the_mapping_reassign_nothing() {
        let old = record(vec![column("a", "struct<x:int>", None)], 0);
        let new = record(vec![with_fields("a", "struct<x:int>", 1, &[("x", 2)])], 1);
        assert!(reassigned(&[new.clone(), old.clone()]).is_empty());
        assert!(reassigned(&[old, new]).is_empty());
    }

    // Issue 10, A3: a field inside a struct is renamed, and its old name reads as undefined.
    #[test]
    fn a_field_of_a_struct_is_followed_like_a_column() {
        let old = record(vec![column("profile", "struct<score:double,level:int>", None)], 0);
        let new = record(vec![column("profile", "struct<rating:double,level:int>", None)], 3);
        let missing = explain_missing("profile.score", &[new, old]);
        assert_eq!((missing.candidates, missing.vanished_in), (vec!["profile.rating".to_owned()], Some(3)));
        assert_eq!(missing.beside, ["profile.rating", "profile.level"]);

        let old = record(vec![with_fields("p", "array<struct<a:double,b:double>>", 1, &[("a", 2), ("b", 3)])], 0);
        let new = record(vec![with_fields("q", "array<struct<b:double,c:double>>", 1, &[("b", 2), ("c", 3)])], 3);
        let history = [new, old];
        assert_eq!(explain_missing("p.a", &history).candidates, ["q.b"]);
        assert_eq!(explain_missing("p.b", &history).candidates, ["q.c"]);
    }

    #[test]
    fn fields_that_swapped_names_are_reassigned() {
        let fields = |a, b| with_fields("p", "struct<a:double,b:double>", 1, &[("a", a), ("b", b)]);
        let history = [record(vec![fields(3, 2)], 4), record(vec![fields(2, 3)], 0)];
        let found = reassigned(&history);
        assert_eq!(found.iter().map(|name| name.column.as_str()).collect::<Vec<_>>(), ["p.a", "p.b"]);
        assert_eq!(explain_missing("p.a", &history).candidates, ["p.b"]);
    }

    #[test]
    fn a_struct_that_was_renamed_without_ids_takes_its_fields_along() {
        let old = record(vec![column("contact", "struct<email:string>", None)], 0);
        let new = record(vec![column("person", "struct<email:string,phone:string>", None)], 3);
        assert_eq!(explain_missing("contact.email", &[new, old]).candidates, ["person.email"]);
    }
}
