//! Any text as one of our ids and as a time: they stand in keys, headers and command lines.

use proptest::prelude::*;
use tailwater_fuzz::{Target, effect, generated};

use super::*;
use crate::Timestamp;

const TOKENS: &[&str] = &[
    "00000000000000000000000000000000",
    "ffffffff",
    "7a113a7e-52d4-5c1e-9a40-6b1c0c5f7e21",
    "{",
    "}",
    "urn:uuid:",
    "-",
    "+",
    "T",
    "Z",
    "2026-03-01T08:00:00.267459Z",
    "2026-03-01",
    "+09999-12-31T23:59:59",
    "-009999-01-01T00:00:00",
    "[Europe/Berlin]",
    ":60",
    ".",
    ",",
];

#[test]
fn ids() {
    let mut texts = generated(prop_oneof![
        "[0-9a-fA-F+-]{30,38}",
        "[+-]?[0-9]{4,6}-[01][0-9]-[0-3][0-9]([T ][0-2][0-9]:[0-6][0-9](:[0-6][0-9](\\.[0-9]{0,10})?)?)?(Z|[+-][0-9]{2}:?[0-9]{2})?",
    ]
    .prop_map(String::into_bytes));
    let target = Target { name: "ids", tokens: TOKENS, bytes_max: 256 };
    target.run(Some(&mut texts), |input| {
        let text = String::from_utf8_lossy(input);
        let (event, profile, time) = (EventId::parse(&text), ProfileId::parse(&text), Timestamp::parse(&text));
        if let Some(id) = event {
            assert!(id.to_string().eq_ignore_ascii_case(&text), "{id} was read from {text}");
            assert_eq!(EventId::parse(&id.to_string()), Some(id));
        }
        if let Some(id) = profile {
            assert_eq!(ProfileId::parse(&id.to_string()), Some(id));
            assert!((1..=20).all(|partitions| id.partition(partitions) < partitions));
            let json = serde_json::to_string(&id).expect("a text");
            assert_eq!(serde_json::from_str::<ProfileId>(&json).ok(), Some(id));
        }
        if let Some(time) = time {
            assert_eq!(Timestamp::parse(&time.to_string()), Some(time), "{text}");
        }
        let near = time.map(|time| (time < Timestamp::default(), time.as_millis().checked_ilog10()));
        effect((event.is_some(), profile.map(|_| text.len()), near))
    });
}
