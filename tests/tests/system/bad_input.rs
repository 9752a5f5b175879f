//! What cannot be delivered ends as a dead letter with its reason, byte for byte, and holds up nobody else.

use std::collections::BTreeMap;

use serde_json::json;
use tailwater_tests::audit::Counts;
use tailwater_tests::scene::Scene;
use tailwater_tests::topics::{New, Seen};
use tailwater_tests::wait::{PATIENCE, eventually};

fn dead_letters(scene: &Scene, topic: &str, count: usize) -> Vec<Seen> {
    let topic = scene.topic(topic);
    eventually(&format!("{topic} has {count} records"), PATIENCE, || {
        let seen = scene.topics().read(&topic);
        if seen.len() == count { Ok(seen) } else { Err(format!("{} records: {seen:?}", seen.len())) }
    })
}

#[test]
fn what_does_not_decode_is_a_dead_letter_of_its_source() {
    let scene = Scene::new("decode");
    scene.configure_rows();
    let process = scene.run();
    let broken: &[u8] = b"{\"customer_id\": \"c1\", \xff";
    let now = || {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        i64::try_from(since.as_millis()).unwrap()
    };
    let appended = now() - 6 * 3_600_000;
    scene.topics().produce(
        &scene.rows_topic(),
        [New {
            partition: Some(1),
            key: Some(b"c1"),
            value: Some(broken),
            headers: &[("origin", b"shop")],
            timestamp_ms: Some(appended),
        }],
    );
    scene.topics().produce_json(
        &scene.rows_topic(),
        [("c2", json!({"customer_id": "c2", "email": "c2@example.com", "score": 1}))],
    );
    let letters = dead_letters(&scene, "dlq.source.rows", 1);
    let letter = &letters[0];
    assert_eq!((letter.key.as_deref(), letter.value.as_deref()), (Some(b"c1".as_slice()), Some(broken)));
    assert_eq!(letter.header("tw-error-code").as_deref(), Some("decode_failed"));
    assert_eq!(letter.header("__connect.errors.topic"), Some(scene.rows_topic()));
    assert_eq!(letter.header("__connect.errors.partition").as_deref(), Some("1"));
    assert_eq!(letter.header("__connect.errors.offset").as_deref(), Some("0"));
    assert_eq!(letter.header("origin").as_deref(), Some("shop"));
    // Issue 10, A14: with the record's own time, retention would delete the letter of an old record at once.
    assert_eq!(letter.header("tw-original-timestamp"), Some(appended.to_string()));
    assert!(letter.timestamp_ms.unwrap() > now() - 3_600_000, "{letter:?}");
    scene.audits("rows", "klaviyo", &Counts { total: 2, delivered: 1, dead_lettered: 1, ..Counts::default() });
    process.stop();
}

#[test]
fn an_event_without_identifiers_is_a_dead_letter_of_its_source() {
    let scene = Scene::new("nobody");
    scene.configure_rows();
    let process = scene.run();
    scene.topics().produce_json(&scene.rows_topic(), [("x", json!({"customer_id": null, "email": "  ", "score": 1}))]);
    let letters = dead_letters(&scene, "dlq.source.rows", 1);
    assert_eq!(letters[0].header("tw-error-code").as_deref(), Some("no_identifiers"));
    process.stop();
}

#[test]
fn a_record_above_the_brokers_limit_is_a_dead_letter_by_reference() {
    let scene = Scene::new("large");
    scene.configure_rows();
    scene.topics().create(&scene.rows_topic(), 4, &[("max.message.bytes", "8388608")]);
    let process = scene.run();
    let row = json!({"customer_id": "c1", "email": "c1@example.com", "score": 1, "text": "x".repeat(2_000_000)});
    scene.topics().produce_json(&scene.rows_topic(), [("c1", row)]);
    scene.topics().produce_json(
        &scene.rows_topic(),
        [("c1", json!({"customer_id": "c1", "email": "c1@example.com", "score": 2}))],
    );
    let letters = dead_letters(&scene, "dlq.source.rows", 1);
    assert_eq!(letters[0].header("tw-error-code").as_deref(), Some("kafka_record_too_large"));
    assert_eq!(letters[0].header("__connect.errors.topic"), Some(scene.rows_topic()));
    scene.audits("rows", "klaviyo", &Counts { total: 2, delivered: 1, dead_lettered: 1, ..Counts::default() });
    process.stop();
}

/// Fails in another way for each score; all other rows are delivered.
const TROUBLESOME: &str = "async function send(payload, headers) {
  if (payload.events.some(row => row.score === 8)) await new Promise(() => {});
  if (payload.events.some(row => row.score === 9)) return [];
  return payload.events.map(row => {
    switch (row.score) {
      case 1: throw new Error('no score of one');
      case 2: for (;;) {}
      case 3: return 5;
      case 4: return { data: { type: 'profile', attributes: { email: 'somebody@else.example' } } };
      case 5: return { data: { type: 'profile', attributes: { email: row.email, colour: 'red' } } };
      case 6: { const all = []; for (;;) all.push(new Array(1000000).fill(row.score)); }
      case 7: return null;
      case 10: return { data: { type: 'profile', attributes: { email: row.email, properties: { score: NaN, kept: 1 } } } };
    }
    return { data: { type: 'profile', attributes: { email: row.email, properties: { score: row.score } } } };
  });
}
";

#[test]
fn a_row_that_a_transform_cannot_handle_fails_alone_and_says_why() {
    let scene = Scene::new("transform");
    scene.configure_rows();
    scene.write("transforms/score.js", TROUBLESOME);
    // The row that eats memory must reach the end of it before it reaches the end of its time.
    let text = std::fs::read_to_string(scene.folder().join("tailwater.yaml")).unwrap();
    scene.write("tailwater.yaml", &format!("{text}sandbox: {{ heap: 32MB, batch_timeout: 3s, row_timeout: 3s }}\n"));
    let process = scene.run();
    let rows: Vec<(String, serde_json::Value)> = (1..40)
        .map(|score| {
            let key = format!("c{score}");
            (key.clone(), json!({"customer_id": key, "email": format!("c{score}@example.com"), "score": score}))
        })
        .collect();
    scene.topics().produce_json(&scene.rows_topic(), rows.iter().map(|(key, row)| (key.as_str(), row.clone())));
    let letters = dead_letters(&scene, "dlq.destination.klaviyo", 8);
    let codes: BTreeMap<i64, String> = letters
        .iter()
        .map(|letter| (letter.json()["score"].as_i64().unwrap(), letter.header("tw-error-code").unwrap_or_default()))
        .collect();
    let expected = [
        (1, "transform_threw"),
        (2, "transform_timeout"),
        (3, "transform_shape"),
        (4, "foreign_identifier"),
        (5, "output_invalid"),
        (6, "transform_out_of_memory"),
        (8, "transform_pending"),
        (9, "transform_shape"),
    ];
    assert_eq!(codes, expected.into_iter().map(|(score, code)| (score, code.to_owned())).collect());
    assert!(letters.iter().any(|letter| {
        letter.header("__connect.errors.exception.message").unwrap_or_default().contains("no score of one")
    }));
    scene.audits(
        "rows",
        "klaviyo",
        &Counts { total: 39, delivered: 30, skipped: 1, dead_lettered: 8, ..Counts::default() },
    );
    assert_eq!(scene.vendor.emails().len(), 30);
    // A number that is not finite is left out, never null, and the audit says so.
    let person = scene.vendor.person("c10@example.com").unwrap();
    assert_eq!(person["attributes"]["properties"], json!({"kept": 1}));
    let noted = scene.audit();
    assert_eq!(noted["flows"][0]["delivered"]["non_finite_number"], json!(1), "{noted}");
    process.stop();
}

#[test]
fn many_rows_that_fail_alike_pause_the_route_and_nothing_is_dead_lettered() {
    let scene = Scene::new("alike");
    scene.configure_rows();
    scene.write("transforms/score.js", "async function send(payload) { throw new TypeError('every row is wrong'); }\n");
    let process = scene.run();
    let rows: Vec<(String, serde_json::Value)> = (0..300)
        .map(|index| {
            (
                format!("c{index}"),
                json!({"customer_id": format!("c{index}"), "email": format!("c{index}@example.com"), "score": index}),
            )
        })
        .collect();
    scene.topics().produce_json(&scene.rows_topic(), rows.iter().map(|(key, row)| (key.as_str(), row.clone())));
    scene.pauses("klaviyo", "transform_threw");
    assert_eq!(scene.topics().count(&scene.topic("dlq.destination.klaviyo")), 0);
    scene.write("transforms/score.js", tailwater_tests::scene::SCORE_TRANSFORM);
    scene.audits("rows", "klaviyo", &Counts::delivered(300));
    assert_eq!(scene.topics().count(&scene.topic("dlq.destination.klaviyo")), 0);
    process.stop();
}

#[test]
fn a_declared_schema_without_the_column_names_it_and_pauses() {
    let scene = Scene::new("column");
    scene.configure_rows();
    scene.write(
        "transforms/score.js",
        "async function send(payload) { return payload.events.map(row => ({ data: { type: 'profile', attributes: { email: row.email, properties: { churn: row.churn_risk_score } } } })); }\n",
    );
    let mut process = scene.run();
    scene.topics().produce_json(
        &scene.rows_topic(),
        [("c1", json!({"customer_id": "c1", "email": "c1@example.com", "score": 1}))],
    );
    scene.pauses("klaviyo", "missing_column");
    process.logs(&["missing_column", "churn_risk_score"]);
    assert_eq!(scene.topics().count(&scene.topic("dlq.destination.klaviyo")), 0);
    scene.write("transforms/score.js", tailwater_tests::scene::SCORE_TRANSFORM);
    scene.audits("rows", "klaviyo", &Counts::delivered(1));
    process.stop();
}
