//! What send remembers: what was delivered last, and which deliveries run in a job of the vendor.
//!
//! ```text
//! 'l' profile hash8     the last delivery of one state or fact of the person: see `last_key`
//! 'j' delivery key      the job that the delivery runs in, and its place among the job's members
//! 'd' merge             the fence of this merge was passed; nine bytes for each merge of two people, kept for good
//! ```
//! Beside them lie the keys of `stages::held`, for records that wait behind a merge, those of `finished` and those of `facts`. What
//! was delivered last moves to the survivor when a profile is absorbed (`handover`).

use serde::{Deserialize, Serialize};
use tailwater_core::delivery::{Delivery, Ticket};
use tailwater_core::ids::ContentHash;
use tailwater_core::operation::{OperationKind, State};
use tailwater_core::{Code, DeliveryKey, ProfileId, SourcePosition, code, hex};

use crate::state::{self, Map};

pub(super) const LAST: u8 = b'l';
const JOB: u8 = b'j';
const PASSED: u8 = b'd';

/// What was delivered last. Frozen: state topics hold it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Last {
    key: DeliveryKey,
    content: ContentHash,
    /// Table generation, version and ordinal; or topic, partition and offset.
    #[serde(skip_serializing_if = "Option::is_none")]
    table: Option<(u32, u64, u64)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<(String, i32, i64)>,
    /// Whose position it is, where several sources speak of one state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    /// Whether the person was put on the list or taken off it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    member: Option<bool>,
}

impl Last {
    fn position(&self) -> Option<SourcePosition<'_>> {
        match (&self.table, &self.log) {
            (Some((generation, version, ordinal)), _) => {
                Some(SourcePosition::Table { generation: *generation, version: *version, ordinal: *ordinal })
            }
            (None, Some((topic, partition, offset))) => {
                Some(SourcePosition::Log(tailwater_core::Coordinates { topic, partition: *partition, offset: *offset }))
            }
            (None, None) => None,
        }
    }
}

/// A delivery's place in a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobMember {
    pub ticket: Ticket,
    pub place: usize,
    /// Attempts that were made when the job took it.
    pub attempt: u32,
}

/// What names the state of which a delivery is one version.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    pub partition: i32,
    pub source: &'a str,
    pub row_key: &'a [u8],
    pub position: Option<SourcePosition<'a>>,
}

/// Why a delivery need not be made.
///
/// # Errors
/// The state could not be read.
pub fn needless(
    store: &impl Map,
    subject: &Subject<'_>,
    delivery: &Delivery,
    skip_unchanged: bool,
) -> Result<Option<Code>, state::Error> {
    let Some(last) = last(store, subject, delivery)? else { return Ok(None) };
    if last.key == delivery.key {
        let repeated = is_another_row(&last, subject) && last.content != content(delivery);
        return Ok(Some(if repeated { code::KEY_REPEATED } else { code::DUPLICATE }));
    }
    let kind = delivery.operation.kind;
    if !kind.is_state() {
        return Ok(None);
    }
    if last.source.as_deref().is_none_or(|source| source == subject.source)
        && let (Some(known), Some(position)) = (last.position(), &subject.position)
        && position.compare(&known).is_some_and(std::cmp::Ordering::is_lt)
    {
        return Ok(Some(code::SUPERSEDED));
    }
    // A list that the person is on already is not joined again, whatever is asked of updates.
    let skip_unchanged = skip_unchanged || kind.state() == Some(State::Membership);
    if skip_unchanged && last.content == content(delivery) {
        return Ok(Some(code::UNCHANGED));
    }
    Ok(None)
}

/// Whether a delivery of the same key is of another row. The place alone does not say so: a rewritten file may list its rows in another order.
fn is_another_row(last: &Last, subject: &Subject<'_>) -> bool {
    match (&last.table, &subject.position) {
        (Some(known), Some(SourcePosition::Table { generation, version, ordinal })) => {
            (known.0, known.1) == (*generation, *version) && known.2 != *ordinal
        }
        _ => false,
    }
}

fn last(store: &impl Map, subject: &Subject<'_>, delivery: &Delivery) -> Result<Option<Last>, state::Error> {
    store.get_json(subject.partition, &last_key(subject, delivery), "what was delivered last")
}

/// Remembers that a delivery was made.
///
/// # Errors
/// The partition is not restored.
pub fn remember(store: &mut impl Map, subject: &Subject<'_>, delivery: &Delivery) -> Result<(), state::Error> {
    let (table, log) = match &subject.position {
        Some(SourcePosition::Table { generation, version, ordinal }) => (Some((*generation, *version, *ordinal)), None),
        Some(SourcePosition::Log(at)) => (None, Some((at.topic.to_owned(), at.partition, at.offset))),
        None => (None, None),
    };
    let source = is_switch(delivery.operation.kind).then(|| subject.source.to_owned());
    let member = member(delivery.operation.kind);
    let last = Last { key: delivery.key, content: content(delivery), table, log, source, member };
    // Strings and numbers into memory: serialising them has no way to fail.
    store.put(subject.partition, last_key(subject, delivery), Some(serde_json::to_vec(&last).unwrap_or_default()))
}

fn content(delivery: &Delivery) -> ContentHash {
    let body = delivery.operation.body.get().as_bytes();
    if delivery.operation.kind == OperationKind::UpsertProfile {
        return ContentHash::of(body);
    }
    // An operation and the one that undoes it can have the same body.
    let mut bytes = delivery.operation.kind.as_str().as_bytes().to_vec();
    bytes.push(0);
    bytes.extend_from_slice(body);
    ContentHash::of(&bytes)
}

/// Whether an operation puts a person on a list or takes them off.
const fn member(kind: OperationKind) -> Option<bool> {
    match kind {
        OperationKind::AddToList => Some(true),
        OperationKind::RemoveFromList => Some(false),
        OperationKind::UpsertProfile
        | OperationKind::TrackEvent
        | OperationKind::DeleteProfile
        | OperationKind::MergeProfiles
        | OperationKind::ChangeIdentifier
        | OperationKind::Subscribe
        | OperationKind::Unsubscribe
        | OperationKind::Suppress
        | OperationKind::Unsuppress
        | OperationKind::UpsertObject
        | OperationKind::DeleteObject
        | OperationKind::Relate
        | OperationKind::Unrelate
        | OperationKind::UpsertCatalogItem
        | OperationKind::DeleteCatalogItem
        | OperationKind::Request
        | OperationKind::Record => None,
    }
}

fn is_switch(kind: OperationKind) -> bool {
    kind.state().is_some_and(State::is_switch)
}

/// The last delivery of each subject of a profile, by the subject's hash in hex.
///
/// # Errors
/// The state could not be read.
pub(super) fn all_last(
    store: &impl Map,
    partition: i32,
    profile: ProfileId,
) -> Result<Vec<(String, Last)>, state::Error> {
    let prefix = profile_prefix(profile);
    let mut all = Vec::new();
    for (key, value) in store.scan(partition, &prefix)? {
        let last: Last = serde_json::from_slice(&value)
            .map_err(|error| store.damaged(partition, &key, "what was delivered last", &error))?;
        all.push((hex(key.get(prefix.len()..).unwrap_or_default()), last));
    }
    Ok(all)
}

/// Forgets what was delivered last to a profile: it was handed over to another one.
///
/// # Errors
/// The partition is not restored.
pub(super) fn drop_profile(store: &mut impl Map, partition: i32, profile: ProfileId) -> Result<(), state::Error> {
    let mut keys = Vec::new();
    store.each_key(partition, &profile_prefix(profile), |key| keys.push(key.to_vec()))?;
    keys.into_iter().try_for_each(|key| store.put(partition, key, None))
}

/// Remembers for the survivor of a merge what was delivered last to the absorbed profile, unless the survivor's own is newer or
/// the two cannot be compared. Of two memberships of one list the one that is on stands, whichever is newer: the lists of the two people
/// are united, and a remove that follows is delivered.
///
/// # Errors
/// The partition is not restored.
pub(super) fn take_over(
    store: &mut impl Map,
    partition: i32,
    survivor: ProfileId,
    subject: &str,
    last: &Last,
) -> Result<(), state::Error> {
    let mut key = profile_prefix(survivor);
    key.extend(unhex(subject));
    let own: Option<Last> = store.get_json(partition, &key, "what was delivered last")?;
    if let Some(own) = own {
        let (mine, theirs) = (own.member, last.member);
        if mine == Some(true) && theirs == Some(false) {
            return Ok(());
        }
        let joins = mine == Some(false) && theirs == Some(true);
        let newer = own.position().zip(last.position()).and_then(|(own, other)| other.compare(&own));
        if !joins && newer.is_none_or(std::cmp::Ordering::is_le) {
            return Ok(());
        }
    }
    // Strings and numbers into memory: serializing them has no way to fail.
    store.put(partition, key, Some(serde_json::to_vec(last).unwrap_or_default()))
}

fn profile_prefix(profile: ProfileId) -> Vec<u8> {
    let mut key = vec![LAST];
    key.extend_from_slice(profile.as_bytes());
    key
}

fn unhex(text: &str) -> impl Iterator<Item = u8> {
    text.as_bytes()
        .chunks(2)
        .filter_map(|pair| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok()))
}

/// What a delivery is one version of. A switch (a list membership) is the person's: one for each target, whichever route, row or output
/// speaks of it. Everything else has parts that only its own route, row and place know of, so each has its own.
fn last_key(subject: &Subject<'_>, delivery: &Delivery) -> Vec<u8> {
    let operation = &delivery.operation;
    let (kind, target) = (operation.kind, operation.target.as_deref().unwrap_or_default().as_bytes());
    let state = kind.state().map_or(kind.as_str(), State::as_str).as_bytes();
    let mut parts = vec![];
    if is_switch(kind) {
        parts.extend([state, target]);
    } else {
        let place = operation.place.as_bytes();
        parts.extend([operation.route.as_bytes(), state, subject.source.as_bytes(), subject.row_key, place]);
        if operation.target.is_some() {
            parts.push(target);
        }
    }
    let mut name = Vec::new();
    for part in parts {
        name.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        name.extend_from_slice(part);
    }
    let mut key = profile_prefix(delivery.profile);
    key.extend_from_slice(&ContentHash::of(&name).as_bytes()[..8]);
    key
}

fn job_key(key: DeliveryKey) -> Vec<u8> {
    let mut bytes = vec![JOB];
    bytes.extend_from_slice(key.as_bytes());
    bytes
}

/// The job that a delivery runs in, if an earlier owner of the partition has started one.
///
/// # Errors
/// The state could not be read.
pub fn job_of(store: &impl Map, partition: i32, key: DeliveryKey) -> Result<Option<JobMember>, state::Error> {
    store.get_json(partition, &job_key(key), "a delivery's job")
}

/// Writes down, or forgets, that a delivery runs in a job.
///
/// # Errors
/// The partition is not restored.
pub fn set_job(
    store: &mut impl Map,
    partition: i32,
    key: DeliveryKey,
    member: Option<&JobMember>,
) -> Result<(), state::Error> {
    let value = member.map(|member| serde_json::to_vec(member).unwrap_or_default());
    store.put(partition, job_key(key), value)
}

fn passed_key(merge: u64) -> Vec<u8> {
    let mut key = vec![PASSED];
    key.extend_from_slice(&merge.to_be_bytes());
    key
}

/// The fence of a merge was passed: its hold need not wait, whenever it is read.
///
/// # Errors
/// The partition is not restored.
pub fn set_passed(store: &mut impl Map, partition: i32, merge: u64) -> Result<(), state::Error> {
    if is_passed(store, partition, merge)? {
        return Ok(());
    }
    store.put(partition, passed_key(merge), Some(Vec::new()))
}

/// # Errors
/// The state could not be read.
pub fn is_passed(store: &impl Map, partition: i32, merge: u64) -> Result<bool, state::Error> {
    Ok(store.get(partition, &passed_key(merge))?.is_some())
}

/// The subject's profile partition, for callers that only have the profile.
pub fn partition_of(profile: ProfileId, partitions: u32) -> i32 {
    i32::try_from(profile.partition(partitions)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;
    use tailwater_core::operation::Operation;
    use tailwater_core::{Coordinates, EventId};

    use super::*;
    use crate::state::Store;

    fn delivery(event: &str, kind: OperationKind, place: &str, body: &str) -> Delivery {
        let event = EventId::of_fact("w", "ltv", event);
        Delivery {
            key: DeliveryKey::of(event, "klaviyo", "ltv", kind.as_str(), place),
            profile: ProfileId::of("w", "email", "a@b.c", 0),
            event,
            time: tailwater_core::Timestamp::default(),
            position: None,
            identifiers: vec![],
            backfill: false,
            attempt: 1,
            operation: Operation {
                kind,
                route: "ltv".into(),
                place: place.into(),
                body: RawValue::from_string(body.into()).unwrap(),
                target: None,
                non_finite: vec![],
            },
        }
    }

    fn at(version: u64) -> Subject<'static> {
        let position = Some(SourcePosition::Table { generation: 1, version, ordinal: 0 });
        Subject { partition: 0, source: "ltv", row_key: b"c1", position }
    }

    #[test]
    fn a_repeat_is_a_duplicate_and_an_older_state_is_superseded() {
        let (mut store, _folder) = Store::without_broker(&[0]);
        let kind = OperationKind::UpsertProfile;
        let newer = delivery("b", kind, "0", "{\"a\":2}");
        assert_eq!(needless(&store, &at(4), &newer, false).unwrap(), None);
        remember(&mut store, &at(4), &newer).unwrap();
        assert_eq!(needless(&store, &at(4), &newer, false).unwrap(), Some(code::DUPLICATE));
        let older = delivery("a", kind, "0", "{\"a\":1}");
        assert_eq!(needless(&store, &at(3), &older, false).unwrap(), Some(code::SUPERSEDED));
        // Another row's state has its own memory, and so has another operation of the same event.
        let other = Subject { row_key: b"c2", ..at(3) };
        assert_eq!(needless(&store, &other, &older, false).unwrap(), None);
        assert_eq!(needless(&store, &at(3), &delivery("a", kind, "1", "{}"), false).unwrap(), None);
    }

    #[test]
    fn a_second_row_of_one_key_in_one_version_is_told_from_a_repeat() {
        let (mut store, _folder) = Store::without_broker(&[0]);
        let kind = OperationKind::UpsertProfile;
        remember(&mut store, &at(4), &delivery("b", kind, "0", "{\"a\":1}")).unwrap();
        let position = Some(SourcePosition::Table { generation: 1, version: 4, ordinal: 7 });
        let second = Subject { position, ..at(4) };
        let needless = |body| needless(&store, &second, &delivery("b", kind, "0", body), false).unwrap();
        assert_eq!(needless("{\"a\":2}"), Some(code::KEY_REPEATED));
        // The same row in a rewritten file stands elsewhere.
        assert_eq!(needless("{\"a\":1}"), Some(code::DUPLICATE));
    }

    /// Issue 10: v5 was delivered under B, A absorbs B, and a replay of v4 arrives under A.
    #[test]
    fn what_was_delivered_to_an_absorbed_profile_supersedes_under_the_survivor() {
        let (mut store, _folder) = Store::without_broker(&[0]);
        let kind = OperationKind::UpsertProfile;
        let (absorbed, survivor) = (ProfileId::of("w", "id", "b", 0), ProfileId::of("w", "id", "a", 0));
        let under = |profile, event, body| Delivery { profile, ..delivery(event, kind, "0", body) };
        remember(&mut store, &at(5), &under(absorbed, "v5", "{\"a\":5}")).unwrap();
        let own = Subject { row_key: b"c2", ..at(7) };
        remember(&mut store, &own, &under(survivor, "own", "{}")).unwrap();
        for (subject, last) in all_last(&store, 0, absorbed).unwrap() {
            take_over(&mut store, 0, survivor, &subject, &last).unwrap();
        }
        drop_profile(&mut store, 0, absorbed).unwrap();
        let replayed = under(survivor, "v4", "{\"a\":4}");
        assert_eq!(needless(&store, &at(4), &replayed, false).unwrap(), Some(code::SUPERSEDED));
        assert_eq!(needless(&store, &at(6), &replayed, false).unwrap(), None);
        assert!(all_last(&store, 0, absorbed).unwrap().is_empty());
        // What the survivor was sent later is not overwritten by what comes with a merge.
        let older = Subject { row_key: b"c2", ..at(3) };
        remember(&mut store, &older, &under(absorbed, "old", "{}")).unwrap();
        for (subject, last) in all_last(&store, 0, absorbed).unwrap() {
            take_over(&mut store, 0, survivor, &subject, &last).unwrap();
        }
        let between = Subject { row_key: b"c2", ..at(5) };
        assert_eq!(needless(&store, &between, &replayed, false).unwrap(), Some(code::SUPERSEDED));
    }

    #[test]
    fn equal_content_is_skipped_only_where_it_is_asked_for() {
        let (mut store, _folder) = Store::without_broker(&[0]);
        let kind = OperationKind::UpsertProfile;
        remember(&mut store, &at(4), &delivery("b", kind, "0", "{}")).unwrap();
        let same = delivery("c", kind, "0", "{}");
        assert_eq!(needless(&store, &at(5), &same, true).unwrap(), Some(code::UNCHANGED));
        assert_eq!(needless(&store, &at(5), &same, false).unwrap(), None);
    }

    // Issue 12: membership of a list is a state of the person.
    #[test]
    fn an_add_that_equals_the_last_delivered_one_is_unchanged_and_a_remove_after_it_is_delivered() {
        use OperationKind::{AddToList, RemoveFromList};
        let (mut store, _folder) = Store::without_broker(&[0]);
        let membership = |event: &str, kind, place: &str, target: &str| {
            let mut delivery = delivery(event, kind, place, r#"{"email":"a@b.c"}"#);
            delivery.operation.target = Some(target.to_owned());
            delivery
        };
        let check = |store: &Store, subject: &Subject<'_>, delivery: &Delivery| {
            needless(store, subject, delivery, false).unwrap().map(Code::as_str)
        };
        remember(&mut store, &at(4), &membership("a", AddToList, "1", "A")).unwrap();
        assert_eq!(check(&store, &at(5), &membership("b", AddToList, "1", "A")), Some("unchanged"));
        // Another place, another row, another route: the list and the person are the same.
        let row = Subject { row_key: b"c2", ..at(6) };
        assert_eq!(check(&store, &row, &membership("c", AddToList, "0", "A")), Some("unchanged"));
        assert_eq!(check(&store, &at(5), &membership("b", AddToList, "1", "B")), None, "another list");
        assert_eq!(check(&store, &at(5), &membership("d", RemoveFromList, "0", "A")), None);
        remember(&mut store, &at(5), &membership("d", RemoveFromList, "0", "A")).unwrap();
        assert_eq!(check(&store, &at(6), &membership("e", RemoveFromList, "0", "A")), Some("unchanged"));
        assert_eq!(check(&store, &at(6), &membership("f", AddToList, "1", "A")), None);
        assert_eq!(check(&store, &at(4), &membership("a", AddToList, "1", "A")), Some("superseded"));
        // Positions of two sources say nothing about each other.
        let elsewhere = Subject { source: "orders", ..at(1) };
        assert_eq!(check(&store, &elsewhere, &membership("g", AddToList, "0", "A")), None);
    }

    // Issue 12: after two people merge, their list memberships are the union.
    #[test]
    fn a_merge_unites_the_lists_of_two_people_and_only_a_remove_takes_the_survivor_off() {
        use OperationKind::{AddToList, RemoveFromList};
        let (absorbed, survivor) = (ProfileId::of("w", "id", "b", 0), ProfileId::of("w", "id", "a", 0));
        let membership = |profile, event: &str, kind, target: &str| {
            let mut delivery = Delivery { profile, ..delivery(event, kind, "0", r#"{"id":"a"}"#) };
            delivery.operation.target = Some(target.to_owned());
            delivery
        };
        // Whichever of the two was told later, and whoever of the two was on the list.
        for (of_survivor, of_absorbed, later) in [
            (RemoveFromList, AddToList, survivor),
            (RemoveFromList, AddToList, absorbed),
            (AddToList, RemoveFromList, survivor),
            (AddToList, RemoveFromList, absorbed),
        ] {
            let (mut store, _folder) = Store::without_broker(&[0]);
            let version = |profile| if profile == later { 7 } else { 3 };
            for (profile, kind) in [(survivor, of_survivor), (absorbed, of_absorbed)] {
                let made = membership(profile, if profile == survivor { "a" } else { "b" }, kind, "A");
                remember(&mut store, &at(version(profile)), &made).unwrap();
            }
            remember(&mut store, &at(2), &membership(absorbed, "c", AddToList, "B")).unwrap();
            for (subject, last) in all_last(&store, 0, absorbed).unwrap() {
                take_over(&mut store, 0, survivor, &subject, &last).unwrap();
            }
            let needless = |event, kind, target| {
                needless(&store, &at(9), &membership(survivor, event, kind, target), false).unwrap().map(Code::as_str)
            };
            for list in ["A", "B"] {
                assert_eq!(needless("d", AddToList, list), Some("unchanged"), "{of_survivor} {of_absorbed} {list}");
                assert_eq!(needless("e", RemoveFromList, list), None, "{of_survivor} {of_absorbed} {list}");
            }
        }
    }

    #[test]
    fn offsets_of_other_partitions_supersede_nothing() {
        let (mut store, _folder) = Store::without_broker(&[0]);
        let kind = OperationKind::UpsertProfile;
        let log = |partition, offset| Subject {
            position: Some(SourcePosition::Log(Coordinates { topic: "app", partition, offset })),
            ..at(0)
        };
        remember(&mut store, &log(0, 100), &delivery("a", kind, "0", "{}")).unwrap();
        assert_eq!(needless(&store, &log(1, 5), &delivery("b", kind, "0", "{}"), false).unwrap(), None);
        assert_eq!(
            needless(&store, &log(0, 5), &delivery("b", kind, "0", "{}"), false).unwrap(),
            Some(code::SUPERSEDED)
        );
    }

    #[test]
    fn a_jobs_members_are_found_by_the_next_owner_until_it_is_forgotten() {
        let (mut store, _folder) = Store::without_broker(&[0]);
        let key = delivery("a", OperationKind::UpsertProfile, "0", "{}").key;
        let member = JobMember { ticket: Ticket("job-1".into()), place: 17, attempt: 2 };
        set_job(&mut store, 0, key, Some(&member)).unwrap();
        store.keep();
        assert_eq!(job_of(&store, 0, key).unwrap(), Some(member));
        set_job(&mut store, 0, key, None).unwrap();
        assert_eq!(job_of(&store, 0, key).unwrap(), None);
    }

    #[test]
    fn a_damaged_memory_stops_the_stage_instead_of_sending_again() {
        let (mut store, _folder) = Store::without_broker(&[0]);
        let delivery = delivery("a", OperationKind::UpsertProfile, "0", "{}");
        for key in [last_key(&at(1), &delivery), job_key(delivery.key)] {
            store.put(0, key, Some(b"not json".to_vec())).unwrap();
        }
        assert_eq!(needless(&store, &at(1), &delivery, false).unwrap_err().code(), code::STATE_DAMAGED);
        assert_eq!(job_of(&store, 0, delivery.key).unwrap_err().code(), code::STATE_DAMAGED);
    }

    #[test]
    fn a_fence_that_was_passed_stays_passed() {
        let (mut store, _folder) = Store::without_broker(&[0]);
        assert!(!is_passed(&store, 0, 3).unwrap());
        set_passed(&mut store, 0, 3).unwrap();
        store.keep();
        set_passed(&mut store, 0, 3).unwrap();
        assert!(is_passed(&store, 0, 3).unwrap() && !is_passed(&store, 0, 4).unwrap());
    }
}
