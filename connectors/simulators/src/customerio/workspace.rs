//! The workspace: people, objects, segments and events, and what each operation does to them.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use serde_json::{Map, Value, json};

use super::Options;
use super::answer::Refusal;
use super::attributes;
use super::people::{Ident, People};
use super::relations::{Key, Objects};

const SEGMENTS_MAX: usize = 1_000;
const SUPPRESSED_MAX: usize = 1_000_000;

#[derive(Debug)]
pub(super) struct Segment {
    pub name: String,
    /// By `cio_id`.
    pub members: BTreeSet<String>,
}

#[derive(Debug)]
pub(super) struct Event {
    pub person: String,
    pub kind: &'static str,
    pub name: String,
    pub id: Option<String>,
    pub timestamp: i64,
    pub attributes: Map<String, Value>,
}

#[derive(Debug)]
pub(super) struct Workspace {
    pub people: People,
    pub objects: Objects,
    pub segments: BTreeMap<u32, Segment>,
    pub events: VecDeque<Event>,
    events_max: usize,
    event_ids: HashSet<String>,
    pub events_accepted: u64,
    pub events_repeated: u64,
    suppressed: BTreeSet<Ident>,
}

/// What an operation dropped without a word: empty where it did everything.
pub(super) type Dropped = Vec<String>;

/// A change of a person's attributes.
#[derive(Debug)]
pub(super) struct Update<'a> {
    pub ident: Ident,
    pub attributes: &'a Map<String, Value>,
    pub timestamp: Option<i64>,
}

// === impl Workspace ===

impl Workspace {
    pub fn new(options: &Options) -> Self {
        let mut workspace = Self {
            people: People::default(),
            objects: Objects::default(),
            segments: BTreeMap::new(),
            events: VecDeque::new(),
            events_max: options.memory.events_max,
            event_ids: HashSet::new(),
            events_accepted: 0,
            events_repeated: 0,
            suppressed: BTreeSet::new(),
        };
        for (id, name) in &options.segments {
            workspace.add_segment(id, name);
        }
        workspace
    }

    pub fn add_segment(&mut self, id: &str, name: &str) -> bool {
        let Ok(id) = id.parse::<u32>() else { return false };
        if self.segments.len() >= SEGMENTS_MAX && !self.segments.contains_key(&id) {
            return false;
        }
        let segment =
            self.segments.entry(id).or_insert_with(|| Segment { name: String::new(), members: BTreeSet::new() });
        name.clone_into(&mut segment.name);
        true
    }

    /// Adds or updates a person; returns the `cio_id` where there is one, and what was dropped.
    pub fn identify(&mut self, update: &Update<'_>, now_s: i64) -> Result<(Option<String>, Dropped), Refusal> {
        attributes::check(update.attributes, "attributes")?;
        let mut identifiers = Vec::new();
        for name in ["id", "email", "phone"] {
            if let Some(Value::String(text)) = update.attributes.get(name)
                && !text.is_empty()
            {
                identifiers.push((name, Ident::new(name, text, format!("attributes.{name}"))?));
            }
        }
        let nobody = |why: &str| Ok((None, vec![format!("identify {:?}: {why}", update.ident)]));
        if self.suppressed.contains(&update.ident) {
            return nobody("the identifier is suppressed");
        }
        let only_existing = update.attributes.get("_update").and_then(Value::as_bool).unwrap_or(false);
        let cio_id = match self.people.find(&update.ident) {
            Some(person) => person.cio_id.clone(),
            None if only_existing => return nobody("_update, and nobody has the identifier"),
            None => {
                // A new id with the email of somebody who has no id: that person gets the id.
                let by_email = identifiers.iter().find_map(|(_, ident)| self.people.find(ident));
                let adopted = by_email.filter(|person| matches!(update.ident, Ident::Id(_)) && person.id.is_none());
                match adopted.map(|person| person.cio_id.clone()) {
                    Some(cio_id) => {
                        self.people.assign(&cio_id, &update.ident);
                        cio_id
                    }
                    None => match self.people.find_or_create(&update.ident) {
                        Some(cio_id) => cio_id,
                        None => return nobody("nobody has this cio_id"),
                    },
                }
            }
        };
        let timestamp = update.timestamp.unwrap_or(now_s);
        let mut dropped = Vec::new();
        let stale = self.people.get_mut(&cio_id).and_then(|person| person.updated_at).filter(|last| timestamp < *last);
        if let Some(last) = stale {
            return Ok((
                Some(cio_id),
                vec![format!("identify {:?}: timestamp {timestamp} is older than {last}", update.ident)],
            ));
        }
        for (name, ident) in identifiers {
            let current = self.people.get_mut(&cio_id).and_then(|person| person.identifier(name).map(str::to_owned));
            let wanted = match &ident {
                Ident::Id(text) | Ident::Email(text) | Ident::Phone(text) | Ident::CioId(text) => text.clone(),
            };
            if current.as_deref() == Some(wanted.as_str()) {
                continue;
            }
            let changeable = current.is_none() || name == "phone" || matches!(update.ident, Ident::CioId(_));
            if !changeable {
                dropped.push(format!("attributes.{name}: an identifier changes only for a person named by cio_id"));
            } else if !self.people.assign(&cio_id, &ident) {
                dropped.push(format!("attributes.{name}: somebody else has it"));
            }
        }
        if let Some(person) = self.people.get_mut(&cio_id) {
            let mut changed = person.attributes.clone();
            let mut own = update.attributes.clone();
            for name in ["id", "email", "phone", "_update"] {
                own.shift_remove(name);
            }
            attributes::set(&mut changed, &own);
            if changed.len() > attributes::ATTRIBUTES_MAX {
                let message = format!("a person cannot have more than {} attributes", attributes::ATTRIBUTES_MAX);
                return Err(Refusal::too_long("attributes", message));
            }
            person.attributes = changed;
            person.updated_at = Some(timestamp);
        }
        Ok((Some(cio_id), dropped))
    }

    pub fn delete(&mut self, ident: &Ident) -> Dropped {
        let Some(cio_id) = self.people.find(ident).map(|person| person.cio_id.clone()) else {
            return vec![format!("delete {ident:?}: nobody has the identifier")];
        };
        self.people.remove(&cio_id);
        self.objects.forget_person(&cio_id);
        self.segments.values_mut().for_each(|segment| {
            segment.members.remove(&cio_id);
        });
        Vec::new()
    }

    /// Deletes a person, and keeps the identifiers from coming back.
    pub fn suppress(&mut self, ident: &Ident) -> Dropped {
        if self.suppressed.len() < SUPPRESSED_MAX {
            self.suppressed.extend(self.people.find(ident).map(super::people::Person::identifiers).unwrap_or_default());
            self.suppressed.insert(ident.clone());
        }
        if self.people.find(ident).is_some() { self.delete(ident) } else { Vec::new() }
    }

    pub fn unsuppress(&mut self, ident: &Ident) -> Dropped {
        if self.suppressed.remove(ident) {
            return Vec::new();
        }
        vec![format!("unsuppress {ident:?}: it is not suppressed")]
    }

    pub fn merge(&mut self, primary: &Ident, secondary: &Ident) -> Dropped {
        let find = |ident: &Ident| self.people.find(ident).map(|person| person.cio_id.clone());
        let (Some(stays), Some(goes)) = (find(primary), find(secondary)) else {
            return vec![format!("merge of {secondary:?} into {primary:?}: both must exist")];
        };
        if stays == goes {
            return vec![format!("merge of {secondary:?} into {primary:?}: they are the same person")];
        }
        let Some(gone) = self.people.remove(&goes) else { return Vec::new() };
        if let Some(person) = self.people.get_mut(&stays) {
            for (name, value) in gone.attributes {
                person.attributes.entry(name).or_insert(value);
            }
            person.devices.extend(gone.devices);
        }
        self.objects.hand_over(&goes, &stays);
        for segment in self.segments.values_mut() {
            if segment.members.remove(&goes) {
                segment.members.insert(stays.clone());
            }
        }
        self.events.iter_mut().filter(|event| event.person == goes).for_each(|event| event.person.clone_from(&stays));
        Vec::new()
    }

    /// Keeps an event, once per id; its person is made where there is none.
    pub fn event(&mut self, ident: &Ident, mut event: Event) -> Dropped {
        if self.suppressed.contains(ident) {
            return vec![format!("event {}: {ident:?} is suppressed", event.name)];
        }
        if let Some(id) = &event.id
            && !self.event_ids.insert(id.clone())
        {
            self.events_repeated += 1;
            return vec![format!("event {}: id {id} was received before", event.name)];
        }
        let Some(person) = self.people.find_or_create(ident) else {
            return vec![format!("event {}: nobody has this cio_id", event.name)];
        };
        event.person = person;
        self.events_accepted += 1;
        self.events.push_back(event);
        while self.events.len() > self.events_max {
            let Some(oldest) = self.events.pop_front() else { break };
            if let Some(id) = oldest.id {
                self.event_ids.remove(&id);
            }
        }
        Vec::new()
    }

    pub fn relate(&mut self, key: Option<&Key>, ident: &Ident, changes: &Map<String, Value>) -> Dropped {
        let person = self.people.find(ident).map(|person| person.cio_id.clone());
        match (key, person) {
            (Some(key), Some(person)) => {
                self.objects.relate(key, &person, changes);
                Vec::new()
            }
            (None, _) => vec![format!("relationship of {ident:?}: there is no such object")],
            (_, None) => vec![format!("relationship of {ident:?}: there is no such person")],
        }
    }

    pub fn unrelate(&mut self, key: Option<&Key>, ident: &Ident) -> Dropped {
        let person = self.people.find(ident).map(|person| person.cio_id.clone());
        let removed = key.zip(person).is_some_and(|(key, person)| self.objects.unrelate(key, &person));
        if removed { Vec::new() } else { vec![format!("relationship of {ident:?}: there is none")] }
    }

    // --- what tests and people see ---

    pub fn summary(&self, person: &super::people::Person) -> Value {
        let lists: Vec<String> = self
            .segments
            .iter()
            .filter(|(_, segment)| segment.members.contains(&person.cio_id))
            .map(|(id, _)| id.to_string())
            .collect();
        json!({
            "id": person.cio_id,
            "identifiers": person.to_json(),
            "attributes": person.attributes,
            "lists": lists,
            "devices": person.devices,
            "relationships": self.objects.of_person(&person.cio_id),
        })
    }
}

impl Event {
    pub fn to_json(&self) -> Value {
        json!({
            "profile": self.person,
            "kind": self.kind,
            "name": self.name,
            "id": self.id,
            "timestamp": self.timestamp,
            "attributes": self.attributes,
        })
    }
}
