//! A dry run: everything but the calls to vendors, beside what is in production.
//!
//! It works under a prefix and in a folder of its own, so that no offset, no state and no ledger of the real workspace is touched: the
//! tables and the producers' own topics are read from their beginning, and the requests that would be sent are printed. When
//! everything has its end, it stops by itself and deletes what it made.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use async_trait::async_trait;
use tailwater_connectors::{ClassifyError, ClassifyInput, Context, Destination, Outcomes, Planned, ProbeError, Spec};
use tailwater_core::delivery::{Delivery, Outcome, Ticket};
use tailwater_core::operation::Operation;

use super::Shared;
use crate::audit::{Audit, audit};
use crate::config::Config;
use crate::kafka::topics;
use crate::supervisor::{Spawner, TaskKind};

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

/// Ends the run when nothing is left to do.
pub fn watch(shared: &Arc<Shared>, spawner: &Spawner) {
    let shared = Arc::clone(shared);
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
            quiet = if !now.is_moving() && last.as_ref() == Some(&now) { quiet + 1 } else { 0 };
            if quiet >= QUIET_LOOKS {
                info!("the dry run is complete; nothing was sent\n{}", now.to_text());
                shared.shutdown.request("the dry run is complete");
            }
            last = Some(now);
        }
        Ok(())
    });
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

    fn target(&self) -> String {
        format!("{} (dry run, nothing is sent)", self.0.target())
    }

    fn classify(&self, input: &ClassifyInput<'_>) -> Result<Vec<Operation>, ClassifyError> {
        self.0.classify(input)
    }

    fn plan(&self, batch: &[Delivery]) -> Vec<Planned> {
        self.0.plan(batch)
    }

    async fn deliver(&self, batch: &[Delivery], outcomes: &Outcomes<'_>, _context: &Context<'_>) {
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

    async fn confirm(&self, _ticket: &Ticket, _members: &[Delivery], outcomes: &Outcomes<'_>, _context: &Context<'_>) {
        outcomes.set_rest(&Outcome::Delivered);
    }

    async fn probe(&self) -> Result<(), ProbeError> {
        Ok(())
    }

    fn set_share(&self, share: f64) {
        self.0.set_share(share);
    }

    async fn close(&self, deadline: Duration) {
        self.0.close(deadline).await;
    }
}
