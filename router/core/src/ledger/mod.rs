//! The ledger: for every (ingest record, destination), what became of it.
//!
//! The compacted topic `ledger` holds, for a block of 1024 ingest offsets, one bitmap per end and reason. Setting a bit twice
//! changes nothing, so repeats are harmless, and it outlives the records themselves. A block of one ingest partition is
//! spread over all output partitions by resolve, and every output partition is worked by another process; therefore the output partition is part of the key, and so is
//! a *segment*, drawn anew by each writer: a writer never has to read what an earlier one wrote, because readers join all
//! segments of a block with OR. Both formats are frozen by the tests below.
//!
//! ```text
//! key   = JSON array [stage, destination, output partition, topic, partition, block, round, segment]
//! value = version (1 byte, 1) entry*
//! entry = end (1 byte) reason (varint length, UTF-8) bitmap (varint length, bytes; bit i of byte n is offset block*1024 + 8n + i)
//! ```
//!
//! The destination is empty where an end holds for all of them (a record that did not decode).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::code::Code;
use crate::position::Coordinates;
use crate::wire::{put_bytes, take_bytes, text};

/// Offsets in a block.
pub const BLOCK: i64 = 1024;

/// The block of the highest offset that Kafka can give.
const BLOCK_LAST: i64 = i64::MAX / BLOCK;

/// What became of a record at a destination, weakest first: where a record has several, the strongest counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum End {
    /// Left resolve, for every destination: what says that the record existed when Kafka has removed it.
    Resolved = 0,
    /// Waits in route's state for the destination's key.
    Held = 1,
    /// Left route for the destination: in flight until send writes an end.
    Routed = 2,
    /// Waits in send's state behind a merge, or behind others of the person.
    Parked = 3,
    Skipped = 4,
    Delivered = 5,
    DeadLettered = 6,
}

impl End {
    pub const ALL: [Self; 7] =
        [Self::Resolved, Self::Held, Self::Routed, Self::Parked, Self::Skipped, Self::Delivered, Self::DeadLettered];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Resolved => "resolved",
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
    pub output_partition: i32,
    pub topic: String,
    pub partition: i32,
    pub block: i64,
    /// How often the record was replayed; a later round outweighs an earlier one.
    pub round: u32,
    pub segment: u64,
}

/// One bit per offset of a block.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bitmap([u64; 16]);

/// The bitmaps of a block, by end and reason.
pub type Entries = BTreeMap<(End, String), Bitmap>;

/// Gathers the ends of a batch and gives them out as records; keeps the blocks it has touched, because a record replaces
/// the one before it.
#[derive(Debug)]
pub struct Writer {
    stage: Stage,
    /// The segment of blocks that are made from now on.
    segment: u64,
    names: Names,
    blocks: BTreeMap<Place, Block>,
    /// Blocks kept in memory. Forgetting one costs a new segment, not a bit.
    blocks_max: usize,
    drains: u64,
}

/// A [`Key`] without its segment, and with numbers for names, so that noting an end allocates nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    destination: u32,
    output_partition: i32,
    topic: u32,
    partition: i32,
    block: i64,
    round: u32,
}

#[derive(Debug)]
struct Block {
    segment: u64,
    entries: Vec<(End, u32, Bitmap)>,
    changed: bool,
    /// The number of the drain after which it was last touched.
    touched: u64,
}

/// The names of destinations, topics and reasons: few, as the configuration and the codes are.
#[derive(Debug, Default)]
struct Names {
    numbers: HashMap<Arc<str>, u32>,
    names: Vec<Arc<str>>,
}

/// A ledger record that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
#[error("a record of the ledger could not be read: {0}")]
pub struct DecodeError(pub &'static str);

impl DecodeError {
    pub const fn code(&self) -> Code {
        crate::code::LEDGER_UNREADABLE
    }
}

// === impl Bitmap ===

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

    /// Those that are set here and not in `other`.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let mut left = self.clone();
        for (mine, theirs) in left.0.iter_mut().zip(&other.0) {
            *mine &= !theirs;
        }
        left
    }

    /// Those that are set in both.
    #[must_use]
    pub fn both(&self, other: &Self) -> Self {
        let mut both = self.clone();
        for (mine, theirs) in both.0.iter_mut().zip(&other.0) {
            *mine &= theirs;
        }
        both
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
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
            self.output_partition,
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
    /// The bytes are no key of this format, or name a block whose offsets do not exist.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (stage, destination, output_partition, topic, partition, block, round, segment): (
            Stage,
            String,
            i32,
            String,
            i32,
            i64,
            u32,
            String,
        ) = serde_json::from_slice(bytes).map_err(|_| DecodeError("the key is not the documented array"))?;
        let segment =
            u64::from_str_radix(&segment, 16).map_err(|_| DecodeError("the segment is no hexadecimal number"))?;
        if !(0..=BLOCK_LAST).contains(&block) {
            return Err(DecodeError("the block lies outside of what a partition can hold"));
        }
        Ok(Self { stage, destination, output_partition, topic, partition, block, round, segment })
    }
}

/// Writes the value of a ledger record.
pub fn encode_entries(entries: &Entries) -> Vec<u8> {
    let mut out = vec![1];
    for ((end, reason), bitmap) in entries {
        out.push(*end as u8);
        put_bytes(&mut out, reason.as_bytes());
        put_bytes(&mut out, &bitmap.bytes());
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
        rest = tail;
        let end = End::from_byte(end).ok_or(DecodeError("it has an end that this version does not know"))?;
        let reason = take_bytes(&mut rest).ok_or(DecodeError("the value was cut"))?;
        let bitmap = take_bytes(&mut rest).ok_or(DecodeError("the value was cut"))?;
        let reason = text(reason).ok_or(DecodeError("a reason is no UTF-8"))?;
        let bitmap = Bitmap::from_bytes(bitmap).ok_or(DecodeError("a bitmap is longer than a block"))?;
        entries.entry((end, reason.to_owned())).or_default().join(&bitmap);
    }
    Ok(entries)
}

// === impl Writer ===

impl Writer {
    /// `segment` must be drawn at random, anew for every assignment of output partitions.
    pub fn new(stage: Stage, segment: u64, blocks_max: usize) -> Self {
        Self {
            stage,
            segment,
            names: Names::default(),
            blocks: BTreeMap::new(),
            blocks_max: blocks_max.max(1),
            drains: 0,
        }
    }

    /// Notes an end. `place` is the record's coordinates in ingest; `round` its replay count; `reason` a code or empty, never free text.
    pub fn note(
        &mut self,
        destination: &str,
        output_partition: i32,
        place: &Coordinates<'_>,
        round: u32,
        end: End,
        reason: &str,
    ) {
        let key = Place {
            destination: self.names.number(destination),
            output_partition,
            topic: self.names.number(place.topic),
            partition: place.partition,
            block: place.offset.div_euclid(BLOCK),
            round,
        };
        let reason = self.names.number(reason);
        let segment = self.segment;
        let block = self.blocks.entry(key).or_insert_with(|| Block::new(segment));
        block.touched = self.drains;
        block.changed |= block.set(end, reason, place.offset);
    }

    /// The records for what was noted since the last call, as (output partition, key, value). They must be in Kafka before the offsets they
    /// speak of are committed.
    pub fn drain(&mut self) -> Vec<(i32, Vec<u8>, Vec<u8>)> {
        let mut records = Vec::new();
        for (place, block) in &mut self.blocks {
            if std::mem::take(&mut block.changed) {
                let key = Key {
                    stage: self.stage,
                    destination: self.names.name(place.destination).to_owned(),
                    output_partition: place.output_partition,
                    topic: self.names.name(place.topic).to_owned(),
                    partition: place.partition,
                    block: place.block,
                    round: place.round,
                    segment: block.segment,
                };
                records.push((place.output_partition, key.encode(), encode_entries(&block.entries(&self.names))));
            }
        }
        self.drains += 1;
        if self.blocks.len() > self.blocks_max {
            self.forget();
        }
        records
    }

    /// Forgets everything noted, after a transaction that was aborted: its records are read again. `segment` must be new, because
    /// what earlier transactions wrote under the old one is no longer known here and would be replaced by less.
    pub fn reset(&mut self, segment: u64) {
        self.blocks.clear();
        self.segment = segment;
    }

    /// Blocks in memory.
    pub fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Forgets the blocks that were not touched for longest, down to half of the maximum so that it does not happen at every drain.
    /// A block that is noted again begins in a new segment: under its old one it would replace bits that it no longer has.
    fn forget(&mut self) {
        let keep = self.blocks_max / 2;
        let mut ages: Vec<(u64, Place)> = self.blocks.iter().map(|(place, block)| (block.touched, *place)).collect();
        ages.sort_unstable();
        for (_, place) in &ages[..ages.len().saturating_sub(keep)] {
            self.blocks.remove(place);
        }
        self.segment = self.segment.wrapping_add(1);
    }
}

impl Block {
    const fn new(segment: u64) -> Self {
        Self { segment, entries: Vec::new(), changed: false, touched: 0 }
    }

    /// True if the bit was not set before.
    fn set(&mut self, end: End, reason: u32, offset: i64) -> bool {
        if let Some((.., bitmap)) = self.entries.iter_mut().find(|(has, why, _)| *has == end && *why == reason) {
            return bitmap.set(offset);
        }
        let mut bitmap = Bitmap::default();
        let new = bitmap.set(offset);
        self.entries.push((end, reason, bitmap));
        new
    }

    fn entries(&self, names: &Names) -> Entries {
        self.entries
            .iter()
            .map(|(end, reason, bitmap)| ((*end, names.name(*reason).to_owned()), bitmap.clone()))
            .collect()
    }
}

impl Names {
    fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        let name: Arc<str> = name.into();
        self.names.push(Arc::clone(&name));
        self.numbers.insert(name, number);
        number
    }

    fn name(&self, number: u32) -> &str {
        self.names.get(usize::try_from(number).unwrap_or(usize::MAX)).map_or("", |name| name)
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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

    #[test]
    fn strange_bytes_are_refused_with_what_is_wrong() {
        assert_eq!(decode_entries(b""), Err(DecodeError("the value is empty")));
        assert_eq!(decode_entries(b"\x02"), Err(DecodeError("the value has an unknown version")));
        assert_eq!(
            decode_entries(b"\x01\x09\x00\x00"),
            Err(DecodeError("it has an end that this version does not know"))
        );
        assert_eq!(decode_entries(b"\x01\x01\x01\xff\x00"), Err(DecodeError("a reason is no UTF-8")));
        assert!(Key::decode(b"[\"send\"]").is_err());
    }

    #[test]
    fn a_block_that_stays_in_use_keeps_its_segment() {
        let mut writer = Writer::new(Stage::Route, 1, 4);
        let mut segments = std::collections::BTreeSet::new();
        for round in 0..100_i64 {
            writer.note("k", 0, &at(round), 0, End::Routed, "");
            writer.note("k", 0, &at((round + 1) * BLOCK), 0, End::Routed, "");
            for (_, key, _) in writer.drain() {
                let key = Key::decode(&key).unwrap();
                if key.block == 0 {
                    segments.insert(key.segment);
                }
            }
            assert!(writer.blocks() <= 4);
        }
        assert_eq!(segments.len(), 1);
    }

    fn end() -> impl Strategy<Value = End> {
        prop::sample::select(End::ALL.to_vec())
    }

    proptest! {
        /// Whatever was noted can be read back from the compacted topic, although the writer forgets blocks and starts over.
        #[test]
        fn readers_find_exactly_what_was_noted(
            steps in prop::collection::vec((0_u8..8, 0_i64..8_000, end(), 0_usize..3, 0_i32..2), 1..200),
        ) {
            let mut writer = Writer::new(Stage::Send, 0, 2);
            let mut topic: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
            let mut noted = std::collections::BTreeSet::new();
            let mut pending = Vec::new();
            for (what, offset, end, reason, output_partition) in steps {
                match what {
                    0 => {
                        topic.extend(writer.drain().into_iter().map(|(_, key, value)| (key, value)));
                        noted.extend(pending.drain(..));
                    }
                    // An aborted transaction: what was noted since the last drain is lost on purpose.
                    1 => {
                        pending.clear();
                        writer.reset(u64::from_be_bytes(offset.to_be_bytes()) << 32 | topic.len() as u64);
                    }
                    _ => {
                        let reason = ["", "duplicate", "no_key"][reason];
                        writer.note("klaviyo", output_partition, &at(offset), 0, end, reason);
                        pending.push((output_partition, offset, end, reason.to_owned()));
                    }
                }
            }
            topic.extend(writer.drain().into_iter().map(|(_, key, value)| (key, value)));
            noted.extend(pending.drain(..));
            let mut found = std::collections::BTreeSet::new();
            for (key, value) in &topic {
                let key = Key::decode(key).unwrap();
                for ((end, reason), bitmap) in decode_entries(value).unwrap() {
                    found.extend(bitmap.offsets(key.block).map(|offset| (key.output_partition, offset, end, reason.clone())));
                }
            }
            prop_assert_eq!(found, noted);
        }

        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>) {
            let _key = Key::decode(&bytes);
            let _entries = decode_entries(&bytes);
            let _versioned = decode_entries(&[&[1], bytes.as_slice()].concat());
        }

        #[test]
        fn entries_and_keys_go_there_and_back(
            bits in prop::collection::vec((end(), "[a-z_]{0,12}", 0_i64..BLOCK), 0..60),
            destination in ".*", topic in ".*", output_partition: i32, partition: i32, block in 0..=BLOCK_LAST, round: u32, segment: u64,
        ) {
            let mut entries = Entries::new();
            for (end, reason, offset) in bits {
                entries.entry((end, reason)).or_default().set(offset);
            }
            prop_assert_eq!(&decode_entries(&encode_entries(&entries)).unwrap(), &entries);
            let key = Key { stage: Stage::Operator, destination, output_partition, topic, partition, block, round, segment };
            prop_assert_eq!(&Key::decode(&key.encode()).unwrap(), &key);
        }
    }
}
