//! What becomes of a delivery: remembered, written to the history and the ledger, tried again, or dead-lettered.

use tailwater_core::delivery::{Delivery, Outcome, Reason, Scope};
use tailwater_core::gate::Turn;
use tailwater_core::ledger::End;
use tailwater_core::retry::{Decision, exhausted};
use tailwater_core::{Code, ProfileId, code};
use tracing::debug;

use super::Session;
use super::calls::InFlight;
use super::memory;
use super::open::Open;
use super::outside::Outside;
use crate::stages::Error;

impl<O: Outside> Session<O> {
    /// Acts on one outcome. `place` is the delivery's among the members of a job.
    pub(super) fn outcome(&mut self, mut item: InFlight, outcome: Outcome, place: usize) -> Result<(), Error> {
        if let Outcome::Retry { after, reason, .. } = &outcome
            && [code::NOT_OWNED, code::NOT_SENT].contains(&reason.code)
        {
            // The partition is on its way to another process, or others had their turn; nothing was attempted.
            let due = self.outside.steady().saturating_add(after.unwrap_or_default());
            self.rejections.came_back(&item.delivery, due);
            self.give_back(item, due);
            return Ok(());
        }
        item.open.attempts = item.delivery.attempt;
        item.open.sent = true;
        self.outside.history(&item.open.record, &item.delivery, &outcome)?;
        self.dirty = true;
        if !matches!(outcome, Outcome::Retry { .. }) {
            self.vendor.answered(item.delivery.key, self.outside.now());
        }
        match outcome {
            Outcome::Delivered | Outcome::DeliveredInPart(_) => {
                let record = std::sync::Arc::clone(&item.open.record);
                let envelope = record.envelope().unwrap_or_default();
                let subject = Open::subject(record.partition, &envelope);
                memory::remember(self.outside.state_mut(), &subject, &item.delivery)?;
                if self.facts.covers(subject.source) {
                    let now = self.outside.now();
                    let delivery = &item.delivery;
                    self.facts.remember(
                        self.outside.state_mut(),
                        subject.partition,
                        delivery.profile,
                        delivery.key,
                        now,
                    )?;
                }
                self.taken(&item.delivery);
                item.open.delivered = true;
                let remark = match &outcome {
                    Outcome::DeliveredInPart(reason) => Some(reason.code),
                    _ if !item.delivery.operation.non_finite.is_empty() => Some(code::NON_FINITE_NUMBER),
                    _ => None,
                };
                if let Some(remark) = remark {
                    self.setup
                        .telemetry
                        .metrics()
                        .remarks
                        .with_label_values(&[&self.setup.name, remark.as_str()])
                        .inc();
                    if matches!(outcome, Outcome::DeliveredInPart(_)) {
                        item.open.left_out = Some(remark.as_str());
                    } else {
                        item.open.left_out.get_or_insert(remark.as_str());
                    }
                }
                if !item.delivery.backfill {
                    let age = self.outside.now().since(envelope.time);
                    self.setup.telemetry.metrics().event_age(&self.setup.name, age);
                }
                self.next_operation(item)
            }
            Outcome::Accepted(ticket) => self.accepted(ticket, place, item),
            Outcome::Skipped(reason) => {
                item.open.skipped = Some(reason.code.as_str());
                self.setup.telemetry.metrics().skipped("send", &self.setup.name, reason.code.as_str());
                self.next_operation(item)
            }
            Outcome::Rejected(reason) => self.rejected(item, reason),
            Outcome::Retry { after, scope, reason } => self.again(item, after, scope, reason),
        }
    }

    fn next_operation(&mut self, item: InFlight) -> Result<(), Error> {
        let InFlight { profile, turn, mut open, delivery: _ } = item;
        open.current += 1;
        open.attempts = 0;
        open.failures = 0;
        self.dirty = true;
        self.advance(profile, turn, open)
    }

    /// The record ends as a dead letter, one for all of its operations, together with its end: what a crash makes repeat before that
    /// must not leave a second one.
    pub(super) fn dead(&mut self, mut item: InFlight, reason: Reason) -> Result<(), Error> {
        let attempts = item.open.attempts;
        item.open.dead.get_or_insert((reason, attempts));
        self.next_operation(item)
    }

    fn again(
        &mut self,
        mut item: InFlight,
        after: Option<std::time::Duration>,
        scope: Scope,
        reason: Reason,
    ) -> Result<(), Error> {
        let time = self.outside.steady();
        let metrics = self.setup.telemetry.metrics();
        metrics.retries.with_label_values(&[&self.setup.name, reason.code.as_str()]).inc();
        let attempt = match scope {
            Scope::Delivery => {
                item.open.failures += 1;
                item.open.failures
            }
            Scope::Endpoint | Scope::Account | Scope::Credentials => item.open.attempts,
        };
        let chance = self.outside.chance();
        match self.setup.settings.retry.decide(attempt, after, scope, time, chance) {
            Decision::GiveUp => {
                self.vendor.gave_up(item.delivery.key);
                let last = exhausted(item.open.attempts, &reason);
                self.rejected(item, last)
            }
            Decision::At(due) => {
                let now = self.outside.now();
                self.vendor.refused(item.delivery.key, &reason, scope, now, now.saturating_add(due.since(time)));
                match scope {
                    Scope::Delivery | Scope::Endpoint => {
                        debug!(destination = %self.setup.name, code = %reason.code, attempt = item.open.attempts, "will be tried again: {}", reason.message);
                    }
                    Scope::Account => self.not_before = self.not_before.max(due),
                    Scope::Credentials => self.pause(reason),
                }
                self.rejections.came_back(&item.delivery, time);
                self.give_back(item, due);
                Ok(())
            }
        }
    }

    /// Nothing has to be sent for the current operation.
    pub(super) fn skipped(&mut self, open: &mut Open, delivery: &Delivery, reason: Code) -> Result<(), Error> {
        let outcome = Outcome::Skipped(Reason::new(reason, reason.summary()));
        let record = std::sync::Arc::clone(&open.record);
        self.outside.history(&record, delivery, &outcome)?;
        self.setup.telemetry.metrics().skipped("send", &self.setup.name, reason.as_str());
        open.skipped = Some(reason.as_str());
        open.current += 1;
        open.attempts = 0;
        open.failures = 0;
        self.dirty = true;
        Ok(())
    }

    /// All operations of a record are done: its end goes to the ledger. If the vendor has seen something of it, a crash before the next
    /// commit repeats it; the gate knows which of the person's next records may go all the same.
    pub(super) fn finish(&mut self, profile: ProfileId, turn: Turn, open: &Open) -> Result<(), Error> {
        let partition = open.record.partition;
        if let Some((reason, attempts)) = &open.dead {
            self.dead_letter(&open.record, reason, *attempts)?;
        } else if open.delivered {
            self.note(partition, &open.record, End::Delivered, open.left_out.unwrap_or_default());
        } else {
            let reason = open.skipped.unwrap_or(code::TRANSFORM_SKIPPED.as_str());
            self.note(partition, &open.record, End::Skipped, reason);
        }
        match &open.parked {
            Some(held) => self.leave(partition, open.profile, held)?,
            None => self.done(partition, open.record.offset),
        }
        if open.sent {
            self.gate.finish_unsettled(&profile, turn);
        } else {
            self.gate.finish(&profile, turn);
        }
        self.went(partition, open.profile);
        self.setup.telemetry.metrics().stage_component_records("send", &self.setup.name, 1);
        Ok(())
    }
}
