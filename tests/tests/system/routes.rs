//! Routes and their destinations: a condition that no row can answer, a pause beside a route that goes on, and a destination that is
//! added to a running workspace. Issue 10: A16, B10, C1.

use serde_json::json;
use tailwater_tests::audit::Counts;
use tailwater_tests::scene::{SCORE_TRANSFORM, Scene};

const IDENTITY: &str = "identity:
  types:
    customer_id: { priority: 1, max: 1, normalise: trim }
    email: { priority: 2, max: 5, normalise: email }
";

fn destination(name: &str, routes: &str) -> String {
    format!(
        "  {name}:
    account: main
    create: true
    identifier: email
    identifiers: {{ email: email, external_id: customer_id }}
    routes: [{routes}]
"
    )
}

/// A configuration of facts without a schema.
fn configure_facts(scene: &Scene, destinations: &str) {
    scene.write("transforms/score.js", SCORE_TRANSFORM);
    scene.configure(&format!(
        "{IDENTITY}sources:
  rows: {{ type: kafka, kind: events, id: n, identifiers: {{ customer_id: customer_id, email: email }}, strict: false }}
destinations:
{destinations}"
    ));
}

fn produce(scene: &Scene, numbers: std::ops::Range<usize>, kind: &str) {
    let rows: Vec<_> = numbers
        .map(|n| {
            let person = format!("{kind}{n}");
            let row = json!({"n": format!("{kind}-{n}"), "customer_id": person, "email": format!("{person}@example.com"), "score": n, "kind": kind});
            (person, row)
        })
        .collect();
    scene.topics().produce_json(&scene.rows_topic(), rows.iter().map(|(key, row)| (key.as_str(), row.clone())));
}

#[test]
fn a_condition_that_no_row_can_answer_pauses_and_nothing_is_dead_lettered() {
    let scene = Scene::new("condition");
    let route = |when: &str| {
        destination("klaviyo", &format!("{{ from: rows, transform: transforms/score.js, when: '{when}' }}"))
    };
    configure_facts(&scene, &route("row.score > \"ten\""));
    let mut process = scene.run();
    produce(&scene, 0..150, "a");
    scene.pauses("klaviyo", "when_failed");
    process.logs(&["paused until somebody acts", "the condition of route rows"]);
    assert_eq!(scene.topics().count(&scene.topic("dlq.destination.klaviyo")), 0);
    configure_facts(&scene, &route("row.score >= 0"));
    scene.audits("rows", "klaviyo", &Counts::delivered(150));
    assert_eq!(scene.topics().count(&scene.topic("dlq.destination.klaviyo")), 0);
    process.stop();
}

#[test]
fn a_paused_route_lets_the_other_routes_of_its_destination_go_on() {
    let scene = Scene::new("beside");
    let route = |name: &str, kind: &str| {
        format!("{{ name: {name}, from: rows, transform: transforms/{name}.js, when: 'row.kind == \"{kind}\"' }}")
    };
    scene.write("transforms/bad.js", "function send() { throw new Error('boom'); }\n");
    scene.write("transforms/good.js", SCORE_TRANSFORM);
    configure_facts(&scene, &destination("klaviyo", &format!("{}, {}", route("bad", "a"), route("good", "b"))));
    let process = scene.run();
    produce(&scene, 0..120, "a");
    scene.pauses("klaviyo", "transform_threw");
    produce(&scene, 0..40, "b");
    let waiting = Counts { total: 160, delivered: 40, held: 120, ..Counts::default() };
    scene.audits("rows", "klaviyo", &waiting);
    scene.write("transforms/bad.js", SCORE_TRANSFORM);
    scene.audits("rows", "klaviyo", &Counts::delivered(160));
    assert_eq!(scene.topics().count(&scene.topic("dlq.destination.klaviyo")), 0);
    process.stop();
}

#[test]
fn a_destination_that_is_added_later_skips_the_facts_from_before_it() {
    let scene = Scene::new("later");
    let route = "{ from: rows, transform: transforms/score.js }";
    let first = destination("klaviyo", route);
    configure_facts(&scene, &first);
    // Written before the first start: that is no history.
    scene.topics().create(&scene.rows_topic(), 4, &[]);
    produce(&scene, 0..20, "a");
    let process = scene.run();
    scene.audits("rows", "klaviyo", &Counts::delivered(20));
    process.stop();
    configure_facts(&scene, &format!("{first}{}", destination("later", route)));
    let applied = scene.command(&["topics", "apply", "--config", "tailwater.yaml"]);
    let text = applied.expect(0);
    assert!(text.contains("20 are skipped (before_start)") && text.contains("destinations.later.start"), "{text}");
    let process = scene.run();
    produce(&scene, 20..25, "a");
    let skipped = Counts { total: 25, delivered: 5, skipped: 20, ..Counts::default() };
    scene.audits("rows", "later", &skipped);
    scene.audits("rows", "klaviyo", &Counts::delivered(25));
    process.stop();
    // A restart with an empty disk changes nothing.
    std::fs::remove_dir_all(scene.folder().join("state")).unwrap();
    let process = scene.run();
    produce(&scene, 25..27, "a");
    scene.audits("rows", "later", &Counts { total: 27, delivered: 7, ..skipped });
    process.stop();
}
