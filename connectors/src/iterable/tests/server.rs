//! The scripted vendor of the tests, with this vendor's answers; every request is checked against its specification.

use std::ops::Deref;

use super::spec;
use crate::scripted;
pub use crate::scripted::{Received, Reply};

pub struct Server(scripted::Server);

impl Server {
    /// Starts a vendor; the script is given each request and how many came before it.
    pub async fn start(script: impl Fn(&Received, usize) -> Reply + Send + Sync + 'static) -> Self {
        Self(scripted::Server::start(spec::check_request, script).await)
    }
}

impl Deref for Server {
    type Target = scripted::Server;

    fn deref(&self) -> &scripted::Server {
        &self.0
    }
}

impl Reply {
    /// The vendor's answer to a single request, or a refusal.
    pub fn plain(status: u16, code: &str, message: &str) -> Self {
        Self::json(status, &serde_json::json!({"code": code, "msg": message, "params": null}))
    }

    pub fn success() -> Self {
        Self::plain(200, "Success", "")
    }
}

impl Received {
    /// The addresses in a bulk request, in its order.
    pub fn emails(&self) -> Vec<String> {
        let items = ["users", "events", "subscribers"].iter().find_map(|name| self.body[*name].as_array()).unwrap();
        items.iter().map(|item| item["email"].as_str().unwrap().to_owned()).collect()
    }
}
