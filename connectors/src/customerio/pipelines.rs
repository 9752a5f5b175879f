//! Items → calls of the Pipelines API: Segment's shape, in which operations without a call of their own are events with special names.
//!
//! What this API cannot say is refused here in words, and the mapping asks before anything waits: the API itself answers 200 to what it
//! drops, and even in strict mode it knows no error for a field that it ignores.

use serde_json::{Map, Value, json};

use super::payload::Payload;

/// Events that the vendor carries out instead of recording them.
const SEMANTIC: [&str; 9] = [
    "Device Created or Updated",
    "Device Deleted",
    "User Deleted",
    "Delete Person",
    "User Suppressed",
    "User Unsuppressed",
    "Relationship Deleted",
    "Object Deleted",
    "Report Delivery Event",
];

/// A call, and where it goes when it goes alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call {
    /// `identify`, `track`, `page`, `screen` or `group`.
    pub kind: &'static str,
    pub body: String,
    /// It has a context, which in a batch would be everybody's.
    pub alone: bool,
}

/// Whether an event of this name does something.
pub(super) fn is_semantic(name: &str) -> bool {
    SEMANTIC.contains(&name) || name == "Report Content Event"
}

/// The call of a payload. `event_id` is for an event without an id of its own.
///
/// # Errors
/// The API cannot say it.
pub(super) fn call(payload: &Payload, event_id: &str) -> Result<Call, String> {
    let mut item: Map<String, Value> =
        serde_json::from_str(payload.item.get()).map_err(|error| format!("the item cannot be read ({error})"))?;
    let action = text(&item, "action").to_owned();
    let mut call = Map::new();
    let mut context = payload.context.clone().unwrap_or_default();
    let kind = if text(&item, "type") == "object" {
        object(&mut item, &action, payload, &mut call)?
    } else {
        person(&mut item, &action, payload, event_id, &mut call, &mut context)?
    };
    if let Some(anonymous) = &payload.anonymous_id {
        call.insert("anonymousId".to_owned(), Value::from(anonymous.as_str()));
    }
    if let Some(time) = payload.time {
        call.insert("timestamp".to_owned(), Value::from(time.to_string()));
    }
    let alone = !context.is_empty() || payload.has_context();
    if !context.is_empty() {
        call.insert("context".to_owned(), Value::Object(context));
    }
    if let Some(integrations) = &payload.integrations {
        call.insert("integrations".to_owned(), Value::Object(integrations.clone()));
    }
    let mut members = Map::from_iter([("type".to_owned(), Value::from(kind))]);
    members.extend(call);
    let body = serde_json::to_string(&members).map_err(|error| format!("the call cannot be written ({error})"))?;
    Ok(Call { kind, body, alone })
}

fn person(
    item: &mut Map<String, Value>,
    action: &str,
    payload: &Payload,
    event_id: &str,
    call: &mut Map<String, Value>,
    context: &mut Map<String, Value>,
) -> Result<&'static str, String> {
    let user = item.get("identifiers").and_then(|identifiers| identifiers.get("id")).and_then(Value::as_str);
    let Some(user) = user else {
        return Err("the Pipelines API names people by `userId` only, which is the identifier `id`".to_owned());
    };
    call.insert("userId".to_owned(), Value::from(user));
    let attributes = item.remove("attributes").unwrap_or_else(|| json!({}));
    match action {
        "identify" => {
            if attributes.get("_update").is_some() {
                return Err(
                    "the Pipelines API cannot update a person without creating one: `create: false` needs `api: track`"
                        .to_owned(),
                );
            }
            call.insert("traits".to_owned(), attributes);
            Ok("identify")
        }
        "event" | "page" | "screen" => {
            let name = item.remove("name").unwrap_or_default();
            let (kind, member) = match action {
                "event" => ("track", "event"),
                "page" => ("page", "name"),
                _ => ("screen", "name"),
            };
            call.insert(member.to_owned(), name);
            call.insert("properties".to_owned(), attributes);
            let id = payload.event_id.as_deref().unwrap_or(event_id);
            call.insert("messageId".to_owned(), Value::from(id));
            Ok(kind)
        }
        "delete" => Ok(semantic(call, "User Deleted", json!({}))),
        "suppress" => Ok(semantic(call, "User Suppressed", json!({}))),
        "unsuppress" => Ok(semantic(call, "User Unsuppressed", json!({}))),
        "add_relationships" => {
            let relation = item.get("cio_relationships").and_then(|relations| relations.get(0));
            let (sort, id) = object_of(relation.and_then(|relation| relation.get("identifiers")))?;
            let mut traits = Map::from_iter([("object_type_id".to_owned(), Value::from(sort))]);
            if let Some(attributes) = relation.and_then(|relation| relation.get("relationship_attributes")) {
                traits.insert("relationshipAttributes".to_owned(), attributes.clone());
            }
            call.insert("groupId".to_owned(), Value::from(id));
            call.insert("traits".to_owned(), Value::Object(traits));
            Ok("group")
        }
        "delete_relationships" => {
            let relation = item.get("cio_relationships").and_then(|relations| relations.get(0));
            let (sort, id) = object_of(relation.and_then(|relation| relation.get("identifiers")))?;
            Ok(semantic(call, "Relationship Deleted", object_properties(&sort, &id)))
        }
        "add_device" | "delete_device" => {
            let device = item.get("device").cloned().unwrap_or_default();
            if ["last_used", "attributes"].iter().any(|name| device.get(name).is_some()) {
                return Err("the Pipelines API takes the token and the type of a device and nothing else".to_owned());
            }
            let mut named = Map::from_iter([("token".to_owned(), device.get("token").cloned().unwrap_or_default())]);
            if let Some(platform) = device.get("platform") {
                named.insert("type".to_owned(), platform.clone());
            }
            context.insert("device".to_owned(), Value::Object(named));
            let name = if action == "add_device" { "Device Created or Updated" } else { "Device Deleted" };
            Ok(semantic(call, name, json!({})))
        }
        other => Err(format!("the Pipelines API has no `{other}`; use `api: track`")),
    }
}

fn object(
    item: &mut Map<String, Value>,
    action: &str,
    payload: &Payload,
    call: &mut Map<String, Value>,
) -> Result<&'static str, String> {
    let (sort, id) = object_of(item.get("identifiers"))?;
    match action {
        "identify" => {
            let Some(user) = &payload.by else {
                return Err("the Pipelines API takes an object with a person only".to_owned());
            };
            call.insert("userId".to_owned(), Value::from(user.as_str()));
            call.insert("groupId".to_owned(), Value::from(id));
            let mut traits = Map::from_iter([("object_type_id".to_owned(), Value::from(sort))]);
            if let Some(Value::Object(attributes)) = item.remove("attributes") {
                traits.extend(attributes);
            }
            call.insert("traits".to_owned(), Value::Object(traits));
            Ok("group")
        }
        "delete" => {
            // The vendor wants somebody to have said it, and takes any name.
            call.insert("anonymousId".to_owned(), Value::from(format!("object-{sort}-{id}")));
            Ok(semantic(call, "Object Deleted", object_properties(&sort, &id)))
        }
        other => Err(format!("the Pipelines API has no `{other}` of an object; use `api: track`")),
    }
}

fn semantic(call: &mut Map<String, Value>, name: &str, properties: Value) -> &'static str {
    call.insert("event".to_owned(), Value::from(name));
    call.insert("properties".to_owned(), properties);
    "track"
}

fn object_of(identifiers: Option<&Value>) -> Result<(String, String), String> {
    let member = |name: &str| identifiers.and_then(|given| given.get(name)).and_then(Value::as_str).map(str::to_owned);
    match (member("object_type_id"), member("object_id")) {
        (Some(sort), Some(id)) => Ok((sort, id)),
        (Some(_) | None, _) => {
            Err("the Pipelines API names objects by `object_type_id` and `object_id` only".to_owned())
        }
    }
}

/// Here the type is a number.
fn object_properties(sort: &str, id: &str) -> Value {
    json!({"objectId": id, "objectTypeId": sort.parse::<u32>().unwrap_or(1)})
}

fn text<'a>(item: &'a Map<String, Value>, name: &str) -> &'a str {
    item.get(name).and_then(Value::as_str).unwrap_or_default()
}
