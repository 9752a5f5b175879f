//! The cases. Each says what a destination does when its vendor, or the process around it, does something.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use tailwater_connectors::destination::Context;
use tailwater_connectors::output::recognize;
use tailwater_core::code;
use tailwater_core::delivery::{Outcome, Scope};
use tailwater_core::limits::REASON_BYTES_MAX;

use super::server::{Reply, Server};
use super::{
    COUNTS, Reported, Subject, classify, code_of, deliver, drive, is_delivered, is_retry, message_of, owned, settle,
};

/// The longest that a call may take when its server hangs: the timeouts of the suite, and some patience on a busy machine.
const CALL_MAX: Duration = Duration::from_secs(30);

const POISON: &str = "poison-in-this-one";

async fn healthy(subject: &Subject) -> Server {
    Server::start(subject.healthy).await
}

pub async fn a_delivery_has_one_outcome_and_a_repeat_is_harmless(subject: &Subject) {
    let server = healthy(subject).await;
    let destination = subject.destination(server.url());
    assert!(destination.target().starts_with(subject.name()));
    assert!(!destination.target().contains(subject.secret));
    assert!(deliver(&*destination, &[], &owned()).await.is_empty());
    assert!(server.received().is_empty(), "nobody to deliver to, and still a request");
    for count in COUNTS {
        let batch = subject.batch(&*destination, 0..count);
        let before = server.received().len();
        let planned = destination.plan(&batch);
        assert_eq!(server.received().len(), before, "a plan sends nothing");
        let covered: HashSet<usize> = planned.iter().flat_map(|planned| planned.deliveries.clone()).collect();
        assert_eq!(covered, (0..count).collect(), "every delivery is in some request that is shown");
        assert!(!format!("{planned:?}").contains(subject.secret), "a plan shows the secret");
        for round in ["first", "repeated"] {
            for outcome in settle(&*destination, &batch).await {
                assert_eq!(outcome, Outcome::Delivered, "{}: a {round} delivery of {count}", subject.name());
            }
        }
    }
}

pub async fn the_facts_about_a_kind_are_sound(subject: &Subject) {
    let spec = subject.kind.spec();
    assert!(!spec.identifier_fields.is_empty() || spec.operations.iter().all(|one| one.batch_max > 0));
    assert!(spec.limits.calls_max > 0 && spec.limits.batch_deliveries_max >= *COUNTS.last().unwrap());
    let kinds: HashSet<_> = spec.operations.iter().map(|operation| operation.kind).collect();
    assert_eq!(kinds.len(), spec.operations.len(), "an operation is declared twice");
    assert!(!kinds.is_empty());
    for operation in spec.operations {
        assert!(operation.batch_max > 0, "{}", operation.kind);
        assert_eq!(spec.supported(operation.kind).unwrap().kind, operation.kind);
    }
    let unsupported = tailwater_core::operation::OperationKind::ALL.into_iter().find(|kind| !kinds.contains(kind));
    if let Some(kind) = unsupported {
        let error = spec.supported(kind).unwrap_err();
        assert_eq!(error.code, code::UNSUPPORTED_OPERATION);
        assert!(spec.operations.iter().all(|one| error.message.contains(one.kind.as_str())), "{error}");
    }
}

pub async fn whatever_a_transform_returns_is_an_operation_or_an_error(subject: &Subject) {
    let destination = subject.destination("http://127.0.0.1:9");
    let deep = (0..200).fold(json!(1), |inner, _| json!([inner]));
    let own = (subject.output)(1, "fine");
    let mut outputs = vec![json!(null), json!(7), json!("text"), json!([]), json!({}), json!([own.clone()]), deep];
    let vendors = [
        json!({"data": {"type": "profile", "attributes": {"email": "person1@example.com"}}}),
        json!({"email": "person1@example.com", "dataFields": {"x": 1}}),
        json!({"type": "identify", "userId": "c1", "traits": {"x": 1}}),
    ];
    for (name, value) in
        [("_operation", json!("fly")), ("_operation", json!(1)), ("no_such_field_", json!({"x": null}))]
    {
        let mut odd = own.clone();
        odd[name] = value;
        outputs.push(odd);
    }
    outputs.extend(vendors.iter().cloned());
    for output in &outputs {
        match classify(&*destination, output, 1) {
            Ok(operations) => assert!(operations.iter().all(|one| subject.kind.spec().supported(one.kind).is_ok())),
            Err(error) => {
                assert!(!error.message.trim().is_empty() && error.message.len() < 4_000, "{output}: {error}");
            }
        }
    }
    // A body for another vendor is named.
    for output in vendors {
        let Some(vendor) = recognize(&output).filter(|vendor| *vendor != subject.name()) else { continue };
        if ["klaviyo", "iterable", "customerio"].contains(&subject.name()) {
            let error = classify(&*destination, &output, 1).unwrap_err();
            assert_eq!(error.code, code::WRONG_VENDOR, "{}: a body for {vendor}: {error}", subject.name());
        }
    }
    // Nobody else's identifier is let through.
    let foreign = classify(&*destination, &(subject.output)(2, "fine"), 1).unwrap_err();
    assert_eq!(foreign.code, code::FOREIGN_IDENTIFIER, "{foreign}");
}

pub async fn an_item_that_is_refused_harms_no_other(subject: &Subject) {
    for count in COUNTS {
        let answer = subject.healthy;
        let server = Server::start(move |received| {
            if received.body.contains(POISON) { Reply::text(400, "not this one") } else { answer(received) }
        })
        .await;
        let destination = subject.destination(server.url());
        let mut batch = subject.batch(&*destination, 0..count);
        let bad = count / 2;
        batch[bad] = subject.delivery(&*destination, bad, POISON);
        let ends = drive(&*destination, batch, |_, _| false).await;
        for (index, outcome) in ends {
            if index == bad {
                assert!(matches!(outcome, Outcome::Rejected(_)), "{}: {outcome:?}", subject.name());
            } else {
                assert!(is_delivered(&outcome), "{}: {index} of {count}: {outcome:?}", subject.name());
            }
        }
    }
}

pub async fn an_item_that_makes_the_vendor_fail_harms_no_other(subject: &Subject) {
    for count in [3, 40] {
        let answer = subject.healthy;
        let server =
            Server::start(
                move |received| {
                    if received.body.contains(POISON) { Reply::text(500, "oops") } else { answer(received) }
                },
            )
            .await;
        let destination = subject.destination(server.url());
        let mut batch = subject.batch(&*destination, 0..count);
        batch[1] = subject.delivery(&*destination, 1, POISON);
        // It is blamed once it is known that the others pass, and uses up its attempts then.
        let blamed = |index: usize, outcome: &Outcome| {
            index == 1 && matches!(outcome, Outcome::Retry { scope: Scope::Delivery, .. })
        };
        // Somebody who is answered again and again tells that the vendor works.
        let other = subject.batch(&*destination, [1_000]);
        let alive = AtomicBool::new(true);
        let ends = {
            let others = async {
                while alive.load(Ordering::Relaxed) {
                    settle(&*destination, &other).await;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            let driven = async {
                let ends = drive(&*destination, batch, blamed).await;
                alive.store(false, Ordering::Relaxed);
                ends
            };
            tokio::join!(driven, others).0
        };
        for (index, outcome) in ends {
            if index == 1 {
                assert!(blamed(1, &outcome), "{}: {outcome:?}", subject.name());
            } else {
                assert!(is_delivered(&outcome), "{}: {index} of {count}: {outcome:?}", subject.name());
            }
        }
    }
}

pub async fn every_status_has_an_outcome(subject: &Subject) {
    let status = Arc::new(Mutex::new(200));
    let server = {
        let status = Arc::clone(&status);
        Server::start(move |_| Reply::text(*status.lock().unwrap(), "{}")).await
    };
    for wanted in 200..600 {
        *status.lock().unwrap() = wanted;
        // What one status does to an account must not reach the next.
        let destination = subject.destination(server.url());
        let batch = subject.batch(&*destination, 0..2);
        for outcome in deliver(&*destination, &batch, &owned()).await {
            let name = subject.name();
            match wanted {
                200..=299 => assert!(!matches!(outcome, Outcome::Rejected(_)), "{name}: {wanted}: {outcome:?}"),
                401 | 403 => assert!(
                    matches!(outcome, Outcome::Retry { scope: Scope::Credentials, .. }),
                    "{name}: {wanted}: {outcome:?}"
                ),
                408 | 429 | 500..=599 => assert!(is_retry(&outcome), "{name}: {wanted}: {outcome:?}"),
                _ => assert!(
                    matches!(outcome, Outcome::Rejected(_) | Outcome::Retry { .. } | Outcome::Skipped(_)),
                    "{name}: {wanted}: {outcome:?}"
                ),
            }
            if wanted >= 300 {
                assert!(!message_of(&outcome).is_empty(), "{name}: {wanted} without a word");
            }
        }
    }
}

pub async fn a_wish_to_wait_is_obeyed_as_seconds_and_as_a_date(subject: &Subject) {
    let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(40));
    for (wish, least, most) in [("20", 15, 20), (date.as_str(), 25, 41), ("86400", 290, 300)] {
        let reply = Reply::text(429, "{}").header("retry-after", wish);
        let server = Server::start(move |_| reply.clone()).await;
        let destination = subject.destination(server.url());
        let batch = subject.batch(&*destination, 0..1);
        for outcome in deliver(&*destination, &batch, &owned()).await {
            let Outcome::Retry { after: Some(after), scope, reason } = &outcome else { panic!("{outcome:?}") };
            assert_eq!(reason.code, code::RATE_LIMITED);
            assert!(matches!(scope, Scope::Endpoint | Scope::Account), "{outcome:?}");
            assert!((least..=most).contains(&after.as_secs()), "{}: {wish}: {outcome:?}", subject.name());
        }
        // While it lasts, nothing is sent.
        let before = server.received().len();
        assert!(deliver(&*destination, &batch, &owned()).await.iter().all(is_retry));
        assert_eq!(server.received().len(), before, "{}", subject.name());
    }
}

pub async fn answers_that_make_no_sense_reject_nobody(subject: &Subject) {
    let deep = "[".repeat(5_000);
    let bodies = [
        "",
        "null",
        "[]",
        "{}",
        "7",
        "{\"data\":",
        "{\"data\":null,\"errors\":7,\"failedUpdates\":[1]}",
        &deep,
        "<html>",
    ];
    for status in [200, 202, 207] {
        for body in bodies {
            let reply = Reply::text(status, body);
            let server = Server::start(move |_| reply.clone()).await;
            let destination = subject.destination(server.url());
            for count in [1, 40] {
                let batch = subject.batch(&*destination, 0..count);
                for outcome in deliver(&*destination, &batch, &owned()).await {
                    assert!(
                        !matches!(outcome, Outcome::Rejected(_)),
                        "{}: {status} {body:.20}: {outcome:?}",
                        subject.name()
                    );
                }
            }
        }
    }
}

pub async fn an_error_page_is_told_briefly_and_without_the_credentials(subject: &Subject) {
    let page = format!("<html><h1>Trouble</h1> you sent {} {}</html>", subject.secret, "x".repeat(100_000));
    for status in [400, 401, 422, 500, 502] {
        let reply = Reply::text(status, &page).header("x-sent", subject.secret);
        let server = Server::start(move |_| reply.clone()).await;
        let destination = subject.destination(server.url());
        let batch = subject.batch(&*destination, 0..1);
        for outcome in deliver(&*destination, &batch, &owned()).await {
            let message = message_of(&outcome);
            assert!(message.len() <= REASON_BYTES_MAX, "{} bytes", message.len());
            assert!(message.contains("Trouble"), "{}: {status}: {message}", subject.name());
            assert!(!format!("{outcome:?}").contains(subject.secret), "{}: {message}", subject.name());
        }
    }
}

pub async fn a_call_that_is_dropped_can_be_made_again(subject: &Subject) {
    let hang = Arc::new(AtomicBool::new(true));
    let server = {
        let (hang, answer) = (Arc::clone(&hang), subject.healthy);
        Server::start(move |received| if hang.load(Ordering::Relaxed) { Reply::Hang } else { answer(received) }).await
    };
    let destination = subject.destination(server.url());
    let batch = subject.batch(&*destination, 0..5);
    let reported = Reported::new(batch.len());
    {
        let (outcomes, context) = (reported.outcomes(), owned());
        let call = destination.deliver(&batch, &outcomes, &context);
        let ended = tokio::time::timeout(Duration::from_millis(200), call).await;
        assert!(ended.is_err(), "{}: the call has ended although the server is silent", subject.name());
        assert_eq!(outcomes.open(), batch.len());
    }
    hang.store(false, Ordering::Relaxed);
    for outcome in settle(&*destination, &batch).await {
        assert!(is_delivered(&outcome), "{}: {outcome:?}", subject.name());
    }
}

pub async fn nothing_is_sent_once_ownership_is_lost(subject: &Subject) {
    let server = healthy(subject).await;
    let destination = subject.destination(server.url());
    let batch = subject.batch(&*destination, 0..40);
    for outcome in deliver(&*destination, &batch, &Context { still_owned: &|| false }).await {
        assert_eq!(code_of(&outcome), Some(code::NOT_OWNED), "{outcome:?}");
        assert!(is_retry(&outcome));
    }
    assert!(server.received().is_empty(), "{}: sent without owning anything", subject.name());

    // In the middle of a call: what is in flight ends, and nothing more is started.
    let answer = subject.healthy;
    let slow = Server::start(move |received| Reply::Late(Duration::from_millis(100), Box::new(answer(received)))).await;
    let destination = subject.destination(slow.url());
    let asked = AtomicUsize::new(0);
    let still_owned = || asked.fetch_add(1, Ordering::Relaxed) < 1;
    let start = Instant::now();
    let outcomes = deliver(&*destination, &batch, &Context { still_owned: &still_owned }).await;
    assert!(start.elapsed() < CALL_MAX);
    assert!(slow.received().len() <= 10, "{}: {} requests after the loss", subject.name(), slow.received().len());
    for outcome in outcomes {
        let told = matches!(outcome, Outcome::Accepted(_)) || is_delivered(&outcome) || is_retry(&outcome);
        assert!(told, "{outcome:?}");
    }
}

pub async fn a_server_that_hangs_or_hangs_up_is_tried_again(subject: &Subject) {
    for reply in [Reply::Hang, Reply::HalfHead, Reply::HalfBody, Reply::HalfClosed, Reply::Disconnect] {
        let (asked, answer) = (Arc::new(AtomicBool::new(true)), subject.healthy);
        let server = {
            let (asked, reply) = (Arc::clone(&asked), reply.clone());
            Server::start(move |received| if asked.load(Ordering::Relaxed) { reply.clone() } else { answer(received) })
                .await
        };
        let destination = subject.destination(server.url());
        let batch = subject.batch(&*destination, 0..2);
        let start = Instant::now();
        for outcome in deliver(&*destination, &batch, &owned()).await {
            assert!(is_retry(&outcome), "{}: {reply:?}: {outcome:?}", subject.name());
            assert_eq!(code_of(&outcome), Some(code::VENDOR_UNAVAILABLE));
        }
        assert!(start.elapsed() < CALL_MAX, "{}: {reply:?}: {:?}", subject.name(), start.elapsed());
        asked.store(false, Ordering::Relaxed);
        for (_, outcome) in drive(&*destination, batch, |_, _| false).await {
            assert!(is_delivered(&outcome), "{}: after {reply:?}: {outcome:?}", subject.name());
        }
    }
}

pub async fn an_answer_without_end_is_given_up(subject: &Subject) {
    for reply in [Reply::Trickle, Reply::Endless] {
        let shown = format!("{reply:?}");
        let server = Server::start(move |_| reply.clone()).await;
        let destination = subject.destination(server.url());
        let batch = subject.batch(&*destination, 0..1);
        let start = Instant::now();
        for outcome in deliver(&*destination, &batch, &owned()).await {
            assert!(is_retry(&outcome), "{}: {shown}: {outcome:?}", subject.name());
        }
        assert!(start.elapsed() < CALL_MAX, "{}: {shown}: {:?}", subject.name(), start.elapsed());
    }
}

pub async fn a_redirect_is_not_followed(subject: &Subject) {
    let other = healthy(subject).await;
    for status in [301, 302, 303, 307, 308] {
        let reply = Reply::text(status, "").header("location", format!("{}/elsewhere", other.url()));
        let server = Server::start(move |_| reply.clone()).await;
        let destination = subject.destination(server.url());
        let batch = subject.batch(&*destination, 0..2);
        for outcome in deliver(&*destination, &batch, &owned()).await {
            // A wrong address is a person's to mend: nobody is rejected for it.
            assert!(is_retry(&outcome), "{}: {status}: {outcome:?}", subject.name());
        }
    }
    assert!(other.received().is_empty(), "{}: the credentials went to another host", subject.name());
}

pub async fn a_host_that_cannot_be_reached_is_tried_again(subject: &Subject) {
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let plain = healthy(subject).await;
    let without_tls = plain.url().replace("http://", "https://");
    for url in [format!("http://{closed}"), without_tls, "https://no-such-host.invalid".to_owned()] {
        let account = (subject.account)(&url);
        if subject.kind.account(&account).is_ok_and(|account| !account.check().is_empty()) {
            // More than the documented limits is for this machine only.
            continue;
        }
        let destination = subject.destination(&url);
        let batch = subject.batch(&*destination, 0..2);
        let start = Instant::now();
        for outcome in deliver(&*destination, &batch, &owned()).await {
            let Outcome::Retry { scope, reason, .. } = &outcome else { panic!("{url}: {outcome:?}") };
            assert_eq!((reason.code, *scope), (code::VENDOR_UNAVAILABLE, Scope::Account), "{url}: {outcome:?}");
        }
        assert!(start.elapsed() < CALL_MAX, "{url}");
        let error = destination.probe().await.unwrap_err();
        assert!(error.message.contains(subject.name()), "{error}");
    }
    assert!(plain.received().is_empty());
}

pub async fn a_probe_tells_credentials_that_work_from_those_that_do_not(subject: &Subject) {
    let server = healthy(subject).await;
    subject.destination(server.url()).probe().await.unwrap_or_else(|error| panic!("{}: {error}", subject.name()));
    for (status, expected) in [(401, code::UNAUTHORIZED), (403, code::FORBIDDEN)] {
        let body = Value::String(subject.secret.to_owned()).to_string();
        let server = Server::start(move |_| Reply::text(status, &body)).await;
        let error = subject.destination(server.url()).probe().await.unwrap_err();
        assert_eq!(error.code, expected, "{}: {error}", subject.name());
        assert!(!error.message.contains(subject.secret), "{}: {error}", subject.name());
    }
}
