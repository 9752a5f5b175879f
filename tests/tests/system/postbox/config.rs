//! What the configuration says about an account at Postbox and a destination there.

use schemars::JsonSchema;
use serde::Deserialize;
use tailwater_connectors::config::Secret;

/// An account at Postbox.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// An API token: `${env:POSTBOX_TOKEN}`.
    pub token: Secret,
    /// Where the API answers.
    #[serde(default = "base_url")]
    pub base_url: String,
}

/// A destination at Postbox.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// The folder that contacts are put into.
    pub folder: String,
}

fn base_url() -> String {
    super::BASE_URL.to_owned()
}
