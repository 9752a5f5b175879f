//! Defects of the world that send runs in, for crash tests that must notice them. The decisions know nothing of them.
//!
//! Without the feature `failpoints` no defect can be named, and nothing here does anything.

use std::collections::BTreeMap;

use tailwater_core::ProfileId;
use tailwater_core::envelope::{Envelope, Role};

use crate::failpoint;
use crate::kafka::Record;
use crate::kafka::consumer::Polled;

#[derive(Debug, Default)]
pub(super) struct Planted {
    /// The next offset to read of each partition.
    read: BTreeMap<i32, i64>,
}

impl Planted {
    /// What the stage is shown of what was read.
    pub fn polled(&mut self, polled: Polled, partitions: u32) -> Polled {
        let Polled::Records(mut records) = polled else { return polled };
        if failpoint::bug("bug.commit_before_outcome") {
            self.read.extend(records.iter().map(|record| (record.partition, record.offset + 1)));
        }
        if failpoint::bug("bug.gate_removed") {
            for record in &mut records {
                if let Some(alone) = alone(record, partitions) {
                    *record = alone;
                }
            }
        }
        Polled::Records(records)
    }

    /// The offsets that a commit carries: with the defect, those of everything that was read.
    pub fn offsets(&self, offsets: &BTreeMap<i32, i64>) -> BTreeMap<i32, i64> {
        let early = |partition: &i32, offset: &i64| self.read.get(partition).map_or(*offset, |read| *offset.max(read));
        offsets.iter().map(|(partition, offset)| (*partition, early(partition, offset))).collect()
    }

    /// Whether no disposition reaches the ledger.
    pub fn skips_ledger() -> bool {
        failpoint::bug("bug.ledger_skipped")
    }
}

/// The event under a profile of its own in the same partition: nothing of its person is in flight then.
fn alone(record: &Record, partitions: u32) -> Option<Record> {
    let mut envelope = record.envelope().ok().filter(|envelope| envelope.role == Role::Event)?;
    let profile = envelope.profile?;
    let mut own = std::iter::repeat_with(|| ProfileId::from_bytes(rand::random()));
    envelope.profile = own.find(|own| own.partition(partitions) == profile.partition(partitions));
    let header = Envelope::to_bytes(&envelope);
    Some(Record::new(
        std::sync::Arc::clone(&record.topic),
        record.partition,
        record.offset,
        record.timestamp,
        record.key(),
        record.value(),
        Some(&header),
        record.headers.clone(),
    ))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tailwater_core::Timestamp;

    use super::*;

    #[test]
    fn without_a_named_defect_everything_is_as_it_was() {
        let mut planted = Planted::default();
        let envelope =
            Envelope { workspace: "w", profile: Some(ProfileId::from_bytes([7; 16])), ..Envelope::default() };
        let header = envelope.to_bytes();
        let record =
            Record::new(Arc::from("t"), 1, 8, Timestamp::default(), Some(b"k"), Some(b"v"), Some(&header), vec![]);
        let Polled::Records(seen) = planted.polled(Polled::Records(vec![record]), 4) else { panic!("no records") };
        assert_eq!(seen[0].envelope().unwrap().profile, envelope.profile);
        let offsets = BTreeMap::from([(1, 5)]);
        assert_eq!(planted.offsets(&offsets), offsets);
        assert!(!Planted::skips_ledger());
        // The defect itself: another profile of the same partition, and nothing else is different.
        let alone = alone(&seen[0], 4).unwrap();
        let other = alone.envelope().unwrap().profile.unwrap();
        assert!(other != envelope.profile.unwrap() && other.partition(4) == envelope.profile.unwrap().partition(4));
        assert_eq!((alone.offset, alone.key(), alone.value()), (8, Some(&b"k"[..]), Some(&b"v"[..])));
    }
}
