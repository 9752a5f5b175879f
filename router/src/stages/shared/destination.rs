//! The handle of a destination: its settings and its connector, as a reload swaps them in.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tailwater_connectors::Destination;

use crate::config::model;

/// One version of a destination. Route and send hold it while they work with it.
pub struct Handle {
    /// Counts the versions that this process has loaded.
    pub generation: u64,
    pub config: model::Destination,
    pub connector: Arc<dyn Destination>,
}

/// Where the current version of something is found; a reload puts the next one there.
pub type Slot<T> = Arc<ArcSwap<T>>;
