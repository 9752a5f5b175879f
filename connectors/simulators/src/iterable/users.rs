//! People: found by email, in any case, and by user id.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Map, Value, json};

use crate::engine::clock;

/// The longest user id and the longest email.
const USER_ID_BYTES_MAX: usize = 128;
const EMAIL_BYTES_MAX: usize = 255;

/// What names a person.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Ident {
    /// In lower case.
    Email(String),
    UserId(String),
}

#[derive(Debug, Default)]
pub(super) struct User {
    pub email: Option<String>,
    pub user_id: Option<String>,
    pub fields: Map<String, Value>,
    pub lists: BTreeSet<i64>,
    pub created_us: i64,
    pub updated_us: i64,
}

#[derive(Debug, Default)]
pub(super) struct Users {
    users: BTreeMap<u64, User>,
    index: HashMap<Ident, u64>,
    next: u64,
}

// === impl Ident ===

impl Ident {
    pub fn text(&self) -> &str {
        match self {
            Self::Email(text) | Self::UserId(text) => text,
        }
    }
}

pub(super) fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else { return false };
    !local.is_empty()
        && text.len() <= EMAIL_BYTES_MAX
        && !domain.contains('@')
        && domain.split('.').count() >= 2
        && domain.split('.').all(|label| !label.is_empty())
        && !text.chars().any(|letter| letter.is_whitespace() || letter.is_control())
}

pub(super) fn is_user_id(text: &str) -> bool {
    (1..=USER_ID_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        && !text.ends_with(' ')
}

// === impl Users ===

impl Users {
    pub fn len(&self) -> usize {
        self.users.len()
    }

    pub fn find(&self, ident: &Ident) -> Option<u64> {
        self.index.get(ident).copied()
    }

    pub fn get(&self, id: u64) -> Option<&User> {
        self.users.get(&id)
    }

    pub fn get_mut(&mut self, id: u64) -> Option<&mut User> {
        self.users.get_mut(&id)
    }

    pub fn iter(&self) -> impl Iterator<Item = (u64, &User)> {
        self.users.iter().map(|(id, user)| (*id, user))
    }

    pub fn after(&self, id: u64) -> impl Iterator<Item = (u64, &User)> {
        self.users.range(id + 1..).map(|(id, user)| (*id, user))
    }

    /// The person that an identifier names, made where there is none.
    pub fn find_or_create(&mut self, ident: &Ident, now_us: i64) -> u64 {
        if let Some(id) = self.find(ident) {
            return id;
        }
        self.next += 1;
        let id = self.next;
        self.users.insert(id, User { created_us: now_us, updated_us: now_us, ..User::default() });
        self.identify(id, ident);
        id
    }

    /// Gives a person an identifier in place of the one of that kind; false if somebody else has it.
    pub fn identify(&mut self, id: u64, ident: &Ident) -> bool {
        if self.find(ident).is_some_and(|owner| owner != id) {
            return false;
        }
        let Some(user) = self.users.get_mut(&id) else { return false };
        let text = ident.text().to_owned();
        let old = match ident {
            Ident::Email(_) => user.email.replace(text).map(Ident::Email),
            Ident::UserId(_) => user.user_id.replace(text).map(Ident::UserId),
        };
        if let Some(old) = old {
            self.index.remove(&old);
        }
        self.index.insert(ident.clone(), id);
        true
    }

    pub fn remove(&mut self, id: u64) -> Option<User> {
        let user = self.users.remove(&id)?;
        self.index.retain(|_, owner| *owner != id);
        Some(user)
    }
}

// === impl User ===

impl User {
    /// As `GET /api/users/{email}` shows a person.
    pub fn to_json(&self) -> Value {
        let mut fields = self.fields.clone();
        for (name, value) in [("email", &self.email), ("userId", &self.user_id)] {
            if let Some(value) = value {
                fields.insert(name.to_owned(), json!(value));
            }
        }
        fields.insert("emailListIds".to_owned(), json!(self.lists));
        fields.insert("signupDate".to_owned(), json!(date(self.created_us)));
        fields.insert("profileUpdatedAt".to_owned(), json!(date(self.updated_us)));
        let mut user = Map::new();
        user.insert("email".to_owned(), json!(self.email.clone().unwrap_or_default()));
        if let Some(user_id) = &self.user_id {
            user.insert("userId".to_owned(), json!(user_id));
        }
        user.insert("dataFields".to_owned(), Value::Object(fields));
        Value::Object(user)
    }

    /// Sets fields; objects at the top are merged or replaced.
    pub fn set(&mut self, fields: Map<String, Value>, merge: bool, now_us: i64) {
        self.updated_us = now_us;
        for (name, value) in fields {
            match (self.fields.get_mut(&name), value) {
                (_, Value::Null) => {
                    self.fields.shift_remove(&name);
                }
                (Some(Value::Object(old)), Value::Object(new)) if merge => old.extend(new),
                (_, value) => {
                    self.fields.insert(name, value);
                }
            }
        }
    }
}

/// The vendor's notation of a time.
pub(super) fn date(us: i64) -> String {
    clock::format(us, "%Y-%m-%d %H:%M:%S +00:00")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_checked_as_documented() {
        assert!(is_email("ann@example.com"));
        for bad in ["000", "a@b", "@example.com", "a@@b.co", "a b@c.co", "a@b..co"] {
            assert!(!is_email(bad), "{bad}");
        }
        assert!(is_user_id("user 7"));
        let long = "x".repeat(129);
        for bad in ["", "x ", "ü", "a\tb", long.as_str()] {
            assert!(!is_user_id(bad), "{bad}");
        }
    }

    #[test]
    fn objects_at_the_top_are_replaced_unless_they_are_merged() {
        let set = |merge: bool| {
            let mut user = User::default();
            for value in [json!({"s": {"mobile": true}, "a": 1}), json!({"s": {"email": true}})] {
                let Value::Object(fields) = value else { panic!() };
                user.set(fields, merge, 0);
            }
            Value::Object(user.fields)
        };
        assert_eq!(set(false), json!({"s": {"email": true}, "a": 1}));
        assert_eq!(set(true), json!({"s": {"mobile": true, "email": true}, "a": 1}));
    }

    #[test]
    fn an_identifier_belongs_to_one_person() {
        let mut users = Users::default();
        let (a, b) = (Ident::Email("a@x.co".into()), Ident::Email("b@x.co".into()));
        let (first, second) = (users.find_or_create(&a, 0), users.find_or_create(&b, 0));
        assert!(!users.identify(second, &a));
        assert!(users.identify(first, &Ident::Email("c@x.co".into())));
        assert_eq!((users.find(&a), users.identify(second, &a)), (None, true));
    }
}
