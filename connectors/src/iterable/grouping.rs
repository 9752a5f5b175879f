//! What of a batch is sent together. Pure.
//!
//! A request holds every identifier at most once, since a failure is named by identifier. Deliveries whose fields are in doubt (see
//! [`super::types`]) go in a request of their own, so that they cannot fail the others.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use tailwater_core::delivery::Delivery;

use super::person::{Field, Person};
use super::requests::{self, BULK_BYTES_MAX, BULK_ITEMS_MAX, Call};

/// Bytes that a bulk request has beside its items, and that an event may get for its id.
const FRAME_BYTES: usize = 256;

/// Requests of one kind to one place that can be made together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Together {
    Users,
    Events,
    /// A list, by its id.
    List(Call, String),
    /// A catalog, by its name.
    Catalog(Call, String),
}

/// A batch by what is sent together and what goes by itself. Indexes are positions in the batch, ascending everywhere.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Groups {
    pub alone: Vec<(usize, Call)>,
    pub together: BTreeMap<Together, Vec<usize>>,
    /// Operations that the vendor does not have; none passes the mapping.
    pub unknown: Vec<usize>,
}

// === impl Together ===

impl Together {
    pub const fn call(&self) -> Call {
        match self {
            Self::Users => Call::User,
            Self::Events => Call::Event,
            Self::List(call, _) | Self::Catalog(call, _) => *call,
        }
    }
}

/// Sorts a batch. `in_bulk` decides of users and events whether they go in bulk.
pub(super) fn group(batch: &[Delivery], wanted: &[usize], in_bulk: &dyn Fn(usize, Call) -> bool) -> Groups {
    let mut groups = Groups::default();
    for &index in wanted {
        let Some(delivery) = batch.get(index) else { continue };
        let operation = &delivery.operation;
        let Some(call) = Call::of(operation) else {
            groups.unknown.push(index);
            continue;
        };
        let target = || operation.target.clone().unwrap_or_default();
        let together = match call {
            Call::User => in_bulk(index, call).then_some(Together::Users),
            Call::Event => in_bulk(index, call).then_some(Together::Events),
            Call::AddToList | Call::RemoveFromList => Some(Together::List(call, target())),
            Call::CatalogReplace | Call::CatalogChange | Call::CatalogDelete => {
                requests::catalog_item(operation.body.get()).map(|(catalog, _)| Together::Catalog(call, catalog))
            }
            Call::Purchase
            | Call::Cart
            | Call::UserAddress
            | Call::UpdateEmail
            | Call::Merge
            | Call::Delete
            | Call::Forget
            | Call::Unforget
            | Call::Subscriptions
            | Call::Subscribe
            | Call::Unsubscribe => None,
        };
        match together {
            Some(together) => groups.together.entry(together).or_default().push(index),
            None => groups.alone.push((index, call)),
        }
    }
    groups
}

/// Cuts members into requests that the vendor takes. `part_max` is the most that a request with this member may carry; `doubtful` tells
/// members that may fail their neighbors.
pub(super) fn parts(
    batch: &[Delivery],
    members: &[usize],
    part_max: &dyn Fn(usize) -> usize,
    doubtful: &dyn Fn(usize) -> bool,
) -> Vec<Vec<usize>> {
    let mut by_max: BTreeMap<(bool, Reverse<usize>), Vec<usize>> = BTreeMap::new();
    for &index in members {
        let max = Reverse(part_max(index).clamp(1, BULK_ITEMS_MAX));
        by_max.entry((doubtful(index), max)).or_default().push(index);
    }
    let mut parts = Vec::new();
    for ((_, Reverse(max)), mut waiting) in by_max {
        while !waiting.is_empty() {
            let (part, rest) = part(batch, &waiting, max);
            parts.push(part);
            waiting = rest;
        }
    }
    parts
}

/// The first part of some members, and those that did not fit.
fn part(batch: &[Delivery], members: &[usize], max: usize) -> (Vec<usize>, Vec<usize>) {
    let (mut part, mut rest) = (Vec::new(), Vec::new());
    let mut bytes = FRAME_BYTES;
    let mut names: BTreeSet<Name> = BTreeSet::new();
    for &index in members {
        let body = requests::body(batch, index);
        let more = body.len() + FRAME_BYTES;
        let own = Name::all(body);
        let fits = part.len() < max && (part.is_empty() || bytes + more <= BULK_BYTES_MAX);
        if fits && own.iter().all(|name| !names.contains(name)) {
            names.extend(own);
            part.push(index);
            bytes += more;
        } else {
            rest.push(index);
        }
    }
    (part, rest)
}

/// What a request may hold only once.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    Person(Field, String),
    Item(String),
}

impl Name {
    fn all(body: &str) -> Vec<Self> {
        match Person::of(body).key() {
            Some((field, value)) => vec![Self::Person(field, value)],
            None => requests::catalog_item(body).map(|(_, item)| Self::Item(item)).into_iter().collect(),
        }
    }
}
