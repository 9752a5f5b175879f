//! Whether the vendor knows somebody. With `create: false`, whoever it does not know ends as skipped, before anything could create them.
//!
//! Only people who were found are remembered, and not for long: somebody unknown may be created by another tool any moment, and somebody
//! known may be deleted. The vendor answers one question for each person; there is none for many.

use serde_json::Value;
use tailwater_core::code;
use tailwater_core::delivery::{Outcome, Reason, Scope};

use super::answers::{Failure, Plain};
use super::person::{Field, Person};
use super::requests::{self, Call};
use super::work::Work;
use crate::http::{Answer, at_once};

/// Questions at the same time: at 100 ms an answer this reaches the vendor's 100 a second.
const QUESTIONS_AT_ONCE: usize = 12;

/// Gives everyone an outcome who is unknown, or whose being known could not be learned.
pub(super) async fn settle_unknown(work: Work<'_>) {
    let is_asked = |index: &usize| {
        work.delivery(*index).and_then(|delivery| Call::of(&delivery.operation)).is_some_and(Call::creates)
    };
    let asked = work.all_open().into_iter().filter(is_asked).map(|index| async move {
        let person = Person::of(requests::body(work.batch, index));
        let Some(key) = person.key() else { return };
        if work.iterable.known.contains(&key) {
            return;
        }
        if is_known(work, index, &key).await == Some(false) {
            let message = "the vendor does not know the person, and the destination says `create: false`";
            work.set(index, &Outcome::Skipped(Reason::new(code::WOULD_CREATE, message)));
        }
    });
    let _asked: Vec<()> = at_once(asked.collect(), QUESTIONS_AT_ONCE).await;
}

/// Whether the vendor knows somebody; `None` if that could not be learned, and the delivery has its outcome.
pub(super) async fn is_known(work: Work<'_>, index: usize, key: &(Field, String)) -> Option<bool> {
    if !work.session.has_time() {
        work.not_sent(index);
        return None;
    }
    let request = requests::look_up(key.0, &key.1);
    let answer = match work.send(&request, &[index]).await {
        Ok(answer) => answer,
        Err(halt) => {
            work.halted(request.endpoint, &[index], &halt);
            return None;
        }
    };
    match read(&answer) {
        Known::Yes => {
            work.iterable.known.insert([key.clone()]);
            Some(true)
        }
        Known::No => Some(false),
        Known::Refused(reason) => {
            work.set(index, &Outcome::Rejected(reason));
            None
        }
        Known::Unclear => {
            let message = "the vendor's answer about whether the person exists is not of the shape that it documents";
            let reason = Reason::new(code::VENDOR_UNAVAILABLE, message).with_status(answer.status());
            work.set(index, &Outcome::Retry { after: None, scope: Scope::Delivery, reason });
            None
        }
    }
}

enum Known {
    Yes,
    No,
    Refused(Reason),
    Unclear,
}

/// An unknown person is answered with an empty object.
fn read(answer: &Answer) -> Known {
    if !answer.is_success() {
        let plain = Plain::read(answer.body());
        return match plain.failure() {
            Some(Failure::NotFound) => Known::No,
            Some(failure) => Known::Refused(failure.reason_of(&plain, answer.status())),
            None => {
                let told = "could not ask the vendor whether the person exists";
                Known::Refused(answer.reason(format!("{told}: {}", plain.describe())))
            }
        };
    }
    match answer.read::<Value>() {
        Some(Value::Object(object)) if object.get("user").is_some_and(Value::is_object) => Known::Yes,
        Some(Value::Object(object))
            if object.get("user").is_none_or(Value::is_null) && object.get("code").is_none() =>
        {
            Known::No
        }
        _ => Known::Unclear,
    }
}

/// Who exists after a change of identity was made; `None` for other calls.
pub(super) fn after_change(work: Work<'_>, index: usize, call: Call) -> Option<(Field, String)> {
    let body: Value = serde_json::from_str(requests::body(work.batch, index)).ok()?;
    let names: &[(&str, Field)] = match call {
        Call::UpdateEmail => &[("newEmail", Field::Email)],
        Call::Merge => &[("destinationEmail", Field::Email), ("destinationUserId", Field::UserId)],
        _ => return None,
    };
    names.iter().find_map(|(name, field)| Some((*field, field.normal(body.get(*name)?.as_str()?))))
}
