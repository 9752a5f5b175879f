//! A dead letter as its headers describe it. Pure.

use serde::Serialize;
use tailwater_core::envelope::Envelope;
use tailwater_core::{EventId, ProfileId, Timestamp};

use crate::kafka::Record;
use crate::kafka::topics::Names;
use crate::operator::shown::Place;
use crate::stages::shared::dead_letter::header_text;

/// Whose dead letters a topic holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Queue {
    Destination(String),
    Source(String),
}

/// Names a dead letter: `destination.crm/3/42`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    pub queue: Queue,
    pub partition: i32,
    pub offset: i64,
}

/// What is known about a dead letter without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    pub at: Reference,
    pub code: String,
    pub message: String,
    pub stage: String,
    pub attempts: Option<u32>,
    pub transform: Option<String>,
    /// When the record was made that could not be used.
    pub timestamp: Timestamp,
    /// The record that the failing stage read.
    pub origin: Option<Place>,
    pub event: Option<EventId>,
    pub source: String,
    pub profile: Option<ProfileId>,
    pub ingest: Option<Place>,
    /// How often it was replayed before.
    pub replays: u32,
}

// === impl Queue ===

impl Queue {
    /// The topic without the prefix and `dlq.`.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once('.')?;
        match (kind, name) {
            (_, "") => None,
            ("destination", name) => Some(Self::Destination(name.to_owned())),
            ("source", name) => Some(Self::Source(name.to_owned())),
            _ => None,
        }
    }

    pub fn topic(&self, names: &Names) -> String {
        match self {
            Self::Destination(name) => names.dlq_destination(name),
            Self::Source(name) => names.dlq_source(name),
        }
    }

    pub fn name(&self) -> &str {
        match self {
            Self::Destination(name) | Self::Source(name) => name,
        }
    }
}

impl std::fmt::Display for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Destination(name) => write!(f, "destination.{name}"),
            Self::Source(name) => write!(f, "source.{name}"),
        }
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.queue, self.partition, self.offset)
    }
}

impl Serialize for Reference {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

// === impl Letter ===

impl Letter {
    /// Reads the headers of a dead letter. Those that are missing leave their fields empty: a letter is listed in any case.
    pub fn read(queue: &Queue, record: &Record) -> Self {
        let text = |name: &str| header_text(record, name);
        let connect = |name: &str| header_text(record, &format!("__connect.errors.{name}"));
        let mut envelope = record.envelope().unwrap_or_else(|_| Envelope::default());
        let origin = connect("topic").zip(connect("partition")).zip(connect("offset")).and_then(
            |((topic, partition), offset)| {
                Some(Place { topic, partition: partition.parse().ok()?, offset: offset.parse().ok()? })
            },
        );
        // Before resolve, only what was replayed has an envelope that tells something about the letter; others may write to the topic.
        if let Queue::Source(name) = queue
            && !origin.as_ref().is_some_and(|origin| origin.topic.ends_with(&format!("replay.{name}")))
        {
            envelope = Envelope::default();
        }
        // A record of an ingest topic does not say where it lies: it lies there.
        let ingest = match queue {
            Queue::Destination(_) => envelope.ingest.map(Place::from),
            Queue::Source(_) => origin.clone(),
        };
        let source = match queue {
            Queue::Source(name) => name.clone(),
            Queue::Destination(_) => envelope.source.to_owned(),
        };
        Self {
            at: Reference { queue: queue.clone(), partition: record.partition, offset: record.offset },
            code: text("tw-error-code").or_else(|| connect("exception.class.name")).unwrap_or_default(),
            message: connect("exception.message").unwrap_or_default(),
            stage: connect("stage").unwrap_or_default().to_lowercase(),
            attempts: text("tw-attempts").and_then(|text| text.parse().ok()),
            transform: text("tw-transform"),
            timestamp: record.timestamp,
            origin,
            event: envelope.event_id.or_else(|| text("tw-event-id").and_then(|id| EventId::parse(&id))),
            source,
            profile: envelope.profile,
            ingest,
            replays: envelope.replay.map_or(0, |replay| replay.count),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tailwater_core::Coordinates;

    use super::*;

    fn header(name: &str, value: &str) -> (String, Option<Vec<u8>>) {
        (name.to_owned(), Some(value.as_bytes().to_vec()))
    }

    #[test]
    fn a_letter_is_read_from_its_headers() {
        let envelope = Envelope {
            source: "ltv",
            ingest: Some(Coordinates { topic: "t.ingest.ltv", partition: 1, offset: 5 }),
            replay: Some(tailwater_core::envelope::Redelivery { id: "r", count: 2 }),
            ..Envelope::default()
        };
        let headers = vec![
            header("__connect.errors.topic", "t.resolved"),
            header("__connect.errors.partition", "3"),
            header("__connect.errors.offset", "77"),
            header("__connect.errors.stage", "ROUTE"),
            header("__connect.errors.exception.message", "too low"),
            header("tw-error-code", "transform_threw"),
            header("tw-attempts", "1"),
        ];
        let record = Record::new(
            Arc::from("t.dlq.destination.k"),
            0,
            9,
            Timestamp::default(),
            None,
            None,
            Some(&envelope.to_bytes()),
            headers,
        );
        let letter = Letter::read(&Queue::Destination("k".into()), &record);
        assert_eq!(letter.at.to_string(), "destination.k/0/9");
        assert_eq!(
            (letter.code.as_str(), letter.message.as_str(), letter.stage.as_str()),
            ("transform_threw", "too low", "route")
        );
        assert_eq!(letter.origin.unwrap().to_string(), "t.resolved[3]@77");
        assert_eq!((letter.replays, letter.ingest.unwrap().offset), (2, 5));
    }

    #[test]
    fn a_letter_without_headers_is_listed_all_the_same() {
        let record =
            Record::new(Arc::from("t.dlq.source.s"), 0, 0, Timestamp::default(), None, None, Some(b"\x09"), Vec::new());
        let letter = Letter::read(&Queue::Source("s".into()), &record);
        assert_eq!((letter.code.as_str(), letter.origin, letter.source.as_str()), ("", None, "s"));
    }

    #[test]
    fn queues_are_named_as_their_topics() {
        for text in ["destination.klaviyo", "source.a.b"] {
            assert_eq!(Queue::parse(text).unwrap().to_string(), text);
        }
        for text in ["klaviyo", "source.", "sink.x"] {
            assert_eq!(Queue::parse(text), None);
        }
        let names = Names::new("t.");
        assert_eq!(Queue::Source("a".into()).topic(&names), "t.dlq.source.a");
    }
}
