//! Repeats: which had a reason, and which had none.

use std::time::Instant;

use super::super::receiver::{Answer, Arrival};
use super::{Case, Finding, Verdict};

pub(super) fn find(case: &Case<'_>, verdict: &mut Verdict) {
    let windows = Windows::new(case);
    let mut repeated: Vec<_> = case.attempts.iter().filter(|(_, places)| places.len() > 1).collect();
    repeated.sort_by_key(|(_, places)| places.first().copied());
    for (item, places) in repeated {
        for pair in places.windows(2) {
            let [before, again] = pair else { continue };
            let (Some(earlier), Some(later)) = (case.arrivals.get(*before), case.arrivals.get(*again)) else {
                continue;
            };
            let excuse = windows.excuse(earlier).filter(|_| earlier.key == later.key);
            match excuse {
                Some(Excuse::Asked(why)) => {
                    verdict.asked += 1;
                    *verdict.asked_by.entry(why).or_insert(0) += 1;
                    continue;
                }
                Some(Excuse::Ambiguous(why)) => {
                    verdict.ambiguous += 1;
                    *verdict.ambiguous_by.entry(why).or_insert(0) += 1;
                    continue;
                }
                None => {}
            }
            let why = if earlier.key != later.key {
                "under another unique_id, so that the vendor takes it for another event"
            } else if earlier.refused {
                "though it had been refused"
            } else {
                "for no reason"
            };
            let text = format!(
                "{}: it arrived {} and again {}, {why}",
                case.name(*item),
                case.tell(*before),
                case.tell(*again)
            );
            verdict.duplicated.push(Finding { item: Some(*item), text });
        }
    }
}

/// Why an item may arrive again.
enum Excuse {
    /// The vendor has answered, and nothing took effect: a repeat is what it asks for.
    Asked(&'static str),
    /// The sender could not know what became of the attempt, or has lost what it knew.
    Ambiguous(&'static str),
}

/// When something was disturbed, with its consequences: spans that do not touch, in order.
struct Windows<'a> {
    case: &'a Case<'a>,
    spans: Vec<(Instant, Instant)>,
}

impl<'a> Windows<'a> {
    fn new(case: &'a Case<'a>) -> Self {
        let mut all: Vec<(Instant, Instant)> = case
            .disturbances
            .iter()
            .map(|disturbance| (disturbance.from, disturbance.until + case.settings.grace))
            .collect();
        all.sort();
        let mut spans: Vec<(Instant, Instant)> = Vec::new();
        for (from, until) in all {
            match spans.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(until),
                _ => spans.push((from, until)),
            }
        }
        Self { case, spans }
    }

    /// Why the sender of this attempt may not know what became of it, or has to repeat it.
    fn excuse(&self, attempt: &Arrival) -> Option<Excuse> {
        match attempt.answer {
            Answer::Success if !attempt.took_effect => {
                return Some(Excuse::Asked("after a job that did nothing for them"));
            }
            Answer::Failure(_) if !attempt.refused && !attempt.took_effect => {
                return Some(Excuse::Asked("after an answer that asks for it (429, 5xx)"));
            }
            Answer::Failure(_) if !attempt.refused => {
                return Some(Excuse::Ambiguous("after a failure of the vendor that had taken effect"));
            }
            Answer::None | Answer::Broken => return Some(Excuse::Ambiguous("after a request without an answer")),
            Answer::Success | Answer::Failure(_) => {}
        }
        let answered = attempt.answered.unwrap_or(attempt.at);
        self.is_disturbed(attempt.at, answered + self.case.settings.grace)
            .then_some(Excuse::Ambiguous("after an answer that a crash or an aborted transaction has undone"))
    }

    fn is_disturbed(&self, from: Instant, until: Instant) -> bool {
        let next = self.spans.partition_point(|(_, end)| *end < from);
        self.spans.get(next).is_some_and(|(begin, _)| *begin <= until)
    }
}
