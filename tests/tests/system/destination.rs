//! `docs/guides/a-destination-in-an-afternoon.md` is run as it stands: its configuration is checked, its transform is run, and what it
//! returns is delivered by the connector whose code the page shows. The connector is a folder beside this file and one line in it.

use std::sync::{Arc, Mutex};

use axum::http::{HeaderMap, StatusCode, Uri};
use serde_json::Value;
use serde_json::value::RawValue;
use tailwater::config::{Checked, LoadOptions, check};
use tailwater_connectors::connector::{Kind, kind};
use tailwater_connectors::{ClassifyInput, Context, Destination, Outcomes};
use tailwater_core::delivery::{Delivery, Outcome, Scope};
use tailwater_core::{DeliveryKey, EventId, ProfileId, Timestamp, code};
use tailwater_sandbox::{Batch, Headers, Pool, Row, RowResult};

use crate::postbox::Postbox;

const GUIDE: &str = include_str!("../../../docs/guides/a-destination-in-an-afternoon.md");

/// What the page's Rust blocks are excerpts of.
const SOURCES: &[&str] =
    &[include_str!("postbox/config.rs"), include_str!("postbox/mod.rs"), include_str!("destination.rs")];

pub static KINDS: &[Kind] = &[kind::<Postbox>()];

const TOKEN: &str = "pb_0123456789abcdef4f2a";

/// The blocks of a language, in the order of the page.
fn blocks(language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = GUIDE.lines();
    while let Some(line) = lines.next() {
        if let Some(found) = line.strip_prefix("```") {
            let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            if found == language {
                blocks.push(block.join("\n"));
            }
        }
    }
    assert!(!blocks.is_empty(), "the page has no block of {language}");
    blocks
}

/// Checks the page's configuration, with one change.
fn checked(url: &str, from: &str, to: &str) -> Checked {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("contact.js"), &blocks("js")[0]).unwrap();
    let file = folder.path().join("tailwater.yaml");
    let section = blocks("yaml")[0].replace("https://api.postbox.example", url);
    assert!(section.contains(from), "{section}");
    let text = format!(
        "version: 1\nworkspace: w\nkafka: {{ brokers: 127.0.0.1:9092 }}\n\
         identity: {{ types: {{ email: {{ priority: 1, max: 1 }} }} }}\n\
         sources:\n  scores: {{ type: kafka, kind: state, primary_key: email, strict: false, identifiers: {{ email: email }} }}\n{}\n",
        section.replace(from, to)
    );
    std::fs::write(&file, text).unwrap();
    let environment = |name: &str| (name == "POSTBOX_TOKEN").then(|| TOKEN.to_owned());
    check(&file, &LoadOptions { environment: &environment, kinds: KINDS, ..LoadOptions::default() })
}

fn destination(url: &str) -> Arc<dyn Destination> {
    let checked = checked(url, "", "");
    let config = checked.config.unwrap_or_else(|| panic!("{:?}", checked.problems));
    tailwater::app::connectors(&config).unwrap().remove("mail").unwrap()
}

/// A request as it arrived at the vendor.
#[derive(Debug, Clone)]
struct Received {
    path: String,
    authorization: String,
    body: Value,
}

/// A vendor that answers with this status and keeps what it got.
async fn vendor(status: u16) -> (String, Arc<Mutex<Vec<Received>>>) {
    let received = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&received);
    let answer = move |uri: Uri, headers: HeaderMap, body: String| async move {
        kept.lock().unwrap().push(Received {
            path: uri.path().to_owned(),
            authorization: headers["authorization"].to_str().unwrap().to_owned(),
            body: serde_json::from_str(&body).unwrap(),
        });
        (StatusCode::from_u16(status).unwrap(), "{}")
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(answer)).await });
    (url, received)
}

/// The deliveries of the page's row.
fn deliveries(destination: &dyn Destination) -> Vec<Delivery> {
    tailwater_sandbox::initialize_for_tests();
    let pool = Pool::start(tailwater_sandbox::Options::default()).unwrap();
    let row = blocks("json row").remove(0);
    let batch = Batch {
        rows: vec![Row { data: row.as_bytes(), overlay: &[], backdrop: &() }],
        headers: Headers::default(),
        now_ms: 0,
        non_finite: tailwater_sandbox::NonFinite::Omit,
        schema: None,
    };
    let report = pool.load("contact.js", &blocks("js")[0]).unwrap().run(&batch);
    let [RowResult::Outputs(outputs)] = report.results.as_slice() else { panic!("one row has one result") };
    let email = serde_json::from_str::<Value>(&row).unwrap()["email"].as_str().unwrap().to_owned();
    let event = EventId::of_fact("guide", "scores", "1");
    let of_output = |(ordinal, json): (usize, &str)| {
        let output = RawValue::from_string(json.to_owned()).unwrap();
        let identifiers = [("email", email.as_str())];
        let input = ClassifyInput {
            output: &output,
            route: "scores",
            ordinal,
            identifiers: &identifiers,
            time: Timestamp::default(),
            non_finite: &[],
        };
        destination.classify(&input).unwrap().remove(0)
    };
    let operations = outputs.iter().map(|output| output.json.as_str()).enumerate().map(of_output);
    operations
        .map(|operation| Delivery {
            key: DeliveryKey::of(event, "mail", "scores", operation.kind.as_str(), &operation.place),
            profile: ProfileId::of("guide", "email", &email, 0),
            event,
            time: Timestamp::default(),
            position: None,
            identifiers: vec![("email".to_owned(), email.clone())],
            backfill: false,
            attempt: 1,
            operation,
        })
        .collect()
}

async fn deliver(destination: &dyn Destination, batch: &[Delivery], owned: bool) -> Vec<Outcome> {
    let told = Mutex::new(vec![None; batch.len()]);
    let outcomes = Outcomes::new(batch.len(), |indexes, outcome| {
        for index in indexes {
            told.lock().unwrap()[*index] = Some(outcome.clone());
        }
    });
    destination.deliver(batch, &outcomes, &Context { still_owned: &|| owned }).await;
    drop(outcomes);
    told.into_inner().unwrap().into_iter().map(|outcome| outcome.expect("one outcome per delivery")).collect()
}

#[test]
fn the_pages_code_is_the_code_that_runs() {
    for block in blocks("rust") {
        assert!(SOURCES.iter().any(|source| source.contains(&block)), "not in the sources:\n{block}");
    }
    // One folder and one line: nothing else names it.
    let line = "pub static KINDS: &[Kind] = &[kind::<Postbox>()];";
    assert!(blocks("rust").iter().any(|block| block == line));
}

#[test]
fn the_configuration_of_a_new_kind_is_read_and_checked_like_any_other() {
    let url = "https://api.postbox.example";
    let right = checked(url, "", "");
    assert!(right.problems.is_empty(), "{:?}", right.problems);
    for (from, to, path, message, hint) in [
        (
            "folder: winback",
            "folders: winback",
            "destinations.mail.folders",
            "of type `postbox` has no such key",
            "`folder`",
        ),
        (
            "folder: winback",
            "create: true",
            "destinations.mail.create",
            "of type `postbox` has no such key",
            "known keys",
        ),
        ("folder: winback", "folder: a/b", "destinations.mail.folder", "expected the name of a folder", "last part"),
        ("${env:POSTBOX_TOKEN}", "pb_1", "accounts.postbox.token", "must not stand in the file", "refer to it"),
        (url, "postbox", "accounts.postbox.base_url", "expected an URL such as", ""),
        ("{ email: email }", "{ phone: email }", "destinations.mail.identifiers.phone", "no such field", "email"),
    ] {
        let problems = checked(url, from, to).problems;
        let found = problems.iter().find(|problem| problem.path == path);
        let found = found.unwrap_or_else(|| panic!("{to}: no problem at {path}: {problems:?}"));
        assert!(found.message.contains(message), "{to}: {found}");
        assert!(found.hint.as_deref().unwrap_or_default().contains(hint), "{to}: {found}");
        assert!(!format!("{problems:?}").contains("0123456789"), "a secret is shown");
    }
}

#[tokio::test]
async fn the_pages_row_arrives_as_the_page_says() {
    let (url, received) = vendor(200).await;
    let destination = destination(&url);
    let batch = deliveries(destination.as_ref());
    let planned = destination.plan(&batch);
    assert_eq!(deliver(destination.as_ref(), &batch, true).await, [Outcome::Delivered]);
    let received = received.lock().unwrap();
    let expected: Value = serde_json::from_str(&blocks("json request")[0]).unwrap();
    assert_eq!((received[0].path.as_str(), &received[0].body), ("/folders/winback/contacts", &expected));
    assert_eq!(received[0].authorization, format!("Bearer {TOKEN}"));
    assert_eq!(serde_json::from_str::<Value>(&planned[0].body).unwrap(), expected, "what --dry-run shows");
    assert!(!format!("{planned:?} {}", destination.target()).contains("0123456789"), "a secret is shown");
}

#[tokio::test]
async fn what_the_page_promises_of_failures_holds() {
    let (url, received) = vendor(422).await;
    let refusing = destination(&url);
    let batch = deliveries(refusing.as_ref());
    let lost = deliver(refusing.as_ref(), &batch, false).await;
    assert!(matches!(&lost[0], Outcome::Retry { reason, .. } if reason.code == code::NOT_OWNED), "{lost:?}");
    assert!(received.lock().unwrap().is_empty(), "nothing is sent for partitions that were given up");
    assert!(matches!(&deliver(refusing.as_ref(), &batch, true).await[0], Outcome::Rejected(_)));
    for (status, scope) in [(503, None), (401, Some(Scope::Credentials))] {
        let (url, _) = vendor(status).await;
        let failing = destination(&url);
        let outcome = deliver(failing.as_ref(), &batch, true).await.remove(0);
        let Outcome::Retry { scope: found, .. } = outcome else { panic!("{status}: {outcome:?}") };
        assert!(scope.is_none_or(|scope| scope == found), "{status}: {found:?}");
        if status == 401 {
            assert_eq!(failing.probe().await.unwrap_err().code, code::UNAUTHORIZED);
        }
    }
}
