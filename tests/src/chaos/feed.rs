//! Writes the workload's rows into the sources' topics, in their order, however often the broker goes away; and the scores of some people
//! into a table.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use delta_kernel::arrow::array::{ArrayRef, Int32Array, StringArray};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};

use super::check::Source;
use super::workload::Row;
use crate::table::Table;
use crate::topics::Topics;

/// How long scores are gathered for one commit of the table.
const COMMIT_EVERY: Duration = Duration::from_secs(1);

/// How long nothing may be acknowledged, though the broker answers, before the client counts as stalled. One that has been told that a
/// partition has no leader, as a broker tells that is about to end, may never ask again
/// (<https://github.com/confluentinc/librdkafka/issues/5430>).
const STALL_MAX: Duration = Duration::from_secs(45);

/// How long what a client had under way may still arrive after it is gone.
const ARRIVAL_MAX: Duration = Duration::from_secs(2);

/// A producer as a careful application has one: idempotent, and it never gives up.
pub struct Feed {
    producer: BaseProducer<Reports>,
    brokers: String,
    prefix: String,
    sent: u64,
    /// When the broker last had everything, or acknowledged something.
    moved: (u64, Instant),
    scores: Scores,
}

/// A record on its way.
#[derive(Clone)]
struct Sent {
    topic: String,
    key: String,
    value: String,
    /// How often it is to stand in the topic.
    copies: u32,
}

/// The scores of every other person come from a table.
struct Scores {
    table: Table,
    rows: Vec<(u32, u32)>,
    people: HashSet<u32>,
    due: Instant,
}

#[derive(Default)]
struct Reports {
    acknowledged: AtomicU64,
    refused: AtomicU64,
    /// What is not acknowledged, in the order in which it was sent.
    open: Mutex<BTreeMap<usize, Sent>>,
}

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        match result {
            Ok(_) => {
                self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

// === impl Feed ===

impl Feed {
    /// `table` is where the table is made.
    pub fn connect(brokers: &str, prefix: &str, table: &Path) -> Self {
        Self {
            producer: producer(brokers),
            brokers: brokers.to_owned(),
            prefix: prefix.to_owned(),
            sent: 0,
            moved: (0, Instant::now()),
            scores: Scores::new(table),
        }
    }

    /// Queues a row, all its copies.
    pub fn write(&mut self, row: &Row) {
        if row.source == Source::Score && row.person.is_multiple_of(2) {
            self.scores.write(row.person, row.seq);
            return;
        }
        let topic = format!(
            "{}ingest.{}",
            self.prefix,
            match row.source {
                Source::Activity => "activity",
                Source::Score => "scores",
            }
        );
        for _ in 0..row.copies {
            let (key, value) = (row.key.clone(), row.value.clone());
            self.send(Sent { topic: topic.clone(), key, value, copies: row.copies });
        }
        self.producer.poll(Duration::ZERO);
    }

    fn send(&mut self, one: Sent) {
        let number = usize::try_from(self.sent).unwrap_or(usize::MAX);
        let topic = one.topic.clone();
        let mut record =
            BaseRecord::with_opaque_to(&topic, number).key(one.key.as_bytes()).payload(one.value.as_bytes());
        loop {
            match self.producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) => {
                    self.producer.poll(Duration::from_millis(20));
                    record = again;
                }
                Err((error, _)) => panic!("a row for {topic} was refused: {error}"),
            }
        }
        // Reports come while this thread polls, so not before the record is noted.
        self.producer.context().open.lock().unwrap_or_else(PoisonError::into_inner).insert(number, one);
        self.sent += 1;
    }

    fn look_for_stall(&mut self) {
        let acknowledged = self.producer.context().acknowledged.load(Ordering::Relaxed);
        if acknowledged != self.moved.0 || acknowledged == self.sent {
            self.moved = (acknowledged, Instant::now());
        }
        if self.moved.1.elapsed() < STALL_MAX || TcpStream::connect(&self.brokers).is_err() {
            return;
        }
        eprintln!("the feed's client has heard nothing for {} s", self.moved.1.elapsed().as_secs());
        self.begin_anew();
    }

    /// Begins anew with another client: what this one had not heard of is looked for in the topics, and what is not there is sent again, in
    /// its order.
    ///
    /// # Panics
    /// The topics cannot be read.
    pub fn begin_anew(&mut self) {
        let open = self.producer.context().open.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.producer = producer(&self.brokers);
        std::thread::sleep(ARRIVAL_MAX);
        // Rows differ in their values, but for the copies of one row.
        let mut standing: HashMap<Vec<u8>, u32> = HashMap::new();
        let topics: HashSet<&str> = open.values().map(|one| one.topic.as_str()).collect();
        for topic in topics {
            for value in Topics::at(&self.brokers).read(topic).into_iter().filter_map(|record| record.value) {
                *standing.entry(value).or_insert(0) += 1;
            }
        }
        let mut copies: HashMap<&str, u32> = HashMap::new();
        for one in open.values() {
            *copies.entry(&one.value).or_insert(0) += 1;
        }
        let mut again = Vec::new();
        for one in open.values() {
            // Of its copies, those that were acknowledged stand there too.
            let known = one.copies - copies.get(one.value.as_str()).copied().unwrap_or(0);
            match standing.get_mut(one.value.as_bytes()) {
                Some(count) if *count > known => *count -= 1,
                _ => again.push(one.clone()),
            }
        }
        eprintln!("{} records of the feed were not acknowledged, {} of them are sent again", open.len(), again.len());
        self.sent = 0;
        for one in again {
            self.send(one);
        }
        self.moved = (0, Instant::now());
    }

    /// Commits the scores that have waited long enough.
    pub fn tick(&mut self) {
        self.look_for_stall();
        if Instant::now() >= self.scores.due {
            self.scores.commit();
        }
    }

    /// Records that the broker has not acknowledged.
    pub fn open(&self) -> u64 {
        self.producer.poll(Duration::ZERO);
        self.sent - self.producer.context().acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until the broker has everything.
    ///
    /// # Panics
    /// It refused a record or does not answer: then nothing can be said about the run.
    pub fn finish(&mut self, patience: Duration) {
        self.scores.commit();
        let deadline = Instant::now() + patience;
        while self.open() > 0 {
            let refused = self.producer.context().refused.load(Ordering::Relaxed);
            assert!(refused == 0, "the broker refused {refused} rows");
            assert!(Instant::now() < deadline, "{} rows are not acknowledged", self.open());
            self.producer.poll(Duration::from_millis(100));
            self.look_for_stall();
        }
    }
}

fn producer(brokers: &str) -> BaseProducer<Reports> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "5")
        // An outage of the broker must not drop a row that the checkers expect.
        .set("message.timeout.ms", "0")
        .set("queue.buffering.max.messages", "200000");
    BaseProducer::from_config_and_context(&config, Reports::default())
        .unwrap_or_else(|error| panic!("no producer for {brokers}: {error}"))
}

// === impl Scores ===

impl Scores {
    fn new(table: &Path) -> Self {
        let table = Table::create(table, &[("customer_id", "string"), ("person", "integer"), ("seq", "integer")]);
        Self { table, rows: Vec::new(), people: HashSet::new(), due: Instant::now() }
    }

    /// One version has at most one row of a person: among rows of one version there would be no order.
    fn write(&mut self, person: u32, seq: u32) {
        if !self.people.insert(person) {
            self.commit();
            self.people.insert(person);
        }
        self.rows.push((person, seq));
    }

    fn commit(&mut self) {
        self.due = Instant::now() + COMMIT_EVERY;
        self.people.clear();
        let rows = std::mem::take(&mut self.rows);
        if rows.is_empty() {
            return;
        }
        let numbers = |number: &dyn Fn(&(u32, u32)) -> u32| -> ArrayRef {
            let number = |row| i32::try_from(number(row)).unwrap_or(i32::MAX);
            Arc::new(Int32Array::from_iter_values(rows.iter().map(number)))
        };
        let customers = rows.iter().map(|(person, _)| format!("c{person}"));
        self.table.commit([vec![
            Arc::new(StringArray::from_iter_values(customers)),
            numbers(&|row| row.0),
            numbers(&|row| row.1),
        ]]);
    }
}
