//! Tests against the real engine. One pool per test, so that they run side by side and the numbers are its own.

mod builtins;
mod left_over;
mod limits;
mod memory;
mod numbers;
mod outputs;
mod reference;
mod rows;
mod seeds;
mod structs;
mod surface;
mod transforms;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use tailwater_core::schema::{Column, Schema};

use crate::{
    Batch, BatchReport, Headers, NonFinite, Options, Pool, Row, RowError, RowResult, RowSchema, Transform,
    initialize_for_tests,
};

pub(super) fn pool() -> Pool {
    pool_with(Options { threads: NonZeroUsize::MIN, ..Options::default() })
}

pub(super) fn pool_with(options: Options) -> Pool {
    initialize_for_tests();
    Pool::start(options).unwrap()
}

pub(super) fn load(pool: &Pool, source: &str) -> Transform {
    pool.load("transforms/t.js", source).unwrap_or_else(|error| panic!("{error}"))
}

/// A transform that maps each row with an arrow function.
pub(super) fn each(body: &str) -> String {
    format!("async function send(payload, headers) {{ return payload.events.map({body}); }}")
}

pub(super) fn row(data: &str) -> Row<'_> {
    Row { data: data.as_bytes(), overlay: &[], backdrop: &() }
}

pub(super) fn batch<'a>(rows: impl IntoIterator<Item = &'a str>) -> Batch<'a> {
    Batch {
        rows: rows.into_iter().map(row).collect(),
        headers: Headers { source: "ltv".into(), destination: "klaviyo".into(), batch: "b-1".into() },
        now_ms: 1_773_532_800_000,
        non_finite: NonFinite::Omit,
        schema: None,
    }
}

pub(super) fn column(name: &str) -> Column {
    Column::new(name, "string")
}

/// A strict schema of columns and their types.
pub(super) fn typed(columns: &[(&str, &str)]) -> Schema {
    let typed = |(name, data_type): &(&str, &str)| Column { data_type: (*data_type).into(), ..column(name) };
    Schema { columns: columns.iter().map(typed).collect() }
}

pub(super) fn strict_rows(schema: &Schema) -> Option<Arc<RowSchema>> {
    Some(Arc::new(RowSchema::new(schema, &BTreeMap::new(), true)))
}

pub(super) fn schema(columns: &[&str]) -> Option<Arc<RowSchema>> {
    let schema = Schema { columns: columns.iter().map(|name| column(name)).collect() };
    Some(Arc::new(RowSchema::new(&schema, &BTreeMap::new(), true)))
}

/// Runs one transform over rows and returns what became of each.
pub(super) fn run<'a>(source: &str, rows: impl IntoIterator<Item = &'a str>) -> Vec<RowResult> {
    let pool = pool();
    load(&pool, source).run(&batch(rows)).results
}

/// The only output of a row.
#[track_caller]
pub(super) fn json(result: &RowResult) -> &str {
    match result {
        RowResult::Outputs(outputs) if outputs.len() == 1 => &outputs[0].json,
        other => panic!("expected one output, got {}", shortly(other)),
    }
}

#[track_caller]
pub(super) fn failed(result: &RowResult) -> &RowError {
    match result {
        RowResult::Failed(error) => error,
        other => panic!("expected a failure, got {}", shortly(other)),
    }
}

#[track_caller]
pub(super) fn jsons(report: &BatchReport) -> Vec<&str> {
    report.results.iter().map(json).collect()
}

/// Some outputs are huge on purpose.
fn shortly(result: &RowResult) -> String {
    format!("{result:?}").chars().take(500).collect()
}
