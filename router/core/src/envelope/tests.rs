//! The envelope's format is frozen: golden bytes for every field, properties for every reader, and the reference page held against
//! the same bytes.

use proptest::prelude::*;
use smallvec::smallvec;

use super::*;

const GOLDEN: &str = include_str!("../golden/envelope.hex");
const REFERENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/envelope.md");

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn golden(name: &str) -> Vec<u8> {
    let line = GOLDEN.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    unhex(line.unwrap_or_else(|| panic!("golden/envelope.hex has no {name}")))
}

const SURVIVOR: ProfileId = ProfileId::from_bytes([0xa1; 16]);
const ABSORBED: ProfileId = ProfileId::from_bytes([0xb2; 16]);
const MERGE: Merge = Merge { number: 300, survivor: SURVIVOR, absorbed: ABSORBED };

/// The row of a table as it travels on `resolved`: the worked example of the reference page.
fn example() -> Envelope<'static> {
    Envelope {
        workspace: "winback",
        event_id: Some(EventId::from_bytes([0x11; 16])),
        source: "ltv_scores",
        event_type: "ltv_scores",
        time: Timestamp::from_millis(1_772_352_000_267),
        position: Some(SourcePosition::Table { generation: 0, version: 4, ordinal: 300 }),
        ingest: Some(Coordinates { topic: "tailwater.ingest.ltv_scores", partition: 3, offset: 5_021 }),
        sequence: 2,
        change: ChangeKind::Update,
        schema: Some(SchemaId::from_bytes([0x22; 16])),
        profile: Some(SURVIVOR),
        row_key: Some(b"cust_0001"),
        identifiers: smallvec![
            Identifier { kind: "customer_id", value: "cust_0001" },
            Identifier { kind: "email", value: "ada@example.com" },
        ],
        ..Envelope::default()
    }
}

/// Every field that a record can have at once, and two that this version does not know.
fn full() -> Envelope<'static> {
    Envelope {
        before: Some(br#"{"rfm_segment":"champions"}"#),
        previous_schema: Some(SchemaId::from_bytes([0x33; 16])),
        refused: smallvec!["phone", "email"],
        role: Role::Fence(MERGE),
        backfill: Some("2026-03-01"),
        replay: Some(Redelivery { id: "r-7", count: 2 }),
        only_destination: Some("klaviyo"),
        trace_context: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        transform_hash: Some(&[0x44; 8]),
        delivery_key: Some(DeliveryKey::from_bytes([0x55; 16])),
        unknown: smallvec![(27, b"later".as_slice()), (1_000, b"".as_slice())],
        ..example()
    }
}

fn cases() -> [(&'static str, Envelope<'static>); 6] {
    let log = SourcePosition::Log(Coordinates { topic: "app.events", partition: 0, offset: 0 });
    [
        ("minimal", Envelope::default()),
        ("example", example()),
        ("full", full()),
        ("hold", Envelope { role: Role::Hold(MERGE), ..Envelope::default() }),
        ("release", Envelope { role: Role::Release(MERGE), ..Envelope::default() }),
        (
            "log",
            Envelope {
                position: Some(log),
                time: Timestamp::from_millis(-1),
                change: ChangeKind::Insert,
                ..Envelope::default()
            },
        ),
    ]
}

#[test]
fn the_format_is_frozen() {
    for (name, envelope) in cases() {
        // The cases borrow for ever, and an envelope is only equal to one of the same lifetime.
        let bytes: &'static [u8] = golden(name).leak();
        assert_eq!(hex(&envelope.to_bytes()), hex(bytes), "{name}");
        assert_eq!(Envelope::decode(bytes).as_ref(), Ok(&envelope), "{name}");
    }
}

#[test]
fn the_worked_example_of_the_reference_page_is_the_golden_one() {
    let page = std::fs::read_to_string(REFERENCE).expect("docs/reference/envelope.md can be read");
    let block =
        page.split("```text\n").find_map(|part| part.split("```").next().filter(|block| block.starts_with("01 ")));
    let bytes: Vec<u8> = block
        .expect("the page has a block that begins with the format byte")
        .lines()
        .flat_map(|line| unhex(line.split("  ").next().unwrap_or_default()))
        .collect();
    assert_eq!(hex(&bytes), hex(&golden("example")));
}

#[test]
fn the_reference_page_lists_every_tag() {
    let page = std::fs::read_to_string(REFERENCE).expect("docs/reference/envelope.md can be read");
    let listed: Vec<u64> =
        page.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next()?.parse().ok()).collect();
    assert_eq!(listed, (tag::WORKSPACE..=tag::ROW_KEY).chain([tag::REFUSAL]).collect::<Vec<_>>());
}

#[test]
fn a_list_keeps_its_order_and_of_other_fields_the_last_one_counts() {
    let first = Envelope { source: "a", refused: smallvec!["email"], ..Envelope::default() }.to_bytes();
    let second = Envelope { source: "b", refused: smallvec!["phone"], ..Envelope::default() }.to_bytes();
    let joined = [first.as_slice(), &second[1..]].concat();
    let envelope = Envelope::decode(&joined).unwrap();
    assert_eq!(envelope.source, "b");
    assert_eq!(envelope.refused.as_slice(), ["email", "phone"]);
}

#[test]
fn errors_say_which_field_is_wrong() {
    assert_eq!(Envelope::decode(b""), Err(DecodeError::Empty));
    assert_eq!(Envelope::decode(&[2]), Err(DecodeError::Format(2)));
    assert_eq!(Envelope::decode(&[1, 0x80]), Err(DecodeError::TruncatedTag));
    assert_eq!(Envelope::decode(&[1, 3, 5, b'a']), Err(DecodeError::Truncated { tag: 3 }));
    assert_eq!(Envelope::decode(&[1, 3, 1, 0xff]), Err(DecodeError::Field { tag: 3 }), "no UTF-8");
    assert_eq!(Envelope::decode(&[1, 10, 1, 9]), Err(DecodeError::Field { tag: 10 }), "no such change");
    assert_eq!(Envelope::decode(&[1, 6, 4, 0, 1, 2, 3]), Err(DecodeError::Field { tag: 6 }), "one number too many");
    assert_eq!(Envelope::decode(&[1, 2, 2, 0, 0]), Err(DecodeError::Field { tag: 2 }), "too short for an id");
}

/// An envelope that owns what it consists of, for generated cases.
#[derive(Debug, Clone)]
pub(super) struct Parts {
    texts: [String; 4],
    optional: [Option<String>; 4],
    ids: [Option<[u8; 16]>; 5],
    numbers: (i64, u64, u64, u32, u32),
    place: (i32, i64),
    kinds: (u8, u8, u8, bool),
    identifiers: Vec<(String, String)>,
    refused: Vec<String>,
    before: Option<Vec<u8>>,
    unknown: Vec<(u64, Vec<u8>)>,
}

impl Parts {
    pub(super) fn envelope(&self) -> Envelope<'_> {
        let [workspace, source, event_type, topic] = self.texts.each_ref().map(String::as_str);
        let [backfill, only_destination, trace_context, replay] = self.optional.each_ref().map(Option::as_deref);
        let [event, schema, previous, profile, delivery] = self.ids;
        let (time, sequence, version, generation, count) = self.numbers;
        let at = Coordinates { topic, partition: self.place.0, offset: self.place.1 };
        let merge = Merge { number: version, survivor: SURVIVOR, absorbed: ABSORBED };
        Envelope {
            workspace,
            event_id: event.map(EventId::from_bytes),
            source,
            event_type,
            time: Timestamp::from_millis(time),
            position: match self.kinds.0 {
                0 => None,
                1 => Some(SourcePosition::Log(at)),
                _ => Some(SourcePosition::Table { generation, version, ordinal: sequence }),
            },
            ingest: self.kinds.3.then_some(at),
            sequence,
            change: [ChangeKind::None, ChangeKind::Insert, ChangeKind::Update, ChangeKind::Delete]
                [usize::from(self.kinds.1)],
            before: self.before.as_deref(),
            schema: schema.map(SchemaId::from_bytes),
            previous_schema: previous.map(SchemaId::from_bytes),
            profile: profile.map(ProfileId::from_bytes),
            identifiers: self.identifiers.iter().map(|(kind, value)| Identifier { kind, value }).collect(),
            refused: self.refused.iter().map(String::as_str).collect(),
            refusals: self.refused.iter().map(|text| Refusal { column: text, kind: source, why: text }).collect(),
            role: [Role::Event, Role::Fence(merge), Role::Hold(merge), Role::Release(merge)][usize::from(self.kinds.2)],
            backfill,
            replay: replay.map(|id| Redelivery { id, count }),
            only_destination,
            trace_context,
            transform_hash: self.before.as_deref(),
            delivery_key: delivery.map(DeliveryKey::from_bytes),
            row_key: self.before.as_deref(),
            unknown: self.unknown.iter().map(|(tag, value)| (*tag, value.as_slice())).collect(),
        }
    }
}

prop_compose! {
    pub(super) fn parts()(
        texts in any::<[String; 4]>(),
        optional in any::<[Option<String>; 4]>(),
        ids in any::<[Option<[u8; 16]>; 5]>(),
        numbers in any::<(i64, u64, u64, u32, u32)>(),
        place in (0..=i32::MAX, 0..=i64::MAX),
        kinds in (0_u8..3, 0_u8..4, 0_u8..4, any::<bool>()),
        identifiers in prop::collection::vec(any::<(String, String)>(), 0..6),
        refused in any::<Vec<String>>(),
        before in prop::option::of(prop::collection::vec(any::<u8>(), 0..400)),
        unknown in prop::collection::vec((tag::REFUSAL + 1..=u64::MAX, any::<Vec<u8>>()), 0..3),
    ) -> Parts {
        Parts { texts, optional, ids, numbers, place, kinds, identifiers, refused, before, unknown }
    }
}

proptest! {
    #[test]
    fn what_was_written_is_read_unknown_fields_included(parts in parts()) {
        let bytes = parts.envelope().to_bytes();
        let read = Envelope::decode(&bytes).expect("what was written can be read");
        prop_assert_eq!(&read, &parts.envelope());
        prop_assert_eq!(&read.to_bytes(), &bytes);
    }

    #[test]
    fn every_cut_is_an_error_or_ends_between_two_fields(parts in parts()) {
        let bytes = parts.envelope().to_bytes();
        for length in 0..bytes.len() {
            // A cut that decodes must have cut off whole fields: what is left is written again byte for byte.
            if let Ok(envelope) = Envelope::decode(&bytes[..length]) {
                prop_assert_eq!(envelope.to_bytes(), &bytes[..length]);
            }
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes: Vec<u8>) {
        let _any = Envelope::decode(&bytes);
        let formatted = [&[FORMAT], bytes.as_slice()].concat();
        let _format = Envelope::decode(&formatted);
    }

    #[test]
    fn a_changed_byte_never_panics(parts in parts(), at: prop::sample::Index, byte: u8) {
        let mut bytes = parts.envelope().to_bytes();
        let index = at.index(bytes.len());
        bytes[index] = byte;
        let _changed = Envelope::decode(&bytes);
    }
}

// Issue 10, D.
#[test]
fn a_refusal_names_the_column_the_type_and_the_reason_and_never_the_value() {
    let refusal = Refusal { column: "contact.email", kind: "email", why: "owned_by_another" };
    let envelope = Envelope { refusals: smallvec![refusal], ..Envelope::default() };
    let bytes = envelope.to_bytes();
    let read = Envelope::decode(&bytes).expect("written by us");
    assert_eq!(read.refusal("email"), Some(refusal));
    assert_eq!(read.refusal("phone"), None);
    assert_eq!(
        refusal.to_string(),
        "the email in column `contact.email` was refused (owned_by_another): it belongs to another profile, and a limit forbids to \
         merge the two"
    );
    // A reason of a later version is still a refusal.
    assert!(Refusal { why: "later", ..refusal }.to_string().contains("(later)"));
}
