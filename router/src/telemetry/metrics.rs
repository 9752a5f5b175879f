//! Every metric of the process, declared once: its field, its name, its labels and what it tells.
//!
//! The same list makes the registry and the reference page (`docs/reference/metrics.md`, held against it by a test). Labels are of low
//! cardinality: names from the configuration, codes, and enums. Counters are meant to be raised once per batch, with the number
//! of records; one call costs a lookup by label and an atomic addition.

use std::time::Duration;

use prometheus::{
    Encoder as _, Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder,
};
use tailwater_core::Code;

use super::Error;

/// What kind of metric one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A metric's entry in the reference.
#[derive(Debug, Clone, Copy)]
pub struct Description {
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

/// From a millisecond to ten seconds: what a batch may take.
const BATCH_SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// From a tenth of a second to a day: what an event may take from its time to the vendor.
const AGE_SECONDS: &[f64] =
    &[0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0, 21_600.0, 86_400.0];
/// From one record to a full batch.
const BATCH_RECORDS: &[f64] = &[1.0, 5.0, 10.0, 50.0, 100.0, 500.0, 1_000.0, 5_000.0, 10_000.0];

macro_rules! metrics {
    ($($field:ident: $kind:ident($name:literal, [$($label:literal),*] $(, $buckets:ident)?) $help:literal;)*) => {
        /// The metrics of one process. Fields are named like the metrics.
        pub struct Metrics {
            registry: Registry,
            $(#[doc = $help] pub $field: metrics!(@type $kind),)*
        }

        /// Every metric, for the reference page.
        pub const ALL: &[Description] = &[
            $(Description { name: $name, kind: metrics!(@kind $kind), labels: &[$($label),*], help: $help },)*
        ];

        impl Metrics {
            pub(super) fn new() -> Result<Self, Error> {
                let registry = Registry::new();
                let metrics = Self {
                    $($field: metrics!(@new $kind, registry, $name, $help, [$($label),*] $(, $buckets)?)?,)*
                    registry,
                };
                metrics.build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
                Ok(metrics)
            }
        }
    };
    (@type counter) => { IntCounterVec };
    (@type gauge) => { IntGaugeVec };
    (@type seconds) => { GaugeVec };
    (@type histogram) => { HistogramVec };
    (@kind counter) => { Kind::Counter };
    (@kind gauge) => { Kind::Gauge };
    (@kind seconds) => { Kind::Gauge };
    (@kind histogram) => { Kind::Histogram };
    (@new counter, $registry:ident, $name:literal, $help:literal, [$($label:literal),*]) => {
        register($name, &$registry, IntCounterVec::new(Opts::new($name, $help), &[$($label),*]))
    };
    (@new gauge, $registry:ident, $name:literal, $help:literal, [$($label:literal),*]) => {
        register($name, &$registry, IntGaugeVec::new(Opts::new($name, $help), &[$($label),*]))
    };
    (@new seconds, $registry:ident, $name:literal, $help:literal, [$($label:literal),*]) => {
        register($name, &$registry, GaugeVec::new(Opts::new($name, $help), &[$($label),*]))
    };
    (@new histogram, $registry:ident, $name:literal, $help:literal, [$($label:literal),*], $buckets:ident) => {
        register($name, &$registry, HistogramVec::new(HistogramOpts::new($name, $help).buckets($buckets.to_vec()), &[$($label),*]))
    };
}

fn register<M>(name: &'static str, registry: &Registry, metric: prometheus::Result<M>) -> Result<M, Error>
where
    M: prometheus::core::Collector + Clone + 'static,
{
    let metric = metric.map_err(|source| Error::Metric { name, source })?;
    registry.register(Box::new(metric.clone())).map_err(|source| Error::Metric { name, source })?;
    Ok(metric)
}

metrics! {
    // Records. `component` is the source or the destination that a stage works for; empty where it works for all.
    records_in: counter("tailwater_records_in_total", ["stage", "component"])
        "Records that a stage has read and finished with, by source or destination.";
    records_out: counter("tailwater_records_out_total", ["stage", "component"])
        "Records that a stage has written for the next one.";
    skipped: counter("tailwater_skipped_total", ["stage", "component", "reason"])
        "Records that ended without a delivery because there was nothing to do, by reason.";
    dead_lettered: counter("tailwater_dead_lettered_total", ["stage", "component", "code"])
        "Records that went to a dead-letter topic, by code.";
    held: gauge("tailwater_held", ["destination"])
        "Records that wait in route's state for the destination's key.";
    parked: gauge("tailwater_parked", ["stage", "destination"])
        "Records that wait in send's state behind others of their person; those behind a merge of profiles are not counted.";
    batch_records: histogram("tailwater_batch_records", ["stage"], BATCH_RECORDS)
        "Records in one batch of a stage.";
    transactions: counter("tailwater_transactions_total", ["stage", "result"])
        "Kafka transactions by result: committed, aborted.";
    transaction_seconds: histogram("tailwater_transaction_seconds", ["stage"], BATCH_SECONDS)
        "Time from the first record of a batch to its commit.";
    oldest_open_seconds: seconds("tailwater_oldest_open_seconds", ["stage", "component"])
        "Age of the oldest record that is open; compare it with the topics' retention.";
    lag: gauge("tailwater_lag", ["stage", "component"])
        "Offsets that a stage's group has not worked off, in all partitions; the ends of transactions count as well.";
    partitions_stalled: gauge("tailwater_partitions_stalled", ["stage", "component"])
        "Partitions that have records and have not moved for a minute, for no reason that is known.";
    rebalances: counter("tailwater_rebalances_total", ["stage", "component", "change"])
        "Changes of the partitions that a stage owns: assigned, revoked, lost.";
    partitions: gauge("tailwater_partitions", ["stage", "component"])
        "Partitions that a stage of this process owns.";
    queue_items: gauge("tailwater_queue_items", ["queue"])
        "Items in a bounded queue.";
    queue_items_max: gauge("tailwater_queue_items_max", ["queue"])
        "The most items that the queue can hold.";

    // Sources
    source_rows: counter("tailwater_source_rows_total", ["source"])
        "Rows that a source has appended to its ingest topic.";
    source_version: gauge("tailwater_source_version", ["source"])
        "The last version of the table that has been read.";
    source_failures: counter("tailwater_source_failures_total", ["source", "code"])
        "Failed attempts to read a source; it is tried again.";
    invalid_values: counter("tailwater_invalid_values_total", ["source"])
        "Values that were replaced by null because they are none of their column's declared type (`on_invalid: omit`).";
    source_failing: gauge("tailwater_source_failing", ["source"])
        "1 while most records of a source cannot be used, or the source is paused for that, else 0.";
    schema_changes: counter("tailwater_schema_changes_total", ["source"])
        "Changes of a source's schema.";

    // Identity
    merges: counter("tailwater_merges_total", [])
        "Merges of two profiles.";
    identifiers_refused: counter("tailwater_identifiers_refused_total", ["type", "reason"])
        "Identifiers in an event that were not used, by type and reason.";
    identifier_shared_people: gauge("tailwater_identifier_shared_people", ["type"])
        "The most people who brought the same value of a type since this process resolves; 0 below ten.";
    event_times_invalid: counter("tailwater_event_times_invalid_total", ["source", "reason"])
        "Rows whose own time is missing or could not be read, so that the record's was taken: missing, unreadable, unit_unclear, out_of_range.";

    // Transforms
    transform_rows: counter("tailwater_transform_rows_total", ["destination", "result"])
        "Rows that went through a transform: ok, skipped, failed.";
    transform_seconds: histogram("tailwater_transform_seconds", ["destination"], BATCH_SECONDS)
        "Time of one batch in a transform.";
    sandbox_threads_lost: counter("tailwater_sandbox_threads_lost_total", ["destination"])
        "Threads of the sandbox that were replaced because a built-in function that a transform called did not return.";

    // Delivery
    paused: gauge("tailwater_paused", ["destination", "stage"])
        "1 while a destination is paused in this stage, else 0.";
    fences_lost: counter("tailwater_fences_lost_total", ["destination", "stage"])
        "Fences of merges that could no longer arrive and were asked for again.";
    pauses: counter("tailwater_pauses_total", ["destination", "stage", "code"])
        "Pauses by code.";
    deliveries_open: gauge("tailwater_deliveries_open", ["destination"])
        "Deliveries that are read and not finished.";
    deliveries_in_flight: gauge("tailwater_deliveries_in_flight", ["destination"])
        "Deliveries in a request or in a job of the vendor.";
    attempts: counter("tailwater_attempts_total", ["destination", "outcome"])
        "Attempts by outcome: delivered, accepted, retry, rejected, skipped.";
    retries: counter("tailwater_retries_total", ["destination", "code"])
        "Deliveries that are tried again, by code.";
    remarks: counter("tailwater_remarks_total", ["destination", "code"])
        "Deliveries that were made with a remark, by its code: what the vendor or Tailwater left out.";
    vendor_unavailable: gauge("tailwater_vendor_unavailable", ["destination"])
        "1 while the vendor takes no deliveries, because it is down or throttles, else 0.";
    event_age_seconds: histogram("tailwater_event_age_seconds", ["destination"], AGE_SECONDS)
        "Age of an event when the vendor has it: from the event's time to the delivery, backfills excepted.";

    // Process
    kafka_reachable: gauge("tailwater_kafka_reachable", [])
        "1 while a broker answers, else 0.";
    build_info: gauge("tailwater_build_info", ["version"])
        "1, with the version of this process.";
    tasks: gauge("tailwater_tasks", ["kind"])
        "Tasks that run, by kind.";
    task_restarts: counter("tailwater_task_restarts_total", ["task"])
        "Restarts of a task after an error.";
    reloads: counter("tailwater_reloads_total", ["result"])
        "Reloads of the configuration: applied, refused.";
}

// === impl Metrics ===

impl Metrics {
    /// The text that a Prometheus server scrapes.
    ///
    /// # Errors
    /// A metric's family is empty or inconsistent: a mistake of ours.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        let mut text = Vec::with_capacity(64 * 1024);
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }

    /// A gauge of its own that a long-lived part keeps, for values that change with every record.
    pub fn oldest_open(&self, stage: &str, component: &str) -> Gauge {
        self.oldest_open_seconds.with_label_values(&[stage, component])
    }

    /// A stage has finished a batch.
    pub fn stage_records(&self, stage: &str, records: usize) {
        self.stage_component_records(stage, "", records);
    }

    /// A stage has finished a batch for one source or destination.
    pub fn stage_component_records(&self, stage: &str, component: &str, records: usize) {
        self.records_in.with_label_values(&[stage, component]).inc_by(count(records));
        self.batch_records.with_label_values(&[stage]).observe(float(records));
    }

    /// A stage has written records for the next one.
    pub fn written(&self, stage: &str, component: &str, records: usize) {
        self.records_out.with_label_values(&[stage, component]).inc_by(count(records));
    }

    /// A transaction was committed.
    pub fn transaction_seconds(&self, stage: &str, took: Duration) {
        self.transactions.with_label_values(&[stage, "committed"]).inc();
        self.transaction_seconds.with_label_values(&[stage]).observe(took.as_secs_f64());
    }

    /// A transaction was aborted; its records are read again.
    pub fn transaction_aborted(&self, stage: &str) {
        self.transactions.with_label_values(&[stage, "aborted"]).inc();
    }

    pub fn skipped(&self, stage: &str, component: &str, reason: &str) {
        self.skipped.with_label_values(&[stage, component, reason]).inc();
    }

    pub fn dead_lettered(&self, stage: &str, component: &str, code: &str) {
        self.dead_lettered.with_label_values(&[stage, component, code]).inc();
    }

    pub fn source_rows(&self, source: &str, rows: usize) {
        self.source_rows.with_label_values(&[source]).inc_by(count(rows));
    }

    /// The table has been read up to this version.
    pub fn source_version(&self, source: &str, version: u64) {
        self.source_version.with_label_values(&[source]).set(i64::try_from(version).unwrap_or(i64::MAX));
    }

    pub fn source_failed(&self, source: &str, code: Code) {
        self.source_failures.with_label_values(&[source, code.as_str()]).inc();
    }

    pub fn schema_changed(&self, source: &str) {
        self.schema_changes.with_label_values(&[source]).inc();
    }

    pub fn identifier_refused(&self, kind: &str, reason: &str) {
        self.identifiers_refused.with_label_values(&[kind, reason]).inc();
    }

    /// So many people bring the same value of a type.
    pub fn identifier_shared(&self, kind: &str, people: usize) {
        self.identifier_shared_people.with_label_values(&[kind]).set(level(people));
    }

    /// A row got the time of its record instead of its own.
    pub fn event_time_invalid(&self, source: &str, reason: &str) {
        self.event_times_invalid.with_label_values(&[source, reason]).inc();
    }

    pub fn merged(&self) {
        self.merges.with_label_values(&[] as &[&str]).inc();
    }

    /// Records that wait in send's state behind others of their person.
    pub fn parked(&self, destination: &str, records: u64) {
        let records = usize::try_from(records).unwrap_or(usize::MAX);
        self.parked.with_label_values(&["send", destination]).set(level(records));
    }

    /// Records that wait for the destination's key.
    pub fn held(&self, destination: &str, records: usize) {
        self.held.with_label_values(&[destination]).set(level(records));
    }

    /// A batch went through a transform.
    pub fn transformed(&self, destination: &str, ok: usize, skipped: usize, failed: usize, took: Duration) {
        for (result, rows) in [("ok", ok), ("skipped", skipped), ("failed", failed)] {
            if rows > 0 {
                self.transform_rows.with_label_values(&[destination, result]).inc_by(count(rows));
            }
        }
        self.transform_seconds.with_label_values(&[destination]).observe(took.as_secs_f64());
    }

    /// Threads did not return from a transform and were replaced.
    pub fn threads_lost(&self, destination: &str, threads: u64) {
        self.sandbox_threads_lost.with_label_values(&[destination]).inc_by(threads);
    }

    /// Attempts that had the same outcome: delivered, accepted, retry, rejected, skipped.
    pub fn attempted(&self, destination: &str, outcome: &str, deliveries: usize) {
        self.attempts.with_label_values(&[destination, outcome]).inc_by(count(deliveries));
    }

    pub fn deliveries(&self, destination: &str, open: usize, in_flight: usize) {
        self.deliveries_open.with_label_values(&[destination]).set(level(open));
        self.deliveries_in_flight.with_label_values(&[destination]).set(level(in_flight));
    }

    /// The vendor has an event that happened so long ago.
    pub fn event_age(&self, destination: &str, age: Duration) {
        self.event_age_seconds.with_label_values(&[destination]).observe(age.as_secs_f64());
    }

    /// How full a bounded queue is.
    pub fn queue(&self, queue: &str, items: usize, items_max: usize) {
        self.queue_items.with_label_values(&[queue]).set(level(items));
        self.queue_items_max.with_label_values(&[queue]).set(level(items_max));
    }
}

/// The reference page, made from the list.
pub fn reference() -> String {
    let mut page = String::from(
        "# Metrics\n\nThis page is made from the code (`router/src/telemetry/metrics.rs`); a test fails when it is stale. `/metrics` serves \
         them on the address\n`admin.listen`. Labels hold names from the configuration, codes (`docs/errors`) and words, never data.\n\n\
         | metric | kind | labels | meaning |\n|---|---|---|---|\n",
    );
    for Description { name, kind, labels, help } in ALL {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        page.push_str(&format!("| `{name}` | {kind} | {} | {help} |\n", labels.join(", ")));
    }
    page
}

fn count(items: usize) -> u64 {
    u64::try_from(items).unwrap_or(u64::MAX)
}

fn level(items: usize) -> i64 {
    i64::try_from(items).unwrap_or(i64::MAX)
}

fn float(items: usize) -> f64 {
    u32::try_from(items).map_or(f64::from(u32::MAX), f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_can_be_registered_and_follows_the_naming_rules() {
        Metrics::new().unwrap();
        for Description { name, kind, labels, help } in ALL {
            assert!(name.starts_with("tailwater_"), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            assert!(labels.len() <= 3, "{name} has too many labels");
            assert!(help.ends_with('.'), "{name}");
        }
    }

    #[test]
    fn what_was_counted_is_rendered() {
        let metrics = Metrics::new().unwrap();
        metrics.stage_records("resolve", 500);
        metrics.skipped("route", "klaviyo", "filtered");
        metrics.transaction_seconds("resolve", Duration::from_millis(12));
        metrics.source_version("ltv", 4);
        metrics.merged();
        let text = metrics.render().unwrap();
        for line in [
            r#"tailwater_records_in_total{component="",stage="resolve"} 500"#,
            r#"tailwater_skipped_total{component="klaviyo",reason="filtered",stage="route"} 1"#,
            r#"tailwater_transaction_seconds_bucket{stage="resolve",le="0.025"} 1"#,
            r#"tailwater_transactions_total{result="committed",stage="resolve"} 1"#,
            r#"tailwater_source_version{source="ltv"} 4"#,
            "tailwater_merges_total 1",
        ] {
            assert!(text.lines().any(|has| has == line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn two_processes_in_one_test_do_not_share_metrics() {
        let (one, other) = (Metrics::new().unwrap(), Metrics::new().unwrap());
        one.merged();
        assert!(!other.render().unwrap().contains("tailwater_merges_total 1"));
    }

    #[test]
    fn the_reference_page_is_fresh() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/metrics.md");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(path, reference()).expect("the page can be written");
        }
        let page = std::fs::read_to_string(path).unwrap_or_default();
        assert!(page == reference(), "docs/reference/metrics.md is stale: run this test with UPDATE_GOLDEN=1");
    }
}
