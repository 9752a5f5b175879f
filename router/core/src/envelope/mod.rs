//! The metadata of an event, in the one binary header `tw` that travels with it from ingest to the vendor.
//!
//! The body of a record is the row as it came, byte for byte; everything that Tailwater knows about it is here. One
//! header, because ten cost more than the transform itself, and tagged fields, so that a stage reads what it needs and
//! carries on what it does not know. The layout is frozen by golden bytes (`golden/envelope.hex`) and written out for
//! readers in other languages in `docs/reference/envelope.md`:
//!
//! ```text
//! header  = version (1 byte, 1) field*
//! field   = tag (varint) length (varint) value (length bytes)
//! varint  = unsigned LEB128
//! ```
//!
//! Fields may come in any order. A list (identifiers, refused columns) is a field that appears several times; of any other
//! field the last one counts.

use std::fmt;

use smallvec::SmallVec;

use crate::code::Code;
use crate::ids::{DeliveryKey, EventId, ProfileId, SchemaId};
use crate::position::{ChangeKind, Coordinates, SourcePosition};
use crate::time::Timestamp;
use crate::wire::{put_bytes, put_signed, put_varint, take_bytes, take_signed, take_varint, text, whole};

/// The name of the Kafka header that holds the envelope.
pub const HEADER: &str = "tw";

/// The format that this version writes, and the only one that exists so far.
pub const FORMAT: u8 = 1;

/// An identifier in use for the profile: the primary value of its type, as it is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identifier<'a> {
    pub kind: &'a str,
    pub value: &'a str,
}

/// Keeps a person's records in order across a merge of two profiles (`absorbed` becomes part of `survivor`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Merge {
    /// The number of the merge; higher ones are later.
    pub number: u64,
    pub survivor: ProfileId,
    pub absorbed: ProfileId,
}

/// What a record is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    #[default]
    Event,
    /// On the absorbed profile's partition: everything before it belongs to the time before the merge.
    Fence(Merge),
    /// On the survivor's partition: its later records wait until the fence is effective.
    Hold(Merge),
    /// On the survivor's partition, written by the stage that has passed the fence: the wait is over.
    Release(Merge),
}

/// Marks a record that was sent before: a dead letter, or what an operator replays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redelivery<'a> {
    pub id: &'a str,
    /// 1 for the first replay; a limit on it keeps poison from looping.
    pub count: u32,
}

/// An identifier of the row that is not used for the profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal<'a> {
    /// The column that holds it.
    pub column: &'a str,
    /// Its type.
    pub kind: &'a str,
    /// Why, as identity names it: `blocked`, `owned_by_another`, …
    pub why: &'a str,
}

impl Refusal<'_> {
    /// What is wrong with it, for people. It never shows the value.
    pub fn reason(&self) -> &'static str {
        match self.why {
            "blocked" => "it is on the list of values that stand for nobody",
            "invalid" => "it is not a valid value of this type",
            "unknown_type" => "its type is not declared",
            "too_many" => "the event has more identifiers than `max_ids_per_event`",
            "demoted" => "a limit forbids to link it to the profile",
            "owned_by_another" => "it belongs to another profile, and a limit forbids to merge the two",
            _ => "for a reason that this version does not know",
        }
    }
}

impl fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} in column `{}` was refused ({}): {}", self.kind, self.column, self.why, self.reason())
    }
}

/// The decoded header. It borrows from the bytes it was read from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Envelope<'a> {
    pub workspace: &'a str,
    pub event_id: Option<EventId>,
    pub source: &'a str,
    pub event_type: &'a str,
    pub time: Timestamp,
    pub position: Option<SourcePosition<'a>>,
    /// Where the record lies in the ingest topic; what the ledger counts by.
    pub ingest: Option<Coordinates<'a>>,
    /// Counts the events of the profile in the order of `resolved`; 0 before resolve.
    pub sequence: u64,
    pub change: ChangeKind,
    /// The row before the change, as JSON, where the source was asked for it.
    pub before: Option<&'a [u8]>,
    pub schema: Option<SchemaId>,
    pub previous_schema: Option<SchemaId>,
    pub profile: Option<ProfileId>,
    pub identifiers: SmallVec<[Identifier<'a>; 4]>,
    /// Paths of columns, as the source names them, whose value in this row was demoted, blocked or belongs to another profile.
    pub refused: SmallVec<[&'a str; 2]>,
    /// Why; in records of earlier versions nothing says so.
    pub refusals: SmallVec<[Refusal<'a>; 1]>,
    pub role: Role,
    /// The id of the backfill (a first snapshot, say) that the record belongs to: it must trigger no campaign.
    pub backfill: Option<&'a str>,
    pub replay: Option<Redelivery<'a>>,
    /// The record is for this destination alone (a replay, a hand-over after a merge).
    pub only_destination: Option<&'a str>,
    /// W3C `traceparent`.
    pub trace_context: Option<&'a str>,
    /// On outbound: which text of the transform made the operations.
    pub transform_hash: Option<&'a [u8]>,
    /// On outbound, where a record carries one delivery only.
    pub delivery_key: Option<DeliveryKey>,
    /// The key of the row or record, as its source gave it: states of different rows never supersede one another.
    pub row_key: Option<&'a [u8]>,
    /// Fields that a later version wrote; carried on as they are.
    pub unknown: SmallVec<[(u64, &'a [u8]); 0]>,
}

/// Why a header could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("the header is empty")]
    Empty,
    #[error("the header has format {0}, this version of tailwater reads format {FORMAT}")]
    Format(u8),
    #[error("the header ends within the tag of a field")]
    TruncatedTag,
    #[error("the header ends within field {tag}")]
    Truncated { tag: u64 },
    #[error("field {tag} of the header has a value that it cannot have")]
    Field { tag: u64 },
}

impl DecodeError {
    pub const fn code(&self) -> Code {
        crate::code::ENVELOPE_UNREADABLE
    }
}

mod tag {
    pub const WORKSPACE: u64 = 1;
    pub const EVENT_ID: u64 = 2;
    pub const SOURCE: u64 = 3;
    pub const EVENT_TYPE: u64 = 4;
    pub const TIME: u64 = 5;
    pub const POSITION_TABLE: u64 = 6;
    pub const POSITION_LOG: u64 = 7;
    pub const INGEST: u64 = 8;
    pub const SEQUENCE: u64 = 9;
    pub const CHANGE: u64 = 10;
    pub const BEFORE: u64 = 11;
    pub const SCHEMA: u64 = 12;
    pub const PREVIOUS_SCHEMA: u64 = 13;
    pub const PROFILE: u64 = 14;
    pub const IDENTIFIER: u64 = 15;
    pub const REFUSED: u64 = 16;
    pub const FENCE: u64 = 17;
    pub const HOLD: u64 = 18;
    pub const RELEASE: u64 = 19;
    pub const BACKFILL: u64 = 20;
    pub const REPLAY: u64 = 21;
    pub const ONLY_DESTINATION: u64 = 22;
    pub const TRACE_CONTEXT: u64 = 23;
    pub const TRANSFORM_HASH: u64 = 24;
    pub const DELIVERY_KEY: u64 = 25;
    pub const ROW_KEY: u64 = 26;
    // 27 is the unknown field of a golden header.
    pub const REFUSAL: u64 = 28;
}

// === impl Envelope ===

impl<'a> Envelope<'a> {
    /// Reads a header.
    ///
    /// # Errors
    /// Another format version, a header that was cut, or a value that its field cannot have.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let (&format, mut rest) = bytes.split_first().ok_or(DecodeError::Empty)?;
        if format != FORMAT {
            return Err(DecodeError::Format(format));
        }
        let mut envelope = Self::default();
        while !rest.is_empty() {
            let tag = take_varint(&mut rest).ok_or(DecodeError::TruncatedTag)?;
            let value = take_bytes(&mut rest).ok_or(DecodeError::Truncated { tag })?;
            envelope.read(tag, value).ok_or(DecodeError::Field { tag })?;
        }
        Ok(envelope)
    }

    fn read(&mut self, tag: u64, value: &'a [u8]) -> Option<()> {
        match tag {
            tag::WORKSPACE => self.workspace = text(value)?,
            tag::EVENT_ID => self.event_id = Some(EventId::from_bytes(value.try_into().ok()?)),
            tag::SOURCE => self.source = text(value)?,
            tag::EVENT_TYPE => self.event_type = text(value)?,
            tag::TIME => self.time = Timestamp::from_millis(whole(value, take_signed)?),
            tag::POSITION_TABLE => {
                self.position = whole(value, |rest| {
                    let generation = u32::try_from(take_varint(rest)?).ok()?;
                    let version = take_varint(rest)?;
                    Some(Some(SourcePosition::Table { generation, version, ordinal: take_varint(rest)? }))
                })?;
            }
            tag::POSITION_LOG => self.position = Some(SourcePosition::Log(coordinates(value)?)),
            tag::INGEST => self.ingest = Some(coordinates(value)?),
            tag::SEQUENCE => self.sequence = whole(value, take_varint)?,
            tag::CHANGE => {
                self.change = match value {
                    [0] => ChangeKind::None,
                    [1] => ChangeKind::Insert,
                    [2] => ChangeKind::Update,
                    [3] => ChangeKind::Delete,
                    _ => return None,
                };
            }
            tag::BEFORE => self.before = Some(value),
            tag::SCHEMA => self.schema = Some(SchemaId::from_bytes(value.try_into().ok()?)),
            tag::PREVIOUS_SCHEMA => self.previous_schema = Some(SchemaId::from_bytes(value.try_into().ok()?)),
            tag::PROFILE => self.profile = Some(ProfileId::from_bytes(value.try_into().ok()?)),
            tag::IDENTIFIER => {
                let mut rest = value;
                let kind = text(take_bytes(&mut rest)?)?;
                self.identifiers.push(Identifier { kind, value: text(rest)? });
            }
            tag::REFUSED => self.refused.push(text(value)?),
            tag::FENCE => self.role = Role::Fence(merge(value)?),
            tag::HOLD => self.role = Role::Hold(merge(value)?),
            tag::RELEASE => self.role = Role::Release(merge(value)?),
            tag::BACKFILL => self.backfill = Some(text(value)?),
            tag::REPLAY => {
                let mut rest = value;
                let count = u32::try_from(take_varint(&mut rest)?).ok()?;
                self.replay = Some(Redelivery { id: text(rest)?, count });
            }
            tag::ONLY_DESTINATION => self.only_destination = Some(text(value)?),
            tag::TRACE_CONTEXT => self.trace_context = Some(text(value)?),
            tag::TRANSFORM_HASH => self.transform_hash = Some(value),
            tag::DELIVERY_KEY => self.delivery_key = Some(DeliveryKey::from_bytes(value.try_into().ok()?)),
            tag::ROW_KEY => self.row_key = Some(value),
            tag::REFUSAL => {
                let mut rest = value;
                let column = text(take_bytes(&mut rest)?)?;
                let kind = text(take_bytes(&mut rest)?)?;
                self.refusals.push(Refusal { column, kind, why: text(rest)? });
            }
            other => self.unknown.push((other, value)),
        }
        Some(())
    }

    /// The value in use of an identifier type.
    pub fn identifier(&self, kind: &str) -> Option<&'a str> {
        self.identifiers.iter().find(|identifier| identifier.kind == kind).map(|identifier| identifier.value)
    }

    /// Why the row's own value of an identifier type is not in use.
    pub fn refusal(&self, kind: &str) -> Option<Refusal<'a>> {
        self.refusals.iter().find(|refusal| refusal.kind == kind).copied()
    }

    /// Writes the header to the end of `out`. Fields are written in the order of their tags, so equal envelopes have
    /// equal bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(FORMAT);
        put_text(out, tag::WORKSPACE, self.workspace);
        if let Some(id) = &self.event_id {
            put(out, tag::EVENT_ID, id.as_bytes());
        }
        put_text(out, tag::SOURCE, self.source);
        put_text(out, tag::EVENT_TYPE, self.event_type);
        if self.time != Timestamp::default() {
            put_with(out, tag::TIME, |value| put_signed(value, self.time.as_millis()));
        }
        match &self.position {
            Some(SourcePosition::Table { generation, version, ordinal }) => {
                put_with(out, tag::POSITION_TABLE, |value| {
                    put_varint(value, u64::from(*generation));
                    put_varint(value, *version);
                    put_varint(value, *ordinal);
                });
            }
            Some(SourcePosition::Log(at)) => put_with(out, tag::POSITION_LOG, |value| put_coordinates(value, at)),
            None => {}
        }
        if let Some(at) = &self.ingest {
            put_with(out, tag::INGEST, |value| put_coordinates(value, at));
        }
        if self.sequence != 0 {
            put_with(out, tag::SEQUENCE, |value| put_varint(value, self.sequence));
        }
        match self.change {
            ChangeKind::None => {}
            ChangeKind::Insert => put(out, tag::CHANGE, &[1]),
            ChangeKind::Update => put(out, tag::CHANGE, &[2]),
            ChangeKind::Delete => put(out, tag::CHANGE, &[3]),
        }
        if let Some(before) = self.before {
            put(out, tag::BEFORE, before);
        }
        if let Some(id) = &self.schema {
            put(out, tag::SCHEMA, id.as_bytes());
        }
        if let Some(id) = &self.previous_schema {
            put(out, tag::PREVIOUS_SCHEMA, id.as_bytes());
        }
        if let Some(id) = &self.profile {
            put(out, tag::PROFILE, id.as_bytes());
        }
        for identifier in &self.identifiers {
            put_with(out, tag::IDENTIFIER, |value| {
                put_varint(value, identifier.kind.len() as u64);
                value.extend_from_slice(identifier.kind.as_bytes());
                value.extend_from_slice(identifier.value.as_bytes());
            });
        }
        for kind in &self.refused {
            put(out, tag::REFUSED, kind.as_bytes());
        }
        match &self.role {
            Role::Event => {}
            Role::Fence(merge) => put_with(out, tag::FENCE, |value| put_merge(value, merge)),
            Role::Hold(merge) => put_with(out, tag::HOLD, |value| put_merge(value, merge)),
            Role::Release(merge) => put_with(out, tag::RELEASE, |value| put_merge(value, merge)),
        }
        if let Some(id) = self.backfill {
            put(out, tag::BACKFILL, id.as_bytes());
        }
        if let Some(replay) = &self.replay {
            put_with(out, tag::REPLAY, |value| {
                put_varint(value, u64::from(replay.count));
                value.extend_from_slice(replay.id.as_bytes());
            });
        }
        if let Some(destination) = self.only_destination {
            put(out, tag::ONLY_DESTINATION, destination.as_bytes());
        }
        if let Some(context) = self.trace_context {
            put(out, tag::TRACE_CONTEXT, context.as_bytes());
        }
        if let Some(hash) = self.transform_hash {
            put(out, tag::TRANSFORM_HASH, hash);
        }
        if let Some(key) = &self.delivery_key {
            put(out, tag::DELIVERY_KEY, key.as_bytes());
        }
        if let Some(key) = self.row_key {
            put(out, tag::ROW_KEY, key);
        }
        for refusal in &self.refusals {
            put_with(out, tag::REFUSAL, |value| {
                for part in [refusal.column, refusal.kind] {
                    put_varint(value, part.len() as u64);
                    value.extend_from_slice(part.as_bytes());
                }
                value.extend_from_slice(refusal.why.as_bytes());
            });
        }
        for (tag, value) in &self.unknown {
            put(out, *tag, value);
        }
    }

    /// The header as a vector of its own.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        self.encode(&mut out);
        out
    }
}

impl fmt::Display for Merge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "merge {}: {} into {}", self.number, self.absorbed, self.survivor)
    }
}

// === values ===

fn coordinates(value: &[u8]) -> Option<Coordinates<'_>> {
    let mut rest = value;
    let partition = i32::try_from(take_varint(&mut rest)?).ok()?;
    let offset = i64::try_from(take_varint(&mut rest)?).ok()?;
    Some(Coordinates { topic: text(rest)?, partition, offset })
}

fn merge(value: &[u8]) -> Option<Merge> {
    let mut rest = value;
    let number = take_varint(&mut rest)?;
    let (survivor, absorbed) = rest.split_at_checked(16)?;
    Some(Merge {
        number,
        survivor: ProfileId::from_bytes(survivor.try_into().ok()?),
        absorbed: ProfileId::from_bytes(absorbed.try_into().ok()?),
    })
}

fn put(out: &mut Vec<u8>, tag: u64, value: &[u8]) {
    put_varint(out, tag);
    put_bytes(out, value);
}

fn put_text(out: &mut Vec<u8>, tag: u64, value: &str) {
    if !value.is_empty() {
        put(out, tag, value.as_bytes());
    }
}

/// Writes a field whose length is known only afterwards.
fn put_with(out: &mut Vec<u8>, tag: u64, write: impl FnOnce(&mut Vec<u8>)) {
    put_varint(out, tag);
    let start = out.len();
    // Nearly every such value is shorter than 128 bytes, so that its length is this one byte.
    out.push(0);
    write(out);
    let length = out.len() - start - 1;
    if let Ok(length @ 0..=0x7f) = u8::try_from(length) {
        out[start] = length;
    } else {
        let value = out.split_off(start + 1);
        out.truncate(start);
        put_bytes(out, &value);
    }
}

fn put_coordinates(out: &mut Vec<u8>, at: &Coordinates<'_>) {
    debug_assert!(at.partition >= 0, "a record that was read has a partition");
    debug_assert!(at.offset >= 0, "a record that was read has an offset");
    put_varint(out, u64::from(at.partition.cast_unsigned()));
    put_varint(out, at.offset.cast_unsigned());
    out.extend_from_slice(at.topic.as_bytes());
}

fn put_merge(out: &mut Vec<u8>, merge: &Merge) {
    put_varint(out, merge.number);
    out.extend_from_slice(merge.survivor.as_bytes());
    out.extend_from_slice(merge.absorbed.as_bytes());
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
