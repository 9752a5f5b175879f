//! Accounts, destinations and their routes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::sync::Arc;

use tailwater_core::{Timestamp, code};

use super::Builder;
use crate::config::TransformProblem;
use crate::config::forms::nearest;
use crate::config::model::{
    Account, Destination, DestinationKind, DestinationStart, KlaviyoAccount, NonFinite, Nulls, OnConflict,
    OnMissingKey, Retry, Route, Source, Transform,
};
use crate::config::problem::{Path, Problem};
use crate::config::raw::{
    RawDestination, RawKlaviyoAccount, RawNonFinite, RawNulls, RawOnConflict, RawOnDelete, RawOnMissingKey, RawRoute,
};
use crate::config::value::Period;
use crate::config::when::When;

/// Bytes of a transform's file. Bundled code fits; a file that was named by mistake does not fill the memory.
pub const TRANSFORM_BYTES_MAX: u64 = 2 * 1024 * 1024;

/// The fields by which Klaviyo knows a person: `Spec::identifier_fields` of the destination, which is only there once it is connected.
const KLAVIYO_FIELDS: &[&str] = &["email", "phone_number", "external_id"];

impl Builder<'_> {
    pub(super) fn accounts(&mut self) -> BTreeMap<String, Account> {
        let mut accounts = BTreeMap::new();
        for (name, json) in self.entries("accounts") {
            let path = Path::of(["accounts"]).key(&name);
            if self.tag("accounts", &name) == Some("klaviyo")
                && let Some(raw) = self.section::<RawKlaviyoAccount>(&json, &path)
            {
                accounts.insert(name, self.klaviyo_account(&path, raw));
            }
        }
        accounts
    }

    fn klaviyo_account(&mut self, path: &Path, raw: RawKlaviyoAccount) -> Account {
        if raw.api_key.is_empty() {
            self.error(code::CONFIG_INVALID_VALUE, &path.key("api_key"), "it must not be empty");
        }
        let url = path.key("base_url");
        match url::Url::parse(&raw.base_url) {
            Ok(parsed) if matches!(parsed.scheme(), "http" | "https") && parsed.has_host() => {
                if !parsed.username().is_empty() || parsed.password().is_some() {
                    self.report(crate::config::secrets::inline(&url), &url);
                }
                if parsed.scheme() == "http" && !is_near(&parsed) {
                    let problem = Problem::warning(
                        code::CONFIG_INVALID_VALUE,
                        &url,
                        "the API key travels unencrypted to another machine",
                    );
                    self.report(problem.hint("use https://, unless this is a simulator"), &url);
                }
            }
            Ok(_) | Err(_) => {
                self.error(code::CONFIG_INVALID_VALUE, &url, "expected an URL such as https://a.klaviyo.com");
            }
        }
        if raw.rate_share > 1.0 && !url::Url::parse(&raw.base_url).is_ok_and(|url| is_near(&url)) {
            let share = path.key("rate_share");
            let problem = Problem::error(
                code::CONFIG_INVALID_VALUE,
                &share,
                format!("{} is more than the vendor's documented limits", raw.rate_share),
            );
            self.report(
                problem
                    .hint("keep it between 0.01 and 1; more is for a simulator, with a loopback address as `base_url`"),
                &share,
            );
        }
        Account::Klaviyo(KlaviyoAccount {
            api_key: raw.api_key.into_inner(),
            base_url: raw.base_url.trim_end_matches('/').to_owned(),
            rate_share: raw.rate_share,
        })
    }

    pub(super) fn destinations(&mut self, sources: &BTreeMap<String, Source>) -> BTreeMap<String, Destination> {
        let mut destinations = BTreeMap::new();
        for (name, json) in self.entries("destinations") {
            let path = Path::of(["destinations"]).key(&name);
            if let Some(raw) = self.section(&json, &path)
                && let Some(destination) = self.destination(&name, &path, raw, sources)
            {
                destinations.insert(name, destination);
            }
        }
        destinations
    }

    fn destination(
        &mut self,
        name: &str,
        path: &Path,
        raw: RawDestination,
        sources: &BTreeMap<String, Source>,
    ) -> Option<Destination> {
        let accounts = self.names("accounts");
        let known = self.known(&path.key("account"), &raw.account, "account", &accounts);
        let types = self.identifier_types();
        let key_known = self.known(&path.key("key"), &raw.key, "identifier type", &types);
        let identifiers = self.vendor_fields(path, raw.identifiers, &types);
        if key_known && !identifiers.values().any(|kind| *kind == raw.key) {
            let key = path.key("key");
            let problem = Problem::error(
                code::CONFIG_INVALID_VALUE,
                &key,
                format!("no field of the vendor is fed by `{}`", raw.key),
            );
            self.report(
                problem.hint(format!("add it: `identifiers: {{ {}: {} }}`", KLAVIYO_FIELDS.join(" | "), raw.key)),
                &key,
            );
        }
        self.hold(path, raw.on_missing_key, raw.hold_for);
        let retry = path.key("retry");
        self.within(&retry.key("backoff_max"), raw.retry.backoff_max, Period::millis(1), Period::days(1));
        if raw.retry.backoff_min > raw.retry.backoff_max {
            let message = format!("{} is longer than backoff_max ({})", raw.retry.backoff_min, raw.retry.backoff_max);
            self.error(code::CONFIG_INVALID_VALUE, &retry.key("backoff_min"), message);
        }
        let start = self.start(path, &raw.start);
        let routes = self.routes(path, raw.routes, sources);
        known.then_some(Destination {
            name: name.to_owned(),
            account: raw.account,
            kind: DestinationKind::Klaviyo,
            create: raw.create,
            key: raw.key,
            identifiers,
            on_missing_key: match raw.on_missing_key {
                RawOnMissingKey::Hold => OnMissingKey::Hold,
                RawOnMissingKey::DeadLetter => OnMissingKey::DeadLetter,
                RawOnMissingKey::Skip => OnMissingKey::Skip,
            },
            hold_for: raw.hold_for.0,
            start,
            nulls: match raw.nulls {
                RawNulls::Omit => Nulls::Omit,
                RawNulls::Clear => Nulls::Clear,
            },
            non_finite: match raw.non_finite {
                RawNonFinite::Omit => NonFinite::Omit,
                RawNonFinite::Reject => NonFinite::Reject,
                RawNonFinite::Clear => NonFinite::Clear,
            },
            on_conflict: match raw.on_conflict {
                RawOnConflict::Reject => OnConflict::Reject,
                RawOnConflict::KeyOnly => OnConflict::KeyOnly,
            },
            skip_unchanged: raw.skip_unchanged,
            retry: Retry {
                attempts_max: raw.retry.attempts,
                backoff_min: raw.retry.backoff_min.0,
                backoff_max: raw.retry.backoff_max.0,
            },
            routes,
        })
    }

    /// Which identifier goes into which field; by default those of equal names.
    fn vendor_fields(
        &mut self,
        path: &Path,
        raw: Option<BTreeMap<String, String>>,
        types: &[String],
    ) -> BTreeMap<String, String> {
        let Some(raw) = raw else {
            let equal = KLAVIYO_FIELDS.iter().filter(|field| types.iter().any(|kind| kind == *field));
            return equal.map(|field| ((*field).to_owned(), (*field).to_owned())).collect();
        };
        let path = path.key("identifiers");
        self.known_types(&path, &raw);
        for field in raw.keys().filter(|field| !KLAVIYO_FIELDS.contains(&field.as_str())) {
            let path = path.key(field);
            let hint = match nearest(field, KLAVIYO_FIELDS.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => {
                    format!("its fields are {}; the type of identifier stands on the right", KLAVIYO_FIELDS.join(", "))
                }
            };
            let problem =
                Problem::error(code::CONFIG_UNKNOWN_KEY, &path, "the vendor has no such field for identifiers")
                    .hint(hint);
            self.report(problem, &path);
        }
        raw
    }

    fn start(&mut self, path: &Path, text: &str) -> DestinationStart {
        match text {
            "now" => DestinationStart::Now,
            "earliest" => DestinationStart::Earliest,
            time => Timestamp::parse(time).map_or_else(
                || {
                    let path = path.key("start");
                    let message = format!("expected `now`, `earliest` or a time, got `{time}`");
                    let problem = Problem::error(code::CONFIG_INVALID_VALUE, &path, message);
                    self.report(problem.hint("write a time as 2026-03-01T00:00:00Z"), &path);
                    DestinationStart::Now
                },
                DestinationStart::At,
            ),
        }
    }

    fn hold(&mut self, path: &Path, on_missing_key: RawOnMissingKey, hold_for: Period) {
        let hold = path.key("hold_for");
        self.within(&hold, hold_for, Period::seconds(1), Period::days(365));
        if on_missing_key != RawOnMissingKey::Hold && self.tree.find(&hold).is_some() {
            let problem =
                Problem::warning(code::CONFIG_INVALID_VALUE, &hold, "it has no effect without `on_missing_key: hold`");
            self.report(problem.hint("remove it, or say `on_missing_key: hold`"), &hold);
        }
    }

    fn routes(&mut self, path: &Path, raw: Vec<RawRoute>, sources: &BTreeMap<String, Source>) -> Vec<Route> {
        let source_names = self.names("sources");
        let mut names = BTreeSet::new();
        let mut told = BTreeSet::new();
        let mut routes = Vec::with_capacity(raw.len());
        for (index, raw) in raw.into_iter().enumerate() {
            let path = path.key("routes").index(index);
            self.known(&path.key("from"), &raw.from, "source", &source_names);
            if sources.contains_key(&raw.from) && told.insert(raw.from.clone()) {
                self.deletes(&raw.from);
            }
            let named = raw.name.is_some();
            let name = raw.name.map_or_else(|| raw.from.clone(), |name| name.0);
            if !names.insert(name.clone()) {
                let path = if named { path.key("name") } else { path.clone() };
                let problem = Problem::error(
                    code::CONFIG_INVALID_VALUE,
                    &path,
                    format!("another route of this destination is called `{name}`"),
                );
                self.report(
                    problem
                        .hint("give each route of one source a `name` of its own: it is part of the idempotency key"),
                    &path,
                );
            }
            let when_path = path.key("when");
            match raw.when.as_deref().map(When::compile) {
                None => {}
                Some(Ok(when)) => {
                    let types = self.identifier_types();
                    for kind in when.profile_types() {
                        self.known(&when_path, kind, "identifier type", &types);
                    }
                }
                Some(Err(problem)) => self.report(Problem { path: when_path.to_string(), ..problem }, &when_path),
            }
            if let Some(transform) = self.transform(&path.key("transform"), &raw.transform) {
                routes.push(Route { name, from: raw.from, when: raw.when, transform });
            }
        }
        routes
    }

    /// Deletes that a destination cannot carry out must not end in nothing.
    fn deletes(&mut self, source: &str) {
        let word = match self.raw_on_delete(source) {
            RawOnDelete::Skip => return,
            RawOnDelete::Unset => "unset",
            RawOnDelete::Erase => "erase",
        };
        let path = Path::of(["sources", source]).key("on_delete");
        let message = format!("`{word}` is not supported by the destinations of this source (klaviyo)");
        self.report(
            Problem::error(code::CONFIG_INVALID_VALUE, &path, message)
                .hint("say `on_delete: skip`; the audit counts the deletes"),
            &path,
        );
    }

    fn transform(&mut self, path: &Path, name: &str) -> Option<Transform> {
        if self.unresolved.contains(path) {
            return None;
        }
        let file = self.folder.join(name);
        let unreadable = |reason: String| {
            Problem::error(
                code::CONFIG_TRANSFORM_UNREADABLE,
                path,
                format!("the transform {} could not be read: {reason}", file.display()),
            )
            .hint("the path starts at the folder of the configuration file")
        };
        let mut source = String::new();
        let read =
            std::fs::File::open(&file).and_then(|open| open.take(TRANSFORM_BYTES_MAX + 1).read_to_string(&mut source));
        match read {
            Err(error) => {
                self.report(unreadable(error.to_string()), path);
                return None;
            }
            Ok(length) if length as u64 > TRANSFORM_BYTES_MAX => {
                self.report(unreadable(format!("it is larger than {TRANSFORM_BYTES_MAX} bytes")), path);
                return None;
            }
            Ok(_) => {}
        }
        let again = self.files.contains(&file);
        if !again {
            self.files.push(file);
        }
        // A file that several routes share is checked once.
        if let (false, Some(check)) = (again, self.options.check_transform)
            && let Err(TransformProblem { code, message }) = check(name, &source)
        {
            let problem = Problem::error(code, path, message);
            self.report(
                problem
                    .hint("a transform is a file with `function send(payload, headers)`, or a module that exports it"),
                path,
            );
        }
        Some(Transform { name: name.to_owned(), source: Arc::from(source) })
    }

    /// An account that nothing uses is more often a slip than a plan.
    pub(super) fn unused_accounts(&mut self) {
        let used: Vec<String> = self
            .entries("destinations")
            .iter()
            .filter_map(|(_, json)| json.get("account")?.as_str().map(str::to_owned))
            .collect();
        let names = self.names("accounts");
        if used.iter().any(|name| !names.contains(name)) {
            // Whichever account was meant is the unused one, and the wrong name has been reported.
            return;
        }
        for name in names {
            if !used.contains(&name) {
                let path = Path::of(["accounts"]).key(&name);
                self.report(
                    Problem::warning(code::CONFIG_INVALID_VALUE, &path, "no destination uses the account"),
                    &path,
                );
            }
        }
    }
}

/// Whether an address is this machine's own.
fn is_near(url: &url::Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}
