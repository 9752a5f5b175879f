//! The broker: partitions with gaps, a group whose members come, go and fall silent, and transactions that fence a member of yesterday.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use tailwater_core::{ProfileId, Timestamp};

use super::chance::Chance;
use super::state::Entries;
use crate::kafka::Record;
use crate::kafka::consumer::{Event, Partition};

/// How long a silent member keeps its partitions, in milliseconds.
pub const SESSION_TIMEOUT: u64 = 10_000;

/// A member of the group: one session of one process.
pub type Member = u64;

/// What a record is, so that the truth can be told when its offset is passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Event(usize),
    Control,
}

struct Entry {
    offset: i64,
    kind: Kind,
    timestamp: Timestamp,
    value: Vec<u8>,
    header: Vec<u8>,
}

/// One partition: the part of its log that may still be read, its state and its committed offset.
#[derive(Default)]
pub struct OwnPartition {
    log: VecDeque<Entry>,
    next: i64,
    pub committed: Option<i64>,
    pub state: Entries,
    owner: Option<Member>,
    revoking: bool,
}

/// What the coordinator knows of a member.
#[derive(Debug, Default)]
struct Membership {
    /// The last sign of life.
    seen: u64,
    events: VecDeque<Event>,
    /// Partitions that were taken over and not given back.
    taken: BTreeSet<i32>,
    /// Thrown out while it had partitions, and does not know it yet.
    lost: bool,
}

pub struct Broker {
    topic: Arc<str>,
    pub partitions: Vec<OwnPartition>,
    members: BTreeMap<Member, Membership>,
    joined: Member,
}

impl OwnPartition {
    /// Whether everything before the committed offset and behind it was read.
    pub fn is_read(&self) -> bool {
        self.log.is_empty()
    }

    pub const fn end(&self) -> i64 {
        self.next
    }

    /// Whether every record before an offset was read and committed.
    pub fn has_read(&self, end: i64) -> bool {
        self.log.front().is_none_or(|entry| entry.offset >= end)
    }
}

impl Broker {
    pub fn new(partitions: usize) -> Self {
        Self {
            topic: Arc::from("simulated.outbound"),
            partitions: (0..partitions).map(|_| OwnPartition::default()).collect(),
            members: BTreeMap::new(),
            joined: 0,
        }
    }

    pub fn topic(&self) -> Arc<str> {
        Arc::clone(&self.topic)
    }

    pub fn partition_of(&self, profile: ProfileId) -> usize {
        profile.partition(u32::try_from(self.partitions.len()).expect("a few partitions")) as usize
    }

    pub fn owner_of(&self, profile: ProfileId) -> Option<Member> {
        self.partitions[self.partition_of(profile)].owner
    }

    pub fn append(&mut self, partition: usize, kind: Kind, timestamp: Timestamp, value: Vec<u8>, header: Vec<u8>) {
        let partition = &mut self.partitions[partition];
        partition.log.push_back(Entry { offset: partition.next, kind, timestamp, value, header });
        partition.next += 1;
    }

    /// The marker of a transaction takes an offset that no reader sees.
    pub fn mark(&mut self, partition: usize) {
        self.partitions[partition].next += 1;
    }

    /// The records of a partition from an offset on.
    pub fn read(&self, partition: i32, from: i64, max: usize) -> Vec<Record> {
        let log = &self.partitions[place(partition)].log;
        let first = log.partition_point(|entry| entry.offset < from);
        log.range(first..)
            .take(max)
            .map(|entry| {
                let (value, header) = (Some(&entry.value[..]), Some(&entry.header[..]));
                Record::new(self.topic(), partition, entry.offset, entry.timestamp, None, value, header, vec![])
            })
            .collect()
    }

    /// Moves the committed offset; what it has passed is handed out and forgotten.
    pub fn pass(&mut self, partition: i32, offset: i64) -> Vec<Kind> {
        let partition = &mut self.partitions[place(partition)];
        assert!(offset >= partition.committed.unwrap_or(0), "the committed offset went back");
        assert!(offset <= partition.next, "the committed offset is beyond the log");
        partition.committed = Some(offset);
        let end = partition.log.partition_point(|entry| entry.offset < offset);
        partition.log.drain(..end).map(|entry| entry.kind).collect()
    }

    /// Whether nothing is left to read behind the committed offsets.
    pub fn is_read(&self) -> bool {
        self.partitions.iter().all(|partition| partition.log.is_empty())
    }

    // === The group ===

    pub fn join(&mut self, now: u64) -> Member {
        self.joined += 1;
        self.members.insert(self.joined, Membership { seen: now, ..Default::default() });
        self.joined
    }

    /// A member says good-bye; its partitions are free at once.
    pub fn leave(&mut self, member: Member) {
        self.members.remove(&member);
        for partition in self.partitions.iter_mut().filter(|partition| partition.owner == Some(member)) {
            (partition.owner, partition.revoking) = (None, false);
        }
    }

    /// A sign of life of the process: the client sends it by itself while the process runs at all.
    pub fn heartbeat(&mut self, member: Member, now: u64) {
        if let Some(membership) = self.members.get_mut(&member) {
            membership.seen = now;
        }
    }

    /// Throws out who was silent for too long.
    pub fn expire(&mut self, now: u64) {
        let silent: Vec<Member> = self
            .members
            .iter()
            .filter(|(_, membership)| now.saturating_sub(membership.seen) > SESSION_TIMEOUT)
            .map(|(member, _)| *member)
            .collect();
        for member in silent {
            for partition in self.partitions.iter_mut().filter(|partition| partition.owner == Some(member)) {
                (partition.owner, partition.revoking) = (None, false);
            }
            let membership = self.members.get_mut(&member).expect("it was there");
            membership.events.clear();
            membership.lost = true;
            membership.seen = now;
        }
    }

    fn partition(&self, partition: usize) -> Partition {
        (self.topic(), i32::try_from(partition).expect("a few partitions"))
    }

    /// Gives free partitions to members, and takes some away from members that have them.
    pub fn balance(&mut self, chance: &mut Chance, moves: bool) {
        let able: Vec<Member> =
            self.members.iter().filter(|(_, membership)| !membership.lost).map(|(member, _)| *member).collect();
        if able.is_empty() {
            return;
        }
        for number in 0..self.partitions.len() {
            let partition = self.partition(number);
            match self.partitions[number].owner {
                None => {
                    let to = able[chance.below(able.len())];
                    self.partitions[number].owner = Some(to);
                    let events = &mut self.members.get_mut(&to).expect("an able member").events;
                    match events.back_mut() {
                        Some(Event::Assign(partitions)) => partitions.push(partition),
                        _ => events.push_back(Event::Assign(vec![partition])),
                    }
                }
                Some(from)
                    if moves && able.len() > 1 && !self.partitions[number].revoking && chance.in_thousand(400) =>
                {
                    self.partitions[number].revoking = true;
                    let events = &mut self.members.get_mut(&from).expect("an owner is a member").events;
                    match events.back_mut() {
                        Some(Event::Revoke { partitions, .. }) => partitions.push(partition),
                        _ => events.push_back(Event::Revoke { partitions: vec![partition], lost: false }),
                    }
                }
                Some(_) => {}
            }
        }
    }

    /// What the coordinator has to tell a member.
    pub fn event(&mut self, member: Member) -> Option<Event> {
        let (topic, membership) = (self.topic(), self.members.get_mut(&member)?);
        if std::mem::take(&mut membership.lost) {
            let taken = std::mem::take(&mut membership.taken);
            if !taken.is_empty() {
                let partitions = taken.into_iter().map(|partition| (Arc::clone(&topic), partition)).collect();
                return Some(Event::Revoke { partitions, lost: true });
            }
        }
        membership.events.pop_front()
    }

    pub fn taken(&mut self, member: Member, partition: i32) {
        if let Some(membership) = self.members.get_mut(&member) {
            membership.taken.insert(partition);
        }
    }

    pub fn given_back(&mut self, member: Member, partition: i32) {
        if let Some(membership) = self.members.get_mut(&member) {
            membership.taken.remove(&partition);
        }
        let of = &mut self.partitions[place(partition)];
        if of.owner == Some(member) {
            (of.owner, of.revoking) = (None, false);
        }
    }

    /// Whether a transaction with these partitions' offsets is taken from the member.
    pub fn takes(&self, member: Member, partitions: impl IntoIterator<Item = i32>) -> bool {
        let known = self.members.get(&member).is_some_and(|membership| !membership.lost);
        known && partitions.into_iter().all(|partition| self.partitions[place(partition)].owner == Some(member))
    }
}

/// A partition's place among the partitions.
pub fn place(partition: i32) -> usize {
    usize::try_from(partition).expect("a partition's number")
}
