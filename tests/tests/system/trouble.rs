//! Brokers and vendors that are away, wrong or slow, and processes that are killed: nothing is lost.

use std::time::Duration;

use serde_json::{Value, json};
use tailwater_simulators::klaviyo::{DEFAULT_API_KEY, Disconnect, Effect, Options, Prescription};
use tailwater_tests::audit::Counts;
use tailwater_tests::kafka::Broker;
use tailwater_tests::scene::{Scene, quick_vendor};
use tailwater_tests::wait::{PATIENCE, eventually, eventually_equal, steadily};

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

#[test]
fn a_broker_that_is_absent_at_the_start_is_waited_for() {
    let broker = Broker::stopped();
    let scene = Scene::with("absent", &broker.brokers(), quick_vendor());
    scene.configure_rows();
    let mut process = scene.spawn("tailwater run", &["run", "--config", "tailwater.yaml"]);
    process.logs(&["kafka_unreachable"]);
    eventually("/livez answers while it waits", PATIENCE, || match scene.admin("/livez") {
        Ok((200, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert!(matches!(scene.admin("/readyz"), Ok((503, _))));
    broker.start();
    scene.wait_until_ready(&mut process);
    produce(&scene, &rows(0, 20));
    scene.audits("rows", "klaviyo", &Counts::delivered(20));
    process.stop();
}

#[test]
fn a_broker_that_is_lost_in_the_middle_comes_back_to_a_running_process() {
    let broker = Broker::started();
    let scene = Scene::with("lost", &broker.brokers(), quick_vendor());
    scene.configure_rows();
    let mut process = scene.run();
    produce(&scene, &rows(0, 20));
    eventually_equal("the first rows are delivered", &20, || scene.vendor.emails().len());
    broker.stop();
    steadily("the process lives on without its broker", Duration::from_secs(3), || {
        process.assert_running();
        Ok(())
    });
    // Issue 10, D: it was ready for as long as the broker was away.
    eventually("it is not ready without a broker", PATIENCE, || match scene.admin("/readyz") {
        Ok((503, text)) if text.contains("kafka: for") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    broker.start();
    scene.wait_until_ready(&mut process);
    produce(&scene, &rows(20, 40));
    scene.audits("rows", "klaviyo", &Counts::delivered(40));
    process.stop();
}

#[test]
fn a_wrong_key_pauses_the_destination_and_the_right_one_lets_it_go_on() {
    let scene = Scene::new("key");
    scene.write("secrets/klaviyo", "pk_wrong\n");
    scene.configure_rows();
    let file = scene.folder().join("tailwater.yaml");
    let text = std::fs::read_to_string(&file).unwrap().replace("${env:KLAVIYO_API_KEY}", "${file:secrets/klaviyo}");
    scene.write("tailwater.yaml", &text);
    let process = scene.run();
    produce(&scene, &rows(0, 30));
    scene.pauses("klaviyo", "unauthorized");
    assert_eq!(scene.topics().count(&scene.topic("dlq.destination.klaviyo")), 0);
    scene.write("secrets/klaviyo", &format!("{DEFAULT_API_KEY}\n"));
    scene.audits("rows", "klaviyo", &Counts::delivered(30));
    process.stop();
}

#[test]
fn a_vendor_that_fails_for_a_while_gets_everything_afterwards() {
    let scene = Scene::new("fails");
    scene.configure_rows();
    let process = scene.run();
    scene.vendor.prescribe(Prescription {
        times: 1_000,
        for_seconds: Some(5),
        ..Prescription::status(503).on("POST", "/api/*")
    });
    scene
        .vendor
        .prescribe(Prescription::new(Effect::Disconnect(Disconnect::AfterProcessing)).on("POST", "/api/*").times(2));
    produce(&scene, &rows(0, 50));
    scene.audits("rows", "klaviyo", &Counts::delivered(50));
    assert!(scene.vendor.stats().prescribed > 0, "the vendor failed");
    assert_eq!(scene.vendor.emails().len(), 50);
    process.stop();
}

#[test]
fn the_vendors_limits_are_kept_before_it_enforces_them() {
    let scene = Scene::with("limits", tailwater_tests::kafka::brokers(), Options { limits: true, ..quick_vendor() });
    scene.configure_rows();
    let process = scene.run();
    produce(&scene, &rows(0, 400));
    scene.audits("rows", "klaviyo", &Counts::delivered(400));
    let stats = scene.vendor.stats();
    assert!(stats.throttled <= 2, "the vendor had to say 429 {} times in {} requests", stats.throttled, stats.requests);
    process.stop();
}

#[test]
fn a_process_that_is_killed_again_and_again_loses_and_duplicates_nothing() {
    let scene = Scene::new("kill");
    scene.configure_rows();
    let total = 2_000;
    let mut process = scene.run();
    for (index, part) in rows(0, total).chunks(total / 4).enumerate() {
        produce(&scene, part);
        let delivered = index * total / 4 + 50;
        eventually("some of them are delivered", PATIENCE, || {
            let seen = scene.vendor.emails().len();
            if seen >= delivered { Ok(()) } else { Err(seen.to_string()) }
        });
        process.kill();
        process = scene.run();
    }
    scene.audits("rows", "klaviyo", &Counts::delivered(total as u64));
    assert_eq!(scene.vendor.emails().len(), total);
    for topic in ["resolved", "outbound.klaviyo"] {
        let seen = scene.topics().read(&scene.topic(topic));
        let mut ids: Vec<String> =
            seen.iter().filter_map(|record| record.envelope().event_id).map(|id| id.to_string()).collect();
        assert_eq!(ids.len(), total, "{topic} has each event once");
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), total, "{topic} has each event");
    }
    process.stop();
}
