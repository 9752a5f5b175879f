//! What can be used of a batch: decodes its records, and raises or takes back the alert of a source most of whose records cannot.

use super::decode::{self, Decoded};
use super::failures::Change;
use super::types::Invalid;
use super::{Input, Session, no_identifiers};
use crate::config::model::{OnDecodeFailures, Source};
use crate::kafka::Record;
use crate::kafka::consumer::Partition;
use crate::runtime::clock::now;
use crate::stages::Error;
use crate::telemetry::events::{SourceFailing, SourceRecovered};

/// A record, where it belongs, and what it says.
pub(super) type Understood<'r, 'a> = (&'r Record, Input<'a>, Decoded<'r>);

impl<'a> Session<'a> {
    /// Understands the records of a batch, all of them before anything is done: a source that pauses dead-letters none of them.
    pub(super) fn understand<'r>(
        &mut self,
        records: &'r [Record],
        workspace: &str,
    ) -> Result<Vec<Understood<'r, 'a>>, Error> {
        let now = now();
        let mut understood = Vec::with_capacity(records.len());
        for record in records {
            let Some(input) = self.sources.get(&*record.topic) else { continue };
            let name = &input.source.name;
            if self.paused.contains(name) {
                continue;
            }
            let decoded = decode::decode(record, input.source, input.types.as_deref(), workspace);
            match &decoded {
                Decoded::Event(event) if event.identifiers.is_empty() => {
                    self.failures.failed(name, &no_identifiers(input.source, &[]), &record.coordinates(), now);
                }
                Decoded::Event(_) => self.failures.good(name, 1),
                Decoded::Reject(reason) => self.failures.failed(name, reason, &record.coordinates(), now),
                Decoded::Skip(_) => {}
            }
            understood.push((record, input.clone(), decoded));
        }
        self.judge()?;
        understood.retain(|(_, input, _)| !self.paused.contains(&input.source.name));
        Ok(understood)
    }

    /// Raises the alert of a source most of whose records cannot be used, or takes it back.
    pub(super) fn judge(&mut self) -> Result<(), Error> {
        for change in self.failures.judge(now()) {
            match change {
                Change::Failing { source, pattern, example } => {
                    let pauses = |source: &Source| source.on_decode_failures() == OnDecodeFailures::Pause;
                    let paused = self.shared.config.sources.get(&source).is_some_and(pauses);
                    self.shared.telemetry.emit(&SourceFailing {
                        source: &source,
                        paused,
                        code: example.reason.code,
                        failed: pattern.failed,
                        records: pattern.rows,
                        message: &example.reason.message,
                        at: &example.at,
                    });
                    if paused {
                        self.paused.insert(source);
                        self.stop_paused()?;
                    }
                }
                Change::Recovered { source } => {
                    self.shared.telemetry.emit(&SourceRecovered { source: &source });
                }
            }
        }
        Ok(())
    }

    /// Stops reading the sources that are paused. What was read of them and not finished is read again when the process starts the next
    /// time: its offsets are not committed.
    pub(super) fn stop_paused(&self) -> Result<(), Error> {
        let is_paused =
            |topic: &str| self.sources.get(topic).is_some_and(|input| self.paused.contains(&input.source.name));
        let stopped: Vec<Partition> =
            self.consumer.assignment().iter().filter(|(topic, _)| is_paused(topic)).cloned().collect();
        Ok(self.consumer.pause(&stopped, true)?)
    }

    /// Values of a row became null.
    pub(super) fn replaced(&self, record: &Record, source: &Source, invalid: &[Invalid]) {
        let Some(first) = invalid.first() else { return };
        let count = u64::try_from(invalid.len()).unwrap_or(u64::MAX);
        self.shared.telemetry.metrics().invalid_values.with_label_values(&[&source.name]).inc_by(count);
        self.shared.telemetry.invalid_value_line(&source.name, &first.to_string(), &record.coordinates());
    }
}
