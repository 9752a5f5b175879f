//! Writes the workload's rows into the sources' topics: in their order, however often the broker goes away.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};

use super::check::Source;
use super::workload::Row;

/// A producer as a careful application has one: idempotent, and it never gives up.
pub struct Feed {
    producer: BaseProducer<Reports>,
    prefix: String,
    sent: u64,
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
    pub fn connect(brokers: &str, prefix: &str) -> Self {
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
        Self { producer, prefix: prefix.to_owned(), sent: 0 }
    }

    /// Queues a row, all its copies.
    pub fn write(&mut self, row: &Row) {
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

    /// Records that the broker has not acknowledged.
    pub fn open(&self) -> u64 {
        self.producer.poll(Duration::ZERO);
        self.sent - self.producer.context().acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until the broker has everything.
    ///
    /// # Panics
    /// It refused a record or does not answer: then nothing can be said about the run.
    pub fn finish(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        while self.open() > 0 {
            let refused = self.producer.context().refused.load(Ordering::Relaxed);
            assert!(refused == 0, "the broker refused {refused} rows");
            assert!(Instant::now() < deadline, "{} rows are not acknowledged", self.open());
            self.producer.poll(Duration::from_millis(100));
        }
    }
}
