//! The send stage beside a bare loop of requests, against the same simulator, which limits nobody and works in the bench's own process.
//!
//! Outbound records lie in their topic before the stage starts. The bare loop sends the very bodies that the stage has sent, with as many
//! requests at a time, and asks for jobs as often.

use std::time::Duration;

use tailwater_simulators::klaviyo::{Received, Simulator};
use tailwater_tests::vendor::Vendor;

use super::{ROUNDS, Run};
use crate::process::Process;
use crate::progress::Speed;
use crate::report::{Figure, Report, median};
use crate::requests::{Requests, Took};
use crate::rows;
use crate::workspace::{self, Setup, Workspace};

const PATIENCE: Duration = Duration::from_secs(300);

/// What is sent, and how.
struct Kind {
    what: &'static str,
    transform: &'static str,
    path: &'static str,
    /// Deliveries in one round.
    deliveries: usize,
    /// Requests at a time: calls, and requests within each.
    at_once: usize,
    jobs: bool,
}

const KINDS: [Kind; 2] = [
    Kind {
        what: "single requests (events), 32 at a time",
        transform: rows::EVENTS,
        path: "/api/events",
        deliveries: 60_000,
        at_once: 32,
        jobs: false,
    },
    Kind {
        what: "bulk requests (profiles, up to 5,000 each), 4 jobs at a time",
        transform: rows::WINBACK,
        path: "/api/profile-bulk-import-jobs",
        deliveries: 200_000,
        at_once: 4,
        jobs: true,
    },
];

pub fn measure(run: &mut Run, report: &mut Report) {
    for kind in &KINDS {
        one(kind, run, report);
    }
}

fn one(kind: &Kind, run: &mut Run, report: &mut Report) {
    let vendor = Vendor::start(workspace::vendor());
    let url = vendor.url();
    let workspace = Workspace::new(&run.brokers(), "send", &Setup::with_vendor("throughput", &url, kind.transform));
    // A first process makes the topics.
    workspace.start("resolve,route,send").stop();
    let (mut ours, mut limits): (Vec<Speed>, Vec<Speed>) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        prepare(kind, &workspace);
        vendor.simulator().reset();
        let progress = workspace.progress("send.klaviyo", "outbound.klaviyo");
        let mut process = workspace.start("send");
        ours.push(progress.measure(&mut process, kind.deliveries, PATIENCE));
        process.stop();
        let sent: Vec<Received> =
            vendor.simulator().requests().into_iter().filter(|request| is_delivery(kind, request)).collect();
        assert_eq!(vendor.stats().dropped, 0, "the simulator keeps fewer requests than were sent");
        vendor.simulator().reset();
        limits.push(bare(kind, &workspace, vendor.simulator(), &sent));
    }
    let of = |speeds: &[Speed], which: fn(&Speed) -> f64| median(speeds.iter().map(which));
    let wall = |speed: &Speed| speed.per_second;
    let processor = |speed: &Speed| speed.per_processor_second;
    report.add(Figure::new("send", kind.what, "deliveries/s", of(&ours, wall)).beside(of(&limits, wall)));
    report.add(Figure::new("send", kind.what, "deliveries/CPU-s", of(&ours, processor)).beside(of(&limits, processor)));
}

/// Fills the outbound topic.
fn prepare(kind: &Kind, workspace: &Workspace) {
    rows::produce(workspace.brokers(), &workspace.name("ingest.rows"), 0..kind.deliveries);
    let mut process = workspace.start("resolve,route");
    workspace.progress("resolve", "ingest.rows").wait(&mut process, PATIENCE);
    workspace.progress("route.klaviyo", "resolved").wait(&mut process, PATIENCE);
    process.stop();
}

fn is_delivery(kind: &Kind, request: &Received) -> bool {
    request.method == "POST" && request.path.trim_end_matches('/') == kind.path && request.status / 100 == 2
}

fn bare(kind: &Kind, workspace: &Workspace, simulator: &Simulator, sent: &[Received]) -> Speed {
    let bodies = workspace.folder().join("bodies.ndjson");
    let lines: String = sent.iter().map(|request| format!("{}\n", request.body)).collect();
    std::fs::write(&bodies, lines).unwrap_or_else(|error| panic!("{}: {error}", bodies.display()));
    let path = sent.first().map_or_else(|| kind.path.to_owned(), |request| request.path.clone());
    let requests = Requests { base: simulator.url(), path, bodies, at_once: kind.at_once, jobs: kind.jobs };
    let requests = serde_json::to_string(&requests).unwrap_or_else(|error| panic!("{error}"));
    let own = std::env::current_exe().unwrap_or_else(|error| panic!("the own path is not known: {error}"));
    let process = Process::start("requests", workspace.folder(), &own, &["requests", &requests], &[]);
    let printed = process.finish(PATIENCE);
    let took: Took = serde_json::from_str(printed.trim()).unwrap_or_else(|error| panic!("{error}: {printed}"));
    let deliveries = kind.deliveries as f64;
    Speed {
        per_second: deliveries / took.seconds,
        per_processor_second: deliveries / took.processor_seconds.max(f64::MIN_POSITIVE),
    }
}
