//! The processes under test: several of each role, started again when they end, as an orchestrator does.

use std::fmt;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::check::Disturbance;
use crate::kafka::free_port;
use crate::process::binary;

/// Lines of a log that are shown when a process ends by itself.
const LINES_SHOWN: usize = 8;

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Source,
    Resolve,
    Route,
    Send,
    /// All of them, and the broker: `run --embedded`.
    Whole,
}

/// A place in the fleet: whoever fills it has its name, its state folder and its port.
#[derive(Debug)]
pub struct Member {
    pub name: String,
    pub role: Role,
    port: u16,
    process: Option<Running>,
    /// When it is to be started, if it does not run.
    due: Instant,
    starts: u32,
    /// It is not started again: a guest of a rebalance storm.
    guest: bool,
}

#[derive(Debug)]
struct Running {
    child: Child,
    log: PathBuf,
    /// Until when it is stopped.
    stopped: Option<Instant>,
    /// It was killed on purpose.
    killed: bool,
}

/// A process that ended without being asked to.
#[derive(Debug, Clone)]
pub struct Ended {
    pub name: String,
    pub status: ExitStatus,
    /// Its last lines.
    pub tail: String,
    /// It panicked: always a defect.
    pub panicked: bool,
}

#[derive(Debug)]
pub struct Fleet {
    folder: PathBuf,
    configuration: String,
    environment: Vec<(String, String)>,
    pub members: Vec<Member>,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Resolve => "resolve",
            Self::Route => "route",
            Self::Send => "send",
            Self::Whole => "whole",
        })
    }
}

// === impl Member ===

impl Member {
    pub const fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Whether it runs and is not stopped.
    pub fn is_awake(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.stopped.is_none())
    }

    pub const fn is_guest(&self) -> bool {
        self.guest
    }
}

// === impl Fleet ===

impl Fleet {
    /// `configuration` names neither the state folder nor the admin port: every process gets its own.
    pub fn new(folder: &Path, configuration: &str, environment: Vec<(String, String)>) -> Self {
        Self { folder: folder.to_path_buf(), configuration: configuration.to_owned(), environment, members: Vec::new() }
    }

    /// Adds a place that [`Self::look_after`] fills.
    pub fn add(&mut self, role: Role, guest: bool) -> usize {
        let same = self.members.iter().filter(|member| member.role == role && member.guest == guest).count();
        let name = format!("{role}-{}{}", if guest { "guest-" } else { "" }, same + 1);
        self.members.push(Member {
            name,
            role,
            port: free_port(),
            process: None,
            due: Instant::now(),
            starts: 0,
            guest,
        });
        self.members.len() - 1
    }

    /// Starts what is due, wakes what has slept long enough, and tells which processes have ended by themselves. `arm` gives the
    /// failpoints of a process that starts.
    pub fn look_after(&mut self, mut arm: impl FnMut(&Member) -> String) -> Vec<Ended> {
        let mut ended = Vec::new();
        for index in 0..self.members.len() {
            let member = &mut self.members[index];
            if let Some(process) = &mut member.process {
                if process.stopped.is_some_and(|until| Instant::now() >= until) {
                    self.wake(index);
                    continue;
                }
                let status = process.child.try_wait().unwrap_or_else(|error| panic!("{}: {error}", member.name));
                if let Some(status) = status {
                    let text = fs::read(&process.log).unwrap_or_default();
                    let text = String::from_utf8_lossy(&text);
                    let lines: Vec<&str> = text.lines().collect();
                    let tail = lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n");
                    let panicked = text.contains("panicked at");
                    if !process.killed || panicked {
                        ended.push(Ended { name: member.name.clone(), status, tail, panicked });
                    }
                    member.process = None;
                    member.due = member.due.max(Instant::now() + Duration::from_millis(200));
                }
            } else if !member.guest && Instant::now() >= member.due {
                let failpoints = arm(member);
                self.start(index, &failpoints);
            }
        }
        ended
    }

    /// Starts a process in its place.
    pub fn start(&mut self, index: usize, failpoints: &str) {
        let member = &mut self.members[index];
        member.starts += 1;
        let name = &member.name;
        let text = format!(
            "{}state_dir: ./state-{name}\nadmin: {{ listen: \"127.0.0.1:{}\" }}\n",
            self.configuration, member.port
        );
        let file = self.folder.join(format!("{name}.yaml"));
        write(&file, &text);
        let clock = clock_file(&self.folder, name);
        if !clock.exists() {
            write(&clock, "0");
        }
        let log = self.folder.join(format!("log/{name}-{:03}.log", member.starts));
        fs::create_dir_all(self.folder.join("log")).unwrap_or_else(|error| panic!("no folder for logs: {error}"));
        let output = File::create(&log).unwrap_or_else(|error| panic!("{}: {error}", log.display()));
        let errors = output.try_clone().unwrap_or_else(|error| panic!("{}: {error}", log.display()));
        let mut command = Command::new(binary());
        command.args(["run", "--config"]).arg(&file);
        match member.role {
            Role::Whole => command.arg("--embedded"),
            role => command.args(["--roles", &role.to_string()]),
        };
        let child = command
            .current_dir(&self.folder)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env("TAILWATER_FAILPOINTS", failpoints)
            .env("TAILWATER_CLOCK_FILE", clock)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} could not be started: {error}"));
        member.process = Some(Running { child, log, stopped: None, killed: false });
    }

    /// Kills a process as a crash does. It is started again after `pause`.
    pub fn kill(&mut self, index: usize, pause: Duration) {
        let member = &mut self.members[index];
        member.due = Instant::now() + pause;
        if let Some(process) = &mut member.process {
            process.killed = true;
            process.child.kill().unwrap_or_else(|error| panic!("{} could not be killed: {error}", member.name));
        }
    }

    /// Asks a process to end in order. It is started again when it has.
    pub fn terminate(&mut self, index: usize) {
        if let Some(process) = &mut self.members[index].process {
            process.killed = true;
            signal(process.child.id(), "TERM");
        }
    }

    /// Stops a process for a while. Longer than its session, and it is a zombie when it wakes.
    pub fn stop(&mut self, index: usize, time: Duration) {
        if let Some(process) = &mut self.members[index].process
            && process.stopped.is_none()
        {
            process.stopped = Some(Instant::now() + time);
            signal(process.child.id(), "STOP");
        }
    }

    fn wake(&mut self, index: usize) {
        if let Some(process) = &mut self.members[index].process
            && process.stopped.take().is_some()
        {
            signal(process.child.id(), "CONT");
        }
    }

    /// Kills a process and removes its state folder: the next one has an empty disk.
    pub fn empty_disk(&mut self, index: usize) {
        self.kill(index, Duration::from_millis(300));
        let folder = self.state(index);
        if let Some(process) = &mut self.members[index].process {
            process.child.wait().ok();
        }
        fs::remove_dir_all(&folder)
            .or_else(|error| if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    }

    /// Where a process keeps what it has on disk.
    pub fn state(&self, index: usize) -> PathBuf {
        self.folder.join(format!("state-{}", self.members[index].name))
    }

    /// Sets a process's wall clock off by so many milliseconds.
    pub fn step_clock(&self, index: usize, offset_ms: i64) {
        write(&clock_file(&self.folder, &self.members[index].name), &offset_ms.to_string());
    }

    /// The end of the faults: everybody is awake, and clocks are right.
    pub fn heal(&mut self) {
        for index in 0..self.members.len() {
            self.wake(index);
            self.step_clock(index, 0);
            if self.members[index].guest {
                self.kill(index, Duration::ZERO);
            }
        }
    }

    /// Bytes of resident memory of each process, for the report.
    pub fn memory(&self) -> Vec<(String, u64)> {
        self.members
            .iter()
            .filter_map(|member| {
                let id = member.process.as_ref()?.child.id();
                let text = fs::read_to_string(format!("/proc/{id}/statm")).ok()?;
                let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
                Some((member.name.clone(), pages * 4096))
            })
            .collect()
    }

    /// What the processes say of themselves that explains a repeat: crashes at failpoints, and transactions that the broker aborted (a
    /// generation that was over, a broker that had been away), which undo outcomes that were not committed. `began` is one moment by
    /// both clocks.
    pub fn told(&self, failpoints: &Path, began: (Instant, SystemTime)) -> Vec<Disturbance> {
        let at = |time: SystemTime| began.0 + time.duration_since(began.1).unwrap_or_default();
        let mut told = Vec::new();
        for line in fs::read_to_string(failpoints).unwrap_or_default().lines() {
            let Some(ms) = line.split(' ').nth(3).and_then(|ms| ms.parse().ok()) else { continue };
            let time = at(UNIX_EPOCH + Duration::from_millis(ms));
            told.push(Disturbance { from: time, until: time, what: format!("failpoint: {line}") });
        }
        let logs = fs::read_dir(self.folder.join("log")).into_iter().flatten().flatten();
        for log in logs {
            let Ok(text) = fs::read(log.path()) else { continue };
            for line in String::from_utf8_lossy(&text).lines() {
                let Some((time, _)) =
                    line.split_once(' ').filter(|_| line.contains("starts again from its last commit"))
                else {
                    continue;
                };
                let Ok(time) = time.parse::<jiff::Timestamp>() else { continue };
                let time = at(time.into());
                let what = format!("{}: {line}", log.file_name().display());
                told.push(Disturbance { from: time, until: time, what });
            }
        }
        told
    }

    /// How many processes were started.
    pub fn starts(&self) -> u32 {
        self.members.iter().map(|member| member.starts).sum()
    }

    pub fn pick(&self, wanted: impl Fn(&Member) -> bool, draw: f64) -> Option<usize> {
        let found: Vec<usize> = (0..self.members.len()).filter(|index| wanted(&self.members[*index])).collect();
        found.get(super::place(draw, found.len())).copied()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for member in &mut self.members {
            if let Some(process) = &mut member.process {
                // If it has ended by itself there is nothing left to do.
                process.child.kill().ok();
                process.child.wait().ok();
            }
        }
    }
}

// === impl Ended ===

impl Ended {
    /// It killed itself at a failpoint.
    pub fn is_crash(&self) -> bool {
        self.status.signal() == Some(9) && !self.panicked
    }
}

fn clock_file(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("clock-{name}"))
}

/// Whole at once, so that no reader sees half of it.
pub fn write(path: &Path, text: &str) {
    let staged = path.with_extension("staged");
    fs::write(&staged, text)
        .and_then(|()| fs::rename(&staged, path))
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

fn signal(process: u32, signal: &str) {
    let status = Command::new("kill").arg(format!("-{signal}")).arg(process.to_string()).status();
    // It may have ended a moment ago.
    if let Err(error) = status {
        panic!("kill cannot be run: {error}");
    }
}
