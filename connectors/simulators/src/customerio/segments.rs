//! Manual segments of Track v1. Who is not known is ignored without a word.

use serde_json::Value;

use super::answer;
use super::people::Ident;
use super::workspace::Workspace;
use crate::engine::Answer;

const IDS_MAX: usize = 1_000;

/// `POST /api/v1/segments/{id}/add_customers` and `…/remove_customers`.
pub(super) fn change(workspace: &mut Workspace, id: &str, id_type: Option<&str>, body: &[u8], add: bool) -> Answer {
    let id_type = id_type.unwrap_or("id");
    if !matches!(id_type, "id" | "email" | "cio_id") {
        return answer::error(400, "id_type must be id, email or cio_id");
    }
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return answer::error(400, "malformed JSON") };
    let ids = match body.as_object().map(|body| (body.len(), body.get("ids").and_then(Value::as_array))) {
        Some((1, Some(ids))) if (1..=IDS_MAX).contains(&ids.len()) => ids,
        _ => return answer::error(400, "ids must have 1 to 1000 elements, and nothing may stand beside it"),
    };
    if ids.iter().any(|id| !id.is_string()) {
        return answer::error(400, "ids must be strings");
    }
    let Some(number) = id.parse::<u32>().ok().filter(|number| workspace.segments.contains_key(number)) else {
        return answer::error(400, "segment does not exist, or is not a manual segment");
    };
    let mut dropped = Vec::new();
    for name in ids.iter().filter_map(Value::as_str) {
        let found = Ident::new(id_type, name, String::new()).ok().and_then(|ident| workspace.people.find(&ident));
        // People without an id cannot be removed.
        let found = found.filter(|person| add || person.id.is_some()).map(|person| person.cio_id.clone());
        let Some(segment) = workspace.segments.get_mut(&number) else { continue };
        match found {
            None => dropped.push(format!("segment {number}: {id_type} {name} is ignored")),
            Some(person) if add => {
                segment.members.insert(person);
            }
            Some(person) => {
                segment.members.remove(&person);
            }
        }
    }
    let mut answer = answer::success();
    answer.dropped = dropped;
    answer
}
