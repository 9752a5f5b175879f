//! The partitions of a topic as a consumer group sees them, for [`super::fences`].

use std::sync::Arc;

use tailwater_core::ProfileId;

use super::fences::FencedPartitions;
use crate::config::model::Kafka;
use crate::kafka::read::{Range, Reader};
use crate::kafka::{self, Consumer};
use crate::stages::Error;

pub struct GroupPartitions<'a> {
    pub kafka: &'a Kafka,
    pub consumer: &'a Consumer,
    pub topic: &'a Arc<str>,
}

impl FencedPartitions for GroupPartitions<'_> {
    fn partition_of(&self, profile: ProfileId) -> i32 {
        i32::try_from(profile.partition(self.kafka.partitions)).unwrap_or(0)
    }

    fn partition_end(&mut self, partition: i32) -> Result<i64, Error> {
        Ok(self.consumer.watermarks(self.topic, partition)?.1)
    }

    fn has_read(&mut self, partition: i32, end: i64) -> Result<bool, Error> {
        let committed = self.consumer.committed(&[(Arc::clone(self.topic), partition)])?;
        let (low, _) = self.consumer.watermarks(self.topic, partition)?;
        let position = committed.first().and_then(|(_, offset)| *offset).map_or(low, |offset| offset.max(low));
        if position >= end {
            return Ok(true);
        }
        // What is left may be markers of transactions, which nobody reads and commits.
        let range = Range { topic: self.topic.to_string(), partition, start: position, end };
        let mut is_read = true;
        Reader::connect(self.kafka)?.read::<kafka::Error>(&[range], |_| {
            is_read = false;
            Ok(false)
        })?;
        Ok(is_read)
    }
}
