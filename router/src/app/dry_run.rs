//! A connector that shows the requests it would send, and sends none.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tailwater_connectors::{ClassifyError, ClassifyInput, Context, Destination, Planned, ProbeError, Spec};
use tailwater_core::delivery::{Delivery, Outcome, Ticket};
use tailwater_core::operation::Operation;

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

    async fn deliver(&self, batch: &[Delivery], _context: &Context<'_>) -> Vec<Outcome> {
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
        batch.iter().map(|_| Outcome::Delivered).collect()
    }

    async fn confirm(&self, _ticket: &Ticket, members: &[Delivery], _context: &Context<'_>) -> Vec<Outcome> {
        members.iter().map(|_| Outcome::Delivered).collect()
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
