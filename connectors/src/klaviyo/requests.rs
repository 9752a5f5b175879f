//! Operations → requests. Pure: what stands here is what `--dry-run` shows and what `deliver` sends.
//!
//! Bodies are put together as text, because an operation's body is checked JSON already: 5,000 profiles are copied once and
//! parsed never.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::Value;
use tailwater_core::delivery::Delivery;
use tailwater_core::operation::{Operation, OperationKind};

use super::{endpoint, payload};
use crate::http::{Endpoint, Request, encoded};

/// The largest body of a bulk import, in bytes. The vendor takes 5 MB without saying whether that is 5,000,000 or 5,242,880
/// bytes; a margin below the smaller one costs nothing.
pub(super) const BULK_BYTES_MAX: usize = 4_800_000;

/// The most profiles of a bulk import; the vendor takes 10,000. Half of it keeps jobs short and one job per batch.
pub(super) const BULK_PROFILES_MAX: usize = 5_000;

/// The largest profile or single body, in bytes, the frame of the request included; the vendor takes 100 KB.
pub(super) const PROFILE_BYTES_MAX: usize = 99_000;

/// The largest event, in bytes. The vendor takes 5 MB; an outbound record of that size would not fit into Kafka.
pub(super) const EVENT_BYTES_MAX: usize = 900_000;

/// Profiles that one request adds to a list.
pub(super) const LIST_PROFILES_MAX: usize = 1_000;

/// People that one look-up asks for: the largest page of an answer.
pub(super) const LOOKUP_VALUES_MAX: usize = 100;

/// The longest filter of a look-up, encoded: addresses beyond 8 KB are refused by many servers on the way.
pub(super) const LOOKUP_BYTES_MAX: usize = 6_000;

/// Where the pointers of a bulk import's errors lead to.
pub(super) const BULK_POINTER: &str = "/data/attributes/profiles/data";

/// Where the pointers of a list's errors lead to.
pub(super) const LIST_POINTER: &str = "/data";

/// A vendor's field that identifies a person, and its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Field {
    Email,
    PhoneNumber,
    ExternalId,
}

/// The identifiers that stand in an operation's body.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Identified {
    pub email: Option<String>,
    pub phone_number: Option<String>,
    pub external_id: Option<String>,
}

// === impl Field ===

impl Field {
    /// The most certain first.
    pub const ALL: [Self; 3] = [Self::Email, Self::PhoneNumber, Self::ExternalId];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::PhoneNumber => "phone_number",
            Self::ExternalId => "external_id",
        }
    }

    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.as_str() == name)
    }

    /// The form in which two values are compared: addresses without case, numbers without what people put between digits.
    pub fn normal(self, value: &str) -> String {
        let value = value.trim();
        match self {
            Self::Email => value.to_lowercase(),
            Self::PhoneNumber => {
                value.chars().filter(|char| !matches!(char, ' ' | '-' | '.' | '(' | ')' | '/' | '\u{a0}')).collect()
            }
            Self::ExternalId => value.to_owned(),
        }
    }
}

// === impl Identified ===

impl Identified {
    /// The identifiers in an operation's body.
    pub fn of(operation: &Operation) -> Self {
        #[derive(Deserialize)]
        struct Profile {
            attributes: Identified,
        }
        #[derive(Deserialize)]
        struct Data {
            data: Profile,
        }
        #[derive(Deserialize)]
        struct Attributes {
            profile: Data,
        }
        #[derive(Deserialize)]
        struct Event {
            attributes: Attributes,
        }
        let text = operation.body.get();
        let found = if operation.kind == OperationKind::TrackEvent {
            serde_json::from_str::<Event>(text).map(|event| event.attributes.profile.data.attributes)
        } else {
            serde_json::from_str::<Profile>(text).map(|profile| profile.attributes)
        };
        found.unwrap_or_default()
    }

    pub fn get(&self, field: Field) -> Option<&str> {
        match field {
            Field::Email => self.email.as_deref(),
            Field::PhoneNumber => self.phone_number.as_deref(),
            Field::ExternalId => self.external_id.as_deref(),
        }
    }

    /// Field and comparable value of each that is there.
    pub fn normal(&self) -> impl Iterator<Item = (Field, String)> + '_ {
        Field::ALL.into_iter().filter_map(|field| self.get(field).map(|value| (field, field.normal(value))))
    }
}

// === requests ===

/// Create or update one person; the answer holds the id that list memberships need.
pub(super) fn upsert(body: &str) -> Request {
    let body = format!(r#"{{"data":{body}}}"#);
    // Nothing but the id is read of the answer; without this the vendor repeats the whole profile.
    Request::post(&endpoint::PROFILE_IMPORT, "/api/profile-import?fields%5Bprofile%5D=email".to_owned(), body)
}

/// Create or update many people, and add everyone among them to the lists.
pub(super) fn bulk_import(bodies: impl Iterator<Item = impl AsRef<str>>, lists: &[String]) -> Request {
    let mut body = String::from(r#"{"data":{"type":"profile-bulk-import-job","attributes":{"profiles":{"data":["#);
    join(&mut body, bodies);
    body.push_str("]}}");
    if !lists.is_empty() {
        body.push_str(r#","relationships":{"lists":{"data":["#);
        let lists: Vec<_> = lists.iter().map(|list| format!(r#"{{"type":"list","id":{}}}"#, quoted(list))).collect();
        join(&mut body, lists.iter().map(String::as_str));
        body.push_str("]}}");
    }
    body.push_str("}}");
    Request::post(&endpoint::BULK_IMPORT, "/api/profile-bulk-import-jobs".to_owned(), body)
}

/// The bytes that a bulk import has besides its profiles.
pub(super) fn bulk_frame_bytes(lists: &[String]) -> usize {
    bulk_import(std::iter::empty::<&str>(), lists).body.map_or(0, |body| body.len())
}

/// Add people whom the vendor has given ids to a list. Gives no consent and subscribes nobody.
pub(super) fn add_to_list<'a>(list: &str, profiles: impl Iterator<Item = &'a str>) -> Request {
    let mut body = String::from(r#"{"data":["#);
    let items: Vec<_> = profiles.map(|id| format!(r#"{{"type":"profile","id":{}}}"#, quoted(id))).collect();
    join(&mut body, items.iter().map(String::as_str));
    body.push_str("]}");
    Request::post(&endpoint::LIST_PROFILES, format!("/api/lists/{}/relationships/profiles", encoded(list)), body)
}

/// Record an event. Its `unique_id` is the delivery's key unless the author gave one: the vendor ignores a repeat of it. A
/// backfill triggers no flow.
pub(super) fn event(delivery: &Delivery) -> Request {
    let body = with_event_facts(delivery).unwrap_or_else(|| delivery.operation.body.get().to_owned());
    Request::post(&endpoint::EVENTS, "/api/events".to_owned(), format!(r#"{{"data":{body}}}"#))
}

fn with_event_facts(delivery: &Delivery) -> Option<String> {
    let mut event: Value = serde_json::from_str(delivery.operation.body.get()).ok()?;
    let attributes = event.get_mut("attributes")?.as_object_mut()?;
    attributes.entry("unique_id").or_insert_with(|| Value::String(delivery.key.to_string()));
    if delivery.backfill {
        attributes.insert("backfill".to_owned(), Value::Bool(true));
    }
    serde_json::to_string(&event).ok()
}

pub(super) fn job(id: &str) -> Request {
    let fields = "status,total_count,completed_count,failed_count";
    Request::get(
        &endpoint::JOB,
        format!(
            "/api/profile-bulk-import-jobs/{}?fields%5Bprofile-bulk-import-job%5D={}",
            encoded(id),
            encoded(fields)
        ),
    )
}

pub(super) fn import_errors(job: &str, cursor: Option<&str>) -> Request {
    let mut path = format!("/api/profile-bulk-import-jobs/{}/import-errors?page%5Bsize%5D=100", encoded(job));
    if let Some(cursor) = cursor {
        let _infallible = write!(path, "&page%5Bcursor%5D={}", encoded(cursor));
    }
    Request::get(&endpoint::JOB_ERRORS, path)
}

/// Ask which of these people exist.
pub(super) fn look_up(field: Field, values: &[String]) -> Request {
    let list: Vec<_> = values.iter().map(|value| quoted(value)).collect();
    let filter = format!("any({},[{}])", field.as_str(), list.join(","));
    let path = format!(
        "/api/profiles?filter={}&fields%5Bprofile%5D={}&page%5Bsize%5D={LOOKUP_VALUES_MAX}",
        encoded(&filter),
        encoded("email,phone_number,external_id")
    );
    Request::get(&endpoint::PROFILES, path)
}

/// A question that needs the same scopes as the endpoint, and changes nothing. Where the endpoint only writes, the body lacks what the
/// specification requires (`attributes`, without which there is neither a person nor an event), so that a key with the scopes gets a 400.
pub(super) fn probe(endpoint: &'static Endpoint) -> Request {
    let incomplete = |endpoint: &'static Endpoint, path: &str, kind: &str| {
        Request::post(endpoint, path, format!(r#"{{"data":{{"type":"{kind}"}}}}"#))
    };
    if *endpoint == endpoint::PROFILE_IMPORT {
        incomplete(endpoint, "/api/profile-import", "profile")
    } else if *endpoint == endpoint::EVENTS {
        incomplete(endpoint, "/api/events", "event")
    } else if *endpoint == endpoint::BULK_IMPORT || *endpoint == endpoint::LIST_PROFILES {
        // A list's path needs a list; the import of profiles into lists needs the same scopes.
        incomplete(&endpoint::BULK_IMPORT, "/api/profile-bulk-import-jobs", "profile-bulk-import-job")
    } else if *endpoint == endpoint::JOB {
        Request::get(endpoint, "/api/profile-bulk-import-jobs?page%5Bsize%5D=1")
    } else if *endpoint == endpoint::JOB_ERRORS || *endpoint == endpoint::PROFILES {
        Request::get(&endpoint::PROFILES, "/api/profiles?fields%5Bprofile%5D=email&page%5Bsize%5D=1")
    } else {
        Request::get(&endpoint::LISTS, "/api/lists?fields%5Blist%5D=name&page%5Bsize%5D=1")
    }
}

/// The profile of a delivery of the batch.
pub(super) fn body(batch: &[Delivery], index: usize) -> Cow<'_, str> {
    batch.get(index).map_or(Cow::Borrowed(""), |delivery| payload::profile(delivery.operation.body.get()))
}

/// The body without all identifiers but the wanted one, and the names of the others. `None` when it lacks the wanted one or has no other.
pub(super) fn with_one_identifier(operation: &Operation, wanted: Field) -> Option<(String, Vec<&'static str>)> {
    let there = Identified::of(operation);
    there.get(wanted)?;
    let others: Vec<&'static str> = Field::ALL
        .into_iter()
        .filter(|field| *field != wanted && there.get(*field).is_some())
        .map(Field::as_str)
        .collect();
    if others.is_empty() {
        return None;
    }
    let mut profile: Value = serde_json::from_str(&payload::profile(operation.body.get())).ok()?;
    let attributes = profile.get_mut("attributes")?.as_object_mut()?;
    attributes.retain(|name, _| Field::find(name).is_none_or(|field| field == wanted));
    serde_json::to_string(&profile).ok().map(|body| (body, others))
}

fn join(text: &mut String, items: impl Iterator<Item = impl AsRef<str>>) {
    for (index, item) in items.enumerate() {
        if index > 0 {
            text.push(',');
        }
        text.push_str(item.as_ref());
    }
}

/// A JSON string.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}
