//! The broker under trial: a process group of its own, measured through /proc.

use std::fs;
use std::io::Read as _;
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use tailwater_tests::kafka::free_port;

const PATIENCE: Duration = Duration::from_secs(60);

pub struct Child {
    process: std::process::Child,
    pub port: u16,
    pub started_in: Duration,
    log: PathBuf,
}

impl Child {
    /// Starts the program and waits until it lists a broker.
    pub fn start(program: &[String], folder: &Path, port: Option<u16>) -> Self {
        let port = port.unwrap_or_else(free_port);
        let log = folder.with_extension("log");
        let output = fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let began = Instant::now();
        let process = Command::new(&program[0])
            .args(&program[1..])
            .arg("--data")
            .arg(folder)
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .stdin(Stdio::piped())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{program:?}: {error}"));
        let mut child = Self { process, port, started_in: Duration::ZERO, log };
        while TcpStream::connect(("127.0.0.1", port)).is_err() || !child.answers() {
            let ended = child.process.try_wait().unwrap();
            assert!(ended.is_none(), "it ended with {ended:?}: {}", child.last_words());
            assert!(began.elapsed() < PATIENCE, "it does not answer: {}", child.last_words());
            std::thread::sleep(Duration::from_millis(5));
        }
        child.started_in = began.elapsed();
        child
    }

    fn answers(&self) -> bool {
        let client: BaseConsumer = self.client().create().unwrap();
        client.fetch_metadata(None, Duration::from_millis(500)).is_ok_and(|found| !found.brokers().is_empty())
    }

    fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(20).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    pub fn client(&self) -> ClientConfig {
        client(self.port)
    }

    fn group(&self) -> Vec<u32> {
        let group = self.process.id().to_string();
        let mut members = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
            let Some((_, fields)) = stat.rsplit_once(") ") else { continue };
            if fields.split(' ').nth(2) == Some(&group) {
                members.push(pid);
            }
        }
        members
    }

    /// Resident bytes of everything in the group.
    pub fn memory(&self) -> u64 {
        let resident = |pid: &u32| {
            let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) << 10
        };
        self.group().iter().map(resident).sum()
    }

    /// CPU time of everything in the group so far, in ticks of 10 ms.
    pub fn cpu(&self) -> Duration {
        let ticks = |pid: &u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let fields: Vec<&str> = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').collect();
            let of = |index: usize| fields.get(index).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
            of(11) + of(12)
        };
        Duration::from_millis(self.group().iter().map(ticks).sum::<u64>() * 10)
    }

    /// SIGKILL to the whole group.
    pub fn kill(mut self) {
        let group = format!("-{}", self.process.id());
        Command::new("kill").args(["-KILL", "--", &group]).status().unwrap();
        self.process.wait().unwrap();
        while !self.group().is_empty() {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Closes its input and waits until it and everything that it started has gone.
    pub fn stop(mut self) -> Duration {
        let began = Instant::now();
        drop(self.process.stdin.take());
        let mut rest = String::new();
        if let Some(mut output) = self.process.stdout.take() {
            output.read_to_string(&mut rest).unwrap();
        }
        self.process.wait().unwrap();
        while !self.group().is_empty() {
            assert!(began.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
        began.elapsed()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.process.try_wait().is_ok_and(|ended| ended.is_none()) {
            let group = format!("-{}", self.process.id());
            Command::new("kill").args(["-KILL", "--", &group]).status().ok();
        }
    }
}

pub fn client(port: u16) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", format!("127.0.0.1:{port}"))
        .set("group.id", "trial")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("reconnect.backoff.max.ms", "200")
        .set("log_level", "0");
    config
}

/// The same, for producers: as the product sets them.
pub fn producer(port: u16) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", format!("127.0.0.1:{port}"))
        .set("enable.idempotence", "true")
        .set("compression.type", "lz4")
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "5")
        .set("queue.buffering.max.messages", "400000")
        .set("queue.buffering.max.kbytes", "262144")
        .set("reconnect.backoff.max.ms", "200")
        .set("log_level", "0");
    config
}
