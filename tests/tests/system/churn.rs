//! The churn story from end to end, on the project's own Spark-written tables: people at risk are on Iterable's list while they are, and a
//! model that changes the types of its columns harms nobody else.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tailwater_simulators::iterable::{DEFAULT_API_KEY, Iterable, Options};
use tailwater_tests::audit::Counts;
use tailwater_tests::scene::Scene;
use tailwater_tests::wait::eventually_equal;
use tailwater_tests::{kafka, lake};

const LIST: &str = "4207";
const SOURCE: &str = "churn_scores";
const LETTERS: &str = "dlq.destination.iterable";

#[test]
fn the_churn_story() {
    let vendor = Options {
        lists: vec![(LIST.into(), "Retention".into())],
        bulk_delay: Duration::from_millis(200),
        ..Options::default()
    };
    let scene: Scene<Iterable> = Scene::at("churn", kafka::brokers(), vendor, DEFAULT_API_KEY);
    scene.lay_out(&lake::example("churn"));
    let expected = scene.folder().join("lake/expected");
    let process = scene.run();

    // Scores first: nobody has an email yet.
    scene.audits(SOURCE, "iterable", &Counts { total: 1_000, held: 1_000, ..Counts::default() });
    assert!(people(&scene).is_empty());

    // The users link all but forty.
    scene.commit("users-v1");
    scene.audits(SOURCE, "iterable", &Counts { total: 1_000, delivered: 960, held: 40, ..Counts::default() });
    let mut scores = rows(&expected.join("churn_scores.v1.snapshot.ndjson"));
    hold_against_spark(&scene, &expected, &scores);
    assert_eq!(scene.vendor.members(LIST), list_at(&expected, 1));

    // The next run moves people across the line, both ways.
    scene.commit("churn_scores-v2");
    scene.audits(SOURCE, "iterable", &Counts { total: 1_030, delivered: 990, held: 40, ..Counts::default() });
    scores.extend(rows(&expected.join("churn_scores.v2.changed.ndjson")));
    hold_against_spark(&scene, &expected, &scores);
    assert_eq!(scene.vendor.members(LIST), list_at(&expected, 2));
    let memberships = list_requests(&scene);

    // The run after that writes the score as text: the transform insists on a number, before anything is sent.
    scene.commit("churn_scores-v3");
    scene.pauses("iterable", "transform_threw");
    assert!(process.has_logged(&["transform_threw", "churn_risk_score is a string, expected a number"]));
    assert!(process.has_logged(&["retyped=churn_risk_score, support_tickets"]));
    assert_eq!(scene.topics().count(&scene.topic(LETTERS)), 0);
    correct(&scene, "after-the-third-run");

    // Tickets are a double now, and the field is a long: whoever has a fraction is refused, alone.
    // Four people without a reason have the values that they had: their rows are unchanged.
    let counts = Counts { total: 2_030, delivered: 1_942, skipped: 4, dead_lettered: 4, held: 80, ..Counts::default() };
    scene.audits(SOURCE, "iterable", &counts);
    let letters = scene.command(&["dlq", "list", "--config", "tailwater.yaml"]);
    letters.expect(0);
    let lines: Vec<&str> = letters.stdout.lines().filter(|line| line.contains("field_type_mismatch")).collect();
    assert_eq!(lines.len(), 4, "{}", letters.stdout);
    for line in lines {
        assert!(line.contains("support_tickets: expected long, the row has double since table version 3"), "{line}");
    }
    // Nobody crossed the line, and a membership that says what the last one said is not sent.
    assert_eq!(list_requests(&scene), memberships);
    assert_eq!(scene.vendor.members(LIST), list_at(&expected, 2));

    // A replay alone would send the fraction again; the corrected transform makes another value of the row.
    correct(&scene, "whole-tickets");
    eventually_equal("the corrected transform is loaded", &2, || reloads(&process.log()).min(2));
    let replay =
        ["dlq", "replay", "--all", "--code", "field_type_mismatch", "--transform", "--config", "tailwater.yaml"];
    scene.command(&replay).expect(0);
    scene.audits(
        SOURCE,
        "iterable",
        &Counts { total: 2_030, delivered: 1_946, skipped: 4, held: 80, ..Counts::default() },
    );
    scores.extend(rows(&expected.join("churn_scores.v3.changed.ndjson")));
    hold_against_spark(&scene, &expected, &scores);
    assert_eq!(scene.topics().count(&scene.topic("dlq.source.churn_scores")), 0);
    assert_eq!(scene.vendor.stats().unknown, 0);
    assert_eq!(scene.command(&["audit", "--config", "tailwater.yaml"]).code, Some(0));
    process.stop();
}

fn correct(scene: &Scene<Iterable>, which: &str) {
    let file = scene.folder().join("transforms").join(which).join("churn.js");
    scene.write("transforms/churn.js", &std::fs::read_to_string(file).unwrap());
}

fn reloads(log: &str) -> usize {
    log.lines().filter(|line| line.contains("reloaded")).count()
}

/// Requests that change a list.
fn list_requests(scene: &Scene<Iterable>) -> usize {
    scene.vendor.simulator().requests().iter().filter(|request| request.path.starts_with("/api/lists/")).count()
}

fn rows(file: &Path) -> BTreeMap<String, Value> {
    lake::rows(file).into_iter().map(|row| (text(&row["user_id"]), row)).collect()
}

/// What Iterable has of everybody, by email.
fn people(scene: &Scene<Iterable>) -> BTreeMap<String, Value> {
    let people = scene.vendor.simulator().profiles().into_iter();
    people.map(|person| (text(&person["email"]), person["attributes"].clone())).collect()
}

/// Everybody who has an email is at the vendor with the values that Spark read, as numbers of the types that the project has, and nobody
/// else is.
fn hold_against_spark(scene: &Scene<Iterable>, expected: &Path, scores: &BTreeMap<String, Value>) {
    let links = rows(&expected.join("users.links.ndjson"));
    let people = people(scene);
    assert_eq!(people.len(), links.len());
    for (user, link) in &links {
        let row = &scores[user];
        let person = &people[&text(&link["email"])];
        for (name, column) in [
            ("account_tier", "account_tier"),
            ("churn_factors", "feature_importance"),
            ("model_encodings", "encodings"),
        ] {
            assert_eq!(person[name], row[column], "{name} of {user}");
        }
        assert_eq!(person["churn_risk_score"].as_f64(), number(&row["churn_risk_score"]), "{user}");
        let tickets = number(&row["support_tickets"]).map(f64::round);
        assert_eq!(person["support_tickets"].as_f64(), tickets, "{user}");
        assert_eq!(person["userId"], Value::from(user.as_str()), "the other identifier is a field of the profile");
    }
}

/// The first two runs write numbers, the third one texts.
fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.parse().ok())
}

/// Who belongs on the list at a version of the table, by Spark's account.
fn list_at(expected: &Path, version: u64) -> Vec<String> {
    let members = lake::rows(&expected.join(format!("retention_list.v{version}.ndjson")));
    let mut emails: Vec<String> = members.iter().map(|row| text(&row["email"])).collect();
    emails.sort();
    emails
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
