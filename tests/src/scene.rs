//! The stage of one test: a folder, a prefix in Kafka, a vendor, and the configuration that joins them.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tailwater_simulators::engine;
use tailwater_simulators::klaviyo::{DEFAULT_API_KEY, JobDuration, Klaviyo, Options};
use tempfile::TempDir;

use crate::audit::{self, Counts};
use crate::kafka::{self, free_port};
use crate::lake;
use crate::process::{self, Ended, Process};
use crate::runtime;
use crate::topics::Topics;
use crate::vendor::Vendor;
use crate::wait::{PATIENCE, eventually};

/// What every test has. Processes that it starts must go before it: declare them after it.
#[derive(Debug)]
pub struct Scene<V: engine::Vendor = Klaviyo> {
    folder: TempDir,
    pub prefix: String,
    brokers: String,
    pub vendor: Vendor<V>,
    admin_port: u16,
    api_key: String,
    /// Further variables of the process's environment.
    variables: Vec<(String, String)>,
    /// Whether the process brings the broker itself.
    embedded: bool,
}

/// A transform that sends a profile with the row's `score` under the profile's email.
pub const SCORE_TRANSFORM: &str = "async function send(payload, headers) {
  return payload.events.map(row => ({ data: { type: 'profile', attributes: {
    email: row.email, properties: { score: row.score } } } }));
}
";

impl Scene {
    /// A scene on the shared broker, with a vendor that has a list `LIST01`, no limits, and jobs that take a tenth of a second.
    pub fn new(name: &str) -> Self {
        Self::with(name, kafka::brokers(), quick_vendor())
    }

    pub fn with(name: &str, brokers: &str, vendor: Options) -> Self {
        Self::at(name, brokers, vendor, DEFAULT_API_KEY)
    }

    /// A scene without a broker: [`Self::run`] is `tailwater run --embedded`.
    pub fn embedded(name: &str) -> Self {
        let brokers = format!("127.0.0.1:{}", free_port());
        Self { embedded: true, ..Self::with(name, &brokers, quick_vendor()) }
    }

    /// Writes `tailwater.yaml`: the head that all tests share, then these sections.
    pub fn configure(&self, sections: &str) {
        self.write("tailwater.yaml", &format!("{}{sections}", self.head(4)));
    }

    /// The part of a configuration that says where things are.
    pub fn head(&self, partitions: u32) -> String {
        format!(
            "version: 1
workspace: test
kafka:
  brokers: \"{}\"
  prefix: \"{}\"
  partitions: {partitions}
  replication_factor: 1
  latency: low
  session_timeout: 6s
state_dir: ./state
admin: {{ listen: \"127.0.0.1:{}\" }}
accounts:
  main: {{ type: klaviyo, api_key: \"${{env:KLAVIYO_API_KEY}}\", base_url: \"{}\" }}
",
            self.brokers,
            self.prefix,
            self.admin_port,
            self.vendor.url()
        )
    }

    /// A configuration with one topic of JSON rows, `rows`, that have `customer_id`, `email` and `score`, and one route.
    pub fn configure_rows(&self) {
        self.write("transforms/score.js", SCORE_TRANSFORM);
        self.configure(ROWS);
    }

    /// The topic that [`Self::configure_rows`] reads.
    pub fn rows_topic(&self) -> String {
        self.topic("ingest.rows")
    }
}

impl<V: engine::Vendor> Scene<V> {
    /// A scene with any vendor, which takes this key.
    pub fn at(name: &str, brokers: &str, vendor: V::Options, key: &str) -> Self {
        let folder = TempDir::new().unwrap_or_else(|error| panic!("no folder for {name}: {error}"));
        Self {
            folder,
            prefix: kafka::prefix(name),
            brokers: brokers.to_owned(),
            vendor: Vendor::of(vendor),
            admin_port: free_port(),
            api_key: key.to_owned(),
            variables: Vec::new(),
            embedded: false,
        }
    }

    /// Lays out an example as it stands; only the prefix is this scene's own. Addresses and the key come from the environment.
    pub fn lay_out(&self, example: &Path) {
        lake::copy_folder(example, self.folder());
        let text = fs::read_to_string(self.folder().join("tailwater.yaml"))
            .unwrap_or_else(|error| panic!("{} has no configuration: {error}", example.display()));
        assert!(text.contains("prefix: \"tailwater.\""), "the example's prefix has changed");
        self.write("tailwater.yaml", &text.replace("prefix: \"tailwater.\"", &format!("prefix: \"{}\"", self.prefix)));
    }

    /// Plays a later commit of the example's lake.
    pub fn commit(&self, name: &str) {
        let output = Command::new(self.folder().join("lake/commit.sh")).arg(name).output();
        let output = output.unwrap_or_else(|error| panic!("lake/commit.sh {name}: {error}"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    pub fn topics(&self) -> Topics {
        Topics::at(&self.brokers)
    }

    /// A topic of this scene: `resolved`, `dlq.source.orders`, …
    pub fn topic(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The key that the process gets in its environment; the vendor takes [`DEFAULT_API_KEY`] only.
    pub fn set_api_key(&mut self, key: &str) {
        key.clone_into(&mut self.api_key);
    }

    /// Another variable in the process's environment: of a second vendor, say.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// Writes a file, whole at once as an editor does, so that a watcher never sees half of it.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.folder().join(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        }
        let staged = path.with_extension("staged");
        fs::write(&staged, text).unwrap_or_else(|error| panic!("{}: {error}", staged.display()));
        fs::rename(&staged, &path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    pub fn environment(&self) -> Vec<(String, String)> {
        let (key, base_url) = match V::KIND {
            "klaviyo" => ("KLAVIYO_API_KEY", "KLAVIYO_BASE_URL"),
            "iterable" => ("ITERABLE_API_KEY", "ITERABLE_BASE_URL"),
            "customerio" => ("CUSTOMERIO_SECRET_KEY", "CUSTOMERIO_BASE_URL"),
            other => panic!("no example has an account at {other}"),
        };
        let own = [
            (key.into(), self.api_key.clone()),
            (base_url.into(), self.vendor.url()),
            ("KAFKA_BROKERS".into(), self.brokers.clone()),
            ("TAILWATER_ADMIN_LISTEN".into(), format!("127.0.0.1:{}", self.admin_port)),
            // Nobody waits a minute for Iterable in a test.
            ("ITERABLE_SETTLE".into(), "1s".into()),
            ("RUST_BACKTRACE".into(), "1".into()),
        ];
        own.into_iter().chain(self.variables.iter().cloned()).collect()
    }

    /// Starts `tailwater run` and waits until it is ready.
    pub fn run(&self) -> Process {
        let arguments: &[&str] = if self.embedded {
            &["run", "--embedded", "--config", "tailwater.yaml"]
        } else {
            &["run", "--config", "tailwater.yaml"]
        };
        let mut process = self.spawn(&format!("tailwater {}", arguments.join(" ")), arguments);
        self.wait_until_ready(&mut process);
        process
    }

    /// Starts `tailwater` with these arguments, and does not wait.
    pub fn spawn(&self, name: &str, arguments: &[&str]) -> Process {
        Process::spawn(name, self.folder(), &self.environment(), arguments)
    }

    pub fn wait_until_ready(&self, process: &mut Process) {
        eventually("/readyz answers 200", PATIENCE, || {
            process.assert_running();
            match self.admin("/readyz") {
                Ok((200, _)) => Ok(()),
                Ok((status, text)) => Err(format!("{status}: {text}")),
                Err(error) => Err(error),
            }
        });
    }

    /// Asks the process's admin port.
    ///
    /// # Errors
    /// Nobody answers.
    pub fn admin(&self, path: &str) -> Result<(u16, String), String> {
        let url = format!("http://127.0.0.1:{}{path}", self.admin_port);
        runtime().block_on(async {
            let client = reqwest::Client::builder()
                .timeout(Duration::from_secs(5))
                .build()
                .map_err(|error| error.to_string())?;
            let response = client.get(url).send().await.map_err(|error| error.to_string())?;
            let status = response.status().as_u16();
            Ok((status, response.text().await.map_err(|error| error.to_string())?))
        })
    }

    /// Runs a command of `tailwater` in the scene's folder until it ends. It gets the configuration where it takes one.
    pub fn command(&self, arguments: &[&str]) -> Ended {
        process::run(self.folder(), &self.environment(), arguments)
    }

    /// `tailwater audit --json`, whatever it finds.
    pub fn audit(&self) -> Value {
        self.command(&["audit", "--config", "tailwater.yaml", "--json"]).json()
    }

    /// What the audit says about one source and one destination.
    pub fn counts(&self, source: &str, destination: &str) -> Counts {
        Counts::find(&self.audit(), source, destination)
    }

    /// Waits until the ledger says this, counted by hand, and then holds the audit against it.
    pub fn audits(&self, source: &str, destination: &str, expected: &Counts) {
        let ingest = self.topic(&format!("ingest.{source}"));
        let by_hand =
            Counts { in_flight: expected.in_flight + expected.unaccounted, unaccounted: 0, ..expected.clone() };
        eventually(&format!("the ledger of {source} at {destination}"), PATIENCE, || {
            let seen = audit::count(&self.topics(), &self.topic("ledger"), &ingest, destination);
            if seen == by_hand {
                return Ok(());
            }
            let stages = [
                ("resolve".to_owned(), ingest.clone()),
                (format!("route.{destination}"), self.topic("resolved")),
                (format!("send.{destination}"), self.topic(&format!("outbound.{destination}"))),
            ];
            let lags = stages.map(|(group, topic)| self.topics().lag(&self.topic(&group), &topic)).join("\n");
            Err(format!("{seen:?}, expected {by_hand:?}\n{lags}"))
        });
        eventually(&format!("the audit of {source} at {destination}"), PATIENCE, || {
            let seen = self.counts(source, destination);
            if seen == *expected { Ok(()) } else { Err(format!("{seen:?}, expected {expected:?}")) }
        });
    }

    /// The entries of a destination's stages on the status page, by `<destination>.<stage>`.
    pub fn status(&self, destination: &str) -> Value {
        let Ok((200, text)) = self.admin("/status") else { return Value::Null };
        let page: Value = serde_json::from_str(&text).unwrap_or_default();
        let stages = page["destination"].as_object().into_iter().flatten();
        stages
            .filter(|(name, _)| name.split('.').next() == Some(destination))
            .map(|(name, entry)| (name.clone(), entry.clone()))
            .collect()
    }

    /// Waits until a destination is paused with this code.
    pub fn pauses(&self, destination: &str, code: &str) {
        eventually(&format!("{destination} pauses with {code}"), PATIENCE, || {
            let status = self.status(destination);
            if status.to_string().contains("\"paused\"") && status.to_string().contains(code) {
                Ok(())
            } else {
                Err(status.to_string())
            }
        });
    }
}

/// A vendor for tests that are not about limits.
pub fn quick_vendor() -> Options {
    Options {
        limits: false,
        job_duration: JobDuration { base: Duration::from_millis(100), per_profile: Duration::ZERO },
        lists: vec![("LIST01".into(), "Test".into())],
        ..Options::default()
    }
}

const ROWS: &str = "identity:
  types:
    customer_id: { priority: 1, max: 1, normalise: trim }
    email: { priority: 2, max: 5, normalise: email }
sources:
  rows:
    type: kafka
    kind: state
    primary_key: customer_id
    identifiers: { customer_id: customer_id, email: email }
    schema: { customer_id: string, email: string, score: double }
destinations:
  klaviyo:
    account: main
    create: true
    identifier: email
    identifiers: { email: email, external_id: customer_id }
    on_missing_key: hold
    routes:
      - { from: rows, transform: transforms/score.js }
";
