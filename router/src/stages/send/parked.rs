//! Records that wait in state: behind a merge of profiles, or because their person has many and others want to be read as well.
//!
//! The gate has room for so many records, whoever they belong to. One person with more of them than that would keep everybody else from
//! being read, for as long as the vendor needs for all of them, one after the other. So a person has a *share* of the gate. What is
//! read beyond it is parked: written to state in order, with its offset done, as what waits for a merge is. When the person's records
//! in the gate run out, the next parked ones are taken from state.
//!
//! A person's records keep their order: a record that is read is parked while another one is, and a parked record goes to the gate
//! when all earlier ones have been read. The latter matters after a start: what is open is read again, and may lie before
//! what is parked.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use tailwater_core::ProfileId;
use tailwater_core::delivery::Reason;
use tailwater_core::envelope::Role;
use tailwater_core::ledger::End;

use super::open::{Item, Open};
use super::outside::Outside;
use super::{Session, memory};
use crate::kafka::Record;
use crate::stages::Error;
use crate::stages::shared::held::{self, Held, Hold, Wait};

/// People whose parked records are looked for in one round: each costs a look into state.
const REFILLS_MAX: usize = 64;

/// Records of a person in the gate while more than half of it is in use: enough to go on with, and little enough for the gate to empty
/// and reading to go on.
const SHARE_WHEN_FULL: usize = 4;

/// Where a record goes that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Gate,
    /// It is parked.
    State,
    /// As much is parked as may be: it stays where it is, and reading waits.
    Nowhere,
}

#[derive(Debug, Default)]
pub(super) struct Parked {
    /// Parked records that have gone to the gate, by person. They are the first ones of the person's queue in state.
    out: HashMap<ProfileId, BTreeSet<i64>>,
    /// People whose next parked records may go to the gate when it has room, each once.
    due: VecDeque<(i32, ProfileId)>,
    is_due: HashSet<ProfileId>,
    /// One past the last offset that was read, or where a partition was taken over.
    positions: BTreeMap<i32, i64>,
}

// === impl Parked ===

impl Parked {
    pub fn taken_over(&mut self, partition: i32, offset: i64) {
        self.positions.insert(partition, offset);
    }

    pub fn read(&mut self, partition: i32, offset: i64) {
        self.positions.insert(partition, offset + 1);
    }

    /// The person's next parked records may go on.
    pub fn due(&mut self, partition: i32, profile: ProfileId) {
        if self.is_due.insert(profile) {
            self.due.push_back((partition, profile));
        }
    }

    pub fn is_idle(&self) -> bool {
        self.due.is_empty()
    }

    /// How many of a person's parked records are in the gate.
    fn out(&self, profile: ProfileId) -> usize {
        self.out.get(&profile).map_or(0, BTreeSet::len)
    }

    fn left(&mut self, profile: ProfileId, offset: i64) {
        if let Some(out) = self.out.get_mut(&profile) {
            out.remove(&offset);
            if out.is_empty() {
                self.out.remove(&profile);
            }
        }
    }

    pub fn forget(&mut self, partitions: &[i32], gone: impl Fn(&ProfileId) -> bool) {
        self.out.retain(|profile, _| !gone(profile));
        self.due.retain(|(partition, _)| !partitions.contains(partition));
        self.is_due.retain(|profile| !gone(profile));
        self.positions.retain(|partition, _| !partitions.contains(partition));
    }
}

impl<O: Outside> Session<O> {
    /// Parks a record that was read if it has to wait.
    pub(super) fn parks(&mut self, partition: i32, profile: ProfileId, record: &Arc<Record>) -> Result<Place, Error> {
        let has_share = self.gate.len_of(&profile) < self.setup.share_max;
        let Some(wait) = self.waiting.get(partition, profile) else {
            return if has_share { Ok(Place::Gate) } else { self.park_beyond_share(partition, profile, record) };
        };
        if held::find(self.outside.state(), partition, profile, record)?.is_some() {
            // It is read for the second time, and has waited since the first.
            self.done(partition, record.offset);
            self.parked.due(partition, profile);
            return Ok(Place::State);
        }
        if wait.merges > 0 {
            return self.park(partition, profile, record, "merge");
        }
        if has_share && self.left(profile, wait) == 0 {
            return Ok(Place::Gate);
        }
        self.park_beyond_share(partition, profile, record)
    }

    fn park_beyond_share(&mut self, partition: i32, profile: ProfileId, record: &Arc<Record>) -> Result<Place, Error> {
        // What is parked leaves while the gate works. When it has nothing to do, all of that lies behind this very record.
        if self.waiting.ready() >= self.setup.parked_max && !self.gate.is_empty() {
            return Ok(Place::Nowhere);
        }
        self.park(partition, profile, record, "share")
    }

    /// Writes a record to state, behind what waits there for its person.
    fn park(&mut self, partition: i32, profile: ProfileId, record: &Arc<Record>, why: &str) -> Result<Place, Error> {
        let now = self.outside.now();
        let hold = self.waiting.hold(self.outside.state_mut(), partition, profile, record, false, now)?;
        self.done(partition, record.offset);
        if let Hold::TooLarge { bytes, bytes_max } = hold {
            self.dead_letter(record, &Hold::refusal(bytes, bytes_max), 0)?;
            return Ok(Place::State);
        }
        self.note(partition, record, End::Parked, why);
        self.parked.due(partition, profile);
        Ok(Place::State)
    }

    /// A record was read that is finished; if it is parked, it may go on from here.
    pub(super) fn reread(&mut self, record: &Arc<Record>) -> Result<(), Error> {
        let partition = record.partition;
        if self.waiting.is_empty(partition) {
            return Ok(());
        }
        let Some(profile) = record.envelope().ok().and_then(|envelope| envelope.profile) else { return Ok(()) };
        if self.waiting.get(partition, profile).is_some()
            && held::find(self.outside.state(), partition, profile, record)?.is_some()
        {
            self.parked.due(partition, profile);
        }
        Ok(())
    }

    /// How many of a person's parked records are not in the gate.
    fn left(&self, profile: ProfileId, wait: Wait) -> usize {
        usize::try_from(wait.records).unwrap_or(usize::MAX).saturating_sub(self.parked.out(profile))
    }

    /// The next parked records of a person that are not in the gate, at most `max`.
    fn next_parked(&self, partition: i32, profile: ProfileId, max: usize) -> Result<Vec<Held>, Error> {
        let out = self.parked.out.get(&profile);
        let first = self.parked.out(profile) + max;
        let mut queue = self.waiting.queue_first(self.outside.state(), partition, profile, &self.setup.topic, first)?;
        queue.retain(|held| out.is_none_or(|out| !out.contains(&held.record.offset)));
        queue.truncate(max);
        Ok(queue)
    }

    /// Takes the next parked records of those whose turn it is into the gate.
    pub(super) fn refill(&mut self) -> Result<(), Error> {
        for _ in 0..self.parked.due.len().min(REFILLS_MAX) {
            if self.gate.is_full() {
                return Ok(());
            }
            let Some((partition, profile)) = self.parked.due.pop_front() else { return Ok(()) };
            self.parked.is_due.remove(&profile);
            if self.waiting.get(partition, profile).is_none_or(|wait| wait.merges > 0) {
                // Its release, or its next record, brings it back.
                continue;
            }
            let share = if self.gate.is_half_empty() { usize::MAX } else { SHARE_WHEN_FULL };
            let room = self.setup.share_max.min(share).saturating_sub(self.gate.len_of(&profile));
            if room == 0 {
                // The end of one in the gate brings it back.
                continue;
            }
            // What was read and is in no place yet may lie before what is parked.
            let read = self.backlog.iter().find(|record| record.partition == partition).map(|record| record.offset);
            let horizon = read.or_else(|| self.parked.positions.get(&partition).copied()).unwrap_or(0);
            let mut blocked = false;
            for held in self.next_parked(partition, profile, room)? {
                if held.record.offset >= horizon || self.gate.is_full() {
                    // Beyond the position, reading on brings it back.
                    blocked = read.is_some() || self.gate.is_full();
                    break;
                }
                self.parked.out.entry(profile).or_default().insert(held.record.offset);
                self.admit(partition, &Arc::clone(&held.record), Some(held))?;
            }
            if blocked {
                self.parked.due(partition, profile);
            }
        }
        Ok(())
    }

    /// Lets a record into the gate.
    pub(super) fn admit(&mut self, partition: i32, record: &Arc<Record>, parked: Option<Held>) -> Result<(), Error> {
        let envelope = record.envelope().unwrap_or_default();
        let profile = envelope.profile;
        if let Role::Fence(merge) = envelope.role {
            let item = Item::Fence { merge, record: Arc::clone(record), parked };
            return self.offer(merge.absorbed, item);
        }
        match Open::read(record) {
            Ok(mut open) => {
                open.parked = parked;
                open.since = Some(self.outside.instant());
                self.offer(open.profile, Item::Record(Box::new(open)))
            }
            Err(reason) => {
                let reason = held::damage(record).unwrap_or(reason);
                let profile = parked.as_ref().and_then(Held::owner).or(profile);
                self.is_broken(partition, record, &reason, profile, parked.as_ref())
            }
        }
    }

    /// A record that nobody can read is a dead letter.
    fn is_broken(
        &mut self,
        partition: i32,
        record: &Record,
        reason: &Reason,
        profile: Option<ProfileId>,
        parked: Option<&Held>,
    ) -> Result<(), Error> {
        self.dead_letter(record, reason, 0)?;
        match (profile, parked) {
            (Some(profile), Some(held)) => {
                self.leave(partition, profile, held)?;
                self.went(partition, profile);
            }
            _ => self.done(partition, record.offset),
        }
        Ok(())
    }

    /// A parked record is through.
    pub(super) fn leave(&mut self, partition: i32, profile: ProfileId, held: &Held) -> Result<(), Error> {
        self.waiting.take(self.outside.state_mut(), partition, profile, held)?;
        self.parked.left(profile, held.record.offset);
        self.dirty = true;
        Ok(())
    }

    /// A person's record has left the gate: what is parked may follow before the gate has none of them left.
    pub(super) fn went(&mut self, partition: i32, profile: ProfileId) {
        let Some(wait) = self.waiting.get(partition, profile) else { return };
        let share = if self.gate.is_half_empty() { self.setup.share_max } else { SHARE_WHEN_FULL };
        if self.left(profile, wait) > 0 && wait.merges == 0 && self.gate.len_of(&profile) <= share / 2 {
            self.parked.due(partition, profile);
        }
    }

    /// What waits in the partitions that were just taken over goes on.
    pub(super) fn unpark(&mut self, partition: i32) {
        for (profile, partition) in self.waiting.profiles(&[partition]) {
            self.parked.due(partition, profile);
        }
    }

    /// Forgets the parked records of partitions that were given up; they stay in state.
    pub(super) fn forget_parked(&mut self, partitions: &[i32]) {
        let all = self.setup.partitions;
        self.parked.forget(partitions, |profile| partitions.contains(&memory::partition_of(*profile, all)));
    }
}
