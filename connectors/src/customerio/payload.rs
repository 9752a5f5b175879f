//! The body of an operation: one item as the Track API takes it, and what does not fit into it.
//!
//! The body is the same for both APIs, so that deliveries which wait while an account changes its `api` go to the one that is configured
//! when they are sent. A request makes the final form of it: see `requests` and `pipelines`.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tailwater_core::Timestamp;
use tailwater_core::operation::Operation;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Payload {
    /// `{"type":"person","identifiers":{…},"action":…}`; an event is without its id.
    pub item: Box<RawValue>,
    /// The time of an event, or of a state that is sent with its time: an item has whole seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Timestamp>,
    /// The id that the author gave an event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<String>,
    /// The browser or device that the author named beside the person; the Pipelines API alone takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anonymous_id: Option<String>,
    /// `context` of a Segment-shaped output; the Pipelines API alone takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<Map<String, Value>>,
    /// `integrations` of a Segment-shaped output; the Pipelines API alone takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integrations: Option<Map<String, Value>>,
    /// The person in whose row an object was named. The Pipelines API takes an object with a person only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// What was left out or converted, in sentences: the remark of the delivery.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
}

/// Whom a change of a manual segment is about: the `item` of such an operation, whose target is the segment. The vendor takes it at
/// addresses of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Member {
    pub id_type: String,
    pub id: String,
}

// === impl Payload ===

impl Payload {
    /// The payload of an operation; `None` if another version of Tailwater wrote it in another form.
    pub fn of(operation: &Operation) -> Option<Self> {
        serde_json::from_str(operation.body.get()).ok()
    }

    /// What is said with the delivery.
    pub fn remark(&self) -> Option<String> {
        (!self.remarks.is_empty()).then(|| self.remarks.join("; "))
    }

    /// Whether the item can stand in a batch of the Pipelines API: the context of a batch applies to all that is in it.
    pub fn has_context(&self) -> bool {
        self.context.is_some() || self.integrations.is_some()
    }

    pub fn member(&self) -> Option<Member> {
        serde_json::from_str(self.item.get()).ok()
    }
}
