//! The kinds of destination that there are. The only list of them: the configuration, its schema and reference page, the commands and
//! the conformance tests go through it.

use crate::connector::{Kind, kind};
use crate::customerio::Customerio;
use crate::iterable::Iterable;
use crate::klaviyo::Klaviyo;

/// One line per kind, in the order of the alphabet.
pub static KINDS: &[Kind] = &[kind::<Customerio>(), kind::<Iterable>(), kind::<Klaviyo>()];

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

    /// The text of a file up to its tests.
    fn shipped(text: &str) -> &str {
        text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default()
    }

    // Issue 11: a kind costs one folder and one line. Whoever names a vendor elsewhere makes it cost more.
    #[test]
    fn the_router_names_no_vendor() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../router");
        let mut folders = vec![root.join("src"), root.join("core/src"), root.join("sandbox/src")];
        let (mut files, mut named) = (0, Vec::new());
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                if path.is_dir() {
                    // Folders of tests: what happens in a simulated world, and the tests of one module.
                    if !["simulation", "tests"].contains(&name.as_str()) {
                        folders.push(path);
                    }
                } else if name.ends_with(".rs") && !["tests.rs", "fuzz.rs"].contains(&name.as_str()) {
                    let text = std::fs::read_to_string(&path).unwrap().to_lowercase();
                    files += 1;
                    // Kinds that are no vendor (a protocol) have names that are words of their own.
                    for kind in
                        KINDS.iter().map(|kind| kind.spec().kind).filter(|kind| !["http", "kafka"].contains(kind))
                    {
                        if shipped(&text).contains(kind) {
                            named.push(format!("{} names {kind}", path.display()));
                        }
                    }
                }
            }
        }
        assert!(files > 100, "the sources were not found");
        assert!(named.is_empty(), "{}", named.join("\n"));
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
