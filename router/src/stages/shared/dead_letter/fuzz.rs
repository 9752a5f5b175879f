//! Any headers on a dead letter: Kafka Connect's and our own, as other tools, older versions and a replay leave them.

use std::sync::Arc;

use tailwater_core::{Timestamp, code};
use tailwater_fuzz::{Target, effect};

use super::*;
use crate::operator::dlq::{Letter, Queue};

const TOKENS: &[&str] = &[
    "__connect.errors.topic: t.resolved\n",
    "__connect.errors.partition: 3\n",
    "__connect.errors.offset: 77\n",
    "__connect.errors.stage: ROUTE\n",
    "__connect.errors.exception.message: too low\n",
    "__connect.errors.exception.class.name: transform_threw\n",
    "tw-error-code: transform_threw\n",
    "tw-attempts: 2\n",
    "tw-attempts: -1\n",
    "tw-destination: klaviyo\n",
    "tw-transform: ltv.js\n",
    "tw-event-id: 00112233445566778899aabbccddeeff\n",
    "tw-source-error-code: kafka_record_too_large\n",
    "tw-http-status: 400\n",
    "tw: x\n",
    "tw-",
    "__connect.errors.",
    "\n",
    ": ",
    "\0",
    "\x01",
];

/// Names and values, as a record has them.
type Headers = Vec<(String, Option<Vec<u8>>)>;

/// The headers of an input, line by line (`name: value`, or `name` without one), up to an empty line; and what follows it, the header `tw`.
pub(crate) fn headers(input: &[u8]) -> (Headers, Option<&[u8]>) {
    let cut = input.windows(2).position(|pair| pair == b"\n\n");
    let (lines, rest) = match cut {
        Some(at) => (&input[..at], Some(&input[at + 2..])),
        None => (input, None),
    };
    let header = |line: &[u8]| match line.windows(2).position(|pair| pair == b": ") {
        Some(at) => (String::from_utf8_lossy(&line[..at]).into_owned(), Some(line[at + 2..].to_vec())),
        None => (String::from_utf8_lossy(line).into_owned(), None),
    };
    (lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(header).collect(), rest)
}

#[test]
fn dead_letters() {
    let target = Target { name: "dead_letters", tokens: TOKENS, bytes_max: 2_048 };
    target.run(None, |input| {
        let (headers, envelope) = headers(input);
        let record = Record::new(
            Arc::from("t.dlq.destination.k"),
            0,
            9,
            Timestamp::from_millis(7),
            None,
            Some(b"{}"),
            envelope,
            headers,
        );
        let queues = [Queue::Destination("k".into()), Queue::Source("s".into())];
        let letters = queues.map(|queue| Letter::read(&queue, &record));
        // The record fails once more: what its headers said stays, and what is new is added beside it.
        let reason = Reason::new(code::DECODE_FAILED, "not an object");
        let failure = Failure {
            stage: "resolve",
            connector: "app",
            destination: Some("k"),
            transform: None,
            attempts: 3,
            reason: &reason,
            stack: Some("at ltv.js:1"),
        };
        let again = super::headers(&record, &failure);
        assert_eq!(again.get(..record.headers.len()), Some(record.headers.as_slice()), "nothing is overwritten");
        let mut added: Vec<&str> = again.iter().skip(record.headers.len()).map(|(name, _)| name.as_str()).collect();
        assert!(added.iter().all(|name| is_own_header(name)), "a replay leaves them out: {added:?}");
        added.sort_unstable();
        assert!(added.windows(2).all(|pair| pair[0] != pair[1]), "{added:?}");
        if record.headers.is_empty() {
            let mut record = record.clone();
            record.headers = again;
            let read = Letter::read(&Queue::Source("s".into()), &record);
            assert_eq!((read.code.as_str(), read.message.as_str()), (code::DECODE_FAILED.as_str(), "not an object"));
        }
        let refusal = refusal_of(&record).map(|reason| reason.code);
        assert_eq!(refusal.is_some(), header_text(&record, SOURCE_CODE).is_some(), "a refused record is no tombstone");
        let told = letters.map(|letter| {
            (letter.code.len(), letter.origin.is_some(), letter.event.is_some(), letter.attempts, letter.replays.min(3))
        });
        effect((told, refusal, record.headers.len().min(6)))
    });
}
