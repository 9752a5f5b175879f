//! A plain pipe: the least that a process between two topics can be.
//!
//! One consumer, one transactional producer, with the product's own client settings; the same number of records in a transaction, the
//! same interval, acknowledgements counted before the commit, offsets in the transaction. It makes a record of the given size with one
//! header of the given size out of each record, and looks at nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfig as _, FromClientConfigAndContext as _};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use rdkafka::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};
use tailwater::kafka::client;
use tailwater_core::envelope;
use tailwater_core::limits::BATCH_RECORDS_MAX;

use crate::workspace;

const TIMEOUT: Duration = Duration::from_secs(30);

/// How long the thread rests while acknowledgments are awaited, at first and at most: as the product's producer does. The client's own
/// wait asks the clock over and over while less than a millisecond is left, and half of the pipe's time went there.
const REST_MIN: Duration = Duration::from_micros(100);
const REST_MAX: Duration = Duration::from_millis(1);

/// Records between two looks at the clock.
const CLOCK_RECORDS: usize = 256;

/// What to carry, and where.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pipe {
    /// A configuration file: its Kafka section is used.
    pub config: PathBuf,
    pub group: String,
    pub from: String,
    pub to: String,
    /// Partitions of `to`.
    pub lanes: i32,
    pub value_bytes: usize,
    pub header_bytes: usize,
}

#[derive(Default)]
struct Acknowledged(AtomicU64);

impl ClientContext for Acknowledged {}

impl ProducerContext for Acknowledged {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            panic!("a record was refused: {error}");
        }
        self.0.fetch_add(1, Ordering::Release);
    }
}

/// Waits until every record is acknowledged.
fn acknowledged(producer: &BaseProducer<Acknowledged>, sent: u64) {
    let done = || producer.context().0.load(Ordering::Acquire);
    let mut rest = REST_MIN;
    while done() < sent {
        let before = done();
        producer.poll(Duration::ZERO);
        if done() == before {
            std::thread::sleep(rest);
            rest = (rest * 2).min(REST_MAX);
        } else {
            rest = REST_MIN;
        }
    }
}

// === impl Pipe ===

impl Pipe {
    /// Runs until it is killed.
    pub fn run(&self) -> ! {
        let config = workspace::load(&self.config);
        let kafka = &config.kafka;
        let mut settings = client::consumer(kafka, Some(&self.group));
        settings.set("auto.offset.reset", "earliest");
        let consumer = BaseConsumer::from_config(&settings).unwrap_or_else(|error| panic!("no consumer: {error}"));
        consumer.subscribe(&[&self.from]).unwrap_or_else(|error| panic!("{}: {error}", self.from));
        let settings = client::producer(kafka, Some(&self.group));
        let producer: BaseProducer<Acknowledged> =
            BaseProducer::from_config_and_context(&settings, Acknowledged::default())
                .unwrap_or_else(|error| panic!("no producer: {error}"));
        producer.init_transactions(TIMEOUT).unwrap_or_else(|error| panic!("no transactions: {error}"));
        let interval = client::commit_interval(kafka.latency);
        let header = vec![b'h'; self.header_bytes];
        let filling = vec![b'v'; self.value_bytes];
        let mut sent = 0;
        loop {
            let next = self.carry(&consumer, &producer, interval, &header, &filling, &mut sent);
            if next.is_empty() {
                continue;
            }
            acknowledged(&producer, sent);
            let mut offsets = TopicPartitionList::new();
            for (partition, offset) in next {
                offsets
                    .add_partition_offset(&self.from, partition, Offset::Offset(offset))
                    .unwrap_or_else(|error| panic!("{error}"));
            }
            let group = consumer.group_metadata().unwrap_or_else(|| panic!("no group"));
            producer
                .send_offsets_to_transaction(&offsets, &group, TIMEOUT)
                .and_then(|()| producer.commit_transaction(TIMEOUT))
                .unwrap_or_else(|error| panic!("a transaction failed: {error}"));
        }
    }

    /// Carries one transaction's records and answers the offsets behind them.
    fn carry(
        &self,
        consumer: &BaseConsumer,
        producer: &BaseProducer<Acknowledged>,
        interval: Duration,
        header: &[u8],
        filling: &[u8],
        sent: &mut u64,
    ) -> BTreeMap<i32, i64> {
        let mut next = BTreeMap::new();
        let mut until: Option<Instant> = None;
        let mut count = 0;
        let mut wait = TIMEOUT;
        while count < BATCH_RECORDS_MAX {
            let message = match consumer.poll(wait) {
                Some(Ok(message)) => message,
                Some(Err(error)) => panic!("{}: {error}", self.from),
                // The clock is asked only where nothing is ready, not for every record.
                None => match until.map(|until| until.saturating_duration_since(Instant::now())) {
                    Some(left) if left.is_zero() => break,
                    Some(left) => {
                        wait = left;
                        continue;
                    }
                    None => continue,
                },
            };
            wait = Duration::ZERO;
            if count % CLOCK_RECORDS == CLOCK_RECORDS - 1 && until.is_some_and(|until| Instant::now() >= until) {
                break;
            }
            if count == 0 {
                producer.begin_transaction().unwrap_or_else(|error| panic!("no transaction: {error}"));
                until = Some(Instant::now() + interval);
            }
            count += 1;
            // The bytes of the record where it has enough of them, so that they are compressed as well as ours.
            let value = message.payload().unwrap_or_default();
            let value = value.get(..self.value_bytes).unwrap_or(filling);
            let headers = OwnedHeaders::new_with_capacity(1)
                .insert(Header { key: envelope::HEADER, value: (!header.is_empty()).then_some(header) });
            let mut record: BaseRecord<'_, [u8], [u8]> =
                BaseRecord::to(&self.to).payload(value).partition(message.partition() % self.lanes).headers(headers);
            record.key = message.key();
            while let Err((error, back)) = producer.send(record) {
                assert!(
                    matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)),
                    "a record was refused: {error}"
                );
                producer.poll(Duration::ZERO);
                std::thread::sleep(REST_MIN);
                record = back;
            }
            *sent += 1;
            if sent.is_multiple_of(1024) {
                producer.poll(Duration::ZERO);
            }
            next.insert(message.partition(), message.offset() + 1);
        }
        next
    }
}
