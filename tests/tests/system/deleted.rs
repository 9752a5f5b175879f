//! Topics that are deleted under Tailwater: it says so with a code and stops, instead of going on without what they held.

use std::time::Duration;

use serde_json::json;
use tailwater_tests::audit::Counts;
use tailwater_tests::process::Process;
use tailwater_tests::scene::{SCORE_TRANSFORM, Scene};
use tailwater_tests::topics::New;
use tailwater_tests::wait::{PATIENCE, eventually};

use crate::flow::TWO_SOURCES;

/// The clients hear of it by their next question for the topic, and wait half a minute for it to come back.
const NOTICED: Duration = Duration::from_secs(120);

fn assert_ends_with(process: &mut Process, words: &[&str]) {
    let status = process.end(NOTICED);
    assert!(!status.success(), "it ended with {status}");
    assert!(process.has_logged(words), "no line with {words:?} in\n{}", process.log());
}

fn deleted_under_a_running_process(name: &str, topic: &str) {
    let scene = Scene::new(name);
    scene.configure_rows();
    let mut process = scene.run();
    let row = |key: &str| (key.to_owned(), json!({"customer_id": key, "email": format!("{key}@x.org"), "score": 1}));
    let first = row("c1");
    scene.topics().produce_json(&scene.rows_topic(), [(first.0.as_str(), first.1)]);
    scene.audits("rows", "klaviyo", &Counts::delivered(1));
    let topic = scene.topic(topic);
    scene.topics().delete(&topic);
    // Whoever writes to it finds out as well, and must not take it for brokers that are away.
    let second = row("c2");
    scene.topics().produce_json(&scene.rows_topic(), [(second.0.as_str(), second.1)]);
    assert_ends_with(&mut process, &["topic_missing", &topic]);
    assert!(!process.has_logged(&["kafka_unreachable"]), "{}", process.log());
}

// Issue 10, D: the source was read on in the new topic at the old offset, in silence.
#[test]
fn a_sources_topic_that_was_deleted_and_recreated_ends_the_process_with_its_code() {
    let scene = Scene::new("source-remade");
    scene.configure_rows();
    let mut process = scene.run();
    let row =
        |index: usize| json!({"customer_id": format!("c{index}"), "email": format!("c{index}@x.org"), "score": 1});
    scene.topics().produce_json(&scene.rows_topic(), (0..20).map(|index| ("c", row(index))));
    scene.audits("rows", "klaviyo", &Counts::delivered(20));
    scene.topics().delete(&scene.rows_topic());
    scene.topics().create(&scene.rows_topic(), 4, &[]);
    scene.topics().produce_json(&scene.rows_topic(), (20..25).map(|index| ("c", row(index))));
    assert_ends_with(&mut process, &["kafka_offset_lost", &scene.rows_topic(), "was deleted and recreated"]);
}

// Issue 10, D: nothing showed that the new topic, as long as the old one, holds other records.
#[test]
fn a_recreated_topic_that_is_as_long_as_the_old_one_is_not_taken_for_it() {
    for more in [0, 3] {
        let scene = Scene::new("source-remade-long");
        scene.configure_rows();
        let mut process = scene.run();
        let row =
            |index: usize| json!({"customer_id": format!("c{index}"), "email": format!("c{index}@x.org"), "score": 1});
        scene.topics().produce_json(&scene.rows_topic(), (0..20).map(|index| ("c", row(index))));
        scene.audits("rows", "klaviyo", &Counts::delivered(20));
        scene.topics().delete(&scene.rows_topic());
        scene.topics().create(&scene.rows_topic(), 4, &[]);
        scene.topics().produce_json(&scene.rows_topic(), (20..40 + more).map(|index| ("c", row(index))));
        assert_ends_with(&mut process, &["kafka_offset_lost", &scene.rows_topic(), "was deleted and recreated"]);
        // The broker has dropped the offsets with the topic: the new one is read from its beginning, and that is said.
        let mut process = scene.spawn("tailwater run", &["run", "--config", "tailwater.yaml"]);
        process.logs(&["ERROR", "kafka_offset_lost", "was deleted and recreated, and is read from its beginning"]);
        process.stop();
    }
}

#[test]
fn a_destinations_topic_that_is_deleted_ends_the_process_with_its_code() {
    deleted_under_a_running_process("deleted-outbound", "outbound.klaviyo");
}

#[test]
fn a_deleted_topic_of_resolved_events_ends_the_process_with_its_code() {
    deleted_under_a_running_process("deleted-resolved", "resolved");
}

#[test]
fn a_state_topic_that_was_made_anew_and_filled_is_not_taken_for_the_old_one() {
    let scene = Scene::new("state-remade");
    scene.write("transforms/score.js", SCORE_TRANSFORM);
    scene.configure(TWO_SOURCES);
    let process = scene.run();
    let keys: Vec<String> = (0..20).map(|index| format!("c{index}")).collect();
    scene.topics().produce_json(
        &scene.topic("ingest.scores"),
        keys.iter().map(|key| (key.as_str(), json!({"customer_id": key, "score": 1}))),
    );
    scene.audits("scores", "klaviyo", &Counts { total: 20, held: 20, ..Counts::default() });
    process.stop();
    let state = scene.topic("state.route.klaviyo");
    let partitions = scene.topics().watermarks(&state);
    scene.topics().delete(&state);
    // Made anew as the product makes it, and longer than the old one was: no offset tells the difference.
    scene.command(&["topics", "apply", "--config", "tailwater.yaml"]).expect(0);
    for (partition, (_, high)) in &partitions {
        scene.topics().produce(
            &state,
            (0..high + 10).map(|_| New {
                partition: Some(*partition),
                key: Some(b"x"),
                value: Some(b"{}"),
                ..New::default()
            }),
        );
    }
    let mut process = scene.spawn("tailwater run", &["run", "--config", "tailwater.yaml"]);
    assert_ends_with(&mut process, &["state_lost", &state, "marker"]);
    // The loss is accepted, as the error says.
    std::fs::remove_dir_all(scene.folder().join("state")).unwrap();
    let process = scene.run();
    scene.topics().produce_json(&scene.topic("ingest.scores"), [("c100", json!({"customer_id": "c100", "score": 1}))]);
    // What was held is gone, and the audit says so.
    eventually("the new row is held and the old ones are missed", PATIENCE, || {
        let seen = scene.counts("scores", "klaviyo");
        let expected = Counts { total: 21, held: 1, unaccounted: 20, ..Counts::default() };
        if seen == expected { Ok(()) } else { Err(format!("{seen:?}")) }
    });
    process.stop();
}
