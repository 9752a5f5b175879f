//! The whole destination against the simulator, which was built from the vendor's documents by other hands and knows nothing of
//! this crate: what arrives there is what counts.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tailwater_core::delivery::{Delivery, Outcome};
use tailwater_simulators::klaviyo::{
    Disconnect, Effect, JobDuration, Options, PrescribedImportError, Prescription, Simulator,
};

use super::conformance::{conforms, settle};
use super::{
    KEY, account_config, config, confirm_all, deliver_all, delivery, email, klaviyo, owned, person, tally, upsert,
    upserts, words,
};
use crate::destination::Destination;
use crate::klaviyo::{Account, Config, Klaviyo, OnConflict};

async fn simulator(limits: bool) -> Simulator {
    let options = Options {
        api_key: KEY.to_owned(),
        limits,
        job_duration: JobDuration { base: Duration::from_millis(30), per_profile: Duration::from_micros(10) },
        lists: [("AAAAAA", "Winback"), ("BBBBBB", "Champions")]
            .map(|(id, name)| (id.to_owned(), name.to_owned()))
            .into(),
        ..Options::default()
    };
    Simulator::start(options).await.unwrap()
}

/// The score that the vendor has of a person.
fn ltv(simulator: &Simulator, number: usize) -> Option<Value> {
    simulator.profile("email", &email(number))?.pointer("/attributes/properties/ltv").cloned()
}

fn members(simulator: &Simulator, list: &str) -> usize {
    simulator
        .profiles()
        .iter()
        .filter(|profile| profile["lists"].as_array().unwrap().iter().any(|own| own == list))
        .count()
}

fn first_is(outcomes: &[Outcome], expected: &str) {
    assert_eq!(words(outcomes)[0], expected, "{outcomes:?}");
}

#[tokio::test]
async fn the_suite_passes_one_by_one_and_in_bulk() {
    let simulator = simulator(false).await;
    let klaviyo = klaviyo(&simulator.url(), config());
    conforms(&klaviyo, &upserts(&klaviyo, 2, &["AAAAAA", "BBBBBB"])).await;
    conforms(&klaviyo, &upserts(&klaviyo, 60, &["AAAAAA"])).await;
    let events: Vec<Delivery> = (0..5)
        .map(|number| {
            let profile = json!({"data": {"type": "profile", "attributes": {"email": email(number)}}});
            delivery(
                &klaviyo,
                number,
                &json!({"data": {"type": "event", "attributes": {"metric": "Score Fell", "profile": profile}}}),
            )
        })
        .collect();
    conforms(&klaviyo, &events).await;
    assert_eq!((simulator.events().len(), simulator.stats().events_repeated), (5, 5), "a repeated event is one event");
    assert_eq!((members(&simulator, "AAAAAA"), members(&simulator, "BBBBBB")), (60, 2));
    assert!((0..60).all(|number| ltv(&simulator, number) == Some(json!(number))));
    assert_eq!(simulator.stats().unknown, 0, "nothing but the documented requests was sent");
}

#[tokio::test]
async fn the_documented_limits_are_kept_before_the_vendor_has_to() {
    let simulator = simulator(true).await;
    let account = Account::new(&account_config(&simulator.url())).unwrap();
    let klaviyo = Klaviyo::new(Arc::new(account), Config { bulk_from: 1_000, ..config() }).unwrap();
    let outcomes = deliver_all(&klaviyo, &upserts(&klaviyo, 50, &["AAAAAA"]), &owned()).await;
    assert_eq!(tally(&outcomes), [("delivered".to_owned(), 50)].into());
    assert_eq!(simulator.stats().throttled, 0);
}

#[tokio::test]
async fn five_thousand_people_are_one_job_and_its_lists_are_exact() {
    let simulator = simulator(true).await;
    let account = Account::new(&account_config(&simulator.url())).unwrap();
    let klaviyo = Klaviyo::new(Arc::new(account), Config { bulk_from: 20, ..config() }).unwrap();
    let mut batch = upserts(&klaviyo, 5_000, &[]);
    for number in (0..5_000).step_by(50) {
        batch[number] = upsert(&klaviyo, number, &["AAAAAA"]);
    }
    let outcomes = deliver_all(&klaviyo, &batch, &owned()).await;
    assert_eq!(tally(&outcomes), [("accepted".to_owned(), 5_000)].into());
    assert_eq!(simulator.requests_to("POST", "/api/profile-bulk-import-jobs").len(), 2);
    let mut open = outcomes;
    // As the send stage does it: one poll a ticket, politely apart.
    for _ in 0..60 {
        let tickets: Vec<_> = open
            .iter()
            .filter_map(|outcome| if let Outcome::Accepted(ticket) = outcome { Some(ticket.clone()) } else { None })
            .collect();
        let Some(ticket) = tickets.first() else { break };
        let members: Vec<usize> =
            (0..open.len()).filter(|&index| matches!(&open[index], Outcome::Accepted(own) if own == ticket)).collect();
        let deliveries: Vec<_> = members.iter().map(|&index| batch[index].clone()).collect();
        for (index, outcome) in members.into_iter().zip(confirm_all(&klaviyo, ticket, &deliveries, &owned()).await) {
            open[index] = outcome;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(tally(&open), [("delivered".to_owned(), 5_000)].into());
    assert_eq!((simulator.stats().profiles, simulator.stats().throttled), (5_000, 0));
    assert_eq!(members(&simulator, "AAAAAA"), 100);
}

#[tokio::test]
async fn people_who_fail_in_a_job_are_the_only_ones_rejected() {
    let simulator = simulator(false).await;
    let klaviyo = klaviyo(&simulator.url(), config());
    for number in [3, 8] {
        let error = PrescribedImportError { code: "invalid".to_owned(), detail: "No such country.".to_owned() };
        simulator.prescribe(Prescription::new(Effect::ImportError(error)).naming(&email(number))).unwrap();
    }
    let outcomes = settle(&klaviyo, &upserts(&klaviyo, 10, &[]), &owned()).await;
    for (number, outcome) in outcomes.iter().enumerate() {
        let expected = if [3, 8].contains(&number) { "rejected job_item_failed" } else { "delivered" };
        assert_eq!(super::word(outcome), expected, "{number}: {outcome:?}");
        assert_eq!(ltv(&simulator, number).is_some(), expected == "delivered");
    }
}

#[tokio::test]
async fn a_cancelled_job_is_sent_again_and_lost_answers_do_no_harm() {
    let simulator = simulator(false).await;
    let klaviyo = klaviyo(&simulator.url(), config());
    let batch = upserts(&klaviyo, 10, &["AAAAAA"]);
    simulator.prescribe(Prescription::new(Effect::CancelJob)).unwrap();
    first_is(&settle(&klaviyo, &batch, &owned()).await, "retry job_cancelled");
    for breaks in [Disconnect::BeforeReading, Disconnect::AfterReading, Disconnect::AfterProcessing] {
        simulator
            .prescribe(Prescription::new(Effect::Disconnect(breaks)).on("POST", "/api/profile-bulk-import-jobs"))
            .unwrap();
        first_is(&settle(&klaviyo, &batch, &owned()).await, "retry vendor_unavailable");
    }
    first_is(&settle(&klaviyo, &batch, &owned()).await, "delivered");
    assert_eq!((simulator.stats().profiles, members(&simulator, "AAAAAA")), (10, 10));
}

#[tokio::test]
async fn a_person_whom_the_vendor_refuses_is_found_among_the_others() {
    let simulator = simulator(false).await;
    let klaviyo = klaviyo(&simulator.url(), config());
    let mut batch = upserts(&klaviyo, 30, &[]);
    // A phone number that is one for the profile and none for the vendor.
    let output = json!({"data": {"type": "profile", "attributes": {"phone_number": "12"}}});
    let raw = serde_json::value::RawValue::from_string(output["data"].to_string()).unwrap();
    batch[11].operation.body = raw;
    let outcomes = settle(&klaviyo, &batch, &owned()).await;
    assert_eq!(tally(&outcomes), [("delivered".to_owned(), 29), ("rejected vendor_rejected".to_owned(), 1)].into());
    assert_eq!(super::word(&outcomes[11]), "rejected vendor_rejected");
}

#[tokio::test]
async fn with_create_false_nobody_new_appears() {
    let simulator = simulator(false).await;
    let knows = klaviyo(&simulator.url(), config());
    settle(&knows, &upserts(&knows, 150, &[]), &owned()).await;
    let careful = klaviyo(&simulator.url(), Config { create: false, ..config() });
    let outcomes = settle(&careful, &upserts(&careful, 170, &["AAAAAA"]), &owned()).await;
    assert_eq!(tally(&outcomes), [("delivered".to_owned(), 150), ("skipped would_create".to_owned(), 20)].into());
    assert_eq!((simulator.stats().profiles, members(&simulator, "AAAAAA")), (150, 150));
}

#[tokio::test]
async fn two_people_at_the_vendor_are_not_merged() {
    let simulator = simulator(false).await;
    let klaviyo = klaviyo(&simulator.url(), Config { on_conflict: OnConflict::KeyOnly, ..config() });
    let own = person(1);
    let by = |field: &str, value: &str| {
        delivery(&klaviyo, 1, &json!({"data": {"type": "profile", "attributes": {field: value}}}))
    };
    for batch in [[by("email", &own[0].1)], [by("phone_number", &own[1].1)]] {
        assert_eq!(words(&deliver_all(&klaviyo, &batch, &owned()).await), ["delivered"]);
    }
    let both = json!({"data": {"type": "profile", "attributes": {"phone_number": own[1].1, "email": own[0].1, "properties": {"ltv": 7}}, "relationships": {"lists": ["AAAAAA"]}}});
    let outcomes = deliver_all(&klaviyo, &[delivery(&klaviyo, 1, &both)], &owned()).await;
    assert_eq!(words(&outcomes), ["delivered delivered_in_part"], "{outcomes:?}");
    assert_eq!(simulator.stats().profiles, 2);
    assert_eq!((ltv(&simulator, 1), members(&simulator, "AAAAAA")), (Some(json!(7)), 1));
}

#[tokio::test]
async fn the_probe_knows_a_good_key_from_a_wrong_one() {
    let simulator = simulator(true).await;
    klaviyo(&simulator.url(), config()).probe().await.unwrap();
    simulator.change(|options| options.api_key = "pk_another".to_owned());
    let error = klaviyo(&simulator.url(), config()).probe().await.unwrap_err();
    assert_eq!(error.code, tailwater_core::code::UNAUTHORIZED);
}
