//! Looking into topics and writing to them, as any Kafka client could.

use std::fmt;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{ClientConfig, FromClientConfig as _};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};
use tailwater_core::envelope::{self, Envelope};

use crate::runtime;
use crate::wait::{PATIENCE, eventually};

const TIMEOUT: Duration = Duration::from_secs(30);

/// The topics of one broker.
#[derive(Debug, Clone)]
pub struct Topics {
    brokers: String,
}

/// A record, read back.
#[derive(Clone, PartialEq, Eq)]
pub struct Seen {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub timestamp_ms: Option<i64>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// A record to write.
#[derive(Debug, Clone, Default)]
pub struct New<'a> {
    pub partition: Option<i32>,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: &'a [(&'a str, &'a [u8])],
    /// Now, if there is none.
    pub timestamp_ms: Option<i64>,
}

// === impl Topics ===

impl Topics {
    pub fn at(brokers: &str) -> Self {
        Self { brokers: brokers.to_owned() }
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        config
    }

    fn consumer(&self) -> BaseConsumer {
        // The group is never joined: partitions are assigned.
        self.client()
            .set("group.id", "tailwater-tests-never-joined")
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .set("allow.auto.create.topics", "false")
            .set("fetch.message.max.bytes", "33554432")
            .create()
            .unwrap_or_else(|error| panic!("no consumer for {}: {error}", self.brokers))
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        AdminClient::from_config(&self.client()).unwrap_or_else(|error| panic!("no admin client: {error}"))
    }

    /// Takes a transactional id away from whoever has it.
    pub fn fence(&self, transactional_id: &str) {
        let producer: BaseProducer = self
            .client()
            .set("transactional.id", transactional_id)
            .create()
            .unwrap_or_else(|error| panic!("no producer for {}: {error}", self.brokers));
        producer.init_transactions(TIMEOUT).unwrap_or_else(|error| panic!("{transactional_id}: {error}"));
    }

    /// Makes a topic; it must not exist.
    pub fn create(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        for (setting, value) in settings {
            topic = topic.set(setting, value);
        }
        let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
        let results = runtime().block_on(self.admin().create_topics(&[topic], &options));
        match results {
            Ok(results) => {
                for result in results {
                    result.unwrap_or_else(|(topic, error)| panic!("topic {topic} could not be made: {error}"));
                }
            }
            Err(error) => panic!("topic {name} could not be made: {error}"),
        }
    }

    pub fn delete(&self, name: &str) {
        let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
        let results = runtime().block_on(self.admin().delete_topics(&[name], &options));
        for result in results.unwrap_or_else(|error| panic!("topic {name} could not be deleted: {error}")) {
            result.unwrap_or_else(|(topic, error)| panic!("topic {topic} could not be deleted: {error}"));
        }
    }

    /// Removes all records that a topic holds now, as retention does.
    pub fn empty(&self, name: &str) {
        let mut upto = TopicPartitionList::new();
        for (partition, (_, high)) in self.watermarks(name) {
            upto.add_partition_offset(name, partition, Offset::Offset(high))
                .unwrap_or_else(|error| panic!("{name}[{partition}]@{high}: {error}"));
        }
        let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
        runtime()
            .block_on(self.admin().delete_records(&upto, &options))
            .unwrap_or_else(|error| panic!("the records of {name} could not be removed: {error}"));
    }

    /// Commits the end of a topic for a consumer group that nobody is in: whatever it had not read is lost to it.
    pub fn move_group_to_end(&self, group: &str, topic: &str) {
        let consumer: BaseConsumer = self
            .client()
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .create()
            .unwrap_or_else(|error| panic!("no consumer: {error}"));
        let mut offsets = TopicPartitionList::new();
        for (partition, (_, high)) in watermarks_of(&consumer, topic) {
            offsets
                .add_partition_offset(topic, partition, Offset::Offset(high))
                .unwrap_or_else(|error| panic!("{topic}[{partition}]@{high}: {error}"));
        }
        // The group may still be closing.
        eventually("the group's offsets are moved", PATIENCE, || {
            consumer.commit(&offsets, CommitMode::Sync).map_err(|error| error.to_string())
        });
    }

    /// Removes a group that nobody is in, and all its offsets with it: what the broker does with offsets that nobody commits for a week.
    pub fn delete_group(&self, group: &str) {
        let options = AdminOptions::new().request_timeout(Some(TIMEOUT));
        // The group may still be closing.
        eventually(&format!("group {group} is deleted"), PATIENCE, || {
            let results = runtime().block_on(self.admin().delete_groups(&[group], &options));
            match results.map_err(|error| error.to_string())?.pop() {
                Some(Ok(_)) => Ok(()),
                Some(Err((group, error))) => Err(format!("{group}: {error}")),
                None => Err("no answer".into()),
            }
        });
    }

    /// Where a group stands in a topic, for the message of a test that waited in vain: per partition the committed offset, the end of what
    /// is committed by transactions, and the end.
    pub fn lag(&self, group: &str, topic: &str) -> String {
        let consumer = |isolation: &str| -> BaseConsumer {
            let mut config = self.client();
            config.set("group.id", group).set("enable.auto.commit", "false").set("isolation.level", isolation);
            config.create().unwrap_or_else(|error| panic!("no consumer: {error}"))
        };
        let (committed, all) = (consumer("read_committed"), consumer("read_uncommitted"));
        let mut text = format!("{group} in {topic}:");
        for (partition, (low, stable)) in watermarks_of(&committed, topic) {
            let mut list = TopicPartitionList::new();
            list.add_partition(topic, partition);
            let offset = committed.committed_offsets(list, TIMEOUT).ok();
            let offset = offset.and_then(|list| {
                list.find_partition(topic, partition)
                    .as_ref()
                    .map(rdkafka::topic_partition_list::TopicPartitionListElem::offset)
            });
            let high = all.fetch_watermarks(topic, partition, TIMEOUT).map_or(-1, |(_, high)| high);
            text.push_str(&format!(" [{partition}] {offset:?} of {low}..{stable}..{high}"));
        }
        text
    }

    /// The names of all topics that begin so.
    pub fn names(&self, prefix: &str) -> Vec<String> {
        let metadata = self.consumer().fetch_metadata(None, TIMEOUT);
        let metadata = metadata.unwrap_or_else(|error| panic!("no metadata from {}: {error}", self.brokers));
        let mut names: Vec<String> = metadata
            .topics()
            .iter()
            .map(|topic| topic.name().to_owned())
            .filter(|name| name.starts_with(prefix))
            .collect();
        names.sort();
        names
    }

    /// The partitions of a topic with their first and next offset; empty if there is no such topic.
    pub fn watermarks(&self, name: &str) -> Vec<(i32, (i64, i64))> {
        watermarks_of(&self.consumer(), name)
    }

    /// Writes records and waits until the broker has them.
    ///
    /// # Errors
    /// The broker refuses one.
    pub fn try_produce<'a>(&self, topic: &str, records: impl IntoIterator<Item = New<'a>>) -> Result<(), KafkaError> {
        let producer: BaseProducer = self
            .client()
            .set("enable.idempotence", "true")
            .set("linger.ms", "5")
            .set("message.max.bytes", "33554432")
            .set("partitioner", "murmur2_random")
            .create()?;
        for record in records {
            let mut headers = OwnedHeaders::new();
            for (key, value) in record.headers {
                headers = headers.insert(Header { key, value: Some(*value) });
            }
            let mut next: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).headers(headers);
            next.partition = record.partition;
            next.key = record.key;
            next.payload = record.value;
            next.timestamp = record.timestamp_ms;
            while let Err((error, again)) = producer.send(next) {
                if error.rdkafka_error_code() != Some(rdkafka::error::RDKafkaErrorCode::QueueFull) {
                    return Err(error);
                }
                producer.poll(Duration::from_millis(50));
                next = again;
            }
        }
        producer.flush(TIMEOUT)
    }

    pub fn produce<'a>(&self, topic: &str, records: impl IntoIterator<Item = New<'a>>) {
        self.try_produce(topic, records).unwrap_or_else(|error| panic!("records for {topic} were refused: {error}"));
    }

    /// Writes JSON values under a key.
    pub fn produce_json<'a>(&self, topic: &str, rows: impl IntoIterator<Item = (&'a str, serde_json::Value)>) {
        let rows: Vec<(&str, Vec<u8>)> =
            rows.into_iter().map(|(key, row)| (key, row.to_string().into_bytes())).collect();
        self.produce(
            topic,
            rows.iter().map(|(key, row)| New { key: Some(key.as_bytes()), value: Some(row), ..New::default() }),
        );
    }

    /// Everything that a topic holds now, partition by partition in order; only what was committed. Empty if there is no such topic.
    pub fn read(&self, name: &str) -> Vec<Seen> {
        let mut seen = Vec::new();
        self.each(name, |record| seen.push(record));
        seen.sort_by_key(|record| (record.partition, record.offset));
        seen
    }

    /// Looks at everything that a topic holds now, without keeping it; in order within a partition, and only what was committed.
    pub fn each(&self, name: &str, mut look: impl FnMut(Seen)) {
        let consumer = self.consumer();
        let mut assignment = TopicPartitionList::new();
        let mut open = 0;
        for (partition, (low, high)) in watermarks_of(&consumer, name) {
            if low < high {
                assignment
                    .add_partition_offset(name, partition, Offset::Offset(low))
                    .unwrap_or_else(|error| panic!("{name}[{partition}]@{low}: {error}"));
                open += 1;
            }
        }
        consumer.assign(&assignment).unwrap_or_else(|error| panic!("{name} cannot be assigned: {error}"));
        let mut deadline = Instant::now() + TIMEOUT;
        while open > 0 {
            assert!(Instant::now() < deadline, "{name} could not be read to its end");
            match consumer.poll(Duration::from_millis(200)) {
                Some(Ok(message)) => {
                    deadline = Instant::now() + TIMEOUT;
                    look(Seen::from(&message));
                }
                Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
                Some(Err(error)) => panic!("{name} cannot be read: {error}"),
                None => {}
            }
        }
    }

    /// How many committed records a topic holds.
    pub fn count(&self, name: &str) -> usize {
        self.read(name).len()
    }
}

fn watermarks_of(consumer: &BaseConsumer, name: &str) -> Vec<(i32, (i64, i64))> {
    let metadata = consumer.fetch_metadata(Some(name), TIMEOUT);
    let metadata = metadata.unwrap_or_else(|error| panic!("no metadata of {name}: {error}"));
    let partitions = metadata
        .topics()
        .iter()
        .filter(|topic| topic.name() == name)
        .flat_map(rdkafka::metadata::MetadataTopic::partitions);
    partitions
        .map(|partition| {
            // A partition that was made, or whose broker came back, a moment ago may have no leader yet.
            let marks = eventually(&format!("watermarks of {name}[{}]", partition.id()), TIMEOUT, || {
                consumer.fetch_watermarks(name, partition.id(), TIMEOUT).map_err(|error| error.to_string())
            });
            (partition.id(), marks)
        })
        .collect()
}

// === impl Seen ===

impl From<&BorrowedMessage<'_>> for Seen {
    fn from(message: &BorrowedMessage<'_>) -> Self {
        let headers = message.headers().map(|headers| {
            headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
        });
        Self {
            topic: message.topic().to_owned(),
            partition: message.partition(),
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: headers.unwrap_or_default(),
        }
    }
}

impl Seen {
    /// The value of a header as text.
    pub fn header(&self, name: &str) -> Option<String> {
        self.bytes(name).map(|value| String::from_utf8_lossy(value).into_owned())
    }

    fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(key, _)| key == name).and_then(|(_, value)| value.as_deref())
    }

    /// The record's envelope; it must have one.
    pub fn envelope(&self) -> Envelope<'_> {
        let header = self.bytes(envelope::HEADER).unwrap_or_else(|| panic!("{self:?} has no envelope"));
        Envelope::decode(header).unwrap_or_else(|error| panic!("{self:?}: {error}"))
    }

    /// The value as JSON; it must be JSON.
    pub fn json(&self) -> serde_json::Value {
        let value = self.value.as_deref().unwrap_or_default();
        serde_json::from_slice(value).unwrap_or_else(|error| panic!("{self:?} is no JSON: {error}"))
    }

    pub fn at(&self) -> String {
        format!("{}[{}]@{}", self.topic, self.partition, self.offset)
    }
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        write!(f, "{} key {:?} value {:?}", self.at(), text(&self.key), text(&self.value))
    }
}
