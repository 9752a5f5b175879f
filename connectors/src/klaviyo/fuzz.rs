//! What a vendor answers, and what a transform makes of a row: neither is under our control.
//!
//! Signatures of webhooks belong here as soon as there is a source that takes webhooks; there is none yet.

use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use serde_json::Value;
use serde_json::value::RawValue;
use tailwater_fuzz::{Target, effect, generated};

use super::endpoint;
use super::errors::{self, pointer_index};
use super::jobs::{ErrorPage, Job, cursor_of};
use super::lookup::Page;
use super::mapping::{Rules, classify};
use super::payload;
use super::requests::{BULK_POINTER, Identified};
use super::tests::config;
use crate::destination::ClassifyInput;
use crate::http::Meaning;
use crate::http::retry_after::{self, RETRY_AFTER_MAX};

const ANSWERS: &[&str] = &[
    "1\n",
    "86400\n",
    "99999999999999999999\n",
    "-1\n",
    "Sun, 01 Mar 2026 08:00:20 GMT\n",
    "Sunday, 01-Mar-26 08:00:20 GMT\n",
    "Sun Mar  1 08:00:20 2026\n",
    "{\"errors\":[",
    "]}",
    "{\"code\":\"invalid\"",
    ",\"title\":null",
    ",\"detail\":\"Invalid email address.\"",
    ",\"source\":{\"pointer\":\"",
    "/data/attributes/profiles/data/7/attributes/email",
    "/data/attributes/profiles/data/18446744073709551616",
    "\"}",
    ",\"meta\":[]",
    ",\"meta\":{\"duplicate_profile_id\":\"01J\"}",
    "{\"data\":",
    "{\"attributes\":{\"status\":\"complete\",\"failed_count\":1}}",
    "\"original_payload\":",
    "\"links\":{\"next\":\"https://a.klaviyo.com/x?page%5Bcursor%5D=abc\"}",
    "null",
    "[",
    "]",
    "{",
    "}",
    "<html>",
    "\u{0}",
    "1e400",
    "-1",
];

/// An input is: the value of `Retry-After`, a line break, the body. The status is made of the lengths.
#[test]
fn answers() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_772_352_000);
    let target = Target { name: "answers", tokens: ANSWERS, bytes_max: 4_096 };
    target.run(None, |input| {
        let cut = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
        let (header, body) = (String::from_utf8_lossy(&input[..cut]), input.get(cut + 1..).unwrap_or_default());
        let wait = retry_after::parse(&header, now);
        assert!(wait.is_none_or(|wait| wait <= RETRY_AFTER_MAX));
        let read = errors::read(body);
        assert!(!read.is_empty(), "an answer is told in any case");
        let words = errors::summary(&read);
        assert!(words.starts_with("the vendor says"), "{words}");
        let status = u16::try_from(200 + input.len() % 400).expect("below 600");
        let meaning = Meaning::of_status(status, if cut % 2 == 0 { &endpoint::JOB } else { &endpoint::EVENTS });
        assert_eq!(
            meaning == Meaning::Request,
            matches!(status, 200..=299 | 400 | 409 | 413 | 414 | 422 | 431) || (status == 404 && cut % 2 == 0)
        );
        let index = read.iter().find_map(|error| pointer_index(&error.source.pointer, BULK_POINTER));
        let job = serde_json::from_slice::<Job>(body).is_ok();
        let page = serde_json::from_slice::<Page>(body).is_ok();
        let failures = serde_json::from_slice::<ErrorPage>(body).ok();
        let cursor = failures.as_ref().and_then(|page| page.links.next.as_deref()).and_then(cursor_of);
        let told =
            (read.len().min(5), read[0].code.is_empty(), read[0].source == errors::Source::default(), index.is_some());
        effect((wait.map(|wait| wait.as_secs().checked_ilog2()), told, job, page, failures.is_some(), cursor.is_some()))
    });
}

const OUTPUTS: &[&str] = &[
    "{\"data\":{\"type\":\"profile\",\"attributes\":{",
    "{\"data\":{\"type\":\"event\",\"attributes\":{",
    "}}}",
    "\"email\":\"ada@example.com\"",
    "\"email\":null",
    "\"phone_number\":\"+4930123456\"",
    "\"external_id\":\"c1\"",
    "\"properties\":{",
    "}",
    "\"location\":{\"latitude\":",
    "\"latitude\":\"91.5\"",
    "\"timezone\":",
    "\"relationships\":{\"lists\":{\"data\":[{\"type\":\"list\",\"id\":\"X\"}]}}",
    "\"meta\":{\"patch_properties\":{\"append\":",
    "\"unset\":[",
    "\"metric\":{\"data\":{\"type\":\"metric\",",
    "\"attributes\":{\"name\":\"Order\"}}}",
    "\"profile\":{\"data\":{\"type\":\"profile\",",
    "\"time\":\"2026-03-01T08:00:00Z\"",
    "\"value\":",
    "\"value_currency\":\"EUR\"",
    "\"unique_id\":",
    "\"id\":",
    "\"subscriptions\":{}",
    "null",
    "true",
    "1e400",
    "-0.0",
    "9007199254740993",
    "\"\"",
    "\" \"",
    "[",
    "]",
    "{",
    ",",
    ":",
    "\"$serde_json::private::Number\":\"1\"",
];

/// JSON with the vendor's names in it.
fn outputs() -> impl Strategy<Value = Vec<u8>> {
    let names = [
        "data",
        "type",
        "attributes",
        "email",
        "phone_number",
        "external_id",
        "properties",
        "location",
        "relationships",
        "lists",
        "id",
        "meta",
        "metric",
        "profile",
        "name",
        "time",
        "value",
        "unique_id",
        "x",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec![
            "profile",
            "event",
            "list",
            "metric",
            "ada@example.com",
            "+4930123456",
            "c1",
            "",
            " x "
        ])
        .prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(6, 40, 6, move |inner| {
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            4 => prop::collection::vec((prop::sample::select(names.to_vec()), inner), 0..6)
                .prop_map(|entries| Value::Object(entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())),
        ]
    });
    value.prop_map(|value| value.to_string().into_bytes())
}

#[test]
fn outputs_of_transforms() {
    let config = config();
    let rules = Rules { identifiers: &config.identifiers, nulls: config.nulls, non_finite: config.non_finite };
    let identifiers = [("email", "ada@example.com"), ("phone", "+4930123456"), ("customer_id", "c1")];
    let mut outputs = generated(outputs());
    let target = Target { name: "outputs", tokens: OUTPUTS, bytes_max: 8_192 };
    target.run(Some(&mut outputs), |input| {
        let Some(output) = std::str::from_utf8(input).ok().and_then(|text| RawValue::from_string(text.to_owned()).ok())
        else {
            return 0;
        };
        let input = ClassifyInput {
            output: &output,
            route: "ltv",
            ordinal: 3,
            identifiers: &identifiers,
            time: tailwater_core::Timestamp::default(),
            non_finite: &[],
        };
        match classify(rules, &input) {
            Ok(operation) => {
                let body: Value = serde_json::from_str(operation.body.get()).expect("the body is JSON");
                // Whoever the body names is this person.
                for (field, value) in Identified::of(&operation).normal() {
                    assert!(identifiers.iter().any(|(_, own)| *own == value), "{field:?}: {value}");
                }
                let lists = payload::lists(operation.body.get());
                assert!(lists.windows(2).all(|pair| pair[0] < pair[1]), "sorted, without repeats");
                // The body is an output too, and says the same.
                let again = RawValue::from_string(format!("{{\"data\":{}}}", operation.body.get())).expect("JSON");
                let again = classify(rules, &ClassifyInput { output: &again, ..input });
                assert_eq!(again.map(|again| again.body.get().to_owned()), Ok(operation.body.get().to_owned()));
                effect((operation.kind, body["attributes"].as_object().map(serde_json::Map::len), lists.len()))
            }
            Err(error) => {
                assert!(!error.message.is_empty());
                effect((error.code, error.message.split(' ').take(6).collect::<Vec<_>>().join(" ")))
            }
        }
    });
}
