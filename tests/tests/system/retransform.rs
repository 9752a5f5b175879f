//! Dead letters that the vendor refused, after the transform was corrected.

use serde_json::json;
use tailwater_tests::audit::Counts;
use tailwater_tests::scene::{SCORE_TRANSFORM, Scene};
use tailwater_tests::wait::{PATIENCE, eventually, eventually_equal};

const LISTED: &str = "async function send(payload, headers) {
  return payload.events.map(row => ({ data: { type: 'profile', attributes: {
    email: row.email, properties: { score: row.score } },
    relationships: row.score > 90 ? { lists: { data: [{ type: 'list', id: 'LIST' }] } } : undefined } }));
}
";

// Issue 12: a replay sent what had been made for the vendor before, which was refused again whatever was corrected.
#[test]
fn a_replay_with_transform_runs_the_corrected_transform_on_the_row_of_the_source() {
    let scene = Scene::new("retransform");
    scene.configure_rows();
    let wrong = LISTED.replace("'LIST'", "'NOSUCH'");
    assert_ne!(wrong, SCORE_TRANSFORM);
    scene.write("transforms/score.js", &wrong);
    let process = scene.run();
    let rows = (0..20).map(|index| {
        let score = if index < 3 { 95 } else { 10 };
        (
            format!("c{index}"),
            json!({"customer_id": format!("c{index}"), "email": format!("c{index}@example.com"), "score": score}),
        )
    });
    let rows: Vec<_> = rows.collect();
    scene.topics().produce_json(&scene.rows_topic(), rows.iter().map(|(key, row)| (key.as_str(), row.clone())));
    let dead = Counts { total: 20, delivered: 17, dead_lettered: 3, ..Counts::default() };
    scene.audits("rows", "klaviyo", &dead);

    scene.write("transforms/score.js", &LISTED.replace("'LIST'", "'LIST01'"));
    eventually("the transform is reloaded", PATIENCE, || {
        if process.has_logged(&["reloaded"]) { Ok(()) } else { Err("no line says so".to_owned()) }
    });
    let replay = ["dlq", "replay", "--all", "--destination", "klaviyo", "--config", "tailwater.yaml"];
    // What was made before is refused again.
    scene.command(&replay).expect(0);
    eventually_equal("the letters are there again", &6, || {
        scene.topics().count(&scene.topic("dlq.destination.klaviyo"))
    });
    let mut transformed = replay.to_vec();
    transformed.push("--transform");
    scene.command(&transformed).expect(0);
    scene.audits("rows", "klaviyo", &Counts::delivered(20));
    let expected: Vec<String> = (0..3).map(|index| format!("c{index}@example.com")).collect();
    assert_eq!(scene.vendor.members("LIST01"), expected);
    process.stop();
}
