//! Iterable, a project that names people by email.

use serde_json::json;
use tailwater_connectors::registry;

use crate::suite::server::{Received, Reply};
use crate::suite::{Subject, email};

const KEY: &str = "0123456789abcdef0123456789abcdef";

pub fn subject() -> Subject {
    Subject {
        kind: registry::find("iterable").expect("it is in the registry"),
        account: |url| {
            let near = url.contains("127.0.0.1") && url.starts_with("http:");
            let rate_share = if near { 10_000.0 } else { 0.9 };
            json!({"api_key": KEY, "identity": "email", "base_url": url, "rate_share": rate_share})
        },
        options: json!({"create": true, "create_new_fields": true, "merge_nested_objects": true, "settle": "1ms"}),
        identifiers: &[("email", "email")],
        output: |number, note| json!({"email": email(number), "dataFields": {"score": number, "note": note}}),
        healthy,
        secret: KEY,
    }
}

fn healthy(received: &Received) -> Reply {
    match received.path.as_str() {
        "/api/users/bulkUpdate" => {
            let count = received.body.matches("@example.com").count();
            Reply::json(200, &json!({"successCount": count, "failCount": 0, "failedUpdates": {}}))
        }
        "/api/users/getFields" => Reply::json(200, &json!({"fields": {"score": "long", "note": "string"}})),
        _ => Reply::json(200, &json!({"code": "Success", "msg": "", "params": {}})),
    }
}
