//! The small benches, which need nothing but a processor: run by cargo, their figures taken over.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::Run;
use crate::report::{Figure, Report};

/// Runs one of them; answers what it printed.
fn bench(name: &str) -> String {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["bench", "--locked", "--workspace", "--bench", name])
        .current_dir(tailwater_tests::root())
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|error| panic!("cargo cannot be run: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "the bench `{name}` failed:\n{text}");
    text
}

/// The transform in the sandbox beside bare V8, by processor time: the bench takes turns itself and prints one line.
pub fn core(_: &mut Run, report: &mut Report) {
    let text = bench("transform");
    let line = text
        .lines()
        .find(|line| line.contains("per second of processor time"))
        .unwrap_or_else(|| panic!("the bench printed no result:\n{text}"));
    let after = |word: &str| {
        let rest = line.split(word).nth(1).unwrap_or_default().trim_start();
        let number: String = rest.chars().take_while(|char| char.is_ascii_digit() || *char == '.').collect();
        number.parse::<f64>().unwrap_or_else(|_| panic!("no figure after `{word}` in: {line}"))
    };
    let limit = after("bare ");
    let what = "winback transform, 1 KB rows in batches of 500, beside a bare V8 loop";
    report.add(Figure::new("core", what, "rows/CPU-s", after("sandbox ")).beside(limit).goal(0.7));
    let what = "the same with two columns laid over each row";
    report.add(Figure::new("core", what, "rows/CPU-s", after("with overlay ")).beside(limit));
}

/// The identity decision on a store in memory.
pub fn identity(_: &mut Run, report: &mut Report) {
    bench("resolve");
    let own = std::env::current_exe().unwrap_or_else(|error| panic!("the own path is not known: {error}"));
    let target = own.ancestors().nth(2).map(Path::to_path_buf).unwrap_or_default();
    let mut found = Vec::new();
    collect(&target.join("criterion"), &mut found);
    found.sort();
    for estimates in found {
        let read = |name: &str| -> Option<Value> {
            serde_json::from_slice(&fs::read(estimates.with_file_name(name)).ok()?).ok()
        };
        let (Some(benchmark), Some(times)) = (read("benchmark.json"), read("estimates.json")) else { continue };
        let name = benchmark["title"].as_str().unwrap_or_default().to_owned();
        let nanoseconds = times["median"]["point_estimate"].as_f64().unwrap_or(f64::NAN);
        if let Some(events) = benchmark["throughput"]["Elements"].as_f64() {
            if name.starts_with("resolve") {
                report.add(Figure::new("identity", name, "events/s", events / nanoseconds * 1e9));
            }
        } else if name.starts_with("merge") {
            report.add(Figure::new("identity", name, "µs", nanoseconds / 1e3));
        }
    }
}

/// The newest estimates below a folder.
fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.ends_with("new/estimates.json") {
            found.push(path);
        }
    }
}
