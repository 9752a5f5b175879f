//! The plain case of an output: a profile that goes to the vendor as it is. It is recognised without a tree of it, because nearly every
//! output of nearly every transform is of this kind, and building the tree only to write it again cost more than the transform.
//!
//! What is plain and what is not is decided here, but never what is right or wrong: whatever this does not recognise is left to the
//! mapping proper, which has the words for it. What it does recognise must become the very operation that the mapping proper makes of it;
//! a property test holds the two against each other.

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::{RawValue, to_raw_value};
use tailwater_core::operation::{Operation, OperationKind};

use super::Rules;
use crate::destination::ClassifyInput;
use crate::klaviyo::requests::{Field, PROFILE_BYTES_MAX};
use crate::klaviyo::schema::{EXTERNAL_ID_CHARS_MAX, PROFILE, Shape};

/// Brackets that a plain output has at most. It bounds the depth: what is deeper than the mapping proper can read must be refused by it.
const BRACKETS_MAX: usize = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Root<'a> {
    #[serde(borrow)]
    data: Data<'a>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Data<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    attributes: &'a RawValue,
}

#[derive(serde::Serialize)]
struct Body<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    attributes: &'a RawValue,
}

/// The operation of a plain output; `None` where it is not plain, for whatever reason.
pub(in crate::klaviyo) fn classify(rules: Rules<'_>, input: &ClassifyInput<'_>) -> Option<Operation> {
    let text = input.output.get();
    if !input.non_finite.is_empty() || text.len() > PROFILE_BYTES_MAX || !is_simple(text) {
        return None;
    }
    let root: Root<'_> = serde_json::from_str(text).ok()?;
    if root.data.kind != "profile" {
        return None;
    }
    let attributes = root.data.attributes;
    let mut deserializer = serde_json::Deserializer::from_str(attributes.get());
    let identified = deserializer.deserialize_map(Attributes { rules, input }).ok()?;
    if !identified {
        return None;
    }
    Some(Operation {
        kind: OperationKind::UpsertProfile,
        route: input.route.to_owned(),
        place: input.ordinal.to_string(),
        target: None,
        body: to_raw_value(&Body { kind: "profile", attributes }).ok()?,
        non_finite: Vec::new(),
    })
}

/// Whether nothing in the text has to be decoded, left out or refused: no escapes, no nulls, no properties with the vendor's own names, which
/// begin with a dollar sign, and no great depth. A text that merely looks like one of these is not simple either.
fn is_simple(text: &str) -> bool {
    let mut brackets = 0;
    let mut before = 0;
    for &byte in text.as_bytes() {
        match byte {
            b'\\' => return false,
            b'$' if before == b'"' => return false,
            b'{' | b'[' => brackets += 1,
            _ => {}
        }
        before = byte;
    }
    brackets <= BRACKETS_MAX && !text.contains("null")
}

/// Looks at the attributes and answers whether there is an identifier among them; an error is the word for "not plain".
struct Attributes<'a> {
    rules: Rules<'a>,
    input: &'a ClassifyInput<'a>,
}

impl<'de> Visitor<'de> for Attributes<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("plain attributes")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let mut identified = false;
        while let Some(name) = map.next_key::<&str>()? {
            let plain = if name == "properties" {
                map.next_value::<Object>()?;
                true
            } else if let Some(field) = Field::find(name) {
                identified = true;
                self.is_own(field, map.next_value()?)
            } else if PROFILE.iter().any(|(known, shape)| *known == name && *shape == Shape::Text) {
                let text: &str = map.next_value()?;
                text.trim().len() == text.len()
            } else {
                false
            };
            if !plain {
                return Err(serde::de::Error::custom("not plain"));
            }
        }
        Ok(identified)
    }
}

impl Attributes<'_> {
    /// Whether the value is the profile's only identifier of the field's type, letter for letter.
    fn is_own(&self, field: Field, text: &str) -> bool {
        let Some(kind) = self.rules.identifiers.get(field.as_str()) else { return false };
        let mut own = self.input.identifiers.iter().filter(|(own, _)| own == kind).map(|(_, value)| *value);
        own.next() == Some(text)
            && own.next().is_none()
            && !text.is_empty()
            && text.trim().len() == text.len()
            && (field != Field::ExternalId || text.len() <= EXTERNAL_ID_CHARS_MAX)
    }
}

/// An object with anything in it.
struct Object;

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Object;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Object)
            }
        }
        deserializer.deserialize_map(Members)
    }
}
