//! Starts what is ready: batches for the connector, questions about running jobs; and takes in the answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tailwater_core::delivery::{Delivery, Outcome, Scope, Ticket};
use tailwater_core::gate::{Started, Turn};
use tailwater_core::{Code, ProfileId, code};

use super::Session;
use super::memory::{self, JobMember};
use super::open::{Item, Open};
use super::outside::{Answer, Outside};
use crate::stages::Error;

/// The first wait before a job is asked for, and the longest one between two questions.
const JOB_WAIT_MIN: Duration = Duration::from_millis(500);
const JOB_WAIT_MAX: Duration = Duration::from_secs(5);

/// A delivery whose turn has come.
pub(super) struct InFlight {
    pub profile: ProfileId,
    pub turn: Turn,
    pub open: Box<Open>,
    pub delivery: Delivery,
}

/// Deliveries that wait for a fuller batch.
#[derive(Default)]
pub(super) struct Waiting {
    items: Vec<InFlight>,
    since: Option<Instant>,
    /// Calls that are running, by number.
    running: BTreeMap<u64, Call>,
    next_call: u64,
}

/// A call that is running.
enum Call {
    Delivery {
        /// By their index in the call. What has its outcome leaves a gap, and so does what belongs to a partition that was given up
        /// meanwhile: its outcome is the next owner's to find out.
        items: Vec<Option<InFlight>>,
        /// How many of the deliveries each job has taken so far.
        taken: BTreeMap<Ticket, usize>,
    },
    /// What became of a job; the places of its members that are asked for, by their index in the call.
    Question { ticket: Ticket, places: Vec<usize> },
}

/// A job of the vendor, and who is in it.
pub(super) struct Job {
    /// By their place among the job's members.
    pub members: BTreeMap<usize, InFlight>,
    pub wait: Duration,
    pub due: Instant,
    /// A question is on its way.
    pub asked: bool,
}

impl Waiting {
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The deliveries of running calls that have no outcome yet.
    pub fn flying(&self) -> impl Iterator<Item = &InFlight> {
        let items = self.running.values().filter_map(|call| match call {
            Call::Delivery { items, .. } => Some(items),
            Call::Question { .. } => None,
        });
        items.flatten().flatten()
    }

    fn begin(&mut self, call: Call) -> u64 {
        let number = self.next_call;
        self.next_call += 1;
        self.running.insert(number, call);
        number
    }
}

impl<O: Outside> Session<O> {
    /// Starts everything whose turn has come.
    pub(super) fn start(&mut self) -> Result<(), Error> {
        if self.paused.is_some() {
            return Ok(());
        }
        let limits = self.outside.limits();
        let time = self.outside.steady();
        if self.not_before <= time {
            let room = limits.batch_deliveries_max.saturating_sub(self.ready.items.len());
            for started in self.gate.ready(time, room) {
                self.begin(started)?;
            }
            let instant = self.outside.instant();
            let age = self.ready.since.map(|since| instant.saturating_duration_since(since));
            let waited = age.is_some_and(|age| age >= limits.batch_age_max);
            let full = self.ready.items.len() >= limits.batch_deliveries_max;
            // Nothing else could start: a fuller batch would only come from records that are not read yet.
            let quiet = !self.gate.has_startable()
                && self.backlog.is_empty()
                && age.is_some_and(|age| age >= limits.batch_age_max / 4);
            if waited || full || quiet {
                while !self.ready.items.is_empty() && self.calls_running < limits.calls_max {
                    self.call(limits.batch_deliveries_max);
                }
            }
        }
        self.ask_jobs();
        Ok(())
    }

    /// One item's turn has come.
    pub(super) fn begin(&mut self, started: Started<ProfileId, Item>) -> Result<(), Error> {
        let Started { key: profile, item, turn } = started;
        match item {
            Item::Fence { merge, record, parked } => {
                self.pass_fence(record.partition, merge)?;
                self.gate.finish(&profile, turn);
                match &parked {
                    Some(held) => self.leave(record.partition, merge.absorbed, held)?,
                    None => self.done(record.partition, record.offset),
                }
                self.went(record.partition, merge.absorbed);
                Ok(())
            }
            Item::Record(open) => self.advance(profile, turn, open),
        }
    }

    /// Takes up the next operation of a record that needs a call, or finishes the record.
    pub(super) fn advance(&mut self, profile: ProfileId, turn: Turn, mut open: Box<Open>) -> Result<(), Error> {
        let partition = open.record.partition;
        while let Some(delivery) = open.delivery(&self.setup.name) {
            let record = Arc::clone(&open.record);
            let envelope = record.envelope().unwrap_or_default();
            let subject = Open::subject(partition, &envelope);
            let in_flight = |open| InFlight { profile, turn, open, delivery: delivery.clone() };
            // First of all: what runs in a job is asked for, even if a merge has brought a newer state of the row meanwhile.
            if let Some(member) = memory::job_of(self.outside.state(), partition, delivery.key)? {
                open.attempts = member.attempt;
                self.join_job(member, in_flight(open));
                return Ok(());
            }
            if let Some(reason) = self.needless(&subject, &delivery)? {
                self.skipped(&mut open, &delivery, reason)?;
                continue;
            }
            let now = self.outside.steady();
            if let Some(due) = self.rejections.waits(&delivery, now) {
                self.give_back(in_flight(open), due);
                return Ok(());
            }
            let since = self.gathered_since(&open, &delivery);
            self.ready.since = Some(self.ready.since.map_or(since, |other| other.min(since)));
            self.ready.items.push(in_flight(open));
            return Ok(());
        }
        self.finish(profile, turn, &open)
    }

    /// From when the time counts that a delivery is kept waiting for a fuller batch. An event gains nothing by one, and a delivery
    /// gains nothing while no call runs; if their record has waited in the gate for its turn, they have waited enough.
    fn gathered_since(&self, open: &Open, delivery: &Delivery) -> Instant {
        let now = self.outside.instant();
        let at_once = !delivery.operation.kind.is_state() || self.calls_running == 0;
        open.since.filter(|_| at_once).unwrap_or(now)
    }

    /// Why a delivery need not be made, if so.
    fn needless(&self, subject: &memory::Subject<'_>, delivery: &Delivery) -> Result<Option<Code>, Error> {
        let state = self.outside.state();
        if let Some(reason) = memory::needless(state, subject, delivery, self.setup.settings.skip_unchanged)? {
            return Ok(Some(reason));
        }
        let repeated = self.facts.covers(subject.source)
            && self.facts.contains(state, subject.partition, delivery.profile, delivery.key)?;
        Ok(repeated.then_some(code::DUPLICATE))
    }

    fn join_job(&mut self, member: JobMember, in_flight: InFlight) {
        let due = self.outside.instant() + JOB_WAIT_MIN;
        let job = self.jobs.entry(member.ticket).or_insert_with(|| Job {
            members: BTreeMap::new(),
            wait: JOB_WAIT_MIN,
            due,
            asked: false,
        });
        job.members.insert(member.place, in_flight);
    }

    /// A job has taken a delivery: remembered, so that whoever owns the partition next asks for it instead of sending again.
    pub(super) fn accepted(&mut self, ticket: Ticket, place: usize, in_flight: InFlight) -> Result<(), Error> {
        let partition = in_flight.open.record.partition;
        let member = JobMember { ticket, place, attempt: in_flight.open.attempts };
        memory::set_job(self.outside.state_mut(), partition, in_flight.delivery.key, Some(&member))?;
        self.dirty = true;
        self.join_job(member, in_flight);
        Ok(())
    }

    /// Hands a batch to the connector.
    fn call(&mut self, max: usize) {
        // The next operations of records that go on may make more of them than one call carries.
        let rest = self.ready.items.split_off(self.ready.items.len().min(max.max(1)));
        let items = std::mem::replace(&mut self.ready.items, rest);
        if self.ready.items.is_empty() {
            self.ready.since = None;
        }
        let deliveries: Vec<Delivery> = items.iter().map(|item| item.delivery.clone()).collect();
        let mut partitions: Vec<i32> = items.iter().map(|item| item.open.record.partition).collect();
        partitions.sort_unstable();
        partitions.dedup();
        let items = items.into_iter().map(Some).collect();
        let call = self.ready.begin(Call::Delivery { items, taken: BTreeMap::new() });
        self.calls_running += 1;
        self.outside.deliver(call, deliveries, partitions);
    }

    fn ask_jobs(&mut self) {
        let now = self.outside.instant();
        let due: Vec<Ticket> = self
            .jobs
            .iter()
            .filter(|(_, job)| !job.asked && job.due <= now && !job.members.is_empty())
            .map(|(ticket, _)| ticket.clone())
            .collect();
        for ticket in due {
            if self.calls_running >= self.outside.limits().calls_max {
                return;
            }
            let Some(job) = self.jobs.get_mut(&ticket) else { continue };
            job.asked = true;
            let places: Vec<usize> = job.members.keys().copied().collect();
            let members: Vec<Delivery> = job.members.values().map(|member| member.delivery.clone()).collect();
            let mut partitions: Vec<i32> = job.members.values().map(|member| member.open.record.partition).collect();
            partitions.sort_unstable();
            partitions.dedup();
            self.calls_running += 1;
            let call = self.ready.begin(Call::Question { ticket: ticket.clone(), places });
            self.outside.confirm(call, &ticket, members, partitions);
        }
    }

    /// Takes in every answer that is there.
    pub(super) fn answered(&mut self) -> Result<(), Error> {
        while let Some(answer) = self.outside.answer(Duration::ZERO) {
            self.answer(answer)?;
        }
        Ok(())
    }

    pub(super) fn answer(&mut self, answer: Answer) -> Result<(), Error> {
        match answer {
            Answer::Probed { works } => {
                if works {
                    self.resume();
                }
                Ok(())
            }
            Answer::Outcome { call, indexes, outcome } => self.reported(call, indexes, outcome),
            Answer::Ended { call, panicked } => self.ended(call, panicked),
        }
    }

    /// What became of some of a call's deliveries. It is committed without waiting for the others.
    fn reported(&mut self, call: u64, indexes: Vec<usize>, outcome: Outcome) -> Result<(), Error> {
        let mut known = Vec::with_capacity(indexes.len());
        match self.ready.running.get_mut(&call) {
            Some(Call::Delivery { items, taken }) => {
                for index in indexes {
                    let place = match &outcome {
                        Outcome::Accepted(ticket) => {
                            let place = taken.entry(ticket.clone()).or_insert(0);
                            *place += 1;
                            *place - 1
                        }
                        Outcome::Delivered
                        | Outcome::DeliveredInPart(_)
                        | Outcome::Retry { .. }
                        | Outcome::Rejected(_)
                        | Outcome::Skipped(_) => 0,
                    };
                    if let Some(item) = items.get_mut(index).and_then(Option::take) {
                        known.push((place, item));
                    }
                }
            }
            Some(Call::Question { ticket, places }) => {
                let ticket = ticket.clone();
                let places = indexes.iter().filter_map(|index| places.get(*index).copied()).collect();
                return self.learned(&ticket, places, &outcome);
            }
            None => {}
        }
        for (place, item) in known {
            self.outcome(item, outcome.clone(), place)?;
        }
        Ok(())
    }

    /// What became of some of a job's members.
    fn learned(&mut self, ticket: &Ticket, places: Vec<usize>, outcome: &Outcome) -> Result<(), Error> {
        let Some(job) = self.jobs.get_mut(ticket) else { return Ok(()) };
        match outcome {
            Outcome::Accepted(same) if same == ticket => return Ok(()),
            // It was not learned what became of the job. Sending again would overtake it.
            Outcome::Retry { scope: Scope::Credentials, reason, .. } => {
                self.pause(reason.clone());
                return Ok(());
            }
            Outcome::Retry { reason, .. } if [code::NOT_OWNED, code::NOT_SENT].contains(&reason.code) => return Ok(()),
            Outcome::Accepted(_)
            | Outcome::Delivered
            | Outcome::DeliveredInPart(_)
            | Outcome::Retry { .. }
            | Outcome::Rejected(_)
            | Outcome::Skipped(_) => {}
        }
        let members: Vec<(usize, InFlight)> =
            places.into_iter().filter_map(|place| Some((place, job.members.remove(&place)?))).collect();
        for (place, member) in members {
            let partition = member.open.record.partition;
            memory::set_job(self.outside.state_mut(), partition, member.delivery.key, None)?;
            self.outcome(member, outcome.clone(), place)?;
        }
        Ok(())
    }

    /// A call has ended, and everything that it has to say is said.
    fn ended(&mut self, call: u64, panicked: bool) -> Result<(), Error> {
        self.calls_running = self.calls_running.saturating_sub(1);
        if panicked {
            return Err(Error::Invalid {
                code: code::TASK_FAILED,
                message: "the connector panicked; its deliveries without an outcome are made again".into(),
            });
        }
        match self.ready.running.remove(&call) {
            Some(Call::Delivery { items, .. }) if items.iter().any(Option::is_some) => Err(Error::Invalid {
                code: code::TASK_FAILED,
                message: "the connector's call has ended with deliveries that have no outcome".into(),
            }),
            Some(Call::Question { ticket, .. }) => {
                if let Some(job) = self.jobs.get_mut(&ticket) {
                    job.asked = false;
                    job.wait = (job.wait * 2).min(JOB_WAIT_MAX);
                    job.due = self.outside.instant() + job.wait;
                    if job.members.is_empty() {
                        self.jobs.remove(&ticket);
                    }
                }
                Ok(())
            }
            Some(Call::Delivery { .. }) | None => Ok(()),
        }
    }

    /// What is gathered but not sent goes back to its place.
    pub(super) fn give_back_ready(&mut self) {
        self.ready.since = None;
        let now = self.outside.steady();
        for item in std::mem::take(&mut self.ready.items) {
            self.rejections.came_back(&item.delivery, now);
            self.give_back(item, now);
        }
    }

    pub(super) fn give_back(&mut self, item: InFlight, due: tailwater_core::Timestamp) {
        if self.gate.retry(&item.profile, item.turn, Item::Record(item.open), due).is_err() {
            tracing::debug!(profile = %item.profile, "a delivery came back after its partition was given up");
        }
    }

    /// Whether a call is running that carries a delivery of these partitions. Jobs are no calls: they pass to the next owner.
    pub(super) fn calls_concern(&self, concerns: &impl Fn(i32) -> bool) -> bool {
        let deliveries = self.ready.flying().any(|item| concerns(item.open.record.partition));
        let questions = self
            .jobs
            .values()
            .filter(|job| job.asked)
            .flat_map(|job| job.members.values())
            .any(|member| concerns(member.open.record.partition));
        deliveries || questions
    }

    /// Forgets the calls' and jobs' deliveries of people who are somebody else's now.
    pub(super) fn forget_calls(&mut self, gone: impl Fn(&ProfileId) -> bool) {
        self.ready.items.retain(|item| !gone(&item.profile));
        self.rejections.forget(&gone);
        for call in self.ready.running.values_mut() {
            if let Call::Delivery { items, .. } = call {
                for item in items {
                    item.take_if(|item| gone(&item.profile));
                }
            }
        }
        for job in self.jobs.values_mut() {
            job.members.retain(|_, member| !gone(&member.profile));
        }
        self.jobs.retain(|_, job| !job.members.is_empty() || job.asked);
    }
}
