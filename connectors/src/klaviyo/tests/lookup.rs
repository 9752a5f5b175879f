use serde_json::{Value, json};
use tailwater_core::delivery::{Outcome, Scope};

use super::server::{Reply, Server};
use super::{config, deliver_all, delivery, email, klaviyo, owned, person, tally, upserts, words};
use crate::klaviyo::Config;

fn careful() -> Config {
    Config { create: false, bulk_from: 1_000, ..config() }
}

/// A vendor that knows the people for whom `knows` holds, by email and by external id.
async fn knowing(knows: fn(usize) -> bool) -> Server {
    Server::start(move |received, _| {
        if received.path != "/api/profiles" {
            return Reply::json(200, &json!({"data": {"type": "profile", "id": "01", "attributes": {}}}));
        }
        let filter = &received.query["filter"];
        let found: Vec<_> = (0..500)
            .filter(|&number| knows(number))
            .filter(|&number| filter.contains(&format!("\"{}\"", email(number))) || filter.contains(&format!("\"cust_{number}\"")))
            .map(|number| json!({"type": "profile", "id": "01", "attributes": {"email": email(number).to_uppercase(), "external_id": format!("cust_{number}"), "phone_number": null}}))
            .collect();
        assert!(found.len() <= 100);
        Reply::json(200, &json!({"data": found, "links": {"self": "https://a.klaviyo.com/x"}}))
    })
    .await
}

#[tokio::test]
async fn unknown_people_are_skipped_and_never_sent() {
    let server = knowing(|number| number % 2 == 0).await;
    let klaviyo = klaviyo(server.url(), careful());
    let outcomes = deliver_all(&klaviyo, &upserts(&klaviyo, 6, &[]), &owned()).await;
    assert_eq!(
        words(&outcomes),
        ["delivered", "skipped would_create", "delivered", "skipped would_create", "delivered", "skipped would_create"]
    );
    let lookups = server.received_at("/api/profiles");
    assert_eq!(lookups.len(), 1);
    assert!(lookups[0].query["filter"].starts_with("any(email,[\"person0@example.com\","), "{:?}", lookups[0].query);
    assert_eq!(server.received_at("/api/profile-import").len(), 3);
}

#[tokio::test]
async fn people_are_asked_for_by_the_hundred_and_remembered_when_found() {
    let server = knowing(|number| number != 7).await;
    let klaviyo = klaviyo(server.url(), Config { bulk_from: 2, ..careful() });
    let batch = upserts(&klaviyo, 250, &[]);
    for asked in [3, 4] {
        let outcomes = deliver_all(&klaviyo, &batch, &owned()).await;
        assert!(matches!(&outcomes[7], Outcome::Skipped(_)));
        assert_eq!(tally(&outcomes).len(), 2);
        assert_eq!(server.received_at("/api/profiles").len(), asked, "only the unknown one is asked for again");
    }
}

#[tokio::test]
async fn a_person_known_by_another_identifier_is_known() {
    let server = knowing(|number| number == 1).await;
    let klaviyo = klaviyo(server.url(), careful());
    let own = person(1);
    // The vendor knows the customer, under another address.
    let output =
        |number: usize| json!({"data": {"type": "profile", "attributes": {"external_id": format!("cust_{number}")}}});
    assert_eq!(own[2].1, "cust_1");
    let batch = [delivery(&klaviyo, 1, &output(1)), delivery(&klaviyo, 2, &output(2))];
    assert_eq!(words(&deliver_all(&klaviyo, &batch, &owned()).await), ["delivered", "skipped would_create"]);
}

#[tokio::test]
async fn an_event_creates_nobody_either() {
    let server = knowing(|_| false).await;
    let klaviyo = klaviyo(server.url(), careful());
    let profile = json!({"data": {"type": "profile", "attributes": {"email": email(0)}}});
    let event =
        delivery(&klaviyo, 0, &json!({"data": {"type": "event", "attributes": {"metric": "M", "profile": profile}}}));
    assert_eq!(words(&deliver_all(&klaviyo, &[event], &owned()).await), ["skipped would_create"]);
    assert!(server.received_at("/api/events").is_empty());
}

#[tokio::test]
async fn nothing_is_sent_while_nobody_can_be_asked_for() {
    let troubles: [fn() -> Reply; 2] =
        [|| Reply::json(503, &Value::Null), || Reply::json(200, &json!({"data": "nonsense"}))];
    for trouble in troubles {
        let server = Server::start(move |_, _| trouble()).await;
        let klaviyo = klaviyo(server.url(), careful());
        for outcome in deliver_all(&klaviyo, &upserts(&klaviyo, 3, &[]), &owned()).await {
            assert!(matches!(&outcome, Outcome::Retry { scope: Scope::Endpoint, .. }), "{outcome:?}");
        }
        assert_eq!(server.received_at("/api/profile-import").len(), 0);
    }
}

// Issue 10: one address that the vendor refuses to be asked for kept everybody, and ended after 65 seconds.
#[tokio::test]
async fn whoever_cannot_be_asked_for_is_rejected_at_once_and_the_others_go_on() {
    for odd in [vec![7], vec![0, 39], (0..40).step_by(3).collect()] {
        let refused = odd.clone();
        let server = Server::start(move |received, _| {
            if received.path != "/api/profiles" {
                return Reply::json(200, &json!({"data": {"type": "profile", "id": "01", "attributes": {}}}));
            }
            let filter = &received.query["filter"];
            let asked = |number: &usize| filter.contains(&format!("\"{}\"", email(*number)));
            if refused.iter().any(asked) {
                return Reply::errors(400, "invalid", &[]);
            }
            let found: Vec<_> = (0..40)
                .filter(asked)
                .map(|number| json!({"type": "profile", "id": "01", "attributes": {"email": email(number)}}))
                .collect();
            Reply::json(200, &json!({"data": found, "links": {"self": "https://a.klaviyo.com/x"}}))
        })
        .await;
        let klaviyo = klaviyo(server.url(), careful());
        let outcomes = deliver_all(&klaviyo, &upserts(&klaviyo, 40, &[]), &owned()).await;
        for (number, outcome) in outcomes.iter().enumerate() {
            let expected = if odd.contains(&number) { "rejected vendor_rejected" } else { "delivered" };
            assert_eq!(super::word(outcome), expected, "{number}: {outcome:?}");
        }
    }
}
