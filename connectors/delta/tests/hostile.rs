//! Tables whose log or files are not as they should be: each is read as Spark reads it, waited for, or refused by name. Issue 10, A1 to A4.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use support::own::{OwnTable, add, ids, metadata, partitioned_metadata, protocol, scores};
use support::{Everything, read};
use tailwater_delta::{Options, Reader, Required, Start};

const COLUMNS: [(&str, &str); 2] = [("id", "string"), ("score", "double")];

fn text(found: &Everything) -> Vec<String> {
    let rows = found.rows.iter();
    rows.map(|(version, row)| format!("{version} {} {}", row.change.as_str(), String::from_utf8_lossy(&row.data)))
        .collect()
}

#[track_caller]
fn failed(found: &Everything, code: &str, words: &[&str]) {
    let error = found.error.as_ref().expect("an error");
    assert_eq!(error.code().as_str(), code, "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "{word:?} in {error}");
    }
}

fn lines(actions: &[Value]) -> String {
    actions.iter().map(|action| format!("{action}\n")).collect()
}

// --- commits that are still being written ---

/// Writes a commit in parts; the reader looks after each. It is complete when it has stayed as it is for a while.
fn grows(parts: impl Fn(Value, Value) -> Vec<String>) {
    let table = OwnTable::new();
    table.commit(1, &[table.add("one.parquet", &[(Some("a"), 1.0)])]);
    let mut reader = Reader::open(Options { settle: Duration::from_millis(500), ..table.options() }, None).unwrap();
    let mut found = Everything::default();
    found.read_on(&mut reader);
    let cursor = found.end.clone().expect("it caught up");
    // A later version is there already, and has to wait.
    table.commit(3, &[table.add("four.parquet", &[(Some("d"), 4.0)])]);
    let (two, three) = (table.add("two.parquet", &[(Some("b"), 2.0)]), table.add("three.parquet", &[(Some("c"), 3.0)]));
    for part in parts(two, three) {
        let mut file = OpenOptions::new().create(true).append(true).open(table.commit_path(2)).unwrap();
        file.write_all(part.as_bytes()).unwrap();
        drop(file);
        found.read_on(&mut reader);
        let waiting = found.waiting.as_ref().expect("the version can still grow");
        assert_eq!((waiting.version, &waiting.cursor), (2, &cursor));
        assert_eq!(found.rows.len(), 1);
    }
    std::thread::sleep(Duration::from_millis(600));
    found.read_on(&mut reader);
    assert_eq!(
        text(&found),
        [
            r#"1 insert {"id":"a","score":1.0}"#,
            r#"2 insert {"id":"b","score":2.0}"#,
            r#"2 insert {"id":"c","score":3.0}"#,
            r#"3 insert {"id":"d","score":4.0}"#,
        ]
    );
}

#[test]
fn a_commit_that_grows_is_waited_for_wherever_it_was_cut() {
    grows(|two, three| vec![String::new(), lines(&[two, three])]);
    grows(|two, three| vec![lines(&[two]), lines(&[three])]);
    let info = || json!({"commitInfo": {"operation": "WRITE"}});
    grows(|two, three| vec!["\n".to_owned(), lines(&[info(), two]), lines(&[three])]);
    grows(|two, three| vec![lines(&[info()]), lines(&[two, three])]);
}

#[test]
fn an_empty_commit_is_never_complete_and_one_that_says_it_is_whole_is_at_once() {
    let table = OwnTable::new();
    let options = Options { settle: Duration::from_secs(30), ..table.options() };
    std::fs::write(table.commit_path(1), "").unwrap();
    table.age(1);
    let found = read(options.clone(), None);
    assert_eq!(found.waiting.expect("it is empty").version, 1);
    let info = json!({"commitInfo": {"operation": "WRITE", "operationParameters": {"mode": "Append"}, "operationMetrics": {"numFiles": "1"}}});
    let whole = lines(&[info, table.add("one.parquet", &[(Some("a"), 1.0)])]);
    std::fs::write(table.commit_path(1), whole).unwrap();
    let found = read(options, None);
    assert_eq!(text(&found), [r#"1 insert {"id":"a","score":1.0}"#]);
}

/// Appends to a commit, which is quiet afterwards.
fn append(table: &OwnTable, version: u64, text: &str) {
    let mut file = OpenOptions::new().create(true).append(true).open(table.commit_path(version)).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    drop(file);
    table.age(version);
}

/// Reads on at a cursor whose schema was announced before.
fn read_on(options: Options, cursor: Option<tailwater_delta::Cursor>, before: &Everything) -> Everything {
    let mut found = Everything { schemas: before.schemas.clone(), ..Everything::default() };
    match Reader::open(options, cursor) {
        Ok(mut reader) => found.read_on(&mut reader),
        Err(error) => found.error = Some(error),
    }
    found
}

// What came of a commit after it had been read was never read, and that was said once.
#[test]
fn the_rest_of_a_commit_that_was_read_too_early_is_read() {
    for restarts in [false, true] {
        let table = OwnTable::new();
        table.commit(1, &[table.add("one.parquet", &[(Some("a"), 1.0)])]);
        append(&table, 2, &lines(&[table.add("two.parquet", &[(Some("b"), 2.0), (Some("c"), 3.0)])]));
        let options = Options { rows_max: 1, ..table.options() };
        let mut reader = Reader::open(Options { start: Start::Version(1), ..options.clone() }, None).unwrap();
        let mut found = Everything::default();
        found.read_on(&mut reader);
        assert_eq!(found.rows.len(), 3);
        append(&table, 2, &lines(&[table.add("four.parquet", &[(Some("d"), 4.0), (Some("f"), 6.0)])]));
        table.commit(3, &[table.add("five.parquet", &[(Some("e"), 5.0)])]);
        if restarts {
            reader = Reader::open(options.clone(), found.end.clone()).unwrap();
        }
        found.read_on(&mut reader);
        found.expect_no_error("a commit that grew");
        let places = |found: &Everything| -> Vec<String> {
            found.rows.iter().map(|(version, row)| format!("{version}.{}", row.ordinal)).collect()
        };
        assert_eq!(places(&found), ["1.0", "2.0", "2.1", "2.2", "2.3", "3.0"]);
        // After each step of it, a restart gives the rest and nothing twice.
        for (count, cursor) in &found.cursors {
            let rest = read_on(options.clone(), Some(cursor.clone()), &found);
            assert_eq!(count + rest.rows.len(), 6, "{cursor:?}");
        }
        // It grows again when a later version has been read.
        append(&table, 2, &lines(&[table.add("eight.parquet", &[(Some("h"), 8.0)])]));
        found.read_on(&mut reader);
        failed(&found, "delta_commit_incomplete", &["version 2", "later versions have been read"]);
    }
}

#[test]
fn the_rest_of_a_commit_that_a_snapshot_ended_with_is_read() {
    let table = OwnTable::new();
    append(&table, 1, &lines(&[table.add("two.parquet", &[(Some("b"), 2.0)])]));
    let mut reader = Reader::open(table.options(), None).unwrap();
    let mut found = Everything::default();
    found.read_on(&mut reader);
    append(&table, 1, &lines(&[table.add("one.parquet", &[(Some("a"), 1.0)])]));
    found.read_on(&mut reader);
    assert_eq!(text(&found), [r#"1 insert {"id":"b","score":2.0}"#, r#"1 insert {"id":"a","score":1.0}"#]);
    assert_eq!(found.rows[1].1.ordinal, 1);
}

#[test]
fn a_rest_that_cannot_be_read_exactly_fails_until_somebody_acts() {
    let table = OwnTable::new();
    table.commit(1, &[table.add("one.parquet", &[(Some("a"), 1.0)])]);
    let first = lines(&[table.add("two.parquet", &[(Some("a"), 2.0)])]);
    append(&table, 2, &first);
    let mut reader = Reader::open(table.options(), None).unwrap();
    let mut found = Everything::default();
    found.read_on(&mut reader);
    let cursor = found.end.clone();
    append(&table, 2, &lines(&[support::own::remove("one.parquet")]));
    table.commit(3, &[table.add("three.parquet", &[(Some("c"), 3.0)])]);
    for _ in 0..3 {
        found.error = None;
        found.read_on(&mut reader);
        failed(&found, "delta_commit_incomplete", &["version 2", "removes rows", "another name"]);
    }
    failed(&read_on(table.options(), cursor.clone(), &found), "delta_commit_incomplete", &["version 2"]);
    // The commit as it was read: the source goes on.
    std::fs::write(table.commit_path(2), first).unwrap();
    table.age(2);
    let rest = read_on(table.options(), cursor.clone(), &found);
    assert_eq!(text(&rest), [r#"3 insert {"id":"c","score":3.0}"#]);
    // A rewritten one, of the same beginning or not.
    std::fs::write(table.commit_path(2), lines(&[json!({"commitInfo": {}})])).unwrap();
    table.age(2);
    failed(&read_on(table.options(), cursor, &found), "delta_commit_incomplete", &["is not what it begins with now"]);
}

#[test]
fn a_snapshot_begins_with_the_latest_version_that_is_complete() {
    let table = OwnTable::new();
    table.commit(1, &[table.add("one.parquet", &[(Some("a"), 1.0)])]);
    let commit = lines(&[table.add("two.parquet", &[(Some("b"), 2.0)])]);
    std::fs::write(table.commit_path(2), commit).unwrap();
    for start in [Start::Snapshot, Start::Latest] {
        let mut reader =
            Reader::open(Options { start, settle: Duration::from_secs(30), ..table.options() }, None).unwrap();
        let mut found = Everything::default();
        found.read_on(&mut reader);
        assert_eq!(found.waiting.as_ref().expect("version 2 is young").version, 2, "{start:?}");
        assert_eq!(found.rows.len(), usize::from(start == Start::Snapshot));
    }
    table.age(2);
    assert_eq!(read(table.options(), None).rows.len(), 2);
}

// --- columns that the configuration names ---

fn requiring(table: &OwnTable, columns: &[&str]) -> Options {
    let required = columns.iter().map(|column| Required { key: "identifiers", column: (*column).to_owned() });
    Options { required: required.collect(), ..table.options() }
}

#[test]
fn a_version_without_a_named_column_is_not_begun_and_goes_on_with_an_alias() {
    let table = OwnTable::new();
    let old = [("id", "string"), ("email", "string")];
    table.commit(0, &[protocol(), metadata("first", &old, true)]);
    let file = |name: &str, column: &str, email: &str| {
        add(
            name,
            table.file(name, vec![("id", ids([Some("a")].into_iter())), (column, ids([Some(email)].into_iter()))]),
        )
    };
    table.commit(1, &[file("one.parquet", "email", "ines@example.com")]);
    let options = requiring(&table, &["email"]);
    let mut reader = Reader::open(options.clone(), None).unwrap();
    let mut found = Everything::default();
    found.read_on(&mut reader);
    let cursor = found.end.clone().unwrap();
    // The rewrite removes rows under the old schema; they are not given either.
    let new = [("id", "string"), ("email_address", "string")];
    table.commit(
        2,
        &[
            metadata("first", &new, true),
            file("two.parquet", "email_address", "omar@example.com"),
            support::own::remove("one.parquet"),
        ],
    );
    found.read_on(&mut reader);
    failed(
        &found,
        "delta_column_missing",
        &["version 2", "email_address took its place", "aliases: {email_address: [email]}"],
    );
    assert_eq!(found.rows.len(), 1);
    // After a restart, and with the alias.
    failed(&read(options.clone(), Some(cursor.clone())), "delta_column_missing", &["email_address took its place"]);
    let mut options = options;
    options.aliases.insert("email_address".into(), vec!["email".into()]);
    let mut reader = Reader::open(options, Some(cursor)).unwrap();
    let mut rest = Everything { schemas: found.schemas, ..Everything::default() };
    rest.read_on(&mut reader);
    assert_eq!(text(&rest), [r#"2 update {"id":"a","email_address":"omar@example.com"}"#]);
}

#[test]
fn a_misspelled_column_is_reported_when_the_table_is_opened() {
    let table = OwnTable::new();
    for start in [Start::Snapshot, Start::Latest, Start::Version(0)] {
        let options = Options { start, ..requiring(&table, &["scoer"]) };
        failed(
            &read(options, None),
            "delta_column_missing",
            &["scoer (identifiers): did you mean score?", "id, score"],
        );
    }
}

#[test]
fn the_key_may_be_named_between_backticks() {
    let table = OwnTable::new();
    table.commit(0, &[protocol(), metadata("first", &[("customer.id", "string"), ("score", "double")], true)]);
    let rows = vec![("customer.id", ids([Some("a")].into_iter())), ("score", scores([1.0].into_iter()))];
    table.commit(1, &[add("p.parquet", table.file("p.parquet", rows))]);
    for key in ["customer.id", "`customer.id`"] {
        let found = read(Options { key: Some(key.to_owned()), ..table.options() }, None);
        found.expect_no_error(key);
        assert_eq!(found.rows[0].1.key.as_deref(), Some(&b"a"[..]), "{key}");
    }
}

// --- files against the schema ---

#[test]
fn a_remove_in_another_spelling_removes_the_file() {
    let columns = [("id", "string"), ("group", "string"), ("score", "double")];
    let values = json!({"group": "very loyal"});
    for (added, removed) in [
        ("group=very loyal/p1.parquet", "group=very%20loyal/p1.parquet"),
        ("group=very%20loyal/p1.parquet", "group=very loyal/p1.parquet"),
        ("group=very%20loyal/p1.parquet", "./group=very%20loyal/%701.parquet"),
    ] {
        let table = OwnTable::new();
        table.commit(0, &[protocol(), partitioned_metadata("first", &columns, &["group"], true)]);
        let file = |name: &str, path: &str, rows: &[(Option<&str>, f64)]| {
            let name = format!("group=very loyal/{name}");
            let rows_of =
                vec![("id", ids(rows.iter().map(|row| row.0))), ("score", scores(rows.iter().map(|row| row.1)))];
            let size = table.file(&name, rows_of);
            json!({"add": {"path": path, "partitionValues": values, "size": size, "modificationTime": 0, "dataChange": true}})
        };
        table.commit(1, &[file("p1.parquet", added, &[(Some("ines"), 1.0), (Some("omar"), 2.0)])]);
        let remove = json!({"remove": {"path": removed, "dataChange": true, "partitionValues": values}});
        table.commit(2, &[remove, file("p2.parquet", "group=very%20loyal/p2.parquet", &[(Some("ines"), 9.0)])]);
        let snapshot = read(table.options(), None);
        assert_eq!(
            text(&snapshot),
            [r#"2 insert {"id":"ines","group":"very loyal","score":9.0}"#],
            "{added} {removed}"
        );
        let changes = read(Options { start: Start::Version(2), ..table.options() }, None);
        assert_eq!(
            text(&changes),
            [
                r#"2 delete {"id":"omar","group":"very loyal","score":2.0}"#,
                r#"2 update {"id":"ines","group":"very loyal","score":9.0}"#,
            ],
            "{added} {removed}"
        );
    }
}

#[test]
fn a_file_added_and_removed_in_one_commit_under_two_spellings_has_no_change() {
    let table = OwnTable::new();
    let first = table.add("a b.parquet", &[(Some("a"), 1.0)]);
    table.commit(1, std::slice::from_ref(&first));
    let mut again = first;
    again["add"]["path"] = json!("a%20b.parquet");
    table.commit(2, &[support::own::remove("a b.parquet"), again]);
    let changes = read(Options { start: Start::Version(2), ..table.options() }, None);
    changes.expect_no_error("two spellings");
    assert!(changes.rows.is_empty(), "{:?}", text(&changes));
    assert_eq!(text(&read(table.options(), None)), [r#"2 insert {"id":"a","score":1.0}"#]);
}

#[test]
fn a_file_that_spells_a_column_in_another_case_is_read() {
    let table = OwnTable::new();
    table.commit(0, &[protocol(), metadata("first", &[("id", "string"), ("Total_Spend", "double")], true)]);
    let size = table
        .file("p.parquet", vec![("ID", ids([Some("a")].into_iter())), ("total_spend", scores([20.5].into_iter()))]);
    table.commit(1, &[add("p.parquet", size)]);
    let found = read(table.options(), None);
    assert_eq!(text(&found), [r#"1 insert {"id":"a","Total_Spend":20.5}"#]);
    assert_eq!(found.rows[0].1.key.as_deref(), Some(&b"a"[..]));
    let twice = vec![
        ("id", ids([Some("b")].into_iter())),
        ("total_spend", scores([1.0].into_iter())),
        ("TOTAL_SPEND", scores([2.0].into_iter())),
    ];
    table.commit(2, &[add("q.parquet", table.file("q.parquet", twice))]);
    failed(
        &read(Options { start: Start::Version(2), ..table.options() }, None),
        "delta_unsupported",
        &["version 2", "q.parquet", "Total_Spend", "total_spend and TOTAL_SPEND"],
    );
}

#[test]
fn a_partition_column_is_found_in_another_case() {
    let table = OwnTable::new();
    table.commit(0, &[protocol(), partitioned_metadata("first", &COLUMNS, &["id"], true)]);
    let size = table.file("p.parquet", vec![("score", scores([1.0].into_iter()))]);
    let with = |values: Value| json!({"add": {"path": "p.parquet", "partitionValues": values, "size": size, "modificationTime": 0, "dataChange": true}});
    table.commit(1, &[with(json!({"ID": "a"}))]);
    assert_eq!(
        text(&read(Options { start: Start::Version(1), ..table.options() }, None)),
        [r#"1 insert {"id":"a","score":1.0}"#]
    );
    assert_eq!(text(&read(table.options(), None)), [r#"1 insert {"id":"a","score":1.0}"#]);
}

#[test]
fn columns_that_differ_only_in_case_are_refused_by_name() {
    let table = OwnTable::new();
    let columns = [("id", "string"), ("score", "double"), ("SCORE", "double")];
    table.commit(0, &[protocol(), metadata("first", &columns, true)]);
    failed(&read(table.options(), None), "delta_unsupported", &["`score` and `SCORE`", "renamed or dropped"]);
}

#[test]
fn a_user_column_of_the_name_of_the_change_type_is_read() {
    let table = OwnTable::new();
    let columns = [("id", "string"), ("_change_type", "string")];
    table.commit(0, &[protocol(), metadata("first", &columns, true)]);
    let size = table.file(
        "p.parquet",
        vec![("id", ids([Some("a")].into_iter())), ("_change_type", ids([Some("upgrade")].into_iter()))],
    );
    table.commit(1, &[add("p.parquet", size)]);
    assert_eq!(text(&read(table.options(), None)), [r#"1 insert {"id":"a","_change_type":"upgrade"}"#]);
    table.commit(2, &[json!({"cdc": {"path": "p.parquet", "partitionValues": {}, "size": size, "dataChange": false}})]);
    failed(
        &read(Options { start: Start::Version(2), ..table.options() }, None),
        "delta_unsupported",
        &["_change_type", "p.parquet", "rename the column"],
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let table = OwnTable::new();
    table.commit(1, &[table.add("one.parquet", &[(Some("a"), 1.0)])]);
    std::fs::write(table.path().join("one.parquet"), vec![0; 400]).unwrap();
    failed(&read(Options { start: Start::Version(1), ..table.options() }, None), "delta_read_failed", &["one.parquet"]);
}

// --- checkpoints ---

type Spoil = fn(&Path);

const CHECKPOINT: &str = "00000000000000000010.checkpoint.parquet";

fn hint(log: &Path, text: &str) {
    std::fs::write(log.join("_last_checkpoint"), text).unwrap();
}

/// A table of twelve versions, with a checkpoint at version 10 that `spoil` makes unusable.
fn checkpointed(spoil: impl Fn(&Path)) -> Everything {
    let table = OwnTable::new();
    for version in 1..=12 {
        let key = format!("c{version}");
        table.commit(version, &[table.add(&format!("{version}.parquet"), &[(Some(&key), 1.0)])]);
    }
    spoil(&table.path().join("_delta_log"));
    let found = read(table.options(), None);
    // Once more, from the middle.
    let changes = read(Options { start: Start::Version(11), ..table.options() }, None);
    changes.expect_no_error("from version 11");
    assert_eq!(changes.rows.len(), 2);
    found
}

#[test]
fn a_checkpoint_that_is_gone_cut_or_lied_about_does_not_stop_a_table_whose_commits_are_there() {
    let spoils: [(&str, Spoil); 6] = [
        ("gone", |log| hint(log, r#"{"version":10,"size":5}"#)),
        ("beyond the end", |log| hint(log, r#"{"version":50,"size":5}"#)),
        ("no JSON", |log| hint(log, "{")),
        ("cut", |log| std::fs::write(log.join(CHECKPOINT), b"PAR1 and half of the rest").unwrap()),
        ("empty, and named", |log| {
            std::fs::write(log.join(CHECKPOINT), b"").unwrap();
            hint(log, r#"{"version":10,"size":5}"#);
        }),
        ("one of two parts", |log| {
            let part = "00000000000000000010.checkpoint.0000000001.0000000002.parquet";
            std::fs::write(log.join(part), b"PAR1").unwrap();
            hint(log, r#"{"version":10,"size":5,"parts":2}"#);
        }),
    ];
    for (name, spoil) in spoils {
        let found = checkpointed(spoil);
        found.expect_no_error(name);
        assert_eq!(found.rows.len(), 12, "{name}");
    }
}

#[test]
fn a_checkpoint_that_cannot_be_read_is_an_error_where_commits_are_missing() {
    let table = OwnTable::new();
    for version in 1..=4 {
        table.commit(version, &[table.add(&format!("{version}.parquet"), &[(Some("a"), 1.0)])]);
    }
    std::fs::write(table.path().join("_delta_log/00000000000000000003.checkpoint.parquet"), b"PAR1").unwrap();
    std::fs::remove_file(table.commit_path(0)).unwrap();
    assert!(read(table.options(), None).error.is_some());
}
