//! What the parts of one process share.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::supervisor::Shutdown;
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
    /// Where the calls to vendors run.
    pub runtime: Handle,
}
