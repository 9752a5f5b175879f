//! What goes wrong in the run, and when: one fault after the other, drawn from the seed, each with the time during which it explains
//! that a delivery was made again.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tailwater_simulators::klaviyo::{Disconnect, Effect, PrescribedAnswer, Prescription};

use super::brokers::Brokers;
use super::check::Disturbance;
use super::fleet::{Fleet, Member, Role};
use super::proxy::{Fault, Proxy};
use super::receiver::Receiver;

/// Pause between two faults.
const PAUSE: (f64, f64) = (1.0, 5.0);

/// The same where every fault meets everything. A process that was killed works again after about a quarter of a minute: the broker of
/// its predecessor takes seven seconds to end, its own four to start, and then the stages start. After a kill of the broker alone, its
/// controller waits for 18 seconds until it believes that the old one is gone.
const PAUSE_EMBEDDED: (f64, f64) = (20.0, 40.0);

/// How long a process is stopped: a nap that its session survives, or long enough to lose it (`session_timeout` is 6 s).
const NAP: (f64, f64) = (0.5, 3.0);
const COMA: (f64, f64) = (9.0, 14.0);

/// Members of a rebalance storm at a time.
const GUESTS: usize = 2;

/// The kinds of faults, for the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Kill,
    Terminate,
    Nap,
    Coma,
    EmptyDisk,
    BrokerRestart,
    BrokerKill,
    Storm,
    VendorNetwork,
    VendorErrors,
    ClockStep,
    Reload,
}

/// Kinds with how often each is drawn.
const WEIGHTS: &[(Kind, u32)] = &[
    (Kind::Kill, 16),
    (Kind::Terminate, 8),
    (Kind::Nap, 6),
    (Kind::Coma, 6),
    (Kind::EmptyDisk, 8),
    (Kind::BrokerRestart, 3),
    (Kind::BrokerKill, 2),
    (Kind::Storm, 5),
    (Kind::VendorNetwork, 10),
    (Kind::VendorErrors, 8),
    (Kind::ClockStep, 5),
    (Kind::Reload, 6),
];

/// The same for a process with a broker of its own. An emptied disk takes the broker's data along, which is not promised; the broker
/// stops with its process only; and there is one process, so no storm.
const WEIGHTS_EMBEDDED: &[(Kind, u32)] = &[
    (Kind::Kill, 16),
    (Kind::Terminate, 8),
    (Kind::Nap, 6),
    (Kind::Coma, 6),
    (Kind::BrokerKill, 16),
    (Kind::VendorNetwork, 10),
    (Kind::VendorErrors, 8),
    (Kind::ClockStep, 5),
    (Kind::Reload, 6),
];

/// Where faults go in.
pub struct Targets<'a> {
    pub fleet: &'a mut Fleet,
    pub brokers: &'a Brokers,
    pub proxy: &'a Proxy,
    pub receiver: &'a Receiver,
    /// Changes a transform's text without changing what it does.
    pub touch_transform: &'a mut dyn FnMut(),
}

pub struct Nemesis {
    random: StdRng,
    began: Instant,
    due: Instant,
    /// The vendor's network is broken until then.
    network_until: Option<Instant>,
    guests_until: Option<Instant>,
    clocks_until: Option<Instant>,
    /// Since when the embedded broker is away because it was killed.
    broker_away: Option<Instant>,
    pub disturbances: Vec<Disturbance>,
    pub done: std::collections::BTreeMap<Kind, u32>,
}

// === impl Nemesis ===

impl Nemesis {
    pub fn new(seed: u64, began: Instant) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            began,
            due: began + Duration::from_secs(3),
            network_until: None,
            guests_until: None,
            clocks_until: None,
            broker_away: None,
            disturbances: Vec::new(),
            done: std::collections::BTreeMap::new(),
        }
    }

    /// Ends what has lasted long enough, and begins the next fault when it is due.
    pub fn step(&mut self, targets: &mut Targets<'_>) {
        let now = Instant::now();
        if self.network_until.is_some_and(|until| now >= until) {
            self.network_until = None;
            targets.proxy.heal();
        }
        if self.guests_until.is_some_and(|until| now >= until) {
            self.guests_until = None;
            self.send_guests_away(targets);
        }
        if self.clocks_until.is_some_and(|until| now >= until) {
            self.clocks_until = None;
            for index in 0..targets.fleet.members.len() {
                targets.fleet.step_clock(index, 0);
            }
        }
        self.look_for_broker(targets.brokers);
        if now < self.due {
            return;
        }
        let embedded = matches!(targets.brokers, Brokers::Embedded { .. });
        let kind = self.draw(embedded);
        if self.act(kind, targets) {
            *self.done.entry(kind).or_insert(0) += 1;
        }
        self.due = Instant::now() + self.seconds(if embedded { PAUSE_EMBEDDED } else { PAUSE });
    }

    /// Ends everything.
    pub fn heal(&mut self, targets: &mut Targets<'_>) {
        targets.proxy.heal();
        self.send_guests_away(targets);
        targets.fleet.heal();
        if let Brokers::Embedded { .. } = targets.brokers {
            // The last life has no failpoints: nothing may end it while the run waits for its rest, for there is nobody else.
            self.disturb(Duration::ZERO, format!("kill -9 {}", targets.fleet.members[0].name));
            targets.fleet.kill(0, Duration::ZERO);
            self.end_absence();
        }
        self.tell("healed");
    }

    fn look_for_broker(&mut self, brokers: &Brokers) {
        if self.broker_away.is_some() && brokers.answers() {
            self.end_absence();
            self.tell("broker is back");
        }
    }

    fn end_absence(&mut self) {
        if let Some(from) = self.broker_away.take() {
            let what = "broker kill -9".to_owned();
            self.disturbances.push(Disturbance { from, until: Instant::now(), what });
        }
    }

    fn draw(&mut self, embedded: bool) -> Kind {
        let weights = if embedded { WEIGHTS_EMBEDDED } else { WEIGHTS };
        let all: u32 = weights.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.random.random_range(0..all);
        for (kind, weight) in weights {
            if drawn < *weight {
                return *kind;
            }
            drawn -= weight;
        }
        Kind::Kill
    }

    /// Whether there was somebody to do it to.
    fn act(&mut self, kind: Kind, targets: &mut Targets<'_>) -> bool {
        match kind {
            Kind::Kill => {
                let pause = self.seconds((0.0, 3.0));
                let Some(index) = self.somebody(targets.fleet, Member::is_running) else { return false };
                self.disturb(Duration::ZERO, format!("kill -9 {}", targets.fleet.members[index].name));
                targets.fleet.kill(index, pause);
            }
            Kind::Terminate => {
                let Some(index) = self.somebody(targets.fleet, Member::is_awake) else { return false };
                // Its calls are let end, but not for ever.
                self.disturb(Duration::from_secs(12), format!("TERM {}", targets.fleet.members[index].name));
                targets.fleet.terminate(index);
            }
            Kind::Nap | Kind::Coma => {
                let time = self.seconds(if kind == Kind::Nap { NAP } else { COMA });
                let Some(index) = self.somebody(targets.fleet, Member::is_awake) else { return false };
                let name = &targets.fleet.members[index].name;
                self.disturb(time, format!("STOP {name} for {:.1} s", time.as_secs_f64()));
                targets.fleet.stop(index, time);
            }
            Kind::EmptyDisk => {
                let Some(index) = self.somebody(targets.fleet, Member::is_awake) else { return false };
                let name = &targets.fleet.members[index].name;
                self.disturb(Duration::ZERO, format!("kill -9 {name}, disk emptied"));
                targets.fleet.empty_disk(index);
            }
            Kind::BrokerRestart | Kind::BrokerKill => match targets.brokers {
                Brokers::Own(broker) => {
                    let away = self.seconds((0.0, 4.0));
                    let from = Instant::now();
                    let how = if kind == Kind::BrokerKill { "kill -9" } else { "stop" };
                    self.tell(&format!("broker {how}, {:.1} s", away.as_secs_f64()));
                    if kind == Kind::BrokerKill {
                        broker.kill();
                    } else {
                        broker.stop();
                    }
                    std::thread::sleep(away);
                    broker.start();
                    let until = Instant::now();
                    self.disturbances.push(Disturbance { from, until, what: format!("broker {how}") });
                    self.tell("broker is back");
                }
                Brokers::Embedded { .. } => {
                    let from = Instant::now();
                    // Without its process it is about to end anyway.
                    if !targets.fleet.members[0].is_running() || !Brokers::kill_child(&targets.fleet.state(0)) {
                        return false;
                    }
                    self.tell("broker kill -9");
                    self.broker_away.get_or_insert(from);
                }
            },
            Kind::Storm => {
                let role = if self.random.random_bool(0.7) { Role::Send } else { Role::Route };
                self.disturb(Duration::from_secs(20), format!("rebalance storm of {role}"));
                for _ in 0..GUESTS {
                    let place = targets
                        .fleet
                        .pick(|member| member.is_guest() && member.role == role && !member.is_running(), 0.0)
                        .unwrap_or_else(|| targets.fleet.add(role, true));
                    targets.fleet.start(place, "");
                }
                self.guests_until = Some(Instant::now() + self.seconds((2.0, 8.0)));
            }
            Kind::VendorNetwork => {
                let fault = match self.random.random_range(0..6) {
                    0 => Fault::Latency(Duration::from_millis(self.random.random_range(50..800))),
                    1 => Fault::Trickle { bytes_per_second: 20_000 },
                    2 => Fault::Reset,
                    3 => Fault::HalfClose,
                    4 => Fault::Stall,
                    _ => Fault::Refuse,
                };
                let time = self.seconds((1.0, 5.0));
                self.disturb(time, format!("vendor: {fault:?} for {:.1} s", time.as_secs_f64()));
                targets.proxy.set(fault);
                self.network_until = Some(Instant::now() + time);
            }
            Kind::VendorErrors => self.vendor_errors(targets),
            Kind::ClockStep => {
                let offset = if self.random.random_bool(0.5) { 3_600_000 } else { -3_600_000 };
                let Some(index) = self.somebody(targets.fleet, Member::is_running) else { return false };
                self.tell(&format!("clock of {} off by {offset} ms", targets.fleet.members[index].name));
                targets.fleet.step_clock(index, offset);
                self.clocks_until = Some(Instant::now() + self.seconds((2.0, 8.0)));
            }
            Kind::Reload => {
                self.tell("transforms are written again");
                (targets.touch_transform)();
            }
        }
        true
    }

    fn vendor_errors(&mut self, targets: &Targets<'_>) {
        let status = |status: u16, headers: Vec<(String, String)>| {
            Effect::Answer(PrescribedAnswer { status, headers, body: serde_json::Value::Null, delay_ms: 0 })
        };
        let (what, effect, times) = match self.random.random_range(0..6) {
            0 => ("500", status(500, vec![]), 20),
            1 => ("503", status(503, vec![]), 20),
            2 => ("429 with Retry-After", status(429, vec![("retry-after".into(), "1".into())]), 5),
            3 => ("late answers", Effect::DelayMs(1_500), 10),
            4 => ("disconnects after reading", Effect::Disconnect(Disconnect::AfterReading), 8),
            _ => ("disconnects after processing", Effect::Disconnect(Disconnect::AfterProcessing), 8),
        };
        self.disturb(Duration::from_secs(5), format!("vendor: {what}"));
        let prescription =
            Prescription { times, for_seconds: Some(3), ..Prescription::new(effect).on("POST", "/api/*") };
        targets.receiver.simulator().prescribe(prescription).unwrap_or_else(|error| panic!("{error}"));
    }

    fn send_guests_away(&mut self, targets: &mut Targets<'_>) {
        for index in 0..targets.fleet.members.len() {
            if targets.fleet.members[index].is_guest() && targets.fleet.members[index].is_running() {
                self.disturb(Duration::ZERO, format!("kill -9 {}", targets.fleet.members[index].name));
                targets.fleet.kill(index, Duration::ZERO);
            }
        }
    }

    fn somebody(&mut self, fleet: &Fleet, wanted: impl Fn(&Member) -> bool) -> Option<usize> {
        let draw = self.random.random();
        fleet.pick(|member| !member.is_guest() && wanted(member), draw)
    }

    fn seconds(&mut self, (low, high): (f64, f64)) -> Duration {
        Duration::from_secs_f64(self.random.random_range(low..high))
    }

    fn disturb(&mut self, time: Duration, what: String) {
        self.tell(&what);
        let from = Instant::now();
        self.disturbances.push(Disturbance { from, until: from + time, what });
    }

    fn tell(&self, what: &str) {
        eprintln!("{:8.1} s  {what}", self.began.elapsed().as_secs_f64());
    }
}
