//! Carries out a plan: everything it produces lies in the batch's open transaction.

use std::collections::HashSet;

use tailwater_core::delivery::Reason;
use tailwater_core::envelope::{Envelope, Identifier, Role};
use tailwater_core::ledger::End;
use tailwater_core::operation::{Operation, Outbound};
use tailwater_core::{Coordinates, ProfileId, code};

use super::Session;
use super::existence::BACKFILL;
use super::plan::{Action, ActionKind, Work, handed_over};
use super::routes::Routes;
use super::transform::{Cell, Made, cell};
use crate::kafka::{self, Outgoing, Outputs as _, Record};
use crate::stages::Error;
use crate::stages::shared::dead_letter::{self, Failure};

impl Session<'_> {
    /// Writes what the actions say; the number of outbound records.
    pub(super) fn write(&mut self, actions: &[Action], routes: &Routes, dead: &HashSet<Cell>) -> Result<usize, Error> {
        let mut written = 0;
        for action in actions {
            match &action.kind {
                ActionKind::Transform(work) => {
                    written += usize::from(self.operations(action.partition, work, routes, dead)?);
                }
                ActionKind::End { record, end, reason } => self.end(action.partition, record, *end, reason.as_str()),
                ActionKind::DeadLetter { record, reason } => self.dead(action.partition, record, reason, None, None)?,
                ActionKind::HandOver { record, to, backfill } => {
                    let moved = handed_over(record, *to, self.destination, *backfill);
                    match self.append_resolved(*to, moved.value(), moved.header()) {
                        // It was at the limit before, and its header has grown.
                        Err(Error::Kafka(kafka::Error::TooLarge { bytes, topic })) => {
                            let message =
                                format!("the event of a merged profile has {bytes} bytes, more than {topic} takes");
                            let reason = Reason::new(code::KAFKA_RECORD_TOO_LARGE, message);
                            self.dead(action.partition, record, &reason, None, None)?;
                        }
                        other => other?,
                    }
                }
                ActionKind::Release(merge) => {
                    let envelope = Envelope {
                        workspace: &self.shared.config.workspace,
                        profile: Some(merge.survivor),
                        role: Role::Release(*merge),
                        only_destination: Some(self.destination),
                        ..Envelope::default()
                    };
                    let header = envelope.to_bytes();
                    self.append_resolved(merge.survivor, None, Some(&header))?;
                }
                ActionKind::Forward { profile, role } => {
                    let envelope = Envelope {
                        workspace: &self.shared.config.workspace,
                        profile: Some(*profile),
                        role: *role,
                        ..Envelope::default()
                    };
                    let header = envelope.to_bytes();
                    let (key, partition) = (profile.to_string(), self.partition(*profile));
                    self.unit.send(
                        &Outgoing::to(&self.outbound).partition(partition).key(key.as_bytes()).envelope(&header),
                    )?;
                }
            }
        }
        Ok(written)
    }

    fn partition(&self, profile: ProfileId) -> i32 {
        i32::try_from(profile.partition(self.shared.config.kafka.partitions)).unwrap_or(0)
    }

    pub(super) fn append_resolved(
        &mut self,
        profile: ProfileId,
        value: Option<&[u8]>,
        header: Option<&[u8]>,
    ) -> Result<(), Error> {
        let (key, partition) = (profile.to_string(), self.partition(profile));
        let mut outgoing = Outgoing::to(&self.topic).partition(partition).key(key.as_bytes()).value(value);
        if let Some(header) = header {
            outgoing = outgoing.envelope(header);
        }
        Ok(self.unit.send(&outgoing)?)
    }

    /// Writes the outbound record of an event; true if there is one.
    fn operations(
        &mut self,
        partition: i32,
        work: &Work,
        routes: &Routes,
        dead: &HashSet<Cell>,
    ) -> Result<bool, Error> {
        let mut operations: Vec<&Operation> = Vec::new();
        let mut failed: Option<(Reason, Option<String>, String)> = None;
        for &route in &work.routes {
            let transform = routes.routes.get(route).map_or("", |route| route.transform.name());
            match self.results.get(&work.record, route) {
                Some(Made::Operations(made)) => operations.extend(made),
                Some(Made::Failed(failure)) if dead.contains(&cell(&work.record, route)) => {
                    failed.get_or_insert((failure.reason.clone(), failure.stack.clone(), transform.to_owned()));
                }
                Some(Made::Skipped | Made::Failed(_) | Made::NotRun) | None => {}
            }
        }
        let mut sent = false;
        if !operations.is_empty() {
            let value = serde_json::to_vec(&Outbound { operations });
            let refused = match value {
                Ok(value) => self.outbound(partition, work, routes, &value)?,
                Err(error) => Some(Reason::new(code::OUTPUT_INVALID, error.to_string())),
            };
            match refused {
                None => sent = true,
                Some(reason) => {
                    failed.get_or_insert((reason, None, String::new()));
                }
            }
        }
        match failed {
            Some((reason, stack, transform)) => {
                let transform = Some(transform.as_str()).filter(|name| !name.is_empty());
                self.dead(partition, &work.record, &reason, transform, stack.as_deref())?;
            }
            None if !sent => self.end(partition, &work.record, End::Skipped, code::TRANSFORM_SKIPPED.as_str()),
            None => {}
        }
        Ok(sent)
    }

    /// Produces an outbound record and notes the event as routed, or gives the reason why it cannot be.
    fn outbound(
        &mut self,
        partition: i32,
        work: &Work,
        routes: &Routes,
        value: &[u8],
    ) -> Result<Option<Reason>, Error> {
        let hash = work.routes.first().and_then(|route| routes.routes.get(*route)).map(|route| route.transform.hash());
        let mut envelope = work.record.envelope().unwrap_or_default();
        let (place, round) = (envelope.ingest, round(&envelope));
        envelope.identifiers.clear();
        envelope.identifiers.extend(work.identifiers.iter().map(|(kind, value)| Identifier { kind, value }));
        // The row before the change has done its duty; vendors are never sent it.
        envelope.before = None;
        if work.backfill {
            envelope.backfill.get_or_insert(BACKFILL);
        }
        envelope.transform_hash = hash.as_ref().map(|hash| &hash[..]);
        let header = envelope.to_bytes();
        let outgoing = Outgoing {
            topic: &self.outbound,
            partition: Some(partition),
            key: work.record.key(),
            value: Some(value),
            envelope: Some(&header),
            timestamp: None,
            headers: &[],
        };
        match self.unit.send(&outgoing) {
            Ok(()) => {
                self.end_at(partition, place.as_ref(), round, End::Routed, "");
                Ok(None)
            }
            Err(kafka::Error::TooLarge { bytes, topic }) => {
                let message = format!("the operations of the event have {bytes} bytes, more than {topic} takes");
                Ok(Some(Reason::new(code::KAFKA_RECORD_TOO_LARGE, message)))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Notes an end of the event at this destination.
    fn end(&mut self, partition: i32, record: &Record, end: End, reason: &str) {
        let Ok(envelope) = record.envelope() else { return };
        self.end_at(partition, envelope.ingest.as_ref(), round(&envelope), end, reason);
    }

    fn end_at(&mut self, partition: i32, place: Option<&Coordinates<'_>>, round: u32, end: End, reason: &str) {
        if let Some(place) = place {
            self.unit.note(self.destination, partition, place, round, end, reason);
        }
        if end == End::Skipped {
            self.shared.telemetry.metrics().skipped("route", self.destination, reason);
        }
    }

    fn dead(
        &mut self,
        partition: i32,
        record: &Record,
        reason: &Reason,
        transform: Option<&str>,
        stack: Option<&str>,
    ) -> Result<(), Error> {
        let failure = Failure {
            stage: "route",
            connector: self.destination,
            destination: Some(self.destination),
            transform,
            attempts: 1,
            reason,
            stack,
        };
        let topic = self.shared.names.dlq_destination(self.destination);
        dead_letter::produce(&mut self.unit, &topic, record, &failure)?;
        self.end(partition, record, End::DeadLettered, reason.code.as_str());
        self.shared.telemetry.metrics().dead_lettered("route", self.destination, reason.code.as_str());
        self.shared.telemetry.dead_letter_line("route", self.destination, reason, &record.coordinates());
        Ok(())
    }
}

/// How often the event was replayed.
fn round(envelope: &Envelope<'_>) -> u32 {
    envelope.replay.map_or(0, |replay| replay.count)
}
