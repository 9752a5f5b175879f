//! A crash at each named failpoint, one after the other, with proof that it was there: nothing is lost, and nothing that the vendor has
//! answered and the sender has noted is sent again.
//!
//! They need a binary with the feature `failpoints` and are skipped, visibly, without one. `make test` runs them as its last step, with
//! the binary of the chaos run; by hand: `cargo build --workspace --bin tailwater --features tailwater/failpoints`, and its path in
//! `TAILWATER_TEST_BINARY` together with `TAILWATER_TEST_FAILPOINTS=1`.

use std::os::unix::process::ExitStatusExt as _;
use std::sync::Arc;

use delta_kernel::arrow::array::{ArrayRef, Int64Array, StringArray};
use serde_json::json;
use tailwater_simulators::klaviyo::Prescription;
use tailwater_tests::audit::Counts;
use tailwater_tests::process::Process;
use tailwater_tests::scene::{SCORE_TRANSFORM, Scene};
use tailwater_tests::table::Table;
use tailwater_tests::wait::{PATIENCE, eventually};

use crate::flow::TWO_SOURCES;

/// What is reached by a start, a row, a merge and a reload of one process. The others need rebalances or tables.
const REACHED: &[&str] = &[
    "resolve.produced",
    "resolve.committed",
    "merge.announced",
    "merge.passed",
    "route.produced",
    "route.committed",
    "send.asked",
    "send.answered",
    "send.produced",
    "send.committed",
    "state.changelog",
    "rebalance.route",
    "rebalance.send",
    "restore.half",
    "reload.loaded",
];

#[expect(clippy::print_stderr, reason = "a test that is skipped must say so")]
fn is_skipped(test: &str) -> bool {
    let skipped = std::env::var_os("TAILWATER_TEST_FAILPOINTS").is_none();
    if skipped {
        eprintln!("SKIPPED: {test} needs a binary with failpoints; see the head of failpoints.rs");
    }
    skipped
}

fn spawn(scene: &Scene, failpoints: &str) -> Process {
    let mut environment = scene.environment();
    environment.push(("TAILWATER_FAILPOINTS".into(), failpoints.into()));
    environment.push(("TAILWATER_FAILPOINTS_LOG".into(), scene.folder().join("failpoints.log").display().to_string()));
    Process::spawn(
        &format!("tailwater run with {failpoints}"),
        scene.folder(),
        &environment,
        &["run", "--config", "tailwater.yaml"],
    )
}

/// A score, and three rows of one partition: the customer, an email on its own, and what joins the two.
fn produce(scene: &Scene, person: usize) {
    let (key, email) = (format!("c{person}"), format!("c{person}@example.com"));
    scene
        .topics()
        .produce_json(&scene.topic("ingest.scores"), [(key.as_str(), json!({"customer_id": key, "score": person}))]);
    scene.topics().produce_json(
        &scene.topic("ingest.links"),
        [
            (email.as_str(), json!({"id": format!("c{person}"), "customer_id": key})),
            (email.as_str(), json!({"id": format!("e{person}"), "email": email})),
            (email.as_str(), json!({"id": format!("l{person}"), "customer_id": key, "email": email})),
        ],
    );
}

/// What is reached by a row and a merge of one process whose broker has no transactions.
const REACHED_WITHOUT_TRANSACTIONS: &[&str] = &[
    "resolve.produced",
    "resolve.committed",
    "merge.announced",
    "merge.passed",
    "route.produced",
    "route.committed",
    "send.answered",
    "send.produced",
    "send.committed",
    "state.changelog",
    "2:state.changelog",
    "3:state.changelog",
    "state.promised",
    "2:state.promised",
    "3:state.promised",
    "restore.half",
];

/// Kills a process at each of these places, and expects of the next one that every row is delivered, with its latest value.
fn crashes(scene: &Scene, places: &[&str]) {
    let process = scene.run();
    produce(scene, 0);
    scene.audits("scores", "klaviyo", &Counts::delivered(1));
    process.stop();
    for (index, place) in places.iter().enumerate() {
        let person = index + 1;
        let (name, act) = match place.split_once(':') {
            Some((times, name)) => (name, format!("{name}={times}:crash")),
            None => (*place, format!("{place}=crash")),
        };
        if name == "restore.half" {
            std::fs::remove_dir_all(scene.folder().join("state")).unwrap();
        }
        let mut process = spawn(scene, &act);
        produce(scene, person);
        if name == "reload.loaded" {
            process.logs(&["delivering"]);
            scene.write("transforms/score.js", &format!("{SCORE_TRANSFORM}// {person}\n"));
        }
        let status = process.end(PATIENCE);
        assert_eq!(status.signal(), Some(9), "{place}: {status}");
        let log = std::fs::read_to_string(scene.folder().join("failpoints.log")).unwrap();
        let last = log.lines().last().unwrap_or_default();
        assert!(last.starts_with(&format!("{name} crash {} ", process.id())), "{place}: {last}");
        let process = scene.run();
        scene.audits("scores", "klaviyo", &Counts::delivered(u64::try_from(person).unwrap() + 1));
        for known in 0..=person {
            let email = format!("c{known}@example.com");
            assert_eq!(scene.vendor.property(&email, "score").as_f64(), Some(known as f64), "{place}: {email}");
        }
        process.stop();
    }
}

/// The failpoints are tried in two groups, at the same time: most of a crash is waiting for the next process.
fn group(places: &[&'static str], which: usize) -> Vec<&'static str> {
    places.iter().copied().skip(which).step_by(2).collect()
}

fn with_transactions(which: usize) {
    if is_skipped("a_crash_at_any_failpoint_loses_nothing") {
        return;
    }
    let scene = Scene::new(&format!("failpoints-{which}"));
    scene.write("transforms/score.js", SCORE_TRANSFORM);
    scene.configure(TWO_SOURCES);
    crashes(&scene, &group(REACHED, which));
}

#[test]
fn a_crash_at_any_failpoint_loses_nothing() {
    with_transactions(0);
}

#[test]
fn a_crash_at_any_other_failpoint_loses_nothing() {
    with_transactions(1);
}

fn without_transactions(scene: &Scene) {
    let file = scene.folder().join("tailwater.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("  latency: low\n", "  latency: low\n  transactions: false\n")).unwrap();
}

// Issue 10, A13.
fn crashes_without_transactions(which: usize) {
    if is_skipped("a_crash_without_transactions_loses_nothing") {
        return;
    }
    let scene = Scene::new(&format!("failpoints-plain-{which}"));
    scene.write("transforms/score.js", SCORE_TRANSFORM);
    scene.configure(TWO_SOURCES);
    without_transactions(&scene);
    crashes(&scene, &group(REACHED_WITHOUT_TRANSACTIONS, which));
}

#[test]
fn a_crash_without_transactions_loses_nothing() {
    crashes_without_transactions(0);
}

#[test]
fn another_crash_without_transactions_loses_nothing() {
    crashes_without_transactions(1);
}

// Issue 10, A13: the cursor was durable before the rows that it stands for.
#[test]
fn a_source_that_is_killed_without_transactions_leaves_no_row_out() {
    if is_skipped("a_source_that_is_killed_without_transactions_leaves_no_row_out") {
        return;
    }
    let scene = Scene::new("failpoints-table");
    scene.write("transforms/score.js", SCORE_TRANSFORM);
    let table = scene.folder().join("table");
    let mut table = Table::create(&table, &[("customer_id", "string"), ("email", "string"), ("score", "long")]);
    scene.configure(TABLE);
    without_transactions(&scene);
    let places = ["source.produced", "state.changelog", "state.promised", "source.committed"];
    for (index, place) in places.iter().enumerate() {
        let person = i64::try_from(index).unwrap();
        table.commit([vec![
            Arc::new(StringArray::from(vec![format!("c{person}")])) as ArrayRef,
            Arc::new(StringArray::from(vec![format!("c{person}@example.com")])) as ArrayRef,
            Arc::new(Int64Array::from(vec![person])) as ArrayRef,
        ]]);
        let mut environment = scene.environment();
        environment.push(("TAILWATER_FAILPOINTS".into(), format!("{place}=crash")));
        let mut process = Process::spawn(
            &format!("tailwater run with {place}"),
            scene.folder(),
            &environment,
            &["run", "--config", "tailwater.yaml", "--roles", "source"],
        );
        let status = process.end(PATIENCE);
        assert_eq!(status.signal(), Some(9), "{place}: {status}");
        let process = scene.run();
        eventually(&format!("{place}: every row is delivered"), PATIENCE, || {
            let known: Vec<Option<f64>> = (0..=person)
                .map(|known| scene.vendor.property(&format!("c{known}@example.com"), "score").as_f64())
                .collect();
            if known.iter().all(Option::is_some) { Ok(()) } else { Err(format!("{known:?}")) }
        });
        process.stop();
    }
    let audit = scene.command(&["audit", "--config", "tailwater.yaml", "--json"]).json();
    assert_eq!(audit["unaccounted"], 0, "{audit}");
}

/// One Delta table under `./table`.
const TABLE: &str = "identity:
  types:
    customer_id: { priority: 1, max: 1, normalise: trim }
    email: { priority: 2, max: 5, normalise: email }
sources:
  scores:
    type: delta
    table: ./table
    kind: state
    primary_key: customer_id
    identifiers: { customer_id: customer_id, email: email }
    poll_interval: 250ms
destinations:
  klaviyo:
    account: main
    create: true
    identifier: email
    identifiers: { email: email }
    routes:
      - { from: scores, transform: transforms/score.js }
";

#[test]
fn a_name_that_is_no_failpoint_is_refused_with_those_that_are() {
    if is_skipped("a_name_that_is_no_failpoint_is_refused_with_those_that_are") {
        return;
    }
    let scene = Scene::new("failpoint-unknown");
    scene.configure_rows();
    let mut process = spawn(&scene, "send.prodcued=crash");
    let status = process.end(PATIENCE);
    assert!(!status.success());
    assert!(process.has_logged(&["send.prodcued", "send.produced", "bug.dedupe_off"]), "{}", process.log());
}

#[test]
fn a_clock_that_is_stepped_holds_up_no_retry() {
    if is_skipped("a_clock_that_is_stepped_holds_up_no_retry") {
        return;
    }
    let scene = Scene::new("clock");
    scene.configure_rows();
    scene.write("clock", "0");
    let mut environment = scene.environment();
    environment.push(("TAILWATER_CLOCK_FILE".into(), scene.folder().join("clock").display().to_string()));
    let mut process =
        Process::spawn("tailwater run", scene.folder(), &environment, &["run", "--config", "tailwater.yaml"]);
    scene.wait_until_ready(&mut process);
    // A retry is on its way when the clock goes a day back, and another one when it goes two months ahead.
    for (step, person) in [("-86400000", 1_u64), ("5184000000", 2)] {
        let before = scene.vendor.stats().prescribed;
        scene.vendor.prescribe(Prescription {
            times: 1_000,
            for_seconds: Some(3),
            ..Prescription::status(503).on("POST", "/api/*")
        });
        let key = format!("c{person}");
        let row = json!({"customer_id": key, "email": format!("{key}@example.com"), "score": person});
        scene.topics().produce_json(&scene.rows_topic(), [(key.as_str(), row)]);
        eventually("the vendor has failed", PATIENCE, || {
            if scene.vendor.stats().prescribed > before { Ok(()) } else { Err("not yet".into()) }
        });
        scene.write("clock", step);
        process.logs(&["the wall clock is stepped", step]);
        scene.audits("rows", "klaviyo", &Counts::delivered(person));
    }
    process.stop();
}
