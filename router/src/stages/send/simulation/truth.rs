//! What has to be true, whatever happens: the simulation's own memory of events, requests and ends, which no fault touches.
//!
//! It knows nothing of how send works. It is told what enters the partitions, what the vendor sees and what Kafka has committed, and
//! panics at the first thing that may not be.

use std::collections::{BTreeMap, BTreeSet};

use tailwater_core::ledger::End;

use super::broker::Member;

/// One event of one profile.
#[derive(Debug)]
pub struct Event {
    pub profile: usize,
    /// Its place among the profile's events.
    pub place: usize,
    /// Ends that were committed, the passing ones (parked) left out.
    pub ends: Vec<End>,
    pub parked: bool,
    dead_letters: u32,
    /// A newer state went before it: one that was held for its absorbed profile, and handed over.
    superseded: bool,
    /// The fact that it says once more.
    repeats: Option<usize>,
    /// It was skipped as a duplicate.
    duplicate: bool,
    /// Its record is nonsense: it can only be dead-lettered.
    pub broken: bool,
    /// A repeat of it after a newer state would take the person back.
    is_state: bool,
    /// Something of it has left for the vendor.
    departed: bool,
    /// The member that knows what became of it and has not committed it.
    decided_by: Option<Member>,
    operations: Vec<Operation>,
}

/// What became of one operation at the vendor.
#[derive(Debug, Default, Clone)]
struct Operation {
    /// Requests that have reached the vendor.
    requests: u32,
    applied: u32,
    /// That it was delivered is committed.
    delivered: bool,
    on_wire: bool,
    /// That a job has taken it is committed, and nobody has heard of the job's end.
    in_job: bool,
}

#[derive(Debug, Default)]
struct Profile {
    events: Vec<usize>,
    /// All before this place have ended.
    open_from: usize,
    /// The place of the last event that the vendor has seen a request for, and of the last state among them.
    reached: Option<usize>,
    reached_state: Option<usize>,
    on_wire: usize,
    /// Merges into this profile: the place of its first event behind the hold, and who was absorbed.
    absorbed: Vec<(usize, usize)>,
}

#[derive(Debug, Default)]
pub struct Truth {
    /// Tells everything as it happens.
    pub trace: bool,
    events: Vec<Event>,
    profiles: Vec<Profile>,
    pub requests: u64,
    /// Requests for something that the vendor had applied already: after an ambiguous attempt.
    pub repeats: u64,
    /// Requests that went before what became of an earlier event of the person was committed.
    pub windows: u64,
    /// The most events of a person that a crash would have repeated, besides the one in flight.
    pub unsettled_seen: usize,
    /// Events that were parked.
    pub parked: u64,
    /// Events of a person that may be in that state at once.
    pub unsettled_max: usize,
    /// The newest event that the vendor has applied something of.
    newest_applied: usize,
    unended: usize,
    /// What a member was told that it has delivered, and has not committed.
    told: BTreeMap<Member, BTreeSet<(usize, usize)>>,
    by_end: BTreeMap<&'static str, u64>,
}

impl Truth {
    pub fn profile(&mut self) -> usize {
        self.profiles.push(Profile::default());
        self.profiles.len() - 1
    }

    pub fn tell(&self, what: impl FnOnce() -> String) {
        if self.trace {
            println!("{}", what());
        }
    }

    /// A new event of a profile enters the flow.
    pub fn event(
        &mut self,
        profile: usize,
        operations: usize,
        is_state: bool,
        broken: bool,
        repeats: Option<usize>,
    ) -> usize {
        let event = self.events.len();
        let place = self.profiles[profile].events.len();
        let operations = vec![Operation::default(); operations];
        self.events.push(Event {
            profile,
            place,
            ends: vec![],
            parked: false,
            dead_letters: 0,
            superseded: false,
            repeats,
            duplicate: false,
            broken,
            is_state,
            departed: false,
            decided_by: None,
            operations,
        });
        self.profiles[profile].events.push(event);
        self.unended += 1;
        event
    }

    /// From now on the survivor's events come after all of the absorbed one's.
    pub fn merged(&mut self, survivor: usize, absorbed: usize) {
        let place = self.profiles[survivor].events.len();
        let before: Vec<usize> = self.profiles[absorbed].absorbed.iter().map(|(_, profile)| *profile).collect();
        self.profiles[survivor].absorbed.extend(before.into_iter().chain([absorbed]).map(|profile| (place, profile)));
    }

    /// The events of a profile, before this place, whose ends are not committed. What ends without a request lets others go at once.
    fn open_before(&self, profile: usize, place: usize) -> impl Iterator<Item = usize> {
        let of = &self.profiles[profile];
        let open = |event: &usize| {
            let of = &self.events[*event];
            of.ends.is_empty() && !of.broken && !of.superseded && !of.duplicate
        };
        of.events[of.open_from..place.clamp(of.open_from, of.events.len())].iter().copied().filter(open)
    }

    /// A request of a member leaves for the vendor and cannot be taken back.
    pub fn departs(&mut self, by: Member, event: usize, operation: usize) {
        let (profile, place) = (self.events[event].profile, self.events[event].place);
        self.tell(|| format!("event {event} ({profile}/{place}) departs"));
        let of = &self.profiles[profile];
        assert!(of.on_wire == 0, "two deliveries of profile {profile} are in flight, the second one is event {event}");
        let this = &self.events[event];
        let reached = of.reached.unwrap_or(0);
        assert!(
            this.departed || place >= reached,
            "event {event} of profile {profile} goes for the first time after place {reached}: reordered"
        );
        let state = of.reached_state.filter(|_| this.is_state).unwrap_or(0);
        assert!(
            place >= state,
            "event {event} of profile {profile} is a state and goes after the newer one at {state}"
        );
        // Its own, and those of profiles that it has absorbed, which may have been handed over to it.
        let absorbed = of.absorbed.iter().filter(|(from, _)| place >= *from);
        let before = absorbed.flat_map(|(_, absorbed)| self.open_before(*absorbed, usize::MAX));
        let mut unsettled = 0;
        for earlier in self.open_before(profile, place).chain(before) {
            let before = &self.events[earlier];
            assert!(
                before.decided_by == Some(by),
                "event {event} of profile {profile} goes before it is known what became of event {earlier}"
            );
            assert!(
                !(before.is_state && this.is_state),
                "event {event} of profile {profile} goes before what became of the state {earlier} is committed"
            );
            unsettled += 1;
        }
        assert!(
            unsettled <= self.unsettled_max,
            "{unsettled} events of profile {profile} would be repeated by a crash"
        );
        self.windows += u64::from(unsettled > 0);
        self.unsettled_seen = self.unsettled_seen.max(unsettled);
        assert!(self.events[event].ends.is_empty(), "event {event} has ended and is sent again");
        if let Some(original) = self.events[event].repeats {
            let delivered = self.events[original].operations[operation].delivered;
            assert!(!delivered, "event {event} repeats event {original}, which was delivered, and is sent");
        }
        let done = &self.events[event].operations[operation];
        assert!(!done.delivered, "operation {operation} of event {event} was committed as delivered and is sent again");
        assert!(!done.in_job, "operation {operation} of event {event} is in a job and is sent again");
        self.repeats += u64::from(done.applied > 0);
        self.requests += 1;
        self.events[event].operations[operation].on_wire = true;
        self.profiles[profile].on_wire += 1;
        self.events[event].departed = true;
        let is_state = self.events[event].is_state;
        let of = &mut self.profiles[profile];
        of.reached = of.reached.max(Some(place));
        if is_state {
            of.reached_state = Some(place);
        }
    }

    /// A member knows what became of an event, and will commit it.
    pub fn decided(&mut self, by: Member, event: usize) {
        self.events[event].decided_by = Some(by);
    }

    /// The request reaches the vendor.
    pub fn arrives(&mut self, event: usize, operation: usize, applied: bool) {
        self.tell(|| format!("event {event} arrives, applied: {applied}"));
        let profile = self.events[event].profile;
        let of = &mut self.events[event].operations[operation];
        assert!(std::mem::take(&mut of.on_wire), "what has not departed cannot arrive");
        of.requests += 1;
        of.applied += u32::from(applied);
        if applied {
            self.newest_applied = self.newest_applied.max(event);
        }
        self.profiles[profile].on_wire -= 1;
    }

    /// The vendor's answer, that an operation was delivered, is on its way to the member that has sent it.
    pub fn told(&mut self, member: Member, event: usize, operation: usize) {
        self.told.entry(member).or_default().insert((event, operation));
    }

    /// The member's process is gone; what it was told died with it.
    pub fn forget(&mut self, member: Member) {
        self.told.remove(&member);
        for event in self.events.iter_mut().filter(|event| event.decided_by == Some(member)) {
            event.decided_by = None;
        }
    }

    /// A member has stopped in order, and had the time for it: no answer of the vendor may be lost.
    pub fn stopped(&self, member: Member, owns: impl Fn(usize) -> bool) {
        let told = self.told.get(&member).into_iter().flatten();
        let lost = told.into_iter().find(|(event, _)| owns(self.events[*event].profile));
        assert!(lost.is_none(), "member {member} was told of a delivery and stopped without committing it: {lost:?}");
    }

    /// The history says, committed, that an operation was delivered.
    pub fn delivered(&mut self, member: Member, event: usize, operation: usize) {
        if let Some(told) = self.told.get_mut(&member) {
            told.remove(&(event, operation));
        }
        let of = &mut self.events[event].operations[operation];
        assert!(of.applied > 0, "operation {operation} of event {event} was never applied");
        of.delivered = true;
    }

    /// The history says, committed, that a job has taken an operation; or somebody has heard of the job's end.
    pub fn in_job(&mut self, event: usize, operation: usize, runs: bool) {
        self.events[event].operations[operation].in_job = runs;
    }

    /// The machine finds that a newer state was delivered.
    pub fn superseded(&mut self, event: usize) {
        assert!(self.newest_applied > event, "event {event} is superseded by nothing");
        self.events[event].superseded = true;
    }

    /// The machine finds that the same fact was delivered.
    pub fn duplicate(&mut self, event: usize) {
        self.events[event].duplicate |= self.events[event].repeats.is_some();
    }

    /// The dead-letter topic holds an event.
    pub fn dead_lettered(&mut self, event: usize) {
        let of = &mut self.events[event];
        of.dead_letters += 1;
        assert!(of.dead_letters == 1, "event {event} is dead-lettered twice");
    }

    /// The ledger says, committed, what became of an event.
    pub fn ended(&mut self, event: usize, end: End) {
        self.tell(|| format!("event {event} has the end {}", end.as_str()));
        let of = &mut self.events[event];
        if end == End::Parked {
            of.parked = true;
            self.parked += 1;
            return;
        }
        if of.ends.is_empty() {
            self.unended -= 1;
        }
        of.ends.push(end);
        assert!(of.ends.len() == 1, "event {event} has ended more than once: {:?}", of.ends);
        let profile = &mut self.profiles[of.profile];
        while profile.events.get(profile.open_from).is_some_and(|event| !self.events[*event].ends.is_empty()) {
            profile.open_from += 1;
        }
        let of = &self.events[event];
        assert!(!of.broken || end == End::DeadLettered, "event {event} is nonsense and has the end {end:?}");
        *self.by_end.entry(end.as_str()).or_default() += 1;
    }

    /// The committed offset has passed the event's record.
    pub fn passed(&self, event: usize) {
        let of = &self.events[event];
        assert!(!of.ends.is_empty() || of.parked, "the committed offset has passed event {event}, which is open");
    }

    /// Events of a profile that have no end.
    pub fn open_of(&self, profile: usize) -> usize {
        self.profiles[profile].events.iter().filter(|event| self.events[**event].ends.is_empty()).count()
    }

    pub const fn unended(&self) -> usize {
        self.unended
    }

    pub const fn events(&self) -> usize {
        self.events.len()
    }

    /// The first events that have no end, for the message.
    pub fn open(&self) -> Vec<(usize, &Event)> {
        self.events.iter().enumerate().filter(|(_, event)| event.ends.is_empty()).take(5).collect()
    }

    /// How many events ended in which way.
    pub const fn ends(&self) -> &BTreeMap<&'static str, u64> {
        &self.by_end
    }

    /// Dead letters of events that were no nonsense.
    pub fn rejected(&self) -> u64 {
        let dead = |event: &&Event| !event.broken && event.ends.contains(&End::DeadLettered);
        u64::try_from(self.events.iter().filter(dead).count()).expect("not that many")
    }

    /// Everything has come to its end.
    pub fn complete(&self) {
        for (number, event) in self.events.iter().enumerate() {
            assert!(event.ends.len() == 1, "event {number} has the ends {:?}", event.ends);
            let applied = event.operations.iter().filter(|operation| operation.applied > 0).count();
            let dead = event.ends[0] == End::DeadLettered;
            assert!(event.dead_letters == u32::from(dead), "event {number} has {} dead letters", event.dead_letters);
            match event.ends[0] {
                End::Delivered => assert!(applied > 0, "event {number} counts as delivered and was never applied"),
                End::DeadLettered | End::Skipped => {
                    let requests: u32 = event.operations.iter().map(|operation| operation.requests).sum();
                    assert!(
                        event.broken || event.superseded || event.duplicate || requests > 0,
                        "event {number} ended as {:?} unseen",
                        event.ends[0]
                    );
                }
                End::Resolved | End::Held | End::Routed | End::Parked => panic!("{:?} is no end of send", event.ends),
            }
        }
    }
}
