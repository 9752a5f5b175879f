//! Calls as Segment's libraries make them: `{type: 'identify', userId, traits}`. The names of events that the Pipelines API carries out
//! (`User Deleted`, …) are those operations here as well, whichever API the account uses.

use serde_json::{Map, Value};
use tailwater_core::Timestamp;
use tailwater_core::operation::OperationKind;

use super::build::{Event, object_id};
use super::item::identify_kind;
use super::person::{Field, Person};
use super::take::{invalid, join, optional_object, optional_text, refuse_rest, required_text};
use super::{Author, Draft};
use crate::customerio::config::Api;
use crate::customerio::ulid;
use crate::destination::ClassifyError;

/// Members of a context that name somebody.
const CONTEXT_REFUSED: [&str; 4] = ["traits", "externalIds", "groupId", "userId"];

/// What a call has besides its subject.
struct Frame {
    anonymous_id: Option<String>,
    message_id: Option<String>,
    timestamp: Option<Value>,
    context: Option<Map<String, Value>>,
    integrations: Option<Map<String, Value>>,
}

impl Author<'_> {
    pub(super) fn call(
        &mut self,
        mut root: Map<String, Value>,
        said: Option<OperationKind>,
    ) -> Result<Vec<Draft>, ClassifyError> {
        let kind = required_text(&mut root, "type", "", "'identify'")?;
        let user = self.user(root.remove("userId"))?;
        let mut frame = self.frame(&mut root)?;
        let mut drafts = match kind.as_str() {
            "identify" => {
                let mut traits = optional_object(&mut root, "traits", "")?.unwrap_or_default();
                refuse_rest(&root, "", &["traits"])?;
                let person = match user {
                    Some(person) => person,
                    None => self.person_by_email(&mut traits)?,
                };
                vec![self.identify(&person, traits, "traits", frame.timestamp.take(), identify_kind(said))?]
            }
            "track" => self.track(user, root, &mut frame)?,
            "page" | "screen" => {
                let action = if kind == "page" { "page" } else { "screen" };
                let name = required_text(&mut root, "name", "", "'Pricing'")?;
                let attributes = optional_object(&mut root, "properties", "")?.unwrap_or_default();
                refuse_rest(&root, "", &["name", "properties"])?;
                vec![self.call_event(&somebody(user)?, action, name, "name", attributes, &mut frame)?]
            }
            "group" => self.group(user, root)?,
            _ => {
                let previous = root.remove("previousId").unwrap_or_default();
                refuse_rest(&root, "", &["previousId"])?;
                let primary = somebody(user)?;
                let Some(value) = self.identifier(primary.field, &previous, "previousId")? else {
                    return Err(invalid("previousId", "names nobody"));
                };
                vec![self.merge(&primary, &Person { field: primary.field, value })?]
            }
        };
        if let Some(first) = drafts.first_mut() {
            self.settle(frame, first);
        }
        Ok(drafts)
    }

    /// `userId` is the vendor's `id`; where the destination has none, it is what names people there.
    fn user(&self, value: Option<Value>) -> Result<Option<Person>, ClassifyError> {
        let field = if self.rules.identifiers.contains_key(Field::Id.as_str()) { Field::Id } else { self.rules.key };
        let value = self.identifier(field, &value.unwrap_or_default(), "userId")?;
        Ok(value.map(|value| Person { field, value }))
    }

    /// A person without a `userId` may be named by the trait `email`.
    fn person_by_email(&self, traits: &mut Map<String, Value>) -> Result<Person, ClassifyError> {
        if self.rules.api == Api::Pipelines {
            return Err(nobody());
        }
        let email = traits.remove("email").unwrap_or_default();
        let value = self.identifier(Field::Email, &email, "traits.email")?;
        value.map(|value| Person { field: Field::Email, value }).ok_or_else(nobody)
    }

    fn frame(&mut self, root: &mut Map<String, Value>) -> Result<Frame, ClassifyError> {
        let anonymous = root.remove("anonymousId").filter(|id| !id.is_null());
        let message_id = optional_text(root, "messageId", "")?;
        let timestamp = root.remove("timestamp");
        let context = optional_object(root, "context", "")?.filter(|context| !context.is_empty());
        let integrations = optional_object(root, "integrations", "")?.filter(|members| !members.is_empty());
        let anonymous_id = match (self.rules.api, anonymous) {
            (_, None) => None,
            (Api::Track, Some(_)) => {
                self.remarks.push("anonymousId: left out, because the Track API has no place for it".to_owned());
                None
            }
            (Api::Pipelines, Some(id)) => self.identifier(Field::AnonymousId, &id, "anonymousId")?,
        };
        if let Some(name) = context.iter().flat_map(Map::keys).find(|name| CONTEXT_REFUSED.contains(&name.as_str())) {
            let message = "is refused: it names somebody in a way that cannot be checked against the profile";
            return Err(invalid(&join("context", name), message));
        }
        Ok(Frame { anonymous_id, message_id, timestamp, context, integrations })
    }

    /// Gives the first operation of a call what stands beside its subject. What has no place is left out with a remark.
    fn settle(&mut self, frame: Frame, draft: &mut Draft) {
        let Frame { anonymous_id, message_id: _, timestamp, context, integrations } = frame;
        match self.rules.api {
            Api::Track => {
                for (name, given) in [("context", context.is_some()), ("integrations", integrations.is_some())] {
                    if given {
                        draft.remarks.push(format!("{name}: left out, because the Track API has no place for it"));
                    }
                }
            }
            Api::Pipelines => {
                (draft.context, draft.integrations, draft.anonymous_id) = (context, integrations, anonymous_id);
            }
        }
        if timestamp.is_some_and(|timestamp| !timestamp.is_null()) {
            draft.remarks.push("timestamp: left out, because the operation has no time".to_owned());
        }
        draft.remarks.append(&mut self.remarks);
    }

    fn call_event(
        &mut self,
        person: &Person,
        action: &'static str,
        name: String,
        name_at: &'static str,
        attributes: Map<String, Value>,
        frame: &mut Frame,
    ) -> Result<Draft, ClassifyError> {
        let timestamp = frame.timestamp.take();
        let event = Event { action, name, name_at, attributes, at: "properties", timestamp, id: None };
        let mut draft = self.event(person, event)?;
        draft.event_id = frame.message_id.take().map(|id| {
            if ulid::is_valid(&id) { id } else { ulid::of_message(draft.time.unwrap_or(Timestamp::default()), &id) }
        });
        Ok(draft)
    }

    fn track(
        &mut self,
        user: Option<Person>,
        mut root: Map<String, Value>,
        frame: &mut Frame,
    ) -> Result<Vec<Draft>, ClassifyError> {
        let name = required_text(&mut root, "event", "", "'upgrade_likely'")?;
        let mut properties = optional_object(&mut root, "properties", "")?.unwrap_or_default();
        refuse_rest(&root, "", &["event", "properties"])?;
        let bare = |kind| (kind, properties.is_empty());
        let (kind, fits) = match name.as_str() {
            "User Deleted" | "Delete Person" => bare(OperationKind::DeleteProfile),
            "User Suppressed" => bare(OperationKind::Suppress),
            "User Unsuppressed" => bare(OperationKind::Unsuppress),
            "Relationship Deleted" => (OperationKind::Unrelate, true),
            "Object Deleted" => (OperationKind::DeleteObject, true),
            "Device Created or Updated" | "Device Deleted" => {
                return Ok(vec![self.track_device(
                    &somebody(user)?,
                    name == "Device Created or Updated",
                    properties,
                    frame,
                )?]);
            }
            "Report Delivery Event" | "Report Content Event" => {
                let message = format!("is `{name}`: metrics of messages are reported by the device that shows them");
                return Err(invalid("event", &message));
            }
            _ => return Ok(vec![self.call_event(&somebody(user)?, "event", name, "event", properties, frame)?]),
        };
        if !fits {
            return Err(invalid("properties", &format!("are not taken with `{name}`")));
        }
        Ok(vec![match kind {
            OperationKind::DeleteProfile => self.bare(&somebody(user)?, "delete", kind),
            OperationKind::Suppress => self.bare(&somebody(user)?, "suppress", kind),
            OperationKind::Unsuppress => self.bare(&somebody(user)?, "unsuppress", kind),
            _ => {
                let id = required_text(&mut properties, "objectId", "properties", "row.account_id")?;
                let sort = optional_text(&mut properties, "objectTypeId", "properties")?;
                refuse_rest(&properties, "properties", &["objectId", "objectTypeId"])?;
                let sort = sort.as_deref().unwrap_or("1");
                let object = object_id(sort, &id, "properties.objectTypeId", "properties.objectId")?;
                if kind == OperationKind::DeleteObject {
                    self.delete_object(&object)
                } else {
                    self.relation(&somebody(user)?, &object, None, false, "properties")?
                }
            }
        }])
    }

    /// A device stands in the context of its call.
    fn track_device(
        &mut self,
        person: &Person,
        add: bool,
        mut device: Map<String, Value>,
        frame: &mut Frame,
    ) -> Result<Draft, ClassifyError> {
        let mut context = frame.context.take().unwrap_or_default();
        let mut named = optional_object(&mut context, "device", "context")?.unwrap_or_default();
        frame.context = Some(context).filter(|context| !context.is_empty());
        if !add {
            named.remove("type");
        } else if let Some(platform) = named.remove("type") {
            named.insert("platform".to_owned(), platform);
        }
        if let Some(used) = device.remove("last_used") {
            named.insert("last_used".to_owned(), used);
        }
        refuse_rest(&device, "properties", &["last_used"])?;
        self.device(person, named, add, "context.device")
    }

    /// An object, and the person's relationship with it.
    fn group(&mut self, user: Option<Person>, mut root: Map<String, Value>) -> Result<Vec<Draft>, ClassifyError> {
        let id = required_text(&mut root, "groupId", "", "row.account_id")?;
        let upper = optional_text(&mut root, "objectTypeId", "")?;
        let mut traits = optional_object(&mut root, "traits", "")?.unwrap_or_default();
        refuse_rest(&root, "", &["groupId", "objectTypeId", "traits"])?;
        let mut sort = upper;
        for name in ["object_type_id", "objectTypeId"] {
            if let Some(given) = optional_text(&mut traits, name, "traits")? {
                sort = Some(given);
            }
        }
        let relation = optional_object(&mut traits, "relationshipAttributes", "traits")?;
        let object = object_id(sort.as_deref().unwrap_or("1"), &id, "traits.object_type_id", "groupId")?;
        if user.is_none() && (relation.is_some() || self.rules.api == Api::Pipelines) {
            return Err(nobody());
        }
        let mut upsert = self.upsert_object(&object, traits, "traits")?;
        upsert.by = user.as_ref().map(|person| person.value.clone());
        let mut drafts = vec![upsert];
        if let Some(person) = user {
            drafts.push(self.relation(&person, &object, relation, true, "traits")?);
        }
        Ok(drafts)
    }
}

fn somebody(user: Option<Person>) -> Result<Person, ClassifyError> {
    user.ok_or_else(nobody)
}

fn nobody() -> ClassifyError {
    invalid("userId", "names nobody; give the profile's identifier")
}
