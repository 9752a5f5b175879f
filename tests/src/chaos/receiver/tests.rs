//! The receiver over real HTTP.

use std::time::Duration;

use reqwest::Client;
use serde_json::{Value, json};
use tailwater_simulators::klaviyo::Prescription;

use super::*;
use crate::runtime;
use crate::wait::eventually;

/// A client that gives up soon.
fn client() -> Client {
    Client::builder().timeout(Duration::from_millis(300)).build().unwrap()
}

fn profile(person: u32, property: &str, seq: u32) -> Value {
    json!({"type": "profile", "attributes": {
        "email": format!("p{person}@example.com"), "properties": {"person": person, property: seq},
    }})
}

fn event(person: u32, seq: u32, unique: &str) -> Value {
    json!({"data": {"type": "event", "attributes": {
        "properties": {"person": person, "seq": seq},
        "unique_id": unique,
        "metric": {"data": {"type": "metric", "attributes": {"name": METRIC}}},
        "profile": {"data": {"type": "profile", "attributes": {"email": format!("p{person}@example.com")}}},
    }}})
}

/// The status and the body of the answer; 0 if there was none.
async fn post(receiver: &Receiver, path: &str, body: Value) -> (u16, Value) {
    let request = client()
        .post(format!("{}{path}", receiver.url()))
        .header("authorization", format!("Klaviyo-API-Key {DEFAULT_API_KEY}"))
        .header("revision", "2026-07-15")
        .header("content-type", "application/vnd.api+json")
        .body(body.to_string());
    match request.send().await {
        Ok(response) => {
            (response.status().as_u16(), serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or_default())
        }
        Err(_) => (0, Value::Null),
    }
}

fn upsert(receiver: &Receiver, profile: Value) -> u16 {
    runtime().block_on(post(receiver, "/api/profile-import", json!({"data": profile}))).0
}

fn import(receiver: &Receiver, profiles: Vec<Value>) -> (u16, Value) {
    let body = json!({"data": {"type": "profile-bulk-import-job", "attributes": {"profiles": {"data": profiles}}}});
    runtime().block_on(post(receiver, "/api/profile-bulk-import-jobs", body))
}

fn track(receiver: &Receiver, event: Value) -> u16 {
    runtime().block_on(post(receiver, "/api/events", event)).0
}

fn scripted(person: u32, steps: &[Step]) -> Receiver {
    Receiver::start(Options { scripts: vec![Script { person, steps: steps.to_vec() }], ..Options::default() })
}

/// The arrivals once every answer is settled.
fn arrivals(receiver: &Receiver) -> Vec<Arrival> {
    eventually("the answers have left", Duration::from_secs(10), || {
        let arrivals = receiver.arrivals();
        match arrivals.iter().find(|arrival| arrival.answer == Answer::None) {
            None => Ok(arrivals),
            Some(open) => Err(format!("{open:?}")),
        }
    })
}

fn item(kind: Kind, person: u32, seq: u32) -> Item {
    Item { kind, person, seq }
}

#[test]
fn every_kind_is_told_by_its_property() {
    let receiver = Receiver::start(Options::default());
    assert_eq!(upsert(&receiver, profile(7, "activity_seq", 1)), 201);
    assert_eq!(upsert(&receiver, profile(7, "score_seq", 2)), 200);
    assert_eq!(track(&receiver, event(7, 3, "7-3")), 202);
    let arrivals = arrivals(&receiver);
    let items: Vec<Item> = arrivals.iter().map(|arrival| arrival.item).collect();
    assert_eq!(items, [item(Kind::Activity, 7, 1), item(Kind::Score, 7, 2), item(Kind::Track, 7, 3)]);
    assert!(arrivals.iter().all(|arrival| {
        arrival.took_effect && arrival.answer == Answer::Success && arrival.answered >= Some(arrival.at)
    }));
    let requests: Vec<u64> = arrivals.iter().map(|arrival| arrival.request).collect();
    assert_eq!(requests, [1, 2, 3]);
}

#[test]
fn the_people_of_a_job_arrive_with_it_and_take_effect_when_it_is_over() {
    let duration = JobDuration { base: Duration::from_secs(1), per_profile: Duration::ZERO };
    let receiver = Receiver::start(Options { job_duration: duration, ..Options::default() });
    assert_eq!(import(&receiver, vec![profile(1, "activity_seq", 1), profile(2, "activity_seq", 1)]).0, 202);
    let before = arrivals(&receiver);
    assert_eq!(before.len(), 2);
    assert!(before.iter().all(|arrival| !arrival.took_effect && arrival.answer == Answer::Success));
    assert_eq!(upsert(&receiver, profile(3, "activity_seq", 1)), 201);
    let after = eventually("the job is over", Duration::from_secs(10), || {
        let arrivals = receiver.arrivals();
        if arrivals.iter().all(|arrival| arrival.took_effect) { Ok(arrivals) } else { Err(format!("{arrivals:?}")) }
    });
    let effect_after: Vec<Option<usize>> = after.iter().map(|arrival| arrival.effect_after).collect();
    assert_eq!(effect_after, [Some(3), Some(3), Some(3)], "the jobs take effect behind the arrival of the upsert");
    assert!(after[0].request == after[1].request && after[2].request != after[0].request);
}

#[test]
fn a_cancelled_job_and_a_person_who_failed_in_one_have_no_effect() {
    let duration = JobDuration { base: Duration::ZERO, per_profile: Duration::ZERO };
    let receiver = Receiver::start(Options { job_duration: duration, ..Options::default() });
    let prescribe = |written: Value| {
        let prescription: Prescription = serde_json::from_value(written).unwrap();
        receiver.simulator().prescribe(prescription).unwrap();
    };
    prescribe(json!({"cancel_job": true}));
    import(&receiver, vec![profile(1, "activity_seq", 1)]);
    prescribe(json!({"import_error": {}, "identifier": "p3@example.com"}));
    import(
        &receiver,
        vec![profile(2, "activity_seq", 1), profile(3, "activity_seq", 1), profile(4, "activity_seq", 1)],
    );
    let effects: Vec<bool> = arrivals(&receiver).iter().map(|arrival| arrival.took_effect).collect();
    assert_eq!(effects, [false, true, false, true]);
}

#[test]
fn scripts_are_played_and_what_happened_is_written_down() {
    let steps = [
        Step::Status(500),
        Step::RetryAfter { status: 429, seconds: 1 },
        Step::TimeOut,
        Step::DisconnectAfterReading,
        Step::DisconnectAfterProcessing,
        Step::Ok,
    ];
    let receiver = scripted(7, &steps);
    let statuses: Vec<u16> = (0..7).map(|_| upsert(&receiver, profile(7, "activity_seq", 1))).collect();
    assert_eq!(statuses, [500, 429, 0, 0, 0, 200, 200]);
    let seen: Vec<(Answer, bool)> =
        arrivals(&receiver).iter().map(|arrival| (arrival.answer, arrival.took_effect)).collect();
    let expected = [
        (Answer::Failure(500), false),
        (Answer::Failure(429), false),
        (Answer::Broken, false),
        (Answer::Broken, false),
        (Answer::Broken, true),
        (Answer::Success, true),
        (Answer::Success, true),
    ];
    assert_eq!(seen, expected);
    let stats = receiver.stats();
    assert_eq!((stats.requests, stats.succeeded, stats.failed, stats.broken, stats.scripted), (7, 2, 2, 3, 5));
    assert_eq!(receiver.steps_left(), 0);
}

#[test]
fn a_refusal_points_at_the_guilty_in_a_job_and_nobody_else_is_rejected() {
    let receiver = scripted(2, &[Step::Reject(400)]);
    let people = || (1..=3).map(|person| profile(person, "activity_seq", 5)).collect::<Vec<Value>>();
    let (status, body) = import(&receiver, people());
    assert_eq!(status, 400);
    assert_eq!(body["errors"].as_array().map(Vec::len), Some(1));
    assert_eq!(body["errors"][0]["source"]["pointer"], "/data/attributes/profiles/data/1/attributes/email");
    assert_eq!(receiver.rejected(), [item(Kind::Activity, 2, 5)]);
    let refused: Vec<bool> = arrivals(&receiver).iter().map(|arrival| arrival.refused).collect();
    assert_eq!(refused, [false, true, false]);
    assert_eq!(import(&receiver, people()).0, 202, "the script is over");
}

#[test]
fn a_single_person_is_refused_with_a_pointer() {
    let receiver = scripted(2, &[Step::Reject(400)]);
    let body = json!({"data": profile(2, "score_seq", 5)});
    let (status, body) = runtime().block_on(post(&receiver, "/api/profile-import", body));
    assert_eq!((status, &body["errors"][0]["source"]["pointer"]), (400, &json!("/data/attributes/email")));
    assert_eq!(arrivals(&receiver)[0].answer, Answer::Failure(400));
    assert_eq!(receiver.rejected(), [item(Kind::Score, 2, 5)]);
}

#[test]
fn what_does_not_belong_to_the_workload_is_a_stray() {
    let receiver = Receiver::start(Options::default());
    let mut wrong = profile(7, "activity_seq", 1);
    wrong["attributes"]["email"] = json!("p8@example.com");
    upsert(&receiver, wrong);
    upsert(&receiver, json!({"type": "profile", "attributes": {"email": "p7@example.com"}}));
    upsert(&receiver, profile(7, "other_seq", 1));
    let mut other_metric = event(7, 1, "7-1");
    other_metric["data"]["attributes"]["metric"]["data"]["attributes"]["name"] = json!("Opened");
    track(&receiver, other_metric);
    upsert(&receiver, json!(5));
    let strays: Vec<String> =
        arrivals(&receiver).iter().map(|arrival| arrival.stray.as_deref().unwrap_or("none").to_owned()).collect();
    assert_eq!(strays[0], "it is about the wrong person: its email is `p8@example.com`, not `p7@example.com`");
    assert_eq!(strays[1], "its person is null; its email is `p7@example.com`");
    assert_eq!(strays[2], "its sequence number is null; its email is `p7@example.com`");
    assert_eq!(strays[3], "its metric is `Opened`");
    assert!(strays[4].starts_with("its body cannot be read"), "{}", strays[4]);
    assert_eq!(receiver.stats().strays, 5);
}

#[test]
fn a_repeat_is_told_by_its_unique_id() {
    let receiver = Receiver::start(Options::default());
    for unique in ["7-1", "7-1", "7-one"] {
        track(&receiver, event(7, 1, unique));
    }
    let keys: Vec<Option<u64>> = arrivals(&receiver).iter().map(|arrival| arrival.key).collect();
    assert!(keys[0].is_some() && keys[0] == keys[1] && keys[2] != keys[0]);
}

#[test]
fn an_answer_that_the_client_did_not_wait_for_is_broken() {
    let receiver = Receiver::start(Options::default());
    let delayed: Prescription = serde_json::from_value(json!({"delay_ms": 30_000})).unwrap();
    receiver.simulator().prescribe(delayed).unwrap();
    assert_eq!(upsert(&receiver, profile(7, "activity_seq", 1)), 0);
    let arrival = &arrivals(&receiver)[0];
    assert_eq!((arrival.answer, arrival.took_effect), (Answer::Broken, true));
}

#[test]
fn a_large_job_answers_whole_and_keeps_nothing_open() {
    let duration = JobDuration { base: Duration::ZERO, per_profile: Duration::ZERO };
    let scripts = (10_000..10_100).map(|person| Script { person, steps: vec![Step::Status(500)] }).collect();
    let receiver = Receiver::start(Options { job_duration: duration, scripts, ..Options::default() });
    let people: Vec<Value> = (0..1_000).map(|person| profile(person, "activity_seq", 1)).collect();
    assert_eq!(import(&receiver, people).0, 202);
    let arrivals = arrivals(&receiver);
    assert_eq!(arrivals.len(), 1_000);
    assert!(arrivals.iter().all(|arrival| arrival.took_effect && arrival.answer == Answer::Success));
    assert_eq!(receiver.book.open_requests(), 0);
    assert!(receiver.simulator().requests().is_empty(), "nothing is kept of the bodies");
}
