//! A crash at each named failpoint, one after the other, with proof that it was there: nothing is lost, and nothing that the vendor has
//! answered and the sender has noted is sent again.
//!
//! They need a binary with the feature `failpoints` and are skipped, visibly, without one. `make test` runs them as its last step, with
//! the binary of the chaos run; by hand: `cargo build --workspace --bin tailwater --features tailwater/failpoints`, and its path in
//! `TAILWATER_TEST_BINARY` together with `TAILWATER_TEST_FAILPOINTS=1`.

use std::os::unix::process::ExitStatusExt as _;

use serde_json::json;
use tailwater_simulators::klaviyo::Prescription;
use tailwater_tests::audit::Counts;
use tailwater_tests::process::Process;
use tailwater_tests::scene::{SCORE_TRANSFORM, Scene};
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

#[test]
fn a_crash_at_any_failpoint_loses_nothing() {
    if is_skipped("a_crash_at_any_failpoint_loses_nothing") {
        return;
    }
    let scene = Scene::new("failpoints");
    scene.write("transforms/score.js", SCORE_TRANSFORM);
    scene.configure(TWO_SOURCES);
    let process = scene.run();
    produce(&scene, 0);
    scene.audits("scores", "klaviyo", &Counts::delivered(1));
    process.stop();
    for (index, name) in REACHED.iter().enumerate() {
        let person = index + 1;
        if *name == "restore.half" {
            std::fs::remove_dir_all(scene.folder().join("state")).unwrap();
        }
        let mut process = spawn(&scene, &format!("{name}=crash"));
        produce(&scene, person);
        if *name == "reload.loaded" {
            process.logs(&["delivering"]);
            scene.write("transforms/score.js", &format!("{SCORE_TRANSFORM}// {person}\n"));
        }
        let status = process.end(PATIENCE);
        assert_eq!(status.signal(), Some(9), "{name}: {status}");
        let log = std::fs::read_to_string(scene.folder().join("failpoints.log")).unwrap();
        let last = log.lines().last().unwrap_or_default();
        assert!(last.starts_with(&format!("{name} crash {} ", process.id())), "{name}: {last}");
        let process = scene.run();
        scene.audits("scores", "klaviyo", &Counts::delivered(u64::try_from(person).unwrap() + 1));
        for known in 0..=person {
            let email = format!("c{known}@example.com");
            assert_eq!(scene.vendor.property(&email, "score").as_f64(), Some(known as f64), "{name}: {email}");
        }
        process.stop();
    }
}

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
