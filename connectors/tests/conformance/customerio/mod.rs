//! Customer.io, by the Track API, for people who are named by email.

use serde_json::json;
use tailwater_connectors::registry;

use crate::suite::server::{Received, Reply};
use crate::suite::{Subject, email};

const KEY: &str = "sk_0123456789abcdef0123456789abcd4f2a";

pub fn subject() -> Subject {
    Subject {
        kind: registry::find("customerio").expect("it is in the registry"),
        account: |url| {
            let near = url.contains("127.0.0.1") && url.starts_with("http:");
            json!({"secret_key": KEY, "base_url": url, "rate": if near { 1_000_000 } else { 100 }})
        },
        options: json!({"create": true}),
        identifiers: &[("email", "email"), ("id", "customer_id")],
        output: |number, note| {
            let attributes = json!({"score": number, "note": note});
            json!({"type": "person", "identifiers": {"email": email(number)}, "action": "identify", "attributes": attributes})
        },
        healthy,
        secret: KEY,
    }
}

fn healthy(received: &Received) -> Reply {
    match received.path.as_str() {
        "/api/v1/accounts/region" => {
            Reply::json(200, &json!({"url": "https://track.customer.io", "region": "us", "environment_id": 3}))
        }
        _ => Reply::json(200, &json!({})),
    }
}
