//! Where a consumer group stands in its topics, seen from beside it: without joining it, and with short waits.

use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::TopicPartitionList;

use super::client::{self, Context};
use super::{Error, is_unknown_topic};
use crate::config::model::Kafka;

/// A client that looks at one group.
pub struct Progress {
    inner: BaseConsumer<Context>,
    brokers: String,
    topics: Vec<String>,
}

/// Where the group stands in a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub topic: String,
    pub partition: i32,
    /// The next offset that the group reads: the committed one, or the first that there is.
    pub next: i64,
    /// The next offset that is written, open transactions excluded.
    pub end: i64,
}

impl Progress {
    /// # Errors
    /// An option that librdkafka does not know.
    pub fn connect(kafka: &Kafka, group: &str, topics: &[String]) -> Result<Self, Error> {
        let mut config = client::consumer(kafka, Some(group));
        config.set("enable.partition.eof", "true");
        let inner = BaseConsumer::from_config_and_context(&config, Context::default())
            .map_err(|error| Error::Option { detail: error.to_string() })?;
        Ok(Self { inner, brokers: kafka.brokers.clone(), topics: topics.to_vec() })
    }

    fn unreachable(&self, during: &'static str, source: KafkaError) -> Error {
        let why = self.inner.client().context().health.why();
        Error::Unreachable { brokers: self.brokers.clone(), during, why, source }
    }

    /// Looks at every partition of the topics that exist. `stop` is asked between two questions.
    ///
    /// # Errors
    /// A question is not answered within `wait`.
    pub fn look(&self, wait: Duration, stop: &dyn Fn() -> bool) -> Result<Vec<Standing>, Error> {
        let mut list = TopicPartitionList::new();
        for topic in &self.topics {
            let metadata = self
                .inner
                .fetch_metadata(Some(topic), wait)
                .map_err(|source| self.unreachable("read metadata", source))?;
            for found in metadata.topics().iter().filter(|found| found.name() == topic && found.error().is_none()) {
                for partition in found.partitions() {
                    list.add_partition(topic, partition.id());
                }
            }
        }
        if list.count() == 0 || stop() {
            return Ok(Vec::new());
        }
        let committed = self
            .inner
            .committed_offsets(list, wait)
            .map_err(|source| self.unreachable("read committed offsets", source))?;
        let mut standings = Vec::with_capacity(committed.count());
        for element in committed.elements() {
            if stop() {
                break;
            }
            let (topic, partition) = (element.topic(), element.partition());
            let (low, high) = match self.inner.fetch_watermarks(topic, partition, wait) {
                Ok(range) => range,
                // It has just been deleted, which its readers find out by themselves.
                Err(error) if is_unknown_topic(&error) => continue,
                Err(error) => return Err(self.unreachable("read watermarks", error)),
            };
            let next = match element.offset() {
                Offset::Offset(offset) => offset.max(low),
                _ => low,
            };
            standings.push(Standing { topic: topic.to_owned(), partition, next, end: high });
        }
        Ok(standings)
    }

    /// Whether there is a record that the group has not read, and not only the ends of transactions. False if that is not known in time.
    pub fn has_record(&self, standing: &Standing, wait: Duration) -> bool {
        let mut list = TopicPartitionList::new();
        let start = Offset::Offset(standing.next);
        if list.add_partition_offset(&standing.topic, standing.partition, start).is_err() {
            return false;
        }
        if self.inner.assign(&list).is_err() {
            return false;
        }
        let started = Instant::now();
        let mut found = false;
        while started.elapsed() < wait {
            match self.inner.poll(Duration::from_millis(100)) {
                Some(Ok(_)) => {
                    found = true;
                    break;
                }
                Some(Err(KafkaError::PartitionEOF(_))) => break,
                Some(Err(_)) | None => {}
            }
        }
        self.inner.unassign().ok();
        found
    }
}
