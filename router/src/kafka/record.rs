//! A record that was read from Kafka, in memory of its own: key, value and the `tw` header lie in one allocation.

use std::sync::Arc;

use rdkafka::message::{BorrowedMessage, Headers as _, Message as _, Timestamp as KafkaTimestamp};
use tailwater_core::envelope::{self, Envelope};
use tailwater_core::{Coordinates, Timestamp};

/// A record's bytes and its place.
#[derive(Debug, Clone)]
pub struct Record {
    pub topic: Arc<str>,
    pub partition: i32,
    pub offset: i64,
    /// Milliseconds since the epoch; when the producer made it, or the broker appended it.
    pub timestamp: Timestamp,
    bytes: Box<[u8]>,
    key: Option<u32>,
    value: Option<u32>,
    header: Option<u32>,
    /// Headers other than `tw`, in their order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Record {
    /// Copies a message. `topic` is interned by the caller.
    pub fn from_message(message: &BorrowedMessage<'_>, topic: Arc<str>) -> Self {
        let mut header = None;
        let mut headers = Vec::new();
        if let Some(all) = message.headers() {
            for one in all.iter() {
                if one.key == envelope::HEADER && header.is_none() {
                    header = one.value;
                } else {
                    headers.push((one.key.to_owned(), one.value.map(<[u8]>::to_vec)));
                }
            }
        }
        let timestamp = match message.timestamp() {
            KafkaTimestamp::CreateTime(ms) | KafkaTimestamp::LogAppendTime(ms) => Timestamp::from_millis(ms),
            KafkaTimestamp::NotAvailable => Timestamp::default(),
        };
        Self::new(
            topic,
            message.partition(),
            message.offset(),
            timestamp,
            message.key(),
            message.payload(),
            header,
            headers,
        )
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of a Kafka record, in Kafka's own order")]
    pub fn new(
        topic: Arc<str>,
        partition: i32,
        offset: i64,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        header: Option<&[u8]>,
        headers: Vec<(String, Option<Vec<u8>>)>,
    ) -> Self {
        let length = |part: Option<&[u8]>| part.map(|bytes| u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        let parts = [key, value, header];
        let mut bytes = Vec::with_capacity(parts.iter().flatten().map(|part| part.len()).sum());
        for part in parts.into_iter().flatten() {
            bytes.extend_from_slice(part);
        }
        Self {
            topic,
            partition,
            offset,
            timestamp,
            bytes: bytes.into_boxed_slice(),
            key: length(key),
            value: length(value),
            header: length(header),
            headers,
        }
    }

    fn part(&self, before: &[Option<u32>], length: Option<u32>) -> Option<&[u8]> {
        let start: usize = before.iter().flatten().map(|length| *length as usize).sum();
        length.and_then(|length| self.bytes.get(start..start + length as usize))
    }

    pub fn key(&self) -> Option<&[u8]> {
        self.part(&[], self.key)
    }

    pub fn value(&self) -> Option<&[u8]> {
        self.part(&[self.key], self.value)
    }

    /// The bytes of the `tw` header.
    pub fn header(&self) -> Option<&[u8]> {
        self.part(&[self.key, self.value], self.header)
    }

    /// The decoded `tw` header; an empty envelope where the record has none.
    ///
    /// # Errors
    /// The header has another format or was cut.
    pub fn envelope(&self) -> Result<Envelope<'_>, envelope::DecodeError> {
        self.header().map_or_else(|| Ok(Envelope::default()), Envelope::decode)
    }

    pub fn coordinates(&self) -> Coordinates<'_> {
        Coordinates { topic: &self.topic, partition: self.partition, offset: self.offset }
    }

    /// Bytes that the record holds in memory.
    pub fn size(&self) -> usize {
        self.bytes.len() + 64
    }
}
