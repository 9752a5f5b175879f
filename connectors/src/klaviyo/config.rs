//! What the configuration says about an account at Klaviyo and a destination there.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BASE_URL, BULK_FROM, Config, Klaviyo, RATE_SHARE, SPEC};
use crate::config::{Secret, check_base_url, check_credential, check_rate_share};
use crate::connector::{Connector, Shared};
use crate::destination::{Destination, Spec};
use crate::error::{Error, Problem};
use crate::output::{NonFinite, Nulls};

/// An account at Klaviyo.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// A private API key: `${env:KLAVIYO_API_KEY}`. `docs/guides/klaviyo.md` lists the scopes that it needs.
    pub api_key: Secret,
    /// Where the API answers. Another address than the default is for the simulator (`tailwater simulate klaviyo`).
    #[serde(default = "default::base_url")]
    pub base_url: String,
    /// Which part of the vendor's documented rate limits is used, up to 1; the rest is left to other programs with the same account. More
    /// than 1 is for a simulator on this machine: a `base_url` with a loopback address.
    #[serde(default = "default::rate_share")]
    #[schemars(range(min = 0.01, max = 10_000.0))]
    pub rate_share: f64,
}

/// A destination at Klaviyo.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Whether people whom the vendor does not know may be created there. With `false` people are looked up first, and unknown ones
    /// are skipped (`would_create`). It must be said, because creating profiles can cost money and cannot be taken back.
    pub create: bool,
    /// What becomes of a property that is null.
    #[serde(default)]
    pub nulls: Nulls,
    /// What becomes of a number that is not finite (NaN, Infinity). It never becomes null.
    #[serde(default)]
    pub non_finite: NonFinite,
    /// What becomes of a delivery whose identifiers belong to several people at the vendor.
    #[serde(default)]
    pub on_conflict: OnConflict,
}

/// What becomes of a delivery whose identifiers the vendor knows as different people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnConflict {
    /// It becomes a dead letter (`duplicate_profile`).
    #[default]
    Reject,
    /// It goes to the profile that the destination's `identifier` names, without the other identifiers, and the delivery says so
    /// (`delivered_in_part`). With `create: false` that profile must exist.
    KeyOnly,
}

mod default {
    pub fn base_url() -> String {
        super::BASE_URL.to_owned()
    }
    pub fn rate_share() -> f64 {
        super::RATE_SHARE
    }
}

// === impl Account ===

impl Account {
    /// Everything that is wrong with it, without the network.
    pub fn check(&self) -> Vec<Problem> {
        let mut problems = check_base_url("base_url", &self.base_url, BASE_URL);
        problems.extend(check_rate_share("rate_share", self.rate_share, &self.base_url));
        problems.extend(check_credential("api_key", &self.api_key, "a private API key (`pk_…`)"));
        problems
    }
}

// === impl Connector ===

impl Connector for Klaviyo {
    const SPEC: &'static Spec = &SPEC;

    type Account = Account;
    type Options = Options;
    type Connection = super::Account;

    fn check_account(account: &Account) -> Vec<Problem> {
        account.check()
    }

    fn check(_: &Account, _: &Options, _: &Shared) -> Vec<Problem> {
        Vec::new()
    }

    fn open(account: &Account) -> Result<super::Account, Error> {
        super::Account::new(account)
    }

    fn connect(
        connection: &Arc<super::Account>,
        options: &Options,
        shared: &Shared,
    ) -> Result<Arc<dyn Destination>, Error> {
        let config = Config {
            create: options.create,
            identifier: shared.identifier.clone(),
            identifiers: shared.identifiers.clone(),
            nulls: options.nulls,
            non_finite: options.non_finite,
            on_conflict: options.on_conflict,
            bulk_from: BULK_FROM,
        };
        Ok(Arc::new(Self::new(Arc::clone(connection), config)?))
    }
}
