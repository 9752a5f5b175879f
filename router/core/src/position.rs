//! Where an event came from: its position in the source, and its coordinates in Kafka.

use std::cmp::Ordering;
use std::fmt;

/// A record's place in Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Coordinates<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub offset: i64,
}

impl fmt::Display for Coordinates<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]@{}", self.topic, self.partition, self.offset)
    }
}

/// The position of an event in its source, for those who keep it longer than the record that it was read from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum OwnedPosition {
    Table { generation: u32, version: u64, ordinal: u64 },
    Log { topic: String, partition: i32, offset: i64 },
}

/// What happened to the row that the event was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// The event is no change of a row: a fact from a producer or a webhook.
    #[default]
    None,
    Insert,
    Update,
    Delete,
}

impl ChangeKind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

/// The position of an event in its source; positions of one source and one kind are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SourcePosition<'a> {
    /// A row of a table: `generation` counts how often the table was replaced by another one under the same name,
    /// `version` is the table's own, `ordinal` the row's place within the version.
    Table { generation: u32, version: u64, ordinal: u64 },
    /// A record of a producer's own topic.
    Log(Coordinates<'a>),
}

impl SourcePosition<'_> {
    /// How `self` lies to `other`; `None` where they cannot be compared: another kind, or another partition.
    pub fn compare(&self, other: &SourcePosition<'_>) -> Option<Ordering> {
        match (self, other) {
            (
                Self::Table { generation: a, version: b, ordinal: c },
                SourcePosition::Table { generation: x, version: y, ordinal: z },
            ) => Some((a, b, c).cmp(&(x, y, z))),
            (Self::Log(a), SourcePosition::Log(b)) if a.topic == b.topic && a.partition == b.partition => {
                Some(a.offset.cmp(&b.offset))
            }
            (Self::Table { .. }, SourcePosition::Log(_))
            | (Self::Log(_), SourcePosition::Table { .. } | SourcePosition::Log(_)) => None,
        }
    }
}

impl From<SourcePosition<'_>> for OwnedPosition {
    fn from(position: SourcePosition<'_>) -> Self {
        match position {
            SourcePosition::Table { generation, version, ordinal } => Self::Table { generation, version, ordinal },
            SourcePosition::Log(at) => {
                Self::Log { topic: at.topic.to_owned(), partition: at.partition, offset: at.offset }
            }
        }
    }
}

impl OwnedPosition {
    pub fn as_ref(&self) -> SourcePosition<'_> {
        match self {
            Self::Table { generation, version, ordinal } => {
                SourcePosition::Table { generation: *generation, version: *version, ordinal: *ordinal }
            }
            Self::Log { topic, partition, offset } => {
                SourcePosition::Log(Coordinates { topic, partition: *partition, offset: *offset })
            }
        }
    }
}

impl fmt::Display for SourcePosition<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table { generation, version, ordinal } => write!(f, "g{generation}/v{version}/{ordinal}"),
            Self::Log(coordinates) => coordinates.fmt(f),
        }
    }
}
