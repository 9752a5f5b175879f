//! Klaviyo, as its specification has it.

use serde_json::{Value, json};
use tailwater_connectors::registry;

use crate::suite::server::{Received, Reply};
use crate::suite::{Subject, email};

const KEY: &str = "pk_0123456789abcdef0123456789abcd4f2a";

pub fn subject() -> Subject {
    Subject {
        kind: registry::find("klaviyo").expect("it is in the registry"),
        account: |url| {
            let near = url.contains("127.0.0.1") && url.starts_with("http:");
            json!({"api_key": KEY, "base_url": url, "rate_share": if near { 10_000.0 } else { 0.9 }})
        },
        options: json!({"create": true}),
        identifiers: &[("email", "email"), ("external_id", "customer_id")],
        output: |number, note| {
            json!({"data": {"type": "profile", "attributes": {
                "email": email(number), "properties": {"score": number, "note": note},
            }}})
        },
        healthy,
        secret: KEY,
    }
}

fn healthy(received: &Received) -> Reply {
    match (received.method.as_str(), received.path.as_str()) {
        ("POST", "/api/profile-import") => Reply::json(200, &json!({"data": {"type": "profile", "id": "01"}})),
        ("POST", "/api/profile-bulk-import-jobs") => {
            Reply::json(202, &json!({"data": {"type": "profile-bulk-import-job", "id": "JOB"}}))
        }
        ("GET", "/api/profile-bulk-import-jobs/JOB") => {
            Reply::json(200, &json!({"data": {"attributes": {"status": "complete"}}}))
        }
        ("GET", "/api/lists") => Reply::json(200, &json!({"data": []})),
        _ => Reply::json(204, &Value::Null),
    }
}
