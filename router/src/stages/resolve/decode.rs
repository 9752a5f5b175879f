//! From a record of an ingest topic to an event: what it says about itself, in whichever of the known forms it came.
//!
//! Understood are rows of our own sources (the `tw` header), rows that a producer wrote with Spark's `to_json(struct(*))` on a change
//! feed (`_change_type`, `_commit_version`), CloudEvents headers (`ce_*`), and plain JSON objects. Pure.

use std::borrow::Cow;

use smallvec::SmallVec;
use tailwater_core::delivery::Reason;
use tailwater_core::envelope::Envelope;
use tailwater_core::time::TimeProblem;
use tailwater_core::{ChangeKind, EventId, SourcePosition, Timestamp, code};
use tailwater_identity::number;

use crate::config::model::{Source, SourceKind};
use crate::kafka::Record;
use crate::stages::{body, dead_letter};

/// Identifiers that one event may bring; more are counted and refused by the resolver's own limit.
pub type Identifiers = SmallVec<[(usize, String); 4]>;

/// Characters of an unreadable time that a message quotes.
const QUOTED_CHARS_MAX: usize = 60;

/// A record that was understood.
#[derive(Debug)]
pub struct Event<'r> {
    pub envelope: Envelope<'r>,
    /// Place in the source's `identifiers` and the raw value, absent and null ones left out.
    pub identifiers: Identifiers,
    /// Places of values that are no identifiers whatever their type: structs, lists, and numbers that are no exact integers.
    pub unusable: SmallVec<[usize; 2]>,
    pub event_id: EventId,
    pub time: Timestamp,
    /// Why `time` is not the event's own.
    pub time_problem: Option<NoTime>,
    pub change: ChangeKind,
    /// The name of the event, where the record brings its own.
    pub event_type: Option<String>,
}

/// Why an event has not the time that its source says it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoTime {
    /// Null or absent.
    Missing,
    Unread {
        /// Its beginning, as it came.
        value: String,
        problem: TimeProblem,
    },
}

/// What became of a record.
#[derive(Debug)]
pub enum Decoded<'r> {
    Event(Box<Event<'r>>),
    /// There is nothing in it to deliver.
    Skip(Reason),
    /// It cannot be used.
    Reject(Reason),
}

/// Understands one record.
pub fn decode<'r>(record: &'r Record, source: &Source, workspace: &str) -> Decoded<'r> {
    if let Some(reason) = dead_letter::refusal_of(record) {
        return Decoded::Reject(reason);
    }
    let Some(value) = record.value() else {
        return Decoded::Skip(Reason::new(code::TOMBSTONE, "the record has no value"));
    };
    let envelope = match record.envelope() {
        Ok(envelope) => envelope,
        Err(error) => {
            return Decoded::Reject(Reason::new(
                code::DECODE_FAILED,
                format!("the header `tw` could not be read: {error}"),
            ));
        }
    };
    match read(record, value, envelope, source, workspace) {
        Ok(decoded) => decoded,
        Err(error) => Decoded::Reject(Reason::new(
            code::DECODE_FAILED,
            format!("expected one JSON object, found {} bytes that are none: {error}", value.len()),
        )),
    }
}

fn read<'r>(
    record: &'r Record,
    value: &'r [u8],
    envelope: Envelope<'r>,
    source: &Source,
    workspace: &str,
) -> Result<Decoded<'r>, serde_json::Error> {
    let row = Row::read(value, source)?;
    let mut change = envelope.change;
    // A row of our own sources says in its header what it is. A header with another position was added by a replay.
    if !matches!(envelope.position, Some(SourcePosition::Table { .. }))
        && let Some(kind) = row.change_type()?
    {
        change = match kind.as_str() {
            "insert" => ChangeKind::Insert,
            "update_postimage" => ChangeKind::Update,
            "delete" => ChangeKind::Delete,
            "update_preimage" => {
                return Ok(Decoded::Skip(Reason::new(
                    code::PRE_IMAGE,
                    "the row before an update; the row after it follows",
                )));
            }
            other => {
                let message = format!(
                    "the column _change_type is {other:?}; expected insert, update_preimage, update_postimage or delete"
                );
                return Ok(Decoded::Reject(Reason::new(code::DECODE_FAILED, message)));
            }
        };
    }
    let (mut identifiers, mut unusable) = (Identifiers::new(), SmallVec::new());
    for index in 0..source.identifiers.len() {
        match row.identifier(index)? {
            Found::Text(text) => identifiers.push((index, text)),
            Found::Unusable => unusable.push(index),
            Found::Nothing => {}
        }
    }
    let position = envelope.position.unwrap_or(SourcePosition::Log(record.coordinates()));
    let event_id = match event_id(record, &row, &envelope, source, workspace, &position, change)? {
        Ok(id) => id,
        Err(reason) => return Ok(Decoded::Reject(reason)),
    };
    let known = if envelope.time == Timestamp::default() { record.timestamp } else { envelope.time };
    let (time, time_problem) = match event_time(record, &row, source)? {
        Ok(time) => (time.unwrap_or(known), None),
        Err(problem) if source.event_time_rules.dead_letter => {
            return Ok(Decoded::Reject(Reason::new(code::EVENT_TIME_INVALID, problem.message(source))));
        }
        Err(problem) => (known, Some(problem)),
    };
    Ok(Decoded::Event(Box::new(Event {
        identifiers,
        unusable,
        event_id,
        time,
        time_problem,
        change,
        event_type: dead_letter::header_text(record, "ce_type"),
        envelope: Envelope { position: Some(position), ..envelope },
    })))
}

/// What stands where an identifier is expected.
enum Found {
    Text(String),
    Unusable,
    Nothing,
}

/// What resolve reads of a row, found in one pass. The paths stand in this order: the identifiers, then these.
struct Row<'r, 's> {
    values: body::Values<'r, 's>,
    identifiers: usize,
}

impl<'r, 's> Row<'r, 's> {
    fn read(value: &'r [u8], source: &'s Source) -> Result<Self, serde_json::Error> {
        let id = match &source.kind {
            SourceKind::Events { id } => id.as_deref(),
            SourceKind::State => None,
        };
        // A path that the source does not have holds its place with an empty name, and is not asked for.
        let others = ["_change_type", source.event_time.as_deref().unwrap_or_default(), id.unwrap_or_default()];
        let paths = source.identifiers.iter().map(|(path, _)| path.as_str()).chain(others);
        Ok(Self { values: body::Values::read(value, paths)?, identifiers: source.identifiers.len() })
    }

    fn identifier(&self, index: usize) -> Result<Found, serde_json::Error> {
        let Some(json) = self.values.json(index)? else { return Ok(Found::Nothing) };
        Ok(match json.as_bytes().first() {
            Some(b'"') => Found::Text(body::lossy(json)?),
            Some(b'-' | b'0'..=b'9') => {
                number::integer(json).map_or(Found::Unusable, |text| Found::Text(text.into_owned()))
            }
            Some(b'{' | b'[') => Found::Unusable,
            Some(b't' | b'f') => Found::Text(json.to_owned()),
            _ => Found::Nothing,
        })
    }

    fn change_type(&self) -> Result<Option<String>, serde_json::Error> {
        self.values.scalar(self.identifiers)
    }

    fn event_time(&self) -> Result<Option<&'r str>, serde_json::Error> {
        self.values.json(self.identifiers + 1)
    }

    /// An integer is one id however its producer writes it.
    fn id(&self) -> Result<Option<String>, serde_json::Error> {
        match self.values.json(self.identifiers + 2)? {
            Some(json) if json.starts_with(|first: char| first == '-' || first.is_ascii_digit()) => {
                Ok(Some(number::integer(json).map_or_else(|| json.to_owned(), Cow::into_owned)))
            }
            _ => self.values.scalar(self.identifiers + 2),
        }
    }
}

fn event_id(
    record: &Record,
    row: &Row<'_, '_>,
    envelope: &Envelope<'_>,
    source: &Source,
    workspace: &str,
    position: &SourcePosition<'_>,
    change: ChangeKind,
) -> Result<Result<EventId, Reason>, serde_json::Error> {
    let own = match &source.kind {
        SourceKind::Events { id: Some(path) } => match row.id()? {
            Some(id) => Some(id),
            None => {
                let message = format!(
                    "expected the event's id in `{path}` (source {}, `id`), found none; without it a repeat could not be told from news",
                    source.name
                );
                return Ok(Err(Reason::new(code::EVENT_ID_MISSING, message)));
            }
        },
        SourceKind::Events { id: None } => dead_letter::header_text(record, "ce_id"),
        SourceKind::State => {
            if source.key.is_some() && matches!(position, SourcePosition::Table { .. }) && envelope.row_key.is_none() {
                let message = format!(
                    "expected the row's key in `{}` (source {}, `key`), found null; without it rows could not be told apart",
                    source.key.as_deref().unwrap_or_default(),
                    source.name
                );
                return Ok(Err(Reason::new(code::DELTA_KEY_INVALID, message)));
            }
            None
        }
    };
    Ok(Ok(match own {
        Some(id) => EventId::of_fact(workspace, &source.name, &id),
        None => {
            let key = envelope.row_key.or_else(|| record.key()).unwrap_or_default();
            EventId::of_state(workspace, &source.name, position, key, change)
        }
    }))
}

/// The time that the event says itself; nothing where its source names none.
fn event_time(
    record: &Record,
    row: &Row<'_, '_>,
    source: &Source,
) -> Result<Result<Option<Timestamp>, NoTime>, serde_json::Error> {
    if source.event_time.is_none() {
        let Some(text) = dead_letter::header_text(record, "ce_time") else { return Ok(Ok(None)) };
        return Ok(Timestamp::parse(&text).map(Some).ok_or_else(|| NoTime::of(&text, TimeProblem::Unreadable)));
    }
    let Some(json) = row.event_time()?.filter(|json| *json != "null") else { return Ok(Err(NoTime::Missing)) };
    let text = if json.starts_with('"') { body::lossy(json)? } else { json.to_owned() };
    Ok(match Timestamp::read(&text, source.event_time_rules.unit) {
        Ok(time) => Ok(Some(time)),
        Err(problem) => Err(NoTime::of(&text, problem)),
    })
}

// === impl NoTime ===

impl NoTime {
    fn of(value: &str, problem: TimeProblem) -> Self {
        Self::Unread { value: value.chars().take(QUOTED_CHARS_MAX).collect(), problem }
    }

    /// One word for a metric.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Unread { problem, .. } => problem.as_str(),
        }
    }

    pub fn message(&self, source: &Source) -> String {
        let place = match &source.event_time {
            Some(path) => format!("`{path}` (source {}, `event_time`)", source.name),
            None => format!("the header ce_time (source {})", source.name),
        };
        match self {
            Self::Missing => format!("expected a time in {place}, found none"),
            Self::Unread { value, problem } => format!("expected a time in {place}, found {value:?}: {problem}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::model::{EventTimeRules, KafkaSource, OnDelete, SourceInput};
    use tailwater_core::time::TimeUnit;

    fn source(kind: SourceKind) -> Source {
        Source {
            name: "app".into(),
            input: SourceInput::Kafka(KafkaSource { topic: "app.events".into(), schema: None }),
            kind,
            key: None,
            identifiers: vec![("user.email".into(), "email".into()), ("id".into(), "customer_id".into())],
            event_time: Some("at".into()),
            event_time_rules: EventTimeRules::default(),
            event_type: "app".into(),
            on_delete: OnDelete::Skip,
            aliases: std::collections::BTreeMap::new(),
            before_image: false,
        }
    }

    fn record(value: Option<&str>, headers: Vec<(String, Option<Vec<u8>>)>) -> Record {
        Record::new(
            Arc::from("app.events"),
            2,
            40,
            Timestamp::from_millis(9),
            Some(b"k"),
            value.map(str::as_bytes),
            None,
            headers,
        )
    }

    fn event<'r>(record: &'r Record, source: &Source) -> Box<Event<'r>> {
        match decode(record, source, "acme") {
            Decoded::Event(event) => event,
            other => panic!("expected an event, got {other:?}"),
        }
    }

    #[test]
    fn identifiers_are_found_at_their_paths_and_null_is_none() {
        let record = record(Some(r#"{"user":{"email":"a@b.c"},"id":null,"at":"2026-03-01T08:00:00Z"}"#), vec![]);
        let event = event(&record, &source(SourceKind::Events { id: None }));
        assert_eq!(event.identifiers.as_slice(), [(0, "a@b.c".to_owned())]);
        assert_eq!(event.time.to_string(), "2026-03-01T08:00:00.000Z");
    }

    #[test]
    fn rows_of_a_change_feed_say_what_happened_and_their_pre_images_are_skipped() {
        let delete = record(Some(r#"{"id":"c1","_change_type":"delete","_commit_version":7}"#), vec![]);
        assert_eq!(event(&delete, &source(SourceKind::State)).change, ChangeKind::Delete);
        let before = record(Some(r#"{"id":"c1","_change_type":"update_preimage"}"#), vec![]);
        assert!(
            matches!(decode(&before, &source(SourceKind::State), "acme"), Decoded::Skip(reason) if reason.code == code::PRE_IMAGE)
        );
    }

    fn refused(value: &str, rules: EventTimeRules) -> (Timestamp, Option<&'static str>) {
        let source = Source { event_time_rules: rules, ..source(SourceKind::State) };
        let record = record(Some(value), vec![]);
        let event = event(&record, &source);
        (event.time, event.time_problem.as_ref().map(NoTime::reason))
    }

    /// Issue 10, A8.
    #[test]
    fn a_time_is_read_in_its_unit_or_reported() {
        let day = Timestamp::parse("2026-03-02").unwrap();
        let record_time = Timestamp::from_millis(9);
        for (at, expected) in [
            ("1772409600", (day, None)),
            ("1772409600000000", (day, None)),
            ("1772409600000000000", (day, None)),
            ("\"1772409600000\"", (day, None)),
            ("1772409600.267", (Timestamp::from_millis(day.as_millis() + 267), None)),
            ("\"2026-03-02 00:00:00 UTC\"", (day, None)),
            ("\"03/02/2026\"", (record_time, Some("unreadable"))),
            ("\"2026\\ud800\"", (record_time, Some("unreadable"))),
            ("true", (record_time, Some("unreadable"))),
            ("{\"seconds\": 1772409600}", (record_time, Some("unreadable"))),
            ("[2026, 3, 2]", (record_time, Some("unreadable"))),
            ("7", (record_time, Some("unit_unclear"))),
            ("null", (record_time, Some("missing"))),
        ] {
            assert_eq!(refused(&format!("{{\"id\":\"c\",\"at\":{at}}}"), EventTimeRules::default()), expected, "{at}");
        }
        assert_eq!(refused("{\"id\":\"c\"}", EventTimeRules::default()), (record_time, Some("missing")));
        let seconds = EventTimeRules { unit: Some(TimeUnit::Seconds), dead_letter: false };
        assert_eq!(refused("{\"id\":\"c\",\"at\":7}", seconds), (Timestamp::from_millis(7000), None));
        assert_eq!(refused("{\"id\":\"c\",\"at\":1772409600000}", seconds), (record_time, Some("out_of_range")));
    }

    #[test]
    fn a_row_without_a_time_is_a_dead_letter_where_the_source_says_so() {
        let rules = EventTimeRules { unit: None, dead_letter: true };
        let source = Source { event_time_rules: rules, ..source(SourceKind::State) };
        for value in ["{\"id\":\"c\",\"at\":\"soon\"}", "{\"id\":\"c\"}"] {
            let record = record(Some(value), vec![]);
            let decoded = decode(&record, &source, "acme");
            assert!(
                matches!(&decoded, Decoded::Reject(reason) if reason.code == code::EVENT_TIME_INVALID && reason.message.contains("`at`")),
                "{decoded:?}"
            );
        }
    }

    /// Issue 10, A7.
    #[test]
    fn an_integer_is_one_identifier_and_what_is_no_identifier_spoils_no_other() {
        for (value, ids, unusable) in [
            (r#"{"id":12345.0}"#, &[(1, "12345")][..], &[][..]),
            (r#"{"id":1e7}"#, &[(1, "10000000")], &[]),
            (r#"{"id":"12345"}"#, &[(1, "12345")], &[]),
            (r#"{"id":9007199254740993}"#, &[(1, "9007199254740993")], &[]),
            (r#"{"id":9007199254740992.0,"user":{"email":"a@b.c"}}"#, &[(0, "a@b.c")], &[1]),
            (r#"{"id":1.5,"user":{"email":"a@b.c"}}"#, &[(0, "a@b.c")], &[1]),
            (r#"{"id":["c1"],"user":{"email":"a@b.c"}}"#, &[(0, "a@b.c")], &[1]),
            (r#"{"id":{},"user":{"email":null}}"#, &[], &[1]),
            (r#"{"id":"c\ud800","user":{"email":"a@b.c"}}"#, &[(0, "a@b.c"), (1, "c\u{fffd}")], &[]),
        ] {
            let record = record(Some(value), vec![]);
            let event = event(&record, &source(SourceKind::State));
            let got: Vec<(usize, String)> = event
                .identifiers
                .iter()
                .map(|(place, text)| (*place, text.split_inclusive('\u{fffd}').next().unwrap_or_default().to_owned()))
                .collect();
            let expected: Vec<(usize, String)> = ids.iter().map(|(place, text)| (*place, (*text).to_owned())).collect();
            assert_eq!((got, event.unusable.as_slice()), (expected, unusable), "{value}");
        }
    }

    #[test]
    fn cloud_events_headers_give_id_time_and_type() {
        let headers =
            vec![("ce_id".to_owned(), Some(b"evt-1".to_vec())), ("ce_type".to_owned(), Some(b"order.placed".to_vec()))];
        let record = record(Some(r#"{"id":"c1"}"#), headers);
        let event = event(&record, &source(SourceKind::Events { id: None }));
        assert_eq!(event.event_id, EventId::of_fact("acme", "app", "evt-1"));
        assert_eq!(event.event_type.as_deref(), Some("order.placed"));
        assert_eq!(event.time, Timestamp::from_millis(9));
    }

    #[test]
    fn what_cannot_be_used_is_rejected_with_its_code() {
        for (value, code) in [
            ("[1]", code::DECODE_FAILED),
            ("{\"id\":", code::DECODE_FAILED),
            ("{\"id\":\"c\"}", code::EVENT_ID_MISSING),
        ] {
            let record = record(Some(value), vec![]);
            let decoded = decode(&record, &source(SourceKind::Events { id: Some("order_id".into()) }), "acme");
            assert!(matches!(&decoded, Decoded::Reject(reason) if reason.code == code), "{value}: {decoded:?}");
        }
    }

    #[test]
    fn a_tombstone_is_skipped_and_a_row_that_its_source_refused_is_not() {
        let source = source(SourceKind::State);
        assert!(
            matches!(decode(&record(None, vec![]), &source, "acme"), Decoded::Skip(reason) if reason.code == code::TOMBSTONE)
        );
        let headers = dead_letter::refused_at_source(code::KAFKA_RECORD_TOO_LARGE, "too large".into());
        assert!(
            matches!(decode(&record(None, headers), &source, "acme"), Decoded::Reject(reason) if reason.code == code::KAFKA_RECORD_TOO_LARGE)
        );
    }
}
