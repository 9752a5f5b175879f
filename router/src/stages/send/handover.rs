//! What was delivered to a profile follows it into a merge.
//!
//! Memory is kept by profile. When a profile is absorbed, a later replay of its rows arrives under the survivor, which would
//! know nothing of what was delivered before and let an old state overwrite a newer one. So the record that tells the survivor's
//! partition that the fence is passed carries the absorbed profile's memory: the last deliveries and the ids of facts.
//!
//! The fence comes after all deliveries of the absorbed profile, so the memory is complete there. It is removed in the same
//! transaction that hands it over. A memory too large for one record travels in several; only the last one lets the survivor go on.

use serde::{Deserialize, Serialize};
use tailwater_core::envelope::Merge;
use tailwater_core::{DeliveryKey, ProfileId};

use super::Session;
use super::memory::{self, Last};
use super::outside::Outside;
use crate::kafka::Record;
use crate::stages::Error;

/// Entries in one record: at some 200 bytes each they stay far below a broker's default limit of one megabyte.
const ENTRIES_MAX: usize = 2_000;

/// The body of a release. Frozen: `outbound` topics hold it.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HandedOver {
    /// The last delivery of each subject, by the subject's hash in hex.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last: Vec<(String, Last)>,
    /// Facts that were delivered within the window.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub facts: Vec<DeliveryKey>,
    /// Another record of the same merge follows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

impl<O: Outside> Session<O> {
    /// The fence of a merge is passed: tells the survivor's partition so, and hands the absorbed profile's memory over.
    pub(super) fn pass_fence(&mut self, partition: i32, merge: Merge) -> Result<(), Error> {
        let state = self.outside.state();
        let mut last = memory::all_last(state, partition, merge.absorbed)?;
        let mut facts = self.facts.of(state, partition, merge.absorbed)?;
        memory::drop_profile(self.outside.state_mut(), partition, merge.absorbed)?;
        self.facts.drop_profile(self.outside.state_mut(), partition, merge.absorbed)?;
        loop {
            let part = HandedOver {
                last: last.split_off(last.len().saturating_sub(ENTRIES_MAX)),
                facts: facts.split_off(facts.len().saturating_sub(ENTRIES_MAX)),
                more: !last.is_empty() || !facts.is_empty(),
            };
            // Numbers and text into memory: serializing them has no way to fail.
            let body = serde_json::to_vec(&part).unwrap_or_default();
            self.outside.pass_fence(merge, &body)?;
            self.dirty = true;
            if !part.more {
                return Ok(());
            }
        }
    }

    /// Takes over what a release carries. True if another record of the merge follows.
    pub(super) fn take_over(&mut self, record: &Record, survivor: ProfileId) -> Result<bool, Error> {
        let body = record.value().unwrap_or_default();
        if body.is_empty() {
            return Ok(false);
        }
        let handed: HandedOver = match serde_json::from_slice(body) {
            Ok(handed) => handed,
            Err(error) => {
                // Without it a replay may repeat or overwrite; the survivor must go on all the same.
                tracing::warn!(
                    at = %record.coordinates(), profile = %survivor,
                    "what was delivered before a merge could not be read and is not remembered: {error}"
                );
                return Ok(false);
            }
        };
        let now = self.outside.now();
        for (subject, last) in &handed.last {
            memory::take_over(self.outside.state_mut(), record.partition, survivor, subject, last)?;
        }
        for key in handed.facts {
            self.facts.remember(self.outside.state_mut(), record.partition, survivor, key, now)?;
        }
        Ok(handed.more)
    }
}
