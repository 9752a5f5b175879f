//! Processes that are asked to stop again and again, and what the vendor sees of it. Issue 10.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::json;
use tailwater_simulators::klaviyo::{Effect, Prescription};
use tailwater_tests::audit::Counts;
use tailwater_tests::scene::Scene;

const EVENTS: usize = 5_000;

/// How long a process runs before it is asked to stop.
const LIFE: Duration = Duration::from_secs(3);

/// How long the vendor takes for an answer, so that requests are in flight whenever a process is asked to stop.
const ANSWER_MS: u64 = 40;

const EVENT_TRANSFORM: &str = "async function send(payload) {
  return payload.events.map(row => ({ data: { type: 'event', attributes: {
    metric: 'Stopped', unique_id: row.id, properties: { number: row.number },
    profile: { data: { type: 'profile', attributes: { email: row.email } } } } } }));
}
";

const EVENT_ROWS: &str = "identity:
  types:
    email: { priority: 1, max: 5, normalise: email }
sources:
  rows:
    type: kafka
    kind: events
    id: id
    identifiers: { email: email }
    schema: { id: string, email: string, number: double }
destinations:
  klaviyo:
    account: main
    create: true
    identifier: email
    identifiers: { email: email }
    routes:
      - { from: rows, transform: transforms/event.js }
";

#[test]
fn a_process_that_is_stopped_every_few_seconds_delivers_every_event_once() {
    let scene = Scene::new("stops");
    scene.write("transforms/event.js", EVENT_TRANSFORM);
    scene.configure(EVENT_ROWS);
    scene.vendor.prescribe(Prescription {
        times: 1_000_000,
        ..Prescription::new(Effect::DelayMs(ANSWER_MS)).on("POST", "/api/events")
    });
    let mut process = scene.run();
    let ids: Vec<String> = (0..EVENTS).map(|number| format!("e{number}")).collect();
    scene.topics().produce_json(
        &scene.rows_topic(),
        ids.iter().enumerate().map(|(number, id)| {
            (id.as_str(), json!({"id": id, "email": format!("p{number}@example.com"), "number": number}))
        }),
    );
    let mut lives = 1;
    let deadline = Instant::now() + Duration::from_secs(300);
    while requests(&scene).len() < EVENTS {
        assert!(Instant::now() < deadline, "{} events have come in {lives} lives", requests(&scene).len());
        std::thread::sleep(LIFE);
        let asked = Instant::now();
        process.stop();
        assert!(asked.elapsed() < Duration::from_secs(5), "a stop took {:?}", asked.elapsed());
        process = scene.run();
        lives += 1;
    }
    scene.audits("rows", "klaviyo", &Counts::delivered(EVENTS as u64));
    let requests = requests(&scene);
    let repeated: Vec<_> = requests.iter().filter(|(_, count)| **count > 1).collect();
    assert!(repeated.is_empty(), "{} events were sent again in {lives} lives: {repeated:?}", repeated.len());
    assert!(lives > 2, "{lives} lives prove little");
    process.stop();
}

/// How often each event was sent.
fn requests(scene: &Scene) -> HashMap<String, usize> {
    let mut requests = HashMap::new();
    for request in scene.vendor.simulator().requests_to("POST", "/api/events") {
        let id = request.body["data"]["attributes"]["unique_id"].as_str().unwrap_or_default().to_owned();
        *requests.entry(id).or_insert(0) += 1;
    }
    requests
}
