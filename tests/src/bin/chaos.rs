//! `make chaos`: a run of faults against the real program, and what it did to the promises.

#![allow(clippy::print_stdout, clippy::print_stderr, clippy::panic, reason = "a program for the terminal")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tailwater_tests::chaos::run::{Options, run};

const HELP: &str =
    "usage: chaos [--seed N] [--minutes M] [--rate ROWS_PER_SECOND] [--people N] [--bug NAME] [--embedded] [--no-faults]

Runs the program in several processes on a real Kafka while everything goes wrong, and checks what the vendor saw.
With --embedded one process with a broker of its own (`tailwater run --embedded`) takes the place of the fleet.
Exit codes: 0 the promises held and every failpoint acted, 1 they did not, 3 a failpoint was never reached.
With --bug a defect is planted and the run must find it: 0 it was found, 1 it was not.
  commit_before_outcome, gate_removed, ledger_skipped, state_not_restored, dedupe_off";

fn main() -> ExitCode {
    let mut options = Options {
        seed: u64::from(uuid::Uuid::new_v4().as_fields().0),
        time: Duration::from_secs(120),
        // A hundred thousand rows in the two minutes.
        rate: 850.0,
        people: 1_000,
        bug: None,
        faults: true,
        embedded: false,
        folder: PathBuf::new(),
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| usage(&format!("{argument} needs a value")));
        match argument.as_str() {
            "--seed" => options.seed = number(&value()),
            "--minutes" => options.time = Duration::from_secs_f64(60.0 * number::<f64>(&value())),
            "--rate" => options.rate = number(&value()),
            "--people" => options.people = number(&value()),
            "--bug" => options.bug = Some(value()),
            "--embedded" => options.embedded = true,
            "--no-faults" => options.faults = false,
            "--help" | "-h" => usage(""),
            other => usage(&format!("{other} is not known")),
        }
    }
    options.folder = std::env::temp_dir().join(format!("tailwater-chaos-{}-{}", options.seed, std::process::id()));
    if let Err(error) = std::fs::create_dir_all(&options.folder) {
        eprintln!("{}: {error}", options.folder.display());
        return ExitCode::from(2);
    }
    eprintln!("seed {}; logs in {}", options.seed, options.folder.display());
    let report = run(&options);
    println!("{}", report.text);
    let minutes = options.time.as_secs_f64() / 60.0;
    let mut repeat = format!("make chaos SEED={} MINUTES={minutes} RATE={}", options.seed, options.rate);
    if options.embedded {
        repeat.push_str(" EMBEDDED=1");
    }
    if let Some(bug) = &options.bug {
        repeat.push_str(&format!(" BUG={bug}"));
    }
    let (verdict, code) = match (&options.bug, report.is_clean()) {
        (Some(bug), false) => (format!("the planted defect {bug} was found"), 0),
        (Some(bug), true) => (format!("FAILED: the planted defect {bug} was not noticed"), 1),
        (None, false) => ("FAILED".to_owned(), 1),
        (None, true) if !report.missing_failpoints.is_empty() => ("FAILED: failpoints were not reached".to_owned(), 3),
        (None, true) => ("the promises held".to_owned(), 0),
    };
    println!("{verdict}; seed {}; again: {repeat}", options.seed);
    if code == 0 {
        // What is left is not needed; that it cannot be removed changes nothing.
        std::fs::remove_dir_all(&options.folder).ok();
    } else {
        println!("logs and state are kept in {}", options.folder.display());
    }
    ExitCode::from(code)
}

fn number<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| usage(&format!("{text} is no number that fits here")))
}

#[allow(clippy::disallowed_methods, reason = "nothing has been started yet that would have to end in order")]
fn usage(problem: &str) -> ! {
    eprintln!("{problem}\n\n{HELP}");
    std::process::exit(2)
}
