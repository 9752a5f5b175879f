//! Whom an output names. Every identifier in it must be the profile's own, of the type that the configuration gives the field; what is
//! sent is the profile's spelling of it.

use serde_json::{Map, Value};
use tailwater_core::code;

use super::Author;
use super::take::{invalid, join, object, refuse_rest, wrong_type};
use crate::customerio::limits::check_id;
use crate::destination::ClassifyError;

/// A field of the vendor's that identifies a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::customerio) enum Field {
    Id,
    Email,
    Phone,
    CioId,
    /// A browser or a device. Names nobody by itself.
    AnonymousId,
}

/// A person as an item names one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Person {
    pub field: Field,
    pub value: String,
}

// === impl Field ===

impl Field {
    pub const ALL: [Self; 5] = [Self::Id, Self::Email, Self::Phone, Self::CioId, Self::AnonymousId];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Email => "email",
            Self::Phone => "phone",
            Self::CioId => "cio_id",
            Self::AnonymousId => "anonymous_id",
        }
    }

    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.as_str() == name)
    }

    /// The form in which two values are compared: addresses without case, numbers without what people put between digits.
    pub fn normal(self, value: &str) -> String {
        let value = value.trim();
        match self {
            Self::Email => value.to_lowercase(),
            Self::Phone => {
                value.chars().filter(|char| !matches!(char, ' ' | '-' | '.' | '(' | ')' | '/' | '\u{a0}')).collect()
            }
            Self::Id | Self::CioId | Self::AnonymousId => value.to_owned(),
        }
    }

    /// Whether the vendor knows a person by it.
    pub const fn names_somebody(self) -> bool {
        match self {
            Self::Id | Self::Email | Self::Phone | Self::CioId => true,
            Self::AnonymousId => false,
        }
    }
}

// === impl Person ===

impl Person {
    /// `{"id": "42"}`.
    pub fn to_json(&self) -> Value {
        let mut identifiers = Map::new();
        identifiers.insert(self.field.as_str().to_owned(), Value::from(self.value.as_str()));
        Value::Object(identifiers)
    }
}

// === impl Author ===

impl Author<'_> {
    /// Checks an identifier; null and blank are left out, whatever `nulls` says, since they would clear the vendor's.
    pub(super) fn identifier(&self, field: Field, value: &Value, at: &str) -> Result<Option<String>, ClassifyError> {
        let text = match value {
            Value::Null => return Ok(None),
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            other => return Err(wrong_type(at, "a text", other)),
        };
        if text.trim().is_empty() {
            return Ok(None);
        }
        let Some(kind) = self.rules.identifiers.get(field.as_str()) else {
            let message = format!(
                "{at}: the destination does not say which identifier type `{field}` holds, so it cannot be checked against the profile; add \
                 `identifiers: {{{field}: <type>}}` to the destination or leave it out",
                field = field.as_str()
            );
            return Err(ClassifyError { code: code::FOREIGN_IDENTIFIER, message });
        };
        let wanted = field.normal(&text);
        let own = self.input.identifiers.iter().filter(|(own, _)| own == kind).map(|(_, value)| *value);
        let Some(own) = own.into_iter().find(|own| field.normal(own) == wanted) else {
            let message = format!(
                "{at}: the value is no identifier of the type `{kind}` of this profile; use the row's own column, which shows the profile's \
                 value, and never a copy from elsewhere"
            );
            return Err(ClassifyError { code: code::FOREIGN_IDENTIFIER, message });
        };
        let own = own.trim();
        check_id(own, at)?;
        Ok(Some(own.to_owned()))
    }

    /// `identifiers` of a person: the vendor takes exactly one.
    pub(super) fn person(&self, value: Option<Value>, at: &str) -> Result<Person, ClassifyError> {
        let example = format!("`{{{}: …}}`", self.rules.key.as_str());
        let Some(value) = value else {
            return Err(invalid(at, &format!("are missing; expected {example}")));
        };
        let mut named: Vec<Person> = Vec::new();
        let mut rest = Map::new();
        for (name, value) in object(value, at, &example)? {
            match Field::find(&name).filter(|field| field.names_somebody()) {
                Some(field) => {
                    if let Some(value) = self.identifier(field, &value, &join(at, &name))? {
                        named.push(Person { field, value });
                    }
                }
                None => {
                    rest.insert(name, value);
                }
            }
        }
        if let Some(name) = rest.keys().find(|name| *name == Field::AnonymousId.as_str()) {
            return Err(invalid(
                &join(at, name),
                "names a browser, not a person; give one of id, email, phone, cio_id",
            ));
        }
        refuse_rest(&rest, at, &["id", "email", "phone", "cio_id"])?;
        let count = named.len();
        match named.pop() {
            Some(person) if count == 1 => Ok(person),
            Some(_) => {
                let message = format!(
                    "name {count} identifiers; the vendor takes exactly one. Keep {example} and put the others under `attributes`"
                );
                Err(invalid(at, &message))
            }
            None => Err(invalid(at, &format!("name nobody; expected {example} with a value"))),
        }
    }
}
