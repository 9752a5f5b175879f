//! Any body and any headers as a record of an ingest topic, under sources of each kind. What the reader that builds no tree
//! finds is held against a reader that does.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use tailwater_core::delivery::Reason;
use tailwater_core::envelope::Envelope;
use tailwater_core::path;
use tailwater_core::{ChangeKind, Timestamp, code};
use tailwater_fuzz::{Target, effect, generated};

use super::decode::{Decoded, decode};
use super::types::{self, Types};
use crate::config::model::{KafkaSource, OnDelete, Source, SourceInput, SourceKind};
use crate::kafka::Record;
use crate::stages::shared::body;

const TOKENS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    ",",
    "\"id\":",
    "\"user\":",
    "\"email\":",
    "\"user.email\":",
    "\"at\":",
    "\"_change_type\":\"delete\"",
    "\"_change_type\":\"update_preimage\"",
    "\"_commit_version\":7",
    "null",
    "true",
    "NaN",
    "Infinity",
    "-Infinity",
    "-0",
    "1e400",
    "0.10",
    "00",
    "1.",
    ".5",
    "\"\\ud800\"",
    "\"\\ud83d\\ude00\"",
    "\"\\u0000\"",
    "\\u0069d",
    "\"a@b.c\"",
    "\"2026-03-01T08:00:00Z\"",
    "1772352000",
    "1772352000.267",
    "1772352000000000",
    "1e7",
    "12345.0",
    "\"2026-03-01 08:00:00 UTC\"",
    "\"03/01/2026\"",
    "\"u3\\udc00\"",
    "-9223372036854775808",
    "9223372036854775807",
    "\u{feff}",
    "{\"a\":",
    "[[",
    "/**/",
    "\"$serde_json::private::Number\":\"1\"",
    "\n",
    "\t",
];

const PATHS: &[&str] = &["id", "user.email", "user", "at", "a.b.c", "", ".", "user.", "_change_type"];

/// Levels up to which a tree can be built; the other reader needs none.
const DEPTH_MAX: usize = 120;

fn source(kind: SourceKind) -> Source {
    Source {
        name: "app".into(),
        input: SourceInput::Kafka(KafkaSource::of("app.events")),
        kind,
        primary_key: Some("id".into()),
        identifiers: vec![("user.email".into(), "email".into()), ("id".into(), "customer_id".into())],
        event_time: Some("at".into()),
        event_time_rules: crate::config::model::EventTimeRules::default(),
        event_type: "app".into(),
        on_delete: OnDelete::Skip,
        aliases: BTreeMap::new(),
        before_image: false,
        dedupe: None,
    }
}

fn record(value: &[u8], header: Option<&[u8]>, headers: Vec<(String, Option<Vec<u8>>)>) -> Record {
    Record::new(Arc::from("app.events"), 2, 40, Timestamp::from_millis(9), Some(b"k"), Some(value), header, headers)
}

/// Values that nest, with the names that the sources look for.
fn rows() -> impl proptest::strategy::Strategy<Value = Vec<u8>> {
    use proptest::prelude::*;

    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,8}|2026-0[0-9]-[0-3][0-9]|-?[0-9]{1,25}".prop_map(Value::from),
    ];
    let name = prop_oneof![prop::sample::select(PATHS).prop_map(str::to_owned), "\\PC{0,4}"];
    let value = leaf.prop_recursive(4, 24, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((name.clone(), inner), 0..6)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    });
    value.prop_map(|value| value.to_string().into_bytes())
}

#[test]
fn rows_of_producers() {
    let sources = [
        source(SourceKind::State),
        source(SourceKind::Events { id: None }),
        source(SourceKind::Events { id: Some("id".into()) }),
    ];
    let mut bodies = generated(rows());
    let target = Target { name: "rows", tokens: TOKENS, bytes_max: 8_192 };
    target.run(Some(&mut bodies), |input| {
        let meaning = agrees_with_a_tree(input);
        let told: Vec<_> = sources.iter().map(|source| told(&record(input, None, Vec::new()), source)).collect();
        effect((meaning, told, without_its_invalid_values(input)))
    });
}

/// A row is an object after its invalid values became null, and has none then. How many it had.
fn without_its_invalid_values(input: &[u8]) -> usize {
    let declared =
        [("id", "long"), ("user", "struct<email:string,at:timestamp>"), ("at", "date"), ("a", "decimal(5,2)")];
    let column = |(name, data_type): (&str, &str)| tailwater_core::schema::Column::new(name, data_type);
    let types = Types::new(&tailwater_core::schema::Schema { columns: declared.map(column).to_vec() });
    let Ok(invalid) = types.check(input) else { return 0 };
    if body::Values::read(input, []).is_ok() && invalid.len() < types::INVALID_MAX {
        let cured = types::without(input, &invalid);
        assert!(body::Values::read(&cured, []).is_ok(), "{:?}", String::from_utf8_lossy(&cured));
        assert!(types.check(&cured).is_ok_and(|left| left.is_empty()), "{:?}", String::from_utf8_lossy(&cured));
    }
    invalid.len()
}

/// What became of a record, in few words.
fn told(record: &Record, source: &Source) -> (u8, &'static str, usize, bool) {
    match decode(record, source, None, "acme") {
        Decoded::Event(event) => {
            assert!(event.identifiers.len() <= source.identifiers.len());
            assert!(!event.time.to_string().is_empty());
            let header = Envelope { event_id: Some(event.event_id), time: event.time, ..event.envelope }.to_bytes();
            assert!(Envelope::decode(&header).is_ok(), "what goes on to `resolved` can be read there");
            (0, event.change.as_str(), event.identifiers.len(), event.time == record.timestamp)
        }
        Decoded::Skip(Reason { code, .. }) => (1, code.as_str(), 0, false),
        Decoded::Reject(Reason { code, message, .. }) => {
            assert!(!message.is_empty());
            (2, code.as_str(), 0, false)
        }
    }
}

/// Reads a body in both ways; what both understand they must understand alike.
fn agrees_with_a_tree(input: &[u8]) -> u8 {
    let checked = body::Values::read(input, []);
    // A name of the tree's own, under which it hides numbers, means something else to it.
    if depth(input) > DEPTH_MAX || input.windows(12).any(|part| part == b"$serde_json:") {
        for path in PATHS {
            drop(body::scalar(input, path));
        }
        return 3;
    }
    let tree = serde_json::from_slice::<Value>(input).ok().filter(Value::is_object);
    // Half of a surrogate pair is right JSON that no Rust text can hold: V8 reads it, a tree cannot be built of it.
    if tree.is_none() && input.contains(&b'\\') {
        return 4;
    }
    assert_eq!(
        checked.is_ok(),
        tree.is_some(),
        "one reader takes it and the other does not: {:?}, {tree:?}",
        checked.err()
    );
    let Some(tree) = tree else { return 0 };
    let paths = PATHS.iter().map(|path| ((*path).to_owned(), scalar_of(find(&tree, path))));
    // Every column has a path, whatever its name is.
    let columns = tree.as_object().into_iter().flatten().take(8);
    let columns = columns.map(|(name, value)| (path::join(&[name]), scalar_of(Some(value))));
    for (path, expected) in paths.chain(columns) {
        let found = body::scalar(input, &path).expect("it is an object");
        // A tree writes a number's exponent its own way; the row's own spelling is kept here.
        let same_number = |(left, right): (&String, &String)| matches!((left.parse::<f64>(), right.parse::<f64>()), (Ok(left), Ok(right)) if left.to_bits() == right.to_bits());
        let alike = found == expected || found.as_ref().zip(expected.as_ref()).is_some_and(same_number);
        assert!(alike, "at {path:?}: {found:?}, expected {expected:?}");
    }
    1 + u8::from(tree.as_object().is_some_and(|object| object.len() > 3))
}

/// What `body::scalar` says it finds.
fn scalar_of(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn find<'v>(tree: &'v Value, path: &str) -> Option<&'v Value> {
    let object = tree.as_object()?;
    match (object.get(path), path.split_once('.')) {
        (Some(found), _) => Some(found),
        (None, Some((head, tail))) => find(object.get(head)?, tail),
        (None, None) => None,
    }
}

fn depth(input: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for byte in input {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

const HEADERS: &[&str] = &[
    "ce_id: evt-1\n",
    "ce_type: order.placed\n",
    "ce_time: 2026-03-01T08:00:00Z\n",
    "ce_source: /shop\n",
    "ce_specversion: 1.0\n",
    "tw-source-error-code: kafka_record_too_large\n",
    "tw-source-error-message: too large\n",
    "ce_id:",
    "\n",
    ": ",
    "\0",
    "\x01",
    "\x02\x10",
    "\x06\x03\0\x04\x07",
    "\x07\x05\0\0app",
    "\x0a\x01\x02",
    "\x1a\x04cust",
    "\x15\x02\x01r",
    "é",
];

/// Headers of CloudEvents and of our own: lines, an empty one, and the bytes of `tw`.
#[test]
fn headers_at_ingest() {
    let sources = [
        source(SourceKind::State),
        source(SourceKind::Events { id: None }),
        Source { event_time: None, ..source(SourceKind::Events { id: None }) },
    ];
    let target = Target { name: "headers", tokens: HEADERS, bytes_max: 2_048 };
    target.run(None, |input| {
        let (headers, rest) = crate::stages::shared::dead_letter::fuzz::headers(input);
        let record = record(br#"{"id":"c1","user":{"email":"a@b.c"}}"#, rest, headers);
        let told: Vec<_> = sources.iter().map(|source| told(&record, source)).collect();
        if let Ok(envelope) = record.envelope()
            && envelope.change != ChangeKind::None
        {
            assert!(told.iter().all(|(_, code, ..)| *code != code::TOMBSTONE.as_str()));
        }
        effect((told, rest.is_some(), record.envelope().is_ok()))
    });
}
