//! Requests with many people in them: cut into parts, and mended when one of them is refused or fails.
//!
//! A refusal (400) names people, or it does not. Those that it names are rejected and the rest is sent again; when it names nobody, the
//! request is halved until the rejected ones are alone. A failure (5xx, no answer) says nothing about anybody: its members come back in
//! smaller parts at their next attempt ([`Work::halted`]). Nobody is rejected for a neighbor's fault.

use std::collections::{BTreeMap, VecDeque};

use tailwater_core::delivery::{Outcome, Reason};
use tailwater_core::{Code, code};

use super::errors;
use super::requests::Request;
use super::session::Answer;
use super::work::Work;

/// Requests that repairing one refused request may take. With pointers each names all rejected ones at once; without, halving finds
/// one in 5,000 with 25 requests. What is left open at the end is tried again later and finds the rejected ones gone.
pub(super) const REPAIRS_MAX: usize = 96;

/// How often the members that are left after taking out the rejected ones are sent again as a whole, before they are halved as well: a
/// vendor that names one item at a time would otherwise keep everybody waiting.
const POINTED_ROUNDS_MAX: usize = 4;

/// The members of one request.
struct Part {
    members: Vec<usize>,
    pointed_rounds: usize,
}

/// What a refusal means for the members of a request.
pub(super) enum Refusal {
    /// These are rejected, the others may go on.
    Some(Vec<(usize, Reason)>),
    /// All are, because of what they share.
    All(Reason),
    /// It names nobody.
    Opaque(Reason),
}

/// Sends each part, mending what is refused; `taken` is called with the members of each part that the vendor took. Everyone else has an
/// outcome then.
pub(super) async fn send_parts(
    work: Work<'_>,
    parts: Vec<Vec<usize>>,
    make: &(dyn Fn(&[usize]) -> Request + Send + Sync),
    judge: &(dyn Fn(&Answer, &[usize]) -> Refusal + Send + Sync),
    taken: &(dyn Fn(&[usize], &Answer) + Send + Sync),
) {
    let mut repairs_left = REPAIRS_MAX;
    let mut queue: VecDeque<Part> = parts.into_iter().map(|members| Part { members, pointed_rounds: 0 }).collect();
    while let Some(Part { members, pointed_rounds }) = queue.pop_front() {
        if members.is_empty() {
            continue;
        }
        let request = make(&members);
        let answer = match work.session.send(&request, &work.subjects(&members)).await {
            Ok(answer) => answer,
            Err(halt) => {
                work.halted(request.endpoint, &members, &halt);
                continue;
            }
        };
        if answer.is_success() {
            taken(&members, &answer);
            continue;
        }
        let (rest, halve) = match judge(&answer, &members) {
            Refusal::All(reason) => {
                work.set_all(&members, &Outcome::Rejected(reason));
                continue;
            }
            Refusal::Opaque(reason) if members.len() == 1 => {
                work.set_all(&members, &Outcome::Rejected(reason));
                continue;
            }
            Refusal::Opaque(_) => (members, true),
            Refusal::Some(rejected) => {
                for (index, reason) in rejected {
                    work.set(index, &Outcome::Rejected(reason));
                }
                let rest: Vec<usize> = members.into_iter().filter(|&index| work.is_open(index)).collect();
                (rest, pointed_rounds >= POINTED_ROUNDS_MAX)
            }
        };
        if repairs_left < 2 {
            let message = format!(
                "the vendor refuses a request with {} items, and finding those it means took too many requests; the search goes on",
                rest.len()
            );
            let reason = Reason::new(code::VENDOR_REJECTED, message).with_status(answer.status);
            // The search goes on from here: the others must not use up their attempts meanwhile.
            work.again_in_parts(&rest, rest.len(), None, &reason);
            continue;
        }
        if halve && rest.len() > 1 {
            let (one, other) = rest.split_at(rest.len() / 2);
            repairs_left -= 2;
            for half in [one, other] {
                queue.push_back(Part { members: half.to_vec(), pointed_rounds: 0 });
            }
        } else {
            repairs_left -= 1;
            queue.push_back(Part { members: rest, pointed_rounds: pointed_rounds + 1 });
        }
    }
}

/// Whom a refusal means.
pub(super) fn judge(answer: &Answer, members: &[usize], pointer: &str) -> Refusal {
    let mut rejected: BTreeMap<usize, Reason> = BTreeMap::new();
    for error in answer.errors() {
        if let Some(&index) = error.index_below(pointer).and_then(|place| members.get(place)) {
            rejected
                .entry(index)
                .or_insert_with(|| Reason::new(code_of(answer.status), error.describe()).with_status(answer.status));
        }
    }
    if rejected.is_empty() { Refusal::Opaque(rejection(answer)) } else { Refusal::Some(rejected.into_iter().collect()) }
}

fn code_of(status: u16) -> Code {
    if status == 413 { code::PAYLOAD_TOO_LARGE } else { code::VENDOR_REJECTED }
}

pub(super) fn rejection(answer: &Answer) -> Reason {
    Reason::new(code_of(answer.status), errors::summary(answer.errors())).with_status(answer.status)
}
