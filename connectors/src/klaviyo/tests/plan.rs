use serde_json::{Value, json};

use super::server::Received;
use super::{KEY, config, email, klaviyo, spec, upsert, upserts};
use crate::destination::{Destination, Planned};
use crate::klaviyo::{BASE_URL, Config};

fn received(planned: &Planned) -> Received {
    let url = url::Url::parse(&planned.url).unwrap();
    let headers = planned.headers.iter().map(|(name, value)| (name.clone(), value.replace("pk_…4f2a", KEY)));
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
    let klaviyo = klaviyo(BASE_URL, Config { create: false, ..config() });
    let mut batch = upserts(&klaviyo, 5, &["AAAAAA"]);
    batch.push(upsert(&klaviyo, 5, &["BBBBBB"]));
    let planned = klaviyo.plan(&batch);
    let shown: Vec<_> = planned
        .iter()
        .map(|planned| (planned.method, planned.url.split('?').next().unwrap(), planned.deliveries.clone()))
        .collect();
    assert_eq!(
        shown,
        [
            ("GET", "https://a.klaviyo.com/api/profiles", vec![0, 1, 2, 3, 4, 5]),
            ("POST", "https://a.klaviyo.com/api/profile-import", vec![5]),
            ("POST", "https://a.klaviyo.com/api/lists/BBBBBB/relationships/profiles", vec![5]),
            ("POST", "https://a.klaviyo.com/api/profile-bulk-import-jobs", vec![0, 1, 2, 3, 4]),
        ]
    );
    for planned in &planned {
        assert!(!format!("{planned:?}").contains("0123456789"), "{planned:?}");
        spec::check_request(&received(planned)).unwrap();
    }
    let first: Value = serde_json::from_str(&planned[1].body).unwrap();
    assert_eq!(
        first,
        json!({"data": {"type": "profile", "attributes": {"email": email(5), "properties": {"ltv": 5}}}})
    );
}
