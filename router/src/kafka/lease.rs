//! The right to be the only one: the assignment of a topic with one partition.
//!
//! Resolve (one resolver per workspace) and every source hold such a lease. It costs no service of its own, Kafka moves it when
//! the holder dies, and its group metadata fences the transactions of a holder that was stopped and woke up again.

use std::time::Duration;

use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::topic_partition_list::TopicPartitionList;

use super::consumer::{Event, Polled, Start};
use super::{Consumer, Error, Group};
use crate::config::model::Kafka;

/// What became of the lease since the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    None,
    Gained,
    Lost,
}

pub struct Lease {
    consumer: Consumer,
    held: bool,
}

impl Lease {
    /// Joins the queue for the lease that the one partition of `topic` stands for.
    ///
    /// # Errors
    /// No client.
    pub fn join(kafka: &Kafka, group: &str, topic: &str) -> Result<Self, Error> {
        Ok(Self { consumer: Consumer::subscribe(kafka, group, &[topic.to_owned()])?, held: false })
    }

    /// Looks after the membership; must be called often, also while the lease is held. When it answers
    /// [`Change::Lost`], the lease is not given back until [`Self::release`] is called.
    ///
    /// # Errors
    /// A fatal error or a missing right.
    pub fn poll(&mut self, wait: Duration) -> Result<Change, Error> {
        match self.consumer.poll(1, 1, wait)? {
            Polled::Event(Event::Assign(partitions)) => {
                let mut starts = Vec::new();
                for (topic, partition) in partitions {
                    let (_, high) = self.consumer.watermarks(&topic, partition)?;
                    starts.push(Start { topic, partition, offset: high, committed: false });
                }
                self.consumer.assigned(&starts)?;
                // The records of the topic are read by others; here only the assignment counts.
                let partitions: Vec<_> = starts.iter().map(|start| (start.topic.clone(), start.partition)).collect();
                self.consumer.pause(&partitions, true)?;
                if partitions.is_empty() {
                    return Ok(Change::None);
                }
                self.held = true;
                Ok(Change::Gained)
            }
            Polled::Event(Event::Revoke { partitions, .. }) => {
                let had = self.held;
                self.held = false;
                self.consumer.revoked(&partitions)?;
                Ok(if had && !partitions.is_empty() { Change::Lost } else { Change::None })
            }
            Polled::Records(_) => Ok(Change::None),
        }
    }
}

impl Group for Lease {
    fn group_metadata(&self) -> Result<ConsumerGroupMetadata, Error> {
        self.consumer.group_metadata()
    }

    fn commit(&self, offsets: &TopicPartitionList) -> Result<(), Error> {
        self.consumer.commit(offsets)
    }
}
