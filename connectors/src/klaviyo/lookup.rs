//! `create: false`: who is known to the vendor already. Whoever is not ends as skipped, before anything could create them.
//!
//! Only people who were found are remembered, and not for long: somebody unknown may be created by another tool any moment, and
//! somebody known may be deleted.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::Duration;

use serde::Deserialize;
use tailwater_core::code;
use tailwater_core::delivery::{Delivery, Outcome, Reason, Scope};

use super::endpoint;
use super::requests::{self, Field, Identified, LOOKUP_BYTES_MAX, LOOKUP_VALUES_MAX};
use super::work::Work;
use crate::http::{Halt, REPAIRS_MAX, Recent, Request, encoded};

pub(super) type Identifier = (Field, String);

/// Identifiers per generation; two generations of addresses take some ten megabytes.
const KNOWN_MAX: usize = 50_000;

/// How long a generation lasts: a person who is deleted at the vendor is created again for at most twice this long.
const GENERATION_AGE_MAX: Duration = Duration::from_secs(300);

/// The people who were found lately.
pub(super) type Known = Recent<Identifier>;

pub(super) fn known() -> Known {
    Recent::new(KNOWN_MAX, GENERATION_AGE_MAX)
}

#[derive(Deserialize)]
pub(super) struct Page {
    data: Vec<Profile>,
}

#[derive(Deserialize)]
struct Profile {
    attributes: Identified,
}

/// Gives everyone an outcome who is unknown, or whose being known could not be learned.
///
/// A question about many that is refused is halved until the value that the vendor will not be asked about is alone; the others are asked for
/// without it.
pub(super) async fn settle_unknown(work: Work<'_>) {
    let klaviyo = work.klaviyo;
    let people: Vec<Vec<Identifier>> =
        work.batch.iter().map(|delivery| Identified::of(&delivery.operation).normal().collect()).collect();
    let known = &klaviyo.known;
    let is_known = |person: &Vec<Identifier>| person.iter().any(|identifier| known.contains(identifier));
    let mut open: Vec<usize> =
        (0..people.len()).filter(|&index| people.get(index).is_some_and(|person| !is_known(person))).collect();
    // What this batch found counts even where the memory has already turned over.
    let mut found: HashSet<Identifier> = HashSet::new();
    let mut refused: BTreeMap<usize, Reason> = BTreeMap::new();
    let mut repairs_left = REPAIRS_MAX;
    for field in fields_by_use(klaviyo.key_field) {
        let mut owners: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for &index in &open {
            for (_, value) in people.get(index).into_iter().flatten().filter(|(own, _)| *own == field) {
                owners.entry(value.clone()).or_default().push(index);
            }
        }
        let part_max = |value: &String| {
            owners.get(value).into_iter().flatten().map(|&index| work.part_max(index)).min().unwrap_or(usize::MAX)
        };
        let mut queue: VecDeque<Vec<String>> = parts(owners.keys().cloned(), &part_max).into();
        while let Some(values) = queue.pop_front() {
            let members: Vec<usize> = values.iter().filter_map(|value| owners.get(value)).flatten().copied().collect();
            match look_up(work, &requests::look_up(field, &values), &members).await {
                Ok(identifiers) => {
                    found.extend(identifiers.iter().cloned());
                    known.insert(identifiers);
                }
                Err(Trouble::Halt(halt)) if halt.scope == Scope::Endpoint => {
                    work.halted(&endpoint::PROFILES, &members, &halt);
                }
                Err(Trouble::Halt(halt)) => return work.set_all(&open, &halt.outcome()),
                Err(Trouble::Refused(reason)) if values.len() == 1 => {
                    refused.extend(members.into_iter().map(|index| (index, reason.clone())));
                }
                Err(Trouble::Refused(reason)) if repairs_left < 2 => {
                    work.again_in_parts(&members, values.len(), None, &reason);
                }
                Err(Trouble::Refused(_)) => {
                    repairs_left -= 2;
                    let (one, other) = values.split_at(values.len() / 2);
                    queue.push_back(one.to_vec());
                    queue.push_back(other.to_vec());
                }
            }
        }
        open.retain(|&index| {
            work.is_open(index)
                && people.get(index).is_some_and(|person| !person.iter().any(|identifier| found.contains(identifier)))
        });
        if open.is_empty() {
            return;
        }
    }
    let message = "the vendor does not know the person, and the destination says `create: false`";
    for index in open {
        // Nobody can be shown to exist without being asked for, and creating somebody is what must not happen.
        let outcome = match refused.remove(&index) {
            Some(reason) => Outcome::Rejected(reason),
            None => Outcome::Skipped(Reason::new(code::WOULD_CREATE, message)),
        };
        work.set(index, &outcome);
    }
}

/// Whether the vendor knows somebody by this field of the delivery; `None` if it could not be learned, and the delivery has its outcome.
pub(super) async fn is_known(work: Work<'_>, index: usize, field: Field) -> Option<bool> {
    let own = work.delivery(index).map(|delivery| Identified::of(&delivery.operation)).unwrap_or_default();
    let Some(value) = own.get(field) else { return Some(false) };
    let wanted = (field, field.normal(value));
    match look_up(work, &requests::look_up(field, std::slice::from_ref(&wanted.1)), &[index]).await {
        Ok(identifiers) => Some(identifiers.contains(&wanted)),
        Err(Trouble::Halt(halt)) => {
            work.halted(&endpoint::PROFILES, &[index], &halt);
            None
        }
        Err(Trouble::Refused(reason)) => {
            work.set(index, &Outcome::Rejected(reason));
            None
        }
    }
}

/// The requests that ask for the people of a batch, with nothing remembered: what `--dry-run` shows.
pub(super) fn plan(key: Field, batch: &[Delivery]) -> Vec<(Request, Vec<usize>)> {
    let mut by_value: BTreeMap<Identifier, Vec<usize>> = BTreeMap::new();
    for (index, delivery) in batch.iter().enumerate() {
        let own = Identified::of(&delivery.operation);
        let first =
            fields_by_use(key).into_iter().find_map(|field| own.get(field).map(|value| (field, field.normal(value))));
        if let Some(identifier) = first {
            by_value.entry(identifier).or_default().push(index);
        }
    }
    let mut planned = Vec::new();
    for field in fields_by_use(key) {
        let values = by_value.keys().filter(|(own, _)| *own == field).map(|(_, value)| value.clone());
        for values in parts(values, &|_| usize::MAX) {
            let mut members: Vec<usize> =
                values.iter().filter_map(|value| by_value.get(&(field, value.clone()))).flatten().copied().collect();
            members.sort_unstable();
            planned.push((requests::look_up(field, &values), members));
        }
    }
    planned
}

enum Trouble {
    Halt(Halt),
    Refused(Reason),
}

async fn look_up(work: Work<'_>, request: &Request, members: &[usize]) -> Result<Vec<Identifier>, Trouble> {
    let answer = work.send(request, members).await.map_err(Trouble::Halt)?;
    let told =
        |what: &str| format!("could not ask the vendor whether the person exists, which `create: false` needs: {what}");
    if !answer.is_success() {
        let reason = Reason::new(code::VENDOR_REJECTED, told(answer.words()));
        return Err(Trouble::Refused(reason.with_status(answer.status())));
    }
    let Some(page) = answer.read::<Page>() else {
        let message = told("the answer is not of the shape that the vendor documents");
        return Err(Trouble::Halt(Halt::new(code::VENDOR_UNAVAILABLE, Scope::Endpoint, message)));
    };
    Ok(page.data.iter().flat_map(|profile| profile.attributes.normal().collect::<Vec<_>>()).collect())
}

/// The destination's key first: most people are found by it.
fn fields_by_use(key: Field) -> Vec<Field> {
    std::iter::once(key).chain(Field::ALL.into_iter().filter(|field| *field != key)).collect()
}

/// Cuts values into what one question may ask for. Those with a smaller `part_max` come last, among themselves.
fn parts(values: impl Iterator<Item = String>, part_max: &dyn Fn(&String) -> usize) -> Vec<Vec<String>> {
    let mut values: Vec<(Reverse<usize>, String)> =
        values.map(|value| (Reverse(part_max(&value).clamp(1, LOOKUP_VALUES_MAX)), value)).collect();
    values.sort_unstable();
    let mut parts: Vec<Vec<String>> = Vec::new();
    let (mut bytes, mut last_max) = (0, 0);
    for (Reverse(max), value) in values {
        // Quotes and a comma are encoded as three bytes each.
        let more = encoded(&value).len() + 9;
        match parts.last_mut() {
            Some(part) if max == last_max && part.len() < max && bytes + more <= LOOKUP_BYTES_MAX => part.push(value),
            _ => {
                parts.push(vec![value]);
                bytes = 0;
            }
        }
        bytes += more;
        last_max = max;
    }
    parts
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_question_asks_for_no_more_than_an_answer_and_an_address_hold() {
        let values: BTreeSet<String> =
            (0..1_234).map(|number| format!("person-{number}@a-rather-long-domain.example.com")).collect();
        let parts = parts(values.iter().cloned(), &|_| usize::MAX);
        assert_eq!(parts.iter().flatten().cloned().collect::<BTreeSet<_>>(), values);
        for part in &parts {
            assert!(part.len() <= LOOKUP_VALUES_MAX);
            assert!(requests::look_up(Field::Email, part).path.len() < 8_000);
        }
    }
}
