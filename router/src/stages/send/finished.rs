//! Offsets that are finished although an older one of their partition is still open.
//!
//! The committed offset stops at the first open record. Everything behind it is read again by the next owner of the partition, and most of
//! it is finished: one person whose deliveries are tried again holds up the offset, not the others. What those were sent
//! would be sent again, in bulk and long after, for a crash of a process or a mere rebalance. So the finished ones are remembered in
//! state, and are not looked at again.
//!
//! ```text
//! 'o' block     a bitmap of finished offsets; bit i of byte n is offset block*1024 + 8n + i
//! 'o'           what the bitmaps belong to: the committed offset, and when the record there was appended
//! ```
//!
//! Written within the transaction that commits the offset, so the two agree. If they do not (the group was reset, the topic was
//! made anew, or the broker has no transactions and the process died between two writes), the bitmaps mean nothing and are
//! dropped: then finished records are read again, as often as that takes, and never are records skipped that were not finished.

use std::collections::BTreeMap;

use tailwater_core::Timestamp;

use crate::kafka::consumer::Start;
use crate::state::{self, Map};

pub(super) const FINISHED: u8 = b'o';

/// Offsets in a block: a bitmap of 128 bytes, so that a commit writes few records and small ones.
const BLOCK: i64 = 1024;

/// The finished offsets behind the committed one, partition by partition. How many blocks there can be is bounded by what a partition's tracker may
/// hold.
#[derive(Debug, Default)]
pub struct Finished {
    partitions: BTreeMap<i32, OwnPartition>,
}

#[derive(Debug, Default)]
struct OwnPartition {
    blocks: BTreeMap<i64, Block>,
    /// What was loaded, until the first record that is read has shown that it belongs to this log.
    unproven: Option<Mark>,
    /// The mark that state holds.
    written: Option<Mark>,
    /// One past the last offset that was loaded: nothing beyond can be known.
    loaded_end: i64,
}

#[derive(Debug, Clone)]
struct Block {
    bits: [u64; 16],
    changed: bool,
    written: bool,
}

/// The record at the committed offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    offset: i64,
    appended: Timestamp,
}

// === impl Finished ===

impl Finished {
    /// Learns what an earlier owner of the partition has finished behind `start`. True if it meant nothing and is dropped.
    ///
    /// # Errors
    /// The partition is not restored.
    pub fn load(&mut self, state: &mut impl Map, start: &Start) -> Result<bool, state::Error> {
        let mut partition = OwnPartition::default();
        for (key, value) in state.scan(start.partition, &[FINISHED])? {
            match key.get(1..).map(<[u8; 8]>::try_from) {
                Some(Ok(block)) => {
                    let block = i64::from_be_bytes(block);
                    if let Some(bits) = read_bits(&value) {
                        partition.loaded_end = (block + 1) * BLOCK;
                        partition.blocks.insert(block, Block { bits, changed: false, written: true });
                    }
                }
                _ => partition.written = Mark::read(&value),
            }
        }
        partition.unproven = partition.written;
        let belongs = partition.written.is_none_or(|mark| start.committed && mark.offset == start.offset);
        self.partitions.insert(start.partition, partition);
        if belongs {
            return Ok(false);
        }
        self.drop_partition(state, start.partition)?;
        Ok(true)
    }

    /// Whether a record that was read is finished. The first one that is read of a partition tells whether what was loaded belongs to it.
    ///
    /// # Errors
    /// The partition is not restored.
    pub fn contains(
        &mut self,
        state: &mut impl Map,
        number: i32,
        offset: i64,
        appended: Timestamp,
    ) -> Result<bool, state::Error> {
        let Some(partition) = self.partitions.get_mut(&number) else { return Ok(false) };
        if partition.unproven.take().is_some_and(|mark| mark != Mark { offset, appended }) {
            tracing::warn!(
                partition = number,
                offset,
                "what was finished in this partition belongs to another log; it is read again"
            );
            self.drop_partition(state, number)?;
            return Ok(false);
        }
        Ok(offset < partition.loaded_end
            && partition.blocks.get(&offset.div_euclid(BLOCK)).is_some_and(|block| block.has(offset)))
    }

    /// An offset is finished.
    pub fn note(&mut self, partition: i32, offset: i64) {
        let blocks = &mut self.partitions.entry(partition).or_default().blocks;
        let block =
            blocks.entry(offset.div_euclid(BLOCK)).or_insert(Block { bits: [0; 16], changed: false, written: false });
        let (word, bit) = place(offset);
        block.changed |= block.bits[word] & bit == 0;
        block.bits[word] |= bit;
    }

    /// Writes down what is finished behind the offset that is about to be committed; `open` is the record there, if there is one. What
    /// lies before it needs no memory any more.
    ///
    /// # Errors
    /// The partition is not restored.
    pub fn write(
        &mut self,
        state: &mut impl Map,
        number: i32,
        watermark: i64,
        open: Option<(i64, Timestamp)>,
    ) -> Result<(), state::Error> {
        let Some(partition) = self.partitions.get_mut(&number) else { return Ok(()) };
        let first = watermark.div_euclid(BLOCK);
        while let Some(mut entry) = partition.blocks.first_entry() {
            let block = *entry.key();
            if block > first {
                break;
            }
            if block == first && entry.get_mut().keep_from(watermark) {
                break;
            }
            if entry.remove().written {
                state.put(number, block_key(block), None)?;
            }
        }
        for (number_of_block, block) in partition.blocks.iter_mut().filter(|(_, block)| block.changed) {
            state.put(number, block_key(*number_of_block), Some(block.to_bytes()))?;
            (block.changed, block.written) = (false, true);
        }
        let mark = open.filter(|_| !partition.blocks.is_empty()).map(|(offset, appended)| Mark { offset, appended });
        debug_assert!(
            mark.is_none_or(|mark| mark.offset == watermark),
            "the first open record is not at the watermark"
        );
        if mark != partition.written {
            state.put(number, vec![FINISHED], mark.map(Mark::to_bytes))?;
            partition.written = mark;
        }
        Ok(())
    }

    pub fn forget(&mut self, partitions: &[i32]) {
        for partition in partitions {
            self.partitions.remove(partition);
        }
    }

    fn drop_partition(&mut self, state: &mut impl Map, number: i32) -> Result<(), state::Error> {
        let partition = self.partitions.insert(number, OwnPartition::default()).unwrap_or_default();
        for block in partition.blocks.keys() {
            state.put(number, block_key(*block), None)?;
        }
        state.put(number, vec![FINISHED], None)
    }
}

// === impl Block ===

impl Block {
    const fn has(&self, offset: i64) -> bool {
        let (word, bit) = place(offset);
        self.bits[word] & bit != 0
    }

    /// Forgets the offsets before this one, which lies in the block. False if none is left.
    fn keep_from(&mut self, offset: i64) -> bool {
        let (word, bit) = place(offset);
        self.bits[..word].fill(0);
        // All bits from this one on.
        self.bits[word] &= !(bit - 1);
        self.bits.iter().any(|word| *word != 0)
    }

    fn to_bytes(&self) -> Vec<u8> {
        self.bits.iter().flat_map(|word| word.to_le_bytes()).collect()
    }
}

fn read_bits(bytes: &[u8]) -> Option<[u64; 16]> {
    let mut bits = [0; 16];
    let (words, rest) = bytes.as_chunks::<8>();
    if words.len() != bits.len() || !rest.is_empty() {
        return None;
    }
    for (word, bytes) in bits.iter_mut().zip(words) {
        *word = u64::from_le_bytes(*bytes);
    }
    Some(bits)
}

/// The word of an offset in its block, and its bit there.
const fn place(offset: i64) -> (usize, u64) {
    let within = offset.rem_euclid(BLOCK).unsigned_abs();
    ((within / 64) as usize, 1 << (within % 64))
}

fn block_key(block: i64) -> Vec<u8> {
    let mut key = vec![FINISHED];
    key.extend_from_slice(&block.to_be_bytes());
    key
}

// === impl Mark ===

impl Mark {
    fn to_bytes(self) -> Vec<u8> {
        [self.offset.to_be_bytes(), self.appended.as_millis().to_be_bytes()].concat()
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (offset, appended) = bytes.split_at_checked(8)?;
        Some(Self {
            offset: i64::from_be_bytes(offset.try_into().ok()?),
            appended: Timestamp::from_millis(i64::from_be_bytes(appended.try_into().ok()?)),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::state::Store;

    fn start(offset: i64, committed: bool) -> Start {
        Start { topic: Arc::from("t"), partition: 0, offset, committed }
    }

    fn at(offset: i64) -> Timestamp {
        Timestamp::from_millis(1_000 + offset)
    }

    /// A partition whose record at 1000 is open, while some of those behind it are finished.
    fn written(store: &mut Store) {
        let mut finished = Finished::default();
        for offset in [990, 1001, 1003, 1030, 5000] {
            finished.note(0, offset);
        }
        finished.write(store, 0, 1000, Some((1000, at(1000)))).unwrap();
        store.keep();
    }

    fn known(finished: &mut Finished, store: &mut Store, offsets: &[i64]) -> Vec<i64> {
        offsets.iter().copied().filter(|offset| finished.contains(store, 0, *offset, at(*offset)).unwrap()).collect()
    }

    const ASKED: [i64; 8] = [1000, 1001, 1002, 1003, 1030, 1031, 5000, 9000];

    #[test]
    fn the_next_owner_knows_what_is_finished_behind_the_committed_offset() {
        let (mut store, _folder) = Store::without_broker(&[0]);
        written(&mut store);
        let mut next = Finished::default();
        assert!(!next.load(&mut store, &start(1000, true)).unwrap());
        assert_eq!(known(&mut next, &mut store, &ASKED), [1001, 1003, 1030, 5000]);
    }

    #[test]
    fn another_committed_offset_or_another_log_makes_it_mean_nothing() {
        let other_log = |finished: &mut Finished, store: &mut Store| {
            assert!(!finished.contains(store, 0, 1000, Timestamp::from_millis(7)).unwrap());
        };
        for (start, reads_other_log) in [
            (start(999, true), false),
            (start(1001, true), false),
            (start(1000, false), false),
            (start(1000, true), true),
        ] {
            let (mut store, _folder) = Store::without_broker(&[0]);
            written(&mut store);
            let mut next = Finished::default();
            assert_eq!(next.load(&mut store, &start).unwrap(), !reads_other_log, "{start:?}");
            if reads_other_log {
                other_log(&mut next, &mut store);
            }
            assert!(known(&mut next, &mut store, &ASKED).is_empty(), "{start:?}");
            assert!(store.scan(0, &[FINISHED]).unwrap().is_empty(), "{start:?}");
        }
    }

    #[test]
    fn nothing_is_left_in_state_once_the_offset_has_passed() {
        let (mut store, _folder) = Store::without_broker(&[0]);
        written(&mut store);
        let mut next = Finished::default();
        next.load(&mut store, &start(1000, true)).unwrap();
        next.write(&mut store, 0, 1031, Some((1031, at(1031)))).unwrap();
        assert_eq!(store.scan(0, &[FINISHED]).unwrap().len(), 2, "5000 is still behind an open one");
        next.write(&mut store, 0, 6000, None).unwrap();
        assert!(store.scan(0, &[FINISHED]).unwrap().is_empty());
    }

    #[test]
    fn the_format_is_frozen() {
        let (mut store, _folder) = Store::without_broker(&[0]);
        written(&mut store);
        let entries = store.scan(0, &[FINISHED]).unwrap();
        let keys: Vec<&[u8]> = entries.iter().map(|(key, _)| &key[..]).collect();
        assert_eq!(keys, [&b"o"[..], b"o\0\0\0\0\0\0\0\0", b"o\0\0\0\0\0\0\0\x01", b"o\0\0\0\0\0\0\0\x04"]);
        assert_eq!(entries[0].1, [0, 0, 0, 0, 0, 0, 3, 232, 0, 0, 0, 0, 0, 0, 7, 208]);
        let set =
            |bytes: &[u8]| -> Vec<usize> { (0..1024).filter(|bit| bytes[bit / 8] & (1 << (bit % 8)) != 0).collect() };
        assert_eq!(set(&entries[1].1), [1001, 1003]);
        assert_eq!(set(&entries[2].1), [6]);
        assert_eq!(set(&entries[3].1), [5000 - 4096]);
    }
}
