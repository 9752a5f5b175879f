//! `tailwater dlq`: lists, shows, replays and discards dead letters.
//!
//! A replay or a discard is one transaction for each batch of letters: the record that goes out, the note in the ledger, and the mark in
//! `state.dlq` that settles the letter. They happen together or not at all, so that a letter is neither replayed twice nor forgotten. There is one
//! transactional id for a workspace: a second operator who begins meanwhile shuts out the first, whose open batch then does not happen, and
//! sees what the first one finished.
//!
//! One record may have left several letters, when several of its operations were refused. A replay repeats the whole record, so it settles
//! all letters of that record.

mod letter;
mod marks;
mod settle;
mod target;

use std::collections::{BTreeMap, HashMap, VecDeque};

use tailwater_core::{Code, Timestamp};

pub use self::letter::{Letter, Queue, Reference};
pub use self::marks::{Action, Mark};
pub use self::target::Refusal;

use self::marks::Marks;
use self::settle::{Identity, identity};
use super::{Error, find_topic};
use crate::config::model::Config;
use crate::kafka::Record;
use crate::kafka::read::{Range, Reader};
use crate::kafka::topics::Names;

/// Letters that one call replays or discards: a line of memory each. What is left stays open, and the call says so.
pub const CHOSEN_MAX: usize = 100_000;

/// Which letters.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub destination: Option<String>,
    pub source: Option<String>,
    pub code: Option<Code>,
    /// Of records that were made since then.
    pub since: Option<Timestamp>,
}

/// What is to be done with the letters that were chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    Replay {
        force: bool,
        /// Whether route makes the operations again of a record that send refused.
        transform: bool,
    },
    Discard {
        reason: String,
    },
}

/// A letter and what was done with it.
#[derive(Debug, Clone)]
pub struct Listed {
    pub letter: Letter,
    pub mark: Option<Mark>,
}

/// The newest letters of a list.
#[derive(Debug, Default)]
pub struct List {
    pub letters: VecDeque<Listed>,
    /// Older ones that the limit leaves out.
    pub left_out: u64,
}

/// Open letters that a deed concerns.
#[derive(Debug, Default)]
pub struct Chosen {
    letters: Vec<Listed>,
    /// Whether there are more than one call takes.
    pub more: bool,
}

/// What became of one letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// Where the record went.
    Replayed {
        topic: String,
        partition: i32,
        count: u32,
    },
    /// The record went out with an earlier letter of it.
    Together,
    Discarded,
    Refused(Refusal),
    /// Somebody else settled it meanwhile, or Kafka has removed it.
    Gone,
}

/// A letter that was named and is not open: it was settled, or it is not there.
pub type Unavailable = (Reference, Option<Mark>);

pub struct Dlq<'a> {
    config: &'a Config,
    names: Names,
    reader: Reader,
}

// === impl Filter ===

impl Filter {
    fn takes_queue(&self, queue: &Queue) -> bool {
        match (queue, &self.destination, &self.source) {
            (_, None, None) => true,
            (Queue::Destination(name), Some(wanted), _) | (Queue::Source(name), _, Some(wanted)) => name == wanted,
            (Queue::Destination(_), None, Some(_)) | (Queue::Source(_), Some(_), None) => false,
        }
    }

    fn takes(&self, letter: &Letter) -> bool {
        self.code.is_none_or(|code| code.as_str() == letter.code)
            && self.since.is_none_or(|since| letter.timestamp >= since)
    }
}

// === impl Chosen ===

impl Chosen {
    pub fn len(&self) -> usize {
        self.letters.len()
    }

    pub fn is_empty(&self) -> bool {
        self.letters.is_empty()
    }

    /// How many letters of which queue and code there are.
    pub fn summary(&self) -> BTreeMap<(Queue, String), u64> {
        let mut counts = BTreeMap::new();
        for listed in &self.letters {
            *counts.entry((listed.letter.at.queue.clone(), listed.letter.code.clone())).or_default() += 1;
        }
        counts
    }
}

// === impl Dlq ===

impl<'a> Dlq<'a> {
    /// # Errors
    /// An option that the client does not know.
    pub fn connect(config: &'a Config) -> Result<Self, Error> {
        Ok(Self { config, names: Names::new(&config.kafka.prefix), reader: Reader::reach(&config.kafka)? })
    }

    /// The queues that exist: also those of destinations that the configuration no longer has.
    fn queues(&self, filter: &Filter) -> Result<Vec<Queue>, Error> {
        let topics = self.reader.topics()?;
        let prefix = format!("{}dlq.", self.names.prefix());
        let named = [
            filter.destination.as_ref().map(|name| Queue::Destination(name.clone())),
            filter.source.as_ref().map(|name| Queue::Source(name.clone())),
        ];
        for queue in named.iter().flatten() {
            find_topic(&topics, self.names.prefix(), &format!("dlq.{queue}"))?;
        }
        Ok(topics
            .iter()
            .filter_map(|topic| topic.strip_prefix(&prefix).and_then(Queue::parse))
            .filter(|queue| filter.takes_queue(queue))
            .collect())
    }

    /// Reads the letters that a filter takes, queue after queue.
    fn scan(
        &self,
        filter: &Filter,
        progress: &mut dyn FnMut(&str),
        mut each: impl FnMut(Letter) -> bool,
    ) -> Result<(), Error> {
        for queue in self.queues(filter)? {
            progress(&format!("reading dlq.{queue}"));
            let mut go_on = true;
            self.reader.read::<Error>(&self.reader.whole(&queue.topic(&self.names))?, |record| {
                let letter = Letter::read(&queue, &record);
                if filter.takes(&letter) {
                    go_on = each(letter);
                }
                Ok(go_on)
            })?;
            if !go_on {
                break;
            }
        }
        Ok(())
    }

    /// The newest letters, newest last; open ones only, unless `settled` are wanted too.
    ///
    /// # Errors
    /// There is no such queue, or no broker answers.
    pub fn list(
        &self,
        filter: &Filter,
        limit: usize,
        settled: bool,
        progress: &mut dyn FnMut(&str),
    ) -> Result<List, Error> {
        let marks = Marks::read(&self.reader, &self.names)?;
        let mut list = List::default();
        self.scan(filter, progress, |letter| {
            let mark = marks.of(&letter).cloned();
            if settled || mark.is_none() {
                list.letters.push_back(Listed { letter, mark });
                if list.letters.len() > limit {
                    list.letters.pop_front();
                    list.left_out += 1;
                }
            }
            true
        })?;
        Ok(list)
    }

    /// All letters that a filter takes, with what was done with them.
    ///
    /// # Errors
    /// There is no such queue, or no broker answers.
    pub fn each(
        &self,
        filter: &Filter,
        progress: &mut dyn FnMut(&str),
        mut each: impl FnMut(Letter, Option<&Mark>),
    ) -> Result<(), Error> {
        let marks = Marks::read(&self.reader, &self.names)?;
        self.scan(filter, progress, |letter| {
            let mark = marks.of(&letter);
            each(letter, mark);
            true
        })
    }

    /// One letter whole; `None` if it is not there.
    ///
    /// # Errors
    /// There is no such queue, or no broker answers.
    pub fn show(&self, at: &Reference) -> Result<Option<(Record, Listed)>, Error> {
        let topic = find_topic(&self.reader.topics()?, self.names.prefix(), &format!("dlq.{}", at.queue))?;
        let Some(record) = self.record(&topic, at.partition, at.offset)? else { return Ok(None) };
        let letter = Letter::read(&at.queue, &record);
        let mark = Marks::read(&self.reader, &self.names)?.of(&letter).cloned();
        Ok(Some((record, Listed { letter, mark })))
    }

    fn record(&self, topic: &str, partition: i32, offset: i64) -> Result<Option<Record>, Error> {
        let mut found = None;
        if self.reader.partitions(topic)?.is_none_or(|count| partition >= count) {
            return Ok(None);
        }
        let (low, high) = self.reader.watermarks(topic, partition)?;
        if offset < low || offset >= high {
            return Ok(None);
        }
        let range = Range { topic: topic.to_owned(), partition, start: offset, end: offset + 1 };
        self.reader.read::<Error>(&[range], |record| {
            found = Some(record).filter(|record| record.offset == offset);
            Ok(false)
        })?;
        Ok(found)
    }

    /// The open letters that a filter takes.
    ///
    /// # Errors
    /// There is no such queue, or no broker answers.
    pub fn choose(&self, filter: &Filter, progress: &mut dyn FnMut(&str)) -> Result<Chosen, Error> {
        let marks = Marks::read(&self.reader, &self.names)?;
        let mut chosen = Chosen::default();
        self.scan(filter, progress, |letter| {
            if marks.of(&letter).is_some() {
                return true;
            }
            chosen.more = chosen.letters.len() >= CHOSEN_MAX;
            if !chosen.more {
                // The message is not needed here, and there may be many.
                chosen.letters.push(Listed { letter: Letter { message: String::new(), ..letter }, mark: None });
            }
            !chosen.more
        })?;
        Ok(chosen)
    }

    /// The letters that were named and are open, with the other open letters of the same records; and those named that are not, with what
    /// was done with them.
    ///
    /// # Errors
    /// There is no such queue, or no broker answers.
    pub fn pick(
        &self,
        wanted: &[Reference],
        progress: &mut dyn FnMut(&str),
    ) -> Result<(Chosen, Vec<Unavailable>), Error> {
        let marks = Marks::read(&self.reader, &self.names)?;
        let mut chosen = Chosen::default();
        let mut missing = Vec::new();
        let mut queues: Vec<&Queue> = wanted.iter().map(|at| &at.queue).collect();
        queues.sort();
        queues.dedup();
        for queue in queues {
            let mut by_record: HashMap<Identity, Vec<Listed>> = HashMap::new();
            let mut named: BTreeMap<&Reference, Option<(Identity, Option<Mark>)>> =
                wanted.iter().filter(|at| at.queue == *queue).map(|at| (at, None)).collect();
            for at in named.clone().keys() {
                if let Some((_, listed)) = self.show(at)? {
                    named.insert(at, Some((identity(&listed.letter), listed.mark)));
                }
            }
            let identities: std::collections::HashSet<&Identity> =
                named.values().flatten().map(|(identity, _)| identity).collect();
            let filter = match queue {
                Queue::Destination(name) => Filter { destination: Some(name.clone()), ..Filter::default() },
                Queue::Source(name) => Filter { source: Some(name.clone()), ..Filter::default() },
            };
            self.scan(&filter, progress, |letter| {
                let identity = identity(&letter);
                if identities.contains(&identity) && marks.of(&letter).is_none() {
                    by_record.entry(identity).or_default().push(Listed { letter, mark: None });
                }
                true
            })?;
            for (at, found) in named {
                match found {
                    Some((identity, None)) => chosen.letters.extend(by_record.remove(&identity).into_iter().flatten()),
                    Some((_, mark)) => missing.push((at.clone(), mark)),
                    None => missing.push((at.clone(), None)),
                }
            }
        }
        Ok((chosen, missing))
    }
}

#[cfg(test)]
mod tests {
    use tailwater_core::code;

    use super::*;

    fn letter(queue: Queue, code: &str, at: i64) -> Letter {
        Letter {
            at: Reference { queue, partition: 0, offset: 1 },
            code: code.into(),
            message: String::new(),
            stage: String::new(),
            attempts: None,
            transform: None,
            timestamp: Timestamp::from_millis(at),
            origin: None,
            event: None,
            source: String::new(),
            profile: None,
            ingest: None,
            replays: 0,
        }
    }

    #[test]
    fn a_filter_takes_what_it_names() {
        let klaviyo = Queue::Destination("klaviyo".into());
        let orders = Queue::Source("orders".into());
        let all = Filter::default();
        assert!(all.takes_queue(&klaviyo) && all.takes_queue(&orders));
        let destination = Filter { destination: Some("klaviyo".into()), ..Filter::default() };
        assert!(destination.takes_queue(&klaviyo) && !destination.takes_queue(&orders));
        assert!(!destination.takes_queue(&Queue::Destination("other".into())));
        let source = Filter { source: Some("orders".into()), ..Filter::default() };
        assert!(source.takes_queue(&orders) && !source.takes_queue(&klaviyo));
        let code = Filter { code: Some(code::NO_KEY), since: Some(Timestamp::from_millis(10)), ..Filter::default() };
        assert!(code.takes(&letter(klaviyo.clone(), "no_key", 10)));
        assert!(!code.takes(&letter(klaviyo.clone(), "no_key", 9)));
        assert!(!code.takes(&letter(klaviyo, "filtered", 10)));
    }
}
