//! An account at Klaviyo: its key, its client and its limits, shared by all destinations that use it.

use std::sync::Arc;

use secrecy::SecretString;

use super::errors;
use crate::error::{Error, Problem};
use crate::http::account::{check_address, check_rate_share, check_secret};
use crate::http::{self, Credential, Response, Setup, Vendor};

/// The vendor's host; there is one for all regions.
pub const BASE_URL: &str = "https://a.klaviyo.com";

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
pub struct Account(pub(super) Arc<http::Account>);

/// How Klaviyo words its answers.
#[derive(Debug)]
struct Answers;

// === impl AccountConfig ===

impl AccountConfig {
    /// Everything that is wrong with it, without the network.
    pub fn check(&self) -> Vec<Problem> {
        let problems = [
            check_address(&self.base_url),
            check_rate_share(&self.base_url, self.rate_share),
            check_secret("api_key", &self.api_key, "a private API key (`pk_…`)"),
        ];
        problems.into_iter().flatten().collect()
    }
}

// === impl Account ===

impl Account {
    /// Sets the account up; speaks to nobody yet.
    ///
    /// # Errors
    /// The configuration is wrong, or the platform gives no HTTP client.
    pub fn new(config: &AccountConfig) -> Result<Self, Error> {
        let problems = config.check();
        if !problems.is_empty() {
            return Err(Error::Config(problems));
        }
        let account = http::Account::new(Setup {
            base_url: &config.base_url,
            rate_share: config.rate_share,
            credential: Credential::header("authorization", "Klaviyo-API-Key ", &config.api_key)?,
            headers: &[("revision", REVISION)],
            media_type: MEDIA_TYPE,
            vendor: Box::new(Answers),
        })?;
        Ok(Self(Arc::new(account)))
    }
}

// === impl Answers ===

impl Vendor for Answers {
    fn valid_credentials(&self) -> &'static str {
        "a valid private key"
    }

    fn words(&self, response: &Response) -> String {
        errors::summary(&errors::read(&response.body))
    }

    fn remark(&self, response: &Response) -> Option<String> {
        errors::partial_failure(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::RATE_SHARE;

    fn config() -> AccountConfig {
        AccountConfig {
            api_key: SecretString::from("pk_0123456789abcdef4f2a"),
            base_url: BASE_URL.to_owned(),
            rate_share: RATE_SHARE,
        }
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
