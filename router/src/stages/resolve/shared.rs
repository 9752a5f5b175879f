//! Values that many people bring. A device in a shop window, a placeholder that no list knows, the address of a call center: the limits keep
//! such a value from joining people, but each of its events loses an identifier, and the operator should know why.
//!
//! What is counted is in memory only. A restart counts again, and may warn again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tailwater_core::{ProfileId, code};
use tailwater_identity::{Key, Resolution, Rules, Why};
use tracing::warn;

use crate::telemetry::Telemetry;

/// People with the same value from whom on it is reported. A household shares a device; ten people do not.
const PEOPLE_MIN: usize = 10;

/// People who are told apart, for one value. Beyond, the number is a lower bound.
const PEOPLE_MAX: usize = 1_000;

/// Values that are watched at the same time: with [`PEOPLE_MAX`], 16 MB at worst. When there are more, those that few people have brought
/// are forgotten.
const VALUES_MAX: usize = 1_000;

/// Warnings for one type. A source with a column that names nobody has thousands of such values, and each says the same.
const WARNINGS_MAX: usize = 5;

#[derive(Default)]
pub struct SharedValues {
    values: BTreeMap<Key, Shared>,
    types: BTreeMap<Arc<str>, Type>,
    changed: bool,
}

struct Shared {
    kind: Arc<str>,
    /// Who brought it and could not have it. Its owner is one person more.
    people: BTreeSet<ProfileId>,
    told: bool,
}

#[derive(Default)]
struct Type {
    people: usize,
    values: usize,
    warnings: usize,
}

impl SharedValues {
    /// Notes which values of an event belong to somebody else.
    pub fn note(&mut self, rules: &Rules, workspace: &str, resolution: &Resolution) {
        for refusal in resolution.refused.iter().filter(|refusal| refusal.why == Why::OwnedByAnother) {
            let Ok(match_key) = rules.match_key(&refusal.kind, &refusal.value) else { continue };
            let key = Key::identifier(workspace, &refusal.kind, &match_key);
            if self.values.len() >= VALUES_MAX && !self.values.contains_key(&key) {
                self.values.retain(|_, shared| shared.told);
                if self.values.len() >= VALUES_MAX {
                    continue;
                }
            }
            let shared = self.values.entry(key).or_insert_with(|| Shared {
                kind: Arc::clone(&refusal.kind),
                people: BTreeSet::new(),
                told: false,
            });
            if shared.people.len() < PEOPLE_MAX {
                self.changed |= shared.people.insert(resolution.profile);
            }
        }
    }

    /// Reports what a batch has brought, so that the number in a warning is that of the whole batch.
    pub fn report(&mut self, telemetry: &Telemetry) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        for (key, shared) in &mut self.values {
            let people = shared.people.len() + 1;
            if people < PEOPLE_MIN {
                continue;
            }
            let kind = self.types.entry(Arc::clone(&shared.kind)).or_default();
            kind.people = kind.people.max(people);
            if shared.told {
                continue;
            }
            shared.told = true;
            kind.values += 1;
            if kind.warnings < WARNINGS_MAX {
                kind.warnings += 1;
                let last =
                    if kind.warnings == WARNINGS_MAX { "; further values of this type are counted only" } else { "" };
                warn!(
                    kind = &*shared.kind,
                    people,
                    value = %key,
                    code = %code::IDENTIFIER_SHARED,
                    "{people} people bring the same value of the type {}; it stays with the first of them and identifies none of the \
                     others. If it names no person, add it to the type's `blocklist`{last}",
                    shared.kind
                );
            }
        }
        for (kind, Type { people, values, .. }) in &self.types {
            telemetry.metrics().identifier_shared(kind, *people);
            let shared =
                serde_json::json!({"people": people, "values": values, "code": code::IDENTIFIER_SHARED.as_str()});
            telemetry.status(&format!("shared_identifiers.{kind}"), shared);
        }
    }

    /// Takes the entries away: another process resolves from now on.
    pub fn withdraw(&self, telemetry: &Telemetry) {
        for kind in self.types.keys() {
            telemetry.metrics().identifier_shared(kind, 0);
            telemetry.status(&format!("shared_identifiers.{kind}"), serde_json::Value::Null);
        }
    }
}

#[cfg(test)]
mod tests {
    use tailwater_core::Timestamp;
    use tailwater_core::envelope::Identifier;
    use tailwater_identity::{Globals, Incoming, MemoryStore, Resolver, TypeRule};

    use super::*;

    fn rules() -> Rules {
        let types = vec![TypeRule::new("customer_id", 1).max(1), TypeRule::new("device", 2)];
        Rules::new(types, Globals::default()).unwrap()
    }

    fn bring(shared: &mut SharedValues, store: &mut MemoryStore, rules: &Rules, person: &str, device: &str) {
        let identifiers =
            [Identifier { kind: "customer_id", value: person }, Identifier { kind: "device", value: device }];
        let event = Incoming { identifiers: &identifiers, time: Timestamp::default() };
        let decided = Resolver::new(rules, "acme").resolve(store, &[event]).unwrap();
        store.apply(&decided.writes);
        shared.note(rules, "acme", decided.decisions[0].resolution().unwrap());
    }

    /// Issue 10, A7.
    #[test]
    fn a_value_that_many_people_bring_is_reported_with_its_type_and_their_number() {
        let (telemetry, rules) = (Telemetry::new().unwrap(), rules());
        let (mut shared, mut store) = (SharedValues::default(), MemoryStore::default());
        for person in 0..60 {
            // Twice each, and spelled in two ways: people are counted, not events.
            for device in ["f00d", " f00d\u{200b}"] {
                bring(&mut shared, &mut store, &rules, &format!("c{person}"), device);
            }
        }
        shared.report(&telemetry);
        let entry = telemetry.status_page()["shared_identifiers"]["device"].clone();
        assert_eq!((entry["people"].as_u64(), entry["values"].as_u64()), (Some(60), Some(1)));
        assert_eq!(shared.types["device"].warnings, 1);
        let text = telemetry.metrics().render().unwrap();
        assert!(text.contains(r#"tailwater_identifier_shared_people{type="device"} 60"#), "{text}");

        bring(&mut shared, &mut store, &rules, "late", "f00d");
        shared.report(&telemetry);
        assert_eq!(telemetry.status_page()["shared_identifiers"]["device"]["people"], 61);
        assert_eq!(shared.types["device"].warnings, 1, "one warning for one value");

        shared.withdraw(&telemetry);
        assert!(telemetry.status_page()["shared_identifiers"]["device"].is_null());
    }

    #[test]
    fn a_household_is_no_news_and_memory_is_bounded() {
        let (telemetry, rules) = (Telemetry::new().unwrap(), rules());
        let (mut shared, mut store) = (SharedValues::default(), MemoryStore::default());
        for person in 0..4 {
            bring(&mut shared, &mut store, &rules, &format!("c{person}"), "tablet");
        }
        for number in 0..VALUES_MAX + 10 {
            bring(&mut shared, &mut store, &rules, "one", &format!("d{number}"));
            bring(&mut shared, &mut store, &rules, "two", &format!("d{number}"));
        }
        shared.report(&telemetry);
        assert!(shared.values.len() <= VALUES_MAX);
        assert!(shared.types.is_empty());
    }
}
