//! What a run of a target amounted to, for `make fuzz`, which prints a table of it.

use std::fmt;
use std::io::Write as _;
use std::time::Duration;

#[derive(Debug, Default)]
pub(crate) struct Report {
    pub corpus: usize,
    pub executions: u64,
    /// Inputs in the pool at the end: the corpus, and what had an effect of its own.
    pub pool: usize,
    pub elapsed: Duration,
    pub slowest: Duration,
}

impl Report {
    /// Appends a line to the file that `TAILWATER_FUZZ_REPORT` names, if it does.
    pub fn write(&self, target: &str) {
        let Some(path) = std::env::var_os("TAILWATER_FUZZ_REPORT") else { return };
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&path);
        // One call, so that lines of several processes do not mix.
        let written = file.and_then(|mut file| file.write_all(format!("{target}\t{self}\n").as_bytes()));
        written.unwrap_or_else(|error| panic!("TAILWATER_FUZZ_REPORT ({}): {error}", path.display()));
    }
}

/// Separated by tabs: executions, seconds, executions a second, corpus, pool, slowest in milliseconds.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.elapsed.as_secs_f64();
        let rate = u128::from(self.executions) * 1_000 / self.elapsed.as_millis().max(1);
        let slowest = self.slowest.as_secs_f64() * 1_000.0;
        write!(f, "{}\t{seconds:.1}\t{rate}\t{}\t{}\t{slowest:.1}", self.executions, self.corpus, self.pool)
    }
}
