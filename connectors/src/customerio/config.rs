//! What the configuration says about an account at Customer.io and a destination there.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tailwater_core::code;

use super::account::Connection;
use super::endpoint::RATE_MAX;
use super::mapping::Field;
use super::{Config, Customerio, SPEC};
use crate::config::{Secret, check_base_url, check_credential};
use crate::connector::{Connector, Shared};
use crate::destination::{Destination, Spec};
use crate::error::{Error, Problem};
use crate::http::client::is_this_machine;
use crate::output::{NonFinite, Nulls};

/// Requests per second that are used unless the configuration says otherwise. The vendor's pages name 1,000 and, elsewhere, 100; it
/// "may throttle or drop data" above what it names.
pub(super) const RATE: u32 = 100;

/// The most that can be asked of a simulator.
const SIMULATOR_RATE_MAX: u32 = 1_000_000;

/// An account at Customer.io: a workspace.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// A secret key (`sk_…`): `${env:CUSTOMERIO_SECRET_KEY}`. It works for both APIs. Give this, or the older `site_id` and `api_key`.
    pub secret_key: Option<Secret>,
    /// The site id of a Track API key, beside `api_key`.
    pub site_id: Option<String>,
    /// An older key: of the Track API beside `site_id`, or of a source of the Pipelines API.
    pub api_key: Option<Secret>,
    /// Where the workspace's data lies. `tailwater probe` says which one it is.
    #[serde(default)]
    pub region: Region,
    /// Which of the vendor's APIs is used. People must be updated through one of them only: the vendor keeps no order between the two.
    #[serde(default)]
    pub api: Api,
    /// Where the API answers, instead of the region's address: for the simulator (`tailwater simulate customerio`).
    pub base_url: Option<String>,
    /// Requests per second, up to 1,000. Other programs with the same workspace share the vendor's limit. More is for a simulator on this
    /// machine: a `base_url` with a loopback address.
    #[serde(default = "default::rate")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub rate: u32,
}

/// Where a workspace's data lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Region {
    #[default]
    Us,
    Eu,
}

/// One of the vendor's APIs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Api {
    /// The Track API v2: people, objects, relationships, devices and segments, with an answer for each item.
    #[default]
    Track,
    /// The Pipelines API, in strict mode. It has no segments, no merge and no `create: false`.
    Pipelines,
}

/// A destination at Customer.io.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Whether people whom the vendor does not know may be created there. With `false` every update says `_update: true`: the vendor
    /// ignores it for unknown people, and does not say so. It must be said, because profiles are billed.
    pub create: bool,
    /// With `create: false`: whether events, devices and relationships may be sent although the vendor may create a person by them and
    /// offers no way to prevent it.
    #[serde(default)]
    pub implicit_create: bool,
    /// What becomes of an attribute that is null.
    #[serde(default)]
    pub nulls: Nulls,
    /// What becomes of a number that is not finite (NaN, Infinity). It never becomes null.
    #[serde(default)]
    pub non_finite: NonFinite,
    /// What becomes of a time that counts milliseconds or less where the vendor counts seconds.
    #[serde(default)]
    pub milliseconds: Milliseconds,
    /// Whether updates carry the time of their event. The vendor silently drops an update that is older than the last one it has applied;
    /// Tailwater keeps the order of updates itself, so this is for a workspace that other programs update as well.
    #[serde(default)]
    pub state_timestamps: bool,
}

/// What becomes of a time in another unit than seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Milliseconds {
    /// It is converted to seconds, and the delivery says so (`delivered_in_part`).
    #[default]
    Convert,
    /// The delivery becomes a dead letter.
    Reject,
}

/// How a request proves who sends it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Credentials<'a> {
    /// `sk_…` as a bearer token.
    Secret(&'a Secret),
    /// A key of the Track API.
    Basic { site: &'a str, key: &'a Secret },
    /// The key of a source of the Pipelines API.
    Source(&'a Secret),
}

mod default {
    pub fn rate() -> u32 {
        super::RATE
    }
}

// === impl Region ===

impl Region {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Us => "us",
            Self::Eu => "eu",
        }
    }

    pub const fn other(self) -> Self {
        match self {
            Self::Us => Self::Eu,
            Self::Eu => Self::Us,
        }
    }
}

// === impl Api ===

impl Api {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Track => "track",
            Self::Pipelines => "pipelines",
        }
    }

    pub const fn other(self) -> Self {
        match self {
            Self::Track => Self::Pipelines,
            Self::Pipelines => Self::Track,
        }
    }

    /// The vendor's host.
    pub const fn base_url(self, region: Region) -> &'static str {
        match (self, region) {
            (Self::Track, Region::Us) => "https://track.customer.io",
            (Self::Track, Region::Eu) => "https://track-eu.customer.io",
            (Self::Pipelines, Region::Us) => "https://cdp.customer.io",
            (Self::Pipelines, Region::Eu) => "https://cdp-eu.customer.io",
        }
    }
}

// === impl Account ===

impl Account {
    /// Where requests go.
    pub(super) fn base_url(&self, api: Api, region: Region) -> &str {
        self.base_url.as_deref().unwrap_or_else(|| api.base_url(region))
    }

    /// The credentials as the API takes them; `None` if they do not fit.
    pub(super) fn credentials(&self, api: Api) -> Option<Credentials<'_>> {
        match (&self.secret_key, &self.api_key, &self.site_id, api) {
            (Some(secret), None, None, _) => Some(Credentials::Secret(secret)),
            (None, Some(key), Some(site), Api::Track) => Some(Credentials::Basic { site, key }),
            (None, Some(key), None, Api::Pipelines) => Some(Credentials::Source(key)),
            (Some(_) | None, ..) => None,
        }
    }

    /// Everything that is wrong with it, without the network.
    pub fn check(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Some(base_url) = &self.base_url {
            problems.extend(check_base_url("base_url", base_url, self.api.base_url(self.region)));
        }
        problems.extend(self.check_rate());
        problems.extend(self.check_credentials());
        problems
    }

    fn check_rate(&self) -> Option<Problem> {
        let near = self.base_url.as_deref().is_some_and(is_this_machine);
        let most = if near { SIMULATOR_RATE_MAX } else { RATE_MAX };
        if (1..=most).contains(&self.rate) {
            return None;
        }
        let message = format!("{} requests a second is not between 1 and {most}", self.rate);
        let problem = Problem::new(code::CONFIG_INVALID_VALUE, "rate", message);
        Some(problem.hint("the vendor documents 1,000; more is for a simulator, with a loopback address as `base_url`"))
    }

    fn check_credentials(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Some(secret) = &self.secret_key {
            problems.extend(check_credential("secret_key", secret, "a secret key (`sk_…`)"));
            if secret.expose().starts_with("pk_") {
                let message = "it is a public key (`pk_…`), which identifies browsers and opens no API";
                problems
                    .push(Problem::new(code::CONFIG_INVALID_VALUE, "secret_key", message).hint("use the `sk_…` key"));
            }
        }
        if let Some(key) = &self.api_key {
            problems.extend(check_credential("api_key", key, "a key of the older kind"));
            if key.expose().starts_with("sk_") {
                let message = "it is a secret key of the new kind (`sk_…`)";
                problems.push(
                    Problem::new(code::CONFIG_INVALID_VALUE, "api_key", message).hint("write it as `secret_key`"),
                );
            }
        }
        let fits = |byte: u8| byte.is_ascii_graphic() && byte != b':';
        if self.site_id.as_ref().is_some_and(|site| site.is_empty() || !site.bytes().all(fits)) {
            let message = "it is empty, or holds a blank, a colon or a character that is not ASCII";
            problems.push(Problem::new(code::CONFIG_INVALID_VALUE, "site_id", message));
        }
        if problems.is_empty() && self.credentials(self.api).is_none() {
            let (key, message) = match (&self.secret_key, &self.api_key, &self.site_id) {
                (Some(_), _, _) => {
                    ("secret_key", "it stands beside `site_id` or `api_key`; give one kind of credentials")
                }
                (None, None, _) => ("secret_key", "the account has no credentials"),
                (None, Some(_), Some(_)) => {
                    ("site_id", "the Pipelines API takes the `api_key` of a source and no `site_id`")
                }
                (None, Some(_), None) => ("site_id", "the Track API takes `site_id` and `api_key` together"),
            };
            let problem = Problem::new(code::CONFIG_MISSING_KEY, key, message);
            problems.push(problem.hint(
                "give `secret_key`; or `site_id` and `api_key` with `api: track`; or the `api_key` of a source with `api: pipelines`",
            ));
        }
        problems
    }
}

// === impl Options ===

impl Options {
    /// Everything that is wrong with it at this account, without the network.
    pub fn check(&self, account: &Account, shared: &Shared) -> Vec<Problem> {
        let mut problems = Vec::new();
        let invalid = |key: &str, message: String| Problem::new(code::CONFIG_INVALID_VALUE, key, message);
        match key_field(shared) {
            Some(field) if !field.names_somebody() => {
                let message = "`anonymous_id` names a browser, and no person by itself".to_owned();
                problems
                    .push(invalid("identifier", message).hint("let `id` or `email` hold the destination's identifier"));
            }
            Some(field) if account.api == Api::Pipelines && field != Field::Id => {
                let message = format!(
                    "the Pipelines API names people by `id` only, and here `{}` holds the identifier",
                    field.as_str()
                );
                problems.push(invalid("identifier", message).hint("map `id`, or use `api: track` in the account"));
            }
            Some(_) | None => {}
        }
        if account.api == Api::Pipelines && !self.create {
            let message = "the Pipelines API cannot update people without creating them".to_owned();
            problems.push(invalid("create", message).hint("use `api: track` in the account, or `create: true`"));
        }
        problems
    }
}

/// The vendor's field that holds the destination's identifier.
pub(super) fn key_field(shared: &Shared) -> Option<Field> {
    Field::ALL.into_iter().find(|field| shared.identifiers.get(field.as_str()) == Some(&shared.identifier))
}

// === impl Connector ===

impl Connector for Customerio {
    const SPEC: &'static Spec = &SPEC;

    type Account = Account;
    type Options = Options;
    type Connection = Connection;

    fn check_account(account: &Account) -> Vec<Problem> {
        account.check()
    }

    fn check(account: &Account, options: &Options, shared: &Shared) -> Vec<Problem> {
        options.check(account, shared)
    }

    fn open(account: &Account) -> Result<Connection, Error> {
        Connection::new(account)
    }

    fn connect(
        connection: &Arc<Connection>,
        options: &Options,
        shared: &Shared,
    ) -> Result<Arc<dyn Destination>, Error> {
        Ok(Arc::new(Self::new(Arc::clone(connection), Config::new(options, shared)?)))
    }
}
