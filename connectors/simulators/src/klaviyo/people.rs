//! The people of the account: profiles and the identifiers by which they are found.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value, json};

use crate::engine::clock::stamp;

use super::answer::Problem;
use super::change::{Change, IDENTIFIERS};

/// Profiles that the simulator keeps.
pub(super) const PROFILES_MAX: usize = 1_000_000;

/// A person at the vendor's.
#[derive(Debug, Clone)]
pub(super) struct Profile {
    pub id: String,
    fields: BTreeMap<String, String>,
    location: Map<String, Value>,
    properties: Map<String, Value>,
    created_us: i64,
    updated_us: i64,
    last_event_us: Option<i64>,
}

#[derive(Debug, Default)]
pub(super) struct People {
    profiles: BTreeMap<String, Profile>,
    /// (identifier field, value) → profile id
    index: HashMap<(&'static str, String), String>,
    counter: u128,
}

/// What an upsert did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Upserted {
    Created(String),
    Updated(String),
}

/// Why an upsert was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    UnknownId(String),
    /// The identifiers belong to several people; the one that stands in the way.
    Duplicate(String),
    Full,
}

// === impl People ===

impl People {
    pub fn len(&self) -> usize {
        self.profiles.len()
    }

    pub fn get(&self, id: &str) -> Option<&Profile> {
        self.profiles.get(id)
    }

    /// Profiles by id after `cursor`, oldest first.
    pub fn after<'a>(&'a self, cursor: &str) -> impl Iterator<Item = &'a Profile> {
        let from = (std::ops::Bound::Excluded(cursor.to_owned()), std::ops::Bound::Unbounded);
        self.profiles.range(from).map(|(_, profile)| profile)
    }

    /// The profile of an identifier, `id` included.
    pub fn find(&self, field: &str, value: &str) -> Option<&Profile> {
        if field == "id" {
            return self.profiles.get(value);
        }
        let name = IDENTIFIERS.into_iter().find(|name| *name == field)?;
        let value = if name == "email" { value.to_lowercase() } else { value.to_owned() };
        self.index.get(&(name, value)).and_then(|id| self.profiles.get(id))
    }

    /// Creates or updates the one person whom the identifiers name.
    pub fn upsert(&mut self, change: &Change, now_us: i64) -> Result<Upserted, Refusal> {
        let mut ids: Vec<String> = Vec::new();
        if let Some(id) = &change.id {
            if !self.profiles.contains_key(id) {
                return Err(Refusal::UnknownId(id.clone()));
            }
            ids.push(id.clone());
        }
        for name in IDENTIFIERS {
            let owner =
                change.identifier(name).and_then(|value| self.find(name, value)).map(|profile| profile.id.clone());
            ids.extend(owner.filter(|owner| !ids.contains(owner)));
        }
        match ids.as_slice() {
            [] => self.create(change, now_us).map(Upserted::Created),
            [id] => {
                self.apply(id, change, now_us);
                Ok(Upserted::Updated(id.clone()))
            }
            [_, other, ..] => Err(Refusal::Duplicate(other.clone())),
        }
    }

    /// Creates a person; an identifier that is known already is in the way.
    pub fn create_new(&mut self, change: &Change, now_us: i64) -> Result<String, Refusal> {
        for name in IDENTIFIERS {
            if let Some(owner) = change.identifier(name).and_then(|value| self.find(name, value)) {
                return Err(Refusal::Duplicate(owner.id.clone()));
            }
        }
        self.create(change, now_us)
    }

    /// Updates a known person; an identifier of somebody else is in the way.
    pub fn update(&mut self, id: &str, change: &Change, now_us: i64) -> Result<(), Refusal> {
        if !self.profiles.contains_key(id) {
            return Err(Refusal::UnknownId(id.to_owned()));
        }
        for name in IDENTIFIERS {
            let owner = change.identifier(name).and_then(|value| self.find(name, value));
            if let Some(other) = owner.filter(|owner| owner.id != id) {
                return Err(Refusal::Duplicate(other.id.clone()));
            }
        }
        self.apply(id, change, now_us);
        Ok(())
    }

    /// The person of an event: the first identifier that is known decides, nothing is refused but a full account.
    pub fn of_event(&mut self, change: &Change, now_us: i64) -> Result<String, Refusal> {
        let known = change
            .id
            .as_deref()
            .and_then(|id| self.profiles.get(id))
            .or_else(|| IDENTIFIERS.into_iter().find_map(|name| self.find(name, change.identifier(name)?)))
            .map(|profile| profile.id.clone());
        let id = match known {
            Some(id) => {
                let mut change = change.clone();
                change.fields.retain(|(name, value)| {
                    let owner = value.as_deref().and_then(|value| self.find(name, value));
                    owner.is_none_or(|owner| owner.id == id)
                });
                self.apply(&id, &change, now_us);
                id
            }
            None => self.create(change, now_us)?,
        };
        if let Some(profile) = self.profiles.get_mut(&id) {
            profile.last_event_us = Some(now_us);
        }
        Ok(id)
    }

    fn create(&mut self, change: &Change, now_us: i64) -> Result<String, Refusal> {
        if self.profiles.len() >= PROFILES_MAX {
            return Err(Refusal::Full);
        }
        self.counter += 1;
        let id = ulid(now_us / 1000, self.counter);
        let profile = Profile {
            id: id.clone(),
            fields: BTreeMap::new(),
            location: Map::new(),
            properties: Map::new(),
            created_us: now_us,
            updated_us: now_us,
            last_event_us: None,
        };
        self.profiles.insert(id.clone(), profile);
        self.apply(&id, change, now_us);
        Ok(id)
    }

    fn apply(&mut self, id: &str, change: &Change, now_us: i64) {
        let Some(profile) = self.profiles.get_mut(id) else { return };
        for (name, value) in &change.fields {
            let before = match value {
                Some(value) => profile.fields.insert(name.clone(), value.clone()),
                None => profile.fields.remove(name),
            };
            let Some(kind) = IDENTIFIERS.into_iter().find(|kind| kind == name) else { continue };
            if let Some(before) = before {
                self.index.remove(&(kind, before));
            }
            if let Some(value) = value {
                self.index.insert((kind, value.clone()), id.to_owned());
            }
        }
        profile.apply(change);
        profile.updated_us = now_us;
    }
}

impl Refusal {
    /// The answer to a single request.
    pub fn to_problem(&self, pointer: &str) -> Problem {
        match self {
            Self::UnknownId(id) => Problem::not_found(format!("A profile with id {id} does not exist.")),
            Self::Duplicate(id) => Problem::duplicate_profile(id, pointer),
            Self::Full => Problem::new(
                503,
                "simulator_full",
                "The simulator is full.",
                format!("The simulator keeps at most {PROFILES_MAX} profiles; reset it."),
                pointer,
            ),
        }
    }
}

// === impl Profile ===

impl Profile {
    fn apply(&mut self, change: &Change) {
        if change.clear_location {
            self.location.clear();
        }
        merge(&mut self.location, change.location.as_ref());
        if change.clear_properties {
            self.properties.clear();
        }
        merge(&mut self.properties, change.properties.as_ref());
        for (name, value) in &change.append {
            let list = self.properties.entry(name.clone()).or_insert_with(|| Value::Array(Vec::new()));
            if !list.is_array() {
                *list = Value::Array(vec![list.take()]);
            }
            if let Value::Array(items) = list {
                match value {
                    Value::Array(values) => items.extend(values.iter().cloned()),
                    value => items.push(value.clone()),
                }
            }
        }
        for (name, value) in &change.unappend {
            if let Some(Value::Array(items)) = self.properties.get_mut(name) {
                items.retain(|item| match value {
                    Value::Array(values) => !values.contains(item),
                    value => item != value,
                });
            }
        }
        for name in &change.unset {
            self.properties.remove(name);
        }
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }

    /// The resource as the vendor shows it; `base` is the address of the service.
    pub fn to_json(&self, base: &str) -> Value {
        let links = |name: &str| {
            json!({"links": {
                "self": format!("{base}/api/profiles/{}/relationships/{name}/", self.id),
                "related": format!("{base}/api/profiles/{}/{name}/", self.id),
            }})
        };
        json!({
            "type": "profile",
            "id": self.id,
            "attributes": self.attributes(),
            "relationships": {
                "lists": links("lists"),
                "segments": links("segments"),
                "push-tokens": links("push-tokens"),
                "conversation": links("conversation"),
            },
            "links": {"self": format!("{base}/api/profiles/{}/", self.id)},
        })
    }

    pub fn attributes(&self) -> Value {
        let mut attributes = Map::new();
        for name in [
            "email",
            "phone_number",
            "external_id",
            "anonymous_id",
            "first_name",
            "last_name",
            "organization",
            "locale",
            "title",
            "image",
        ] {
            attributes
                .insert(name.to_owned(), self.field(name).map_or(Value::Null, |value| Value::String(value.to_owned())));
        }
        attributes.insert("created".into(), Value::String(stamp(self.created_us)));
        attributes.insert("updated".into(), Value::String(stamp(self.updated_us)));
        attributes
            .insert("last_event_date".into(), self.last_event_us.map_or(Value::Null, |us| Value::String(stamp(us))));
        let mut location = Map::new();
        for name in
            ["address1", "address2", "city", "country", "latitude", "longitude", "region", "zip", "timezone", "ip"]
        {
            location.insert(name.to_owned(), self.location.get(name).cloned().unwrap_or(Value::Null));
        }
        attributes.insert("location".into(), Value::Object(location));
        attributes.insert("properties".into(), Value::Object(self.properties.clone()));
        Value::Object(attributes)
    }
}

/// Lays `changes` over `target`; null removes.
fn merge(target: &mut Map<String, Value>, changes: Option<&Map<String, Value>>) {
    for (name, value) in changes.into_iter().flatten() {
        if value.is_null() {
            target.remove(name);
        } else {
            target.insert(name.clone(), value.clone());
        }
    }
}

/// An id of the vendor's form: 26 characters in Crockford's base 32, in the order of creation.
fn ulid(ms: i64, counter: u128) -> String {
    const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let number = (u128::from(ms.unsigned_abs()) << 80) | (counter & ((1 << 80) - 1));
    (0..26).rev().map(|place| char::from(ALPHABET[((number >> (place * 5)) & 31) as usize])).collect()
}

#[cfg(test)]
mod tests {
    use super::super::change::{self, Form};
    use super::*;

    fn change(attributes: Value) -> Change {
        change::parse(&json!({"type": "profile", "attributes": attributes}), "/data", Form::Import).unwrap()
    }

    #[test]
    fn an_upsert_creates_once_and_then_updates() {
        let mut people = People::default();
        let Ok(Upserted::Created(id)) = people.upsert(&change(json!({"email": "a@b.co", "title": "Dr"})), 1_000) else {
            panic!()
        };
        let again = people.upsert(&change(json!({"email": "A@B.CO", "external_id": "7"})), 2_000);
        assert_eq!(again, Ok(Upserted::Updated(id.clone())));
        assert_eq!(people.find("external_id", "7").map(|profile| profile.id.clone()), Some(id));
        assert_eq!(people.len(), 1);
    }

    #[test]
    fn null_clears_a_field_and_absence_leaves_it() {
        let mut people = People::default();
        people.upsert(&change(json!({"email": "a@b.co", "title": "Dr", "properties": {"x": 1, "y": 2}})), 0).unwrap();
        people
            .upsert(&change(json!({"email": "a@b.co", "title": null, "properties": {"x": null, "z": 3}})), 0)
            .unwrap();
        let attributes = people.find("email", "a@b.co").unwrap().attributes();
        assert_eq!(attributes["title"], Value::Null);
        assert_eq!(attributes["properties"], json!({"y": 2, "z": 3}));
    }

    #[test]
    fn identifiers_of_two_people_are_a_conflict() {
        let mut people = People::default();
        people.upsert(&change(json!({"email": "a@b.co"})), 0).unwrap();
        people.upsert(&change(json!({"external_id": "7"})), 0).unwrap();
        let other = people.find("external_id", "7").unwrap().id.clone();
        assert_eq!(
            people.upsert(&change(json!({"email": "a@b.co", "external_id": "7"})), 0),
            Err(Refusal::Duplicate(other))
        );
    }

    #[test]
    fn an_identifier_that_was_replaced_finds_nobody() {
        let mut people = People::default();
        people.upsert(&change(json!({"email": "old@b.co", "external_id": "7"})), 0).unwrap();
        people.upsert(&change(json!({"email": "new@b.co", "external_id": "7"})), 0).unwrap();
        assert!(people.find("email", "old@b.co").is_none());
        assert!(people.find("email", "new@b.co").is_some());
    }

    #[test]
    fn ids_are_in_the_order_of_creation() {
        assert_eq!(ulid(1_788_529_177_131, 1).len(), 26);
        assert!(ulid(1_788_529_177_131, 1) < ulid(1_788_529_177_131, 2));
        assert!(ulid(1_788_529_177_131, 9) < ulid(1_788_529_177_132, 1));
    }
}
