//! A workspace of one run: a folder with a configuration and a prefix in Kafka, and the product's processes in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tailwater::config::{Config, LoadOptions};
use tailwater_simulators::klaviyo::{DEFAULT_API_KEY, JobDuration, Options};
use tailwater_tests::kafka::{self, free_port};
use tailwater_tests::runtime;
use tempfile::TempDir;

use crate::pipe::Pipe;
use crate::process::Process;
use crate::progress::Progress;
use crate::rows;

/// Partitions of the topics between the stages: the product's default.
pub const LANES: i32 = 16;

/// How long a process may take to be ready.
const READY_MAX: Duration = Duration::from_secs(120);

pub struct Workspace {
    folder: TempDir,
    brokers: String,
    prefix: String,
    admin_port: u16,
}

/// A part of the vendor's documented limits that is far more than all of them.
const UNLIMITED: u32 = 1_000;

/// What differs between workspaces.
#[derive(Debug, Clone)]
pub struct Setup<'a> {
    pub latency: &'a str,
    pub vendor: &'a str,
    pub transform: &'a str,
    /// The section `sources`, if it is not the topic of rows.
    pub sources: Option<String>,
    /// Which part of the vendor's documented limits is used, if it is not the product's default.
    pub rate_share: Option<u32>,
}

// === impl Setup ===

impl<'a> Setup<'a> {
    /// Nobody is sent anything.
    pub const fn new(latency: &'a str) -> Self {
        Self { latency, vendor: "http://127.0.0.1:9", transform: rows::WINBACK, sources: None, rate_share: None }
    }

    /// A vendor that does not limit anybody.
    pub const fn with_vendor(latency: &'a str, vendor: &'a str, transform: &'a str) -> Self {
        Self { latency, vendor, transform, sources: None, rate_share: Some(UNLIMITED) }
    }
}

/// A vendor that does not limit anybody, whose jobs take a tenth of a second.
pub fn vendor() -> Options {
    Options {
        limits: false,
        job_duration: JobDuration { base: Duration::from_millis(100), per_profile: Duration::ZERO },
        lists: vec![(rows::LIST.to_owned(), "Winback".to_owned())],
        ..Options::default()
    }
}

// === impl Workspace ===

impl Workspace {
    pub fn new(brokers: &str, name: &str, setup: &Setup<'_>) -> Self {
        let folder = TempDir::new().unwrap_or_else(|error| panic!("no folder for {name}: {error}"));
        let workspace =
            Self { folder, brokers: brokers.to_owned(), prefix: kafka::prefix(name), admin_port: free_port() };
        let sources = setup.sources.clone().unwrap_or_else(|| {
            format!(
                "  rows:\n    type: kafka\n    kind: state\n    primary_key: customer_id\n    \
                 identifiers: {{ customer_id: customer_id, email: email }}\n    schema: {}\n",
                rows::SCHEMA
            )
        });
        let share = setup.rate_share.map_or_else(String::new, |share| format!(", rate_share: {share}"));
        workspace.write("transforms/send.js", setup.transform);
        workspace.write(
            "tailwater.yaml",
            &format!(
                "version: 1
workspace: bench
kafka: {{ brokers: \"{brokers}\", prefix: \"{}\", partitions: {LANES}, replication_factor: 1, latency: {} }}
state_dir: ./state
admin: {{ listen: \"127.0.0.1:{}\" }}
identity:
  types:
    customer_id: {{ priority: 1, max: 1, normalise: trim }}
    email: {{ priority: 2, max: 5, normalise: email }}
sources:
{sources}accounts:
  main: {{ type: klaviyo, api_key: \"${{env:KLAVIYO_API_KEY}}\", base_url: \"{}\"{share} }}
destinations:
  klaviyo:
    account: main
    create: true
    identifier: email
    identifiers: {{ email: email, external_id: customer_id }}
    routes:
      - {{ from: rows, transform: transforms/send.js }}
",
                workspace.prefix, setup.latency, workspace.admin_port, setup.vendor
            ),
        );
        workspace
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.folder().join(name);
        path.parent().map_or(Ok(()), fs::create_dir_all).unwrap_or_else(|error| panic!("{name}: {error}"));
        fs::write(&path, text).unwrap_or_else(|error| panic!("{name}: {error}"));
    }

    pub fn config(&self) -> PathBuf {
        self.folder().join("tailwater.yaml")
    }

    /// A topic, or a group, of this workspace.
    pub fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// Starts a process with these roles (all of them if empty) and waits until it is ready.
    pub fn start(&self, roles: &str) -> Process {
        self.start_binary(&binary(), roles)
    }

    pub fn start_binary(&self, binary: &Path, roles: &str) -> Process {
        let mut process = self.spawn(binary, roles);
        self.ready(&mut process);
        process
    }

    /// Starts a process and does not wait.
    pub fn spawn(&self, binary: &Path, roles: &str) -> Process {
        let mut arguments = vec!["run", "--config", "tailwater.yaml"];
        if !roles.is_empty() {
            arguments.extend(["--roles", roles]);
        }
        let key = [("KLAVIYO_API_KEY", DEFAULT_API_KEY.to_owned())];
        Process::start(&format!("tailwater {roles}"), self.folder(), binary, &arguments, &key)
    }

    /// Waits for `/readyz`; answers how long after the start that was.
    pub fn ready(&self, process: &mut Process) -> Duration {
        let url = format!("http://127.0.0.1:{}/readyz", self.admin_port);
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build();
        let client = client.unwrap_or_else(|error| panic!("no client: {error}"));
        let until = Instant::now() + READY_MAX;
        loop {
            let answer = runtime().block_on(async { client.get(&url).send().await });
            if answer.is_ok_and(|answer| answer.status() == 200) {
                return process.started().elapsed();
            }
            process.assert_running();
            assert!(Instant::now() < until, "not ready after {READY_MAX:?}:\n{}", process.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// How far a stage's group is in its topic.
    pub fn progress(&self, group: &str, topic: &str) -> Progress {
        Progress::of(&self.brokers, &self.name(group), &self.name(topic))
    }

    /// Starts a plain pipe beside a stage.
    pub fn start_pipe(&self, pipe: &Pipe) -> Process {
        let own = std::env::current_exe().unwrap_or_else(|error| panic!("the own path is not known: {error}"));
        let pipe = serde_json::to_string(pipe).unwrap_or_else(|error| panic!("{error}"));
        Process::start("pipe", self.folder(), &own, &["pipe", &pipe], &[])
    }
}

/// The configuration in a file, for whoever needs its Kafka section: secrets are not looked for.
pub fn load(file: &Path) -> Config {
    let options = LoadOptions { tolerate_unresolved: true, ..LoadOptions::default() };
    Config::load(file, &options).unwrap_or_else(|problems| panic!("{}: {problems:?}", file.display()))
}

/// The product's binary, beside this one.
pub fn binary() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_else(|error| panic!("the own path is not known: {error}"));
    let path = own.with_file_name("tailwater");
    assert!(path.is_file(), "there is no {}: run `make bench`", path.display());
    path
}
