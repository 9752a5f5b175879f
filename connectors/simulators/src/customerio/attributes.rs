//! Attributes of people, objects and relationships: their limits, and how they are set.

use serde_json::{Map, Value};

use super::answer::Refusal;

pub(super) const ATTRIBUTES_MAX: usize = 300;
const NAME_BYTES_MAX: usize = 150;
const VALUE_BYTES_MAX: usize = 1_000;

/// Checks the attributes of a request in the vendor's own words.
pub(super) fn check(attributes: &Map<String, Value>, at: &str) -> Result<(), Refusal> {
    if attributes.len() > ATTRIBUTES_MAX {
        let message = format!("cannot identify more than {ATTRIBUTES_MAX} attributes in one request");
        return Err(Refusal::too_long(at, message));
    }
    for (name, value) in attributes {
        let field = format!("{at}.{name}");
        if name.is_empty() {
            return Err(Refusal::invalid(field, "attribute name cannot be empty"));
        }
        if name.len() > NAME_BYTES_MAX {
            let message = format!("attribute name cannot be longer than {NAME_BYTES_MAX} bytes");
            return Err(Refusal::too_long(field, message));
        }
        // The preferences are the vendor's own structure.
        if name != "cio_subscription_preferences" && length(value) > VALUE_BYTES_MAX {
            let message = format!("attribute value cannot be longer than {VALUE_BYTES_MAX} bytes");
            return Err(Refusal::too_long(field, message));
        }
    }
    Ok(())
}

fn length(value: &Value) -> usize {
    value.as_str().map_or_else(|| value.to_string().len(), str::len)
}

/// Sets attributes; null and an empty string remove one.
pub(super) fn set(target: &mut Map<String, Value>, attributes: &Map<String, Value>) {
    for (name, value) in attributes {
        if value.is_null() || value.as_str() == Some("") {
            target.shift_remove(name);
        } else {
            target.insert(name.clone(), value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn limits_are_said_in_the_vendors_words() {
        let refused = |value: Value| {
            let Value::Object(attributes) = value else { panic!() };
            check(&attributes, "attributes").map_err(|refusal| (refusal.field, refusal.message))
        };
        assert_eq!(refused(json!({"plan": "gold", "text": "x".repeat(1_000)})), Ok(()));
        let (field, message) = refused(json!({"text": "x".repeat(1_001)})).unwrap_err();
        assert_eq!(
            (field.as_str(), message.as_str()),
            ("attributes.text", "attribute value cannot be longer than 1000 bytes")
        );
        let long = refused(json!({"x".repeat(151): 1})).unwrap_err().1;
        assert_eq!(long, "attribute name cannot be longer than 150 bytes");
        let many: Map<String, Value> = (0..301).map(|index| (format!("a{index}"), json!(1))).collect();
        let many = refused(Value::Object(many)).unwrap_err().1;
        assert_eq!(many, "cannot identify more than 300 attributes in one request");
    }

    #[test]
    fn null_and_an_empty_text_remove_an_attribute() {
        let Value::Object(mut target) = json!({"a": 1, "b": 2, "c": 3}) else { panic!() };
        let Value::Object(change) = json!({"a": null, "b": "", "d": 4}) else { panic!() };
        set(&mut target, &change);
        assert_eq!(Value::Object(target), json!({"c": 3, "d": 4}));
    }
}
