//! The decision: whose is this event?
//!
//! For each event, in order: its identifiers are normalised and sorted, strongest first (the type's priority, then the bytes of
//! the match key, so that the order is total). If the profiles that own them, together with those that nobody owns, may be one
//! profile, they become one; the oldest survives. If a limit forbids it, the weakest identifier is set aside and the rest
//! is asked again. One identifier alone always resolves, so what remains in the end is the strongest and everything that goes with it.

use std::sync::Arc;

use tailwater_core::envelope::{Identifier, Merge};
use tailwater_core::{ProfileId, Timestamp};

use crate::decision::{BatchDecision, Decision, Incoming, Refusal, Resolution, Why};
use crate::error::Error;
use crate::key::Key;
use crate::limits;
use crate::profile::{Kind, PROFILE_BYTES_MAX, Person, Profile, Value};
use crate::rules::{Accepted, Rules};
use crate::snapshot::Snapshot;
use crate::store::Store;

/// How many ids are tried for the profile of one identifier. A retired id is never given out again, so each erasure of a
/// person who returns costs one; nobody returns this often.
const GENERATIONS_MAX: u32 = 1024;

/// Resolves the events of one workspace.
///
/// ```
/// use tailwater_core::envelope::Identifier;
/// use tailwater_core::Timestamp;
/// use tailwater_identity::{Globals, Incoming, MemoryStore, Normaliser, Resolver, Rules, TypeRule};
///
/// let rules = Rules::new(
///     vec![TypeRule::new("user_id", 1).max(1), TypeRule::new("email", 2).normaliser(Normaliser::Email)],
///     Globals::default(),
/// )
/// .unwrap();
/// let resolver = Resolver::new(&rules, "acme");
/// let mut store = MemoryStore::default();
///
/// let order = [Identifier { kind: "user_id", value: "u1" }, Identifier { kind: "email", value: "Ada@Example.com" }];
/// let click = [Identifier { kind: "email", value: "ada@example.com" }];
/// let time = Timestamp::default();
/// let batch = [Incoming { identifiers: &order, time }, Incoming { identifiers: &click, time }];
///
/// let decided = resolver.resolve(&store, &batch).unwrap();
/// store.apply(&decided.writes);
/// let people: Vec<_> = decided.decisions.iter().map(|decision| decision.resolution().unwrap().profile).collect();
/// assert_eq!(people[0], people[1]);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Resolver<'a> {
    rules: &'a Rules,
    workspace: &'a str,
}

/// An event's identifiers after normalisation.
struct Prepared {
    /// Distinct, strongest first; at most `max_ids_per_event`.
    claims: Vec<Claim>,
    refused: Vec<Refusal>,
}

/// A usable identifier of an event.
struct Claim {
    /// Its place in the event.
    index: usize,
    rank: usize,
    match_key: Arc<str>,
    delivery: Arc<str>,
    key: Key,
}

// === impl Resolver ===

impl<'a> Resolver<'a> {
    pub fn new(rules: &'a Rules, workspace: &'a str) -> Self {
        Self { rules, workspace }
    }

    /// Resolves events in order. The state that they leave behind is in the writes; the store itself is only read. The caller
    /// bounds the batch; what is held in memory is in proportion to it.
    ///
    /// # Errors
    /// The state cannot be read or contradicts itself. Nothing has happened then.
    pub fn resolve<S: Store + ?Sized>(&self, store: &S, events: &[Incoming<'_>]) -> Result<BatchDecision, Error> {
        let prepared: Vec<Prepared> = events.iter().map(|event| self.prepare(event)).collect();
        let mut snapshot = self.read_ahead(store, &prepared)?;
        let decisions = events
            .iter()
            .zip(prepared)
            .map(|(event, prepared)| self.decide(&mut snapshot, event, prepared))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(BatchDecision { decisions, writes: snapshot.into_writes() })
    }

    /// Who has this identifier. `None` when nobody has it, or when the value cannot be an identifier.
    ///
    /// # Errors
    /// The state cannot be read or contradicts itself.
    pub fn find<S: Store + ?Sized>(&self, store: &S, kind: &str, value: &str) -> Result<Option<Person>, Error> {
        let Ok(accepted) = self.rules.accept(kind, value) else {
            return Ok(None);
        };
        let key = Key::identifier(self.workspace, kind, &accepted.match_key);
        let mut snapshot = Snapshot::open(store, self.rules, &[key])?;
        let Some(id) = snapshot.owner(key)? else {
            return Ok(None);
        };
        snapshot.load(&[id], &[])?;
        Ok(Some(snapshot.live(id)?.to_person(id, self.rules)))
    }

    /// The profile of this id, or the one that absorbed it.
    ///
    /// # Errors
    /// The state cannot be read or contradicts itself.
    pub fn get<S: Store + ?Sized>(&self, store: &S, id: ProfileId) -> Result<Option<Person>, Error> {
        let mut snapshot = Snapshot::open(store, self.rules, &[])?;
        let Some(id) = snapshot.current(id)? else {
            return Ok(None);
        };
        Ok(Some(snapshot.live(id)?.to_person(id, self.rules)))
    }

    fn prepare(&self, event: &Incoming<'_>) -> Prepared {
        let mut claims: Vec<Claim> = Vec::with_capacity(event.identifiers.len());
        let mut refused = Vec::new();
        for (index, identifier) in event.identifiers.iter().enumerate() {
            match self.rules.accept(identifier.kind, identifier.value) {
                Ok(Accepted { rank, match_key, delivery }) => {
                    // The same identifier twice is one; the first spelling stays.
                    if !claims.iter().any(|claim| claim.rank == rank && claim.match_key == match_key) {
                        let key = Key::identifier(self.workspace, identifier.kind, &match_key);
                        claims.push(Claim { index, rank, match_key, delivery, key });
                    }
                }
                Err(why) => refused.push(refusal(event, index, why)),
            }
        }
        claims.sort_unstable_by(|a, b| (a.rank, &a.match_key).cmp(&(b.rank, &b.match_key)));
        let max = self.rules.globals().max_ids_per_event.min(claims.len());
        for claim in claims.drain(max..) {
            refused.push(refusal(event, claim.index, Why::TooMany));
        }
        Prepared { claims, refused }
    }

    /// Reads what the batch will need in two steps: who owns its identifiers, then those profiles. What a merge or a
    /// conflict leads to beyond that is read when it is met.
    fn read_ahead<'s, S: Store + ?Sized>(&self, store: &'s S, events: &[Prepared]) -> Result<Snapshot<'s, S>, Error>
    where
        'a: 's,
    {
        let mut keys: Vec<Key> = events.iter().flat_map(|event| &event.claims).map(|claim| claim.key).collect();
        keys.sort_unstable();
        keys.dedup();
        let mut snapshot = Snapshot::open(store, self.rules, &keys)?;
        let mut owners = Vec::with_capacity(keys.len());
        let mut seeds = Vec::new();
        for event in events {
            let known = owners.len();
            for claim in &event.claims {
                owners.extend(snapshot.owner(claim.key)?);
            }
            // An event that knows nobody will make a profile, unless an earlier one of the batch has made it.
            if owners.len() == known
                && let Some(seed) = event.claims.first()
            {
                seeds.push(self.id_of(seed, 0));
            }
        }
        for ids in [&mut owners, &mut seeds] {
            ids.sort_unstable();
            ids.dedup();
        }
        snapshot.load(&owners, &seeds)?;
        Ok(snapshot)
    }

    fn decide<S: Store + ?Sized>(
        &self,
        snapshot: &mut Snapshot<'_, S>,
        event: &Incoming<'_>,
        Prepared { claims, mut refused }: Prepared,
    ) -> Result<Decision, Error> {
        let time = event.time;
        if claims.is_empty() {
            refused.sort_unstable_by_key(|refusal| refusal.index);
            return Ok(Decision::NoIdentifiers { refused });
        }
        let owners = claims.iter().map(|claim| snapshot.owner(claim.key)).collect::<Result<Vec<_>, _>>()?;
        let Group { members, used } = self.group(snapshot, &claims, &owners, time)?;
        let (used, set_aside) = claims.split_at(used);

        let created = members.is_empty();
        let (profile, merges) = match members.split_first() {
            None => (self.create(snapshot, &used[0])?, Vec::new()),
            Some((&survivor, absorbed)) => (survivor, self.merge(snapshot, survivor, absorbed)?),
        };
        for (claim, owner) in used.iter().zip(&owners) {
            if owner.is_none() {
                self.link(snapshot, profile, claim, time)?;
            }
        }
        // What was set aside and belongs to this very profile is no stranger's: it counts as seen like the rest.
        let mut seen: Vec<&Claim> = used.iter().collect();
        for claim in set_aside {
            let why = match snapshot.owner(claim.key)? {
                Some(owner) if owner == profile => {
                    seen.push(claim);
                    continue;
                }
                Some(_) => Why::OwnedByAnother,
                None => Why::Demoted,
            };
            refused.push(refusal(event, claim.index, why));
        }
        // The first value that the event lists of a type comes last, so that it is the most recent one.
        seen.sort_unstable_by_key(|claim| std::cmp::Reverse(claim.index));
        for claim in seen {
            self.touch(snapshot, profile, claim)?;
        }
        refused.sort_unstable_by_key(|refusal| refusal.index);

        let live = snapshot.live_mut(profile)?;
        live.activity_changed = true;
        live.profile.sequence = live.profile.sequence.saturating_add(1);
        let (sequence, identifiers) = (live.profile.sequence, live.profile.in_use(self.rules));
        Ok(Decision::Resolved(Resolution { profile, sequence, identifiers, refused, merges, created }))
    }

    /// Sets the weakest identifiers aside until the profiles and the new identifiers of the rest may be one.
    fn group<S: Store + ?Sized>(
        &self,
        snapshot: &mut Snapshot<'_, S>,
        claims: &[Claim],
        owners: &[Option<ProfileId>],
        time: Timestamp,
    ) -> Result<Group, Error> {
        let mut used = claims.len();
        loop {
            let mut members: Vec<ProfileId> = owners[..used].iter().flatten().copied().collect();
            members.sort_unstable();
            members.dedup();
            snapshot.load(&members, &[])?;
            let profiles = members.iter().map(|id| snapshot.live(*id)).collect::<Result<Vec<&Profile>, _>>()?;
            let new: Vec<Value> = claims[..used]
                .iter()
                .zip(owners)
                .filter(|(_, owner)| owner.is_none())
                .map(|(claim, _)| claim.to_value(time))
                .collect();
            if used == 1 || limits::permit(self.rules, &profiles, &new) {
                // No two profiles have the same count, so the oldest is always decided.
                let mut by_age: Vec<(u64, ProfileId)> =
                    profiles.iter().map(|profile| profile.created).zip(members).collect();
                by_age.sort_unstable();
                return Ok(Group { members: by_age.into_iter().map(|(_, id)| id).collect(), used });
            }
            used -= 1;
        }
    }

    /// Makes a profile without identifiers, under the first free id of its seed.
    fn create<S: Store + ?Sized>(&self, snapshot: &mut Snapshot<'_, S>, seed: &Claim) -> Result<ProfileId, Error> {
        for generation in 0..GENERATIONS_MAX {
            let id = self.id_of(seed, generation);
            if !snapshot.is_taken(id)? {
                let created = snapshot.next_count();
                snapshot.insert(id, Profile { created, sequence: 0, absorbed: Vec::new(), values: Vec::new() });
                return Ok(id);
            }
        }
        let kind = self.rules.types()[seed.rank].name.to_string();
        Err(Error::Generations { kind, generation: GENERATIONS_MAX })
    }

    /// Moves everything that the absorbed profiles have to the survivor, in the order of their age.
    fn merge<S: Store + ?Sized>(
        &self,
        snapshot: &mut Snapshot<'_, S>,
        survivor: ProfileId,
        absorbed: &[ProfileId],
    ) -> Result<Vec<Merge>, Error> {
        let mut merges = Vec::with_capacity(absorbed.len());
        for &absorbed in absorbed {
            let number = snapshot.next_merge();
            let gone = snapshot.retire(absorbed, survivor, number)?;
            for value in &gone.values {
                let key = Key::identifier(self.workspace, value.kind.name(self.rules), &value.match_key);
                snapshot.set_owner(key, survivor);
            }
            let live = snapshot.live_mut(survivor)?;
            live.record_changed = true;
            live.activity_changed = true;
            live.profile.sequence = live.profile.sequence.saturating_add(gone.sequence);
            live.profile.absorbed.extend(gone.absorbed);
            live.profile.absorbed.push(absorbed);
            live.profile.values.extend(gone.values);
            merges.push(Merge { number, survivor, absorbed });
        }
        Ok(merges)
    }

    fn link<S: Store + ?Sized>(
        &self,
        snapshot: &mut Snapshot<'_, S>,
        profile: ProfileId,
        claim: &Claim,
        time: Timestamp,
    ) -> Result<(), Error> {
        snapshot.set_owner(claim.key, profile);
        let live = snapshot.live_mut(profile)?;
        live.record_changed = true;
        live.profile.values.push(claim.to_value(time));
        Ok(())
    }

    /// Makes an identifier of the profile the most recent one of its type.
    fn touch<S: Store + ?Sized>(
        &self,
        snapshot: &mut Snapshot<'_, S>,
        profile: ProfileId,
        claim: &Claim,
    ) -> Result<(), Error> {
        let seen = snapshot.next_count();
        let live = snapshot.live_mut(profile)?;
        let kind = Kind::Declared(claim.rank);
        let Some(index) =
            live.profile.values.iter().position(|value| value.kind == kind && value.match_key == claim.match_key)
        else {
            // The identifier's owner is this profile, which does not know it.
            return Err(Error::Dangling { profile });
        };
        let was_primary = live.profile.is_primary(&live.profile.values[index]);
        let respelled = live.profile.values[index].delivery != claim.delivery
            && live.profile.bytes() + claim.delivery.len() <= PROFILE_BYTES_MAX;
        let value = &mut live.profile.values[index];
        value.seen = seen;
        if respelled {
            value.delivery = Arc::clone(&claim.delivery);
        }
        live.record_changed |= !was_primary || respelled;
        Ok(())
    }

    fn id_of(&self, seed: &Claim, generation: u32) -> ProfileId {
        ProfileId::of(self.workspace, &self.rules.types()[seed.rank].name, &seed.match_key, generation)
    }
}

/// Profiles that an event brings together, the oldest first, and how many of its identifiers, strongest first, do so.
struct Group {
    members: Vec<ProfileId>,
    used: usize,
}

// === impl Claim ===

impl Claim {
    fn to_value(&self, added: Timestamp) -> Value {
        Value {
            kind: Kind::Declared(self.rank),
            match_key: Arc::clone(&self.match_key),
            delivery: Arc::clone(&self.delivery),
            added,
            seen: 0,
        }
    }
}

fn refusal(event: &Incoming<'_>, index: usize, why: Why) -> Refusal {
    let Identifier { kind, value } = event.identifiers[index];
    Refusal { index, kind: Arc::from(kind), value: Arc::from(value), why }
}
