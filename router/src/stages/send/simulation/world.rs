//! Everything that is not send: time, broker, vendor, and the stages before, which write events and merges into the partitions.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tailwater_core::envelope::{Envelope, Identifier, Merge, Role};
use tailwater_core::{Coordinates, EventId, ProfileId, SourcePosition, Timestamp};

use super::broker::{Broker, Kind, Member, SESSION_TIMEOUT};
use super::chance::Chance;
use super::truth::Truth;
use super::upstream::{KEY, Upstream, control};
use super::vendor::{Caller, Vendor};

/// What an episode is made of, drawn from its seed.
#[derive(Debug, Clone)]
pub struct Plan {
    pub partitions: usize,
    pub members: usize,
    /// People at a time.
    pub people: usize,
    pub open_max: usize,
    pub share_max: usize,
    pub parked_max: usize,
    pub bytes_max: usize,
    pub unsettled_max: usize,
    /// Events of one person, in a thousand, beside that person's part of the others.
    pub busy: u64,
    pub tracked_max: usize,
    pub poll_max: usize,
    pub batch_max: usize,
    pub calls_max: usize,
    pub attempts_max: u32,
    pub commit_interval: u64,
    /// Events that may be open at once, so that an episode also sees idle times.
    pub open_events: usize,
    /// Commits that fail, in a thousand: half of them after all.
    pub commits_fail: u64,
    /// Faults of processes, the group and the clock, in a thousand steps.
    pub faults: u64,
    /// Merges, in a thousand events.
    pub merges: u64,
}

/// A bug that is put into the world on purpose, to see that it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// A person's next record starts while the one before is in flight.
    GateRemoved,
    /// Offsets are committed up to what was read.
    CommitBeforeOutcome,
    /// A person's next record starts before what became of the one before is committed.
    FinishBeforeCommit,
    /// The release of a merge is written together with its fence.
    ReleaseBeforeFence,
    /// A partition's state is not restored.
    StateLost,
    /// An end is not written to the ledger.
    EndSkipped,
    /// Nobody asks whether the partitions are still owned.
    OwnershipIgnored,
    /// The ids of delivered facts are not remembered.
    FactsForgotten,
    /// What was delivered to a profile does not follow it into a merge.
    MemoryLeftBehind,
}

/// A process as the network sees it.
#[derive(Debug, Default)]
pub struct Process {
    pub frozen: bool,
    pub polled: u64,
    /// The partitions that it may send for.
    pub owned: BTreeSet<i32>,
    pub reload: bool,
}

pub struct World {
    pub plan: Plan,
    pub plant: Option<Plant>,
    pub chance: Chance,
    pub broker: Broker,
    pub vendor: Vendor,
    pub truth: Truth,
    pub processes: BTreeMap<Member, Process>,
    base: Instant,
    passed: u64,
    wall: i64,
    people: Vec<Person>,
    /// Profiles that nobody has absorbed.
    live: Vec<usize>,
    merges: u64,
    /// Who has absorbed whom.
    into: BTreeMap<usize, usize>,
    /// Events that their producer may send again: the event, whose it is, the kinds of its operations.
    facts: Vec<(usize, usize, Vec<&'static str>)>,
    upstream: Upstream,
}

/// A person as the sources know it.
struct Person {
    profile: ProfileId,
    /// The destination's key is known.
    keyed: bool,
}

impl World {
    pub fn new(plan: Plan, plant: Option<Plant>, chance: Chance) -> Self {
        let partitions = plan.partitions;
        let mut world = Self {
            broker: Broker::new(partitions),
            vendor: Vendor::default(),
            truth: Truth::default(),
            processes: BTreeMap::new(),
            base: Instant::now(),
            passed: 0,
            wall: 1_700_000_000_000,
            people: vec![],
            live: vec![],
            merges: 0,
            into: BTreeMap::new(),
            facts: vec![],
            upstream: Upstream::new(partitions),
            plan,
            plant,
            chance,
        };
        for _ in 0..world.plan.people {
            world.person();
        }
        world
    }

    // === Time ===

    /// Milliseconds since the beginning.
    pub const fn time(&self) -> u64 {
        self.passed
    }

    pub fn instant(&self) -> Instant {
        self.base + Duration::from_millis(self.passed)
    }

    pub const fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.wall)
    }

    /// The clock that nobody steps.
    pub fn steady(&self) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000).saturating_add(Duration::from_millis(self.passed))
    }

    /// Sets the wall clock forward or back.
    pub const fn step_clock(&mut self, ms: i64) {
        self.wall += ms;
    }

    pub fn advance(&mut self, ms: u64) {
        // In small pieces, so that whatever is due in between happens in its order.
        let end = self.passed + ms;
        while self.passed < end {
            let piece = (end - self.passed).min(500);
            self.passed += piece;
            self.wall += i64::try_from(piece).expect("half a second");
            for (member, process) in &self.processes {
                if !process.frozen {
                    self.broker.heartbeat(*member, self.passed);
                }
            }
            self.broker.expire(self.passed);
            self.with_vendor(Vendor::arrive);
        }
    }

    // === The vendor ===

    pub fn vendor_step(&mut self) {
        self.with_vendor(Vendor::step);
    }

    fn with_vendor(&mut self, act: impl FnOnce(&mut Vendor, &Caller<'_>, &mut Truth, &mut Chance)) {
        let (now, processes, plant) = (self.passed, &self.processes, self.plant);
        let owns = |member: Member, partitions: &[i32]| {
            plant == Some(Plant::OwnershipIgnored)
                || processes.get(&member).is_some_and(|process| {
                    let fresh = now - process.polled < SESSION_TIMEOUT * 8 / 10;
                    fresh && partitions.iter().all(|partition| process.owned.contains(partition))
                })
        };
        let runs = |member: Member| processes.get(&member).is_some_and(|process| !process.frozen);
        act(&mut self.vendor, &Caller { now, owns: &owns, runs: &runs }, &mut self.truth, &mut self.chance);
    }

    /// Does something that draws from the world's chance.
    pub fn with(&mut self, act: impl FnOnce(&mut Self, &mut Chance)) {
        let mut chance = self.chance.clone();
        act(self, &mut chance);
        self.chance = chance;
    }

    // === Processes ===

    pub fn join(&mut self) -> Member {
        let member = self.broker.join(self.passed);
        self.processes.insert(member, Process { polled: self.passed, ..Process::default() });
        member
    }

    /// Killed: the group learns of it when the session is over.
    pub fn killed(&mut self, member: Member) {
        self.processes.remove(&member);
        self.truth.forget(member);
        self.vendor.forget(member);
    }

    /// A member has stopped in order, and nobody has hurried it.
    pub fn stopped(&self, member: Member) {
        let owns = |person: usize| self.broker.owner_of(self.people[person].profile) == Some(member);
        self.truth.stopped(member, owns);
    }

    pub fn left(&mut self, member: Member) {
        self.killed(member);
        self.broker.leave(member);
    }

    // === The stages before ===

    fn person(&mut self) {
        let number = self.truth.profile();
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&u64::try_from(number).expect("a few").to_be_bytes()[2..]);
        let keyed = self.chance.in_thousand(600);
        self.people.push(Person { profile: ProfileId::from_bytes(bytes), keyed });
        self.live.push(number);
    }

    /// An event of somebody, or a merge of two people.
    pub fn traffic(&mut self) {
        if self.truth.unended() >= self.plan.open_events {
            return;
        }
        if self.live.len() > 1 && self.chance.in_thousand(self.plan.merges) {
            self.merge();
            return;
        }
        let busy = self.plan.busy;
        let place = if self.chance.in_thousand(busy) { 0 } else { self.chance.below(self.live.len()) };
        self.event(self.live[place]);
    }

    pub fn people(&self) -> impl Iterator<Item = ProfileId> {
        self.live.iter().map(|person| self.people[*person].profile)
    }

    pub fn know_everybody(&mut self) {
        for person in &mut self.people {
            person.keyed = true;
        }
    }

    /// Everybody's key becomes known: nothing has to be held for the lack of it.
    pub fn link(&mut self) {
        self.know_everybody();
        self.upstream.calm();
        for person in self.live.clone() {
            self.event(person);
        }
    }

    pub fn event(&mut self, person: usize) {
        if !self.facts.is_empty() && self.chance.in_thousand(50) {
            self.again();
        }
        let broken = self.chance.in_thousand(10);
        let operations = 1 + usize::from(self.chance.in_thousand(200));
        let kinds: Vec<&str> =
            (0..operations).map(|_| ["upsert_profile", "track_event"][self.chance.below(2)]).collect();
        let event = self.event_with(person, &kinds, broken, None);
        if !broken {
            self.facts.push((event, person, kinds));
        }
    }

    /// A producer sends a fact again, with the same id; by now its person may have been absorbed.
    fn again(&mut self) {
        let (event, mut person, kinds) = self.facts[self.chance.below(self.facts.len())].clone();
        while let Some(survivor) = self.into.get(&person) {
            person = *survivor;
        }
        self.event_with(person, &kinds, false, Some(event));
    }

    pub fn event_of_kind(&mut self, person: usize, kind: &str) {
        self.event_with(person, &[kind], false, None);
    }

    fn event_with(&mut self, person: usize, kinds: &[&str], broken: bool, repeats: Option<usize>) -> usize {
        let operations = kinds.len();
        let is_state = kinds.contains(&"upsert_profile");
        let event = self.truth.event(person, operations, is_state, broken, repeats);
        let id = repeats.unwrap_or(event);
        let offset = i64::try_from(event).expect("not that many");
        self.people[person].keyed |= self.chance.in_thousand(200);
        let identifiers = if self.people[person].keyed { &[Identifier { kind: KEY, value: "a@b.c" }][..] } else { &[] };
        let row = [b'r', b'0' + u8::try_from(self.chance.below(2)).expect("a digit")];
        let envelope = Envelope {
            workspace: "w",
            event_id: Some(EventId::of_fact("w", "s", &id.to_string())),
            source: "s",
            position: Some(SourcePosition::Log(Coordinates { topic: "app", partition: 0, offset })),
            ingest: Some(Coordinates { topic: "ingest", partition: 0, offset }),
            profile: Some(self.people[person].profile),
            identifiers: identifiers.iter().copied().collect(),
            row_key: Some(&row),
            ..Envelope::default()
        };
        let operations: Vec<String> = kinds
            .iter()
            .enumerate()
            .map(|(place, kind)| {
                format!(r#"{{"kind":"{kind}","route":"r","place":"{place}","body":[{event},{place}]}}"#)
            })
            .collect();
        let value =
            if broken { "nonsense".to_owned() } else { format!(r#"{{"operations":[{}]}}"#, operations.join(",")) };
        let partition = self.broker.partition_of(self.people[person].profile);
        self.upstream.append(partition, Some(value.as_bytes()), &envelope.to_bytes());
        event
    }

    /// Two people turn out to be one: resolve tells of it before the event that has shown it.
    fn merge(&mut self) {
        let absorbed = self.live.swap_remove(self.chance.below(self.live.len()));
        let survivor = self.live[self.chance.below(self.live.len())];
        self.merges += 1;
        self.into.insert(absorbed, survivor);
        let (into, from) = (self.people[survivor].profile, self.people[absorbed].profile);
        let merge = Merge { number: self.merges, survivor: into, absorbed: from };
        self.truth.tell(|| format!("{merge}: {absorbed} into {survivor}"));
        self.truth.merged(survivor, absorbed);
        self.people[survivor].keyed |= self.people[absorbed].keyed;
        let trimmed = self.chance.in_thousand(100);
        self.upstream.announce(&self.broker, merge, trimmed);
        if self.plant == Some(Plant::ReleaseBeforeFence) {
            let header = control(into, Role::Release(merge)).to_bytes();
            self.broker.append(self.broker.partition_of(into), Kind::Control, self.now(), vec![], header);
        }
        self.event(survivor);
        self.person();
    }

    /// The stage before works on some records of one partition.
    pub fn flow(&mut self) {
        let (now, steady) = (self.now(), self.steady());
        self.upstream.flow(&mut self.broker, now, steady, &self.truth, &mut self.chance);
    }

    /// The stage before has worked on everything.
    pub fn flow_all(&mut self) {
        self.upstream.calm();
        while !self.is_dry() {
            self.flow();
        }
    }

    /// A key in some partition's state that says that something waits, runs or is not passed.
    pub fn left_in_state(&self) -> Option<(usize, Vec<u8>)> {
        let waits = |key: &&Vec<u8>| matches!(key.first(), Some(b'h' | b't' | b'w' | b'j' | b'o'));
        let mut partitions = self.broker.partitions.iter().enumerate();
        partitions.find_map(|(partition, of)| Some((partition, of.state.keys().find(waits)?.clone())))
    }

    pub fn is_dry(&self) -> bool {
        self.upstream.is_dry()
    }
}
