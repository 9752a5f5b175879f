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
use tailwater_core::schema::{Reassigned, SchemaRecord, explain_missing};
use tailwater_core::{Code, SchemaId, Timestamp, code};
use tailwater_sandbox::{Backdrop, Batch, ConsoleLevel, Headers, Output, Row, RowError, RowErrorKind, RowResult};
use tracing::{debug, info, warn};

use super::existence::BACKFILL;
use super::plan::{Action, ActionKind, Work};
use super::routes::{Route, Routes};
use crate::config::WhenError;
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

/// Why a row cannot go on.
#[derive(Debug, Clone)]
pub struct Failed {
    pub reason: Reason,
    pub signature: Signature,
    pub stack: Option<String>,
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
            Ok(made) => operations.extend(made.into_iter().map(|mut operation| {
                if let Some(key) = &output.key {
                    operation.place.clone_from(key);
                }
                operation
            })),
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

/// Adds to a missing column what took its place.
fn explain(error: RowError, schema: Option<SchemaId>, source: &str, schemas: &Schemas) -> Result<Failed, Error> {
    let code = error.code();
    let stack = (!error.stack.is_empty()).then(|| error.stack.join("\n"));
    let at = match error.line {
        Some(line) => format!("{}:{line}", error.file),
        None => error.file.clone(),
    };
    let column = match &error.kind {
        RowErrorKind::MissingColumn { column }
        | RowErrorKind::UnsafeInteger { column }
        | RowErrorKind::UnsafeDecimal { column } => Some(column.as_str()),
        RowErrorKind::Threw
        | RowErrorKind::Timeout
        | RowErrorKind::OutOfMemory
        | RowErrorKind::Pending
        | RowErrorKind::Shape
        | RowErrorKind::OutputTooLarge
        | RowErrorKind::NonFinite
        | RowErrorKind::Input => None,
    };
    let message = match (&error.kind, schema) {
        (RowErrorKind::MissingColumn { column }, Some(id)) => {
            missing_column(&at, column, source, &schemas.history(id)?, Reads::Transform)
        }
        _ => format!("{at}: {}", error.message),
    };
    Ok(Failed { signature: Signature::new(code, column, &error.message), reason: Reason::new(code, message), stack })
}

/// A condition that could not be evaluated, with what took the place of a missing column.
///
/// # Errors
/// A schema could not be looked up.
pub fn condition_failed(
    error: &WhenError,
    route: &str,
    envelope: &Envelope<'_>,
    schemas: &Schemas,
) -> Result<Failed, Error> {
    let at = format!("the condition of route {route}");
    let (column, message) = match (error, envelope.schema) {
        (WhenError::MissingColumn { column }, Some(id)) => {
            let history = schemas.history(id)?;
            (Some(column.as_str()), missing_column(&at, column, envelope.source, &history, Reads::Condition))
        }
        (WhenError::MissingColumn { column }, None) => (Some(column.as_str()), format!("{at}: {error}")),
        (WhenError::Failed { .. } | WhenError::NoObject, _) => (None, format!("{at}: {error}")),
    };
    let code = error.code();
    Ok(Failed {
        signature: Signature::new(code, column, &error.to_string()),
        reason: Reason::new(code, message),
        stack: None,
    })
}

/// What reads a column, in the words of the configuration.
#[derive(Debug, Clone, Copy)]
enum Reads {
    Transform,
    Condition,
}

impl Reads {
    const fn place(self) -> &'static str {
        match self {
            Self::Transform => "the transform",
            Self::Condition => "`when`",
        }
    }

    /// How to read a column that rows may lack.
    fn optional(self, column: &str) -> String {
        match self {
            Self::Transform => format!("use row.optional('{column}')"),
            Self::Condition => format!("guard it with has(row.{column})"),
        }
    }
}

/// The message for a missing column: since when it is missing, what took its place, and the fix.
fn missing_column(at: &str, column: &str, source: &str, history: &[SchemaRecord], reads: Reads) -> String {
    let missing = explain_missing(column, history);
    if let Some(reassigned) = &missing.reassigned {
        return reassigned_column(at, source, &missing.candidates, reassigned, reads);
    }
    let mut message = match missing.vanished_in {
        Some(version) => {
            format!("{at} reads column `{column}`, which source {source} no longer has since version {version}")
        }
        None if missing.known => format!("{at} reads column `{column}`, which source {source} no longer has"),
        None => format!("{at} reads column `{column}`, which source {source} does not have"),
    };
    let place = reads.place();
    let fix = match missing.candidates.as_slice() {
        [] => {
            let columns = missing.beside.join(", ");
            let optional = reads.optional(column);
            format!("; it has {columns}. Read another one, or {optional}")
        }
        [one] => format!(
            "; `{one}` took its place. Read `{one}` in {place}, or say `aliases: {{{one}: [{column}]}}` at the source"
        ),
        several => format!(
            "; one of {} may have taken its place. Read the right one in {place}, or name it under the source's `aliases`",
            several.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        ),
    };
    message.push_str(&fix);
    message
}

/// The message for a name that belongs to another column than when the transform was written.
fn reassigned_column(at: &str, source: &str, candidates: &[String], reassigned: &Reassigned, reads: Reads) -> String {
    let column = &reassigned.column;
    let since = reassigned.since.map_or_else(String::new, |version| format!(" since version {version}"));
    let what = match &reassigned.formerly {
        Some(formerly) => format!("it is the former `{formerly}`, renamed"),
        None => "a new column has the name".to_owned(),
    };
    let now = match candidates {
        [one] => format!("; what `{column}` was is `{one}` now. Read `{one}` in {}", reads.place()),
        _ => format!("; what `{column}` was is gone. Change {}", reads.place()),
    };
    let known = match &reassigned.formerly {
        Some(formerly) => format!("say `aliases: {{{column}: [{formerly}]}}` at the source"),
        None => reads.optional(column),
    };
    format!(
        "{at} reads column `{column}`, which is another column of source {source}{since}: {what}{now}; if `{column}` is meant as it is \
         now, {known}"
    )
}

#[cfg(test)]
mod tests {
    use tailwater_core::schema::{Column, Difference};

    use super::*;

    fn record(columns: &[(&str, &str)], version: u64) -> SchemaRecord {
        SchemaRecord {
            source: "ltv".into(),
            columns: columns.iter().map(|(name, data_type)| Column::new(*name, *data_type)).collect(),
            predecessor: None,
            version: Some(version),
            difference: Difference::default(),
        }
    }

    #[test]
    fn a_renamed_column_is_named_with_its_version_and_the_cure() {
        let history = [
            record(&[("id", "string"), ("ltv_score", "double"), ("confidence_interval", "struct<low:double>")], 4),
            record(&[("id", "string"), ("ltv_predicted", "double")], 0),
        ];
        assert_eq!(
            missing_column("transforms/ltv.js:7", "ltv_predicted", "ltv", &history, Reads::Transform),
            "transforms/ltv.js:7 reads column `ltv_predicted`, which source ltv no longer has since version 4; `ltv_score` took its \
             place. Read `ltv_score` in the transform, or say `aliases: {ltv_score: [ltv_predicted]}` at the source"
        );
    }

    #[test]
    fn a_condition_that_reads_a_renamed_column_is_answered_like_a_transform() {
        // Issue 10, C1.
        let history = [record(&[("level", "string")], 2), record(&[("tier", "string")], 1)];
        assert_eq!(
            missing_column("the condition of route gold", "tier", "scores", &history, Reads::Condition),
            "the condition of route gold reads column `tier`, which source scores no longer has since version 2; `level` took its \
             place. Read `level` in `when`, or say `aliases: {level: [tier]}` at the source"
        );
        let gone = missing_column("the condition of route gold", "rank", "scores", &history, Reads::Condition);
        assert!(gone.ends_with("it has level. Read another one, or guard it with has(row.rank)"), "{gone}");
    }

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

    // Issue 10, A3.
    #[test]
    fn a_name_that_belongs_to_another_column_is_explained_with_both_ways_out() {
        let version = |churn, upgrade, version| {
            let mut record = record(&[("churn", "double"), ("upgrade", "double")], version);
            record.columns[0].id = Some(churn);
            record.columns[1].id = Some(upgrade);
            record
        };
        assert_eq!(
            missing_column("t.js:3", "churn", "ltv", &[version(2, 1, 5), version(1, 2, 0)], Reads::Transform),
            "t.js:3 reads column `churn`, which is another column of source ltv since version 5: it is the former `upgrade`, renamed; \
             what `churn` was is `upgrade` now. Read `upgrade` in the transform; if `churn` is meant as it is now, say \
             `aliases: {churn: [upgrade]}` at the source"
        );
    }

    #[test]
    fn a_column_that_never_existed_is_answered_with_those_that_do() {
        let history = [record(&[("upgrade_score", "double")], 1)];
        let message = missing_column("t.js", "churn_risk_score", "upgrades", &history, Reads::Transform);
        assert!(message.contains("does not have") && message.contains("upgrade_score"), "{message}");
    }
}
