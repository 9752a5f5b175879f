//! A real Apache Kafka: one broker for all tests of a run, and brokers of their own for tests that stop them.
//!
//! `TAILWATER_TEST_BROKERS` names a broker that runs already (`make test` starts one). Without it the first test starts one with
//! `deploy/kafka/kafka.sh`, for all test binaries of the same `cargo test`, and it ends when that does.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::parent_id;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use tempfile::TempDir;

use crate::root;

/// The shared broker's address.
pub fn brokers() -> &'static str {
    static BROKERS: LazyLock<String> = LazyLock::new(|| match std::env::var("TAILWATER_TEST_BROKERS") {
        Ok(brokers) if !brokers.is_empty() => brokers,
        _ => shared(),
    });
    &BROKERS
}

/// A prefix that no other test has: `t-<name>-<random>.`.
pub fn prefix(name: &str) -> String {
    let (random, _) = uuid::Uuid::new_v4().as_u64_pair();
    format!("t-{name}-{:08x}.", random >> 32)
}

/// A port of this machine that was free a moment ago. It lies below those that outgoing connections take (32768 and up), so that it
/// stays free while nobody listens on it.
pub fn free_port() -> u16 {
    let (_, random) = uuid::Uuid::new_v4().as_u64_pair();
    let first = u16::try_from(random % 10_000).unwrap_or(0);
    (0..10_000)
        .map(|step| 20_000 + (first + step) % 10_000)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .unwrap_or_else(|| panic!("no free port"))
}

/// A broker of one test, which may stop it and start it again. It ends with this value.
#[derive(Debug)]
pub struct Broker {
    folder: TempDir,
    port: u16,
    /// Compaction and retention happen within a test's patience, at the price of an eighth of a core.
    fast_cleanup: bool,
}

// === impl Broker ===

impl Broker {
    /// A broker that does not run yet; its address is known.
    pub fn stopped() -> Self {
        let folder = TempDir::new().unwrap_or_else(|error| panic!("no folder for a broker: {error}"));
        Self { folder, port: free_port(), fast_cleanup: false }
    }

    pub fn started() -> Self {
        let broker = Self::stopped();
        broker.start();
        broker
    }

    /// A broker that compacts and deletes as soon as it can.
    pub fn with_fast_cleanup() -> Self {
        let mut broker = Self::stopped();
        broker.fast_cleanup = true;
        broker.start();
        broker
    }

    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Starts it, with the data that it had.
    pub fn start(&self) {
        let keeper = std::process::id().to_string();
        let port = self.port.to_string();
        let mut arguments = vec!["start", path(self.folder.path()), &port, "--while", &keeper];
        arguments.extend(self.fast_cleanup.then_some("--fast-cleanup"));
        script(&arguments);
    }

    /// Kills it as a crash does; its data stay.
    pub fn kill(&self) {
        let file = self.folder.path().join("pid");
        let pid = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let status = Command::new("kill").arg("-KILL").arg(pid.trim()).status();
        let status = status.unwrap_or_else(|error| panic!("kill cannot be run: {error}"));
        assert!(status.success(), "the broker could not be killed");
        crate::wait::eventually("the broker is gone", crate::wait::PATIENCE, || {
            if Path::new("/proc").join(pid.trim()).join("exe").exists() { Err("it is there".into()) } else { Ok(()) }
        });
        // Its watcher would otherwise tidy up after it, and might meet the next one.
        for name in ["pid", "bootstrap"] {
            let file = self.folder.path().join(name);
            fs::remove_file(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        }
    }

    /// Stops it in order; its data stay.
    pub fn stop(&self) {
        script(&["stop", path(self.folder.path())]);
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // A panic here would hide the test's own.
        if let Err(error) = try_script(&["stop", path(self.folder.path())]) {
            eprintln!("a broker could not be stopped: {error}");
        }
    }
}

// === the shared broker ===

/// Starts the broker of this run, or finds the one that another test binary has started. A run is known by its parent process.
fn shared() -> String {
    let folder = target().join("kafka-test");
    fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{} cannot be made: {error}", folder.display()));
    let lock =
        File::create(folder.join("lock")).unwrap_or_else(|error| panic!("the broker's lock cannot be made: {error}"));
    lock.lock().unwrap_or_else(|error| panic!("the broker's lock cannot be taken: {error}"));
    remove_finished(&folder);
    let run = folder.join(format!("run-{}", parent_id()));
    let output = try_script(&["status", path(&run)])
        .unwrap_or_else(|_| script(&["start", path(&run), "--while", &parent_id().to_string(), "--fast-cleanup"]));
    let address = output.trim().strip_prefix("bootstrap=").map(str::to_owned);
    address.unwrap_or_else(|| panic!("kafka.sh printed no address: {output}"))
}

/// Removes the folders of runs that are over; their brokers have ended with them.
fn remove_finished(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(run) = name.to_str().and_then(|name| name.strip_prefix("run-")) else { continue };
        if Path::new("/proc").join(run).exists() || !Path::new("/proc/self").exists() {
            continue;
        }
        let result = try_script(&["stop", path(&entry.path())]);
        if let Err(error) = result.and_then(|_| fs::remove_dir_all(entry.path()).map_err(|error| error.to_string())) {
            eprintln!("the broker of a finished run could not be removed: {error}");
        }
    }
}

/// The target folder: where the test binary lies in `<target>/<profile>/deps`.
pub(crate) fn target() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_else(|error| panic!("the test's own path is not known: {error}"));
    let profile = own.ancestors().nth(2).unwrap_or(&own);
    profile.parent().unwrap_or(profile).to_path_buf()
}

fn script(arguments: &[&str]) -> String {
    try_script(arguments).unwrap_or_else(|error| panic!("{error}"))
}

fn try_script(arguments: &[&str]) -> Result<String, String> {
    let script = root().join("deploy/kafka/kafka.sh");
    let output = Command::new(&script)
        .args(arguments)
        .output()
        .map_err(|error| format!("{} cannot be run: {error}", script.display()))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("kafka.sh {} failed: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr)))
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap_or_else(|| panic!("{} is no UTF-8", path.display()))
}
