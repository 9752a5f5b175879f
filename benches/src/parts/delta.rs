//! A table's snapshot as rows, and a rewrite of the table of which few rows differ, beside the kernel's own read of the table into
//! Arrow batches, which makes no rows of them. Ours reads a rewrite's old and new rows, and those that differ once more.

use std::sync::Arc;
use std::time::Instant;

use delta_kernel::Snapshot;
use delta_kernel::arrow::array::RecordBatch;
use delta_kernel::engine::arrow_data::EngineDataArrowExt as _;
use delta_kernel_default_engine::DefaultEngineBuilder;
use delta_kernel_default_engine::storage::store_from_url_opts;
use tailwater_delta::{Options, Reader, Start, Step};
use url::Url;

use super::{ROUNDS, Run};
use crate::report::{Figure, Report, median};
use crate::table::Table;

const ROWS: usize = 2_000_000;

/// Rows in one data file: about 10 MB each.
const FILE_ROWS: usize = 500_000;

/// One row in so many differs after the rewrite.
const CHANGED: usize = 100;

pub fn measure(_: &mut Run, report: &mut Report) {
    let mut table = Table::new();
    table.commit(0..ROWS, 0, FILE_ROWS);
    let (mut ours, mut limits) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        limits.push(rate(|| kernel(&table)));
        ours.push(rate(|| reader(&table, Start::Snapshot)));
    }
    let figure = Figure::new("delta", "snapshot of 5 narrow columns as JSON rows with keys", "rows/s", median(ours));
    report.add(figure.beside(median(limits)));
    table.rewrite(0..ROWS, CHANGED, 1, FILE_ROWS);
    let (mut ours, mut limits) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        limits.push(rate(|| kernel(&table)));
        ours.push(rate(|| reader(&table, Start::Version(2)) * CHANGED));
    }
    let what = "rewrite of the table, of which one row in 100 differs, as those rows";
    report.add(Figure::new("delta", what, "rewritten rows/s", median(ours)).beside(median(limits)));
}

fn rate(read: impl FnOnce() -> usize) -> f64 {
    let started = Instant::now();
    assert_eq!(read(), ROWS);
    ROWS as f64 / started.elapsed().as_secs_f64()
}

fn kernel(table: &Table) -> usize {
    let url = Url::from_directory_path(table.path()).unwrap_or_else(|()| panic!("no URL for a folder"));
    let store = store_from_url_opts(&url, std::iter::empty::<(&str, String)>())
        .unwrap_or_else(|error| panic!("no store: {error}"));
    let engine = Arc::new(DefaultEngineBuilder::new(store).build());
    let read = || -> Result<usize, delta_kernel::KernelError> {
        let snapshot = Snapshot::builder_for(url.as_str()).build(engine.as_ref())?;
        let scan = snapshot.scan_builder().build()?;
        let mut rows = 0;
        for data in scan.execute(engine.clone())? {
            let batch: RecordBatch = data?.try_into_record_batch()?;
            rows += batch.num_rows();
        }
        Ok(rows)
    };
    read().unwrap_or_else(|error| panic!("the kernel cannot read the table: {error}"))
}

fn reader(table: &Table, start: Start) -> usize {
    let mut options = Options::new(table.path().to_string_lossy());
    options.start = start;
    options.key = Some("customer_id".to_owned());
    let mut reader = Reader::open(options, None).unwrap_or_else(|error| panic!("{error}"));
    let mut rows = 0;
    loop {
        match reader.next().unwrap_or_else(|error| panic!("{error}")) {
            Step::Rows(more) => rows += more.rows.len(),
            Step::CaughtUp { .. } => return rows,
            Step::Schema(_) | Step::Coalesced(_) | Step::Waiting(_) => {}
        }
    }
}
