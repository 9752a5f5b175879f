//! `tailwater run --embedded`: the broker is a child of the process, and the promises are those of a broker.

use std::net::TcpStream;
use std::process::Command;

use serde_json::{Value, json};
use tailwater_tests::audit::Counts;
use tailwater_tests::scene::{SCORE_TRANSFORM, Scene};
use tailwater_tests::wait::{PATIENCE, eventually};

use crate::flow::TWO_SOURCES;

fn rows(from: usize, to: usize) -> Vec<(String, Value)> {
    (from..to)
        .map(|index| {
            let key = format!("c{index}");
            (key.clone(), json!({"customer_id": key, "email": format!("c{index}@example.com"), "score": index}))
        })
        .collect()
}

fn produce(scene: &Scene, rows: &[(String, Value)]) {
    scene.topics().produce_json(&scene.rows_topic(), rows.iter().map(|(key, row)| (key.as_str(), row.clone())));
}

/// Waits until nobody listens where the broker did.
fn broker_has_ended(scene: &Scene) {
    eventually("the broker has ended", PATIENCE, || match TcpStream::connect(scene.brokers()) {
        Ok(_) => Err("it still takes connections".into()),
        Err(_) => Ok(()),
    });
}

#[test]
fn what_is_held_is_kept_on_disk_between_runs_and_goes_on() {
    let scene = Scene::embedded("embedded-hold");
    scene.write("transforms/score.js", SCORE_TRANSFORM);
    scene.configure(TWO_SOURCES);
    let process = scene.run();
    let scores = scene.topic("ingest.scores");
    scene.topics().produce_json(&scores, (0..5).map(|round| ("c1", json!({"customer_id": "c1", "score": round}))));
    scene.topics().produce_json(&scores, [("c2", json!({"customer_id": "c2", "score": 7}))]);
    scene.audits("scores", "klaviyo", &Counts { total: 6, held: 6, ..Counts::default() });
    process.stop();
    broker_has_ended(&scene);
    assert!(scene.vendor.emails().is_empty());

    let process = scene.run();
    scene.topics().produce_json(
        &scene.topic("ingest.links"),
        [("c1", json!({"id": "o1", "customer_id": "c1", "email": "c1@example.com"}))],
    );
    scene.audits("scores", "klaviyo", &Counts { total: 6, delivered: 5, held: 1, ..Counts::default() });
    let history: Vec<f64> = scene.vendor.history("c1@example.com", "score").iter().filter_map(Value::as_f64).collect();
    assert!(history.is_sorted() && history.last() == Some(&4.0), "{history:?}");
    process.stop();
}

#[test]
fn neither_a_kill_of_the_process_nor_one_of_its_broker_loses_or_duplicates_anything() {
    let scene = Scene::embedded("embedded-kill");
    scene.configure_rows();
    let delivered = |wanted: usize| {
        eventually("some of them are delivered", PATIENCE, || {
            let seen = scene.vendor.emails().len();
            if seen >= wanted { Ok(()) } else { Err(seen.to_string()) }
        });
    };
    let process = scene.run();
    produce(&scene, &rows(0, 500));
    delivered(50);
    process.kill();
    broker_has_ended(&scene);

    let mut process = scene.run();
    produce(&scene, &rows(500, 1000));
    delivered(550);
    let pid = std::fs::read_to_string(scene.folder().join("state/broker/pid")).unwrap();
    assert!(Command::new("kill").args(["-KILL", pid.trim()]).status().unwrap().success());
    process.logs(&["broker_failed", "started again"]);
    process.logs(&["answers again"]);
    scene.audits("rows", "klaviyo", &Counts::delivered(1000));
    assert_eq!(scene.vendor.emails().len(), 1000);
    for topic in ["resolved", "outbound.klaviyo"] {
        let seen = scene.topics().read(&scene.topic(topic));
        let mut ids: Vec<String> =
            seen.iter().filter_map(|record| record.envelope().event_id).map(|id| id.to_string()).collect();
        assert_eq!(ids.len(), 1000, "{topic} has each event once");
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 1000, "{topic} has each event");
    }
    process.stop();
    broker_has_ended(&scene);
}

#[test]
fn what_it_cannot_promise_is_refused_in_words() {
    let scene = Scene::embedded("embedded-refused");
    scene.configure_rows();
    let valid = scene.command(&["validate", "--embedded", "tailwater.yaml"]);
    assert_eq!(valid.code, Some(0), "{valid:?}");
    let text = std::fs::read_to_string(scene.folder().join("tailwater.yaml")).unwrap();
    let brokers = format!("brokers: \"{}\"", scene.brokers());
    for (what, from, to) in [
        ("kafka.replication_factor", "replication_factor: 1", "replication_factor: 3"),
        ("kafka.brokers", brokers.as_str(), "brokers: \"kafka-1:9092,kafka-2:9092\""),
        ("kafka.brokers", brokers.as_str(), "brokers: \"0.0.0.0:9092\""),
        ("sasl.mechanism", "session_timeout: 6s", "options: { sasl.mechanism: PLAIN }"),
    ] {
        assert!(text.contains(from), "{from}");
        scene.write("other.yaml", &text.replace(from, to));
        let refused = scene.command(&["validate", "--embedded", "other.yaml"]);
        assert_eq!(refused.code, Some(1), "{to}: {refused:?}");
        assert!(
            refused.stdout.contains(what) && refused.stdout.contains("without --embedded"),
            "{to} is refused with its path and a way out: {}",
            refused.stdout
        );
        let run = scene.command(&["run", "--embedded", "--config", "other.yaml"]);
        assert_eq!(run.code, Some(3), "{to}: {run:?}");
    }
    let roles = scene.command(&["run", "--embedded", "--config", "tailwater.yaml", "--roles", "route,send"]);
    assert!(roles.stderr.contains("source, resolve") && roles.code == Some(3), "{roles:?}");
    let missing =
        scene.command(&["run", "--embedded", "--config", "tailwater.yaml", "--broker-binary", "/no/such/broker"]);
    assert!(missing.stderr.contains("broker_missing") && missing.code == Some(1), "{missing:?}");
}

#[test]
fn without_brokers_a_configuration_is_for_the_embedded_one_only() {
    let scene = Scene::embedded("embedded-absent");
    scene.configure_rows();
    let text = std::fs::read_to_string(scene.folder().join("tailwater.yaml")).unwrap();
    scene.write("tailwater.yaml", &text.replace(&format!("  brokers: \"{}\"\n", scene.brokers()), ""));
    let valid = scene.command(&["validate", "--embedded", "tailwater.yaml"]);
    assert_eq!(valid.code, Some(0), "{valid:?}");
    for arguments in [&["validate", "tailwater.yaml"][..], &["run", "--config", "tailwater.yaml"]] {
        let refused = scene.command(arguments);
        let said = format!("{}{}", refused.stdout, refused.stderr);
        assert_ne!(refused.code, Some(0), "{said}");
        assert!(said.contains("kafka.brokers") && said.contains("run --embedded"), "{said}");
    }
}
