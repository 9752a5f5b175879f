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
mod target;

use std::collections::{BTreeMap, HashMap, VecDeque};

use tailwater_core::ledger::{End, Stage};
use tailwater_core::{Code, Timestamp, code};

pub use self::letter::{Letter, Queue, Reference};
pub use self::marks::{Action, Mark};
pub use self::target::Refusal;

use self::marks::Marks;
use self::target::Target;
use super::identities::Identities;
use super::{Error, find_topic};
use crate::config::model::Config;
use crate::kafka::read::{Range, Reader};
use crate::kafka::topics::Names;
use crate::kafka::{Outgoing, Producer, Record};
use crate::stages::ledger::Ledger;
use crate::stages::now;

/// Letters that one call replays or discards: a line of memory each. What is left stays open, and the call says so.
pub const CHOSEN_MAX: usize = 100_000;

/// Letters in one transaction, and their bytes: well within the broker's time for a transaction.
const BATCH_LETTERS_MAX: usize = 500;
const BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;

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
    Replay { force: bool },
    Discard { reason: String },
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
        Ok(Self { config, names: Names::new(&config.kafka.prefix), reader: Reader::connect(&config.kafka)? })
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
    ) -> Result<(Chosen, Vec<(Reference, Option<Mark>)>), Error> {
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

    /// Whether each of the letters could be replayed, without doing it.
    ///
    /// # Errors
    /// No broker answers.
    pub fn rehearse(&self, chosen: &Chosen, deed: &Deed, each: &mut dyn FnMut(&Reference, Done)) -> Result<(), Error> {
        let mut seen = Seen::default();
        self.records(chosen, |records| {
            let people = self.people(&records, deed)?;
            for (record, listed) in &records {
                let done = match self.prepare(record, &listed.letter, deed, &people, "", &mut seen)? {
                    Prepared::Target(target, _) => {
                        Done::Replayed { topic: target.topic, partition: target.partition, count: target.count }
                    }
                    Prepared::Done(done) => done,
                };
                each(&listed.letter.at, done);
            }
            Ok(())
        })
    }

    /// Replays or discards letters. `each` is told what became of a letter when that is committed. The id of the replay, if anything
    /// was replayed.
    ///
    /// # Errors
    /// Kafka fails; batches that were told are done, the others did not happen.
    pub fn settle(
        &self,
        chosen: &Chosen,
        deed: &Deed,
        each: &mut dyn FnMut(&Reference, Done),
    ) -> Result<String, Error> {
        marks::ensure_topic(self.config, &self.reader, &self.names)?;
        let mut outputs = vec![self.names.state_dlq(), self.names.ledger()];
        if matches!(deed, Deed::Replay { .. }) {
            outputs.extend(
                chosen.letters.iter().filter_map(|listed| listed.letter.origin.as_ref()).map(|at| at.topic.clone()),
            );
            outputs.sort();
            outputs.dedup();
        }
        // Whoever was at work under this id is shut out from here on, so the marks read now are the last word.
        let id = self.names.transactional_id("dlq", None, "operator");
        let mut producer = Producer::connect(&self.config.kafka, Some(&id), &outputs)?;
        let marks = Marks::read(&self.reader, &self.names)?;
        let mut ledger = Ledger::new(self.names.ledger(), Stage::Operator, self.config.kafka.lanes);
        let replay = format!("{:016x}", rand::random::<u64>());
        let mut seen = Seen::default();
        self.records(chosen, |records| {
            let people = self.people(&records, deed)?;
            let mut told = Vec::with_capacity(records.len());
            for (record, listed) in &records {
                let letter = &listed.letter;
                let prepared = if marks.of(letter).is_some() {
                    Prepared::Done(Done::Gone)
                } else {
                    self.prepare(record, letter, deed, &people, &replay, &mut seen)?
                };
                let done = match prepared {
                    Prepared::Target(target, value) => {
                        self.replay(&mut producer, &mut ledger, record, letter, target, value)?
                    }
                    Prepared::Done(done) => done,
                };
                let mark = match (&done, deed) {
                    (Done::Replayed { .. } | Done::Together, _) => {
                        Some(Mark::replayed(letter, now().to_string(), &replay))
                    }
                    (Done::Discarded, Deed::Discard { reason }) => {
                        note_discarded(&mut ledger, self.config, letter);
                        Some(Mark::discarded(letter, now().to_string(), reason))
                    }
                    (Done::Discarded | Done::Refused(_) | Done::Gone, _) => None,
                };
                if let Some(mark) = mark {
                    mark.produce(&mut producer, &self.names.state_dlq(), &letter.at)?;
                }
                told.push((letter.at.clone(), done));
            }
            ledger.produce(&mut producer)?;
            producer.commit_without_offsets()?;
            for (at, done) in told {
                each(&at, done);
            }
            Ok(())
        })?;
        Ok(replay)
    }

    /// Decides about one letter.
    fn prepare(
        &self,
        record: &Record,
        letter: &Letter,
        deed: &Deed,
        people: &Identities<'_>,
        replay: &str,
        seen: &mut Seen,
    ) -> Result<Prepared, Error> {
        let force = match deed {
            Deed::Discard { .. } => return Ok(Prepared::Done(Done::Discarded)),
            Deed::Replay { force } => *force,
        };
        if seen.contains(letter) {
            return Ok(Prepared::Done(Done::Together));
        }
        if let Err(refusal) = target::check(self.config, letter, record, force) {
            return Ok(Prepared::Done(Done::Refused(refusal)));
        }
        let value = if target::lacks_value(record) {
            let Some(origin) = &letter.origin else { return Ok(Prepared::Done(Done::Refused(Refusal::NoOrigin))) };
            match self.record(&origin.topic, origin.partition, origin.offset)? {
                Some(original) => original.value().map(<[u8]>::to_vec),
                None => return Ok(Prepared::Done(Done::Refused(Refusal::ValueGone(origin.to_string())))),
            }
        } else {
            record.value().map(<[u8]>::to_vec)
        };
        let person = match (&letter.at.queue, letter.profile) {
            (Queue::Destination(_), Some(profile)) => people.get(profile)?,
            (Queue::Destination(_), None) | (Queue::Source(_), _) => None,
        };
        Ok(match target::target(self.config, letter, record, person.as_ref(), replay, force) {
            Ok(target) => {
                seen.add(letter);
                Prepared::Target(Box::new(target), value)
            }
            Err(refusal) => Prepared::Done(Done::Refused(refusal)),
        })
    }

    fn replay(
        &self,
        producer: &mut Producer,
        ledger: &mut Ledger,
        record: &Record,
        letter: &Letter,
        target: Box<Target>,
        value: Option<Vec<u8>>,
    ) -> Result<Done, Error> {
        producer.send(&Outgoing {
            topic: &target.topic,
            partition: Some(target.partition),
            key: target.key.as_deref(),
            value: value.as_deref(),
            envelope: Some(&target.header),
            timestamp: Some(record.timestamp.as_millis()),
            headers: &target.headers,
        })?;
        if let Some(place) = &letter.ingest {
            let place = place.coordinates();
            match &letter.at.queue {
                Queue::Destination(name) => ledger.note(name, target.partition, &place, target.count, End::Routed, ""),
                // The record goes on under its new offset; the old one ends here.
                Queue::Source(_) => {
                    ledger.note("", place.partition, &place, target.count, End::Skipped, code::REPLAYED.as_str());
                }
            }
        }
        Ok(Done::Replayed { topic: target.topic, partition: target.partition, count: target.count })
    }

    /// Who the people of these letters are, read in one pass.
    fn people(&self, records: &[(Record, &Listed)], deed: &Deed) -> Result<Identities<'_>, Error> {
        let people = Identities::open(self.config, &self.reader)?;
        if matches!(deed, Deed::Replay { .. }) {
            people.prepare(records.iter().filter_map(|(_, listed)| listed.letter.profile))?;
        }
        Ok(people)
    }

    /// Reads the chosen letters again, whole, and hands them out in batches in the order of their queues.
    fn records<'c>(
        &self,
        chosen: &'c Chosen,
        mut each: impl FnMut(Vec<(Record, &'c Listed)>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut wanted: BTreeMap<(&Queue, i32), BTreeMap<i64, &'c Listed>> = BTreeMap::new();
        for listed in &chosen.letters {
            let at = &listed.letter.at;
            wanted.entry((&at.queue, at.partition)).or_default().insert(at.offset, listed);
        }
        for ((queue, partition), mut letters) in wanted {
            let topic = queue.topic(&self.names);
            // A batch is handed out between two reads, because handing out reads as well.
            while let Some((&start, _)) = letters.first_key_value() {
                let Some((&last, _)) = letters.last_key_value() else { break };
                let (low, high) = self.reader.watermarks(&topic, partition)?;
                let range = Range { topic: topic.clone(), partition, start: start.max(low), end: (last + 1).min(high) };
                let mut batch = Vec::new();
                let mut bytes = 0;
                self.reader.read::<Error>(&[range], |record| {
                    if let Some(listed) = letters.get(&record.offset) {
                        bytes += record.size();
                        batch.push((record, *listed));
                    }
                    Ok(batch.len() < BATCH_LETTERS_MAX && bytes < BATCH_BYTES_MAX)
                })?;
                // What was not found up to the last one that was is gone.
                match batch.last().map(|(record, _)| record.offset) {
                    Some(read_to) => letters = letters.split_off(&(read_to + 1)),
                    None => break,
                }
                each(batch)?;
            }
        }
        Ok(())
    }
}

enum Prepared {
    Target(Box<Target>, Option<Vec<u8>>),
    Done(Done),
}

/// What makes several letters those of one record: where it lay. Without that, a letter stands alone.
type Identity = (Queue, String);

fn identity(letter: &Letter) -> Identity {
    let origin = letter.origin.as_ref().map_or_else(|| letter.at.to_string(), ToString::to_string);
    (letter.at.queue.clone(), origin)
}

/// Records that went out already.
#[derive(Debug, Default)]
struct Seen(std::collections::HashSet<Identity>);

impl Seen {
    fn contains(&self, letter: &Letter) -> bool {
        self.0.contains(&identity(letter))
    }

    fn add(&mut self, letter: &Letter) {
        self.0.insert(identity(letter));
    }
}

/// An operator gave the record up. The note stands in the round after the dead letter's, because the audit takes the latest one.
fn note_discarded(ledger: &mut Ledger, config: &Config, letter: &Letter) {
    let Some(place) = &letter.ingest else { return };
    let (destination, lane) = match &letter.at.queue {
        Queue::Destination(name) => (
            name.as_str(),
            letter.profile.map_or(0, |profile| i32::try_from(profile.lane(config.kafka.lanes)).unwrap_or(0)),
        ),
        Queue::Source(_) => ("", place.partition),
    };
    let round = letter.replays.saturating_add(1);
    ledger.note(destination, lane, &place.coordinates(), round, End::Skipped, code::DISCARDED.as_str());
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn letters_of_one_record_belong_together_and_those_without_origin_stand_alone() {
        let place = crate::tools::shown::Place { topic: "t.outbound.k".into(), partition: 1, offset: 9 };
        let queue = || Queue::Destination("k".into());
        let with = |offset| {
            let mut letter = Letter { origin: Some(place.clone()), ..letter(queue(), "x", 0) };
            letter.at.offset = offset;
            letter
        };
        let mut seen = Seen::default();
        seen.add(&with(1));
        assert!(seen.contains(&with(2)));
        let mut alone = letter(queue(), "x", 0);
        seen.add(&alone);
        alone.at.offset = 2;
        assert!(!seen.contains(&alone));
    }
}
