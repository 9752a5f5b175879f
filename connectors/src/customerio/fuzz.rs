//! What the vendor answers, and what a transform makes of a row: neither is under our control.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::Value;
use serde_json::value::RawValue;
use tailwater_core::Timestamp;
use tailwater_fuzz::{Target, effect, generated};

use super::config::{Api, Milliseconds};
use super::errors;
use super::mapping::{Field, Rules, classify};
use super::payload::Payload;
use super::pipelines;
use crate::destination::ClassifyInput;
use crate::output::{NonFinite, Nulls};

const ANSWERS: &[&str] = &[
    "{\"errors\":[",
    "]}",
    "{\"batch_index\":0,",
    "{\"batch_index\":3}",
    "{\"batch_index\":18446744073709551616}",
    "{\"batch_index\":-1}",
    "{\"batch_index\":1.5}",
    "\"reason\":\"invalid\"",
    "\"field\":\"attributes.plan\"",
    "\"message\":\"attribute value cannot be longer than 1000 bytes\"",
    "{\"meta\":{\"error\":\"unauthorized\"}}",
    "{\"meta\":{\"errors\":[\"one\",\"two\"]}}",
    "{}",
    "{}\n",
    "null",
    "7",
    ",",
    "{",
    "}",
    "[",
    "]",
    "<html>",
    "\u{0}",
    "1e400",
];

#[test]
fn customerio_answers() {
    let target = Target { name: "customerio_answers", tokens: ANSWERS, bytes_max: 4_096 };
    target.run(None, |body| {
        let read = errors::read(body);
        assert!(!read.is_empty(), "an answer is told in any case");
        let words = errors::summary(&read);
        assert!(words.starts_with("the vendor says"), "{words}");
        let count = body.len() % 5;
        for status in [200, 207] {
            let Some(listed) = errors::listed(status, body) else { continue };
            let all = listed.len();
            let split = errors::split(listed, count);
            assert!(split.rejected.keys().all(|place| *place < count.max(1)));
            let placed: usize = split.rejected.values().map(Vec::len).sum();
            assert_eq!(placed + split.unplaced.len(), all, "nothing that the vendor says is lost");
            assert!(count != 1 || split.unplaced.is_empty(), "one item is the only one that can be meant");
        }
        let listed = errors::listed(207, body).unwrap_or_default();
        effect((
            read.len().min(5),
            listed.len().min(5),
            errors::split(listed, count).rejected.len(),
            read[0].reason.is_empty(),
        ))
    });
}

const OUTPUTS: &[&str] = &[
    "{\"type\":\"person\",\"identifiers\":{\"id\":\"42\"},\"action\":\"",
    "identify\",\"attributes\":{",
    "event\",\"name\":\"x\",",
    "{\"type\":\"object\",\"identifiers\":{\"object_type_id\":\"1\",\"object_id\":\"acme\"},",
    "{\"type\":\"identify\",\"userId\":\"42\",\"traits\":{",
    "{\"type\":\"track\",\"userId\":\"42\",\"event\":\"User Deleted\"",
    "\"action\":\"add_relationships\",\"cio_relationships\":[",
    "\"action\":\"merge\",\"primary\":{\"id\":\"42\"},\"secondary\":{\"email\":",
    "\"device\":{\"token\":\"t\",\"platform\":\"ios\"}",
    "\"timestamp\":1772352000267",
    "\"_operation\":\"add_to_list\",\"segment_id\":7,",
    "\"email\":\"ada@example.com\"",
    "\"unsubscribed\":true",
    "\"context\":{",
    "}}",
    "null",
    "1e400",
    "-0.0",
    "9007199254740993",
    "\"\"",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    "\"$serde_json::private::Number\":\"1\"",
];

/// JSON with the vendor's names in it.
fn outputs() -> impl Strategy<Value = Vec<u8>> {
    let names = vec![
        "type",
        "action",
        "identifiers",
        "id",
        "email",
        "attributes",
        "traits",
        "userId",
        "event",
        "name",
        "properties",
        "cio_relationships",
        "relationship_attributes",
        "object_type_id",
        "object_id",
        "device",
        "token",
        "platform",
        "timestamp",
        "segment_id",
        "_operation",
        "context",
        "groupId",
        "previousId",
        "x",
    ];
    let texts = vec![
        "person",
        "object",
        "identify",
        "track",
        "group",
        "event",
        "merge",
        "add_relationships",
        "42",
        "ada@example.com",
        "bob",
        "1",
        "ios",
        "User Deleted",
        "add_to_list",
        "",
        " x ",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(texts).prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(5, 40, 6, move |inner| {
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            4 => prop::collection::vec((prop::sample::select(names.clone()), inner), 0..7)
                .prop_map(|entries| Value::Object(entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())),
        ]
    });
    value.prop_map(|value| value.to_string().into_bytes())
}

#[test]
fn customerio_outputs() {
    let fields = [("id", "user_id"), ("email", "email")];
    let identifiers: BTreeMap<String, String> = fields.map(|(field, kind)| (field.to_owned(), kind.to_owned())).into();
    let own = [("user_id", "42"), ("email", "ada@example.com")];
    let mut outputs = generated(outputs());
    let target = Target { name: "customerio_outputs", tokens: OUTPUTS, bytes_max: 8_192 };
    target.run(Some(&mut outputs), |input| {
        let Some(output) = std::str::from_utf8(input).ok().and_then(|text| RawValue::from_string(text.to_owned()).ok())
        else {
            return 0;
        };
        let odd = input.len() % 2 == 1;
        let rules = Rules {
            api: if odd { Api::Pipelines } else { Api::Track },
            key: Field::Id,
            identifiers: &identifiers,
            create: true,
            implicit_create: false,
            nulls: if input.len() % 3 == 0 { Nulls::Clear } else { Nulls::Omit },
            non_finite: NonFinite::Omit,
            milliseconds: Milliseconds::Convert,
            state_timestamps: odd,
        };
        let input = ClassifyInput {
            output: &output,
            route: "upgrade",
            ordinal: 3,
            identifiers: &own,
            time: Timestamp::from_millis(1_772_352_000_267),
            non_finite: &[],
        };
        match classify(rules, &input) {
            Ok(operations) => {
                assert!(!operations.is_empty(), "an output is at least one operation");
                for operation in &operations {
                    let payload = Payload::of(operation).expect("the body is a payload");
                    let item: Value = serde_json::from_str(payload.item.get()).expect("the item is JSON");
                    if item["type"] == "person" {
                        // Whoever the item names is this person.
                        for place in ["/identifiers", "/primary", "/secondary"] {
                            for value in item
                                .pointer(place)
                                .and_then(Value::as_object)
                                .into_iter()
                                .flat_map(|named| named.values())
                            {
                                assert!(own.iter().any(|(_, own)| value == own), "{item}");
                            }
                        }
                    }
                    assert!(!odd || pipelines::call(&payload, "x").is_ok(), "what is taken can be sent: {item}");
                }
                effect(
                    operations.iter().map(|operation| (operation.kind, operation.target.is_some())).collect::<Vec<_>>(),
                )
            }
            Err(error) => {
                assert!(!error.message.is_empty());
                effect((error.code, error.message.split(' ').take(6).collect::<Vec<_>>().join(" ")))
            }
        }
    });
}
