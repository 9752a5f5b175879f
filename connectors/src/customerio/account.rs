//! An account at Customer.io: a workspace, the API that is used for it, and how it is spoken to.

use std::sync::Arc;

use super::config::{Account, Api, Credentials, Region};
use super::endpoint::RATE_MAX;
use super::errors;
use crate::error::{Error, Problem};
use crate::http::{self, Credential, Response, Setup, Vendor};

/// Requests of the Pipelines API fail when their data is dropped only where they say this.
const STRICT_MODE: (&str, &str) = ("x-strict-mode", "1");

/// What destinations of one account share.
#[derive(Debug)]
pub struct Connection {
    pub(super) http: Arc<http::Account>,
    /// What it was set up from: a probe asks elsewhere with the same credentials.
    pub(super) config: Account,
}

/// How Customer.io words its answers.
#[derive(Debug)]
struct Answers {
    api: Api,
    region: Region,
}

// === impl Connection ===

impl Connection {
    /// Sets the account up; speaks to nobody yet.
    ///
    /// # Errors
    /// The configuration is wrong, or the platform gives no HTTP client.
    pub fn new(config: &Account) -> Result<Self, Error> {
        Error::unless_usable(config.check())?;
        let http = speaking(config, config.api, config.region, config.base_url(config.api, config.region))?;
        Ok(Self { http: Arc::new(http), config: config.clone() })
    }
}

/// An account at one of the vendor's APIs and regions.
///
/// # Errors
/// The credentials do not fit the API, or the platform gives no HTTP client.
pub(super) fn speaking(config: &Account, api: Api, region: Region, base_url: &str) -> Result<http::Account, Error> {
    let credential = match config.credentials(api) {
        Some(Credentials::Secret(secret)) => {
            Credential::header("authorization", "Bearer ", &secret.clone().into_inner())?
        }
        Some(Credentials::Basic { site, key }) => Credential::basic(site, &key.clone().into_inner())?,
        Some(Credentials::Source(key)) => Credential::basic_key(&key.clone().into_inner())?,
        None => {
            let message = format!("the account's credentials are not for the {} API", api.as_str());
            return Err(Error::Config(vec![Problem::new(tailwater_core::code::CONFIG_INVALID_VALUE, "api", message)]));
        }
    };
    let headers: &[(&str, &str)] = match api {
        Api::Track => &[],
        Api::Pipelines => &[STRICT_MODE],
    };
    http::Account::new(Setup {
        base_url,
        rate_share: f64::from(config.rate) / f64::from(RATE_MAX),
        credential,
        headers,
        media_type: "application/json",
        vendor: Box::new(Answers { api, region }),
    })
}

// === impl Answers ===

impl Vendor for Answers {
    fn credentials(&self) -> &'static str {
        "key"
    }

    fn valid_credentials(&self) -> &'static str {
        "a valid `secret_key` (or `site_id` and `api_key`) of this workspace and region"
    }

    fn words(&self, response: &Response) -> String {
        match response.header("location").filter(|_| (300..400).contains(&response.status)) {
            Some(location) => redirected(location, self.api, self.region),
            None => errors::summary(&errors::read(&response.body)),
        }
    }
}

/// The vendor sends a workspace of the other region to its own host. Following would send data through the wrong region, and the credentials
/// to wherever the answer points.
fn redirected(location: &str, api: Api, region: Region) -> String {
    let host = url::Url::parse(location).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
    let other = region.other();
    let is_other = api.base_url(other).strip_prefix("https://") == Some(host.as_str());
    let host = if host.is_empty() { "another address".to_owned() } else { format!("`{host}`") };
    if is_other {
        format!(
            "the vendor redirects to {host}, so the workspace's data lies in the region `{region}`: write `region: {region}` in the account. \
             Redirects are not followed",
            region = other.as_str()
        )
    } else {
        format!(
            "the vendor redirects to {host}; redirects are not followed, because they would carry the credentials along"
        )
    }
}
