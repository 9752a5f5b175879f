//! What a stage remembers lives in Kafka: a disk can be lost, and so can the records that it was made from.

use serde_json::json;
use tailwater_tests::audit::Counts;
use tailwater_tests::scene::{SCORE_TRANSFORM, Scene};

use crate::flow::TWO_SOURCES;

#[test]
fn held_records_survive_the_loss_of_the_disk_and_of_their_originals() {
    let scene = Scene::new("disk");
    scene.write("transforms/score.js", SCORE_TRANSFORM);
    scene.configure(TWO_SOURCES);
    let process = scene.run();
    let keys: Vec<String> = (0..50).map(|index| format!("c{index}")).collect();
    scene.topics().produce_json(
        &scene.topic("ingest.scores"),
        keys.iter().enumerate().map(|(index, key)| (key.as_str(), json!({"customer_id": key, "score": index}))),
    );
    scene.audits("scores", "klaviyo", &Counts { total: 50, held: 50, ..Counts::default() });
    process.stop();
    scene.topics().empty(&scene.topic("ingest.scores"));
    scene.topics().empty(&scene.topic("resolved"));
    std::fs::remove_dir_all(scene.folder().join("state")).unwrap();
    let process = scene.run();
    scene.topics().produce_json(
        &scene.topic("ingest.links"),
        keys.iter()
            .map(|key| (key.as_str(), json!({"id": key, "customer_id": key, "email": format!("{key}@example.com")}))),
    );
    scene.audits("scores", "klaviyo", &Counts::delivered(50));
    for (index, key) in keys.iter().enumerate() {
        assert_eq!(scene.vendor.property(&format!("{key}@example.com"), "score").as_f64(), Some(index as f64));
    }
    process.stop();
}

#[test]
fn a_restart_delivers_nothing_again() {
    let scene = Scene::new("restart");
    scene.configure_rows();
    let process = scene.run();
    scene.topics().produce_json(
        &scene.rows_topic(),
        [("c1", json!({"customer_id": "c1", "email": "c1@example.com", "score": 1}))],
    );
    scene.audits("rows", "klaviyo", &Counts::delivered(1));
    process.stop();
    let requests = scene.vendor.stats().requests;
    std::fs::remove_dir_all(scene.folder().join("state")).unwrap();
    let process = scene.run();
    scene.topics().produce_json(
        &scene.rows_topic(),
        [("c2", json!({"customer_id": "c2", "email": "c2@example.com", "score": 2}))],
    );
    scene.audits("rows", "klaviyo", &Counts::delivered(2));
    assert_eq!(scene.vendor.history("c1@example.com", "score").len(), 1, "{requests} requests before");
    process.stop();
}
