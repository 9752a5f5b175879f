//! A batch while it is delivered: its deliveries, the session that carries it, and where its outcomes go.

use std::time::Duration;

use tailwater_core::delivery::{Delivery, Outcome, Reason, Scope};
use tailwater_core::{Code, code};

use super::Klaviyo;
use super::errors::Halt;
use super::requests::Endpoint;
use super::session::{Session, subject};
use crate::outcomes::Outcomes;

/// A request that failed as a whole is sent again in up to this many parts: five rounds find one in 5,000, and a round of an outage
/// costs no more requests than the judgement of it takes.
const PARTS: usize = 8;

/// How long the parts of a failed request wait. Long enough for a hiccup of the vendor to pass, short enough that the good ones among
/// them hardly notice.
const PARTS_AFTER: Duration = Duration::from_secs(1);

/// How long those wait whose turn had not come: what is ready meanwhile goes first.
const NOT_SENT_AFTER: Duration = Duration::from_secs(1);

/// The deliveries of one call.
#[derive(Clone, Copy)]
pub(super) struct Work<'a> {
    pub klaviyo: &'a Klaviyo,
    pub batch: &'a [Delivery],
    pub session: &'a Session<'a>,
    pub outcomes: &'a Outcomes<'a>,
}

// === impl Work ===

impl<'a> Work<'a> {
    pub fn delivery(&self, index: usize) -> Option<&'a Delivery> {
        self.batch.get(index)
    }

    /// Whom a request with these members is about.
    pub fn subjects(&self, members: &[usize]) -> Vec<u64> {
        members.iter().filter_map(|&index| self.batch.get(index)).map(subject).collect()
    }

    pub fn is_open(&self, index: usize) -> bool {
        self.outcomes.is_open(index)
    }

    pub fn all_open(&self) -> Vec<usize> {
        (0..self.batch.len()).filter(|&index| self.is_open(index)).collect()
    }

    pub fn set(&self, index: usize, outcome: &Outcome) {
        self.set_all(&[index], outcome);
    }

    /// Reports an outcome. What is known of a delivery ends with the delivery.
    pub fn set_all(&self, members: &[usize], outcome: &Outcome) {
        match outcome {
            Outcome::Delivered | Outcome::DeliveredInPart(_) | Outcome::Rejected(_) | Outcome::Skipped(_) => {
                for delivery in members.iter().filter_map(|&index| self.batch.get(index)) {
                    self.klaviyo.attempts.forget(delivery.key);
                }
            }
            Outcome::Accepted(_) | Outcome::Retry { .. } => {}
        }
        self.outcomes.set_all(members, outcome);
    }

    /// The deliveries were made, with or without a part of them.
    pub fn delivered(&self, index: usize, remark: Option<&str>) {
        match remark {
            None => self.set(index, &Outcome::Delivered),
            Some(remark) => {
                self.set(index, &Outcome::DeliveredInPart(Reason::new(code::DELIVERED_IN_PART, remark)));
            }
        }
    }

    /// The most deliveries that a request with this one may carry.
    pub fn part_max(&self, index: usize) -> usize {
        self.batch.get(index).and_then(|one| self.klaviyo.attempts.get(one.key).part_max).unwrap_or(usize::MAX)
    }

    /// A delivery that has failed before comes after those that have not: one of them being answered tells that the vendor works.
    pub fn suspects_last(&self, members: &mut [usize]) {
        members.sort_by_key(|&index| {
            self.batch.get(index).is_some_and(|one| self.klaviyo.attempts.get(one.key).failed.is_some())
        });
    }

    /// The call has taken its time: the delivery goes with a later one.
    pub fn not_sent(&self, index: usize) {
        let seconds = self.klaviyo.call_time_max.as_secs();
        let message = format!("the request's turn had not come after {seconds} s; it is sent with a later batch");
        let reason = Reason::new(code::NOT_SENT, message);
        self.set(index, &Outcome::Retry { after: Some(NOT_SENT_AFTER), scope: Scope::Endpoint, reason });
    }

    /// The request of these members has ended without an answer about them.
    ///
    /// Several members that failed together wait and come back in smaller parts, and none of them is blamed: the one at fault is found when it
    /// is alone. A delivery that is alone is blamed only if the endpoint has answered somebody else since its first failed request was sent;
    /// until then, it waits like everybody would in an outage.
    pub fn halted(&self, endpoint: Endpoint, members: &[usize], halt: &Halt) {
        if !halt.failed {
            return self.set_all(members, &halt.outcome());
        }
        if let &[only] = members {
            let Some(delivery) = self.batch.get(only) else { return };
            let answers = self.klaviyo.account.health.answers(endpoint.index());
            let first = self.klaviyo.attempts.update(delivery.key, |attempt| {
                let known = attempt.failed.filter(|(at, _)| *at == endpoint.index());
                *attempt.failed.insert(known.unwrap_or((endpoint.index(), halt.answers)))
            });
            let scope = if answers > first.1 { Scope::Delivery } else { Scope::Endpoint };
            return self.set(only, &Outcome::Retry { after: halt.after, scope, reason: halt.reason.clone() });
        }
        self.again_in_parts(members, members.len().div_ceil(PARTS), halt.after.or(Some(PARTS_AFTER)), &halt.reason);
    }

    /// These are sent again, at most `part_max` in a request; nobody is blamed.
    pub fn again_in_parts(&self, members: &[usize], part_max: usize, after: Option<Duration>, reason: &Reason) {
        for delivery in members.iter().filter_map(|&index| self.batch.get(index)) {
            self.klaviyo.attempts.update(delivery.key, |attempt| attempt.part_max = Some(part_max.max(1)));
        }
        let outcome = Outcome::Retry { after, scope: Scope::Endpoint, reason: reason.clone() };
        self.outcomes.set_all(members, &outcome);
    }

    /// What the vendor took has to be sent again. One delivery alone is blamed for it; several come back in parts.
    pub fn resend(&self, members: &[usize], code: Code, message: String) {
        let reason = Reason::new(code, message);
        if members.len() > 1 {
            self.again_in_parts(members, members.len().div_ceil(PARTS), None, &reason);
        } else {
            self.set_all(members, &Outcome::Retry { after: None, scope: Scope::Delivery, reason });
        }
    }
}
