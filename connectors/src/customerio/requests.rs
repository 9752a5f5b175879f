//! Operations → requests. Pure: what stands here is what `--dry-run` shows and what `deliver` sends.
//!
//! Bodies are put together as text, because an item is checked JSON already; only an event gets its id, which the delivery decides.

use serde_json::Value;
use serde_json::value::RawValue;
use tailwater_core::delivery::Delivery;
use tailwater_core::operation::OperationKind;

use super::config::Api;
use super::limits::{BATCH_BYTES_MAX, BATCH_ITEMS_MAX, SEGMENT_IDS_MAX};
use super::payload::{Member, Payload};
use super::{endpoint, pipelines, ulid};
use crate::http::{Request, Size, cut, cut_by_size, encoded};

/// A delivery's item in the form of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub body: String,
    /// The address of the item where it goes alone.
    pub path: String,
    /// It has to go alone.
    pub alone: bool,
    /// What is said with the delivery.
    pub remark: Option<String>,
}

/// One request's worth of people who join or leave a manual segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Segment<'a> {
    pub id: &'a str,
    pub add: bool,
    pub id_type: &'a str,
}

/// What a batch may carry. Only items that need not go alone are cut by it.
const BATCH: Size =
    Size { count_max: BATCH_ITEMS_MAX, bytes_max: BATCH_BYTES_MAX, frame_bytes: r#"{"batch":[]}"#.len() };

/// The item of a delivery.
///
/// # Errors
/// The operation was recorded in a form that cannot be sent through this API.
pub(super) fn item(api: Api, delivery: &Delivery) -> Result<Item, String> {
    let payload = Payload::of(&delivery.operation).ok_or("the recorded operation cannot be read; replay its event")?;
    let event_id = || ulid::of_delivery(delivery.time, delivery.key);
    let remark = payload.remark();
    match api {
        Api::Track => {
            let body = if delivery.operation.kind == OperationKind::TrackEvent {
                with_id(&payload.item, &payload.event_id.unwrap_or_else(event_id))?
            } else {
                payload.item.get().to_owned()
            };
            Ok(Item { body, path: "/api/v2/entity".to_owned(), alone: false, remark })
        }
        Api::Pipelines => {
            let call = pipelines::call(&payload, &event_id())?;
            Ok(Item { body: call.body, path: format!("/v1/{}", call.kind), alone: call.alone, remark })
        }
    }
}

/// The vendor takes the members of an item in any order.
fn with_id(item: &RawValue, id: &str) -> Result<String, String> {
    let rest = item.get().trim_start().strip_prefix('{').ok_or("the recorded event is no object; replay its event")?;
    Ok(format!(r#"{{"id":"{id}",{rest}"#))
}

/// The item that makes sure that the object of a relationship, or the person who remains after a merge, exists: an update without
/// content. The Track API does nothing, or something unspecified, where they do not.
pub(super) fn existence(delivery: &Delivery) -> Option<Item> {
    let payload = Payload::of(&delivery.operation)?;
    let item: Value = serde_json::from_str(payload.item.get()).ok()?;
    let (kind, identifiers) = match delivery.operation.kind {
        OperationKind::Relate => ("object", item.pointer("/cio_relationships/0/identifiers")?),
        OperationKind::MergeProfiles => ("person", item.get("primary")?),
        _ => return None,
    };
    // The vendor's own id is known of something only that exists.
    if identifiers.get("cio_object_id").is_some() || identifiers.get("cio_id").is_some() {
        return None;
    }
    let body = format!(r#"{{"type":"{kind}","identifiers":{identifiers},"action":"identify","attributes":{{}}}}"#);
    Some(Item { body, path: "/api/v2/entity".to_owned(), alone: false, remark: None })
}

/// One item, or many.
pub(super) fn send(api: Api, items: &[&Item]) -> Request {
    if let [only] = items {
        let endpoint = match api {
            Api::Track => &endpoint::ENTITY,
            Api::Pipelines => &endpoint::CALL,
        };
        return Request::post(endpoint, only.path.clone(), only.body.clone());
    }
    let mut body =
        String::with_capacity(BATCH.frame_bytes + items.iter().map(|item| item.body.len() + 1).sum::<usize>());
    body.push_str(r#"{"batch":["#);
    for (place, item) in items.iter().enumerate() {
        if place > 0 {
            body.push(',');
        }
        body.push_str(&item.body);
    }
    body.push_str("]}");
    match api {
        Api::Track => Request::post(&endpoint::BATCH, "/api/v2/batch", body),
        Api::Pipelines => Request::post(&endpoint::CALLS, "/v1/batch", body),
    }
}

/// Cuts deliveries into requests: by count, by bytes, by what earlier failures have taught, and alone where an item must be.
pub(super) fn parts<'a>(
    members: &[usize],
    item: &dyn Fn(usize) -> Option<&'a Item>,
    part_max: &dyn Fn(usize) -> usize,
) -> Vec<Vec<usize>> {
    let most = |index: usize| if item(index).is_some_and(|item| item.alone) { 1 } else { part_max(index) };
    cut_by_size(members, BATCH, &most, &|index| item(index).map_or(0, |item| item.body.len() + 1))
}

/// Cuts people of one segment into requests.
pub(super) fn segment_parts(members: &[usize], part_max: &dyn Fn(usize) -> usize) -> Vec<Vec<usize>> {
    cut(members, SEGMENT_IDS_MAX, part_max)
}

/// Adds people to a manual segment, or takes them off it.
pub(super) fn members<'a>(segment: Segment<'_>, members: impl Iterator<Item = &'a Member>) -> Request {
    let ids = Value::Array(members.map(|member| Value::from(member.id.as_str())).collect());
    let (endpoint, verb) = if segment.add {
        (&endpoint::ADD_TO_SEGMENT, "add_customers")
    } else {
        (&endpoint::REMOVE_FROM_SEGMENT, "remove_customers")
    };
    let path = format!("/api/v1/segments/{}/{verb}?id_type={}", encoded(segment.id), encoded(segment.id_type));
    Request::post(endpoint, path, format!(r#"{{"ids":{ids}}}"#))
}

/// Asks where the workspace's data lies. Works at the addresses of both regions.
pub(super) fn region() -> Request {
    Request::get(&endpoint::REGION, "/api/v1/accounts/region")
}

/// A batch without calls: changes nothing, and needs a key that works.
pub(super) fn no_calls() -> Request {
    Request::post(&endpoint::CALLS, "/v1/batch", r#"{"batch":[]}"#)
}
