//! The names of topics, groups and transactional ids: all that a workspace has in Kafka.

use super::model::{Source, SourceInput};

/// The names of everything that a workspace has in Kafka. Frozen.
#[derive(Debug, Clone)]
pub struct Names {
    prefix: String,
}

// === impl Names ===

impl Names {
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    pub fn ingest(&self, source: &str) -> String {
        format!("{}ingest.{source}", self.prefix)
    }

    /// Dead letters of a source that an operator sends again; resolve reads it beside the source's own topic.
    pub fn replay(&self, source: &str) -> String {
        format!("{}replay.{source}", self.prefix)
    }

    /// Whether a topic is one that only Tailwater writes for its own stages: no source may read it.
    pub fn is_internal(&self, topic: &str) -> bool {
        let Some(name) = topic.strip_prefix(&self.prefix) else { return false };
        ["resolved", "ledger", "schemas"].contains(&name)
            || ["outbound.", "state.", "replay.", "dlq."].iter().any(|family| name.starts_with(family))
    }

    pub fn schemas(&self) -> String {
        format!("{}schemas", self.prefix)
    }

    pub fn resolved(&self) -> String {
        format!("{}resolved", self.prefix)
    }

    pub fn outbound(&self, destination: &str) -> String {
        format!("{}outbound.{destination}", self.prefix)
    }

    pub fn deliveries(&self) -> String {
        format!("{}deliveries", self.prefix)
    }

    pub fn ledger(&self) -> String {
        format!("{}ledger", self.prefix)
    }

    pub fn dlq_source(&self, source: &str) -> String {
        format!("{}dlq.source.{source}", self.prefix)
    }

    pub fn dlq_destination(&self, destination: &str) -> String {
        format!("{}dlq.destination.{destination}", self.prefix)
    }

    pub fn state_source(&self, source: &str) -> String {
        format!("{}state.source.{source}", self.prefix)
    }

    pub fn state_resolve(&self) -> String {
        format!("{}state.resolve", self.prefix)
    }

    pub fn state_route(&self, destination: &str) -> String {
        format!("{}state.route.{destination}", self.prefix)
    }

    pub fn state_send(&self, destination: &str) -> String {
        format!("{}state.send.{destination}", self.prefix)
    }

    /// What operators did with dead letters.
    pub fn state_dlq(&self) -> String {
        format!("{}state.dlq", self.prefix)
    }

    /// The consumer group of a stage; `part` is a destination or a source where there is one group for each.
    pub fn group(&self, stage: &str, part: Option<&str>) -> String {
        part.map_or_else(|| format!("{}{stage}", self.prefix), |part| format!("{}{stage}.{part}", self.prefix))
    }

    /// The transactional id of a stage in one process.
    pub fn transactional_id(&self, stage: &str, part: Option<&str>, instance: &str) -> String {
        format!("{}.{instance}", self.group(stage, part))
    }

    pub fn prefix(&self) -> &str {
        &self.prefix
    }
}

/// The topic that resolve reads for a source.
pub fn input_topic(names: &Names, source: &Source) -> String {
    match &source.input {
        SourceInput::Delta(_) => names.ingest(&source.name),
        SourceInput::Kafka(kafka) => kafka.topic.clone(),
    }
}

/// The topics that resolve reads for a source: its own, and the one of its replays.
pub fn input_topics(names: &Names, source: &Source) -> [String; 2] {
    [input_topic(names, source), names.replay(&source.name)]
}

/// Whether only Tailwater writes this topic of a source. Only there the `tw` header and our other headers are trusted: a record that
/// somebody else wrote may carry them by accident (a mirrored or copied topic), and they would name what does not exist here.
pub fn is_trusted(source: &Source, topic: &str) -> bool {
    match &source.input {
        SourceInput::Delta(_) => true,
        SourceInput::Kafka(kafka) => topic != kafka.topic,
    }
}
