//! How the state of people who wait is written: keys, and the form of a record.
//!
//! ```text
//! 'h' profile class offset   a waiting record; class 0 was handed over by a merge and goes before class 1
//! 't' since profile class offset   the same by age, for the time limit
//! 'w' profile merge          the profile waits for this merge; the value is the profile that it absorbs
//! 'r' profile                nothing is missing any more: what waits goes on, batch by batch, as soon as its routes run
//! 'f' profile                the profile was absorbed: what waits goes to the survivor, batch by batch; the value is the merge
//! 'i' profile                the identifiers in use that were seen last
//! 'p' route                  why the route is paused, for people to read; route's stage leaves the name out, send's does for a destination
//! 'b'                        since when the destination exists
//! ```
//!
//! State topics hold these bytes, so what is written here is read by every later version.

use std::sync::Arc;

use tailwater_core::envelope::Merge;
use tailwater_core::{ProfileId, Timestamp, code};

use super::Held;
use crate::kafka::Record;
use crate::stages::shared::dead_letter;

pub(super) const HELD: u8 = b'h';
pub(super) const SINCE: u8 = b't';
pub(super) const WAITS: u8 = b'w';
pub(super) const IDENTIFIERS: u8 = b'i';
pub(super) const RELEASED: u8 = b'r';
pub(super) const MOVING: u8 = b'f';
pub(super) const PAUSE: &[u8] = b"p";
pub(in crate::stages) const BEGINNING: &[u8] = b"b";

/// A header `tw` that no version writes.
const UNREADABLE: &[u8] = b"\0";

pub(super) fn profile_key(tag: u8, profile: ProfileId) -> Vec<u8> {
    let mut key = Vec::with_capacity(26);
    key.push(tag);
    key.extend_from_slice(profile.as_bytes());
    key
}

pub(super) fn held_key(profile: ProfileId, handed_over: bool, offset: i64) -> Vec<u8> {
    let mut key = profile_key(HELD, profile);
    key.push(u8::from(!handed_over));
    key.extend_from_slice(&offset.to_be_bytes());
    key
}

pub(super) fn merge_key(profile: ProfileId, merge: u64) -> Vec<u8> {
    let mut key = profile_key(WAITS, profile);
    key.extend_from_slice(&merge.to_be_bytes());
    key
}

/// The merge that a key of [`WAITS`] is about; `None` for an entry of an earlier version, which does not name the absorbed profile.
pub(super) fn awaited(key: &[u8], value: &[u8]) -> Option<Merge> {
    Some(Merge {
        number: u64::from_be_bytes(key.get(17..25)?.try_into().ok()?),
        survivor: profile_of(key)?,
        absorbed: ProfileId::from_bytes(value.try_into().ok()?),
    })
}

/// The value of [`MOVING`].
pub(super) fn moving_value(merge: Merge) -> Vec<u8> {
    let mut value = merge.number.to_be_bytes().to_vec();
    value.extend_from_slice(merge.survivor.as_bytes());
    value
}

pub(super) fn moving_merge(absorbed: ProfileId, value: &[u8]) -> Option<Merge> {
    let (number, survivor) = value.split_at_checked(8)?;
    let number = u64::from_be_bytes(number.try_into().ok()?);
    Some(Merge { number, survivor: ProfileId::from_bytes(survivor.try_into().ok()?), absorbed })
}

pub(super) fn since_key(since: Timestamp, held_key: &[u8]) -> Vec<u8> {
    let mut key = vec![SINCE];
    key.extend_from_slice(&since.as_millis().max(0).to_be_bytes());
    key.extend_from_slice(held_key.get(1..).unwrap_or_default());
    key
}

pub(super) fn split_since(key: &[u8]) -> Option<(Timestamp, &[u8])> {
    let (since, rest) = key.get(1..)?.split_at_checked(8)?;
    Some((Timestamp::from_millis(i64::from_be_bytes(since.try_into().ok()?)), rest))
}

pub(super) fn profile_of(key: &[u8]) -> Option<ProfileId> {
    Some(ProfileId::from_bytes(key.get(1..17)?.try_into().ok()?))
}

/// The format of a held record; state topics hold it, so it is frozen: version 1, then numbers big-endian and byte strings with
/// their length, an absent one as -1.
pub(super) fn encode(record: &Record, since: Timestamp) -> Vec<u8> {
    let mut out = vec![1];
    out.extend_from_slice(&since.as_millis().to_be_bytes());
    out.extend_from_slice(&record.offset.to_be_bytes());
    out.extend_from_slice(&record.timestamp.as_millis().to_be_bytes());
    let mut put = |part: Option<&[u8]>| {
        let length = part.map_or(-1, |bytes| i32::try_from(bytes.len()).unwrap_or(i32::MAX));
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(part.unwrap_or_default());
    };
    put(record.key());
    put(record.value());
    put(record.header());
    for (name, value) in &record.headers {
        put(Some(name.as_bytes()));
        put(value.as_deref());
    }
    out
}

pub(super) fn decode(topic: &Arc<str>, partition: i32, key: Vec<u8>, bytes: &[u8]) -> Option<Held> {
    let (version, mut rest) = bytes.split_first()?;
    if *version != 1 {
        return None;
    }
    let mut number = || -> Option<i64> {
        let (head, tail) = rest.split_at_checked(8)?;
        rest = tail;
        Some(i64::from_be_bytes(head.try_into().ok()?))
    };
    let (since, offset, timestamp) = (number()?, number()?, number()?);
    let (record_key, value, header) = (part(&mut rest)?, part(&mut rest)?, part(&mut rest)?);
    let mut headers = Vec::new();
    while !rest.is_empty() {
        let name = part(&mut rest)??;
        headers.push((String::from_utf8_lossy(name).into_owned(), part(&mut rest)?.map(<[u8]>::to_vec)));
    }
    let record = Record::new(
        Arc::clone(topic),
        partition,
        offset,
        Timestamp::from_millis(timestamp),
        record_key,
        value,
        header,
        headers,
    );
    Some(Held { record: Arc::new(record), since: Timestamp::from_millis(since), key })
}

/// Stands for a record whose entry cannot be read: its bytes as they are, no header that could be understood, and why. Whoever would send it
/// makes a dead letter of it.
pub(super) fn damaged(topic: &Arc<str>, partition: i32, key: Vec<u8>, bytes: &[u8], message: String) -> Held {
    let number = |from: usize| {
        let bytes = bytes.get(from..from + 8)?;
        Some(i64::from_be_bytes(bytes.try_into().ok()?))
    };
    let offset = key.get(18..26).and_then(|bytes| bytes.try_into().ok()).map_or(0, i64::from_be_bytes);
    let since = number(1).filter(|_| bytes.first() == Some(&1)).unwrap_or(0);
    let record = Record::new(
        Arc::clone(topic),
        partition,
        offset,
        Timestamp::from_millis(0),
        None,
        Some(bytes),
        Some(UNREADABLE),
        dead_letter::refused_at_source(code::STATE_DAMAGED, message),
    );
    Held { record: Arc::new(record), since: Timestamp::from_millis(since), key }
}

/// A byte string with its length, or one that is absent; `None` if it was cut.
fn part<'b>(rest: &mut &'b [u8]) -> Option<Option<&'b [u8]>> {
    let (head, tail) = rest.split_at_checked(4)?;
    let length = i32::from_be_bytes(head.try_into().ok()?);
    *rest = tail;
    let Ok(length) = usize::try_from(length) else { return Some(None) };
    let (value, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_record_comes_back_as_it_was() {
        let topic: Arc<str> = Arc::from("t.resolved");
        let headers = vec![("a".to_owned(), Some(b"1".to_vec())), ("b".to_owned(), None)];
        let record = Record::new(
            Arc::clone(&topic),
            3,
            77,
            Timestamp::from_millis(5),
            Some(b"key"),
            None,
            Some(b"\x01"),
            headers.clone(),
        );
        let bytes = encode(&record, Timestamp::from_millis(9));
        let held = decode(&topic, 3, vec![], &bytes).unwrap();
        assert_eq!((held.record.offset, held.since.as_millis()), (77, 9));
        assert_eq!(
            (held.record.key(), held.record.value(), held.record.header()),
            (Some(&b"key"[..]), None, Some(&b"\x01"[..]))
        );
        assert_eq!(held.record.headers, headers);
        // Cut between two headers it cannot be told from a record that has fewer of them.
        let whole = [bytes.len() - 19, bytes.len() - 9];
        for length in (0..bytes.len()).filter(|length| !whole.contains(length)) {
            assert!(decode(&topic, 3, vec![], &bytes[..length]).is_none(), "{length} bytes");
        }
    }

    #[test]
    fn the_key_by_age_leads_back_to_the_record() {
        let profile = ProfileId::of("w", "email", "a@b.c", 0);
        let mut key = profile_key(HELD, profile);
        key.push(1);
        key.extend_from_slice(&7_i64.to_be_bytes());
        let since = since_key(Timestamp::from_millis(1234), &key);
        let (at, rest) = split_since(&since).unwrap();
        assert_eq!(at.as_millis(), 1234);
        assert_eq!(rest, &key[1..]);
        assert_eq!(profile_of(&key), Some(profile));
    }
}
