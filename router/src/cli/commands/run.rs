//! `tailwater run`: the stages, until the process is asked to stop.

use tailwater_core::code;
use tracing::{error, info};

use crate::app;
use crate::cli::args::{Role, RunArgs};
use crate::cli::load::{Purpose, load};
use crate::cli::{Error, Exit, Global, runtime};
use crate::config::{Broker, Config};
use crate::embedded;
use crate::failpoint;
use crate::runtime::supervisor::{Cause, ExitReason};

/// # Errors
/// The configuration cannot be used, or the process cannot be started.
pub fn execute(args: &RunArgs, global: &Global) -> Result<Exit, Error> {
    failpoint::prepare().map_err(|error| Error::failed(error.code(), &error))?;
    let broker = if args.embedded { Broker::Embedded } else { Broker::Given };
    let config = load(global, Purpose::Run(broker))?;
    let roles: Vec<app::Role> = args.roles.iter().copied().map(Into::into).collect();
    let embedded = if args.embedded { Some(embedded(args, &roles, &config)?) } else { None };
    let options = app::Options { roles, dry_run: args.dry_run, grace: args.grace, embedded };
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

/// Where the embedded broker comes from and goes to.
fn embedded(args: &RunArgs, roles: &[app::Role], config: &Config) -> Result<embedded::Options, Error> {
    let missing: Vec<&str> = app::Role::ALL
        .iter()
        .filter(|role| !roles.is_empty() && !roles.contains(role))
        .map(|role| role.as_str())
        .collect();
    if !missing.is_empty() {
        return Err(Error::Failed {
            code: code::CONFIG_INVALID_VALUE,
            message: format!(
                "--embedded is for one process with every stage, and --roles leaves out {}: leave --roles away, or run a Kafka of your own \
                 for several processes",
                missing.join(", ")
            ),
        });
    }
    // The configuration was checked for it: it is one address of this machine.
    let address = config.kafka.brokers.parse().map_err(|_| Error::Failed {
        code: code::CONFIG_INVALID_VALUE,
        message: format!("`{}` is not an address at which the embedded broker could listen", config.kafka.brokers),
    })?;
    embedded::Options::new(args.broker_binary.as_deref(), address, &config.state_dir)
        .map_err(|error| Error::failed(error.code(), &error))
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
