//! Everything that speaks to Kafka: clients, records, transactions, topics.
//!
//! A stage owns one consumer and one producer and uses both from one thread: it drains a batch, decides, produces, waits
//! for the acknowledgements and commits outputs, state and offsets together. Rebalances are not handled inside the client's
//! callback but handed to that same thread ([`consumer::Event`]), so that revoking a partition can first finish the batch at hand
//! and assigning one can first restore its state, without a lock.
//!
//! Kafka's own silent losses are errors here: offsets are never reset silently, a committed offset outside of what the topic
//! holds stops the stage with its range, and a fatal client error ends the process.

mod advice;
pub mod client;
pub mod consumer;
pub mod lease;
pub mod ownership;
pub mod producer;
pub mod progress;
pub mod read;
pub mod record;
pub mod topics;

use tailwater_core::{Code, code};

pub use consumer::Consumer;
pub use producer::{Outgoing, Producer};
pub use record::Record;

/// The consumer group in whose name a batch is committed.
pub trait Group {
    /// What the broker needs to refuse a process whose partitions have moved on.
    ///
    /// # Errors
    /// The membership was lost; or the client is gone.
    fn group_metadata(&self) -> Result<rdkafka::consumer::ConsumerGroupMetadata, Error>;

    /// Whether the partitions are still this process's.
    ///
    /// # Errors
    /// As [`Self::group_metadata`].
    fn still_owned(&self) -> Result<(), Error> {
        self.group_metadata().map(drop)
    }

    /// Commits offsets (the next ones to read) outside of a transaction.
    ///
    /// # Errors
    /// The group has moved on: another member owns the partitions.
    fn commit(&self, offsets: &rdkafka::TopicPartitionList) -> Result<(), Error>;
}

/// Where records are written to.
pub trait Outputs {
    /// Queues a record.
    ///
    /// # Errors
    /// The record exceeds the size limit, or the client cannot go on.
    fn send(&mut self, outgoing: &Outgoing<'_>) -> Result<(), Error>;
}

/// What the commit of a batch asks of a producer. [`Producer`] is one; tests have others, which show the order of the steps.
pub trait Log: Outputs {
    /// Whether batches are transactions.
    fn is_transactional(&self) -> bool;

    /// Queues a record of a changelog, whose end offset [`Self::end_of`] tells later.
    ///
    /// # Errors
    /// As [`Outputs::send`].
    fn send_tracked(&mut self, outgoing: &Outgoing<'_>) -> Result<(), Error>;

    /// Queues a record whose own offset [`Self::offset_of`] tells later: the last one of its partition that was sent so.
    ///
    /// # Errors
    /// As [`Outputs::send`].
    fn send_noted(&mut self, outgoing: &Outgoing<'_>) -> Result<(), Error>;

    /// The offset after the last record that was written to a changelog partition through [`Self::send_tracked`].
    fn end_of(&self, topic: &str, partition: i32) -> Option<i64>;

    /// The offset of the last record that was written to a partition through [`Self::send_noted`].
    fn offset_of(&self, topic: &str, partition: i32) -> Option<i64>;

    /// Waits until every record is acknowledged.
    ///
    /// # Errors
    /// One of them was refused: the batch has to be read again.
    fn acknowledged(&mut self) -> Result<(), Error>;

    /// Commits what was written and the consumed `offsets`, which are the next ones to read: in one transaction, or, where the broker has
    /// none, the offsets alone, when everything is acknowledged.
    ///
    /// # Errors
    /// [`Error::Aborted`]: nothing of the batch counts, it is read again. [`Error::Fenced`]: the same, and only a new producer can do it.
    fn commit(&mut self, offsets: &rdkafka::TopicPartitionList, group: &impl Group) -> Result<(), Error>;

    /// Commits what was produced, without offsets.
    ///
    /// # Errors
    /// As [`Self::commit`].
    fn commit_without_offsets(&mut self) -> Result<(), Error>;
}

/// How long a partition without a leader is waited for: one that was just made, or whose broker has just gone.
const LEADER_PATIENCE: std::time::Duration = std::time::Duration::from_secs(15);

/// Asks again while a partition has no leader yet.
fn patiently<T>(ask: impl Fn() -> Result<T, rdkafka::error::KafkaError>) -> Result<T, rdkafka::error::KafkaError> {
    use rdkafka::types::RDKafkaErrorCode as Answer;
    let started = std::time::Instant::now();
    loop {
        match ask() {
            Err(error)
                if started.elapsed() < LEADER_PATIENCE
                    && matches!(
                        error.rdkafka_error_code(),
                        Some(
                            Answer::NotLeaderForPartition
                                | Answer::LeaderNotAvailable
                                | Answer::UnknownTopicOrPartition
                                | Answer::UnknownPartition
                        )
                    ) =>
            {
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            other => return other,
        }
    }
}

/// Why a Kafka operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "no broker answers at {brokers} ({during}){}",
        if why.is_empty() { ": check `kafka.brokers`, that the brokers run, and the network between" } else { why }
    )]
    Unreachable {
        brokers: String,
        during: &'static str,
        /// What is known of the connections, and what to check; see [`client::Health::why`].
        why: String,
        #[source]
        source: rdkafka::error::KafkaError,
    },
    #[error("the broker refuses to {during}: {detail}; grant the right or see the reference of topics and groups")]
    Unauthorized { during: String, detail: String },
    #[error("the Kafka client cannot go on ({during}): {detail}")]
    Fatal { during: &'static str, detail: String },
    /// The broker has given the producer's transactional id a new epoch: because its transaction timed out while nobody could reach the
    /// broker, or because another producer has taken the id.
    #[error("the producer was fenced ({during}): {detail}; the batch is read again with a new one")]
    Fenced { during: &'static str, detail: String },
    #[error("the transaction was aborted ({during}): {detail}; the batch is read again")]
    Aborted { during: &'static str, detail: String },
    #[error(
        "a record of {bytes} bytes for {topic} exceeds the broker's size limit; raise `message.max.bytes` of the topic or shrink the row"
    )]
    TooLarge { topic: String, bytes: usize },
    #[error(
        "the committed offset {committed} of {topic}[{partition}] (group {group}) lies outside of what the topic holds ({low} to {high}): {}; \
         find out what is lost, then set the group's offset on purpose: kafka-consumer-groups.sh --group {group} --topic {topic}:{partition} \
         --reset-offsets --to-earliest --execute",
        if committed > high { "the topic was deleted and recreated" } else { "records were removed before they were read" }
    )]
    OffsetLost { group: String, topic: String, partition: i32, committed: i64, low: i64, high: i64 },
    #[error(
        "{topic}[{partition}] does not hold the record at offset {last} any more that was read last (group {group}): the topic was deleted \
         and recreated, and what is new in it before offset {committed} was not read; to read it from its beginning, set the group's offset: \
         kafka-consumer-groups.sh --group {group} --topic {topic} --reset-offsets --to-earliest --execute"
    )]
    TopicRecreated { group: String, topic: String, partition: i32, committed: i64, last: i64 },
    #[error(
        "topic {topic} does not exist, or does not any more; `tailwater topics plan` shows what is missing, `tailwater topics apply` makes it"
    )]
    TopicMissing { topic: String },
    #[error("the Kafka option is not valid: {detail}")]
    Option { detail: String },
    #[error("could not {during}")]
    Client {
        during: &'static str,
        #[source]
        source: rdkafka::error::KafkaError,
    },
}

/// Whether an error says that a topic is not there.
fn is_unknown_topic(error: &rdkafka::error::KafkaError) -> bool {
    use rdkafka::types::RDKafkaErrorCode as Answer;
    matches!(
        error.rdkafka_error_code(),
        Some(Answer::UnknownTopicOrPartition | Answer::UnknownTopic | Answer::UnknownPartition)
    )
}

impl Error {
    pub fn code(&self) -> Code {
        match self {
            Self::Unreachable { .. } | Self::Client { .. } => code::KAFKA_UNREACHABLE,
            Self::Aborted { .. } => code::KAFKA_ABORTED,
            Self::Unauthorized { .. } => code::KAFKA_AUTHORIZATION,
            Self::Fatal { .. } => code::KAFKA_FATAL,
            Self::Fenced { .. } => code::KAFKA_FENCED,
            Self::TooLarge { .. } => code::KAFKA_RECORD_TOO_LARGE,
            Self::OffsetLost { .. } | Self::TopicRecreated { .. } => code::KAFKA_OFFSET_LOST,
            Self::TopicMissing { .. } => code::TOPIC_MISSING,
            Self::Option { .. } => code::CONFIG_INVALID_VALUE,
        }
    }

    /// Whether the stage may start again from the last commit, with new clients.
    pub const fn is_recoverable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Aborted { .. } | Self::Fenced { .. } | Self::Client { .. } => true,
            Self::Unauthorized { .. }
            | Self::Fatal { .. }
            | Self::TooLarge { .. }
            | Self::OffsetLost { .. }
            | Self::TopicRecreated { .. }
            | Self::TopicMissing { .. }
            | Self::Option { .. } => false,
        }
    }
}
