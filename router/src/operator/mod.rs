//! The tools with which a person looks into a workspace from outside: `status`, `tap`, `trace` and `dlq`.
//!
//! They read topics without a group and only what is committed, so that looking changes nothing: no offset moves, no stage waits. The
//! only one that writes is `dlq`, and only what an operator asked for, in a transaction. None of them needs a stage to run, and none may
//! ever depend on what a process has in memory: what they tell is what Kafka holds. (`status` adds what processes say that answer.)

pub mod audit;
pub mod dlq;
pub mod identities;
pub mod shown;
pub mod status;
pub mod tap;
pub mod trace;

use tailwater_core::{Code, code};

use crate::kafka;
use crate::kafka::read::Reader;

/// Why a tool could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    #[error("there is no topic {topic}{hint}")]
    NoTopic { topic: String, hint: String },
    #[error("the identity state could not be read: {0}")]
    Identity(#[from] tailwater_identity::Error),
    #[error("a record of the ledger could not be read at {at}")]
    Ledger {
        at: String,
        #[source]
        source: tailwater_core::ledger::DecodeError,
    },
    #[error("could not write the output")]
    Output(#[from] std::io::Error),
}

impl Error {
    pub fn code(&self) -> Code {
        match self {
            Self::Kafka(error) => error.code(),
            Self::NoTopic { .. } => code::TOPIC_MISSING,
            Self::Identity(error) => error.code(),
            Self::Ledger { source, .. } => source.code(),
            Self::Output(_) => code::TASK_FAILED,
        }
    }
}

/// The full name of a topic that a person named with or without the workspace's prefix.
///
/// # Errors
/// There is no such topic; the message names the nearest one.
pub fn topic(reader: &Reader, prefix: &str, name: &str) -> Result<String, Error> {
    find_topic(&reader.topics()?, prefix, name)
}

fn find_topic(topics: &[String], prefix: &str, name: &str) -> Result<String, Error> {
    let full = format!("{prefix}{name}");
    for candidate in [full.as_str(), name] {
        if topics.iter().any(|topic| topic == candidate) {
            return Ok(candidate.to_owned());
        }
    }
    let nearest = topics
        .iter()
        .map(|topic| topic.strip_prefix(prefix).unwrap_or(topic))
        .map(|short| (strsim::jaro_winkler(short, name.strip_prefix(prefix).unwrap_or(name)), short))
        .filter(|(likeness, _)| *likeness > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let ours = topics.iter().any(|topic| topic.starts_with(prefix));
    let hint = match nearest {
        Some((_, short)) => format!(" (looked for {full} and {name}); did you mean {short}?"),
        None if ours => {
            format!(" (looked for {full} and {name}); `tailwater topics plan` lists those of the configuration")
        }
        None => format!(
            ", nor any that begins with {prefix}; check `kafka.brokers` and `kafka.prefix`, or run `tailwater topics apply`"
        ),
    };
    Err(Error::NoTopic { topic: name.to_owned(), hint })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics() -> Vec<String> {
        ["t.resolved", "t.outbound.klaviyo", "app.events"].map(str::to_owned).to_vec()
    }

    #[test]
    fn a_topic_is_found_with_and_without_the_prefix() {
        for (name, full) in [("resolved", "t.resolved"), ("t.resolved", "t.resolved"), ("app.events", "app.events")] {
            assert_eq!(find_topic(&topics(), "t.", name).unwrap(), full);
        }
    }

    #[test]
    fn a_missing_topic_is_told_with_the_nearest_one() {
        for name in ["outbound.klavyio", "t.outbound.klavyio"] {
            let error = find_topic(&topics(), "t.", name).unwrap_err();
            assert_eq!(error.code(), code::TOPIC_MISSING);
            assert!(error.to_string().ends_with("did you mean outbound.klaviyo?"), "{error}");
        }
        let error = find_topic(&topics(), "other.", "xyz").unwrap_err().to_string();
        assert!(error.contains("nor any that begins with other."), "{error}");
    }
}
