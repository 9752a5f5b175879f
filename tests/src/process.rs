//! The real binary: long-running processes that a test signals and watches, and commands that end by themselves.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::kafka::target;
use crate::wait::{PATIENCE, eventually};

/// Lines of a process's output that are kept.
const LINES_MAX: usize = 50_000;

/// Lines that are printed when a test fails.
const LINES_SHOWN: usize = 60;

/// A command that has ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A process that runs. It is killed when this value goes.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    lines: Arc<Mutex<VecDeque<String>>>,
    ended: Option<ExitStatus>,
}

/// The binary under test: beside the test's own, in `target/<profile>`, or what `TAILWATER_TEST_BINARY` names.
pub fn binary() -> PathBuf {
    let path = std::env::var_os("TAILWATER_TEST_BINARY").map_or_else(
        || {
            let own =
                std::env::current_exe().unwrap_or_else(|error| panic!("the test's own path is not known: {error}"));
            own.ancestors().nth(2).map_or_else(|| target().join("debug"), Path::to_path_buf).join("tailwater")
        },
        PathBuf::from,
    );
    assert!(
        path.is_file(),
        "there is no binary at {}: build it with `make build`, or run the tests with `make test`",
        path.display()
    );
    path
}

/// Runs `tailwater` with these arguments in a folder until it ends.
pub fn run(folder: &Path, environment: &[(String, String)], arguments: &[&str]) -> Ended {
    let mut process =
        Process::start(&format!("tailwater {}", arguments.join(" ")), folder, environment, arguments, Stdio::piped());
    let stdout = process.child.stdout.take();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        if let Some(mut stdout) = stdout {
            stdout.read_to_string(&mut text).unwrap_or_else(|error| panic!("output is no text: {error}"));
        }
        text
    });
    let status = process.end(PATIENCE);
    let stdout = reader.join().unwrap_or_else(|_| panic!("the output could not be read"));
    Ended { code: status.code(), stdout, stderr: process.log() }
}

// === impl Process ===

impl Process {
    /// Starts `tailwater` with these arguments; what it prints is collected.
    pub fn spawn(name: &str, folder: &Path, environment: &[(String, String)], arguments: &[&str]) -> Self {
        let mut process = Self::start(name, folder, environment, arguments, Stdio::piped());
        if let Some(stdout) = process.child.stdout.take() {
            collect(stdout, &process.lines);
        }
        process
    }

    fn start(name: &str, folder: &Path, environment: &[(String, String)], arguments: &[&str], stdout: Stdio) -> Self {
        let mut child = Command::new(binary())
            .args(arguments)
            .current_dir(folder)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} could not be started: {error}"));
        let lines = Arc::default();
        if let Some(stderr) = child.stderr.take() {
            collect(stderr, &lines);
        }
        Self { name: name.to_owned(), child, lines, ended: None }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything that it has printed so far.
    pub fn log(&self) -> String {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().map(|line| format!("{line}\n")).collect()
    }

    /// Whether a line has all these words.
    pub fn has_logged(&self, words: &[&str]) -> bool {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().any(|line| words.iter().all(|word| line.contains(word)))
    }

    /// Waits for a line that has all these words.
    pub fn logs(&mut self, words: &[&str]) {
        let what = format!("{} logs {words:?}", self.name);
        eventually(&what, PATIENCE, || {
            if self.has_logged(words) {
                return Ok(());
            }
            self.assert_running();
            Err("no such line".into())
        });
    }

    /// Panics if it has ended: waiting for its effects would be in vain.
    pub fn assert_running(&mut self) {
        let ended = self.child.try_wait().unwrap_or_else(|error| panic!("{}: {error}", self.name));
        if let Some(status) = ended {
            self.ended = Some(status);
            panic!("{} has ended with {status}", self.name);
        }
    }

    /// Sends a signal: `TERM`, `KILL`, `STOP`, `CONT`, `HUP`.
    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").arg(format!("-{signal}")).arg(self.id().to_string()).status();
        let status = status.unwrap_or_else(|error| panic!("kill cannot be run: {error}"));
        assert!(status.success(), "{} could not be sent {signal}", self.name);
    }

    /// Waits until it ends.
    pub fn end(&mut self, patience: Duration) -> ExitStatus {
        let deadline = Instant::now() + patience;
        loop {
            let ended = self.child.try_wait().unwrap_or_else(|error| panic!("{}: {error}", self.name));
            if let Some(status) = ended {
                self.ended = Some(status);
                return status;
            }
            assert!(Instant::now() < deadline, "{} has not ended after {} s", self.name, patience.as_secs());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Asks it to end, and waits until it has drained and ended with success.
    pub fn stop(mut self) {
        self.signal("TERM");
        let status = self.end(PATIENCE);
        assert!(status.success(), "{} was asked to end and ended with {status}", self.name);
    }

    /// Kills it as a crash does.
    pub fn kill(mut self) {
        self.signal("KILL");
        let status = self.end(PATIENCE);
        assert_eq!(status.signal(), Some(9), "{}", self.name);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended.is_none() {
            // A stopped process is killed all the same. If it has ended by itself there is nothing left to do.
            self.child.kill().ok();
            self.child.wait().ok();
        }
        if std::thread::panicking() {
            let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            let skipped = lines.len().saturating_sub(LINES_SHOWN);
            eprintln!("--- {} (the last of {} lines)", self.name, lines.len());
            for line in lines.iter().skip(skipped) {
                eprintln!("{line}");
            }
            eprintln!("---");
        }
    }
}

/// Keeps what a process prints. The thread ends with the process.
fn collect(output: impl Read + Send + 'static, lines: &Arc<Mutex<VecDeque<String>>>) {
    let lines = Arc::clone(lines);
    std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n') {
            let Ok(line) = line else { return };
            let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            if lines.len() == LINES_MAX {
                lines.pop_front();
            }
            lines.push_back(String::from_utf8_lossy(&line).into_owned());
        }
    });
}

// === impl Ended ===

impl Ended {
    /// Its standard output, if it ended with this code.
    pub fn expect(&self, code: i32) -> &str {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        &self.stdout
    }

    /// Its standard output as JSON, whatever its exit code.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("no JSON: {error}\nstdout:\n{}\nstderr:\n{}", self.stdout, self.stderr))
    }
}
