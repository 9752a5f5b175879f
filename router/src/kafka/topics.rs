//! The topics of a workspace: their names, which are frozen, and what each must look like.
//!
//! `plan` compares what is there with what is needed, `apply` creates what is missing. A user without the right to create gets the
//! plan as commands to hand to whoever has it, and everything works with topics made by hand.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::FromClientConfig as _;
use rdkafka::error::RDKafkaErrorCode;

use super::{Error, client, read};
use crate::config::model::{Config, Kafka, SourceInput};
pub use crate::config::names::{Names, input_topic, input_topics, is_trusted};

/// Partitions of the `ingest` topics that Tailwater makes itself. Rows are keyed, so their order per key is kept.
pub const INGEST_PARTITIONS: i32 = 4;

/// What a topic must look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub name: String,
    pub partitions: i32,
    /// Whether the number of partitions must match: partitions, and everything that is co-partitioned with them.
    pub exact: bool,
    pub settings: Vec<(&'static str, String)>,
    /// A producer's own topic: it is checked, never created.
    pub foreign: bool,
}

/// How a topic differs from what it must look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Fine {
        name: String,
    },
    Create(Wanted),
    /// A producer's topic that is not there.
    Absent {
        name: String,
    },
    /// Partitions cannot be changed without moving people between them.
    Partitions {
        name: String,
        wanted: i32,
        found: i32,
    },
    /// A setting that would lose or keep too much.
    Setting {
        name: String,
        setting: &'static str,
        wanted: String,
        found: String,
    },
}

/// All topics of a configuration.
pub fn wanted(config: &Config) -> Vec<Wanted> {
    let names = Names::new(&config.kafka.prefix);
    let resolved_partitions = i32::try_from(config.kafka.partitions).unwrap_or(i32::MAX);
    let keep = |duration: Duration| {
        vec![("cleanup.policy", "delete".to_owned()), ("retention.ms", duration.as_millis().to_string())]
    };
    let compact = || {
        vec![
            ("cleanup.policy", "compact".to_owned()),
            // A reader that was away for a week must still learn of a deletion.
            ("delete.retention.ms", Duration::from_secs(7 * 86_400).as_millis().to_string()),
        ]
    };
    let topic = |name: String, partitions: i32, exact: bool, settings: Vec<(&'static str, String)>| Wanted {
        name,
        partitions,
        exact,
        settings,
        foreign: false,
    };
    let log = || keep(config.kafka.retention);
    let long = || keep(config.kafka.ledger_retention);
    let mut all = vec![
        topic(names.resolved(), resolved_partitions, true, log()),
        topic(names.deliveries(), resolved_partitions, false, log()),
        topic(
            names.ledger(),
            resolved_partitions,
            false,
            vec![
                ("cleanup.policy", "compact,delete".to_owned()),
                ("retention.ms", config.kafka.ledger_retention.as_millis().to_string()),
            ],
        ),
        topic(names.schemas(), 1, true, compact()),
        topic(names.state_resolve(), 1, true, compact()),
        topic(names.state_dlq(), 1, true, compact()),
    ];
    for source in config.sources.values() {
        match &source.input {
            SourceInput::Delta(_) => {
                all.push(topic(names.ingest(&source.name), INGEST_PARTITIONS, false, log()));
                all.push(topic(names.state_source(&source.name), 1, true, compact()));
            }
            SourceInput::Kafka(kafka) => {
                let own = kafka.topic == names.ingest(&source.name);
                all.push(Wanted {
                    name: kafka.topic.clone(),
                    partitions: INGEST_PARTITIONS,
                    exact: false,
                    settings: if own { log() } else { Vec::new() },
                    foreign: !own,
                });
            }
        }
        all.push(topic(names.replay(&source.name), 1, false, log()));
        all.push(topic(names.dlq_source(&source.name), 1, false, long()));
    }
    for name in config.destinations.keys() {
        all.push(topic(names.outbound(name), resolved_partitions, true, log()));
        all.push(topic(names.state_route(name), resolved_partitions, true, compact()));
        all.push(topic(names.state_send(name), resolved_partitions, true, compact()));
        all.push(topic(names.dlq_destination(name), 1, false, long()));
    }
    all
}

/// Compares the broker with what is wanted.
///
/// # Errors
/// No broker answers.
pub fn plan(kafka: &Kafka, wanted: &[Wanted]) -> Result<Vec<Step>, Error> {
    let reader = read::Reader::connect(kafka)?;
    let mut steps = Vec::with_capacity(wanted.len());
    let mut found = Vec::new();
    for one in wanted {
        match reader.partitions(&one.name)? {
            None if one.foreign => steps.push(Step::Absent { name: one.name.clone() }),
            None => steps.push(Step::Create(one.clone())),
            Some(count) if one.exact && count != one.partitions => {
                steps.push(Step::Partitions { name: one.name.clone(), wanted: one.partitions, found: count });
            }
            Some(_) => found.push(one),
        }
    }
    let names: Vec<&str> = found.iter().map(|wanted| wanted.name.as_str()).collect();
    let settings = settings_of(kafka, &names)?;
    for one in found {
        let actual = settings.get(&one.name);
        let wrong = one.settings.iter().find_map(|(setting, wanted)| {
            let found = actual?.get(*setting)?;
            // Only the policy can lose records; how long to keep them is the operator's to decide.
            (*setting == "cleanup.policy" && !same_policy(found, wanted)).then_some((*setting, wanted, found))
        });
        steps.push(match wrong {
            Some((setting, wanted, found)) => {
                Step::Setting { name: one.name.clone(), setting, wanted: wanted.clone(), found: found.clone() }
            }
            None => Step::Fine { name: one.name.clone() },
        });
    }
    Ok(steps)
}

fn same_policy(found: &str, wanted: &str) -> bool {
    let sorted = |text: &str| {
        let mut parts: Vec<String> = text.split(',').map(|part| part.trim().to_owned()).collect();
        parts.sort();
        parts
    };
    sorted(found) == sorted(wanted)
}

/// Creates what a plan says is missing.
///
/// # Errors
/// The right to create is missing, or the broker refuses a topic.
pub fn apply(kafka: &Kafka, steps: &[Step]) -> Result<usize, Error> {
    let missing: Vec<&Wanted> = steps
        .iter()
        .filter_map(|step| match step {
            Step::Create(wanted) => Some(wanted),
            Step::Fine { .. } | Step::Absent { .. } | Step::Partitions { .. } | Step::Setting { .. } => None,
        })
        .collect();
    if missing.is_empty() {
        return Ok(0);
    }
    let topics: Vec<NewTopic<'_>> = missing
        .iter()
        .map(|wanted| {
            let mut topic =
                NewTopic::new(&wanted.name, wanted.partitions, TopicReplication::Fixed(kafka.replication_factor));
            for (setting, value) in &wanted.settings {
                topic = topic.set(setting, value);
            }
            topic
        })
        .collect();
    let options = AdminOptions::new()
        .request_timeout(Some(Duration::from_secs(30)))
        .operation_timeout(Some(Duration::from_secs(30)));
    let results = with_admin(kafka, async |admin| admin.create_topics(&topics, &options).await)?.map_err(|source| {
        Error::Unreachable { brokers: kafka.brokers.clone(), during: "create topics", why: String::new(), source }
    })?;
    for result in results {
        match result {
            // Another process of the same workspace may have been quicker.
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed)) => {
                return Err(Error::Unauthorized {
                    during: format!("create topic {topic}"),
                    detail: "no Create permission; `tailwater topics plan` prints the commands for whoever has it"
                        .into(),
                });
            }
            Err((topic, error)) => {
                return Err(Error::Option { detail: format!("topic {topic} could not be created: {error}") });
            }
        }
    }
    Ok(missing.len())
}

/// Deletes the topics that begin with a prefix: what a dry run leaves behind.
///
/// # Errors
/// No broker answers, or the right to delete is missing.
pub fn delete_all(kafka: &Kafka, prefix: &str) -> Result<usize, Error> {
    let names = read::Reader::connect(kafka)?.topics_with(prefix)?;
    if names.is_empty() {
        return Ok(0);
    }
    let list: Vec<&str> = names.iter().map(String::as_str).collect();
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
    let results = with_admin(kafka, async |admin| admin.delete_topics(&list, &options).await)?.map_err(|source| {
        Error::Unreachable { brokers: kafka.brokers.clone(), during: "delete topics", why: String::new(), source }
    })?;
    for result in results {
        if let Err((topic, error)) = result {
            return Err(Error::Unauthorized { during: format!("delete topic {topic}"), detail: error.to_string() });
        }
    }
    Ok(list.len())
}

type Settings = BTreeMap<String, BTreeMap<String, String>>;

/// The smallest size limit of these topics, or `None` where it may not be asked.
///
/// # Errors
/// No admin client.
pub fn message_bytes_max(kafka: &Kafka, topics: &[String]) -> Result<Option<usize>, Error> {
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    let settings = settings_of(kafka, &names)?;
    Ok(settings.values().filter_map(|of| of.get("max.message.bytes")?.parse().ok()).min())
}

/// For how long a compacted topic keeps deletions, or `None` where it may not be asked.
///
/// # Errors
/// No admin client.
pub fn delete_retention(kafka: &Kafka, topic: &str) -> Result<Option<Duration>, Error> {
    let settings = settings_of(kafka, &[topic])?;
    let millis = settings.get(topic).and_then(|of| of.get("delete.retention.ms")?.parse().ok());
    Ok(millis.map(Duration::from_millis))
}

fn settings_of(kafka: &Kafka, topics: &[&str]) -> Result<Settings, Error> {
    if topics.is_empty() {
        return Ok(Settings::new());
    }
    let resources: Vec<ResourceSpecifier<'_>> = topics.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
    let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(20)));
    let described = with_admin(kafka, async |admin| admin.describe_configs(&resources, &options).await)?;
    // Without the right to describe, the settings stay unchecked; everything else works.
    let Ok(described) = described else { return Ok(Settings::new()) };
    let mut settings = Settings::new();
    for resource in described.into_iter().flatten() {
        if let rdkafka::admin::OwnedResourceSpecifier::Topic(name) = &resource.specifier {
            let entries = resource
                .entries
                .iter()
                .filter_map(|entry| entry.value.clone().map(|value| (entry.name.clone(), value)))
                .collect();
            settings.insert(name.clone(), entries);
        }
    }
    Ok(settings)
}

/// Runs one admin call to its end; the tools that need it have no runtime of their own.
fn with_admin<T>(kafka: &Kafka, call: impl AsyncFnOnce(&AdminClient<DefaultClientContext>) -> T) -> Result<T, Error> {
    let admin =
        AdminClient::from_config(&client::admin(kafka)).map_err(|error| Error::Option { detail: error.to_string() })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::Option { detail: format!("no runtime for an admin call: {error}") })?;
    Ok(runtime.block_on(call(&admin)))
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fine { name } => write!(f, "= {name}"),
            Self::Create(wanted) => {
                write!(f, "+ {} ({} partitions", wanted.name, wanted.partitions)?;
                for (setting, value) in &wanted.settings {
                    write!(f, ", {setting}={value}")?;
                }
                f.write_str(")")
            }
            Self::Absent { name } => write!(f, "! {name} does not exist; its producer makes it"),
            Self::Partitions { name, wanted, found } => write!(
                f,
                "! {name} has {found} partitions, {wanted} are required: the number of partitions is fixed when a workspace is made \
                 (set `kafka.partitions: {found}`, or choose another `kafka.prefix`)"
            ),
            Self::Setting { name, setting, wanted, found } => write!(
                f,
                "! {name} has {setting}={found}, {wanted} is required: kafka-configs.sh --alter --topic {name} --add-config '{setting}=[{wanted}]'"
            ),
        }
    }
}

impl Step {
    /// Whether `tailwater run` can work with the topic as it is, or as `apply` makes it.
    pub const fn is_blocking(&self) -> bool {
        match self {
            Self::Fine { .. } | Self::Create(_) => false,
            Self::Absent { .. } | Self::Partitions { .. } | Self::Setting { .. } => true,
        }
    }
}
