//! Which rows of a version belong together: the two images of an update, or the delete and the insert of one key in a rewrite.
//!
//! A version is read once for this, and only digests are kept (about 60 bytes a key), so that a rewrite of millions of rows
//! does not have to fit into memory. The rows themselves are read again when they are given out.

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;

use sha2::{Digest as _, Sha256};

use crate::encode::{Malformed, RowEncoder};
use crate::error::Error;
use crate::files::{Kind, Scan};
use crate::layout::{Key, Layout};

/// Keys of one version that are remembered at once, about 800 MB. A version with more is not paired, and says so.
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
    keys: HashMap<Digest, Entry>,
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

#[derive(Default)]
struct Entry {
    before: u32,
    after: u32,
    /// The digest of the compared columns before.
    content: Digest,
    equal: bool,
    /// The row before and the row after are the images of an update.
    image_before: bool,
    image_after: bool,
}

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
        match (kind, self.keys.entry(key)) {
            (Kind::Delete | Kind::BeforeUpdate, entry) => {
                let entry = entry.or_default();
                entry.before = entry.before.saturating_add(1);
                entry.image_before = kind == Kind::BeforeUpdate;
                entry.content = content.unwrap_or_default();
            }
            (Kind::Insert | Kind::AfterUpdate, MapEntry::Occupied(mut entry)) => {
                let entry = entry.get_mut();
                entry.after = entry.after.saturating_add(1);
                entry.image_after = kind == Kind::AfterUpdate;
                entry.equal = kind == Kind::Insert
                    && !entry.image_before
                    && content.is_some_and(|content| content == entry.content);
            }
            // A key without a row before cannot make a pair, so it takes no room.
            (Kind::Insert | Kind::AfterUpdate, MapEntry::Vacant(_)) => {}
        }
    }

    fn count(&mut self) {
        for entry in self.keys.values().filter(|entry| !(entry.image_before && entry.image_after)) {
            match entry.verdict(self.coalesce) {
                Verdict::Update => self.counts.changed += 1,
                Verdict::Nothing => self.counts.unchanged += 1,
                Verdict::Apart => {}
            }
        }
    }

    pub fn verdict(&self, key: Option<Digest>) -> Verdict {
        key.and_then(|key| self.keys.get(&key)).map_or(Verdict::Apart, |entry| entry.verdict(self.coalesce))
    }
}

impl Entry {
    fn verdict(&self, coalesce: bool) -> Verdict {
        match (self.before, self.after) {
            (1, 1) if self.image_before && self.image_after => Verdict::Update,
            (1, 1) if coalesce && self.equal => Verdict::Nothing,
            (1, 1) if coalesce => Verdict::Update,
            _ => Verdict::Apart,
        }
    }
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
}
