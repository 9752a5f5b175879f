//! Genuine tables written by Spark, held against what Spark itself reads back. The folder is `TAILWATER_LAKE`, or
//! `../shared/data/lake` beside the workspace; without it the tests say so and end.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::{Everything, canonical, json, ndjson, read, without_later_columns};
use tailwater_core::position::ChangeKind;
use tailwater_delta::{Options, Start};

/// The lake's folder; says so when there is none.
#[expect(clippy::print_stderr, reason = "a skip has to be seen")]
fn lake() -> Option<PathBuf> {
    let folder = std::env::var_os("TAILWATER_LAKE")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/lake"), PathBuf::from);
    let found = folder.join("README.md").is_file();
    if !found {
        eprintln!("SKIPPED: there is no lake of Spark's tables at {}; set TAILWATER_LAKE", folder.display());
    }
    found.then(|| folder.canonicalize().expect("the lake's path is valid"))
}

fn file(lake: &Path, name: &str) -> String {
    std::fs::read_to_string(lake.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn expected_json(lake: &Path, table: &str) -> Value {
    json(file(lake, &format!("{table}.expected.json")).as_bytes())
}

/// Every change as it stands in the commit, updates with both images.
fn every_change(lake: &Path, table: &str, start: Start) -> Options {
    let key = expected_json(lake, table)["key"][0].as_str().map(str::to_owned);
    let mut options = Options::new(location(lake, table));
    options.key = key;
    options.start = start;
    options.coalesce = false;
    options.before_image = true;
    options.rows_max = 37;
    options
}

fn location(lake: &Path, table: &str) -> String {
    lake.join(table).to_string_lossy().into_owned()
}

/// Spark's change feed from a version on, in the form of [`Everything::as_feed`]. `found` tells which columns each version had.
fn spark_feed(lake: &Path, table: &str, versions: std::ops::RangeInclusive<u64>, found: &Everything) -> Vec<String> {
    // Only here Spark reads rows of several schemas at once, under the newest.
    let shapes = if table == "evolved" { shapes(found) } else { BTreeMap::new() };
    let mut lines = Vec::new();
    for row in ndjson(&file(lake, &format!("{table}.expected.ndjson"))) {
        let Value::Object(mut row) = row else { panic!("a row is an object") };
        row.remove("_commit_timestamp");
        let version = row.remove("_commit_version").and_then(|version| version.as_u64()).expect("a row has a version");
        let kind = row.remove("_change_type").expect("a row has a kind");
        if !versions.contains(&version) {
            continue;
        }
        let row = Value::Object(row);
        // Any row of the version shows which columns it has; nested ones come from the row of the same key.
        let row = shapes.get(&version).map_or(row.clone(), |shape| without_later_columns(&row, shape));
        lines.push(format!("{version:05} {} {}", kind.as_str().unwrap_or_default(), canonical(&row)));
    }
    lines.sort();
    lines
}

/// For each version a row that has every field that any row of it has.
fn shapes(found: &Everything) -> BTreeMap<u64, Value> {
    let mut shapes: BTreeMap<u64, Value> = BTreeMap::new();
    for (version, row) in &found.rows {
        let row = json(&row.data);
        shapes.entry(*version).and_modify(|shape| widen(shape, &row)).or_insert(row);
    }
    shapes
}

fn widen(shape: &mut Value, row: &Value) {
    match (shape, row) {
        (Value::Object(shape), Value::Object(row)) => {
            for (name, value) in row {
                shape.entry(name.clone()).and_modify(|known| widen(known, value)).or_insert_with(|| value.clone());
            }
        }
        (shape @ Value::Null, row) => *shape = row.clone(),
        _ => {}
    }
}

#[track_caller]
fn assert_equal(table: &str, found: &[String], expected: &[String]) {
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found, expected, "table {table}");
    }
    assert_eq!(found.len(), expected.len(), "table {table}: number of changes");
}

/// Reads all changes from the first version of the log on and holds them against Spark's.
fn assert_whole_feed(lake: &Path, table: &str) -> Everything {
    let expected = expected_json(lake, table);
    let first = expected["first_version_in_log"].as_u64().expect("a first version");
    let found = read(every_change(lake, table, Start::Version(first)), None);
    found.expect_no_error(table);
    assert_equal(table, &found.as_feed(), &spark_feed(lake, table, first..=u64::MAX, &found));
    found
}

#[test]
fn append_only_orders_are_read_value_by_value() {
    let Some(lake) = lake() else { return };
    let found = assert_whole_feed(&lake, "orders");
    assert_eq!(found.rows.len(), 200);
    assert_eq!(found.schemas.len(), 1);
}

#[test]
fn additive_changes_of_the_schema_are_followed() {
    let Some(lake) = lake() else { return };
    let found = assert_whole_feed(&lake, "evolved");
    let changes: Vec<_> =
        found.schemas.iter().map(|change| (change.version, change.difference.added.clone())).collect();
    eprintln!("{changes:?}");
    assert!(found.schemas.iter().all(|change| change.difference.removed.is_empty()));
}

#[test]
fn renames_and_drops_under_column_mapping_are_followed() {
    let Some(lake) = lake() else { return };
    let found = assert_whole_feed(&lake, "churn_mapped");
    let rename = found.schemas.iter().find(|change| change.version == 4).expect("the rename is announced");
    assert_eq!(rename.difference.renamed, [("churn_risk".to_owned(), "churn_risk_score".to_owned())]);
    let drop = found.schemas.iter().find(|change| change.version == 6).expect("the drop is announced");
    assert_eq!(drop.difference.removed, ["legacy_flag"]);
}

#[test]
fn a_merge_without_effect_gives_no_rows() {
    let Some(lake) = lake() else { return };
    let found = assert_whole_feed(&lake, "merge_noop");
    assert!(found.rows.iter().all(|(version, _)| *version != 2));
}

#[test]
fn a_rewrite_deletes_what_was_there_under_the_old_schema() {
    let Some(lake) = lake() else { return };
    let found = read(every_change(&lake, "ltv_scores", Start::Version(0)), None);
    found.expect_no_error("ltv_scores");
    let (deletes, rest): (Vec<_>, Vec<_>) =
        found.as_feed().into_iter().partition(|line| line.starts_with("00004 delete"));
    let spark: Vec<_> = spark_feed(&lake, "ltv_scores", 0..=u64::MAX, &Everything::default())
        .into_iter()
        .filter(|line| !line.starts_with("00004 delete"))
        .collect();
    assert_equal("ltv_scores", &rest, &spark);
    let mut before: Vec<_> = ndjson(&file(&lake, "ltv_scores.snapshot_before_v4.ndjson"))
        .iter()
        .map(|row| format!("00004 delete {}", canonical(row)))
        .collect();
    before.sort();
    assert_equal("ltv_scores", &deletes, &before);

    assert_eq!(found.schemas.len(), 2);
    let change = &found.schemas[1];
    assert_eq!(change.version, 4);
    assert_eq!(change.difference.removed, ["ltv_predicted"]);
    assert_eq!(change.difference.added, ["ltv_score", "confidence_interval"]);
    let interval = change.schema.column("confidence_interval").expect("the column is there");
    assert_eq!(interval.data_type, "struct<low:double,high:double>");
}

#[test]
fn a_rewrite_is_coalesced_into_what_it_changed() {
    let Some(lake) = lake() else { return };
    let mut options = every_change(&lake, "ltv_scores", Start::Version(4));
    options.coalesce = true;
    options.added_columns_differ = false;
    let found = read(options.clone(), None);
    found.expect_no_error("ltv_scores");
    let report = &found.reports[0];
    assert_eq!((report.version, report.deleted, report.inserted), (4, 495, 495));
    assert_eq!((report.changed, report.unchanged, report.added, report.removed), (29, 466, 0, 0));
    assert!(report.compared.contains(&("ltv_predicted".to_owned(), "ltv_score".to_owned())));
    assert_eq!(report.added_columns, ["confidence_interval"]);
    assert_eq!(report.off, None);
    let changed: Vec<_> = found.rows.iter().filter(|(version, _)| *version == 4).collect();
    assert_eq!(changed.len(), 29);
    for (_, row) in changed {
        assert_eq!(row.change, ChangeKind::Update);
        let (before, after) = (json(row.before.as_deref().expect("the row before")), json(&row.data));
        assert_eq!(before["customer_id"], after["customer_id"]);
        assert!(before.get("ltv_predicted").is_some() && after.get("ltv_score").is_some());
    }

    options.added_columns_differ = true;
    let found = read(options, None);
    assert_eq!((found.reports[0].changed, found.reports[0].unchanged), (495, 0));
}

/// What a person is told to paste, after the table's name.
const ENABLE: &str = "SET TBLPROPERTIES (delta.enableChangeDataFeed = true)";

/// What becomes of a table that is read from a version on.
enum Outcome {
    /// Spark's rows to the end.
    Rows,
    /// Spark's rows before this version, then an error with this code that holds these words.
    Fails(u64, &'static str, &'static [&'static str]),
}

#[test]
fn every_table_reads_right_or_fails_clearly() {
    use Outcome::{Fails, Rows};
    let Some(lake) = lake() else { return };
    let cases: Vec<(&str, u64, Outcome)> = vec![
        ("cdf_enabled_late", 0, Fails(0, "delta_cdf_disabled", &[ENABLE, "cdf_enabled_late`", "start at version 3"])),
        ("cdf_enabled_late", 3, Rows),
        ("cdf_toggled", 0, Fails(3, "delta_cdf_disabled", &[ENABLE, "at version 3", "start at version 5"])),
        ("cdf_toggled", 5, Rows),
        ("checkpoint_v2", 0, Rows),
        ("checkpointed", 0, Rows),
        ("churn_id_mapped", 0, Rows),
        ("churn_mapped", 0, Rows),
        ("clustered", 0, Rows),
        ("evolved", 0, Rows),
        ("generated_default", 0, Rows),
        ("ict", 0, Rows),
        ("ict_from_start", 0, Rows),
        ("ltv_scores", 5, Rows),
        ("merge_mixed", 0, Rows),
        ("merge_noop", 0, Rows),
        ("ml_vectors", 0, Rows),
        ("no_cdf", 0, Fails(0, "delta_cdf_disabled", &[ENABLE, "no_cdf`", "at version 0"])),
        ("no_cdf", 3, Fails(3, "delta_cdf_disabled", &[ENABLE, "at version 3"])),
        ("orders", 0, Rows),
        ("partitioned_nulls", 0, Rows),
        ("row_tracked", 0, Rows),
        ("shallow_clone", 0, Rows),
        ("types", 0, Rows),
        ("upgrade_dv", 0, Rows),
        ("vacuumed_cdf", 0, Fails(1, "delta_file_gone", &["version 1", ".parquet", "VACUUM"])),
        ("vacuumed_cdf", 6, Rows),
        ("vacuumed_log", 0, Fails(0, "delta_version_gone", &["version 0", "the earliest one that can be read is 5"])),
        ("vacuumed_log", 5, Rows),
        ("variant", 0, Rows),
        ("widened", 0, Rows),
    ];
    let clone = tempfile::tempdir().expect("a folder for the clone");
    let mut wrong = Vec::new();
    for (table, start, outcome) in &cases {
        let mut options = every_change(&lake, table, Start::Version(*start));
        if *table == "shallow_clone" {
            options.table = copy_clone(&lake, clone.path());
        }
        let found = read(options, None);
        let end = if let Fails(version, ..) = outcome { version.wrapping_sub(1) } else { u64::MAX };
        let expected = if end == u64::MAX && matches!(outcome, Fails(..)) {
            Vec::new()
        } else {
            spark_feed(&lake, table, *start..=end, &found)
        };
        let said =
            found.error.as_ref().map_or_else(|| "reads right".to_owned(), |error| format!("{}: {error}", error.code()));
        eprintln!("{table} from {start}: {} rows, {} schemas, {said}", found.rows.len(), found.schemas.len());
        let feed = found.as_feed();
        if let Some((found, expected)) = feed.iter().zip(&expected).find(|(found, expected)| found != expected) {
            wrong.push(format!("{table} from {start}:\n  found    {found}\n  expected {expected}"));
        } else if feed.len() != expected.len() {
            wrong.push(format!("{table} from {start}: {} changes, {} expected", feed.len(), expected.len()));
        }
        match (outcome, &found.error) {
            (Rows, None) => {}
            (Fails(_, code, words), Some(error)) => {
                let text = error.to_string();
                let all = words.iter().all(|word| text.contains(word)) && text.contains(*table);
                if error.code().as_str() != *code || !all {
                    wrong.push(format!("{table} from {start}: {code} with {words:?} expected"));
                }
            }
            (Rows, Some(error)) => wrong.push(format!("{table} from {start}: {error}")),
            (Fails(..), None) => wrong.push(format!("{table} from {start}: an error expected")),
        }
    }
    let tables: std::collections::BTreeSet<_> = cases.iter().map(|(table, ..)| *table).collect();
    assert_eq!(tables.len(), 26, "every table of the lake has a case");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_snapshot_is_what_the_table_holds() {
    let Some(lake) = lake() else { return };
    let clone = tempfile::tempdir().expect("a folder for the clone");
    for entry in std::fs::read_dir(&lake).expect("the lake can be listed") {
        let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
        let Some(table) = name.strip_suffix(".snapshot.ndjson") else { continue };
        let mut options = every_change(&lake, table, Start::Snapshot);
        if table == "shallow_clone" {
            options.table = copy_clone(&lake, clone.path());
        }
        let found = read(options, None);
        if table == "no_cdf" {
            assert_eq!(found.error.expect("the feed is off").code().as_str(), "delta_cdf_disabled");
            continue;
        }
        found.expect_no_error(table);
        assert!(found.rows.iter().all(|(_, row)| row.change == ChangeKind::Insert));
        let mut rows: Vec<_> = found.rows.iter().map(|(_, row)| canonical(&json(&row.data))).collect();
        rows.sort();
        let mut expected: Vec<_> = ndjson(&file(&lake, &name)).iter().map(canonical).collect();
        expected.sort();
        assert_equal(table, &rows, &expected);
    }
}

#[test]
fn in_commit_timestamps_are_the_rows_timestamps() {
    let Some(lake) = lake() else { return };
    let found = assert_whole_feed(&lake, "ict_from_start");
    let mut expected: Vec<_> = ndjson(&file(&lake, "ict_from_start.expected.ndjson"))
        .iter()
        .map(|row| (row["_commit_version"].as_u64().unwrap(), row["_commit_timestamp"].as_str().unwrap().to_owned()))
        .collect();
    expected.sort();
    expected.dedup();
    let mut times: Vec<_> = found
        .rows
        .iter()
        .map(|(version, row)| {
            let time = jiff::Timestamp::from_millisecond(row.timestamp.expect("a timestamp")).unwrap();
            (*version, format!("{time:.6}"))
        })
        .collect();
    times.dedup();
    assert_eq!(times, expected);
}

#[test]
fn a_reader_goes_on_at_every_cursor_exactly_where_it_was() {
    let Some(lake) = lake() else { return };
    for (table, start) in
        [("ltv_scores", Start::Version(0)), ("ltv_scores", Start::Snapshot), ("upgrade_dv", Start::Version(0))]
    {
        let mut options = every_change(&lake, table, start);
        options.coalesce = true;
        options.added_columns_differ = false;
        options.rows_max = 23;
        let whole = read(options.clone(), None);
        whole.expect_no_error(table);
        assert!(whole.cursors.len() > 10);
        for (count, cursor) in whole.cursors.iter().step_by(3) {
            let cursor = serde_json::from_slice(&serde_json::to_vec(cursor).unwrap()).unwrap();
            let mut rest = support::Everything::default();
            rest.schemas.extend(
                whole.schemas.iter().filter(|change| Some(change.schema.as_ref()) == schema_of(&cursor)).cloned(),
            );
            let mut reader = tailwater_delta::Reader::open(options.clone(), Some(cursor)).unwrap();
            rest.read_on(&mut reader);
            rest.expect_no_error(table);
            assert_eq!(rest.rows, whole.rows[*count..], "{table} after {count} rows");
        }
    }
}

fn schema_of(cursor: &tailwater_delta::Cursor) -> Option<&tailwater_core::schema::Schema> {
    cursor.schema.as_ref()
}

/// A copy of the clone's log whose placeholder is replaced by the lake's folder.
fn copy_clone(lake: &Path, into: &Path) -> String {
    let to = into.join("shallow_clone");
    copy(&lake.join("shallow_clone"), &to, &|text| {
        text.replace("file:/LAKE_ROOT", &format!("file:{}", lake.display()))
    });
    to.to_string_lossy().into_owned()
}

/// Copies a table; its commits go through `edit`.
fn copy(from: &Path, to: &Path, edit: &dyn Fn(String) -> String) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a listing") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target, edit);
        } else if target.extension().is_some_and(|extension| extension == "json") {
            let text = std::fs::read_to_string(entry.path()).expect("a commit");
            std::fs::write(&target, edit(text)).expect("a copy");
            // It was written a while ago: the commit is complete.
            let before = std::time::SystemTime::now() - std::time::Duration::from_secs(600);
            std::fs::File::open(&target).and_then(|file| file.set_modified(before)).expect("a time");
        } else if target.extension().is_none_or(|extension| extension != "crc") {
            // Checksums hold the schema, which an edit changes.
            std::fs::write(&target, std::fs::read(entry.path()).expect("a file")).expect("a copy");
        }
    }
}
