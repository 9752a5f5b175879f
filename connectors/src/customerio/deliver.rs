//! A batch → requests → one outcome per delivery, reported as soon as the vendor has answered.
//!
//! Items of all kinds travel together, with three exceptions. Manual segments have addresses of their own. Objects go before everything
//! that needs them, in a request that has been answered: the vendor does not say in which order it carries out a batch. And a relationship
//! to an object that nobody has sent lately, or a merge into a person who may not exist, sends an update without content first.

use std::collections::BTreeMap;

use tailwater_core::code;
use tailwater_core::delivery::{Delivery, Outcome, Reason};
use tailwater_core::operation::OperationKind;

use super::Customerio;
use super::config::Api;
use super::errors;
use super::payload::{Member, Payload};
use super::requests::{self, Item, Segment};
use crate::http::{Answer, Refusal, Session, Work, named, send_parts};
use crate::outcomes::Outcomes;

/// Members of a request that was taken in part, without a word about whom: sent again in up to this many parts.
const PARTS: usize = 8;

/// The deliveries of a batch by how they are sent, as indexes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Groups {
    /// Objects: before those that need them.
    pub objects: Vec<usize>,
    /// Those that need something which may not exist.
    pub needing: Vec<usize>,
    pub others: Vec<usize>,
    /// People who join or leave a segment.
    pub members: Vec<usize>,
}

/// A batch in the form of the API.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    pub items: BTreeMap<usize, Item>,
    /// What must exist before some of the items.
    pub existence: BTreeMap<usize, Item>,
    pub members: BTreeMap<usize, Member>,
    /// Those that cannot be sent, and why.
    pub unfit: Vec<(usize, String)>,
}

impl Customerio {
    pub(super) async fn deliver_batch(&self, batch: &[Delivery], session: &Session<'_>, outcomes: &Outcomes<'_>) {
        let work = Work { session, attempts: &self.attempts, batch, outcomes };
        work.begin();
        let prepared = self.prepare(batch);
        for (index, message) in &prepared.unfit {
            work.set(*index, &Outcome::Rejected(Reason::new(code::OUTPUT_INVALID, message.as_str())));
        }
        let groups = group(batch, &prepared);
        let dependent = async {
            self.send_items(work, &prepared.items, &groups.objects, false).await;
            let unknown = |&index: &usize| {
                let target = batch.get(index).and_then(|delivery| delivery.operation.target.as_ref());
                target.is_none_or(|target| !self.objects.contains(target))
            };
            let first: Vec<usize> = groups.needing.iter().copied().filter(unknown).collect();
            self.send_items(work, &prepared.existence, &first, true).await;
            let ready: Vec<usize> = groups.needing.iter().copied().filter(|&index| work.is_open(index)).collect();
            self.send_items(work, &prepared.items, &ready, false).await;
        };
        let ((), (), ()) = futures_util::join!(
            dependent,
            self.send_items(work, &prepared.items, &groups.others, false),
            send_members(work, &prepared.members, &groups.members),
        );
    }

    /// Gives each delivery its form. Pure.
    pub(super) fn prepare(&self, batch: &[Delivery]) -> Prepared {
        let mut prepared = Prepared::default();
        for (index, delivery) in batch.iter().enumerate() {
            let is_member = matches!(delivery.operation.kind, OperationKind::AddToList | OperationKind::RemoveFromList);
            let member = is_member.then(|| Payload::of(&delivery.operation).and_then(|payload| payload.member()));
            match (member, self.api) {
                (Some(Some(member)), Api::Track) => drop(prepared.members.insert(index, member)),
                (Some(_), Api::Pipelines) => {
                    let message = "manual segments are in the Track API only, and the account says `api: pipelines`";
                    prepared.unfit.push((index, message.to_owned()));
                }
                (Some(None), Api::Track) => {
                    prepared.unfit.push((index, "the recorded operation cannot be read; replay its event".to_owned()));
                }
                (None, api) => match requests::item(api, delivery) {
                    Ok(item) => {
                        prepared.items.insert(index, item);
                        // A call of the Pipelines API creates the object by itself.
                        let wanted = api == Api::Track
                            && (self.config.create || delivery.operation.kind != OperationKind::MergeProfiles);
                        if let Some(first) = requests::existence(delivery).filter(|_| wanted) {
                            prepared.existence.insert(index, first);
                        }
                    }
                    Err(message) => prepared.unfit.push((index, message)),
                },
            }
        }
        prepared
    }

    /// Sends items. With `first`, they only prepare what follows: their deliveries stay open when the vendor has taken them.
    async fn send_items(&self, work: Work<'_>, items: &BTreeMap<usize, Item>, members: &[usize], first: bool) {
        let item = |index: usize| items.get(&index);
        let parts = requests::parts(members, &item, &|index| work.part_max(index));
        let make = |members: &[usize]| {
            let items: Vec<&Item> = members.iter().filter_map(|&index| item(index)).collect();
            requests::send(self.api, &items)
        };
        let taken = |members: &[usize], answer: &Answer| {
            for index in accepted(work, members, answer) {
                self.remember(work, index);
                if !first {
                    work.delivered(index, item(index).and_then(|item| item.remark.as_deref()));
                }
            }
        };
        send_parts(work, parts, &make, &judge, &taken).await;
    }

    /// An object exists once the vendor has taken it, or an update that creates it; not any more once it was deleted.
    fn remember(&self, work: Work<'_>, index: usize) {
        let Some(operation) = work.delivery(index).map(|delivery| &delivery.operation) else { return };
        let Some(target) = operation.target.as_ref().filter(|target| !target.starts_with("device/")) else { return };
        match operation.kind {
            OperationKind::UpsertObject | OperationKind::Relate => self.objects.insert([target.clone()]),
            OperationKind::DeleteObject => self.objects.remove(target),
            _ => {}
        }
    }
}

/// Sorts the deliveries of a batch.
pub(super) fn group(batch: &[Delivery], prepared: &Prepared) -> Groups {
    let mut groups = Groups { members: prepared.members.keys().copied().collect(), ..Groups::default() };
    for &index in prepared.items.keys() {
        let Some(operation) = batch.get(index).map(|delivery| &delivery.operation) else { continue };
        let place = match operation.kind {
            OperationKind::UpsertObject | OperationKind::DeleteObject => &mut groups.objects,
            _ if prepared.existence.contains_key(&index) => &mut groups.needing,
            _ => &mut groups.others,
        };
        place.push(index);
    }
    groups
}

/// The members of a request that the vendor has taken. Those that a 207 lists are rejected, in the vendor's words; where it lists somebody
/// without saying whom, the rest is sent again in parts until it is known. Nothing else of a 207 is ever repeated.
fn accepted(work: Work<'_>, members: &[usize], answer: &Answer) -> Vec<usize> {
    let Some(listed) = errors::listed(answer.status(), answer.body()) else {
        let words = errors::summary(&errors::read(answer.body()));
        let message =
            format!("the vendor took a request in part, and its list of what it refused cannot be read; {words}");
        work.resend(members, code::VENDOR_UNAVAILABLE, message);
        return Vec::new();
    };
    let split = errors::split(listed, members.len());
    for (place, own) in &split.rejected {
        if let Some(&index) = members.get(*place) {
            work.set(index, &Outcome::Rejected(answer.reason(errors::summary(own))));
        }
    }
    let rest: Vec<usize> = (0..members.len())
        .filter(|place| !split.rejected.contains_key(place))
        .filter_map(|place| members.get(place).copied())
        .filter(|&index| work.is_open(index))
        .collect();
    if split.unplaced.is_empty() {
        return rest;
    }
    let words = errors::summary(&split.unplaced);
    let message = format!("the vendor took a request in part and does not say which items it refused; {words}");
    let reason = Reason::new(code::VENDOR_REJECTED, message).with_status(answer.status());
    work.again_in_parts(&rest, members.len().div_ceil(PARTS), None, &reason);
    Vec::new()
}

/// Whom a refusal of a whole request means.
fn judge(answer: &Answer, members: &[usize]) -> Refusal {
    let places =
        errors::read(answer.body()).into_iter().filter_map(|error| Some((error.batch_index?, error.describe())));
    named(answer, members, places)
}

/// People by segment, direction and type of identifier.
pub(super) fn by_segment<'a>(
    batch: &'a [Delivery],
    members: &'a BTreeMap<usize, Member>,
    wanted: &[usize],
) -> BTreeMap<Segment<'a>, Vec<usize>> {
    let mut segments: BTreeMap<Segment<'a>, Vec<usize>> = BTreeMap::new();
    for &index in wanted {
        let (Some(delivery), Some(member)) = (batch.get(index), members.get(&index)) else { continue };
        let segment = Segment {
            id: delivery.operation.target.as_deref().unwrap_or_default(),
            add: delivery.operation.kind == OperationKind::AddToList,
            id_type: &member.id_type,
        };
        segments.entry(segment).or_default().push(index);
    }
    segments
}

async fn send_members(work: Work<'_>, members: &BTreeMap<usize, Member>, wanted: &[usize]) {
    for (segment, people) in by_segment(work.batch, members, wanted) {
        let make = |people: &[usize]| requests::members(segment, people.iter().filter_map(|index| members.get(index)));
        let judge = |answer: &Answer, _: &[usize]| {
            let words = answer.words();
            if answer.status() != 404 && !words.to_lowercase().contains("segment") {
                return Refusal::Opaque(answer.rejection());
            }
            let message = format!(
                "the segment `{}` could not be changed: {words}; is it a manual segment, and is its number right?",
                segment.id
            );
            Refusal::All(answer.reason(message))
        };
        let taken = |people: &[usize], _: &Answer| work.delivered_all(people, None);
        let parts = requests::segment_parts(&people, &|index| work.part_max(index));
        send_parts(work, parts, &make, &judge, &taken).await;
    }
}
