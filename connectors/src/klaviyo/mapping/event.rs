//! Events: `{"data":{"type":"event","attributes":{"metric":…,"profile":…,"properties":…}}}`. The profile in one is held against the
//! person as strictly as a profile of its own, since the vendor creates and updates people by it.

use serde_json::{Map, Value};
use tailwater_core::Timestamp;

use super::Checker;
use super::take::{coerce, expect_type, invalid, object, refuse_rest, refused, unknown, wrong_type};
use crate::destination::ClassifyError;
use crate::klaviyo::schema::{EVENT, EVENT_PROPERTIES_MAX, METRIC_CHARS_END};
use crate::output::omit_nulls;

const PROFILE_EXAMPLE: &str = "{data: {type: 'profile', attributes: {email: row.email}}}";

impl Checker<'_> {
    /// `{type, attributes: {metric, profile, properties?, …}}` → the body. A metric may be given by its name.
    pub(super) fn event(&mut self, mut data: Map<String, Value>) -> Result<Value, ClassifyError> {
        let attributes = data.remove("attributes").ok_or_else(|| invalid("data", "has no `attributes`"))?;
        refuse_rest(&data, "data", &["type", "attributes"])?;
        let mut out = Map::new();
        for (name, value) in object(attributes, "data.attributes", "an object")? {
            let at = format!("data.attributes.{name}");
            if let Some((_, shape)) = EVENT.iter().find(|(known, _)| *known == name) {
                // Nothing of an event is there before it, so a null clears nothing and is left out.
                if !value.is_null() {
                    out.insert(name, coerce(value, *shape, &at)?);
                }
            } else if name == "properties" {
                let mut properties = if value.is_null() { Map::new() } else { object(value, &at, "an object")? };
                omit_nulls(&mut properties);
                if properties.len() > EVENT_PROPERTIES_MAX {
                    return Err(invalid(
                        &at,
                        &format!("has {} members, the limit is {EVENT_PROPERTIES_MAX}", properties.len()),
                    ));
                }
                out.insert(name, Value::Object(properties));
            } else if name == "metric" {
                out.insert(name, metric(value, &at)?);
            } else if name == "profile" {
                out.insert(name, self.event_profile(value, &at)?);
            } else {
                let known = EVENT.iter().map(|(known, _)| *known).chain(["properties", "metric", "profile"]);
                return Err(unknown(
                    &at,
                    &name,
                    known,
                    "; what the event is about goes under data.attributes.properties",
                ));
            }
        }
        for (needed, example) in
            [("metric", "{data: {type: 'metric', attributes: {name: 'Placed Order'}}}"), ("profile", PROFILE_EXAMPLE)]
        {
            if !out.contains_key(needed) {
                return Err(invalid("data.attributes", &format!("has no `{needed}`; expected `{needed}: {example}`")));
            }
        }
        out.entry("properties").or_insert_with(|| Value::Object(Map::new()));
        // Without a time the vendor takes the moment of the request, which can be a month after the event.
        if self.input.time != Timestamp::default() {
            out.entry("time").or_insert_with(|| Value::String(self.input.time.to_string()));
        }
        Ok(serde_json::json!({"type": "event", "attributes": out}))
    }

    fn event_profile(&mut self, value: Value, at: &str) -> Result<Value, ClassifyError> {
        let mut profile = object(value, at, PROFILE_EXAMPLE)?;
        let data = profile
            .remove("data")
            .ok_or_else(|| invalid(at, &format!("has no `data`; expected `{PROFILE_EXAMPLE}`")))?;
        refuse_rest(&profile, at, &["data"])?;
        let at = format!("{at}.data");
        let mut data = object(data, &at, "an object with `type` and `attributes`")?;
        if data.get("id").is_some_and(|id| !id.is_null()) {
            return Err(refused(&format!("{at}.id"), "id"));
        }
        data.remove("id");
        let attributes = data.remove("attributes").ok_or_else(|| invalid(&at, "has no `attributes`"))?;
        expect_type(data.remove("type"), "profile", &at)?;
        refuse_rest(&data, &at, &["type", "attributes"])?;
        let attributes = self.profile_attributes(attributes, &format!("{at}.attributes"))?;
        Ok(serde_json::json!({"data": {"type": "profile", "attributes": attributes}}))
    }
}

/// `{data: {type: 'metric', attributes: {name}}}` or the name alone.
fn metric(value: Value, at: &str) -> Result<Value, ClassifyError> {
    const EXAMPLE: &str = "`{data: {type: 'metric', attributes: {name: '…'}}}` or a name";
    let name = match value {
        Value::String(name) => name,
        other => {
            let mut metric = object(other, at, EXAMPLE)?;
            let mut data = object(
                metric.remove("data").unwrap_or_default(),
                &format!("{at}.data"),
                "an object with `type` and `attributes`",
            )?;
            refuse_rest(&metric, at, &["data"])?;
            expect_type(data.remove("type"), "metric", &format!("{at}.data"))?;
            let attributes = data.remove("attributes").unwrap_or_default();
            refuse_rest(&data, &format!("{at}.data"), &["type", "attributes"])?;
            let at = format!("{at}.data.attributes");
            let mut attributes = object(attributes, &at, "an object with `name`")?;
            let name = attributes.remove("name").unwrap_or_default();
            refuse_rest(&attributes, &at, &["name"])?;
            match name {
                Value::String(name) => name,
                other => return Err(wrong_type(&format!("{at}.name"), "a text", &other)),
            }
        }
    };
    let name = name.trim();
    if name.is_empty() || name.chars().count() >= METRIC_CHARS_END {
        return Err(invalid(at, &format!("needs a name of 1 to {} characters", METRIC_CHARS_END - 1)));
    }
    Ok(serde_json::json!({"data": {"type": "metric", "attributes": {"name": name}}}))
}
