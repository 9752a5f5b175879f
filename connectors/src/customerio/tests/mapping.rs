use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tailwater_core::operation::{Operation, OperationKind as Kind};
use tailwater_core::{Timestamp, code};

use crate::customerio::config::{Api, Milliseconds};
use crate::customerio::mapping::{Field, Rules, classify};
use crate::customerio::payload::Payload;
use crate::destination::{ClassifyError, ClassifyInput};
use crate::output::{NonFinite, Nulls};

const ADA: &[(&str, &str)] = &[
    ("user_id", "42"),
    ("user_id", "41"),
    ("email", "ada@example.com"),
    ("phone", "+15551234567"),
    ("cio", "a3000001"),
    ("browser", "b-1"),
];
const TIME: i64 = 1_772_352_000_267;

fn identifiers() -> BTreeMap<String, String> {
    [("id", "user_id"), ("email", "email"), ("phone", "phone"), ("cio_id", "cio"), ("anonymous_id", "browser")]
        .map(|(field, kind)| (field.to_owned(), kind.to_owned()))
        .into()
}

/// The rules of a destination with `create: true` and defaults otherwise.
fn rules(identifiers: &BTreeMap<String, String>) -> Rules<'_> {
    Rules {
        api: Api::Track,
        key: Field::Id,
        identifiers,
        create: true,
        implicit_create: false,
        nulls: Nulls::Omit,
        non_finite: NonFinite::Omit,
        milliseconds: Milliseconds::Convert,
        state_timestamps: false,
    }
}

fn with(
    change: &dyn Fn(&mut Rules<'_>),
    output: &Value,
    non_finite: &[String],
) -> Result<Vec<Operation>, ClassifyError> {
    let identifiers = identifiers();
    let mut rules = rules(&identifiers);
    change(&mut rules);
    let output = RawValue::from_string(output.to_string()).unwrap();
    let input = ClassifyInput {
        output: &output,
        route: "upgrade",
        ordinal: 3,
        identifiers: ADA,
        time: Timestamp::from_millis(TIME),
        non_finite,
    };
    classify(rules, &input)
}

fn map(output: &Value) -> Result<Vec<Operation>, ClassifyError> {
    with(&|_| (), output, &[])
}

fn pipelines(output: &Value) -> Result<Vec<Operation>, ClassifyError> {
    with(&|rules| rules.api = Api::Pipelines, output, &[])
}

/// The only operation of an output.
fn only(output: &Value) -> Operation {
    let mut operations = map(output).unwrap_or_else(|error| panic!("{output}: {error}"));
    assert_eq!(operations.len(), 1, "{output}");
    operations.remove(0)
}

fn payload(operation: &Operation) -> Payload {
    Payload::of(operation).unwrap()
}

fn item(operation: &Operation) -> Value {
    serde_json::from_str(payload(operation).item.get()).unwrap()
}

fn person(action: &str, rest: &Value) -> Value {
    let mut item = json!({"type": "person", "identifiers": {"id": "42"}, "action": action});
    item.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    item
}

fn identify(attributes: &Value) -> Value {
    person("identify", &json!({"attributes": attributes}))
}

// Issue 3: the output of the mission's example.
#[test]
fn a_segment_shaped_identify_becomes_an_item_of_the_track_api() {
    let output = json!({"type": "identify", "userId": 42, "traits":
        {"email": "ADA@example.com", "churn_risk_score": 0.83, "account_tier": "pro", "last_active_date": "2026-02-01"}});
    let operation = only(&output);
    assert_eq!(
        (operation.kind, operation.route.as_str(), operation.place.as_str()),
        (Kind::UpsertProfile, "upgrade", "3")
    );
    assert_eq!(
        item(&operation),
        identify(
            &json!({"email": "ada@example.com", "churn_risk_score": 0.83, "account_tier": "pro", "last_active_date": "2026-02-01"})
        )
    );
    assert!(payload(&operation).remarks.is_empty());
    let operations = pipelines(&output).unwrap();
    assert_eq!(item(&operations[0]), item(&operation), "the body does not depend on the API");
}

#[test]
fn every_item_of_the_track_api_is_an_operation() {
    let account = json!({"object_type_id": "1", "object_id": "acme"});
    let relation = json!({"identifiers": account, "relationship_attributes": {"role": "admin"}});
    let device =
        json!({"token": "t-1", "platform": "ios", "last_used": 1_772_352_000, "attributes": {"push_enabled": true}});
    let seconds = TIME / 1000;
    let cases = [
        (identify(&json!({"plan": "pro"})), Kind::UpsertProfile, None, identify(&json!({"plan": "pro"}))),
        (person("delete", &json!({})), Kind::DeleteProfile, None, person("delete", &json!({}))),
        (person("suppress", &json!({})), Kind::Suppress, None, person("suppress", &json!({}))),
        (person("unsuppress", &json!({})), Kind::Unsuppress, None, person("unsuppress", &json!({}))),
        (
            person("event", &json!({"name": "upgrade_likely", "attributes": {"score": 0.7, "gone": null}})),
            Kind::TrackEvent,
            None,
            person("event", &json!({"name": "upgrade_likely", "timestamp": seconds, "attributes": {"score": 0.7}})),
        ),
        (
            person("page", &json!({"name": "/pricing", "timestamp": "2026-03-01T08:00:00Z"})),
            Kind::TrackEvent,
            None,
            person("page", &json!({"name": "/pricing", "timestamp": 1_772_352_000, "attributes": {}})),
        ),
        (
            person("add_relationships", &json!({"cio_relationships": [relation]})),
            Kind::Relate,
            Some("1/acme"),
            person("add_relationships", &json!({"cio_relationships": [relation]})),
        ),
        (
            person("delete_relationships", &json!({"cio_relationships": [relation]})),
            Kind::Unrelate,
            Some("1/acme"),
            person("delete_relationships", &json!({"cio_relationships": [{"identifiers": account}]})),
        ),
        (
            person("add_device", &json!({"device": device})),
            Kind::Relate,
            Some("device/t-1"),
            person(
                "add_device",
                &json!({"device": {"token": "t-1", "platform": "ios", "last_used": 1_772_352_000, "attributes": {"push_enabled": "true"}}}),
            ),
        ),
        (
            person("delete_device", &json!({"device": {"token": "t-1"}})),
            Kind::Unrelate,
            Some("device/t-1"),
            person("delete_device", &json!({"device": {"token": "t-1"}})),
        ),
        (
            json!({"type": "person", "action": "merge", "primary": {"id": "42"}, "secondary": {"email": "ada@example.com"}}),
            Kind::MergeProfiles,
            None,
            json!({"type": "person", "action": "merge", "primary": {"id": "42"}, "secondary": {"email": "ada@example.com"}}),
        ),
        (
            json!({"type": "object", "identifiers": {"object_type_id": 1, "object_id": "acme"}, "action": "identify", "attributes": {"plan": "pro"}}),
            Kind::UpsertObject,
            Some("1/acme"),
            json!({"type": "object", "identifiers": account, "action": "identify", "attributes": {"plan": "pro"}}),
        ),
        (
            json!({"type": "object", "identifiers": {"cio_object_id": "obb7"}, "action": "delete"}),
            Kind::DeleteObject,
            Some("cio_object_id/obb7"),
            json!({"type": "object", "identifiers": {"cio_object_id": "obb7"}, "action": "delete"}),
        ),
        (
            json!({"type": "object", "identifiers": account, "action": "add_relationships", "cio_relationships": [{"identifiers": {"id": "42"}}]}),
            Kind::Relate,
            Some("1/acme"),
            person("add_relationships", &json!({"cio_relationships": [{"identifiers": account}]})),
        ),
        (
            json!({"_operation": "add_to_list", "segment_id": 7, "identifiers": {"email": "ada@example.com"}}),
            Kind::AddToList,
            Some("7"),
            json!({"id_type": "email", "id": "ada@example.com"}),
        ),
        (
            json!({"_operation": "remove_from_list", "segment_id": "7", "ids": [42]}),
            Kind::RemoveFromList,
            Some("7"),
            json!({"id_type": "id", "id": "42"}),
        ),
    ];
    for (output, kind, target, expected) in cases {
        let operation = only(&output);
        assert_eq!((operation.kind, operation.target.as_deref()), (kind, target), "{output}");
        assert_eq!(item(&operation), expected, "{output}");
    }
}

#[test]
fn every_call_of_segments_shape_is_an_operation() {
    let call = |kind: &str, rest: Value| {
        let mut call = json!({"type": kind, "userId": "42"});
        call.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        call
    };
    let cases = [
        (
            call(
                "track",
                json!({"event": "upgrade_likely", "properties": {"score": 0.7}, "timestamp": "2026-03-01T08:00:00.267Z"}),
            ),
            Kind::TrackEvent,
            person(
                "event",
                &json!({"name": "upgrade_likely", "timestamp": 1_772_352_000, "attributes": {"score": 0.7}}),
            ),
        ),
        (
            call("screen", json!({"name": "Feed"})),
            Kind::TrackEvent,
            person("screen", &json!({"name": "Feed", "timestamp": TIME / 1000, "attributes": {}})),
        ),
        (call("track", json!({"event": "User Deleted"})), Kind::DeleteProfile, person("delete", &json!({}))),
        (call("track", json!({"event": "User Suppressed"})), Kind::Suppress, person("suppress", &json!({}))),
        (call("track", json!({"event": "User Unsuppressed"})), Kind::Unsuppress, person("unsuppress", &json!({}))),
        (
            call("track", json!({"event": "Relationship Deleted", "properties": {"objectId": "acme"}})),
            Kind::Unrelate,
            person(
                "delete_relationships",
                &json!({"cio_relationships": [{"identifiers": {"object_type_id": "1", "object_id": "acme"}}]}),
            ),
        ),
        (
            call("track", json!({"event": "Object Deleted", "properties": {"objectId": "acme", "objectTypeId": 2}})),
            Kind::DeleteObject,
            json!({"type": "object", "identifiers": {"object_type_id": "2", "object_id": "acme"}, "action": "delete"}),
        ),
        (
            call(
                "track",
                json!({"event": "Device Created or Updated", "context": {"device": {"token": "t-1", "type": "android"}}}),
            ),
            Kind::Relate,
            person("add_device", &json!({"device": {"token": "t-1", "platform": "android"}})),
        ),
        (
            call("alias", json!({"previousId": "41"})),
            Kind::MergeProfiles,
            json!({"type": "person", "action": "merge", "primary": {"id": "42"}, "secondary": {"id": "41"}}),
        ),
    ];
    for (output, kind, expected) in cases {
        let operation = only(&output);
        assert_eq!((operation.kind, item(&operation)), (kind, expected), "{output}");
        assert!(payload(&operation).remarks.is_empty(), "{output}");
    }
    let group = json!({"type": "group", "userId": "42", "groupId": "acme", "traits": {"object_type_id": "2", "plan": "pro", "relationshipAttributes": {"role": "admin"}}});
    let operations = map(&group).unwrap();
    assert_eq!(
        operations.iter().map(|one| (one.kind, one.target.as_deref())).collect::<Vec<_>>(),
        [(Kind::UpsertObject, Some("2/acme")), (Kind::Relate, Some("2/acme"))]
    );
    assert_eq!(item(&operations[0])["attributes"], json!({"plan": "pro"}));
    let by_email = only(&json!({"type": "identify", "traits": {"email": "ada@example.com", "plan": "pro"}}));
    assert_eq!(
        item(&by_email),
        json!({"type": "person", "identifiers": {"email": "ada@example.com"}, "action": "identify", "attributes": {"plan": "pro"}})
    );
}

#[test]
fn relationships_of_an_update_come_after_it() {
    let output = person(
        "identify",
        &json!({"attributes": {"plan": "pro"}, "cio_relationships": [
        {"identifiers": {"object_type_id": "1", "object_id": "acme"}}, {"identifiers": {"object_type_id": "1", "object_id": "beta"}}]}),
    );
    let operations = map(&output).unwrap();
    let shown: Vec<_> = operations.iter().map(Operation::describe).collect();
    assert_eq!(shown, ["upsert_profile", "relate 1/acme", "relate 1/beta"]);
    assert!(item(&operations[0]).get("cio_relationships").is_none());
}

#[test]
fn what_has_no_place_in_the_api_is_left_out_with_a_remark() {
    let output = json!({"type": "identify", "userId": "42", "anonymousId": "b-1", "traits": {"plan": "pro"}, "context": {"ip": "8.8.8.8"},
        "integrations": {"All": true}, "timestamp": "2026-03-01T08:00:00Z"});
    let operation = only(&output);
    assert_eq!(item(&operation), identify(&json!({"plan": "pro"})));
    let remark = payload(&operation).remark().unwrap();
    for name in ["anonymousId", "context", "integrations", "timestamp"] {
        assert!(remark.contains(&format!("{name}: left out")), "{name}: {remark}");
    }
    let operation = pipelines(&output).unwrap().remove(0);
    let sent = payload(&operation);
    assert_eq!(
        (sent.anonymous_id.as_deref(), sent.context.is_some(), sent.integrations.is_some()),
        (Some("b-1"), true, true)
    );
    assert_eq!(sent.remarks.len(), 1, "only the time of the state: {:?}", sent.remarks);
}

// Facts §4, C1: an update with a time before the last one is dropped by the vendor without a word.
#[test]
fn a_state_carries_a_time_only_where_the_configuration_says_so() {
    let given = person("identify", &json!({"attributes": {"plan": "pro"}, "timestamp": 1_772_300_000}));
    let bare = identify(&json!({"plan": "pro"}));
    for output in [&given, &bare] {
        assert!(item(&only(output)).get("timestamp").is_none());
    }
    let sent =
        |output| item(&with(&|rules| rules.state_timestamps = true, output, &[]).unwrap()[0])["timestamp"].clone();
    assert_eq!((sent(&given), sent(&bare)), (json!(1_772_300_000), json!(TIME / 1000)));
}

#[test]
fn a_time_in_milliseconds_is_converted_with_a_remark_or_refused() {
    for (given, unit) in [(json!(1_772_352_000_267_i64), "milliseconds"), (json!("1772352000267000"), "microseconds")] {
        let output = person("event", &json!({"name": "x", "timestamp": given}));
        let operation = only(&output);
        assert_eq!(item(&operation)["timestamp"], 1_772_352_000);
        let remark = payload(&operation).remark().unwrap();
        assert!(remark.contains(unit) && remark.contains("sent as 1772352000"), "{remark}");
        let error = with(&|rules| rules.milliseconds = Milliseconds::Reject, &output, &[]).unwrap_err();
        assert!(error.message.contains(unit) && error.message.starts_with("timestamp: "), "{error}");
    }
    let created = only(&identify(&json!({"created_at": 1_772_352_000_267_i64})));
    assert_eq!(item(&created)["attributes"]["created_at"], 1_772_352_000);
    assert!(payload(&created).remark().unwrap().starts_with("attributes.created_at: "));
    for fine in [json!(1_772_352_000), json!("2026-03-01T08:00:00Z"), json!(1_772_352_000.5)] {
        let operation = only(&person("event", &json!({"name": "x", "timestamp": fine})));
        assert_eq!(
            (item(&operation)["timestamp"].clone(), payload(&operation).remark()),
            (json!(1_772_352_000), None),
            "{fine}"
        );
    }
    for wrong in [json!("soon"), json!(7), json!(true)] {
        assert!(map(&person("event", &json!({"name": "x", "timestamp": wrong}))).is_err(), "{wrong}");
    }
}

#[test]
fn with_create_false_an_update_creates_nobody() {
    let careful = |output: &Value| with(&|rules| rules.create = false, output, &[]);
    let operation = careful(&identify(&json!({"plan": "pro"}))).unwrap().remove(0);
    assert_eq!(item(&operation)["attributes"], json!({"plan": "pro", "_update": true}));
    let implicit = [
        person("event", &json!({"name": "x"})),
        person("add_device", &json!({"device": {"token": "t", "platform": "ios"}})),
        person(
            "add_relationships",
            &json!({"cio_relationships": [{"identifiers": {"object_type_id": "1", "object_id": "a"}}]}),
        ),
        json!({"type": "track", "userId": "42", "event": "x"}),
    ];
    for output in implicit {
        let error = careful(&output).unwrap_err();
        assert!(error.message.contains("implicit_create: true"), "{output}: {error}");
        let allowed = with(&|rules| (rules.create, rules.implicit_create) = (false, true), &output, &[]);
        assert!(allowed.is_ok(), "{output}: {allowed:?}");
    }
    let merge = json!({"type": "person", "action": "merge", "primary": {"id": "42"}, "secondary": {"id": "41"}});
    assert!(payload(&careful(&merge).unwrap()[0]).remark().unwrap().contains("primary"));
}

#[test]
fn nulls_and_numbers_that_are_not_finite_end_as_the_configuration_says() {
    let output = identify(&json!({"plan": null, "address": {"city": null, "zip": "1"}, "email": null}));
    assert_eq!(item(&only(&output))["attributes"], json!({"address": {"zip": "1"}}));
    let clear = with(&|rules| rules.nulls = Nulls::Clear, &output, &[]).unwrap();
    assert_eq!(
        item(&clear[0])["attributes"],
        json!({"plan": null, "address": {"city": null, "zip": "1"}}),
        "never an identifier"
    );

    let paths = ["traits.ltv".to_owned()];
    let output = json!({"type": "identify", "userId": "42", "traits": {"kept": 1}});
    let rule = |non_finite| with(&|rules| rules.non_finite = non_finite, &output, &paths);
    let omitted = rule(NonFinite::Omit).unwrap();
    assert_eq!(
        (item(&omitted[0])["attributes"].clone(), omitted[0].non_finite.clone()),
        (json!({"kept": 1}), paths.to_vec())
    );
    assert_eq!(item(&rule(NonFinite::Clear).unwrap()[0])["attributes"], json!({"kept": 1, "ltv": null}));
    assert_eq!(rule(NonFinite::Reject).unwrap_err().code, code::NON_FINITE_NUMBER);
    let elsewhere = with(&|rules| rules.non_finite = NonFinite::Clear, &output, &["context.x".to_owned()]);
    assert_eq!(elsewhere.unwrap_err().code, code::NON_FINITE_NUMBER);
}

#[test]
fn a_limit_is_told_in_the_vendors_words_with_its_path() {
    let many: serde_json::Map<_, _> = (0..301).map(|number| (format!("a{number}"), json!(1))).collect();
    let long = "x".repeat(1_001);
    let cases = [
        (
            identify(&Value::Object(many)),
            "attributes: the vendor says: cannot identify more than 300 attributes in one request",
        ),
        (identify(&json!({"x".repeat(151): 1})), "attribute name cannot be longer than 150 bytes"),
        (
            identify(&json!({"bio": long})),
            "attributes.bio: the vendor says: attribute value cannot be longer than 1000 bytes",
        ),
        (identify(&json!({"tags": [long]})), "attributes.tags: the vendor says: attribute value"),
        (
            json!({"type": "identify", "userId": "42", "traits": {"bio": long}}),
            "traits.bio: the vendor says: attribute value",
        ),
        (
            person("event", &json!({"name": "é".repeat(51)})),
            "name: the vendor says: event name cannot be longer than 100 bytes; this one has 102",
        ),
        (json!({"type": "track", "userId": "42", "event": "x".repeat(101)}), "event: the vendor says: event name"),
        (
            json!({"type": "object", "identifiers": {"object_type_id": "1", "object_id": "x".repeat(151)}, "action": "identify"}),
            "identifiers.object_id: the vendor says: id cannot be longer than 150 bytes",
        ),
        (
            person(
                "add_relationships",
                &json!({"cio_relationships": [{"identifiers": {"object_type_id": "1", "object_id": "a"}, "relationship_attributes": {"r": long}}]}),
            ),
            "cio_relationships[0].relationship_attributes.r: the vendor says: attribute value",
        ),
    ];
    for (output, expected) in cases {
        let error = map(&output).unwrap_err();
        assert!(error.message.contains(expected), "{error}");
        assert_eq!(error.code, code::OUTPUT_INVALID);
    }
    let event = |bytes: usize| person("event", &json!({"name": "x", "attributes": {"text": "x".repeat(bytes)}}));
    for api in [Api::Track, Api::Pipelines] {
        assert!(with(&|rules| rules.api = api, &event(31_000), &[]).is_ok());
        let error = with(&|rules| rules.api = api, &event(32_000), &[]).unwrap_err();
        assert_eq!(error.code, code::PAYLOAD_TOO_LARGE);
        assert!(error.message.contains("request is limited to 32KB"), "{error}");
    }
    let id = "9".repeat(151);
    let identifiers = identifiers();
    let output = RawValue::from_string(json!({"type": "identify", "userId": id}).to_string()).unwrap();
    let own = [("user_id", id.as_str())];
    let input = ClassifyInput {
        output: &output,
        route: "r",
        ordinal: 0,
        identifiers: &own,
        time: Timestamp::default(),
        non_finite: &[],
    };
    let error = classify(rules(&identifiers), &input).unwrap_err();
    assert!(error.message.contains("userId: the vendor says: id cannot be longer than 150 bytes"), "{error}");
}

#[test]
fn nobody_elses_identifier_is_sent() {
    let foreign = [
        json!({"type": "identify", "userId": "43", "traits": {}}),
        json!({"type": "identify", "userId": "42", "traits": {"email": "bob@example.com"}}),
        identify(&json!({"email": "bob@example.com"})),
        identify(&json!({"phone": "+4930123456"})),
        identify(&json!({"cio_id": "a9"})),
        json!({"type": "person", "identifiers": {"email": "bob@example.com"}, "action": "identify"}),
        // An identifier of another type is not this one.
        json!({"type": "person", "identifiers": {"id": "b-1"}, "action": "delete"}),
        json!({"type": "person", "action": "merge", "primary": {"id": "42"}, "secondary": {"id": "43"}}),
        json!({"type": "alias", "userId": "42", "previousId": "43"}),
        json!({"type": "object", "identifiers": {"object_type_id": "1", "object_id": "a"}, "action": "add_relationships", "cio_relationships": [{"identifiers": {"id": "43"}}]}),
        json!({"_operation": "add_to_list", "segment_id": 7, "ids": ["43"]}),
        // The vendor would send the message to this address.
        person("event", &json!({"name": "x", "attributes": {"recipient": "bob@example.com"}})),
        json!({"type": "track", "userId": "42", "event": "x", "properties": {"recipient": "bob@example.com"}}),
    ];
    for output in foreign {
        let error = map(&output).unwrap_err();
        assert_eq!(error.code, code::FOREIGN_IDENTIFIER, "{output}: {error}");
    }
    let output = json!({"type": "identify", "userId": "42", "anonymousId": "b-2", "traits": {}});
    assert_eq!(pipelines(&output).unwrap_err().code, code::FOREIGN_IDENTIFIER);
    let unsaid = with(&|rules| rules.identifiers = const { &BTreeMap::new() }, &identify(&json!({})), &[]).unwrap_err();
    assert!(unsaid.message.contains("identifiers: {id: <type>}"), "{unsaid}");
    let spelled = only(&json!({"type": "person", "identifiers": {"phone": "+1 (555) 123-4567"}, "action": "identify"}));
    assert_eq!(item(&spelled)["identifiers"], json!({"phone": "+15551234567"}), "the profile's own spelling is sent");
}

// Facts §4, C2: ids that do not match make two people of one.
#[test]
fn an_item_names_a_person_by_exactly_one_identifier() {
    let naming = |identifiers: Value| map(&json!({"type": "person", "identifiers": identifiers, "action": "identify"}));
    let error = naming(json!({"id": "42", "email": "ada@example.com"})).unwrap_err();
    assert!(error.message.contains("name 2 identifiers") && error.message.contains("`attributes`"), "{error}");
    for (identifiers, expected) in [
        (json!({}), "name nobody"),
        (json!({"id": null}), "name nobody"),
        (json!({"id": " "}), "name nobody"),
        (json!({"anonymous_id": "b-1"}), "names a browser"),
        (json!({"emial": "x"}), "did you mean `email`?"),
        (json!("42"), "is a text"),
    ] {
        let error = naming(identifiers).unwrap_err();
        assert!(error.message.contains(expected), "{error}");
    }
    // What is left out of the identifiers because it is blank does not count.
    assert!(naming(json!({"id": "42", "email": null})).is_ok());
}

#[test]
fn an_identifier_changes_only_where_the_author_says_so() {
    let other_id = identify(&json!({"id": "41"}));
    let error = map(&other_id).unwrap_err();
    assert!(error.message.contains("_operation: 'change_identifier'"), "{error}");
    let mut said = other_id.clone();
    said["_operation"] = json!("change_identifier");
    let operation = only(&said);
    assert_eq!((operation.kind, item(&operation)), (Kind::ChangeIdentifier, other_id));
    // By the vendor's own id, as it recommends.
    let by_own_id = json!({"_operation": "change_identifier", "type": "person", "identifiers": {"cio_id": "a3000001"}, "action": "identify", "attributes": {"email": "ada@example.com"}});
    assert_eq!(only(&by_own_id).kind, Kind::ChangeIdentifier);
    let nothing =
        json!({"_operation": "change_identifier", "type": "identify", "userId": "42", "traits": {"plan": "pro"}});
    assert!(map(&nothing).unwrap_err().message.contains("change no identifier"));
    assert_eq!(
        item(&only(&identify(&json!({"id": 42, "plan": "pro"}))))["attributes"],
        json!({"plan": "pro"}),
        "the same id says nothing"
    );
}

#[test]
fn what_a_person_has_agreed_to_changes_only_where_the_author_says_so() {
    let withdrawn = [
        json!({"unsubscribed": true}),
        json!({"unsubscribed": "TRUE"}),
        json!({"unsubscribed": 1}),
        json!({"cio_subscription_preferences": {"topics": {"topic_1": false}}}),
        json!({"cio_subscription_preferences.topics.topic_1": false}),
    ];
    let given =
        [json!({"unsubscribed": false}), json!({"cio_subscription_preferences": {"topics": {"topic_1": true}}})];
    let saying = |operation: &str, attributes: &Value| {
        let mut output = identify(attributes);
        output["_operation"] = json!(operation);
        map(&output)
    };
    for (all, own, opposite, kind) in [
        (&withdrawn[..], "unsubscribe", "subscribe", Kind::Unsubscribe),
        (&given[..], "subscribe", "unsubscribe", Kind::Subscribe),
    ] {
        for attributes in all {
            let error = map(&identify(attributes)).unwrap_err();
            assert!(error.message.contains(&format!("_operation: '{own}'")), "{error}");
            assert_eq!(saying(own, attributes).unwrap()[0].kind, kind);
            assert!(saying(opposite, attributes).unwrap_err().message.contains("opposite"), "{attributes}");
        }
        assert!(saying(own, &json!({"plan": "pro"})).unwrap_err().message.contains("hold no consent"));
    }
    for unclear in [
        json!({"cio_subscription_preferences": {}}),
        json!({"cio_subscription_preferences": {"topics": {"topic_1": "no"}}}),
    ] {
        assert!(map(&identify(&unclear)).is_err(), "{unclear}");
    }
}

// Facts §4, C4: a customer's id as the id of an event lost events.
#[test]
fn an_event_has_a_ulid_or_the_deliverys_own_id() {
    let with_id = |id: &str| map(&person("event", &json!({"name": "x", "id": id})));
    assert!(with_id("cust_42").unwrap_err().message.contains("no ULID"));
    assert_eq!(
        payload(&with_id("01ARZ3NDEKTSV4RRFFQ69G5FAV").unwrap()[0]).event_id.as_deref(),
        Some("01ARZ3NDEKTSV4RRFFQ69G5FAV")
    );
    assert_eq!(payload(&only(&person("event", &json!({"name": "x"})))).event_id, None);
    let message = |id: &str| {
        payload(&only(&json!({"type": "track", "userId": "42", "event": "x", "messageId": id}))).event_id.unwrap()
    };
    assert_eq!(message("order-7"), message("order-7"));
    assert_ne!(message("order-7"), message("order-8"));
    assert_eq!(message("order-7").len(), 26);
}

#[test]
fn what_does_not_fit_is_refused_with_place_and_cure() {
    let cases = [
        (json!(7), "the output: is a number"),
        (json!({}), "has no `type`"),
        (json!({"type": "persn"}), "did you mean `person`?"),
        (json!({"type": 7}), "type: is a number"),
        (json!({"type": "delivery", "action": "event"}), "reported by the device"),
        (json!({"type": "person", "identifiers": {"id": "42"}}), "has no `action`"),
        (person("identfy", &json!({})), "did you mean `identify`?"),
        (person("identify", &json!({"atributes": {}})), "did you mean `attributes`?"),
        (person("identify", &json!({"attributes": [1]})), "attributes: is an array"),
        (json!({"type": "person", "action": "identify"}), "identifiers: are missing"),
        (person("event", &json!({})), "has no `name`"),
        (person("event", &json!({"name": "x", "data": {}})), "this one says `attributes`"),
        (person("delete", &json!({"attributes": {}})), "attributes: is not known"),
        (identify(&json!({"_update": false})), "the destination's `create`"),
        (identify(&json!({"_timestamp": 1})), "stands in `timestamp`"),
        (person("add_relationships", &json!({})), "cio_relationships: are missing"),
        (person("add_relationships", &json!({"cio_relationships": []})), "is empty"),
        (
            person("add_relationships", &json!({"cio_relationships": [{"identifiers": {"object_id": "a"}}]})),
            "has no `object_type_id`",
        ),
        (
            person(
                "add_relationships",
                &json!({"cio_relationships": [{"identifiers": {"object_type_id": "accounts", "object_id": "a"}}]}),
            ),
            "numbers the types of objects",
        ),
        (person("add_device", &json!({})), "has no `device`"),
        (person("add_device", &json!({"device": {"token": "t"}})), "has no `platform`"),
        (person("add_device", &json!({"device": {"token": "t", "platform": "web"}})), "expected `ios` or `android`"),
        (
            person(
                "add_device",
                &json!({"device": {"token": "t", "platform": "ios", "attributes": {"_last_status": "sent"}}}),
            ),
            "the vendor alone writes it",
        ),
        (
            json!({"type": "person", "action": "merge", "primary": {"id": "42"}, "secondary": {"id": "42"}}),
            "nobody is merged with themselves",
        ),
        (
            json!({"type": "person", "action": "merge", "primary": {"phone": "+15551234567"}, "secondary": {"id": "42"}}),
            "cannot name a person of a merge",
        ),
        (json!({"type": "object", "action": "identify_anonymous", "identifiers": {}}), "names a browser"),
        (json!({"type": "object", "action": "event", "identifiers": {}}), "expected one of identify"),
        (json!({"segment_id": 7, "identifiers": {"id": "42"}}), "`_operation: 'add_to_list'`"),
        (json!({"_operation": "add_to_list", "segment_id": "VIPs", "identifiers": {"id": "42"}}), "not its name"),
        (json!({"_operation": "add_to_list", "segment_id": 7}), "names nobody"),
        (json!({"_operation": "add_to_list", "segment_id": 7, "ids": ["41", "42"]}), "names 2 people"),
        (
            json!({"_operation": "add_to_list", "segment_id": 7, "identifiers": {"phone": "+15551234567"}}),
            "id, email or cio_id",
        ),
        (
            json!({"_operation": "remove_from_list", "segment_id": 7, "identifiers": {"email": "ada@example.com"}}),
            "requires people to have an `id`",
        ),
        (
            json!({"_operation": "track_event", "type": "identify", "userId": "42"}),
            "but the output is a `upsert_profile`",
        ),
        (json!({"type": "identify", "traits": {}}), "names nobody"),
        (json!({"type": "identify", "userId": "42", "properties": {}}), "properties: is not known"),
        (
            json!({"type": "identify", "userId": "42", "context": {"traits": {"email": "x"}}}),
            "context.traits: is refused",
        ),
        (json!({"type": "track", "userId": "42"}), "has no `event`"),
        (
            json!({"type": "track", "userId": "42", "event": "User Deleted", "properties": {"a": 1}}),
            "are not taken with",
        ),
        (json!({"type": "track", "userId": "42", "event": "Report Delivery Event"}), "reported by the device"),
        (json!({"type": "group", "userId": "42"}), "has no `groupId`"),
    ];
    for (output, expected) in cases {
        let error = map(&output).unwrap_err();
        assert_eq!(error.code, code::OUTPUT_INVALID, "{output}: {error}");
        assert!(error.message.contains(expected), "{output}: {error}");
    }
    for (operation, expected) in
        [("upsert_catalog_item", "customerio cannot"), ("upsert_profil", "did you mean `upsert_profile`?")]
    {
        let error = map(&json!({"_operation": operation, "type": "identify", "userId": "42"})).unwrap_err();
        assert_eq!(error.code, code::UNSUPPORTED_OPERATION);
        assert!(error.message.contains(expected), "{error}");
    }
}

#[test]
fn what_the_pipelines_api_cannot_do_is_refused_before_it_waits() {
    let cases = [
        (
            json!({"_operation": "add_to_list", "segment_id": 7, "identifiers": {"id": "42"}}),
            "only the Track API has manual segments",
        ),
        (
            json!({"type": "person", "action": "merge", "primary": {"id": "42"}, "secondary": {"id": "41"}}),
            "only the Track API merges people",
        ),
        (
            json!({"type": "object", "identifiers": {"object_type_id": "1", "object_id": "a"}, "action": "identify"}),
            "with a person only",
        ),
        (
            json!({"type": "object", "identifiers": {"cio_object_id": "obb"}, "action": "delete"}),
            "only the Track API takes `cio_object_id`",
        ),
        (
            json!({"type": "person", "identifiers": {"email": "ada@example.com"}, "action": "identify"}),
            "names people by `userId` only",
        ),
        (json!({"type": "identify", "traits": {"email": "ada@example.com"}}), "names nobody"),
        (json!({"type": "group", "groupId": "acme"}), "names nobody"),
        (person("event", &json!({"name": "User Deleted"})), "carries out instead of recording"),
        (
            person("add_device", &json!({"device": {"token": "t", "platform": "ios", "last_used": 1_772_352_000}})),
            "the token and the type of a device",
        ),
    ];
    for (output, expected) in cases {
        let error = pipelines(&output).unwrap_err();
        assert!(error.message.contains(expected), "{output}: {error}");
    }
    // To the Track API it is an event like any other.
    assert_eq!(only(&person("event", &json!({"name": "User Deleted"}))).kind, Kind::TrackEvent);
}

fn any_json() -> impl Strategy<Value = Value> {
    let texts = vec![
        "42",
        "41",
        "43",
        "ada@example.com",
        "bob@example.com",
        "identify",
        "event",
        "person",
        "object",
        "t",
        "1",
        "",
        "pro",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::from),
        prop::sample::select(texts).prop_map(Value::from),
        "\\PC{0,6}".prop_map(Value::from),
    ];
    let name = prop::sample::select(vec![
        "type",
        "action",
        "identifiers",
        "id",
        "email",
        "phone",
        "cio_id",
        "attributes",
        "userId",
        "traits",
        "event",
        "name",
        "properties",
        "cio_relationships",
        "object_type_id",
        "object_id",
        "device",
        "token",
        "platform",
        "primary",
        "secondary",
        "segment_id",
        "_operation",
        "timestamp",
        "groupId",
        "recipient",
        "x",
    ]);
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            4 => prop::collection::vec((name.clone(), inner), 0..7)
                .prop_map(|members| Value::Object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())),
        ]
    })
}

proptest! {
    #[test]
    fn whatever_comes_back_is_about_this_person_or_an_error(
        output in any_json(), kind in prop::sample::select(vec!["person", "object", "identify", "track", "group", "alias"]),
        action in prop::sample::select(vec!["identify", "event", "merge", "add_device", "add_relationships"]),
    ) {
        let mut likely = output.clone();
        if let Some(members) = likely.as_object_mut() {
            members.insert("type".to_owned(), json!(kind));
            members.insert("action".to_owned(), json!(action));
            members.entry("userId").or_insert(json!("42"));
        }
        for output in [output, likely] {
            for api in [Api::Track, Api::Pipelines] {
                for operation in with(&|rules| rules.api = api, &output, &[]).into_iter().flatten() {
                    let text = operation.body.get();
                    prop_assert!(Payload::of(&operation).is_some());
                    let item = item(&operation);
                    for place in ["/identifiers", "/primary", "/secondary"] {
                        for (field, value) in item.pointer(place).and_then(Value::as_object).into_iter().flatten() {
                            if item["type"] == "person" {
                                prop_assert!(ADA.iter().any(|(_, own)| value == own), "{field}: {value} in {text}");
                            }
                        }
                    }
                }
            }
        }
    }
}
