//! Any bytes as the header `tw`: they come from Kafka, and any producer may have written them.

use proptest::strategy::Strategy as _;
use tailwater_fuzz::{Target, effect, generated};

use super::tests::parts;
use super::*;

/// A field of a later version.
const LATER: (u64, &[u8]) = (1 << 40, b"of a later version");

#[test]
fn envelope() {
    // Tags and lengths of the fields as they are, so that values move between fields.
    let tokens: Vec<String> = (1_u8..=28).map(|tag| char::from(tag).to_string()).collect();
    let mut tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
    tokens.extend(["\x01", "\x0f\x07\x05email", "\x06\x03\0\0\0", "\x07\x03\0\0t", "\x10\x05phone", "\x11\x21"]);
    let mut headers = generated(parts().prop_map(|parts| parts.envelope().to_bytes()));
    let target = Target { name: "envelope", tokens: &tokens, bytes_max: 2_048 };
    target.run(Some(&mut headers), |bytes| match Envelope::decode(bytes) {
        Ok(envelope) => {
            holds(bytes, &envelope.to_bytes());
            effect(fields(&envelope))
        }
        Err(DecodeError::Field { tag }) => effect(("field", tag.min(30))),
        Err(DecodeError::Truncated { tag }) => effect(("truncated", tag.min(30))),
        Err(error) => effect(std::mem::discriminant(&error)),
    });
}

/// `written` is what came of writing again what was read from `bytes`.
fn holds(bytes: &[u8], written: &[u8]) {
    // Read anew, because only envelopes of one lifetime can be compared.
    let envelope = Envelope::decode(bytes).expect("it was read before");
    let lists = envelope.identifiers.len() + envelope.refused.len() + envelope.unknown.len();
    assert!(lists <= bytes.len() / 2, "{lists} entries out of {} bytes", bytes.len());
    let read = Envelope::decode(written).expect("what was written can be read");
    assert_eq!(read, envelope);
    assert_eq!(read.to_bytes(), written, "what is written does not change when it is written again");
    // A stage of an older version carries on what it does not know.
    let mut longer = bytes.to_vec();
    put(&mut longer, LATER.0, LATER.1);
    let carried = Envelope::decode(&longer).expect("a field more does not matter").to_bytes();
    assert_eq!(Envelope::decode(&carried).expect("written by us").unknown.last(), Some(&LATER));
    // What is shown of it, in logs and by `tailwater tap`.
    assert!(!envelope.time.to_string().is_empty());
    if let Some(position) = &envelope.position {
        assert!(!position.to_string().is_empty());
    }
}

/// Which fields a header has.
fn fields(envelope: &Envelope<'_>) -> (u32, usize, usize) {
    let role = match envelope.role {
        Role::Event => 0,
        Role::Fence(_) => 1,
        Role::Hold(_) => 2,
        Role::Release(_) => 3,
    };
    let position = match envelope.position {
        None => 0,
        Some(SourcePosition::Table { .. }) => 1,
        Some(SourcePosition::Log(_)) => 2,
    };
    let some = [
        envelope.event_id.is_some(),
        envelope.ingest.is_some(),
        envelope.before.is_some(),
        envelope.schema.is_some(),
        envelope.profile.is_some(),
        envelope.backfill.is_some(),
        envelope.replay.is_some(),
        envelope.delivery_key.is_some(),
        envelope.row_key.is_some(),
        envelope.time.as_millis() < 0,
    ];
    let bits = some.iter().fold(role * 4 + position, |bits, some| bits * 2 + u32::from(*some));
    (bits, envelope.identifiers.len().min(4), envelope.unknown.len().min(4))
}
