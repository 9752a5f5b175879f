//! Reads partitions from an offset to their end, without a group: restores state, and serves the tools (`tap`, `audit`, `trace`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::{ClientConfig, Offset};

use super::client::Context;
use super::{Error, Record, client, is_unknown_topic, patiently};
use crate::config::model::Kafka;

const QUERY_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a command waits for the first answer of a broker.
const REACH_TIMEOUT: Duration = Duration::from_secs(5);

/// Log lines of the client that are looked through for the reason of a failure.
const LOGS_SERVED_MAX: usize = 64;

/// How long a silent broker is waited for in the middle of a read.
const SILENCE_MAX: Duration = Duration::from_secs(60);

impl ConsumerContext for Context {}

/// A client for reading ranges.
pub struct Reader {
    committed: BaseConsumer<Context>,
    brokers: String,
    config: ClientConfig,
}

/// A part of a partition: from `start` up to, not including, `end`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    pub topic: String,
    pub partition: i32,
    pub start: i64,
    pub end: i64,
}

impl Reader {
    /// # Errors
    /// An option that librdkafka does not know.
    pub fn connect(kafka: &Kafka) -> Result<Self, Error> {
        let mut config = client::consumer(kafka, None);
        config.set("enable.partition.eof", "true");
        let committed = BaseConsumer::from_config_and_context(&config, Context::default())
            .map_err(|error| Error::Option { detail: error.to_string() })?;
        Ok(Self { committed, brokers: kafka.brokers.clone(), config })
    }

    /// A reader for a command: somebody waits for it, so a wrong address is told soon.
    ///
    /// # Errors
    /// An option that librdkafka does not know, or no broker answers.
    pub fn reach(kafka: &Kafka) -> Result<Self, Error> {
        let reader = Self::connect(kafka)?;
        reader.ask(&format!("{}ledger", kafka.prefix), REACH_TIMEOUT)?;
        Ok(reader)
    }

    fn unreachable(&self, during: &'static str) -> impl FnOnce(KafkaError) -> Error + '_ {
        move |source| {
            let health = &self.committed.client().context().health;
            // What the client has logged is handed out by polls alone. Nothing is assigned here, or the read has failed.
            for _ in 0..LOGS_SERVED_MAX {
                if !health.why().is_empty() {
                    break;
                }
                self.committed.poll(Duration::ZERO);
            }
            let why = health.why();
            Error::Unreachable { brokers: self.brokers.clone(), during, why, source }
        }
    }

    /// Why a question about a topic failed.
    fn about(&self, topic: &str, during: &'static str, error: KafkaError) -> Error {
        match self.partitions(topic) {
            Ok(None) if is_unknown_topic(&error) => Error::TopicMissing { topic: topic.to_owned() },
            Ok(_) | Err(_) => self.unreachable(during)(error),
        }
    }

    /// Whether a broker answers; asked by the example of a topic.
    ///
    /// # Errors
    /// None does in time.
    pub fn ask(&self, topic: &str, timeout: Duration) -> Result<(), Error> {
        self.committed.fetch_metadata(Some(topic), timeout).map_err(self.unreachable("read metadata"))?;
        Ok(())
    }

    /// The number of partitions, or `None` if there is no such topic.
    ///
    /// # Errors
    /// No broker answers.
    pub fn partitions(&self, topic: &str) -> Result<Option<i32>, Error> {
        let metadata =
            self.committed.fetch_metadata(Some(topic), QUERY_TIMEOUT).map_err(self.unreachable("read metadata"))?;
        Ok(metadata
            .topics()
            .iter()
            .find(|found| found.name() == topic && found.error().is_none())
            .map(|found| i32::try_from(found.partitions().len()).unwrap_or(i32::MAX))
            .filter(|count| *count > 0))
    }

    /// The topics whose names begin with a prefix.
    ///
    /// # Errors
    /// No broker answers.
    pub fn topics_with(&self, prefix: &str) -> Result<Vec<String>, Error> {
        let metadata = self.committed.fetch_metadata(None, QUERY_TIMEOUT).map_err(self.unreachable("read metadata"))?;
        Ok(metadata
            .topics()
            .iter()
            .map(|topic| topic.name().to_owned())
            .filter(|name| name.starts_with(prefix))
            .collect())
    }

    /// The names of all topics that this client may see, in their order.
    ///
    /// # Errors
    /// No broker answers.
    pub fn topics(&self) -> Result<Vec<String>, Error> {
        let metadata = self.committed.fetch_metadata(None, QUERY_TIMEOUT).map_err(self.unreachable("read metadata"))?;
        let mut names: Vec<String> = metadata.topics().iter().map(|topic| topic.name().to_owned()).collect();
        names.sort();
        Ok(names)
    }

    /// Which cluster this is; a cache that was filled from another one is worthless.
    pub fn cluster_id(&self) -> Option<String> {
        self.committed.client().fetch_cluster_id(QUERY_TIMEOUT)
    }

    /// The first offset, and the next one whose fate is decided (open transactions excluded).
    ///
    /// # Errors
    /// No broker answers.
    pub fn watermarks(&self, topic: &str, partition: i32) -> Result<(i64, i64), Error> {
        patiently(|| self.committed.fetch_watermarks(topic, partition, QUERY_TIMEOUT))
            .map_err(|error| self.about(topic, "read watermarks", error))
    }

    /// Waits until no transaction is open in the partition that began before now, and gives its bounds. A process that was
    /// killed leaves one open until the broker's time-out; what lies behind it would be overlooked otherwise.
    ///
    /// # Errors
    /// No broker answers, or a transaction stays open for far longer than its time-out.
    pub fn settled_watermarks(&self, topic: &str, partition: i32) -> Result<(i64, i64), Error> {
        let mut config = self.config.clone();
        config.set("isolation.level", "read_uncommitted");
        let uncommitted: BaseConsumer<Context> = BaseConsumer::from_config_and_context(&config, Context::default())
            .map_err(|error| Error::Option { detail: error.to_string() })?;
        let (_, high) = patiently(|| uncommitted.fetch_watermarks(topic, partition, QUERY_TIMEOUT))
            .map_err(|error| self.about(topic, "read watermarks", error))?;
        let started = Instant::now();
        loop {
            let (low, stable) = self.watermarks(topic, partition)?;
            if stable >= high {
                return Ok((low, stable));
            }
            if started.elapsed() > client::TRANSACTION_TIMEOUT * 4 {
                return Err(Error::Fatal {
                    during: "wait for open transactions",
                    detail: format!(
                        "{topic}[{partition}] has been undecided from offset {stable} to {high} for {:?}",
                        started.elapsed()
                    ),
                });
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Reads ranges and hands each record to `each`, in the order of each partition, one topic after the other. Stops early
    /// when `each` answers false.
    ///
    /// # Errors
    /// No broker answers for a long time, or `each` fails.
    pub fn read<E: From<Error>>(
        &self,
        ranges: &[Range],
        mut each: impl FnMut(Record) -> Result<bool, E>,
    ) -> Result<(), E> {
        let mut topics: Vec<&str> = ranges.iter().map(|range| range.topic.as_str()).collect();
        topics.sort_unstable();
        topics.dedup();
        for topic in topics {
            let open = ranges.iter().filter(|range| range.topic == topic && range.start < range.end).collect();
            if !self.read_topic(topic, open, &mut each)? {
                break;
            }
        }
        Ok(())
    }

    fn read_topic<E: From<Error>>(
        &self,
        topic: &str,
        mut open: Vec<&Range>,
        each: &mut impl FnMut(Record) -> Result<bool, E>,
    ) -> Result<bool, E> {
        if open.is_empty() {
            return Ok(true);
        }
        let mut list = TopicPartitionList::new();
        for range in &open {
            list.add_partition_offset(topic, range.partition, Offset::Offset(range.start))
                .map_err(|source| Error::Client { during: "set a start offset", source })?;
        }
        self.committed.assign(&list).map_err(|source| Error::Client { during: "assign partitions", source })?;
        let name: Arc<str> = Arc::from(topic);
        let mut heard = Instant::now();
        let mut go_on = true;
        while go_on && !open.is_empty() {
            match self.committed.poll(Duration::from_millis(200)) {
                Some(Ok(message)) => {
                    heard = Instant::now();
                    let (partition, offset) = (message.partition(), message.offset());
                    let Some(index) = open.iter().position(|range| range.partition == partition) else { continue };
                    if offset < open[index].end {
                        go_on = each(Record::from_message(&message, Arc::clone(&name)))?;
                    }
                    if offset + 1 >= open[index].end {
                        open.swap_remove(index);
                    }
                }
                // The last offsets of a range may be markers of transactions, which are no records: the end of the partition ends
                // the range as well.
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    heard = Instant::now();
                    open.retain(|range| range.partition != partition);
                }
                Some(Err(error)) if heard.elapsed() > SILENCE_MAX => {
                    return Err(self.unreachable("read a topic")(error).into());
                }
                None if heard.elapsed() > SILENCE_MAX => {
                    let detail = format!("nothing came for {SILENCE_MAX:?} from {topic}[{}]", open[0].partition);
                    return Err(Error::Fatal { during: "read a topic", detail }.into());
                }
                Some(Err(_)) | None => {}
            }
        }
        if let Err(error) = self.committed.unassign() {
            tracing::debug!("while a read ended: {error}");
        }
        Ok(go_on)
    }

    /// The whole of a topic as ranges, up to what is decided now.
    ///
    /// # Errors
    /// No such topic, or no broker answers.
    pub fn whole(&self, topic: &str) -> Result<Vec<Range>, Error> {
        let count = self.partitions(topic)?.ok_or_else(|| Error::TopicMissing { topic: topic.to_owned() })?;
        (0..count)
            .map(|partition| {
                let (start, end) = self.watermarks(topic, partition)?;
                Ok(Range { topic: topic.to_owned(), partition, start, end })
            })
            .collect()
    }
}
