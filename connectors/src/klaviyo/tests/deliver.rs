use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tailwater_core::code;
use tailwater_core::delivery::{Delivery, Outcome, Scope};

use super::server::{Received, Reply, Server};
use super::{KEY, config, deliver_all, delivery, email, klaviyo, owned, person, tally, upsert, upserts, words};
use crate::destination::{Context, Destination};
use crate::klaviyo::{Config, Klaviyo, OnConflict};

const UPSERT: &str = "/api/profile-import";
const BULK: &str = "/api/profile-bulk-import-jobs";

/// The vendor's answer to whatever is asked in these tests, when all is well.
fn fine(received: &Received) -> Reply {
    match received.path.as_str() {
        UPSERT => {
            let id = received.body["data"]["attributes"]["email"].as_str().map(|email| format!("id-{email}"));
            Reply::json(200, &json!({"data": {"type": "profile", "id": id, "attributes": {}}}))
        }
        BULK => Reply::json(
            202,
            &json!({"data": {"type": "profile-bulk-import-job", "id": "JOB", "attributes": {"status": "queued"}}}),
        ),
        "/api/events" => Reply::json(202, &Value::Null),
        path if path.ends_with("/relationships/profiles") => Reply::json(204, &Value::Null),
        path if path.starts_with("/api/lists") => Reply::json(200, &json!({"data": []})),
        _ => Reply::errors(404, "not_found", &[]),
    }
}

fn event(klaviyo: &Klaviyo, number: usize) -> Delivery {
    let profile = json!({"data": {"type": "profile", "attributes": {"email": email(number)}}});
    delivery(klaviyo, number, &json!({"data": {"type": "event", "attributes": {"metric": "M", "profile": profile}}}))
}

fn reason(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::DeliveredInPart(reason)
        | Outcome::Retry { reason, .. }
        | Outcome::Rejected(reason)
        | Outcome::Skipped(reason) => &reason.message,
        Outcome::Delivered | Outcome::Accepted(_) => "",
    }
}

#[tokio::test]
async fn few_people_go_one_by_one_and_join_their_lists_after_their_update() {
    let server = Server::start(|received, _| fine(received)).await;
    let klaviyo = klaviyo(server.url(), Config { bulk_from: 10, ..config() });
    let batch =
        vec![upsert(&klaviyo, 0, &[]), upsert(&klaviyo, 1, &["AAAAAA", "BBBBBB"]), upsert(&klaviyo, 2, &["AAAAAA"])];
    assert_eq!(words(&deliver_all(&klaviyo, &batch, &owned()).await), ["delivered"; 3]);
    let received = server.received();
    let paths: Vec<_> = received.iter().map(|received| received.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            UPSERT,
            UPSERT,
            UPSERT,
            "/api/lists/AAAAAA/relationships/profiles",
            "/api/lists/BBBBBB/relationships/profiles"
        ]
    );
    let id = |number| json!({"type": "profile", "id": format!("id-{}", email(number))});
    assert_eq!(received[3].body, json!({"data": [id(1), id(2)]}));
    assert_eq!(received[4].body, json!({"data": [id(1)]}));
    assert_eq!(received[0].headers["user-agent"], concat!("tailwater/", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn many_people_go_as_jobs_by_exact_list_set() {
    let server = Server::start(|received, _| fine(received)).await;
    let klaviyo = klaviyo(server.url(), config());
    let mut batch = upserts(&klaviyo, 9, &[]);
    for number in [1, 4, 7] {
        batch[number] = upsert(&klaviyo, number, &["AAAAAA"]);
    }
    batch[8] = upsert(&klaviyo, 8, &["AAAAAA", "BBBBBB"]);
    let outcomes = deliver_all(&klaviyo, &batch, &owned()).await;
    assert_eq!(
        tally(&outcomes),
        [("accepted".to_owned(), 8), ("delivered".to_owned(), 1)].into(),
        "the one with a list set of its own goes alone"
    );
    let jobs = server.received_at(BULK);
    let mut sets: Vec<_> = jobs
        .iter()
        .map(|job| (job.body.pointer("/data/relationships/lists/data").cloned(), job.bulk_emails()))
        .collect();
    sets.sort_by_key(|(_, emails)| emails.len());
    assert_eq!(sets[0].0, Some(json!([{"type": "list", "id": "AAAAAA"}])));
    assert_eq!(sets[0].1, [email(1), email(4), email(7)]);
    assert_eq!(sets[1], (None, vec![email(0), email(2), email(3), email(5), email(6)]));
    assert_eq!(server.received_at("/api/lists").len(), 2);
    let Outcome::Accepted(ticket) = &outcomes[0] else { panic!("{outcomes:?}") };
    assert_eq!(ticket.0, r#"{"job":"JOB","profiles":5}"#);
}

#[tokio::test]
async fn a_job_stays_below_the_vendors_size() {
    let server = Server::start(|received, _| fine(received)).await;
    let klaviyo = klaviyo(server.url(), config());
    let text = "x".repeat(90_000);
    let output = |number| json!({"data": {"type": "profile", "attributes": {"email": email(number), "properties": {"text": text}}}});
    let batch: Vec<_> = (0..120).map(|number| delivery(&klaviyo, number, &output(number))).collect();
    assert_eq!(tally(&deliver_all(&klaviyo, &batch, &owned()).await), [("accepted".to_owned(), 120)].into());
    let jobs = server.received_at(BULK);
    assert_eq!(jobs.len(), 3);
    assert!(jobs.iter().all(|job| job.body_bytes < 5_000_000));
    assert_eq!(
        jobs.iter().flat_map(Received::bulk_emails).collect::<Vec<_>>(),
        (0..120).map(email).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn people_whom_a_pointer_names_are_rejected_and_the_others_sent_again() {
    let server = Server::start(|received, _| {
        let guilty: Vec<_> = (received.bulk_emails().iter().enumerate())
            .filter(|(_, email)| ["person3@example.com", "person5@example.com"].contains(&email.as_str()))
            .map(|(index, _)| format!("/data/attributes/profiles/data/{index}/attributes/email"))
            .collect();
        let pointers: Vec<_> = guilty.iter().map(String::as_str).collect();
        if guilty.is_empty() { fine(received) } else { Reply::errors(400, "invalid", &pointers) }
    })
    .await;
    let klaviyo = klaviyo(server.url(), config());
    let outcomes = deliver_all(&klaviyo, &upserts(&klaviyo, 8, &[]), &owned()).await;
    for (number, outcome) in outcomes.iter().enumerate() {
        match outcome {
            Outcome::Rejected(reason) if [3, 5].contains(&number) => {
                assert_eq!((reason.code, reason.status), (code::VENDOR_REJECTED, Some(400)));
                assert!(reason.message.contains("/attributes/email"), "{}", reason.message);
            }
            Outcome::Accepted(ticket) => assert_eq!(ticket.0, r#"{"job":"JOB","profiles":6}"#),
            other => panic!("{number}: {other:?}"),
        }
    }
    assert_eq!(server.received().len(), 2);
}

/// A vendor that refuses a request with somebody guilty in it, and how it says so.
async fn refusing(guilty: &'static [usize], refuse: fn(usize) -> Reply) -> Server {
    Server::start(move |received, _| {
        let emails = received.bulk_emails();
        let first = emails.iter().position(|email| guilty.iter().any(|guilty| *email == super::email(*guilty)));
        first.map_or_else(|| fine(received), refuse)
    })
    .await
}

#[tokio::test]
async fn a_refusal_that_names_nobody_is_halved_until_the_guilty_are_alone() {
    for (status, code) in [(400, code::VENDOR_REJECTED), (413, code::PAYLOAD_TOO_LARGE)] {
        let refuse = if status == 400 {
            |_| Reply::errors(400, "invalid", &["/data"])
        } else {
            |_| Reply::json(413, &Value::Null)
        };
        let server = refusing(&[17, 40], refuse).await;
        let klaviyo = klaviyo(server.url(), config());
        let outcomes = deliver_all(&klaviyo, &upserts(&klaviyo, 64, &[]), &owned()).await;
        assert_eq!(tally(&outcomes), [("accepted".to_owned(), 62), (format!("rejected {code}"), 2)].into());
        assert!(matches!((&outcomes[17], &outcomes[40]), (Outcome::Rejected(_), Outcome::Rejected(_))));
        assert!(server.received().len() <= 2 * 2 * 6 + 1, "{}", server.received().len());
    }
}

#[tokio::test]
async fn a_vendor_that_names_one_at_a_time_does_not_keep_everybody_waiting() {
    let server = refusing(&[1, 2, 3, 5, 8, 13, 21, 34, 55, 89], |index| {
        Reply::errors(400, "invalid", &[&format!("/data/attributes/profiles/data/{index}/attributes/email")])
    })
    .await;
    let klaviyo = klaviyo(server.url(), config());
    let outcomes = deliver_all(&klaviyo, &upserts(&klaviyo, 100, &[]), &owned()).await;
    assert_eq!(tally(&outcomes), [("accepted".to_owned(), 90), ("rejected vendor_rejected".to_owned(), 10)].into());
}

#[tokio::test]
async fn repairing_has_an_end_and_loses_nobody() {
    let server = Server::start(|_, _| Reply::errors(400, "invalid", &["/data"])).await;
    let klaviyo = klaviyo(server.url(), config());
    let outcomes = deliver_all(&klaviyo, &upserts(&klaviyo, 2_000, &[]), &owned()).await;
    assert_eq!(outcomes.len(), 2_000);
    assert!(server.received().len() <= 97, "{}", server.received().len());
    assert!(
        outcomes
            .iter()
            .all(|outcome| matches!(outcome, Outcome::Rejected(_) | Outcome::Retry { scope: Scope::Endpoint, .. }))
    );
}

#[tokio::test]
async fn credentials_that_do_not_work_stop_everything_until_a_person_acts() {
    for (status, code) in [(401, code::UNAUTHORIZED), (403, code::FORBIDDEN)] {
        // A careless vendor repeats the key.
        let server = Server::start(move |_, _| {
            Reply::json(status, &json!({"errors": [{"id": "e", "code": "authentication_failed", "title": "No.", "detail": format!("the key {KEY} is unknown")}]}))
        })
        .await;
        let klaviyo = klaviyo(server.url(), Config { bulk_from: 2, ..config() });
        let mut batch = upserts(&klaviyo, 6, &["AAAAAA"]);
        batch.extend((6..12).map(|number| upsert(&klaviyo, number, &["BBBBBB"])));
        let outcomes = deliver_all(&klaviyo, &batch, &owned()).await;
        assert_eq!(tally(&outcomes), [(format!("retry {code}"), 12)].into());
        for outcome in &outcomes {
            assert!(matches!(outcome, Outcome::Retry { scope: Scope::Credentials, .. }));
            assert!(!reason(outcome).contains("0123456789"), "{}", reason(outcome));
            assert!(reason(outcome).contains("pk_…4f2a"), "{}", reason(outcome));
        }
        assert!(server.received().len() <= 2, "nothing is sent after the first refusal but what was on its way");
    }
}

// Issue 10: a 429 at one endpoint stopped all of them.
#[tokio::test]
async fn after_a_429_its_endpoint_waits_as_long_as_the_vendor_asks_and_the_others_go_on() {
    let server = Server::start(|received, _| match received.path.as_str() {
        "/api/events" => Reply::errors(429, "throttled", &[]).header("Retry-After", "42"),
        _ => fine(received),
    })
    .await;
    let klaviyo = klaviyo(server.url(), config());
    let mut batch = vec![event(&klaviyo, 0), event(&klaviyo, 1)];
    batch.extend((2..4).map(|number| upsert(&klaviyo, number, &[])));
    let outcomes = deliver_all(&klaviyo, &batch, &owned()).await;
    assert_eq!(words(&outcomes), ["retry rate_limited", "retry rate_limited", "delivered", "delivered"]);
    for outcome in &outcomes[..2] {
        let Outcome::Retry { after: Some(after), scope: Scope::Endpoint, .. } = outcome else { panic!("{outcome:?}") };
        assert!(*after > Duration::from_secs(41) && *after <= Duration::from_secs(42), "{after:?}");
    }
    let before = server.received_at("/api/events").len();
    deliver_all(&klaviyo, &batch, &owned()).await;
    assert_eq!(server.received_at("/api/events").len(), before, "the gate is shut");
}

#[tokio::test]
async fn a_short_429_is_waited_for_at_the_gate() {
    let server = Server::start(|received, before| {
        if before == 0 { Reply::errors(429, "throttled", &[]).header("Retry-After", "1") } else { fine(received) }
    })
    .await;
    let klaviyo = klaviyo(server.url(), config());
    let batch = [event(&klaviyo, 1)];
    let start = std::time::Instant::now();
    assert_eq!(words(&deliver_all(&klaviyo, &batch, &owned()).await), ["retry rate_limited"]);
    assert_eq!(words(&deliver_all(&klaviyo, &batch, &owned()).await), ["delivered"]);
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn the_vendors_trouble_is_the_accounts_once_unrelated_requests_meet_it_and_nobody_is_rejected_for_it() {
    let troubles: [fn() -> Reply; 5] = [
        || Reply::json(500, &Value::Null),
        || Reply::json(502, &Value::Null),
        || Reply::errors(503, "unavailable", &[]).header("Retry-After", "7"),
        || Reply::json(408, &Value::Null),
        || Reply::Disconnect,
    ];
    for trouble in troubles {
        let server = Server::start(move |_, _| trouble()).await;
        let klaviyo = klaviyo(server.url(), Config { bulk_from: 1_000, ..config() });
        let outcomes = deliver_all(&klaviyo, &upserts(&klaviyo, 40, &[]), &owned()).await;
        assert_eq!(tally(&outcomes), [("retry vendor_unavailable".to_owned(), 40)].into());
        let of_the_account =
            outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Retry { scope: Scope::Account, .. })).count();
        assert!(of_the_account >= 30, "{of_the_account}");
        assert!(outcomes.iter().all(|outcome| !matches!(outcome, Outcome::Retry { scope: Scope::Delivery, .. })));
        assert!(server.received().len() <= 12, "nothing more is sent: {}", server.received().len());
    }
}

#[tokio::test]
async fn an_address_where_nobody_listens_is_the_accounts_trouble() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let klaviyo = klaviyo(&format!("http://{address}"), config());
    let outcomes = deliver_all(&klaviyo, &upserts(&klaviyo, 1, &[]), &owned()).await;
    assert!(reason(&outcomes[0]).contains("nothing was sent"), "{outcomes:?}");
    assert_eq!(words(&outcomes), ["retry vendor_unavailable"]);
    assert_eq!(klaviyo.probe().await.unwrap_err().code, code::VENDOR_UNAVAILABLE);
}

#[tokio::test]
async fn a_wrong_address_pauses_and_rejects_nobody() {
    for status in [301, 402, 404, 405, 410] {
        let server =
            Server::start(move |_, _| Reply::json(status, &Value::Null).header("Location", "http://127.0.0.1:1/"))
                .await;
        let klaviyo = klaviyo(server.url(), config());
        let outcomes = deliver_all(&klaviyo, &upserts(&klaviyo, 3, &[]), &owned()).await;
        assert!(
            outcomes.iter().all(|outcome| matches!(outcome, Outcome::Retry { scope: Scope::Credentials, .. })),
            "{status}: {outcomes:?}"
        );
    }
}

#[tokio::test]
async fn a_person_who_is_refused_alone_is_rejected_with_the_vendors_words() {
    let server = Server::start(|received, _| {
        if received.body["data"]["attributes"]["email"] == "person1@example.com" {
            Reply::errors(400, "invalid", &["/data/attributes/email"])
        } else {
            fine(received)
        }
    })
    .await;
    let klaviyo = klaviyo(server.url(), Config { bulk_from: 10, ..config() });
    let outcomes = deliver_all(&klaviyo, &upserts(&klaviyo, 3, &["AAAAAA"]), &owned()).await;
    assert_eq!(words(&outcomes), ["delivered", "rejected vendor_rejected", "delivered"]);
    assert!(reason(&outcomes[1]).contains("no good: invalid (at /data/attributes/email)"), "{outcomes:?}");
    let joined = server.received_at("/api/lists")[0].body["data"].as_array().unwrap().len();
    assert_eq!(joined, 2, "who was not updated joins no list");
}

fn duplicate() -> Reply {
    Reply::json(
        409,
        &json!({"errors": [{"id": "e", "code": "duplicate_profile", "title": "Conflict.", "detail": "A profile already exists.",
        "source": {"pointer": "/data/attributes"}, "links": [], "meta": {"duplicate_profile_id": "01OTHER"}}]}),
    )
}

#[tokio::test]
async fn with_key_only_identifiers_of_two_people_are_sent_again_with_the_key_alone_and_the_delivery_says_so() {
    let server = Server::start(|received, _| {
        if received.body["data"]["attributes"].get("phone_number").is_some() { duplicate() } else { fine(received) }
    })
    .await;
    let klaviyo = klaviyo(server.url(), Config { on_conflict: OnConflict::KeyOnly, ..config() });
    let own = person(1);
    let output = json!({"data": {"type": "profile", "attributes": {"phone_number": own[1].1, "email": own[0].1, "title": "Dr"}, "relationships": {"lists": ["AAAAAA"]}}});
    let outcomes = deliver_all(&klaviyo, &[delivery(&klaviyo, 1, &output)], &owned()).await;
    assert_eq!(words(&outcomes), ["delivered delivered_in_part"]);
    assert!(reason(&outcomes[0]).contains("01OTHER"), "{outcomes:?}");
    assert!(reason(&outcomes[0]).ends_with("by `email` alone, without phone_number"), "{outcomes:?}");
    let received = server.received();
    assert_eq!(received[1].body["data"]["attributes"], json!({"email": own[0].1, "title": "Dr"}));
    assert_eq!(received[2].path, "/api/lists/AAAAAA/relationships/profiles");
}

#[tokio::test]
async fn a_duplicate_that_cannot_be_avoided_is_rejected_and_names_the_other() {
    let server = Server::start(|_, _| duplicate()).await;
    let klaviyo = klaviyo(server.url(), Config { on_conflict: OnConflict::KeyOnly, ..config() });
    let own = person(1);
    let both = json!({"data": {"type": "profile", "attributes": {"phone_number": own[1].1, "email": own[0].1}}});
    let batch = [upsert(&klaviyo, 0, &[]), delivery(&klaviyo, 1, &both)];
    let outcomes = deliver_all(&klaviyo, &batch, &owned()).await;
    assert_eq!(words(&outcomes), ["rejected duplicate_profile"; 2]);
    assert!(reason(&outcomes[1]).contains("01OTHER"), "{outcomes:?}");
    assert_eq!(server.received().len(), 3, "a single identifier is not sent twice");
}

// Issue 10: a conflict fell back to the key alone, and the score landed on another profile.
#[tokio::test]
async fn identifiers_of_two_people_are_rejected_unless_the_configuration_says_otherwise() {
    let server = Server::start(|_, _| duplicate()).await;
    let klaviyo = klaviyo(server.url(), config());
    let own = person(1);
    let both = json!({"data": {"type": "profile", "attributes": {"phone_number": own[1].1, "email": own[0].1}}});
    let outcomes = deliver_all(&klaviyo, &[delivery(&klaviyo, 1, &both)], &owned()).await;
    assert_eq!(words(&outcomes), ["rejected duplicate_profile"]);
    assert_eq!(server.received().len(), 1);
}

#[tokio::test]
async fn a_list_that_does_not_exist_is_named() {
    let server = Server::start(|received, _| {
        if received.path.starts_with("/api/lists/NOLIST") {
            Reply::errors(404, "not_found", &["/data"])
        } else {
            fine(received)
        }
    })
    .await;
    let klaviyo = klaviyo(server.url(), config());
    let batch = [upsert(&klaviyo, 0, &["NOLIST"]), upsert(&klaviyo, 1, &["AAAAAA"])];
    let outcomes = deliver_all(&klaviyo, &batch, &owned()).await;
    assert_eq!(words(&outcomes), ["rejected vendor_rejected", "delivered"]);
    assert!(reason(&outcomes[0]).contains("`NOLIST`"), "{outcomes:?}");
}

#[tokio::test]
async fn lists_that_a_job_cannot_join_are_the_fault_of_no_single_person() {
    let server = Server::start(|_, _| Reply::errors(400, "invalid", &["/data/relationships/lists/data/0/id"])).await;
    let klaviyo = klaviyo(server.url(), config());
    let outcomes = deliver_all(&klaviyo, &upserts(&klaviyo, 50, &["NOLIST"]), &owned()).await;
    assert_eq!(tally(&outcomes), [("rejected vendor_rejected".to_owned(), 50)].into());
    assert!(reason(&outcomes[0]).contains("NOLIST"));
    assert_eq!(server.received().len(), 1);
}

#[tokio::test]
async fn an_event_carries_its_idempotency_key_and_says_when_it_is_a_backfill() {
    let server = Server::start(|received, _| fine(received)).await;
    let klaviyo = klaviyo(server.url(), config());
    let event = |number, unique: Option<&str>| {
        let profile = json!({"data": {"type": "profile", "attributes": {"email": email(number)}}});
        delivery(
            &klaviyo,
            number,
            &json!({"data": {"type": "event", "attributes": {"metric": "M", "profile": profile, "unique_id": unique}}}),
        )
    };
    let mut batch = vec![event(0, None), event(1, Some("order-7")), event(2, None)];
    batch[2].backfill = true;
    assert_eq!(words(&deliver_all(&klaviyo, &batch, &owned()).await), ["delivered"; 3]);
    let mut received = server.received_at("/api/events");
    received.sort_by_key(|received| {
        received.body.pointer("/data/attributes/profile/data/attributes/email").unwrap().to_string()
    });
    let attribute = |index: usize, name: &str| received[index].body["data"]["attributes"].get(name).cloned();
    assert_eq!(attribute(0, "unique_id"), Some(json!(batch[0].key.to_string())));
    assert_eq!(attribute(1, "unique_id"), Some(json!("order-7")));
    assert_eq!((attribute(0, "backfill"), attribute(2, "backfill")), (None, Some(json!(true))));
}

#[tokio::test]
async fn nothing_is_sent_for_a_partition_that_moved_away() {
    let server = Server::start(|received, _| fine(received)).await;
    let klaviyo = klaviyo(server.url(), Config { bulk_from: 2, ..config() });
    let lost = Context { still_owned: &|| false };
    let outcomes = deliver_all(&klaviyo, &upserts(&klaviyo, 5, &[]), &lost).await;
    assert_eq!(tally(&outcomes), [("retry not_owned".to_owned(), 5)].into());
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Retry { scope: Scope::Delivery, .. })));
    assert!(server.received().is_empty());

    // It is asked before each request, not once a batch.
    let asked = AtomicUsize::new(0);
    let still_owned = || asked.fetch_add(1, Ordering::Relaxed) == 0;
    let mut batch = upserts(&klaviyo, 3, &["AAAAAA"]);
    batch.extend((3..6).map(|number| upsert(&klaviyo, number, &["BBBBBB"])));
    let outcomes = deliver_all(&klaviyo, &batch, &Context { still_owned: &still_owned }).await;
    assert_eq!(tally(&outcomes), [("accepted".to_owned(), 3), ("retry not_owned".to_owned(), 3)].into());
    assert_eq!(server.received().len(), 1);
}

#[tokio::test]
async fn a_success_that_ignored_a_part_says_so() {
    let server = Server::start(|received, _| fine(received).header("X-Klaviyo-Partial-Failure", "phone_number")).await;
    let klaviyo = klaviyo(server.url(), config());
    assert_eq!(
        words(&deliver_all(&klaviyo, &upserts(&klaviyo, 1, &[]), &owned()).await),
        ["delivered delivered_in_part"]
    );
}

#[tokio::test]
async fn an_answer_that_names_no_job_is_not_taken_for_one() {
    let server = Server::start(|_, _| Reply::json(202, &json!({"data": {}}))).await;
    let klaviyo = klaviyo(server.url(), config());
    let outcomes = deliver_all(&klaviyo, &upserts(&klaviyo, 3, &[]), &owned()).await;
    assert_eq!(words(&outcomes), ["retry vendor_unavailable"; 3]);
}

#[tokio::test]
async fn an_empty_batch_has_no_outcomes() {
    let klaviyo = klaviyo(crate::klaviyo::BASE_URL, config());
    assert!(deliver_all(&klaviyo, &[], &owned()).await.is_empty());
}

#[tokio::test]
async fn the_probe_tells_what_to_do() {
    let server = Server::start(|received, _| fine(received)).await;
    klaviyo(server.url(), config()).probe().await.unwrap();
    let server = Server::start(|_, _| Reply::errors(401, "authentication_failed", &["/data/"])).await;
    let error = klaviyo(server.url(), config()).probe().await.unwrap_err();
    assert_eq!(error.code, code::UNAUTHORIZED);
    assert!(error.message.contains("put a valid private key in place"), "{error}");
    assert!(error.message.starts_with("klaviyo pk_…4f2a at 127.0.0.1:"), "{error}");
}
