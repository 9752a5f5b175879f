//! A record and its envelope, for people and for programs. Pure, and exact: what is printed as JSON says no more and no less than the bytes.

use serde::Serialize;
use serde_json::value::RawValue;
use tailwater_core::envelope::{Envelope, Merge, Role};
use tailwater_core::{ChangeKind, Coordinates, SourcePosition, Timestamp, hex};

use crate::kafka::Record;

/// Bytes for a person: as text if they are one, else in hexadecimal.
pub fn readable(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(|letter| letter.is_control() && !letter.is_whitespace()) => text.to_owned(),
        _ => format!("0x{}", hex(bytes)),
    }
}

/// JSON as it was written, on one line: line breaks can only stand between its parts, where a blank means the same.
pub fn json_line(bytes: &[u8]) -> Option<Box<RawValue>> {
    let raw: &RawValue = serde_json::from_slice(bytes).ok()?;
    if raw.get().contains(['\n', '\r']) {
        return RawValue::from_string(raw.get().replace(['\n', '\r'], " ")).ok();
    }
    Some(raw.to_owned())
}

/// Lays JSON out over lines without reading its values, so that no digit of a number is lost. The text must be JSON.
pub fn pretty(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let (mut depth, mut quoted, mut escaped, mut opened) = (0_usize, false, false, false);
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    for letter in json.chars() {
        if quoted {
            out.push(letter);
            quoted = escaped || letter != '"';
            escaped = !escaped && letter == '\\';
            continue;
        }
        if letter.is_ascii_whitespace() {
            continue;
        }
        let closes = matches!(letter, '}' | ']');
        if closes {
            depth = depth.saturating_sub(1);
        }
        // An empty object or list stays on its line.
        if opened != closes {
            line(&mut out, depth);
        }
        opened = matches!(letter, '{' | '[');
        out.push(letter);
        match letter {
            '{' | '[' => depth += 1,
            ',' => line(&mut out, depth),
            ':' => out.push(' '),
            '"' => quoted = true,
            _ => {}
        }
    }
    out
}

// === coordinates ===

/// A place in Kafka.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Place {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
}

impl From<Coordinates<'_>> for Place {
    fn from(at: Coordinates<'_>) -> Self {
        Self { topic: at.topic.to_owned(), partition: at.partition, offset: at.offset }
    }
}

impl Place {
    pub fn coordinates(&self) -> Coordinates<'_> {
        Coordinates { topic: &self.topic, partition: self.partition, offset: self.offset }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.coordinates().fmt(f)
    }
}

// === the envelope ===

/// The fields of an envelope by their names; absent ones are left out.
#[derive(Debug, Serialize)]
pub struct Header<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    workspace: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    source: &'a str,
    #[serde(rename = "type", skip_serializing_if = "str::is_empty")]
    event_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<Position>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ingest: Option<Place>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    change: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    before_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    schema: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_schema: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    identifiers: Vec<Identifier<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    refused: Vec<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    refusals: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fence: Option<Merged>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hold: Option<Merged>,
    #[serde(skip_serializing_if = "Option::is_none")]
    release: Option<Merged>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backfill: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replay: Option<Replay<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    only_destination: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_context: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transform_hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delivery_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    row_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    row_key_hex: Option<String>,
    /// Fields of a later version.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unknown: Vec<Unknown>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Position {
    Table { generation: u32, version: u64, ordinal: u64 },
    Log(Place),
}

#[derive(Debug, Serialize)]
struct Identifier<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    value: &'a str,
}

#[derive(Debug, Serialize)]
struct Merged {
    number: u64,
    survivor: String,
    absorbed: String,
}

#[derive(Debug, Serialize)]
struct Replay<'a> {
    id: &'a str,
    count: u32,
}

#[derive(Debug, Serialize)]
struct Unknown {
    tag: u64,
    hex: String,
}

impl<'a> Header<'a> {
    pub fn of(envelope: &'a Envelope<'_>) -> Self {
        let merged = |merge: Merge| Merged {
            number: merge.number,
            survivor: merge.survivor.to_string(),
            absorbed: merge.absorbed.to_string(),
        };
        let (mut fence, mut hold, mut release) = (None, None, None);
        match envelope.role {
            Role::Event => {}
            Role::Fence(merge) => fence = Some(merged(merge)),
            Role::Hold(merge) => hold = Some(merged(merge)),
            Role::Release(merge) => release = Some(merged(merge)),
        }
        let before = envelope.before.map(json_line);
        let row_key = envelope.row_key.map(std::str::from_utf8);
        Self {
            workspace: envelope.workspace,
            event_id: envelope.event_id.map(|id| id.to_string()),
            source: envelope.source,
            event_type: envelope.event_type,
            time: (envelope.time != Timestamp::default()).then(|| envelope.time.to_string()),
            position: envelope.position.map(|position| match position {
                SourcePosition::Table { generation, version, ordinal } => {
                    Position::Table { generation, version, ordinal }
                }
                SourcePosition::Log(at) => Position::Log(at.into()),
            }),
            ingest: envelope.ingest.map(Place::from),
            sequence: (envelope.sequence != 0).then_some(envelope.sequence),
            change: (envelope.change != ChangeKind::None).then(|| envelope.change.as_str()),
            before_hex: envelope.before.filter(|_| matches!(before, Some(None))).map(hex),
            before: before.flatten(),
            schema: envelope.schema.map(|id| id.to_string()),
            previous_schema: envelope.previous_schema.map(|id| id.to_string()),
            profile: envelope.profile.map(|id| id.to_string()),
            identifiers: envelope
                .identifiers
                .iter()
                .map(|identifier| Identifier { kind: identifier.kind, value: identifier.value })
                .collect(),
            refused: envelope.refused.to_vec(),
            refusals: envelope.refusals.iter().map(ToString::to_string).collect(),
            fence,
            hold,
            release,
            backfill: envelope.backfill,
            replay: envelope.replay.map(|replay| Replay { id: replay.id, count: replay.count }),
            only_destination: envelope.only_destination,
            trace_context: envelope.trace_context,
            transform_hash: envelope.transform_hash.map(hex),
            delivery_key: envelope.delivery_key.map(|key| key.to_string()),
            row_key_hex: envelope.row_key.filter(|_| matches!(row_key, Some(Err(_)))).map(hex),
            row_key: row_key.and_then(Result::ok),
            unknown: envelope.unknown.iter().map(|(tag, value)| Unknown { tag: *tag, hex: hex(value) }).collect(),
        }
    }

    /// The fields with their names, in the order of their tags, for a person.
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines: Vec<(&'static str, String)> = Vec::new();
        let mut add = |name, value: Option<String>| {
            if let Some(value) = value {
                lines.push((name, value));
            }
        };
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let merge = |merge: &Merged| format!("merge {}: {} into {}", merge.number, merge.absorbed, merge.survivor);
        add("workspace", text(self.workspace));
        add("event_id", self.event_id.clone());
        add("source", text(self.source));
        add("type", text(self.event_type));
        add("time", self.time.clone());
        add(
            "position",
            self.position.as_ref().map(|position| match position {
                Position::Table { generation, version, ordinal } => {
                    format!("table generation {generation}, version {version}, ordinal {ordinal}")
                }
                Position::Log(at) => at.to_string(),
            }),
        );
        add("ingest", self.ingest.as_ref().map(Place::to_string));
        add("sequence", self.sequence.map(|number| number.to_string()));
        add("change", self.change.map(str::to_owned));
        add("before", self.before.as_ref().map(|raw| raw.get().to_owned()));
        add("before_hex", self.before_hex.clone());
        add("schema", self.schema.clone());
        add("previous_schema", self.previous_schema.clone());
        add("profile", self.profile.clone());
        for identifier in &self.identifiers {
            add("identifier", Some(format!("{}={}", identifier.kind, identifier.value)));
        }
        // Records of earlier versions say only which column.
        if self.refusals.is_empty() {
            for refused in &self.refused {
                add("refused", Some((*refused).to_owned()));
            }
        }
        for refusal in &self.refusals {
            add("refused", Some(refusal.clone()));
        }
        add("fence", self.fence.as_ref().map(merge));
        add("hold", self.hold.as_ref().map(merge));
        add("release", self.release.as_ref().map(merge));
        add("backfill", self.backfill.map(str::to_owned));
        add("replay", self.replay.as_ref().map(|replay| format!("{} (number {})", replay.id, replay.count)));
        add("only_destination", self.only_destination.map(str::to_owned));
        add("trace_context", self.trace_context.map(str::to_owned));
        add("transform_hash", self.transform_hash.clone());
        add("delivery_key", self.delivery_key.clone());
        add("row_key", self.row_key.map(str::to_owned));
        add("row_key_hex", self.row_key_hex.clone());
        for unknown in &self.unknown {
            add("unknown", Some(format!("field {}: 0x{}", unknown.tag, unknown.hex)));
        }
        lines
    }
}

// === the record ===

/// A record for programs. Text stands in `key`, JSON in `value`; what is neither stands in a field that says so.
#[derive(Debug, Serialize)]
pub struct Shown<'a> {
    #[serde(flatten)]
    at: Place,
    timestamp: String,
    timestamp_ms: i64,
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    envelope: Option<Header<'a>>,
    /// Why the header could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    envelope_error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    envelope_hex: Option<String>,
    headers: Vec<Other<'a>>,
    /// The length of the value; null for a record without one.
    value_bytes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_hex: Option<String>,
    /// What the bytes of our own formats mean.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decoded: Option<serde_json::Value>,
}

/// A header that is not ours.
#[derive(Debug, Serialize)]
struct Other<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_hex: Option<String>,
}

impl<'a> Shown<'a> {
    /// `envelope` is what the record's own header says.
    pub fn of(
        record: &'a Record,
        envelope: &'a Result<Envelope<'_>, tailwater_core::envelope::DecodeError>,
        decoded: Option<serde_json::Value>,
    ) -> Self {
        let json = record.value().and_then(json_line);
        let other = record.value().filter(|_| json.is_none());
        let text = other.map(std::str::from_utf8);
        let key = record.key().map(std::str::from_utf8);
        let has_header = record.header().is_some();
        Self {
            at: record.coordinates().into(),
            timestamp: record.timestamp.to_string(),
            timestamp_ms: record.timestamp.as_millis(),
            key_hex: record.key().filter(|_| matches!(key, Some(Err(_)))).map(hex),
            key: key.and_then(Result::ok),
            envelope: envelope.as_ref().ok().filter(|_| has_header).map(Header::of),
            envelope_error: envelope.as_ref().err().map(ToString::to_string),
            envelope_hex: record.header().filter(|_| envelope.is_err()).map(hex),
            headers: record
                .headers
                .iter()
                .map(|(name, value)| {
                    let text = value.as_deref().map(std::str::from_utf8);
                    Other {
                        name,
                        value_hex: value.as_deref().filter(|_| matches!(text, Some(Err(_)))).map(hex),
                        value: text.and_then(Result::ok),
                    }
                })
                .collect(),
            value_bytes: record.value().map(<[u8]>::len),
            value: json,
            value_hex: other.filter(|_| matches!(text, Some(Err(_)))).map(hex),
            value_text: text.and_then(Result::ok),
            decoded,
        }
    }
}

/// A record for people, over several lines. `decoded` replaces a value in one of our own formats, and `key` a key that is one.
pub fn to_text(record: &Record, key: Option<&str>, decoded: &[String], lay_out: bool) -> String {
    let mut out = format!("{}  {}", record.coordinates(), record.timestamp);
    match (key, record.key()) {
        (Some(key), _) => out.push_str(&format!("  key {key}")),
        (None, Some(bytes)) => out.push_str(&format!("  key {}", readable(bytes))),
        (None, None) => out.push_str("  no key"),
    }
    out.push('\n');
    match record.envelope() {
        Ok(envelope) if record.header().is_some() => {
            for (name, value) in Header::of(&envelope).lines() {
                out.push_str(&format!("  tw.{name:<16} {value}\n"));
            }
        }
        Ok(_) => {}
        Err(error) => {
            let bytes = record.header().unwrap_or_default();
            out.push_str(&format!("  tw could not be read: {error}; 0x{}\n", hex(bytes)));
        }
    }
    for (name, value) in &record.headers {
        let value = value.as_deref().map_or_else(|| "(null)".to_owned(), readable);
        out.push_str(&format!("  {name}: {value}\n"));
    }
    if !decoded.is_empty() {
        for line in decoded {
            out.push_str(&format!("  {line}\n"));
        }
        return out;
    }
    match record.value() {
        None => out.push_str("  no value\n"),
        Some(bytes) => match json_line(bytes) {
            Some(raw) if lay_out => {
                for line in pretty(raw.get()).lines() {
                    out.push_str(&format!("  {line}\n"));
                }
            }
            Some(raw) => out.push_str(&format!("  {}\n", raw.get())),
            None => out.push_str(&format!("  {}\n", readable(bytes))),
        },
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn record(value: Option<&[u8]>, header: Option<&[u8]>) -> Record {
        let headers = vec![("ce_type".to_owned(), Some(b"order".to_vec())), ("raw".to_owned(), Some(vec![0xff]))];
        Record::new(Arc::from("t.x"), 2, 7, Timestamp::from_millis(0), Some(b"\xfe"), value, header, headers)
    }

    fn json(record: &Record) -> serde_json::Value {
        let envelope = record.envelope();
        let line = serde_json::to_string(&Shown::of(record, &envelope, None)).unwrap();
        assert!(!line.contains('\n'));
        serde_json::from_str(&line).unwrap()
    }

    #[test]
    fn json_is_carried_byte_for_byte_and_on_one_line() {
        let value = b"{\"n\": 12345678901234567890123,\n \"x\": 1.10}";
        let record = record(Some(value), None);
        let envelope = record.envelope();
        let line = serde_json::to_string(&Shown::of(&record, &envelope, None)).unwrap();
        assert!(line.contains("\"value\":{\"n\": 12345678901234567890123,  \"x\": 1.10}"), "{line}");
        assert!(!line.contains('\n'));
    }

    #[test]
    fn what_is_no_json_and_what_is_absent_is_told_apart() {
        assert_eq!(json(&record(Some(b"abc"), None))["value_text"], "abc");
        assert_eq!(json(&record(Some(b"\"abc\""), None))["value"], "abc");
        assert_eq!(json(&record(Some(b"\xff\x00"), None))["value_hex"], "ff00");
        let none = json(&record(None, None));
        assert!(none["value_bytes"].is_null() && none.get("value").is_none());
        let null = json(&record(Some(b"null"), None));
        assert!(null["value_bytes"] == 4 && null["value"].is_null());
        assert_eq!(null["key_hex"], "fe");
        assert_eq!(null["headers"][1]["value_hex"], "ff");
    }

    #[test]
    fn every_field_of_the_envelope_has_its_name() {
        let mut envelope = Envelope {
            workspace: "w",
            source: "ltv",
            position: Some(SourcePosition::Table { generation: 1, version: 2, ordinal: 3 }),
            ingest: Some(Coordinates { topic: "t.ingest.ltv", partition: 1, offset: 9 }),
            before: Some(b"no json"),
            row_key: Some(b"cust_1"),
            replay: Some(tailwater_core::envelope::Redelivery { id: "r1", count: 2 }),
            ..Envelope::default()
        };
        envelope.identifiers.push(tailwater_core::envelope::Identifier { kind: "email", value: "ada@example.com" });
        envelope.unknown.push((99, b"\x01\x02"));
        let bytes = envelope.to_bytes();
        let record = record(Some(b"{}"), Some(&bytes));
        let shown = &json(&record)["envelope"];
        assert_eq!(shown["position"]["version"], 2);
        assert_eq!(shown["ingest"]["offset"], 9);
        assert_eq!(shown["identifiers"][0]["value"], "ada@example.com");
        assert_eq!(shown["before_hex"], hex(b"no json"));
        assert_eq!(shown["replay"]["count"], 2);
        assert_eq!(shown["unknown"][0], serde_json::json!({"tag": 99, "hex": "0102"}));
        let text = to_text(&record, None, &[], false);
        for word in ["t.x[2]@7", "email=ada@example.com", "field 99: 0x0102", "version 2", "key 0xfe", "ce_type: order"]
        {
            assert!(text.contains(word), "{word} in {text}");
        }
    }

    #[test]
    fn a_header_that_cannot_be_read_is_shown_with_its_bytes() {
        let record = record(None, Some(b"\x09"));
        let shown = json(&record);
        assert!(shown["envelope_error"].as_str().unwrap().contains("format 9"));
        assert_eq!(shown["envelope_hex"], "09");
        assert!(to_text(&record, None, &[], false).contains("0x09"));
    }

    #[test]
    fn pretty_json_keeps_every_value() {
        let text = r#"{"a":[1.10,{}],"b":"x\"}{","c":[]}"#;
        assert_eq!(pretty(text), "{\n  \"a\": [\n    1.10,\n    {}\n  ],\n  \"b\": \"x\\\"}{\",\n  \"c\": []\n}");
    }
}
