//! What a vendor answers, and what a transform makes of a row: neither is under our control.

use proptest::prelude::*;
use serde_json::Value;
use serde_json::value::RawValue;
use tailwater_core::Timestamp;
use tailwater_fuzz::{Target, effect, generated};

use super::answers::{Bulk, Member, Plain};
use super::mapping::classify;
use super::person::{Field, Identity, Person};
use super::requests::Call;
use super::tests::{OWN, identifiers, rules};
use super::types::{Fields, Mismatch, locate};
use super::work::Content;
use crate::destination::ClassifyInput;

const ANSWERS: &[&str] = &[
    "{\"successCount\":",
    ",\"failCount\":",
    ",\"failedUpdates\":{\"invalidEmails\":[\"ada@example.com\"]}",
    ",\"failedUpdates\":{\"conflictUserIds\":[\"u-1\"]}",
    ",\"filteredOutFields\":[\"ltv\"]",
    ",\"disallowedEventNames\":[\"order\"]",
    "{\"code\":\"RequestFieldsTypesMismatched\",\"msg\":\"no\",\"params\":{\"validationErrors\":{\"ltv\":",
    "{\"incomingTypes\":[\"string\"],\"expectedType\":\"double\",\"offendingValue\":\"high\",\"category\":\"user\"}",
    "{\"code\":\"BadJsonBody\",\"params\":{\"obj.events[1].createdAt\":\"Number value expected\"",
    "obj.users[18446744073709551616]",
    "ForgottenUserError",
    "null",
    "[",
    "]",
    "{",
    "}",
    "\"\"",
    "1e400",
    "-1",
    "<html>",
    "\u{0}",
];

#[test]
fn iterable_answers() {
    let members = [
        Member {
            person: Person { email: Some("Ada@Example.com".into()), user_id: None },
            beside: Some((Field::UserId, "u-1".into())),
            event: None,
        },
        Member {
            person: Person { email: Some("bob@example.com".into()), user_id: None },
            beside: None,
            event: Some("order".into()),
        },
    ];
    let contents = [r#"{"dataFields":{"ltv":"high"}}"#, r#"{"eventName":"order","dataFields":{"ltv":[{"x":1}]}}"#]
        .map(Content::of);
    let fields: Vec<Fields<'_>> = contents.iter().map(Content::fields).collect();
    let target = Target { name: "iterable_answers", tokens: ANSWERS, bytes_max: 4_096 };
    target.run(None, |input| {
        let plain = Plain::read(input);
        assert!(plain.describe().starts_with("the vendor says"), "{plain:?}");
        let mismatches = Mismatch::read(&plain.params);
        let located = locate(&mismatches, &fields);
        assert!(located.keys().all(|place| *place < fields.len()));
        let places = plain.positions("events").len();
        let bulk = Bulk::read(input).map(|bulk| {
            let attributed = bulk.attribute(&members);
            assert!(attributed.failed.keys().all(|place| *place < members.len()));
            let named = attributed.failed.len() as u64;
            assert!(attributed.unnamed + named >= bulk.fail_count.unwrap_or(0), "no failure is lost");
            (attributed.failed, attributed.unnamed.min(3), bulk.filtered_out_fields.len().min(3))
        });
        effect((plain.failure(), plain.code.is_empty(), mismatches.len().min(3), located.len(), places.min(3), bulk))
    });
}

const OUTPUTS: &[&str] = &[
    "{\"email\":\"ada@example.com\"",
    ",\"userId\":\"u-1\"",
    ",\"dataFields\":{",
    ",\"eventName\":\"order\"",
    ",\"createdAt\":",
    ",\"items\":[{\"id\":\"1\",\"name\":\"a\",\"price\":1,\"quantity\":1}]",
    "{\"user\":{\"email\":\"ada@example.com\"}",
    ",\"total\":",
    ",\"listId\":42",
    ",\"subscribers\":[{\"email\":\"ada@example.com\"}]",
    ",\"_operation\":\"add_to_list\"",
    ",\"_operation\":\"remove_from_list\"",
    ",\"_operation\":\"delete_profile\"",
    "{\"currentEmail\":\"ada@old.example\",\"newEmail\":\"ada@example.com\"",
    "{\"sourceUserId\":\"anonymous-9\",\"destinationUserId\":\"u-1\"",
    "{\"catalogName\":\"shoes\",\"itemId\":\"a\",\"value\":{",
    ",\"unsubscribedChannelIds\":[1]",
    "\"2026-03-01T08:00:00Z\"",
    "null",
    "true",
    "1e400",
    "9007199254740993",
    "\"\"",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
];

/// JSON with the vendor's names in it.
fn outputs() -> impl Strategy<Value = Vec<u8>> {
    let names = [
        "email",
        "userId",
        "dataFields",
        "eventName",
        "id",
        "createdAt",
        "user",
        "items",
        "total",
        "listId",
        "subscribers",
        "_operation",
        "newEmail",
        "currentEmail",
        "sourceEmail",
        "destinationEmail",
        "catalogName",
        "itemId",
        "value",
        "unsubscribedChannelIds",
        "name",
        "price",
        "quantity",
        "x",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec![
            "ada@example.com",
            "ada@old.example",
            "u-1",
            "order",
            "add_to_list",
            "delete_profile",
            "2026-03-01T08:00:00Z",
            "",
            " x "
        ])
        .prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(5, 40, 6, move |inner| {
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            4 => prop::collection::vec((prop::sample::select(names.to_vec()), inner), 0..6)
                .prop_map(|entries| Value::Object(entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())),
        ]
    });
    value.prop_map(|value| value.to_string().into_bytes())
}

#[test]
fn iterable_outputs() {
    let identifiers = identifiers();
    let mut outputs = generated(outputs());
    let target = Target { name: "iterable_outputs", tokens: OUTPUTS, bytes_max: 8_192 };
    target.run(Some(&mut outputs), |input| {
        let identity = [Identity::Email, Identity::UserId, Identity::Hybrid][input.len() % 3];
        let Some(output) = std::str::from_utf8(input).ok().and_then(|text| RawValue::from_string(text.to_owned()).ok())
        else {
            return 0;
        };
        let input = ClassifyInput {
            output: &output,
            route: "ltv",
            ordinal: 3,
            identifiers: OWN,
            time: Timestamp::default(),
            non_finite: &[],
        };
        match classify(rules(&identifiers, identity), &input) {
            Ok(operations) => {
                assert!(!operations.is_empty());
                let mut seen = Vec::new();
                for operation in &operations {
                    let body: Value = serde_json::from_str(operation.body.get()).expect("the body is JSON");
                    // Whoever the body names is this person, by one identifier.
                    let person = Person::of(operation.body.get());
                    assert!(person.email.is_none() || person.user_id.is_none(), "{body}");
                    for field in Field::ALL {
                        let value = person.get(field);
                        assert!(value.is_none_or(|value| OWN.iter().any(|(_, own)| *own == value)), "{body}");
                    }
                    assert!(body.get("_operation").is_none());
                    seen.push((
                        operation.kind,
                        Call::of(operation).expect("a call of the vendor's"),
                        operation.target.is_some(),
                    ));
                }
                effect(seen)
            }
            Err(error) => {
                assert!(!error.message.is_empty());
                effect((error.code, error.message.split(' ').take(6).collect::<Vec<_>>().join(" ")))
            }
        }
    });
}
