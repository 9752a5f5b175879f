//! The kinds of destination that there are. The only list of them: the configuration, its schema and reference page, the commands and
//! the conformance tests go through it.

use crate::connector::{Kind, kind};
use crate::iterable::Iterable;
use crate::klaviyo::Klaviyo;

/// One line per kind, in the order of the alphabet.
pub static KINDS: &[Kind] = &[kind::<Iterable>(), kind::<Klaviyo>()];

/// The kind of that name.
pub fn find(name: &str) -> Option<Kind> {
    KINDS.iter().copied().find(|kind| kind.spec().kind == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn kinds_have_different_names_in_order_and_fields_for_identifiers() {
        let names: Vec<_> = KINDS.iter().map(|kind| kind.spec().kind).collect();
        let sorted: BTreeSet<_> = names.iter().copied().collect();
        assert_eq!(names, sorted.into_iter().collect::<Vec<_>>());
        for kind in KINDS {
            assert!(find(kind.spec().kind).is_some());
        }
        assert!(find("nobody").is_none());
    }

    #[test]
    fn sections_refuse_keys_that_they_do_not_have_and_every_key_is_documented() {
        for kind in KINDS {
            let mut generator = schemars::generate::SchemaSettings::draft2020_12().into_generator();
            for schema in [kind.account_schema(&mut generator), kind.options_schema(&mut generator)] {
                let (name, schema) = (kind.spec().kind, schema.to_value());
                assert_eq!(schema["additionalProperties"], false, "{name}: #[serde(deny_unknown_fields)] is missing");
                for (key, property) in schema["properties"].as_object().into_iter().flatten() {
                    assert!(property["description"].is_string(), "{name}: `{key}` has no doc comment");
                }
            }
        }
    }
}
