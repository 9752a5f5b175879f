//! What the parts of one process share.

use std::sync::Arc;

use super::supervisor::{Shutdown, Spawner};
use crate::config::model::Config;
use crate::kafka::topics::Names;
use crate::state::Cache;
use crate::state::schemas::Schemas;
use crate::telemetry::Telemetry;

/// What the parts of one process share: made once by `app`, and handed to each of them.
pub struct Context {
    pub config: Arc<Config>,
    pub names: Names,
    pub cache: Cache,
    pub schemas: Schemas,
    pub telemetry: Telemetry,
    pub shutdown: Shutdown,
    /// Starts whatever runs beside the parts: the calls to vendors.
    pub spawner: Spawner,
}
