//! What has to be true, whatever happens: the simulation's own memory of events, requests and ends, which no fault touches.
//!
//! It knows nothing of how send works. It is told what enters the lanes, what the vendor sees and what Kafka has committed, and
//! panics at the first thing that may not be.

use std::collections::BTreeMap;

use tailwater_core::ledger::End;

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
    /// Its record is nonsense: it can only be dead-lettered.
    pub broken: bool,
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
    /// The place of the last event that the vendor has seen a request for.
    reached: Option<usize>,
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
    /// The newest event that the vendor has applied something of.
    newest_applied: usize,
    unended: usize,
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
    pub fn event(&mut self, profile: usize, operations: usize, broken: bool) -> usize {
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
            broken,
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

    /// An event of a profile, before this place, after which nothing may go yet. What ends without a request lets others go at once.
    fn open_before(&self, profile: usize, place: usize) -> Option<usize> {
        let of = &self.profiles[profile];
        let open = |event: &&usize| {
            let of = &self.events[**event];
            of.ends.is_empty() && !of.broken && !of.superseded
        };
        of.events[of.open_from..place.clamp(of.open_from, of.events.len())].iter().find(open).copied()
    }

    /// A request leaves for the vendor and cannot be taken back.
    pub fn departs(&mut self, event: usize, operation: usize) {
        let (profile, place) = (self.events[event].profile, self.events[event].place);
        self.tell(|| format!("event {event} ({profile}/{place}) departs"));
        let of = &self.profiles[profile];
        assert!(of.on_wire == 0, "two deliveries of profile {profile} are in flight, the second one is event {event}");
        let reached = of.reached.unwrap_or(0);
        assert!(place >= reached, "event {event} of profile {profile} goes after place {reached}: reordered");
        if let Some(earlier) = self.open_before(profile, place) {
            panic!("event {event} of profile {profile} goes before what became of event {earlier} is committed");
        }
        for (from, absorbed) in of.absorbed.iter().filter(|(from, _)| place >= *from) {
            if let Some(earlier) = self.open_before(*absorbed, usize::MAX) {
                panic!(
                    "event {event} of profile {profile}, which has absorbed {absorbed} at {from}, overtakes its event {earlier}"
                );
            }
        }
        assert!(self.events[event].ends.is_empty(), "event {event} has ended and is sent again");
        let done = &self.events[event].operations[operation];
        assert!(!done.delivered, "operation {operation} of event {event} was committed as delivered and is sent again");
        assert!(!done.in_job, "operation {operation} of event {event} is in a job and is sent again");
        self.repeats += u64::from(done.applied > 0);
        self.requests += 1;
        self.events[event].operations[operation].on_wire = true;
        self.profiles[profile].on_wire += 1;
        self.profiles[profile].reached = Some(place);
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

    /// The history says, committed, that an operation was delivered.
    pub fn delivered(&mut self, event: usize, operation: usize) {
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
                        event.broken || event.superseded || requests > 0,
                        "event {number} ended as {:?} unseen",
                        event.ends[0]
                    );
                }
                End::Resolved | End::Held | End::Routed | End::Parked => panic!("{:?} is no end of send", event.ends),
            }
        }
    }
}
