//! Items of Track v2: one entity, or the elements of a batch.

use serde_json::{Map, Value};

use super::answer::{self, Refusal};
use super::people::Ident;
use super::relations::ObjectIdent;
use super::workspace::{Dropped, Event, Update, Workspace};
use super::{attributes, shapes};
use crate::engine::{Answer, Effects, Took};

pub(super) const ITEM_BYTES_MAX: usize = 32_000;
pub(super) const BATCH_BYTES_MAX: usize = 500_000;
pub(super) const EVENT_NAME_BYTES_MAX: usize = 100;

static NONE: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);

fn object<'a>(item: &'a Value, name: &str) -> &'a Map<String, Value> {
    item.get(name).and_then(Value::as_object).unwrap_or(&NONE)
}

fn text<'a>(item: &'a Value, name: &str) -> &'a str {
    item.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// A ULID: 26 letters of Crockford's base 32, of which the first is at most 7.
fn is_ulid(text: &str) -> bool {
    text.len() == 26
        && text.starts_with(|first: char| first.is_ascii_digit() && first <= '7')
        && text.bytes().all(|byte| b"0123456789ABCDEFGHJKMNPQRSTVWXYZ".contains(&byte.to_ascii_uppercase()))
}

/// `POST /api/v2/entity`.
pub(super) fn entity(workspace: &mut Workspace, body: &[u8], types: &[String], now_s: i64) -> Answer {
    if body.len() > ITEM_BYTES_MAX {
        return answer::refused(&[too_large()]);
    }
    let item: Value = match serde_json::from_slice(body) {
        Ok(item) => item,
        Err(error) => return answer::refused(&[Refusal::invalid("", format!("malformed JSON: {error}"))]),
    };
    match apply(workspace, &item, types, now_s) {
        Ok(dropped) => {
            let mut answer = answer::success();
            answer.dropped = dropped;
            answer
        }
        Err(refusals) => answer::refused(&refusals),
    }
}

fn too_large() -> Refusal {
    Refusal::too_long("", "request body cannot be larger than 32kb")
}

/// `POST /api/v2/batch`.
pub(super) fn batch(workspace: &mut Workspace, body: &[u8], types: &[String], now_s: i64) -> Answer {
    if body.len() > BATCH_BYTES_MAX {
        return answer::refused(&[Refusal::too_long("batch", "batch cannot be larger than 500kb")]);
    }
    let body: Value = match serde_json::from_slice(body) {
        Ok(body) => body,
        Err(error) => return answer::refused(&[Refusal::invalid("", format!("malformed JSON: {error}"))]),
    };
    let items = match body.as_object().map(|body| (body.len(), body.get("batch").and_then(Value::as_array))) {
        Some((1, Some(items))) if !items.is_empty() => items,
        _ => return answer::refused(&[Refusal::required("batch")]),
    };
    let (mut refused, mut dropped) = (Vec::new(), Vec::new());
    for (index, item) in items.iter().enumerate() {
        let result = if item.to_string().len() > ITEM_BYTES_MAX {
            Err(vec![too_large()])
        } else {
            apply(workspace, item, types, now_s)
        };
        match result {
            Ok(notes) => dropped.extend(notes.into_iter().map(|note| format!("[{index}] {note}"))),
            Err(refusals) => refused.extend(refusals.into_iter().map(|refusal| (index, refusal))),
        }
    }
    let mut answer = if refused.is_empty() { answer::success() } else { answer::partly(&refused) };
    let mut places: Vec<usize> = refused.iter().map(|(index, _)| *index).collect();
    places.dedup();
    if !places.is_empty() {
        answer = answer.took(Took::Exactly(Effects::AllBut(places)));
    }
    answer.dropped = dropped;
    answer
}

/// Does what an item says.
pub(super) fn apply(
    workspace: &mut Workspace,
    item: &Value,
    types: &[String],
    now_s: i64,
) -> Result<Dropped, Vec<Refusal>> {
    let (kind, action) = (text(item, "type"), text(item, "action"));
    if !matches!(kind, "person" | "object") {
        return Err(vec![Refusal::invalid("type", "type must be person or object (delivery is not simulated)")]);
    }
    let Some(shape) = shapes::of(kind, action) else {
        return Err(vec![Refusal::invalid("action", format!("'{action}' is not an action of a {kind}"))]);
    };
    let misfits = shape.misfits(item);
    if !misfits.is_empty() {
        return Err(misfits.iter().map(Refusal::of_misfit).collect());
    }
    let result = if kind == "person" {
        person(workspace, item, action, types, now_s)
    } else {
        thing(workspace, item, action, types)
    };
    result.map_err(|refusal| vec![refusal])
}

fn person(
    workspace: &mut Workspace,
    item: &Value,
    action: &str,
    types: &[String],
    now_s: i64,
) -> Result<Dropped, Refusal> {
    if action == "merge" {
        let primary = Ident::parse(&item["primary"], "primary")?;
        let secondary = Ident::parse(&item["secondary"], "secondary")?;
        if matches!(primary, Ident::Phone(_)) || matches!(secondary, Ident::Phone(_)) {
            return Err(Refusal::invalid("primary", "people are merged by id, email or cio_id"));
        }
        return Ok(workspace.merge(&primary, &secondary));
    }
    let ident = Ident::parse(&item["identifiers"], "identifiers")?;
    let timestamp = item.get("timestamp").and_then(Value::as_i64);
    match action {
        "identify" => {
            let related = relationships_to_objects(item, types)?;
            let update = Update { ident: ident.clone(), attributes: object(item, "attributes"), timestamp };
            let (found, mut dropped) = workspace.identify(&update, now_s)?;
            if found.is_some() {
                for (to, changes) in related {
                    let key = workspace.objects.find(&to);
                    dropped.extend(workspace.relate(key.as_ref(), &ident, &changes));
                }
            }
            Ok(dropped)
        }
        "delete" => Ok(workspace.delete(&ident)),
        "suppress" => Ok(workspace.suppress(&ident)),
        "unsuppress" => Ok(workspace.unsuppress(&ident)),
        "event" | "page" | "screen" => {
            let name = text(item, "name");
            if name.is_empty() {
                return Err(Refusal::required("name"));
            }
            if name.len() > EVENT_NAME_BYTES_MAX {
                let message = format!("event name cannot be longer than {EVENT_NAME_BYTES_MAX} bytes");
                return Err(Refusal::too_long("name", message));
            }
            let id = item.get("id").and_then(Value::as_str);
            if let Some(id) = id
                && !is_ulid(id)
            {
                return Err(Refusal::invalid("id", format!("'{id}' is not a valid ULID")));
            }
            let kind = ["event", "page", "screen"].into_iter().find(|kind| *kind == action).unwrap_or("event");
            let event = Event {
                person: String::new(),
                kind,
                name: name.to_owned(),
                id: id.map(str::to_ascii_uppercase),
                timestamp: timestamp.unwrap_or(now_s),
                attributes: object(item, "attributes").clone(),
            };
            Ok(workspace.event(&ident, event))
        }
        "add_relationships" | "delete_relationships" => {
            let mut dropped = Vec::new();
            for (to, changes) in relationships_to_objects(item, types)? {
                let key = workspace.objects.find(&to);
                dropped.extend(if action == "add_relationships" {
                    workspace.relate(key.as_ref(), &ident, &changes)
                } else {
                    workspace.unrelate(key.as_ref(), &ident)
                });
            }
            Ok(dropped)
        }
        "add_device" | "delete_device" => device(workspace, item, &ident, action == "add_device"),
        _ => Err(Refusal::invalid("action", format!("'{action}' is not an action of a person"))),
    }
}

fn device(workspace: &mut Workspace, item: &Value, ident: &Ident, add: bool) -> Result<Dropped, Refusal> {
    let device = &item["device"];
    let token = text(device, "token");
    if token.is_empty() {
        return Err(Refusal::required("device.token"));
    }
    if add && !matches!(text(device, "platform"), "ios" | "android") {
        return Err(Refusal::invalid("device.platform", "platform must be ios or android"));
    }
    let found = if add {
        workspace.people.find_or_create(ident)
    } else {
        workspace.people.find(ident).map(|person| person.cio_id.clone())
    };
    let Some(person) = found.and_then(|cio_id| workspace.people.get_mut(&cio_id)) else {
        return Ok(vec![format!("device of {ident:?}: nobody has the identifier")]);
    };
    if add {
        person.devices.insert(token.to_owned(), device.clone());
    } else if person.devices.remove(token).is_none() {
        return Ok(vec![format!("device of {ident:?}: there is no such device")]);
    }
    Ok(Vec::new())
}

type Related<T> = Vec<(T, Map<String, Value>)>;

fn relationships<T>(item: &Value, parse: impl Fn(&Value, &str) -> Result<T, Refusal>) -> Result<Related<T>, Refusal> {
    let mut related = Vec::new();
    for (index, one) in item.get("cio_relationships").and_then(Value::as_array).into_iter().flatten().enumerate() {
        let at = format!("cio_relationships[{index}]");
        let to = parse(&one["identifiers"], &format!("{at}.identifiers"))?;
        let changes = object(one, "relationship_attributes");
        attributes::check(changes, &format!("{at}.relationship_attributes"))?;
        related.push((to, changes.clone()));
    }
    Ok(related)
}

fn relationships_to_objects(item: &Value, types: &[String]) -> Result<Related<ObjectIdent>, Refusal> {
    relationships(item, |value, at| ObjectIdent::parse(value, types, at))
}

/// What an item does to an object.
fn thing(workspace: &mut Workspace, item: &Value, action: &str, types: &[String]) -> Result<Dropped, Refusal> {
    let ident = ObjectIdent::parse(&item["identifiers"], types, "identifiers")?;
    if action == "identify_anonymous" {
        return Err(Refusal::invalid("action", "identify_anonymous is not simulated"));
    }
    let related = relationships(item, |value, at| match Ident::parse(value, at)? {
        Ident::Phone(_) => Err(Refusal::invalid(at, "people are related by id, email or cio_id")),
        ident => Ok(ident),
    })?;
    let found = workspace.objects.find(&ident);
    let key = match (action, found, ident) {
        ("identify", _, ObjectIdent::Key(key)) => {
            attributes::check(object(item, "attributes"), "attributes")?;
            workspace.objects.set(&key, object(item, "attributes"))?;
            key
        }
        ("identify", Some(key), ObjectIdent::Cio(_)) => {
            attributes::check(object(item, "attributes"), "attributes")?;
            workspace.objects.set(&key, object(item, "attributes"))?;
            key
        }
        (_, Some(key), _) => key,
        (_, None, ident) => return Ok(vec![format!("{action} of {ident:?}: there is no such object")]),
    };
    let mut dropped = Vec::new();
    match action {
        "delete" => workspace.objects.delete(&key),
        "delete_relationships" => {
            for (person, _) in related {
                dropped.extend(workspace.unrelate(Some(&key), &person));
            }
        }
        _ => {
            for (person, changes) in related {
                dropped.extend(workspace.relate(Some(&key), &person, &changes));
            }
        }
    }
    Ok(dropped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ulid_is_told_from_other_ids() {
        assert!(is_ulid("01E4C4CT6YDC7Y5M7FE1GWWPQJ"));
        for other in
            ["", "81E4C4CT6YDC7Y5M7FE1GWWPQJ", "01E4C4CT6YDC7Y5M7FE1GWWPQ", "01E4C4CT6YDC7Y5M7FE1GWWPQU", "order-1"]
        {
            assert!(!is_ulid(other), "{other}");
        }
    }
}
