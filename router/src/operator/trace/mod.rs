//! `tailwater trace`: what became of a person's events, or of one event.
//!
//! A person is found in the identity state; their partitions of `resolved`, of every destination's `outbound` and states, of the history and of the ledger
//! are read, and the dead letters. They are read in the order in which a record goes through them, the ledger last: what moves on meanwhile is
//! then seen at the later place, and the ledger has the last word.

mod gather;
mod story;
mod text;
mod verdict;

use tailwater_core::envelope::Role;
use tailwater_core::{EventId, ProfileId};
use tailwater_identity::Person;

pub use self::story::{Event, Mention, Story, Subject};
pub use self::verdict::Verdict;

use super::Error;
use super::dlq::{Letter, Queue};
use super::identities::Identities;
use crate::config::model::Config;
use crate::kafka::read::Reader;
use crate::kafka::topics::Names;

/// Source dead letters that mention a value; the newest ones.
const MENTIONS_MAX: usize = 20;

/// Shorter values stand in too many records to say anything.
const MENTION_BYTES_MIN: usize = 4;

/// What came of a trace.
#[derive(Debug)]
pub enum Found {
    Story(Box<Story>),
    /// Nobody has the identifier, or there is no such event: a sentence for the person who asked, and dead letters that mention it.
    Nobody {
        message: String,
        mentions: Vec<Letter>,
    },
}

/// Whom or what a person asks about.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Question<'a> {
    Identifier { kind: Option<&'a str>, value: &'a str },
    Profile(ProfileId),
    Event(EventId),
}

/// Traces `what`: an identifier (`ada@example.com`, `email=ada@example.com`), a profile's id, or an event's.
///
/// # Errors
/// No broker answers, or a record of ours cannot be read.
pub fn trace(config: &Config, what: &str, kind: Option<&str>, progress: &mut dyn FnMut(&str)) -> Result<Found, Error> {
    let kinds: Vec<&str> = config.identity.rules.type_names().collect();
    if let Some(kind) = kind.filter(|kind| !kinds.contains(kind)) {
        let message = format!("the configuration declares no identifier type {kind}; it has {}", kinds.join(", "));
        return Ok(Found::Nobody { message, mentions: Vec::new() });
    }
    let reader = Reader::reach(&config.kafka)?;
    let names = Names::new(&config.kafka.prefix);
    let mut tracer = Tracer { config, reader: &reader, names: &names, progress };
    let mut value = what;
    for question in questions(what, kind, &kinds) {
        match question {
            Question::Event(id) => {
                if let Some(story) = tracer.event(id)? {
                    return Ok(Found::Story(Box::new(story)));
                }
            }
            Question::Profile(id) => {
                (tracer.progress)("reading identities");
                if let Some(person) = Identities::open(config, &reader)?.get(id)? {
                    return tracer.person(person, None).map(|story| Found::Story(Box::new(story)));
                }
            }
            Question::Identifier { kind, value: asked } => {
                value = asked;
                (tracer.progress)("reading identities");
                let mut people = Identities::open(config, &reader)?.find(kind, asked)?;
                match people.len() {
                    0 => {}
                    1 => return tracer.person(people.remove(0), None).map(|story| Found::Story(Box::new(story))),
                    _ => return Ok(Found::Nobody { message: several(asked, &people), mentions: Vec::new() }),
                }
            }
        }
    }
    let mentions = tracer.mentions(&[value])?;
    Ok(Found::Nobody { message: nobody(what, kind, &kinds), mentions })
}

/// What the argument may mean, likeliest first.
fn questions<'a>(what: &'a str, kind: Option<&'a str>, kinds: &[&str]) -> Vec<Question<'a>> {
    if kind.is_some() {
        return vec![Question::Identifier { kind, value: what }];
    }
    let mut questions = Vec::new();
    if let Some(id) = EventId::parse(what) {
        questions.push(Question::Event(id));
    }
    if let Some(id) = ProfileId::parse(what) {
        questions.push(Question::Profile(id));
    }
    match what.split_once('=') {
        Some((kind, value)) if kinds.contains(&kind) => {
            questions.push(Question::Identifier { kind: Some(kind), value });
        }
        Some(_) | None => questions.push(Question::Identifier { kind: None, value: what }),
    }
    questions
}

fn nobody(what: &str, kind: Option<&str>, kinds: &[&str]) -> String {
    let types = kind.map_or_else(|| format!("({})", kinds.join(", ")), |kind| format!("of type {kind}"));
    format!(
        "nobody has the identifier {what} {types}, and it names no profile and no event that Kafka still has; \
         an event that came in just now, or whose row was refused, has nobody yet (`tailwater audit` counts both)"
    )
}

fn several(value: &str, people: &[Person]) -> String {
    let who: Vec<String> = people.iter().map(|person| person.profile.to_string()).collect();
    format!(
        "{value} is an identifier of several people, by different types: {}; say which with --type, or trace a profile",
        who.join(", ")
    )
}

/// Asks Kafka.
struct Tracer<'a, 'p> {
    config: &'a Config,
    reader: &'a Reader,
    names: &'a Names,
    progress: &'p mut dyn FnMut(&str),
}

impl Tracer<'_, '_> {
    fn person(&mut self, person: Person, only: Option<EventId>) -> Result<Story, Error> {
        let mut gathered = gather::gather(self.config, self.reader, self.names, &person, only, self.progress)?;
        if only.is_none() {
            let values: Vec<&str> = person.identifiers.iter().map(|held| &*held.value).collect();
            gathered.mentions = self.mentions(&values)?;
        }
        Ok(story::tell(self.config, person, gathered, only.is_some()))
    }

    /// Finds whose event it is, in `resolved` or, when that has forgotten it, in the history.
    fn event(&mut self, id: EventId) -> Result<Option<Story>, Error> {
        let Some(profile) = self.profile_of(id)? else { return Ok(None) };
        (self.progress)("reading identities");
        let person = Identities::open(self.config, self.reader)?.get(profile)?;
        // The identity state has forgotten nobody whom resolve has ever made; an empty one still has its partition.
        let person =
            person.unwrap_or_else(|| Person { profile, sequence: 0, absorbed: Vec::new(), identifiers: Vec::new() });
        let story = self.person(person, Some(id))?;
        Ok((!story.events.is_empty()).then_some(story))
    }

    fn profile_of(&mut self, id: EventId) -> Result<Option<ProfileId>, Error> {
        let mut found = None;
        let topic = self.names.resolved();
        if self.reader.partitions(&topic)?.is_some() {
            (self.progress)("looking for the event in resolved");
            self.reader.read::<Error>(&self.reader.whole(&topic)?, |record| {
                if let Ok(envelope) = record.envelope()
                    && envelope.role == Role::Event
                    && envelope.event_id == Some(id)
                {
                    found = envelope.profile;
                }
                Ok(found.is_none())
            })?;
        }
        let topic = self.names.deliveries();
        if found.is_none() && self.reader.partitions(&topic)?.is_some() {
            (self.progress)("looking for the event in the history");
            let text = id.to_string();
            self.reader.read::<Error>(&self.reader.whole(&topic)?, |record| {
                let attempt = record.value().and_then(|value| serde_json::from_slice::<gather::Attempt>(value).ok());
                if attempt.is_some_and(|attempt| attempt.event == text) {
                    found = record.key().and_then(|key| std::str::from_utf8(key).ok()).and_then(ProfileId::parse);
                }
                Ok(found.is_none())
            })?;
        }
        Ok(found)
    }

    /// Dead letters of the sources that hold one of these values: rows that never got as far as a profile.
    fn mentions(&mut self, values: &[&str]) -> Result<Vec<Letter>, Error> {
        let finders: Vec<memchr::memmem::Finder<'_>> = values
            .iter()
            .filter(|value| value.len() >= MENTION_BYTES_MIN)
            .map(|value| memchr::memmem::Finder::new(value.as_bytes()))
            .collect();
        let mut mentions = std::collections::VecDeque::new();
        for source in self.config.sources.keys().filter(|_| !finders.is_empty()) {
            let queue = Queue::Source(source.clone());
            let topic = queue.topic(self.names);
            if self.reader.partitions(&topic)?.is_none() {
                continue;
            }
            (self.progress)(&format!("reading dlq.{queue}"));
            self.reader.read::<Error>(&self.reader.whole(&topic)?, |record| {
                let value = record.value().unwrap_or_default();
                if finders.iter().any(|finder| finder.find(value).is_some()) {
                    mentions.push_back(Letter::read(&queue, &record));
                    if mentions.len() > MENTIONS_MAX {
                        mentions.pop_front();
                    }
                }
                Ok(true)
            })?;
        }
        Ok(mentions.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: &[&str] = &["email", "customer_id"];

    #[test]
    fn an_argument_is_understood_as_what_it_looks_like() {
        let bare = |value| Question::Identifier { kind: None, value };
        assert_eq!(questions("ada@example.com", None, KINDS), [bare("ada@example.com")]);
        assert_eq!(
            questions("email=ada@example.com", None, KINDS),
            [Question::Identifier { kind: Some("email"), value: "ada@example.com" }]
        );
        assert_eq!(questions("x=y", None, KINDS), [bare("x=y")], "not a declared type");
        assert_eq!(
            questions("email=x", Some("customer_id"), KINDS),
            [Question::Identifier { kind: Some("customer_id"), value: "email=x" }]
        );
        let event = "5f0c1d2e3a4b5c6d7e8f901234567890";
        assert!(matches!(
            questions(event, None, KINDS)[..],
            [Question::Event(_), Question::Profile(_), Question::Identifier { .. }]
        ));
        let profile = "7a113a7e-52d4-5c1e-9a40-6b1c0c5f7e21";
        assert!(matches!(questions(profile, None, KINDS)[..], [Question::Profile(_), Question::Identifier { .. }]));
    }
}
