//! Client configurations, and the context that turns what librdkafka says into logs and a verdict.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use secrecy::ExposeSecret as _;
use tracing::{debug, info, warn};

use super::advice;
use crate::config::model::{Kafka, Latency};

/// How long a transaction may stay open before the broker aborts it. Short, because readers of committed records wait behind a
/// transaction whose process was killed; long enough for the largest batch.
pub const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(20);

/// What a consumer reads ahead, in kilobytes: a full batch of a stage, which is at most as many bytes, while the one before it is
/// worked on. There is a consumer for each stage and destination, so this is most of what a process needs under load.
const QUEUED_KBYTES_MAX: &str = "16384";

/// The interval between transactions, and the waits that belong to it.
pub const fn commit_interval(latency: Latency) -> Duration {
    match latency {
        Latency::Low => Duration::from_millis(10),
        Latency::Balanced => Duration::from_millis(50),
        Latency::Throughput => Duration::from_millis(100),
    }
}

fn base(kafka: &Kafka) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &kafka.brokers)
        .set("client.id", "tailwater")
        .set("socket.keepalive.enable", "true")
        .set("reconnect.backoff.max.ms", "5000")
        .set_log_level(RDKafkaLogLevel::Warning);
    config
}

/// The user's own options come last, so that they win.
fn with_options(mut config: ClientConfig, kafka: &Kafka, only: &[&str]) -> ClientConfig {
    for (name, value) in &kafka.options {
        // Options that only one kind of client knows would make the other one warn at every start.
        let foreign = match name.split_once(':') {
            Some((kind, _)) => !only.contains(&kind),
            None => false,
        };
        if !foreign {
            let name = name.split_once(':').map_or(name.as_str(), |(_, bare)| bare);
            config.set(name, value.expose_secret());
        }
    }
    config
}

/// A consumer: of a group, or (with `None`) one that reads what it is told to.
pub fn consumer(kafka: &Kafka, group: Option<&str>) -> ClientConfig {
    let mut config = base(kafka);
    let fetch_wait = match kafka.latency {
        Latency::Low => "5",
        Latency::Balanced => "20",
        Latency::Throughput => "50",
    };
    config
        .set("group.id", group.unwrap_or("tailwater-tools"))
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_committed")
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", kafka.session_timeout.as_millis().to_string())
        .set("heartbeat.interval.ms", (kafka.session_timeout.as_millis() / 5).max(200).to_string())
        .set("fetch.wait.max.ms", fetch_wait)
        .set("fetch.queue.backoff.ms", "50")
        .set("queued.max.messages.kbytes", QUEUED_KBYTES_MAX)
        .set("fetch.error.backoff.ms", "100");
    with_options(config, kafka, &["consumer"])
}

/// A producer; with `transactional_id` it commits in transactions.
pub fn producer(kafka: &Kafka, transactional_id: Option<&str>) -> ClientConfig {
    let mut config = base(kafka);
    let linger = match kafka.latency {
        Latency::Low => "0",
        Latency::Balanced => "5",
        Latency::Throughput => "20",
    };
    config
        .set("enable.idempotence", "true")
        .set("compression.type", "lz4")
        .set("linger.ms", linger)
        .set("partitioner", "murmur2_random")
        .set("queue.buffering.max.messages", "400000")
        .set("queue.buffering.max.kbytes", "262144");
    if let Some(id) = transactional_id {
        config
            .set("transactional.id", id)
            .set("transaction.timeout.ms", TRANSACTION_TIMEOUT.as_millis().to_string())
            // A message must not outlive its transaction.
            .set("message.timeout.ms", TRANSACTION_TIMEOUT.as_millis().to_string());
    }
    with_options(config, kafka, &["producer"])
}

pub fn admin(kafka: &Kafka) -> ClientConfig {
    with_options(base(kafka), kafka, &["admin"])
}

/// The facility under which the client logs that a connection could not be made or broke.
const CONNECTION_FAILED: &str = "FAIL";

/// What a client has said so far.
#[derive(Debug, Default)]
pub struct Health {
    fatal: AtomicBool,
    all_brokers_down: AtomicBool,
    failure: Mutex<Option<Failure>>,
}

/// A connection that failed.
#[derive(Debug)]
struct Failure {
    at: Instant,
    /// What has to be checked, else the client's own words.
    why: String,
    is_advice: bool,
    told: Instant,
}

/// How often the same reason is logged. The client tries several times a second.
const FAILURE_TOLD_EVERY: Duration = Duration::from_secs(30);

/// How long a failed connection may explain that no broker answers. The client repeats a text that stays the same every 30 s.
const FAILURE_AGE_MAX: Duration = Duration::from_secs(90);

/// Characters of the client's text that are kept.
const FAILURE_CHARS_MAX: usize = 500;

impl Health {
    pub fn is_fatal(&self) -> bool {
        self.fatal.load(Ordering::Relaxed)
    }

    /// Why no connection could be made, for people: what has to be checked, else the client's own words; empty if nothing is known.
    pub fn why(&self) -> String {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = failure.as_ref().filter(|failure| failure.at.elapsed() < FAILURE_AGE_MAX);
        recent.map_or_else(String::new, |failure| format!(": {}", failure.why))
    }

    /// Remembers why a connection failed; the advice if it has to be told.
    fn failed(&self, text: &str) -> Option<String> {
        let advice = advice::of(text);
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        let before = failure.as_ref().filter(|failure| failure.at.elapsed() < FAILURE_AGE_MAX);
        if advice.is_none() && before.is_some_and(|failure| failure.is_advice) {
            // The same connection, told of once more in words that say less.
            return None;
        }
        let is_advice = advice.is_some();
        let why = advice.unwrap_or_else(|| text.chars().take(FAILURE_CHARS_MAX).collect());
        let told = before.filter(|failure| failure.why == why).map(|failure| failure.told);
        let told = told.filter(|told| told.elapsed() < FAILURE_TOLD_EVERY);
        let now = Instant::now();
        *failure = Some(Failure { at: now, why: why.clone(), is_advice, told: told.unwrap_or(now) });
        (told.is_none() && is_advice).then_some(why)
    }

    pub fn up(&self) {
        if self.all_brokers_down.swap(false, Ordering::Relaxed) {
            info!("the brokers answer again");
        }
    }
}

/// The part of a client's context that consumers and producers share.
#[derive(Debug, Clone, Default)]
pub struct Context {
    pub health: Arc<Health>,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if facility == CONNECTION_FAILED {
            match self.health.failed(message) {
                Some(advice) => warn!(code = "kafka_unreachable", "{advice} ({message})"),
                None => debug!(facility, "kafka client: {message}"),
            }
            return;
        }
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                warn!(facility, "kafka client: {message}");
            }
            RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice => debug!(facility, "kafka client: {message}"),
            RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => debug!(facility, "kafka client: {message}"),
        }
    }

    fn error(&self, problem: KafkaError, reason: &str) {
        match problem.rdkafka_error_code() {
            Some(RDKafkaErrorCode::Fatal) => {
                // What it means is decided, and told, by whoever uses the client: it may be no more than a fenced producer.
                warn!("the kafka client cannot go on: {reason}");
                self.health.fatal.store(true, Ordering::Relaxed);
            }
            Some(RDKafkaErrorCode::AllBrokersDown) => {
                if !self.health.all_brokers_down.swap(true, Ordering::Relaxed) {
                    let why = self.health.why();
                    warn!(code = "kafka_unreachable", "no broker answers{why}; the client keeps trying ({reason})");
                }
            }
            _ => debug!("kafka client: {problem}: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_a_failed_connection_is_told_once_and_not_replaced_by_one_that_says_less() {
        let health = Health::default();
        let refused = "b:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused";
        assert_eq!(health.why(), "");
        assert_eq!(health.failed("b:1/bootstrap: Disconnected"), None);
        assert!(health.why().contains("Disconnected"));
        assert!(health.failed(refused).is_some());
        assert_eq!(health.failed(refused), None, "it was told just now");
        health.failed("b:1/bootstrap: Disconnected");
        assert!(health.why().contains("nothing listens"), "{}", health.why());
    }
}
