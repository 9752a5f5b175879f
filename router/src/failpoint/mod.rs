//! Named failpoints, planted bugs and an injected clock, for the crash tests. They must never be in a release.
//!
//! A failpoint is a place in the code where a fault is worth most: between two steps that only look like one. A crash test names one
//! in the environment, and the process kills itself there as `kill -9` would, or stands still like a process that was stopped. A
//! planted bug takes one safeguard away, so that the tests can prove that they would notice. Everything in here exists only with
//! the cargo feature `failpoints`; without it each call is an empty function, and the environment is not looked at.
//!
//! ```text
//! TAILWATER_FAILPOINTS      what acts, several separated by `;`
//!     send.produced=crash       the process kills itself (SIGKILL) the first time it gets there
//!     send.produced=3:crash     … the third time
//!     send.asked=stall:8s       the thread stands still once, for that long
//!     bug.gate_removed=bug      the bug is in
//! TAILWATER_FAILPOINTS_LOG  a file; what acts appends `<name> <action> <pid> <milliseconds since 1970>` before it does
//! TAILWATER_CLOCK_FILE      a file with a signed number of milliseconds, added to the wall clock; looked at every 100 ms
//! ```
//!
//! The crate `fail` was considered: its actions are panics and sleeps, which a supervisor survives, and it cannot count, prove in a
//! file that a point was reached, or refuse a name that nobody uses.

#[cfg(feature = "failpoints")]
mod armed;
#[cfg(feature = "failpoints")]
mod clock;

use tailwater_core::{Code, code};

/// The variables in the environment cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unusable(String);

impl Unusable {
    pub const fn code(&self) -> Code {
        code::CONFIG_INVALID_VALUE
    }
}

/// A place that can be named: its name, the files (below `src`) that it is in, and what has and has not happened there.
#[cfg(any(feature = "failpoints", test))]
pub struct Place {
    pub name: &'static str,
    pub files: &'static [&'static str],
    pub what: &'static str,
}

/// Every failpoint and planted bug. A test holds it against the code.
#[cfg(any(feature = "failpoints", test))]
pub const PLACES: &[Place] = &[
    place("source.produced", &["stages/shared/commit/mod.rs"], "as resolve.produced"),
    place(
        "resolve.produced",
        &["stages/shared/commit/mod.rs"],
        "outputs, state and ledger are acknowledged, the transaction is open",
    ),
    place(
        "resolve.committed",
        &["stages/shared/commit/mod.rs"],
        "the transaction is committed, the local disk does not know it",
    ),
    place("merge.announced", &["stages/resolve/mod.rs"], "the fence of a merge is produced, its hold is not"),
    place("route.produced", &["stages/shared/commit/mod.rs"], "as resolve.produced"),
    place("route.committed", &["stages/shared/commit/mod.rs"], "as resolve.committed"),
    place("rebalance.route", &["stages/route/mod.rs"], "partitions are restored, not taken up"),
    place("send.asked", &["stages/send/clients.rs"], "the connector is about to get deliveries, nothing was sent"),
    place("send.answered", &["stages/send/clients.rs"], "the vendor has answered, no outcome was taken in"),
    place("send.produced", &["stages/shared/commit/mod.rs"], "as resolve.produced"),
    place("send.committed", &["stages/shared/commit/mod.rs"], "as resolve.committed"),
    place("merge.passed", &["stages/send/clients.rs"], "a fence was met, its release is produced and not committed"),
    place("rebalance.send", &["stages/send/rebalance.rs"], "partitions are restored, not taken up"),
    place(
        "rebalance.revoke.send",
        &["stages/send/rebalance.rs"],
        "calls have ended, what they brought is not committed, partitions are not given back",
    ),
    place("source.committed", &["stages/shared/commit/mod.rs"], "as resolve.committed"),
    place(
        "state.changelog",
        &["stages/shared/commit/mod.rs"],
        "state was written in memory, its changelog is not produced; without transactions, outputs are acknowledged",
    ),
    place(
        "state.promised",
        &["stages/shared/commit/mod.rs"],
        "without transactions: a batch's state is acknowledged as one piece, not under its keys",
    ),
    place(
        "restore.half",
        &["state/store/mod.rs"],
        "part of a partition's state was followed and is on disk; armed, after every record",
    ),
    place("reload.loaded", &["app/live.rs"], "new transforms are compiled, not swapped in"),
    place(
        "bug.commit_before_outcome",
        &["stages/send/planted.rs"],
        "a commit carries the offsets of all that was read",
    ),
    place("bug.gate_removed", &["stages/send/planted.rs"], "deliveries of one person are in flight at once"),
    place("bug.ledger_skipped", &["stages/send/planted.rs"], "send writes no ends to the ledger"),
    place("bug.state_not_restored", &["state/store/mod.rs"], "a partition's state begins empty"),
    place("bug.dedupe_off", &["state/store/mod.rs"], "what a stage remembers as done cannot be read"),
];

#[cfg(any(feature = "failpoints", test))]
const fn place(name: &'static str, files: &'static [&'static str], what: &'static str) -> Place {
    Place { name, files, what }
}

#[cfg(not(feature = "failpoints"))]
pub use self::absent::{bug, clock_shift_ms, hit, is_armed, prepare};
#[cfg(feature = "failpoints")]
pub use self::armed::{bug, hit, is_armed, prepare};
#[cfg(feature = "failpoints")]
pub use self::clock::shift_ms as clock_shift_ms;

/// What is left without the feature: nothing.
#[cfg(not(feature = "failpoints"))]
mod absent {
    use super::Unusable;

    /// Reads the environment, once, at the start of `tailwater run`.
    ///
    /// # Errors
    /// A name or an action that does not exist.
    pub const fn prepare() -> Result<(), Unusable> {
        Ok(())
    }

    /// A failpoint: acts if it was named.
    #[inline(always)]
    pub const fn hit(_name: &'static str) {}

    /// Whether this failpoint was named.
    #[inline(always)]
    pub const fn is_armed(_name: &'static str) -> bool {
        false
    }

    /// Whether this bug is in.
    #[inline(always)]
    pub const fn bug(_name: &'static str) -> bool {
        false
    }

    /// What is added to the wall clock, in milliseconds.
    #[inline(always)]
    pub const fn clock_shift_ms() -> i64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// Where each name stands in the code, file by file.
    fn used(folder: &Path, root: &Path, found: &mut Vec<(String, String)>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                used(&path, root, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let file = path.strip_prefix(root).unwrap().display().to_string();
                let text = std::fs::read_to_string(&path).unwrap();
                for part in text.split("failpoint::").skip(1) {
                    let call = part.split_once('(').filter(|(name, _)| matches!(*name, "hit" | "is_armed" | "bug"));
                    let name = call.and_then(|(_, rest)| rest.trim_start().strip_prefix('"')?.split('"').next());
                    found.extend(name.map(|name| (name.to_owned(), file.clone())));
                }
            }
        }
    }

    #[test]
    fn every_place_stands_where_the_list_says_and_nowhere_else() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut found = Vec::new();
        used(&root, &root, &mut found);
        // One name may stand in a file for a condition and for the act.
        let found: BTreeSet<(String, String)> =
            found.into_iter().filter(|(_, file)| !file.starts_with("failpoint")).collect();
        let listed: BTreeSet<(String, String)> = PLACES
            .iter()
            .flat_map(|place| place.files.iter().map(|file| (place.name.to_owned(), (*file).to_owned())))
            .collect();
        assert_eq!(found, listed);
        assert_eq!(PLACES.iter().map(|place| place.name).collect::<BTreeSet<_>>().len(), PLACES.len());
        assert!(PLACES.iter().all(|place| !place.what.is_empty()));
    }
}
