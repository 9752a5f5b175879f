//! A process that is measured: started, watched through `/proc`, ended.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a process may take to end after it was asked to.
const END_MAX: Duration = Duration::from_secs(60);

/// Parts of a second in which the kernel counts processor time for `/proc/<pid>/stat`. It has been 100 on every Linux for decades.
const TICKS: f64 = 100.0;

/// A running process. It is killed when this value goes.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    started: Instant,
}

// === impl Process ===

impl Process {
    /// Starts a program; what it prints goes to `<name>.log` in the folder.
    pub fn start(name: &str, folder: &Path, binary: &Path, arguments: &[&str], environment: &[(&str, String)]) -> Self {
        let log = folder.join(format!("{}.log", name.replace(' ', "-")));
        let file = File::create(&log).unwrap_or_else(|error| panic!("{}: {error}", log.display()));
        let copy = file.try_clone().unwrap_or_else(|error| panic!("{}: {error}", log.display()));
        let child = Command::new(binary)
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(copy)
            .spawn()
            .unwrap_or_else(|error| panic!("{} could not be started: {error}", binary.display()));
        Self { name: name.to_owned(), child, log, started: Instant::now() }
    }

    pub const fn started(&self) -> Instant {
        self.started
    }

    /// What it has printed.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Processor seconds that all of its threads have used, in user mode and in the kernel.
    pub fn processor_seconds(&self) -> f64 {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        // The second field is the name, in parentheses, and may hold anything.
        let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok());
        match (ticks(11), ticks(12)) {
            (Some(user), Some(system)) => (user + system) / TICKS,
            _ => panic!("{} has ended:\n{}", self.name, self.log()),
        }
    }

    /// Memory in MiB: resident now, and the most that ever was.
    pub fn memory(&self) -> (f64, f64) {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let of = |name: &str| {
            let kib =
                text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse::<f64>().ok());
            kib.map_or(f64::NAN, |kib| kib / 1024.0)
        };
        (of("VmRSS:"), of("VmHWM:"))
    }

    /// Panics with its log if it has ended.
    pub fn assert_running(&mut self) {
        if let Ok(Some(status)) = self.child.try_wait() {
            panic!("{} has ended with {status}:\n{}", self.name, self.log());
        }
    }

    /// Waits until it has ended by itself; answers what it has printed.
    pub fn finish(mut self, patience: Duration) -> String {
        let status = self.wait(patience);
        assert!(status.success(), "{} has ended with {status}:\n{}", self.name, self.log());
        self.log()
    }

    /// Asks it to end, waits for that, and answers what it has printed.
    pub fn stop(mut self) -> String {
        let pid = self.child.id().to_string();
        let asked = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(asked.is_ok_and(|status| status.success()), "{} could not be asked to end", self.name);
        self.wait(END_MAX);
        self.log()
    }

    fn wait(&mut self, patience: Duration) -> std::process::ExitStatus {
        let until = Instant::now() + patience;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return status,
                Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(10)),
                Ok(None) => panic!("{} does not end:\n{}", self.name, self.log()),
                Err(error) => panic!("{}: {error}", self.name),
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
