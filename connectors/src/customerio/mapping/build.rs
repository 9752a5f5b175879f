//! Items of the Track API, made of checked parts. Both shapes of an output end here.

use serde_json::{Map, Value, json};
use tailwater_core::Timestamp;
use tailwater_core::operation::OperationKind;

use super::person::Person;
use super::take::{invalid, join, optional_object, optional_text, refuse_rest, required_text, wrong_type};
use super::time::seconds;
use super::{Author, Draft};
use crate::customerio::config::Api;
use crate::customerio::limits::{EVENT_NAME_BYTES_MAX, RELATIONSHIPS_MAX, check_attributes, check_id};
use crate::customerio::{pipelines, ulid};
use crate::destination::ClassifyError;
use crate::output::{Nulls, omit_nulls};

/// An object as an item names one.
pub(super) struct ObjectId {
    pub identifiers: Map<String, Value>,
    /// The name of it in an operation's target: `1/acme`.
    pub target: String,
}

/// What an author says about an event.
pub(super) struct Event {
    /// `event`, `page` or `screen`.
    pub action: &'static str,
    pub name: String,
    /// Where the name stands in the output.
    pub name_at: &'static str,
    pub attributes: Map<String, Value>,
    /// Where the attributes stand in the output.
    pub at: &'static str,
    pub timestamp: Option<Value>,
    pub id: Option<String>,
}

impl Author<'_> {
    /// An operation with the remarks that were made since the last one.
    pub(super) fn draft(&mut self, kind: OperationKind, target: Option<String>, item: Value) -> Draft {
        Draft {
            kind,
            target,
            item,
            time: None,
            event_id: None,
            anonymous_id: None,
            context: None,
            integrations: None,
            by: None,
            remarks: std::mem::take(&mut self.remarks),
        }
    }

    pub(super) fn identify(
        &mut self,
        person: &Person,
        attributes: Map<String, Value>,
        at: &str,
        timestamp: Option<Value>,
        kind: OperationKind,
    ) -> Result<Draft, ClassifyError> {
        let mut attributes = self.person_attributes(attributes, at, person, kind)?;
        if !self.rules.create {
            attributes.insert("_update".to_owned(), Value::Bool(true));
        }
        let time = self.state_time(timestamp)?;
        let mut item = person_item(person, "identify");
        item.insert("attributes".to_owned(), Value::Object(attributes));
        if let Some(time) = time {
            item.insert("timestamp".to_owned(), Value::from(seconds(time)));
        }
        let mut draft = self.draft(kind, None, Value::Object(item));
        draft.time = time;
        Ok(draft)
    }

    /// The vendor silently drops an update whose time is before that of the last one. The order of updates is kept here, so the time
    /// is sent only where the configuration says so.
    fn state_time(&mut self, timestamp: Option<Value>) -> Result<Option<Timestamp>, ClassifyError> {
        let given = timestamp.filter(|value| !value.is_null());
        match (given, self.rules.state_timestamps) {
            (None, false) => Ok(None),
            (None, true) => Ok(self.source_time()),
            (Some(value), true) => self.time(&value, "timestamp").map(Some),
            (Some(_), false) => {
                let remark = "timestamp: left out, because the vendor silently drops an update that is older than the last one; the \
                              destination's `state_timestamps` sends it";
                self.remarks.push(remark.to_owned());
                Ok(None)
            }
        }
    }

    fn source_time(&self) -> Option<Timestamp> {
        Some(self.input.time).filter(|time| *time != Timestamp::default())
    }

    pub(super) fn event(&mut self, person: &Person, event: Event) -> Result<Draft, ClassifyError> {
        let Event { action, name, name_at, mut attributes, at, timestamp, id } = event;
        if name.len() > EVENT_NAME_BYTES_MAX {
            let message = format!(
                "the vendor says: event name cannot be longer than {EVENT_NAME_BYTES_MAX} bytes; this one has {}",
                name.len()
            );
            return Err(invalid(name_at, &message));
        }
        if self.rules.api == Api::Pipelines && action == "event" && pipelines::is_semantic(&name) {
            let message = format!(
                "is `{name}`, which the Pipelines API carries out instead of recording it; return the item or the call of that operation"
            );
            return Err(invalid(name_at, &message));
        }
        self.refuse_implicit("an event")?;
        omit_nulls(&mut attributes);
        // The vendor sends the message that the event triggers to this address instead of the person's.
        if let Some(recipient) = attributes.get("recipient") {
            let at = join(at, "recipient");
            let own = self.identifier(super::Field::Email, recipient, &at)?;
            match own {
                Some(own) => drop(attributes.insert("recipient".to_owned(), Value::String(own))),
                None => drop(attributes.remove("recipient")),
            }
        }
        let time = match timestamp.filter(|value| !value.is_null()) {
            Some(value) => Some(self.time(&value, "timestamp")?),
            // Without a time the vendor takes the moment of the request, which can be a month after the event.
            None => self.source_time(),
        };
        let event_id = match id {
            Some(id) if ulid::is_valid(&id) => Some(id),
            Some(id) => {
                let shown: String = id.chars().take(40).collect();
                let message = format!(
                    "`{shown}` is no ULID; the vendor takes nothing else, and ignores an id that it has seen for whomever. Leave it out: the \
                     delivery has an id of its own"
                );
                return Err(invalid("id", &message));
            }
            None => None,
        };
        let mut item = person_item(person, action);
        item.insert("name".to_owned(), Value::String(name));
        if let Some(time) = time {
            item.insert("timestamp".to_owned(), Value::from(seconds(time)));
        }
        item.insert("attributes".to_owned(), Value::Object(attributes));
        let mut draft = self.draft(OperationKind::TrackEvent, None, Value::Object(item));
        (draft.time, draft.event_id) = (time, event_id);
        Ok(draft)
    }

    /// Delete, suppress and unsuppress have nothing besides the person.
    pub(super) fn bare(&mut self, person: &Person, action: &str, kind: OperationKind) -> Draft {
        self.draft(kind, None, Value::Object(person_item(person, action)))
    }

    pub(super) fn relation(
        &mut self,
        person: &Person,
        object: &ObjectId,
        attributes: Option<Map<String, Value>>,
        add: bool,
        at: &str,
    ) -> Result<Draft, ClassifyError> {
        if add {
            self.refuse_implicit("a relationship")?;
        }
        let mut relation = Map::new();
        relation.insert("identifiers".to_owned(), Value::Object(object.identifiers.clone()));
        if let Some(mut attributes) = attributes.filter(|_| add) {
            if self.rules.nulls == Nulls::Omit {
                omit_nulls(&mut attributes);
            }
            check_attributes(&attributes, &join(at, "relationship_attributes"))?;
            relation.insert("relationship_attributes".to_owned(), Value::Object(attributes));
        }
        let (action, kind) = if add {
            ("add_relationships", OperationKind::Relate)
        } else {
            ("delete_relationships", OperationKind::Unrelate)
        };
        let mut item = person_item(person, action);
        item.insert("cio_relationships".to_owned(), json!([relation]));
        Ok(self.draft(kind, Some(object.target.clone()), Value::Object(item)))
    }

    /// A person's device: connected with the person as an object is.
    pub(super) fn device(
        &mut self,
        person: &Person,
        mut device: Map<String, Value>,
        add: bool,
        at: &str,
    ) -> Result<Draft, ClassifyError> {
        let token = required_text(&mut device, "token", at, "row.device_token")?;
        let mut out = Map::new();
        out.insert("token".to_owned(), Value::from(token.as_str()));
        if add {
            self.refuse_implicit("a device")?;
            let platform = required_text(&mut device, "platform", at, "'ios' or 'android'")?;
            if !matches!(platform.as_str(), "ios" | "android") {
                return Err(invalid(&join(at, "platform"), &format!("is `{platform}`; expected `ios` or `android`")));
            }
            out.insert("platform".to_owned(), Value::from(platform));
            if let Some(used) = device.remove("last_used").filter(|used| !used.is_null()) {
                let time = self.time(&used, &join(at, "last_used"))?;
                out.insert("last_used".to_owned(), Value::from(seconds(time)));
            }
            if let Some(attributes) = optional_object(&mut device, "attributes", at)? {
                out.insert(
                    "attributes".to_owned(),
                    Value::Object(device_attributes(attributes, &join(at, "attributes"))?),
                );
            }
        }
        refuse_rest(&device, at, &["token", "platform", "last_used", "attributes"])?;
        let (action, kind) =
            if add { ("add_device", OperationKind::Relate) } else { ("delete_device", OperationKind::Unrelate) };
        let mut item = person_item(person, action);
        item.insert("device".to_owned(), Value::Object(out));
        Ok(self.draft(kind, Some(format!("device/{token}")), Value::Object(item)))
    }

    pub(super) fn upsert_object(
        &mut self,
        object: &ObjectId,
        attributes: Map<String, Value>,
        at: &str,
    ) -> Result<Draft, ClassifyError> {
        check_attributes(&attributes, at)?;
        let mut item = object_item(object, "identify");
        item.insert("attributes".to_owned(), Value::Object(attributes));
        Ok(self.draft(OperationKind::UpsertObject, Some(object.target.clone()), Value::Object(item)))
    }

    pub(super) fn delete_object(&mut self, object: &ObjectId) -> Draft {
        let item = Value::Object(object_item(object, "delete"));
        self.draft(OperationKind::DeleteObject, Some(object.target.clone()), item)
    }

    pub(super) fn merge(&mut self, primary: &Person, secondary: &Person) -> Result<Draft, ClassifyError> {
        if primary == secondary {
            return Err(invalid("secondary", "names the same person as `primary`; nobody is merged with themselves"));
        }
        if self.rules.api == Api::Pipelines {
            return Err(self.track_only("merges people"));
        }
        let item = json!({"type": "person", "action": "merge", "primary": primary.to_json(), "secondary": secondary.to_json()});
        if !self.rules.create {
            let remark = "the vendor does nothing, and does not say so, if it does not know the primary person; with `create: false` that \
                          cannot be prevented";
            self.remarks.push(remark.to_owned());
        }
        Ok(self.draft(OperationKind::MergeProfiles, None, item))
    }

    /// `{object_type_id, object_id}`, or the vendor's own id of an object that exists.
    pub(super) fn object_id(&self, value: Option<Value>, at: &str) -> Result<ObjectId, ClassifyError> {
        const EXAMPLE: &str = "`{object_type_id: '1', object_id: row.account_id}`";
        let Some(Value::Object(mut given)) = value else {
            return Err(match value {
                Some(other) => wrong_type(at, EXAMPLE, &other),
                None => invalid(at, &format!("are missing; expected {EXAMPLE}")),
            });
        };
        if let Some(own) = optional_text(&mut given, "cio_object_id", at)? {
            refuse_rest(&given, at, &["cio_object_id"])?;
            check_id(&own, &join(at, "cio_object_id"))?;
            if self.rules.api == Api::Pipelines {
                return Err(self.track_only("takes `cio_object_id`"));
            }
            let identifiers = Map::from_iter([("cio_object_id".to_owned(), Value::from(own.as_str()))]);
            return Ok(ObjectId { identifiers, target: format!("cio_object_id/{own}") });
        }
        let kind = required_text(&mut given, "object_type_id", at, "'1'")?;
        let id = required_text(&mut given, "object_id", at, "row.account_id")?;
        refuse_rest(&given, at, &["object_type_id", "object_id", "cio_object_id"])?;
        object_id(&kind, &id, &join(at, "object_type_id"), &join(at, "object_id"))
    }

    /// Relationships of a person in the author's order: `[{identifiers: {object_type_id, object_id}, relationship_attributes}]`.
    pub(super) fn relations(
        &mut self,
        person: &Person,
        value: Option<Value>,
        add: bool,
        at: &str,
    ) -> Result<Vec<Draft>, ClassifyError> {
        let mut drafts = Vec::new();
        for (index, relation) in relationships(value, at)?.into_iter().enumerate() {
            let at = format!("{at}[{index}]");
            let mut relation = super::take::object(relation, &at, "an object with `identifiers`")?;
            let object = self.object_id(relation.remove("identifiers"), &join(&at, "identifiers"))?;
            let attributes = optional_object(&mut relation, "relationship_attributes", &at)?;
            refuse_rest(&relation, &at, &["identifiers", "relationship_attributes"])?;
            drafts.push(self.relation(person, &object, attributes, add, &at)?);
        }
        Ok(drafts)
    }

    /// The vendor may create a person by something that is no update, and offers no way to prevent it.
    fn refuse_implicit(&self, what: &str) -> Result<(), ClassifyError> {
        if self.rules.create || self.rules.implicit_create {
            return Ok(());
        }
        let message = format!(
            "is {what}, by which the vendor may create a person, while the destination says `create: false`; say `implicit_create: true` \
             there if that is acceptable"
        );
        Err(invalid("", &message))
    }

    /// Only the Track API can do this.
    pub(super) fn track_only(&self, what: &str) -> ClassifyError {
        invalid("", &format!("cannot be sent: only the Track API {what}, and the account says `api: pipelines`"))
    }
}

/// Checks and names an object.
pub(super) fn object_id(kind: &str, id: &str, kind_at: &str, id_at: &str) -> Result<ObjectId, ClassifyError> {
    if !kind.parse::<u32>().is_ok_and(|kind| kind > 0) {
        let shown: String = kind.chars().take(40).collect();
        return Err(invalid(kind_at, &format!("is `{shown}`; the vendor numbers the types of objects from 1 on")));
    }
    check_id(id, id_at)?;
    let members = [("object_type_id", kind), ("object_id", id)];
    let identifiers = members.map(|(name, value)| (name.to_owned(), Value::from(value)));
    Ok(ObjectId { identifiers: Map::from_iter(identifiers), target: format!("{kind}/{id}") })
}

/// The members of a list of relationships; at least one.
pub(super) fn relationships(value: Option<Value>, at: &str) -> Result<Vec<Value>, ClassifyError> {
    match value {
        Some(Value::Array(relations)) if relations.len() > RELATIONSHIPS_MAX => {
            Err(invalid(at, &format!("names {} relationships, the limit is {RELATIONSHIPS_MAX}", relations.len())))
        }
        Some(Value::Array(relations)) if !relations.is_empty() => Ok(relations),
        Some(Value::Array(_)) => Err(invalid(at, "is empty; leave the output out where there is no relationship")),
        Some(other) => Err(wrong_type(at, "an array", &other)),
        None => Err(invalid(at, "are missing; expected `[{identifiers: {…}, relationship_attributes: {…}}]`")),
    }
}

fn person_item(person: &Person, action: &str) -> Map<String, Value> {
    Map::from_iter([
        ("type".to_owned(), Value::from("person")),
        ("identifiers".to_owned(), person.to_json()),
        ("action".to_owned(), Value::from(action)),
    ])
}

fn object_item(object: &ObjectId, action: &str) -> Map<String, Value> {
    Map::from_iter([
        ("type".to_owned(), Value::from("object")),
        ("identifiers".to_owned(), Value::Object(object.identifiers.clone())),
        ("action".to_owned(), Value::from(action)),
    ])
}

/// The vendor takes texts only.
fn device_attributes(attributes: Map<String, Value>, at: &str) -> Result<Map<String, Value>, ClassifyError> {
    let mut out = Map::new();
    for (name, value) in attributes {
        let path = join(at, &name);
        if name == "_last_status" {
            return Err(invalid(&path, "is refused: the vendor alone writes it"));
        }
        match value {
            Value::Null => {}
            Value::String(text) => drop(out.insert(name, Value::String(text))),
            Value::Bool(flag) => drop(out.insert(name, Value::from(flag.to_string()))),
            Value::Number(number) => drop(out.insert(name, Value::from(number.to_string()))),
            other @ (Value::Array(_) | Value::Object(_)) => return Err(wrong_type(&path, "a text", &other)),
        }
    }
    check_attributes(&out, at)?;
    Ok(out)
}
