//! A dry run: everything but the calls to vendors, beside what is in production.
//!
//! It works under a prefix and in a folder of its own, so that no offset, no state and no ledger of the real workspace is touched: the
//! tables and the producers' own topics are read from their beginning, and the requests that would be sent are printed. When
//! everything has its end, it stops by itself and deletes what it made. If a source could not be read or a destination is paused, the run
//! says which, and has failed: an empty run must not look like a complete one.

use std::io::Write as _;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::Value;
use tracing::{error, info, warn};

use async_trait::async_trait;
use tailwater_connectors::{
    self as connectors, ClassifyError, ClassifyInput, Destination, NonFinite, Outcomes, Planned, ProbeError, Spec,
};
use tailwater_core::delivery::{Delivery, Outcome, Ticket};
use tailwater_core::operation::Operation;
use tailwater_core::{Code, code};

use crate::config::Config;
use crate::config::model::SourceInput;
use crate::kafka::topics;
use crate::operator::audit::{Audit, audit};
use crate::runtime::Context;
use crate::runtime::supervisor::{Spawner, TaskError, TaskKind};

/// Looks of the audit that must agree before the run counts as complete, and the time between them.
const QUIET_LOOKS: u32 = 3;
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Gives the configuration a prefix and a folder of its own, and an admin port that nobody else has.
pub fn isolate(config: &mut Config) {
    let run: u32 = rand::random();
    config.kafka.prefix = format!("{}dry-run-{run:08x}.", config.kafka.prefix);
    config.kafka.create_topics = true;
    config.state_dir = config.state_dir.join(format!("dry-run-{run:08x}"));
    config.admin.listen.set_port(0);
}

/// Why the run is no success, once that is known.
pub type Verdict = Arc<OnceLock<TaskError>>;

/// Ends the run when nothing is left to do, or when what is left cannot be done.
pub fn watch(shared: &Arc<Context>, spawner: &Spawner, verdict: &Verdict) {
    let (shared, verdict) = (Arc::clone(shared), Arc::clone(verdict));
    spawner.thread("dry-run", TaskKind::Watcher, move |stop| {
        let mut last: Option<Audit> = None;
        let mut quiet = 0;
        while !stop.wait(LOOK_INTERVAL) {
            let now = match audit(&shared.config, None, &mut |_| {}) {
                Ok(now) => now,
                Err(error) => {
                    warn!(code = %error.code(), "the dry run cannot be audited yet: {error}");
                    continue;
                }
            };
            let page = shared.telemetry.status_page();
            let trouble = trouble(&shared.config, &page);
            // What a pause holds back does not move any more.
            let done = !now.is_moving() || trouble.iter().any(|one| one.paused);
            let idle = done && !is_reading(&shared.config, &page) && last.as_ref() == Some(&now);
            quiet = if idle { quiet + 1 } else { 0 };
            if quiet >= QUIET_LOOKS {
                let text = now.to_text();
                match trouble.first() {
                    None => info!("the dry run is complete; nothing was sent\n{text}"),
                    Some(first) => {
                        let all: Vec<&str> = trouble.iter().map(|one| one.text.as_str()).collect();
                        let message = format!("the dry run is not complete: {}", all.join("; "));
                        error!(code = %first.code, "{message}\n{text}");
                        verdict.set(TaskError::fatal(first.code, message)).ok();
                    }
                }
                shared.shutdown.request("the dry run has ended");
            }
            last = Some(now);
        }
        Ok(())
    });
}

/// A source or a destination that does not work.
#[derive(Debug, PartialEq, Eq)]
struct Trouble {
    code: Code,
    text: String,
    paused: bool,
}

/// What the status says about sources and destinations that do not work.
fn trouble(config: &Config, page: &Value) -> Vec<Trouble> {
    let mut found = Vec::new();
    let mut look = |what: &str, entry: &Value| {
        let state = entry["state"].as_str().unwrap_or_default();
        if !["failing", "paused", "waiting"].contains(&state) {
            return;
        }
        let code = entry["code"].as_str().and_then(Code::find).unwrap_or(code::TASK_FAILED);
        let text = format!("{what} is {state} ({code}): {}", entry["message"].as_str().unwrap_or_default());
        found.push(Trouble { code, text, paused: state == "paused" });
    };
    for name in config.sources.keys() {
        look(&format!("source {name}"), &page["source"][name]);
    }
    for (name, entry) in page["destination"].as_object().into_iter().flatten() {
        look(&format!("destination {name}"), entry);
    }
    found
}

/// Whether a table has not been read to its end yet.
fn is_reading(config: &Config, page: &Value) -> bool {
    let tables = config.sources.values().filter(|source| matches!(source.input, SourceInput::Delta(_)));
    tables
        .map(|source| page["source"][&source.name]["state"].as_str())
        .any(|state| matches!(state, None | Some("reading")))
}

/// Deletes the topics and the folder of a dry run.
pub fn clean_up(config: &Config) {
    match topics::delete_all(&config.kafka, &config.kafka.prefix) {
        Ok(deleted) => info!(topics = deleted, "the topics of the dry run are deleted"),
        Err(error) => {
            warn!(code = %error.code(), prefix = config.kafka.prefix, "the topics of the dry run could not be deleted: {error}");
        }
    }
    if let Err(error) = std::fs::remove_dir_all(&config.state_dir) {
        warn!(folder = %config.state_dir.display(), "the folder of the dry run could not be deleted: {error}");
    }
}

struct DryRun(Arc<dyn Destination>);

/// Wraps a connector: everything pure is its own, every call is printed.
pub fn wrap(connector: Arc<dyn Destination>) -> Arc<dyn Destination> {
    Arc::new(DryRun(connector))
}

#[async_trait]
impl Destination for DryRun {
    fn spec(&self) -> &'static Spec {
        self.0.spec()
    }

    fn non_finite(&self) -> NonFinite {
        self.0.non_finite()
    }

    fn target(&self) -> String {
        format!("{} (dry run, nothing is sent)", self.0.target())
    }

    fn classify(&self, input: &ClassifyInput<'_>) -> Result<Vec<Operation>, ClassifyError> {
        self.0.classify(input)
    }

    fn plan(&self, batch: &[Delivery]) -> Vec<Planned> {
        self.0.plan(batch)
    }

    async fn deliver(&self, batch: &[Delivery], outcomes: &Outcomes<'_>, _context: &connectors::Context<'_>) {
        let mut text = String::new();
        for request in self.0.plan(batch) {
            text.push_str(&format!("{} {}\n", request.method, request.url));
            for (name, value) in &request.headers {
                text.push_str(&format!("{name}: {value}\n"));
            }
            text.push('\n');
            text.push_str(&request.body);
            text.push_str("\n\n");
        }
        // The reader of a pipe may have gone (`| head`); the run goes on without it.
        std::io::stdout().lock().write_all(text.as_bytes()).ok();
        outcomes.set_rest(&Outcome::Delivered);
    }

    async fn confirm(
        &self,
        _ticket: &Ticket,
        _members: &[Delivery],
        outcomes: &Outcomes<'_>,
        _context: &connectors::Context<'_>,
    ) {
        outcomes.set_rest(&Outcome::Delivered);
    }

    async fn probe(&self) -> Result<(), ProbeError> {
        Ok(())
    }

    fn set_share(&self, share: f64) {
        self.0.set_share(share);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config() -> Config {
        let text = "
version: 1
workspace: w
kafka: { brokers: '127.0.0.1:9092', prefix: 't.' }
identity: { types: { email: { priority: 1, max: 5, normalise: email } } }
sources:
  ltv: { type: delta, kind: state, table: /lake/ltv, primary_key: email, identifiers: { email: email } }
accounts: { main: { type: klaviyo, api_key: '${env:PATH}' } }
destinations:
  k: { account: main, create: true, identifier: email, identifiers: { email: email }, routes: [{ from: ltv, transform: t.js }] }
";
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("t.js"), "function send(p, h) { return [] }").unwrap();
        let file = folder.path().join("tailwater.yaml");
        std::fs::write(&file, text).unwrap();
        let checked = crate::config::check(&file, &crate::config::LoadOptions::default());
        checked.config.unwrap_or_else(|| panic!("{:?}", checked.problems))
    }

    // Issue 10, D: a dry run whose only source had failed was "complete" and exited with 0.
    #[test]
    fn a_source_that_failed_is_named_and_the_run_waits_for_tables_that_are_being_read() {
        let config = config();
        assert!(is_reading(&config, &json!({})), "its first attempt is not over");
        let failed =
            json!({"source": {"ltv": {"state": "failing", "code": "delta_not_a_table", "message": "no table"}}});
        assert!(!is_reading(&config, &failed));
        let found = trouble(&config, &failed);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].code, code::DELTA_NOT_A_TABLE);
        assert!(found[0].text.contains("source ltv is failing") && found[0].text.contains("no table"));
        let read = json!({"source": {"ltv": {"state": "following"}}, "destination": {"k.route": {"state": "running"}}});
        assert!(trouble(&config, &read).is_empty() && !is_reading(&config, &read));
        let paused = json!({"destination": {"k.route": {"state": "paused", "code": "missing_column", "message": "x"}}});
        assert!(trouble(&config, &paused)[0].paused);
    }
}
