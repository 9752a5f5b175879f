//! Values that stand for nobody. One shared `anonymous` would join everybody who has it, so these are refused before they
//! reach the graph.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use regex::Regex;

/// Words that programs write where a value is missing, and that several vendors block by default (Segment, Adobe, Meiro and PostHog publish
/// such lists). Only letters and digits are compared, without regard to case: `N/A`, `<NA>`, `#na` and `n.a.` are all `na`, and
/// `Not Set`, `(not_set)` and `notset` are one too.
pub const DEFAULT_BLOCKED: &[&str] = &[
    // Missing, in programming languages, data frames and databases
    "null",
    "none",
    "nil",
    "undefined",
    "undef",
    "void",
    "nan",
    "na",
    "nat",
    "nullptr",
    "dbnull",
    "na_character_",
    "na_integer_",
    "na_real_",
    "optional.empty",
    "[object object]",
    "[object undefined]",
    "[object null]",
    "invalid date",
    "__hive_default_partition__",
    "inf",
    "infinity",
    "true",
    "false",
    // Missing, in the words of people and reports
    "not set",
    "not available",
    "not applicable",
    "not provided",
    "not specified",
    "not given",
    "not known",
    "not found",
    "not authenticated",
    "data not available",
    "no data",
    "no value",
    "no email",
    "no phone",
    "unknown",
    "unset",
    "unspecified",
    "unassigned",
    "unidentified",
    "missing",
    "empty",
    "blank",
    "invalid",
    "anonymous",
    "anon",
    "guest",
    "default",
    "dummy",
    "placeholder",
    "tbd",
    "tba",
    // The name of the column in place of its value
    "id",
    "email",
    "phone",
    "user id",
    "customer id",
    "client id",
    "device id",
    "anonymous id",
    "distinct id",
];

/// Values that are compared as a whole, without regard to case, because their letters alone would say too much: the nulls of databases and
/// spreadsheets, the numbers that stand for a missing one, and ids that whole series of devices share.
const BLOCKED_VALUES: &[&str] = &[
    "\\n",
    "%!s(<nil>)",
    "-1",
    "-99",
    "-999",
    "-9999",
    "1.#qnan",
    "-1.#qnan",
    "1.#ind",
    "-1.#ind",
    "#name?",
    "#ref!",
    "#value!",
    "#num!",
    "#div/0!",
    "#error!",
    "0x0",
    "02:00:00:00:00:00",
    "ff:ff:ff:ff:ff:ff",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "9774d56d682e549c",
];

/// Words that make an address up where both sides of it are such words or placeholders: `no@no.com`, `test@test.de`.
const MADE_UP: &[&str] = &["no", "nomail", "noreply", "test", "fake", "asdf", "x", "xx", "xxx"];

/// The longest placeholder that is looked for, in bytes: a template, or two words of the list. Ids of this length are no words.
const PLACEHOLDER_BYTES_MAX: usize = 128;

/// What a template leaves behind when nothing was put in, opening and closing.
const TEMPLATES: &[(&str, &str)] =
    &[("{{", "}}"), ("${", "}"), ("{%", "%}"), ("<%", "%>"), ("%%", "%%"), ("*|", "|*"), ("#{", "}")];

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

    /// Whether a clean value is blocked as it came, before it is normalised: `null` is no address, but above all it is blocked.
    pub(crate) fn blocks_raw(&self, value: &str) -> bool {
        value.is_empty() || (self.defaults && is_placeholder(value)) || self.exact.contains(value)
    }

    /// Whether a normalised value is blocked.
    pub(crate) fn blocks_key(&self, match_key: &str) -> bool {
        (self.defaults && is_placeholder(match_key))
            || self.exact.contains(match_key)
            || self.patterns.iter().any(|pattern| pattern.is_match(match_key))
    }
}

fn is_placeholder(value: &str) -> bool {
    if value.len() > PLACEHOLDER_BYTES_MAX {
        return false;
    }
    if BLOCKED_VALUES.iter().any(|blocked| value.eq_ignore_ascii_case(blocked))
        || TEMPLATES.iter().any(|(open, close)| value.starts_with(open) && value.ends_with(close))
    {
        return true;
    }
    if let Some((local, domain)) = value.split_once('@') {
        return is_made_up(local, domain);
    }
    let letters = words(value);
    // No letter or digit at all, or only zeros: `?`, `0000-00-00`.
    if letters.bytes().all(|byte| byte == b'0') || is_blocked_word(&letters) {
        return true;
    }
    // `null null` is what a missing first name and a missing last name make together.
    all_blocked(value, char::is_whitespace) || all_blocked(value, |char| !char.is_alphanumeric())
}

fn all_blocked(value: &str, separator: fn(char) -> bool) -> bool {
    value.split(separator).filter(|part| !part.is_empty()).all(|part| is_blocked_word(&words(part)))
}

fn is_blocked_word(letters: &str) -> bool {
    static WORDS: LazyLock<BTreeSet<String>> =
        LazyLock::new(|| DEFAULT_BLOCKED.iter().map(|blocked| words(blocked)).collect());
    WORDS.contains(letters)
}

fn is_made_up(local: &str, domain: &str) -> bool {
    let made_up = |text: &str| {
        let letters = words(text);
        letters.is_empty() || is_blocked_word(&letters) || MADE_UP.contains(&letters.as_str())
    };
    // The domain up to its last label: `none.com`, `no-email.co`.
    let name = domain.rsplit_once('.').map_or(domain, |(name, _)| name);
    made_up(local) && made_up(name)
}

/// The letters and digits of a text, in lower case.
fn words(text: &str) -> String {
    text.chars().filter(|char| char.is_alphanumeric()).flat_map(char::to_lowercase).collect()
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

    /// Issue 10, A7: each program has its own word for a missing value.
    #[test]
    fn the_placeholders_of_data_frames_and_databases_are_blocked() {
        for value in [
            "<NA>",
            "NaT",
            "NA",
            "N/A",
            "n/a",
            "#N/A",
            "#N/A N/A",
            "#NA",
            "n.a.",
            "\\N",
            "(null)",
            "<nil>",
            "(not set)",
            ".",
            "?",
            "{}",
            "[]",
            "none@none.com",
            "distinctid",
            "distinct_id",
            "-nan",
            "-NaN",
            "1.#IND",
            "-1.#QNAN",
            "#REF!",
            "#NULL!",
            "%!s(<nil>)",
            "Not Set",
            "not_authenticated",
            "nan.",
            "--",
            "\u{2014}",
            "...",
            "0.0",
            "0000-00-00",
            "{00000000-0000-0000-0000-000000000000}",
            "null null",
            "None None",
            "Invalid Date",
            "__HIVE_DEFAULT_PARTITION__",
            "NA_character_",
            "Optional.empty",
            "{{email}}",
            "${user.id}",
            "{{ customer.id | default: '' }}",
            "*|EMAIL|*",
            "%%email%%",
            "null@null.com",
            "no@no.com",
            "test@test.de",
            "n/a@n/a",
            "no-email@noemail.com",
            "unknown@unknown.org",
            "customer_id",
            "Infinity",
            "-inf",
            "undefined_undefined",
        ] {
            assert!(is_placeholder(value), "{value}");
        }
        for value in [
            "n",
            "N1",
            "na-4711",
            "nadia",
            "nat@example.com",
            "none@example.com",
            "na@company.com",
            "info@info.com",
            "test@example.com",
            "ada@none.com",
            "unknown@gmail.com",
            "x1",
            "a",
            "c-1",
            "100",
            "0x1f",
            "user{{1}}",
            "true-north",
            "id-5",
            "\u{5f20}\u{4e09}",
        ] {
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
