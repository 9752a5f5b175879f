//! A batch while it is delivered: its deliveries, the session that carries it, and where its outcomes go.

use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use tailwater_core::delivery::{Delivery, Outcome, Reason, Scope};
use tailwater_core::{Code, code};

use super::attempts::Attempts;
use super::endpoint::{Endpoint, Request};
use super::halt::Halt;
use super::session::{Answer, Session, subject};
use crate::outcomes::Outcomes;

/// A request that failed as a whole is sent again in up to this many parts: five rounds find one in 5,000, and a round of an outage
/// costs no more requests than the judgement of it takes.
const PARTS: usize = 8;

/// How long the parts of a failed request wait. Long enough for a hiccup of the vendor to pass, short enough that the good ones among
/// them hardly notice.
const PARTS_AFTER: Duration = Duration::from_secs(1);

/// How long those wait whose turn had not come: what is ready meanwhile goes first.
const NOT_SENT_AFTER: Duration = Duration::from_secs(1);

/// The deliveries of one call. `S` is what the vendor's connector notes of a delivery between its attempts.
pub struct Work<'a, S = ()> {
    pub session: &'a Session<'a>,
    pub attempts: &'a Attempts<S>,
    pub batch: &'a [Delivery],
    pub outcomes: &'a Outcomes<'a>,
}

// Derived, it would want `S` to be copied, which it is not.
impl<S> Clone for Work<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Work<'_, S> {}

// === impl Work ===

impl<'a, S: Default + Clone> Work<'a, S> {
    /// Forgets what earlier lives of these deliveries left behind: a replay has the key of a delivery that ended long ago.
    pub fn begin(&self) {
        for delivery in self.batch.iter().filter(|delivery| delivery.attempt <= 1) {
            self.attempts.forget(delivery.key);
        }
    }

    pub fn delivery(&self, index: usize) -> Option<&'a Delivery> {
        self.batch.get(index)
    }

    /// Sends a request about these members.
    ///
    /// # Errors
    /// As [`Session::send`]; to be handed to [`Self::halted`].
    pub async fn send(&self, request: &Request, members: &[usize]) -> Result<Answer, Halt> {
        self.session.send(request, &self.subjects(members)).await
    }

    /// Sends a request about one delivery and reports its outcome where it is no success: then there is nothing more to do. For calls that
    /// are not batched.
    pub async fn send_one(&self, request: &Request, index: usize) -> Option<Answer> {
        if !self.session.has_time() {
            self.not_sent(index);
            return None;
        }
        match self.send(request, &[index]).await {
            Err(halt) => {
                self.halted(request.endpoint, &[index], &halt);
                None
            }
            Ok(answer) if answer.is_success() => Some(answer),
            Ok(answer) => {
                self.set(index, &Outcome::Rejected(answer.rejection()));
                None
            }
        }
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
                    self.attempts.forget(delivery.key);
                }
            }
            Outcome::Accepted(_) | Outcome::Retry { .. } => {}
        }
        self.outcomes.set_all(members, outcome);
    }

    /// The delivery was made, with or without a part of it.
    pub fn delivered(&self, index: usize, remark: Option<&str>) {
        self.delivered_all(&[index], remark);
    }

    /// Those of the members that have no outcome yet were delivered: what is left to say when an answer has named the others.
    pub fn delivered_all(&self, members: &[usize], remark: Option<&str>) {
        let outcome = match remark {
            None => Outcome::Delivered,
            Some(remark) => Outcome::DeliveredInPart(Reason::new(code::DELIVERED_IN_PART, remark)),
        };
        let open: Vec<usize> = members.iter().copied().filter(|&index| self.is_open(index)).collect();
        self.set_all(&open, &outcome);
    }

    /// The most deliveries that a request with this one may carry.
    pub fn part_max(&self, index: usize) -> usize {
        self.batch.get(index).and_then(|one| self.attempts.get(one.key).part_max).unwrap_or(usize::MAX)
    }

    /// A delivery that has failed before comes after those that have not: one of them being answered tells that the vendor works.
    pub fn suspects_last(&self, members: &mut [usize]) {
        members
            .sort_by_key(|&index| self.batch.get(index).is_some_and(|one| self.attempts.get(one.key).failed.is_some()));
    }

    /// The call has taken its time: the delivery goes with a later one.
    pub fn not_sent(&self, index: usize) {
        let seconds = self.session.sender().call_time_max.as_secs();
        let message = format!("the request's turn had not come after {seconds} s; it is sent with a later batch");
        let reason = Reason::new(code::NOT_SENT, message);
        self.set(index, &Outcome::Retry { after: Some(NOT_SENT_AFTER), scope: Scope::Endpoint, reason });
    }

    /// How many requests an endpoint has answered.
    pub fn answers(&self, endpoint: &Endpoint) -> u64 {
        self.session.sender().account().health.answers(endpoint.label)
    }

    /// The request of these members has ended without an answer about them.
    ///
    /// Several members that failed together wait and come back in smaller parts, and none of them is blamed: the one at fault is found when it
    /// is alone. A delivery that is alone is blamed only if the endpoint has answered somebody else since its first failed request was sent;
    /// until then, it waits like everybody would in an outage.
    pub fn halted(&self, endpoint: &'static Endpoint, members: &[usize], halt: &Halt) {
        if !halt.failed {
            return self.set_all(members, &halt.outcome());
        }
        if let &[only] = members {
            let Some(delivery) = self.batch.get(only) else { return };
            let first = self.attempts.update(delivery.key, |attempt| {
                let known = attempt.failed.filter(|(at, _)| *at == endpoint.label);
                *attempt.failed.insert(known.unwrap_or((endpoint.label, halt.answers)))
            });
            let scope = if self.answers(endpoint) > first.1 { Scope::Delivery } else { Scope::Endpoint };
            return self.set(only, &Outcome::Retry { after: halt.after, scope, reason: halt.reason.clone() });
        }
        self.again_in_parts(members, members.len().div_ceil(PARTS), halt.after.or(Some(PARTS_AFTER)), &halt.reason);
    }

    /// These are sent again, at most `part_max` in a request; nobody is blamed.
    pub fn again_in_parts(&self, members: &[usize], part_max: usize, after: Option<Duration>, reason: &Reason) {
        for delivery in members.iter().filter_map(|&index| self.batch.get(index)) {
            self.attempts.update(delivery.key, |attempt| attempt.part_max = Some(part_max.max(1)));
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

/// Runs requests, `width` at the same time.
pub async fn at_once<T>(sends: Vec<impl Future<Output = T>>, width: usize) -> Vec<T> {
    stream::iter(sends).buffer_unordered(width).collect().await
}
