//! The second half of a batch, before anything is written: the transforms of all events that a plan lets through.
//!
//! Rows of one route and one schema cross into V8 together. Results are kept by record and route, so that a batch that is cut and
//! planned anew runs nothing twice.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use serde_json::value::RawValue;
use tailwater_connectors::{ClassifyInput, NonFinite};
use tailwater_core::delivery::Reason;
use tailwater_core::envelope::Envelope;
use tailwater_core::judge::Signature;
use tailwater_core::operation::Operation;
use tailwater_core::{Code, SchemaId, Timestamp, code};
use tailwater_sandbox::{Backdrop, Batch, ConsoleLevel, Headers, Output, Row, RowResult};
use tracing::{debug, info, warn};

use super::existence::BACKFILL;
use super::failed::{Failed, explain};
use super::plan::{Action, ActionKind, Work};
use super::routes::{Route, Routes};
use crate::config::model::Source;
use crate::kafka::Record;
use crate::stages::Error;
use crate::stages::shared::body;
use crate::state::schemas::Schemas;
use crate::telemetry::Metrics;

/// A record's place and the place of a route.
pub type Cell = (i32, i64, usize);

/// What the transforms made of the rows.
#[derive(Default)]
pub struct Results {
    cells: HashMap<Cell, Made>,
}

/// What one route made of one event.
#[derive(Debug)]
pub enum Made {
    /// At least one operation.
    Operations(Vec<Operation>),
    /// The transform returned null.
    Skipped,
    Failed(Failed),
    /// The row was not judged; it must be run again.
    NotRun,
}

/// One row, prepared for the sandbox.
#[derive(Debug)]
struct Prepared<'w> {
    cell: Cell,
    data: &'w [u8],
    overlay: Vec<(&'w str, Option<&'w str>)>,
    work: &'w Work,
}

/// `row._event`.
#[derive(Serialize)]
struct EventView<'a> {
    id: Option<String>,
    source: &'a str,
    #[serde(rename = "type")]
    event_type: &'a str,
    time: String,
    change: &'a str,
    sequence: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    backfill: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<&'a serde_json::value::RawValue>,
}

/// `row._profile`.
#[derive(Serialize)]
struct ProfileView<'a> {
    id: String,
    identifiers: BTreeMap<&'a str, &'a str>,
}

impl Results {
    /// Runs what the plan asks for and has not been run yet.
    ///
    /// # Errors
    /// A schema could not be looked up.
    pub fn run(
        &mut self,
        actions: &[Action],
        routes: &Routes,
        schemas: &Schemas,
        now: Timestamp,
        metrics: &Metrics,
    ) -> Result<(), Error> {
        let mut groups: BTreeMap<(usize, Option<SchemaId>), Vec<&Work>> = BTreeMap::new();
        for action in actions {
            if let ActionKind::Transform(work) = &action.kind {
                for (route, failed) in &work.failed {
                    self.cells.insert(cell(&work.record, *route), Made::Failed(failed.clone()));
                }
                for &route in &work.routes {
                    if matches!(self.get(&work.record, route), None | Some(Made::NotRun)) {
                        groups.entry((route, work.schema)).or_default().push(work);
                    }
                }
            }
        }
        for ((route, schema), works) in groups {
            self.run_group(route, schema, &works, routes, schemas, now, metrics)?;
        }
        Ok(())
    }

    pub fn get(&self, record: &Record, route: usize) -> Option<&Made> {
        self.cells.get(&cell(record, route))
    }

    /// Keeps the results of records that are still to be done.
    pub fn retain(&mut self, keep: impl Fn(&Cell) -> bool) {
        self.cells.retain(|cell, _| keep(cell));
    }

    #[cfg(test)]
    pub fn insert(&mut self, cell: Cell, made: Made) {
        self.cells.insert(cell, made);
    }

    /// Forgets everything: the routes were reloaded.
    pub fn clear(&mut self) {
        self.cells.clear();
    }

    #[expect(clippy::too_many_arguments, reason = "one call site; the group and what it needs")]
    fn run_group(
        &mut self,
        route: usize,
        schema: Option<SchemaId>,
        works: &[&Work],
        routes: &Routes,
        schemas: &Schemas,
        now: Timestamp,
        metrics: &Metrics,
    ) -> Result<(), Error> {
        let started = Instant::now();
        let Some(compiled) = routes.routes.get(route) else { return Ok(()) };
        let source = routes.sources.get(&compiled.from);
        let known = match routes.schema(&compiled.from, schema, schemas)? {
            Ok(known) => known,
            Err(reason) => {
                for work in works {
                    let signature = Signature::new(reason.code, None, &reason.message);
                    let failed = Failed { reason: reason.clone(), signature, stack: None };
                    self.cells.insert(cell(&work.record, route), Made::Failed(failed));
                }
                metrics.transformed(&routes.handle.config.name, 0, 0, works.len(), started.elapsed());
                return Ok(());
            }
        };
        let mut prepared = Vec::with_capacity(works.len());
        for work in works {
            prepared.push(prepare(work, route, source, &routes.identifier_types));
        }
        let rows = prepared.iter().map(|one| Row { data: one.data, overlay: &one.overlay, backdrop: one }).collect();
        let batch = Batch {
            rows,
            headers: Headers {
                source: compiled.from.clone(),
                destination: routes.handle.config.name.clone(),
                batch: prepared.first().map_or_else(String::new, |one| format!("{}-{}", one.cell.0, one.cell.1)),
            },
            now_ms: now.as_millis(),
            non_finite: match routes.handle.connector.non_finite() {
                NonFinite::Omit => tailwater_sandbox::NonFinite::Omit,
                NonFinite::Reject => tailwater_sandbox::NonFinite::Reject,
                NonFinite::Clear => tailwater_sandbox::NonFinite::Clear,
            },
            schema: known.as_ref().map(|known| Arc::clone(&known.row)),
        };
        let report = compiled.transform.run(&batch);
        for line in report.console {
            let (transform, text) = (compiled.transform.name(), line.text);
            match line.level {
                ConsoleLevel::Debug => debug!(%transform, "console: {text}"),
                ConsoleLevel::Info => info!(%transform, "console: {text}"),
                ConsoleLevel::Warn | ConsoleLevel::Error => warn!(%transform, "console: {text}"),
            }
        }
        if report.console_dropped > 0 {
            warn!(transform = %compiled.transform.name(), lines = report.console_dropped, "lines of the console were dropped");
        }
        debug_assert!(report.results.len() == prepared.len(), "one result a row");
        let (mut ok, mut skipped, mut failed) = (0, 0, 0);
        for ((one, work), result) in prepared.iter().zip(works).zip(report.results) {
            let made = match result {
                RowResult::Outputs(outputs) => classify(outputs, compiled, work, routes),
                RowResult::Skipped => Made::Skipped,
                RowResult::NotRun => Made::NotRun,
                RowResult::Failed(error) => Made::Failed(explain(error, schema, &compiled.from, schemas)?),
            };
            match &made {
                Made::Operations(_) => ok += 1,
                Made::Skipped => skipped += 1,
                Made::Failed(_) => failed += 1,
                Made::NotRun => {}
            }
            self.cells.insert(one.cell, made);
        }
        metrics.transformed(&routes.handle.config.name, ok, skipped, failed, started.elapsed());
        if report.threads_lost > 0 {
            metrics.threads_lost(&routes.handle.config.name, report.threads_lost);
        }
        if report.exhausted {
            return Err(Error::Invalid {
                code: code::SANDBOX_EXHAUSTED,
                message: format!(
                    "too many threads of the sandbox are stuck in built-in functions that transforms have called, the last one {}",
                    compiled.transform.name()
                ),
            });
        }
        Ok(())
    }
}

/// Has the connector turn the outputs of one row into operations.
fn classify(outputs: Vec<Output>, route: &Route, work: &Work, routes: &Routes) -> Made {
    let identifiers: Vec<(&str, &str)> =
        work.identifiers.iter().map(|(kind, value)| (kind.as_str(), value.as_str())).collect();
    let time = work.record.envelope().map(|envelope| envelope.time).unwrap_or_default();
    let mut operations = Vec::with_capacity(outputs.len());
    for (ordinal, output) in outputs.into_iter().enumerate() {
        let failed = |code: Code, message: String| {
            let message = format!("{} returned something that cannot be delivered: {message}", route.transform.name());
            Made::Failed(Failed {
                signature: Signature::new(code, None, &message),
                reason: Reason::new(code, message),
                stack: None,
            })
        };
        let json = match RawValue::from_string(output.json) {
            Ok(json) => json,
            Err(error) => return failed(code::TRANSFORM_SHAPE, error.to_string()),
        };
        let input = ClassifyInput {
            output: &json,
            route: &route.name,
            ordinal,
            identifiers: &identifiers,
            time,
            non_finite: &output.non_finite,
        };
        match routes.handle.connector.classify(&input) {
            Ok(made) => {
                let destination = &routes.handle.config.name;
                if let Some(why) = made.iter().find_map(|operation| route.refusal(operation.kind, destination)) {
                    return failed(code::OPERATION_NOT_ALLOWED, why);
                }
                operations.extend(made.into_iter().map(|mut operation| {
                    if let Some(key) = &output.key {
                        operation.place.clone_from(key);
                    }
                    operation
                }));
            }
            Err(error) => return failed(error.code, error.message),
        }
    }
    Made::Operations(operations)
}

/// The key of a result.
pub fn cell(record: &Record, route: usize) -> Cell {
    (record.partition, record.offset, route)
}

fn prepare<'w>(work: &'w Work, route: usize, source: Option<&'w Source>, types: &'w [String]) -> Prepared<'w> {
    let data = work.record.value().unwrap_or_default();
    let in_use = |kind: &str| work.identifiers.iter().find(|(known, _)| known == kind).map(|(_, value)| value.as_str());
    let mut overlay = Vec::new();
    let declared = source.map_or(&[][..], |source| &source.identifiers);
    for (path, kind) in declared {
        if work.refused.iter().any(|refused| refused == path) {
            overlay.push((path.as_str(), None));
        } else if let Some(value) = in_use(kind) {
            overlay.push((path.as_str(), Some(value)));
        } else {
            continue;
        }
        // The row has the value under one of the column's other names as well, and the transform may read it there.
        let value = overlay.last().and_then(|(_, value)| *value);
        for other in source.map_or_else(Vec::new, |source| also_named(path, source)) {
            if declared.iter().all(|(path, _)| path != other)
                && body::find(data, other).is_ok_and(|found| found.is_some())
            {
                overlay.push((other, value));
            }
        }
    }
    for kind in types {
        // A column of a type's name that the source declares as something else is its own business.
        if declared.iter().any(|(path, _)| path == kind) {
            continue;
        }
        if body::find(data, kind).ok().flatten().is_none_or(|text| text == "null") {
            // Null for a profile that has none: the name is known on every row, so reading it is never a missing column, which
            // would pause the route for everybody. Only an alias may know it better.
            let aliased = || source.is_some_and(|source| source.aliases.values().flatten().any(|old| old == kind));
            let value = in_use(kind);
            if value.is_some() || !aliased() {
                overlay.push((kind.as_str(), value));
            }
        }
    }
    Prepared { cell: cell(&work.record, route), data, overlay, work }
}

/// The other names of a column, under `aliases`.
fn also_named<'s>(path: &str, source: &'s Source) -> Vec<&'s str> {
    let is = |name: &String| name == path;
    let groups = source.aliases.iter().filter(|(new, old)| is(new) || old.iter().any(is));
    groups.flat_map(|(new, old)| std::iter::once(new).chain(old)).filter(|name| !is(name)).map(String::as_str).collect()
}

impl Backdrop for Prepared<'_> {
    fn event(&self) -> Vec<u8> {
        event_view(&self.work.record.envelope().unwrap_or_default(), self.work.backfill)
    }

    fn profile(&self) -> Vec<u8> {
        profile_view(&self.work.record.envelope().unwrap_or_default(), &self.work.identifiers)
    }
}

fn event_view(envelope: &Envelope<'_>, backfill: bool) -> Vec<u8> {
    let view = EventView {
        id: envelope.event_id.map(|id| id.to_string()),
        source: envelope.source,
        event_type: envelope.event_type,
        time: envelope.time.to_string(),
        change: envelope.change.as_str(),
        sequence: envelope.sequence,
        backfill: envelope.backfill.or_else(|| backfill.then_some(BACKFILL)),
        before: envelope.before.and_then(|before| serde_json::from_slice(before).ok()),
    };
    // Strings and numbers into memory: serialising them has no way to fail.
    serde_json::to_vec(&view).unwrap_or_default()
}

fn profile_view(envelope: &Envelope<'_>, identifiers: &[(String, String)]) -> Vec<u8> {
    let view = ProfileView {
        id: envelope.profile.map(|profile| profile.to_string()).unwrap_or_default(),
        identifiers: identifiers.iter().map(|(kind, value)| (kind.as_str(), value.as_str())).collect(),
    };
    serde_json::to_vec(&view).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlaid(
        row: &str,
        in_use: &[(&str, &str)],
        refused: &[&str],
        aliases: &[(&str, &str)],
    ) -> Vec<(String, Option<String>)> {
        use crate::config::model::{KafkaSource, OnDelete, SourceInput, SourceKind};
        let source = Source {
            name: "app".into(),
            input: SourceInput::Kafka(KafkaSource::of("app")),
            kind: SourceKind::State,
            primary_key: None,
            identifiers: vec![("mail".into(), "email".into()), ("customer_id".into(), "legacy_id".into())],
            event_time: None,
            event_time_rules: crate::config::model::EventTimeRules::default(),
            event_type: "app".into(),
            on_delete: OnDelete::Skip,
            aliases: aliases.iter().map(|(new, old)| ((*new).to_owned(), vec![(*old).to_owned()])).collect(),
            before_image: false,
            dedupe: None,
        };
        let record = Record::new("t".into(), 0, 1, Timestamp::from_millis(0), None, Some(row.as_bytes()), None, vec![]);
        let work = Work {
            record: Arc::new(record),
            routes: vec![0],
            identifiers: in_use.iter().map(|(kind, value)| ((*kind).to_owned(), (*value).to_owned())).collect(),
            failed: vec![],
            backfill: false,
            schema: None,
            refused: refused.iter().map(|&column| column.to_owned()).collect(),
        };
        let types = ["email", "phone", "customer_id"].map(str::to_owned);
        let prepared = prepare(&work, 0, Some(&source), &types);
        prepared.overlay.iter().map(|(path, value)| ((*path).to_owned(), value.map(str::to_owned))).collect()
    }

    fn shows(path: &str, value: Option<&str>) -> (String, Option<String>) {
        (path.to_owned(), value.map(str::to_owned))
    }

    #[test]
    fn a_row_shows_the_identifiers_in_use_and_null_where_the_profile_has_none() {
        let in_use = [("email", "now@x.y"), ("legacy_id", "7"), ("customer_id", "c1")];
        let row = r#"{"mail":"old@x.y","customer_id":"own"}"#;
        let expected = [
            shows("mail", Some("now@x.y")),
            shows("customer_id", Some("7")),
            shows("email", Some("now@x.y")),
            // No phone is known: null, never a missing column.
            shows("phone", None),
        ];
        assert_eq!(overlaid(row, &in_use, &[], &[]), expected);
        // The row's own address belongs to somebody else.
        assert_eq!(overlaid(row, &in_use, &["mail"], &[])[0], shows("mail", None));
        // A column of a type's name that has a value of its own is not touched.
        assert!(!overlaid(r#"{"phone":"+1"}"#, &in_use, &[], &[]).iter().any(|(path, _)| path == "phone"));
        assert!(!overlaid("{}", &[], &[], &[("mobile", "phone")]).iter().any(|(path, _)| path == "phone"));
    }

    // Issue 10, A2: under the column's other name the transform read what the profile does not have.
    #[test]
    fn an_identifier_is_shown_under_the_other_names_that_its_column_has_in_the_row() {
        let aliases = [("email_address", "mail")];
        let in_use = [("email", "now@x.y")];
        let row = r#"{"email_address":"old@x.y"}"#;
        let under = |row: &str, refused: &[&str]| {
            let found = overlaid(row, &in_use, refused, &aliases);
            found.into_iter().find(|(path, _)| path == "email_address")
        };
        assert_eq!(under(row, &[]), Some(shows("email_address", Some("now@x.y"))));
        assert_eq!(under(row, &["mail"]), Some(shows("email_address", None)));
        assert_eq!(under(r#"{"mail":"old@x.y"}"#, &[]), None);
    }
}
