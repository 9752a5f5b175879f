//! The Pipelines API: messages of the form that many tools share. In strict mode a wrong one is a 400; otherwise it is a 200 and dropped.

use serde_json::{Map, Value, json};

use super::answer::{self, Refusal};
use super::items::{BATCH_BYTES_MAX, EVENT_NAME_BYTES_MAX, ITEM_BYTES_MAX};
use super::people::Ident;
use super::relations::ObjectIdent;
use super::workspace::{Dropped, Event, Update, Workspace};
use super::{attributes, shapes};
use crate::engine::Answer;

pub(super) const CALLS: &[&str] = &["identify", "track", "page", "screen", "group", "alias", "batch"];

/// What a call needs beside its body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context<'a> {
    pub types: &'a [String],
    pub strict: bool,
    pub now_s: i64,
}

/// Answers a call.
pub(super) fn call(workspace: &mut Workspace, name: &str, body: &[u8], context: Context<'_>) -> Answer {
    let result = if name == "batch" { batch(workspace, body, context) } else { single(workspace, name, body, context) };
    match result {
        Ok(dropped) => {
            let mut answer = answer::json(200, json!({}));
            answer.dropped = dropped;
            answer
        }
        Err(refusals) => refuse(&refusals, context.strict),
    }
}

/// The answer to what is wrong: the truth in strict mode only.
pub(super) fn refuse(refusals: &[Refusal], strict: bool) -> Answer {
    if strict {
        return answer::refused(refusals);
    }
    let mut answer = answer::json(200, json!({}));
    answer.dropped = refusals.iter().map(|refusal| format!("{}: {}", refusal.field, refusal.message)).collect();
    answer.took(crate::engine::Took::Exactly(crate::engine::Effects::Nothing))
}

fn read(body: &[u8], max: usize, size: &str) -> Result<Value, Vec<Refusal>> {
    if body.len() > max {
        return Err(vec![Refusal::too_long("", format!("request cannot be larger than {size}"))]);
    }
    serde_json::from_slice(body).map_err(|error| vec![Refusal::invalid("", format!("malformed JSON: {error}"))])
}

fn single(workspace: &mut Workspace, name: &str, body: &[u8], context: Context<'_>) -> Result<Dropped, Vec<Refusal>> {
    let message = read(body, ITEM_BYTES_MAX, "32kb")?;
    if message.get("type").is_some_and(|kind| kind != name) {
        return Err(vec![Refusal::invalid("type", format!("type must be {name}"))]);
    }
    apply(workspace, name, &message, context).map_err(|refusal| vec![refusal])
}

/// In strict mode one wrong message refuses the batch; otherwise it is dropped and the others are taken.
fn batch(workspace: &mut Workspace, body: &[u8], context: Context<'_>) -> Result<Dropped, Vec<Refusal>> {
    let body = read(body, BATCH_BYTES_MAX, "500kb")?;
    let known = ["batch", "context", "integrations", "sentAt"];
    if let Some(unknown) = body.as_object().and_then(|body| body.keys().find(|name| !known.contains(&name.as_str()))) {
        return Err(vec![Refusal::invalid(unknown.clone(), format!("{unknown} is not a known field"))]);
    }
    let Some(messages) = body.get("batch").and_then(Value::as_array).filter(|messages| !messages.is_empty()) else {
        return Err(vec![Refusal::required("batch")]);
    };
    let mut checked = Vec::with_capacity(messages.len());
    let (mut refusals, mut dropped) = (Vec::new(), Vec::new());
    for (index, message) in messages.iter().enumerate() {
        let kind = message.get("type").and_then(Value::as_str).unwrap_or_default();
        let result = if message.to_string().len() > ITEM_BYTES_MAX {
            Err(Refusal::too_long("", "call cannot be larger than 32kb"))
        } else if !matches!(kind, "identify" | "track" | "page" | "screen" | "group") {
            Err(Refusal::invalid("type", format!("'{kind}' is not a call of a batch")))
        } else {
            check(kind, message)
        };
        match result {
            Ok(()) => checked.push((index, kind, message)),
            Err(refusal) => {
                let field = format!("batch[{index}].{}", refusal.field);
                refusals.push(Refusal { field, ..refusal });
            }
        }
    }
    if context.strict && !refusals.is_empty() {
        return Err(refusals);
    }
    dropped.extend(refusals.iter().map(|refusal| format!("{}: {}", refusal.field, refusal.message)));
    for (index, kind, message) in checked {
        match apply(workspace, kind, message, context) {
            Ok(notes) => dropped.extend(notes.into_iter().map(|note| format!("[{index}] {note}"))),
            Err(refusal) => dropped.push(format!("[{index}] {}: {}", refusal.field, refusal.message)),
        }
    }
    Ok(dropped)
}

fn text<'a>(message: &'a Value, name: &str) -> Option<&'a str> {
    message.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
}

fn fields<'a>(message: &'a Value, name: &str) -> Option<&'a Map<String, Value>> {
    message.get(name).and_then(Value::as_object)
}

/// What is wrong with a message, without looking at the workspace.
fn check(kind: &str, message: &Value) -> Result<(), Refusal> {
    let Some(object) = message.as_object() else { return Err(Refusal::invalid("", "a call must be an object")) };
    if let Some(unknown) = object.keys().find(|name| !shapes::MESSAGE.contains(&name.as_str())) {
        return Err(Refusal::invalid(unknown.clone(), format!("{unknown} is not a known field")));
    }
    for name in ["userId", "anonymousId", "event", "name", "groupId", "messageId", "previousId"] {
        if object.get(name).is_some_and(|value| !value.is_string() && !value.is_null()) {
            return Err(Refusal::invalid(name, format!("{name} must be a string")));
        }
    }
    for name in ["traits", "properties", "context", "integrations"] {
        if object.get(name).is_some_and(|value| !value.is_object() && !value.is_null()) {
            return Err(Refusal::invalid(name, format!("{name} must be an object")));
        }
    }
    timestamp(message)?;
    let email = fields(message, "traits").and_then(|traits| traits.get("email")).and_then(Value::as_str);
    let named = text(message, "userId").is_some() || text(message, "anonymousId").is_some();
    match kind {
        "identify" if !named && email.is_none() => Err(Refusal::required("userId")),
        "track" if text(message, "event").is_none() => Err(Refusal::required("event")),
        "track" if text(message, "event").is_some_and(|event| event.len() > EVENT_NAME_BYTES_MAX) => {
            Err(Refusal::too_long("event", format!("event name cannot be longer than {EVENT_NAME_BYTES_MAX} bytes")))
        }
        "track" | "page" | "screen" if !named && text(message, "groupId").is_none() => Err(Refusal::required("userId")),
        "group" if text(message, "groupId").is_none() => Err(Refusal::required("groupId")),
        "group" if !named => Err(Refusal::required("userId")),
        "alias" if text(message, "previousId").is_none() => Err(Refusal::required("previousId")),
        "alias" if text(message, "userId").is_none() => Err(Refusal::required("userId")),
        "identify" => fields(message, "traits").map_or(Ok(()), |traits| attributes::check(traits, "traits")),
        "group" => fields(message, "traits").map_or(Ok(()), |traits| attributes::check(traits, "traits")),
        _ => Ok(()),
    }
}

/// ISO 8601, in seconds.
fn timestamp(message: &Value) -> Result<Option<i64>, Refusal> {
    let Some(value) = message.get("timestamp").filter(|value| !value.is_null()) else { return Ok(None) };
    let time = value.as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    time.map(|time| Some(time.as_second()))
        .ok_or_else(|| Refusal::invalid("timestamp", "timestamp must be an ISO-8601 date-time"))
}

/// Does what a message says.
fn apply(workspace: &mut Workspace, kind: &str, message: &Value, context: Context<'_>) -> Result<Dropped, Refusal> {
    check(kind, message)?;
    let time = timestamp(message)?;
    let none = Map::new();
    let traits = fields(message, "traits").unwrap_or(&none);
    let properties = fields(message, "properties").unwrap_or(&none);
    let by_email = traits.get("email").and_then(Value::as_str);
    let person = match (text(message, "userId"), by_email) {
        (Some(id), _) => Some(Ident::new("id", id, "userId".to_owned())?),
        (None, Some(email)) if kind == "identify" => Some(Ident::new("email", email, "traits.email".to_owned())?),
        _ => None,
    };
    match kind {
        "identify" => {
            let Some(ident) = person else {
                return Ok(vec!["identify: an anonymous person is not simulated".to_owned()]);
            };
            Ok(workspace.identify(&Update { ident, attributes: traits, timestamp: time }, context.now_s)?.1)
        }
        "track" if is_semantic(message) => semantic(workspace, message, person, properties, context),
        "track" | "page" | "screen" => {
            let Some(ident) = person else { return Ok(vec![format!("{kind}: an anonymous person is not simulated")]) };
            let name = text(message, "event").or_else(|| text(message, "name")).unwrap_or_default();
            let event = Event {
                person: String::new(),
                kind: ["page", "screen"].into_iter().find(|name| *name == kind).unwrap_or("event"),
                name: name.to_owned(),
                id: text(message, "messageId").map(str::to_owned),
                timestamp: time.unwrap_or(context.now_s),
                attributes: properties.clone(),
            };
            Ok(workspace.event(&ident, event))
        }
        "group" => group(workspace, message, person, traits, context),
        "alias" => {
            let Some(primary) = person else { return Err(Refusal::required("userId")) };
            let previous = text(message, "previousId").unwrap_or_default();
            let secondary = Ident::new("id", previous, "previousId".to_owned())?;
            Ok(workspace.merge(&primary, &secondary))
        }
        _ => Err(Refusal::invalid("type", format!("'{kind}' is not a call"))),
    }
}

fn group(
    workspace: &mut Workspace,
    message: &Value,
    person: Option<Ident>,
    traits: &Map<String, Value>,
    context: Context<'_>,
) -> Result<Dropped, Refusal> {
    let mut own = traits.clone();
    let kind = own.shift_remove("object_type_id").or_else(|| own.shift_remove("objectTypeId"));
    let relationship = own.shift_remove("relationshipAttributes");
    let ident = json!({
        "object_type_id": kind.map_or_else(|| json!("1"), as_text),
        "object_id": message.get("groupId").cloned().unwrap_or_default(),
    });
    let ObjectIdent::Key(key) = ObjectIdent::parse(&ident, context.types, "traits")? else {
        return Err(Refusal::required("groupId"));
    };
    workspace.objects.set(&key, &own)?;
    let Some(ident) = person else { return Ok(Vec::new()) };
    let changes = relationship.and_then(|value| value.as_object().cloned()).unwrap_or_default();
    attributes::check(&changes, "traits.relationshipAttributes")?;
    // A group call makes its person, as every call of a person does.
    workspace.people.find_or_create(&ident);
    Ok(workspace.relate(Some(&key), &ident, &changes))
}

/// Ids of object types come as text or as numbers.
fn as_text(value: Value) -> Value {
    if value.is_number() { Value::String(value.to_string()) } else { value }
}

const SEMANTIC: &[&str] = &[
    "User Deleted",
    "User Suppressed",
    "User Unsuppressed",
    "Relationship Deleted",
    "Object Deleted",
    "Device Created or Updated",
    "Device Deleted",
];

fn is_semantic(message: &Value) -> bool {
    text(message, "event").is_some_and(|event| SEMANTIC.contains(&event))
}

fn semantic(
    workspace: &mut Workspace,
    message: &Value,
    person: Option<Ident>,
    properties: &Map<String, Value>,
    context: Context<'_>,
) -> Result<Dropped, Refusal> {
    let event = text(message, "event").unwrap_or_default();
    let object = || {
        let kind = properties.get("objectTypeId").cloned().map_or_else(|| json!("1"), as_text);
        let id = properties.get("objectId").cloned().unwrap_or_default();
        ObjectIdent::parse(&json!({"object_type_id": kind, "object_id": id}), context.types, "properties")
    };
    if event == "Object Deleted" {
        let ident = object()?;
        return Ok(match workspace.objects.find(&ident) {
            Some(key) => {
                workspace.objects.delete(&key);
                Vec::new()
            }
            None => vec![format!("{event}: there is no such object")],
        });
    }
    let Some(ident) = person else { return Err(Refusal::required("userId")) };
    match event {
        "User Deleted" => Ok(workspace.delete(&ident)),
        "User Suppressed" => Ok(workspace.suppress(&ident)),
        "User Unsuppressed" => Ok(workspace.unsuppress(&ident)),
        "Relationship Deleted" => {
            let key = workspace.objects.find(&object()?);
            Ok(workspace.unrelate(key.as_ref(), &ident))
        }
        _ => {
            let device = message.pointer("/context/device").unwrap_or(&Value::Null);
            let Some(token) = text(device, "token") else { return Err(Refusal::required("context.device.token")) };
            let Some(cio_id) = workspace.people.find_or_create(&ident) else { return Ok(Vec::new()) };
            let Some(person) = workspace.people.get_mut(&cio_id) else { return Ok(Vec::new()) };
            if event == "Device Deleted" {
                person.devices.remove(token);
            } else {
                person.devices.insert(token.to_owned(), device.clone());
            }
            Ok(Vec::new())
        }
    }
}
