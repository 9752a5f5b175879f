//! Accounts, destinations and their routes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::sync::Arc;

use serde_json::Value as Json;
use tailwater_connectors::Kind;
use tailwater_connectors::config::Period;
use tailwater_connectors::connector::OnDelete;
use tailwater_core::operation::OperationKind;
use tailwater_core::{Timestamp, code};

use super::Builder;
use crate::config::TransformProblem;
use crate::config::forms::nearest;
use crate::config::model::{Account, Destination, DestinationStart, OnMissingKey, Retry, Route, Source, Transform};
use crate::config::problem::{Path, Problem};
use crate::config::raw::{RawDestination, RawDestructive, RawOnDelete, RawOnMissingKey, RawRoute};
use crate::config::when::When;

/// Bytes of a transform's file. Bundled code fits; a file that was named by mistake does not fill the memory.
pub const TRANSFORM_BYTES_MAX: u64 = 2 * 1024 * 1024;

impl Builder<'_> {
    pub(super) fn accounts(&mut self) -> BTreeMap<String, Account> {
        let mut accounts = BTreeMap::new();
        for (name, json) in self.entries("accounts") {
            let path = Path::of(["accounts"]).key(&name);
            let Some(kind) = self.kind_of(&name) else { continue };
            if let Some(account) = self.read(kind.account(&json), &path) {
                self.report_all(&path, account.check());
                accounts.insert(name, account);
            }
        }
        accounts
    }

    pub(super) fn destinations(
        &mut self,
        sources: &BTreeMap<String, Source>,
        accounts: &BTreeMap<String, Account>,
    ) -> BTreeMap<String, Destination> {
        let mut destinations = BTreeMap::new();
        for (name, json) in self.entries("destinations") {
            let path = Path::of(["destinations"]).key(&name);
            let (shared, own) = self.divide(&json);
            if let Some(raw) = self.section(&shared, &path)
                && let Some(destination) = self.destination(&name, &path, raw, &own, sources)
            {
                if let Some(account) = accounts.get(&destination.account) {
                    self.report_all(&path, account.check_destination(&destination.options, &destination.shared()));
                }
                destinations.insert(name, destination);
            }
        }
        destinations
    }

    /// The keys that all destinations share, and those of the destination's kind.
    fn divide(&self, json: &Json) -> (Json, Json) {
        let entries = json.as_object().cloned().unwrap_or_default();
        let (shared, own): (Vec<_>, Vec<_>) = entries.into_iter().partition(|(key, _)| self.schema.is_shared(key));
        (shared.into_iter().collect(), own.into_iter().collect())
    }

    fn destination(
        &mut self,
        name: &str,
        path: &Path,
        raw: RawDestination,
        own: &Json,
        sources: &BTreeMap<String, Source>,
    ) -> Option<Destination> {
        let accounts = self.names("accounts");
        self.known(&path.key("account"), &raw.account, "account", &accounts);
        let kind = self.kind_of(&raw.account);
        let types = self.identifier_types();
        let identifier_known = self.known(&path.key("identifier"), &raw.identifier, "identifier type", &types);
        if let Some(raw) = &raw.identifiers {
            self.known_types(&path.key("identifiers"), raw);
        }
        self.hold(path, raw.on_missing_key, raw.hold_for);
        let retry = path.key("retry");
        self.within(&retry.key("backoff_max"), raw.retry.backoff_max, Period::millis(1), Period::days(1));
        if raw.retry.backoff_min > raw.retry.backoff_max {
            let message = format!("{} is longer than backoff_max ({})", raw.retry.backoff_min, raw.retry.backoff_max);
            self.error(code::CONFIG_INVALID_VALUE, &retry.key("backoff_min"), message);
        }
        let start = self.start(path, &raw.start);
        let routes = self.routes(path, name, kind, raw.routes, sources);
        // Without a known account nobody can say which fields and options there are.
        let kind = kind?;
        let identifiers = self.vendor_fields(path, kind, raw.identifiers, &types);
        if identifier_known && !identifiers.values().any(|held| *held == raw.identifier) {
            let path = path.key("identifier");
            let message = format!("no field of the vendor is fed by `{}`", raw.identifier);
            let fields = kind.spec().identifier_fields.join(" | ");
            let problem = Problem::error(code::CONFIG_INVALID_VALUE, &path, message);
            self.report(problem.hint(format!("add it: `identifiers: {{ {fields}: {} }}`", raw.identifier)), &path);
        }
        let options = self.read(kind.options(own), path)?;
        Some(Destination {
            name: name.to_owned(),
            account: raw.account,
            options,
            identifier: raw.identifier,
            identifiers,
            on_missing_key: match raw.on_missing_key {
                RawOnMissingKey::Hold => OnMissingKey::Hold,
                RawOnMissingKey::DeadLetter => OnMissingKey::DeadLetter,
                RawOnMissingKey::Skip => OnMissingKey::Skip,
            },
            hold_for: raw.hold_for.0,
            start,
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
        kind: Kind,
        raw: Option<BTreeMap<String, String>>,
        types: &[String],
    ) -> BTreeMap<String, String> {
        let fields = kind.spec().identifier_fields;
        let Some(raw) = raw else {
            let equal = fields.iter().filter(|field| types.iter().any(|known| known == *field));
            return equal.map(|field| ((*field).to_owned(), (*field).to_owned())).collect();
        };
        let path = path.key("identifiers");
        for field in raw.keys().filter(|field| !fields.contains(&field.as_str())) {
            let path = path.key(field);
            let hint = match nearest(field, fields.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("its fields are {}; the type of identifier stands on the right", fields.join(", ")),
            };
            let message = format!("the vendor (type `{}`) has no such field for identifiers", kind.spec().kind);
            self.report(Problem::error(code::CONFIG_UNKNOWN_KEY, &path, message).hint(hint), &path);
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

    fn routes(
        &mut self,
        path: &Path,
        destination: &str,
        kind: Option<Kind>,
        raw: Vec<RawRoute>,
        sources: &BTreeMap<String, Source>,
    ) -> Vec<Route> {
        let source_names = self.names("sources");
        let mut names = BTreeSet::new();
        let mut told = BTreeSet::new();
        let mut routes = Vec::with_capacity(raw.len());
        for (index, raw) in raw.into_iter().enumerate() {
            let path = path.key("routes").index(index);
            self.known(&path.key("from"), &raw.from, "source", &source_names);
            if let Some(kind) = kind
                && sources.contains_key(&raw.from)
                && told.insert(raw.from.clone())
            {
                self.deletes(&raw.from, destination, kind);
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
                let allow: Vec<OperationKind> = raw.allow.into_iter().map(RawDestructive::kind).collect();
                if let Some(kind) = kind {
                    self.allowed(&path.key("allow"), &allow, kind);
                }
                routes.push(Route { name, from: raw.from, when: raw.when, transform, allow });
            }
        }
        routes
    }

    /// What a route allows must be something that the destination can do.
    fn allowed(&mut self, path: &Path, allow: &[OperationKind], kind: Kind) {
        let spec = kind.spec();
        let can = |operation: OperationKind| spec.operations.iter().any(|one| one.kind == operation);
        for (index, operation) in allow.iter().enumerate().filter(|(_, operation)| !can(**operation)) {
            let path = path.index(index);
            let message = format!("a destination of type `{}` cannot `{operation}`", spec.kind);
            let destructive: Vec<String> = spec
                .operations
                .iter()
                .filter(|one| one.kind.is_destructive())
                .map(|one| format!("`{}`", one.kind))
                .collect();
            let hint = match destructive.as_slice() {
                [] => "remove `allow`: it has no destructive operation".to_owned(),
                some => format!("its destructive operations are {}", some.join(", ")),
            };
            self.report(Problem::error(code::CONFIG_INVALID_VALUE, &path, message).hint(hint), &path);
        }
    }

    /// Deletes that a destination cannot carry out must not end in nothing.
    fn deletes(&mut self, source: &str, destination: &str, kind: Kind) {
        let (word, wanted) = match self.raw_on_delete(source) {
            RawOnDelete::Skip => return,
            RawOnDelete::Unset => ("unset", OnDelete::Unset),
            RawOnDelete::Erase => ("erase", OnDelete::Erase),
        };
        if kind.on_delete().contains(&wanted) {
            return;
        }
        let path = Path::of(["sources", source]).key("on_delete");
        let message =
            format!("`{word}` is not supported by the destination `{destination}` (type `{}`)", kind.spec().kind);
        let others = kind.on_delete().iter().map(|other| match other {
            OnDelete::Unset => " or `unset`",
            OnDelete::Erase => " or `erase`",
        });
        let others: String = others.collect();
        let hint = format!("say `on_delete: skip`{others}; the audit counts the deletes that are skipped");
        self.report(Problem::error(code::CONFIG_INVALID_VALUE, &path, message).hint(hint), &path);
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
