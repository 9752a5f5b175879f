//! The schemas that rows refer to by their fingerprint: written by the sources before the first row that uses them, read by route.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tailwater_core::SchemaId;
use tailwater_core::schema::{Schema, SchemaRecord};
use tracing::warn;

use crate::config::model::Kafka;
use crate::kafka::read::{Range, Reader};
use crate::kafka::{Error, Outgoing, Outputs};

/// Predecessors that are followed to explain a missing column.
const HISTORY_MAX: usize = 100;

/// What is known of the topic `schemas`. Shared by all routes of a process.
pub struct Schemas {
    topic: String,
    kafka: Kafka,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    records: HashMap<SchemaId, Arc<SchemaRecord>>,
    read_to: i64,
}

impl Schemas {
    pub fn new(kafka: &Kafka, topic: String) -> Self {
        Self { topic, kafka: kafka.clone(), known: Mutex::new(Known::default()) }
    }

    /// The schema of a fingerprint. One that is not known yet makes it read on: whoever wrote the row has had the
    /// schema acknowledged before.
    ///
    /// # Errors
    /// No broker answers.
    pub fn get(&self, id: SchemaId) -> Result<Option<Arc<SchemaRecord>>, Error> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(record) = known.records.get(&id) {
            return Ok(Some(Arc::clone(record)));
        }
        let reader = Reader::connect(&self.kafka)?;
        let (low, high) = reader.settled_watermarks(&self.topic, 0)?;
        let range = Range { topic: self.topic.clone(), partition: 0, start: known.read_to.max(low), end: high };
        let mut found = Vec::new();
        reader.read::<Error>(&[range], |record| {
            let id = record.key().and_then(|key| std::str::from_utf8(key).ok()).and_then(SchemaId::parse);
            match (id, record.value().map(serde_json::from_slice::<SchemaRecord>)) {
                (Some(id), Some(Ok(schema))) => found.push((id, schema)),
                _ => warn!(at = %record.coordinates(), "a record of the schemas topic could not be read; it is passed over"),
            }
            Ok(true)
        })?;
        for (id, schema) in found {
            known.records.insert(id, Arc::new(schema));
        }
        known.read_to = high;
        Ok(known.records.get(&id).map(Arc::clone))
    }

    /// A schema and its predecessors, newest first.
    ///
    /// # Errors
    /// No broker answers.
    pub fn history(&self, id: SchemaId) -> Result<Vec<SchemaRecord>, Error> {
        let mut history = Vec::new();
        let mut next = Some(id);
        while let Some(id) = next.filter(|_| history.len() < HISTORY_MAX) {
            let Some(record) = self.get(id)? else { break };
            next = record.predecessor.filter(|predecessor| *predecessor != id);
            history.push(SchemaRecord::clone(&record));
        }
        Ok(history)
    }
}

/// Produces a schema; its transaction must be committed before the first row that refers to it is produced.
///
/// # Errors
/// The client cannot go on.
pub fn announce(outputs: &mut impl Outputs, topic: &str, id: SchemaId, record: &SchemaRecord) -> Result<(), Error> {
    // Strings and numbers into memory: serialising them has no way to fail.
    let value = serde_json::to_vec(record).unwrap_or_default();
    outputs.send(&Outgoing::to(topic).partition(0).key(id.to_string().as_bytes()).value(Some(&value)))
}

/// The record of a first or declared schema.
pub fn first_record(source: &str, schema: &Schema) -> SchemaRecord {
    SchemaRecord {
        source: source.to_owned(),
        columns: schema.columns.clone(),
        predecessor: None,
        version: None,
        difference: tailwater_core::schema::Difference::default(),
    }
}
