//! What the records of our own topics say: the ledger's bitmaps and the entries of the states. Pure.
//!
//! A state's formats belong to its stage, which documents them (`stages::held`, `stages::send::memory`, `tailwater_identity::key`); here they
//! are only shown, and what is not known is shown as bytes.

use std::sync::Arc;

use serde_json::{Value, json};
use tailwater_core::ledger::{self, BLOCK, Bitmap};
use tailwater_core::{DeliveryKey, ProfileId, Timestamp, hex};

use crate::kafka::Record;
use crate::operator::shown::{self, readable};
use crate::stages::shared::held::{self, Entry};

/// What a record in one of our own formats means.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    pub json: Value,
    /// The key, where it is no text.
    pub key: Option<String>,
    /// The value for a person; empty where it is shown as it is.
    pub lines: Vec<String>,
}

/// Decodes a record of the topic `kind` (its name without the prefix); `None` where there is nothing to decode.
pub fn decode(kind: &str, record: &Record) -> Option<Decoded> {
    match kind {
        "ledger" => Some(ledger(record)),
        "state.resolve" => identity(record),
        _ if kind.starts_with("state.route.") || kind.starts_with("state.send.") => waiting(record),
        _ => None,
    }
}

// === the ledger ===

fn ledger(record: &Record) -> Decoded {
    let key = match ledger::Key::decode(record.key().unwrap_or_default()) {
        Ok(key) => key,
        Err(error) => return failed(&error),
    };
    let entries = match ledger::decode_entries(record.value().unwrap_or_default()) {
        Ok(entries) => entries,
        Err(error) => return failed(&error),
    };
    let first = key.block * BLOCK;
    let destination = if key.destination.is_empty() { "every destination" } else { &key.destination };
    let stage = serde_json::to_value(key.stage).unwrap_or_default();
    let mut lines = vec![format!(
        "{} at {destination}: {}[{}] offsets {first} to {}, output_partition {}, round {}",
        stage.as_str().unwrap_or_default(),
        key.topic,
        key.partition,
        first + BLOCK - 1,
        key.output_partition,
        key.round
    )];
    let mut ends = Vec::new();
    for ((end, reason), bitmap) in &entries {
        let ranges = ranges(bitmap, key.block);
        let reason_text = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
        lines.push(format!("{}{reason_text}: {} records, {}", end.as_str(), bitmap.count(), ranges.join(", ")));
        ends.push(json!({ "end": end.as_str(), "reason": reason, "count": bitmap.count(), "offsets": ranges }));
    }
    let json = json!({
        "stage": stage,
        "destination": key.destination,
        "output_partition": key.output_partition,
        "topic": key.topic,
        "partition": key.partition,
        "block": key.block,
        "round": key.round,
        "segment": format!("{:016x}", key.segment),
        "ends": ends,
    });
    Decoded { json, key: None, lines }
}

fn failed(error: &ledger::DecodeError) -> Decoded {
    Decoded { json: json!({ "error": error.to_string() }), key: None, lines: vec![error.to_string()] }
}

/// The offsets of a bitmap as `7` and `10-12`.
fn ranges(bitmap: &Bitmap, block: i64) -> Vec<String> {
    let mut ranges: Vec<(i64, i64)> = Vec::new();
    for offset in bitmap.offsets(block) {
        match ranges.last_mut() {
            Some((_, end)) if *end + 1 == offset => *end = offset,
            _ => ranges.push((offset, offset)),
        }
    }
    ranges.iter().map(|(start, end)| if start == end { start.to_string() } else { format!("{start}-{end}") }).collect()
}

// === the states ===

/// Reads the fixed parts of a key.
struct Parts<'a>(&'a [u8]);

impl Parts<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_at_checked(N)?;
        self.0 = tail;
        head.try_into().ok()
    }

    fn profile(&mut self) -> Option<ProfileId> {
        self.take().map(ProfileId::from_bytes)
    }

    fn number(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }
}

/// An entry of route's or send's state.
fn waiting(record: &Record) -> Option<Decoded> {
    let key = record.key()?;
    let (&tag, rest) = key.split_first()?;
    let mut parts = Parts(rest);
    let removed = record.value().is_none();
    let value = || record.value().and_then(|bytes| serde_json::from_slice::<Value>(bytes).ok()).unwrap_or_default();
    let (name, mut json) = match tag {
        b'h' => {
            let profile = parts.profile()?;
            let [class] = parts.take()?;
            let offset = parts.number()?;
            let json = json!({ "entry": "held", "profile": profile, "handed_over": class == 0, "offset": offset });
            (format!("held record {offset} of profile {profile}"), json)
        }
        b't' => {
            let since = Timestamp::from_millis(i64::from_be_bytes(parts.take()?));
            let profile = parts.profile()?;
            let json = json!({ "entry": "held_since", "since": since.to_string(), "profile": profile });
            (format!("held since {since}: profile {profile}"), json)
        }
        b'w' => {
            let (profile, merge) = (parts.profile()?, parts.number()?);
            let json = json!({ "entry": "waits_for_merge", "profile": profile, "merge": merge });
            (format!("profile {profile} waits for merge {merge}"), json)
        }
        b'i' => {
            let profile = parts.profile()?;
            let json = json!({ "entry": "identifiers", "profile": profile, "identifiers": value() });
            (format!("identifiers of waiting profile {profile}"), json)
        }
        b'p' if rest.is_empty() => ("pause".to_owned(), json!({ "entry": "pause", "pause": value() })),
        b'l' => {
            let profile = parts.profile()?;
            let subject = hex(parts.0);
            let json = json!({ "entry": "last_delivered", "profile": profile, "subject": subject, "last": value() });
            (format!("last delivered of profile {profile}, subject {subject}"), json)
        }
        b'j' => {
            let delivery = DeliveryKey::from_bytes(parts.take()?);
            let json = json!({ "entry": "job", "delivery": delivery, "job": value() });
            (format!("job of delivery {delivery}"), json)
        }
        b'd' => {
            let merge = parts.number()?;
            (format!("fence of merge {merge} passed"), json!({ "entry": "fence_passed", "merge": merge }))
        }
        b'b' => {
            let number = u32::from_be_bytes(parts.take()?);
            let json = json!({ "entry": "facts_bucket", "bucket": number, "times": value() });
            (format!("bucket {number} of delivered facts"), json)
        }
        b'f' => {
            let number = u32::from_be_bytes(parts.take()?);
            let (profile, delivery) = (parts.profile()?, DeliveryKey::from_bytes(parts.take()?));
            let json = json!({ "entry": "fact_delivered", "bucket": number, "profile": profile, "delivery": delivery });
            (format!("fact of profile {profile}, delivery {delivery}, was delivered"), json)
        }
        _ => return None,
    };
    let mut lines = Vec::new();
    if removed {
        json["removed"] = Value::Bool(true);
        lines.push("removed".to_owned());
    } else if let Some(bytes) = record.value() {
        let topic: Arc<str> = Arc::clone(&record.topic);
        if let Entry::Held { held, .. } = held::read_entry(&topic, record.partition, key, bytes) {
            json["since"] = Value::String(held.since.to_string());
            json["key"] = held.record.key().map(readable).into();
            if let Ok(envelope) = held.record.envelope() {
                json["envelope"] = serde_json::to_value(shown::Header::of(&envelope)).unwrap_or_default();
            }
            json["value"] = held
                .record
                .value()
                .map(|bytes| serde_json::from_slice(bytes).unwrap_or_else(|_| Value::String(readable(bytes))))
                .unwrap_or_default();
            lines.push(format!("waits since {}", held.since));
            // The inner record has the coordinates that it was read from; its topic is the stage's input.
            lines.extend(shown::to_text(&held.record, None, &[], false).lines().skip(1).map(str::to_owned));
        } else if bytes.is_empty() {
            lines.push("set".to_owned());
        }
    }
    Some(Decoded { json, key: Some(name), lines })
}

/// An entry of resolve's state: an identity, or how far a source's partition was applied.
fn identity(record: &Record) -> Option<Decoded> {
    let key = record.key()?;
    if let Some((b'o', rest)) = key.split_first()
        && let Some((topic, partition)) = rest.split_last_chunk::<4>()
    {
        let topic = readable(topic.strip_suffix(b"\0").unwrap_or(topic));
        let partition = i32::from_be_bytes(*partition);
        let json = json!({ "entry": "applied", "topic": topic, "partition": partition });
        return Some(Decoded { json, key: Some(format!("applied of {topic}[{partition}]")), lines: Vec::new() });
    }
    let known = tailwater_identity::Key::from_bytes(key)?;
    let bytes = |from: usize| key.get(from..from + 16).and_then(|bytes| bytes.try_into().ok());
    let id = bytes(1).map(ProfileId::from_bytes);
    let (mut json, name) = match (key.first(), id) {
        (Some(b'p'), Some(id)) => (json!({ "entry": "profile", "profile": id }), format!("profile {id}")),
        (Some(b's'), Some(id)) => (json!({ "entry": "activity", "profile": id }), format!("activity of profile {id}")),
        (Some(b'i'), _) => {
            let hash = hex(&key[1..]);
            (json!({ "entry": "identifier", "hash": hash }), format!("identifier with hash {hash}"))
        }
        _ => (json!({ "entry": "counters" }), known.to_string()),
    };
    let mut lines = Vec::new();
    match record.value() {
        None => {
            json["removed"] = Value::Bool(true);
            lines.push("removed".to_owned());
        }
        // The owner of an identifier: a format byte and the profile's id.
        Some([1, id @ ..]) if key.first() == Some(&b'i') => {
            if let Ok(id) = <[u8; 16]>::try_from(id) {
                let owner = ProfileId::from_bytes(id);
                json["owner"] = Value::String(owner.to_string());
                lines.push(format!("belongs to profile {owner}"));
            }
        }
        Some(bytes) => lines.push(format!("{} bytes; `tailwater trace` shows a profile whole", bytes.len())),
    }
    Some(Decoded { json, key: Some(name), lines })
}

#[cfg(test)]
mod tests {
    use tailwater_core::Coordinates;
    use tailwater_core::ledger::{End, Stage, Writer};

    use super::*;

    fn record(topic: &str, key: &[u8], value: Option<&[u8]>) -> Record {
        Record::new(Arc::from(topic), 3, 1, Timestamp::from_millis(0), Some(key), value, None, Vec::new())
    }

    #[test]
    fn the_ledger_is_shown_by_end_and_reason_with_its_offsets() {
        let mut writer = Writer::new(Stage::Send, 1, 8);
        for offset in [1030, 1031, 1032, 1040] {
            let at = Coordinates { topic: "t.ingest.ltv", partition: 2, offset };
            writer.note("klaviyo", 3, &at, 0, End::Skipped, "duplicate");
        }
        let (_, key, value) = writer.drain().remove(0);
        let decoded = decode("ledger", &record("t.ledger", &key, Some(&value))).unwrap();
        assert_eq!(decoded.json["ends"][0]["offsets"], json!(["1030-1032", "1040"]));
        assert_eq!(decoded.json["ends"][0]["count"], 4);
        assert!(
            decoded.lines[0].contains("send at klaviyo: t.ingest.ltv[2] offsets 1024 to 2047"),
            "{:?}",
            decoded.lines
        );
        assert_eq!(decoded.lines[1], "skipped (duplicate): 4 records, 1030-1032, 1040");
        let broken = decode("ledger", &record("t.ledger", &key, Some(b"\x02"))).unwrap();
        assert!(broken.lines[0].contains("unknown version"));
    }

    #[test]
    fn entries_of_the_states_are_named() {
        let profile = ProfileId::of("w", "email", "ada@example.com", 0);
        let mut waits = vec![b'w'];
        waits.extend_from_slice(profile.as_bytes());
        waits.extend_from_slice(&7_u64.to_be_bytes());
        let decoded = decode("state.route.klaviyo", &record("t.state.route.klaviyo", &waits, Some(b""))).unwrap();
        assert_eq!(decoded.json, json!({"entry": "waits_for_merge", "profile": profile, "merge": 7}));
        let pause = decode("state.route.klaviyo", &record("t", b"p", Some(br#"{"code":"missing_column"}"#))).unwrap();
        assert_eq!(pause.json["pause"]["code"], "missing_column");
        assert!(pause.lines.is_empty(), "JSON is shown as it is");
        let gone = decode("state.send.klaviyo", &record("t", &waits, None)).unwrap();
        assert_eq!(gone.json["removed"], true);
        for key in [&b""[..], b"h", b"w12", b"zz"] {
            assert_eq!(decode("state.route.klaviyo", &record("t", key, Some(b"x"))), None);
        }
    }

    #[test]
    fn identities_are_shown_by_their_keys() {
        let profile = ProfileId::of("w", "email", "ada@example.com", 0);
        let key = tailwater_identity::Key::identifier("w", "email", "ada@example.com").to_bytes();
        let mut owner = vec![1];
        owner.extend_from_slice(profile.as_bytes());
        let decoded = decode("state.resolve", &record("t.state.resolve", &key, Some(&owner))).unwrap();
        assert_eq!(decoded.json["owner"], profile.to_string());
        let key = tailwater_identity::Key::profile(profile).to_bytes();
        let decoded = decode("state.resolve", &record("t.state.resolve", &key, Some(b"\x01\x00"))).unwrap();
        assert_eq!(decoded.key.unwrap(), format!("profile {profile}"));
        let mut applied = b"ot.ingest.ltv\0".to_vec();
        applied.extend_from_slice(&3_i32.to_be_bytes());
        let decoded = decode("state.resolve", &record("t.state.resolve", &applied, Some(b"[0,1,2]"))).unwrap();
        assert_eq!(decoded.key.unwrap(), "applied of t.ingest.ltv[3]");
    }

    #[test]
    fn other_topics_have_nothing_to_decode() {
        assert_eq!(decode("resolved", &record("t.resolved", b"k", Some(b"{}"))), None);
    }
}
