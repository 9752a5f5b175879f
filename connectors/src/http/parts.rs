//! Requests with many people in them: cut into parts, and mended when one of them is refused or fails.
//!
//! A refusal (400) names people, or it does not. Those that it names are rejected and the rest is sent again; when it names nobody, the
//! request is halved until the rejected ones are alone. A failure (5xx, no answer) says nothing about anybody: its members come back in
//! smaller parts at their next attempt ([`Work::halted`]). Nobody is rejected for a neighbor's fault.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};

use tailwater_core::code;
use tailwater_core::delivery::{Outcome, Reason};

use super::endpoint::Request;
use super::session::Answer;
use super::work::Work;

/// Requests that repairing one refused request may take. With pointers each names all rejected ones at once; without, halving finds
/// one in 5,000 with 25 requests. What is left open at the end is tried again later and finds the rejected ones gone.
pub const REPAIRS_MAX: usize = 96;

/// How often the members that are left after taking out the rejected ones are sent again as a whole, before they are halved as well: a
/// vendor that names one item at a time would otherwise keep everybody waiting.
const POINTED_ROUNDS_MAX: usize = 4;

/// The members of one request.
struct Part {
    members: Vec<usize>,
    pointed_rounds: usize,
}

/// What a refusal means for the members of a request.
#[derive(Debug)]
pub enum Refusal {
    /// These are rejected, the others may go on.
    Some(Vec<(usize, Reason)>),
    /// All are, because of what they share.
    All(Reason),
    /// It names nobody.
    Opaque(Reason),
}

/// What a request may carry.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub count_max: usize,
    pub bytes_max: usize,
    /// Bytes of a request without its items.
    pub frame_bytes: usize,
}

/// Sends each part, mending what is refused. `taken` is called with the members of each part that the vendor took, and reports their
/// outcomes; everyone else has one then.
pub async fn send_parts<S: Default + Clone>(
    work: Work<'_, S>,
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
        let answer = match work.send(&request, &members).await {
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
            let reason = Reason::new(code::VENDOR_REJECTED, message).with_status(answer.status());
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

/// A refusal that names nobody: what `judge` is where a vendor never names items.
pub fn opaque(answer: &Answer, _members: &[usize]) -> Refusal {
    Refusal::Opaque(answer.rejection())
}

/// A refusal of the members at these places of the request. Places that it does not have are ignored; without any, it is opaque.
pub fn named(answer: &Answer, members: &[usize], places: impl IntoIterator<Item = (usize, String)>) -> Refusal {
    let mut rejected: BTreeMap<usize, Reason> = BTreeMap::new();
    for (place, message) in places {
        if let Some(&index) = members.get(place) {
            rejected.entry(index).or_insert_with(|| answer.reason(message));
        }
    }
    if rejected.is_empty() {
        Refusal::Opaque(answer.rejection())
    } else {
        Refusal::Some(rejected.into_iter().collect())
    }
}

/// Cuts members into parts. Those with a smaller `part_max` come last, and never together with those that may go in a larger part.
pub fn cut(members: &[usize], count_max: usize, part_max: &dyn Fn(usize) -> usize) -> Vec<Vec<usize>> {
    let mut by_max: BTreeMap<Reverse<usize>, Vec<usize>> = BTreeMap::new();
    for &index in members {
        by_max.entry(Reverse(part_max(index).clamp(1, count_max.max(1)))).or_default().push(index);
    }
    let chunks =
        |(max, members): (Reverse<usize>, Vec<usize>)| members.chunks(max.0).map(<[usize]>::to_vec).collect::<Vec<_>>();
    by_max.into_iter().flat_map(chunks).collect()
}

/// Cuts members into parts that the vendor takes. `item_bytes` is what a member adds to a request, separators included.
pub fn cut_by_size(
    members: &[usize],
    size: Size,
    part_max: &dyn Fn(usize) -> usize,
    item_bytes: &dyn Fn(usize) -> usize,
) -> Vec<Vec<usize>> {
    let mut parts = Vec::new();
    for wanted in cut(members, size.count_max, part_max) {
        let (mut part, mut bytes) = (Vec::new(), size.frame_bytes);
        for index in wanted {
            let more = item_bytes(index);
            if !part.is_empty() && bytes.saturating_add(more) > size.bytes_max {
                parts.push(std::mem::take(&mut part));
                bytes = size.frame_bytes;
            }
            part.push(index);
            bytes = bytes.saturating_add(more);
        }
        parts.push(part);
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_cut_loses_nobody_and_keeps_every_maximum(
            maxima in prop::collection::vec(prop_oneof![Just(usize::MAX), 0_usize..6], 0..60), count_max in 1_usize..20,
            bytes_max in 1_usize..100,
        ) {
            let members: Vec<usize> = (0..maxima.len()).collect();
            let size = Size { count_max, bytes_max, frame_bytes: 5 };
            for parts in [
                cut(&members, count_max, &|index| maxima[index]),
                cut_by_size(&members, size, &|index| maxima[index], &|index| index + 1),
            ] {
                let mut all: Vec<usize> = parts.iter().flatten().copied().collect();
                all.sort_unstable();
                prop_assert_eq!(&all, &members);
                for part in &parts {
                    let most = part.iter().map(|&index| maxima[index].max(1)).min().unwrap_or(0);
                    prop_assert!(part.len() <= most.min(count_max));
                }
            }
            for part in cut_by_size(&members, size, &|_| usize::MAX, &|index| index + 1) {
                let bytes: usize = 5 + part.iter().map(|index| index + 1).sum::<usize>();
                prop_assert!(part.len() == 1 || bytes <= bytes_max);
            }
        }
    }
}
