//! One run of the broker's program: from its start to its end.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use tracing::{Level, debug, error, info, warn};

use super::{Error, Options, START_MAX};
use crate::runtime::supervisor::{Shutdown, Spawner, TaskKind};

/// How long an address that is in use is waited for: a predecessor whose parent was killed needs a moment to end.
const ADDRESS_PATIENCE: Duration = Duration::from_secs(20);

const LOOK: Duration = Duration::from_millis(20);

/// How long one question to a broker that may not be ready may take.
const QUESTION_MAX: Duration = Duration::from_secs(2);

/// Lines that are remembered for the message when it ends, and the bytes of one line that are looked at.
const LAST_WORDS: usize = 5;
const LINE_BYTES_MAX: u64 = 8192;

type Lines = Arc<Mutex<VecDeque<String>>>;

pub(super) struct Child {
    process: std::process::Child,
    /// Closing it is how the program is asked to end.
    input: Option<ChildStdin>,
    lines: Lines,
}

impl Child {
    /// Starts the program and waits until it answers as a broker.
    pub(super) fn start(options: &Options, spawner: &Spawner, stop: &Shutdown) -> Result<Self, Error> {
        let folder = |source| Error::Folder { folder: options.folder.clone(), source };
        std::fs::create_dir_all(&options.folder).map_err(folder)?;
        let data = options.folder.canonicalize().map_err(folder)?;
        wait_for_address(options.address, stop)?;
        let mut process = Command::new(&options.program)
            .arg("--data")
            .arg(&data)
            .arg("--listen")
            .arg(options.address.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Ctrl-C in a terminal goes to a whole process group: the stages would lose their broker while they drain.
            .process_group(0)
            .spawn()
            .map_err(|source| Error::Spawn { program: options.program.clone(), source })?;
        let lines = Lines::default();
        if let Some(output) = process.stderr.take() {
            follow(output, spawner, &lines);
        }
        let input = process.stdin.take();
        let mut child = Self { process, input, lines };
        child.wait_for_answer(options.address, stop)?;
        Ok(child)
    }

    fn wait_for_answer(&mut self, address: SocketAddr, stop: &Shutdown) -> Result<(), Error> {
        let began = Instant::now();
        loop {
            // The connection alone says little: a broker accepts some before it is one.
            if TcpStream::connect(address).is_ok() && answers(address) {
                return Ok(());
            }
            if let Some(problem) = self.problem() {
                return Err(problem);
            }
            if began.elapsed() > START_MAX {
                return Err(Error::Silent { address, waited: began.elapsed(), last_words: self.last_words() });
            }
            if stop.wait(LOOK) {
                return Err(Error::Interrupted);
            }
        }
    }

    /// How it ended, once it has.
    pub(super) fn problem(&mut self) -> Option<Error> {
        match self.process.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(Error::Ended { status: status.to_string(), last_words: self.last_words() }),
            Err(source) => Some(Error::Ended { status: source.to_string(), last_words: self.last_words() }),
        }
    }

    fn last_words(&self) -> String {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.is_empty() { "none".to_owned() } else { Vec::from_iter(lines.iter().map(String::as_str)).join(" | ") }
    }

    /// Asks it to end and waits; after that time it is killed, and recovers when it is started again.
    pub(super) fn stop(mut self, at_most: Duration) {
        self.input = None;
        let began = Instant::now();
        loop {
            match self.process.try_wait() {
                Ok(Some(status)) if status.success() => {
                    info!(took_ms = began.elapsed().as_millis(), "the embedded broker has ended");
                    return;
                }
                Ok(Some(status)) => {
                    warn!(%status, last_words = self.last_words(), "the embedded broker ended with an error");
                    return;
                }
                Ok(None) if began.elapsed() < at_most => std::thread::sleep(LOOK),
                Ok(None) | Err(_) => {
                    warn!(waited_s = at_most.as_secs(), "the embedded broker does not end and is killed");
                    return;
                }
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.input = None;
        // One that has ended already is only collected.
        if let Err(problem) = self.process.kill().and_then(|()| self.process.wait()) {
            error!("the embedded broker could not be killed: {problem}");
        }
    }
}

fn wait_for_address(address: SocketAddr, stop: &Shutdown) -> Result<(), Error> {
    let began = Instant::now();
    loop {
        match TcpListener::bind(address) {
            Ok(_) => return Ok(()),
            Err(source) if began.elapsed() > ADDRESS_PATIENCE || source.kind() != std::io::ErrorKind::AddrInUse => {
                return Err(Error::Address { address, source });
            }
            Err(_) if stop.wait(LOOK) => return Err(Error::Interrupted),
            Err(_) => {}
        }
    }
}

/// Whether it lists itself: one that still starts or recovers does not.
fn answers(address: SocketAddr) -> bool {
    let client = ClientConfig::new()
        .set("bootstrap.servers", address.to_string())
        .set("log_level", "0")
        .create::<BaseConsumer>();
    let metadata = client.and_then(|client| client.fetch_metadata(None, QUESTION_MAX));
    metadata.is_ok_and(|metadata| !metadata.brokers().is_empty())
}

/// Logs what the program says. The thread ends with the pipe.
fn follow(output: impl Read + Send + 'static, spawner: &Spawner, lines: &Lines) {
    let lines = Arc::clone(lines);
    let mut output = BufReader::new(output);
    spawner.thread("broker-log", TaskKind::Foundation, move |_| {
        let mut level = Level::INFO;
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            // A line that is longer is cut into several.
            match output.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes) {
                Ok(0) | Err(_) => return Ok(()),
                Ok(_) => {}
            }
            let line = String::from_utf8_lossy(&bytes);
            let line = line.trim_end();
            if line.is_empty() {
                continue;
            }
            // The lines of a stack trace have none; they belong to the line before.
            level = level_of(line).unwrap_or(level);
            log(level, line);
            let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            if lines.len() == LAST_WORDS {
                lines.pop_front();
            }
            lines.push_back(line.to_owned());
        }
    });
}

/// The level that a line names among its first words.
fn level_of(line: &str) -> Option<Level> {
    line.split_whitespace().take(3).find_map(|word| match word.trim_matches(['[', ']', ':']) {
        "ERROR" | "FATAL" => Some(Level::ERROR),
        "WARN" | "WARNING" => Some(Level::WARN),
        "INFO" => Some(Level::INFO),
        "DEBUG" | "TRACE" => Some(Level::DEBUG),
        _ => None,
    })
}

fn log(level: Level, line: &str) {
    match level {
        Level::ERROR => error!(target: "broker", "{line}"),
        Level::WARN => warn!(target: "broker", "{line}"),
        Level::INFO => info!(target: "broker", "{line}"),
        _ => debug!(target: "broker", "{line}"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::runtime::supervisor::{GRACE, Supervisor};
    use crate::telemetry::Telemetry;

    /// Starts it under a supervisor of its own.
    fn start(options: &Options, stop: &Shutdown) -> Result<Child, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let supervisor = Supervisor::new(runtime.handle().clone(), Telemetry::new().unwrap(), GRACE);
        Child::start(options, &supervisor.spawner(), stop)
    }

    fn script(folder: &Path, text: &str) -> Options {
        use std::os::unix::fs::PermissionsExt as _;
        let program = folder.join("program");
        std::fs::write(&program, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        Options { program, address: port, folder: folder.join("data") }
    }

    #[test]
    fn a_program_that_ends_at_once_is_told_with_its_last_words() {
        let folder = tempfile::tempdir().unwrap();
        let options = script(folder.path(), "echo \"ERROR no room in $2\" >&2; exit 7");
        let Err(error) = start(&options, &Shutdown::new()) else { panic!("it started") };
        let text = error.to_string();
        assert!(matches!(error, Error::Ended { .. }) && text.contains('7'), "{text}");
    }

    #[test]
    fn a_start_that_nobody_waits_for_any_more_leaves_no_process() {
        let folder = tempfile::tempdir().unwrap();
        let options = script(folder.path(), "echo started >\"$2/started\"; exec cat >/dev/null");
        let stop = Shutdown::new();
        let (raised, started) = (stop.clone(), options.folder.join("started"));
        let raise = std::thread::spawn(move || {
            while !started.is_file() {
                std::thread::yield_now();
            }
            raised.request("test");
        });
        assert!(matches!(start(&options, &stop), Err(Error::Interrupted)));
        raise.join().unwrap();
    }

    #[test]
    fn an_address_of_somebody_else_is_refused_in_words() {
        let folder = tempfile::tempdir().unwrap();
        let mut options = script(folder.path(), "exit 0");
        // Not an address of this machine: refused at once, where one that is in use is waited for.
        options.address = "192.0.2.1:9092".parse().unwrap();
        let Err(error) = start(&options, &Shutdown::new()) else { panic!("it started") };
        assert!(matches!(error, Error::Address { .. }), "{error}");
        assert!(error.to_string().contains("kafka.brokers"), "{error}");
    }

    #[test]
    fn the_level_of_a_line_is_among_its_first_words() {
        assert_eq!(level_of(" WARN nisshi: slow"), Some(Level::WARN));
        assert_eq!(level_of("12:00:01.123 ERROR KafkaServer: gone"), Some(Level::ERROR));
        assert_eq!(level_of("[2026-01-01 12:00:01,123] INFO started"), Some(Level::INFO));
        assert_eq!(level_of("    at java.base/java.lang.Thread.run(Thread.java:840)"), None);
    }
}
