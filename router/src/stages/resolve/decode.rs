//! From a record of an ingest topic to an event: what it says about itself, in whichever of the known forms it came.
//!
//! Understood are rows of our own sources (the `tw` header), rows that a producer wrote with Spark's `to_json(struct(*))` on a change
//! feed (`_change_type`, `_commit_version`), CloudEvents headers (`ce_*`), and plain JSON objects. Pure.

use std::borrow::Cow;

use smallvec::SmallVec;
use tailwater_core::delivery::Reason;
use tailwater_core::envelope::Envelope;
use tailwater_core::schema::other_names;
use tailwater_core::time::TimeProblem;
use tailwater_core::{ChangeKind, EventId, SourcePosition, Timestamp, code};
use tailwater_identity::number;

use super::types::{self, Invalid, Types};
use super::{surrogates, unreadable};
use crate::config::model::{OnInvalid, Source, SourceInput, SourceKind};
use crate::kafka::{Record, topics};
use crate::stages::shared::{body, dead_letter};

/// Identifiers that one event may bring; more are counted and refused by the resolver's own limit.
pub type Identifiers = SmallVec<[(usize, String); 4]>;

/// Characters of an unreadable time that a message quotes.
const QUOTED_CHARS_MAX: usize = 60;

/// A record that was understood.
#[derive(Debug)]
pub struct Event<'r> {
    pub envelope: Envelope<'r>,
    /// The row: the record's value, or what it is without its invalid values.
    pub body: Cow<'r, [u8]>,
    /// Values that were replaced by null, because they are none of their column's type.
    pub invalid: Vec<Invalid>,
    /// Place in the source's `identifiers` and the raw value, absent and null ones left out.
    pub identifiers: Identifiers,
    /// Places of values that are no identifiers whatever their type: structs, lists, and numbers that are no exact integers.
    pub unusable: SmallVec<[usize; 2]>,
    pub event_id: EventId,
    /// Which row it is: states of different rows never supersede one another.
    pub row_key: Option<Cow<'r, [u8]>>,
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

/// Understands one record. `types` are those that the source declares.
pub fn decode<'r>(record: &'r Record, source: &Source, types: Option<&Types>, workspace: &str) -> Decoded<'r> {
    let trusted = topics::is_trusted(source, &record.topic);
    if trusted && let Some(reason) = dead_letter::refusal_of(record) {
        return Decoded::Reject(reason);
    }
    let Some(value) = record.value() else {
        return Decoded::Skip(Reason::new(code::TOMBSTONE, "the record has no value"));
    };
    let envelope = match if trusted { record.envelope() } else { Ok(Envelope::default()) } {
        Ok(envelope) => envelope,
        Err(error) => {
            return Decoded::Reject(Reason::new(
                code::DECODE_FAILED,
                format!("the header `tw` could not be read: {error}"),
            ));
        }
    };
    match read(record, surrogates::replaced(value), envelope, source, types, workspace) {
        Ok(decoded) => decoded,
        Err(error) => Decoded::Reject(Reason::new(code::DECODE_FAILED, unreadable::describe(value, &error))),
    }
}

fn read<'r>(
    record: &'r Record,
    body: Cow<'r, [u8]>,
    envelope: Envelope<'r>,
    source: &Source,
    types: Option<&Types>,
    workspace: &str,
) -> Result<Decoded<'r>, serde_json::Error> {
    let repaired = matches!(body, Cow::Owned(_));
    let row = Row::read(&body, source)?;
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
    let invalid = types.map_or(Ok(Vec::new()), |types| types.check(&body))?;
    let cured = match (&*invalid, source.on_invalid()) {
        ([], _) => None,
        (few, OnInvalid::Omit) if few.len() < types::INVALID_MAX => Some(types::without(&body, few)),
        (some, OnInvalid::Omit | OnInvalid::DeadLetter) => return Ok(Decoded::Reject(invalid_values(some))),
    };
    let row = match &cured {
        Some(cured) => {
            drop(row);
            Row::read(cured, source)?
        }
        None => row,
    };
    let (mut identifiers, mut unusable) = (Identifiers::new(), SmallVec::new());
    for index in 0..source.identifiers.len() {
        match row.identifier(index)? {
            Found::Text(text) => identifiers.push((index, text)),
            Found::Unusable => unusable.push(index),
            Found::Nothing => {}
        }
    }
    // An identifier with it is refused by itself; of two ids, both could become the same.
    let is_half = |text: &String| text.contains('\u{fffd}');
    if repaired && matches!(source.kind, SourceKind::Events { id: Some(_) }) && row.id()?.as_ref().is_some_and(is_half)
    {
        let message = "the event's id holds half of a surrogate pair (a text that was cut within a character); another id could become the same";
        return Ok(Decoded::Reject(Reason::new(code::DECODE_FAILED, message)));
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
    let row_key = row_key(record, &row, &envelope, source, &position)?;
    drop(row);
    Ok(Decoded::Event(Box::new(Event {
        body: cured.map_or(body, Cow::Owned),
        invalid,
        identifiers,
        unusable,
        event_id,
        time,
        time_problem,
        row_key,
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

fn invalid_values(invalid: &[Invalid]) -> Reason {
    let mut message = invalid.first().map(Invalid::to_string).unwrap_or_default();
    if invalid.len() > 1 {
        message.push_str(&format!(", and {} more of its values are invalid", invalid.len() - 1));
    }
    message.push_str("; correct the producer, or declare the type that it writes");
    Reason::new(code::INVALID_VALUE, message)
}

/// What resolve reads of a row, found in one pass. The paths stand in this order: the identifiers, then these.
struct Row<'r, 's> {
    values: body::Values<'r, 's>,
    identifiers: usize,
    value: &'r [u8],
    source: &'s Source,
}

impl<'r, 's> Row<'r, 's> {
    fn read(value: &'r [u8], source: &'s Source) -> Result<Self, serde_json::Error> {
        let id = match &source.kind {
            SourceKind::Events { id } => id.as_deref(),
            SourceKind::State => None,
        };
        // A path that the source does not have holds its place with an empty name, and is not asked for.
        let key = own_key(source).unwrap_or_default();
        let others = ["_change_type", source.event_time.as_deref().unwrap_or_default(), id.unwrap_or_default(), key];
        let paths = source.identifiers.iter().map(|(path, _)| path.as_str()).chain(others);
        Ok(Self { values: body::Values::read(value, paths)?, identifiers: source.identifiers.len(), value, source })
    }

    /// What stands at a path, or under the other names that its column has (`aliases`). A column that is there and null is not looked for
    /// elsewhere.
    fn json(&self, place: usize, path: Option<&str>) -> Result<Option<&'r str>, serde_json::Error> {
        let found = self.values.json(place)?;
        let Some(path) = path.filter(|_| found.is_none() && !self.source.aliases.is_empty()) else { return Ok(found) };
        for other in other_names(path, &self.source.aliases) {
            if let Some(found) = body::find(self.value, &other)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn identifier(&self, index: usize) -> Result<Found, serde_json::Error> {
        let path = self.source.identifiers.get(index).map(|(path, _)| path.as_str());
        let Some(json) = self.json(index, path)? else { return Ok(Found::Nothing) };
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
        self.json(self.identifiers + 1, self.source.event_time.as_deref())
    }

    /// An integer is one id however its producer writes it.
    fn id(&self) -> Result<Option<String>, serde_json::Error> {
        let path = match &self.source.kind {
            SourceKind::Events { id } => id.as_deref(),
            SourceKind::State => None,
        };
        let Some(json) = self.json(self.identifiers + 2, path)? else { return Ok(None) };
        if json.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
            return Ok(Some(number::integer(json).map_or_else(|| json.to_owned(), Cow::into_owned)));
        }
        body::text_of(json)
    }

    fn key(&self) -> Result<Option<String>, serde_json::Error> {
        self.json(self.identifiers + 3, own_key(self.source))?.map_or(Ok(None), body::text_of)
    }
}

/// The path of the key that a producer's rows have. A table's reader has found the key already. A fact is no version of a row, so its id
/// is no key; only one that the configuration names is.
fn own_key(source: &Source) -> Option<&str> {
    match (&source.input, &source.kind) {
        (SourceInput::Delta(_), _) => None,
        (SourceInput::Kafka(_), SourceKind::State) => source.primary_key.as_deref(),
        (SourceInput::Kafka(_), SourceKind::Events { id }) => {
            source.primary_key.as_deref().filter(|key| Some(*key) != id.as_deref())
        }
    }
}

/// Which row it is. A row without its key is one of its own, known by where it lies: to take it for another row that has none either would
/// let one of them be superseded by the other.
fn row_key<'r>(
    record: &'r Record,
    row: &Row<'_, '_>,
    envelope: &Envelope<'r>,
    source: &Source,
    position: &SourcePosition<'_>,
) -> Result<Option<Cow<'r, [u8]>>, serde_json::Error> {
    if own_key(source).is_none() {
        return Ok(envelope.row_key.or_else(|| record.key()).map(Cow::Borrowed));
    }
    Ok(Some(Cow::Owned(match (row.key()?, position) {
        // Of two keys with half of a surrogate pair in them, both could become the same.
        (Some(key), _) if !key.contains('\u{fffd}') => key.into_bytes(),
        (_, SourcePosition::Log(at)) => at.to_string().into_bytes(),
        (_, SourcePosition::Table { .. }) => record.coordinates().to_string().into_bytes(),
    })))
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
            if source.primary_key.is_some()
                && matches!(position, SourcePosition::Table { .. })
                && envelope.row_key.is_none()
            {
                let message = format!(
                    "expected the row's key in `{}` (source {}, `primary_key`), found null; without it rows could not be told apart",
                    source.primary_key.as_deref().unwrap_or_default(),
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
    use crate::config::model::{EventTimeRules, KafkaSource, OnDelete};
    use tailwater_core::time::TimeUnit;

    fn source(kind: SourceKind) -> Source {
        Source {
            name: "app".into(),
            input: SourceInput::Kafka(KafkaSource::of("app.events")),
            kind,
            primary_key: None,
            identifiers: vec![("user.email".into(), "email".into()), ("id".into(), "customer_id".into())],
            event_time: Some("at".into()),
            event_time_rules: EventTimeRules::default(),
            event_type: "app".into(),
            on_delete: OnDelete::Skip,
            aliases: std::collections::BTreeMap::new(),
            before_image: false,
            dedupe: None,
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
        match decode(record, source, None, "acme") {
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

    // Issue 10, A2: a renamed column linked nobody, although `aliases` named it.
    #[test]
    fn identifiers_ids_and_times_are_found_under_the_aliases_of_their_columns() {
        let mut source = source(SourceKind::Events { id: Some("order_id".into()) });
        source.aliases = [("person", "user"), ("order_no", "order_id"), ("happened", "at")]
            .map(|(new, old)| (new.to_owned(), vec![old.to_owned()]))
            .into();
        let new = record(
            Some(r#"{"person":{"email":"a@b.c"},"id":"c1","order_no":"o1","happened":"2026-03-01T08:00:00Z"}"#),
            vec![],
        );
        let found = event(&new, &source);
        assert_eq!(found.identifiers.as_slice(), [(0, "a@b.c".to_owned()), (1, "c1".to_owned())]);
        assert_eq!(found.event_id, EventId::of_fact("acme", "app", "o1"));
        assert_eq!(found.time.to_string(), "2026-03-01T08:00:00.000Z");
        // A column that is there counts, null too.
        let both = record(Some(r#"{"user":{"email":null},"person":{"email":"a@b.c"},"order_id":"o1"}"#), vec![]);
        assert!(event(&both, &source).identifiers.is_empty());
    }

    #[test]
    fn rows_of_a_change_feed_say_what_happened_and_their_pre_images_are_skipped() {
        let delete = record(Some(r#"{"id":"c1","_change_type":"delete","_commit_version":7}"#), vec![]);
        assert_eq!(event(&delete, &source(SourceKind::State)).change, ChangeKind::Delete);
        let before = record(Some(r#"{"id":"c1","_change_type":"update_preimage"}"#), vec![]);
        assert!(
            matches!(decode(&before, &source(SourceKind::State), None, "acme"), Decoded::Skip(reason) if reason.code == code::PRE_IMAGE)
        );
    }

    fn with_header(topic: &str, header: &[u8], headers: Vec<(String, Option<Vec<u8>>)>) -> Record {
        let value = br#"{"id":"c1"}"#;
        Record::new(Arc::from(topic), 2, 40, Timestamp::from_millis(9), Some(b"k"), Some(value), Some(header), headers)
    }

    /// Issue 10: a header that named an unknown schema ended the process, on every start.
    #[test]
    fn our_headers_count_only_on_topics_that_nobody_else_writes() {
        let mut foreign = Envelope {
            schema: Some(tailwater_core::SchemaId::from_bytes([0x5a; 16])),
            only_destination: Some("nowhere"),
            backfill: Some("first"),
            change: ChangeKind::Delete,
            position: Some(SourcePosition::Table { generation: 1, version: 2, ordinal: 3 }),
            replay: Some(tailwater_core::envelope::Redelivery { id: "r", count: 9 }),
            row_key: Some(b"theirs"),
            ..Envelope::default()
        };
        foreign.unknown.push((99, b"later"));
        let source = source(SourceKind::State);
        for header in [foreign.to_bytes(), b"\x09 of another format".to_vec()] {
            let refused = dead_letter::refused_at_source(code::KAFKA_RECORD_TOO_LARGE, "theirs".into());
            let record = with_header("app.events", &header, refused);
            let event = event(&record, &source);
            let position = Some(SourcePosition::Log(record.coordinates()));
            assert_eq!(event.envelope, Envelope { position, ..Envelope::default() });
            assert_eq!(event.row_key.as_deref(), Some(&b"k"[..]), "the record's own");
            assert_eq!(event.change, ChangeKind::None);
        }
        // What an operator replays lies in a topic of our own.
        let header = foreign.to_bytes();
        let record = with_header("t.replay.app", &header, Vec::new());
        let replayed = event(&record, &source);
        assert_eq!((replayed.envelope.replay, replayed.envelope.schema), (foreign.replay, foreign.schema));
        let record = with_header("t.replay.app", b"\x09", Vec::new());
        assert!(
            matches!(decode(&record, &source, None, "acme"), Decoded::Reject(reason) if reason.code == code::DECODE_FAILED)
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
            let decoded = decode(&record, &source, None, "acme");
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

    /// Issue 10: the configured key was ignored, so rows without a record key shared an empty one.
    #[test]
    fn a_row_is_known_by_its_configured_key() {
        let keyed = |kind, key: Option<&str>| Source { primary_key: key.map(str::to_owned), ..source(kind) };
        let row_key = |source: &Source, offset, value: &str| {
            let bytes = Some(value.as_bytes());
            let record = Record::new("app.events".into(), 2, offset, Timestamp::default(), None, bytes, None, vec![]);
            event(&record, source).row_key.as_deref().map(|key| String::from_utf8_lossy(key).into_owned())
        };
        let state = keyed(SourceKind::State, Some("row.no"));
        let key = |offset, value| row_key(&state, offset, value);
        assert_eq!(key(1, r#"{"id":"c1","row":{"no":7}}"#).as_deref(), Some("7"));
        assert_ne!(key(1, r#"{"id":"c1","row":{"no":7}}"#), key(1, r#"{"id":"c1","row":{"no":8}}"#));
        // A row without its key is known by its place: two of them are never taken for one.
        for without in [r#"{"id":"c1"}"#, r#"{"id":"c1","row":{"no":null}}"#, r#"{"id":"c1","row":{"no":[1]}}"#] {
            assert_eq!(key(40, without), Some("app.events[2]@40".to_owned()), "{without}");
            assert_ne!(key(40, without), key(41, without));
        }
        // Facts are no versions of a row, unless the configuration names a key beside the id.
        let facts = |key| keyed(SourceKind::Events { id: Some("id".into()) }, key);
        assert_eq!(row_key(&facts(Some("id")), 1, r#"{"id":"e1","cart":"k"}"#), None);
        assert_eq!(row_key(&facts(Some("cart")), 1, r#"{"id":"e1","cart":"k"}"#).as_deref(), Some("k"));
    }

    /// Its replay lies elsewhere, and is the same row all the same.
    #[test]
    fn a_row_without_its_key_is_the_same_row_when_it_is_replayed() {
        let source = Source { primary_key: Some("no".into()), ..source(SourceKind::State) };
        let first = record(Some(r#"{"id":"c1"}"#), vec![]);
        let position = Some(SourcePosition::Log(first.coordinates()));
        let again = with_header("t.replay.app", &Envelope { position, ..Envelope::default() }.to_bytes(), vec![]);
        assert_eq!(event(&first, &source).row_key, event(&again, &source).row_key);
    }

    #[test]
    fn what_cannot_be_used_is_rejected_with_its_code() {
        for (value, code) in [
            ("[1]", code::DECODE_FAILED),
            ("{\"id\":", code::DECODE_FAILED),
            ("{\"id\":\"c\"}", code::EVENT_ID_MISSING),
        ] {
            let record = record(Some(value), vec![]);
            let decoded = decode(&record, &source(SourceKind::Events { id: Some("order_id".into()) }), None, "acme");
            assert!(matches!(&decoded, Decoded::Reject(reason) if reason.code == code), "{value}: {decoded:?}");
        }
    }

    /// Issue 10: a declared decimal took base64 text, which reached the vendor.
    #[test]
    fn an_invalid_value_is_a_dead_letter_or_left_out() {
        let column = |(name, data_type): (&str, &str)| tailwater_core::schema::Column::new(name, data_type);
        let columns = [("id", "string"), ("spend", "decimal(12,2)"), ("at", "timestamp")].map(column).to_vec();
        let types = Types::new(&tailwater_core::schema::Schema { columns });
        let value = r#"{"id":"c1","spend":"AcnDgA==","at":"soon"}"#;
        let record = record(Some(value), vec![]);
        let mut source = source(SourceKind::State);
        let Decoded::Reject(reason) = decode(&record, &source, Some(&types), "acme") else { panic!("accepted") };
        assert_eq!(reason.code, code::INVALID_VALUE);
        assert!(reason.message.contains("`spend`") && reason.message.contains("1 more"), "{}", reason.message);
        assert!(!reason.message.contains("AcnDgA"), "{}", reason.message);
        let omits = KafkaSource { on_invalid: OnInvalid::Omit, ..KafkaSource::of("app.events") };
        source.input = SourceInput::Kafka(omits);
        let Decoded::Event(event) = decode(&record, &source, Some(&types), "acme") else { panic!("refused") };
        assert_eq!(String::from_utf8_lossy(&event.body), r#"{"id":"c1","spend":null,"at":null}"#);
        assert_eq!((event.invalid.len(), event.identifiers.len()), (2, 1));
    }

    /// Issue 10: half an emoji in a name or a value failed the row late, with words about something else.
    #[test]
    fn half_a_surrogate_pair_becomes_a_replacement_character() {
        let record = record(Some(r#"{"id":"c1","no\ud83dte":"Zo\u00eb \ud83d"}"#), vec![]);
        let event = event(&record, &source(SourceKind::State));
        assert_eq!(String::from_utf8_lossy(&event.body), r#"{"id":"c1","no\ufffdte":"Zo\u00eb \ufffd"}"#);
        // Two ids could become the same; two keys could as well.
        let cut = self::record(Some(r#"{"user":{"email":"a@b.c"},"id":"u3\udc00"}"#), vec![]);
        let facts = source(SourceKind::Events { id: Some("id".into()) });
        let Decoded::Reject(reason) = decode(&cut, &facts, None, "acme") else { panic!("accepted") };
        assert!(reason.message.contains("half of a surrogate pair"), "{}", reason.message);
        let keyed = Source { primary_key: Some("id".into()), ..source(SourceKind::State) };
        assert_eq!(self::event(&cut, &keyed).row_key.as_deref(), Some(&b"app.events[2]@40"[..]));
    }

    #[test]
    fn a_tombstone_is_skipped_and_a_row_that_its_source_refused_is_not() {
        let source = source(SourceKind::State);
        assert!(
            matches!(decode(&record(None, vec![]), &source, None, "acme"), Decoded::Skip(reason) if reason.code == code::TOMBSTONE)
        );
        let headers = dead_letter::refused_at_source(code::KAFKA_RECORD_TOO_LARGE, "too large".into());
        let refused = Record::new(Arc::from("t.replay.app"), 0, 1, Timestamp::default(), None, None, None, headers);
        assert!(
            matches!(decode(&refused, &source, None, "acme"), Decoded::Reject(reason) if reason.code == code::KAFKA_RECORD_TOO_LARGE)
        );
    }
}
