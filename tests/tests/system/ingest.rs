//! What producers may write into a source's topic, and how far resolve has read it.

use serde_json::{Value, json};
use tailwater_tests::audit::Counts;
use tailwater_tests::scene::Scene;
use tailwater_tests::topics::New;
use tailwater_tests::wait::{PATIENCE, eventually};

const ROWS: &str = "identity:
  types:
    customer_id: { priority: 1, max: 1 }
    email: { priority: 2, max: 5, normalise: email }
sources:
  rows: { type: kafka, kind: state, primary_key: customer_id, strict: false, MORE identifiers: { customer_id: customer_id, email: email } }
destinations:
  klaviyo:
    account: main
    create: true
    identifier: email
    identifiers: { email: email, external_id: customer_id }
    routes: [{ from: rows, transform: transforms/score.js }]
";

fn configure(scene: &Scene, more: &str) {
    scene.write("transforms/score.js", tailwater_tests::scene::SCORE_TRANSFORM);
    scene.configure(&ROWS.replace("MORE", more));
}

fn row(number: usize) -> Value {
    json!({"customer_id": format!("c{number}"), "email": format!("c{number}@example.com"), "score": number})
}

fn produce(scene: &Scene, topic: &str, numbers: std::ops::Range<usize>) {
    let rows: Vec<(String, Value)> = numbers.map(|number| (format!("c{number}"), row(number))).collect();
    scene.topics().produce_json(topic, rows.iter().map(|(key, row)| (key.as_str(), row.clone())));
}

/// Issue 10: a header `tw` that somebody else wrote ended the process, on every start; one that named no destination lost the record.
#[test]
fn a_foreign_header_stops_nobody_and_its_record_is_read_like_any_other() {
    let scene = Scene::new("foreign");
    configure(&scene, "");
    let process = scene.run();
    let unknown_schema = [[1, 12, 16].as_slice(), &[0x5a; 16]].concat();
    let no_destination = b"\x01\x16\x07nowhere";
    for (number, header) in [unknown_schema.as_slice(), no_destination, b"\xff"].into_iter().enumerate() {
        let value = row(number).to_string();
        scene.topics().produce(
            &scene.rows_topic(),
            [New { value: Some(value.as_bytes()), headers: &[("tw", header)], ..New::default() }],
        );
    }
    produce(&scene, &scene.rows_topic(), 3..13);
    scene.audits("rows", "klaviyo", &Counts::delivered(13));
    assert_eq!(scene.vendor.emails().len(), 13);
    process.stop();
}

/// A dead letter of a source is replayed beside the source's topic, keeps its place in time, and is counted once more.
#[test]
fn a_dead_letter_of_a_source_is_replayed_without_others_seeing_it() {
    let scene = Scene::new("replay");
    configure(&scene, "");
    let process = scene.run();
    scene.topics().produce_json(&scene.rows_topic(), [("x", json!({"mail": "c1@example.com", "score": 1}))]);
    let dead = scene.topic("dlq.source.rows");
    eventually("the row is a dead letter", PATIENCE, || match scene.topics().count(&dead) {
        1 => Ok(()),
        count => Err(format!("{count} letters")),
    });
    process.stop();
    configure(&scene, "");
    let text = std::fs::read_to_string(scene.folder().join("tailwater.yaml")).unwrap();
    scene.write("tailwater.yaml", &text.replace("email: email } }", "mail: email, email: email } }"));
    let process = scene.run();
    scene.command(&["dlq", "replay", "source.rows/0/0", "--config", "tailwater.yaml"]).expect(0);
    eventually("the row is delivered", PATIENCE, || {
        if scene.vendor.person("c1@example.com").is_some() { Ok(()) } else { Err("nobody".into()) }
    });
    assert_eq!(scene.topics().count(&scene.rows_topic()), 1, "nothing new for the topic's other readers");
    eventually("the audit counts both", PATIENCE, || {
        let flow = scene.audit()["flows"][0].clone();
        let (ends, lost) = ((flow["skipped"]["replayed"].as_u64(), flow["in"].as_u64()), flow["unaccounted"].as_u64());
        if (ends, lost) == ((Some(1), Some(2)), Some(0)) { Ok(()) } else { Err(flow.to_string()) }
    });
    process.stop();
}

/// Issue 10: the broker drops the offsets of a group that does not subscribe, and a quiet source was read again from its beginning.
#[test]
fn a_source_whose_offsets_the_broker_dropped_is_not_read_again() {
    let scene = Scene::new("offsets");
    configure(&scene, "");
    let process = scene.run();
    produce(&scene, &scene.rows_topic(), 0..50);
    scene.audits("rows", "klaviyo", &Counts::delivered(50));
    process.stop();
    let resolved = scene.topics().count(&scene.topic("resolved"));
    scene.topics().delete_group(&scene.topic("resolve"));
    let mut process = scene.run();
    process.logs(&["has dropped the group's offset"]);
    produce(&scene, &scene.rows_topic(), 50..55);
    scene.audits("rows", "klaviyo", &Counts::delivered(55));
    assert_eq!(scene.topics().count(&scene.topic("resolved")), resolved + 5);
    process.stop();
    // A topic that was deleted and recreated is another one: it is read from its beginning.
    scene.topics().delete_group(&scene.topic("resolve"));
    scene.topics().delete(&scene.rows_topic());
    let rows = scene.rows_topic();
    eventually("the topic is gone", PATIENCE, || {
        if scene.topics().names(&rows).is_empty() { Ok(()) } else { Err("it is still there".into()) }
    });
    scene.topics().create(&rows, 4, &[]);
    produce(&scene, &rows, 100..200);
    let process = scene.run();
    eventually("the new topic's rows are resolved", PATIENCE, || {
        let count = scene.topics().count(&scene.topic("resolved"));
        if count == resolved + 105 { Ok(()) } else { Err(format!("{count} events")) }
    });
    process.stop();
}

/// Issue 10: 9,000 records that did not decode were 9,000 lines and no alert.
#[test]
fn a_source_whose_records_do_not_decode_gets_one_alert_and_pauses_if_it_says_so() {
    let scene = Scene::new("flood");
    configure(&scene, "on_decode_failures: pause,");
    let framed: Vec<Vec<u8>> =
        (0..2_000).map(|number| [&[0, 0, 0, 0, 42], row(number).to_string().as_bytes()].concat()).collect();
    let mut process = scene.run();
    produce(&scene, &scene.rows_topic(), 0..3);
    scene.audits("rows", "klaviyo", &Counts::delivered(3));
    scene
        .topics()
        .produce(&scene.rows_topic(), framed.iter().map(|value| New { value: Some(value), ..New::default() }));
    process.logs(&["ERROR", "records cannot be used", "a Schema Registry frame precedes the JSON (schema id 42)"]);
    let status = scene.admin("/status").unwrap().1;
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["source"]["rows.resolve"]["state"], "paused", "{status}");
    let dead = scene.topics().count(&scene.topic("dlq.source.rows"));
    assert!(dead < 1_000, "{dead} dead letters");
    process.stop();
    // Somebody decides that they may go.
    configure(&scene, "");
    let process = scene.run();
    produce(&scene, &scene.rows_topic(), 3..6);
    scene.audits("rows", "klaviyo", &Counts { total: 2_006, delivered: 6, dead_lettered: 2_000, ..Counts::default() });
    let log = process.log();
    assert_eq!(log.lines().filter(|line| line.contains("records cannot be used")).count(), 1, "{log}");
    assert!(log.lines().filter(|line| line.contains("dead-lettered")).count() < 10, "{log}");
    process.stop();
}
