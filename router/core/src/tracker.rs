//! The offsets of one partition that are still open, and the offset that may be committed.
//!
//! A stage notes each record as it is read (`seen`) and again when what became of it is safe in Kafka (`complete`), in any
//! order. The watermark is the next offset to commit: the first open one, or one past the last that was seen. It never
//! passes an open offset and never goes back, which is what makes *at least once* true; a test over random schedules
//! holds it to that.
//!
//! Offsets may have gaps (compaction, transaction markers). Therefore this is a ring of the offsets that exist, not a bitmap
//! over the range: a gap of a million offsets costs nothing. A finished offset stays in the ring as its own complement,
//! so that one slot is eight bytes and nothing is allocated per record.

use std::collections::VecDeque;

/// How much a tracker may hold. A caller that sees [`OffsetTracker::is_full`] stops reading the partition until it is not;
/// a batch that is already in hand may still be noted, so the maxima are exceeded by at most one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Offsets that may be open at once.
    pub open_max: usize,
    /// Offsets in the ring, finished ones behind the first open one included: what one slow record may make the others pile up to,
    /// and what would be read again after a crash.
    pub tracked_max: usize,
}

/// An offset that does not lie behind all that were seen before: the partition was rewound, and the tracker has to be made anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("offset {offset} was read although the partition is already at {position}")]
pub struct NotAscending {
    pub offset: i64,
    pub position: i64,
}

/// The open offsets of one partition.
#[derive(Debug, Clone)]
pub struct OffsetTracker {
    bounds: Bounds,
    slots: VecDeque<Slot>,
    open: usize,
    /// One past the last offset that is known to have been read or not to exist.
    position: Option<i64>,
}

/// An offset that is open (not negative) or finished (its complement, hence negative).
#[derive(Debug, Clone, Copy)]
struct Slot(i64);

// === impl Slot ===

impl Slot {
    const fn offset(self) -> i64 {
        if self.is_open() { self.0 } else { !self.0 }
    }

    const fn is_open(self) -> bool {
        self.0 >= 0
    }
}

// === impl Bounds ===

impl Default for Bounds {
    fn default() -> Self {
        Self { open_max: crate::limits::DELIVERIES_OPEN_MAX, tracked_max: crate::limits::OFFSETS_TRACKED_MAX }
    }
}

// === impl OffsetTracker ===

impl OffsetTracker {
    pub const fn new(bounds: Bounds) -> Self {
        Self { bounds, slots: VecDeque::new(), open: 0, position: None }
    }

    /// Notes a record as read; it is open from now on.
    ///
    /// # Errors
    /// The offset is negative or not beyond all that were seen before. Nothing has changed then.
    pub fn seen(&mut self, offset: i64) -> Result<(), NotAscending> {
        let position = self.position.unwrap_or(0);
        if offset < position || offset == i64::MAX {
            return Err(NotAscending { offset, position });
        }
        self.slots.push_back(Slot(offset));
        self.open += 1;
        self.position = Some(offset + 1);
        Ok(())
    }

    /// Notes that nothing was left to read below `next`: the consumer's position after transaction markers or at the end of the
    /// partition. Without it a partition that ends in a marker would look as if it lagged for ever. Lower values are ignored.
    pub fn passed(&mut self, next: i64) {
        if next >= 0 {
            self.position = Some(self.position.map_or(next, |position| position.max(next)));
        }
    }

    /// Notes that an offset is finished. False if it was not open: finished before, or never seen.
    pub fn complete(&mut self, offset: i64) -> bool {
        let before = self.watermark();
        let Some(index) = self.find(offset) else { return false };
        let slot = &mut self.slots[index];
        if !slot.is_open() {
            return false;
        }
        *slot = Slot(!offset);
        self.open -= 1;
        while self.slots.front().is_some_and(|slot| !slot.is_open()) {
            self.slots.pop_front();
        }
        debug_assert!(self.watermark() >= before, "the watermark went back");
        true
    }

    /// The next offset to commit; `None` before anything was seen.
    pub fn watermark(&self) -> Option<i64> {
        // The ring never begins with a finished offset, so its first one is the oldest open one.
        self.oldest_open().or(self.position)
    }

    /// The oldest offset that is open.
    pub fn oldest_open(&self) -> Option<i64> {
        self.slots.front().map(|slot| slot.offset())
    }

    /// Offsets that are open.
    pub const fn open(&self) -> usize {
        self.open
    }

    /// Offsets in the ring, finished ones that wait behind an open one included.
    pub fn tracked(&self) -> usize {
        self.slots.len()
    }

    /// Whether reading has to stop until something is finished.
    pub fn is_full(&self) -> bool {
        self.open >= self.bounds.open_max || self.slots.len() >= self.bounds.tracked_max
    }

    /// Every open offset, ascending.
    #[cfg(test)]
    pub fn open_offsets(&self) -> impl Iterator<Item = i64> + '_ {
        self.slots.iter().filter(|slot| slot.is_open()).map(|slot| slot.0)
    }

    fn find(&self, offset: i64) -> Option<usize> {
        let first = self.slots.front()?.offset();
        let distance = usize::try_from(offset.checked_sub(first)?).ok()?;
        let last = self.slots.len() - 1;
        // Without gaps the slot's index is its distance from the first; gaps can only make it smaller.
        let guess = distance.min(last);
        if self.slots[guess].offset() == offset {
            return Some(guess);
        }
        self.slots.binary_search_by_key(&offset, |slot| slot.offset()).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn tracker() -> OffsetTracker {
        OffsetTracker::new(Bounds::default())
    }

    #[test]
    fn nothing_may_be_committed_before_anything_was_seen() {
        assert_eq!(tracker().watermark(), None);
    }

    #[test]
    fn the_watermark_waits_for_the_first_open_offset() {
        let mut tracker = tracker();
        for offset in [10, 11, 12] {
            tracker.seen(offset).unwrap();
        }
        assert!(tracker.complete(11));
        assert!(tracker.complete(12));
        assert_eq!(tracker.watermark(), Some(10));
        assert!(tracker.complete(10));
        assert_eq!(tracker.watermark(), Some(13));
    }

    #[test]
    fn a_gap_is_no_open_offset() {
        let mut tracker = tracker();
        tracker.seen(3).unwrap();
        tracker.seen(5_000_000_000).unwrap();
        assert!(!tracker.complete(4));
        assert!(tracker.complete(3));
        assert_eq!(tracker.watermark(), Some(5_000_000_000));
        assert!(tracker.complete(5_000_000_000));
        assert_eq!(tracker.watermark(), Some(5_000_000_001));
    }

    #[test]
    fn a_transaction_marker_at_the_end_is_passed() {
        let mut tracker = tracker();
        tracker.seen(7).unwrap();
        tracker.passed(9);
        assert_eq!(tracker.watermark(), Some(7));
        assert!(tracker.complete(7));
        assert_eq!(tracker.watermark(), Some(9));
        tracker.passed(8);
        assert_eq!(tracker.watermark(), Some(9));
    }

    #[test]
    fn completing_twice_counts_once() {
        let mut tracker = tracker();
        tracker.seen(0).unwrap();
        tracker.seen(1).unwrap();
        assert!(tracker.complete(1));
        assert!(!tracker.complete(1));
        assert_eq!((tracker.open(), tracker.tracked()), (1, 2));
    }

    #[test]
    fn a_rewound_partition_is_refused() {
        let mut tracker = tracker();
        tracker.seen(5).unwrap();
        assert_eq!(tracker.seen(5), Err(NotAscending { offset: 5, position: 6 }));
        assert_eq!(tracker.seen(-1), Err(NotAscending { offset: -1, position: 6 }));
        assert_eq!(tracker.open(), 1);
    }

    #[test]
    fn one_slow_record_fills_the_tracker_in_the_end() {
        let mut tracker = OffsetTracker::new(Bounds { open_max: 2, tracked_max: 4 });
        tracker.seen(0).unwrap();
        assert!(!tracker.is_full());
        for offset in 1..4 {
            tracker.seen(offset).unwrap();
            assert!(tracker.complete(offset));
        }
        assert!(tracker.is_full());
        assert!(tracker.complete(0));
        assert!(!tracker.is_full());
    }

    proptest! {
        /// Offsets with random gaps, finished in a random order: against a model that simply keeps the set of open offsets.
        #[test]
        fn the_watermark_is_monotone_and_never_passes_an_open_offset(
            steps in prop::collection::vec((0_u8..4, 1_i64..40, any::<prop::sample::Index>()), 1..300),
        ) {
            let mut tracker = tracker();
            let mut open = BTreeSet::new();
            let mut next = 0;
            let mut last = None;
            for (what, gap, pick) in steps {
                match what {
                    0 | 1 => {
                        let offset = next + if what == 0 { 0 } else { gap };
                        prop_assert!(tracker.seen(offset).is_ok());
                        open.insert(offset);
                        next = offset + 1;
                    }
                    2 => {
                        if !open.is_empty() {
                            let offset = *pick.get(&open.iter().copied().collect::<Vec<_>>());
                            prop_assert!(tracker.complete(offset));
                            prop_assert!(!tracker.complete(offset));
                            open.remove(&offset);
                        }
                    }
                    _ => {
                        next += gap;
                        tracker.passed(next);
                    }
                }
                let watermark = tracker.watermark();
                prop_assert!(watermark >= last, "{watermark:?} after {last:?}");
                prop_assert_eq!(watermark.is_some(), next > 0);
                if let Some(watermark) = watermark {
                    prop_assert_eq!(watermark, open.first().copied().unwrap_or(next));
                }
                prop_assert_eq!(tracker.open(), open.len());
                prop_assert_eq!(tracker.oldest_open(), open.first().copied());
                prop_assert!(tracker.open_offsets().eq(open.iter().copied()));
                last = watermark;
            }
        }
    }
}
