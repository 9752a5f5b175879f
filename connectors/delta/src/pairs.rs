//! Which rows of a version belong together: the two images of an update, or the delete and the insert of one key in a rewrite.
//!
//! A version is read once for this, and only digests are kept (25 bytes a key, twice that in a table that has just grown), so that a rewrite
//! of millions of rows does not have to fit into memory. The rows themselves are read again when they are given out.

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;

use sha2::{Digest as _, Sha256};

use crate::encode::{Malformed, RowEncoder};
use crate::error::Error;
use crate::files::{Kind, Scan};
use crate::layout::{Key, Layout};

/// Keys of one version that are remembered at once, about 420 MB, and 630 MB at the moment at which the map grows to this size. A version
/// with more is not paired, and says so.
pub(crate) const KEYS_MAX: usize = 10_000_000;

/// The first half of a SHA-256: two different keys or rows that share it are not to be expected in the life of this universe.
pub(crate) type Digest = u128;

/// What becomes of the rows of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Deletes and inserts, as they stand: another number of rows than one on each side, or only one side.
    Apart,
    /// One row before, one after: an update.
    Update,
    /// The two rows are the same: nothing.
    Nothing,
}

pub(crate) struct Pairs {
    keys: HashMap<ShortKey, Entry>,
    /// Whether a delete and an insert make a pair too.
    coalesce: bool,
    pub counts: Counts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    pub deletes: u64,
    pub inserts: u64,
    /// Delete and insert of one key that differ.
    pub changed: u64,
    /// Delete and insert of one key that do not.
    pub unchanged: u64,
}

/// What is kept of a key's digest: two of ten million keys share 96 bits once in 10^15 versions.
type ShortKey = [u32; 3];

/// Small, because there are millions: 12 bytes.
#[derive(Default)]
struct Entry {
    /// Half of the digest of the compared columns before; it is compared with one other only.
    content: [u32; 2],
    before: u8,
    after: u8,
    /// Bits: [`EQUAL`], [`IMAGE_BEFORE`], [`IMAGE_AFTER`].
    flags: u8,
}

const EQUAL: u8 = 1;
/// The row before, and the row after, are the images of an update.
const IMAGE_BEFORE: u8 = 2;
const IMAGE_AFTER: u8 = 4;

/// How rows are compared.
pub(crate) struct Compare<'a> {
    pub coalesce: bool,
    /// The places of the compared columns before and after; none if rows always differ.
    pub columns: Option<&'a [(usize, usize)]>,
}

/// Why there are no pairs.
pub(crate) struct TooManyKeys;

// === impl Pairs ===

impl Pairs {
    /// Reads both sides of a version.
    pub fn read(
        before: (&mut Scan, &Layout),
        after: (&mut Scan, &Layout),
        compare: &Compare<'_>,
        malformed: &dyn Fn(Malformed) -> Error,
    ) -> Result<Result<Self, TooManyKeys>, Error> {
        let mut pairs = Self { keys: HashMap::new(), coalesce: compare.coalesce, counts: Counts::default() };
        let columns = |pick: fn(&(usize, usize)) -> usize| -> Option<Vec<usize>> {
            compare.columns.filter(|_| compare.coalesce).map(|columns| columns.iter().map(pick).collect())
        };
        for ((scan, layout), columns) in [(before, columns(|pair| pair.0)), (after, columns(|pair| pair.1))] {
            while let Some(batch) = scan.next()? {
                let encoder = RowEncoder::new(layout, &batch.records, &batch.constants).map_err(malformed)?;
                let mut values = Vec::new();
                for &(row, kind) in &batch.rows {
                    match kind {
                        Kind::Delete => pairs.counts.deletes += 1,
                        Kind::Insert => pairs.counts.inserts += 1,
                        Kind::BeforeUpdate | Kind::AfterUpdate => {}
                    }
                    let Some(key) = key(&encoder, layout, row).map_err(malformed)? else { continue };
                    let content = match &columns {
                        Some(columns) if matches!(kind, Kind::Delete | Kind::Insert) => {
                            values.clear();
                            for &place in columns {
                                encoder.write_column(place, row, &mut values).map_err(malformed)?;
                                // JSON never holds a bare line feed, so values cannot run into one another.
                                values.push(b'\n');
                            }
                            Some(digest(&values))
                        }
                        _ => None,
                    };
                    pairs.add(digest(&key), kind, content);
                }
                if pairs.keys.len() > KEYS_MAX {
                    return Ok(Err(TooManyKeys));
                }
            }
        }
        pairs.count();
        Ok(Ok(pairs))
    }

    /// All rows before come before all rows after.
    fn add(&mut self, key: Digest, kind: Kind, content: Option<Digest>) {
        match (kind, self.keys.entry(short_key(key))) {
            (Kind::Delete | Kind::BeforeUpdate, entry) => {
                let entry = entry.or_default();
                entry.before = entry.before.saturating_add(1);
                entry.set(IMAGE_BEFORE, kind == Kind::BeforeUpdate);
                entry.content = content.map(short_content).unwrap_or_default();
            }
            (Kind::Insert | Kind::AfterUpdate, MapEntry::Occupied(mut entry)) => {
                let entry = entry.get_mut();
                entry.after = entry.after.saturating_add(1);
                entry.set(IMAGE_AFTER, kind == Kind::AfterUpdate);
                let same = content.is_some_and(|content| short_content(content) == entry.content);
                entry.set(EQUAL, kind == Kind::Insert && !entry.is(IMAGE_BEFORE) && same);
            }
            // A key without a row before cannot make a pair, so it takes no room.
            (Kind::Insert | Kind::AfterUpdate, MapEntry::Vacant(_)) => {}
        }
    }

    fn count(&mut self) {
        for entry in self.keys.values().filter(|entry| !entry.is(IMAGE_BEFORE | IMAGE_AFTER)) {
            match entry.verdict(self.coalesce) {
                Verdict::Update => self.counts.changed += 1,
                Verdict::Nothing => self.counts.unchanged += 1,
                Verdict::Apart => {}
            }
        }
    }

    pub fn verdict(&self, key: Option<Digest>) -> Verdict {
        key.and_then(|key| self.keys.get(&short_key(key))).map_or(Verdict::Apart, |entry| entry.verdict(self.coalesce))
    }
}

impl Entry {
    /// Whether all of these bits are set.
    fn is(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    fn set(&mut self, flag: u8, on: bool) {
        if on {
            self.flags |= flag;
        } else {
            self.flags &= !flag;
        }
    }

    fn verdict(&self, coalesce: bool) -> Verdict {
        match (self.before, self.after) {
            (1, 1) if self.is(IMAGE_BEFORE | IMAGE_AFTER) => Verdict::Update,
            (1, 1) if coalesce && self.is(EQUAL) => Verdict::Nothing,
            (1, 1) if coalesce => Verdict::Update,
            _ => Verdict::Apart,
        }
    }
}

fn short_key(digest: Digest) -> ShortKey {
    let [.., a, b, c] = words(digest);
    [a, b, c]
}

fn short_content(digest: Digest) -> [u32; 2] {
    let [.., a, b] = words(digest);
    [a, b]
}

fn words(digest: Digest) -> [u32; 4] {
    let bytes = digest.to_be_bytes();
    let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    [word(0), word(4), word(8), word(12)]
}

/// A row's key as text; none if it is null.
pub(crate) fn key(encoder: &RowEncoder<'_>, layout: &Layout, row: usize) -> Result<Option<Vec<u8>>, Malformed> {
    let Key::At(path) = &layout.key else { return Ok(None) };
    let mut key = Vec::with_capacity(32);
    Ok(encoder.write_key(path, row, &mut key)?.then_some(key))
}

pub(crate) fn digest(bytes: &[u8]) -> Digest {
    let hash = Sha256::digest(bytes);
    let mut half = [0; 16];
    half.copy_from_slice(&hash[..16]);
    Digest::from_be_bytes(half)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(coalesce: bool, rows: &[(Kind, u128)]) -> Verdict {
        let mut pairs = Pairs { keys: HashMap::new(), coalesce, counts: Counts::default() };
        for (kind, content) in rows {
            pairs.add(1, *kind, Some(*content));
        }
        pairs.verdict(Some(1))
    }

    #[test]
    fn one_row_on_each_side_makes_a_pair() {
        use Kind::{AfterUpdate, BeforeUpdate, Delete, Insert};
        for (coalesce, rows, expected) in [
            (false, vec![(BeforeUpdate, 1), (AfterUpdate, 1)], Verdict::Update),
            (true, vec![(BeforeUpdate, 1), (AfterUpdate, 1)], Verdict::Update),
            (true, vec![(Delete, 1), (Insert, 1)], Verdict::Nothing),
            (true, vec![(Delete, 1), (Insert, 2)], Verdict::Update),
            (false, vec![(Delete, 1), (Insert, 1)], Verdict::Apart),
            (true, vec![(Delete, 1), (Delete, 1), (Insert, 1)], Verdict::Apart),
            (true, vec![(Delete, 1), (Insert, 1), (Insert, 1)], Verdict::Apart),
            (true, vec![(BeforeUpdate, 1), (BeforeUpdate, 2), (AfterUpdate, 1), (AfterUpdate, 2)], Verdict::Apart),
            (true, vec![(Delete, 1), (AfterUpdate, 1)], Verdict::Update),
            (true, vec![(BeforeUpdate, 1), (Insert, 1)], Verdict::Update),
            (false, vec![(BeforeUpdate, 1), (Insert, 1)], Verdict::Apart),
            (true, vec![(Insert, 1)], Verdict::Apart),
            (true, vec![(BeforeUpdate, 1)], Verdict::Apart),
        ] {
            assert_eq!(verdict(coalesce, &rows), expected, "{coalesce} {rows:?}");
        }
    }

    #[test]
    fn an_entry_stays_small() {
        assert_eq!(size_of::<(ShortKey, Entry)>(), 24);
    }
}
