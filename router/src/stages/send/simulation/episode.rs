//! One episode: a world, its processes, and a schedule that is drawn step by step.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use tailwater_core::gate::Capacity;
use tailwater_core::tracker::Bounds;

use super::broker::SESSION_TIMEOUT;
use super::chance::Chance;
use super::port::{Port, settings};
use super::vendor::Temper;
use super::world::{Plan, Plant, World};
use crate::stages::Error;
use crate::stages::send::facts::Facts;
use crate::stages::send::{Session, Setup};
use crate::telemetry::Telemetry;

/// Turns of the calm after which everything must have ended.
const CALM_MAX: u64 = 20_000;

/// How long an orchestrator waits that is patient, in milliseconds: longer than everything that is on the wire takes.
const GRACE: u64 = 60_000;

/// What episodes did.
#[derive(Debug, Default)]
pub struct Report {
    pub episodes: u64,
    pub steps: u64,
    pub events: u64,
    requests: u64,
    repeats: u64,
    windows: u64,
    parked: u64,
    sessions: u64,
    ends: BTreeMap<&'static str, u64>,
    /// Dead letters of events that were no nonsense.
    pub rejected: u64,
}

impl Report {
    pub fn add(&mut self, other: &Self) {
        self.episodes += other.episodes;
        self.steps += other.steps;
        self.events += other.events;
        self.requests += other.requests;
        self.repeats += other.repeats;
        self.windows += other.windows;
        self.parked += other.parked;
        self.sessions += other.sessions;
        self.rejected += other.rejected;
        for (end, count) in &other.ends {
            *self.ends.entry(end).or_default() += count;
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { episodes, steps, events, requests, repeats, windows, parked, sessions, ends, rejected: _ } = self;
        write!(
            f,
            "{episodes} episodes, {steps} steps, {events} events {ends:?}, {parked} parked, {requests} requests ({repeats} of them repeats \
             of what nobody knew the outcome of, {windows} before the last end was committed), {sessions} sessions"
        )
    }
}

/// A process that is started again whenever it has ended.
struct Slot {
    session: Option<Session<Port>>,
    /// When it starts, or thaws.
    due: u64,
}

pub struct Episode {
    pub world: Rc<RefCell<World>>,
    slots: Vec<Slot>,
    telemetry: Telemetry,
    sessions: u64,
}

/// Runs an episode; panics at the first thing that may not be.
pub fn run(seed: u64, steps: u64, plant: Option<Plant>, trace: bool) -> Report {
    run_with(seed, steps, plant, trace, |_, _| {})
}

/// An episode in which the vendor rejects everything in the same way, until the calm.
pub fn run_rejected(seed: u64, steps: u64) -> Report {
    run_with(seed, steps, None, false, |plan, temper| {
        plan.members = 1;
        plan.people = 40;
        plan.open_events = 100;
        plan.open_max = 200;
        plan.tracked_max = 10_000;
        plan.faults = 0;
        plan.commits_fail = 0;
        plan.merges = 0;
        *temper = Temper { rejects: 1000, bulk: temper.bulk, ..Temper::default() };
    })
}

fn run_with(
    seed: u64,
    steps: u64,
    plant: Option<Plant>,
    trace: bool,
    change: impl FnOnce(&mut Plan, &mut Temper),
) -> Report {
    let mut chance = Chance::new(seed);
    let mut plan = plan(&mut chance);
    let mut temper = temper(&mut chance);
    change(&mut plan, &mut temper);
    let world = Rc::new(RefCell::new(World::new(plan, plant, chance)));
    world.borrow_mut().vendor.temper = temper;
    world.borrow_mut().truth.trace = trace;
    if trace {
        println!("{:?}\n{temper:?}", world.borrow().plan);
    }
    let mut episode = Episode::new(world);
    for _ in 0..steps {
        episode.step();
    }
    let calm = episode.calm();
    let truth = &episode.world.borrow().truth;
    Report {
        episodes: 1,
        steps: steps + calm,
        events: u64::try_from(truth.events()).expect("not that many"),
        requests: truth.requests,
        repeats: truth.repeats,
        windows: truth.windows,
        parked: truth.parked,
        sessions: episode.sessions,
        ends: truth.ends().clone(),
        rejected: truth.rejected(),
    }
}

fn plan(chance: &mut Chance) -> Plan {
    let pick = |chance: &mut Chance, among: &[usize]| among[chance.below(among.len())];
    let open_max = pick(chance, &[2, 5, 20, 200]);
    Plan {
        partitions: 1 + chance.below(4),
        members: 1 + chance.below(3),
        people: 2 + chance.below(8),
        open_max,
        share_max: pick(chance, &[1, 2, 5, 64]),
        parked_max: pick(chance, &[2, 10, 1_000]),
        bytes_max: pick(chance, &[1_000, 10_000, usize::MAX]),
        unsettled_max: 1 + chance.below(4),
        busy: chance.between(0, 9) * 100,
        tracked_max: open_max * pick(chance, &[1, 4, 50]),
        poll_max: pick(chance, &[1, 4, 20]),
        batch_max: pick(chance, &[1, 2, 10]),
        calls_max: 1 + chance.below(4),
        attempts_max: 1 + u32::try_from(chance.below(4)).expect("a few"),
        commit_interval: chance.between(0, 60),
        open_events: pick(chance, &[3, 20, 100]),
        commits_fail: chance.between(0, 1) * 10,
        faults: chance.between(0, 60),
        merges: chance.between(0, 2) * 60,
    }
}

fn temper(chance: &mut Chance) -> Temper {
    let mut rate = |high: u64| if chance.in_thousand(500) { chance.between(0, high) } else { 0 };
    Temper {
        rejects: rate(50),
        skips: rate(50),
        fails: rate(300),
        throttles: rate(100),
        loses_answers: rate(100),
        bulk: rate(1000),
        panics: rate(5),
    }
}

impl Episode {
    pub fn new(world: Rc<RefCell<World>>) -> Self {
        let plan = world.borrow().plan.clone();
        world.borrow_mut().truth.unsettled_max = plan.unsettled_max;
        let slots = (0..plan.members).map(|_| Slot { session: None, due: 0 }).collect();
        let telemetry = Telemetry::new().expect("metrics that are declared once");
        Self { world, slots, telemetry, sessions: 0 }
    }

    fn step(&mut self) {
        self.thaw();
        let (what, faults) = {
            let mut world = self.world.borrow_mut();
            (world.chance.below(1000), world.plan.faults)
        };
        match what {
            0..400 => self.turn(),
            400..640 => self.world.borrow_mut().vendor_step(),
            640..780 => self.world.borrow_mut().traffic(),
            780..900 => self.world.borrow_mut().flow(),
            900..970 => {
                let mut world = self.world.borrow_mut();
                let long = world.chance.in_thousand(100);
                let ms = world.chance.between(1, if long { 5_000 } else { 50 });
                world.advance(ms);
            }
            970..980 => self.world.borrow_mut().with(|world, chance| world.broker.balance(chance, false)),
            _ => {
                if self.world.borrow_mut().chance.in_thousand(faults * 10) {
                    self.fault();
                }
            }
        }
    }

    /// A process that was frozen goes on with all of its threads at once: its calls may be quicker than its loop.
    fn thaw(&self) {
        let world = &mut *self.world.borrow_mut();
        let time = world.time();
        for session in self.slots.iter().filter(|slot| slot.due <= time).filter_map(|slot| slot.session.as_ref()) {
            world.processes.get_mut(&session.outside.member).expect("it runs").frozen = false;
        }
    }

    /// One of the processes takes a turn: of its loop, or it starts.
    fn turn(&mut self) {
        let place = self.world.borrow_mut().chance.below(self.slots.len());
        self.turn_of(place);
    }

    fn turn_of(&mut self, place: usize) {
        let time = self.world.borrow().time();
        let slot = &mut self.slots[place];
        if slot.due > time {
            return;
        }
        let Some(session) = &mut slot.session else {
            let member = self.world.borrow_mut().join();
            let setup = self.setup();
            self.slots[place].session = Some(Session::new(Port::new(&self.world, member), setup));
            self.sessions += 1;
            return;
        };
        let ended = session.round();
        self.sabotage(place);
        match ended {
            Ok(()) => self.check_bounds(place),
            Err(error) => self.failed(place, &error),
        }
    }

    fn setup(&self) -> Setup {
        let world = self.world.borrow();
        let plan = &world.plan;
        Setup {
            record_bytes_max: None,
            name: "d".into(),
            topic: world.broker.topic(),
            partitions: u32::try_from(plan.partitions).expect("a few"),
            settings: settings(plan.attempts_max),
            commit_interval: Duration::from_millis(plan.commit_interval),
            retention: Duration::from_secs(86_400),
            capacity: Capacity {
                items_max: plan.open_max,
                bytes_max: plan.bytes_max,
                unsettled_max: plan.unsettled_max,
            },
            share_max: plan.share_max,
            parked_max: u64::try_from(plan.parked_max).expect("a few"),
            bounds: Bounds { open_max: plan.open_max, tracked_max: plan.tracked_max },
            dedupe: BTreeMap::from([("s".to_owned(), Duration::from_secs(3_600))]),
            telemetry: self.telemetry.clone(),
        }
    }

    /// A session that has failed lets its calls end, leaves and is started anew, as the supervisor does.
    fn failed(&mut self, place: usize, error: &Error) {
        let expected = error.is_recoverable() || error.to_string().contains("panicked");
        assert!(expected, "the stage stops for good: {error}");
        let slot = &mut self.slots[place];
        let mut session = slot.session.take().expect("it has failed");
        session.let_calls_end();
        let mut world = self.world.borrow_mut();
        world.left(session.outside.member);
        slot.due = world.time() + world.chance.between(200, 3_000);
    }

    fn fault(&mut self) {
        let place = self.world.borrow_mut().chance.below(self.slots.len());
        let what = self.world.borrow_mut().chance.below(10);
        let slot = &mut self.slots[place];
        match what {
            0 => {
                // Killed.
                if let Some(session) = slot.session.take() {
                    let mut world = self.world.borrow_mut();
                    world.killed(session.outside.member);
                    slot.due = world.time() + world.chance.between(0, 20_000);
                }
            }
            1 => {
                // Stopped in order.
                if let Some(mut session) = slot.session.take() {
                    let patient = self.world.borrow_mut().chance.in_thousand(700);
                    let grace = if patient { GRACE } else { self.world.borrow_mut().chance.between(0, 2_000) };
                    if let Err(error) = session.end(Duration::from_millis(grace)) {
                        slot.session = Some(session);
                        return self.failed(place, &error);
                    }
                    let mut world = self.world.borrow_mut();
                    if patient {
                        world.stopped(session.outside.member);
                    }
                    world.left(session.outside.member);
                    slot.due = world.time() + world.chance.between(0, 5_000);
                }
            }
            2 | 9 => {
                // Frozen, for shorter or longer than its session.
                if let Some(session) = &slot.session {
                    let mut world = self.world.borrow_mut();
                    world.processes.get_mut(&session.outside.member).expect("it runs").frozen = true;
                    let long = world.chance.in_thousand(600);
                    let (low, high) = if long { (SESSION_TIMEOUT + 500, 40_000) } else { (10, SESSION_TIMEOUT) };
                    slot.due = world.time() + world.chance.between(low, high);
                }
            }
            3 | 4 => self.world.borrow_mut().with(|world, chance| world.broker.balance(chance, true)),
            5 => {
                let mut world = self.world.borrow_mut();
                world.vendor.credentials_fail = !world.vendor.credentials_fail;
            }
            6 => {
                if let Some(session) = &slot.session {
                    let mut world = self.world.borrow_mut();
                    world.processes.get_mut(&session.outside.member).expect("it runs").reload = true;
                }
            }
            7 => {
                let mut world = self.world.borrow_mut();
                let ms = i64::try_from(world.chance.between(0, 20_000)).expect("some seconds");
                world.step_clock(ms - 10_000);
            }
            _ => {
                let mut world = self.world.borrow_mut();
                let ms = world.chance.between(1_000, 20_000);
                world.advance(ms);
            }
        }
    }

    /// Puts the planted bug to work, where it lies in the machine itself.
    fn sabotage(&mut self, place: usize) {
        let plant = self.world.borrow().plant;
        let Some(session) = &mut self.slots[place].session else { return };
        match plant {
            Some(Plant::GateRemoved) => {
                for item in session.ready.flying() {
                    session.gate.finish(&item.profile, item.turn);
                }
            }
            Some(Plant::FinishBeforeCommit) => {
                session.gate.settled();
            }
            Some(Plant::FactsForgotten) => session.facts = Facts::default(),
            _ => {}
        }
    }

    fn check_bounds(&self, place: usize) {
        let Some(session) = &self.slots[place].session else { return };
        let plan = &self.world.borrow().plan;
        assert!(session.gate.len() <= plan.open_max, "the gate holds {} items", session.gate.len());
        for tracker in session.trackers.values() {
            assert!(tracker.open() < plan.open_max + plan.poll_max, "{} offsets are open", tracker.open());
            assert!(tracker.tracked() < plan.tracked_max + plan.poll_max, "{} are tracked", tracker.tracked());
        }
        let fresh = session.backlog.len();
        assert!(fresh <= plan.poll_max, "{fresh} records wait before the gate");
        let shares = self.world.borrow().people().map(|profile| session.gate.len_of(&profile)).max();
        assert!(shares.unwrap_or(0) <= plan.share_max, "one person has {shares:?} places in the gate");
        assert!(session.calls_running <= plan.calls_max, "{} calls run", session.calls_running);
    }

    /// Everybody takes a turn.
    pub fn calm_round(&mut self) {
        self.thaw();
        self.world.borrow_mut().flow();
        for place in 0..self.slots.len() {
            self.turn_of(place);
        }
        let mut world = self.world.borrow_mut();
        for _ in 0..4 {
            world.vendor_step();
        }
        world.advance(100);
        world.with(|world, chance| world.broker.balance(chance, false));
    }

    /// No fault happens any more: everything has to come to its end, each thing once.
    pub fn calm(&mut self) -> u64 {
        {
            let mut world = self.world.borrow_mut();
            world.vendor.temper = Temper::default();
            world.vendor.credentials_fail = false;
            world.plan.commits_fail = 0;
            world.link();
        }
        for turn in 0..CALM_MAX {
            self.calm_round();
            let world = self.world.borrow();
            let read = world.is_dry() && world.broker.is_read() && world.left_in_state().is_none();
            if read && world.truth.unended() == 0 && world.vendor.is_idle() {
                world.truth.complete();
                return turn * u64::try_from(self.slots.len() + 6).expect("a few");
            }
        }
        let world = self.world.borrow();
        panic!(
            "after the calm {} events have no end: {:?}; all read: {}; left in state: {:?}",
            world.truth.unended(),
            world.truth.open(),
            world.broker.is_read(),
            world.left_in_state()
        );
    }
}
