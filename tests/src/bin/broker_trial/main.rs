//! Holds a broker against what Tailwater needs, and prints figures: `broker_trial [--only PART] [--kills N] [--records N] -- PROGRAM…`.
//!
//! The program is started as `PROGRAM… --data FOLDER --listen ADDRESS`, as `tailwater run --embedded` starts its broker, and ends at the
//! end of its standard input. Whatever is measured is measured for every program in the same way; docs/adr/0009 has the figures of two.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a trial stops at the first surprise, and its figures are its output"
)]

mod child;
mod features;
mod kills;
mod load;

use std::process::ExitCode;

use child::Child;

/// What is tried, unless `--only` says otherwise.
const PARTS: [&str; 5] = ["start", "features", "load", "latency", "kills"];

pub struct Options {
    pub only: Option<String>,
    pub kills: usize,
    pub records: usize,
    pub program: Vec<String>,
}

fn main() -> ExitCode {
    let Some(options) = options() else {
        println!("usage: broker_trial [--only {}] [--kills N] [--records N] -- PROGRAM…", PARTS.join("|"));
        return ExitCode::from(2);
    };
    let mut failures = 0;
    for part in PARTS {
        if options.only.as_deref().is_some_and(|only| only != part) {
            continue;
        }
        println!("== {part}");
        failures += match part {
            "start" => start(&options),
            "features" => features::run(&options),
            "load" => load::throughput(&options),
            "latency" => load::latency(&options),
            _ => kills::run(&options),
        };
    }
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn options() -> Option<Options> {
    let mut options = Options { only: None, kills: 20, records: 200_000, program: Vec::new() };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--only" => options.only = Some(arguments.next().filter(|part| PARTS.contains(&part.as_str()))?),
            "--kills" => options.kills = arguments.next()?.parse().ok()?,
            "--records" => options.records = arguments.next()?.parse().ok()?,
            "--" => options.program = arguments.by_ref().collect(),
            _ => return None,
        }
    }
    (!options.program.is_empty()).then_some(options)
}

/// From the start of the process to its first answer: an empty folder, then one with data.
fn start(options: &Options) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let mut times = Vec::new();
    for round in 0..6 {
        let child = Child::start(&options.program, folder.path(), None);
        println!(
            "{}: answers after {} ms, resident {} MB",
            if round == 0 { "empty folder" } else { "folder in use" },
            child.started_in.as_millis(),
            child.memory() >> 20
        );
        times.push(child.started_in);
        let stopped = child.stop();
        println!("  ended {} ms after its input", stopped.as_millis());
    }
    0
}
