//! The winback story from end to end, on the project's own Spark-written tables: each profile at the vendor equals what Spark read.

use std::collections::BTreeMap;

use serde_json::Value;
use tailwater_simulators::klaviyo::{JobDuration, Options};
use tailwater_tests::audit::Counts;
use tailwater_tests::lake;
use tailwater_tests::scene::Scene;

const LIST: &str = "WINBCK";

#[test]
fn the_winback_story() {
    let vendor = Options {
        lists: vec![(LIST.into(), "Winback".into())],
        job_duration: JobDuration::default(),
        ..Options::default()
    };
    let scene = Scene::with("winback", tailwater_tests::kafka::brokers(), vendor);
    scene.lay_out(&lake::winback());
    let expected = scene.folder().join("lake/expected");
    let process = scene.run();

    // Scores first: nobody has an email yet.
    scene.audits("ltv_scores", "klaviyo", &Counts { total: 5_000, held: 5_000, ..Counts::default() });
    assert!(scene.vendor.emails().is_empty());

    // The orders link all but a hundred.
    scene.commit("orders-v1");
    scene.audits("ltv_scores", "klaviyo", &Counts { total: 5_000, delivered: 4_900, held: 100, ..Counts::default() });
    let links: BTreeMap<String, String> = lake::rows(&expected.join("orders.links.ndjson"))
        .iter()
        .map(|row| (text(&row["customer_id"]), text(&row["email"])))
        .collect();
    let mut scores: BTreeMap<String, Value> = lake::rows(&expected.join("ltv_scores.v1.snapshot.ndjson"))
        .into_iter()
        .map(|row| (text(&row["customer_id"]), row))
        .collect();
    hold_against_spark(&scene, &links, &scores);
    assert_eq!(scene.vendor.members(LIST), list_at(&scene, 1));

    // The model's next run renames a column.
    scene.commit("ltv_scores-v2");
    scene.pauses("klaviyo", "missing_column");
    assert!(process.has_logged(&["missing_column", "ltv_predicted", "ltv_score"]));
    assert_eq!(scene.topics().count(&scene.topic("dlq.destination.klaviyo")), 0);
    let corrected = std::fs::read_to_string(scene.folder().join("transforms/after-the-rename/ltv.js")).unwrap();
    scene.write("transforms/ltv.js", &corrected);
    scene.audits("ltv_scores", "klaviyo", &Counts { total: 5_012, delivered: 4_912, held: 100, ..Counts::default() });
    for row in lake::rows(&expected.join("ltv_scores.v2.changed.ndjson")) {
        scores.insert(text(&row["customer_id"]), row);
    }
    hold_against_spark(&scene, &links, &scores);
    assert_eq!(scene.vendor.members(LIST), list_at(&scene, 2));

    assert_eq!(scene.topics().count(&scene.topic("dlq.destination.klaviyo")), 0);
    assert_eq!(scene.topics().count(&scene.topic("dlq.source.ltv_scores")), 0);
    assert_eq!(scene.vendor.stats().unknown, 0, "nobody was subscribed to anything");
    assert_eq!(scene.command(&["audit", "--config", "tailwater.yaml"]).code, Some(0));
    process.stop();
}

/// Everybody who has an email is at the vendor with exactly the values that Spark read, and nobody else is.
fn hold_against_spark(scene: &Scene, links: &BTreeMap<String, String>, scores: &BTreeMap<String, Value>) {
    let mut emails: Vec<String> = links.values().cloned().collect();
    emails.sort();
    assert_eq!(scene.vendor.emails(), emails);
    let people: BTreeMap<String, Value> = scene
        .vendor
        .simulator()
        .profiles()
        .into_iter()
        .map(|person| (text(&person["attributes"]["external_id"]), person["attributes"].clone()))
        .collect();
    for (customer, email) in links {
        let row = &scores[customer];
        let person = &people[customer];
        assert_eq!(&text(&person["email"]), email, "{customer}");
        let properties = &person["properties"];
        let lifetime_value = if row["ltv_score"].is_null() { &row["ltv_predicted"] } else { &row["ltv_score"] };
        let summary = &row["feature_summary"];
        let pairs = [
            ("rfm_segment", &row["rfm_segment"]),
            ("lifetime_value", lifetime_value),
            ("last_purchase_date", &row["last_purchase_date"]),
            ("orders_count", &summary["orders"]),
            ("average_order_value", &summary["avg_order_value"]),
            ("days_since_purchase", &summary["days_since_purchase"]),
        ];
        for (name, value) in pairs {
            let at_vendor = &properties[name];
            let same = match (value.as_f64(), at_vendor.as_f64()) {
                (Some(one), Some(other)) => one.to_bits() == other.to_bits(),
                _ => value == at_vendor,
            };
            assert!(same, "{customer} has {name} {at_vendor} at the vendor, and Spark read {value}");
        }
    }
}

/// Who belongs on the list at a version of the table, by Spark's account.
fn list_at(scene: &Scene, version: u64) -> Vec<String> {
    let mut emails: Vec<String> = lake::rows(&scene.folder().join("lake/expected/winback_list.ndjson"))
        .iter()
        .filter(|row| row["since_version"].as_u64().is_some_and(|since| since <= version))
        .map(|row| text(&row["email"]))
        .collect();
    emails.sort();
    emails
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
