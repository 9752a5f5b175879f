//! Log lines about single records: one line for each kind of failure and minute, with the number of those that are like it. Ten thousand
//! records that fail alike are one finding, not ten thousand lines; the metrics, the ledger and the dead letters count each of them.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tailwater_core::delivery::Reason;
use tailwater_core::judge::Signature;
use tracing::warn;

/// How long lines like one that was written are only counted.
const INTERVAL: Duration = Duration::from_secs(60);

/// Kinds that are told apart. Beyond it a failure is counted under its code alone.
const KINDS_MAX: usize = 1_000;

/// Lines that were written, by what makes them alike.
#[derive(Default)]
pub(super) struct Repeats {
    kinds: Mutex<BTreeMap<Kind, Written>>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    what: &'static str,
    stage: &'static str,
    component: String,
    signature: Signature,
}

#[derive(Debug)]
struct Written {
    at: Instant,
    /// Failures since, without a line.
    more: u64,
}

impl Repeats {
    /// Something happened to a record: `what` says what.
    pub(super) fn tell(
        &self,
        what: &'static str,
        stage: &'static str,
        component: &str,
        reason: &Reason,
        at: &dyn Display,
    ) {
        let Some(more) = self.admit(what, stage, component, reason, Instant::now()) else { return };
        let Reason { code, message, .. } = reason;
        if more == 0 {
            warn!(stage, component, %code, %at, "{what}: {message}");
        } else {
            warn!(stage, component, %code, %at, more, "{what}, and {more} more like it since the last line: {message}");
        }
    }

    /// Whether a line is due, and how many have been left out since the last one.
    fn admit(
        &self,
        what: &'static str,
        stage: &'static str,
        component: &str,
        reason: &Reason,
        now: Instant,
    ) -> Option<u64> {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let signature = Signature::new(reason.code, None, &reason.message);
        let mut kind = Kind { what, stage, component: component.to_owned(), signature };
        if kinds.len() >= KINDS_MAX && !kinds.contains_key(&kind) {
            kind.signature = Signature::new(reason.code, None, "");
        }
        match kinds.get_mut(&kind) {
            Some(written) if now.saturating_duration_since(written.at) < INTERVAL => {
                written.more = written.more.saturating_add(1);
                None
            }
            Some(written) => {
                let more = std::mem::take(&mut written.more);
                written.at = now;
                Some(more)
            }
            None => {
                kinds.insert(kind, Written { at: now, more: 0 });
                Some(0)
            }
        }
    }

    /// Tells what was only counted, when its minute is over and nothing like it came since.
    pub(super) fn flush(&self, now: Instant) {
        for (kind, more) in self.due(now) {
            let Kind { what, stage, component, signature } = kind;
            warn!(stage, component, code = %signature.code, more, "{what}: {more} more like the last one ({signature})");
        }
    }

    fn due(&self, now: Instant) -> Vec<(Kind, u64)> {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let mut due = Vec::new();
        kinds.retain(|kind, written| {
            let over = now.saturating_duration_since(written.at) >= INTERVAL;
            if over && written.more > 0 {
                due.push((kind.clone(), written.more));
            }
            !over
        });
        due
    }
}

#[cfg(test)]
mod tests {
    use tailwater_core::code;

    use super::*;

    fn reason(number: u32) -> Reason {
        Reason::new(code::DECODE_FAILED, format!("found {number} bytes"))
    }

    /// Issue 10: 9,000 lines for 9,000 records.
    #[test]
    fn failures_alike_are_one_line_a_minute_and_none_goes_uncounted() {
        let repeats = Repeats::default();
        let start = Instant::now();
        let lines: Vec<u64> = (0..9_000)
            .filter_map(|number| repeats.admit("dead-lettered", "resolve", "app", &reason(number), start))
            .collect();
        assert_eq!(lines, [0]);
        assert_eq!(repeats.admit("dead-lettered", "resolve", "other", &reason(1), start), Some(0), "another source");
        let later = start + INTERVAL;
        assert_eq!(repeats.admit("dead-lettered", "resolve", "app", &reason(7), later), Some(8_999));
        assert_eq!(repeats.admit("dead-lettered", "resolve", "app", &reason(8), later), None);
        assert!(repeats.due(later).is_empty(), "its minute has begun");
        let due: Vec<u64> = repeats.due(later + INTERVAL).into_iter().map(|(_, more)| more).collect();
        assert_eq!(due, [1]);
        assert!(repeats.due(later + INTERVAL).is_empty());
    }

    #[test]
    fn any_number_of_kinds_is_bounded() {
        let repeats = Repeats::default();
        let now = Instant::now();
        let word = |number: u32| {
            (0..4).map(|place| char::from(b'a' + ((number >> (4 * place)) & 15) as u8)).collect::<String>()
        };
        for number in 0..5_000 {
            repeats.admit("dead-lettered", "route", "k", &Reason::new(code::TRANSFORM_THREW, word(number)), now);
        }
        assert!(repeats.kinds.lock().unwrap().len() <= KINDS_MAX + 1);
    }
}
