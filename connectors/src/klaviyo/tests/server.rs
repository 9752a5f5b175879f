//! The scripted vendor of the tests, with this vendor's answers; every request is checked against its specification.

use std::ops::Deref;

use serde_json::Value;

use super::spec;
use crate::scripted;
pub use crate::scripted::{Received, Reply};

pub struct Server(scripted::Server);

impl Server {
    /// Starts a vendor; the script is given each request and how many came before it.
    pub async fn start(script: impl Fn(&Received, usize) -> Reply + Send + Sync + 'static) -> Self {
        Self(scripted::Server::start_as("application/vnd.api+json", spec::check_request, script).await)
    }
}

impl Deref for Server {
    type Target = scripted::Server;

    fn deref(&self) -> &scripted::Server {
        &self.0
    }
}

impl Reply {
    /// The vendor's error envelope with one error per pointer.
    pub fn errors(status: u16, code: &str, pointers: &[&str]) -> Self {
        let error = |pointer: &&str| {
            serde_json::json!({"id": "e", "status": status, "code": code, "title": "Not taken.", "detail": format!("no good: {code}"),
                "source": {"pointer": pointer}, "links": {}, "meta": {}})
        };
        Self::json(status, &serde_json::json!({"errors": pointers.iter().map(error).collect::<Vec<_>>()}))
    }
}

impl Received {
    /// The emails of the profiles in a bulk import.
    pub fn bulk_emails(&self) -> Vec<String> {
        let profiles = self.body.pointer("/data/attributes/profiles/data").and_then(Value::as_array).unwrap();
        profiles.iter().map(|profile| profile["attributes"]["email"].as_str().unwrap().to_owned()).collect()
    }
}
