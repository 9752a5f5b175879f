//! What a request wants of one profile: parsed and checked before anything is touched, because a bulk request is all or nothing.

use serde_json::{Map, Value};

use super::answer::Problem;

/// Fields that identify a person.
pub(super) const IDENTIFIERS: [&str; 3] = ["email", "phone_number", "external_id"];

const TEXT_FIELDS: [&str; 6] = ["first_name", "last_name", "organization", "locale", "title", "image"];
const LOCATION_FIELDS: [&str; 10] =
    ["address1", "address2", "city", "country", "latitude", "longitude", "region", "zip", "timezone", "ip"];

/// Characters of an `external_id`.
const EXTERNAL_ID_CHARS_MAX: usize = 255;

/// Which request the profile stands in: they differ in what they accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Create,
    Update,
    /// `profile-import`.
    Import,
    /// In a bulk import job, which ignores nulls: nothing is cleared there but by `meta.patch_properties.unset`.
    Job,
    /// Inside of an event.
    Event,
}

/// A checked change of a profile. A field that is not in it stays as it is; `None` clears it, except in a job.
#[derive(Debug, Clone, Default)]
pub(super) struct Change {
    pub id: Option<String>,
    pub fields: Vec<(String, Option<String>)>,
    pub location: Option<Map<String, Value>>,
    pub clear_location: bool,
    pub properties: Option<Map<String, Value>>,
    pub clear_properties: bool,
    pub append: Map<String, Value>,
    pub unappend: Map<String, Value>,
    pub unset: Vec<String>,
    /// An identifier that was left out because it is not valid, while another one is.
    pub partial_failure: Option<&'static str>,
}

/// Reads a profile object (`{"type": "profile", "id": …, "attributes": …, "meta": …}`) that stands at `pointer`.
pub(super) fn parse(data: &Value, pointer: &str, form: Form) -> Result<Change, Vec<Problem>> {
    let mut reader = Reader { pointer, form, problems: Vec::new(), change: Change::default() };
    reader.profile(data);
    if reader.problems.is_empty() { Ok(reader.change) } else { Err(reader.problems) }
}

impl Change {
    pub fn identifier(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).and_then(|(_, value)| value.as_deref())
    }
}

struct Reader<'a> {
    pointer: &'a str,
    form: Form,
    problems: Vec<Problem>,
    change: Change,
}

impl Reader<'_> {
    fn invalid(&mut self, detail: impl Into<String>, path: &str) {
        self.problems.push(Problem::invalid(detail, format!("{}{path}", self.pointer)));
    }

    fn profile(&mut self, data: &Value) {
        let Some(data) = data.as_object() else {
            return self.invalid("A profile must be an object.", "");
        };
        if data.get("type").and_then(Value::as_str) != Some("profile") {
            self.invalid("The type must be 'profile'.", "/type");
        }
        match data.get("id") {
            None | Some(Value::Null) => {}
            Some(Value::String(_)) if self.form == Form::Create => self.invalid("'id' is not allowed here.", "/id"),
            Some(Value::String(id)) => self.change.id = Some(id.clone()),
            Some(_) => self.invalid("The id must be a string.", "/id"),
        }
        let Some(attributes) = data.get("attributes").and_then(Value::as_object) else {
            return self.invalid("The attributes are required.", "/attributes");
        };
        self.attributes(attributes);
        // In an event the meta object lies inside the attributes; everywhere else it stands beside them.
        let meta = if self.form == Form::Event { attributes.get("meta") } else { data.get("meta") };
        if let Some(meta) = meta.filter(|meta| !meta.is_null()) {
            self.meta(meta);
        }
        if self.problems.is_empty() && self.form != Form::Update && self.change.id.is_none() {
            self.needs_identifier(attributes);
        }
    }

    fn needs_identifier(&mut self, attributes: &Map<String, Value>) {
        let anonymous = self.form == Form::Event
            && ["anonymous_id", "_kx"].iter().any(|name| attributes.get(*name).is_some_and(|value| !value.is_null()));
        let named = IDENTIFIERS.iter().any(|name| self.change.identifier(name).is_some());
        if !anonymous && !named {
            self.invalid("One of 'email', 'phone_number', 'external_id' or 'id' is required.", "/attributes");
        }
    }

    fn attributes(&mut self, attributes: &Map<String, Value>) {
        for (name, value) in attributes {
            let path = format!("/attributes/{name}");
            match name.as_str() {
                "email" => self.email(value, &path),
                "phone_number" => self.phone(value, attributes, &path),
                "external_id" => match value {
                    Value::String(text) if text.chars().count() > EXTERNAL_ID_CHARS_MAX => {
                        self.invalid(
                            format!("'external_id' must not exceed {EXTERNAL_ID_CHARS_MAX} characters."),
                            &path,
                        );
                    }
                    _ => self.text(name, value, &path),
                },
                "location" => self.location(value, &path),
                "properties" => match value {
                    Value::Null => self.change.clear_properties = self.form != Form::Job,
                    Value::Object(properties) => self.change.properties = Some(self.without_ignored(properties)),
                    _ => self.invalid("'properties' must be an object.", &path),
                },
                "_kx" => {}
                "anonymous_id" | "meta" if self.form == Form::Event => {}
                other if TEXT_FIELDS.contains(&other) => self.text(name, value, &path),
                _ => self.invalid(format!("'{name}' is not a valid field for the resource 'profile'."), &path),
            }
        }
    }

    /// What counts of an object: in a job, whatever is not null.
    fn without_ignored(&self, object: &Map<String, Value>) -> Map<String, Value> {
        let counts = |value: &Value| self.form != Form::Job || !value.is_null();
        object.iter().filter(|(_, value)| counts(value)).map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    fn text(&mut self, name: &str, value: &Value, path: &str) {
        match value {
            Value::Null if self.form == Form::Job => {}
            Value::Null => self.change.fields.push((name.to_owned(), None)),
            Value::String(text) => self.change.fields.push((name.to_owned(), Some(text.clone()))),
            _ => self.invalid(format!("'{name}' must be a string."), path),
        }
    }

    fn email(&mut self, value: &Value, path: &str) {
        match value {
            Value::String(text) if is_email(text) => {
                self.change.fields.push(("email".into(), Some(text.to_lowercase())));
            }
            Value::String(_) => self.invalid("Invalid email address", path),
            _ => self.text("email", value, path),
        }
    }

    fn phone(&mut self, value: &Value, attributes: &Map<String, Value>, path: &str) {
        let others = ["email", "external_id"].iter().any(|name| attributes.get(*name).is_some_and(Value::is_string));
        match value {
            Value::String(text) if is_phone(text) => {
                self.change.fields.push(("phone_number".into(), Some(text.clone())));
            }
            Value::String(_) if others && matches!(self.form, Form::Create | Form::Event) => {
                self.change.partial_failure = Some("phone_number");
            }
            Value::String(_) => self.invalid("Invalid phone number format. Valid format: +12345678901", path),
            _ => self.text("phone_number", value, path),
        }
    }

    fn location(&mut self, value: &Value, path: &str) {
        match value {
            Value::Null => self.change.clear_location = self.form != Form::Job,
            Value::Object(location) => {
                for (name, value) in location {
                    let number = matches!(name.as_str(), "latitude" | "longitude") && value.is_number();
                    if !LOCATION_FIELDS.contains(&name.as_str()) {
                        self.invalid(
                            format!("'{name}' is not a valid field for the resource 'location'."),
                            &format!("{path}/{name}"),
                        );
                    } else if !(value.is_null() || value.is_string() || number) {
                        self.invalid(format!("'{name}' must be a string."), &format!("{path}/{name}"));
                    }
                }
                self.change.location = Some(self.without_ignored(location));
            }
            _ => self.invalid("'location' must be an object.", path),
        }
    }

    fn meta(&mut self, meta: &Value) {
        if self.form == Form::Create {
            return self.invalid("'meta' is not allowed here.", "/meta");
        }
        let Some(meta) = meta.as_object() else { return self.invalid("'meta' must be an object.", "/meta") };
        for (name, value) in meta {
            match name.as_str() {
                "patch_properties" => self.patch_properties(value),
                // Rewriting identifiers is something that a simulator would only guess at.
                _ => self.invalid(format!("'{name}' is not simulated."), &format!("/meta/{name}")),
            }
        }
    }

    fn patch_properties(&mut self, patch: &Value) {
        let path = "/meta/patch_properties";
        let Some(patch) = patch.as_object() else { return self.invalid("'patch_properties' must be an object.", path) };
        for (name, value) in patch {
            match (name.as_str(), value) {
                (_, Value::Null) => {}
                ("append", Value::Object(values)) => self.change.append = values.clone(),
                ("unappend", Value::Object(values)) => self.change.unappend = values.clone(),
                ("unset", Value::String(key)) => self.change.unset.push(key.clone()),
                ("unset", Value::Array(keys)) if keys.iter().all(Value::is_string) => {
                    self.change.unset.extend(keys.iter().filter_map(Value::as_str).map(str::to_owned));
                }
                _ => self.invalid(format!("'{name}' is not valid in 'patch_properties'."), &format!("{path}/{name}")),
            }
        }
    }
}

/// One `@`, something before it, a dotted host after it, no spaces: what every reading of the vendor's rule agrees on.
fn is_email(text: &str) -> bool {
    let Some((local, host)) = text.split_once('@') else { return false };
    !local.is_empty()
        && !host.contains('@')
        && !text.chars().any(|character| character.is_whitespace() || character.is_control())
        && host.contains('.')
        && host.split('.').all(|label| !label.is_empty() && !label.starts_with('-') && !label.ends_with('-'))
        && host.rsplit('.').next().is_some_and(|top| top.chars().count() >= 2)
}

/// E.164.
fn is_phone(text: &str) -> bool {
    text.strip_prefix('+').is_some_and(|digits| {
        (7..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0')
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pointers(data: &Value, form: Form) -> Vec<String> {
        match parse(data, "/data", form) {
            Ok(_) => Vec::new(),
            Err(problems) => problems
                .into_iter()
                .map(|problem| match problem.source {
                    super::super::answer::Source::Pointer(pointer) => pointer,
                    super::super::answer::Source::Parameter(name) => name.to_owned(),
                })
                .collect(),
        }
    }

    #[test]
    fn every_problem_has_its_pointer() {
        let data = json!({"type": "profile", "attributes": {"email": "nobody", "first_name": 5, "colour": "red", "location": {"planet": "x"}}});
        assert_eq!(
            pointers(&data, Form::Import),
            [
                "/data/attributes/email",
                "/data/attributes/first_name",
                "/data/attributes/colour",
                "/data/attributes/location/planet"
            ]
        );
    }

    #[test]
    fn a_profile_needs_an_identifier() {
        let data = json!({"type": "profile", "attributes": {"email": null, "first_name": "A"}});
        assert_eq!(pointers(&data, Form::Import), ["/data/attributes"]);
        assert!(pointers(&json!({"type": "profile", "id": "01X", "attributes": {}}), Form::Import).is_empty());
        assert!(pointers(&json!({"type": "profile", "attributes": {"anonymous_id": "a"}}), Form::Event).is_empty());
    }

    #[test]
    fn a_bad_phone_beside_an_email_is_a_partial_failure_on_create_and_an_error_on_import() {
        let data = json!({"type": "profile", "attributes": {"email": "a@b.co", "phone_number": "n/a"}});
        assert_eq!(parse(&data, "/data", Form::Create).unwrap().partial_failure, Some("phone_number"));
        assert_eq!(pointers(&data, Form::Import), ["/data/attributes/phone_number"]);
    }

    #[test]
    fn null_clears_and_absence_leaves() {
        let data = json!({"type": "profile", "attributes": {"email": "A@B.co", "title": null}});
        let change = parse(&data, "/data", Form::Import).unwrap();
        assert_eq!(change.fields, [("email".to_owned(), Some("a@b.co".to_owned())), ("title".to_owned(), None)]);
    }

    // Issue 10: the simulator cleared what the vendor leaves alone.
    #[test]
    fn a_job_ignores_nulls_and_unsets_what_it_names() {
        let data = json!({"type": "profile", "attributes": {"email": "a@b.co", "title": null, "properties": {"x": null, "y": 1},
            "location": {"city": null, "zip": "1"}}, "meta": {"patch_properties": {"unset": ["z"]}}});
        let change = parse(&data, "/data", Form::Job).unwrap();
        assert_eq!(change.fields, [("email".to_owned(), Some("a@b.co".to_owned()))]);
        assert_eq!(change.properties, json!({"y": 1}).as_object().cloned());
        assert_eq!(change.location, json!({"zip": "1"}).as_object().cloned());
        assert_eq!(change.unset, ["z"]);
        let all = json!({"type": "profile", "attributes": {"email": "a@b.co", "properties": null, "location": null}});
        let change = parse(&all, "/data", Form::Job).unwrap();
        assert!(!change.clear_properties && !change.clear_location);
    }

    #[test]
    fn emails_are_told_from_other_text() {
        for text in ["a@b.co", "a+b@x-y.example", "ö@ü.de"] {
            assert!(is_email(text), "{text}");
        }
        for text in ["", "a", "@b.co", "a@b", "a@b.c", "a b@c.de", "a@b@c.de", "a@.de", " a@b.co"] {
            assert!(!is_email(text), "{text}");
        }
    }
}
