//! The whole destination against the simulator, which was built from the vendor's documents and knows nothing of this crate: what arrives
//! there is what counts.

use serde_json::{Value, json};
use tailwater_core::delivery::Outcome;
use tailwater_simulators::customerio::{Options, Region, Simulator};
use tailwater_simulators::engine::{Disconnect, Effect, PrescribedAnswer, Prescription};

use super::conformance::conforms;
use super::{
    KEY, customerio, deliver_all, deliveries, delivery, event, join, owned, reason, relate, upserts, with_create, words,
};
use crate::customerio::Api;
use crate::destination::Destination;

async fn simulator() -> Simulator {
    let options = Options {
        secret_key: KEY.to_owned(),
        limits: false,
        segments: vec![("7".to_owned(), "Likely to upgrade".to_owned())],
        ..Options::default()
    };
    Simulator::start(options).await.unwrap()
}

fn attribute(simulator: &Simulator, number: usize, name: &str) -> Option<Value> {
    simulator.profile("id", &number.to_string())?["attributes"].get(name).cloned()
}

#[tokio::test]
async fn the_suite_passes_with_both_apis() {
    for api in [Api::Track, Api::Pipelines] {
        let simulator = simulator().await;
        let customerio = customerio(&simulator.url(), api);
        conforms(&customerio, &upserts(&customerio, 60)).await;
        let mut batch: Vec<_> = (0..20).map(|number| event(&customerio, number)).collect();
        batch.extend((20..40).map(|number| relate(&customerio, number, "acme")));
        if api == Api::Track {
            batch.extend((40..60).map(|number| join(&customerio, number, 7)));
        }
        conforms(&customerio, &batch).await;
        assert!((0..60).all(|number| attribute(&simulator, number, "score") == Some(json!(number))));
        assert_eq!(simulator.objects().len(), 1);
        assert_eq!(simulator.objects()[0]["people"].as_array().unwrap().len(), 20);
        if api == Api::Track {
            assert_eq!(
                (simulator.events().len(), simulator.stats().events_repeated),
                (20, 20),
                "a repeat is one event"
            );
            assert_eq!(simulator.list("7").unwrap()["count"], 20);
        }
        // The suite delivers twice; all that the vendor may drop is an event that it has already.
        let stats = simulator.stats();
        assert_eq!((stats.unknown, stats.dropped_silently), (0, stats.events_repeated));
    }
}

#[tokio::test]
async fn an_item_that_the_vendor_refuses_is_the_only_one_rejected() {
    for api in [Api::Track, Api::Pipelines] {
        let simulator = simulator().await;
        let customerio = customerio(&simulator.url(), api);
        let mut batch = upserts(&customerio, 30);
        // A value that passed the checks of another version of Tailwater.
        let body =
            batch[11].operation.body.get().replace(r#""score":11"#, &format!(r#""score":"{}""#, "x".repeat(1_001)));
        batch[11].operation.body = serde_json::value::RawValue::from_string(body).unwrap();
        let outcomes = deliver_all(&customerio, &batch, &owned()).await;
        for (number, word) in words(&outcomes).iter().enumerate() {
            assert_eq!(word, if number == 11 { "rejected vendor_rejected" } else { "delivered" }, "{api:?} {number}");
        }
        assert!(
            reason(&outcomes[11]).contains("attribute value cannot be longer than 1000 bytes"),
            "{:?}",
            outcomes[11]
        );
        assert_eq!(simulator.stats().profiles, 29);
    }
}

// Facts §4, C1: an update that is older than the last one is dropped by the vendor without a word.
#[tokio::test]
async fn an_update_that_comes_late_is_applied_because_it_has_no_time() {
    let simulator = simulator().await;
    let customerio = customerio(&simulator.url(), Api::Track);
    for (plan, time) in [("pro", 1_772_352_000), ("trial", 1_700_000_000)] {
        let output = json!({"type": "person", "identifiers": {"id": 1}, "action": "identify", "timestamp": time, "attributes": {"plan": plan}});
        let outcomes = deliver_all(&customerio, &[delivery(&customerio, 1, &output)], &owned()).await;
        assert_eq!(words(&outcomes), ["delivered delivered_in_part"]);
        assert_eq!(attribute(&simulator, 1, "plan"), Some(json!(plan)));
    }
    assert_eq!(simulator.stats().dropped_silently, 0);
}

#[tokio::test]
async fn an_event_in_milliseconds_happens_when_it_happened() {
    let simulator = simulator().await;
    let customerio = customerio(&simulator.url(), Api::Track);
    let output = json!({"type": "track", "userId": 1, "event": "x", "timestamp": 1_772_352_000_267_i64});
    let outcomes = deliver_all(&customerio, &[delivery(&customerio, 1, &output)], &owned()).await;
    assert_eq!(words(&outcomes), ["delivered delivered_in_part"]);
    assert_eq!(simulator.events()[0]["timestamp"], 1_772_352_000);
}

#[tokio::test]
async fn with_create_false_nobody_new_appears() {
    let simulator = simulator().await;
    let creating = customerio(&simulator.url(), Api::Track);
    deliver_all(&creating, &upserts(&creating, 10), &owned()).await;
    let careful = with_create(&simulator.url(), Api::Track, false);
    let outcomes = deliver_all(&careful, &upserts(&careful, 20), &owned()).await;
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Delivered), "the vendor does not say whom it ignores");
    assert_eq!(simulator.stats().profiles, 10);
    assert_eq!(attribute(&simulator, 3, "_update"), None);
}

#[tokio::test]
async fn a_relationship_arrives_before_its_account_and_both_are_there() {
    let simulator = simulator().await;
    let customerio = customerio(&simulator.url(), Api::Track);
    deliver_all(&customerio, &upserts(&customerio, 1), &owned()).await;
    deliver_all(&customerio, &[relate(&customerio, 0, "acme")], &owned()).await;
    let account = json!({"type": "object", "identifiers": {"object_type_id": "1", "object_id": "acme"}, "action": "identify", "attributes": {"plan": "pro"}});
    deliver_all(&customerio, &[delivery(&customerio, 5, &account)], &owned()).await;
    deliver_all(&customerio, &[relate(&customerio, 0, "acme")], &owned()).await;
    let objects = simulator.objects();
    assert_eq!((objects.len(), &objects[0]["attributes"]["plan"]), (1, &json!("pro")));
    assert_eq!(objects[0]["people"].as_array().unwrap().len(), 1);
    assert_eq!(simulator.profile("id", "0").unwrap()["relationships"][0]["attributes"], json!({"role": "admin"}));
    assert_eq!(simulator.stats().dropped_silently, 0);
}

#[tokio::test]
async fn two_people_become_one_only_by_a_merge() {
    let simulator = simulator().await;
    let customerio = customerio(&simulator.url(), Api::Track);
    let by_email = json!({"type": "person", "identifiers": {"email": super::email(1)}, "action": "identify", "attributes": {"trial": true}});
    deliver_all(&customerio, &[delivery(&customerio, 1, &by_email)], &owned()).await;
    let merge =
        json!({"type": "person", "action": "merge", "primary": {"id": 1}, "secondary": {"email": super::email(1)}});
    let outcomes = deliver_all(&customerio, &[delivery(&customerio, 1, &merge)], &owned()).await;
    assert_eq!(words(&outcomes), ["delivered"]);
    assert_eq!(
        (simulator.stats().profiles, simulator.stats().dropped_silently),
        (1, 0),
        "the primary person was made sure of"
    );
    assert_eq!(attribute(&simulator, 1, "trial"), Some(json!(true)));
}

#[tokio::test]
async fn devices_suppression_and_deletion_reach_the_vendor() {
    let simulator = simulator().await;
    let customerio = customerio(&simulator.url(), Api::Track);
    deliver_all(&customerio, &upserts(&customerio, 2), &owned()).await;
    let device = json!({"type": "person", "identifiers": {"id": 0}, "action": "add_device", "device": {"token": "t-1", "platform": "ios"}});
    let suppress = json!({"type": "track", "userId": 1, "event": "User Suppressed"});
    let batch = [delivery(&customerio, 0, &device), delivery(&customerio, 1, &suppress)];
    assert_eq!(words(&deliver_all(&customerio, &batch, &owned()).await), ["delivered"; 2]);
    assert!(simulator.profile("id", "0").unwrap()["devices"].get("t-1").is_some());
    assert!(simulator.profile("id", "1").is_none());
    let delete = json!({"type": "person", "identifiers": {"id": 0}, "action": "delete"});
    deliver_all(&customerio, &[delivery(&customerio, 0, &delete)], &owned()).await;
    assert_eq!(simulator.stats().profiles, 0);
}

#[tokio::test]
async fn a_group_call_makes_an_object_and_a_relationship_with_both_apis() {
    for api in [Api::Track, Api::Pipelines] {
        let simulator = simulator().await;
        let customerio = customerio(&simulator.url(), api);
        deliver_all(&customerio, &upserts(&customerio, 1), &owned()).await;
        let group = json!({"type": "group", "userId": 0, "groupId": "acme", "traits": {"plan": "pro", "relationshipAttributes": {"role": "admin"}}});
        for delivery in deliveries(&customerio, 0, &group) {
            assert_eq!(words(&deliver_all(&customerio, &[delivery], &owned()).await), ["delivered"], "{api:?}");
        }
        assert_eq!(simulator.objects()[0]["attributes"]["plan"], "pro", "{api:?}");
        assert_eq!(
            simulator.profile("id", "0").unwrap()["relationships"][0]["attributes"],
            json!({"role": "admin"}),
            "{api:?}"
        );
    }
}

#[tokio::test]
async fn a_lost_answer_and_a_junk_answer_do_no_harm() {
    let simulator = simulator().await;
    let customerio = customerio(&simulator.url(), Api::Track);
    let batch: Vec<_> = (0..5).map(|number| event(&customerio, number)).collect();
    let attempt = async || words(&deliver_all(&customerio, &batch, &owned()).await);
    for breaks in [Disconnect::BeforeReading, Disconnect::AfterReading, Disconnect::AfterProcessing] {
        simulator.prescribe(Prescription::new(Effect::Disconnect(breaks))).unwrap();
        assert_eq!(attempt().await, ["retry vendor_unavailable"; 5]);
    }
    let junk =
        PrescribedAnswer { status: 502, headers: Vec::new(), body: json!("<html>Bad gateway</html>"), delay_ms: 0 };
    simulator.prescribe(Prescription::new(Effect::Answer(junk))).unwrap();
    assert_eq!(attempt().await, ["retry vendor_unavailable"; 5]);
    assert_eq!(attempt().await, ["delivered"; 5]);
    assert_eq!(simulator.events().len(), 5, "sent more than once, recorded once");
}

#[tokio::test]
async fn the_probe_knows_a_good_key_from_a_wrong_one_and_the_other_region() {
    let simulator = simulator().await;
    for api in [Api::Track, Api::Pipelines] {
        customerio(&simulator.url(), api).probe().await.unwrap();
    }
    simulator.change(|options| options.region = Region::Eu);
    let outcomes = deliver_all(
        &customerio(&simulator.url(), Api::Track),
        &upserts(&customerio(&simulator.url(), Api::Track), 1),
        &owned(),
    )
    .await;
    assert!(reason(&outcomes[0]).contains("write `region: eu`"), "{outcomes:?}");
    simulator.change(|options| (options.region, options.secret_key) = (Region::Us, "sk_another".to_owned()));
    let error = customerio(&simulator.url(), Api::Track).probe().await.unwrap_err();
    assert_eq!(error.code, tailwater_core::code::UNAUTHORIZED);
}
