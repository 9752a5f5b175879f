//! Rows go in, people at the vendor change: all of them, in order, and nobody else.

use serde_json::json;
use tailwater_tests::audit::Counts;
use tailwater_tests::scene::Scene;
use tailwater_tests::wait::{PATIENCE, eventually, eventually_equal};

fn email(index: usize) -> String {
    format!("person{index:03}@example.com")
}

#[test]
fn rows_reach_the_vendor_and_the_audit_adds_up() {
    let scene = Scene::new("flow");
    scene.configure_rows();
    let process = scene.run();
    let keys: Vec<String> = (0..200).map(|index| format!("c{index}")).collect();
    scene.topics().produce_json(
        &scene.rows_topic(),
        keys.iter().enumerate().map(|(index, key)| {
            (key.as_str(), json!({"customer_id": key, "email": email(index), "score": 0.5 + index as f64}))
        }),
    );
    eventually_equal("everybody is at the vendor", &200, || scene.vendor.emails().len());
    for index in 0..200 {
        assert_eq!(scene.vendor.property(&email(index), "score").as_f64(), Some(0.5 + index as f64));
    }
    scene.audits("rows", "klaviyo", &Counts::delivered(200));
    assert_eq!(
        scene.vendor.stats().unknown,
        0,
        "nothing but the simulated endpoints was called: nobody was subscribed"
    );
    process.stop();
}

#[test]
fn one_persons_rows_arrive_in_the_order_of_the_source() {
    let scene = Scene::new("order");
    scene.configure_rows();
    let process = scene.run();
    let rows = (0..30).flat_map(|round| (0..10).map(move |person| (person, round)));
    let rows: Vec<(String, serde_json::Value)> = rows
        .map(|(person, round)| {
            let key = format!("c{person}");
            let row = json!({"customer_id": key, "email": email(person), "score": round});
            (key, row)
        })
        .collect();
    scene.topics().produce_json(&scene.rows_topic(), rows.iter().map(|(key, row)| (key.as_str(), row.clone())));
    scene.audits("rows", "klaviyo", &Counts::delivered(300));
    for person in 0..10 {
        let history: Vec<f64> =
            scene.vendor.history(&email(person), "score").iter().filter_map(serde_json::Value::as_f64).collect();
        assert!(history.is_sorted(), "{}: {history:?}", email(person));
        assert_eq!(history.last(), Some(&29.0));
    }
    process.stop();
}

#[test]
fn a_row_without_the_key_waits_for_it_and_later_rows_wait_behind_it() {
    let scene = Scene::new("hold");
    scene.write("transforms/score.js", tailwater_tests::scene::SCORE_TRANSFORM);
    scene.configure(TWO_SOURCES);
    let process = scene.run();
    let scores = scene.topic("ingest.scores");
    scene.topics().produce_json(&scores, (0..5).map(|round| ("c1", json!({"customer_id": "c1", "score": round}))));
    scene.topics().produce_json(&scores, [("c2", json!({"customer_id": "c2", "score": 7}))]);
    scene.audits("scores", "klaviyo", &Counts { total: 6, held: 6, ..Counts::default() });
    assert!(scene.vendor.emails().is_empty());
    scene.topics().produce_json(
        &scene.topic("ingest.links"),
        [("c1", json!({"id": "o1", "customer_id": "c1", "email": " C1@Example.com"}))],
    );
    scene.audits("scores", "klaviyo", &Counts { total: 6, delivered: 5, held: 1, ..Counts::default() });
    assert_eq!(scene.vendor.emails(), ["c1@example.com"]);
    let history: Vec<f64> =
        scene.vendor.history("c1@example.com", "score").iter().filter_map(serde_json::Value::as_f64).collect();
    assert!(history.is_sorted() && history.last() == Some(&4.0), "{history:?}");
    process.stop();
}

#[test]
fn a_person_on_a_list_has_the_properties_of_the_same_row() {
    let scene = Scene::new("lists");
    scene.write(
        "transforms/score.js",
        "async function send(payload) {
  return payload.events.map(row => {
    const data = { type: 'profile', attributes: { email: row.email, properties: { score: row.score } } };
    if (row.score > 50) data.relationships = { lists: { data: [{ type: 'list', id: 'LIST01' }] } };
    return { data };
  });
}
",
    );
    scene.configure(&TWO_SOURCES.replace("from: scores", "from: links").replace(
        "links:\n    type: kafka\n    kind: events\n    id: id",
        "links:\n    type: kafka\n    kind: state\n    primary_key: customer_id",
    ));
    let process = scene.run();
    let rows: Vec<(String, serde_json::Value)> = (0..100)
        .map(|index| (format!("c{index}"), json!({"id": index.to_string(), "customer_id": format!("c{index}"), "email": email(index), "score": index})))
        .collect();
    scene
        .topics()
        .produce_json(&scene.topic("ingest.links"), rows.iter().map(|(key, row)| (key.as_str(), row.clone())));
    scene.audits("links", "klaviyo", &Counts::delivered(100));
    let expected: Vec<String> = (51..100).map(email).collect();
    assert_eq!(scene.vendor.members("LIST01"), expected);
    eventually("scores are there", PATIENCE, || {
        let missing =
            (0..100).find(|index| scene.vendor.property(&email(*index), "score").as_f64() != Some(*index as f64));
        missing.map_or(Ok(()), |index| Err(email(index)))
    });
    process.stop();
}

/// `scores` know a customer's id, `links` join it with an email; both have a score.
pub const TWO_SOURCES: &str = "identity:
  types:
    customer_id: { priority: 1, max: 1, normalise: trim }
    email: { priority: 2, max: 5, normalise: email }
sources:
  scores:
    type: kafka
    kind: state
    primary_key: customer_id
    identifiers: { customer_id: customer_id }
    schema: { customer_id: string, score: double }
  links:
    type: kafka
    kind: events
    id: id
    identifiers: { customer_id: customer_id, email: email }
    schema: { id: string, customer_id: string, email: string, score: double }
destinations:
  klaviyo:
    account: main
    create: true
    identifier: email
    identifiers: { email: email, external_id: customer_id }
    on_missing_key: hold
    routes:
      - { from: scores, transform: transforms/score.js }
";
