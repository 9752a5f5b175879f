//! Events: `{email | userId, eventName, id?, createdAt?, dataFields?, …}`.

use serde_json::{Map, Value};
use tailwater_core::Timestamp;
use tailwater_core::operation::OperationKind;

use super::take::{coerce, invalid, refuse_rest};
use super::{Checker, Made};
use crate::destination::ClassifyError;
use crate::iterable::schema::{EVENT, EVENT_ID_BYTES_MAX};

impl Checker<'_> {
    pub(super) fn event(&mut self, mut root: Map<String, Value>) -> Result<Made, ClassifyError> {
        let person = self.take_person(&mut root, "")?;
        let mut out = Map::new();
        self.put_name(&person, "", &mut out)?;
        for (name, shape) in EVENT {
            // Nothing of an event is there before it, so a null clears nothing and is left out.
            let Some(value) = root.remove(*name).filter(|value| !value.is_null()) else { continue };
            let value = coerce(value, *shape, name)?;
            if *name == "createNewFields" {
                self.same_create_new_fields(&value, name)?;
                continue;
            }
            out.insert((*name).to_owned(), value);
        }
        if out.get("eventName").and_then(Value::as_str).is_none_or(str::is_empty) {
            return Err(invalid("eventName", "is empty; an event needs a name"));
        }
        check_id(&mut out)?;
        self.put_time(&mut out);
        if let Some(fields) = root.remove("dataFields").filter(|fields| !fields.is_null()) {
            out.insert("dataFields".to_owned(), Value::Object(self.facts(fields, "dataFields")?));
        }
        out.insert("createNewFields".to_owned(), Value::Bool(self.rules.create_new_fields));
        let known = EVENT.iter().map(|(name, _)| *name).chain(["email", "userId", "dataFields"]);
        refuse_rest(&root, "", known, "; what the event is about goes under dataFields")?;
        Ok(Made { kind: OperationKind::TrackEvent, target: None, body: out })
    }

    /// Without a time the vendor takes the moment of the request, which can be a month after the event.
    pub(super) fn put_time(&self, out: &mut Map<String, Value>) {
        if self.input.time != Timestamp::default() {
            let seconds = self.input.time.as_millis().div_euclid(1_000);
            out.entry("createdAt").or_insert_with(|| Value::from(seconds));
        }
    }
}

/// An id of the author's own; without one, the request gets the delivery's key.
pub(super) fn check_id(out: &mut Map<String, Value>) -> Result<(), ClassifyError> {
    let Some(id) = out.get("id").and_then(Value::as_str) else { return Ok(()) };
    if id.is_empty() {
        out.remove("id");
    } else if id.len() > EVENT_ID_BYTES_MAX {
        return Err(invalid("id", &format!("has {} bytes, the vendor takes {EVENT_ID_BYTES_MAX}", id.len())));
    }
    Ok(())
}
