//! A batch → requests → one outcome per delivery, reported as soon as the vendor has answered.
//!
//! Events and few upserts go one by one, many upserts as jobs, all at the same time: what one endpoint keeps waiting does not keep the
//! others. An upsert that its endpoint has no room for goes as a job instead, where its body may. A list is joined only after the upsert
//! has succeeded, and an upsert that has succeeded is not repeated because a list could not be joined.

use std::collections::BTreeMap;

use serde::Deserialize;
use tailwater_core::code;
use tailwater_core::delivery::{Delivery, Outcome, Reason, Scope, Ticket};

use super::errors::{self, VendorError, judge};
use super::grouping::{self, Grouping};
use super::jobs::JobTicket;
use super::requests::{self, BULK_POINTER, LIST_POINTER, LIST_PROFILES_MAX};
use super::work::{Upserted, Work};
use super::{Klaviyo, OnConflict, endpoint, lookup, payload};
use crate::http::limit::GATE_WAIT_MAX;
use crate::http::{Answer, Refusal, Session, at_once, cut, send_parts};
use crate::outcomes::Outcomes;

/// Single requests at the same time: at 100 ms an answer this reaches the vendor's 75 a second.
const SINGLES_AT_ONCE: usize = 8;

/// Upserts after which the people among them join their lists: whoever is through must not wait for thousands behind.
const SINGLES_PER_JOIN: usize = 200;

/// Jobs that are handed over at the same time.
const JOBS_AT_ONCE: usize = 4;

/// What a single upsert has come to.
pub(super) enum Single {
    Done(Upserted),
    /// The endpoint has no room for it now.
    NoRoom,
    Ended,
}

impl Klaviyo {
    pub(super) async fn deliver_batch(&self, batch: &[Delivery], session: &Session<'_>, outcomes: &Outcomes<'_>) {
        let work = self.work(batch, session, outcomes);
        work.begin();
        if !self.config.create {
            lookup::settle_unknown(work).await;
        }
        let wanted = work.all_open();
        let prefer_jobs = self.sender.account().limiter.gate_remaining(&endpoint::PROFILE_IMPORT) > GATE_WAIT_MAX;
        let alone = |index: usize| {
            let attempt = batch.get(index).map(|delivery| self.attempts.get(delivery.key)).unwrap_or_default();
            attempt.own.upserted.is_some() || (attempt.part_max == Some(1) && !prefer_jobs)
        };
        let grouping = Grouping { bulk_from: self.config.bulk_from, prefer_jobs, alone: &alone };
        let groups = grouping::group(batch, &wanted, &grouping);
        let singles = async {
            let left = send_singles(work, groups.singles).await;
            send_jobs(work, grouping::by_lists(batch, &left)).await;
        };
        let ((), (), ()) = futures_util::join!(send_events(work, groups.events), singles, send_jobs(work, groups.bulk));
    }
}

async fn send_events(work: Work<'_>, mut members: Vec<usize>) {
    work.suspects_last(&mut members);
    let sends = members.iter().filter_map(|&index| work.delivery(index).map(|delivery| (index, delivery))).map(
        |(index, delivery)| async move {
            if let Some(answer) = work.send_one(&requests::event(delivery), index).await {
                work.delivered(index, answer.remark());
            }
        },
    );
    let _sent: Vec<()> = at_once(sends.collect(), SINGLES_AT_ONCE).await;
}

/// Upserts people one by one; whoever has lists joins them then. Answers those whom the endpoint has no room for and who may go as a job.
async fn send_singles(work: Work<'_>, mut members: Vec<usize>) -> Vec<usize> {
    work.suspects_last(&mut members);
    let mut left = Vec::new();
    for chunk in members.chunks(SINGLES_PER_JOIN) {
        let sends = chunk.iter().filter_map(|&index| work.delivery(index).map(|delivery| (index, delivery))).map(
            |(index, delivery)| async move {
                let single = upsert_one(work, index, delivery).await;
                if let Single::Done(upserted) = &single
                    && !payload::has_lists(delivery.operation.body.get())
                {
                    work.delivered(index, upserted.remark.as_deref());
                }
                (index, single)
            },
        );
        let mut joining = Vec::new();
        for (index, single) in at_once(sends.collect(), SINGLES_AT_ONCE).await {
            match single {
                Single::Done(upserted) if work.is_open(index) => joining.push((index, upserted)),
                Single::Done(_) | Single::Ended => {}
                Single::NoRoom => left.push(index),
            }
        }
        joining.sort_unstable_by_key(|(index, _)| *index);
        join_lists(work, joining).await;
    }
    left.sort_unstable();
    left
}

async fn upsert_one(work: Work<'_>, index: usize, delivery: &Delivery) -> Single {
    if let Some(upserted) = work.klaviyo.attempts.get(delivery.key).own.upserted {
        return Single::Done(upserted);
    }
    if !work.session.has_time() {
        work.not_sent(index);
        return Single::Ended;
    }
    let body = payload::profile(delivery.operation.body.get());
    let answer = match work.send(&requests::upsert(&body), &[index]).await {
        Ok(answer) => answer,
        Err(halt) => {
            if halt.scope == Scope::Endpoint && !halt.failed && grouping::for_job(body.as_ref()).is_some() {
                return Single::NoRoom;
            }
            work.halted(&endpoint::PROFILE_IMPORT, &[index], &halt);
            return Single::Ended;
        }
    };
    if is_duplicate(&answer) {
        return conflict(work, index, &errors::of(&answer)).await;
    }
    upserted(work, index, &answer, None)
}

/// The vendor knows the identifiers as different people. Merging them is a person's decision. `on_conflict` says whether the data may go to
/// the one whom the destination's key names; that is stated with the delivery, and with `create: false` the key must be known.
pub(super) async fn conflict(work: Work<'_>, index: usize, errors: &[VendorError]) -> Single {
    let reject = || {
        work.set(index, &Outcome::Rejected(duplicate(errors)));
        Single::Ended
    };
    let key = work.klaviyo.key_field;
    let Some(delivery) = work.delivery(index).filter(|_| work.klaviyo.config.on_conflict == OnConflict::KeyOnly) else {
        return reject();
    };
    let Some((body, left_out)) = requests::with_one_identifier(&delivery.operation, key) else { return reject() };
    if !work.klaviyo.config.create {
        match lookup::is_known(work, index, key).await {
            Some(true) => {}
            Some(false) => return reject(),
            None => return Single::Ended,
        }
    }
    match work.send(&requests::upsert(&body), &[index]).await {
        Err(halt) => {
            work.halted(&endpoint::PROFILE_IMPORT, &[index], &halt);
            Single::Ended
        }
        Ok(answer) if is_duplicate(&answer) => {
            work.set(index, &Outcome::Rejected(duplicate(&errors::of(&answer))));
            Single::Ended
        }
        Ok(answer) => {
            let remark = format!(
                "the vendor knows the identifiers as different people{}; the profile was updated by `{}` alone, without {}",
                other_profile(errors),
                key.as_str(),
                left_out.join(" and ")
            );
            upserted(work, index, &answer, Some(remark))
        }
    }
}

/// Adds people to their lists; a person is delivered when all of them are joined. What was joined at an earlier attempt is not repeated.
pub(super) async fn join_lists(work: Work<'_>, people: Vec<(usize, Upserted)>) {
    let mut ids: BTreeMap<usize, &str> = BTreeMap::new();
    let mut by_list: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (index, upserted) in &people {
        let Some(delivery) = work.delivery(*index) else { continue };
        let Some(profile) = &upserted.profile else {
            let message = "the vendor's answer to the upsert holds no id, so the lists could not be joined";
            let reason = Reason::new(code::VENDOR_UNAVAILABLE, message);
            work.set(*index, &Outcome::Retry { after: None, scope: Scope::Delivery, reason });
            continue;
        };
        ids.insert(*index, profile);
        let joined = work.klaviyo.attempts.get(delivery.key).own.joined;
        for list in payload::lists(delivery.operation.body.get()).into_iter().filter(|list| !joined.contains(list)) {
            by_list.entry(list).or_default().push(*index);
        }
    }
    for (list, members) in by_list {
        // Whoever failed to join one list has an outcome, and nothing more is sent for them.
        let open: Vec<usize> = members.into_iter().filter(|&index| work.is_open(index)).collect();
        let make = |members: &[usize]| {
            requests::add_to_list(&list, members.iter().filter_map(|index| ids.get(index).copied()))
        };
        let parts = cut(&open, LIST_PROFILES_MAX, &|index| work.part_max(index));
        let judge = |answer: &Answer, members: &[usize]| {
            if answer.status() == 404
                && !errors::of(answer).iter().any(|error| error.index_below(LIST_POINTER).is_some())
            {
                let words = answer.words();
                let message = format!(
                    "the list `{list}` could not be joined, while the profile was updated: {words}; is its id right?"
                );
                return Refusal::All(Reason::new(code::VENDOR_REJECTED, message).with_status(404));
            }
            judge(answer, members, LIST_POINTER)
        };
        let joined = |members: &[usize], _: &Answer| {
            for delivery in members.iter().filter_map(|&index| work.delivery(index)) {
                work.klaviyo.attempts.update(delivery.key, |attempt| attempt.own.joined.insert(list.clone()));
            }
        };
        send_parts(work.shared, parts, &make, &judge, &joined).await;
    }
    for (index, upserted) in people {
        if work.is_open(index) {
            work.delivered(index, upserted.remark.as_deref());
        }
    }
}

/// Upserts people by jobs, one or more for each exact list set.
async fn send_jobs(work: Work<'_>, groups: Vec<(Vec<String>, Vec<usize>)>) {
    let sends = groups.into_iter().map(|(lists, members)| async move { send_job(work, &lists, &members).await });
    let _sent: Vec<()> = at_once(sends.collect(), JOBS_AT_ONCE).await;
}

async fn send_job(work: Work<'_>, lists: &[String], members: &[usize]) {
    let make = |members: &[usize]| requests::bulk_import(grouping::job_bodies(work.batch, members), lists);
    let judge = |answer: &Answer, members: &[usize]| {
        let about_lists =
            errors::of(answer).iter().any(|error| error.source.pointer.starts_with("/data/relationships"));
        if about_lists || (answer.status() == 404 && !lists.is_empty()) {
            let words = answer.words();
            let message = format!("the lists {} are refused: {words}; are their ids right?", lists.join(", "));
            return Refusal::All(Reason::new(code::VENDOR_REJECTED, message).with_status(answer.status()));
        }
        judge(answer, members, BULK_POINTER)
    };
    let taken = |members: &[usize], answer: &Answer| match answer.read::<Identity>() {
        Some(job) => {
            tracing::debug!(job = %job.data.id, profiles = members.len(), "the vendor has taken a bulk import");
            let ticket = Ticket::from(JobTicket::new(job.data.id, members.len(), answer.remark().map(str::to_owned)));
            work.set_all(members, &Outcome::Accepted(ticket));
        }
        None => {
            let message = "the vendor took a bulk import but named no job to ask for";
            let reason = Reason::new(code::VENDOR_UNAVAILABLE, message).with_status(answer.status());
            work.set_all(members, &Outcome::Retry { after: None, scope: Scope::Delivery, reason });
        }
    };
    let parts = grouping::bulk_parts(work.batch, lists, members, &|index| work.part_max(index));
    send_parts(work.shared, parts, &make, &judge, &taken).await;
}

fn is_duplicate(answer: &Answer) -> bool {
    answer.status() == 409 && errors::of(answer).iter().any(VendorError::is_duplicate_profile)
}

fn other_profile(errors: &[VendorError]) -> String {
    let other = errors.iter().map(|error| error.meta.duplicate_profile_id.as_str()).find(|id| !id.is_empty());
    other.map_or(String::new(), |id| format!(" (the other one is {id})"))
}

pub(super) fn duplicate(errors: &[VendorError]) -> Reason {
    let message = format!(
        "the vendor knows these identifiers as different people{}; merge them there, or let the transform send one identifier only; {}",
        other_profile(errors),
        errors::summary(errors)
    );
    Reason::new(code::DUPLICATE_PROFILE, message).with_status(409)
}

/// What the answer to an upsert means; a success is remembered until the person's lists are joined.
fn upserted(work: Work<'_>, index: usize, answer: &Answer, remark: Option<String>) -> Single {
    if !answer.is_success() {
        work.set(index, &Outcome::Rejected(answer.rejection()));
        return Single::Ended;
    }
    let profile = answer.read::<Identity>().map(|answer| answer.data.id);
    let remarks: Vec<String> = remark.into_iter().chain(answer.remark().map(str::to_owned)).collect();
    let upserted = Upserted { profile, remark: (!remarks.is_empty()).then(|| remarks.join("; ")) };
    let with_lists = work.delivery(index).filter(|delivery| payload::has_lists(delivery.operation.body.get()));
    if let Some(delivery) = with_lists.filter(|_| upserted.profile.is_some()) {
        work.klaviyo.attempts.update(delivery.key, |attempt| {
            attempt.own.upserted = Some(upserted.clone());
            // The list call is another request, which nobody has failed together with.
            (attempt.part_max, attempt.failed) = (None, None);
        });
    }
    Single::Done(upserted)
}

/// `{"data":{"id":"…"}}`: all that is read of an answer that names something.
#[derive(Deserialize)]
struct Identity {
    data: IdentityData,
}

#[derive(Deserialize)]
struct IdentityData {
    id: String,
}
