//! A batch → requests → one outcome per delivery, reported as soon as the vendor has answered.
//!
//! Events and few upserts go one by one, many upserts as jobs. A list is joined only after the upsert has succeeded. When the
//! vendor refuses a request with many people in it, those that it points at are rejected and the rest is sent again; when it
//! points at nobody, the request is halved until the guilty are alone. Nobody is rejected for a neighbour's fault.

use std::collections::{BTreeMap, VecDeque};

use futures_util::stream::{self, StreamExt as _};
use serde::Deserialize;
use tailwater_core::delivery::{Delivery, Outcome, Reason, Scope, Ticket};
use tailwater_core::{Code, code};

use super::errors::{self, VendorError};
use super::jobs::JobTicket;
use super::requests::{self, BULK_POINTER, LIST_POINTER, LIST_PROFILES_MAX, Request, body};
use super::session::{Answer, Session};
use super::{Klaviyo, lookup};
use crate::outcomes::Outcomes;

/// Single requests at the same time: at 100 ms an answer this reaches the vendor's 75 a second.
const SINGLES_AT_ONCE: usize = 8;

/// Requests that repairing one refused request may take. With pointers each names all guilty ones at once; without, halving finds
/// one in 5,000 with 25 requests. What is left open at the end is tried again later and finds the guilty gone.
const REPAIRS_MAX: usize = 96;

/// How often the members that are left after taking out the guilty are sent again as a whole, before they are halved as well: a vendor that
/// names one guilty item at a time would otherwise keep everybody waiting.
const POINTED_ROUNDS_MAX: usize = 4;

/// A person whose upsert succeeded and who has lists to join.
struct Joining {
    index: usize,
    profile: String,
}

/// The members of one request.
struct Part {
    members: Vec<usize>,
    pointed_rounds: usize,
}

/// What a refusal means for the members of a request.
enum Refusal {
    /// These are guilty, the others may go on.
    Some(Vec<(usize, Reason)>),
    /// All are, because of what they share.
    All(Reason),
    /// It names nobody.
    Opaque(Reason),
}

pub(super) enum Upserted {
    Done { profile: Option<String> },
    Ended(Outcome),
}

impl Klaviyo {
    pub(super) async fn deliver_batch(&self, batch: &[Delivery], session: &Session<'_>, outcomes: &Outcomes<'_>) {
        if !self.config.create {
            lookup::settle_unknown(self, batch, session, outcomes).await;
        }
        let wanted: Vec<usize> = (0..batch.len()).filter(|&index| outcomes.is_open(index)).collect();
        let groups = requests::group(batch, &wanted, self.config.bulk_from);
        self.send_events(batch, &groups.events, session, outcomes).await;
        self.send_singles(batch, &groups.singles, session, outcomes).await;
        for (lists, members) in &groups.bulk {
            self.send_bulk(batch, lists, members, session, outcomes).await;
        }
    }

    async fn send_events(&self, batch: &[Delivery], members: &[usize], session: &Session<'_>, outcomes: &Outcomes<'_>) {
        let sends = members.iter().filter_map(|&index| batch.get(index).map(|delivery| (index, delivery))).map(
            |(index, delivery)| async move {
                let outcome = match session.send(&requests::event(delivery)).await {
                    Err(halt) => halt.outcome(),
                    Ok(answer) if answer.is_success() => Outcome::Delivered,
                    Ok(answer) => Outcome::Rejected(rejection(&answer)),
                };
                outcomes.set(index, &outcome);
            },
        );
        let _sent: Vec<()> = at_once(sends.collect()).await;
    }

    /// Upserts people one by one, then has them join their lists together.
    pub(super) async fn send_singles(
        &self,
        batch: &[Delivery],
        members: &[usize],
        session: &Session<'_>,
        outcomes: &Outcomes<'_>,
    ) {
        let sends = members.iter().filter_map(|&index| batch.get(index).map(|delivery| (index, delivery))).map(
            |(index, delivery)| async move {
                let upserted = self.upsert_one(delivery, session).await;
                if let Some(outcome) = ended(delivery, &upserted) {
                    outcomes.set(index, &outcome);
                }
                (index, upserted)
            },
        );
        let upserted = at_once(sends.collect()).await;
        self.after_upsert(batch, upserted, session, outcomes).await;
    }

    /// Whoever was upserted joins their lists; everybody has an outcome then.
    pub(super) async fn after_upsert(
        &self,
        batch: &[Delivery],
        people: Vec<(usize, Upserted)>,
        session: &Session<'_>,
        outcomes: &Outcomes<'_>,
    ) {
        let mut joining = Vec::new();
        for (index, upserted) in people {
            if let Some(outcome) = batch.get(index).and_then(|delivery| ended(delivery, &upserted)) {
                outcomes.set(index, &outcome);
            } else if let Upserted::Done { profile: Some(profile) } = upserted {
                joining.push(Joining { index, profile });
            }
        }
        self.join_lists(batch, &joining, session, outcomes).await;
    }

    async fn upsert_one(&self, delivery: &Delivery, session: &Session<'_>) -> Upserted {
        let answer = match session.send(&requests::upsert(delivery.operation.body.get())).await {
            Ok(answer) => answer,
            Err(halt) => return Upserted::Ended(halt.outcome()),
        };
        if is_duplicate(&answer) {
            return self.upsert_with_one_identifier(delivery, answer.errors(), session).await;
        }
        upserted(&answer)
    }

    /// The vendor knows the identifiers as different people. Merging them is a person's decision; the destination's key alone
    /// still says whom the data is about.
    pub(super) async fn upsert_with_one_identifier(
        &self,
        delivery: &Delivery,
        errors: &[VendorError],
        session: &Session<'_>,
    ) -> Upserted {
        let Some(body) = requests::with_one_identifier(&delivery.operation, self.key_field) else {
            return Upserted::Ended(Outcome::Rejected(duplicate(errors)));
        };
        match session.send(&requests::upsert(&body)).await {
            Err(halt) => Upserted::Ended(halt.outcome()),
            Ok(answer) if is_duplicate(&answer) => Upserted::Ended(Outcome::Rejected(duplicate(answer.errors()))),
            Ok(answer) => {
                if answer.is_success() {
                    tracing::warn!(
                        delivery = %delivery.key, field = self.key_field.as_str(),
                        "the vendor knows the identifiers as different people; the profile was updated by the destination's key alone"
                    );
                }
                upserted(&answer)
            }
        }
    }

    /// Adds people to their lists; a person is delivered when all of them are joined.
    async fn join_lists(
        &self,
        batch: &[Delivery],
        joining: &[Joining],
        session: &Session<'_>,
        outcomes: &Outcomes<'_>,
    ) {
        let mut by_list: BTreeMap<&str, Vec<&Joining>> = BTreeMap::new();
        for person in joining {
            for list in batch.get(person.index).map(|delivery| delivery.operation.lists.as_slice()).unwrap_or_default()
            {
                by_list.entry(list).or_default().push(person);
            }
        }
        for (list, people) in by_list {
            let ids: BTreeMap<usize, &str> =
                people.iter().map(|person| (person.index, person.profile.as_str())).collect();
            // Whoever failed to join one list has an outcome, and needs no other.
            let open: Vec<usize> = ids.keys().copied().filter(|&index| outcomes.is_open(index)).collect();
            let make = |members: &[usize]| {
                requests::add_to_list(list, members.iter().filter_map(|index| ids.get(index).copied()))
            };
            let parts = open.chunks(LIST_PROFILES_MAX).map(<[usize]>::to_vec).collect();
            let judge = |answer: &Answer, members: &[usize]| {
                if answer.status == 404 {
                    let words = errors::summary(answer.errors());
                    let message = format!(
                        "the list `{list}` could not be joined, while the profile was updated: {words}; is its id right?"
                    );
                    return Refusal::All(Reason::new(code::VENDOR_REJECTED, message).with_status(404));
                }
                judge(answer, members, LIST_POINTER)
            };
            let _answers = send_parts(parts, session, &make, &judge, outcomes).await;
        }
        for person in joining {
            outcomes.set(person.index, &Outcome::Delivered);
        }
    }

    async fn send_bulk(
        &self,
        batch: &[Delivery],
        lists: &[String],
        members: &[usize],
        session: &Session<'_>,
        outcomes: &Outcomes<'_>,
    ) {
        let make = |members: &[usize]| requests::bulk_import(members.iter().map(|&index| body(batch, index)), lists);
        let judge = |answer: &Answer, members: &[usize]| {
            let about_lists =
                answer.errors().iter().any(|error| error.source.pointer.starts_with("/data/relationships"));
            if about_lists || (answer.status == 404 && !lists.is_empty()) {
                let words = errors::summary(answer.errors());
                let message = format!("the lists {} are refused: {words}; are their ids right?", lists.join(", "));
                return Refusal::All(Reason::new(code::VENDOR_REJECTED, message).with_status(answer.status));
            }
            judge(answer, members, BULK_POINTER)
        };
        for (members, answer) in
            send_parts(requests::bulk_parts(batch, lists, members), session, &make, &judge, outcomes).await
        {
            let outcome = match answer.read::<Identity>() {
                Some(job) => {
                    tracing::debug!(job = %job.data.id, profiles = members.len(), "the vendor has taken a bulk import");
                    Outcome::Accepted(Ticket::from(JobTicket::new(job.data.id, members.len())))
                }
                None => {
                    let reason = Reason::new(
                        code::VENDOR_UNAVAILABLE,
                        "the vendor took a bulk import but named no job to ask for",
                    );
                    Outcome::Retry { after: None, scope: Scope::Delivery, reason: reason.with_status(answer.status) }
                }
            };
            outcomes.set_all(&members, &outcome);
        }
    }
}

/// Sends each part, mending what is refused, and answers the parts that were taken. Everyone else has an outcome then.
async fn send_parts(
    parts: Vec<Vec<usize>>,
    session: &Session<'_>,
    make: &(dyn Fn(&[usize]) -> Request + Sync),
    judge: &(dyn Fn(&Answer, &[usize]) -> Refusal + Sync),
    outcomes: &Outcomes<'_>,
) -> Vec<(Vec<usize>, Answer)> {
    let mut taken = Vec::new();
    let mut repairs_left = REPAIRS_MAX;
    let mut queue: VecDeque<Part> = parts.into_iter().map(|members| Part { members, pointed_rounds: 0 }).collect();
    while let Some(Part { members, pointed_rounds }) = queue.pop_front() {
        if members.is_empty() {
            continue;
        }
        let answer = match session.send(&make(&members)).await {
            Ok(answer) => answer,
            Err(halt) => {
                outcomes.set_all(&members, &halt.outcome());
                continue;
            }
        };
        if answer.is_success() {
            taken.push((members, answer));
            continue;
        }
        let (rest, halve) = match judge(&answer, &members) {
            Refusal::All(reason) => {
                outcomes.set_all(&members, &Outcome::Rejected(reason));
                continue;
            }
            Refusal::Opaque(reason) if members.len() == 1 => {
                outcomes.set_all(&members, &Outcome::Rejected(reason));
                continue;
            }
            Refusal::Opaque(_) => (members, true),
            Refusal::Some(guilty) => {
                for (index, reason) in guilty {
                    outcomes.set(index, &Outcome::Rejected(reason));
                }
                let rest: Vec<usize> = members.into_iter().filter(|&index| outcomes.is_open(index)).collect();
                (rest, pointed_rounds >= POINTED_ROUNDS_MAX)
            }
        };
        if repairs_left < 2 {
            let message = format!(
                "the vendor refuses a request with {} items, and finding the guilty ones took too long",
                rest.len()
            );
            let reason = Reason::new(code::VENDOR_REJECTED, message).with_status(answer.status);
            outcomes.set_all(&rest, &Outcome::Retry { after: None, scope: Scope::Delivery, reason });
            continue;
        }
        if halve && rest.len() > 1 {
            let (one, other) = rest.split_at(rest.len() / 2);
            repairs_left -= 2;
            for half in [one, other] {
                queue.push_back(Part { members: half.to_vec(), pointed_rounds: 0 });
            }
        } else {
            repairs_left -= 1;
            queue.push_back(Part { members: rest, pointed_rounds: pointed_rounds + 1 });
        }
    }
    taken
}

/// Whom a refusal means.
fn judge(answer: &Answer, members: &[usize], pointer: &str) -> Refusal {
    let mut guilty: BTreeMap<usize, Reason> = BTreeMap::new();
    for error in answer.errors() {
        if let Some(&index) = error.index_below(pointer).and_then(|place| members.get(place)) {
            guilty
                .entry(index)
                .or_insert_with(|| Reason::new(code_of(answer.status), error.describe()).with_status(answer.status));
        }
    }
    if guilty.is_empty() { Refusal::Opaque(rejection(answer)) } else { Refusal::Some(guilty.into_iter().collect()) }
}

fn code_of(status: u16) -> Code {
    if status == 413 { code::PAYLOAD_TOO_LARGE } else { code::VENDOR_REJECTED }
}

fn rejection(answer: &Answer) -> Reason {
    Reason::new(code_of(answer.status), errors::summary(answer.errors())).with_status(answer.status)
}

fn is_duplicate(answer: &Answer) -> bool {
    answer.status == 409 && answer.errors().iter().any(VendorError::is_duplicate_profile)
}

pub(super) fn duplicate(errors: &[VendorError]) -> Reason {
    let other = errors.iter().map(|error| error.meta.duplicate_profile_id.as_str()).find(|id| !id.is_empty());
    let other = other.map_or(String::new(), |id| format!(" (the other one is {id})"));
    let message = format!(
        "the vendor knows these identifiers as different people{other}; merge them there, or let the transform send one identifier only; {}",
        errors::summary(errors)
    );
    Reason::new(code::DUPLICATE_PROFILE, message).with_status(409)
}

/// The outcome of an upsert; `None` if the person has lists to join first.
fn ended(delivery: &Delivery, upserted: &Upserted) -> Option<Outcome> {
    match upserted {
        Upserted::Ended(outcome) => Some(outcome.clone()),
        Upserted::Done { .. } if delivery.operation.lists.is_empty() => Some(Outcome::Delivered),
        Upserted::Done { profile: Some(_) } => None,
        Upserted::Done { profile: None } => {
            let reason = Reason::new(
                code::VENDOR_UNAVAILABLE,
                "the vendor's answer to the upsert holds no id, so the lists could not be joined",
            );
            Some(Outcome::Retry { after: None, scope: Scope::Delivery, reason })
        }
    }
}

fn upserted(answer: &Answer) -> Upserted {
    if answer.is_success() {
        Upserted::Done { profile: answer.read::<Identity>().map(|answer| answer.data.id) }
    } else {
        Upserted::Ended(Outcome::Rejected(rejection(answer)))
    }
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

/// Runs single requests, a few at the same time.
async fn at_once<T>(sends: Vec<impl Future<Output = T>>) -> Vec<T> {
    stream::iter(sends).buffer_unordered(SINGLES_AT_ONCE).collect().await
}
