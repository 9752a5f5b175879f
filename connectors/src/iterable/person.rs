//! Whom an output or a request is about: an email address, a user id, or both; and which of the two the project identifies people by.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a project identifies people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Identity {
    /// By email address. A user id is a field of the profile.
    Email,
    /// By user id. An address is a field of the profile.
    UserId,
    /// By either. Where an output has both, the user id names the person.
    Hybrid,
}

/// A field that identifies a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Field {
    Email,
    UserId,
}

/// The identifiers that are in an object: a user, an event, a subscriber.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Person {
    pub email: Option<String>,
    #[serde(rename = "userId")]
    pub user_id: Option<String>,
}

// === impl Field ===

impl Field {
    pub const ALL: [Self; 2] = [Self::Email, Self::UserId];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::UserId => "userId",
        }
    }

    pub const fn other(self) -> Self {
        match self {
            Self::Email => Self::UserId,
            Self::UserId => Self::Email,
        }
    }

    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.as_str() == name)
    }

    /// The form in which two values are compared. The vendor answers addresses in lower case.
    pub fn normal(self, value: &str) -> String {
        match self {
            Self::Email => value.trim().to_lowercase(),
            Self::UserId => value.trim().to_owned(),
        }
    }
}

// === impl Identity ===

impl Identity {
    /// The field that names a person in a request. A project that identifies people by user id takes no address for it; one that
    /// identifies them by address takes a user id as well, and a hybrid one prefers it.
    pub(super) fn field(self, person: &Person) -> Option<Field> {
        let has = |field: Field| person.get(field).is_some().then_some(field);
        match self {
            Self::Email => has(Field::Email).or_else(|| has(Field::UserId)),
            Self::UserId => has(Field::UserId),
            Self::Hybrid => has(Field::UserId).or_else(|| has(Field::Email)),
        }
    }

    pub(super) const fn describe(self) -> &'static str {
        match self {
            Self::Email => "identifies people by `email`",
            Self::UserId => "identifies people by `userId`",
            Self::Hybrid => "is hybrid",
        }
    }
}

// === impl Person ===

impl Person {
    pub fn get(&self, field: Field) -> Option<&str> {
        match field {
            Field::Email => self.email.as_deref(),
            Field::UserId => self.user_id.as_deref(),
        }
    }

    pub fn put(&mut self, field: Field, value: String) {
        match field {
            Field::Email => self.email = Some(value),
            Field::UserId => self.user_id = Some(value),
        }
    }

    /// The person in an operation's body: beside the other fields, or in `user`.
    pub fn of(body: &str) -> Self {
        #[derive(Deserialize)]
        struct Body {
            email: Option<String>,
            #[serde(rename = "userId")]
            user_id: Option<String>,
            user: Option<Person>,
        }
        let Ok(body) = serde_json::from_str::<Body>(body) else { return Self::default() };
        body.user.unwrap_or(Self { email: body.email, user_id: body.user_id })
    }

    /// The field that the request names the person by, and the value.
    pub fn named(&self) -> Option<(Field, &str)> {
        Field::ALL.into_iter().find_map(|field| self.get(field).map(|value| (field, value)))
    }

    /// The same in the form that is compared.
    pub fn key(&self) -> Option<(Field, String)> {
        self.named().map(|(field, value)| (field, field.normal(value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_names_people_by_the_field_that_it_identifies_them_by() {
        let both = Person { email: Some("a@example.com".into()), user_id: Some("u1".into()) };
        let email = Person { user_id: None, ..both.clone() };
        let user_id = Person { email: None, ..both.clone() };
        let cases = [
            (Identity::Email, &both, Some(Field::Email)),
            (Identity::Email, &user_id, Some(Field::UserId)),
            (Identity::UserId, &both, Some(Field::UserId)),
            (Identity::UserId, &email, None),
            (Identity::Hybrid, &both, Some(Field::UserId)),
            (Identity::Hybrid, &email, Some(Field::Email)),
            (Identity::Hybrid, &Person::default(), None),
        ];
        for (identity, person, expected) in cases {
            assert_eq!(identity.field(person), expected, "{identity:?} {person:?}");
        }
    }

    #[test]
    fn the_person_of_a_body_is_beside_the_fields_or_in_user() {
        assert_eq!(
            Person::of(r#"{"email":"A@b.co","dataFields":{"email":"x"}}"#).key(),
            Some((Field::Email, "a@b.co".into()))
        );
        assert_eq!(Person::of(r#"{"user":{"userId":"U"},"items":[]}"#).key(), Some((Field::UserId, "U".into())));
        assert_eq!(Person::of("[]").key(), None);
    }
}
