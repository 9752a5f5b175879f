//! The Kafka section.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value as Json;
use tailwater_core::code;

use super::Builder;
use crate::config::Broker;
use crate::config::model::{Kafka, Latency};
use crate::config::problem::{Path, Problem};
use crate::config::raw::{RawKafka, RawLatency};
use tailwater_connectors::config::{Period, Secret};

/// Where the embedded broker listens unless `kafka.brokers` says otherwise: where a Kafka usually does.
const EMBEDDED_ADDRESS_DEFAULT: &str = "127.0.0.1:9092";

/// Copies of each partition that a cluster keeps, unless the configuration says otherwise.
const REPLICATION_FACTOR: i32 = 3;

/// Options on which the delivery guarantees rest, and whose key in this file is another. Set otherwise they would lose
/// or repeat records without a sign.
const OWN_OPTIONS: &[(&str, &str)] = &[
    ("bootstrap.servers", "use `kafka.brokers`"),
    ("metadata.broker.list", "use `kafka.brokers`"),
    ("session.timeout.ms", "use `kafka.session_timeout`"),
    ("group.id", "groups are named after the prefix and the stage: use `kafka.prefix`"),
    ("transactional.id", "it is named after the prefix and the stage: use `kafka.prefix`"),
    ("enable.idempotence", "idempotence is always on"),
    ("acks", "all replicas acknowledge, always"),
    ("request.required.acks", "all replicas acknowledge, always"),
    ("enable.auto.commit", "offsets are committed when what became of their records is settled"),
    ("auto.commit.enable", "offsets are committed when what became of their records is settled"),
    ("enable.auto.offset.store", "offsets are committed when what became of their records is settled"),
    ("auto.offset.reset", "an offset that is out of range stops the stage instead of skipping records"),
    ("isolation.level", "only committed records are read"),
    ("partitioner", "partitions are chosen by profile"),
];

/// Whether an option of librdkafka is about who speaks and who listens.
fn is_about_security(option: &str) -> bool {
    let name = option.split_once(':').map_or(option, |(_, bare)| bare);
    name == "security.protocol" || ["sasl.", "ssl.", "enable.ssl."].iter().any(|prefix| name.starts_with(prefix))
}

impl Builder<'_> {
    pub(super) fn kafka(&mut self) -> Option<Kafka> {
        let path = Path::of(["kafka"]);
        let raw: RawKafka = self.section(self.json.get("kafka").unwrap_or(&Json::Null), &path)?;
        let brokers = path.key("brokers");
        let addresses = self.brokers(raw.brokers, &brokers);
        for broker in addresses.split(',') {
            if broker.trim().is_empty() || broker.trim().contains(char::is_whitespace) {
                self.error(code::CONFIG_INVALID_VALUE, &brokers, "expected host:port, separated by commas");
            } else if broker.contains("://") {
                let problem = Problem::error(
                    code::CONFIG_INVALID_VALUE,
                    &brokers,
                    "a broker has no scheme (`…://`): expected host:port",
                );
                self.report(
                    problem.hint("the protocol is chosen by `kafka.options: { security.protocol: … }`"),
                    &brokers,
                );
            }
        }
        let embedded = self.options.broker == Broker::Embedded;
        if let (true, Some(copies @ 2..)) = (embedded, raw.replication_factor) {
            let path = path.key("replication_factor");
            let message = format!("the embedded broker is one process and keeps one copy, not {copies}");
            let problem = Problem::error(code::CONFIG_INVALID_VALUE, &path, message);
            self.report(problem.hint("leave it away or set 1, or run without --embedded against a cluster"), &path);
        }
        self.within(&path.key("session_timeout"), raw.session_timeout, Period::seconds(6), Period::seconds(1_800));
        self.within(&path.key("retention"), raw.retention, Period::seconds(60), Period::MAX);
        if raw.ledger_retention < raw.retention {
            let message = format!(
                "{} is shorter than retention ({}): the audit would miss records that Kafka still has",
                raw.ledger_retention, raw.retention
            );
            self.error(code::CONFIG_INVALID_VALUE, &path.key("ledger_retention"), message);
        }
        let options = self.options(&path.key("options"), raw.options);
        Some(Kafka {
            brokers: addresses,
            embedded,
            prefix: raw.prefix,
            partitions: raw.partitions,
            replication_factor: raw.replication_factor.unwrap_or(if embedded { 1 } else { REPLICATION_FACTOR }),
            latency: match raw.latency {
                RawLatency::Low => Latency::Low,
                RawLatency::Balanced => Latency::Balanced,
                RawLatency::Throughput => Latency::Throughput,
            },
            transactions: raw.transactions,
            create_topics: raw.create_topics,
            retention: raw.retention.0,
            ledger_retention: raw.ledger_retention.0,
            session_timeout: raw.session_timeout.0,
            options,
        })
    }

    /// Where the brokers are. The embedded one listens at one address of this machine, because it asks nobody who they are.
    fn brokers(&mut self, raw: Option<String>, path: &Path) -> String {
        match (self.options.broker, raw) {
            (Broker::Given, None) => {
                let problem = Problem::error(code::CONFIG_MISSING_KEY, path, "the key is missing");
                self.report(
                    problem.hint("name the brokers as host:port, or start one with `tailwater run --embedded`"),
                    path,
                );
                EMBEDDED_ADDRESS_DEFAULT.to_owned()
            }
            (Broker::Given | Broker::Either, Some(brokers)) => brokers,
            (Broker::Embedded | Broker::Either, None) => EMBEDDED_ADDRESS_DEFAULT.to_owned(),
            (Broker::Embedded, Some(brokers)) => {
                let address = brokers.trim().replace("localhost:", "127.0.0.1:");
                match address.parse::<SocketAddr>() {
                    Ok(parsed) if parsed.ip().is_loopback() && parsed.port() != 0 => {}
                    Ok(_) | Err(_) => {
                        let problem = Problem::error(
                            code::CONFIG_INVALID_VALUE,
                            path,
                            "the embedded broker listens at one address of this machine only, such as 127.0.0.1:9092",
                        );
                        self.report(
                            problem.hint(
                                "leave the key away or set such an address, or run without --embedded against these brokers",
                            ),
                            path,
                        );
                    }
                }
                address
            }
        }
    }

    /// Every option is shown to librdkafka, which knows its names and values without a connection.
    fn options(&mut self, path: &Path, raw: BTreeMap<String, Secret>) -> BTreeMap<String, SecretString> {
        let mut options = BTreeMap::new();
        for (name, value) in raw {
            let path = path.key(&name);
            let value = value.into_inner();
            if let Some((_, instead)) = OWN_OPTIONS.iter().find(|(own, _)| *own == name) {
                self.report(
                    Problem::error(code::CONFIG_INVALID_VALUE, &path, "the option is not free to choose")
                        .hint(*instead),
                    &path,
                );
            } else if self.options.broker == Broker::Embedded && is_about_security(&name) {
                self.report(
                    Problem::error(
                        code::CONFIG_INVALID_VALUE,
                        &path,
                        "the embedded broker listens on this machine only and has neither TLS nor logins",
                    )
                    .hint("leave the option away, or run without --embedded against brokers that have them"),
                    &path,
                );
            } else if !self.unresolved.contains(&path)
                && let Err(KafkaError::ClientConfig(_, reason, _, _)) =
                    ClientConfig::new().set(&name, value.expose_secret()).create_native_config()
            {
                // The reason may quote the value, which may be a secret that came by reference.
                let unknown = reason.contains("No such");
                let (code, message) = if unknown {
                    (code::CONFIG_UNKNOWN_KEY, "librdkafka has no such option")
                } else {
                    (code::CONFIG_INVALID_VALUE, "librdkafka does not take the value of this option")
                };
                self.report(
                    Problem::error(code, &path, message)
                        .hint("the options are listed in librdkafka's CONFIGURATION.md"),
                    &path,
                );
            }
            options.insert(name, value);
        }
        options
    }
}
