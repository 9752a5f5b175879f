//! Holds whose fence never comes.
//!
//! A merge is announced twice: with a *hold* in the survivor's partition and a *fence* in the absorbed profile's partition. Whoever reads the
//! hold waits until the fence is passed. But Kafka trims each partition by itself, a new group begins where a partition begins, and offsets
//! are reset: then the fence may be gone while the hold is still there, and the survivor would wait forever.
//!
//! Therefore a hold that has waited for some seconds is looked at. Where the absorbed profile's partition ended then is remembered; once the
//! group has read that partition beyond this end and the hold still waits, its fence was read earlier, or never will be. The fence is then *asked
//! for again*: it is appended to the absorbed profile's partition once more. So the hold ends in the ordinary way, behind every
//! record of the absorbed profile that is left. A fence that is passed twice changes nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use tailwater_core::envelope::Merge;
use tailwater_core::{ProfileId, Timestamp};

use super::Waiting;
use crate::stages::Error;
use crate::state::{self, Map};

/// How often holds are looked at.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// How long a hold has waited when its fence is first asked for again. Fences usually arrive within milliseconds; where many people merge
/// behind a slow vendor they take longer, rightly.
pub const PATIENCE_MIN: Duration = Duration::from_secs(60);

/// The longest time between two fences for the same hold. In a chain of merges a fence waits for another one, rightly and for long.
const AGAIN_MAX: Duration = Duration::from_secs(600);

/// Holds of a partition that one look takes in.
const HOLDS_MAX: usize = 1_000;

/// The partitions of the topic that holds and fences travel in, as the stage's group sees them.
pub trait FencedPartitions {
    /// The partition of a profile.
    fn partition_of(&self, profile: ProfileId) -> i32;

    /// The next offset of a partition.
    ///
    /// # Errors
    /// No broker answers.
    fn partition_end(&mut self, partition: i32) -> Result<i64, Error>;

    /// Whether the group has read every record of a partition before this offset.
    ///
    /// # Errors
    /// No broker answers.
    fn has_read(&mut self, partition: i32, end: i64) -> Result<bool, Error>;
}

/// The holds that were looked at.
#[derive(Debug, Default)]
pub struct Fences {
    looked_at: Option<Timestamp>,
    /// Looks that were made: each begins with another hold.
    looks: usize,
    seen: BTreeMap<(ProfileId, u64), Seen>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    /// Where the absorbed profile's partition ended.
    end: i64,
    /// How long to wait after the next fence that is asked for, and until when now.
    patience: Duration,
    not_before: Timestamp,
}

// === impl Fences ===

impl Fences {
    /// The merges that are waited for in these partitions, if it is time to look at them.
    ///
    /// # Errors
    /// The state could not be read.
    pub fn due(
        &mut self,
        waiting: &Waiting,
        store: &impl Map,
        owned: impl IntoIterator<Item = i32>,
        now: Timestamp,
    ) -> Result<Vec<Merge>, state::Error> {
        if !waiting.has_merges() {
            self.seen.clear();
            return Ok(Vec::new());
        }
        let looked_at = *self.looked_at.get_or_insert(now);
        if now.since(looked_at) < LOOK_INTERVAL {
            return Ok(Vec::new());
        }
        self.looked_at = Some(now);
        let mut awaited = Vec::new();
        for partition in owned {
            awaited.extend(waiting.awaited(store, partition, HOLDS_MAX)?);
        }
        Ok(awaited)
    }

    /// Those among the merges that were due whose fence has to be asked for again. How far the group has read is asked once in each look
    /// at most: the answer costs a client and a read, and the stage's thread waits for it. One answer serves all holds of a partition.
    ///
    /// # Errors
    /// No broker answers.
    pub fn missing(
        &mut self,
        due: &[Merge],
        partitions: &mut impl FencedPartitions,
        now: Timestamp,
    ) -> Result<Vec<Merge>, Error> {
        if due.is_empty() {
            return Ok(Vec::new());
        }
        let mut known = std::mem::take(&mut self.seen);
        let mut ends: BTreeMap<i32, i64> = BTreeMap::new();
        let mut missing = Vec::new();
        let mut asked: Option<(i32, i64, bool)> = None;
        self.looks = self.looks.wrapping_add(1);
        let first = self.looks % due.len();
        for merge in due.iter().skip(first).chain(due.iter().take(first)) {
            let key = (merge.survivor, merge.number);
            let from = partitions.partition_of(merge.absorbed);
            let mut seen = match known.remove(&key) {
                Some(seen) => seen,
                None => {
                    let end = end_of(&mut ends, partitions, from)?;
                    Seen { end, patience: PATIENCE_MIN, not_before: now.saturating_add(PATIENCE_MIN) }
                }
            };
            if now > seen.not_before && has_read(&mut asked, partitions, from, seen.end)? {
                missing.push(*merge);
                let patience = (seen.patience * 2).min(AGAIN_MAX);
                // The fence that is asked for now lies beyond this end.
                let end = end_of(&mut ends, partitions, from)?.saturating_add(1);
                seen = Seen { end, patience, not_before: now.saturating_add(seen.patience) };
            }
            self.seen.insert(key, seen);
        }
        Ok(missing)
    }
}

/// Whether a partition was read to an end, as far as the one question of this look tells.
fn has_read(
    asked: &mut Option<(i32, i64, bool)>,
    partitions: &mut impl FencedPartitions,
    partition: i32,
    end: i64,
) -> Result<bool, Error> {
    match *asked {
        Some((other, to, read)) => Ok(other == partition && read && end <= to),
        None => {
            let read = partitions.has_read(partition, end)?;
            *asked = Some((partition, end, read));
            Ok(read)
        }
    }
}

fn end_of(ends: &mut BTreeMap<i32, i64>, partitions: &mut impl FencedPartitions, partition: i32) -> Result<i64, Error> {
    if let Some(end) = ends.get(&partition) {
        return Ok(*end);
    }
    let end = partitions.partition_end(partition)?;
    ends.insert(partition, end);
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Store;

    /// One partition for everybody: where it ends, and how far the group has come.
    struct One {
        end: i64,
        read: i64,
    }

    impl FencedPartitions for One {
        fn partition_of(&self, _profile: ProfileId) -> i32 {
            0
        }

        fn partition_end(&mut self, _partition: i32) -> Result<i64, Error> {
            Ok(self.end)
        }

        fn has_read(&mut self, _partition: i32, end: i64) -> Result<bool, Error> {
            Ok(self.read >= end)
        }
    }

    fn merge() -> Merge {
        let profile = |name| ProfileId::of("w", "email", name, 0);
        Merge { number: 7, survivor: profile("a"), absorbed: profile("b") }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    // Issue 10, B7.
    #[test]
    fn a_fence_is_asked_for_once_its_partition_was_read_and_the_hold_still_waits() {
        let (mut store, _folder) = Store::without_broker(&[0]);
        let mut waiting = Waiting::default();
        waiting.wait_for(&mut store, 0, merge()).unwrap();
        let mut fences = Fences::default();
        let mut partition = One { end: 100, read: 40 };
        let mut look = |partition: &mut One, seconds| {
            let due = fences.due(&waiting, &store, [0], at(seconds)).unwrap();
            fences.missing(&due, partition, at(seconds)).unwrap()
        };
        assert!(look(&mut partition, 0).is_empty(), "it has only just been read");
        assert!(look(&mut partition, 5).is_empty(), "the fence may lie before the end of its partition");
        partition = One { end: 200, read: 99 };
        partition.read = 100;
        assert!(look(&mut partition, 60).is_empty(), "it may still come");
        partition.read = 99;
        assert!(look(&mut partition, 70).is_empty(), "not everything up to that end was read");
        partition.read = 100;
        assert_eq!(look(&mut partition, 75), [merge()]);
        partition = One { end: 500, read: 500 };
        assert!(look(&mut partition, 76).is_empty(), "looks are seconds apart");
        assert_eq!(look(&mut partition, 140), [merge()], "it may get lost again");
        assert!(look(&mut partition, 210).is_empty(), "each time later");
    }

    #[test]
    fn nobody_is_asked_about_a_hold_that_has_ended() {
        let (mut store, _folder) = Store::without_broker(&[0]);
        let mut waiting = Waiting::default();
        waiting.wait_for(&mut store, 0, merge()).unwrap();
        let mut fences = Fences::default();
        let mut partition = One { end: 0, read: 0 };
        for seconds in [0, 5] {
            let due = fences.due(&waiting, &store, [0], at(seconds)).unwrap();
            fences.missing(&due, &mut partition, at(seconds)).unwrap();
        }
        waiting.released(&mut store, 0, merge().survivor, merge().number).unwrap();
        assert!(fences.due(&waiting, &store, [0], at(10)).unwrap().is_empty());
    }
}
