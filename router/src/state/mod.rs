//! What a stage remembers: a compacted topic is the truth, an embedded store on local disk is its cache.
//!
//! Writes of a batch are gathered in an overlay and produced to the changelog within the batch's own transaction; only when
//! that is committed do they reach the disk, together with the offset up to which the cache has followed the topic. So the
//! cache is never ahead of what was committed, and a process with an empty disk, or another process, restores the same state from the
//! topic. A partition is served only when it has caught up.
//!
//! A topic can be deleted and made anew, and the client's safe interface tells no topic id. Therefore each partition that holds state
//! carries a record with a random name, its *marker*, written with the first state and at the same offset for as long as the topic
//! lives, because compaction moves nothing. A cache remembers marker and offset, and is followed only if it finds it there;
//! else what the topic has lost is told, and nothing is served.
//!
//! Where the broker has no transactions, outputs are acknowledged before state is written, and the state of a batch is written as one
//! piece ([`redo`]), so that a process can be killed at any moment.
//!
//! Used by route and send (one partition a partition), by resolve (one partition) and by the sources (their cursor).

mod cache;
mod map;
mod redo;
pub mod schemas;
mod store;

pub use cache::Cache;
pub use map::Map;
pub use store::Store;

use tailwater_core::{Code, code};

/// Why the state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "the local state in {path} could not be opened; another process may use it, or the disk may be full or damaged (it can be deleted: it is restored from Kafka)"
    )]
    Open {
        path: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the local state could not be read or written; it can be deleted, it is restored from Kafka")]
    Disk(#[from] fjall::Error),
    #[error(transparent)]
    Kafka(#[from] crate::kafka::Error),
    #[error(
        "{what} in {topic}[{partition}] under the key {key} cannot be read: {detail}; run the version that wrote it if that is a newer one, else remove the entry as the page of this code says"
    )]
    Damaged { topic: String, partition: i32, key: String, what: &'static str, detail: String },
    #[error(
        "{topic}[{partition}] has lost state: {detail}; it was deleted and made anew, or its end is gone. Bring the topic back, or accept the loss: stop the process, delete its `state_dir` and start it"
    )]
    Lost { topic: String, partition: i32, detail: String },
    #[error("state of {topic}[{partition}] was asked for before it was restored")]
    NotOpen { topic: String, partition: i32 },
}

impl Error {
    pub fn code(&self) -> Code {
        match self {
            Self::Open { .. } | Self::Disk(_) | Self::NotOpen { .. } => code::STATE_UNREADABLE,
            Self::Damaged { .. } => code::STATE_DAMAGED,
            Self::Lost { .. } => code::STATE_LOST,
            Self::Kafka(error) => error.code(),
        }
    }
}
