//! Runs the examples of the guide, so that it says what the software does.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

mod support;

use std::collections::BTreeMap;

use support::{Story, rules};
use tailwater_core::ProfileId;
use tailwater_identity::Decision;

const GUIDE: &str = include_str!("../../docs/guides/identity.md");

/// The lines of each block of events.
fn blocks() -> Vec<Vec<&'static str>> {
    GUIDE
        .split("```events\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap().lines().filter(|line| !line.trim().is_empty()).collect())
        .collect()
}

fn pairs(text: &str, separator: char) -> Vec<(&str, &str)> {
    text.split(separator)
        .map(str::trim)
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap())
        .collect()
}

#[test]
fn the_examples_of_the_guide_are_what_happens() {
    let blocks = blocks();
    assert!(blocks.len() >= 8, "the guide has lost its examples");
    for block in blocks {
        let mut story = Story::new(rules());
        let mut names: BTreeMap<String, ProfileId> = BTreeMap::new();
        for line in block {
            let (event, outcome) = line.split_once("->").unwrap_or_else(|| panic!("no outcome in {line:?}"));
            let decision = story.decide(&pairs(event, ' ')).decisions.remove(0);
            let mut told = outcome.split(';').map(str::trim);
            let name = told.next().unwrap();
            let (mut refused, mut merges) = (Vec::new(), 0);
            match &decision {
                Decision::NoIdentifiers { .. } => assert_eq!(name, "nobody", "{line}"),
                Decision::Resolved(resolution) => {
                    assert_eq!(resolution.created, !names.contains_key(name), "{line}");
                    assert_eq!(
                        *names.entry(name.to_owned()).or_insert(resolution.profile),
                        resolution.profile,
                        "{line}"
                    );
                }
            }
            for fact in told {
                if let Some(gone) = fact.strip_prefix("absorbs ") {
                    let resolution = decision.resolution().unwrap();
                    assert_eq!(resolution.merges[merges].absorbed, names[gone], "{line}");
                    merges += 1;
                } else if let Some(refusal) = fact.strip_prefix("refused ") {
                    refused.push(refusal.to_owned());
                } else if let Some(shown) = fact.strip_prefix("shows ") {
                    let in_use: Vec<(&str, &str)> = decision
                        .resolution()
                        .unwrap()
                        .identifiers
                        .iter()
                        .map(|each| (&*each.kind, &*each.value))
                        .collect();
                    assert_eq!(in_use, pairs(shown, ','), "{line}");
                } else {
                    panic!("the guide says {fact:?}, which this test does not understand");
                }
            }
            let got: Vec<String> =
                decision.refused().iter().map(|each| format!("{} ({})", each.kind, each.why.as_str())).collect();
            assert_eq!(got, refused, "{line}");
            assert_eq!(decision.resolution().map_or(0, |resolution| resolution.merges.len()), merges, "{line}");
        }
    }
}

/// The rules that the examples are run with are those that the guide declares.
#[test]
fn the_guide_declares_the_rules_of_its_examples() {
    for line in [
        "user_id:      { priority: 1, max: 1, normalise: trim }",
        "email:        { priority: 2, max: 5, normalise: email }",
        "anonymous_id: { priority: 3, max: 5, normalise: trim }",
    ] {
        assert!(GUIDE.contains(line), "{line}");
    }
    assert_eq!(rules().type_names().collect::<Vec<_>>(), ["user_id", "email", "anonymous_id"]);
}

#[test]
fn the_guide_lists_the_default_blocklist_and_every_reason() {
    for blocked in tailwater_identity::DEFAULT_BLOCKED {
        assert!(GUIDE.to_ascii_lowercase().contains(&format!("`{blocked}`")), "{blocked}");
    }
    for why in ["blocked", "invalid", "unknown_type", "too_many", "demoted", "owned_by_another"] {
        assert!(GUIDE.contains(&format!("| `{why}` |")), "{why}");
    }
}
