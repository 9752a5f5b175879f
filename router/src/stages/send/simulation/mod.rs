//! The state machine of send in a world of its own: a broker, a vendor, processes and a clock that fail in every way and at every
//! moment, drawn from a seed. The machine is the product's ([`super::Session`], with gate, tracker, retry, fence and hold), and so are
//! the plans of route before it, which hold, hand over and release; only the world behind [`super::outside::Outside`] is made up
//! here.
//!
//! An *episode* is one world: some thousand steps in which faults happen, then a calm in which everything has to come to its end.
//! [`truth`] watches all the time. What it finds is told with the episode's seed: `TAILWATER_SIM_SEED=<seed>`
//! runs that episode alone and tells what happens in it, and `TAILWATER_SIM_STEPS=<number>` says for how many steps new episodes are
//! begun.

mod broker;
mod busy;
mod chance;
mod episode;
mod port;
mod state;
mod truth;
mod upstream;
mod vendor;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use tailwater_core::judge::FAILURES_ALIKE_MIN;

use self::chance::Chance;
use self::episode::{Report, run};
use self::world::Plant;

/// Steps of one ordinary test run, over all its episodes.
const STEPS: u64 = 2_000_000;

/// Steps of one episode before its calm.
const EPISODE_STEPS: u64 = 4_000;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.trim().parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// Runs episodes until so many steps were made; the seed and the message of the first one that fails.
fn episodes(first: u64, steps: u64, plant: Option<Plant>) -> Result<Report, (u64, String)> {
    let mut seeds = Chance::new(first);
    let mut seed = first;
    let mut total = Report::default();
    while total.steps < steps {
        match catch_unwind(AssertUnwindSafe(|| run(seed, EPISODE_STEPS, plant, false))) {
            Ok(report) => total.add(&report),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                return Err((seed, text.unwrap_or_default()));
            }
        }
        seed = seeds.next();
    }
    Ok(total)
}

#[test]
fn whatever_fails_at_whatever_moment_everything_ends_once_and_in_order() {
    let started = Instant::now();
    if let Some(seed) = number("TAILWATER_SIM_SEED") {
        println!("{}", run(seed, EPISODE_STEPS, None, true));
        return;
    }
    let first = u64::from(std::process::id());
    match episodes(first, number("TAILWATER_SIM_STEPS").unwrap_or(STEPS), None) {
        Ok(report) => {
            let rate = report.steps / u64::try_from(started.elapsed().as_millis()).unwrap_or(1).max(1);
            println!("{report}, {rate} steps a millisecond, first seed {first}");
        }
        Err((seed, message)) => panic!(
            "{message}\nto repeat it: TAILWATER_SIM_SEED={seed} cargo test --workspace --lib whatever_fails -- --nocapture"
        ),
    }
}

/// Issue 10: a deleted list rejects every delivery. The route pauses, and after the fix everything else is delivered. A first window
/// with fewer than ten rejections looks like single bad rows.
#[test]
fn a_vendor_that_rejects_everything_alike_pauses_the_route_instead_of_flooding_the_dead_letters() {
    let (mut dead, mut events) = (0, 0);
    for seed in 1..20 {
        let report = episode::run_rejected(seed, EPISODE_STEPS);
        assert!(report.rejected < FAILURES_ALIKE_MIN, "seed {seed}: {report}");
        dead += report.rejected;
        events += report.events;
    }
    assert!(dead * 10 < events, "{dead} of {events} events are dead letters");
}

/// The simulation must be able to fail: each of these bugs, put into the world, is found within an ordinary run.
#[test]
fn every_planted_bug_is_found() {
    for plant in [
        Plant::GateRemoved,
        Plant::CommitBeforeOutcome,
        Plant::FinishBeforeCommit,
        Plant::ReleaseBeforeFence,
        Plant::StateLost,
        Plant::EndSkipped,
        Plant::OwnershipIgnored,
        Plant::FactsForgotten,
        Plant::MemoryLeftBehind,
    ] {
        let Err((seed, message)) = episodes(1, STEPS, Some(plant)) else { panic!("{plant:?} was not found") };
        println!("{plant:?}: seed {seed}: {message}");
    }
}
