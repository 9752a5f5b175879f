//! Issue 10: what becomes of a batch over several attempts, when a limit, a person or a step stands in the way of some. The driver does
//! what the send stage does: it numbers attempts, gives up a delivery that failed by itself too often, asks for jobs, and stops
//! everything only for trouble of the account.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tailwater_core::delivery::{Delivery, Outcome, Scope};
use tailwater_simulators::klaviyo::{
    Disconnect, Effect, JobDuration, Options, PrescribedAnswer, Prescription, Simulator, Tier, Tiers,
};

use super::{KEY, account_config, config, confirm_all, deliver_all, delivery, email, klaviyo, owned, upsert, upserts};
use crate::destination::Destination;
use crate::http::Window;
use crate::klaviyo::{Account, Config, Klaviyo};

/// As the configuration's default.
const ATTEMPTS_MAX: u32 = 8;

async fn simulator(limits: bool, steady: u32) -> Simulator {
    let options = Options {
        api_key: KEY.to_owned(),
        limits,
        tiers: Tiers { l: Tier { burst: 75, steady }, ..Tiers::default() },
        job_duration: JobDuration { base: Duration::from_millis(5), per_profile: Duration::ZERO },
        lists: vec![("AAAAAA".to_owned(), "Winback".to_owned())],
        ..Options::default()
    };
    Simulator::start(options).await.unwrap()
}

/// Drives a batch for some rounds without waiting between them, and answers what has become of each delivery, and in which round.
async fn drive(klaviyo: &Klaviyo, mut batch: Vec<Delivery>, rounds: usize) -> Vec<Option<(usize, Outcome)>> {
    let mut ends: Vec<Option<(usize, Outcome)>> = vec![None; batch.len()];
    let mut failures: BTreeMap<usize, u32> = BTreeMap::new();
    for round in 1..=rounds {
        let open: Vec<usize> = (0..batch.len()).filter(|&index| ends[index].is_none()).collect();
        if open.is_empty() {
            break;
        }
        let deliveries: Vec<Delivery> = open.iter().map(|&index| batch[index].clone()).collect();
        let mut outcomes = deliver_all(klaviyo, &deliveries, &owned()).await;
        while let Some(ticket) = outcomes.iter().find_map(|outcome| match outcome {
            Outcome::Accepted(ticket) => Some(ticket.clone()),
            _ => None,
        }) {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let of_job: Vec<usize> = (0..outcomes.len())
                .filter(|&place| matches!(&outcomes[place], Outcome::Accepted(own) if *own == ticket))
                .collect();
            let members: Vec<Delivery> = of_job.iter().map(|&place| deliveries[place].clone()).collect();
            for (place, outcome) in of_job.into_iter().zip(confirm_all(klaviyo, &ticket, &members, &owned()).await) {
                outcomes[place] = outcome;
            }
        }
        for (index, outcome) in open.into_iter().zip(outcomes) {
            match &outcome {
                Outcome::Retry { scope, .. } => {
                    batch[index].attempt += 1;
                    let failed = failures.entry(index).or_default();
                    *failed += u32::from(*scope == Scope::Delivery);
                    if *failed >= ATTEMPTS_MAX {
                        ends[index] = Some((round, outcome));
                    }
                }
                _ => ends[index] = Some((round, outcome)),
            }
        }
    }
    ends
}

fn delivered(ends: &[Option<(usize, Outcome)>], by_round: usize) -> usize {
    ends.iter().filter(|end| matches!(end, Some((round, Outcome::Delivered)) if *round <= by_round)).count()
}

/// Upserts of each person that the vendor carried out, one by one.
fn single_upserts(simulator: &Simulator) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for request in simulator.requests_to("POST", "/api/profile-import") {
        if (200..300).contains(&request.status) {
            let email = request.body["data"]["attributes"]["email"].as_str().unwrap().to_owned();
            *counts.entry(email).or_default() += 1;
        }
    }
    counts
}

fn prescribed(status: u16, headers: &[(&str, &str)], body: Value) -> Effect {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Effect::Answer(PrescribedAnswer { status, headers, body, delay_ms: 0 })
}

#[tokio::test]
async fn few_people_with_a_list_do_not_starve_thousands_when_their_endpoint_is_throttled() {
    let simulator = simulator(true, 10).await;
    let account = Arc::new(Account::new(&account_config(&simulator.url())).unwrap());
    let klaviyo = Klaviyo::new(account, Config { bulk_from: 20, ..config() }).unwrap();
    let mut batch = upserts(&klaviyo, 3_015, &[]);
    for (number, delivery) in batch.iter_mut().enumerate().take(15) {
        *delivery = upsert(&klaviyo, number, &["AAAAAA"]);
    }
    let ends = drive(&klaviyo, batch, 1).await;
    assert_eq!(delivered(&ends, 1), 3_015, "with the first call: those without room go as a job");
    assert!(single_upserts(&simulator).values().all(|count| *count == 1), "no upsert is repeated");
    assert_eq!(simulator.list("AAAAAA").unwrap()["count"], 15);
}

#[tokio::test]
async fn an_upsert_that_succeeded_is_not_repeated_because_the_list_call_did_not() {
    let throttled = prescribed(429, &[("retry-after", "0")], Value::Null);
    for (trouble, times) in
        [(throttled, 2), (prescribed(500, &[], Value::Null), 4), (Effect::Disconnect(Disconnect::AfterReading), 3)]
    {
        let simulator = simulator(false, 0).await;
        let klaviyo = klaviyo(&simulator.url(), Config { bulk_from: 20, ..config() });
        simulator.prescribe(Prescription::new(trouble.clone()).on("POST", "/api/lists/*").times(times)).unwrap();
        let ends = drive(&klaviyo, upserts(&klaviyo, 10, &["AAAAAA"]), 12).await;
        assert_eq!(delivered(&ends, 12), 10, "{trouble:?}: {ends:?}");
        assert_eq!(single_upserts(&simulator).len(), 10);
        assert!(single_upserts(&simulator).values().all(|count| *count == 1), "{trouble:?}");
        assert_eq!(simulator.list("AAAAAA").unwrap()["count"], 10);
    }
}

#[tokio::test]
async fn a_call_with_more_single_requests_than_there_is_room_for_lets_others_go_on() {
    let simulator = simulator(false, 0).await;
    let account = Account::new(&account_config(&simulator.url())).unwrap();
    account.0.limiter.set_every_rate(vec![Window::per_second(20)]);
    let mut klaviyo = Klaviyo::new(Arc::new(account), Config { bulk_from: 1_000, ..config() }).unwrap();
    klaviyo.sender.call_time_max = Duration::from_millis(500);
    let start = std::time::Instant::now();
    let batch = upserts(&klaviyo, 200, &[]);
    let outcomes = deliver_all(&klaviyo, &batch, &owned()).await;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let sent = outcomes.iter().filter(|outcome| **outcome == Outcome::Delivered).count();
    assert!((1..100).contains(&sent), "{sent}");
    for outcome in outcomes.iter().filter(|outcome| **outcome != Outcome::Delivered) {
        assert!(
            matches!(outcome, Outcome::Retry { reason, .. } if reason.code == tailwater_core::code::NOT_SENT),
            "{outcome:?}"
        );
    }
    assert_eq!(single_upserts(&simulator).len(), sent, "whoever is not sent is not sent");
}

/// Rows that some requests stumble over, at positions of every kind.
fn poisons(count: usize) -> Vec<Vec<usize>> {
    vec![vec![7], vec![0, count - 1], vec![3, 4], (0..count).step_by(count / 2).collect()]
}

#[tokio::test]
async fn a_row_that_the_vendor_always_fails_at_keeps_nobody_else() {
    let hang_up = || Effect::Disconnect(Disconnect::AfterReading);
    let troubles: [(&str, &dyn Fn() -> Effect); 3] = [
        ("500", &|| prescribed(500, &[], Value::Null)),
        ("503", &|| prescribed(503, &[("retry-after", "1")], Value::Null)),
        ("no answer", &hang_up),
    ];
    for (name, trouble) in troubles {
        for (count, bulk_from) in [(21, 20), (21, 1_000), (300, 20)] {
            for poison in poisons(count) {
                let simulator = simulator(false, 0).await;
                let klaviyo = klaviyo(&simulator.url(), Config { bulk_from, ..config() });
                for number in &poison {
                    simulator
                        .prescribe(
                            Prescription::new(trouble())
                                .on("POST", "/api/profile*")
                                .naming(&email(*number))
                                .times(100_000),
                        )
                        .unwrap();
                }
                let ends = drive(&klaviyo, upserts(&klaviyo, count, &[]), 20).await;
                let what = format!("{name}, {count} people, {poison:?}");
                assert_eq!(delivered(&ends, 6), count - poison.len(), "{what}: soon");
                for number in &poison {
                    assert!(
                        matches!(&ends[*number], Some((_, Outcome::Retry { scope: Scope::Delivery, .. }))),
                        "{what}: given up: {:?}",
                        ends[*number]
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn a_row_that_fails_alone_waits_without_being_given_up() {
    let simulator = simulator(false, 0).await;
    let klaviyo = klaviyo(&simulator.url(), config());
    simulator.prescribe(Prescription::status(500).on("POST", "/api/profile*").times(100_000)).unwrap();
    // Nothing shows that it is the row, and not the vendor.
    assert_eq!(drive(&klaviyo, upserts(&klaviyo, 1, &[]), 30).await, [None]);
}

#[tokio::test]
async fn an_outage_gives_nobody_up_and_costs_few_requests() {
    for bulk_from in [20, 10_000] {
        let simulator = simulator(false, 0).await;
        let klaviyo = klaviyo(&simulator.url(), Config { bulk_from, ..config() });
        simulator.prescribe(Prescription::status(500).on("POST", "/api/profile*").times(100_000)).unwrap();
        let batch = upserts(&klaviyo, 500, &[]);
        let ends = drive(&klaviyo, batch.clone(), 20).await;
        assert!(ends.iter().all(Option::is_none), "nobody is given up");
        assert!(simulator.requests().len() <= 20 * 10, "{}", simulator.requests().len());
        simulator.clear_prescriptions();
        assert_eq!(delivered(&drive(&klaviyo, batch, 3).await, 3), 500);
    }
}

#[tokio::test]
async fn a_job_that_is_always_cancelled_for_one_person_is_split_until_it_is_not() {
    let simulator = simulator(false, 0).await;
    let klaviyo = klaviyo(&simulator.url(), config());
    simulator.prescribe(Prescription::new(Effect::CancelJob).times(3)).unwrap();
    let ends = drive(&klaviyo, upserts(&klaviyo, 40, &[]), 6).await;
    assert_eq!(delivered(&ends, 6), 40, "{ends:?}");
}

#[tokio::test]
async fn a_null_clears_a_field_whatever_the_size_of_the_batch() {
    for count in [2, 40] {
        let simulator = simulator(false, 0).await;
        let klaviyo = klaviyo(&simulator.url(), Config { bulk_from: 20, nulls: crate::Nulls::Clear, ..config() });
        let rows = |attributes: &dyn Fn(usize) -> Value| -> Vec<Delivery> {
            (0..count)
                .map(|number| {
                    delivery(&klaviyo, number, &json!({"data": {"type": "profile", "attributes": attributes(number)}}))
                })
                .collect()
        };
        let first = rows(
            &|number| json!({"email": email(number), "title": "Dr", "location": {"city": "Ulm"}, "properties": {"note": "x", "kept": 1, "nested": {"a": 1}}}),
        );
        assert_eq!(delivered(&drive(&klaviyo, first, 1).await, 1), count);
        let second = rows(&|number| match number % 4 {
            0 => json!({"email": email(number), "properties": {"note": null}}),
            1 => json!({"email": email(number), "title": null, "properties": {"note": null}}),
            2 => json!({"email": email(number), "location": {"city": null}, "properties": {"note": null}}),
            _ => json!({"email": email(number), "properties": {"note": null, "nested": {"a": null}}}),
        });
        assert_eq!(delivered(&drive(&klaviyo, second, 1).await, 1), count);
        for number in 0..count {
            let profile = simulator.profile("email", &email(number)).unwrap();
            let at = |pointer: &str| profile.pointer(pointer).cloned().unwrap_or_default();
            assert_eq!(at("/attributes/properties/note"), Value::Null, "{number}");
            assert_eq!(at("/attributes/properties/kept"), json!(1), "{number}");
            assert_eq!(at("/attributes/title").is_null(), number % 4 == 1, "{number}");
            assert_eq!(at("/attributes/location/city").is_null(), number % 4 == 2, "{number}");
        }
        for job in simulator.requests_to("POST", "/api/profile-bulk-import-jobs") {
            assert!(!job.body.to_string().contains("null"), "{}", job.body);
        }
    }
}

#[tokio::test]
async fn with_key_only_and_create_false_a_conflict_creates_nobody() {
    let simulator = simulator(false, 0).await;
    let own = super::person(1);
    // Two profiles of one person, neither with the key of the delivery.
    let loose = klaviyo(&simulator.url(), config());
    for (field, value) in [("phone_number", &own[1].1), ("external_id", &own[2].1)] {
        let output = json!({"data": {"type": "profile", "attributes": {field: value}}});
        assert_eq!(delivered(&drive(&loose, vec![delivery(&loose, 1, &output)], 1).await, 1), 1);
    }
    let strict = Config { create: false, on_conflict: crate::klaviyo::OnConflict::KeyOnly, ..config() };
    let klaviyo = klaviyo(&simulator.url(), strict);
    let all = json!({"data": {"type": "profile", "attributes": {"email": own[0].1, "phone_number": own[1].1, "external_id": own[2].1}}});
    let ends = drive(&klaviyo, vec![delivery(&klaviyo, 1, &all)], 1).await;
    assert!(
        matches!(&ends[0], Some((_, Outcome::Rejected(reason))) if reason.code == tailwater_core::code::DUPLICATE_PROFILE),
        "{ends:?}"
    );
    assert_eq!(simulator.stats().profiles, 2);
}

#[tokio::test]
async fn the_probe_asks_for_the_scope_that_was_missing_and_names_it() {
    let simulator = simulator(false, 0).await;
    let all = ["profiles:read", "profiles:write", "lists:read", "lists:write", "events:write"];
    let without = |missing: &str| -> Vec<String> {
        all.iter().filter(|scope| **scope != missing).map(|scope| (*scope).to_owned()).collect()
    };
    for missing in all {
        simulator.reset();
        simulator.change(|options| options.scopes = Some(without(missing)));
        let klaviyo =
            klaviyo(&simulator.url(), Config { create: missing != "profiles:read", bulk_from: 3, ..config() });
        let profile = json!({"data": {"type": "profile", "attributes": {"email": email(0)}}});
        let event = json!({"data": {"type": "event", "attributes": {"metric": "M", "profile": profile}}});
        let batch = match missing {
            "events:write" => vec![delivery(&klaviyo, 0, &event)],
            _ => upserts(&klaviyo, 3, &["AAAAAA"]),
        };
        let mut outcomes = deliver_all(&klaviyo, &batch, &owned()).await;
        if let Outcome::Accepted(ticket) = &outcomes[0] {
            let ticket = ticket.clone();
            outcomes = confirm_all(&klaviyo, &ticket, &batch, &owned()).await;
        }
        let Outcome::Retry { scope: Scope::Credentials, reason, .. } = &outcomes[0] else {
            panic!("{missing}: {outcomes:?}")
        };
        assert!(reason.message.contains(&format!("`{missing}`")), "{missing}: {}", reason.message);
        // A job that was taken may still be running.
        tokio::time::sleep(Duration::from_millis(30)).await;
        let before = (simulator.stats().profiles, simulator.events().len());
        for _ in 0..2 {
            let error = klaviyo.probe().await.expect_err(missing);
            assert!(error.message.contains(&format!("`{missing}`")), "{missing}: {error}");
        }
        simulator.change(|options| options.scopes = None);
        klaviyo.probe().await.unwrap();
        assert_eq!((simulator.stats().profiles, simulator.events().len()), before, "a probe changes nothing");
    }
}
