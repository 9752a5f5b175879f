//! Whether a commit is complete. A program that copies a log, or writes it without a rename, shows a commit that still grows: it is empty
//! at first, then has some of its lines. To read it then would lose the rest for ever, because the cursor moves on.
//!
//! A commit is complete if it says so itself ([`Extent::Whole`]), or if its store shows only whole files. In a folder, one that says
//! nothing is complete when it has stayed as it is for a while: a shorter one if a later version follows it, because writers of a table
//! read a version before they write the next. An empty one never is. What was taken for complete without proof is watched
//! ([`crate::watch`]).

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::log::{Actions, Extent};
use crate::table::Commit;

/// How many times longer a commit is waited for that announces more files than it has.
const SHORT_FACTOR: u32 = 5;

/// How long a commit has to stay as it is that a later version follows.
const FOLLOWED: Duration = Duration::from_secs(10);

/// Whether a commit is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    Proven,
    /// It has not grown for a while.
    Quiet,
    Growing(Growing),
}

/// Why a version is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Growing {
    Empty,
    /// It was changed a moment ago.
    Young,
    /// Its `commitInfo` counts more files than it has.
    Short,
}

impl Growing {
    pub fn text(self) -> &'static str {
        match self {
            Self::Empty => "it is empty",
            Self::Young => "it was changed a moment ago",
            Self::Short => "its commitInfo counts more files than it has",
        }
    }
}

/// The commit that is waited for.
#[derive(Default)]
pub(crate) struct Settle {
    /// Since when it has been as it is.
    seen: Option<(Commit, Instant)>,
}

// === impl Settle ===

impl Settle {
    /// Whether the commit is complete. `bytes` were read of it; `followed` says that there is a later version.
    pub fn look(
        &mut self,
        commit: &Commit,
        bytes: u64,
        actions: &Actions,
        quiet: Option<Duration>,
        followed: bool,
    ) -> Settled {
        let now = Instant::now();
        let since = match &self.seen {
            Some((seen, since)) if seen == commit => *since,
            Some(_) | None => {
                self.seen = Some((commit.clone(), now));
                now
            }
        };
        settled(commit, bytes, actions, quiet, followed, now.duration_since(since).max(age(commit)))
    }
}

/// `quiet` is how long a commit of the store has to stay as it is; none where the store shows only whole files.
fn settled(
    commit: &Commit,
    bytes: u64,
    actions: &Actions,
    quiet: Option<Duration>,
    followed: bool,
    unchanged: Duration,
) -> Settled {
    let extent = actions.extent();
    if extent == Extent::Empty {
        return Settled::Growing(Growing::Empty);
    }
    let Some(quiet) = quiet else { return Settled::Proven };
    let after = |wait: Duration, why| if unchanged < wait { Settled::Growing(why) } else { Settled::Quiet };
    match extent {
        // It grew since it was listed.
        _ if bytes != commit.size => Settled::Growing(Growing::Young),
        Extent::Whole => Settled::Proven,
        Extent::Short => after(quiet * SHORT_FACTOR, Growing::Short),
        Extent::Unknown | Extent::Empty if followed => after(quiet.min(FOLLOWED), Growing::Young),
        Extent::Unknown | Extent::Empty => after(quiet, Growing::Young),
    }
}

/// How long ago the file was changed. Zero where its clock is ahead of this one.
fn age(commit: &Commit) -> Duration {
    let modified = u64::try_from(commit.modified).unwrap_or_default();
    SystemTime::now().duration_since(UNIX_EPOCH + Duration::from_millis(modified)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Duration = Duration::from_secs(60);

    fn look(text: &str, listed: u64, quiet: Option<Duration>, followed: bool, unchanged: u64) -> Settled {
        let actions = Actions::parse(text.as_bytes()).unwrap();
        let commit = Commit { version: 2, size: listed, modified: 0 };
        settled(&commit, text.len() as u64, &actions, quiet, followed, Duration::from_secs(unchanged))
    }

    #[test]
    fn a_commit_that_can_still_grow_is_not_complete() {
        let add = r#"{"add":{"path":"a","partitionValues":{},"size":1,"dataChange":true}}"#;
        let short = r#"{"commitInfo":{"operation":"WRITE","operationParameters":{"mode":"Append"},"operationMetrics":{"numFiles":"1"}}}"#;
        let whole = format!("{short}\n{add}");
        let length = |text: &str| text.len() as u64;
        let grows = Settled::Growing;
        for (text, listed, quiet, followed, unchanged, expected) in [
            ("", 0, Some(QUIET), true, 100_000, grows(Growing::Empty)),
            ("", 0, None, true, 100_000, grows(Growing::Empty)),
            ("\n", 1, None, true, 100_000, grows(Growing::Empty)),
            (add, length(add), Some(QUIET), false, 59, grows(Growing::Young)),
            (add, length(add), Some(QUIET), false, 60, Settled::Quiet),
            (add, length(add), Some(QUIET), true, 9, grows(Growing::Young)),
            (add, length(add), Some(QUIET), true, 10, Settled::Quiet),
            (add, length(add), None, false, 0, Settled::Proven),
            (add, 3, Some(QUIET), true, 100_000, grows(Growing::Young)),
            (short, length(short), Some(QUIET), true, 299, grows(Growing::Short)),
            (short, length(short), Some(QUIET), true, 300, Settled::Quiet),
            (&whole, length(&whole), Some(QUIET), false, 0, Settled::Proven),
        ] {
            assert_eq!(look(text, listed, quiet, followed, unchanged), expected, "{text:?} {followed} {unchanged}");
        }
    }

    #[test]
    fn a_commit_that_changed_is_waited_for_again() {
        let mut settle = Settle::default();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        let modified = i64::try_from(now).unwrap() + 60_000;
        let actions = Actions::parse(br#"{"txn":{}}"#).unwrap();
        let commit = |size| Commit { version: 2, size, modified };
        let quiet = Some(Duration::from_millis(40));
        assert!(settle.look(&commit(10), 10, &actions, quiet, true) != Settled::Quiet);
        std::thread::sleep(Duration::from_millis(30));
        assert!(settle.look(&commit(11), 11, &actions, quiet, true) != Settled::Quiet);
        std::thread::sleep(Duration::from_millis(30));
        let young = Settled::Growing(Growing::Young);
        assert_eq!(settle.look(&commit(11), 11, &actions, quiet, true), young, "it changed 30 ms ago");
        std::thread::sleep(Duration::from_millis(15));
        assert_eq!(settle.look(&commit(11), 11, &actions, quiet, true), Settled::Quiet);
    }
}
