//! The broker of `tailwater run --embedded`: a child process with its data on this machine's disk.
//!
//! It is started before the stages and ended after them, started again with a growing pause when it dies, and its log lines become ours.
//! It cannot outlive this process: it holds the reading end of a pipe as its standard input and ends when that is closed, which the
//! kernel does even for a process that is killed. So nothing here needs a signal, a pid file or a second look.
//!
//! It is Apache Kafka (docs/adr/0009). What is asked of its program is little, so that another one can be named: it is called as
//! `PROGRAM --data FOLDER --listen ADDRESS`, speaks Kafka's protocol there, writes its log to standard error, and ends with its standard input. Clients reach it at `kafka.brokers` as they would any other broker;
//! nothing else in Tailwater knows that it is embedded.

mod child;
mod program;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tailwater_core::{Code, code};
use tracing::info;

use self::child::Child;
use self::program::program;
use crate::runtime::supervisor::{Shutdown, Supervisor, TaskError, TaskKind};
use crate::telemetry::Telemetry;

/// The folder of its data, inside of `state_dir`, and the one of its program, inside of that.
const FOLDER: &str = "broker";
const PROGRAM_FOLDER: &str = "program";

/// How long it may take to answer after it was started: the first time Kafka is fetched, and after a kill the data are looked through.
const START_MAX: Duration = Duration::from_secs(300);

/// How long it may take to end before it is killed.
const END_MAX: Duration = Duration::from_secs(20);

/// How often a running broker is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Why there is no broker.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "there is no program {} (--broker-binary or TAILWATER_BROKER); name one, or nothing: Apache Kafka is started then",
        named.display()
    )]
    Missing { named: PathBuf },
    #[error(
        "the embedded broker cannot listen on {address}: {source}; set another address in `kafka.brokers`, or end what listens there"
    )]
    Address {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("the embedded broker's folder {} cannot be used", folder.display())]
    Folder {
        folder: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the embedded broker {} could not be started", program.display())]
    Spawn {
        program: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the embedded broker ended by itself ({status}); its last words: {last_words}")]
    Ended { status: String, last_words: String },
    #[error("the embedded broker has not answered at {address} for {} s; its last words: {last_words}", waited.as_secs())]
    Silent { address: SocketAddr, waited: Duration, last_words: String },
    #[error("the start of the embedded broker was interrupted")]
    Interrupted,
}

/// What is started, where, and on which data.
#[derive(Debug, Clone)]
pub struct Options {
    pub program: PathBuf,
    pub address: SocketAddr,
    pub folder: PathBuf,
}

impl Error {
    pub const fn code(&self) -> Code {
        match self {
            Self::Missing { .. } => code::BROKER_MISSING,
            Self::Address { .. }
            | Self::Folder { .. }
            | Self::Spawn { .. }
            | Self::Ended { .. }
            | Self::Silent { .. }
            | Self::Interrupted => code::BROKER_FAILED,
        }
    }
}

// === impl Options ===

impl Options {
    /// The broker of a workspace whose local files are in `state_dir`. `named` is the program, unless it is ours.
    ///
    /// # Errors
    /// There is no such program, or the folder cannot be written.
    pub fn new(named: Option<&Path>, address: SocketAddr, state_dir: &Path) -> Result<Self, Error> {
        let folder = state_dir.join(FOLDER);
        let program = program(named, &folder.join(PROGRAM_FOLDER))?;
        Ok(Self { program, address, folder })
    }
}

/// Starts the broker, waits until it answers, and leaves it to the supervisor, which starts it again when it dies and ends it after
/// everything that needs it.
///
/// # Errors
/// It cannot be started, or not here. What fails later is tried again, and makes the process not ready meanwhile.
pub fn start(options: Options, telemetry: &Telemetry, supervisor: &Supervisor) -> Result<(), Error> {
    let readiness = telemetry.readiness("broker");
    let spawner = supervisor.spawner();
    let began = Instant::now();
    let child = Child::start(&options, &spawner, &supervisor.shutdown())?;
    readiness.ready();
    info!(
        address = %options.address,
        folder = %options.folder.display(),
        program = %options.program.display(),
        took_ms = began.elapsed().as_millis(),
        "the embedded broker answers"
    );
    let mut first = Some(child);
    supervisor.thread("broker", TaskKind::Foundation, move |stop| {
        let watched = match first.take() {
            Some(child) => watch(child, stop),
            None => {
                let began = Instant::now();
                Child::start(&options, &spawner, stop).and_then(|child| {
                    info!(took_ms = began.elapsed().as_millis(), "the embedded broker answers again");
                    readiness.ready();
                    watch(child, stop)
                })
            }
        };
        match watched {
            Ok(()) | Err(Error::Interrupted) => Ok(()),
            Err(problem) => {
                readiness.not_ready(problem.to_string());
                Err(TaskError::new(problem.code(), &problem))
            }
        }
    });
    Ok(())
}

/// Waits until the broker is asked to stop, and ends it; or until it has ended by itself, which is the error.
fn watch(mut child: Child, stop: &Shutdown) -> Result<(), Error> {
    while !stop.wait(LOOK) {
        if let Some(problem) = child.problem() {
            return Err(problem);
        }
    }
    child.stop(END_MAX);
    Ok(())
}
