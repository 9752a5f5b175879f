//! Where a replay goes and what it says. Pure.
//!
//! A dead letter of route is the record of `resolved` that it read, one of send the record of `outbound.<destination>`; each goes back to that
//! topic, in the partition of the person whom it belongs to *now*, marked for its destination alone. A dead letter of resolve goes to the topic
//! `replay.<source>`, where it is a new record with the position of the old one, so that it cannot supersede what came after it. It does not
//! go back to the source's own topic: others write there, so a header in it says nothing.

use tailwater_core::envelope::{Envelope, Identifier, Redelivery};
use tailwater_core::limits::REPLAYS_MAX;
use tailwater_core::{SourcePosition, Timestamp};
use tailwater_identity::Person;

use super::letter::{Letter, Queue};
use crate::config::model::Config;
use crate::kafka::Record;
use crate::kafka::topics::{Names, input_topics, is_trusted};
use crate::stages::shared::dead_letter::{header_text, is_own_header, original_time};

/// The header of a record that its source could only announce.
const ANNOUNCED: &str = "tw-source-error-code";

/// The header of a dead letter whose value did not fit into its topic.
const OMITTED: &str = "tw-value-omitted";

/// A record to be produced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub topic: String,
    pub partition: i32,
    pub key: Option<Vec<u8>>,
    pub header: Vec<u8>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// How often the record has been replayed, this time included; its round in the ledger.
    pub count: u32,
}

/// Why a dead letter cannot be replayed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("it was replayed {0} times already and failed again each time; --force replays it all the same")]
    Poison(u32),
    #[error("its headers do not say which record it was; it can be shown and discarded")]
    NoOrigin,
    #[error("it comes from {found}, and {expected} is read now; produce it there yourself if it belongs there")]
    OtherTopic { found: String, expected: String },
    #[error("the configuration has no {0}; what is replayed to it would not be read")]
    NotConfigured(String),
    #[error("its metadata header cannot be read; it can be shown and discarded")]
    NoEnvelope,
    #[error("it names no profile; it can be shown and discarded")]
    NoProfile,
    #[error(
        "the source could only announce it, the row itself is not in Kafka; change the row and its source will bring it again"
    )]
    Announced,
    #[error("its value did not fit into the dead letter, and {0} is no longer in Kafka")]
    ValueGone(String),
    #[error(
        "the row that the transform would run on, {0}, is no longer in Kafka; the source's next change of it is transformed afresh"
    )]
    RowGone(String),
    #[error("the row that the transform would run on cannot be read: {0}")]
    RowUnusable(String),
    #[error(
        "it has {bytes} bytes with its metadata, more than {topic} takes; raise that topic's `max.message.bytes`, or discard it"
    )]
    TooLarge { bytes: usize, topic: String },
}

/// Whether the value of the record lies at its original place alone.
pub fn lacks_value(record: &Record) -> bool {
    header_text(record, OMITTED).is_some()
}

/// What can be said against a replay without knowing the person.
///
/// # Errors
/// Why it cannot be replayed.
pub fn check(config: &Config, letter: &Letter, record: &Record, force: bool) -> Result<(), Refusal> {
    if letter.replays >= REPLAYS_MAX && !force {
        return Err(Refusal::Poison(letter.replays));
    }
    let envelope = envelope(config, letter, record)?;
    let origin = letter.origin.as_ref().ok_or(Refusal::NoOrigin)?;
    let names = Names::new(&config.kafka.prefix);
    match &letter.at.queue {
        Queue::Source(name) => {
            if header_text(record, ANNOUNCED).is_some() {
                return Err(Refusal::Announced);
            }
            let source = config.sources.get(name).ok_or_else(|| Refusal::NotConfigured(format!("source {name}")))?;
            expect(&origin.topic, &input_topics(&names, source))
        }
        Queue::Destination(name) => {
            if !config.destinations.contains_key(name) {
                return Err(Refusal::NotConfigured(format!("destination {name}")));
            }
            if envelope.profile.is_none() {
                return Err(Refusal::NoProfile);
            }
            expect(&origin.topic, &[names.resolved(), names.outbound(name)])
        }
    }
}

fn expect(found: &str, expected: &[String]) -> Result<(), Refusal> {
    if expected.iter().any(|topic| topic == found) {
        return Ok(());
    }
    Err(Refusal::OtherTopic { found: found.to_owned(), expected: expected.join(" or ") })
}

/// The letter's envelope. One that a record had on a topic that others write is none of ours.
fn envelope<'r>(config: &Config, letter: &Letter, record: &'r Record) -> Result<Envelope<'r>, Refusal> {
    if let (Queue::Source(name), Some(origin)) = (&letter.at.queue, &letter.origin)
        && config.sources.get(name).is_some_and(|source| !is_trusted(source, &origin.topic))
    {
        return Ok(Envelope::default());
    }
    record.envelope().map_err(|_| Refusal::NoEnvelope)
}

/// The record that a replay produces. `person` is who the profile is now, if that is known. With `row_before`, the letter is a record that
/// send refused and goes to route, which runs the transform again: the row before the change, if the source keeps it.
///
/// # Errors
/// Why it cannot be replayed.
pub fn target(
    config: &Config,
    letter: &Letter,
    record: &Record,
    person: Option<&Person>,
    row_before: Option<Option<&[u8]>>,
    replay: &str,
    force: bool,
) -> Result<Target, Refusal> {
    check(config, letter, record, force)?;
    let mut envelope = envelope(config, letter, record)?;
    let origin = letter.origin.as_ref().ok_or(Refusal::NoOrigin)?;
    let count = letter.replays.saturating_add(1);
    envelope.replay = Some(Redelivery { id: replay, count });
    if envelope.time == Timestamp::default() {
        // An event that names no time has that of its record, and the replay is a new record.
        envelope.time = original_time(record);
    }
    let headers = record.headers.iter().filter(|(name, _)| !is_own_header(name)).cloned().collect();
    match &letter.at.queue {
        Queue::Source(name) => {
            envelope.position.get_or_insert(SourcePosition::Log(origin.coordinates()));
            Ok(Target {
                topic: Names::new(&config.kafka.prefix).replay(name),
                partition: 0,
                key: record.key().map(<[u8]>::to_vec),
                header: envelope.to_bytes(),
                headers,
                count,
            })
        }
        Queue::Destination(name) => {
            let names = Names::new(&config.kafka.prefix);
            let profile = person.map(|person| person.profile).or(envelope.profile).ok_or(Refusal::NoProfile)?;
            envelope.profile = Some(profile);
            envelope.only_destination = Some(name);
            let topic = if row_before.is_some() { names.resolved() } else { origin.topic.clone() };
            if let Some(before) = row_before {
                envelope.before = before;
                (envelope.transform_hash, envelope.delivery_key) = (None, None);
            }
            // Operations name the person as they were made for; an event that route reads again is the person's of today.
            if topic == names.resolved() {
                refresh(&mut envelope, config, person);
            }
            Ok(Target {
                topic,
                partition: i32::try_from(profile.partition(config.kafka.partitions)).unwrap_or(0),
                key: Some(profile.to_string().into_bytes()),
                header: envelope.to_bytes(),
                headers,
                count,
            })
        }
    }
}

/// Puts the identifiers in use now into the envelope: a letter that lacked the destination's key may have it by now.
fn refresh<'a>(envelope: &mut Envelope<'a>, config: &Config, person: Option<&'a Person>) {
    let Some(person) = person else { return };
    let declared: Vec<&str> = config.identity.rules.type_names().collect();
    envelope.identifiers.clear();
    envelope.identifiers.extend(
        person
            .identifiers
            .iter()
            .filter(|held| held.in_use && declared.contains(&&*held.kind))
            .map(|held| Identifier { kind: &held.kind, value: &held.value }),
    );
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tailwater_core::{Coordinates, ProfileId};
    use tailwater_identity::Held;

    use super::*;

    fn config() -> Config {
        let text = "
version: 1
workspace: w
kafka: { brokers: '127.0.0.1:9092', prefix: 't.', partitions: 8 }
identity:
  types:
    customer_id: { priority: 1, max: 1 }
    email: { priority: 2, max: 5, normalise: email }
sources:
  rows: { type: kafka, kind: state, topic: app.rows, primary_key: customer_id, strict: false, identifiers: { customer_id: customer_id } }
accounts:
  main: { type: klaviyo, api_key: '${env:PATH}' }
destinations:
  k:
    account: main
    create: true
    identifier: email
    identifiers: { email: email }
    routes: [{ from: rows, transform: t.js }]
";
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("t.js"), "function send(p, h) { return [] }").unwrap();
        let file = folder.path().join("tailwater.yaml");
        std::fs::write(&file, text).unwrap();
        let checked = crate::config::check(&file, &crate::config::LoadOptions::default());
        checked.config.unwrap_or_else(|| panic!("{:?}", checked.problems))
    }

    fn profile() -> ProfileId {
        ProfileId::of("w", "customer_id", "c1", 0)
    }

    fn letter_of(queue: Queue, topic: &str, envelope: &Envelope<'_>, extra: &[(&str, &str)]) -> (Letter, Record) {
        let mut headers: Vec<(String, Option<Vec<u8>>)> = [
            ("ce_type", "order"),
            ("__connect.errors.topic", topic),
            ("__connect.errors.partition", "3"),
            ("__connect.errors.offset", "77"),
            ("tw-error-code", "no_key"),
        ]
        .iter()
        .chain(extra)
        .map(|(name, value)| ((*name).to_owned(), Some(value.as_bytes().to_vec())))
        .collect();
        headers.rotate_left(1);
        let bytes = envelope.to_bytes();
        let header = (*envelope != Envelope::default()).then_some(bytes.as_slice());
        let record = Record::new(
            Arc::from("t.dlq.x"),
            0,
            4,
            Timestamp::from_millis(5),
            Some(b"key"),
            Some(b"{}"),
            header,
            headers,
        );
        (Letter::read(&queue, &record), record)
    }

    fn destination() -> Queue {
        Queue::Destination("k".into())
    }

    fn event() -> Envelope<'static> {
        let mut envelope = Envelope { source: "rows", profile: Some(profile()), ..Envelope::default() };
        envelope.identifiers.push(Identifier { kind: "customer_id", value: "c1" });
        envelope
    }

    #[test]
    fn a_letter_of_route_goes_to_the_persons_partition_of_resolved_for_its_destination_alone() {
        let (letter, record) = letter_of(destination(), "t.resolved", &event(), &[]);
        let survivor = ProfileId::of("w", "email", "ada@example.com", 0);
        let person = Person {
            profile: survivor,
            sequence: 4,
            absorbed: vec![profile()],
            identifiers: [
                ("customer_id", "c1", true),
                ("email", "old@example.com", false),
                ("email", "ada@example.com", true),
                ("gone", "x", true),
            ]
            .into_iter()
            .map(|(kind, value, in_use)| Held {
                kind: kind.into(),
                match_key: value.into(),
                value: value.into(),
                added: Timestamp::default(),
                in_use,
            })
            .collect(),
        };
        let target = target(&config(), &letter, &record, Some(&person), None, "r1", false).unwrap();
        assert_eq!(target.topic, "t.resolved");
        assert_eq!(target.partition, i32::try_from(survivor.partition(8)).unwrap());
        assert_eq!(target.key.unwrap(), survivor.to_string().into_bytes());
        assert_eq!(target.headers, [("ce_type".to_owned(), Some(b"order".to_vec()))]);
        let envelope = Envelope::decode(&target.header).unwrap();
        assert_eq!(envelope.replay, Some(Redelivery { id: "r1", count: 1 }));
        assert_eq!((envelope.only_destination, envelope.profile), (Some("k"), Some(survivor)));
        assert_eq!((envelope.identifier("email"), envelope.identifiers.len()), (Some("ada@example.com"), 2));
    }

    #[test]
    fn a_letter_of_send_goes_back_to_outbound_with_the_identifiers_it_was_made_for() {
        let (letter, record) = letter_of(destination(), "t.outbound.k", &event(), &[]);
        let person = Person { profile: profile(), sequence: 1, absorbed: Vec::new(), identifiers: Vec::new() };
        let target = target(&config(), &letter, &record, Some(&person), None, "r1", false).unwrap();
        assert_eq!(target.topic, "t.outbound.k");
        assert_eq!(Envelope::decode(&target.header).unwrap().identifier("customer_id"), Some("c1"));
    }

    // Issue 12: what the vendor refused was sent again as it was, whatever had been corrected in the transform.
    #[test]
    fn a_letter_of_send_goes_to_route_where_the_transform_is_to_run_again() {
        let made = Envelope { transform_hash: Some(b"12345678"), ..event() };
        let (letter, record) = letter_of(destination(), "t.outbound.k", &made, &[]);
        let before = Some(br#"{"score":1}"#.as_slice());
        let target = target(&config(), &letter, &record, None, Some(before), "r1", false).unwrap();
        assert_eq!(target.topic, "t.resolved");
        assert_eq!(target.partition, i32::try_from(profile().partition(8)).unwrap());
        let envelope = Envelope::decode(&target.header).unwrap();
        assert_eq!((envelope.before, envelope.transform_hash), (before, None));
        assert_eq!((envelope.only_destination, envelope.profile), (Some("k"), Some(profile())));
        assert_eq!(envelope.replay, Some(Redelivery { id: "r1", count: 1 }));
    }

    #[test]
    fn a_letter_of_a_source_goes_to_the_topic_of_its_replays_with_its_position() {
        let (letter, record) = letter_of(Queue::Source("rows".into()), "app.rows", &Envelope::default(), &[]);
        let target = target(&config(), &letter, &record, None, None, "r1", false).unwrap();
        assert_eq!(
            (target.topic.as_str(), target.partition, target.key.as_deref()),
            ("t.replay.rows", 0, Some(&b"key"[..]))
        );
        let envelope = Envelope::decode(&target.header).unwrap();
        let place = Coordinates { topic: "app.rows", partition: 3, offset: 77 };
        assert_eq!(envelope.position, Some(SourcePosition::Log(place)));
        assert_eq!(envelope.only_destination, None);
        // Issue 10, A14: the replay is a new record, and an event without a time of its own keeps the time of the old one.
        assert_eq!(envelope.time, Timestamp::from_millis(5));
        let appended = [("tw-original-timestamp", "1700000000000")];
        let (letter, record) = letter_of(Queue::Source("rows".into()), "app.rows", &Envelope::default(), &appended);
        let target = super::target(&config(), &letter, &record, None, None, "r1", false).unwrap();
        assert_eq!(Envelope::decode(&target.header).unwrap().time, Timestamp::from_millis(1_700_000_000_000));
    }

    /// Issue 10: a `tw` header on a topic that others write is not ours, so a letter that has one can be replayed all the same.
    #[test]
    fn the_envelope_of_a_letter_of_a_foreign_topic_counts_for_nothing() {
        let mut foreign = event();
        foreign.replay = Some(Redelivery { id: "theirs", count: REPLAYS_MAX });
        foreign.only_destination = Some("nowhere");
        foreign.position = Some(SourcePosition::Table { generation: 1, version: 2, ordinal: 3 });
        let (letter, record) = letter_of(Queue::Source("rows".into()), "app.rows", &foreign, &[]);
        let first = target(&config(), &letter, &record, None, None, "r1", false).unwrap();
        let envelope = Envelope::decode(&first.header).unwrap();
        let place = Coordinates { topic: "app.rows", partition: 3, offset: 77 };
        let position = Some(SourcePosition::Log(place));
        let replay = Some(Redelivery { id: "r1", count: 1 });
        let time = Timestamp::from_millis(5);
        assert_eq!(envelope, Envelope { position, replay, time, ..Envelope::default() });
        // It fails again: what its replay wrote counts.
        let (letter, record) = letter_of(Queue::Source("rows".into()), "t.replay.rows", &envelope, &[]);
        let second = target(&config(), &letter, &record, None, None, "r2", false).unwrap();
        assert_eq!(second.count, 2);
        assert_eq!(Envelope::decode(&second.header).unwrap().position, position);
    }

    #[test]
    fn replays_are_counted_and_poison_needs_force() {
        let mut envelope = event();
        envelope.replay = Some(Redelivery { id: "before", count: REPLAYS_MAX });
        let (letter, record) = letter_of(destination(), "t.resolved", &envelope, &[]);
        assert_eq!(check(&config(), &letter, &record, false), Err(Refusal::Poison(REPLAYS_MAX)));
        let forced = target(&config(), &letter, &record, None, None, "r2", true).unwrap();
        assert_eq!(forced.count, REPLAYS_MAX + 1);
    }

    #[test]
    fn what_cannot_be_replayed_says_why() {
        let refused = |queue: Queue, topic: &str, envelope: &Envelope<'_>, extra: &[(&str, &str)]| {
            let (letter, record) = letter_of(queue, topic, envelope, extra);
            check(&config(), &letter, &record, false).unwrap_err()
        };
        let rows = || Queue::Source("rows".into());
        assert!(matches!(refused(destination(), "t.outbound.other", &event(), &[]), Refusal::OtherTopic { .. }));
        assert!(matches!(refused(rows(), "app.old", &event(), &[]), Refusal::OtherTopic { .. }));
        assert_eq!(refused(destination(), "t.resolved", &Envelope::default(), &[]), Refusal::NoProfile);
        assert_eq!(refused(rows(), "app.rows", &Envelope::default(), &[(ANNOUNCED, "x")]), Refusal::Announced);
        let gone = refused(Queue::Destination("gone".into()), "t.resolved", &event(), &[]);
        assert_eq!(gone, Refusal::NotConfigured("destination gone".into()));
    }
}
