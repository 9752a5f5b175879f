//! The audit finds what was lost, wherever it was lost; dead letters are listed, shown, replayed and discarded.

use serde_json::json;
use tailwater_tests::audit::Counts;
use tailwater_tests::scene::{SCORE_TRANSFORM, Scene};
use tailwater_tests::topics::Seen;
use tailwater_tests::wait::{PATIENCE, eventually};

fn produce(scene: &Scene, from: usize, to: usize) {
    let rows: Vec<(String, serde_json::Value)> = (from..to)
        .map(|index| {
            (
                format!("c{index}"),
                json!({"customer_id": format!("c{index}"), "email": format!("c{index}@example.com"), "score": index}),
            )
        })
        .collect();
    scene.topics().produce_json(&scene.rows_topic(), rows.iter().map(|(key, row)| (key.as_str(), row.clone())));
}

/// Ten rows are delivered. Then ten more reach the stage whose input is `topic`, and while nobody looks its group is moved past them:
/// they are lost there. Everything afterwards runs as ever, and the audit must name exactly them, and who saw them last.
fn lose(name: &str, running: &str, topic: &str, group: &str, last_seen: Option<&str>) {
    let scene = Scene::new(name);
    scene.configure_rows();
    let process = scene.run();
    produce(&scene, 0, 10);
    scene.audits("rows", "klaviyo", &Counts::delivered(10));
    process.stop();
    let input = scene.topic(topic);
    let before = scene.topics().count(&input);
    let part =
        (!running.is_empty()).then(|| scene.spawn(running, &["run", "--config", "tailwater.yaml", "--roles", running]));
    produce(&scene, 10, 20);
    eventually("the rows have reached the stage", PATIENCE, || {
        let seen = scene.topics().count(&input);
        if seen == before + 10 { Ok(()) } else { Err(seen.to_string()) }
    });
    if let Some(part) = part {
        part.stop();
    }
    scene.topics().move_group_to_end(&scene.topic(group), &input);
    let process = scene.run();
    produce(&scene, 20, 30);
    scene.audits("rows", "klaviyo", &Counts { total: 30, delivered: 20, unaccounted: 10, ..Counts::default() });
    let ended = scene.command(&["audit", "--config", "tailwater.yaml", "--json"]);
    assert_eq!(ended.code, Some(1), "something unaccounted is a problem");
    let mut named: Vec<(i64, i64)> = Vec::new();
    for lost in ended.json()["lost"].as_array().into_iter().flatten() {
        assert_eq!((&lost["topic"], &lost["last_seen"]), (&json!(scene.rows_topic()), &json!(last_seen)), "{lost}");
        named.push((lost["partition"].as_i64().unwrap(), lost["offset"].as_i64().unwrap()));
    }
    named.sort_unstable();
    let rows = scene.topics().read(&scene.rows_topic());
    let lost = rows.iter().filter(|record| (10..20).contains(&record.json()["score"].as_i64().unwrap()));
    let expected: Vec<(i64, i64)> = lost.map(|record| (record.partition.into(), record.offset)).collect();
    assert_eq!(named, expected);
    process.stop();
}

#[test]
fn a_loss_before_resolve_is_found() {
    lose("loss1", "", "ingest.rows", "resolve", None);
}

#[test]
fn a_loss_before_route_is_found() {
    lose("loss2", "source,resolve", "resolved", "route.klaviyo", Some("resolved"));
}

#[test]
fn a_loss_before_send_is_found() {
    lose("loss3", "source,resolve,route", "outbound.klaviyo", "send.klaviyo", Some("routed"));
}

#[test]
fn the_audit_outlives_the_records() {
    let scene = Scene::new("retention");
    scene.configure_rows();
    let process = scene.run();
    produce(&scene, 0, 50);
    scene.audits("rows", "klaviyo", &Counts::delivered(50));
    scene.topics().empty(&scene.rows_topic());
    scene.audits("rows", "klaviyo", &Counts::delivered(50));
    process.stop();
}

/// A dead letter as `dlq list` names it.
fn reference(letter: &Seen) -> String {
    format!("destination.klaviyo/{}/{}", letter.partition, letter.offset)
}

#[test]
fn dead_letters_are_listed_shown_replayed_and_discarded() {
    let scene = Scene::new("dlq");
    scene.configure_rows();
    scene.write(
        "transforms/score.js",
        &SCORE_TRANSFORM
            .replace(
                "payload.events.map(row => ({",
                "payload.events.map(row => { if (row.score < 2) throw new Error('too low'); return {",
            )
            .replace("} } }));", "} } }; });"),
    );
    let process = scene.run();
    produce(&scene, 0, 40);
    let counts = Counts { total: 40, delivered: 38, dead_lettered: 2, ..Counts::default() };
    scene.audits("rows", "klaviyo", &counts);
    let dlq = |arguments: &[&str]| {
        let mut all = vec!["dlq"];
        all.extend_from_slice(arguments);
        all.extend_from_slice(&["--config", "tailwater.yaml"]);
        scene.command(&all)
    };
    let list = dlq(&["list"]);
    assert!(list.expect(0).contains("transform_threw"), "{}", list.stdout);
    let letters = scene.topics().read(&scene.topic("dlq.destination.klaviyo"));
    let show = dlq(&["show", &reference(&letters[0])]);
    assert!(show.expect(0).contains("too low"), "{}", show.stdout);
    scene.write("transforms/score.js", SCORE_TRANSFORM);
    eventually("the corrected transform is in use", PATIENCE, || {
        if process.has_logged(&["reloaded"]) { Ok(()) } else { Err("not reloaded".into()) }
    });
    dlq(&["replay", &reference(&letters[0])]).expect(0);
    scene.audits("rows", "klaviyo", &Counts { total: 40, delivered: 39, dead_lettered: 1, ..Counts::default() });
    dlq(&["discard", &reference(&letters[1]), "--reason", "known to be wrong"]).expect(0);
    scene.audits("rows", "klaviyo", &Counts { total: 40, delivered: 39, skipped: 1, ..Counts::default() });
    process.stop();
}
