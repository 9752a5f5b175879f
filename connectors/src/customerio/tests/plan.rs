use serde_json::{Value, json};

use super::{KEY, customerio, deliveries, delivery, event, join, relate, spec, upserts};
use crate::customerio::Api;
use crate::destination::{Destination, Planned};
use crate::scripted::Received;

fn received(planned: &Planned) -> Received {
    let url = url::Url::parse(&planned.url).unwrap();
    let headers = planned.headers.iter().map(|(name, value)| (name.clone(), value.replace("sk_…4f2a", KEY)));
    Received {
        method: planned.method.to_owned(),
        path: url.path().to_owned(),
        query: url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect(),
        headers: headers.collect(),
        body: serde_json::from_str(&planned.body).unwrap_or(Value::Null),
        body_bytes: planned.body.len(),
    }
}

#[test]
fn a_dry_run_shows_each_request_without_the_key() {
    let customerio = customerio("http://127.0.0.1:1", Api::Track);
    let mut batch = upserts(&customerio, 2);
    batch.push(event(&customerio, 2));
    batch.push(relate(&customerio, 3, "acme"));
    batch.push(join(&customerio, 4, 7));
    let planned = customerio.plan(&batch);
    let shown: Vec<_> = planned
        .iter()
        .map(|planned| {
            (planned.method, url::Url::parse(&planned.url).unwrap().path().to_owned(), planned.deliveries.clone())
        })
        .collect();
    let path = |path: &str| path.to_owned();
    assert_eq!(
        shown,
        [
            ("POST", path("/api/v2/entity"), vec![3]),
            ("POST", path("/api/v2/entity"), vec![3]),
            ("POST", path("/api/v2/batch"), vec![0, 1, 2]),
            ("POST", path("/api/v1/segments/7/add_customers"), vec![4]),
        ]
    );
    for planned in &planned {
        assert!(!format!("{planned:?}").contains("0123456789"), "{planned:?}");
        spec::check_request(&received(planned)).unwrap();
    }
}

#[test]
fn a_dry_run_shows_calls_of_the_pipelines_api() {
    let customerio = customerio("http://127.0.0.1:1", Api::Pipelines);
    let mut batch = upserts(&customerio, 2);
    batch.extend(deliveries(&customerio, 2, &json!({"type": "group", "userId": 2, "groupId": "acme"})));
    batch.push(delivery(
        &customerio,
        3,
        &json!({"type": "page", "userId": 3, "name": "Pricing", "context": {"ip": "8.8.8.8"}}),
    ));
    for planned in customerio.plan(&batch) {
        assert!(planned.headers.contains(&("x-strict-mode".to_owned(), "1".to_owned())), "{planned:?}");
        spec::check_request(&received(&planned)).unwrap();
    }
}
