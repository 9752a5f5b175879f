//! Judges each source by what fails of its records: single bad ones, or most of them.
//!
//! When most records of a source fail alike, a dead letter for each is right (the records are counted and can be replayed), but a line
//! for each is noise, and nobody looks at 9,000 of them. The source gets one alert, which stays until most of its records are good
//! again. With `on_decode_failures: pause` it stops instead, before the batch at hand is dead-lettered.
//!
//! The window is the one that routes are judged by ([`tailwater_core::judge`]). Pure.

use std::collections::BTreeMap;

use tailwater_core::delivery::Reason;
use tailwater_core::judge::{Pattern, ROWS, Signature, TIME, Verdict, Window};
use tailwater_core::{Code, Timestamp, code};

/// The sources that had a failure.
#[derive(Debug, Default)]
pub struct Failures {
    by_source: BTreeMap<String, Judged>,
}

#[derive(Debug, Default)]
struct Judged {
    window: Window,
    /// The failures of the window by their code, each with the first one, for the alert.
    examples: BTreeMap<Code, (u64, Example)>,
    /// While the alert stands: good and failed records since it was looked at last, and when that was.
    alert: Option<Since>,
}

#[derive(Debug)]
struct Since {
    good: u64,
    failed: u64,
    at: Timestamp,
}

/// A failure that an alert quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    pub reason: Reason,
    /// Where the record lies.
    pub at: String,
}

/// What a look at a source found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Most of its records fail.
    Failing { source: String, pattern: Pattern, example: Example },
    /// Most of its records are good again.
    Recovered { source: String },
}

// === impl Failures ===

impl Failures {
    /// Notes records that could be used.
    pub fn good(&mut self, source: &str, records: u64) {
        // A source without a failure needs no window.
        let Some(judged) = self.by_source.get_mut(source) else { return };
        judged.window.succeeded(records);
        if let Some(since) = &mut judged.alert {
            since.good = since.good.saturating_add(records);
        }
    }

    /// Notes a record that could not.
    pub fn failed(&mut self, source: &str, reason: &Reason, at: &dyn std::fmt::Display, now: Timestamp) {
        let judged = self.by_source.entry(source.to_owned()).or_default();
        // All failures are alike: a record that cannot be used is one, in whichever way its producer went wrong.
        judged.window.failed(Signature::new(code::DECODE_FAILED, None, ""), now);
        let example = || (0, Example { reason: reason.clone(), at: at.to_string() });
        judged.examples.entry(reason.code).or_insert_with(example).0 += 1;
        if let Some(since) = &mut judged.alert {
            since.failed = since.failed.saturating_add(1);
        }
    }

    /// Judges all sources.
    pub fn judge(&mut self, now: Timestamp) -> Vec<Change> {
        let mut changes = Vec::new();
        for (source, judged) in &mut self.by_source {
            match judged.window.judge(now) {
                Verdict::Wait => {}
                Verdict::DeadLetter => {
                    judged.window.close();
                    judged.examples.clear();
                }
                Verdict::Pause(pattern) => {
                    judged.window.reset();
                    let examples = std::mem::take(&mut judged.examples);
                    let example = examples.into_values().max_by_key(|(count, _)| *count).map(|(_, example)| example);
                    if judged.alert.is_none()
                        && let Some(example) = example
                    {
                        judged.alert = Some(Since { good: 0, failed: 0, at: now });
                        changes.push(Change::Failing { source: source.clone(), pattern, example });
                    }
                }
            }
            let Some(since) = &mut judged.alert else { continue };
            let records = since.good.saturating_add(since.failed);
            if records >= ROWS || records > 0 && now.since(since.at) >= TIME {
                if since.failed.saturating_mul(2) < records {
                    judged.alert = None;
                    changes.push(Change::Recovered { source: source.clone() });
                } else {
                    *since = Since { good: 0, failed: 0, at: now };
                }
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(message: &str) -> Reason {
        Reason::new(code::DECODE_FAILED, message)
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    fn shown(changes: &[Change]) -> Vec<&'static str> {
        changes
            .iter()
            .map(|change| match change {
                Change::Failing { .. } => "failing",
                Change::Recovered { .. } => "recovered",
            })
            .collect()
    }

    /// Issue 10: 9,000 records that did not decode were 9,000 lines and no alert.
    #[test]
    fn a_source_whose_records_all_fail_gets_one_alert() {
        let mut failures = Failures::default();
        let mut changes = Vec::new();
        for record in 0..9_000 {
            failures.failed("app", &reason(&format!("found {record} bytes")), &record, at(record / 1_000));
            changes.extend(failures.judge(at(record / 1_000)));
        }
        let [Change::Failing { source, pattern, example }] = changes.as_slice() else { panic!("{changes:?}") };
        assert_eq!((source.as_str(), pattern.failed, example.at.as_str()), ("app", 100, "0"));
        // It stands until most are good, once.
        failures.good("app", 40);
        assert_eq!(shown(&failures.judge(at(10))), [""; 0]);
        let mut later = Vec::new();
        for second in 11..60 {
            failures.good("app", 50);
            later.extend(failures.judge(at(second)));
        }
        assert_eq!(shown(&later), ["recovered"]);
        for record in 0..200 {
            failures.failed("app", &reason("again"), &record, at(100));
        }
        assert_eq!(shown(&failures.judge(at(100))), ["failing"]);
    }

    #[test]
    fn records_that_fail_in_many_ways_are_one_alert_about_the_most_frequent() {
        let mut failures = Failures::default();
        let ways = ["a registry frame", "gzip data", "NaN", "an array"];
        for record in 0..1_000 {
            let reason = match record % 5 {
                4 => Reason::new(code::NO_IDENTIFIERS, "nobody"),
                way => reason(ways[way]),
            };
            failures.failed("app", &reason, &record, at(0));
        }
        let changes = failures.judge(at(0));
        let [Change::Failing { pattern, example, .. }] = changes.as_slice() else { panic!("{changes:?}") };
        assert_eq!((pattern.failed, example.reason.code), (1_000, code::DECODE_FAILED));
    }

    #[test]
    fn single_bad_records_are_no_alert_and_sources_are_judged_apart() {
        let mut failures = Failures::default();
        for second in 0..500 {
            failures.failed("app", &reason("bad"), &second, at(second));
            failures.good("app", 20);
            failures.good("other", 20);
            assert_eq!(failures.judge(at(second)), []);
        }
        for record in 0..100 {
            failures.failed("other", &reason("bad"), &record, at(600));
        }
        let changes = failures.judge(at(600));
        assert!(matches!(changes.as_slice(), [Change::Failing { source, .. }] if source == "other"), "{changes:?}");
    }

    #[test]
    fn a_few_records_that_all_fail_are_an_alert_when_their_time_is_over() {
        let mut failures = Failures::default();
        for record in 0..12 {
            failures.failed("app", &reason("bad"), &record, at(0));
        }
        assert_eq!(failures.judge(at(9)), []);
        assert_eq!(shown(&failures.judge(at(10))), ["failing"]);
    }
}
