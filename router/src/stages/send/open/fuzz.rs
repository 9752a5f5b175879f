//! Any bytes as the value of an outbound record: what is read is what goes to the vendor, so nothing of it may change on its way.

use std::collections::HashSet;

use serde_json::Value;
use tailwater_core::Timestamp;
use tailwater_fuzz::{Target, effect};

use super::*;

const TOKENS: &[&str] = &[
    r#"{"operations":["#,
    r#"{"kind":"upsert_profile","route":"ltv","place":"0","body":"#,
    r#"{"kind":"track_event","route":"ltv","place":"k","body":"#,
    r#"{"kind":"add_to_list","route":"ltv","place":"0","target":"WINBCK","body":"#,
    r#","target":"#,
    r#","non_finite":["a.b"]"#,
    r#"{"data":{"type":"profile"}}"#,
    "1.0e400",
    "-0.0",
    r#""\ud800""#,
    r#""\u0000é""#,
    "null",
    "]}",
    "[",
    "]",
    "}",
    ",",
];

fn open(value: &[u8]) -> Result<Open, Reason> {
    let envelope = Envelope {
        workspace: "fuzz",
        source: "ltv",
        event_id: Some(EventId::of_fact("fuzz", "ltv", "1")),
        profile: Some(ProfileId::of("fuzz", "customer_id", "c1", 0)),
        ..Envelope::default()
    };
    let mut header = Vec::new();
    envelope.encode(&mut header);
    let topic = Arc::from("t.outbound.klaviyo");
    let time = Timestamp::from_millis(9);
    Open::read(&Arc::new(Record::new(topic, 0, 40, time, Some(b"k"), Some(value), Some(&header), vec![])))
}

#[test]
fn outbound() {
    let target = Target { name: "outbound", tokens: TOKENS, bytes_max: 4_096 };
    target.run(None, |input| {
        let mut first = match open(input) {
            Ok(first) => first,
            Err(reason) => {
                assert_eq!(reason.code, code::DECODE_FAILED);
                assert!(reason.message.contains("t.outbound.klaviyo"), "it says where: {}", reason.message);
                return effect(input.len().min(8));
            }
        };
        let written = serde_json::to_vec(&Outbound { operations: first.operations.iter().collect::<Vec<_>>() })
            .expect("what was read");
        let second = open(&written).expect("what was written can be read");
        let mut names = HashSet::new();
        let mut keys = HashSet::new();
        for (operation, again) in first.operations.iter().zip(&second.operations) {
            assert_eq!(operation.body.get(), again.body.get(), "not a byte of a body changes");
            assert_eq!((operation.kind, &operation.route), (again.kind, &again.route));
            assert_eq!((&operation.place, &operation.target), (&again.place, &again.target));
            names.insert((operation.kind, operation.route.clone(), operation.place.clone(), operation.target.clone()));
        }
        while let Some(delivery) = first.delivery("klaviyo") {
            keys.insert(delivery.key);
            assert_eq!(delivery.attempt, 1);
            first.current += 1;
        }
        assert_eq!(first.current, second.operations.len());
        assert_eq!(
            keys.len(),
            names.len(),
            "deliveries that differ in kind, route, place or target have keys of their own"
        );
        let objects = first
            .operations
            .iter()
            .filter(|operation| serde_json::from_str::<Value>(operation.body.get()).is_ok_and(|body| body.is_object()));
        effect((first.operations.len().min(4), objects.count().min(4), names.len().min(4)))
    });
}
