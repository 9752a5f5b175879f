//! A batch → requests → one outcome per delivery, reported as soon as the vendor has answered.
//!
//! Few users and events go one by one, many in bulk; whoever was written lately stays with the kind of call that they were written by
//! (`writes`). What depends on an update that may not be effective yet comes back later. All groups are sent at the same time: what one
//! endpoint keeps waiting does not keep the others.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use tailwater_core::code;
use tailwater_core::delivery::{Delivery, Outcome, Reason, Scope};

use super::answers::{Bulk, Failure, Plain};
use super::grouping::{self, Groups, Together};
use super::person::Field;
use super::requests::{self, Call};
use super::types::{Mismatch, locate};
use super::work::{Content, Steps, Work};
use super::writes::{Last, Way};
use super::{Iterable, lookup};
use crate::http::{self, Answer, Refusal, Request, Session, at_once, named, send_parts, subject};
use crate::outcomes::Outcomes;

/// Single requests at the same time: at 50 ms an answer this reaches the vendor's 500 users a second.
const SINGLES_AT_ONCE: usize = 32;

impl Iterable {
    pub(super) fn work<'a>(
        &'a self,
        batch: &'a [Delivery],
        session: &'a Session<'a>,
        outcomes: &'a Outcomes<'a>,
    ) -> Work<'a> {
        Work { iterable: self, shared: http::Work { session, attempts: &self.attempts, batch, outcomes } }
    }

    pub(super) async fn deliver_batch(&self, batch: &[Delivery], session: &Session<'_>, outcomes: &Outcomes<'_>) {
        let work = self.work(batch, session, outcomes);
        work.begin();
        hold_back(work);
        if !self.config.create {
            lookup::settle_unknown(work).await;
        }
        create_people(work).await;
        let groups = self.groups(batch, &work.all_open());
        for &index in &groups.unknown {
            let message = "the operation is none of Iterable's; it was made by another version";
            work.set(index, &Outcome::Rejected(Reason::new(code::UNSUPPORTED_OPERATION, message)));
        }
        let together = groups.together.into_iter().map(|(together, members)| send_together(work, together, members));
        let (_sent, ()) = futures_util::join!(join_all(together), send_alone(work, groups.alone));
    }

    /// Sorts a batch. From `bulk_from` users or events on, they go in bulk, except for those who were written otherwise lately.
    pub(super) fn groups(&self, batch: &[Delivery], wanted: &[usize]) -> Groups {
        let last = |index: usize, call: Call| {
            let writes = if call == Call::Event { &self.events } else { &self.users };
            batch.get(index).map_or(Last::Settled, |delivery| writes.last(subject(delivery)))
        };
        let mut free: BTreeMap<Call, usize> = BTreeMap::new();
        for &index in wanted {
            let call = batch.get(index).and_then(|delivery| Call::of(&delivery.operation));
            if let Some(call) = call.filter(|call| !matches!(last(index, *call), Last::Recent(..))) {
                *free.entry(call).or_default() += 1;
            }
        }
        grouping::group(batch, wanted, &|index, call| match last(index, call) {
            Last::Recent(way, _) => way == Way::Bulk,
            // Of events, only the answer to a bulk request names the fields that the vendor dropped.
            Last::Settled | Last::Unknown(_) if call == Call::Event && !self.config.create_new_fields => true,
            Last::Settled | Last::Unknown(_) => free.get(&call).copied().unwrap_or(0) >= self.config.bulk_from,
        })
    }

    fn written(&self, call: Call, way: Way, delivery: &Delivery) {
        match call {
            Call::Event => self.events.write(subject(delivery), way),
            _ if call.writes_user() => self.users.write(subject(delivery), way),
            _ => {}
        }
    }
}

/// Gives everybody an outcome whose turn is not now: see [`super::writes`].
fn hold_back(work: Work<'_>) {
    let settle = work.iterable.config.settle.as_secs_f64();
    for index in work.all_open() {
        let Some(delivery) = work.delivery(index) else { continue };
        let Some(call) = Call::of(&delivery.operation) else { continue };
        let last = work.iterable.users.last(subject(delivery));
        if call.needs_effect()
            && let Some(left) = last.wait_for_effect()
        {
            let message = match last {
                Last::Unknown(_) => format!(
                    "the person may have been updated less than {settle} s ago, before this process began; {} waits until that is effective",
                    delivery.operation.kind
                ),
                Last::Settled | Last::Recent(..) => format!(
                    "the person was updated less than {settle} s ago; {} waits until that is effective",
                    delivery.operation.kind
                ),
            };
            work.wait(index, left, message);
        } else if call.writes_user()
            && call != Call::User
            && let Some(left) = last.wait_for(Way::Single)
        {
            let message = format!(
                "the person was updated in bulk less than {settle} s ago, and single calls are applied separately; it waits until that is effective"
            );
            work.wait(index, left, message);
        }
    }
}

/// Creates the people of events whom the vendor did not know at an earlier attempt.
async fn create_people(work: Work<'_>) {
    let is_wanted = |delivery: &Delivery| work.attempts.get(delivery.key).own == Steps::ToCreate;
    let wanted: Vec<usize> =
        work.all_open().into_iter().filter(|&index| work.delivery(index).is_some_and(is_wanted)).collect();
    let sends = wanted.into_iter().filter_map(|index| Some((index, work.delivery(index)?))).map(
        |(index, delivery)| async move {
            let Some(request) = requests::create(delivery, work.iterable.config.create_new_fields) else { return };
            work.iterable.written(Call::User, Way::Single, delivery);
            match work.send(&request, &[index]).await {
                Err(halt) => work.halted(request.endpoint, &[index], &halt),
                Ok(answer) if answer.is_success() => {
                    work.attempts.update(delivery.key, |attempt| attempt.own = Steps::Created);
                }
                Ok(answer) => work.set(index, &Outcome::Rejected(work.refusal(index, &answer).1)),
            }
        },
    );
    let _sent: Vec<()> = at_once(sends.collect(), SINGLES_AT_ONCE).await;
}

async fn send_alone(work: Work<'_>, mut calls: Vec<(usize, Call)>) {
    // Whoever has failed before comes last: one of the others being answered tells that the vendor works.
    calls.sort_by_key(|(index, _)| {
        work.delivery(*index).is_some_and(|delivery| work.attempts.get(delivery.key).failed.is_some())
    });
    let sends = calls.into_iter().map(|(index, call)| send_one(work, index, call)).collect();
    let _sent: Vec<()> = at_once(sends, SINGLES_AT_ONCE).await;
}

async fn send_one(work: Work<'_>, index: usize, call: Call) {
    let Some(delivery) = work.delivery(index) else { return };
    if !work.session.has_time() {
        return work.not_sent(index);
    }
    let Some(request) = requests::single(call, delivery, work.iterable.config.create_new_fields) else {
        let message = "the operation's body does not say whom it is about; it was made by another version";
        return work.set(index, &Outcome::Rejected(Reason::new(code::OUTPUT_INVALID, message)));
    };
    work.iterable.written(call, Way::Single, delivery);
    let answer = match work.send(&request, &[index]).await {
        Ok(answer) => answer,
        Err(halt) => return work.halted(request.endpoint, &[index], &halt),
    };
    work.iterable.written(call, Way::Single, delivery);
    forget_known(work, call, delivery);
    if !answer.is_success() {
        return refused(work, index, call, &answer).await;
    }
    let plain = Plain::read(answer.body());
    // A success can say that nothing was done.
    if let Some(failure) = plain.failure() {
        return work.failed(index, call, failure, failure.reason_of(&plain, answer.status()));
    }
    // The specification gives these calls an answer without a body.
    let may_be_empty = matches!(call, Call::Delete | Call::Subscribe | Call::Unsubscribe);
    if !(plain.is_success() || (may_be_empty && answer.body().is_empty())) {
        let message = format!("the answer is not of the shape that the vendor documents: {}", plain.describe());
        let reason = Reason::new(code::VENDOR_UNAVAILABLE, message).with_status(answer.status());
        return work.set(index, &Outcome::Retry { after: None, scope: Scope::Delivery, reason });
    }
    let mut filtered = plain.filtered_out_fields();
    if filtered.is_empty() && !work.iterable.config.create_new_fields && call.has_user_fields() {
        // The answer to a single call does not name the fields that the vendor dropped.
        let content = Content::of(delivery.operation.body.get());
        filtered = work.iterable.missing_fields(work.session, &content.fields).await;
    }
    work.delivered_without(&[index], &filtered);
}

/// A person whose identity changed may be unknown under the identifier that they were known by.
fn forget_known(work: Work<'_>, call: Call, delivery: &Delivery) {
    if matches!(call, Call::Delete | Call::Forget | Call::Merge | Call::UpdateEmail | Call::UserAddress) {
        for (_, value) in &delivery.identifiers {
            for field in Field::ALL {
                work.iterable.known.remove(&(field, field.normal(value)));
            }
        }
    }
}

async fn refused(work: Work<'_>, index: usize, call: Call, answer: &Answer) {
    let (failure, reason) = work.refusal(index, answer);
    let Some(failure) = failure else { return work.set(index, &Outcome::Rejected(reason)) };
    if failure == Failure::NotFound
        && let Some(new) = lookup::after_change(work, index, call)
    {
        // A change that was made already, by a request whose answer was lost or by somebody else, leaves nobody to change.
        return match lookup::is_known(work, index, &new).await {
            Some(true) => {
                let message =
                    "the vendor does not know the old identifier and knows the new one, so the change was made before";
                work.set(index, &Outcome::DeliveredInPart(Reason::new(code::DELIVERED_IN_PART, message)));
            }
            Some(false) => work.set(index, &Outcome::Rejected(reason)),
            None => {}
        };
    }
    work.failed(index, call, failure, reason);
}

/// Sends deliveries that can share requests.
async fn send_together(work: Work<'_>, together: Together, members: Vec<usize>) {
    let iterable = work.iterable;
    let batch = work.batch;
    let may_mismatch = matches!(together, Together::Users | Together::Events);
    let doubtful = |index: usize| {
        may_mismatch
            && iterable.types.is_used()
            && iterable.types.doubts(&Content::of(requests::body(batch, index)).fields())
    };
    let parts = grouping::parts(batch, &members, &|index| work.part_max(index), &doubtful);
    let make = |members: &[usize]| {
        let deliveries = || members.iter().filter_map(|&index| batch.get(index));
        deliveries().for_each(|delivery| iterable.written(together.call(), Way::Bulk, delivery));
        iterable.bulk(&together, batch, members)
    };
    let judge = |answer: &Answer, members: &[usize]| judge(work, &together, answer, members);
    let taken = |members: &[usize], answer: &Answer| taken(work, &together, members, answer);
    send_parts(work.shared, parts, &make, &judge, &taken).await;
}

impl Iterable {
    /// The request of deliveries that go together.
    pub(super) fn bulk(&self, together: &Together, batch: &[Delivery], members: &[usize]) -> Request {
        let bodies = members.iter().map(|&index| requests::body(batch, index));
        match together {
            Together::Users => requests::bulk_update(bodies, self.config.create_new_fields),
            Together::Events => requests::track_bulk(members.iter().filter_map(|&index| batch.get(index))),
            Together::List(call, list) => {
                // Unknown people were looked up; this is for those who are deleted meanwhile. Projects that identify people by email do not
                // know the flag.
                let existing_only =
                    (self.config.identity != super::person::Identity::Email).then_some(!self.config.create);
                requests::membership(*call, list, bodies, existing_only)
            }
            Together::Catalog(call, catalog) => requests::catalog(*call, catalog, bodies),
        }
    }
}

/// Whom a refusal of a whole request means.
fn judge(work: Work<'_>, together: &Together, answer: &Answer, members: &[usize]) -> Refusal {
    let plain = Plain::read(answer.body());
    let list = match together {
        Together::Users => "users",
        Together::Events => "events",
        Together::List(_, list) => {
            // The word is the code, or stands in the message of a more general one.
            let names_list = [&plain.code, &plain.msg].iter().any(|text| text.contains("invalidListId"));
            if answer.status() == 404 || names_list {
                let message = format!(
                    "the list `{list}` is refused; is its id right, and is it no dynamic list? {}",
                    plain.describe()
                );
                return Refusal::All(answer.reason(message));
            }
            "subscribers"
        }
        Together::Catalog(_, catalog) => {
            if answer.status() == 404 {
                let message = format!(
                    "the project has no catalog `{catalog}`; create it in Iterable first; {}",
                    plain.describe()
                );
                return Refusal::All(answer.reason(message));
            }
            "documents"
        }
    };
    let places = plain.positions(list);
    if !places.is_empty() && places.keys().all(|place| *place < members.len()) {
        return named(answer, members, places);
    }
    let mismatches = Mismatch::read(&plain.params);
    if !mismatches.is_empty() {
        let contents: Vec<Content> =
            members.iter().map(|&index| Content::of(requests::body(work.batch, index))).collect();
        let fields: Vec<_> = contents.iter().map(Content::fields).collect();
        let located = locate(&mismatches, &fields);
        let rejected: Vec<(usize, Reason)> = located
            .into_iter()
            .filter_map(|(place, (mismatch, kind))| {
                let (&index, content) = (members.get(place)?, contents.get(place)?);
                Some((index, work.mismatched(index, content, mismatch, kind, answer)))
            })
            .collect();
        if !rejected.is_empty() {
            return Refusal::Some(rejected);
        }
    }
    // Alone, it has the words for it; with others, the request is halved.
    let reason = members.first().map_or_else(|| answer.rejection(), |&index| work.refusal(index, answer).1);
    Refusal::Opaque(reason)
}

/// The vendor took a request; whose updates failed all the same, it says in its answer.
fn taken(work: Work<'_>, together: &Together, members: &[usize], answer: &Answer) {
    let call = together.call();
    for delivery in members.iter().filter_map(|&index| work.delivery(index)) {
        work.iterable.written(call, Way::Bulk, delivery);
    }
    if matches!(together, Together::Catalog(..))
        && (Plain::read(answer.body()).is_success() || answer.body().is_empty())
    {
        return work.delivered_all(members, None);
    }
    let Some(bulk) = Bulk::read(answer.body()) else {
        let message =
            "the vendor's answer to a bulk request does not say what became of it, so it is sent again".to_owned();
        return work.resend(members, code::VENDOR_UNAVAILABLE, message);
    };
    let attributed = bulk.attribute(&work.named(members));
    for (place, failure) in &attributed.failed {
        if let Some(&index) = members.get(*place) {
            work.failed(index, call, *failure, failure.reason());
        }
    }
    let rest: Vec<usize> = members.iter().copied().filter(|&index| work.is_open(index)).collect();
    if attributed.unnamed == 0 || rest.is_empty() {
        return work.delivered_without(&rest, &bulk.filtered_out_fields);
    }
    // Somebody failed and cannot be told from the others; saying "delivered" could be a lie, while saying it all again is harmless.
    let message = format!(
        "the vendor counts {} failed updates that it does not name, so the {} others of the request are sent again",
        attributed.unnamed,
        rest.len()
    );
    tracing::warn!("{message}");
    work.resend(&rest, code::VENDOR_REJECTED, message);
}
