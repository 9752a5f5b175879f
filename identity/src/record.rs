//! The values of the identity state, byte by byte, frozen.
//!
//! ```text
//! value      = format (1 byte, 1) body
//! varint     = unsigned LEB128              signed = zigzag, then varint
//! text       = varint length, UTF-8         id     = 16 bytes
//!
//! counters   = varint count, varint merges
//! owner      = id
//! profile    = 0, varint created, varint n, n × id absorbed, varint m, m × identifier
//! identifier = text type, text match key, delivery, signed added (ms), varint seen
//! delivery   = varint 0 (as the match key) | varint length + 1, UTF-8
//! alias      = 1, id of the survivor, varint number of the merge
//! activity   = varint sequence, varint n, n × (text type, varint seen)
//! ```
//!
//! Identifiers stand in the order of type and match key. `seen` is 0 for the value in use of a type, whose count stands in the
//! activity instead: so an event that brings what is in use already changes the small record alone, and equal states have
//! equal bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use tailwater_core::{ProfileId, Timestamp};

use crate::error::Error;
use crate::key::Key;
use crate::profile::{Kind, Profile, Value};
use crate::rules::Rules;

const FORMAT: u8 = 1;
const LIVE: u8 = 0;
const ALIAS: u8 = 1;

/// What the resolver counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counters {
    /// Goes up with every profile that is made and every identifier that is seen.
    pub(crate) count: u64,
    /// The number of the last merge.
    pub(crate) merges: u64,
}

/// What stands under a profile's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    Live(Profile),
    /// The profile became part of another one. The record is never removed, so that no new profile takes the id.
    Alias {
        survivor: ProfileId,
        number: u64,
    },
}

// === Counters ===

impl Counters {
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        put_varint(&mut out, self.count);
        put_varint(&mut out, self.merges);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let key = Key::COUNTERS;
        let mut rest = body(key, bytes)?;
        let read = |rest: &mut &[u8]| Some(Self { count: take_varint(rest)?, merges: take_varint(rest)? });
        finish(key, read(&mut rest), rest)
    }
}

// === owners ===

pub(crate) fn encode_owner(owner: ProfileId) -> Vec<u8> {
    let mut out = Vec::with_capacity(17);
    out.push(FORMAT);
    out.extend_from_slice(owner.as_bytes());
    out
}

pub(crate) fn decode_owner(key: Key, bytes: &[u8]) -> Result<ProfileId, Error> {
    let mut rest = body(key, bytes)?;
    finish(key, take_id(&mut rest), rest)
}

// === profiles ===

pub(crate) fn encode_profile(profile: &Profile, rules: &Rules) -> Vec<u8> {
    let mut values: Vec<(&str, &Value)> =
        profile.values.iter().map(|value| (&**value.kind.name(rules), value)).collect();
    values.sort_unstable_by(|a, b| (a.0, &a.1.match_key).cmp(&(b.0, &b.1.match_key)));
    let latest = latest(profile, rules);
    let mut out = Vec::with_capacity(64 + profile.bytes());
    out.extend_from_slice(&[FORMAT, LIVE]);
    put_varint(&mut out, profile.created);
    put_varint(&mut out, profile.absorbed.len() as u64);
    for id in &profile.absorbed {
        out.extend_from_slice(id.as_bytes());
    }
    put_varint(&mut out, values.len() as u64);
    for (kind, value) in values {
        put_text(&mut out, kind);
        put_text(&mut out, &value.match_key);
        if value.delivery == value.match_key {
            put_varint(&mut out, 0);
        } else {
            put_varint(&mut out, value.delivery.len() as u64 + 1);
            out.extend_from_slice(value.delivery.as_bytes());
        }
        put_signed(&mut out, value.added.as_millis());
        let in_use = latest.get(kind) == Some(&value.seen);
        put_varint(&mut out, if in_use { 0 } else { value.seen });
    }
    out
}

pub(crate) fn encode_activity(profile: &Profile, rules: &Rules) -> Vec<u8> {
    let latest = latest(profile, rules);
    let mut out = Vec::with_capacity(64);
    out.push(FORMAT);
    put_varint(&mut out, profile.sequence);
    put_varint(&mut out, latest.len() as u64);
    for (kind, seen) in latest {
        put_text(&mut out, kind);
        put_varint(&mut out, seen);
    }
    out
}

/// When each type was last seen, in the order of the types' names.
fn latest<'a>(profile: &'a Profile, rules: &'a Rules) -> BTreeMap<&'a str, u64> {
    let mut latest = BTreeMap::new();
    for value in &profile.values {
        let seen = latest.entry(&**value.kind.name(rules)).or_insert(0);
        *seen = value.seen.max(*seen);
    }
    latest
}

pub(crate) fn encode_alias(survivor: ProfileId, number: u64) -> Vec<u8> {
    let mut out = vec![FORMAT, ALIAS];
    out.extend_from_slice(survivor.as_bytes());
    put_varint(&mut out, number);
    out
}

/// Reads a profile's record together with its activity, which only a live one has.
pub(crate) fn decode_record(
    id: ProfileId,
    bytes: &[u8],
    activity: Option<&[u8]>,
    rules: &Rules,
) -> Result<Record, Error> {
    let key = Key::profile(id);
    let mut rest = body(key, bytes)?;
    let record = match take_byte(&mut rest) {
        Some(LIVE) => {
            let activity_key = Key::activity(id);
            let activity = activity.ok_or(Error::Damaged { key: activity_key })?;
            let mut activity_rest = body(activity_key, activity)?;
            let read = take_activity(&mut activity_rest, rules);
            let activity = finish(activity_key, read, activity_rest)?;
            take_profile(&mut rest, &activity, rules).map(Record::Live)
        }
        Some(ALIAS) => take_alias(&mut rest),
        Some(_) | None => None,
    };
    finish(key, record, rest)
}

struct Activity {
    sequence: u64,
    seen: Vec<(Kind, u64)>,
}

fn take_activity(rest: &mut &[u8], rules: &Rules) -> Option<Activity> {
    let sequence = take_varint(rest)?;
    let count = take_varint(rest)?;
    let mut seen = Vec::new();
    for _ in 0..count {
        seen.push((Kind::of(rules, take_text(rest)?), take_varint(rest)?));
    }
    Some(Activity { sequence, seen })
}

fn take_profile(rest: &mut &[u8], activity: &Activity, rules: &Rules) -> Option<Profile> {
    let created = take_varint(rest)?;
    let count = take_varint(rest)?;
    let mut absorbed = Vec::new();
    for _ in 0..count {
        absorbed.push(take_id(rest)?);
    }
    let count = take_varint(rest)?;
    let mut values = Vec::new();
    for _ in 0..count {
        let kind = Kind::of(rules, take_text(rest)?);
        let match_key: Arc<str> = Arc::from(take_text(rest)?);
        let delivery = match take_varint(rest)? {
            0 => Arc::clone(&match_key),
            length => Arc::from(std::str::from_utf8(take(rest, usize::try_from(length - 1).ok()?)?).ok()?),
        };
        let added = Timestamp::from_millis(take_signed(rest)?);
        let seen = match take_varint(rest)? {
            0 => activity.seen.iter().find(|(other, _)| *other == kind)?.1,
            seen => seen,
        };
        values.push(Value { kind, match_key, delivery, added, seen });
    }
    Some(Profile { created, sequence: activity.sequence, absorbed, values })
}

fn take_alias(rest: &mut &[u8]) -> Option<Record> {
    Some(Record::Alias { survivor: take_id(rest)?, number: take_varint(rest)? })
}

// === the wire ===

/// Checks the format and returns what follows it.
fn body(key: Key, bytes: &[u8]) -> Result<&[u8], Error> {
    match bytes.split_first() {
        Some((&FORMAT, rest)) => Ok(rest),
        Some((&format, _)) => Err(Error::Format { key, format, expected: FORMAT }),
        None => Err(Error::Damaged { key }),
    }
}

/// A record that was read must have been read to its end.
fn finish<T>(key: Key, read: Option<T>, rest: &[u8]) -> Result<T, Error> {
    read.filter(|_| rest.is_empty()).ok_or(Error::Damaged { key })
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (value, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(value)
}

fn take_byte(rest: &mut &[u8]) -> Option<u8> {
    take(rest, 1).map(|byte| byte[0])
}

fn take_id(rest: &mut &[u8]) -> Option<ProfileId> {
    Some(ProfileId::from_bytes(take(rest, 16)?.try_into().ok()?))
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let length = usize::try_from(take_varint(rest)?).ok()?;
    std::str::from_utf8(take(rest, length)?).ok()
}

fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = take_byte(rest)?;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn take_signed(rest: &mut &[u8]) -> Option<i64> {
    take_varint(rest).map(|number| (number >> 1).cast_signed() ^ -((number & 1).cast_signed()))
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

fn put_signed(out: &mut Vec<u8>, number: i64) {
    put_varint(out, ((number << 1) ^ (number >> 63)).cast_unsigned());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{Globals, TypeRule};

    fn rules() -> Rules {
        Rules::new(vec![TypeRule::new("user_id", 1), TypeRule::new("email", 2)], Globals::default()).unwrap()
    }

    fn profile(rules: &Rules) -> Profile {
        let value = |kind: &str, key: &str, delivery: &str, added, seen| Value {
            kind: Kind::of(rules, kind),
            match_key: Arc::from(key),
            delivery: Arc::from(delivery),
            added: Timestamp::from_millis(added),
            seen,
        };
        Profile {
            created: 7,
            sequence: 300,
            absorbed: vec![ProfileId::of("acme", "email", "old@example.com", 0)],
            values: vec![
                value("user_id", "u1", "u1", 1_772_352_000_000, 12),
                value("email", "ada@example.com", "Ada@Example.com", -5, 11),
                value("email", "old@example.com", "old@example.com", 0, 8),
                value("fax", "1", "1", 0, 9),
            ],
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Changelogs hold these bytes.
    #[test]
    fn values_are_frozen() {
        let rules = rules();
        let profile = profile(&rules);
        let id = ProfileId::of("acme", "user_id", "u1", 0);
        let got = [
            hex(&Counters { count: 300, merges: 2 }.encode()),
            hex(&encode_owner(id)),
            hex(&encode_profile(&profile, &rules)),
            hex(&encode_activity(&profile, &rules)),
            hex(&encode_alias(id, 2)),
        ];
        assert_eq!(got.join("\n"), include_str!("golden/records.txt").trim_end());
    }

    #[test]
    fn what_is_written_reads_back_even_where_a_type_is_no_longer_declared() {
        let rules = rules();
        let id = ProfileId::of("acme", "user_id", "u1", 0);
        let mut expected = profile(&rules);
        let record =
            decode_record(id, &encode_profile(&expected, &rules), Some(&encode_activity(&expected, &rules)), &rules)
                .unwrap();
        expected.values.sort_by(|a, b| (a.kind.name(&rules), &a.match_key).cmp(&(b.kind.name(&rules), &b.match_key)));
        assert_eq!(record, Record::Live(expected));

        let alias = decode_record(id, &encode_alias(id, 2), None, &rules).unwrap();
        assert_eq!(alias, Record::Alias { survivor: id, number: 2 });
        assert_eq!(
            Counters::decode(&Counters { count: 300, merges: 2 }.encode()).unwrap(),
            Counters { count: 300, merges: 2 }
        );
        assert_eq!(decode_owner(Key::COUNTERS, &encode_owner(id)).unwrap(), id);
    }

    #[test]
    fn an_event_that_brings_what_is_in_use_leaves_the_large_record_as_it_is() {
        let rules = rules();
        let before = profile(&rules);
        let mut after = before.clone();
        after.sequence += 1;
        after.values[0].seen = 20;
        after.values[1].seen = 21;
        assert_eq!(encode_profile(&before, &rules), encode_profile(&after, &rules));
        assert_ne!(encode_activity(&before, &rules), encode_activity(&after, &rules));
    }

    #[test]
    fn a_damaged_or_foreign_record_is_an_error_and_never_a_panic() {
        let rules = rules();
        let id = ProfileId::of("acme", "user_id", "u1", 0);
        let (record, activity) = (encode_profile(&profile(&rules), &rules), encode_activity(&profile(&rules), &rules));
        for end in 0..record.len() {
            assert!(decode_record(id, &record[..end], Some(&activity), &rules).is_err(), "cut at {end}");
        }
        for end in 0..activity.len() {
            assert!(decode_record(id, &record, Some(&activity[..end]), &rules).is_err(), "activity cut at {end}");
        }
        assert!(matches!(decode_record(id, &record, None, &rules), Err(Error::Damaged { .. })));
        let mut later = record;
        later[0] = 2;
        assert!(matches!(decode_record(id, &later, Some(&activity), &rules), Err(Error::Format { format: 2, .. })));
    }
}
