//! From what was found to what is told: for every event and destination one outcome. Pure.

use std::collections::BTreeMap;

use serde::Serialize;
use tailwater_identity::Person;

use super::gather::{At, Facts, Gathered};
use super::verdict::{Scene, Status, Step, Verdict, steps, verdict};
use crate::config::model::Config;
use crate::operator::dlq::Letter;
use crate::operator::shown::Place;

/// An event, from where it came in to where it is.
#[derive(Debug, Clone, Serialize)]
pub struct Event {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    pub source: String,
    #[serde(rename = "type")]
    pub event_type: String,
    pub time: String,
    pub came_in: String,
    pub ingest: Place,
    pub position: String,
    pub change: &'static str,
    pub backfill: bool,
    /// Identifiers of the row that are not used for the person, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<String>,
    pub resolved: Vec<Place>,
    pub destinations: BTreeMap<String, Outcome>,
}

/// What became of an event at a destination.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    pub steps: Vec<Step>,
    pub verdict: Verdict,
}

/// Whose events these are.
#[derive(Debug, Clone, Serialize)]
pub struct Subject {
    pub profile: String,
    pub partition: u32,
    pub events: u64,
    pub absorbed: Vec<String>,
    pub identifiers: Vec<Identifier>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Identifier {
    #[serde(rename = "type")]
    pub kind: String,
    pub value: String,
    pub since: String,
    pub in_use: bool,
}

/// A destination in one line.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    pub counts: BTreeMap<Status, usize>,
    /// What became of the newest event that the destination takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newest: Option<Verdict>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newest_source: Option<String>,
}

/// A dead letter of a source that mentions the person.
#[derive(Debug, Clone, Serialize)]
pub struct Mention {
    pub record: String,
    pub code: String,
    pub message: String,
}

#[derive(Debug, Clone, Serialize)]
pub struct Story {
    pub person: Subject,
    /// Oldest first.
    pub events: Vec<Event>,
    /// Older events of the person that are not told.
    pub events_left_out: usize,
    pub destinations: BTreeMap<String, Summary>,
    pub mentions: Vec<Mention>,
    /// Whether one event was asked for.
    #[serde(skip)]
    pub one_event: bool,
}

impl Mention {
    pub fn of(letter: &Letter) -> Self {
        Self { record: letter.at.to_string(), code: letter.code.clone(), message: letter.message.clone() }
    }
}

/// Tells what was found.
pub fn tell(config: &Config, person: Person, gathered: Gathered, one_event: bool) -> Story {
    let mut facts: Vec<(Place, Facts)> = gathered.events.into_iter().collect();
    facts.sort_by(|(a_place, a), (b_place, b)| (a.came_in, a.sequence, a_place).cmp(&(b.came_in, b.sequence, b_place)));
    let mut events = Vec::with_capacity(facts.len());
    let mut destinations: BTreeMap<String, Summary> = BTreeMap::new();
    for (ingest, facts) in facts {
        let mut outcomes = BTreeMap::new();
        for (name, destination) in &config.destinations {
            let nothing = At::default();
            let at = facts.destinations.get(name).unwrap_or(&nothing);
            let scene = Scene {
                destination,
                subscribed: destination.routes.iter().any(|route| route.from == facts.source),
                pause: gathered.pauses.get(name),
                merging: gathered.merging.contains(name),
                refusal: facts
                    .refusals
                    .iter()
                    .find(|(kind, _)| *kind == destination.identifier)
                    .map(|(_, text)| text.as_str()),
            };
            let outcome = Outcome { steps: steps(at), verdict: verdict(&scene, at) };
            let summary = destinations.entry(name.clone()).or_insert_with(|| Summary {
                counts: BTreeMap::new(),
                newest: None,
                newest_source: None,
            });
            *summary.counts.entry(outcome.verdict.status).or_default() += 1;
            if outcome.verdict.status != Status::NotSubscribed {
                summary.newest = Some(outcome.verdict.clone());
                summary.newest_source = Some(facts.source.clone());
            }
            outcomes.insert(name.clone(), outcome);
        }
        events.push(Event {
            id: facts.id.map(|id| id.to_string()),
            source: facts.source,
            event_type: facts.event_type,
            time: facts.time.to_string(),
            came_in: facts.came_in.to_string(),
            ingest,
            position: facts.position,
            change: facts.change,
            backfill: facts.backfill,
            refused: facts.refusals.into_iter().map(|(_, text)| text).collect(),
            resolved: facts.resolved.into_iter().map(|passed| passed.at).collect(),
            destinations: outcomes,
        });
    }
    Story {
        person: subject(config, &person),
        events,
        events_left_out: gathered.left_out,
        destinations,
        mentions: gathered.mentions.iter().map(Mention::of).collect(),
        one_event,
    }
}

fn subject(config: &Config, person: &Person) -> Subject {
    Subject {
        profile: person.profile.to_string(),
        partition: person.profile.partition(config.kafka.partitions),
        events: person.sequence,
        absorbed: person.absorbed.iter().map(ToString::to_string).collect(),
        identifiers: person
            .identifiers
            .iter()
            .map(|held| Identifier {
                kind: held.kind.to_string(),
                value: held.value.to_string(),
                since: held.added.to_string(),
                in_use: held.in_use,
            })
            .collect(),
    }
}
