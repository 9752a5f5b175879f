//! How far a consumer group has come, and how fast the process behind it gets there.
//!
//! Committed offsets are what both a stage and a plain pipe show of themselves: neither has to count, and nothing that is not
//! committed counts. Samples are taken right when a commit appears, so that hardly any work of the next batch is in them.

use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};

use crate::process::Process;

const TIMEOUT: Duration = Duration::from_secs(30);

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(4);

/// The first part of the work, which warms up what is measured: connections, compiled JavaScript, caches.
const WARM_UP: f64 = 0.25;

/// A partition may end with markers of transactions, which nobody commits.
const MARKERS_MAX: i64 = 2;

/// A group's offsets in one topic.
pub struct Progress {
    consumer: BaseConsumer,
    ranges: Vec<Range>,
    topic: String,
}

/// What there is to do in a partition.
struct Range {
    partition: i32,
    low: i64,
    /// Where the group stood when this was made.
    start: i64,
    high: i64,
}

/// What a process did with its processor time.
#[derive(Debug, Clone, Copy)]
pub struct Speed {
    pub per_second: f64,
    pub per_processor_second: f64,
}

// === impl Progress ===

impl Progress {
    /// What a group has to read of a topic, as the topic is now.
    pub fn of(brokers: &str, group: &str, topic: &str) -> Self {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            // Or else the broker would not answer while a transaction with offsets is open, which is nearly always.
            .set("isolation.level", "read_uncommitted")
            .create()
            .unwrap_or_else(|error| panic!("no consumer: {error}"));
        let metadata = consumer
            .fetch_metadata(Some(topic), TIMEOUT)
            .unwrap_or_else(|error| panic!("no metadata of {topic}: {error}"));
        let partitions = metadata
            .topics()
            .iter()
            .flat_map(|topic| topic.partitions().iter().map(rdkafka::metadata::MetadataPartition::id));
        let mut ranges: Vec<Range> = partitions
            .map(|partition| {
                let marks = consumer.fetch_watermarks(topic, partition, TIMEOUT);
                let (low, high) = marks.unwrap_or_else(|error| panic!("{topic}[{partition}]: {error}"));
                Range { partition, low, start: low, high }
            })
            .collect();
        let committed = committed(&consumer, topic, &ranges);
        for (range, at) in ranges.iter_mut().zip(committed) {
            range.start = at;
        }
        Self { consumer, ranges, topic: topic.to_owned() }
    }

    /// Sends the group back to the beginning. Nobody may be in it.
    pub fn rewind(&mut self) {
        let list = list(&self.topic, &self.ranges, Offset::Offset);
        let until = Instant::now() + TIMEOUT;
        // The group may still be closing.
        while let Err(error) = self.consumer.commit(&list, CommitMode::Sync) {
            assert!(Instant::now() < until, "the group of {} cannot be sent back: {error}", self.topic);
            std::thread::sleep(Duration::from_millis(100));
        }
        for range in &mut self.ranges {
            range.start = range.low;
        }
    }

    /// The part that is committed (0 to 1), and whether that is all.
    fn part(&self) -> (f64, bool) {
        let (mut done, mut total, mut all) = (0, 0, true);
        for (range, at) in self.ranges.iter().zip(committed(&self.consumer, &self.topic, &self.ranges)) {
            done += at - range.start;
            total += range.high - range.start;
            all &= at >= range.high - MARKERS_MAX;
        }
        (if all { 1.0 } else { done as f64 / total.max(1) as f64 }, all)
    }

    /// Watches a process work through all of it, and tells its speed after the warm-up. `events` is how many there are in all.
    pub fn measure(&self, process: &mut Process, events: usize, patience: Duration) -> Speed {
        let until = Instant::now() + patience;
        let mut last = 0.0;
        let mut first: Option<(f64, Instant, f64)> = None;
        loop {
            let (part, all) = self.part();
            if part > last {
                last = part;
                let now = (part, Instant::now(), process.processor_seconds());
                match &first {
                    Some((from, since, before)) if all => {
                        let done = (part - from) * events as f64;
                        return Speed {
                            per_second: done / (now.1 - *since).as_secs_f64(),
                            per_processor_second: done / (now.2 - before).max(f64::MIN_POSITIVE),
                        };
                    }
                    None if all => panic!("{} was worked off in one step; more events are needed", self.topic),
                    None if part >= WARM_UP => first = Some(now),
                    Some(_) | None => {}
                }
            }
            process.assert_running();
            assert!(
                Instant::now() < until,
                "{}: {:.0} % after {patience:?}\n{}",
                self.topic,
                last * 100.0,
                process.log()
            );
            std::thread::sleep(PAUSE);
        }
    }

    /// Waits until everything is committed.
    pub fn wait(&self, process: &mut Process, patience: Duration) {
        let until = Instant::now() + patience;
        loop {
            let (part, all) = self.part();
            if all {
                return;
            }
            process.assert_running();
            assert!(
                Instant::now() < until,
                "{}: {:.0} % after {patience:?}\n{}",
                self.topic,
                part * 100.0,
                process.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn list(topic: &str, ranges: &[Range], offset: impl Fn(i64) -> Offset) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for range in ranges {
        list.add_partition_offset(topic, range.partition, offset(range.low))
            .unwrap_or_else(|error| panic!("{topic}[{}]: {error}", range.partition));
    }
    list
}

/// What the group has committed of each range, and where it begins if that is nothing.
fn committed(consumer: &BaseConsumer, topic: &str, ranges: &[Range]) -> Vec<i64> {
    let until = Instant::now() + TIMEOUT;
    let answer = loop {
        // A coordinator that moves or is busy says so; it is asked again.
        match consumer.committed_offsets(list(topic, ranges, |_| Offset::Invalid), TIMEOUT) {
            Ok(answer) => break answer,
            Err(error) => assert!(Instant::now() < until, "no offsets of {topic}: {error}"),
        }
        std::thread::sleep(PAUSE);
    };
    ranges
        .iter()
        .map(|range| match answer.find_partition(topic, range.partition).map(|element| element.offset()) {
            Some(Offset::Offset(at)) => at.max(range.low),
            Some(_) | None => range.low,
        })
        .collect()
}
