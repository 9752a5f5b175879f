//! Whose body an output is: a transform that was written for one vendor and sent to another is told so, instead of being told which of its
//! fields are unknown.

use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tailwater_core::code;

use crate::destination::ClassifyError;

/// How a vendor's bodies look, by what no other vendor has.
struct Shape {
    kind: &'static str,
    /// With its article.
    name: &'static str,
    fits: fn(&Map<String, Value>) -> bool,
}

const SHAPES: &[Shape] = &[
    Shape { kind: "klaviyo", name: "a Klaviyo", fits: is_klaviyo },
    Shape { kind: "iterable", name: "an Iterable", fits: is_iterable },
    Shape { kind: "customerio", name: "a Customer.io", fits: is_customerio },
];

/// JSON:API: `{data: {type, attributes | relationships}}`.
fn is_klaviyo(output: &Map<String, Value>) -> bool {
    let Some(Value::Object(data)) = output.get("data") else { return false };
    data.get("type").is_some_and(Value::is_string)
        && (data.contains_key("attributes") || data.contains_key("relationships"))
}

/// `{email | userId, dataFields}`, an event by `eventName`, a purchase or a cart of a `user`, subscribers of a `listId`.
fn is_iterable(output: &Map<String, Value>) -> bool {
    let has = |name: &str| output.contains_key(name);
    let is_of_other = output.get("type").is_some_and(Value::is_string);
    !is_of_other
        && (has("dataFields")
            || has("eventName")
            || (has("user") && has("items"))
            || (has("subscribers") && has("listId"))
            || (has("currentEmail") && has("newEmail")))
}

/// `{type: 'person' | 'object', action | identifiers}` of the Track API, `{type: 'identify', userId, traits}` of the Pipelines API.
fn is_customerio(output: &Map<String, Value>) -> bool {
    let has = |name: &str| output.contains_key(name);
    match output.get("type").and_then(Value::as_str) {
        Some("person" | "object" | "delivery") => has("action") || has("identifiers"),
        Some("identify" | "track" | "group" | "page" | "screen" | "alias") => {
            has("userId") || has("anonymousId") || has("traits") || has("properties") || has("previousId")
        }
        _ => false,
    }
}

/// The kind of destination that an output is meant for, if its shape is that of exactly one.
pub fn recognize(output: &Value) -> Option<&'static str> {
    shape_of(output).map(|shape| shape.kind)
}

fn shape_of(output: &Value) -> Option<&'static Shape> {
    let object = output.as_object()?;
    let mut fitting = SHAPES.iter().filter(|shape| (shape.fits)(object));
    fitting.next().filter(|_| fitting.next().is_none())
}

/// The error of an output that does not fit the destination of kind `own` — or, where the output is clearly another vendor's,
/// `wrong_vendor`. For the error path of a connector's `classify`.
pub fn or_wrong_vendor(own: &str, output: &RawValue, error: ClassifyError) -> ClassifyError {
    if error.code != code::OUTPUT_INVALID && error.code != code::UNSUPPORTED_OPERATION {
        return error;
    }
    let Ok(output) = serde_json::from_str::<Value>(output.get()) else { return error };
    let Some(shape) = shape_of(&output).filter(|shape| shape.kind != own) else { return error };
    let own = SHAPES.iter().find(|shape| shape.kind == own).map_or(own, |shape| without_article(shape.name));
    let message = format!(
        "this is {} body; the destination is {own}: correct the transform, or send the route to another destination ({error})",
        shape.name
    );
    ClassifyError { code: code::WRONG_VENDOR, message }
}

fn without_article(name: &'static str) -> &'static str {
    name.split_once(' ').map_or(name, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_body_is_recognized_by_what_no_other_vendor_has() {
        let cases = [
            (json!({"data": {"type": "profile", "attributes": {"email": "a@b.c"}}}), Some("klaviyo")),
            (json!({"data": {"type": "event", "attributes": {}}}), Some("klaviyo")),
            (json!({"email": "a@b.c", "userId": "1", "dataFields": {"x": 1}}), Some("iterable")),
            (json!({"email": "a@b.c", "eventName": "order"}), Some("iterable")),
            (json!({"user": {"email": "a@b.c"}, "items": [], "total": 1}), Some("iterable")),
            (json!({"listId": 1, "subscribers": [{"email": "a@b.c"}]}), Some("iterable")),
            (json!({"type": "identify", "userId": "1", "traits": {"plan": "pro"}}), Some("customerio")),
            (json!({"type": "track", "userId": "1", "event": "x", "properties": {}}), Some("customerio")),
            (json!({"type": "person", "action": "identify", "identifiers": {"id": "1"}}), Some("customerio")),
            (json!({"type": "person"}), None),
            (json!({"email": "a@b.c"}), None),
            (json!({"data": [1]}), None),
            (json!([]), None),
            (json!(null), None),
        ];
        for (output, kind) in cases {
            assert_eq!(recognize(&output), kind, "{output}");
        }
    }

    #[test]
    fn another_vendors_body_is_named_and_other_errors_stay() {
        let raw = |value: Value| RawValue::from_string(value.to_string()).unwrap();
        let invalid = || ClassifyError { code: code::OUTPUT_INVALID, message: "the output: has no `data`".to_owned() };
        let iterable = raw(json!({"email": "a@b.c", "dataFields": {}}));
        let error = or_wrong_vendor("customerio", &iterable, invalid());
        assert_eq!(error.code, code::WRONG_VENDOR);
        assert!(error.message.starts_with("this is an Iterable body; the destination is Customer.io"), "{error}");
        assert_eq!(or_wrong_vendor("iterable", &iterable, invalid()), invalid());
        assert_eq!(or_wrong_vendor("klaviyo", &raw(json!({"x": 1})), invalid()), invalid());
        let foreign = ClassifyError { code: code::FOREIGN_IDENTIFIER, message: "no".to_owned() };
        assert_eq!(or_wrong_vendor("klaviyo", &iterable, foreign.clone()), foreign);
    }
}
