//! The type of a field is that of its first value, for as long as the project lives.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::engine::Answer;

use super::answer;

/// Unique fields of the events of one name; the soft limit of the documentation.
const EVENT_FIELDS_MAX: usize = 8_000;
/// Levels below which fields have no types of their own.
const DEPTH_MAX: usize = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Long,
    Double,
    Boolean,
    Date,
    Object,
}

/// Whose fields: people's, or those of the events of one name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Category {
    User,
    Event(String),
    Purchase,
}

#[derive(Debug)]
pub(super) struct Types {
    known: BTreeMap<Category, BTreeMap<String, Kind>>,
    user_fields_max: usize,
}

/// A request's fields on trial: nothing is remembered until all of them fit.
#[derive(Debug)]
pub(super) struct Trial<'a> {
    types: &'a Types,
    added: BTreeMap<Category, BTreeMap<String, Kind>>,
    pub created: Vec<String>,
    pub filtered: Vec<String>,
    mismatches: Vec<Mismatch>,
    too_many: bool,
}

#[derive(Debug)]
struct Mismatch {
    path: String,
    expected: Kind,
    incoming: Kind,
    value: Value,
    category: &'static str,
}

/// What a trial found, without the borrow of the types.
#[derive(Debug)]
pub(super) struct Passed {
    added: BTreeMap<Category, BTreeMap<String, Kind>>,
    pub created: Vec<String>,
    pub filtered: Vec<String>,
}

// === impl Kind ===

impl Kind {
    /// The kind of a value; `None` of null and of an empty list.
    fn of(value: &Value) -> Option<Self> {
        Some(match value {
            Value::Null => return None,
            Value::Bool(_) => Self::Boolean,
            Value::Number(number) if number.is_i64() || number.is_u64() => Self::Long,
            Value::Number(_) => Self::Double,
            Value::String(text) if is_date(text) => Self::Date,
            Value::String(_) => Self::Text,
            Value::Object(_) => Self::Object,
            Value::Array(values) => return values.iter().find_map(Self::of),
        })
    }

    fn takes(self, incoming: Self) -> bool {
        self == incoming || matches!((self, incoming), (Self::Double, Self::Long) | (Self::Text, Self::Date))
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "string",
            Self::Long => "long",
            Self::Double => "double",
            Self::Boolean => "boolean",
            Self::Date => "date",
            Self::Object => "object",
        }
    }

    fn incoming(self) -> &'static [&'static str] {
        match self {
            Self::Text => &["string", "keyword"],
            Self::Long => &["long"],
            Self::Double => &["double"],
            Self::Boolean => &["boolean"],
            Self::Date => &["date"],
            Self::Object => &["object"],
        }
    }
}

/// `yyyy-MM-dd HH:mm:ss +00:00`, and no other notation.
fn is_date(text: &str) -> bool {
    text.len() == 26 && jiff::Timestamp::strptime("%Y-%m-%d %H:%M:%S %:z", text).is_ok()
}

// === impl Category ===

impl Category {
    fn name(&self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Event(_) => "customEvent",
            Self::Purchase => "purchase",
        }
    }
}

// === impl Types ===

impl Types {
    /// With the fields that every project has.
    pub fn new(user_fields_max: usize) -> Self {
        let built_in = [
            ("email", Kind::Text),
            ("userId", Kind::Text),
            ("firstName", Kind::Text),
            ("lastName", Kind::Text),
            ("phoneNumber", Kind::Text),
            ("signupDate", Kind::Date),
            ("signupSource", Kind::Text),
            ("profileUpdatedAt", Kind::Date),
            ("timeZone", Kind::Text),
            ("locale", Kind::Text),
            ("shoppingCartItems", Kind::Object),
        ];
        let user = built_in.into_iter().map(|(name, kind)| (name.to_owned(), kind)).collect();
        Self { known: BTreeMap::from([(Category::User, user)]), user_fields_max }
    }

    pub fn trial(&self) -> Trial<'_> {
        Trial {
            types: self,
            added: BTreeMap::new(),
            created: Vec::new(),
            filtered: Vec::new(),
            mismatches: Vec::new(),
            too_many: false,
        }
    }

    /// Remembers what a trial added.
    pub fn keep(&mut self, passed: &Passed) {
        for (category, fields) in &passed.added {
            let known = self.known.entry(category.clone()).or_default();
            known.extend(fields.iter().map(|(path, kind)| (path.clone(), *kind)));
        }
    }

    pub fn user_fields(&self) -> Map<String, Value> {
        let fields = self.known.get(&Category::User).into_iter().flatten();
        fields.map(|(path, kind)| (path.clone(), json!(kind.name()))).collect()
    }

    fn count(&self, category: &Category) -> usize {
        self.known.get(category).map_or(0, BTreeMap::len)
    }
}

// === impl Trial ===

impl Trial<'_> {
    /// Checks the fields of one element, and takes out those that are dropped.
    pub fn fields(&mut self, category: &Category, fields: &mut Map<String, Value>, create: bool) {
        self.object(category, "", fields, create, 0);
    }

    fn object(
        &mut self,
        category: &Category,
        prefix: &str,
        fields: &mut Map<String, Value>,
        create: bool,
        depth: usize,
    ) {
        let mut filtered = Vec::new();
        for (name, value) in fields.iter_mut() {
            let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            let Some(incoming) = Kind::of(value) else { continue };
            match self.kind(category, &path) {
                Some(expected) => self.compare(category, &path, expected, value),
                None if create => self.add(category, &path, incoming, value),
                None => {
                    if !self.filtered.contains(&path) {
                        self.filtered.push(path);
                    }
                    filtered.push(name.clone());
                    continue;
                }
            }
            if depth >= DEPTH_MAX {
                continue;
            }
            match value {
                Value::Object(inner) => self.object(category, &path, inner, create, depth + 1),
                Value::Array(elements) => {
                    for element in elements {
                        if let Value::Object(inner) = element {
                            self.object(category, &path, inner, create, depth + 1);
                        }
                    }
                }
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            }
        }
        for name in filtered {
            fields.shift_remove(&name);
        }
    }

    fn kind(&self, category: &Category, path: &str) -> Option<Kind> {
        let known = self.types.known.get(category).and_then(|fields| fields.get(path));
        known.or_else(|| self.added.get(category)?.get(path)).copied()
    }

    fn add(&mut self, category: &Category, path: &str, incoming: Kind, value: &Value) {
        let added = self.added.entry(category.clone()).or_default();
        added.insert(path.to_owned(), incoming);
        let max = if *category == Category::User { self.types.user_fields_max } else { EVENT_FIELDS_MAX };
        self.too_many |= self.types.count(category) + added.len() > max;
        self.created.push(path.to_owned());
        self.compare(category, path, incoming, value);
    }

    fn compare(&mut self, category: &Category, path: &str, expected: Kind, value: &Value) {
        let values = match value {
            Value::Array(values) => values.as_slice(),
            other => std::slice::from_ref(other),
        };
        let wrong = values.iter().find_map(|value| {
            let incoming = Kind::of(value)?;
            (!expected.takes(incoming)).then_some((incoming, value))
        });
        if let Some((incoming, value)) = wrong {
            let category = category.name();
            let (path, value) = (path.to_owned(), value.clone());
            self.mismatches.push(Mismatch { path, expected, incoming, value, category });
        }
    }

    /// What was found, if everything fits.
    ///
    /// # Errors
    /// The vendor's refusal of the whole request.
    pub fn finish(self, project: u32) -> Result<Passed, Answer> {
        if let Some(first) = self.mismatches.first() {
            let message = format!(
                "Project {project}: The request does not have the same data types as the data previously submitted. \
                 Field '{}' already exists for type '{}' and has a data type of '{}' but possible types '{}' in the request.",
                first.path,
                first.category,
                first.expected.name(),
                first.incoming.incoming().join(", "),
            );
            let errors: Map<String, Value> = self
                .mismatches
                .iter()
                .map(|mismatch| {
                    let detail = json!({
                        "incomingTypes": mismatch.incoming.incoming(),
                        "expectedType": mismatch.expected.name(),
                        "_type": "UnexpectedType",
                        "offendingValue": mismatch.value,
                        "category": mismatch.category,
                    });
                    (format!("project_{project}:::{}", mismatch.path), detail)
                })
                .collect();
            let params = json!({ "validationErrors": errors });
            return Err(answer::error(400, "RequestFieldsTypesMismatched", message, params));
        }
        if self.too_many {
            let message = format!("Project {project}: the limit of unique fields is exceeded");
            return Err(answer::error(400, "UniqueFieldsLimitExceeded", message, Value::Null));
        }
        Ok(Passed { added: self.added, created: self.created, filtered: self.filtered })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(types: &mut Types, fields: Value, create: bool) -> Result<(Value, Vec<String>), Answer> {
        let Value::Object(mut fields) = fields else { panic!() };
        let mut trial = types.trial();
        trial.fields(&Category::User, &mut fields, create);
        let passed = trial.finish(1)?;
        types.keep(&passed);
        Ok((Value::Object(fields), passed.filtered))
    }

    #[test]
    fn the_first_value_fixes_the_type() {
        let mut types = Types::new(1_000);
        offered(&mut types, json!({"score": 0.5, "count": 1, "tags": ["a"], "at": "2026-01-02 03:04:05 +00:00"}), true)
            .unwrap();
        offered(&mut types, json!({"score": 1, "tags": [], "count": null}), true).unwrap();
        for wrong in [
            json!({"score": "0.5"}),
            json!({"count": 1.5}),
            json!({"tags": ["a", 1]}),
            json!({"at": "2026-01-02T03:04:05Z"}),
            json!({"count": {"a": 1}}),
        ] {
            assert_eq!(offered(&mut types, wrong.clone(), true).unwrap_err().status, 400, "{wrong}");
        }
    }

    #[test]
    fn unknown_fields_are_created_or_dropped() {
        let mut types = Types::new(1_000);
        let (kept, filtered) =
            offered(&mut types, json!({"firstName": "A", "plan": "x", "address": {"city": "B"}}), false).unwrap();
        assert_eq!((kept, filtered), (json!({"firstName": "A"}), vec!["plan".to_owned(), "address".to_owned()]));
        offered(&mut types, json!({"address": {"city": "B"}}), true).unwrap();
        let (kept, filtered) = offered(&mut types, json!({"address": {"city": "B", "zip": "1"}}), false).unwrap();
        assert_eq!((kept, filtered), (json!({"address": {"city": "B"}}), vec!["address.zip".to_owned()]));
    }

    #[test]
    fn two_elements_of_one_request_must_agree() {
        let types = Types::new(1_000);
        let mut trial = types.trial();
        for value in [json!({"a": 1}), json!({"a": "1"})] {
            let Value::Object(mut fields) = value else { panic!() };
            trial.fields(&Category::User, &mut fields, true);
        }
        assert!(trial.finish(1).is_err());
    }

    #[test]
    fn there_is_a_limit_of_unique_fields() {
        let mut types = Types::new(12);
        offered(&mut types, json!({"a": 1}), true).unwrap();
        assert_eq!(offered(&mut types, json!({"b": 1}), true).unwrap_err().status, 400);
    }
}
