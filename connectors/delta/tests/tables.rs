//! How a reader behaves on small tables of the tests' own: pairing, rewrites, errors, tables that move on or are replaced.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use serde_json::json;
use support::own::{OwnTable, add, ids, metadata, partitioned_metadata, protocol, remove, scores};
use support::{Everything, read};
use tailwater_core::position::ChangeKind;
use tailwater_delta::{CoalesceOff, Error, OnReplaced, Options, Reader, Start};

/// What came, one line a row: version, change, key, data, and the row before.
fn lines(found: &Everything) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    found
        .rows
        .iter()
        .map(|(version, row)| {
            let key = row.key.as_deref().map_or_else(|| "-".to_owned(), text);
            let before = row.before.as_deref().map_or_else(String::new, |before| format!(" was {}", text(before)));
            format!("{version} {} {key} {}{before}", row.change.as_str(), text(&row.data))
        })
        .collect()
}

fn from(table: &OwnTable, start: Start) -> Options {
    Options { start, ..table.options() }
}

#[track_caller]
fn failed(found: &Everything, code: &str, words: &[&str]) {
    let error = found.error.as_ref().expect("an error");
    assert_eq!(error.code().as_str(), code, "{error}");
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{word:?} in {text}");
    }
}

#[test]
fn images_of_an_update_are_one_change_wherever_they_lie() {
    let table = OwnTable::new();
    let after = table.changes("after.parquet", &[(Some("a"), 2.0, "update_postimage"), (Some("b"), 9.0, "insert")]);
    let before = table.changes("before.parquet", &[(Some("c"), 3.0, "delete"), (Some("a"), 1.0, "update_preimage")]);
    table.commit(1, &[after, before]);
    let found = read(from(&table, Start::Version(1)), None);
    assert_eq!(
        lines(&found),
        [
            r#"1 delete c {"id":"c","score":3.0}"#,
            r#"1 update a {"id":"a","score":2.0} was {"id":"a","score":1.0}"#,
            r#"1 insert b {"id":"b","score":9.0}"#,
        ]
    );
    assert!(found.rows.is_sorted_by_key(|(_, row)| row.ordinal));
}

#[test]
fn changed_null_and_repeated_keys_are_deletes_and_inserts() {
    let table = OwnTable::new();
    let changes = table.changes(
        "changes.parquet",
        &[
            (Some("old"), 1.0, "update_preimage"),
            (Some("new"), 1.0, "update_postimage"),
            (None, 2.0, "update_preimage"),
            (None, 3.0, "update_postimage"),
            (Some("twice"), 4.0, "update_preimage"),
            (Some("twice"), 5.0, "update_postimage"),
            (Some("twice"), 6.0, "update_preimage"),
            (Some("twice"), 7.0, "update_postimage"),
        ],
    );
    table.commit(1, &[changes]);
    let found = read(from(&table, Start::Version(1)), None);
    let kinds: Vec<_> =
        found.rows.iter().map(|(_, row)| (row.change, row.key.as_deref().map(String::from_utf8_lossy))).collect();
    let key = |key: &'static str| Some(std::borrow::Cow::Borrowed(key));
    assert_eq!(
        kinds,
        [
            (ChangeKind::Delete, key("old")),
            (ChangeKind::Delete, None),
            (ChangeKind::Delete, key("twice")),
            (ChangeKind::Delete, key("twice")),
            (ChangeKind::Insert, key("new")),
            (ChangeKind::Insert, None),
            (ChangeKind::Insert, key("twice")),
            (ChangeKind::Insert, key("twice")),
        ]
    );
}

#[test]
fn without_a_key_an_update_is_the_row_after_it() {
    let table = OwnTable::new();
    table.commit(
        1,
        &[table.changes("c.parquet", &[(Some("a"), 1.0, "update_preimage"), (Some("a"), 2.0, "update_postimage")])],
    );
    let found = read(Options { key: None, ..from(&table, Start::Version(1)) }, None);
    assert_eq!(lines(&found), [r#"1 update - {"id":"a","score":2.0}"#]);
}

/// Version 1 holds a, b and c; version 2 rewrites them with b changed, c gone and d new, under another schema.
fn rewritten(columns: &[(&str, &str)]) -> OwnTable {
    let table = OwnTable::new();
    table.commit(1, &[table.add("one.parquet", &[(Some("a"), 1.0), (Some("b"), 2.0), (Some("c"), 3.0)])]);
    let rows = [(Some("b"), 5.0), (Some("a"), 1.0), (Some("d"), 4.0)];
    let columns_of_file = columns
        .iter()
        .map(|(name, data_type)| {
            let column = if *data_type == "string" {
                ids(rows.iter().map(|row| row.0))
            } else {
                scores(rows.iter().map(|row| row.1))
            };
            (*name, column)
        })
        .collect();
    let size = table.file("two.parquet", columns_of_file);
    table.commit(2, &[metadata(table.id, columns, true), add("two.parquet", size), remove("one.parquet")]);
    table
}

#[test]
fn a_rewrite_under_a_new_name_is_what_it_changed() {
    let table = rewritten(&[("id", "string"), ("value", "double")]);
    let found = read(from(&table, Start::Version(2)), None);
    assert_eq!(
        lines(&found),
        [
            r#"2 delete c {"id":"c","score":3.0}"#,
            r#"2 update b {"id":"b","value":5.0} was {"id":"b","score":2.0}"#,
            r#"2 insert d {"id":"d","value":4.0}"#,
        ]
    );
    let report = &found.reports[0];
    assert_eq!((report.changed, report.unchanged, report.added, report.removed), (1, 1, 1, 1));
    // The deleted row has the old schema, so the old one is announced first.
    let versions: Vec<_> = found.schemas.iter().map(|change| change.version).collect();
    assert_eq!(versions, [1, 2]);
}

#[test]
fn a_column_that_vanished_turns_coalescing_off_and_an_alias_on_again() {
    // Two new columns of the type: neither is taken for the old one.
    let table = rewritten(&[("id", "string"), ("value", "double"), ("rank", "double")]);
    let mut options = from(&table, Start::Version(2));
    options.added_columns_differ = false;
    let found = read(options.clone(), None);
    assert_eq!(found.reports[0].off, Some(CoalesceOff::ColumnsVanished(vec!["score".into()])));
    let kinds: Vec<_> = found.rows.iter().map(|(_, row)| row.change).collect();
    assert_eq!(kinds, [[ChangeKind::Delete; 3], [ChangeKind::Insert; 3]].concat());

    options.aliases.insert("value".into(), vec!["score".into()]);
    let found = read(options.clone(), None);
    assert_eq!(found.reports[0].off, None);
    assert_eq!(found.rows.len(), 3);
    options.added_columns_differ = true;
    let found = read(options, None);
    assert_eq!((found.reports[0].changed, found.reports[0].unchanged), (2, 0));
}

#[test]
fn a_cursor_holds_when_coalescing_is_turned_off() {
    let table = rewritten(&[("id", "string"), ("value", "double")]);
    let mut options = Options { rows_max: 1, ..from(&table, Start::Version(2)) };
    let whole = read(options.clone(), None);
    let cursor = whole.cursors[0].1.clone();
    options.coalesce = false;
    let mut reader = Reader::open(options, Some(cursor)).unwrap();
    let mut rest = Everything { schemas: whole.schemas[..1].to_vec(), ..Everything::default() };
    rest.read_on(&mut reader);
    // c, the third row of the commit, was given; what follows are the three inserts.
    let ordinals: Vec<_> = rest.rows.iter().map(|(_, row)| (row.change, row.ordinal)).collect();
    assert_eq!(ordinals, [(ChangeKind::Insert, 3), (ChangeKind::Insert, 4), (ChangeKind::Insert, 5)]);
}

#[test]
fn a_key_that_does_not_exist_is_an_error_with_the_columns() {
    let table = OwnTable::new();
    let found = read(Options { key: Some("customer".into()), ..table.options() }, None);
    failed(&found, "delta_key_invalid", &["customer", "id, score", "version 0"]);
}

#[test]
fn a_key_inside_of_a_struct_is_found_by_its_path() {
    use delta_kernel::arrow::array::{ArrayRef, StructArray};
    use delta_kernel::arrow::datatypes::{DataType, Field};
    let table = OwnTable::new();
    let fields = r#"{"type":"struct","fields":[{"name":"id","type":"string","nullable":true,"metadata":{}}]}"#;
    let field = std::sync::Arc::new(Field::new("id", DataType::Utf8, true));
    let column: ArrayRef = std::sync::Arc::new(StructArray::from(vec![(field, ids([Some("x\"y"), None].into_iter()))]));
    let size = table.file("p.parquet", vec![("person", column)]);
    table.commit(0, &[protocol(), metadata("first", &[("person", fields)], true)]);
    table.commit(1, &[add("p.parquet", size)]);
    let found = read(Options { key: Some("person.id".into()), ..table.options() }, None);
    found.expect_no_error("dotted key");
    let keys: Vec<_> = found.rows.iter().map(|(_, row)| row.key.clone()).collect();
    assert_eq!(keys, [Some(b"x\"y".to_vec()), None]);
    assert_eq!(found.schemas[0].schema.columns[0].data_type, "struct<id:string>");
}

#[test]
fn no_table_is_said_to_be_none() {
    let folder = tempfile::tempdir().unwrap();
    let empty = read(Options::new(folder.path().to_string_lossy()), None);
    failed(&empty, "delta_not_a_table", &["_delta_log"]);
    let missing = read(Options::new(folder.path().join("nowhere").to_string_lossy()), None);
    failed(&missing, "delta_not_a_table", &["nowhere"]);
    let scheme = read(Options::new("ftp://host/table"), None);
    assert!(scheme.error.is_some());
}

#[test]
fn a_start_beyond_the_end_is_an_error_and_right_after_it_is_not() {
    let table = OwnTable::new();
    failed(&read(from(&table, Start::Version(5)), None), "delta_version_unknown", &["version 5", "latest one is 0"]);
    read(from(&table, Start::Version(1)), None).expect_no_error("the next version");
}

#[test]
fn a_reader_follows_a_table_that_grows() {
    let table = OwnTable::new();
    let mut reader = Reader::open(from(&table, Start::Latest), None).unwrap();
    let mut found = Everything::default();
    found.read_on(&mut reader);
    assert!(found.rows.is_empty());
    assert_eq!(found.schemas.len(), 1, "the schema is announced at once");
    table.commit(1, &[table.add("one.parquet", &[(Some("a"), 1.0)])]);
    found.read_on(&mut reader);
    table.commit(2, &[table.add("two.parquet", &[(Some("b"), 2.0)])]);
    found.read_on(&mut reader);
    assert_eq!(lines(&found), [r#"1 insert a {"id":"a","score":1.0}"#, r#"2 insert b {"id":"b","score":2.0}"#]);
}

#[test]
fn a_snapshot_is_finished_although_the_table_moves_on() {
    let table = OwnTable::new();
    let rows: Vec<_> = ["a", "b", "c", "d"].iter().map(|key| (Some(*key), 1.0)).collect();
    table.commit(1, &[table.add("z.parquet", &rows[..2]), table.add("y.parquet", &rows[2..])]);
    let options = Options { rows_max: 1, ..table.options() };
    let whole = read(options.clone(), None);
    let keys: Vec<_> = whole.rows.iter().map(|(_, row)| row.key.clone().unwrap()).collect();
    assert_eq!(keys, [b"c", b"d", b"a", b"b"], "by file name");
    let cursor = whole.cursors[0].1.clone();
    assert!(cursor.snapshot && cursor.version == 1 && cursor.ordinal == 1);

    table.commit(2, &[remove("y.parquet")]);
    table.commit(3, &[table.add("w.parquet", &[(Some("e"), 1.0)])]);
    let mut reader = Reader::open(options, Some(cursor)).unwrap();
    let mut rest = Everything { schemas: whole.schemas.clone(), ..Everything::default() };
    rest.read_on(&mut reader);
    assert_eq!(
        lines(&rest).iter().map(|line| line.chars().take(10).collect::<String>()).collect::<Vec<_>>(),
        ["1 insert d", "1 insert a", "1 insert b", "2 delete c", "2 delete d", "3 insert e"]
    );
}

#[test]
fn versions_without_rows_move_the_cursor() {
    let table = OwnTable::new();
    table.commit(1, &[json!({"commitInfo": {"operation": "VACUUM END"}})]);
    let found = read(table.options(), None);
    let cursor = found.end.expect("it caught up");
    assert_eq!((cursor.version, cursor.snapshot), (2, false));
}

#[test]
fn a_version_that_left_the_log_is_an_error_with_the_earliest() {
    let table = OwnTable::new();
    for version in 1..4 {
        table.commit(version, &[table.add(&format!("{version}.parquet"), &[(Some("a"), 1.0)])]);
    }
    let mut cursor = read(from(&table, Start::Version(0)), None).cursors[0].1.clone();
    cursor.version = 2;
    std::fs::remove_file(table.commit_path(2)).unwrap();
    let found = read(table.options(), Some(cursor));
    failed(&found, "delta_version_gone", &["version 2"]);
}

#[test]
fn a_table_that_was_made_anew_is_recognised() {
    let table = OwnTable::new();
    table.commit(1, &[table.add("one.parquet", &[(Some("a"), 1.0)])]);
    let options = table.options();
    let cursor = read(options.clone(), None).end.unwrap();
    std::fs::remove_file(table.commit_path(1)).unwrap();
    table.commit(
        0,
        &[
            protocol(),
            metadata("second", &[("id", "string"), ("score", "double")], true),
            table.add("new.parquet", &[(Some("b"), 2.0)]),
        ],
    );
    failed(&read(options.clone(), Some(cursor.clone())), "delta_replaced", &["first", "second"]);

    let mut reader =
        Reader::open(Options { on_replaced: OnReplaced::Snapshot, ..options }, Some(cursor.clone())).unwrap();
    let mut found = Everything { schemas: read(table.options(), None).schemas, ..Everything::default() };
    found.read_on(&mut reader);
    assert_eq!(lines(&found), [r#"0 insert b {"id":"b","score":2.0}"#]);
    let end = found.end.unwrap();
    assert_eq!((end.generation, end.table.as_str()), (1, "second"));
}

#[test]
fn a_table_that_is_made_anew_under_a_running_reader_is_recognised() {
    let table = OwnTable::new();
    table.commit(1, &[table.add("one.parquet", &[(Some("a"), 1.0)])]);
    let mut reader = Reader::open(table.options(), None).unwrap();
    let mut found = Everything::default();
    found.read_on(&mut reader);
    table.commit(0, &[protocol(), metadata("second", &[("id", "string"), ("score", "double")], true)]);
    table.commit(1, &[table.add("other.parquet", &[(Some("longer"), 1.0), (Some("b"), 2.0)])]);
    table.commit(2, &[table.add("two.parquet", &[(Some("c"), 3.0)])]);
    found.read_on(&mut reader);
    failed(&found, "delta_replaced", &["first", "second"]);
}

#[test]
fn another_id_inside_of_the_log_begins_a_generation() {
    let table = OwnTable::new();
    table.commit(
        1,
        &[
            metadata("second", &[("id", "string"), ("score", "double")], true),
            table.add("one.parquet", &[(Some("a"), 1.0)]),
        ],
    );
    let found = read(from(&table, Start::Version(0)), None);
    found.expect_no_error("another id");
    assert_eq!(found.cursors[0].1.generation, 1);
}

#[test]
fn features_that_cannot_be_read_are_named() {
    let table = OwnTable::new();
    table.commit(
        1,
        &[json!({"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": ["teleportation"], "writerFeatures": ["teleportation"]}})],
    );
    failed(&read(table.options(), None), "delta_unsupported", &["version 1", "teleportation"]);
}

#[test]
fn deletes_whose_partition_is_unknown_are_refused() {
    let table = OwnTable::new();
    let columns = [("id", "string"), ("score", "double")];
    table.commit(0, &[protocol(), partitioned_metadata("first", &columns, &["id"], true)]);
    let size = table.file("p.parquet", vec![("score", scores([1.0].into_iter()))]);
    table.commit(1, &[json!({"add": {"path": "p.parquet", "partitionValues": {"id": "a"}, "size": size, "modificationTime": 0, "dataChange": true}})]);
    table.commit(2, &[json!({"remove": {"path": "p.parquet", "dataChange": true}})]);
    let found = read(from(&table, Start::Version(0)), None);
    assert_eq!(lines(&found), [r#"1 insert a {"id":"a","score":1.0}"#]);
    failed(&found, "delta_unsupported", &["version 2", "partition values"]);
}

#[test]
fn a_column_that_is_not_what_the_schema_says_is_an_error() {
    let table = OwnTable::new();
    let size =
        table.file("p.parquet", vec![("id", ids([Some("a")].into_iter())), ("score", ids([Some("1.5")].into_iter()))]);
    table.commit(1, &[add("p.parquet", size)]);
    failed(&read(table.options(), None), "delta_unsupported", &["column score", "Utf8", "double"]);
}

#[test]
fn a_broken_commit_is_an_error_and_the_reader_goes_on_after_its_cure() {
    let table = OwnTable::new();
    let mut reader = Reader::open(table.options(), None).unwrap();
    let mut found = Everything::default();
    found.read_on(&mut reader);
    std::fs::write(table.commit_path(1), "{\"add\":").unwrap();
    found.read_on(&mut reader);
    failed(&found, "delta_read_failed", &["version 1", "line 1"]);
    table.commit(1, &[table.add("one.parquet", &[(Some("a"), 1.0)])]);
    found.error = None;
    found.read_on(&mut reader);
    assert_eq!(lines(&found), [r#"1 insert a {"id":"a","score":1.0}"#]);
}

#[test]
fn a_file_that_appears_late_is_read_from_where_the_rows_ended() {
    let table = OwnTable::new();
    let (one, two) = (table.add("one.parquet", &[(Some("a"), 1.0)]), table.add("two.parquet", &[(Some("b"), 2.0)]));
    let bytes = std::fs::read(table.path().join("two.parquet")).unwrap();
    std::fs::remove_file(table.path().join("two.parquet")).unwrap();
    table.commit(1, &[one, two]);
    let mut reader = Reader::open(Options { rows_max: 1, ..from(&table, Start::Version(1)) }, None).unwrap();
    let mut found = Everything::default();
    found.read_on(&mut reader);
    assert!(matches!(found.error.take(), Some(Error::FileGone { version: 1, .. })));
    std::fs::write(table.path().join("two.parquet"), bytes).unwrap();
    found.read_on(&mut reader);
    assert_eq!(lines(&found), [r#"1 insert a {"id":"a","score":1.0}"#, r#"1 insert b {"id":"b","score":2.0}"#]);
}

#[test]
fn a_damaged_file_is_an_error_wherever_the_damage_is() {
    let table = OwnTable::new();
    let rows: Vec<(Option<&str>, f64)> = (0..1_000).map(|row| (Some("somebody"), f64::from(row))).collect();
    table.commit(1, &[table.add("one.parquet", &rows)]);
    let whole = std::fs::read(table.path().join("one.parquet")).unwrap();
    let undamaged = read(from(&table, Start::Version(1)), None).rows;
    let mut errors = 0;
    for at in (4..whole.len()).step_by(7) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        std::fs::write(table.path().join("one.parquet"), bytes).unwrap();
        let found = read(from(&table, Start::Version(1)), None);
        match found.error {
            Some(error) => {
                assert!(
                    matches!(error.code().as_str(), "delta_read_failed" | "delta_unsupported"),
                    "byte {at}: {error}"
                );
                errors += 1;
            }
            // Damage to values or statistics cannot be seen; rows are then never fewer.
            None => assert_eq!(found.rows.len(), undamaged.len(), "byte {at}"),
        }
    }
    assert!(errors > 0);
    std::fs::write(table.path().join("one.parquet"), &whole[..whole.len() / 2]).unwrap();
    assert!(read(from(&table, Start::Version(1)), None).error.is_some());
}

#[test]
fn many_versions_without_rows_give_the_cursor_now_and_then() {
    let table = OwnTable::new();
    for version in 1..=150 {
        table.commit(version, &[json!({"commitInfo": {"operation": "OPTIMIZE"}})]);
    }
    let found = read(from(&table, Start::Version(0)), None);
    assert!(found.rows.is_empty());
    assert_eq!(found.cursors.len(), 1);
    assert_eq!(found.cursors[0].1.version, 100);
}

#[test]
fn a_cursor_of_another_format_is_refused() {
    let table = OwnTable::new();
    let mut cursor = read(table.options(), None).end.unwrap();
    cursor.format = 9;
    failed(&read(table.options(), Some(cursor)), "state_unreadable", &["format 9", "format 1"]);
}
