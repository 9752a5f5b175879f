//! A batch while it is delivered to Iterable, and what the answers mean for its deliveries.

use std::ops::Deref;
use std::time::Duration;

use serde_json::Value;
use tailwater_core::delivery::{Outcome, Reason, Scope};
use tailwater_core::{OwnedPosition, code};

use super::Iterable;
use super::answers::{Failure, Member, Plain};
use super::person::{Field, Person};
use super::requests::{self, Call};
use super::types::{Fields, Kind, Mismatch};
use crate::http::{self, Answer, subject};

/// The shared work on a batch, and the destination whose it is.
#[derive(Clone, Copy)]
pub(super) struct Work<'a> {
    pub iterable: &'a Iterable,
    pub shared: http::Work<'a, Steps>,
}

/// What is noted of a delivery between its attempts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Steps {
    #[default]
    None,
    /// An event of somebody whom the vendor does not know: the person has to be created first.
    ToCreate,
    /// The person was created for the event.
    Created,
}

/// What of a body is compared with an answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    pub event: Option<String>,
    pub fields: Value,
}

impl<'a> Deref for Work<'a> {
    type Target = http::Work<'a, Steps>;

    fn deref(&self) -> &Self::Target {
        &self.shared
    }
}

// === impl Content ===

impl Content {
    /// The name of an event and the `dataFields` of a body; a purchase and a cart have a user's.
    pub fn of(body: &str) -> Self {
        let mut body: Value = serde_json::from_str(body).unwrap_or_default();
        let event = body.get("eventName").and_then(Value::as_str).map(str::to_owned);
        let of_user = body.pointer_mut("/user/dataFields").map(Value::take);
        let fields = of_user.or_else(|| body.get_mut("dataFields").map(Value::take)).unwrap_or_default();
        Self { event, fields }
    }

    pub fn fields(&self) -> Fields<'_> {
        Fields { event: self.event.as_deref(), fields: &self.fields }
    }
}

impl Work<'_> {
    /// The members of a request as an answer names them.
    pub fn named(&self, members: &[usize]) -> Vec<Member> {
        let member = |&index: &usize| {
            let body = requests::body(self.batch, index);
            let person = Person::of(body);
            let content = Content::of(body);
            let other = person.named().map(|(field, _)| field.other());
            let beside = other.and_then(|field: Field| {
                content.fields.get(field.as_str()).and_then(Value::as_str).map(|value| (field, value.to_owned()))
            });
            Member { person, beside, event: content.event }
        };
        members.iter().map(member).collect()
    }

    /// What a failure that is about the person means for the delivery.
    pub fn failed(&self, index: usize, call: Call, failure: Failure, reason: Reason) {
        if failure != Failure::NotFound {
            return self.set(index, &Outcome::Rejected(reason));
        }
        match call {
            // Nothing is left to do for somebody who is not there.
            Call::Delete | Call::Forget | Call::Unforget | Call::RemoveFromList => {
                self.set(index, &Outcome::Skipped(reason));
            }
            _ if call.creates() && !self.iterable.config.create => {
                let message = "the vendor does not know the person, and the destination says `create: false`";
                self.set(index, &Outcome::Skipped(Reason::new(code::WOULD_CREATE, message)));
            }
            Call::Event => self.event_of_nobody(index, reason),
            _ => self.set(index, &Outcome::Rejected(reason)),
        }
    }

    /// An event creates nobody, so its person is created first, or was just now and is not effective yet.
    fn event_of_nobody(&self, index: usize, reason: Reason) {
        let Some(delivery) = self.delivery(index) else { return };
        if let Some(left) = self.iterable.users.last(subject(delivery)).wait_for_effect() {
            let message = "the vendor does not know the person of the event yet; the event waits until the person's update is effective";
            return self.wait(index, left, message.to_owned());
        }
        if self.attempts.get(delivery.key).own == Steps::Created {
            return self.set(index, &Outcome::Rejected(reason));
        }
        self.attempts.update(delivery.key, |attempt| attempt.own = Steps::ToCreate);
        let message =
            "the vendor does not know the person of the event; the person is created, and the event sent again";
        self.wait(index, Duration::from_millis(100), message.to_owned());
    }

    /// A refusal of one delivery as a reason.
    pub fn refusal(&self, index: usize, answer: &Answer) -> (Option<Failure>, Reason) {
        let plain = Plain::read(answer.body());
        if let Some(failure) = plain.failure() {
            return (Some(failure), failure.reason_of(&plain, answer.status()));
        }
        let content = Content::of(requests::body(self.batch, index));
        let mismatches = Mismatch::read(&plain.params);
        let located = super::types::locate(&mismatches, &[content.fields()]);
        if let Some((_, (mismatch, kind))) = located.into_iter().next() {
            return (None, self.mismatched(index, &content, mismatch, kind, answer));
        }
        if plain.code == "RequestFieldsTypesMismatched" {
            let message = format!("a field has another type at the vendor; {}", plain.describe());
            return (None, Reason::new(code::FIELD_TYPE_MISMATCH, message).with_status(answer.status()));
        }
        if plain.code == "BatchTooLarge" {
            return (None, Reason::new(code::PAYLOAD_TOO_LARGE, plain.describe()).with_status(answer.status()));
        }
        (None, answer.rejection())
    }

    /// `dataFields.ltv: expected double, the row has string since table version 12`.
    pub fn mismatched(
        &self,
        index: usize,
        content: &Content,
        mismatch: &Mismatch,
        kind: Kind,
        answer: &Answer,
    ) -> Reason {
        let place = self.delivery(index).and_then(|delivery| delivery.position.as_ref()).map(place);
        let since = self.iterable.types.learn(content.event.as_deref(), mismatch, kind, place);
        let since = since.map_or(String::new(), |since| format!(" since {since}"));
        let message = format!(
            "dataFields.{}: expected {}, the row has {}{since}; convert it in the transform, or correct the source; {}",
            mismatch.field,
            mismatch.expected,
            kind.as_str(),
            answer.words()
        );
        Reason::new(code::FIELD_TYPE_MISMATCH, message).with_status(answer.status())
    }

    /// Those of the members that have no outcome were delivered, without the fields that the vendor did not store.
    pub fn delivered_without(&self, members: &[usize], filtered: &[String]) {
        if filtered.is_empty() {
            return self.delivered_all(members, None);
        }
        let contents: Vec<Content> =
            members.iter().map(|&index| Content::of(requests::body(self.batch, index))).collect();
        let holds = |content: &Content, field: &str| !super::types::values_at(&content.fields, field).is_empty();
        // A name that nobody seems to have sent is everybody's: it must not be lost.
        let of_nobody = |field: &str| !contents.iter().any(|content| holds(content, field));
        for (&index, content) in members.iter().zip(&contents) {
            if !self.is_open(index) {
                continue;
            }
            let lost: Vec<String> = filtered
                .iter()
                .filter(|field| holds(content, field) || of_nobody(field))
                .map(|field| format!("`{field}`"))
                .collect();
            if lost.is_empty() {
                self.delivered(index, None);
                continue;
            }
            let why = if self.iterable.config.create_new_fields {
                ""
            } else {
                "; the destination says `create_new_fields: false`"
            };
            let message =
                format!("the vendor did not store {}, which the project does not have{why}", lost.join(" and "));
            self.set(index, &Outcome::DeliveredInPart(Reason::new(code::FIELDS_FILTERED, message)));
        }
    }

    /// The delivery waits until something earlier is effective. Nobody is blamed and no attempt is counted.
    pub fn wait(&self, index: usize, after: Duration, message: String) {
        let reason = Reason::new(code::NOT_EFFECTIVE, message);
        self.set(index, &Outcome::Retry { after: Some(after), scope: Scope::Endpoint, reason });
    }
}

fn place(position: &OwnedPosition) -> String {
    match position {
        OwnedPosition::Table { version, .. } => format!("table version {version}"),
        OwnedPosition::Log { topic, partition, offset } => format!("{topic}[{partition}]@{offset}"),
    }
}
