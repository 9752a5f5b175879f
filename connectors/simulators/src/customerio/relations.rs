//! Objects and the relationships between them and people.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::answer::Refusal;
use super::attributes;

const IDENTIFIER_BYTES_MAX: usize = 150;
const OBJECT_BYTES_MAX: usize = 100_000;

/// An object: its type and its id.
pub(super) type Key = (String, String);

#[derive(Debug, Default)]
pub(super) struct Objects {
    objects: BTreeMap<Key, Map<String, Value>>,
    /// (object, `cio_id` of the person) → attributes of the relationship.
    relationships: BTreeMap<(Key, String), Map<String, Value>>,
}

/// What names an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ObjectIdent {
    Key(Key),
    /// The vendor's own id: here the type and the id with a dash.
    Cio(String),
}

// === impl ObjectIdent ===

impl ObjectIdent {
    pub fn parse(value: &Value, types: &[String], at: &str) -> Result<Self, Refusal> {
        let Some(object) = value.as_object() else { return Err(Refusal::required(at)) };
        let text = |name: &str| -> Result<String, Refusal> {
            let field = format!("{at}.{name}");
            match object.get(name) {
                None | Some(Value::Null) => Err(Refusal::required(field)),
                Some(Value::String(text)) if text.is_empty() => Err(Refusal::required(field)),
                Some(Value::String(text)) if text.len() > IDENTIFIER_BYTES_MAX => {
                    let message = format!("identifier cannot be longer than {IDENTIFIER_BYTES_MAX} bytes");
                    Err(Refusal::too_long(field, message))
                }
                Some(Value::String(text)) => Ok(text.clone()),
                Some(_) => Err(Refusal::invalid(field, "identifiers must be strings")),
            }
        };
        if object.len() == 1 && object.contains_key("cio_object_id") {
            return Ok(Self::Cio(text("cio_object_id")?));
        }
        let (kind, id) = (text("object_type_id")?, text("object_id")?);
        if object.len() != 2 {
            return Err(Refusal::invalid(at, "object_type_id and object_id, or cio_object_id, are required"));
        }
        if !types.contains(&kind) {
            let field = format!("{at}.object_type_id");
            return Err(Refusal::invalid(field, format!("object type {kind} does not exist")));
        }
        Ok(Self::Key((kind, id)))
    }
}

// === impl Objects ===

impl Objects {
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// The object that is named, if it exists.
    pub fn find(&self, ident: &ObjectIdent) -> Option<Key> {
        match ident {
            ObjectIdent::Key(key) => self.objects.contains_key(key).then(|| key.clone()),
            ObjectIdent::Cio(text) => {
                let (kind, id) = text.split_once('-')?;
                let key = (kind.to_owned(), id.to_owned());
                self.objects.contains_key(&key).then_some(key)
            }
        }
    }

    /// Creates or updates an object.
    pub fn set(&mut self, key: &Key, changes: &Map<String, Value>) -> Result<(), Refusal> {
        let mut object = self.objects.get(key).cloned().unwrap_or_default();
        attributes::set(&mut object, changes);
        if Value::Object(object.clone()).to_string().len() > OBJECT_BYTES_MAX {
            return Err(Refusal::too_long("attributes", "object attributes cannot exceed 100kb"));
        }
        if object.len() > attributes::ATTRIBUTES_MAX {
            let message = format!("an object cannot have more than {} attributes", attributes::ATTRIBUTES_MAX);
            return Err(Refusal::too_long("attributes", message));
        }
        self.objects.insert(key.clone(), object);
        Ok(())
    }

    pub fn delete(&mut self, key: &Key) {
        self.objects.remove(key);
        self.relationships.retain(|(object, _), _| object != key);
    }

    pub fn relate(&mut self, key: &Key, person: &str, changes: &Map<String, Value>) {
        let relationship = self.relationships.entry((key.clone(), person.to_owned())).or_default();
        attributes::set(relationship, changes);
    }

    pub fn unrelate(&mut self, key: &Key, person: &str) -> bool {
        self.relationships.remove(&(key.clone(), person.to_owned())).is_some()
    }

    pub fn forget_person(&mut self, person: &str) {
        self.relationships.retain(|(_, related), _| related != person);
    }

    /// A person's relationships go to another one, who keeps what there is.
    pub fn hand_over(&mut self, from: &str, to: &str) {
        let keys: Vec<Key> =
            self.relationships.keys().filter(|(_, person)| person == from).map(|(key, _)| key.clone()).collect();
        for key in keys {
            if let Some(attributes) = self.relationships.remove(&(key.clone(), from.to_owned())) {
                self.relationships.entry((key, to.to_owned())).or_insert(attributes);
            }
        }
    }

    /// The relationships of a person.
    pub fn of_person(&self, person: &str) -> Vec<Value> {
        let own = self.relationships.iter().filter(|((_, related), _)| related == person);
        own.map(
            |(((kind, id), _), attributes)| json!({"object_type_id": kind, "object_id": id, "attributes": attributes}),
        )
        .collect()
    }

    pub fn iter(&self) -> impl Iterator<Item = Value> {
        self.objects.iter().map(|(key, attributes)| {
            let people: Vec<&String> =
                self.relationships.keys().filter(|(object, _)| object == key).map(|(_, person)| person).collect();
            json!({"type": key.0, "id": key.1, "attributes": attributes, "people": people})
        })
    }
}
