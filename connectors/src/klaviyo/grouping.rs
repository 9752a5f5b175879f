//! What of a batch is sent together: events and some upserts one by one, the others as jobs, cut into parts that the vendor takes. Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Map, Value};
use tailwater_core::delivery::Delivery;
use tailwater_core::operation::OperationKind;

use super::payload;
use super::requests::{BULK_BYTES_MAX, BULK_PROFILES_MAX, body, bulk_frame_bytes};
use crate::http::{Size, cut_by_size};

/// A batch, sorted into what is sent together. Indexes are positions in the batch, ascending everywhere.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Groups {
    pub events: Vec<usize>,
    /// Upserts that go one by one.
    pub singles: Vec<usize>,
    /// Upserts that go as jobs, by exact list set: a job adds everyone in it to its lists.
    pub bulk: Vec<(Vec<String>, Vec<usize>)>,
}

/// How a batch is sorted.
pub(super) struct Grouping<'a> {
    /// Fewer upserts than this go one by one, which is quickest.
    pub bulk_from: usize,
    /// Single upserts have no room now: whatever may go as a job does.
    pub prefer_jobs: bool,
    /// Whether a delivery goes by itself in any case.
    pub alone: &'a (dyn Fn(usize) -> bool + Sync),
}

/// Sorts a batch into what is sent together. Small list sets of a large batch still go one by one, as long as they are fewer than
/// `bulk_from` altogether; what a job would not do goes one by one always.
pub(super) fn group(batch: &[Delivery], wanted: &[usize], how: &Grouping<'_>) -> Groups {
    let mut groups = Groups::default();
    let mut alone = Vec::new();
    let mut sets: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for &index in wanted {
        let Some(delivery) = batch.get(index) else { continue };
        let body = delivery.operation.body.get();
        if delivery.operation.kind == OperationKind::TrackEvent {
            groups.events.push(index);
        } else if (how.alone)(index) || for_job(payload::profile(body)).is_none() {
            alone.push(index);
        } else {
            sets.entry(payload::lists_text(body)).or_default().push(index);
        }
    }
    let mut sets: Vec<_> = sets.into_iter().collect();
    sets.sort_by_key(|(_, members)| members.len());
    for (lists, members) in sets {
        if !how.prefer_jobs && groups.bulk.is_empty() && groups.singles.len() + members.len() < how.bulk_from {
            groups.singles.extend(members);
        } else {
            groups.bulk.push((payload::ids(lists), members));
        }
    }
    groups.singles.extend(alone);
    groups.singles.sort_unstable();
    groups
}

/// Deliveries by their exact list set.
pub(super) fn by_lists(batch: &[Delivery], members: &[usize]) -> Vec<(Vec<String>, Vec<usize>)> {
    let mut sets: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for &index in members {
        if let Some(delivery) = batch.get(index) {
            sets.entry(payload::lists_text(delivery.operation.body.get())).or_default().push(index);
        }
    }
    sets.into_iter().map(|(lists, members)| (payload::ids(lists), members)).collect()
}

/// Cuts the members of a job into parts that the vendor takes. `part_max` is the most that a part with this member may have.
pub(super) fn bulk_parts(
    batch: &[Delivery],
    lists: &[String],
    members: &[usize],
    part_max: &dyn Fn(usize) -> usize,
) -> Vec<Vec<usize>> {
    let size = Size { count_max: BULK_PROFILES_MAX, bytes_max: BULK_BYTES_MAX, frame_bytes: bulk_frame_bytes(lists) };
    cut_by_size(members, size, part_max, &|index| for_job(body(batch, index)).map_or(0, |body| body.len()) + 1)
}

/// The bodies of these deliveries as they stand in a job.
pub(super) fn job_bodies<'a>(batch: &'a [Delivery], members: &[usize]) -> impl Iterator<Item = Cow<'a, str>> {
    members.iter().filter_map(|&index| for_job(body(batch, index)))
}

/// A profile as it may stand in a job; `None` if it must go by itself.
///
/// A job ignores nulls, while a single upsert clears what they stand for: whether a field is cleared must not depend on how many people
/// came together. A property that is cleared is named under `meta.patch_properties.unset` in a job, which says the same. For other fields
/// there is no such word.
pub(super) fn for_job<'a>(body: impl Into<Cow<'a, str>>) -> Option<Cow<'a, str>> {
    let body = body.into();
    if !body.contains("null") {
        return Some(body);
    }
    let mut profile: Value = serde_json::from_str(&body).ok()?;
    let mut cleared = Vec::new();
    if let Some(properties) = profile.pointer_mut("/attributes/properties").and_then(Value::as_object_mut) {
        properties.retain(|name, value| {
            if value.is_null() {
                cleared.push(name.clone());
            }
            !value.is_null()
        });
    }
    if holds_null(&profile) {
        return None;
    }
    if cleared.is_empty() {
        return Some(body);
    }
    let profile_fields = profile.as_object_mut()?;
    let meta = profile_fields.entry("meta").or_insert_with(|| Value::Object(Map::new())).as_object_mut()?;
    let patch = meta.entry("patch_properties").or_insert_with(|| Value::Object(Map::new())).as_object_mut()?;
    // Clearing and changing the same property at once has no defined order in a job.
    let changed = |name: &String| {
        ["append", "unappend"].iter().any(|kind| patch.get(*kind).is_some_and(|kind| kind.get(name).is_some()))
    };
    if cleared.iter().any(changed) {
        return None;
    }
    let mut names: Vec<Value> = match patch.remove("unset") {
        None => Vec::new(),
        Some(Value::Array(names)) => names,
        Some(name) => vec![name],
    };
    for name in cleared.into_iter().map(Value::String) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    patch.insert("unset".to_owned(), Value::Array(names));
    serde_json::to_string(&profile).ok().map(Cow::Owned)
}

fn holds_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.iter().any(holds_null),
        Value::Object(fields) => fields.values().any(holds_null),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// What a profile has after an update: nulls clear, and are ignored in a job; `unset` removes in both.
    fn updated(before: &Map<String, Value>, body: &Value, in_job: bool) -> Map<String, Value> {
        let mut properties = before.clone();
        for (name, value) in body.pointer("/attributes/properties").and_then(Value::as_object).into_iter().flatten() {
            match value {
                Value::Null if in_job => {}
                Value::Null => drop(properties.remove(name)),
                value => drop(properties.insert(name.clone(), value.clone())),
            }
        }
        for name in unset(body) {
            properties.remove(&name);
        }
        properties
    }

    fn unset(body: &Value) -> BTreeSet<String> {
        match body.pointer("/meta/patch_properties/unset") {
            Some(Value::String(name)) => BTreeSet::from([name.clone()]),
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => BTreeSet::new(),
        }
    }

    proptest! {
        // Issue 10: whether a null cleared a field depended on how many people came together.
        #[test]
        fn a_profile_says_the_same_in_a_job_or_goes_by_itself(
            properties in prop::collection::btree_map("[a-d]", prop_oneof![Just(Value::Null), Just(json!(1)), Just(json!({"x": null}))], 0..4),
            before in prop::collection::btree_map("[a-d]", Just(json!(0)), 0..4),
            removed in prop::option::of(prop_oneof![Just(json!("a")), Just(json!(["b", "c"]))]),
            appended in prop::option::of("[a-d]"),
            title in prop::option::of(prop_oneof![Just(Value::Null), Just(json!("null"))]),
        ) {
            let mut body = json!({"type": "profile", "attributes": {"email": "a@b.co", "properties": properties}});
            if let Some(title) = title {
                body["attributes"]["title"] = title;
            }
            if let Some(removed) = removed {
                body["meta"]["patch_properties"]["unset"] = removed;
            }
            if let Some(appended) = &appended {
                body["meta"]["patch_properties"]["append"] = json!({(appended.as_str()): 1});
            }
            let text = body.to_string();
            if let Some(in_job) = for_job(text.as_str()) {
                let in_job: Value = serde_json::from_str(&in_job).unwrap();
                prop_assert!(!holds_null(&in_job));
                let before: Map<String, Value> = before.into_iter().collect();
                prop_assert_eq!(updated(&before, &body, false), updated(&before, &in_job, true));
                prop_assert_eq!(&in_job["attributes"]["title"], &body["attributes"]["title"]);
            } else {
                prop_assert!(holds_null(&body), "only a null sends somebody by themselves");
            }
        }
    }
}
