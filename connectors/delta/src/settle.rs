//! Whether a commit is complete. A program that copies a log, or writes it without a rename, shows a commit that still grows: it is empty
//! at first, then has some of its lines. To read it then would lose the rest for ever, because the cursor moves on.
//!
//! A commit is complete if it says so itself ([`Extent::Whole`]), or if its store shows only whole files. In a folder, one that says
//! nothing is complete when it has stayed as it is for a while. An empty one never is.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::log::{Actions, Extent};
use crate::table::Commit;

/// How many times longer a commit is waited for that announces more files than it has.
const SHORT_FACTOR: u32 = 30;

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
    /// None if the commit is complete; else why it may not be. `bytes` were read of it.
    pub fn look(&mut self, commit: &Commit, bytes: u64, actions: &Actions, quiet: Option<Duration>) -> Option<Growing> {
        let now = Instant::now();
        let since = match &self.seen {
            Some((seen, since)) if seen == commit => *since,
            Some(_) | None => {
                self.seen = Some((commit.clone(), now));
                now
            }
        };
        growing(commit, bytes, actions, quiet, now.duration_since(since).max(age(commit)))
    }
}

/// `quiet` is how long a commit of the store has to stay as it is; none where the store shows only whole files.
fn growing(
    commit: &Commit,
    bytes: u64,
    actions: &Actions,
    quiet: Option<Duration>,
    unchanged: Duration,
) -> Option<Growing> {
    let extent = actions.extent();
    if extent == Extent::Empty {
        return Some(Growing::Empty);
    }
    let quiet = quiet?;
    match extent {
        // It grew since it was listed.
        _ if bytes != commit.size => Some(Growing::Young),
        Extent::Whole => None,
        Extent::Short => (unchanged < quiet * SHORT_FACTOR).then_some(Growing::Short),
        Extent::Unknown | Extent::Empty => (unchanged < quiet).then_some(Growing::Young),
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

    const QUIET: Duration = Duration::from_secs(10);

    fn look(text: &str, listed: u64, quiet: Option<Duration>, unchanged: u64) -> Option<Growing> {
        let actions = Actions::parse(text.as_bytes()).unwrap();
        let commit = Commit { version: 2, size: listed, modified: 0 };
        growing(&commit, text.len() as u64, &actions, quiet, Duration::from_secs(unchanged))
    }

    #[test]
    fn a_commit_that_can_still_grow_is_not_complete() {
        let add = r#"{"add":{"path":"a","partitionValues":{},"size":1,"dataChange":true}}"#;
        let short = r#"{"commitInfo":{"operation":"WRITE","operationParameters":{"mode":"Append"},"operationMetrics":{"numFiles":"1"}}}"#;
        let whole = format!("{short}\n{add}");
        let length = |text: &str| text.len() as u64;
        for (text, listed, quiet, unchanged, expected) in [
            ("", 0, Some(QUIET), 100_000, Some(Growing::Empty)),
            ("", 0, None, 100_000, Some(Growing::Empty)),
            ("\n", 1, None, 100_000, Some(Growing::Empty)),
            (add, length(add), Some(QUIET), 9, Some(Growing::Young)),
            (add, length(add), Some(QUIET), 10, None),
            (add, length(add), None, 0, None),
            (add, 3, Some(QUIET), 100_000, Some(Growing::Young)),
            (short, length(short), Some(QUIET), 299, Some(Growing::Short)),
            (short, length(short), Some(QUIET), 300, None),
            (&whole, length(&whole), Some(QUIET), 0, None),
        ] {
            assert_eq!(look(text, listed, quiet, unchanged), expected, "{text:?} {unchanged}");
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
        assert!(settle.look(&commit(10), 10, &actions, quiet).is_some());
        std::thread::sleep(Duration::from_millis(30));
        assert!(settle.look(&commit(11), 11, &actions, quiet).is_some());
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!(settle.look(&commit(11), 11, &actions, quiet), Some(Growing::Young), "it changed 30 ms ago");
        std::thread::sleep(Duration::from_millis(15));
        assert!(settle.look(&commit(11), 11, &actions, quiet).is_none());
    }
}
