//! The producer of a stage: outputs, state and offsets of a batch in one transaction, or, where the broker has none, one after the
//! other: each is acknowledged before the next is written.
//!
//! It is used from the stage's thread only. Delivery reports are counted here instead of calling `flush`, which waits up to
//! 100 ms each time.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use tracing::warn;

use super::client::{self, Context};
use super::{Error, Group, Log, Outputs, is_unknown_topic};
use crate::config::model::Kafka;

/// How long one call to the transaction coordinator may take before it is tried again.
const COORDINATOR_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the look for a topic may take whose records could not be written.
const TOPIC_LOOK_TIMEOUT: Duration = Duration::from_secs(3);

/// The longest rest of a thread that waits for acknowledgements, between two looks. The client's own wait is not used for it: with less
/// than a millisecond left it asks without waiting, over and over, and holds a core until its time is up.
const REST_MAX: Duration = Duration::from_millis(1);

/// The first rest: an idle broker acknowledges within this.
const REST_MIN: Duration = Duration::from_micros(100);

/// Bytes that a batch adds to its only record, with room for a transactional one.
const BATCH_OVERHEAD: usize = 256;

/// A record to be produced.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    pub topic: &'a str,
    /// Set explicitly for partitions and state; `None` leaves it to the key's hash.
    pub partition: Option<i32>,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    /// The `tw` header.
    pub envelope: Option<&'a [u8]>,
    /// Milliseconds since the epoch; `None` is now.
    pub timestamp: Option<i64>,
    pub headers: &'a [(String, Option<Vec<u8>>)],
}

pub struct Producer {
    inner: BaseProducer<Reports>,
    transactional: bool,
    record_bytes_max: Option<usize>,
    open: bool,
    sent: u64,
    brokers: String,
    /// The topics that were written to, a handful.
    written: Vec<String>,
}

/// Counts the delivery reports and remembers how far each changelog partition was written.
struct Reports {
    base: Context,
    done: AtomicU64,
    failed: Mutex<Option<(KafkaError, String, usize)>>,
    ends: Mutex<HashMap<(String, i32), i64>>,
    noted: Mutex<HashMap<(String, i32), i64>>,
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.base.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.base.error(error, reason);
    }
}

/// Marks a record whose end offset is remembered.
const TRACKED: usize = 1;

/// Marks a record whose own offset is remembered too.
const NOTED: usize = 2;

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: Self::DeliveryOpaque) {
        match result {
            Ok(message) if opaque == TRACKED || opaque == NOTED => {
                if opaque == NOTED {
                    let mut noted = self.noted.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    noted.insert((message.topic().to_owned(), message.partition()), message.offset());
                }
                let mut ends = self.ends.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                // Reports of one partition come in the order of its records. An end that lies before an earlier one is kept too: it says
                // that the topic was made anew.
                ends.insert((message.topic().to_owned(), message.partition()), message.offset() + 1);
            }
            Ok(_) => {}
            Err((error, message)) => {
                let size = message.payload().map_or(0, <[u8]>::len);
                let mut failed = self.failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                failed.get_or_insert((error.clone(), message.topic().to_owned(), size));
            }
        }
        self.done.fetch_add(1, Ordering::Release);
    }
}

// === impl Outgoing ===

impl<'a> Outgoing<'a> {
    pub const fn to(topic: &'a str) -> Self {
        Self { topic, partition: None, key: None, value: None, envelope: None, timestamp: None, headers: &[] }
    }

    #[must_use]
    pub const fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    #[must_use]
    pub const fn key(mut self, key: &'a [u8]) -> Self {
        self.key = Some(key);
        self
    }

    #[must_use]
    pub const fn value(mut self, value: Option<&'a [u8]>) -> Self {
        self.value = value;
        self
    }

    #[must_use]
    pub const fn envelope(mut self, envelope: &'a [u8]) -> Self {
        self.envelope = Some(envelope);
        self
    }

    #[must_use]
    pub const fn headers(mut self, headers: &'a [(String, Option<Vec<u8>>)]) -> Self {
        self.headers = headers;
        self
    }

    #[must_use]
    pub const fn timestamp(mut self, timestamp: i64) -> Self {
        self.timestamp = Some(timestamp);
        self
    }
}

// === impl Producer ===

impl Producer {
    /// Connects. With a `transactional_id` it waits until the broker has ended what an earlier producer of that id left open.
    /// `topics` are those it writes to: the smallest size limit among them becomes the client's own, so that a record that
    /// is too large is refused here, by itself, and not with its whole transaction at the broker.
    ///
    /// # Errors
    /// No broker answers, or the id may not be used.
    pub fn connect(kafka: &Kafka, transactional_id: Option<&str>, topics: &[String]) -> Result<Self, Error> {
        let reports = Reports {
            base: Context::default(),
            done: AtomicU64::new(0),
            failed: Mutex::new(None),
            ends: Mutex::new(HashMap::new()),
            noted: Mutex::new(HashMap::new()),
        };
        let id = transactional_id.filter(|_| kafka.transactions);
        let mut config = client::producer(kafka, id);
        let limit = super::topics::message_bytes_max(kafka, topics)?;
        // The broker measures the batch that carries the record: leave room for its frame.
        let record_bytes_max = limit.map(|limit| limit.saturating_sub(BATCH_OVERHEAD).clamp(1000, 1_000_000_000));
        if let Some(limit) = record_bytes_max {
            config.set("message.max.bytes", limit.to_string());
        }
        let inner = BaseProducer::from_config_and_context(&config, reports)
            .map_err(|error| Error::Option { detail: error.to_string() })?;
        let producer = Self {
            inner,
            transactional: id.is_some(),
            record_bytes_max,
            open: false,
            sent: 0,
            brokers: kafka.brokers.clone(),
            written: Vec::new(),
        };
        if producer.transactional {
            producer.retrying("start transactions", || producer.inner.init_transactions(COORDINATOR_TIMEOUT))?;
        }
        Ok(producer)
    }

    /// How large a record may be to fit each of the topics; `None` where no limit is known.
    pub const fn record_bytes_max(&self) -> Option<usize> {
        self.record_bytes_max
    }

    pub fn is_fatal(&self) -> bool {
        // Asked of the client itself: what it has told the context may not have been served yet.
        self.inner.client().fatal_error().is_some()
    }

    /// Begins a transaction unless one is open.
    ///
    /// # Errors
    /// The producer is fenced.
    pub fn begin(&mut self) -> Result<(), Error> {
        if self.transactional && !self.open {
            self.inner.begin_transaction().map_err(|error| self.classify("begin a transaction", error))?;
            self.open = true;
        }
        Ok(())
    }

    fn queue(&mut self, outgoing: &Outgoing<'_>, opaque: usize) -> Result<(), Error> {
        self.begin()?;
        if !self.written.iter().any(|topic| topic == outgoing.topic) {
            self.written.push(outgoing.topic.to_owned());
        }
        let mut record = BaseRecord::with_opaque_to(outgoing.topic, opaque);
        record.partition = outgoing.partition;
        record.key = outgoing.key;
        record.payload = outgoing.value;
        record.timestamp = outgoing.timestamp;
        if outgoing.envelope.is_some() || !outgoing.headers.is_empty() {
            let mut headers = OwnedHeaders::new_with_capacity(outgoing.headers.len() + 1);
            if let Some(envelope) = outgoing.envelope {
                headers = headers.insert(Header { key: tailwater_core::envelope::HEADER, value: Some(envelope) });
            }
            for (key, value) in outgoing.headers {
                headers = headers.insert(Header { key, value: value.as_deref() });
            }
            record.headers = Some(headers);
        }
        let mut rest = REST_MIN;
        loop {
            match self.inner.send(record) {
                Ok(()) => {
                    self.sent += 1;
                    if self.sent.is_multiple_of(1024) {
                        self.inner.poll(Duration::ZERO);
                    }
                    return Ok(());
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    self.serve_or_rest(&mut rest);
                    record = back;
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge), _)) => {
                    let bytes = outgoing.value.map_or(0, <[u8]>::len);
                    return Err(Error::TooLarge { topic: outgoing.topic.to_owned(), bytes });
                }
                Err((
                    KafkaError::MessageProduction(
                        RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic,
                    ),
                    _,
                )) => return Err(Error::TopicMissing { topic: outgoing.topic.to_owned() }),
                Err((error, _)) => return Err(self.classify("produce a record", error)),
            }
        }
    }

    /// Serves delivery reports without waiting.
    pub fn serve(&self) {
        self.inner.poll(Duration::ZERO);
    }

    /// Serves delivery reports; when there are none, rests until there may be. The rests grow while nothing comes.
    fn serve_or_rest(&self, rest: &mut Duration) {
        let done = &self.inner.context().done;
        let before = done.load(Ordering::Acquire);
        self.inner.poll(Duration::ZERO);
        if done.load(Ordering::Acquire) == before {
            std::thread::sleep(*rest);
            *rest = (*rest * 2).min(REST_MAX);
        } else {
            *rest = REST_MIN;
        }
    }

    /// Looks for the cause of a failure that the client itself only shows the consequences of: a topic that was deleted makes records
    /// expire and transactions abort.
    fn diagnosed(&self, error: Error) -> Error {
        let vague = match &error {
            Error::Aborted { .. } | Error::Fenced { .. } | Error::Unreachable { .. } => true,
            Error::Unauthorized { .. }
            | Error::Fatal { .. }
            | Error::TooLarge { .. }
            | Error::OffsetLost { .. }
            | Error::TopicMissing { .. }
            | Error::Option { .. }
            | Error::TopicRecreated { .. }
            | Error::Client { .. } => false,
        };
        if !vague {
            return error;
        }
        for topic in &self.written {
            // A broker that is just starting may not know a topic yet: only two answers alike count.
            if self.is_unknown(topic) {
                std::thread::sleep(TOPIC_LOOK_TIMEOUT);
                if self.is_unknown(topic) {
                    return Error::TopicMissing { topic: topic.clone() };
                }
            }
        }
        error
    }

    /// Whether a broker says that there is no such topic. No answer at all is another trouble, which the error at hand tells already.
    fn is_unknown(&self, topic: &str) -> bool {
        let Ok(metadata) = self.inner.client().fetch_metadata(Some(topic), TOPIC_LOOK_TIMEOUT) else { return false };
        let unknown = |code: Option<rdkafka::types::RDKafkaRespErr>| {
            code.is_some_and(|code| is_unknown_topic(&KafkaError::MetadataFetch(code.into())))
        };
        metadata.topics().iter().any(|found| found.name() == topic && unknown(found.error()))
    }

    fn wait_for_acknowledgements(&mut self) -> Result<(), Error> {
        let started = Instant::now();
        let mut warned = false;
        let mut rest = REST_MIN;
        while self.inner.context().done.load(Ordering::Acquire) < self.sent {
            self.serve_or_rest(&mut rest);
            if self.is_fatal() {
                return Err(self.fatal("produce"));
            }
            if !warned && started.elapsed() > Duration::from_secs(5) {
                warned = true;
                warn!(brokers = %self.brokers, "the broker has not acknowledged records for 5 s; waiting");
            }
        }
        // What a client that cannot go on had queued is given back as purged, which says nothing about the cause.
        if self.is_fatal() {
            return Err(self.fatal("produce"));
        }
        let failed = self.inner.context().failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        match failed {
            None => Ok(()),
            Some((KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge), topic, bytes)) => {
                Err(Error::TooLarge { topic, bytes })
            }
            Some((
                KafkaError::MessageProduction(
                    RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic,
                ),
                topic,
                _,
            )) => Err(Error::TopicMissing { topic }),
            Some((
                KafkaError::MessageProduction(
                    RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::TransactionalIdAuthorizationFailed,
                ),
                topic,
                _,
            )) => {
                Err(Error::Unauthorized { during: format!("write to {topic}"), detail: "no Write permission".into() })
            }
            Some((error, topic, _)) => Err(Error::Aborted { during: "produce", detail: format!("{error} ({topic})") }),
        }
    }

    /// Without transactions, waits until everything produced so far is acknowledged, so that what is produced next is never durable
    /// without it. With them it does nothing: the order within a transaction does not matter.
    ///
    /// # Errors
    /// As [`Self::acknowledged`].
    pub fn outputs_first(&mut self) -> Result<(), Error> {
        if self.transactional { Ok(()) } else { self.acknowledged() }
    }

    fn commit_open(&mut self) -> Result<(), Error> {
        if self.open {
            self.retrying("commit a transaction", || self.inner.commit_transaction(COORDINATOR_TIMEOUT))
                .map_err(|error| self.diagnosed(error))?;
            self.open = false;
        }
        Ok(())
    }

    /// Gives up the open transaction. Whoever calls this reads the batch again.
    pub fn abort(&mut self) {
        if self.open {
            self.open = false;
            if let Err(error) = self.inner.abort_transaction(COORDINATOR_TIMEOUT) {
                warn!("a transaction could not be aborted, the broker will do it after its time-out: {error}");
            }
        }
    }

    fn retrying(&self, during: &'static str, call: impl Fn() -> Result<(), KafkaError>) -> Result<(), Error> {
        let started = Instant::now();
        loop {
            match call() {
                Ok(()) => return Ok(()),
                Err(KafkaError::Transaction(error)) if error.is_retriable() && !error.is_fatal() => {
                    if started.elapsed() > TRANSACTION_PATIENCE {
                        return Err(Error::Unreachable {
                            brokers: self.brokers.clone(),
                            during,
                            why: self.inner.context().base.health.why(),
                            source: KafkaError::Transaction(error),
                        });
                    }
                    self.inner.poll(Duration::from_millis(20));
                }
                Err(KafkaError::Flush(code)) => {
                    return Err(Error::Aborted { during, detail: code.to_string() });
                }
                Err(error) => return Err(self.classify(during, error)),
            }
        }
    }

    fn classify(&self, during: &'static str, error: KafkaError) -> Error {
        if let KafkaError::Transaction(inner) = &error {
            if inner.is_fatal() {
                return fatal(during, inner.code(), inner.string());
            }
            if inner.txn_requires_abort() {
                return Error::Aborted { during, detail: inner.string() };
            }
            if matches!(inner.code(), RDKafkaErrorCode::TransactionalIdAuthorizationFailed) {
                return Error::Unauthorized { during: during.to_owned(), detail: inner.string() };
            }
        }
        if self.is_fatal() {
            return self.fatal(during);
        }
        Error::Aborted { during, detail: error.to_string() }
    }

    fn fatal(&self, during: &'static str) -> Error {
        match self.inner.client().fatal_error() {
            Some((code, text)) => fatal(during, code, format!("{code}: {text}")),
            None => Error::Fatal { during, detail: "unknown".to_owned() },
        }
    }
}

impl Outputs for Producer {
    /// Back-pressure: when the client's buffer is full it waits for acknowledgements.
    fn send(&mut self, outgoing: &Outgoing<'_>) -> Result<(), Error> {
        self.queue(outgoing, 0)
    }
}

impl Log for Producer {
    fn is_transactional(&self) -> bool {
        self.transactional
    }

    fn send_tracked(&mut self, outgoing: &Outgoing<'_>) -> Result<(), Error> {
        self.queue(outgoing, TRACKED)
    }

    fn send_noted(&mut self, outgoing: &Outgoing<'_>) -> Result<(), Error> {
        self.queue(outgoing, NOTED)
    }

    fn end_of(&self, topic: &str, partition: i32) -> Option<i64> {
        let ends = self.inner.context().ends.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        ends.get(&(topic.to_owned(), partition)).copied()
    }

    fn offset_of(&self, topic: &str, partition: i32) -> Option<i64> {
        let noted = self.inner.context().noted.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        noted.get(&(topic.to_owned(), partition)).copied()
    }

    fn acknowledged(&mut self) -> Result<(), Error> {
        self.wait_for_acknowledgements().map_err(|error| self.diagnosed(error))
    }

    fn commit(&mut self, offsets: &TopicPartitionList, group: &impl Group) -> Result<(), Error> {
        let metadata = group.group_metadata()?;
        self.acknowledged()?;
        if !self.transactional {
            return group.commit(offsets);
        }
        if offsets.count() > 0 {
            self.begin()?;
            self.retrying("add offsets to the transaction", || {
                self.inner.send_offsets_to_transaction(offsets, &metadata, COORDINATOR_TIMEOUT)
            })
            .map_err(|error| self.diagnosed(error))?;
        }
        self.commit_open()
    }

    fn commit_without_offsets(&mut self) -> Result<(), Error> {
        self.acknowledged()?;
        if self.transactional { self.commit_open() } else { Ok(()) }
    }
}

/// A client that cannot go on. One that was fenced is no more than that: a new one, with the epoch that the broker gives it, reads
/// the batch again.
fn fatal(during: &'static str, code: RDKafkaErrorCode, detail: String) -> Error {
    match code {
        RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced | RDKafkaErrorCode::InvalidProducerEpoch => {
            Error::Fenced { during, detail }
        }
        _ => Error::Fatal { during, detail },
    }
}

/// How long a call to the coordinator is tried again before the stage gives up and starts anew. With the time that records may take
/// to be acknowledged it stays below what a loop may take for one turn: a broker that is away must not look like a process that hangs.
const TRANSACTION_PATIENCE: Duration = Duration::from_secs(30);

impl Drop for Producer {
    fn drop(&mut self) {
        self.abort();
    }
}
