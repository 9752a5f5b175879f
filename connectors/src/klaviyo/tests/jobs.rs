use serde_json::{Value, json};
use tailwater_core::code;
use tailwater_core::delivery::{Delivery, Outcome, Scope, Ticket};

use super::server::{Received, Reply, Server};
use super::{config, confirm_all, delivery, email, klaviyo, owned, person, tally, upserts, words};
use crate::klaviyo::{Config, Klaviyo, OnConflict};

const ERRORS: &str = "/api/profile-bulk-import-jobs/JOB/import-errors";

fn ticket(profiles: usize) -> Ticket {
    Ticket(json!({"job": "JOB", "profiles": profiles}).to_string())
}

fn state(status: &str, failed: u64) -> Reply {
    let attributes = json!({"status": status, "created_at": "2026-03-01T08:00:00Z", "total_count": 5, "completed_count": 5 - failed, "failed_count": failed});
    Reply::json(200, &json!({"data": {"type": "profile-bulk-import-job", "id": "JOB", "attributes": attributes}}))
}

fn import_error(code: &str, pointer: Option<usize>, payload: &Value) -> Value {
    let pointer =
        pointer.map_or("/data".to_owned(), |index| format!("/data/attributes/profiles/data/{index}/attributes/email"));
    json!({"type": "import-error", "id": "x", "attributes": {"code": code, "title": "No.", "detail": format!("no good: {code}"),
        "source": {"pointer": pointer}, "original_payload": payload}})
}

/// A vendor whose job is complete, with so many failed and these errors.
async fn complete(failed: u64, errors: Vec<Value>) -> Server {
    Server::start(move |received, _| match received.path.as_str() {
        "/api/profile-bulk-import-jobs/JOB" => state("complete", failed),
        ERRORS => Reply::json(
            200,
            &json!({"data": errors, "links": {"self": "https://a.klaviyo.com/x", "next": null, "prev": null}}),
        ),
        "/api/profile-import" => Reply::json(200, &json!({"data": {"type": "profile", "id": "01", "attributes": {}}})),
        _ => Reply::json(204, &Value::Null),
    })
    .await
}

async fn confirm(klaviyo: &Klaviyo, members: &[Delivery]) -> Vec<Outcome> {
    confirm_all(klaviyo, &ticket(members.len()), members, &owned()).await
}

#[tokio::test]
async fn a_job_that_runs_keeps_its_ticket_and_is_asked_for_once() {
    for status in ["queued", "processing", "thinking"] {
        let server = Server::start(move |_, _| state(status, 0)).await;
        let klaviyo = klaviyo(server.url(), config());
        let members = upserts(&klaviyo, 3, &[]);
        assert_eq!(confirm(&klaviyo, &members).await, vec![Outcome::Accepted(ticket(3)); 3]);
        assert_eq!(server.received().len(), 1);
    }
}

#[tokio::test]
async fn a_job_that_is_complete_has_delivered_everybody() {
    let server = complete(0, Vec::new()).await;
    let klaviyo = klaviyo(server.url(), config());
    assert_eq!(words(&confirm(&klaviyo, &upserts(&klaviyo, 3, &[])).await), ["delivered"; 3]);
    assert!(server.received_at(ERRORS).is_empty());
}

#[tokio::test]
async fn people_who_failed_are_found_by_their_identifiers_or_their_place() {
    let errors = vec![
        // By the payload, in each shape that it may have, even where the pointer says otherwise.
        import_error("invalid", Some(4), &json!({"type": "profile", "attributes": {"email": "PERSON1@example.com"}})),
        import_error("invalid", None, &json!({"data": {"attributes": {"email": email(2)}}})),
        // By the place alone.
        import_error("throttled", Some(3), &Value::Null),
        // A second error of the same person.
        import_error("invalid_too", None, &json!({"email": email(1)})),
    ];
    let server = complete(3, errors).await;
    let klaviyo = klaviyo(server.url(), config());
    let outcomes = confirm(&klaviyo, &upserts(&klaviyo, 5, &[])).await;
    assert_eq!(
        words(&outcomes),
        ["delivered", "rejected job_item_failed", "rejected job_item_failed", "retry job_item_failed", "delivered"]
    );
    let Outcome::Rejected(reason) = &outcomes[1] else { panic!("{outcomes:?}") };
    assert!(reason.message.contains("no good: invalid (at"), "{}", reason.message);
}

#[tokio::test]
async fn a_failure_that_names_nobody_makes_nobody_delivered() {
    let known = import_error("invalid", Some(0), &Value::Null);
    let stranger = import_error("invalid", None, &json!({"email": "stranger@example.com"}));
    for errors in [vec![known.clone()], vec![known, stranger]] {
        let server = complete(2, errors).await;
        let klaviyo = klaviyo(server.url(), config());
        let outcomes = confirm(&klaviyo, &upserts(&klaviyo, 4, &[])).await;
        assert_eq!(
            tally(&outcomes),
            [("rejected job_item_failed".to_owned(), 1), ("retry job_item_failed".to_owned(), 3)].into()
        );
        assert!(matches!(&outcomes[3], Outcome::Retry { scope: Scope::Endpoint, .. }));
    }
}

#[tokio::test]
async fn a_place_means_nothing_when_the_members_are_not_those_of_the_job() {
    let server = complete(1, vec![import_error("invalid", Some(1), &Value::Null)]).await;
    let klaviyo = klaviyo(server.url(), config());
    let members = upserts(&klaviyo, 3, &[]);
    let outcomes = confirm_all(&klaviyo, &ticket(5), &members, &owned()).await;
    assert_eq!(tally(&outcomes), [("retry job_item_failed".to_owned(), 3)].into());
}

#[tokio::test]
async fn people_of_a_job_whose_partitions_another_process_owns_are_its_affair() {
    let errors = vec![
        import_error("invalid", Some(3), &json!({"attributes": {"email": email(3)}})),
        import_error("invalid", Some(0), &json!({"attributes": {"email": email(0)}})),
    ];
    let server = complete(2, errors).await;
    let klaviyo = klaviyo(server.url(), config());
    let outcomes = confirm_all(&klaviyo, &ticket(4), &upserts(&klaviyo, 2, &[]), &owned()).await;
    assert_eq!(words(&outcomes), ["rejected job_item_failed", "delivered"]);
}

#[tokio::test]
async fn all_pages_of_errors_are_read() {
    let server = Server::start(|received, _| {
        if received.path != ERRORS {
            return state("complete", 4);
        }
        let page: usize = received.query.get("page[cursor]").map_or(0, |cursor| cursor.parse().unwrap());
        let next = (page < 3).then(|| format!("https://a.klaviyo.com{ERRORS}?page%5Bcursor%5D={}", page + 1));
        Reply::json(200, &json!({"data": [import_error("invalid", Some(page), &Value::Null)], "links": {"self": "https://a.klaviyo.com/x", "next": next}}))
    })
    .await;
    let klaviyo = klaviyo(server.url(), config());
    let outcomes = confirm(&klaviyo, &upserts(&klaviyo, 5, &[])).await;
    assert_eq!(tally(&outcomes), [("delivered".to_owned(), 1), ("rejected job_item_failed".to_owned(), 4)].into());
    assert_eq!(server.received_at(ERRORS).len(), 4);
}

#[tokio::test]
async fn a_person_whom_the_vendor_knows_twice_is_rejected_or_sent_again_by_the_key_alone() {
    let server = complete(1, vec![import_error("duplicate_profile", Some(1), &Value::Null)]).await;
    let strict = klaviyo(server.url(), config());
    let klaviyo = klaviyo(server.url(), Config { on_conflict: OnConflict::KeyOnly, ..config() });
    let mut members = upserts(&klaviyo, 2, &["AAAAAA"]);
    let own = person(1);
    let both = json!({"data": {"type": "profile", "attributes": {"phone_number": own[1].1, "email": own[0].1}, "relationships": {"lists": ["AAAAAA"]}}});
    members[1] = delivery(&klaviyo, 1, &both);
    assert_eq!(words(&confirm(&strict, &members).await), ["delivered", "rejected duplicate_profile"]);
    assert!(server.received_at("/api/profile-import").is_empty());
    assert_eq!(words(&confirm(&klaviyo, &members).await), ["delivered", "delivered delivered_in_part"]);
    assert_eq!(server.received_at("/api/profile-import")[0].body["data"]["attributes"], json!({"email": email(1)}));
    assert_eq!(server.received_at("/api/lists/AAAAAA").len(), 1);
}

#[tokio::test]
async fn a_cancelled_or_forgotten_job_is_sent_again() {
    let replies: [(fn() -> Reply, _); 2] = [
        (|| state("cancelled", 0), code::JOB_CANCELLED),
        (|| Reply::errors(404, "not_found", &[]), code::VENDOR_UNAVAILABLE),
    ];
    for (reply, code) in replies {
        let server = Server::start(move |_, _| reply()).await;
        let klaviyo = klaviyo(server.url(), config());
        assert_eq!(words(&confirm(&klaviyo, &upserts(&klaviyo, 2, &[])).await), vec![format!("retry {code}"); 2]);
    }
}

#[tokio::test]
async fn trouble_while_asking_is_no_reason_to_send_again() {
    let troubles: [fn(&Received) -> Reply; 4] = [
        |_| Reply::Disconnect,
        |_| Reply::json(503, &Value::Null),
        |_| Reply::errors(429, "throttled", &[]).header("Retry-After", "60"),
        // The job is complete, and its errors cannot be had right now.
        |received| if received.path == ERRORS { Reply::json(500, &Value::Null) } else { state("complete", 1) },
    ];
    for trouble in troubles {
        let server = Server::start(move |received, _| trouble(received)).await;
        let klaviyo = klaviyo(server.url(), config());
        assert_eq!(confirm(&klaviyo, &upserts(&klaviyo, 2, &[])).await, vec![Outcome::Accepted(ticket(2)); 2]);
    }
    let server = Server::start(|_, _| Reply::errors(401, "authentication_failed", &[])).await;
    let klaviyo = klaviyo(server.url(), config());
    let outcomes = confirm(&klaviyo, &upserts(&klaviyo, 1, &[])).await;
    assert!(
        matches!(&outcomes[0], Outcome::Retry { scope: Scope::Credentials, .. }),
        "a person has to act: {outcomes:?}"
    );
}

#[tokio::test]
async fn a_ticket_that_cannot_be_read_is_sent_again() {
    let klaviyo = klaviyo(crate::klaviyo::BASE_URL, config());
    let members = upserts(&klaviyo, 1, &[]);
    let outcomes = confirm_all(&klaviyo, &Ticket("nonsense".to_owned()), &members, &owned()).await;
    assert_eq!(words(&outcomes), ["retry vendor_unavailable"]);
}
