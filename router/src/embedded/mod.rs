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
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tailwater_core::{Code, code};
use tracing::{error, info, warn};

use self::child::Child;
use self::program::program;
use crate::runtime::supervisor::Shutdown;
use crate::telemetry::Telemetry;
use crate::telemetry::health::Readiness;

/// Where the broker listens unless `kafka.brokers` says otherwise: where a Kafka usually does.
pub const ADDRESS_DEFAULT: &str = "127.0.0.1:9092";

/// The folder of its data, inside of `state_dir`, and the one of its program, inside of that.
const FOLDER: &str = "broker";
const PROGRAM_FOLDER: &str = "program";

/// How long it may take to answer after it was started: the first time Kafka is fetched, and after a kill the data are looked through.
const START_MAX: Duration = Duration::from_secs(300);

/// How long it may take to end before it is killed.
const END_MAX: Duration = Duration::from_secs(20);

/// The first and the longest pause before it is started again.
const RESTART_WAIT_MIN: Duration = Duration::from_millis(200);
const RESTART_WAIT_MAX: Duration = Duration::from_secs(10);

/// One that has run for so long has recovered: the next pause is the shortest again.
const RECOVERED_AFTER: Duration = Duration::from_secs(60);

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

/// The running broker. It ends with this value, or in order with [`Broker::stop`].
///
/// It has a keeper of its own instead of the supervisor's, because everything that the supervisor ends still needs it, and so
/// does what comes after (the end of a dry run deletes topics).
pub struct Broker {
    stop: Shutdown,
    keeper: Option<JoinHandle<()>>,
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

// === impl Broker ===

impl Broker {
    /// Starts it and waits until it answers. `process` is asked to stop should the broker's keeper itself fail.
    ///
    /// # Errors
    /// It cannot be started, or not here. What fails later is tried again, and makes the process not ready meanwhile.
    pub fn start(options: Options, telemetry: &Telemetry, process: &Shutdown) -> Result<Self, Error> {
        let stop = Shutdown::new();
        let readiness = telemetry.readiness("broker");
        let began = Instant::now();
        let child = Child::start(&options, &stop)?;
        readiness.ready();
        info!(
            address = %options.address,
            folder = %options.folder.display(),
            program = %options.program.display(),
            took_ms = began.elapsed().as_millis(),
            "the embedded broker answers"
        );
        let (stopping, process) = (stop.clone(), process.clone());
        let keep = move || {
            let kept = catch_unwind(AssertUnwindSafe(|| keep(&options, child, &stopping, &readiness)));
            if kept.is_err() {
                // The panic hook has logged what happened.
                process.request("the keeper of the embedded broker panicked");
            }
        };
        let keeper = std::thread::Builder::new().name("broker".to_owned()).spawn(keep);
        let keeper = keeper.map_err(|source| Error::Spawn { program: PathBuf::from("(its thread)"), source })?;
        Ok(Self { stop, keeper: Some(keeper) })
    }

    /// Ends it in order and waits for that.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.request("everything that needs the broker has ended");
        if let Some(keeper) = self.keeper.take()
            && keeper.join().is_err()
        {
            error!("the keeper of the embedded broker panicked");
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.end();
    }
}

/// Watches the child and starts another one when it has ended, until it is asked to stop.
fn keep(options: &Options, mut child: Child, stop: &Shutdown, readiness: &Readiness) {
    let mut wait = RESTART_WAIT_MIN;
    loop {
        let began = Instant::now();
        let problem = loop {
            if stop.wait(LOOK) {
                child.stop(END_MAX);
                return;
            }
            if let Some(problem) = child.problem() {
                break problem;
            }
        };
        if began.elapsed() >= RECOVERED_AFTER {
            wait = RESTART_WAIT_MIN;
        }
        readiness.not_ready(problem.to_string());
        let mut problem = problem;
        child = loop {
            warn!(code = %problem.code(), wait_ms = wait.as_millis(), "the embedded broker is started again: {problem}");
            if stop.wait(wait) {
                return;
            }
            wait = (wait * 2).min(RESTART_WAIT_MAX);
            match Child::start(options, stop) {
                Ok(child) => break child,
                Err(Error::Interrupted) => return,
                Err(error) => problem = error,
            }
        };
        info!(took_ms = began.elapsed().as_millis(), "the embedded broker answers again");
        readiness.ready();
    }
}
