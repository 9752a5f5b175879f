//! What operators did with dead letters, in the compacted topic `state.dlq`: one record per dead letter, under the name that `dlq list` gives
//! it. A dead letter without a mark is open.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::letter::{Letter, Reference};
use crate::config::model::Config;
use crate::kafka::read::Reader;
use crate::kafka::topics::{self, Names, Step};
use crate::kafka::{Error, Outgoing, Outputs};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    Replayed,
    Discarded,
}

/// What was done with a dead letter. Frozen: the state topic holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    pub action: Action,
    /// RFC 3339.
    pub at: String,
    /// The id of the replay, as it stands in the envelope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<String>,
    /// Why it was discarded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What the dead letter was, so that another one in its place (the topic was made anew) is not taken for it.
    of: String,
}

#[derive(Debug, Default)]
pub struct Marks {
    by_reference: HashMap<String, Mark>,
}

// === impl Action ===

impl Action {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Replayed => "replayed",
            Self::Discarded => "discarded",
        }
    }
}

// === impl Mark ===

impl Mark {
    pub fn replayed(letter: &Letter, at: String, id: &str) -> Self {
        Self { action: Action::Replayed, at, replay: Some(id.to_owned()), reason: None, of: identity(letter) }
    }

    pub fn discarded(letter: &Letter, at: String, reason: &str) -> Self {
        Self { action: Action::Discarded, at, replay: None, reason: Some(reason.to_owned()), of: identity(letter) }
    }

    /// Queues the mark of a dead letter.
    ///
    /// # Errors
    /// The client cannot go on.
    pub fn produce(&self, outputs: &mut impl Outputs, topic: &str, at: &Reference) -> Result<(), Error> {
        // Strings into memory: serialising them has no way to fail.
        let value = serde_json::to_vec(self).unwrap_or_default();
        outputs.send(&Outgoing::to(topic).partition(0).key(at.to_string().as_bytes()).value(Some(&value)))
    }
}

fn identity(letter: &Letter) -> String {
    let origin = letter.origin.as_ref().map(ToString::to_string).unwrap_or_default();
    format!("{origin} {}", letter.timestamp.as_millis())
}

// === impl Marks ===

impl Marks {
    /// # Errors
    /// No broker answers.
    pub fn read(reader: &Reader, names: &Names) -> Result<Self, Error> {
        let topic = names.state_dlq();
        let mut marks = Self::default();
        if reader.partitions(&topic)?.is_none() {
            return Ok(marks);
        }
        reader.read::<Error>(&reader.whole(&topic)?, |record| {
            if let Some(key) = record.key().and_then(|key| std::str::from_utf8(key).ok()) {
                marks.apply(key, record.value());
            }
            Ok(true)
        })?;
        Ok(marks)
    }

    fn apply(&mut self, key: &str, value: Option<&[u8]>) {
        match value.map(serde_json::from_slice::<Mark>) {
            Some(Ok(mark)) => {
                self.by_reference.insert(key.to_owned(), mark);
            }
            Some(Err(error)) => tracing::warn!(
                key,
                "a record of the topic state.dlq could not be read, its dead letter counts as open: {error}"
            ),
            None => {
                self.by_reference.remove(key);
            }
        }
    }

    /// What was done with a dead letter; `None` while it is open.
    pub fn of(&self, letter: &Letter) -> Option<&Mark> {
        self.by_reference.get(&letter.at.to_string()).filter(|mark| mark.of == identity(letter))
    }
}

/// Makes a topic of the tool where it is missing: a workspace may be older than it.
///
/// # Errors
/// It may not be created, or no broker answers.
pub fn ensure_topic(config: &Config, reader: &Reader, name: String) -> Result<(), Error> {
    if reader.partitions(&name)?.is_some() {
        return Ok(());
    }
    match topics::wanted(config).into_iter().find(|wanted| wanted.name == name) {
        Some(wanted) if config.kafka.create_topics => topics::apply(&config.kafka, &[Step::Create(wanted)]).map(|_| ()),
        _ => Err(Error::TopicMissing { topic: name }),
    }
}

#[cfg(test)]
mod tests {
    use tailwater_core::Timestamp;

    use super::*;
    use crate::operator::dlq::letter::Queue;
    use crate::operator::shown::Place;

    fn letter(offset: i64, origin: i64) -> Letter {
        let queue = Queue::Source("rows".into());
        let origin = Place { topic: "t.rows".into(), partition: 0, offset: origin };
        Letter {
            at: Reference { queue, partition: 0, offset },
            code: "decode_failed".into(),
            message: String::new(),
            stage: "resolve".into(),
            attempts: None,
            transform: None,
            timestamp: Timestamp::from_millis(7),
            origin: Some(origin.clone()),
            event: None,
            source: "rows".into(),
            profile: None,
            ingest: Some(origin),
            replays: 0,
        }
    }

    fn apply(marks: &mut Marks, letter: &Letter, mark: &Mark) {
        marks.apply(&letter.at.to_string(), Some(&serde_json::to_vec(mark).unwrap()));
    }

    #[test]
    fn a_mark_settles_its_letter_and_no_other() {
        let mut marks = Marks::default();
        let mark = Mark::replayed(&letter(3, 50), "2026-03-01T00:00:00.000Z".into(), "r1");
        apply(&mut marks, &letter(3, 50), &mark);
        assert_eq!(marks.of(&letter(3, 50)), Some(&mark));
        assert_eq!(marks.of(&letter(4, 51)), None);
        assert_eq!(marks.of(&letter(3, 2)), None, "another letter in its place after the topic was made anew");
    }

    #[test]
    fn the_last_mark_counts_and_rubbish_leaves_a_letter_open() {
        let mut marks = Marks::default();
        let one = letter(3, 50);
        marks.apply("source.rows/0/3", Some(b"{}"));
        assert_eq!(marks.of(&one), None);
        apply(&mut marks, &one, &Mark::discarded(&one, "2026-03-01T00:00:00.000Z".into(), "known"));
        assert_eq!(marks.of(&one).unwrap().action, Action::Discarded);
        marks.apply("source.rows/0/3", None);
        assert_eq!(marks.of(&one), None);
    }
}
