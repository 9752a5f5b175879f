//! What the configuration says about a project at Iterable and a destination there.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tailwater_core::code;

use super::person::Field;
use super::{BULK_FROM, Config, Identity, Iterable, SETTLE, SPEC};
use crate::config::{Period, Secret, check_base_url, check_credential, check_rate_share};
use crate::connector::{Connector, Shared};
use crate::destination::{Destination, Spec};
use crate::error::{Error, Problem};
use crate::http;
use crate::output::{NonFinite, Nulls};

/// The host of the data center in the United States.
pub const US: &str = "https://api.iterable.com";

/// The host of the data center in Europe.
pub const EU: &str = "https://api.eu.iterable.com";

/// The longest `settle`: longer waits keep the deliveries of too many people open.
const SETTLE_MAX: Period = Period::seconds(600);

/// A project at Iterable.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// A server-side API key of the project: `${env:ITERABLE_API_KEY}`. A key belongs to one project and one data center.
    pub api_key: Secret,
    /// How the project identifies people, as it says under *Settings → Project Settings*. The vendor's API cannot be asked for it.
    pub identity: Identity,
    /// The project's data center.
    #[serde(default)]
    pub region: Region,
    /// Where the API answers, in place of the region's host. It is for the simulator (`tailwater simulate iterable`).
    #[serde(default)]
    pub base_url: Option<String>,
    /// Which part of the vendor's documented rate limits is used, up to 1; the rest is left to other programs with the same project. More
    /// than 1 is for a simulator on this machine: a `base_url` with a loopback address.
    #[serde(default = "default::rate_share")]
    #[schemars(range(min = 0.01, max = 10_000.0))]
    pub rate_share: f64,
}

/// A data center of the vendor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Region {
    /// `api.iterable.com`
    #[default]
    Us,
    /// `api.eu.iterable.com`
    Eu,
}

/// A destination at Iterable.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Whether people whom the vendor does not know may be created there. With `false` people are looked up first, one by one, and
    /// unknown ones are skipped (`would_create`).
    pub create: bool,
    /// Whether fields that the project does not have are created. With `false` the vendor drops them, and the delivery says so
    /// (`fields_filtered`). A project takes about 1,000 fields, and a field's type cannot be changed.
    pub create_new_fields: bool,
    /// Whether an object in `dataFields` is merged with the one that the person has. With `false` it replaces it as a whole. An output may
    /// say otherwise by `mergeNestedObjects`.
    pub merge_nested_objects: bool,
    /// What becomes of a field that is null.
    #[serde(default)]
    pub nulls: Nulls,
    /// What becomes of a number that is not finite (NaN, Infinity). It never becomes null.
    #[serde(default)]
    pub non_finite: NonFinite,
    /// Whether date-times with an offset in `dataFields` (`2026-03-01T08:00:00Z`) are written in the vendor's format
    /// (`2026-03-01 08:00:00 +00:00`), which alone it takes for dates.
    #[serde(default = "default::convert_dates")]
    pub convert_dates: bool,
    /// From how many users or events in a batch on bulk requests are used; 0 means always.
    #[serde(default = "default::bulk_from")]
    pub bulk_from: usize,
    /// How long the vendor may take until an update is effective. What depends on it waits, and single and bulk calls for one person keep
    /// this distance. The vendor asks for 60 seconds; less is for the simulator.
    #[serde(default = "default::settle")]
    pub settle: Period,
}

mod default {
    use super::Period;

    pub fn rate_share() -> f64 {
        crate::http::RATE_SHARE
    }
    pub fn convert_dates() -> bool {
        true
    }
    pub fn bulk_from() -> usize {
        super::BULK_FROM
    }
    pub fn settle() -> Period {
        Period(super::SETTLE)
    }
}

// === impl Account ===

impl Account {
    pub fn base_url(&self) -> &str {
        self.base_url.as_deref().unwrap_or(match self.region {
            Region::Us => US,
            Region::Eu => EU,
        })
    }

    /// Everything that is wrong with it, without the network.
    pub fn check(&self) -> Vec<Problem> {
        let mut problems = check_base_url("base_url", self.base_url(), US);
        problems.extend(check_rate_share("rate_share", self.rate_share, self.base_url()));
        problems.extend(check_credential("api_key", &self.api_key, "a server-side API key"));
        problems
    }
}

/// A project names people by a field, so the destination must say which identifier type the field holds.
fn check_identity(identity: Identity, shared: &Shared) -> Option<Problem> {
    let holds = |field: Field| shared.identifiers.contains_key(field.as_str());
    let needed = match identity {
        Identity::Email => [Field::Email].as_slice(),
        Identity::UserId => [Field::UserId].as_slice(),
        Identity::Hybrid => [Field::Email, Field::UserId].as_slice(),
    };
    if needed.iter().copied().any(holds) {
        return None;
    }
    let names: Vec<String> = needed.iter().map(|field| format!("`{}`", field.as_str())).collect();
    let message = format!(
        "the account's project {}, and no identifier type is given for {}",
        identity.describe(),
        names.join(" or ")
    );
    let hint = format!("add `identifiers: {{ {}: <type> }}`", needed.first().map_or("email", |field| field.as_str()));
    Some(Problem::new(code::CONFIG_INVALID_VALUE, "identifiers", message).hint(hint))
}

fn check_settle(settle: Period) -> Option<Problem> {
    if settle <= SETTLE_MAX {
        return None;
    }
    let message = format!("{settle} is too long; at most {SETTLE_MAX}");
    Some(Problem::new(code::CONFIG_INVALID_VALUE, "settle", message).hint("leave it out: the vendor asks for 60s"))
}

// === impl Connector ===

impl Connector for Iterable {
    const SPEC: &'static Spec = &SPEC;

    type Account = Account;
    type Options = Options;
    type Connection = Project;

    fn check_account(account: &Account) -> Vec<Problem> {
        account.check()
    }

    fn check(account: &Account, options: &Options, shared: &Shared) -> Vec<Problem> {
        check_identity(account.identity, shared).into_iter().chain(check_settle(options.settle)).collect()
    }

    fn open(account: &Account) -> Result<Project, Error> {
        Error::unless_usable(account.check())?;
        let api_key = account.api_key.clone().into_inner();
        let shared = super::open(&api_key, account.base_url(), account.rate_share)?;
        Ok(Project { identity: account.identity, account: Arc::new(shared) })
    }

    fn connect(connection: &Arc<Project>, options: &Options, shared: &Shared) -> Result<Arc<dyn Destination>, Error> {
        let config = Config {
            identity: connection.identity,
            create: options.create,
            create_new_fields: options.create_new_fields,
            merge_nested_objects: options.merge_nested_objects,
            identifiers: shared.identifiers.clone(),
            nulls: options.nulls,
            non_finite: options.non_finite,
            convert_dates: options.convert_dates,
            bulk_from: options.bulk_from,
            settle: options.settle.0,
        };
        Ok(Arc::new(Self::new(Arc::clone(&connection.account), config)))
    }
}

/// A project that can be spoken to.
#[derive(Debug)]
pub struct Project {
    identity: Identity,
    account: Arc<http::Account>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn account(extra: &serde_json::Value) -> Account {
        let mut account = json!({"api_key": "0123456789abcdef4f2a", "identity": "email"});
        account.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        serde_json::from_value(account).unwrap()
    }

    fn options(extra: &serde_json::Value) -> Options {
        let mut options = json!({"create": true, "create_new_fields": false, "merge_nested_objects": true});
        options.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        serde_json::from_value(options).unwrap()
    }

    fn shared(field: &str) -> Shared {
        Shared {
            name: "iterable".to_owned(),
            identifier: "email".to_owned(),
            identifiers: [(field.to_owned(), "email".to_owned())].into(),
        }
    }

    #[test]
    fn the_region_tells_the_host_and_an_address_takes_its_place() {
        assert_eq!(account(&json!({})).base_url(), US);
        assert_eq!(account(&json!({"region": "eu"})).base_url(), EU);
        assert_eq!(account(&json!({"base_url": "http://127.0.0.1:1"})).base_url(), "http://127.0.0.1:1");
        let project = Iterable::open(&account(&json!({"region": "eu"}))).unwrap();
        let iterable = Iterable::connect(&Arc::new(project), &options(&json!({})), &shared("email")).unwrap();
        assert_eq!(iterable.target(), "iterable …4f2a at api.eu.iterable.com");
    }

    #[test]
    fn what_creates_overwrites_or_drops_must_be_said() {
        for key in ["create", "create_new_fields", "merge_nested_objects"] {
            let mut written = json!({"create": true, "create_new_fields": false, "merge_nested_objects": true});
            written.as_object_mut().unwrap().remove(key);
            let error = serde_json::from_value::<Options>(written).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
        assert!(
            serde_json::from_value::<Account>(json!({"api_key": "x"})).unwrap_err().to_string().contains("identity")
        );
    }

    #[test]
    fn the_destination_must_hold_what_the_project_names_people_by() {
        let check = |identity: &str, field: &str| {
            let account = account(&json!({"identity": identity}));
            Iterable::check(&account, &options(&json!({})), &shared(field))
                .into_iter()
                .map(|problem| problem.message)
                .collect::<Vec<_>>()
        };
        for (identity, field) in [("email", "email"), ("user_id", "userId"), ("hybrid", "email"), ("hybrid", "userId")]
        {
            assert!(check(identity, field).is_empty(), "{identity} {field}");
        }
        assert!(check("email", "userId")[0].contains("identifies people by `email`"));
        assert!(check("user_id", "email")[0].contains("`userId`"));
        let long = Iterable::check(&account(&json!({})), &options(&json!({"settle": "2h"})), &shared("email"));
        assert_eq!(long[0].place(), "settle");
    }

    #[test]
    fn all_problems_of_an_account_are_told_at_once_and_without_the_key() {
        let wrong =
            account(&json!({"api_key": "secret key", "base_url": "http://api.iterable.com", "rate_share": 1.5}));
        let problems = wrong.check();
        assert_eq!(problems.iter().map(Problem::place).collect::<Vec<_>>(), ["base_url", "rate_share", "api_key"]);
        assert!(!format!("{problems:?}").contains("secret key"));
        assert!(Iterable::open(&wrong).is_err());
    }
}
