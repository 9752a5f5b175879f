//! The vendor and the network before it: requests on the wire, answers that come late or not at all, jobs, limits, outages, and
//! credentials that do not work.

use std::collections::BTreeMap;
use std::time::Duration;

use tailwater_core::code;
use tailwater_core::delivery::{Delivery, Outcome, Reason, Scope, Ticket};

use super::broker::Member;
use super::chance::Chance;
use super::truth::Truth;
use crate::stages::send::outside::Answer;

/// How long a request may be on the wire, in milliseconds: what a process may still believe after its last poll, to the end of
/// its session, is the time that a request has to arrive in.
const WIRE_MAX: u64 = 1_500;

/// How long a job may run, in milliseconds.
const JOB_MAX: u64 = 30_000;

/// How the vendor behaves; each is a number of times in a thousand.
#[derive(Debug, Clone, Copy, Default)]
pub struct Temper {
    pub rejects: u64,
    pub skips: u64,
    pub fails: u64,
    pub throttles: u64,
    pub loses_answers: u64,
    pub bulk: u64,
    /// Calls whose answer never comes, because they have panicked.
    pub panics: u64,
}

enum What {
    Deliver { call: u64 },
    Confirm { call: u64, ticket: Ticket },
    Probe,
}

/// A call of a connector.
struct Call {
    by: Member,
    what: What,
    partitions: Vec<i32>,
    deliveries: Vec<Delivery>,
    bulk: bool,
    outcomes: Vec<Outcome>,
    /// How many of the outcomes were reported.
    reported: usize,
    /// When what is on the wire arrives at the latest.
    wire: Option<u64>,
    /// Its process is gone: what is on the wire arrives, and that was all.
    orphan: bool,
}

struct Job {
    done_at: u64,
    outcomes: BTreeMap<(usize, usize), Outcome>,
}

#[derive(Default)]
pub struct Vendor {
    pub temper: Temper,
    pub credentials_fail: bool,
    calls: BTreeMap<u64, Call>,
    next: u64,
    jobs: BTreeMap<Ticket, Job>,
    answers: BTreeMap<Member, Vec<Answer>>,
}

/// Who asks the vendor, as far as it matters there.
pub struct Caller<'a> {
    pub now: u64,
    /// Whether the member may still send for these partitions.
    pub owns: &'a dyn Fn(Member, &[i32]) -> bool,
    /// Whether the process runs at all.
    pub runs: &'a dyn Fn(Member) -> bool,
}

impl Vendor {
    pub fn deliver(
        &mut self,
        by: Member,
        call: u64,
        deliveries: Vec<Delivery>,
        partitions: Vec<i32>,
        chance: &mut Chance,
    ) {
        let mut people: Vec<_> = deliveries.iter().map(|delivery| delivery.profile).collect();
        people.sort_unstable();
        people.dedup();
        assert_eq!(people.len(), deliveries.len(), "somebody is in a batch twice");
        let bulk = chance.in_thousand(self.temper.bulk);
        self.start(by, What::Deliver { call }, partitions, deliveries, bulk);
    }

    pub fn confirm(&mut self, by: Member, call: u64, ticket: &Ticket, members: Vec<Delivery>, partitions: Vec<i32>) {
        self.start(by, What::Confirm { call, ticket: ticket.clone() }, partitions, members, true);
    }

    pub fn probe(&mut self, by: Member) {
        self.start(by, What::Probe, vec![], vec![], true);
    }

    fn start(&mut self, by: Member, what: What, partitions: Vec<i32>, deliveries: Vec<Delivery>, bulk: bool) {
        let call =
            Call { by, what, partitions, deliveries, bulk, outcomes: vec![], reported: 0, wire: None, orphan: false };
        self.calls.insert(self.next, call);
        self.next += 1;
    }

    pub fn answer(&mut self, to: Member) -> Option<Answer> {
        let waiting = self.answers.get_mut(&to)?;
        if waiting.is_empty() { None } else { Some(waiting.remove(0)) }
    }

    /// The member's process is gone, or its session.
    pub fn forget(&mut self, member: Member) {
        self.answers.remove(&member);
        self.calls.retain(|_, call| call.by != member || call.wire.is_some());
        for call in self.calls.values_mut().filter(|call| call.by == member) {
            call.orphan = true;
        }
    }

    pub fn is_idle(&self) -> bool {
        self.calls.is_empty()
    }

    /// What has been on the wire for as long as it can be arrives.
    pub fn arrive(&mut self, caller: &Caller<'_>, truth: &mut Truth, chance: &mut Chance) {
        let due: Vec<u64> = self
            .calls
            .iter()
            .filter(|(_, call)| call.wire.is_some_and(|until| until <= caller.now))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            self.land(id, caller.now, truth, chance);
        }
    }

    /// One step of one call.
    pub fn step(&mut self, caller: &Caller<'_>, truth: &mut Truth, chance: &mut Chance) {
        if self.calls.is_empty() {
            return;
        }
        let pick = chance.below(self.calls.len());
        let Some((&id, call)) = self.calls.iter_mut().nth(pick) else { return };
        if call.wire.is_some() {
            // Else it stays on the wire, until its time is over.
            if chance.in_thousand(400) {
                self.land(id, caller.now, truth, chance);
            }
            return;
        }
        if !(caller.runs)(call.by) {
            return;
        }
        // Most outcomes are told at once, some only together with later ones.
        if let What::Deliver { call: number } | What::Confirm { call: number, .. } = call.what
            && call.reported < call.outcomes.len()
            && chance.in_thousand(800)
        {
            let mut call = self.calls.remove(&id).expect("it was picked");
            self.report(&mut call, number);
            self.calls.insert(id, call);
            return;
        }
        if call.outcomes.len() < call.deliveries.len() || matches!(call.what, What::Probe) && call.outcomes.is_empty() {
            if (caller.owns)(call.by, &call.partitions) || matches!(call.what, What::Probe) {
                if matches!(call.what, What::Deliver { .. }) {
                    let from = call.outcomes.len();
                    let to = if call.bulk { call.deliveries.len() } else { from + 1 };
                    for delivery in &call.deliveries[from..to] {
                        let (event, operation) = read(delivery);
                        truth.departs(call.by, event, operation);
                    }
                }
                call.wire = Some(caller.now + chance.between(0, WIRE_MAX));
            } else {
                let not_owned = retry(Scope::Account, code::NOT_OWNED);
                call.outcomes.resize(call.deliveries.len(), not_owned);
            }
            return;
        }
        let mut call = self.calls.remove(&id).expect("it was picked");
        let panicked = chance.in_thousand(self.temper.panics);
        let answer = match call.what {
            What::Deliver { call: number } | What::Confirm { call: number, .. } => {
                if !panicked {
                    self.report(&mut call, number);
                }
                Answer::Ended { call: number, panicked }
            }
            What::Probe => Answer::Probed { works: !self.credentials_fail },
        };
        self.answers.entry(call.by).or_default().push(answer);
    }

    /// Tells what is known of a call and was not told. What one answer has decided is told at once.
    fn report(&mut self, call: &mut Call, number: u64) {
        let answers = self.answers.entry(call.by).or_default();
        while let Some(outcome) = call.outcomes.get(call.reported) {
            let alike = call.outcomes[call.reported..].iter().take_while(|other| *other == outcome).count();
            let indexes = (call.reported..call.reported + alike).collect();
            answers.push(Answer::Outcome { call: number, indexes, outcome: outcome.clone() });
            call.reported += alike;
        }
    }

    /// What is on the wire of a call reaches the vendor, which decides.
    fn land(&mut self, id: u64, now: u64, truth: &mut Truth, chance: &mut Chance) {
        let call = self.calls.get_mut(&id).expect("a call on the wire");
        call.wire = None;
        let temper = self.temper;
        match &call.what {
            What::Probe => call.outcomes.push(Outcome::Delivered),
            What::Confirm { ticket, .. } => {
                let job = &self.jobs[ticket];
                for delivery in &call.deliveries {
                    call.outcomes.push(if self.credentials_fail {
                        retry(Scope::Credentials, code::UNAUTHORIZED)
                    } else if job.done_at > now || chance.in_thousand(temper.throttles) {
                        Outcome::Accepted(ticket.clone())
                    } else {
                        job.outcomes[&read(delivery)].clone()
                    });
                }
            }
            What::Deliver { .. } => {
                let from = call.outcomes.len();
                let to = if call.bulk { call.deliveries.len() } else { from + 1 };
                let account = chance.in_thousand(temper.throttles);
                let lost = chance.in_thousand(temper.loses_answers);
                let mut job = Job { done_at: now + chance.between(0, JOB_MAX), outcomes: BTreeMap::new() };
                let ticket = Ticket(format!("job-{id}-{from}"));
                for delivery in &call.deliveries[from..to] {
                    let (event, operation) = read(delivery);
                    let (outcome, applied) = if self.credentials_fail {
                        (retry(Scope::Credentials, code::UNAUTHORIZED), false)
                    } else if account {
                        let after = chance.in_thousand(500).then(|| Duration::from_millis(chance.between(0, 5_000)));
                        (again(after, Scope::Endpoint, code::RATE_LIMITED), false)
                    } else if chance.in_thousand(temper.rejects) {
                        (Outcome::Rejected(Reason::new(code::VENDOR_REJECTED, "no")), false)
                    } else if chance.in_thousand(temper.skips) {
                        (Outcome::Skipped(Reason::new(code::WOULD_CREATE, "unknown")), false)
                    } else if chance.in_thousand(temper.fails) {
                        (retry(Scope::Delivery, code::VENDOR_UNAVAILABLE), chance.in_thousand(500))
                    } else {
                        (Outcome::Delivered, true)
                    };
                    truth.arrives(event, operation, applied);
                    if outcome == Outcome::Delivered && !lost && !call.bulk && !call.orphan {
                        truth.told(call.by, event, operation);
                    }
                    call.outcomes.push(if lost {
                        retry(Scope::Account, code::VENDOR_UNAVAILABLE)
                    } else if call.bulk && !account && !self.credentials_fail {
                        job.outcomes.insert((event, operation), outcome);
                        Outcome::Accepted(ticket.clone())
                    } else {
                        outcome
                    });
                }
                if !job.outcomes.is_empty() {
                    self.jobs.insert(ticket, job);
                }
            }
        }
        if call.orphan {
            self.calls.remove(&id);
        }
    }
}

fn retry(scope: Scope, code: tailwater_core::Code) -> Outcome {
    again(None, scope, code)
}

fn again(after: Option<Duration>, scope: Scope, code: tailwater_core::Code) -> Outcome {
    Outcome::Retry { after, scope, reason: Reason::new(code, "simulated") }
}

/// The event and the operation that a delivery carries.
pub fn read(delivery: &Delivery) -> (usize, usize) {
    let body: (usize, usize) = serde_json::from_str(delivery.operation.body.get()).expect("a body of the simulation");
    body
}
