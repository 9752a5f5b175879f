//! An account at Klaviyo: its key, its client and its limits, shared by all destinations that use it.

use std::sync::Arc;

use super::{config, errors};
use crate::error::Error;
use crate::http::{self, Credential, Response, Setup, Vendor};

/// The vendor's host; there is one for all regions.
pub const BASE_URL: &str = "https://a.klaviyo.com";

/// The revision of the API that every request asks for: <https://developers.klaviyo.com/en/docs/api_versioning_and_deprecation_policy>.
/// It is the first with `backfill` on events.
pub(super) const REVISION: &str = "2026-07-15";
pub(super) const MEDIA_TYPE: &str = "application/vnd.api+json";

/// An account that can be spoken to.
#[derive(Debug)]
pub struct Account(pub(super) Arc<http::Account>);

/// How Klaviyo words its answers.
#[derive(Debug)]
struct Answers;

// === impl Account ===

impl Account {
    /// Sets the account up; speaks to nobody yet.
    ///
    /// # Errors
    /// The configuration is wrong, or the platform gives no HTTP client.
    pub fn new(config: &config::Account) -> Result<Self, Error> {
        Error::unless_usable(config.check())?;
        let account = http::Account::new(Setup {
            base_url: &config.base_url,
            rate_share: config.rate_share,
            credential: Credential::header("authorization", "Klaviyo-API-Key ", config.api_key.inner())?,
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
    use crate::config::Secret;
    use crate::error::Problem;
    use crate::http::RATE_SHARE;

    fn config() -> config::Account {
        config::Account {
            api_key: Secret::from("pk_0123456789abcdef4f2a"),
            base_url: BASE_URL.to_owned(),
            rate_share: RATE_SHARE,
        }
    }

    #[test]
    fn all_problems_of_an_account_are_told_at_once_and_without_the_key() {
        let wrong = config::Account {
            api_key: Secret::from("pk secret"),
            base_url: "http://a.klaviyo.com".to_owned(),
            rate_share: 1.5,
        };
        let error = Account::new(&wrong).unwrap_err();
        let Error::Config(problems) = &error else { panic!("{error}") };
        assert_eq!(problems.iter().map(Problem::place).collect::<Vec<_>>(), ["base_url", "rate_share", "api_key"]);
        assert!(!error.to_string().contains("secret"));
        assert!(!format!("{:?}", Account::new(&config()).unwrap()).contains("0123456789abcdef"));
    }
}
