//! Writes the workload's rows into the sources' topics, in their order, however often the broker goes away; and the scores of some people
//! into a table.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use delta_kernel::arrow::array::{ArrayRef, Int32Array, StringArray};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};

use super::check::Source;
use super::workload::Row;
use crate::table::Table;

/// How long scores are gathered for one commit of the table.
const COMMIT_EVERY: Duration = Duration::from_secs(1);

/// A producer as a careful application has one: idempotent, and it never gives up.
pub struct Feed {
    producer: BaseProducer<Reports>,
    prefix: String,
    sent: u64,
    scores: Scores,
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
}

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): Self::DeliveryOpaque) {
        match result {
            Ok(_) => self.acknowledged.fetch_add(1, Ordering::Relaxed),
            Err(_) => self.refused.fetch_add(1, Ordering::Relaxed),
        };
    }
}

// === impl Feed ===

impl Feed {
    /// `table` is where the table is made.
    pub fn connect(brokers: &str, prefix: &str, table: &Path) -> Self {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", brokers)
            .set("enable.idempotence", "true")
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "5")
            // An outage of the broker must not drop a row that the checkers expect.
            .set("message.timeout.ms", "0")
            .set("queue.buffering.max.messages", "200000");
        let producer = BaseProducer::from_config_and_context(&config, Reports::default())
            .unwrap_or_else(|error| panic!("no producer for {brokers}: {error}"));
        Self { producer, prefix: prefix.to_owned(), sent: 0, scores: Scores::new(table) }
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
            let mut record = BaseRecord::to(&topic).key(row.key.as_bytes()).payload(row.value.as_bytes());
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
            self.sent += 1;
        }
        self.producer.poll(Duration::ZERO);
    }

    /// Commits the scores that have waited long enough.
    pub fn tick(&mut self) {
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
        }
    }
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
