//! From a row in Kafka, or a commit of a table, to the request that the vendor receives.
//!
//! Rows are written at a constant rate, each with the time at which it was due, and a delay counts from then: a row that was written
//! late because everything stood still is as late as it is (no coordinated omission). All stages run in one process, and the
//! simulated vendor and the load in the bench's own, on the same machine: what they use is missing.
//!
//! *The highest sustained rate* is found in two steps. A backlog is worked off, and the speed of its middle part (from a fifth to four
//! fifths of it) is the first guess. Then rows come at that rate for some seconds; the rate holds if the last row is with the
//! vendor a second after it was due, or else it is lowered by a fifth and tried again.

use std::time::{Duration, Instant};

use serde_json::Value;
use tailwater_simulators::klaviyo::{Options, Received, Simulator};
use tailwater_tests::vendor::Vendor;

use super::Run;
use crate::process::Process;
use crate::report::{Figure, Report, median, percentile};
use crate::rows::{self, now_us};
use crate::table::Table;
use crate::workspace::{self, Setup, Workspace};

const PATIENCE: Duration = Duration::from_secs(180);

/// People in the rows: everybody is known after the backlog.
const PEOPLE: usize = 20_000;

const BACKLOG: usize = 60_000;

/// How long a rate is tried, and how late the last row may be for the rate to hold.
const TRIAL: Duration = Duration::from_secs(4);
const LATE_MAX: Duration = Duration::from_secs(1);

/// Rates that are tried before the search is given up.
const TRIALS_MAX: usize = 8;

/// How long latency is measured at a rate, and what of it is warm-up.
const TIME: Duration = Duration::from_secs(10);
const WARM_UP: Duration = Duration::from_secs(2);

/// Rows a second where the vendor limits: far more than go one by one, and as jobs more than one every quarter of a second.
const LIMITED_RATE: f64 = 200.0;

/// A row at the vendor: when it was due and when the request with it had been read, in microseconds since 1970.
#[derive(Debug, Clone, Copy)]
struct Arrival {
    due_us: i64,
    at_us: i64,
}

/// Everything that arrived, in order.
fn arrivals(simulator: &Simulator) -> Vec<Arrival> {
    let mut arrivals = Vec::new();
    for request in simulator.requests() {
        if request.method != "POST" || request.status / 100 != 2 || !request.path.starts_with("/api/profile-") {
            continue;
        }
        let at_us = arrived(&request);
        let single = std::slice::from_ref(&request.body["data"]);
        let bulk = request.body["data"]["attributes"]["profiles"]["data"].as_array();
        for profile in bulk.map_or(single, Vec::as_slice) {
            let due = &profile["attributes"]["properties"]["due_us"];
            arrivals.push(Arrival { due_us: integer(due), at_us });
        }
    }
    arrivals
}

fn integer(value: &Value) -> i64 {
    value
        .as_i64()
        .or_else(|| value.as_f64().map(|number| number as i64))
        .unwrap_or_else(|| panic!("{value} is no time"))
}

fn arrived(request: &Received) -> i64 {
    let time: jiff::Timestamp =
        request.time.parse().unwrap_or_else(|error| panic!("{} is no time: {error}", request.time));
    time.as_microsecond()
}

/// What the vendor takes in a second and a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limits {
    None,
    Documented,
}

/// A workspace with all stages in one process.
struct Scene {
    vendor: Vendor,
    workspace: Workspace,
    process: Process,
}

// === impl Scene ===

impl Scene {
    fn new(run: &mut Run, latency: &str, transform: &str, sources: Option<String>, limits: Limits) -> Self {
        let documented = limits == Limits::Documented;
        let vendor = Vendor::start(Options { limits: documented, ..workspace::vendor() });
        let url = vendor.url();
        let mut setup = Setup { sources, ..Setup::with_vendor(latency, &url, transform) };
        if documented {
            setup.rate_share = None;
        }
        let workspace = Workspace::new(&run.brokers(), latency, &setup);
        let process = workspace.start("");
        Self { vendor, workspace, process }
    }

    fn topic(&self) -> String {
        self.workspace.name("ingest.rows")
    }

    /// Waits until so many rows are at the vendor, and the stages are done with them.
    fn wait(&mut self, rows: usize) -> Vec<Arrival> {
        let until = Instant::now() + PATIENCE;
        loop {
            let arrived = arrivals(self.vendor.simulator());
            if arrived.len() >= rows {
                assert_eq!(arrived.len(), rows, "rows arrived twice");
                self.workspace.progress("send.klaviyo", "outbound.klaviyo").wait(&mut self.process, PATIENCE);
                self.vendor.simulator().reset();
                return arrived;
            }
            self.process.assert_running();
            assert!(Instant::now() < until, "{} of {rows} rows arrived\n{}", arrived.len(), self.process.log());
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    /// Rows at a constant rate, and when they arrived.
    fn at(&mut self, rate: f64, time: Duration) -> Vec<Arrival> {
        let (brokers, topic) = (self.workspace.brokers().to_owned(), self.topic());
        let count = rows::produce_at(&brokers, &topic, PEOPLE, rate, time);
        self.wait(count)
    }

    /// The highest rate that holds; how it is found stands above.
    fn highest(&mut self) -> f64 {
        rows::produce(self.workspace.brokers(), &self.topic(), 0..BACKLOG);
        let mut times: Vec<f64> = self.wait(BACKLOG).iter().map(|one| one.at_us as f64).collect();
        times.sort_by(f64::total_cmp);
        let (from, to) = (percentile(&times, 0.2), percentile(&times, 0.8));
        let mut rate = 0.6 * BACKLOG as f64 / ((to - from) / 1e6).max(0.001);
        for _ in 0..TRIALS_MAX {
            let arrived = self.at(rate, TRIAL);
            let last_due = arrived.iter().map(|one| one.due_us).max().unwrap_or(0);
            let last_at = arrived.iter().map(|one| one.at_us).max().unwrap_or(0);
            if last_at - last_due <= i64::try_from(LATE_MAX.as_micros()).unwrap_or(i64::MAX) {
                return rate;
            }
            rate *= 0.8;
        }
        panic!("no rate holds; the last one was {rate:.0} rows/s")
    }
}

pub fn rows(run: &mut Run, report: &mut Report) {
    for latency in ["low", "balanced", "throughput"] {
        let mut scene = Scene::new(run, latency, rows::WINBACK, None, Limits::None);
        let highest = scene.highest();
        let what = format!("{latency}: highest sustained rate, row to vendor");
        report.add(Figure::new("latency", what, "rows/s", highest));
        for part in [0.1, 0.5, 0.9] {
            let rate = highest * part;
            tell(report, &scene.at(rate, TIME), &format!("{latency}, {:.0} % ({rate:.0} rows/s)", part * 100.0));
        }
        scene.process.stop();
        // What a real account takes: the documented limits, of which the product uses its usual part.
        let mut scene = Scene::new(run, latency, rows::WINBACK, None, Limits::Documented);
        tell(
            report,
            &scene.at(LIMITED_RATE, TIME),
            &format!("{latency}, {LIMITED_RATE:.0} rows/s within the vendor's limits"),
        );
        scene.process.stop();
    }
}

/// Adds the percentiles of what arrived after the warm-up.
fn tell(report: &mut Report, arrived: &[Arrival], of: &str) {
    let first = arrived.iter().map(|one| one.due_us).min().unwrap_or(0);
    let warm = first + i64::try_from(WARM_UP.as_micros()).unwrap_or(0);
    let late = |one: &Arrival| (one.at_us - one.due_us) as f64 / 1000.0;
    let mut delays: Vec<f64> = arrived.iter().filter(|one| one.due_us >= warm).map(late).collect();
    delays.sort_by(f64::total_cmp);
    for (name, which) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
        report.add(Figure::new("latency", format!("{of}: {name}"), "ms", percentile(&delays, which)));
    }
}

/// Rows of a table that are committed at once.
const COMMITS: [usize; 2] = [1_000, 50_000];

/// How often.
const COMMIT_ROUNDS: usize = 5;

const NARROW: &str = "async function send(payload, headers) {
  return payload.events.map(row => ({ data: { type: 'profile', attributes: { email: row.email, external_id: row.customer_id,
    properties: { rfm_segment: row.rfm_segment, lifetime_value: row.ltv_predicted, due_us: row.due_us } } } }));
}
";

pub fn commits(run: &mut Run, report: &mut Report) {
    let mut table = Table::new();
    let sources = format!(
        "  rows:\n    type: delta\n    table: {}\n    kind: state\n    primary_key: customer_id\n    \
         identifiers: {{ customer_id: customer_id, email: email }}\n    poll_interval: 100ms\n",
        table.path().display()
    );
    let mut scene = Scene::new(run, "balanced", NARROW, Some(sources), Limits::None);
    for rows in COMMITS {
        let (mut first, mut last) = (Vec::new(), Vec::new());
        for _ in 0..COMMIT_ROUNDS {
            let committed = table.commit(0..rows, now_us(), rows);
            let mut times: Vec<f64> =
                scene.wait(rows).iter().map(|one| (one.at_us - committed) as f64 / 1000.0).collect();
            times.sort_by(f64::total_cmp);
            first.push(percentile(&times, 0.0));
            last.push(percentile(&times, 1.0));
        }
        let what =
            |which: &str| format!("commit of {rows} rows (polled every 100 ms) to the {which} of them at the vendor");
        report.add(Figure::new("commit", what("first"), "ms", median(first)));
        report.add(Figure::new("commit", what("last"), "ms", median(last)));
    }
    scene.process.stop();
}
