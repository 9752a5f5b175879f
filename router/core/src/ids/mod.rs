//! The deterministic ids: of an event, a schema, a profile and a delivery.
//!
//! All of them are frozen. They are made from what stays the same when a record is read again, and from nothing that
//! belongs to Tailwater's own topics, so that a repeat has the id of the first time. Changing a recipe duplicates
//! deliveries or splits people; the golden tests below are there to make that hard to do by accident.

use std::fmt;

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::position::{ChangeKind, SourcePosition};

/// Hashes length-prefixed parts under a name of their own, so that no two recipes and no two splits of the same text
/// can meet in one value.
fn hash(domain: &str, parts: &[&[u8]]) -> [u8; 16] {
    let mut sha = Sha256::new();
    for part in std::iter::once(&domain.as_bytes()).chain(parts) {
        sha.update((part.len() as u64).to_be_bytes());
        sha.update(part);
    }
    let digest = sha.finalize();
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    id
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; 16]);

        impl $name {
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }

            /// Reads the 32 hexadecimal digits that `Display` writes.
            pub fn parse(text: &str) -> Option<Self> {
                if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    return None;
                }
                u128::from_str_radix(text, 16).ok().map(|number| Self(number.to_be_bytes()))
            }
        }

        /// 32 lower-case hexadecimal digits.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", u128::from_be_bytes(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                Self::parse(&text).ok_or_else(|| serde::de::Error::custom("expected 32 hexadecimal digits"))
            }
        }
    };
}

id! {
    /// Names one event of one source, the same at every repeat.
    EventId
}
id! {
    /// The fingerprint of a logical schema.
    SchemaId
}
id! {
    /// The idempotency key of a delivery: part of what vendors are sent, so it must never change for the same fact.
    DeliveryKey
}
id! {
    /// A hash of what was sent, to recognise equal content.
    ContentHash
}

impl EventId {
    /// A fact that names itself: an order by its number, a webhook by its own id.
    pub fn of_fact(workspace: &str, source: &str, id: &str) -> Self {
        Self(hash("tw.event.fact", &[workspace.as_bytes(), source.as_bytes(), id.as_bytes()]))
    }

    /// A change of a row that is overwritten in place, or a record of a producer that gives no id: its position says
    /// which one it is. The ordinal is left out for a table, because the key already tells rows of one version apart
    /// and a rewritten file may list them in another order.
    pub fn of_state(
        workspace: &str,
        source: &str,
        position: &SourcePosition<'_>,
        key: &[u8],
        change: ChangeKind,
    ) -> Self {
        let change = change.as_str().as_bytes();
        match position {
            SourcePosition::Table { generation, version, ordinal: _ } => Self(hash(
                "tw.event.table",
                &[
                    workspace.as_bytes(),
                    source.as_bytes(),
                    &generation.to_be_bytes(),
                    &version.to_be_bytes(),
                    key,
                    change,
                ],
            )),
            SourcePosition::Log(at) => Self(hash(
                "tw.event.log",
                &[
                    workspace.as_bytes(),
                    source.as_bytes(),
                    at.topic.as_bytes(),
                    &at.partition.to_be_bytes(),
                    &at.offset.to_be_bytes(),
                ],
            )),
        }
    }
}

impl SchemaId {
    pub fn of(source: &str, canonical_schema: &[u8]) -> Self {
        Self(hash("tw.schema", &[source.as_bytes(), canonical_schema]))
    }
}

impl DeliveryKey {
    /// `place` is the ordinal of the output, or the author's own `_key`. Never an internal Kafka offset, a transform's
    /// version or a partition count: a delivery keeps its key when any of those change.
    pub fn of(event: EventId, destination: &str, route: &str, kind: &str, place: &str) -> Self {
        Self::with_target(event, destination, route, kind, place, None)
    }

    /// `target` tells operations of one output apart that have the same kind: two lists to join.
    pub fn with_target(
        event: EventId,
        destination: &str,
        route: &str,
        kind: &str,
        place: &str,
        target: Option<&str>,
    ) -> Self {
        let parts = [event.as_bytes(), destination.as_bytes(), route.as_bytes(), kind.as_bytes(), place.as_bytes()];
        match target {
            None => Self(hash("tw.delivery", &parts)),
            Some(target) => {
                let [event, destination, route, kind, place] = parts;
                Self(hash("tw.delivery.target", &[event, destination, route, kind, place, target.as_bytes()]))
            }
        }
    }
}

impl ContentHash {
    pub fn of(content: &[u8]) -> Self {
        Self(hash("tw.content", &[content]))
    }
}

/// A person's canonical id: a UUIDv5 of workspace, type and match key of the first, highest-priority identifier, and a
/// generation that an erasure raises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProfileId(Uuid);

impl ProfileId {
    /// The UUIDv5 namespace of all profile ids. Frozen.
    const NAMESPACE: Uuid = Uuid::from_u128(0x7a11_3a7e_52d4_5c1e_9a40_6b1c_0c5f_7e21);

    pub fn of(workspace: &str, identifier_type: &str, match_key: &str, generation: u32) -> Self {
        let mut name = Vec::with_capacity(workspace.len() + identifier_type.len() + match_key.len() + 28);
        for part in [workspace, identifier_type, match_key] {
            name.extend_from_slice(&(part.len() as u64).to_be_bytes());
            name.extend_from_slice(part.as_bytes());
        }
        name.extend_from_slice(&generation.to_be_bytes());
        Self(Uuid::new_v5(&Self::NAMESPACE, &name))
    }

    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    pub fn parse(text: &str) -> Option<Self> {
        Uuid::try_parse(text).ok().map(Self)
    }

    /// The partition (partition of `resolved` and `outbound.*`) of this person. Frozen: it moves people between partitions. It is
    /// computed here and set explicitly on every record, so that no client's partitioner has a say in it.
    pub fn partition(&self, partitions: u32) -> u32 {
        let high = u64::from_be_bytes(self.0.as_bytes()[..8].try_into().unwrap_or_default());
        // UUIDv5 is a hash, so its first bits are as good as any; the version nibble sits in byte 6 and is excluded by the shift.
        u32::try_from((high >> 16) % u64::from(partitions.max(1))).unwrap_or(0)
    }
}

/// The hyphenated form, lower case.
impl fmt::Display for ProfileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl serde::Serialize for ProfileId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for ProfileId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("expected a UUID"))
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::Coordinates;

    #[test]
    fn the_recipes_are_frozen() {
        let event = EventId::of_fact("acme", "orders", "ord-1");
        let table = SourcePosition::Table { generation: 0, version: 4, ordinal: 17 };
        let log = SourcePosition::Log(Coordinates { topic: "app.events", partition: 3, offset: 99 });
        let profile = ProfileId::of("acme", "email", "ada@example.com", 0);
        let got = [
            event.to_string(),
            EventId::of_state("acme", "ltv", &table, b"cust_1", ChangeKind::Update).to_string(),
            EventId::of_state("acme", "app", &log, b"", ChangeKind::None).to_string(),
            DeliveryKey::of(event, "klaviyo", "ltv", "upsert_profile", "0").to_string(),
            SchemaId::of("ltv", b"{}").to_string(),
            profile.to_string(),
            profile.partition(16).to_string(),
            ContentHash::of(b"{}").to_string(),
        ];
        // The values that records in Kafka already carry.
        assert_eq!(got.join("\n"), include_str!("../golden/ids.txt").trim_end());
    }

    #[test]
    fn the_ordinal_within_a_version_does_not_change_an_event_id() {
        let id = |ordinal| {
            let position = SourcePosition::Table { generation: 0, version: 1, ordinal };
            EventId::of_state("w", "s", &position, b"k", ChangeKind::Insert)
        };
        assert_eq!(id(0), id(7));
    }

    #[test]
    fn parts_cannot_run_into_one_another() {
        assert_ne!(EventId::of_fact("ab", "c", "d"), EventId::of_fact("a", "bc", "d"));
        assert_ne!(ProfileId::of("ab", "c", "d", 0), ProfileId::of("a", "bc", "d", 0));
    }

    #[test]
    fn operations_of_one_output_are_told_apart_by_their_target() {
        let event = EventId::of_fact("w", "s", "1");
        let key = |place, target| DeliveryKey::with_target(event, "d", "r", "add_to_list", place, target);
        assert_eq!(key("0", None), DeliveryKey::of(event, "d", "r", "add_to_list", "0"));
        assert_ne!(key("0", None), key("0", Some("A")));
        assert_ne!(key("0", Some("A")), key("0", Some("B")));
        assert_ne!(key("0A", None), key("0", Some("A")));
    }

    #[test]
    fn ids_read_back_what_they_print() {
        let id = EventId::of_fact("a", "b", "c");
        assert_eq!(EventId::parse(&id.to_string()), Some(id));
        assert_eq!(EventId::parse("zz"), None);
        let profile = ProfileId::of("a", "b", "c", 0);
        assert_eq!(ProfileId::parse(&profile.to_string()), Some(profile));
        assert_eq!(serde_json::to_string(&profile).unwrap(), format!("\"{profile}\""));
        assert_eq!(serde_json::from_str::<ProfileId>(&format!("\"{profile}\"")).unwrap(), profile);
        assert_eq!(serde_json::from_str::<EventId>(&format!("\"{id}\"")).unwrap(), id);
    }

    #[test]
    fn partitions_are_even_and_within_their_number() {
        let mut counts = [0_u32; 16];
        for number in 0..16_000 {
            let profile = ProfileId::of("w", "email", &format!("{number}@example.com"), 0);
            counts[usize::try_from(profile.partition(16)).unwrap()] += 1;
            assert_eq!(profile.partition(1), 0);
            assert_eq!(profile.partition(0), 0);
        }
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
    }
}
