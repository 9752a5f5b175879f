//! An account at Klaviyo: its key, its client and its limits, shared by all destinations that use it.

use std::sync::Arc;

use bytes::Bytes;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use secrecy::{ExposeSecret as _, SecretString};
use tailwater_core::code;

use super::requests::{Endpoint, Request};
use crate::error::{Error, Problem};
use crate::http::client::{self, check_base_url, is_this_machine};
use crate::http::{Client, Health, Limiter, Rate};

/// The vendor's host; there is one for all regions.
pub const BASE_URL: &str = "https://a.klaviyo.com";

/// The part of the documented limits that is used unless the configuration says otherwise: the vendor's windows and ours
/// never begin at the same moment, and other tools share the account.
pub const RATE_SHARE: f64 = 0.9;

/// The most that can be asked of a simulator: half a million events a second, more than any of them answers.
const RATE_SHARE_MAX: f64 = crate::http::limit::PART_MAX;

/// The revision of the API that every request asks for: <https://developers.klaviyo.com/en/docs/api_versioning_and_deprecation_policy>.
/// It is the first with `backfill` on events.
pub(super) const REVISION: &str = "2026-07-15";
pub(super) const MEDIA_TYPE: &str = "application/vnd.api+json";

/// What the configuration says about an account.
#[derive(Debug, Clone)]
pub struct AccountConfig {
    /// A private API key (`pk_…`) with the scopes `profiles:read`, `profiles:write`, `lists:read`, `lists:write` and, for events,
    /// `events:write`.
    pub api_key: SecretString,
    /// [`BASE_URL`], unless a simulator is meant.
    pub base_url: String,
    /// The part of the vendor's documented rate limits that is used, above 0 and up to 1; more only of a simulator on this machine.
    pub rate_share: f64,
}

/// An account that can be spoken to.
#[derive(Debug)]
pub struct Account {
    client: Client,
    authorization: HeaderValue,
    api_key: SecretString,
    masked: String,
    pub(super) limiter: Arc<Limiter>,
    pub(super) health: Health,
}

// === impl AccountConfig ===

impl AccountConfig {
    /// Everything that is wrong with it, without the network.
    pub fn check(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Err(message) = check_base_url(&self.base_url) {
            problems.push(Problem::new(code::CONFIG_INVALID_VALUE, "base_url", message));
        }
        let most = if is_this_machine(&self.base_url) { RATE_SHARE_MAX } else { 1.0 };
        if !(self.rate_share > 0.0 && self.rate_share <= most) {
            let message = format!(
                "{} is no part of a limit; expected a number above 0 and up to 1, such as {RATE_SHARE} (up to {RATE_SHARE_MAX} for a simulator, with a loopback address as `base_url`)",
                self.rate_share
            );
            problems.push(Problem::new(code::CONFIG_INVALID_VALUE, "rate_share", message));
        }
        let key = self.api_key.expose_secret();
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            let message = "the key is empty or holds a blank or a line break; expected a private API key (`pk_…`) and nothing else";
            problems.push(Problem::new(code::CONFIG_INVALID_VALUE, "api_key", message));
        }
        problems
    }
}

// === impl Account ===

impl Account {
    /// Sets the account up; speaks to nobody yet.
    ///
    /// # Errors
    /// The configuration is wrong, or the platform gives no HTTP client.
    pub fn new(config: &AccountConfig) -> Result<Self, Error> {
        Self::with_rates(config, &Endpoint::ALL.map(Endpoint::rate))
    }

    /// `rates` are in the order of [`Endpoint::ALL`].
    pub(super) fn with_rates(config: &AccountConfig, rates: &[Rate]) -> Result<Self, Error> {
        let problems = config.check();
        if !problems.is_empty() {
            return Err(Error::Config(problems));
        }
        let invalid =
            |path: &str, message: String| Error::Config(vec![Problem::new(code::CONFIG_INVALID_VALUE, path, message)]);
        let base = check_base_url(&config.base_url).map_err(|message| invalid("base_url", message))?;
        let mut authorization = HeaderValue::from_str(&format!("Klaviyo-API-Key {}", config.api_key.expose_secret()))
            .map_err(|_| invalid("api_key", "the key cannot stand in an HTTP header".to_owned()))?;
        authorization.set_sensitive(true);
        Ok(Self {
            client: Client::new(&base)?,
            authorization,
            api_key: config.api_key.clone(),
            masked: mask(config.api_key.expose_secret()),
            limiter: Limiter::new(rates, config.rate_share),
            health: Health::new(rates.len()),
        })
    }

    /// For people: `pk_…4f2a at a.klaviyo.com`.
    pub fn target(&self) -> String {
        format!("{} at {}", self.masked, self.client.host())
    }

    pub(super) fn url(&self, path: &str) -> String {
        self.client.url(path)
    }

    /// The headers of a request as they may be shown.
    pub(super) fn shown_headers(&self, request: &Request) -> Vec<(String, String)> {
        let mut headers = vec![
            ("authorization".to_owned(), format!("Klaviyo-API-Key {}", self.masked)),
            ("revision".to_owned(), REVISION.to_owned()),
            ("accept".to_owned(), MEDIA_TYPE.to_owned()),
        ];
        if request.body.is_some() {
            headers.push(("content-type".to_owned(), MEDIA_TYPE.to_owned()));
        }
        headers
    }

    /// Sends a request; limits are the caller's affair.
    pub(super) async fn exchange(
        &self,
        request: &Request,
    ) -> Result<crate::http::Response, crate::http::TransportError> {
        let media = HeaderValue::from_static(MEDIA_TYPE);
        let mut headers = vec![
            (AUTHORIZATION, self.authorization.clone()),
            (HeaderName::from_static("revision"), HeaderValue::from_static(REVISION)),
            (ACCEPT, media.clone()),
        ];
        if request.body.is_some() {
            headers.push((CONTENT_TYPE, media));
        }
        let body = request.body.as_ref().map(|body| Bytes::copy_from_slice(body.as_bytes()));
        self.client.send(&client::Request { method: request.method, path: request.path.clone(), headers, body }).await
    }

    /// Takes the key out of a text of the vendor's, in case it repeats what it was sent.
    pub(super) fn redact(&self, text: &str) -> String {
        text.replace(self.api_key.expose_secret(), &self.masked)
    }
}

/// A key's beginning and end, if enough stays hidden between them.
fn mask(key: &str) -> String {
    /// A shorter key would be half told by its end.
    const HIDDEN_FROM: usize = 16;
    let prefix = if key.starts_with("pk_") { "pk_" } else { "" };
    let end = key.len().checked_sub(4).filter(|_| key.len() >= HIDDEN_FROM).and_then(|from| key.get(from..));
    format!("{prefix}…{}", end.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> AccountConfig {
        AccountConfig {
            api_key: SecretString::from("pk_0123456789abcdef4f2a"),
            base_url: BASE_URL.to_owned(),
            rate_share: RATE_SHARE,
        }
    }

    #[test]
    fn the_target_shows_enough_to_recognise_the_key_and_no_more() {
        assert_eq!(Account::new(&config()).unwrap().target(), "pk_…4f2a at a.klaviyo.com");
        assert_eq!(mask("pk_short"), "pk_…");
        assert_eq!(mask("0123456789abcdef"), "…cdef");
    }

    #[test]
    fn more_than_the_documented_limits_is_for_this_machine_only() {
        let problems = |base_url: &str, rate_share| {
            let wanted = AccountConfig { base_url: base_url.to_owned(), rate_share, ..config() };
            wanted.check().iter().map(|problem| problem.message.clone()).collect::<Vec<_>>()
        };
        for near in ["http://127.0.0.1:8080", "http://localhost:9", "http://[::1]:1"] {
            assert!(problems(near, 10_000.0).is_empty(), "{near}");
            assert_eq!(problems(near, 10_001.0).len(), 1);
        }
        for far in ["https://a.klaviyo.com", "http://simulator:8080"] {
            assert!(problems(far, 1.1).concat().contains("loopback"), "{far}");
        }
    }

    #[test]
    fn all_problems_of_an_account_are_told_at_once_and_without_the_key() {
        let wrong = AccountConfig {
            api_key: SecretString::from("pk secret"),
            base_url: "http://a.klaviyo.com".to_owned(),
            rate_share: 1.5,
        };
        let error = Account::new(&wrong).unwrap_err();
        let Error::Config(problems) = &error else { panic!("{error}") };
        assert_eq!(
            problems.iter().map(|problem| problem.path.as_str()).collect::<Vec<_>>(),
            ["base_url", "rate_share", "api_key"]
        );
        assert!(!error.to_string().contains("secret"));
        assert!(!format!("{:?}", Account::new(&config()).unwrap()).contains("0123456789abcdef"));
    }
}
