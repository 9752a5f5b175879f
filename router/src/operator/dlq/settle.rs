//! Carries out a replay or a discard: batch by batch, each in one transaction.

use std::collections::BTreeMap;

use tailwater_core::code;
use tailwater_core::ledger::{End, Stage};

use super::letter::{Letter, Queue, Reference};
use super::marks::{self, Mark, Marks};
use super::target::{self, Refusal, Target};
use super::{Chosen, Deed, Dlq, Done, Listed};
use crate::config::model::Config;
use crate::kafka::read::Range;
use crate::kafka::{self, Log as _, Outgoing, Outputs as _, Producer, Record};
use crate::operator::Error;
use crate::operator::identities::Identities;
use crate::runtime::clock::now;
use crate::stages::resolve::{self, Row};
use crate::stages::shared::ledger::Ledger;

/// Letters in one transaction, and their bytes: well within the broker's time for a transaction.
const BATCH_LETTERS_MAX: usize = 500;
const BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;

impl Dlq<'_> {
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
        marks::ensure_topic(self.config, &self.reader, self.names.state_dlq())?;
        let mut outputs = vec![self.names.state_dlq(), self.names.ledger()];
        if let Deed::Replay { transform, .. } = deed {
            outputs.extend(transform.then(|| self.names.resolved()));
            outputs.extend(chosen.letters.iter().filter_map(|listed| match &listed.letter.at.queue {
                Queue::Source(name) => Some(self.names.replay(name)),
                Queue::Destination(_) => listed.letter.origin.as_ref().map(|at| at.topic.clone()),
            }));
            outputs.sort();
            outputs.dedup();
            for name in self.config.sources.keys().map(|source| self.names.replay(source)) {
                if outputs.contains(&name) {
                    marks::ensure_topic(self.config, &self.reader, name)?;
                }
            }
        }
        // Whoever was at work under this id is shut out from here on, so the marks read now are the last word.
        let id = self.names.transactional_id("dlq", None, "operator");
        let mut producer = Producer::connect(&self.config.kafka, Some(&id), &outputs)?;
        let marks = Marks::read(&self.reader, &self.names)?;
        let mut ledger = Ledger::new(self.names.ledger(), Stage::Operator, self.config.kafka.partitions);
        let replay = format!("{:016x}", rand::random::<u64>());
        let mut seen = Seen::default();
        self.records(chosen, |records| {
            let people = self.people(&records, deed)?;
            let mut told = Vec::with_capacity(records.len());
            let mut made = Vec::with_capacity(records.len());
            for (record, listed) in &records {
                let letter = &listed.letter;
                let prepared = if marks.of(letter).is_some() {
                    Prepared::Done(Done::Gone)
                } else {
                    self.prepare(record, letter, deed, &people, &replay, &mut seen)?
                };
                let done = match prepared {
                    Prepared::Target(target, value) => {
                        let done = self.replay(&mut producer, &mut ledger, letter, *target, value)?;
                        if matches!(done, Done::Refused(_)) {
                            seen.remove(letter);
                        }
                        done
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
                made.extend(mark.map(|mark| (mark, &letter.at)));
                told.push((letter.at.clone(), done));
            }
            ledger.produce(&mut producer)?;
            // A mark says that the record went out.
            producer.outputs_first()?;
            for (mark, at) in made {
                mark.produce(&mut producer, &self.names.state_dlq(), at)?;
            }
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
        let (force, transform) = match deed {
            Deed::Discard { .. } => return Ok(Prepared::Done(Done::Discarded)),
            Deed::Replay { force, transform } => (*force, *transform),
        };
        if seen.contains(letter) {
            return Ok(Prepared::Done(Done::Together));
        }
        if let Err(refusal) = target::check(self.config, letter, record, force) {
            return Ok(Prepared::Done(Done::Refused(refusal)));
        }
        let row = if transform { self.row(letter)? } else { None };
        let value = if let Some(row) = &row {
            match row {
                Ok(row) => Some(row.body.clone()),
                Err(refusal) => return Ok(Prepared::Done(Done::Refused(refusal.clone()))),
            }
        } else if target::lacks_value(record) {
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
        let before = match &row {
            Some(Ok(row)) => Some(row.before.as_deref()),
            Some(Err(_)) | None => None,
        };
        Ok(match target::target(self.config, letter, record, person.as_ref(), before, replay, force) {
            Ok(target) => {
                seen.add(letter);
                Prepared::Target(Box::new(target), value)
            }
            Err(refusal) => Prepared::Done(Done::Refused(refusal)),
        })
    }

    /// The row of a letter that send refused, as its source brought it; `None` for a letter of another stage, which is the row itself.
    fn row(&self, letter: &Letter) -> Result<Option<Result<Row, Refusal>>, Error> {
        let Queue::Destination(name) = &letter.at.queue else { return Ok(None) };
        if letter.origin.as_ref().is_none_or(|origin| origin.topic != self.names.outbound(name)) {
            return Ok(None);
        }
        let Some(place) = &letter.ingest else { return Ok(Some(Err(Refusal::NoOrigin))) };
        let Some(record) = self.record(&place.topic, place.partition, place.offset)? else {
            return Ok(Some(Err(Refusal::RowGone(place.to_string()))));
        };
        let Some(source) = self.config.sources.get(&letter.source) else {
            return Ok(Some(Err(Refusal::NotConfigured(format!("source {}", letter.source)))));
        };
        let row = resolve::row(&record, source, &self.config.workspace);
        Ok(Some(row.map_err(|reason| Refusal::RowUnusable(reason.message))))
    }

    fn replay(
        &self,
        producer: &mut Producer,
        ledger: &mut Ledger,
        letter: &Letter,
        target: Target,
        value: Option<Vec<u8>>,
    ) -> Result<Done, Error> {
        let sent = producer.send(&Outgoing {
            topic: &target.topic,
            partition: Some(target.partition),
            key: target.key.as_deref(),
            value: value.as_deref(),
            envelope: Some(&target.header),
            // With the record's own time, retention could delete the replay of an old record before it is read.
            timestamp: None,
            headers: &target.headers,
        });
        match sent {
            // It stays open, and the others go out: one letter must not keep them from it.
            Err(kafka::Error::TooLarge { bytes, topic }) => {
                return Ok(Done::Refused(Refusal::TooLarge { bytes, topic }));
            }
            sent => sent?,
        }
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
pub(super) type Identity = (Queue, String);

pub(super) fn identity(letter: &Letter) -> Identity {
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

    /// It did not go out after all: its other letters stay open as well.
    fn remove(&mut self, letter: &Letter) {
        self.0.remove(&identity(letter));
    }
}

/// An operator gave the record up. The note stands in the round after the dead letter's, because the audit takes the latest one.
fn note_discarded(ledger: &mut Ledger, config: &Config, letter: &Letter) {
    let Some(place) = &letter.ingest else { return };
    let (destination, partition) = match &letter.at.queue {
        Queue::Destination(name) => (
            name.as_str(),
            letter.profile.map_or(0, |profile| i32::try_from(profile.partition(config.kafka.partitions)).unwrap_or(0)),
        ),
        Queue::Source(_) => ("", place.partition),
    };
    let round = letter.replays.saturating_add(1);
    ledger.note(destination, partition, &place.coordinates(), round, End::Skipped, code::DISCARDED.as_str());
}

#[cfg(test)]
mod tests {
    use tailwater_core::Timestamp;

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
    fn letters_of_one_record_belong_together_and_those_without_origin_stand_alone() {
        let place = crate::operator::shown::Place { topic: "t.outbound.k".into(), partition: 1, offset: 9 };
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
