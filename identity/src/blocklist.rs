//! Values that stand for nobody. One shared `anonymous` would join everybody who has it, so these are refused before they
//! reach the graph.

use std::collections::BTreeSet;

use regex::Regex;

/// Placeholders that several vendors block by default (Segment, Adobe, Meiro, PostHog publish such lists); compared without
/// regard to case, with or without quotes around them. Values of nothing but zeros and hyphens are blocked too.
pub const DEFAULT_BLOCKED: &[&str] = &[
    "null",
    "none",
    "nil",
    "undefined",
    "nan",
    "anonymous",
    "guest",
    "invalid",
    "unknown",
    "not_authenticated",
    "true",
    "false",
    "-1",
    "id",
    "email",
    "distinct_id",
    "[object object]",
];

/// The compiled blocklist of one type.
#[derive(Debug, Clone)]
pub(crate) struct Blocklist {
    defaults: bool,
    /// Raw values and match keys alike.
    exact: BTreeSet<String>,
    patterns: Vec<Regex>,
}

impl Blocklist {
    pub(crate) fn new(defaults: bool, exact: BTreeSet<String>, patterns: Vec<Regex>) -> Self {
        Self { defaults, exact, patterns }
    }

    /// Whether a trimmed value is blocked as it came, before it is normalised: `null` is no address, but above all it is blocked.
    pub(crate) fn blocks_raw(&self, value: &str) -> bool {
        value.is_empty() || (self.defaults && is_placeholder(value)) || self.exact.contains(value)
    }

    /// Whether a normalised value is blocked.
    pub(crate) fn blocks_key(&self, match_key: &str) -> bool {
        self.exact.contains(match_key) || self.patterns.iter().any(|pattern| pattern.is_match(match_key))
    }
}

fn is_placeholder(value: &str) -> bool {
    let bare = value.trim_matches(['"', '\'', '`']).trim();
    bare.bytes().all(|byte| byte == b'0' || byte == b'-')
        || DEFAULT_BLOCKED.iter().any(|blocked| bare.eq_ignore_ascii_case(blocked))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_blocked_in_any_case_and_in_quotes() {
        for value in [
            "null",
            "NULL",
            "\"null\"",
            "'None'",
            "0",
            "00000000-0000-0000-0000-000000000000",
            "-1",
            "\"\"",
            "[object Object]",
            "NaN",
        ] {
            assert!(is_placeholder(value), "{value}");
        }
        for value in ["nullify", "10", "ada@example.com", "idx", "-10", "guest-4711"] {
            assert!(!is_placeholder(value), "{value}");
        }
    }

    #[test]
    fn the_empty_value_is_blocked_even_without_the_default_list() {
        let list = Blocklist::new(false, BTreeSet::new(), Vec::new());
        assert!(list.blocks_raw(""));
        assert!(!list.blocks_raw("null"));
    }
}
