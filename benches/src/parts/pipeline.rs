//! Resolve and route between real topics, each beside a plain pipe between the same topics.
//!
//! The rows lie in the topic before a process starts, so that it is never kept waiting; the first quarter is warm-up. The process
//! and the pipe take turns on the same records: between two rounds the stage's group is sent back to the beginning.

use std::path::PathBuf;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use tailwater_core::envelope;
use tailwater_tests::topics::Topics;

use super::{ROUNDS, Run};
use crate::pipe::Pipe;
use crate::progress::Speed;
use crate::report::{Figure, Report, median};
use crate::rows;
use crate::workspace::{LANES, Setup, Workspace};

/// Rows in all. Enough for a few seconds of processor time, which the kernel counts in hundredths.
const ROWS: usize = 300_000;

/// How long a process may take for all of them.
const PATIENCE: Duration = Duration::from_secs(300);

/// Records whose sizes are looked at.
const SAMPLE: usize = 500;

/// A stage that is measured.
struct Stage {
    part: &'static str,
    roles: &'static str,
    group: &'static str,
    from: &'static str,
    to: &'static str,
}

const RESOLVE: Stage =
    Stage { part: "resolve", roles: "resolve", group: "resolve", from: "ingest.rows", to: "resolved" };
const ROUTE: Stage =
    Stage { part: "route", roles: "route", group: "route.klaviyo", from: "resolved", to: "outbound.klaviyo" };

/// Ours beside the pipe, in rounds.
fn side_by_side(stage: &Stage, workspace: &Workspace, report: &mut Report) {
    let (value_bytes, header_bytes) = sizes(workspace, stage.to);
    let output = workspace.name(&format!("bench.{}", stage.part));
    Topics::at(workspace.brokers()).create(&output, LANES, &[]);
    let (mut ours, mut limits): (Vec<Speed>, Vec<Speed>) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let group = format!("bench.{}.{round}", stage.part);
        let pipe = Pipe {
            config: workspace.config(),
            group: workspace.name(&group),
            from: workspace.name(stage.from),
            to: output.clone(),
            lanes: LANES,
            value_bytes,
            header_bytes,
        };
        let progress = workspace.progress(&group, stage.from);
        let mut process = workspace.start_pipe(&pipe);
        limits.push(progress.measure(&mut process, ROWS, PATIENCE));
        drop(process);
        let mut progress = workspace.progress(stage.group, stage.from);
        progress.rewind();
        let mut process = workspace.start(stage.roles);
        ours.push(progress.measure(&mut process, ROWS, PATIENCE));
        process.stop();
    }
    let of = |speeds: &[Speed], which: fn(&Speed) -> f64| median(speeds.iter().map(which));
    let what = format!("{}, 1 KB in, {value_bytes} B and a header of {header_bytes} B out", stage.part);
    let processor = |speed: &Speed| speed.per_processor_second;
    let mut figure =
        Figure::new(stage.part, &what, "events/CPU-s", of(&ours, processor)).beside(of(&limits, processor));
    if stage.part == "route" {
        figure = figure.goal(0.5);
    }
    report.add(figure);
    let wall = |speed: &Speed| speed.per_second;
    report.add(Figure::new(stage.part, &what, "events/s", of(&ours, wall)).beside(of(&limits, wall)));
}

/// The mean sizes of value and header of a topic's first records.
fn sizes(workspace: &Workspace, topic: &str) -> (usize, usize) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", workspace.brokers())
        .set("group.id", "bench-never-joined")
        .create()
        .unwrap_or_else(|error| panic!("no consumer: {error}"));
    let mut list = TopicPartitionList::new();
    let added = list.add_partition_offset(&workspace.name(topic), 0, Offset::Beginning);
    added.and_then(|()| consumer.assign(&list)).unwrap_or_else(|error| panic!("{topic}: {error}"));
    let (mut value, mut header, mut count) = (0, 0, 0);
    while count < SAMPLE {
        match consumer.poll(Duration::from_secs(10)) {
            Some(Ok(message)) => {
                value += message.payload().map_or(0, <[u8]>::len);
                let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
                header += headers
                    .filter(|one| one.key == envelope::HEADER)
                    .map(|one| one.value.map_or(0, <[u8]>::len))
                    .sum::<usize>();
                count += 1;
            }
            Some(Err(error)) => panic!("{topic}: {error}"),
            None => panic!("{topic} has only {count} records in its first partition"),
        }
    }
    (value / count, header / count)
}

/// A workspace whose rows are resolved already. The first time everybody is new, which is measured by the way.
fn resolved(run: &mut Run, report: Option<&mut Report>) -> Workspace {
    let workspace = Workspace::new(&run.brokers(), "bench", &Setup::new("throughput"));
    // A first process makes the topics.
    workspace.start(RESOLVE.roles).stop();
    rows::produce(workspace.brokers(), &workspace.name(RESOLVE.from), 0..ROWS);
    let progress = workspace.progress(RESOLVE.group, RESOLVE.from);
    let mut process = workspace.start(RESOLVE.roles);
    let speed = progress.measure(&mut process, ROWS, PATIENCE);
    process.stop();
    if let Some(report) = report {
        let what = "resolve, everybody new, two identifiers each";
        report.add(Figure::new("resolve", what, "events/CPU-s", speed.per_processor_second));
        report.add(Figure::new("resolve", what, "events/s", speed.per_second));
    }
    workspace
}

/// Resolve: the same rows again, so that everybody is known.
pub fn resolve(run: &mut Run, report: &mut Report) {
    let workspace = resolved(run, Some(report));
    side_by_side(&RESOLVE, &workspace, report);
    allocations(&RESOLVE, &workspace, report);
}

/// Route: two thirds of it is the transform.
pub fn route(run: &mut Run, report: &mut Report) {
    let workspace = resolved(run, None);
    let mut process = workspace.start(ROUTE.roles);
    workspace.progress(ROUTE.group, ROUTE.from).wait(&mut process, PATIENCE);
    process.stop();
    side_by_side(&ROUTE, &workspace, report);
    allocations(&ROUTE, &workspace, report);
}

/// Bytes that the product's own code allocates per event: a build that counts them tells at its end; what a process allocates that finds
/// nothing to do is taken off.
fn allocations(stage: &Stage, workspace: &Workspace, report: &mut Report) {
    let Some(binary) = std::env::var_os("TAILWATER_BENCH_COUNTING").map(PathBuf::from) else {
        println!("  (bytes per event are not counted: there is no counting build)");
        return;
    };
    let mut progress = workspace.progress(stage.group, stage.from);
    let mut run = |rewind: bool| {
        if rewind {
            progress.rewind();
        }
        let mut process = workspace.start_binary(&binary, stage.roles);
        progress.wait(&mut process, PATIENCE);
        let log = process.stop();
        let bytes = log.rsplit("allocated_bytes=").next().and_then(|rest| {
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<f64>().ok()
        });
        bytes.unwrap_or_else(|| panic!("the counting build told nothing:\n{log}"))
    };
    let idle = run(false);
    let busy = run(true);
    let what = format!("{}, allocated by Rust code (V8 and librdkafka not counted)", stage.part);
    report.add(Figure::new(stage.part, what, "bytes/event", (busy - idle) / ROWS as f64));
}
