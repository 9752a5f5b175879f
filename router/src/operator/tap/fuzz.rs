//! Any record of any of our topics as `tailwater tap` shows it.

use std::sync::Arc;

use serde_json::Value;
use tailwater_core::Timestamp;
use tailwater_fuzz::{Target, effect};

use super::*;

const TOPICS: &[&str] =
    &["ledger", "state.resolve", "state.route.klaviyo", "state.send.klaviyo", "resolved", "deliveries"];

const TOKENS: &[&str] = &[
    "h",
    "t",
    "w",
    "i",
    "p",
    "l",
    "j",
    "d",
    "o",
    "s",
    "c",
    "\0\0\0\0\0\0\0\x01",
    "aaaaaaaaaaaaaaaa",
    "\x01",
    "{\"a\":1}",
    "[[\"email\",\"a@b.c\"]]",
    "[\"send\",\"klaviyo\",0,\"t\",0,0,0,\"0\"]",
    "\x05\0\x01\x01",
    "\u{7f}",
    "\n",
];

/// An input is: the topic, the length of the key, the key, the length of the header `tw`, the header, the value.
fn part<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let Some((&length, tail)) = rest.split_first() else { return &[] };
    let (part, tail) = tail.split_at(usize::from(length).min(tail.len()));
    *rest = tail;
    part
}

#[test]
fn tap() {
    let target = Target { name: "tap", tokens: TOKENS, bytes_max: 2_048 };
    target.run(None, |input| {
        let Some((&topic, mut rest)) = input.split_first() else { return 0 };
        let topic = TOPICS[usize::from(topic) % TOPICS.len()];
        let (key, header) = (part(&mut rest), part(&mut rest));
        let value = (rest != b"-").then_some(rest);
        let header = (!header.is_empty()).then_some(header);
        let headers = vec![("x".to_owned(), value.map(<[u8]>::to_vec))];
        let record = Record::new(Arc::from(topic), 3, 9, Timestamp::from_millis(7), Some(key), value, header, headers);
        let decoded = decode::decode(topic, &record);
        let (name, lines) = match &decoded {
            Some(decoded) => (decoded.key.as_deref(), decoded.lines.as_slice()),
            None => (None, [].as_slice()),
        };
        for lay_out in [false, true] {
            assert!(shown::to_text(&record, name, lines, lay_out).ends_with('\n'));
        }
        let envelope = record.envelope();
        let json = decoded.as_ref().map(|decoded| decoded.json.clone());
        let entry = json.as_ref().and_then(|json| json["entry"].as_str().map(str::to_owned));
        let fields = json.as_ref().and_then(Value::as_object).map(serde_json::Map::len);
        let line = serde_json::to_string(&Shown::of(&record, &envelope, json)).expect("a line of JSON");
        assert!(!line.contains(['\n', '\r']), "one record, one line: {line}");
        effect((topic, entry, fields, lines.len().min(6), envelope.is_ok()))
    });
}
