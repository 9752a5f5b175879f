//! One chaos run from beginning to end: it starts everything, disturbs it, lets it come to rest, and checks what came out.

mod phases;
mod report;
mod world;

use std::path::PathBuf;
use std::time::Duration;

use self::phases::Run;
pub use self::report::Report;

/// What kind of run.
#[derive(Debug, Clone)]
pub struct Options {
    pub seed: u64,
    pub time: Duration,
    /// Rows a second, at most.
    pub rate: f64,
    pub people: u32,
    /// A defect that is planted in every process: the run must find it.
    pub bug: Option<String>,
    /// Whether faults are injected at all.
    pub faults: bool,
    /// One process with a broker of its own (`run --embedded`) instead of a fleet.
    pub embedded: bool,
    /// Where logs and state lie; kept when the run fails.
    pub folder: PathBuf,
}

/// Runs.
pub fn run(options: &Options) -> Report {
    let mut run = Run::start(options);
    let faults = run.disturb();
    let rest = run.settle();
    run.check(faults, rest)
}
