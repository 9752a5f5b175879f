//! A batch's state as one piece, for brokers without transactions.
//!
//! Without a transaction, a process that is killed while it writes leaves the first part of its writes behind. State must not be read
//! half-written: a position without the identities that it stands for, or a profile without its activity, is wrong and not just old.
//! Therefore the writes of a batch go to the changelog twice: first together, cut into chunks under the keys `\0redo<index>`, and once those
//! are acknowledged, each under its own key. A reader applies the chunks at the place of the last one if it finds all of them, and
//! ignores them otherwise. What it found in complete chunks and not under its own key has to be written by the next owner
//! ([`Assembly::unfinished`]), because the next batch reuses the chunks' keys.
//!
//! Chunks need no deletion: the next batch replaces the first one, and a set without its first chunk is incomplete.

use std::collections::BTreeSet;

/// Begins the keys of chunks. Frozen: state topics hold them.
pub(super) const REDO: &[u8] = b"\0redo";

/// Bytes in a chunk: below any size limit that a topic of state can work with.
const CHUNK_BYTES_MAX: usize = 128 * 1024;

/// The batch's id, the index of the chunk, and the number of chunks.
const HEADER_BYTES: usize = 16 + 4 + 4;

/// Stands in place of a value's length where the key is deleted.
const DELETED: u32 = u32::MAX;

/// A key and its new value; `None` deletes it.
pub(super) type Write = (Vec<u8>, Option<Vec<u8>>);

/// The chunks of a batch, as keys and values. `id` tells this batch from every other one.
pub(super) fn chunks<'a>(
    id: &[u8; 16],
    writes: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut body = Vec::new();
    for (key, value) in writes {
        body.extend_from_slice(&length(key).to_be_bytes());
        body.extend_from_slice(key);
        match value {
            Some(value) => {
                body.extend_from_slice(&length(value).to_be_bytes());
                body.extend_from_slice(value);
            }
            None => body.extend_from_slice(&DELETED.to_be_bytes()),
        }
    }
    let parts: Vec<&[u8]> = body.chunks(CHUNK_BYTES_MAX).collect();
    let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
    (0_u32..)
        .zip(parts)
        .map(|(index, part)| {
            let mut key = REDO.to_vec();
            key.extend_from_slice(&index.to_be_bytes());
            let mut value = Vec::with_capacity(HEADER_BYTES + part.len());
            value.extend_from_slice(id);
            value.extend_from_slice(&index.to_be_bytes());
            value.extend_from_slice(&count.to_be_bytes());
            value.extend_from_slice(part);
            (key, value)
        })
        .collect()
}

/// Keys and values are far below this: records of 4 GB do not exist in Kafka.
fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(DELETED - 1)
}

/// Puts the chunks together again while a changelog is read in order.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    open: Option<Open>,
    /// Where the first chunk of the last complete batch lies.
    start: i64,
    unfinished: BTreeSet<Vec<u8>>,
}

/// A batch some of whose chunks were read. Its bytes are bounded by what one batch of a stage writes.
#[derive(Debug)]
struct Open {
    id: [u8; 16],
    start: i64,
    next: u32,
    count: u32,
    body: Vec<u8>,
}

/// Chunks that are complete and cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the chunks of a batch of state are complete and not readable")]
pub(super) struct Unreadable;

impl Assembly {
    /// Takes in a chunk. The writes of the batch when it was the last one.
    pub(super) fn take(&mut self, offset: i64, chunk: &[u8]) -> Result<Option<Vec<Write>>, Unreadable> {
        let (id, rest) = chunk.split_first_chunk::<16>().ok_or(Unreadable)?;
        let (index, rest) = rest.split_first_chunk::<4>().ok_or(Unreadable)?;
        let (count, part) = rest.split_first_chunk::<4>().ok_or(Unreadable)?;
        let (index, count) = (u32::from_be_bytes(*index), u32::from_be_bytes(*count));
        if index == 0 {
            self.open = Some(Open { id: *id, start: offset, next: 0, count, body: Vec::new() });
        }
        // A chunk of an older batch, whose first chunk a newer batch has replaced, or that was never completed.
        let Some(open) = self.open.as_mut().filter(|open| open.id == *id && open.next == index) else {
            return Ok(None);
        };
        open.body.extend_from_slice(part);
        open.next += 1;
        if open.next < open.count {
            return Ok(None);
        }
        let Some(open) = self.open.take() else { return Ok(None) };
        let writes = writes(&open.body).ok_or(Unreadable)?;
        if self.unfinished.is_empty() {
            self.start = open.start;
        }
        self.unfinished.extend(writes.iter().map(|(key, _)| key.clone()));
        Ok(Some(writes))
    }

    /// A record under its own key was read.
    pub(super) fn wrote(&mut self, key: &[u8]) {
        if !self.unfinished.is_empty() {
            self.unfinished.remove(key);
        }
    }

    /// The offset from which the changelog has to be read again to learn the same, if anything is open or unfinished.
    pub(super) fn start(&self) -> Option<i64> {
        let unfinished = (!self.unfinished.is_empty()).then_some(self.start);
        let open = self.open.as_ref().map(|open| open.start);
        unfinished.into_iter().chain(open).min()
    }

    /// Keys whose last value is known from chunks alone.
    pub(super) fn unfinished(self) -> BTreeSet<Vec<u8>> {
        self.unfinished
    }
}

fn writes(mut body: &[u8]) -> Option<Vec<Write>> {
    let mut writes = Vec::new();
    while !body.is_empty() {
        let key = take(&mut body, None)?.unwrap_or_default();
        let value = take(&mut body, Some(DELETED))?;
        writes.push((key, value));
    }
    Some(writes)
}

/// The next length and its bytes; `Some(None)` where the length is the one that means absent.
fn take(body: &mut &[u8], absent: Option<u32>) -> Option<Option<Vec<u8>>> {
    let (length, rest) = body.split_first_chunk::<4>()?;
    let length = u32::from_be_bytes(*length);
    *body = rest;
    if Some(length) == absent {
        return Some(None);
    }
    let (bytes, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    *body = rest;
    Some(Some(bytes.to_vec()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn batch(id: u8, writes: &[Write]) -> Vec<(Vec<u8>, Vec<u8>)> {
        chunks(&[id; 16], writes.iter().map(|(key, value)| (key.as_slice(), value.as_deref())))
    }

    fn large(key: u8) -> Write {
        (vec![key], Some(vec![key; CHUNK_BYTES_MAX]))
    }

    #[test]
    fn a_batch_is_applied_when_its_last_chunk_was_read_and_not_before() {
        let writes = vec![(b"a".to_vec(), Some(vec![7; 300_000])), (b"b".to_vec(), None)];
        let chunks = batch(1, &writes);
        assert_eq!(chunks.len(), 3);
        let mut assembly = Assembly::default();
        assert_eq!(assembly.take(10, &chunks[0].1).unwrap(), None);
        assert_eq!(assembly.start(), Some(10), "what is half read is read again");
        assert_eq!(assembly.take(11, &chunks[1].1).unwrap(), None);
        assert_eq!(assembly.take(12, &chunks[2].1).unwrap(), Some(writes));
        assembly.wrote(b"a");
        assert_eq!(assembly.start(), Some(10), "b is known from the chunks alone");
        assembly.wrote(b"b");
        assert_eq!(assembly.start(), None);
        assert!(assembly.unfinished().is_empty());
    }

    #[test]
    fn a_batch_that_was_cut_off_or_partly_compacted_is_ignored() {
        let (old, new) = (batch(1, &[large(1), large(2)]), batch(2, &[large(3), large(4)]));
        let mut assembly = Assembly::default();
        // Cut off after its first chunk, and another batch begins.
        assembly.take(0, &old[0].1).unwrap();
        for (offset, (_, chunk)) in (1..).zip(&new[..2]) {
            assert_eq!(assembly.take(offset, chunk).unwrap(), None);
        }
        // A chunk of the old batch that compaction has left does not complete the new one.
        assert_eq!(assembly.take(9, &old[2].1).unwrap(), None);
        assert!(assembly.take(10, &new[2].1).unwrap().is_some());
        let mut assembly = Assembly::default();
        for (_, chunk) in &old[1..] {
            assert_eq!(assembly.take(0, chunk).unwrap(), None);
        }
        assert_eq!(assembly.start(), None);
    }

    #[test]
    fn a_chunk_that_cannot_be_read_is_an_error() {
        assert!(Assembly::default().take(0, b"short").is_err());
        let mut damaged = batch(1, &[(b"key".to_vec(), Some(b"value".to_vec()))]).remove(0).1;
        damaged.truncate(damaged.len() - 1);
        assert!(Assembly::default().take(0, &damaged).is_err());
    }

    proptest! {
        #[test]
        fn any_writes_come_back_as_they_were(
            writes in prop::collection::vec((prop::collection::vec(any::<u8>(), 1..40), prop::option::of(prop::collection::vec(any::<u8>(), 0..60_000))), 1..12)
        ) {
            let mut assembly = Assembly::default();
            let mut read = None;
            for (_, chunk) in batch(3, &writes) {
                prop_assert!(read.is_none());
                read = assembly.take(0, &chunk).unwrap();
            }
            prop_assert_eq!(read.unwrap(), writes);
        }

        #[test]
        fn bytes_from_outside_never_panic(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..8)) {
            let mut assembly = Assembly::default();
            for chunk in chunks {
                assembly.take(0, &chunk).ok();
            }
        }
    }
}
