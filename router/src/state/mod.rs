//! What a stage remembers: a compacted topic is the truth, an embedded store on local disk is its cache.
//!
//! Writes of a batch are gathered in an overlay and produced to the changelog within the batch's own transaction; only when
//! that is committed do they reach the disk, together with the offset up to which the cache has followed the topic. So the
//! cache is never ahead of what was committed, and a process with an empty disk, or another process, restores the same state from the
//! topic. A partition is served only when it has caught up.
//!
//! Used by route and send (one partition a lane), by resolve (one partition) and by the sources (their cursor).

mod cache;
mod map;
pub mod store;

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
    #[error("state of {topic}[{partition}] was asked for before it was restored")]
    NotOpen { topic: String, partition: i32 },
}

impl Error {
    pub fn code(&self) -> Code {
        match self {
            Self::Open { .. } | Self::Disk(_) | Self::NotOpen { .. } => code::STATE_UNREADABLE,
            Self::Kafka(error) => error.code(),
        }
    }
}
