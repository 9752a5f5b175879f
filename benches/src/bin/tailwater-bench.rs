//! `make bench`: measures, prints, and keeps the figures in `benches/results/`.
//!
//! Its other two faces are the limits, which run as processes of their own: `pipe` and `requests`, each with what to do as JSON.

#![allow(clippy::panic, reason = "a benchmark that cannot be set up has nothing else to do")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "what was measured is printed")]

use std::time::Instant;

use serde::de::DeserializeOwned;
use tailwater_benches::parts::{PARTS, Part, Run};
use tailwater_benches::pipe::Pipe;
use tailwater_benches::report::Report;
use tailwater_benches::requests::Requests;

/// The product's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["pipe", pipe] => parse::<Pipe>(pipe).run(),
        ["requests", requests] => {
            let took = parse::<Requests>(requests).run();
            println!("{}", serde_json::to_string(&took).unwrap_or_else(|error| panic!("{error}")));
        }
        names => measure(names),
    }
}

fn parse<T: DeserializeOwned>(text: &str) -> T {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

#[allow(clippy::disallowed_methods, reason = "nothing has been started yet that would have to end in order")]
fn measure(names: &[&str]) {
    if let Some(unknown) = names.iter().find(|name| PARTS.iter().all(|part| part.name != **name)) {
        eprintln!("there is no part `{unknown}`; there are:");
        for part in PARTS {
            eprintln!("  {:10} {}", part.name, part.about);
        }
        std::process::exit(2);
    }
    let chosen: Vec<&Part> = PARTS.iter().filter(|part| names.is_empty() || names.contains(&part.name)).collect();
    let (mut run, mut report) = (Run::default(), Report::new());
    let started = Instant::now();
    for part in chosen {
        println!("== {}: {}", part.name, part.about);
        let began = Instant::now();
        (part.measure)(&mut run, &mut report);
        println!("== {}: {} s", part.name, began.elapsed().as_secs());
        // Kept after each part, so that one that fails takes nothing with it.
        report.save(&tailwater_tests::root().join("benches/results"));
    }
    println!("\n{}\nall of it took {} s", report.markdown(), started.elapsed().as_secs());
}
