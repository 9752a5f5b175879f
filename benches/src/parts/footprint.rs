//! What a process with all stages needs: memory when there is nothing to do and when there is much, and time until it is ready.

use std::time::Duration;

use tailwater_tests::vendor::Vendor;

use super::Run;
use crate::report::{Figure, Report, median};
use crate::rows;
use crate::workspace::{self, Setup, Workspace};

const PATIENCE: Duration = Duration::from_secs(300);

/// People whom the workspace knows before anything is measured.
const KNOWN: usize = 50_000;

/// Rows that are there at once for the load.
const LOAD: usize = 150_000;

const STARTS: usize = 5;

/// How long nothing happens before idle memory is looked at.
const IDLE: Duration = Duration::from_secs(5);

pub fn measure(run: &mut Run, report: &mut Report) {
    let vendor = Vendor::start(workspace::vendor());
    let url = vendor.url();
    let workspace = Workspace::new(&run.brokers(), "footprint", &Setup::with_vendor("balanced", &url, rows::WINBACK));
    let mut process = workspace.start("");
    let topic = workspace.name("ingest.rows");
    rows::produce(workspace.brokers(), &topic, 0..KNOWN);
    drain(&workspace, &mut process);
    process.stop();

    let mut starts = Vec::new();
    for _ in 0..STARTS {
        let mut process = workspace.spawn(&workspace::binary(), "");
        starts.push(workspace.ready(&mut process).as_secs_f64() * 1000.0);
        process.stop();
    }
    report.add(Figure::new(
        "footprint",
        "start to ready, all roles, a workspace of 50,000 people",
        "ms",
        median(starts),
    ));

    let mut process = workspace.start("");
    std::thread::sleep(IDLE);
    let (idle, _) = process.memory();
    report.add(Figure::new("footprint", "resident memory, all roles, idle", "MiB", idle));
    rows::produce(workspace.brokers(), &topic, 0..LOAD);
    drain(&workspace, &mut process);
    let (after, most) = process.memory();
    report.add(Figure::new(
        "footprint",
        "the most resident memory while 150,000 rows of 1 KB were worked off",
        "MiB",
        most,
    ));
    report.add(Figure::new("footprint", "resident memory after that", "MiB", after));
    process.stop();
}

/// Waits until everything that is in the sources' topic has gone through all stages.
fn drain(workspace: &Workspace, process: &mut crate::process::Process) {
    for (group, topic) in
        [("resolve", "ingest.rows"), ("route.klaviyo", "resolved"), ("send.klaviyo", "outbound.klaviyo")]
    {
        workspace.progress(group, topic).wait(process, PATIENCE);
    }
}
