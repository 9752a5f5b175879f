//! Any bytes as a record that waits in a state topic; and what comes of writing again what was read.

use std::sync::Arc;

use tailwater_fuzz::{Target, effect};

use super::*;

const TOKENS: &[&str] =
    &["\x01", "\0\0\0\0\0\0\0\x07", "\u{ff}", "\0\0\0\x02ab", "\0\0\0\0", "\0\0\0\x05email", "{\"a\":1}", "\x7f"];

#[test]
fn held() {
    let topic: Arc<str> = Arc::from("t.resolved");
    let target = Target { name: "held", tokens: TOKENS, bytes_max: 1_024 };
    target.run(None, |input| {
        let Some(first) = decode(&topic, 0, b"h".to_vec(), input) else { return effect(input.first()) };
        let bytes: usize = [first.record.key(), first.record.value(), first.record.header()]
            .into_iter()
            .flatten()
            .map(<[u8]>::len)
            .sum();
        assert!(bytes + first.record.headers.len() * 8 <= input.len(), "nothing is made up");
        let written = encode(&first.record, first.since);
        let second = decode(&topic, 0, b"h".to_vec(), &written).expect("what was written can be read");
        assert_eq!(second.since, first.since);
        assert_eq!((second.record.offset, second.record.timestamp), (first.record.offset, first.record.timestamp));
        assert_eq!(second.record.key(), first.record.key());
        assert_eq!(second.record.value(), first.record.value());
        assert_eq!(second.record.header(), first.record.header());
        assert_eq!(second.record.headers, first.record.headers);
        let parts =
            [first.record.key(), first.record.value(), first.record.header()].map(|part| part.map(<[u8]>::is_empty));
        effect((parts, first.record.headers.len().min(5), first.since.as_millis() < 0))
    });
}
