//! Watches the brokers: a process that none of them answers is not ready, whatever its stages were before.
//!
//! The stages cannot tell by themselves. An idle consumer hears nothing from a broker that is gone, and nothing from one that has
//! nothing new. So a client of its own asks a question that every broker can answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::kafka::read::Reader;
use crate::runtime::Context;
use crate::runtime::supervisor::{Spawner, TaskError, TaskKind};

/// How often the brokers are asked.
const LOOK_INTERVAL: Duration = Duration::from_secs(3);

/// How long an answer may take: less than a task of this kind may take to end.
const ANSWER_MAX: Duration = Duration::from_millis(1_500);

/// How long no broker may answer before the process is not ready. Longer than a restart of a broker that others stand in for.
const SILENCE_MAX: Duration = Duration::from_secs(15);

pub fn spawn(shared: &Arc<Context>, spawner: &Spawner) {
    let shared = Arc::clone(shared);
    spawner.thread("kafka", TaskKind::Watcher, move |stop| {
        let readiness = shared.telemetry.readiness("kafka");
        let kafka = &shared.config.kafka;
        let reachable = shared.telemetry.metrics().kafka_reachable.with_label_values(&[] as &[&str]);
        let reader = Reader::connect(kafka).map_err(|error| TaskError::new(error.code(), &error))?;
        let mut heard = Instant::now();
        let mut told = false;
        loop {
            match reader.ask(&shared.names.resolved(), ANSWER_MAX) {
                Ok(()) => {
                    if std::mem::take(&mut told) {
                        info!(seconds = heard.elapsed().as_secs(), "the brokers answer again");
                    }
                    heard = Instant::now();
                    readiness.ready();
                    reachable.set(1);
                }
                Err(error) if heard.elapsed() >= SILENCE_MAX => {
                    let silence = heard.elapsed().as_secs();
                    readiness.not_ready(format!("for {silence} s, {error}"));
                    reachable.set(0);
                    if !std::mem::replace(&mut told, true) {
                        warn!(code = %error.code(), "not ready: for {silence} s, {error}");
                    }
                }
                Err(_) => {}
            }
            shared.telemetry.status(
                "kafka.brokers",
                serde_json::json!({
                    "state": if told { "unreachable" } else { "running" },
                    "answered_seconds_ago": heard.elapsed().as_secs(),
                }),
            );
            if stop.wait(LOOK_INTERVAL) {
                return Ok(());
            }
        }
    });
}
