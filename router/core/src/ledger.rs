//! The ledger: for every (ingest record, destination), what became of it.
//!
//! The compacted topic `ledger` holds, for a block of 1024 ingest offsets, one bitmap per end and reason. Setting a bit twice
//! changes nothing, so repeats are harmless, and it outlives the records themselves. A block of one ingest partition is
//! spread over all lanes by resolve, and every lane is worked by another process; therefore the lane is part of the key, and so is
//! a *segment*, drawn anew by each writer: a writer never has to read what an earlier one wrote, because readers join all
//! segments of a block with OR. Both formats are frozen by the tests below.
//!
//! ```text
//! key   = JSON array [stage, destination, lane, topic, partition, block, round, segment]
//! value = version (1 byte, 1) entry*
//! entry = end (1 byte) reason (varint length, UTF-8) bitmap (varint length, bytes; bit i of byte n is offset block*1024 + 8n + i)
//! ```
//!
//! The destination is empty where an end holds for all of them (a record that did not decode).

use std::collections::BTreeMap;

/// Offsets in a block.
pub const BLOCK: i64 = 1024;

/// What became of a record at a destination, weakest first: where a record has several, the strongest counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum End {
    /// Waits in route's state for the destination's key.
    Held = 1,
    /// Left route for the destination: in flight until send writes an end.
    Routed = 2,
    /// Waits in send's state behind a merge.
    Parked = 3,
    Skipped = 4,
    Delivered = 5,
    DeadLettered = 6,
}

impl End {
    pub const ALL: [Self; 6] =
        [Self::Held, Self::Routed, Self::Parked, Self::Skipped, Self::Delivered, Self::DeadLettered];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Routed => "routed",
            Self::Parked => "parked",
            Self::Skipped => "skipped",
            Self::Delivered => "delivered",
            Self::DeadLettered => "dead-lettered",
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|end| *end as u8 == byte)
    }
}

/// The stage that wrote an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    Resolve,
    Route,
    Send,
    /// A person, by `tailwater dlq`.
    Operator,
}

/// The key of a ledger record.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub stage: Stage,
    /// Empty for every destination.
    pub destination: String,
    pub lane: i32,
    pub topic: String,
    pub partition: i32,
    pub block: i64,
    /// How often the record was replayed; a later round outweighs an earlier one.
    pub round: u32,
    pub segment: u64,
}

/// One bit per offset of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bitmap([u64; 16]);

/// The bitmaps of a block, by end and reason.
pub type Entries = BTreeMap<(End, String), Bitmap>;

/// Gathers the ends of a batch and gives them out as records; keeps the blocks it has touched, because a record replaces
/// the one before it.
#[derive(Debug)]
pub struct Writer {
    stage: Stage,
    segment: u64,
    blocks: BTreeMap<Key, Block>,
    /// Blocks kept in memory. Forgetting one costs a new segment, not a bit.
    blocks_max: usize,
}

#[derive(Debug, Default)]
struct Block {
    entries: Entries,
    changed: bool,
}

/// A ledger record that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a record of the ledger could not be read: {0}")]
pub struct DecodeError(pub &'static str);

// === impl Bitmap ===

impl Default for Bitmap {
    fn default() -> Self {
        Self([0; 16])
    }
}

impl Bitmap {
    /// Sets the bit of an offset; true if it was not set before.
    pub fn set(&mut self, offset: i64) -> bool {
        let index = offset.rem_euclid(BLOCK).unsigned_abs();
        let word = &mut self.0[usize::try_from(index / 64).unwrap_or(0)];
        let bit = 1_u64 << (index % 64);
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    pub fn contains(&self, offset: i64) -> bool {
        let index = offset.rem_euclid(BLOCK).unsigned_abs();
        self.0[usize::try_from(index / 64).unwrap_or(0)] & (1 << (index % 64)) != 0
    }

    pub fn join(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine |= theirs;
        }
    }

    pub fn count(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// The offsets within the block whose bits are set, ascending.
    pub fn offsets(&self, block: i64) -> impl Iterator<Item = i64> + '_ {
        (0..BLOCK).filter(|index| self.contains(*index)).map(move |index| block * BLOCK + index)
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.0.iter().flat_map(|word| word.to_le_bytes()).collect();
        while bytes.last() == Some(&0) {
            bytes.pop();
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > 128 {
            return None;
        }
        let mut bitmap = Self::default();
        for (index, byte) in bytes.iter().enumerate() {
            bitmap.0[index / 8] |= u64::from(*byte) << (8 * (index % 8));
        }
        Some(bitmap)
    }
}

// === impl Key ===

impl Key {
    pub fn encode(&self) -> Vec<u8> {
        let key = (
            self.stage,
            &self.destination,
            self.lane,
            &self.topic,
            self.partition,
            self.block,
            self.round,
            format!("{:016x}", self.segment),
        );
        // Strings and numbers into memory: serialising them has no way to fail.
        serde_json::to_vec(&key).unwrap_or_default()
    }

    /// # Errors
    /// The bytes are no key of this format.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (stage, destination, lane, topic, partition, block, round, segment): (
            Stage,
            String,
            i32,
            String,
            i32,
            i64,
            u32,
            String,
        ) = serde_json::from_slice(bytes).map_err(|_| DecodeError("the key is not the documented array"))?;
        let segment = u64::from_str_radix(&segment, 16).map_err(|_| DecodeError("the segment is no hexadecimal number"))?;
        Ok(Self { stage, destination, lane, topic, partition, block, round, segment })
    }
}

/// Writes the value of a ledger record.
pub fn encode_entries(entries: &Entries) -> Vec<u8> {
    let mut out = vec![1];
    for ((end, reason), bitmap) in entries {
        out.push(*end as u8);
        put_length(&mut out, reason.len());
        out.extend_from_slice(reason.as_bytes());
        let bytes = bitmap.bytes();
        put_length(&mut out, bytes.len());
        out.extend_from_slice(&bytes);
    }
    out
}

/// Reads the value of a ledger record.
///
/// # Errors
/// Another version, or bytes that were cut.
pub fn decode_entries(bytes: &[u8]) -> Result<Entries, DecodeError> {
    let (&version, mut rest) = bytes.split_first().ok_or(DecodeError("the value is empty"))?;
    if version != 1 {
        return Err(DecodeError("the value has an unknown version"));
    }
    let mut entries = Entries::new();
    while let Some((&end, tail)) = rest.split_first() {
        let end = End::from_byte(end).ok_or(DecodeError("unknown end"))?;
        let (reason, tail) = take(tail).ok_or(DecodeError("the value was cut"))?;
        let (bitmap, tail) = take(tail).ok_or(DecodeError("the value was cut"))?;
        let reason = std::str::from_utf8(reason).map_err(|_| DecodeError("a reason is no UTF-8"))?;
        let bitmap = Bitmap::from_bytes(bitmap).ok_or(DecodeError("a bitmap is too long"))?;
        entries.entry((end, reason.to_owned())).or_default().join(&bitmap);
        rest = tail;
    }
    Ok(entries)
}

fn put_length(out: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        out.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

fn take(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut length = 0_usize;
    for (index, byte) in bytes.iter().enumerate().take(4) {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return bytes[index + 1..].split_at_checked(length);
        }
    }
    None
}

// === impl Writer ===

impl Writer {
    /// `segment` must be drawn at random, anew for every assignment of lanes.
    pub fn new(stage: Stage, segment: u64, blocks_max: usize) -> Self {
        Self { stage, segment, blocks: BTreeMap::new(), blocks_max: blocks_max.max(1) }
    }

    /// Notes an end. `place` is the record's coordinates in ingest; `round` its replay count.
    pub fn note(
        &mut self,
        destination: &str,
        lane: i32,
        place: &crate::Coordinates<'_>,
        round: u32,
        end: End,
        reason: &str,
    ) {
        let key = Key {
            stage: self.stage,
            destination: destination.to_owned(),
            lane,
            topic: place.topic.to_owned(),
            partition: place.partition,
            block: place.offset.div_euclid(BLOCK),
            round,
            segment: self.segment,
        };
        let block = self.blocks.entry(key).or_default();
        let new = block.entries.entry((end, reason.to_owned())).or_default().set(place.offset);
        block.changed |= new;
    }

    /// The records for what was noted since the last call. They must be in Kafka before the offsets they speak of are committed.
    /// Each as (lane, key, value).
    pub fn drain(&mut self) -> Vec<(i32, Vec<u8>, Vec<u8>)> {
        let mut records = Vec::new();
        for (key, block) in &mut self.blocks {
            if std::mem::take(&mut block.changed) {
                records.push((key.lane, key.encode(), encode_entries(&block.entries)));
            }
        }
        if self.blocks.len() > self.blocks_max {
            // Every block is written, so all may go; the next ones begin a segment of their own.
            self.blocks.clear();
            self.segment = self.segment.wrapping_add(1);
        }
        records
    }

    /// Forgets the blocks of a transaction that was aborted; its records are read again.
    pub fn reset(&mut self, segment: u64) {
        self.blocks.clear();
        self.segment = segment;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Coordinates;

    fn at(offset: i64) -> Coordinates<'static> {
        Coordinates { topic: "tailwater.ingest.ltv", partition: 2, offset }
    }

    #[test]
    fn the_formats_are_frozen() {
        let mut writer = Writer::new(Stage::Send, 0xabc, 8);
        writer.note("klaviyo", 3, &at(1025), 0, End::Delivered, "");
        writer.note("klaviyo", 3, &at(1030), 0, End::Skipped, "duplicate");
        let records = writer.drain();
        let [(_, key, value)] = records.as_slice() else { panic!("one block, one record") };
        assert_eq!(
            std::str::from_utf8(key).unwrap(),
            r#"["send","klaviyo",3,"tailwater.ingest.ltv",2,1,0,"0000000000000abc"]"#
        );
        assert_eq!(value, b"\x01\x04\x09duplicate\x01\x40\x05\x00\x01\x02");
        assert_eq!(Key::decode(key).unwrap().block, 1);
        assert!(decode_entries(value).unwrap()[&(End::Delivered, String::new())].contains(1025));
    }

    #[test]
    fn noting_an_end_twice_writes_nothing_the_second_time() {
        let mut writer = Writer::new(Stage::Route, 1, 8);
        writer.note("k", 0, &at(5), 0, End::Held, "no_key");
        assert_eq!(writer.drain().len(), 1);
        writer.note("k", 0, &at(5), 0, End::Held, "no_key");
        assert!(writer.drain().is_empty());
    }

    #[test]
    fn a_later_record_of_a_block_holds_the_earlier_bits_too() {
        let mut writer = Writer::new(Stage::Route, 1, 8);
        writer.note("k", 0, &at(5), 0, End::Routed, "");
        let _first = writer.drain();
        writer.note("k", 0, &at(900), 0, End::Routed, "");
        let entries = decode_entries(&writer.drain()[0].2).unwrap();
        assert_eq!(entries[&(End::Routed, String::new())].offsets(0).collect::<Vec<_>>(), [5, 900]);
    }

    #[test]
    fn a_forgotten_block_gets_a_segment_of_its_own() {
        let mut writer = Writer::new(Stage::Route, 1, 1);
        writer.note("k", 0, &at(0), 0, End::Routed, "");
        writer.note("k", 0, &at(5000), 0, End::Routed, "");
        let before = writer.drain();
        writer.note("k", 0, &at(1), 0, End::Routed, "");
        let after = writer.drain();
        assert_ne!(Key::decode(&before[0].1).unwrap().segment, Key::decode(&after[0].1).unwrap().segment);
    }

    #[test]
    fn cut_values_are_refused() {
        let mut entries = Entries::new();
        entries.entry((End::Held, "no_key".into())).or_default().set(1000);
        let bytes = encode_entries(&entries);
        for length in 2..bytes.len() {
            assert!(decode_entries(&bytes[..length]).is_err(), "{length} bytes of {}", bytes.len());
        }
    }
}
