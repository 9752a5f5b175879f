//! People: named by id, email, phone or the vendor's own `cio_id`.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value, json};

use super::answer::Refusal;

const IDENTIFIER_BYTES_MAX: usize = 150;

/// What names a person.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Ident {
    Id(String),
    /// In lower case.
    Email(String),
    Phone(String),
    CioId(String),
}

#[derive(Debug, Default)]
pub(super) struct Person {
    pub cio_id: String,
    pub id: Option<String>,
    pub email: Option<String>,
    pub phone: Option<String>,
    pub attributes: Map<String, Value>,
    pub devices: BTreeMap<String, Value>,
    /// Seconds of the newest update that was applied.
    pub updated_at: Option<i64>,
}

#[derive(Debug, Default)]
pub(super) struct People {
    people: BTreeMap<String, Person>,
    index: HashMap<Ident, String>,
    next: u64,
}

// === impl Ident ===

impl Ident {
    /// Exactly one identifier of a person.
    pub fn parse(value: &Value, at: &str) -> Result<Self, Refusal> {
        let Some(object) = value.as_object() else { return Err(Refusal::required(at)) };
        let mut fields = object.iter();
        let (Some((name, value)), None) = (fields.next(), fields.next()) else {
            return Err(Refusal::invalid(at, "exactly one of id, email, phone or cio_id is required"));
        };
        let field = format!("{at}.{name}");
        let Some(text) = value.as_str() else { return Err(Refusal::invalid(field, "identifiers must be strings")) };
        Self::new(name, text, field)
    }

    pub fn new(name: &str, text: &str, field: String) -> Result<Self, Refusal> {
        if text.is_empty() {
            return Err(Refusal::required(field));
        }
        if text.len() > IDENTIFIER_BYTES_MAX {
            let message = format!("identifier cannot be longer than {IDENTIFIER_BYTES_MAX} bytes");
            return Err(Refusal::too_long(field, message));
        }
        match name {
            "id" => Ok(Self::Id(text.to_owned())),
            "email" if is_email(text) => Ok(Self::Email(text.to_lowercase())),
            "email" => Err(Refusal::invalid(field, "email address is not valid")),
            "phone" if is_phone(text) => Ok(Self::Phone(text.to_owned())),
            "phone" => Err(Refusal::invalid(field, "phone must be in E.164 format")),
            "cio_id" => Ok(Self::CioId(text.to_owned())),
            _ => Err(Refusal::invalid(field, "exactly one of id, email, phone or cio_id is required")),
        }
    }
}

fn is_email(text: &str) -> bool {
    text.split_once('@')
        .is_some_and(|(local, domain)| !local.is_empty() && domain.contains('.') && !domain.contains('@'))
        && !text.chars().any(char::is_whitespace)
}

fn is_phone(text: &str) -> bool {
    text.strip_prefix('+').is_some_and(|digits| {
        (7..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0')
    })
}

// === impl People ===

impl People {
    pub fn len(&self) -> usize {
        self.people.len()
    }

    pub fn find(&self, ident: &Ident) -> Option<&Person> {
        let cio_id = match ident {
            Ident::CioId(cio_id) => cio_id,
            other => self.index.get(other)?,
        };
        self.people.get(cio_id)
    }

    pub fn get_mut(&mut self, cio_id: &str) -> Option<&mut Person> {
        self.people.get_mut(cio_id)
    }

    pub fn after(&self, cio_id: &str) -> impl Iterator<Item = &Person> {
        let after = (std::ops::Bound::Excluded(cio_id.to_owned()), std::ops::Bound::Unbounded);
        self.people.range(after).map(|(_, person)| person)
    }

    /// The person that an identifier names, made where there is none; nobody is made by `cio_id`.
    pub fn find_or_create(&mut self, ident: &Ident) -> Option<String> {
        if let Some(person) = self.find(ident) {
            return Some(person.cio_id.clone());
        }
        if matches!(ident, Ident::CioId(_)) {
            return None;
        }
        self.next += 1;
        let cio_id = format!("{:012x}", 0xa300_0000_0000_u64 + self.next);
        self.people.insert(cio_id.clone(), Person { cio_id: cio_id.clone(), ..Person::default() });
        self.assign(&cio_id, ident);
        Some(cio_id)
    }

    /// Gives a person an identifier; false if somebody else has it.
    pub fn assign(&mut self, cio_id: &str, ident: &Ident) -> bool {
        if self.find(ident).is_some_and(|owner| owner.cio_id != cio_id) {
            return false;
        }
        let Some(person) = self.people.get_mut(cio_id) else { return false };
        let old = match ident {
            Ident::Id(text) => person.id.replace(text.clone()).map(Ident::Id),
            Ident::Email(text) => person.email.replace(text.clone()).map(Ident::Email),
            Ident::Phone(text) => person.phone.replace(text.clone()).map(Ident::Phone),
            Ident::CioId(_) => return true,
        };
        if let Some(old) = old {
            self.index.remove(&old);
        }
        self.index.insert(ident.clone(), cio_id.to_owned());
        true
    }

    pub fn remove(&mut self, cio_id: &str) -> Option<Person> {
        let person = self.people.remove(cio_id)?;
        for ident in person.identifiers() {
            self.index.remove(&ident);
        }
        Some(person)
    }
}

// === impl Person ===

impl Person {
    pub fn identifiers(&self) -> Vec<Ident> {
        let of = |text: &Option<String>, kind: fn(String) -> Ident| text.clone().map(kind);
        [of(&self.id, Ident::Id), of(&self.email, Ident::Email), of(&self.phone, Ident::Phone)]
            .into_iter()
            .flatten()
            .collect()
    }

    /// The identifier of a kind.
    pub fn identifier(&self, kind: &str) -> Option<&str> {
        match kind {
            "id" => self.id.as_deref(),
            "email" => self.email.as_deref(),
            "phone" => self.phone.as_deref(),
            _ => None,
        }
    }

    pub fn to_json(&self) -> Value {
        json!({"cio_id": self.cio_id, "id": self.id, "email": self.email, "phone": self.phone})
    }
}
