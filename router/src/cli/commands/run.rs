//! `tailwater run`: the stages, until the process is asked to stop.

use tailwater_core::code;
use tracing::{error, info};

use crate::app;
use crate::cli::args::{Role, RunArgs};
use crate::cli::load::{Purpose, load};
use crate::cli::{Error, Exit, Global, runtime};
use crate::failpoint;
use crate::supervisor::{Cause, ExitReason};

/// # Errors
/// The configuration cannot be used, or the process cannot be started.
pub fn execute(args: &RunArgs, global: &Global) -> Result<Exit, Error> {
    failpoint::prepare().map_err(|error| Error::failed(error.code(), &error))?;
    let config = load(global, Purpose::Run)?;
    let options = app::Options { roles: args.roles.iter().copied().map(Into::into).collect(), dry_run: args.dry_run };
    let runtime = runtime()?;
    let reason = app::run(config, &options, runtime.handle().clone())
        .map_err(|error| Error::Failed { code: error.code, message: error.message })?;
    let exit = exit(&reason);
    if exit == Exit::Success {
        info!("stopped: {reason}");
    } else {
        error!("stopped: {reason}");
    }
    // What still runs was told to end and did not; waiting longer would keep a replacement from starting.
    runtime.shutdown_background();
    Ok(exit)
}

/// The exit code that tells how the process ended.
fn exit(reason: &ExitReason) -> Exit {
    match &reason.cause {
        Cause::Panicked { .. } => Exit::Internal,
        Cause::Failed { error, .. } if error.code == code::KAFKA_UNREACHABLE => Exit::KafkaUnreachable,
        Cause::Failed { .. } => Exit::Problem,
        Cause::Requested(_) | Cause::Finished if reason.undrained.is_empty() => Exit::Success,
        Cause::Requested(_) | Cause::Finished => Exit::NotDrained,
    }
}

impl From<Role> for app::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Source => Self::Source,
            Role::Resolve => Self::Resolve,
            Role::Route => Self::Route,
            Role::Send => Self::Send,
        }
    }
}
