//! The upgrade story from end to end, on the project's own Spark-written tables: visitors become users and stay one person, a score that
//! crosses the line is an event, and a renamed column is read by its old name.

use std::collections::BTreeMap;

use serde_json::Value;
use tailwater_simulators::customerio::{CustomerIo, DEFAULT_SECRET_KEY, Options};
use tailwater_tests::audit::Counts;
use tailwater_tests::scene::Scene;
use tailwater_tests::{kafka, lake};

const DESTINATION: &str = "customerio";

#[test]
fn the_upgrade_story() {
    let scene: Scene<CustomerIo> = Scene::at("upgrade", kafka::brokers(), Options::default(), DEFAULT_SECRET_KEY);
    scene.lay_out(&lake::example("upgrade"));
    let expected = scene.folder().join("lake/expected");
    let process = scene.run();

    // A score names the user id, which is what Customer.io needs; a visit names a browser and waits.
    scene.audits("upgrade_scores", DESTINATION, &Counts::delivered(600));
    scene.audits("visits", DESTINATION, &Counts { total: 930, held: 930, ..Counts::default() });
    let likely = lake::rows(&expected.join("upgrade_likely.ndjson"));
    let likely_since = |version: u64| {
        let crossed = likely.iter().filter(|row| row["version"].as_u64() <= Some(version));
        let mut users: Vec<String> = crossed.map(|row| text(&row["user_id"])).collect();
        users.sort();
        users
    };
    assert_eq!(users_of(&scene, "upgrade_likely"), likely_since(1));
    let mut scores: BTreeMap<String, Value> = scores_in(&expected.join("upgrade_scores.v1.snapshot.ndjson"));
    hold_against_spark(&scene, &scores);

    // Trials link browsers, addresses and users; payments link other browsers to the same people.
    scene.commit("signups-v1");
    scene.audits("visits", DESTINATION, &Counts { total: 930, delivered: 720, held: 210, ..Counts::default() });
    scene.commit("signups-v2");
    scene.audits("visits", DESTINATION, &Counts { total: 930, delivered: 750, held: 180, ..Counts::default() });
    scene.audits("signups", DESTINATION, &Counts::delivered(270));
    assert_eq!(scene.vendor.simulator().profiles().len(), 600, "every visitor is a person who was there");
    assert_eq!(users_of(&scene, "trial_started").len(), 240);
    assert_eq!(users_of(&scene, "subscription_started").len(), 30);
    let payer = scene.vendor.simulator().profile("id", "u_0001").unwrap();
    assert_eq!(payer["attributes"]["lifecycle"], "paid");
    assert!(scene.vendor.simulator().profile("email", "bo.jensen1@example.org").is_some(), "{payer}");
    visits_are_their_owners(&scene, &expected.join("visits.of_users.ndjson"));
    // Merging is destructive, and no route allows it.
    let requests = scene.vendor.simulator().requests();
    assert!(requests.iter().all(|request| !request.body.to_string().contains("\"merge\"")));

    // The next run renames the column; the other routes are not concerned, and the source says what it was called.
    scene.commit("upgrade_scores-v2");
    scene.pauses(DESTINATION, "missing_column");
    assert!(process.has_logged(&["missing_column", "upgrade_score", "upgrade_likelihood_score"]));
    let text_of_config = std::fs::read_to_string(scene.folder().join("tailwater.yaml")).unwrap();
    assert!(text_of_config.contains("# aliases:"));
    scene.write("tailwater.yaml", &text_of_config.replace("# aliases:", "aliases:"));
    scene.audits("upgrade_scores", DESTINATION, &Counts::delivered(622));
    for (user, row) in scores_in(&expected.join("upgrade_scores.v2.changed.ndjson")) {
        scores.insert(user, row);
    }
    hold_against_spark(&scene, &scores);
    assert_eq!(users_of(&scene, "upgrade_likely"), likely_since(2));

    assert_eq!(scene.topics().count(&scene.topic("dlq.destination.customerio")), 0);
    assert_eq!(scene.vendor.stats().unknown, 0);
    assert_eq!(scene.command(&["audit", "--config", "tailwater.yaml"]).code, Some(0));
    process.stop();
}

fn scores_in(file: &std::path::Path) -> BTreeMap<String, Value> {
    lake::rows(file).into_iter().map(|row| (text(&row["user_id"]), row)).collect()
}

/// Everybody is at the vendor with exactly the values that Spark read.
fn hold_against_spark(scene: &Scene<CustomerIo>, scores: &BTreeMap<String, Value>) {
    for (user, row) in scores {
        let person = scene.vendor.simulator().profile("id", user).unwrap_or_default();
        let attributes = &person["attributes"];
        let score = row.get("upgrade_likelihood_score").or_else(|| row.get("upgrade_score")).unwrap();
        for (name, value) in [
            ("upgrade_score", score),
            ("plan", &row["plan"]),
            ("seats_used", &row["usage"]["seats_used"]),
            ("projects", &row["usage"]["projects"]),
            ("api_calls_30d", &row["usage"]["api_calls_30d"]),
        ] {
            assert_eq!(attributes[name], *value, "{name} of {user}");
        }
    }
}

/// Everybody's user id, by the vendor's own id.
fn users(scene: &Scene<CustomerIo>) -> BTreeMap<String, String> {
    let people = scene.vendor.simulator().profiles().into_iter();
    people.map(|person| (text(&person["id"]), text(&person["identifiers"]["id"]))).collect()
}

/// Who an event of this name happened to, sorted.
fn users_of(scene: &Scene<CustomerIo>, name: &str) -> Vec<String> {
    let (users, events) = (users(scene), scene.vendor.simulator().events());
    let named = events.iter().filter(|event| event["name"] == name);
    let mut found: Vec<String> = named.map(|event| users[&text(&event["profile"])].clone()).collect();
    found.sort();
    found
}

/// Each page view is at the vendor once, with the person whose browser it was.
fn visits_are_their_owners(scene: &Scene<CustomerIo>, expected: &std::path::Path) {
    let mut wanted: Vec<(String, String)> =
        lake::rows(expected).iter().map(|row| (text(&row["user_id"]), text(&row["page"]))).collect();
    wanted.sort();
    let (users, events) = (users(scene), scene.vendor.simulator().events());
    let pages = events.iter().filter(|event| event["kind"] == "page");
    let mut found: Vec<(String, String)> =
        pages.map(|event| (users[&text(&event["profile"])].clone(), text(&event["name"]))).collect();
    found.sort();
    assert_eq!(found, wanted);
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
