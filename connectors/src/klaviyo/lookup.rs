//! `create: false`: who is known to the vendor already. Whoever is not ends as skipped, before anything could create them.
//!
//! Only people who were found are remembered, and not for long: somebody unknown may be created by another tool any moment, and
//! somebody known may be deleted.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use tailwater_core::code;
use tailwater_core::delivery::{Delivery, Outcome, Reason, Scope};

use super::Klaviyo;
use super::errors::{self, Halt};
use super::requests::{self, Field, Identified, LOOKUP_BYTES_MAX, LOOKUP_VALUES_MAX, Request, encoded};
use super::session::Session;
use crate::outcomes::Outcomes;

type Identifier = (Field, String);

/// Identifiers per generation; two generations of addresses take some ten megabytes.
const KNOWN_MAX: usize = 50_000;

/// How long a generation lasts: a person who is deleted at the vendor is created again for at most twice this long.
const GENERATION_AGE_MAX: Duration = Duration::from_secs(300);

/// The people who were found lately, in two generations: when the younger one is full or old, it becomes the older one.
#[derive(Debug)]
pub(super) struct Known(Mutex<Generations>);

#[derive(Debug)]
struct Generations {
    young: HashSet<Identifier>,
    old: HashSet<Identifier>,
    since: Instant,
}

#[derive(Deserialize)]
pub(super) struct Page {
    data: Vec<Profile>,
}

#[derive(Deserialize)]
struct Profile {
    attributes: Identified,
}

// === impl Known ===

impl Known {
    pub fn new() -> Self {
        Self(Mutex::new(Generations { young: HashSet::new(), old: HashSet::new(), since: Instant::now() }))
    }

    fn contains(&self, identifier: &Identifier) -> bool {
        let mut generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        generations.turn();
        generations.young.contains(identifier) || generations.old.contains(identifier)
    }

    fn insert(&self, identifiers: impl IntoIterator<Item = Identifier>) {
        let mut generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for identifier in identifiers {
            generations.turn();
            generations.young.insert(identifier);
        }
    }
}

impl Generations {
    fn turn(&mut self) {
        if self.young.len() >= KNOWN_MAX || self.since.elapsed() >= GENERATION_AGE_MAX {
            self.old = std::mem::take(&mut self.young);
            self.since = Instant::now();
        }
    }
}

/// Gives everyone an outcome who is unknown, or whose being known could not be learned.
pub(super) async fn settle_unknown(
    klaviyo: &Klaviyo,
    batch: &[Delivery],
    session: &Session<'_>,
    outcomes: &Outcomes<'_>,
) {
    let people: Vec<Vec<Identifier>> =
        batch.iter().map(|delivery| Identified::of(&delivery.operation).normal().collect()).collect();
    let known = &klaviyo.known;
    let is_known = |person: &Vec<Identifier>| person.iter().any(|identifier| known.contains(identifier));
    let mut open: Vec<usize> =
        (0..people.len()).filter(|&index| people.get(index).is_some_and(|person| !is_known(person))).collect();
    // What this batch found counts even where the memory has already turned over.
    let mut found: HashSet<Identifier> = HashSet::new();
    for field in fields_by_use(klaviyo.key_field) {
        let values: BTreeSet<String> = open
            .iter()
            .filter_map(|&index| people.get(index))
            .flatten()
            .filter(|(own, _)| *own == field)
            .map(|(_, value)| value.clone())
            .collect();
        for values in parts(values) {
            let request = requests::look_up(field, &values);
            match look_up(&request, session).await {
                Ok(identifiers) => {
                    found.extend(identifiers.iter().cloned());
                    known.insert(identifiers);
                }
                Err(Trouble::Halt(halt)) => return give_all(&open, &halt.outcome(), outcomes),
                Err(Trouble::Refused(reason)) => {
                    // Nobody can be shown to exist, and creating somebody is what must not happen.
                    return give_all(&open, &Outcome::Retry { after: None, scope: Scope::Delivery, reason }, outcomes);
                }
            }
        }
        open.retain(|&index| {
            people.get(index).is_some_and(|person| !person.iter().any(|identifier| found.contains(identifier)))
        });
        if open.is_empty() {
            return;
        }
    }
    let message = "the vendor does not know the person, and the destination says `create: false`";
    give_all(&open, &Outcome::Skipped(Reason::new(code::WOULD_CREATE, message)), outcomes);
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
        let values = by_value.keys().filter(|(own, _)| *own == field).map(|(_, value)| value.clone()).collect();
        for values in parts(values) {
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

async fn look_up(request: &Request, session: &Session<'_>) -> Result<Vec<Identifier>, Trouble> {
    let answer = session.send(request).await.map_err(Trouble::Halt)?;
    let refused = |words: String| {
        let message = format!("could not ask the vendor who exists, which `create: false` needs: {words}");
        Trouble::Refused(Reason::new(code::VENDOR_REJECTED, message).with_status(answer.status))
    };
    if !answer.is_success() {
        return Err(refused(errors::summary(answer.errors())));
    }
    let page = answer
        .read::<Page>()
        .ok_or_else(|| refused("the answer is not of the shape that the vendor documents".to_owned()))?;
    Ok(page.data.iter().flat_map(|profile| profile.attributes.normal().collect::<Vec<_>>()).collect())
}

/// The destination's key first: most people are found by it.
fn fields_by_use(key: Field) -> Vec<Field> {
    std::iter::once(key).chain(Field::ALL.into_iter().filter(|field| *field != key)).collect()
}

/// Cuts values into what one question may ask for.
fn parts(values: BTreeSet<String>) -> Vec<Vec<String>> {
    let mut parts: Vec<Vec<String>> = Vec::new();
    let mut bytes = 0;
    for value in values {
        // Quotes and a comma are encoded as three bytes each.
        let more = encoded(&value).len() + 9;
        match parts.last_mut() {
            Some(part) if part.len() < LOOKUP_VALUES_MAX && bytes + more <= LOOKUP_BYTES_MAX => part.push(value),
            _ => {
                parts.push(vec![value]);
                bytes = 0;
            }
        }
        bytes += more;
    }
    parts
}

fn give_all(indexes: &[usize], outcome: &Outcome, outcomes: &Outcomes<'_>) {
    outcomes.set_all(indexes, outcome);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_asks_for_no_more_than_an_answer_and_an_address_hold() {
        let values: BTreeSet<String> =
            (0..1_234).map(|number| format!("person-{number}@a-rather-long-domain.example.com")).collect();
        let parts = parts(values.clone());
        assert_eq!(parts.iter().flatten().cloned().collect::<BTreeSet<_>>(), values);
        for part in &parts {
            assert!(part.len() <= LOOKUP_VALUES_MAX);
            assert!(requests::look_up(Field::Email, part).path.len() < 8_000);
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let known = Known::new();
        known.insert((0..KNOWN_MAX * 3).map(|number| (Field::ExternalId, number.to_string())));
        let generations = known.0.lock().unwrap();
        assert!(generations.young.len() + generations.old.len() <= 2 * KNOWN_MAX);
        assert!(generations.old.contains(&(Field::ExternalId, KNOWN_MAX.to_string())));
        assert!(!generations.old.contains(&(Field::ExternalId, (KNOWN_MAX - 1).to_string())));
    }
}
