//! Throws random, mutated and generated inputs at whatever reads bytes that come from outside.
//!
//! A target is an ordinary test that stands beside the code it attacks (`config/fuzz.rs`, `stages/resolve/fuzz.rs`, …), so it reaches
//! what is private, needs no binary of its own to link, and runs on the stable toolchain with every `cargo test`. It hands
//! [`Target::run`] a check: a function of the input that panics where something is wrong, and otherwise says in one number what
//! the input led to, its *effect* (which error, which fields, which kinds of values). An input with an effect that was not seen before joins
//! the pool that is mutated on, so a target finds its way into a format step by step without instrumented code.
//!
//! First the corpus is replayed, `corpus/<target>/*` beside this crate: seeds, and every input that ever failed. Then it goes on with new
//! inputs for `TAILWATER_FUZZ_SECONDS` (3 unless set, 0 for the replay alone). What fails is made smaller, written into the corpus and named in the
//! panic, so that it is replayed from then on. An input that brings the process down (an exhausted stack, exhausted memory) or never
//! ends cannot be caught: it stands in `<temporary folder>/tailwater-fuzz-<target>-<process>.last`, which is removed when all went well.
//!
//! Nothing of the product depends on this crate, and it depends on nothing of the product.

mod budget;
mod clock;
mod last;
mod minimise;
mod mutate;
mod quiet;
mod report;
mod run;
mod watch;

use std::hash::{DefaultHasher, Hash, Hasher as _};

use proptest::strategy::{Strategy, ValueTree as _};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

pub use run::Target;

/// What the inputs are made with; the same seed makes the same inputs.
pub type Random = rand::rngs::StdRng;

/// Makes inputs that a mutation would hardly find, because they obey a grammar.
pub type Generate<'a> = dyn FnMut() -> Vec<u8> + 'a;

/// What an input led to, as the number that [`Target::run`] compares. Few and telling: an effect that holds the input's own text makes
/// every input new, and the pool worthless.
pub fn effect(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// What the calling thread has worked since some fixed moment, whatever else the machine does: for bounds on time that hold on a busy one.
/// Only differences mean something.
pub fn worked() -> std::time::Duration {
    clock::ThreadTime::of_this_thread().now()
}

/// A generator from a strategy of proptest.
pub fn generated(strategy: impl Strategy<Value = Vec<u8>>) -> impl FnMut() -> Vec<u8> {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&budget::seed().to_le_bytes());
    let config = Config { failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    // A strategy that cannot make a value (a filter that refuses everything) leaves the inputs to the mutations.
    move || strategy.new_tree(&mut runner).map(|tree| tree.current()).unwrap_or_default()
}
