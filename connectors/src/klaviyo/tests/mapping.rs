use proptest::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tailwater_core::operation::{Operation, OperationKind};
use tailwater_core::{Timestamp, code};

use super::config;
use crate::destination::{ClassifyError, ClassifyInput};
use crate::klaviyo::mapping::{Rules, classify, classify_any, plain};
use crate::klaviyo::{Config, payload, requests};
use crate::output::{NonFinite, Nulls};

const ADA: &[(&str, &str)] =
    &[("email", "ada@example.com"), ("phone", "+15551234567"), ("customer_id", "12345"), ("shopify_id", "s-1")];

fn with(config: &Config, output: &str, non_finite: &[String]) -> Result<Operation, ClassifyError> {
    let output = RawValue::from_string(output.to_owned()).unwrap();
    let input = ClassifyInput {
        output: &output,
        route: "ltv",
        ordinal: 3,
        identifiers: ADA,
        time: Timestamp::default(),
        non_finite,
    };
    let rules = Rules { identifiers: &config.identifiers, nulls: config.nulls, non_finite: config.non_finite };
    classify(rules, &input)
}

fn map(output: &Value) -> Result<Operation, ClassifyError> {
    with(&config(), &output.to_string(), &[])
}

fn profile(attributes: &Value) -> Value {
    json!({"data": {"type": "profile", "attributes": attributes}})
}

fn body(operation: &Operation) -> Value {
    serde_json::from_str(operation.body.get()).unwrap()
}

#[test]
fn the_first_seed_example_reaches_the_vendor_byte_for_byte() {
    // Issue 3: the payload of the rfm transform.
    let output = r#"{"data":{"type":"profile","attributes":{"email":"ada@example.com","properties":{"rfm_segment":"champions","lifetime_value":2840.5,"days_since_purchase":12}}}}"#;
    let operation = with(&config(), output, &[]).unwrap();
    assert_eq!(operation.kind, OperationKind::UpsertProfile);
    assert_eq!((operation.route.as_str(), operation.place.as_str()), ("ltv", "3"));
    assert_eq!(requests::upsert(operation.body.get()).body.unwrap(), output);
}

#[test]
fn numbers_keep_every_digit() {
    let output = r#"{"data":{"type":"profile","attributes":{"email":"ada@example.com","properties":{"a":9007199254740993,"b":0.1000000000000000055,"c":1e3}}}}"#;
    let operation = with(&config(), output, &[]).unwrap();
    assert!(
        operation.body.get().contains(r#""a":9007199254740993,"b":0.1000000000000000055,"c":1e"#),
        "{}",
        operation.body
    );
}

#[test]
fn what_is_safe_is_coerced_and_cleaned() {
    let cases = [
        // An identifier is compared without case and blanks, and sent as the profile has it.
        (json!({"email": "  ADA@Example.com "}), json!({"email": "ada@example.com"})),
        (json!({"phone_number": "+1 (555) 123-4567"}), json!({"phone_number": "+15551234567"})),
        (json!({"external_id": 12345}), json!({"external_id": "12345"})),
        // Nulls and blanks where an identifier belongs are left out, others too.
        (
            json!({"email": "ada@example.com", "phone_number": null, "external_id": " "}),
            json!({"email": "ada@example.com"}),
        ),
        (
            json!({"email": "ada@example.com", "first_name": null, "properties": {"a": null, "b": {"c": null, "d": 1}}, "location": null}),
            json!({"email": "ada@example.com", "properties": {"b": {"d": 1}}}),
        ),
        (
            json!({"email": "ada@example.com", "title": 7, "first_name": " Ada "}),
            json!({"email": "ada@example.com", "title": "7", "first_name": "Ada"}),
        ),
        (
            json!({"email": "ada@example.com", "location": {"zip": 12345, "latitude": 1.5, "longitude": "2.5", "city": null}}),
            json!({"email": "ada@example.com", "location": {"zip": "12345", "latitude": 1.5, "longitude": "2.5"}}),
        ),
        (json!({"email": "ada@example.com", "properties": null}), json!({"email": "ada@example.com"})),
    ];
    for (given, sent) in cases {
        let operation = map(&profile(&given)).unwrap_or_else(|error| panic!("{given}: {error}"));
        assert_eq!(body(&operation), json!({"type": "profile", "attributes": sent}), "{given}");
    }
}

#[test]
fn null_clears_where_the_configuration_says_so_and_never_an_identifier() {
    let clear = Config { nulls: Nulls::Clear, ..config() };
    let output =
        profile(&json!({"email": "ada@example.com", "phone_number": null, "external_id": null, "first_name": null,
        "properties": {"a": null, "b": {"c": null}}, "location": {"city": null}}));
    let operation = with(&clear, &output.to_string(), &[]).unwrap();
    let sent = json!({"email": "ada@example.com", "first_name": null, "properties": {"a": null, "b": {"c": null}}, "location": {"city": null}});
    assert_eq!(body(&operation)["attributes"], sent);
}

#[test]
fn what_does_not_fit_is_refused_with_place_and_cure() {
    let ada = "ada@example.com";
    let invalid = [
        (json!(7), "the output: is a number"),
        (json!({}), "has no `data`"),
        (json!({"data": {"type": "profile", "attributes": {"email": ada}}, "list": 1}), "list: is not known"),
        (json!({"data": {"type": "profil", "attributes": {}}}), "did you mean `profile`?"),
        (json!({"data": {"attributes": {}}}), "has no `type`"),
        (json!({"data": {"type": "profile-subscription-bulk-create-job", "attributes": {}}}), "subscribes nobody"),
        (json!({"data": {"type": "profile"}}), "has no `attributes`"),
        (json!({"data": {"type": "profile", "attributes": []}}), "data.attributes: is an array"),
        (json!({"data": {"type": "profile", "id": "01G", "attributes": {"email": ada}}}), "data.id: is refused"),
        (profile(&json!({})), "names nobody"),
        (profile(&json!({"email": null, "first_name": "x"})), "names nobody"),
        (profile(&json!({"email": true})), "data.attributes.email: is a boolean"),
        (profile(&json!({"email": ada, "rfm_segment": "x"})), "custom fields go under data.attributes.properties"),
        (profile(&json!({"email": ada, "firstname": "x"})), "did you mean `first_name`?"),
        (profile(&json!({"email": ada, "first_name": {"a": 1}})), "data.attributes.first_name: is an object"),
        (profile(&json!({"email": ada, "location": {"town": "x"}})), "data.attributes.location.town: is not known"),
        (profile(&json!({"email": ada, "properties": [1]})), "data.attributes.properties: is an array"),
        (profile(&json!({"email": ada, "subscriptions": {"email": {}}})), "subscribes nobody"),
        (profile(&json!({"email": ada, "consent": "yes"})), "subscribes nobody"),
        (profile(&json!({"email": ada, "properties": {"$consent": ["email"]}})), "subscribes nobody"),
        (profile(&json!({"email": ada, "properties": {"$email": "bob@example.com"}})), "$email: is refused"),
        (profile(&json!({"email": ada, "_kx": "abc"})), "_kx: is refused"),
        (profile(&json!({"email": ada, "anonymous_id": "abc"})), "anonymous_id: is refused"),
        (
            json!({"data": {"type": "profile", "attributes": {"email": ada}, "meta": {"patch_identifiers": {"append": {"email": "b@c"}}}}}),
            "identity rules",
        ),
        (
            json!({"data": {"type": "profile", "attributes": {"email": ada}, "meta": {"patch_properties": {"unset": 7}}}}),
            "unset: is a number",
        ),
        (
            json!({"data": {"type": "profile", "attributes": {"email": ada}, "meta": {"patch_properties": {"apend": {}}}}}),
            "did you mean `append`?",
        ),
        (
            json!({"data": {"type": "profile", "attributes": {"email": ada}, "relationships": {"segments": {}}}}),
            "segments: is not known",
        ),
        (
            json!({"data": {"type": "profile", "attributes": {"email": ada}, "relationships": {"lists": "X"}}}),
            "lists: is a text",
        ),
        (
            json!({"data": {"type": "profile", "attributes": {"email": ada}, "relationships": {"lists": ["../x"]}}}),
            "is no list id",
        ),
        (
            json!({"data": {"type": "profile", "attributes": {"email": ada}, "relationships": {"lists": {"data": [{"type": "segment", "id": "X"}]}}}}),
            "expected `list`",
        ),
    ];
    for (output, expected) in invalid {
        let error = map(&output).unwrap_err();
        assert_eq!(error.code, code::OUTPUT_INVALID, "{output}: {error}");
        assert!(error.message.contains(expected), "{output}: {error}");
    }
}

#[test]
fn nobody_elses_identifier_is_sent() {
    for attributes in [
        json!({"email": "bob@example.com"}),
        json!({"email": "ada@example.com", "external_id": "999"}),
        json!({"email": "ada@example.com", "phone_number": "+15550000000"}),
        // An identifier of another type is not this one.
        json!({"external_id": "s-1"}),
    ] {
        let error = map(&profile(&attributes)).unwrap_err();
        assert_eq!(error.code, code::FOREIGN_IDENTIFIER, "{attributes}: {error}");
    }
    let mut unsaid = config();
    unsaid.identifiers.remove("phone_number");
    let output = profile(&json!({"email": "ada@example.com", "phone_number": "+15551234567"}));
    let error = with(&unsaid, &output.to_string(), &[]).unwrap_err();
    assert_eq!(error.code, code::FOREIGN_IDENTIFIER);
    assert!(error.message.contains("identifiers: {phone_number: <type>}"), "{error}");
}

#[test]
fn lists_are_taken_out_sorted_and_said_once() {
    let attributes = json!({"email": "ada@example.com"});
    let expected = ["Aaa111", "Zzz999"];
    for lists in [
        json!(["Zzz999", "Aaa111", "Zzz999"]),
        json!({"data": [{"type": "list", "id": "Zzz999"}, {"id": "Aaa111"}]}),
        json!({"data": ["Zzz999", {"type": "list", "id": "Aaa111"}]}),
    ] {
        let operation =
            map(&json!({"data": {"type": "profile", "attributes": attributes, "relationships": {"lists": lists}}}))
                .unwrap();
        assert_eq!(payload::lists(operation.body.get()), expected, "{lists}");
        let profile: Value = serde_json::from_str(&payload::profile(operation.body.get())).unwrap();
        assert_eq!(profile, json!({"type": "profile", "attributes": attributes}));
    }
    for none in [json!(null), json!({}), json!({"lists": null}), json!({"lists": []}), json!({"lists": {"data": null}})]
    {
        let operation =
            map(&json!({"data": {"type": "profile", "attributes": attributes, "relationships": none}})).unwrap();
        assert!(!payload::has_lists(operation.body.get()));
    }
    let many: Vec<_> = (0..51).map(|number| format!("L{number}")).collect();
    let error = map(&json!({"data": {"type": "profile", "attributes": attributes, "relationships": {"lists": many}}}))
        .unwrap_err();
    assert!(error.message.contains("the limit is 50"), "{error}");
}

#[test]
fn properties_are_patched_and_unset_as_the_vendor_has_it() {
    let patch = json!({"append": {"skus": "A1"}, "unset": ["old_score"], "unappend": null});
    let output = json!({"data": {"type": "profile", "attributes": {"email": "ada@example.com"}, "meta": {"patch_properties": patch}}});
    let operation = map(&output).unwrap();
    assert_eq!(
        body(&operation)["meta"],
        json!({"patch_properties": {"append": {"skus": "A1"}, "unset": ["old_score"]}})
    );
}

#[test]
fn numbers_that_are_not_finite_end_as_the_configuration_says() {
    let output = profile(&json!({"email": "ada@example.com", "properties": {"kept": 1}})).to_string();
    let paths = ["data.attributes.properties.ltv".to_owned()];
    let rule = |non_finite, nulls| with(&Config { non_finite, nulls, ..config() }, &output, &paths);
    let left_out = rule(NonFinite::Omit, Nulls::Omit).unwrap();
    assert_eq!(body(&left_out)["attributes"]["properties"], json!({"kept": 1}));
    assert_eq!(left_out.non_finite, paths);
    let error = rule(NonFinite::Reject, Nulls::Omit).unwrap_err();
    assert_eq!(error.code, code::NON_FINITE_NUMBER);
    assert!(error.message.contains("properties.ltv"), "{error}");
    for nulls in [Nulls::Omit, Nulls::Clear] {
        let cleared = rule(NonFinite::Clear, nulls).unwrap();
        assert_eq!(body(&cleared)["attributes"]["properties"], json!({"kept": 1, "ltv": null}));
    }
}

#[test]
fn a_profile_beyond_the_vendors_size_is_told_before_it_is_sent() {
    let output = profile(&json!({"email": "ada@example.com", "properties": {"text": "x".repeat(100_000)}}));
    assert_eq!(map(&output).unwrap_err().code, code::PAYLOAD_TOO_LARGE);
}

#[test]
fn an_event_is_taken_with_its_metric_and_profile() {
    let ada = json!({"data": {"type": "profile", "attributes": {"email": "ADA@example.com"}}});
    let output = json!({"data": {"type": "event", "attributes": {
        "metric": "Churn Risk Rose", "profile": ada, "time": "2026-03-01", "value": "9.99", "value_currency": "USD", "properties": {"a": null, "b": 1}}}});
    let operation = map(&output).unwrap();
    assert_eq!(operation.kind, OperationKind::TrackEvent);
    assert_eq!(
        body(&operation),
        json!({"type": "event", "attributes": {
            "metric": {"data": {"type": "metric", "attributes": {"name": "Churn Risk Rose"}}},
            "profile": {"data": {"type": "profile", "attributes": {"email": "ada@example.com"}}},
            "time": "2026-03-01T00:00:00.000Z", "value": 9.99, "value_currency": "USD", "properties": {"b": 1}}})
    );
    let event = |attributes: Value| map(&json!({"data": {"type": "event", "attributes": attributes}})).unwrap_err();
    assert!(event(json!({"metric": "M"})).message.contains("has no `profile`"));
    assert!(event(json!({"profile": ada})).message.contains("has no `metric`"));
    assert!(event(json!({"metric": "M", "profile": ada, "time": "soon"})).message.contains("is no time"));
    assert!(
        event(
            json!({"metric": {"data": {"type": "metric", "attributes": {"name": "M", "service": "x"}}}, "profile": ada})
        )
        .message
        .contains("service")
    );
    let foreign = event(
        json!({"metric": "M", "profile": {"data": {"type": "profile", "attributes": {"email": "bob@example.com"}}}}),
    );
    assert_eq!(foreign.code, code::FOREIGN_IDENTIFIER);
}

/// Issue 10, A8: after a hold of 30 days, the vendor dated the event by its delivery.
#[test]
fn an_event_without_a_time_has_the_time_of_its_source() {
    let config = config();
    let rules = Rules { identifiers: &config.identifiers, nulls: config.nulls, non_finite: config.non_finite };
    let time_of = |attributes: Value| {
        let output = json!({"data": {"type": "event", "attributes": attributes}}).to_string();
        let output = RawValue::from_string(output).unwrap();
        let time = Timestamp::parse("2026-03-01T08:00:00.267Z").unwrap();
        let input =
            ClassifyInput { output: &output, route: "ltv", ordinal: 0, identifiers: ADA, time, non_finite: &[] };
        body(&classify(rules, &input).unwrap())["attributes"]["time"].clone()
    };
    let ada = json!({"data": {"type": "profile", "attributes": {"email": "ada@example.com"}}});
    assert_eq!(time_of(json!({"metric": "M", "profile": ada})), "2026-03-01T08:00:00.267Z");
    assert_eq!(time_of(json!({"metric": "M", "profile": ada, "time": null})), "2026-03-01T08:00:00.267Z");
    assert_eq!(time_of(json!({"metric": "M", "profile": ada, "time": "2026-02-01"})), "2026-02-01T00:00:00.000Z");
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::from),
        "[a-z@.$_]{0,12}".prop_map(Value::from),
        Just(Value::from("ada@example.com")),
        Just(Value::from("bob@example.com")),
    ];
    let name = prop_oneof![
        "[a-z_$]{1,8}",
        prop::sample::select(vec![
            "data",
            "type",
            "attributes",
            "email",
            "phone_number",
            "properties",
            "relationships",
            "lists",
            "id",
            "location",
            "meta",
            "profile",
            "metric"
        ])
        .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(5, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
            prop::collection::vec((name.clone(), inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// An output as transforms make it: attributes that are nearly always in order, and now and then are not.
fn likely_output() -> impl Strategy<Value = Value> {
    let identifier = prop::sample::select(vec![
        json!("ada@example.com"),
        json!("ADA@example.com"),
        json!(" ada@example.com"),
        json!("+15551234567"),
        json!("12345"),
        json!(12345),
        json!(""),
        json!(null),
        json!("bob@example.com"),
    ]);
    let names =
        prop::sample::select(vec!["email", "phone_number", "external_id", "first_name", "title", "location", "emial"]);
    let properties = prop::collection::hash_map("[a-z$ ]{1,6}|null|\\PC{1,3}", any_json(), 0..4);
    let members = prop::collection::vec((names, prop_oneof![4 => identifier, 1 => any_json()]), 0..3);
    (any::<bool>(), members, proptest::option::of(properties), any::<bool>()).prop_map(
        |(plain, members, properties, odd)| {
            let mut attributes = serde_json::Map::new();
            if plain {
                attributes.insert("email".into(), json!("ada@example.com"));
            }
            attributes.extend(members.into_iter().map(|(name, value)| (name.to_owned(), value)));
            if let Some(properties) = properties {
                attributes.insert("properties".into(), Value::Object(properties.into_iter().collect()));
            }
            let mut output = profile(&Value::Object(attributes));
            if odd {
                output["data"]["relationships"] = json!({"lists": ["Y6nRLr"]});
            }
            output
        },
    )
}

fn plainly(output: &str) -> Option<Operation> {
    let config = config();
    let output = RawValue::from_string(output.to_owned()).unwrap();
    let input = ClassifyInput {
        output: &output,
        route: "ltv",
        ordinal: 3,
        identifiers: ADA,
        time: Timestamp::default(),
        non_finite: &[],
    };
    let rules = Rules { identifiers: &config.identifiers, nulls: config.nulls, non_finite: config.non_finite };
    let plain = plain::classify(rules, &input)?;
    let proper = classify_any(rules, &input).expect("what is plain is in order");
    assert_eq!(serde_json::to_string(&plain).unwrap(), serde_json::to_string(&proper).unwrap());
    Some(plain)
}

#[test]
fn an_ordinary_output_is_plain_and_one_that_needs_work_is_not() {
    let plain = r#"{"data":{"type":"profile","attributes":{"email":"ada@example.com","first_name":"Ada","properties":{"ltv":2840.5,"big":1e+21,"tags":["a",{"b":true}]}}}}"#;
    assert!(plainly(plain).is_some());
    for (part, instead) in [
        ("ada@", "Ada@"),
        ("\"Ada\"", "\" Ada\""),
        ("\"Ada\"", "7"),
        ("2840.5", "null"),
        ("\"ltv\"", "\"$consent\""),
        ("first_name", "favourite_colour"),
        ("\"type\":\"profile\"", "\"type\":\"event\""),
        ("\"type\":\"profile\"", "\"type\":\"profile\",\"id\":\"7\""),
        ("true", "\"\\u0041\""),
    ] {
        assert!(plainly(&plain.replacen(part, instead, 1)).is_none(), "{part} -> {instead}");
    }
    assert!(plainly(&plain.replacen("true", &format!("{}{}", "[".repeat(101), "]".repeat(101)), 1)).is_none());
}

proptest! {
    #[test]
    fn what_is_plain_becomes_what_the_mapping_proper_makes_of_it(output in likely_output()) {
        plainly(&output.to_string());
    }

    #[test]
    fn whatever_comes_back_is_an_operation_about_this_person_or_an_error(attributes in any_json(), extra in any_json(), kind in prop::sample::select(vec!["profile", "event"])) {
        let output = json!({"data": {"type": kind, "attributes": attributes, "meta": extra}});
        for output in [output, attributes] {
            if let Ok(operation) = map(&output) {
                let own = requests::Identified::of(&operation);
                prop_assert_ne!(own.email.as_deref(), Some("bob@example.com"));
                prop_assert!(own.normal().count() > 0);
            }
        }
    }
}
