//! A transform's output → an operation. Pure, and the only place that decides whether an output may be sent.
//!
//! The output is the vendor's own JSON: `{"data":{"type":"profile","attributes":{…}}}` or an event. It is checked against what the
//! vendor takes, coerced where that is safe (a number where a text belongs), and cleaned (nulls, blanks). Three things are
//! never let through, whatever the vendor would say: an identifier that is not this profile's, anything that subscribes
//! somebody, and a null where an identifier belongs, since it would clear the vendor's.

mod event;
pub(super) mod plain;
mod take;

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tailwater_core::code;
use tailwater_core::operation::{Operation, OperationKind};

use super::payload;
use super::requests::{EVENT_BYTES_MAX, Field, PROFILE_BYTES_MAX};
use super::schema::{
    EXTERNAL_ID_CHARS_MAX, LIST_ID_BYTES_MAX, LISTS_MAX, LOCATION, PROFILE, REFUSED_PROPERTIES, Shape,
};
use crate::destination::{ClassifyError, ClassifyInput};
use crate::output::{NonFinite, Nulls, nearest, omit_nulls, put_null};
use take::{coerce, expect_type, invalid, object, refuse_rest, refused, unknown, unknown_attribute, wrong_type};

/// What the configuration says about outputs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules<'a> {
    /// The vendor's field → the identifier type.
    pub identifiers: &'a BTreeMap<String, String>,
    pub nulls: Nulls,
    pub non_finite: NonFinite,
}

/// Turns one output into its operation.
///
/// # Errors
/// The output does not fit, or names somebody else; the message says where, what was expected and what to do.
pub(super) fn classify(rules: Rules<'_>, input: &ClassifyInput<'_>) -> Result<Operation, ClassifyError> {
    match plain::classify(rules, input) {
        Some(operation) => Ok(operation),
        None => classify_any(rules, input),
    }
}

/// The mapping proper: what [`plain`] does not recognise, and the measure of what it does.
pub(super) fn classify_any(rules: Rules<'_>, input: &ClassifyInput<'_>) -> Result<Operation, ClassifyError> {
    let root: Value = serde_json::from_str(input.output.get()).map_err(|error| {
        invalid("the output", &format!("cannot be read ({error}); return plain data of moderate depth"))
    })?;
    refuse_non_finite(rules.non_finite, input.non_finite)?;
    let mut root = object(root, "the output", "`{data: {type: 'profile', attributes: {…}}}`")?;
    let data = root
        .remove("data")
        .ok_or_else(|| invalid("the output", "has no `data`; expected `{data: {type: 'profile', attributes: {…}}}`"))?;
    refuse_rest(&root, "", &["data"])?;
    let mut data = object(data, "data", "an object with `type` and `attributes`")?;
    let shape = take_type(&mut data)?;
    let mut checked = Checker { rules, input };
    let (mut body, lists, kind, bytes_max) = match shape {
        DataType::Event => (checked.event(data)?, Vec::new(), OperationKind::TrackEvent, EVENT_BYTES_MAX),
        DataType::Profile => {
            let (body, lists) = checked.profile(data)?;
            (body, lists, OperationKind::UpsertProfile, PROFILE_BYTES_MAX)
        }
    };
    clear_non_finite(rules.non_finite, input.non_finite, kind, &mut body)?;
    let text = serde_json::to_string(&body)
        .map_err(|error| invalid("data", &format!("cannot be written as JSON ({error})")))?;
    if text.len() > bytes_max {
        let message = format!("data: {} bytes, the limit is {bytes_max}; send fewer or shorter properties", text.len());
        return Err(ClassifyError { code: code::PAYLOAD_TOO_LARGE, message });
    }
    let body = RawValue::from_string(payload::write(text, &lists))
        .map_err(|error| invalid("data", &format!("cannot be written as JSON ({error})")))?;
    let place = input.ordinal.to_string();
    let (route, non_finite) = (input.route.to_owned(), input.non_finite.to_vec());
    Ok(Operation { kind, route, place, target: None, body, non_finite })
}

struct Checker<'a> {
    rules: Rules<'a>,
    input: &'a ClassifyInput<'a>,
}

impl Checker<'_> {
    /// `{type, attributes, relationships?, meta?}` → the body and its lists.
    fn profile(&mut self, mut data: Map<String, Value>) -> Result<(Value, Vec<String>), ClassifyError> {
        if data.get("id").is_some_and(|id| !id.is_null()) {
            return Err(refused("data.id", "id"));
        }
        data.remove("id");
        let attributes = data.remove("attributes").ok_or_else(|| invalid("data", "has no `attributes`"))?;
        let lists = match data.remove("relationships") {
            None | Some(Value::Null) => Vec::new(),
            Some(relationships) => lists(relationships)?,
        };
        let meta = match data.remove("meta") {
            None | Some(Value::Null) => None,
            Some(meta) => Some(meta_of(meta, "data.meta")?),
        };
        refuse_rest(&data, "data", &["type", "attributes", "relationships", "meta"])?;
        let attributes = self.profile_attributes(attributes, "data.attributes")?;
        let mut body = Map::new();
        body.insert("type".to_owned(), Value::from("profile"));
        body.insert("attributes".to_owned(), Value::Object(attributes));
        if let Some(meta) = meta {
            body.insert("meta".to_owned(), meta);
        }
        Ok((Value::Object(body), lists))
    }

    /// Checks the attributes of a profile, in the author's order. At least one identifier must be left.
    fn profile_attributes(&mut self, attributes: Value, path: &str) -> Result<Map<String, Value>, ClassifyError> {
        let mut out = Map::new();
        let mut identified = false;
        for (name, value) in object(attributes, path, "an object")? {
            let at = format!("{path}.{name}");
            if let Some(field) = Field::find(&name) {
                if let Some(value) = self.identifier(field, value, &at)? {
                    identified = true;
                    out.insert(name, Value::String(value));
                }
            } else if let Some((_, shape)) = PROFILE.iter().find(|(known, _)| *known == name) {
                self.put(&mut out, name, value, *shape, &at)?;
            } else if name == "location" {
                self.put_location(&mut out, name, value, &at)?;
            } else if name == "properties" {
                self.put_properties(&mut out, name, value, &at)?;
            } else {
                return Err(unknown_attribute(&at, &name));
            }
        }
        if !identified {
            let fields: Vec<_> = self.rules.identifiers.keys().map(String::as_str).collect();
            let message = format!("names nobody; give one of {} with a value", fields.join(", "));
            return Err(invalid(path, &message));
        }
        Ok(out)
    }

    /// An identifier must be one of the profile's, of the type that the configuration gives the field; what is sent is the profile's
    /// own spelling. Null and blank are left out, whatever `nulls` says: a null would clear the vendor's identifier.
    fn identifier(&self, field: Field, value: Value, at: &str) -> Result<Option<String>, ClassifyError> {
        let text = match value {
            Value::Null => return Ok(None),
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            other => return Err(wrong_type(at, "a text", &other)),
        };
        if text.trim().is_empty() {
            return Ok(None);
        }
        let Some(kind) = self.rules.identifiers.get(field.as_str()) else {
            let message = format!(
                "{at}: the destination does not say which identifier type `{field}` holds, so it cannot be held against the profile; add \
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
        if field == Field::ExternalId && own.chars().count() > EXTERNAL_ID_CHARS_MAX {
            return Err(invalid(at, &format!("has more than {EXTERNAL_ID_CHARS_MAX} characters")));
        }
        Ok(Some(own.to_owned()))
    }

    fn put(
        &self,
        out: &mut Map<String, Value>,
        name: String,
        value: Value,
        shape: Shape,
        at: &str,
    ) -> Result<(), ClassifyError> {
        if value.is_null() {
            if self.rules.nulls == Nulls::Clear {
                out.insert(name, value);
            }
            return Ok(());
        }
        out.insert(name, coerce(value, shape, at)?);
        Ok(())
    }

    fn put_location(
        &self,
        out: &mut Map<String, Value>,
        name: String,
        value: Value,
        at: &str,
    ) -> Result<(), ClassifyError> {
        // The vendor knows no null for the whole place, only for its parts.
        if value.is_null() {
            return Ok(());
        }
        let mut location = Map::new();
        for (part, value) in object(value, at, "an object")? {
            let at = format!("{at}.{part}");
            let Some((_, shape)) = LOCATION.iter().find(|(known, _)| *known == part) else {
                return Err(unknown(&at, &part, LOCATION.iter().map(|(known, _)| *known), ""));
            };
            self.put(&mut location, part, value, *shape, &at)?;
        }
        if !location.is_empty() {
            out.insert(name, Value::Object(location));
        }
        Ok(())
    }

    fn put_properties(
        &self,
        out: &mut Map<String, Value>,
        name: String,
        value: Value,
        at: &str,
    ) -> Result<(), ClassifyError> {
        // A null here would be read as "all of them"; nobody means that.
        if value.is_null() {
            return Ok(());
        }
        let mut properties = object(value, at, "an object")?;
        for (refused, reason) in REFUSED_PROPERTIES {
            if properties.contains_key(*refused) {
                return Err(invalid(&format!("{at}.{refused}"), &format!("is refused: {reason}")));
            }
        }
        if self.rules.nulls == Nulls::Omit {
            omit_nulls(&mut properties);
        }
        out.insert(name, Value::Object(properties));
        Ok(())
    }
}

/// `non_finite: reject`.
fn refuse_non_finite(rule: NonFinite, paths: &[String]) -> Result<(), ClassifyError> {
    match (rule, paths.first()) {
        (NonFinite::Reject, Some(first)) => {
            let message = format!(
                "{first}: the number is not finite (NaN or infinite), and the destination says `non_finite: reject`; guard it in the transform"
            );
            Err(ClassifyError { code: code::NON_FINITE_NUMBER, message })
        }
        (NonFinite::Reject | NonFinite::Omit | NonFinite::Clear, _) => Ok(()),
    }
}

/// `non_finite: clear`: a null where the sandbox took the number out. It comes after nulls were left out, since it is meant. Only
/// custom properties are numbers that can be cleared; of an event nothing was there before.
fn clear_non_finite(
    rule: NonFinite,
    paths: &[String],
    kind: OperationKind,
    body: &mut Value,
) -> Result<(), ClassifyError> {
    const PROPERTIES: &str = "data.attributes.properties.";
    if rule != NonFinite::Clear || kind != OperationKind::UpsertProfile {
        return Ok(());
    }
    for path in paths {
        let place = path.strip_prefix(PROPERTIES).zip(body.pointer_mut("/attributes/properties"));
        if !place.is_some_and(|(rest, properties)| put_null(properties, rest)) {
            let message =
                format!("{path}: the number is not finite, and `non_finite: clear` can clear custom properties only");
            return Err(ClassifyError { code: code::NON_FINITE_NUMBER, message });
        }
    }
    Ok(())
}

/// What `data.type` may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DataType {
    Profile,
    Event,
}

fn take_type(data: &mut Map<String, Value>) -> Result<DataType, ClassifyError> {
    match data.remove("type") {
        Some(Value::String(kind)) => match kind.as_str() {
            "profile" => Ok(DataType::Profile),
            "event" => Ok(DataType::Event),
            other if other.contains("subscription") || other.contains("suppression") => Err(invalid(
                "data.type",
                &format!("is `{other}`: a sync subscribes nobody and lifts no suppression; send `profile` or `event`"),
            )),
            other => {
                let hint = nearest(other, ["profile", "event"])
                    .map_or(String::new(), |near| format!("; did you mean `{near}`?"));
                Err(invalid("data.type", &format!("is `{other}`; expected `profile` or `event`{hint}")))
            }
        },
        Some(other) => Err(wrong_type("data.type", "`profile` or `event`", &other)),
        None => Err(invalid("data", "has no `type`; expected `type: 'profile'` or `type: 'event'`")),
    }
}

/// `{lists: {data: [{type: 'list', id}]}}` or `{lists: ['id', …]}` → ids, sorted, without repeats.
fn lists(relationships: Value) -> Result<Vec<String>, ClassifyError> {
    const AT: &str = "data.relationships.lists";
    let mut relationships = object(relationships, "data.relationships", "an object")?;
    let lists = relationships.remove("lists");
    refuse_rest(&relationships, "data.relationships", &["lists"])?;
    let items = match lists {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(items)) => items,
        Some(Value::Object(mut holder)) => {
            let items = holder.remove("data");
            refuse_rest(&holder, AT, &["data"])?;
            match items {
                None | Some(Value::Null) => return Ok(Vec::new()),
                Some(Value::Array(items)) => items,
                Some(other) => return Err(wrong_type(&format!("{AT}.data"), "an array", &other)),
            }
        }
        Some(other) => return Err(wrong_type(AT, "`{data: [{type: 'list', id: '…'}]}` or an array of ids", &other)),
    };
    let mut ids = items
        .into_iter()
        .enumerate()
        .map(|(index, item)| list_id(item, &format!("{AT}[{index}]")))
        .collect::<Result<Vec<_>, _>>()?;
    ids.sort_unstable();
    ids.dedup();
    if ids.len() > LISTS_MAX {
        return Err(invalid(AT, &format!("names {} lists, the limit is {LISTS_MAX}", ids.len())));
    }
    Ok(ids)
}

fn list_id(item: Value, at: &str) -> Result<String, ClassifyError> {
    let id = match item {
        Value::String(id) => id,
        Value::Object(mut item) => {
            if item.contains_key("type") {
                expect_type(item.remove("type"), "list", at)?;
            }
            let id = item.remove("id");
            refuse_rest(&item, at, &["type", "id"])?;
            match id {
                Some(Value::String(id)) => id,
                Some(other) => return Err(wrong_type(&format!("{at}.id"), "a list's id", &other)),
                None => return Err(invalid(at, "has no `id`")),
            }
        }
        other => return Err(wrong_type(at, "a list's id", &other)),
    };
    let id = id.trim();
    if id.is_empty()
        || id.len() > LIST_ID_BYTES_MAX
        || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
    {
        return Err(invalid(
            at,
            "is no list id; it is the short code in the list's address (such as `Y6nRLr`), not its name",
        ));
    }
    Ok(id.to_owned())
}

/// `meta.patch_properties`; identifiers are not patched here.
fn meta_of(meta: Value, at: &str) -> Result<Value, ClassifyError> {
    let mut meta = object(meta, at, "an object")?;
    if meta.get("patch_identifiers").is_some_and(|patch| !patch.is_null()) {
        let message = "is refused: identifiers are linked and unlinked by the identity rules, not by a transform";
        return Err(invalid(&format!("{at}.patch_identifiers"), message));
    }
    meta.remove("patch_identifiers");
    let patch = meta.remove("patch_properties");
    refuse_rest(&meta, at, &["patch_properties"])?;
    let at = format!("{at}.patch_properties");
    let mut out = Map::new();
    for (name, value) in object(patch.unwrap_or_else(|| Value::Object(Map::new())), &at, "an object")? {
        let at = format!("{at}.{name}");
        match (name.as_str(), &value) {
            (_, Value::Null) => continue,
            ("append" | "unappend", Value::Object(_)) | ("unset", Value::String(_)) => {}
            ("unset", Value::Array(keys)) if keys.iter().all(Value::is_string) => {}
            ("append" | "unappend", _) => return Err(wrong_type(&at, "an object", &value)),
            ("unset", _) => return Err(wrong_type(&at, "a property's name or an array of them", &value)),
            _ => return Err(unknown(&at, &name, ["append", "unappend", "unset"], "")),
        }
        out.insert(name, value);
    }
    Ok(serde_json::json!({"patch_properties": out}))
}
