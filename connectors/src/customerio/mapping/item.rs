//! The Track API's own shape: `{type: 'person' | 'object', identifiers, action, …}`.

use serde_json::{Map, Value};
use tailwater_core::operation::OperationKind;

use super::build::{Event, relationships};
use super::person::Person;
use super::take::{invalid, join, object, optional_object, optional_text, refuse_rest, required_text};
use super::{Author, Draft};
use crate::customerio::config::Api;
use crate::destination::ClassifyError;
use crate::output::nearest;

const PERSON_ACTIONS: [&str; 12] = [
    "identify",
    "delete",
    "event",
    "page",
    "screen",
    "add_relationships",
    "delete_relationships",
    "add_device",
    "delete_device",
    "merge",
    "suppress",
    "unsuppress",
];

const OBJECT_ACTIONS: [&str; 4] = ["identify", "delete", "add_relationships", "delete_relationships"];

impl Author<'_> {
    pub(super) fn person_item(
        &mut self,
        mut root: Map<String, Value>,
        said: Option<OperationKind>,
    ) -> Result<Vec<Draft>, ClassifyError> {
        root.remove("type");
        let action = required_text(&mut root, "action", "", "'identify'")?;
        if action == "merge" {
            let primary = self.merged(root.remove("primary"), "primary")?;
            let secondary = self.merged(root.remove("secondary"), "secondary")?;
            refuse_rest(&root, "", &["primary", "secondary"])?;
            return Ok(vec![self.merge(&primary, &secondary)?]);
        }
        let Some(action) = PERSON_ACTIONS.into_iter().find(|known| *known == action) else {
            return Err(unknown_action(&action, &PERSON_ACTIONS));
        };
        let person = self.person(root.remove("identifiers"), "identifiers")?;
        match action {
            "identify" => {
                let kind = identify_kind(said);
                let attributes = optional_object(&mut root, "attributes", "")?.unwrap_or_default();
                let (timestamp, relations) = (root.remove("timestamp"), root.remove("cio_relationships"));
                refuse_rest(&root, "", &["attributes", "timestamp", "cio_relationships"])?;
                let mut drafts = vec![self.identify(&person, attributes, "attributes", timestamp, kind)?];
                if let Some(relations) = relations.filter(|relations| !relations.is_null() && !is_empty(relations)) {
                    drafts.extend(self.relations(&person, Some(relations), true, "cio_relationships")?);
                }
                Ok(drafts)
            }
            "event" | "page" | "screen" => {
                let name = required_text(&mut root, "name", "", "'upgrade_likely'")?;
                let id = optional_text(&mut root, "id", "")?;
                let timestamp = root.remove("timestamp");
                let attributes = optional_object(&mut root, "attributes", "")?.unwrap_or_default();
                if root.contains_key("data") {
                    return Err(invalid("data", "is the word of the old API; this one says `attributes`"));
                }
                refuse_rest(&root, "", &["name", "id", "timestamp", "attributes"])?;
                let event = Event { action, name, name_at: "name", attributes, at: "attributes", timestamp, id };
                Ok(vec![self.event(&person, event)?])
            }
            "add_relationships" | "delete_relationships" => {
                let relations = root.remove("cio_relationships");
                refuse_rest(&root, "", &["cio_relationships"])?;
                self.relations(&person, relations, action == "add_relationships", "cio_relationships")
            }
            "add_device" | "delete_device" => {
                let device = optional_object(&mut root, "device", "")?;
                refuse_rest(&root, "", &["device"])?;
                let device =
                    device.ok_or_else(|| invalid("", "has no `device`; expected `device: {token, platform}`"))?;
                Ok(vec![self.device(&person, device, action == "add_device", "device")?])
            }
            _ => {
                refuse_rest(&root, "", &[])?;
                let kind = match action {
                    "delete" => OperationKind::DeleteProfile,
                    "suppress" => OperationKind::Suppress,
                    _ => OperationKind::Unsuppress,
                };
                Ok(vec![self.bare(&person, action, kind)])
            }
        }
    }

    /// A person of a merge: the vendor takes no phone number there.
    fn merged(&self, value: Option<Value>, at: &str) -> Result<Person, ClassifyError> {
        let person = self.person(value, at)?;
        if person.field == super::Field::Phone {
            return Err(invalid(&join(at, "phone"), "cannot name a person of a merge; use id, email or cio_id"));
        }
        Ok(person)
    }

    pub(super) fn object_item(&mut self, mut root: Map<String, Value>) -> Result<Vec<Draft>, ClassifyError> {
        root.remove("type");
        let action = required_text(&mut root, "action", "", "'identify'")?;
        if action == "identify_anonymous" {
            return Err(invalid(
                "action",
                "is refused: it names a browser, which cannot be checked against the profile",
            ));
        }
        if !OBJECT_ACTIONS.contains(&action.as_str()) {
            return Err(unknown_action(&action, &OBJECT_ACTIONS));
        }
        let id = self.object_id(root.remove("identifiers"), "identifiers")?;
        match action.as_str() {
            "identify" => {
                if self.rules.api == Api::Pipelines {
                    return Err(invalid(
                        "",
                        "cannot be sent: the Pipelines API takes an object with a person only; return `{type: 'group', userId, groupId, \
                         traits}`, or use `api: track`",
                    ));
                }
                let attributes = optional_object(&mut root, "attributes", "")?.unwrap_or_default();
                let relations = root.remove("cio_relationships");
                refuse_rest(&root, "", &["attributes", "cio_relationships"])?;
                let mut drafts = vec![self.upsert_object(&id, attributes, "attributes")?];
                if let Some(relations) = relations.filter(|relations| !relations.is_null() && !is_empty(relations)) {
                    drafts.extend(self.people_of(&id, Some(relations), true)?);
                }
                Ok(drafts)
            }
            "delete" => {
                refuse_rest(&root, "", &[])?;
                Ok(vec![self.delete_object(&id)])
            }
            _ => {
                let relations = root.remove("cio_relationships");
                refuse_rest(&root, "", &["cio_relationships"])?;
                self.people_of(&id, relations, action == "add_relationships")
            }
        }
    }

    /// People of an object: each must be the profile. A relationship is kept as the person's, whose order it has.
    fn people_of(
        &mut self,
        id: &super::build::ObjectId,
        value: Option<Value>,
        add: bool,
    ) -> Result<Vec<Draft>, ClassifyError> {
        let mut drafts = Vec::new();
        for (index, relation) in relationships(value, "cio_relationships")?.into_iter().enumerate() {
            let at = format!("cio_relationships[{index}]");
            let mut relation = object(relation, &at, "an object with `identifiers`")?;
            let person = self.person(relation.remove("identifiers"), &join(&at, "identifiers"))?;
            let attributes = optional_object(&mut relation, "relationship_attributes", &at)?;
            refuse_rest(&relation, &at, &["identifiers", "relationship_attributes"])?;
            drafts.push(self.relation(&person, id, attributes, add, &at)?);
        }
        Ok(drafts)
    }
}

/// What an `identify` is, where the author says more than the shape does.
pub(super) fn identify_kind(said: Option<OperationKind>) -> OperationKind {
    match said {
        Some(kind @ (OperationKind::ChangeIdentifier | OperationKind::Subscribe | OperationKind::Unsubscribe)) => kind,
        _ => OperationKind::UpsertProfile,
    }
}

fn is_empty(relations: &Value) -> bool {
    relations.as_array().is_some_and(Vec::is_empty)
}

fn unknown_action(action: &str, known: &[&str]) -> ClassifyError {
    let hint = nearest(action, known.iter().copied()).map_or(String::new(), |near| format!("; did you mean `{near}`?"));
    invalid("action", &format!("is `{action}`; expected one of {}{hint}", known.join(", ")))
}
