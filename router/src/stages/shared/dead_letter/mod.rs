//! Dead letters: the record that the failing stage read, byte for byte, with Kafka Connect's headers and our own.
//!
//! A dead letter carries the time at which it was appended: with the record's own time, retention would delete the dead letter of an
//! old record at once. The record's time is in a header.

use std::sync::Arc;

use tailwater_core::delivery::Reason;
use tailwater_core::envelope::{self, Envelope};
use tailwater_core::{Code, Timestamp, code};

use crate::kafka::{Error, Outgoing, Outputs, Record};

/// Begins the names of Connect's headers, so that tools made for it read these dead letters too.
const CONNECT: &str = "__connect.errors.";

const SOURCE_CODE: &str = "tw-source-error-code";
const SOURCE_MESSAGE: &str = "tw-source-error-message";

/// When the record was appended to the topic that it failed in, in milliseconds since the epoch. Frozen: dead letters carry it.
const TIMESTAMP: &str = "tw-original-timestamp";

/// What failed, for the headers of a dead letter.
#[derive(Debug)]
pub struct Failure<'a> {
    /// `resolve`, `route` or `send`.
    pub stage: &'static str,
    /// The source's or the destination's name.
    pub connector: &'a str,
    pub destination: Option<&'a str>,
    pub transform: Option<&'a str>,
    pub attempts: u32,
    pub reason: &'a Reason,
    /// A transform's stack, where there is one.
    pub stack: Option<&'a str>,
}

/// Bytes of a transform's stack in a header: a dead letter must fit into its topic.
const STACK_BYTES_MAX: usize = 8 * 1024;

/// Produces a dead letter. A record too large for the topic is described instead of copied: the headers say where it lies.
///
/// # Errors
/// The client cannot go on.
pub fn produce(outputs: &mut impl Outputs, topic: &str, record: &Record, failure: &Failure<'_>) -> Result<(), Error> {
    let headers = headers(record, failure);
    let outgoing = Outgoing {
        topic,
        partition: None,
        key: record.key(),
        value: record.value(),
        envelope: record.header(),
        timestamp: None,
        headers: &headers,
    };
    match outputs.send(&outgoing) {
        Err(Error::TooLarge { .. }) => {
            let mut headers = headers.clone();
            headers.push((
                "tw-value-omitted".to_owned(),
                Some(b"record too large; read it at the original coordinates".to_vec()),
            ));
            match outputs.send(&Outgoing { value: None, headers: &headers, ..outgoing }) {
                // Its own headers or its key are too large by themselves: what we know of it must fit in any case.
                Err(Error::TooLarge { .. }) => {
                    let headers: Vec<_> = headers.drain(record.headers.len()..).collect();
                    outputs.send(&Outgoing { key: None, value: None, envelope: None, headers: &headers, ..outgoing })
                }
                other => other,
            }
        }
        other => other,
    }
}

/// The headers of a record that its source could only announce; resolve dead-letters it with this reason.
pub fn refused_at_source(code: Code, message: String) -> Vec<(String, Option<Vec<u8>>)> {
    vec![
        (SOURCE_CODE.to_owned(), Some(code.as_str().as_bytes().to_vec())),
        (SOURCE_MESSAGE.to_owned(), Some(message.into_bytes())),
    ]
}

/// The reason of a record that its source could only announce. A code of a later version is one as well: without it the record, which has
/// no value, would pass for a tombstone.
pub fn refusal_of(record: &Record) -> Option<Reason> {
    let written = header_text(record, SOURCE_CODE)?;
    let message = header_text(record, SOURCE_MESSAGE).unwrap_or_default();
    Some(match Code::find(&written) {
        Some(code) if message.is_empty() => Reason::new(code, format!("its source refused it: {}", code.summary())),
        Some(code) => Reason::new(code, message),
        None => Reason::new(
            code::DECODE_FAILED,
            format!("its source refused it with the code {written:?}, which this version does not know: {message}"),
        ),
    })
}

/// The headers of a dead letter: the record's own first, byte for byte, then what is known about the failure. A record that was a dead
/// letter before has headers of the same names; ours come last, and [`header_text`] reads the last one.
fn headers(record: &Record, failure: &Failure<'_>) -> Vec<(String, Option<Vec<u8>>)> {
    let envelope = record.envelope().unwrap_or_default();
    let mut headers = record.headers.clone();
    let mut add = |name: String, value: String| headers.push((name, Some(value.into_bytes())));
    add(format!("{CONNECT}topic"), record.topic.to_string());
    add(format!("{CONNECT}partition"), record.partition.to_string());
    add(format!("{CONNECT}offset"), record.offset.to_string());
    add(format!("{CONNECT}connector.name"), failure.connector.to_owned());
    add(format!("{CONNECT}task.id"), "0".to_owned());
    add(format!("{CONNECT}stage"), failure.stage.to_uppercase());
    add(format!("{CONNECT}class.name"), format!("tailwater.{}", failure.stage));
    add(format!("{CONNECT}exception.class.name"), failure.reason.code.to_string());
    add(format!("{CONNECT}exception.message"), failure.reason.message.clone());
    if let Some(stack) = failure.stack {
        add(format!("{CONNECT}exception.stacktrace"), shortened(stack).to_owned());
    }
    add("tw-error-code".to_owned(), failure.reason.code.to_string());
    add(TIMESTAMP.to_owned(), record.timestamp.as_millis().to_string());
    add("tw-attempts".to_owned(), failure.attempts.to_string());
    if let Some(destination) = failure.destination {
        add("tw-destination".to_owned(), destination.to_owned());
    }
    if let Some(transform) = failure.transform {
        add("tw-transform".to_owned(), transform.to_owned());
    }
    if let Some(status) = failure.reason.status {
        add("tw-http-status".to_owned(), status.to_string());
    }
    // What resolve reads has no event id yet; one in a header there is somebody else's.
    if let Some(id) = envelope.event_id.filter(|_| failure.stage != "resolve") {
        add("tw-event-id".to_owned(), id.to_string());
    }
    headers
}

/// Whether a header was added by [`produce`]; a replay leaves these out.
pub fn is_own_header(name: &str) -> bool {
    name.starts_with(CONNECT) || (name.starts_with("tw-") && name != envelope::HEADER)
}

fn shortened(text: &str) -> &str {
    text.get(..text.floor_char_boundary(STACK_BYTES_MAX)).unwrap_or_default()
}

/// A header's text: the first of that name, or the last one of the names that a dead letter adds.
pub fn header_text(record: &Record, name: &str) -> Option<String> {
    let mut named = record.headers.iter().filter(|(key, _)| key == name);
    let header = if is_own_header(name) { named.next_back() } else { named.next() };
    header.and_then(|(_, value)| value.as_deref()).map(|value| String::from_utf8_lossy(value).into_owned())
}

/// When the record of a dead letter was appended to the topic that it failed in. A dead letter of an earlier version carries that time
/// as its own.
pub fn original_time(letter: &Record) -> Timestamp {
    let written = header_text(letter, TIMESTAMP).and_then(|text| text.parse().ok());
    written.map_or(letter.timestamp, Timestamp::from_millis)
}

/// Gives a record another envelope; everything else stays as it was.
pub fn with_envelope(record: &Record, envelope: &Envelope<'_>) -> Record {
    Record::new(
        Arc::clone(&record.topic),
        record.partition,
        record.offset,
        record.timestamp,
        record.key(),
        record.value(),
        Some(&envelope.to_bytes()),
        record.headers.clone(),
    )
}

#[cfg(test)]
pub(crate) mod fuzz;
