//! What the process tells about itself: logs, metrics, probes and its status.
//!
//! [`Telemetry`] is a handle that is cheap to clone and that every part holds. A part that loops registers a heartbeat; a part
//! that has to be up before traffic makes sense registers its readiness; what happens is told as a typed event ([`events`]), which
//! gives the log line, the metric and the status together, so that they cannot contradict one another. The admin server ([`admin`])
//! shows all of it.
//!
//! Nothing here may fail or block the work: an event is a few atomic additions and at most one log line. Labels are names from
//! the configuration, codes and enums, never a value from a record, so that their number is bounded by the configuration.

pub mod admin;
pub mod events;
pub mod health;
mod json;
pub mod logging;
pub mod metrics;
mod repeats;
mod status;
mod vendor;

use std::fmt;
use std::sync::Arc;

use tailwater_core::Code;
use tailwater_core::delivery::Reason;

pub use events::Event;
pub use health::{Heartbeat, Readiness};
pub use metrics::Metrics;
pub use vendor::Vendor;

/// What can go wrong when telemetry is set up; afterwards nothing can.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the log filter `{filter}` cannot be read: expected something like `info` or `info,tailwater=debug`")]
    LogFilter { filter: String, source: tracing_subscriber::filter::ParseError },
    #[error("logging is set up already; it can only be set up once in a process")]
    LoggingTwice { source: tracing_subscriber::util::TryInitError },
    #[error("the metric {name} could not be registered")]
    Metric { name: &'static str, source: prometheus::Error },
    #[error(
        "the admin server could not listen on {address}; is another process using it? Set `admin.listen` to a free address"
    )]
    Listen { address: std::net::SocketAddr, source: std::io::Error },
    #[error("the admin server on {address} stopped")]
    Serve { address: std::net::SocketAddr, source: std::io::Error },
}

impl Error {
    pub const fn code(&self) -> Code {
        match self {
            Self::LogFilter { .. } => tailwater_core::code::LOG_FILTER_INVALID,
            Self::Listen { .. } => tailwater_core::code::ADMIN_LISTEN_FAILED,
            Self::LoggingTwice { .. } | Self::Metric { .. } | Self::Serve { .. } => tailwater_core::code::TASK_FAILED,
        }
    }
}

/// The handle that every part holds.
#[derive(Clone)]
pub struct Telemetry(Arc<Inner>);

struct Inner {
    metrics: Metrics,
    health: health::Registry,
    status: status::Board,
    repeats: repeats::Repeats,
}

impl Telemetry {
    /// Telemetry with a metrics registry of its own, so that tests do not see one another's.
    ///
    /// # Errors
    /// A metric is declared twice: a mistake in [`metrics`], not in the configuration.
    pub fn new() -> Result<Self, Error> {
        Ok(Self(Arc::new(Inner {
            metrics: Metrics::new()?,
            health: health::Registry::default(),
            status: status::Board::default(),
            repeats: repeats::Repeats::default(),
        })))
    }

    /// The metrics, for what is counted without a log line.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Tells that something happened: log, metric and status in one.
    pub fn emit(&self, event: &impl Event) {
        event.tell(self);
    }

    /// Writes a line about a record that ended as a dead letter: one for each kind of failure and minute, the others are counted.
    pub fn dead_letter_line(&self, stage: &'static str, component: &str, reason: &Reason, at: &dyn fmt::Display) {
        self.0.repeats.tell("dead-lettered", stage, component, reason, at);
    }

    /// Writes a line about a value that became null because it is none of its column's type; limited in the same way.
    pub fn invalid_value_line(&self, source: &str, message: &str, at: &dyn fmt::Display) {
        let reason = Reason::new(tailwater_core::code::INVALID_VALUE, message);
        self.0.repeats.tell("an invalid value was left out", "resolve", source, &reason, at);
    }

    /// Tells what lines were left out, when their minute is over. Loops call it in each turn.
    pub fn flush_lines(&self) {
        self.0.repeats.flush(std::time::Instant::now());
    }

    /// Registers a loop that must keep turning. The process counts as dead when a registered loop has not ticked for
    /// [`health::TICK_MAX`]. Dropping the last clone takes the registration away.
    pub fn heartbeat(&self, name: &str) -> Heartbeat {
        self.0.health.heartbeat(name)
    }

    /// Registers a part that has to be ready before the process is; it is not ready at first. Dropping the last clone takes
    /// the registration away.
    pub fn readiness(&self, name: &str) -> Readiness {
        self.0.health.readiness(name)
    }

    /// Shows a value under a name in `/status`. The part of the name before its first dot is the section:
    /// `destination.crm`, `source.ltv_scores`. `null` takes the entry away. Values must hold no secret.
    pub fn status(&self, name: &str, value: serde_json::Value) {
        self.0.status.set(name, value);
    }

    /// What `/status` shows.
    pub fn status_page(&self) -> serde_json::Value {
        self.0.status.page()
    }

    /// Loops that have not ticked in time, and parts that are not ready.
    pub fn health(&self) -> &health::Registry {
        &self.0.health
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").finish_non_exhaustive()
    }
}
