//! Which failpoints are to be hit in the run, and which were: a failpoint that no run reached proves nothing.
//!
//! The names are the product's (`router/src/failpoint/mod.rs`); it appends a line to a file when one acts, before it acts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::fleet::Role;

/// The failpoint, the roles that can reach it, and how often it may be passed before it acts: rare places act at once.
const ALL: &[(&str, &[Role], usize)] = &[
    ("source.produced", &[Role::Source], 5),
    ("resolve.produced", &[Role::Resolve], 40),
    ("resolve.committed", &[Role::Resolve], 40),
    ("merge.announced", &[Role::Resolve], 10),
    ("route.produced", &[Role::Route], 40),
    ("route.committed", &[Role::Route], 40),
    ("rebalance.route", &[Role::Route], 1),
    ("reload.loaded", &[Role::Route, Role::Send], 1),
    ("send.asked", &[Role::Send], 15),
    ("send.answered", &[Role::Send], 15),
    ("send.produced", &[Role::Send], 40),
    ("send.committed", &[Role::Send], 40),
    ("merge.passed", &[Role::Send], 5),
    ("rebalance.send", &[Role::Send], 1),
    ("rebalance.revoke.send", &[Role::Send], 1),
    ("state.changelog", &[Role::Source, Role::Resolve, Role::Route, Role::Send], 40),
    ("restore.half", &[Role::Source, Role::Resolve, Role::Route, Role::Send], 2),
];

/// What is not tried on one process that keeps its disk, because it does not reach it, or seldom: nobody takes a partition from it while it runs, and what it has on disk
/// is at most a few transactions behind, so that few restores are long enough to be cut in two.
const NOT_EMBEDDED: &[&str] = &["rebalance.revoke.send", "restore.half"];

#[derive(Debug)]
pub struct Failpoints {
    log: PathBuf,
    embedded: bool,
    armed: BTreeMap<&'static str, u32>,
}

// === impl Failpoints ===

impl Failpoints {
    /// `log` is the file in which the processes note what acted.
    pub fn new(log: &Path, embedded: bool) -> Self {
        Self { log: log.to_path_buf(), embedded, armed: BTreeMap::new() }
    }

    fn wanted(&self) -> impl Iterator<Item = &'static (&'static str, &'static [Role], usize)> {
        let embedded = self.embedded;
        ALL.iter().filter(move |(name, ..)| !embedded || !NOT_EMBEDDED.contains(name))
    }

    pub fn log(&self) -> &Path {
        &self.log
    }

    /// A failpoint for a process that is about to start: the one that has acted, and been tried, the fewest times. `draw` is
    /// between 0 and 1.
    pub fn arm(&mut self, role: Role, draw: f64) -> String {
        let fired = self.fired();
        let rank = |name: &str| (fired.get(name).copied().unwrap_or(0), self.armed.get(name).copied().unwrap_or(0));
        let Some((name, _, upto)) = self
            .wanted()
            .filter(|(_, roles, _)| role == Role::Whole || roles.contains(&role))
            .min_by_key(|one| rank(one.0))
        else {
            return String::new();
        };
        *self.armed.entry(name).or_insert(0) += 1;
        let after = 1 + super::place(draw, *upto);
        format!("{name}={after}:crash")
    }

    /// How often each one has acted.
    pub fn fired(&self) -> BTreeMap<String, u32> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let mut fired = BTreeMap::new();
        for name in text.lines().filter_map(|line| line.split(' ').next()) {
            *fired.entry(name.to_owned()).or_insert(0) += 1;
        }
        fired
    }

    /// Those that no process has reached.
    pub fn missing(&self) -> Vec<&'static str> {
        let fired = self.fired();
        self.wanted().map(|(name, ..)| *name).filter(|name| !fired.contains_key(*name)).collect()
    }
}
