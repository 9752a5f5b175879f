//! Attributes of a person: identifiers among them, what a person has agreed to, times, and everything else.

use serde_json::{Map, Value};
use tailwater_core::operation::OperationKind;

use super::Author;
use super::person::{Field, Person};
use super::take::{invalid, join, wrong_type};
use super::time::seconds;
use crate::customerio::limits::check_attributes;
use crate::destination::ClassifyError;

/// Attributes that the vendor reads as instructions, with the reason why an author cannot give them.
const REFUSED: &[(&str, &str)] = &[
    ("_update", "the destination's `create` says whether people may be created"),
    ("_timestamp", "the time of an update stands in `timestamp`, beside the attributes"),
    ("cio_relationships", "relationships stand beside the attributes, as `cio_relationships`"),
    ("anonymous_id", "it names a browser; give `anonymousId` beside the person with `api: pipelines`"),
];

/// What an attribute says about consent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Consent {
    Given,
    Withdrawn,
}

impl Author<'_> {
    /// Checks the attributes of a person, in the author's order. `kind` is what the author asks for.
    pub(super) fn person_attributes(
        &mut self,
        attributes: Map<String, Value>,
        at: &str,
        person: &Person,
        kind: OperationKind,
    ) -> Result<Map<String, Value>, ClassifyError> {
        let mut out = Map::new();
        let (mut changes, mut consents) = (false, Vec::new());
        for (name, value) in attributes {
            let path = join(at, &name);
            if let Some((_, reason)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
                return Err(invalid(&path, &format!("is refused: {reason}")));
            }
            if let Some(field) = Field::find(&name) {
                let Some(own) = self.identifier(field, &value, &path)? else { continue };
                if field == person.field && own != person.value && kind != OperationKind::ChangeIdentifier {
                    let message = format!(
                        "is another value than the one that names the person, which would change the person's `{name}` at the vendor; say \
                         `_operation: 'change_identifier'` if it is meant"
                    );
                    return Err(invalid(&path, &message));
                }
                // The same value again says nothing.
                if field != person.field || own != person.value {
                    changes = true;
                    out.insert(name, Value::String(own));
                }
            } else if is_consent(&name) {
                consents.extend(consent(&name, &value, &path)?.into_iter().map(|consent| (path.clone(), consent)));
                out.insert(name, value);
            } else if name == "created_at" && !value.is_null() {
                let time = self.time(&value, &path)?;
                out.insert(name, Value::from(seconds(time)));
            } else {
                out.insert(name, value);
            }
        }
        if kind == OperationKind::ChangeIdentifier && !changes {
            return Err(invalid(at, "change no identifier; give the new `email`, `id` or `phone` as an attribute"));
        }
        check_consent(kind, &consents, at)?;
        check_attributes(&out, at)?;
        Ok(out)
    }
}

/// A sync changes what a person has agreed to only where the author says so, in that direction and no other.
fn check_consent(kind: OperationKind, consents: &[(String, Consent)], at: &str) -> Result<(), ClassifyError> {
    let wanted = match kind {
        OperationKind::Subscribe => Some(Consent::Given),
        OperationKind::Unsubscribe => Some(Consent::Withdrawn),
        _ => None,
    };
    match (wanted, consents.iter().find(|(_, consent)| Some(*consent) != wanted)) {
        (None, Some((path, consent))) => {
            let operation = match consent {
                Consent::Given => "subscribe",
                Consent::Withdrawn => "unsubscribe",
            };
            let message = format!(
                "is refused: it would change what a person has agreed to; say `_operation: '{operation}'` beside `type` if it is meant"
            );
            Err(invalid(path, &message))
        }
        (Some(_), Some((path, _))) => Err(invalid(path, &format!("is the opposite of `_operation: '{kind}'`"))),
        (Some(_), None) if consents.is_empty() => {
            let message = format!("hold no consent; `{kind}` needs `unsubscribed` or `cio_subscription_preferences`");
            Err(invalid(at, &message))
        }
        (_, None) => Ok(()),
    }
}

fn is_consent(name: &str) -> bool {
    name == "unsubscribed"
        || name == "cio_subscription_preferences"
        || name.starts_with("cio_subscription_preferences.")
}

fn consent(name: &str, value: &Value, at: &str) -> Result<Vec<Consent>, ClassifyError> {
    if name == "unsubscribed" {
        // Any casing of "true", 1 and "1" mean true to the vendor, everything else means false.
        let withdrawn = match value {
            Value::Bool(flag) => *flag,
            Value::Number(number) => number.as_f64() == Some(1.0),
            Value::String(text) => text.eq_ignore_ascii_case("true") || text == "1",
            other => return Err(wrong_type(at, "true or false", other)),
        };
        return Ok(vec![if withdrawn { Consent::Withdrawn } else { Consent::Given }]);
    }
    let mut consents = Vec::new();
    preferences(value, at, &mut consents)?;
    if consents.is_empty() {
        return Err(invalid(at, "holds no preference; expected topics or channels with true or false"));
    }
    Ok(consents)
}

fn preferences(value: &Value, at: &str, consents: &mut Vec<Consent>) -> Result<(), ClassifyError> {
    match value {
        Value::Bool(true) => consents.push(Consent::Given),
        Value::Bool(false) => consents.push(Consent::Withdrawn),
        Value::Object(members) => {
            for (name, value) in members {
                preferences(value, &join(at, name), consents)?;
            }
        }
        Value::Null | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            return Err(wrong_type(at, "true or false", value));
        }
    }
    Ok(())
}
