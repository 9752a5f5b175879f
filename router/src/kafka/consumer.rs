//! The consumer of a stage: a member of a group, polled from one thread, drained in batches.
//!
//! A rebalance is not answered inside the client's callback. The callback only notes it; [`Consumer::poll`] hands it to the
//! stage as an [`Event`], and the stage answers with [`Consumer::assigned`] or [`Consumer::revoked`] when its own affairs are in
//! order: the open batch committed, the state restored. Offsets are set explicitly when partitions are assigned, from the
//! committed ones, so that nothing is ever reset silently.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::consumer::{
    BaseConsumer, CommitMode, Consumer as _, ConsumerContext, ConsumerGroupMetadata, RebalanceProtocol,
};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;
use tracing::{debug, info, warn};

use super::client::{self, Context};
use super::ownership::Ownership;
use super::{Error, Group, Record, is_unknown_topic, patiently};
use crate::config::model::Kafka;

/// How long a question to the broker (committed offsets, watermarks) may take.
const QUERY_TIMEOUT: Duration = Duration::from_secs(20);

/// Log lines of the client that are looked through for the reason of a failure.
const LOGS_SERVED_MAX: usize = 64;

/// How long a topic that was not found may take to be known everywhere before it counts as missing.
const TOPIC_PATIENCE: Duration = Duration::from_secs(10);

/// How long the look for it may take.
const TOPIC_LOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// A partition of a topic.
pub type Partition = (Arc<str>, i32);

/// What a poll brought.
#[derive(Debug)]
pub enum Polled {
    /// Records in the order of each partition; none if nothing came in time.
    Records(Vec<Record>),
    Event(Event),
}

/// A change of the assignment that the stage has to answer.
#[derive(Debug)]
pub enum Event {
    /// Answer with [`Consumer::assigned`].
    Assign(Vec<Partition>),
    /// Answer with [`Consumer::revoked`]. When `lost`, another process may own them already: nothing may be committed.
    Revoke { partitions: Vec<Partition>, lost: bool },
}

/// Where a partition is read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    pub topic: Arc<str>,
    pub partition: i32,
    pub offset: i64,
    /// False at the very first start, when nothing was committed yet.
    pub committed: bool,
}

pub struct Consumer {
    inner: BaseConsumer<Rebalances>,
    group: String,
    topics: Vec<Arc<str>>,
    ownership: Arc<Ownership>,
    assigned: BTreeSet<Partition>,
    brokers: String,
    /// Since when a topic is not found. The client reports that once and never again.
    waiting_since: Option<Instant>,
    /// The rebalance that a stage has taken and not answered yet.
    unanswered: Option<Note>,
}

#[derive(Clone)]
enum Note {
    Assign(Vec<(String, i32)>),
    Revoke(Vec<(String, i32)>),
}

struct Rebalances {
    base: Context,
    notes: Mutex<VecDeque<Note>>,
    closing: AtomicBool,
}

impl ClientContext for Rebalances {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.base.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.base.error(error, reason);
    }
}

impl ConsumerContext for Rebalances {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, kind: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let partitions: Vec<(String, i32)> =
            list.elements().iter().map(|element| (element.topic().to_owned(), element.partition())).collect();
        if self.closing.load(Ordering::Relaxed) {
            // The stage has ended and committed; nobody is left to answer.
            let answer = match kind {
                RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => assign_nothing(consumer),
                _ => unassign(consumer, list),
            };
            if let Err(error) = answer {
                debug!("while leaving the group: {error}");
            }
            return;
        }
        let note = match kind {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => Note::Assign(partitions),
            _ => Note::Revoke(partitions),
        };
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).push_back(note);
    }
}

/// Answers an assignment that nobody wants any more. Under the cooperative protocol a plain `assign` is refused, and a
/// rebalance without an answer would keep the client from closing for ever.
fn assign_nothing(consumer: &BaseConsumer<Rebalances>) -> Result<(), KafkaError> {
    let nothing = TopicPartitionList::new();
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_assign(&nothing),
        RebalanceProtocol::Eager | RebalanceProtocol::None => consumer.assign(&nothing),
    }
}

fn unassign(consumer: &BaseConsumer<Rebalances>, list: &TopicPartitionList) -> Result<(), KafkaError> {
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_unassign(list),
        RebalanceProtocol::Eager | RebalanceProtocol::None => consumer.unassign(),
    }
}

// === impl Consumer ===

impl Consumer {
    /// Joins a group that reads `topics`.
    ///
    /// # Errors
    /// An option that librdkafka does not know, or no client.
    pub fn subscribe(kafka: &Kafka, group: &str, topics: &[String]) -> Result<Self, Error> {
        let consumer = Self::create(kafka, group)?;
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        consumer.inner.subscribe(&names).map_err(|source| Error::Client { during: "subscribe to topics", source })?;
        Ok(consumer)
    }

    /// A client with the group's committed offsets, whose partitions are given with [`Self::assigned`] by hand.
    ///
    /// # Errors
    /// An option that librdkafka does not know, or no client.
    pub fn create(kafka: &Kafka, group: &str) -> Result<Self, Error> {
        let context = Rebalances {
            base: Context::default(),
            notes: Mutex::new(VecDeque::new()),
            closing: AtomicBool::new(false),
        };
        let inner = BaseConsumer::from_config_and_context(&client::consumer(kafka, Some(group)), context)
            .map_err(|error| Error::Option { detail: error.to_string() })?;
        Ok(Self {
            inner,
            group: group.to_owned(),
            topics: Vec::new(),
            ownership: Arc::new(Ownership::new(kafka.session_timeout)),
            assigned: BTreeSet::new(),
            brokers: kafka.brokers.clone(),
            waiting_since: None,
            unanswered: None,
        })
    }

    pub fn group(&self) -> &str {
        &self.group
    }

    pub fn ownership(&self) -> Arc<Ownership> {
        Arc::clone(&self.ownership)
    }

    /// The partitions that are assigned and answered.
    pub const fn assignment(&self) -> &BTreeSet<Partition> {
        &self.assigned
    }

    /// Takes what is there: waits up to `wait` for the first record, then drains without waiting, up to the limits.
    ///
    /// # Errors
    /// A fatal error, a missing right or topic, or offsets outside of the log. While no broker answers it returns no
    /// records and goes on.
    pub fn poll(&mut self, records_max: usize, bytes_max: usize, wait: Duration) -> Result<Polled, Error> {
        self.look_for_topics()?;
        if let Some(event) = self.next_event() {
            return Ok(Polled::Event(event));
        }
        let mut records = Vec::new();
        let mut bytes = 0;
        let mut patience = wait;
        while records.len() < records_max && bytes < bytes_max {
            let polled = self.inner.poll(patience);
            // What follows a wait is a matter of milliseconds: the clock need not be asked for every record of it.
            if !patience.is_zero() {
                self.ownership.polled();
            }
            match polled {
                Some(Ok(message)) => {
                    let topic = intern(&mut self.topics, message.topic());
                    let record = Record::from_message(&message, topic);
                    bytes += record.size();
                    records.push(record);
                    patience = Duration::ZERO;
                }
                Some(Err(error)) => self.judge(error)?,
                None => break,
            }
            if !self.inner.context().notes.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
                break;
            }
        }
        if records.is_empty()
            && let Some(event) = self.next_event()
        {
            return Ok(Polled::Event(event));
        }
        if self.inner.context().base.health.is_fatal() {
            let detail =
                self.inner.client().fatal_error().map_or_else(String::new, |(code, text)| format!("{code}: {text}"));
            return Err(Error::Fatal { during: "consume", detail });
        }
        if !records.is_empty() {
            self.inner.context().base.health.up();
        }
        Ok(Polled::Records(records))
    }

    fn next_event(&mut self) -> Option<Event> {
        let note = self.inner.context().notes.lock().unwrap_or_else(PoisonError::into_inner).pop_front()?;
        self.unanswered = Some(note.clone());
        let intern_all = |topics: &mut Vec<Arc<str>>, list: Vec<(String, i32)>| -> Vec<Partition> {
            list.into_iter().map(|(topic, partition)| (intern(topics, &topic), partition)).collect()
        };
        Some(match note {
            Note::Assign(list) => Event::Assign(intern_all(&mut self.topics, list)),
            Note::Revoke(list) => {
                let partitions = intern_all(&mut self.topics, list);
                Event::Revoke { partitions, lost: self.inner.assignment_lost() }
            }
        })
    }

    fn judge(&mut self, error: KafkaError) -> Result<(), Error> {
        match error {
            KafkaError::MessageConsumptionFatal(code) => {
                Err(Error::Fatal { during: "consume", detail: code.to_string() })
            }
            KafkaError::MessageConsumption(code) => match code {
                RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => {
                    // A topic that was just made may need a moment to be known everywhere.
                    self.waiting_since.get_or_insert_with(Instant::now);
                    debug!(group = %self.group, "a topic is not known yet");
                    Ok(())
                }
                RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::GroupAuthorizationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed => Err(Error::Unauthorized {
                    during: format!("read as group {}", self.group),
                    detail: code.to_string(),
                }),
                RDKafkaErrorCode::SaslAuthenticationFailed | RDKafkaErrorCode::Authentication => {
                    Err(Error::Unauthorized { during: "log in".into(), detail: code.to_string() })
                }
                RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange => Err(self.lost_range()),
                RDKafkaErrorCode::PollExceeded => {
                    warn!(group = %self.group, "the stage did not poll in time and left its group; it joins again");
                    Ok(())
                }
                _ => {
                    debug!(group = %self.group, "kafka consumer: {code}");
                    Ok(())
                }
            },
            other => {
                debug!(group = %self.group, "kafka consumer: {other}");
                Ok(())
            }
        }
    }

    /// A topic that was not found for a while is looked for: it may have become known, or it was deleted, and then its records are
    /// gone and nothing would ever come again.
    fn look_for_topics(&mut self) -> Result<(), Error> {
        if self.waiting_since.is_none_or(|since| since.elapsed() < TOPIC_PATIENCE) {
            return Ok(());
        }
        let read: BTreeSet<String> = self.assigned.iter().map(|(topic, _)| topic.to_string()).collect();
        let mut topics = read.clone();
        let subscription = self.inner.subscription().unwrap_or_default();
        topics.extend(subscription.elements().iter().map(|element| element.topic().to_owned()));
        for topic in topics {
            match self.is_known(&topic) {
                Ok(true) => {}
                Ok(false) => return Err(Error::TopicMissing { topic }),
                Err(error) => {
                    debug!(group = %self.group, %topic, "no broker answers the question for a topic: {error}");
                    self.waiting_since = Some(Instant::now());
                    return Ok(());
                }
            }
        }
        self.waiting_since = None;
        if read.is_empty() {
            return Ok(());
        }
        // One of them was gone while it was read. What has come back may be another topic of the same name, and the client would go on
        // in it at the old offset: a new start checks the committed offsets against what is there.
        let topics: Vec<String> = read.into_iter().collect();
        Err(Error::Aborted {
            during: "read",
            detail: format!("one of the topics {} was gone for a while and is there again", topics.join(", ")),
        })
    }

    /// Whether the brokers know the topic.
    fn is_known(&self, topic: &str) -> Result<bool, KafkaError> {
        let metadata = self.inner.fetch_metadata(Some(topic), TOPIC_LOOK_TIMEOUT)?;
        Ok(metadata
            .topics()
            .iter()
            .any(|found| found.name() == topic && found.error().is_none() && !found.partitions().is_empty()))
    }

    /// Names the partition whose offset the broker refused.
    fn lost_range(&self) -> Error {
        let positions = self.inner.position().unwrap_or_default();
        for element in positions.elements() {
            if let Ok((low, high)) = self.inner.fetch_watermarks(element.topic(), element.partition(), QUERY_TIMEOUT) {
                let offset = element.offset().to_raw().unwrap_or(-1);
                if offset >= 0 && (offset < low || offset > high) {
                    return Error::OffsetLost {
                        group: self.group.clone(),
                        topic: element.topic().to_owned(),
                        partition: element.partition(),
                        committed: offset,
                        low,
                        high,
                    };
                }
            }
        }
        Error::Client {
            during: "read at a committed offset",
            source: KafkaError::MessageConsumption(RDKafkaErrorCode::OffsetOutOfRange),
        }
    }

    /// The group's committed offsets; `None` where it has never been.
    ///
    /// # Errors
    /// No answer.
    pub fn committed(&self, partitions: &[Partition]) -> Result<Vec<(Partition, Option<i64>)>, Error> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for (topic, partition) in partitions {
            list.add_partition(topic, *partition);
        }
        let committed = self
            .inner
            .committed_offsets(list, QUERY_TIMEOUT)
            .map_err(|source| self.unreachable("read committed offsets", source))?;
        let offset_of = |(topic, partition): &Partition| {
            committed.find_partition(topic, *partition).and_then(|element| match element.offset() {
                Offset::Offset(offset) => Some(offset),
                Offset::Beginning | Offset::End | Offset::Stored | Offset::Invalid | Offset::OffsetTail(_) => None,
            })
        };
        Ok(partitions.iter().map(|partition| (partition.clone(), offset_of(partition))).collect())
    }

    /// How many members the group has now.
    ///
    /// # Errors
    /// No answer.
    pub fn members(&self) -> Result<usize, Error> {
        let list = self
            .inner
            .fetch_group_list(Some(&self.group), QUERY_TIMEOUT)
            .map_err(|source| self.unreachable("read the group's members", source))?;
        Ok(list.groups().iter().filter(|group| group.name() == self.group).map(|group| group.members().len()).sum())
    }

    /// Where the group left off in these partitions; at the beginning where it has never been.
    ///
    /// # Errors
    /// No answer, or a committed offset outside of what the topic holds. `transactional` tells the topics that are only written in
    /// transactions: see [`removed_only_a_marker`].
    pub fn starts(&self, partitions: &[Partition], transactional: impl Fn(&str) -> bool) -> Result<Vec<Start>, Error> {
        let mut starts = Vec::with_capacity(partitions.len());
        for ((topic, partition), offset) in &self.committed(partitions)? {
            let (low, high) = self.watermarks(topic, *partition)?;
            let start = match *offset {
                Some(committed) if transactional(topic) && removed_only_a_marker(committed, low, high) => {
                    Start { topic: Arc::clone(topic), partition: *partition, offset: low, committed: true }
                }
                Some(committed) if committed < low || committed > high => {
                    return Err(Error::OffsetLost {
                        group: self.group.clone(),
                        topic: topic.to_string(),
                        partition: *partition,
                        committed,
                        low,
                        high,
                    });
                }
                Some(committed) => {
                    Start { topic: Arc::clone(topic), partition: *partition, offset: committed, committed: true }
                }
                None => Start { topic: Arc::clone(topic), partition: *partition, offset: low, committed: false },
            };
            starts.push(start);
        }
        Ok(starts)
    }

    /// The first and the next offset of a partition, transactions that are still open excluded.
    ///
    /// # Errors
    /// No answer in time.
    pub fn watermarks(&self, topic: &str, partition: i32) -> Result<(i64, i64), Error> {
        patiently(|| self.inner.fetch_watermarks(topic, partition, QUERY_TIMEOUT)).map_err(|source| {
            if is_unknown_topic(&source) && matches!(self.is_known(topic), Ok(false)) {
                return Error::TopicMissing { topic: topic.to_owned() };
            }
            self.unreachable("read watermarks", source)
        })
    }

    fn unreachable(&self, during: &'static str, source: KafkaError) -> Error {
        let health = &self.inner.context().base.health;
        // What the client has logged is handed out by polls alone. A record that comes meanwhile is read again after the error.
        for _ in 0..LOGS_SERVED_MAX {
            if !health.why().is_empty() {
                break;
            }
            drop(self.inner.poll(Duration::ZERO));
        }
        let why = health.why();
        Error::Unreachable { brokers: self.brokers.clone(), during, why, source }
    }

    /// Answers [`Event::Assign`]: the partitions are read from these offsets.
    ///
    /// # Errors
    /// The assignment has changed meanwhile in a way the client cannot follow.
    pub fn assigned(&mut self, starts: &[Start]) -> Result<(), Error> {
        let mut list = TopicPartitionList::with_capacity(starts.len());
        for start in starts {
            list.add_partition_offset(&start.topic, start.partition, Offset::Offset(start.offset))
                .map_err(|source| Error::Client { during: "set a start offset", source })?;
        }
        let result = match self.inner.rebalance_protocol() {
            RebalanceProtocol::Cooperative => self.inner.incremental_assign(&list),
            RebalanceProtocol::Eager | RebalanceProtocol::None => self.inner.assign(&list),
        };
        result.map_err(|source| Error::Client { during: "take over partitions", source })?;
        self.unanswered = None;
        for start in starts {
            self.assigned.insert((Arc::clone(&start.topic), start.partition));
        }
        self.ownership.set(|owned| owned.extend(starts.iter().map(|start| start.partition)));
        if !starts.is_empty() {
            info!(group = %self.group, partitions = %list_text(starts.iter().map(|start| (&start.topic, start.partition))), "partitions assigned");
        }
        Ok(())
    }

    /// Answers [`Event::Revoke`]: the stage has finished with the partitions.
    ///
    /// # Errors
    /// As [`Self::assigned`].
    pub fn revoked(&mut self, partitions: &[Partition]) -> Result<(), Error> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for (topic, partition) in partitions {
            list.add_partition(topic, *partition);
            self.assigned.remove(&(Arc::clone(topic), *partition));
        }
        let left: BTreeSet<i32> = self.assigned.iter().map(|(_, partition)| *partition).collect();
        self.ownership.set(|owned| *owned = left);
        unassign(&self.inner, &list).map_err(|source| Error::Client { during: "give partitions back", source })?;
        self.unanswered = None;
        if !partitions.is_empty() {
            info!(group = %self.group, partitions = %list_text(partitions.iter().map(|(topic, partition)| (topic, *partition))), "partitions revoked");
        }
        Ok(())
    }

    /// Forgets ownership before the partitions are given back, so that nothing new is sent for them.
    pub fn renounce(&self, partitions: &[Partition]) {
        self.ownership.set(|owned| {
            for (_, partition) in partitions {
                owned.remove(partition);
            }
        });
    }

    /// Stops or goes on reading partitions, while the group membership lives on.
    ///
    /// # Errors
    /// The client does not own them.
    pub fn pause(&self, partitions: &[Partition], pause: bool) -> Result<(), Error> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for (topic, partition) in partitions {
            list.add_partition(topic, *partition);
        }
        let result = if pause { self.inner.pause(&list) } else { self.inner.resume(&list) };
        result.map_err(|source| Error::Client { during: "pause or resume partitions", source })
    }
}

impl Group for Consumer {
    fn group_metadata(&self) -> Result<ConsumerGroupMetadata, Error> {
        let metadata = self.inner.group_metadata().ok_or_else(|| Error::Fatal {
            during: "read the group's metadata",
            detail: "the consumer has no group".into(),
        })?;
        // A member that was thrown out has neither id nor generation any more, and the broker takes offsets without them from
        // anybody. Asked after the metadata was taken, because the client changes both in one step: an answer of no means that
        // the metadata are those of a member, which the broker refuses once they are old.
        if self.inner.assignment_lost() {
            return Err(Error::Aborted {
                during: "read the group's metadata",
                detail: format!("the membership in group {} was lost", self.group),
            });
        }
        Ok(metadata)
    }

    fn commit(&self, offsets: &TopicPartitionList) -> Result<(), Error> {
        if offsets.count() == 0 {
            return Ok(());
        }
        self.inner
            .commit(offsets, CommitMode::Sync)
            .map_err(|error| Error::Aborted { during: "commit offsets", detail: error.to_string() })
    }
}

/// Whether all that retention removed behind a committed offset was the marker that ends a transaction. It is when the log is empty now
/// and held one more offset: the last offset of a log that is only written in transactions is always a marker, which is never
/// consumed and so never committed.
pub const fn removed_only_a_marker(committed: i64, low: i64, high: i64) -> bool {
    low == high && committed + 1 == low
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.inner.context().closing.store(true, Ordering::Relaxed);
        self.ownership.set(BTreeSet::clear);
        // A rebalance that nobody has answered keeps the client from closing for ever: one that still waits here, and one that a stage
        // has taken and failed over.
        let waiting: Vec<Note> =
            self.inner.context().notes.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect();
        for note in self.unanswered.take().into_iter().chain(waiting) {
            let (Note::Assign(partitions) | Note::Revoke(partitions)) = &note;
            let mut list = TopicPartitionList::new();
            if matches!(note, Note::Revoke(_)) {
                for (topic, partition) in partitions {
                    list.add_partition(topic, *partition);
                }
            }
            let answer = match note {
                Note::Assign(_) => assign_nothing(&self.inner),
                Note::Revoke(_) => unassign(&self.inner, &list),
            };
            if let Err(error) = answer {
                debug!(group = %self.group, "while leaving the group: {error}");
            }
        }
    }
}

fn intern(topics: &mut Vec<Arc<str>>, name: &str) -> Arc<str> {
    if let Some(known) = topics.iter().find(|known| ***known == *name) {
        return Arc::clone(known);
    }
    let new: Arc<str> = Arc::from(name);
    topics.push(Arc::clone(&new));
    new
}

/// `tailwater.resolved[0,1,2]` for logs.
fn list_text<'a>(partitions: impl Iterator<Item = (&'a Arc<str>, i32)>) -> String {
    let mut by_topic: std::collections::BTreeMap<&str, Vec<String>> = std::collections::BTreeMap::new();
    for (topic, partition) in partitions {
        by_topic.entry(topic).or_default().push(partition.to_string());
    }
    let texts: Vec<String> = by_topic.iter().map(|(topic, list)| format!("{topic}[{}]", list.join(","))).collect();
    texts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emptied_topic_has_lost_nothing_but_the_marker_of_its_last_transaction() {
        assert!(removed_only_a_marker(13, 14, 14));
        assert!(!removed_only_a_marker(13, 14, 15), "the record at 13 had a marker behind it, which is still there");
        assert!(!removed_only_a_marker(12, 14, 14), "12 may have been a record");
        assert!(!removed_only_a_marker(14, 14, 14), "nothing was removed");
    }
}
