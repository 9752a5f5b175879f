//! The one place that wires things together: from a configuration to running stages.

mod dry_run;
mod lag;
mod live;
mod reload;
mod watch;

use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use tailwater_core::{Code, code};
use tailwater_sandbox::Pool;
use tokio::runtime::Handle;
use tracing::{info, warn};

use self::live::Live;
use crate::config::model::{Config, SourceInput};
use crate::embedded;
use crate::kafka::topics::{self, Names, Step};
use crate::runtime::supervisor::{Cause, ExitReason, Spawner, Supervisor, TaskError, TaskKind};
use crate::runtime::{Context, clock};
use crate::stages;
use crate::stages::route::existence;
use crate::state::Cache;
use crate::state::schemas::Schemas;
use crate::telemetry::{Telemetry, admin};

/// The parts of the flow that a process can take on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Source,
    Resolve,
    Route,
    Send,
}

/// How to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Every role if empty.
    pub roles: Vec<Role>,
    /// Do everything but the calls to vendors, and print those.
    pub dry_run: bool,
    /// How long what has begun may take to end after the process was asked to stop.
    pub grace: Duration,
    /// The broker that this process starts, if it does.
    pub embedded: Option<embedded::Options>,
}

/// The process could not be started.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StartError {
    pub code: Code,
    pub message: String,
}

impl Role {
    pub const ALL: [Self; 4] = [Self::Source, Self::Resolve, Self::Route, Self::Send];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Resolve => "resolve",
            Self::Route => "route",
            Self::Send => "send",
        }
    }
}

impl StartError {
    fn new(code: Code, error: &dyn std::error::Error) -> Self {
        let TaskError { code, message, .. } = TaskError::new(code, error);
        Self { code, message }
    }
}

/// Runs the process until it is asked to stop or a part fails.
///
/// # Errors
/// It could not be started: the state folder, the topics, a transform.
pub fn run(mut config: Config, options: &Options, runtime: Handle) -> Result<ExitReason, StartError> {
    if options.dry_run {
        dry_run::isolate(&mut config);
    }
    let telemetry = Telemetry::new().map_err(|error| StartError::new(code::TASK_FAILED, &error))?;
    let supervisor = Supervisor::new(runtime.clone(), telemetry.clone(), options.grace);
    let config = Arc::new(config);
    let server = runtime
        .block_on(admin::Server::bind(config.admin.listen))
        .map_err(|error| StartError::new(error.code(), &error))?;
    info!(address = %server.address(), "probes, metrics and status are served");
    let mut server = Some(server);
    let served = telemetry.clone();
    supervisor.task("admin", TaskKind::Server, move |stop| {
        let (server, telemetry) = (server.take(), served.clone());
        async move {
            match server {
                Some(server) => server
                    .serve(telemetry, async move { stop.requested().await })
                    .await
                    .map_err(|error| TaskError::new(error.code(), &error)),
                None => Ok(()),
            }
        }
    });
    let pool = Arc::new(pool(&config).map_err(|error| StartError::new(error.code(), &error))?);
    let live = Arc::new(Live::new(&config, Arc::clone(&pool), options.dry_run)?);
    let cache = Cache::open(&config.state_dir, clock::now).map_err(|error| StartError::new(error.code(), &error))?;
    // After the lock on the state folder: its data lie in there.
    if let Some(broker) = &options.embedded {
        embedded::start(broker.clone(), &telemetry, &supervisor)
            .map_err(|error| StartError::new(error.code(), &error))?;
    }
    let names = Names::new(&config.kafka.prefix);
    let shared = Arc::new(Context {
        schemas: Schemas::new(&config.kafka, names.schemas()),
        names,
        cache,
        telemetry,
        shutdown: supervisor.shutdown(),
        spawner: supervisor.spawner(),
        config,
    });
    for (name, slots) in live.destinations() {
        let target = slots.handle.load().connector.target();
        info!(destination = %name, vendor = %target, dry_run = options.dry_run, "delivering");
    }
    shared.telemetry.status("workspace", serde_json::json!(shared.config.workspace));
    shared.telemetry.status("prefix", serde_json::json!(shared.config.kafka.prefix));
    watch::spawn(&shared, &supervisor.spawner());
    let waits = Arc::clone(&shared);
    let dry = options.dry_run;
    let verdict = dry_run::Verdict::default();
    let watched = Arc::clone(&verdict);
    let roles = if options.roles.is_empty() { Role::ALL.to_vec() } else { options.roles.clone() };
    let spawner = supervisor.spawner();
    supervisor.thread("start", TaskKind::Once, move |_| {
        topics_ready(&waits)?;
        for role in &roles {
            spawn(&waits, &live, &spawner, *role);
        }
        reload::spawn(&waits, &live, &spawner);
        lag::spawn(&waits, &spawner, &roles);
        if dry {
            dry_run::watch(&waits, &spawner, &watched);
        }
        Ok(())
    });
    let mut reason = supervisor.run_until_shutdown(|| {
        if dry {
            dry_run::clean_up(&shared.config);
        }
    });
    if let (Some(error), Cause::Requested(_)) = (verdict.get(), &reason.cause) {
        reason.cause = Cause::Failed { task: "dry run".to_owned(), error: error.clone() };
    }
    Ok(reason)
}

/// Checks the topics and makes what is missing. While no broker answers, the error is a recoverable one.
fn topics_ready(shared: &Context) -> Result<(), TaskError> {
    let readiness = shared.telemetry.readiness("topics");
    let kafka = &shared.config.kafka;
    let steps = topics::plan(kafka, &topics::wanted(&shared.config)).inspect_err(|error| {
        readiness.not_ready(error.to_string());
    })?;
    let blocking: Vec<&Step> =
        steps.iter().filter(|step| step.is_blocking() && !matches!(step, Step::Absent { .. })).collect();
    if !blocking.is_empty() {
        let text: Vec<String> = blocking.iter().map(ToString::to_string).collect();
        return Err(TaskError::fatal(code::TOPIC_MISMATCH, text.join("; ")));
    }
    for step in &steps {
        if let Step::Absent { .. } = step {
            warn!(code = "topic_missing", "{step}");
        }
    }
    let missing = steps.iter().filter(|step| matches!(step, Step::Create(_))).count();
    if missing > 0 && !kafka.create_topics {
        let message = format!(
            "{missing} topics are missing and `kafka.create_topics` is false; run `tailwater topics apply`, or `topics plan` for the list"
        );
        return Err(TaskError::fatal(code::TOPIC_MISSING, message));
    }
    let made = topics::apply(kafka, &steps).map_err(|error| TaskError::new(error.code(), &error))?;
    if made > 0 {
        info!(topics = made, prefix = shared.names.prefix(), "made what was missing");
    }
    remember_new(shared)?;
    readiness.ready();
    Ok(())
}

/// Writes down since when new destinations exist, before any stage reads or writes.
fn remember_new(shared: &Context) -> Result<(), crate::kafka::Error> {
    let new = existence::find_new(&shared.config)?;
    existence::write(&shared.config.kafka, &new, clock::now())?;
    for notice in new.iter().filter_map(existence::New::notice) {
        info!(code = code::BEFORE_START.as_str(), "{notice}");
    }
    Ok(())
}

fn spawn(shared: &Arc<Context>, live: &Live, spawner: &Spawner, role: Role) {
    match role {
        Role::Source => {
            if !shared.config.sources.values().any(|source| matches!(source.input, SourceInput::Delta(_))) {
                warn!("the role `source` has nothing to do: no source of the configuration reads a table");
            }
            for source in shared.config.sources.values() {
                if let SourceInput::Delta(delta) = &source.input {
                    let (shared, source, delta) = (Arc::clone(shared), source.clone(), delta.clone());
                    let name = format!("source.{}", source.name);
                    spawner.thread(&name, TaskKind::Stage, move |_| Ok(stages::source::run(&shared, &source, &delta)?));
                }
            }
        }
        Role::Resolve => {
            let shared = Arc::clone(shared);
            spawner.thread("resolve", TaskKind::Stage, move |_| Ok(stages::resolve::run(&shared)?));
        }
        Role::Route => {
            for (destination, slots) in live.destinations() {
                let (shared, slots) = (Arc::clone(shared), slots.clone());
                let name = format!("route.{destination}");
                spawner.thread(&name, TaskKind::Stage, move |_| Ok(stages::route::run(&shared, &slots.routes)?));
            }
        }
        Role::Send => {
            for (destination, slots) in live.destinations() {
                let (shared, slots) = (Arc::clone(shared), slots.clone());
                let name = format!("send.{destination}");
                spawner.thread(&name, TaskKind::Stage, move |_| Ok(stages::send::run(&shared, &slots.handle)?));
            }
        }
    }
}

fn pool(config: &Config) -> Result<Pool, tailwater_sandbox::Error> {
    let defaults = tailwater_sandbox::Options::default();
    Pool::start(tailwater_sandbox::Options {
        threads: NonZero::new(config.sandbox.threads).unwrap_or(defaults.threads),
        heap_bytes_max: config.sandbox.heap_bytes_max,
        batch_timeout: config.sandbox.batch_timeout,
        row_timeout: config.sandbox.row_timeout,
        ..defaults
    })
}

/// Sets up the connector of each destination; destinations of one account share its limits. Speaks to nobody yet.
///
/// # Errors
/// An account or a destination that its connector does not accept.
pub fn connectors(
    config: &Config,
) -> Result<BTreeMap<String, Arc<dyn tailwater_connectors::Destination>>, tailwater_connectors::Error> {
    let mut connections = BTreeMap::new();
    for (name, account) in &config.accounts {
        connections.insert(name.as_str(), account.open()?);
    }
    let mut connectors = BTreeMap::new();
    for (name, destination) in &config.destinations {
        // The configuration has been validated: its account exists.
        let Some(connection) = connections.get(destination.account.as_str()) else { continue };
        connectors.insert(name.clone(), connection.connect(&destination.options, &destination.shared())?);
    }
    Ok(connectors)
}
