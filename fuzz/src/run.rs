//! The loop: replay, then mutate and generate until the time is up.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::{RngExt as _, SeedableRng as _};

use crate::last::Last;
use crate::minimise::minimise;
use crate::mutate::Mutator;
use crate::report::Report;
use crate::watch::Watch;
use crate::{Generate, Random, budget, effect, quiet};

/// Inputs that are mutated on. Beyond it the oldest new ones give way; the corpus stays.
const POOL_MAX: usize = 2_000;

/// Effects that are remembered.
const EFFECTS_MAX: usize = 200_000;

/// An input that takes longer is a fault: the longest ones have some kilobytes. Processor time, asked for where the clock on the wall
/// says so.
const INPUT_TIME_MAX: Duration = Duration::from_secs(2);

/// Something that reads foreign bytes.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The folder of its corpus.
    pub name: &'a str,
    /// Pieces of the format: keywords, brackets, whole values.
    pub tokens: &'a [&'a str],
    /// No input is longer.
    pub bytes_max: usize,
}

impl Target<'_> {
    /// Replays the corpus, then tries new inputs until the budget is spent. `generate` makes inputs that obey the format, where there is
    /// one; every third input is one of its own.
    ///
    /// # Panics
    /// The check has panicked, or an input took too long. The input was made smaller and put into the corpus, under the name that the message says.
    pub fn run(&self, mut generate: Option<&mut Generate<'_>>, check: impl Fn(&[u8]) -> u64) {
        let (start, budget) = (Instant::now(), budget::duration());
        let mut random = Random::seed_from_u64(budget::seed() ^ effect(self.name));
        let mutator = Mutator { tokens: self.tokens, bytes_max: self.bytes_max };
        let last = Last::create(self.name);
        let watch = Watch::start(self.name, last.path());
        let mut report = Report::default();
        let mut effects = HashSet::new();
        let mut pool = Vec::new();
        for (path, input) in corpus(&folder(self.name)) {
            match attempt(&check, &input, &last, &watch, &mut report) {
                Ok(effect) => effects.insert(effect),
                Err(failure) => panic!("fuzz target {}: {} fails: {failure}", self.name, path.display()),
            };
            pool.push(input);
        }
        report.corpus = pool.len();
        if pool.is_empty() {
            pool.push(Vec::new());
        }
        let kept = pool.len();
        while start.elapsed() < budget {
            let input = match &mut generate {
                Some(generate) if random.random_ratio(1, 3) => generate(),
                Some(_) | None => {
                    let (one, other) = (random.random_range(0..pool.len()), random.random_range(0..pool.len()));
                    mutator.mutate(&mut random, &pool[one], &pool[other])
                }
            };
            match attempt(&check, &input, &last, &watch, &mut report) {
                Ok(effect) => {
                    if effects.len() < EFFECTS_MAX && effects.insert(effect) {
                        if pool.len() < POOL_MAX {
                            pool.push(input);
                        } else {
                            let place = random.random_range(kept.min(POOL_MAX - 1)..POOL_MAX);
                            pool[place] = input;
                        }
                    }
                }
                Err(failure) => self.fail(&check, &input, &failure, last),
            }
        }
        (report.elapsed, report.pool) = (start.elapsed(), pool.len());
        drop(watch);
        last.remove();
        report.write(self.name);
    }

    fn fail(&self, check: &impl Fn(&[u8]) -> u64, input: &[u8], failure: &Failure, last: Last) -> ! {
        let smallest = match failure {
            Failure::Panic(_) => minimise(input, |input| quiet::catch(|| check(input)).is_err()),
            Failure::Slow(_) => input.to_vec(),
        };
        let path = folder(self.name).join(format!("found-{:016x}", effect(&smallest)));
        let kept = std::fs::create_dir_all(folder(self.name)).and_then(|()| std::fs::write(&path, &smallest));
        let place = match kept {
            Ok(()) => {
                last.remove();
                path.display().to_string()
            }
            Err(error) => format!("{} ({} could not be written: {error})", last.path().display(), path.display()),
        };
        panic!("fuzz target {}: {failure}\n  input: {place}\n  seed: {}", self.name, budget::seed());
    }
}

/// Why an input counts as a fault.
enum Failure {
    Panic(String),
    Slow(Duration),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Panic(message) => f.write_str(message),
            Self::Slow(took) => write!(f, "the input took {took:?}, at most {INPUT_TIME_MAX:?} are allowed"),
        }
    }
}

/// Tries one input.
fn attempt(
    check: &impl Fn(&[u8]) -> u64,
    input: &[u8],
    last: &Last,
    watch: &Watch,
    report: &mut Report,
) -> Result<u64, Failure> {
    last.note(input);
    let try_it = || {
        watch.begin();
        let result = quiet::catch(|| check(input)).map_err(Failure::Panic);
        watch.finish();
        result
    };
    report.executions += 1;
    let start = Instant::now();
    let effect = try_it()?;
    let mut took = start.elapsed();
    if took > INPUT_TIME_MAX {
        let start = watch.clock().now();
        try_it()?;
        took = watch.clock().now().saturating_sub(start);
        if took > INPUT_TIME_MAX {
            return Err(Failure::Slow(took));
        }
    }
    report.slowest = report.slowest.max(took);
    Ok(effect)
}

/// `fuzz/corpus/<target>` of the checkout in which the test runs. Not of the one in which this crate was built: checkouts may share what
/// is built, and a corpus that is not there would be replayed as if it were empty.
fn folder(target: &str) -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(std::env::current_dir, |package| Ok(package.into()));
    let here = here.unwrap_or_else(|error| panic!("the current folder is not known: {error}"));
    let corpus = here.ancestors().map(|above| above.join("fuzz/corpus")).find(|corpus| corpus.is_dir());
    corpus.unwrap_or_else(|| panic!("there is no fuzz/corpus above {}", here.display())).join(target)
}

/// The files of a folder, in the order of their names; none where there is no folder yet.
fn corpus(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    let read = |path: PathBuf| {
        let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (path, bytes)
    };
    paths.into_iter().map(read).collect()
}
