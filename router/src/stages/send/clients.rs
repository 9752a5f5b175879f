//! The world of send: Kafka, the local state and the vendor's connector.
//!
//! Calls run elsewhere and come back through a channel; right before a request the connector asks whether this process still owns the
//! partitions, so that one that was stopped and woke up again sends nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use tailwater_connectors::{self as connectors, Limits, Outcomes};
use tailwater_core::delivery::{Delivery, Outcome, Reason, Ticket};
use tailwater_core::envelope::{Envelope, Merge, Role};
use tailwater_core::gate::Capacity;
use tailwater_core::ledger::{self, End};
use tailwater_core::limits::{
    BATCH_BYTES_MAX, BATCH_RECORDS_MAX, DELIVERIES_OPEN_BYTES_MAX, DELIVERIES_OPEN_MAX, DELIVERIES_OPEN_PER_PERSON_MAX,
    DELIVERIES_PARKED_MAX, DELIVERIES_UNSETTLED_MAX,
};
use tailwater_core::retry::RetryPolicy;
use tailwater_core::tracker::Bounds;
use tailwater_core::{Coordinates, ProfileId, Timestamp};

use super::outside::{Answer, Outside, Settings};
use super::planted::Planted;
use super::stall::Stall;
use super::{Setup, facts, finished, history, memory};
use crate::config::model::{Config, Destination};
use crate::failpoint;
use crate::kafka::consumer::{Partition, Polled, Start};
use crate::kafka::ownership::Ownership;
use crate::kafka::{Consumer, Outgoing, Outputs as _, Producer, Record, client};
use crate::runtime::Context;
use crate::runtime::clock::{now, steady};
use crate::stages::Error;
use crate::stages::shared::commit::{Stage, UnitOfWork};
use crate::stages::shared::dead_letter::{self, Failure};
use crate::stages::shared::destination::{Handle, Slot};
use crate::stages::shared::held::fences::FencedPartitions;
use crate::stages::shared::held::group::GroupPartitions;
use crate::stages::shared::ledger::Ledger;
use crate::state::Store;
use crate::telemetry::Heartbeat;

pub(super) struct Clients<'a> {
    pub shared: &'a Arc<Context>,
    /// Where a reload puts the next version of the destination.
    slot: &'a Slot<Handle>,
    destination: Arc<Handle>,
    consumer: Consumer,
    ownership: Arc<Ownership>,
    stall: Arc<Stall>,
    unit: UnitOfWork,
    /// Bounded by what is in flight: a call reports once for each of its deliveries and once that it has ended. A bound of its own would
    /// make a call wait on a thread of the runtime.
    answers: (Sender<Answer>, Receiver<Answer>),
    topic: Arc<str>,
    heartbeat: Heartbeat,
    planted: Planted,
}

impl<'a> Clients<'a> {
    /// Joins the destination's group and takes over what an earlier process of the same id left open.
    pub fn connect(shared: &'a Arc<Context>, slot: &'a Slot<Handle>) -> Result<(Self, Setup), Error> {
        let destination = slot.load_full();
        let name = destination.config.name.as_str();
        let kafka = &shared.config.kafka;
        let names = &shared.names;
        let id = names.transactional_id("send", Some(name), shared.cache.instance());
        let topic = names.outbound(name);
        let outputs =
            [names.deliveries(), names.ledger(), names.state_send(name), names.dlq_destination(name), topic.clone()];
        let consumer = Consumer::subscribe(kafka, &names.group("send", Some(name)), std::slice::from_ref(&topic))?;
        let topic: Arc<str> = Arc::from(topic);
        let producer = Producer::connect(kafka, Some(&id), &outputs)?;
        let setup = Setup {
            record_bytes_max: producer.record_bytes_max(),
            name: name.to_owned(),
            topic: Arc::clone(&topic),
            partitions: kafka.partitions,
            settings: settings(&destination.config),
            commit_interval: client::commit_interval(kafka.latency),
            retention: kafka.retention,
            capacity: Capacity {
                items_max: DELIVERIES_OPEN_MAX,
                bytes_max: DELIVERIES_OPEN_BYTES_MAX,
                unsettled_max: DELIVERIES_UNSETTLED_MAX,
            },
            share_max: DELIVERIES_OPEN_PER_PERSON_MAX,
            parked_max: DELIVERIES_PARKED_MAX,
            bounds: Bounds::default(),
            dedupe: windows(&shared.config),
            telemetry: shared.telemetry.clone(),
        };
        let clients = Self {
            shared,
            slot,
            ownership: consumer.ownership(),
            stall: Arc::new(Stall::new()),
            consumer,
            unit: UnitOfWork::new(
                Stage::Send,
                producer,
                Store::new(kafka, &shared.cache, &names.state_send(name)).forgetful(&[
                    memory::LAST,
                    facts::FACT,
                    finished::FINISHED,
                ]),
                Some(Ledger::new(names.ledger(), ledger::Stage::Send, kafka.partitions)),
            ),
            answers: answers(),
            topic,
            heartbeat: shared.telemetry.heartbeat(&format!("send.{name}")),
            destination,
            planted: Planted::default(),
        };
        Ok((clients, setup))
    }

    /// Runs a call elsewhere. One that panics must not leave its deliveries in flight for ever: its end is reported in any case.
    fn run(&self, call: u64, work: impl Future<Output = ()> + Send + 'static) {
        let answers = self.answers.0.clone();
        self.shared.spawner.call(work, move |panicked| {
            // The stage may have ended meanwhile; then nobody needs the answer.
            answers.send(Answer::Ended { call, panicked }).ok();
        });
    }

    /// Whether any partition is served here.
    pub fn is_serving(&self) -> bool {
        !self.consumer.assignment().is_empty()
    }

    fn name(&self) -> &str {
        &self.destination.config.name
    }

    fn group(&self) -> GroupPartitions<'_> {
        GroupPartitions { kafka: &self.shared.config.kafka, consumer: &self.consumer, topic: &self.topic }
    }
}

impl FencedPartitions for Clients<'_> {
    fn partition_of(&self, profile: ProfileId) -> i32 {
        memory::partition_of(profile, self.shared.config.kafka.partitions)
    }

    fn partition_end(&mut self, partition: i32) -> Result<i64, Error> {
        self.group().partition_end(partition)
    }

    fn has_read(&mut self, partition: i32, end: i64) -> Result<bool, Error> {
        self.group().has_read(partition, end)
    }
}

impl Outside for Clients<'_> {
    type State = Store;

    fn now(&self) -> Timestamp {
        now()
    }

    fn steady(&self) -> Timestamp {
        steady()
    }

    fn instant(&self) -> Instant {
        Instant::now()
    }

    fn chance(&mut self) -> f64 {
        rand::random()
    }

    fn alive(&self) {
        self.heartbeat.tick();
    }

    fn reload(&mut self) -> Result<Option<Settings>, Error> {
        let loaded = self.slot.load_full();
        if loaded.generation == self.destination.generation {
            return Ok(None);
        }
        self.destination = loaded;
        Ok(Some(settings(&self.destination.config)))
    }

    fn poll(&mut self, wait: Duration) -> Result<Polled, Error> {
        let polled = self.consumer.poll(BATCH_RECORDS_MAX, BATCH_BYTES_MAX, wait)?;
        Ok(self.planted.polled(polled, self.shared.config.kafka.partitions))
    }

    fn assignment(&self) -> Vec<Partition> {
        self.consumer.assignment().iter().cloned().collect()
    }

    fn pause(&mut self, partitions: &[Partition], pause: bool) -> Result<(), Error> {
        Ok(self.consumer.pause(partitions, pause)?)
    }

    fn starts(&mut self, partitions: &[Partition]) -> Result<Vec<Start>, Error> {
        Ok(self.consumer.starts(partitions, |_| self.unit.is_transactional())?)
    }

    fn assigned(&mut self, starts: &[Start]) -> Result<(), Error> {
        Ok(self.consumer.assigned(starts)?)
    }

    fn renounce(&mut self, partitions: &[Partition]) {
        self.consumer.renounce(partitions);
    }

    fn revoked(&mut self, partitions: &[Partition]) -> Result<(), Error> {
        Ok(self.consumer.revoked(partitions)?)
    }

    /// The account's limit is shared by the partitions that this process owns.
    fn share(&mut self) {
        let partitions = self.shared.config.kafka.partitions.max(1);
        let owned = u32::try_from(self.consumer.assignment().len()).unwrap_or(partitions);
        self.destination.connector.set_share(f64::from(owned) / f64::from(partitions));
    }

    fn state(&self) -> &Store {
        self.unit.store()
    }

    fn state_mut(&mut self) -> &mut Store {
        self.unit.store_mut()
    }

    fn restore(&mut self, partitions: &[i32]) -> Result<(), Error> {
        self.stall.begins();
        let restored = self.unit.store_mut().restore(partitions, &|| self.heartbeat.tick());
        self.stall.ends();
        Ok(restored?)
    }

    fn release(&mut self, partitions: &[i32]) {
        self.unit.store_mut().release(partitions);
    }

    fn end(&mut self, partition: i32, place: &Coordinates<'_>, round: u32, end: End, reason: &str) {
        if Planted::skips_ledger() {
            return;
        }
        self.unit.note(&self.destination.config.name, partition, place, round, end, reason);
    }

    fn forget_ends(&mut self) {
        self.unit.reset_ledger();
    }

    fn history(&mut self, record: &Record, delivery: &Delivery, outcome: &Outcome) -> Result<(), Error> {
        self.shared.telemetry.metrics().attempted(self.name(), history::word(outcome), 1);
        let value = history::encode(now(), self.name(), record, delivery, outcome);
        let topic = self.shared.names.deliveries();
        let key = delivery.profile.to_string();
        let partition = self.partition_of(delivery.profile);
        Ok(self.unit.send(&Outgoing::to(&topic).partition(partition).key(key.as_bytes()).value(Some(&value)))?)
    }

    fn dead_letter(&mut self, record: &Record, reason: &Reason, attempts: u32) -> Result<(), Error> {
        let destination = Arc::clone(&self.destination);
        let name = destination.config.name.as_str();
        let failure = Failure {
            stage: "send",
            connector: name,
            destination: Some(name),
            transform: None,
            attempts,
            reason,
            stack: None,
        };
        let topic = self.shared.names.dlq_destination(name);
        Ok(dead_letter::produce(&mut self.unit, &topic, record, &failure)?)
    }

    fn pass_fence(&mut self, merge: Merge, memory: &[u8]) -> Result<(), Error> {
        let envelope = Envelope {
            workspace: &self.shared.config.workspace,
            profile: Some(merge.survivor),
            role: Role::Release(merge),
            ..Default::default()
        };
        let header = envelope.to_bytes();
        let key = merge.survivor.to_string();
        let partition = self.partition_of(merge.survivor);
        let outgoing = Outgoing::to(&self.topic).partition(partition).key(key.as_bytes()).value(Some(memory));
        self.unit.send(&outgoing.envelope(&header))?;
        failpoint::hit("merge.passed");
        Ok(())
    }

    fn ask_for_fence(&mut self, merge: Merge) -> Result<(), Error> {
        let envelope = Envelope {
            workspace: &self.shared.config.workspace,
            profile: Some(merge.absorbed),
            role: Role::Fence(merge),
            ..Default::default()
        };
        let header = envelope.to_bytes();
        let key = merge.absorbed.to_string();
        let partition = FencedPartitions::partition_of(self, merge.absorbed);
        let outgoing = Outgoing::to(&self.topic).partition(partition).key(key.as_bytes()).envelope(&header);
        Ok(self.unit.send(&outgoing)?)
    }

    fn commit(&mut self, offsets: &BTreeMap<i32, i64>) -> Result<(), Error> {
        self.stall.begins();
        let offsets = self.planted.offsets(offsets);
        let offsets = offsets.iter().map(|(partition, offset)| (&*self.topic, *partition, *offset));
        let committed = self.unit.commit(offsets, &self.consumer);
        self.stall.ends();
        committed
    }

    fn limits(&self) -> Limits {
        self.destination.connector.spec().limits
    }

    fn deliver(&mut self, call: u64, deliveries: Vec<Delivery>, partitions: Vec<i32>) {
        let connector = Arc::clone(&self.destination.connector);
        let (ownership, stall) = (Arc::clone(&self.ownership), Arc::clone(&self.stall));
        let answers = self.answers.0.clone();
        self.run(call, async move {
            let still_owned = || !stall.is_on() && partitions.iter().all(|partition| ownership.owns(*partition));
            let outcomes = Outcomes::new(deliveries.len(), report(call, answers));
            failpoint::hit("send.asked");
            connector.deliver(&deliveries, &outcomes, &connectors::Context { still_owned: &still_owned }).await;
            outcomes.finish();
            failpoint::hit("send.answered");
        });
    }

    fn confirm(&mut self, call: u64, ticket: &Ticket, members: Vec<Delivery>, partitions: Vec<i32>) {
        let connector = Arc::clone(&self.destination.connector);
        let (ownership, stall) = (Arc::clone(&self.ownership), Arc::clone(&self.stall));
        let answers = self.answers.0.clone();
        let ticket = ticket.clone();
        self.run(call, async move {
            let still_owned = || !stall.is_on() && partitions.iter().all(|partition| ownership.owns(*partition));
            let outcomes = Outcomes::new(members.len(), report(call, answers));
            connector.confirm(&ticket, &members, &outcomes, &connectors::Context { still_owned: &still_owned }).await;
            if outcomes.open() > 0 {
                // They stay in the job: to send them again could overtake it.
                tracing::error!(ticket = %ticket.0, "the connector left members of a job without an outcome; the job is asked for again");
            }
        });
    }

    fn probe(&mut self) {
        let connector = Arc::clone(&self.destination.connector);
        let (answers, panics) = (self.answers.0.clone(), self.answers.0.clone());
        let probe = async move {
            let works = connector.probe().await.is_ok();
            answers.send(Answer::Probed { works }).ok();
        };
        self.shared.spawner.call(probe, move |panicked| {
            if panicked {
                panics.send(Answer::Probed { works: false }).ok();
            }
        });
    }

    fn answer(&mut self, wait: Duration) -> Option<Answer> {
        if wait.is_zero() {
            return self.answers.1.try_recv().ok();
        }
        self.answers.1.recv_timeout(wait).ok()
    }
}

#[allow(clippy::disallowed_methods, reason = "what is in flight bounds it: see the field")]
fn answers() -> (Sender<Answer>, Receiver<Answer>) {
    channel()
}

/// Hands the outcomes of a call on to the stage's thread.
fn report(call: u64, answers: Sender<Answer>) -> impl Fn(&[usize], &Outcome) + Send + Sync {
    move |indexes, outcome| {
        let answer = Answer::Outcome { call, indexes: indexes.to_vec(), outcome: outcome.clone() };
        answers.send(answer).ok();
    }
}

/// By source: how long the ids of its facts are remembered.
fn windows(config: &Config) -> BTreeMap<String, Duration> {
    let windows = config.sources.values().filter_map(|source| Some((source.name.clone(), source.dedupe?)));
    windows.collect()
}

fn settings(config: &Destination) -> Settings {
    Settings {
        retry: RetryPolicy {
            attempts_max: config.retry.attempts_max,
            backoff_min: config.retry.backoff_min,
            backoff_max: config.retry.backoff_max,
        },
        skip_unchanged: config.skip_unchanged,
    }
}
