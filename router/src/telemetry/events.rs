//! What happens, as types: each event gives its log line, its metric and its entry in the status at once, so that an alert, a
//! dashboard and a log never tell different stories.
//!
//! Events are about batches and changes of state. What is counted without being told (records read, requests answered) goes to
//! [`super::Metrics`] directly.

use std::time::Duration;

use serde_json::json;
use tailwater_core::envelope::Merge;
use tailwater_core::{Code, code};
use tracing::{error, info, warn};

use super::Telemetry;

/// Something that happened.
pub trait Event {
    /// Writes log, metric and status.
    fn tell(&self, telemetry: &Telemetry);
}

/// A destination stopped in one stage until a person acts. The one alert of a pause.
#[derive(Debug, Clone, Copy)]
pub struct Paused<'a> {
    pub destination: &'a str,
    pub stage: &'a str,
    /// The route, where only one of the destination's routes is the cause.
    pub route: &'a str,
    pub code: Code,
    /// What is wrong, and the cure.
    pub message: &'a str,
}

/// The destination goes on where it stopped.
#[derive(Debug, Clone, Copy)]
pub struct Resumed<'a> {
    pub destination: &'a str,
    pub stage: &'a str,
}

/// Most records of a source cannot be used. The one alert of it.
#[derive(Debug, Clone, Copy)]
pub struct SourceFailing<'a> {
    pub source: &'a str,
    /// Whether it stops, or goes on with dead letters.
    pub paused: bool,
    pub code: Code,
    pub failed: u64,
    pub records: u64,
    /// The reason of one of them, and where it lies.
    pub message: &'a str,
    pub at: &'a str,
}

/// Most records of the source can be used again.
#[derive(Debug, Clone, Copy)]
pub struct SourceRecovered<'a> {
    pub source: &'a str,
}

/// A survivor of a merge waits for a fence that can no longer arrive; it is appended once more.
#[derive(Debug, Clone, Copy)]
pub struct FenceLost<'a> {
    pub destination: &'a str,
    pub stage: &'a str,
    pub merge: Merge,
}

/// Records of one batch ended as dead letters for the same reason.
#[derive(Debug, Clone, Copy)]
pub struct DeadLettered<'a> {
    pub stage: &'a str,
    pub component: &'a str,
    pub code: Code,
    pub records: usize,
    /// The reason of the first one.
    pub example: &'a str,
}

/// What a rebalance did to a stage's partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    Assigned,
    Revoked,
    /// Taken away without notice: the process did not poll in time, or was fenced.
    Lost,
}

#[derive(Debug, Clone, Copy)]
pub struct Rebalanced<'a> {
    pub stage: &'a str,
    pub component: &'a str,
    pub change: Ownership,
    pub partitions: &'a [i32],
    /// Partitions owned afterwards.
    pub owned: usize,
}

/// A task ended with an error and is started again.
#[derive(Debug, Clone, Copy)]
pub struct TaskRestarted<'a> {
    pub task: &'a str,
    pub code: Code,
    pub message: &'a str,
    pub wait: Duration,
    /// The error has aborted its transaction.
    pub transactional: bool,
}

/// A task ended in a way that ends the process.
#[derive(Debug, Clone, Copy)]
pub struct TaskFailed<'a> {
    pub task: &'a str,
    pub code: Code,
    pub message: &'a str,
}

/// The configuration or a transform was loaded anew.
#[derive(Debug, Clone, Copy)]
pub struct Reloaded<'a> {
    pub what: &'a str,
}

/// What is on disk does not pass validation; what runs stays as it is.
#[derive(Debug, Clone, Copy)]
pub struct ReloadRefused<'a> {
    pub what: &'a str,
    pub code: Code,
    pub message: &'a str,
}

// === impl Event ===

impl Event for Paused<'_> {
    fn tell(&self, telemetry: &Telemetry) {
        let Self { destination, stage, route, code, message } = *self;
        error!(destination, stage, route, %code, "paused until somebody acts: {message}");
        telemetry.metrics().paused.with_label_values(&[destination, stage]).set(1);
        telemetry.metrics().pauses.with_label_values(&[destination, stage, code.as_str()]).inc();
        telemetry.status(
            &format!("destination.{destination}.{stage}"),
            json!({"state": "paused", "route": route, "code": code.as_str(), "message": message}),
        );
    }
}

impl Event for Resumed<'_> {
    fn tell(&self, telemetry: &Telemetry) {
        let Self { destination, stage } = *self;
        info!(destination, stage, "goes on where it stopped");
        telemetry.metrics().paused.with_label_values(&[destination, stage]).set(0);
        telemetry.status(&format!("destination.{destination}.{stage}"), json!({"state": "running"}));
    }
}

impl Event for SourceFailing<'_> {
    fn tell(&self, telemetry: &Telemetry) {
        let Self { source, paused, code, failed, records, message, at } = *self;
        let (state, cure) = if paused {
            ("paused", "the source is paused: correct its producer or its configuration, then start the process again")
        } else {
            (
                "failing",
                "they end as dead letters: correct the producer or the configuration of the source, then replay them",
            )
        };
        error!(source, %code, failed, records, at, "{failed} of {records} records cannot be used; {cure}. For example: {message}");
        telemetry.metrics().source_failing.with_label_values(&[source]).set(1);
        telemetry.status(
            &format!("source.{source}.resolve"),
            json!({"state": state, "code": code.as_str(), "message": message, "failed": failed, "records": records, "example": at}),
        );
    }
}

impl Event for SourceRecovered<'_> {
    fn tell(&self, telemetry: &Telemetry) {
        let Self { source } = *self;
        info!(source, "most records can be used again");
        telemetry.metrics().source_failing.with_label_values(&[source]).set(0);
        telemetry.status(&format!("source.{source}.resolve"), json!({"state": "running"}));
    }
}

impl Event for FenceLost<'_> {
    fn tell(&self, telemetry: &Telemetry) {
        let Self { destination, stage, merge } = *self;
        warn!(
            destination,
            stage,
            %merge,
            code = %code::FENCE_LOST,
            "the fence of a merge can no longer arrive; it is asked for again, and then the person goes on"
        );
        telemetry.metrics().fences_lost.with_label_values(&[destination, stage]).inc();
    }
}

impl Event for DeadLettered<'_> {
    fn tell(&self, telemetry: &Telemetry) {
        let Self { stage, component, code, records, example } = *self;
        warn!(stage, component, %code, records, "dead-lettered: {example}");
        let records = u64::try_from(records).unwrap_or(u64::MAX);
        telemetry.metrics().dead_lettered.with_label_values(&[stage, component, code.as_str()]).inc_by(records);
    }
}

impl Ownership {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Assigned => "assigned",
            Self::Revoked => "revoked",
            Self::Lost => "lost",
        }
    }
}

impl Event for Rebalanced<'_> {
    fn tell(&self, telemetry: &Telemetry) {
        let Self { stage, component, change, partitions, owned } = *self;
        match change {
            Ownership::Assigned | Ownership::Revoked => {
                info!(stage, component, ?partitions, owned, "partitions {}", change.as_str());
            }
            Ownership::Lost => {
                warn!(stage, component, ?partitions, owned, "partitions lost, another process may own them already");
            }
        }
        telemetry.metrics().rebalances.with_label_values(&[stage, component, change.as_str()]).inc();
        telemetry
            .metrics()
            .partitions
            .with_label_values(&[stage, component])
            .set(i64::try_from(owned).unwrap_or(i64::MAX));
    }
}

impl Event for TaskRestarted<'_> {
    fn tell(&self, telemetry: &Telemetry) {
        let Self { task, code, message, wait, transactional } = *self;
        if transactional {
            warn!(stage = task, %code, wait_ms = millis(wait), "starts again from its last commit: {message}");
            telemetry.metrics().transaction_aborted(task);
        } else {
            warn!(task, %code, wait_ms = millis(wait), "is started again: {message}");
        }
        telemetry.metrics().task_restarts.with_label_values(&[task]).inc();
        telemetry
            .status(&format!("task.{task}"), json!({"state": "restarting", "code": code.as_str(), "message": message}));
    }
}

impl Event for TaskFailed<'_> {
    fn tell(&self, telemetry: &Telemetry) {
        let Self { task, code, message } = *self;
        error!(task, %code, "ended with an error, the process shuts down: {message}");
        telemetry
            .status(&format!("task.{task}"), json!({"state": "failed", "code": code.as_str(), "message": message}));
    }
}

impl Event for Reloaded<'_> {
    fn tell(&self, telemetry: &Telemetry) {
        info!(what = self.what, "reloaded");
        telemetry.metrics().reloads.with_label_values(&["applied"]).inc();
    }
}

impl Event for ReloadRefused<'_> {
    fn tell(&self, telemetry: &Telemetry) {
        let Self { what, code, message } = *self;
        error!(what, %code, "not reloaded, what runs stays as it is: {message}");
        telemetry.metrics().reloads.with_label_values(&["refused"]).inc();
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_shows_in_the_metric_and_in_the_status_until_it_ends() {
        let telemetry = Telemetry::new().unwrap();
        telemetry.emit(&Paused {
            destination: "klaviyo",
            stage: "route",
            route: "ltv_scores",
            code: tailwater_core::code::MISSING_COLUMN,
            message: "`ltv_predicted` is gone since version 4; read `ltv_score`",
        });
        let text = telemetry.metrics().render().unwrap();
        assert!(text.contains(r#"tailwater_paused{destination="klaviyo",stage="route"} 1"#));
        assert!(
            text.contains(r#"tailwater_pauses_total{code="missing_column",destination="klaviyo",stage="route"} 1"#)
        );
        let entry = telemetry.status_page()["destination"]["klaviyo.route"].clone();
        assert_eq!((entry["state"].as_str(), entry["code"].as_str()), (Some("paused"), Some("missing_column")));

        telemetry.emit(&Resumed { destination: "klaviyo", stage: "route" });
        assert!(
            telemetry
                .metrics()
                .render()
                .unwrap()
                .contains(r#"tailwater_paused{destination="klaviyo",stage="route"} 0"#)
        );
        assert_eq!(telemetry.status_page()["destination"]["klaviyo.route"]["state"], "running");
    }

    #[test]
    fn records_that_end_alike_are_counted_together() {
        let telemetry = Telemetry::new().unwrap();
        let code = tailwater_core::code::TRANSFORM_THREW;
        telemetry.emit(&DeadLettered { stage: "route", component: "klaviyo", code, records: 7, example: "boom" });
        let line = r#"tailwater_dead_lettered_total{code="transform_threw",component="klaviyo",stage="route"} 7"#;
        assert!(telemetry.metrics().render().unwrap().contains(line));
    }
}
