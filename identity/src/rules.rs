//! The rules of a workspace: which types of identifiers there are, how strong each is, and how many a person may have.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use regex::Regex;
use tailwater_core::{Code, code};

use crate::blocklist::Blocklist;
use crate::clean::clean;
use crate::decision::Why;
use crate::normalise::{Compiled, Normaliser};

/// Types that a workspace may declare. Every event's answer and every profile's activity has a place for each.
const TYPES_MAX: usize = 64;
/// The longest name of a type, in bytes; it stands in every record.
const NAME_BYTES_MAX: usize = 64;
/// Upper bounds of what the globals may be set to: a profile is one record and has to stay well below a broker's 1 MB.
const IDENTIFIERS_MAX: usize = 10_000;
const MERGES_MAX: usize = 1_000;
const IDS_PER_EVENT_MAX: usize = 100;

/// One identifier type, as it is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeRule {
    /// ASCII letters, digits, `_` and `-`.
    pub name: String,
    /// 1 is the strongest. Each type has a priority of its own, so that the order is total.
    pub priority: u32,
    pub normaliser: Normaliser,
    pub limit: Limit,
    /// Values that stand for nobody, compared raw and normalised.
    pub blocked: Vec<String>,
    /// Regular expressions over the normalised value; anchor them with `^` and `$` where the whole value is meant.
    pub blocked_patterns: Vec<String>,
}

/// How many values of a type a profile may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    pub max: u32,
    /// `None`: ever. Otherwise no span of this length, measured by the events' time, may see more than `max` values added.
    pub window: Option<Duration>,
}

/// What holds for all types together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Globals {
    /// Identifiers of one profile. Default 1000.
    pub max_identifiers: usize,
    /// Profiles that one profile may absorb, counting those that they had absorbed. Default 100.
    pub max_merges: usize,
    /// Identifiers of one event that are looked at, the strongest first. Default 20.
    pub max_ids_per_event: usize,
    /// Whether [`DEFAULT_BLOCKED`](crate::DEFAULT_BLOCKED) applies to every type. Default true.
    pub default_blocklist: bool,
}

/// Something wrong with the rules.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct RuleProblem {
    /// Below the identity section: `types.email.max`.
    pub path: String,
    pub code: Code,
    pub message: String,
}

/// The validated rules. Types are kept strongest first; a type's index is its rank.
#[derive(Debug, Clone)]
pub struct Rules {
    types: Vec<Type>,
    by_name: BTreeMap<Arc<str>, usize>,
    globals: Globals,
}

#[derive(Debug, Clone)]
pub(crate) struct Type {
    pub(crate) name: Arc<str>,
    pub(crate) limit: Limit,
    normaliser: Compiled,
    blocklist: Blocklist,
}

/// A value that may be used: which type, by which key it is matched, and what a vendor gets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) rank: usize,
    pub(crate) match_key: Arc<str>,
    pub(crate) delivery: Arc<str>,
}

// === impl TypeRule ===

impl TypeRule {
    /// A type with the suggested defaults: compared as it is, at most five values ever, nothing blocked beyond the default list.
    pub fn new(name: impl Into<String>, priority: u32) -> Self {
        Self {
            name: name.into(),
            priority,
            normaliser: Normaliser::Trim,
            limit: Limit { max: 5, window: None },
            blocked: Vec::new(),
            blocked_patterns: Vec::new(),
        }
    }

    #[must_use]
    pub fn normaliser(mut self, normaliser: Normaliser) -> Self {
        self.normaliser = normaliser;
        self
    }

    /// At most `max` values, ever.
    #[must_use]
    pub fn max(mut self, max: u32) -> Self {
        self.limit.max = max;
        self
    }

    #[must_use]
    pub fn window(mut self, window: Duration) -> Self {
        self.limit.window = Some(window);
        self
    }
}

// === impl Globals ===

impl Default for Globals {
    fn default() -> Self {
        Self { max_identifiers: 1000, max_merges: 100, max_ids_per_event: 20, default_blocklist: true }
    }
}

// === impl Rules ===

impl Rules {
    /// Checks and compiles the rules.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn new(types: Vec<TypeRule>, globals: Globals) -> Result<Self, Vec<RuleProblem>> {
        let mut problems = Problems::default();
        check_globals(&globals, &mut problems);
        if types.is_empty() {
            problems.missing("types", "no identifier type is declared; declare at least one, such as email");
        }
        if types.len() > TYPES_MAX {
            problems.invalid("types", format!("{} types are declared, at most {TYPES_MAX} are possible", types.len()));
        }
        let mut names = BTreeSet::new();
        let mut priorities: BTreeMap<u32, &str> = BTreeMap::new();
        let mut compiled = Vec::with_capacity(types.len());
        for rule in &types {
            let path = format!("types.{}", rule.name);
            if !names.insert(rule.name.as_str()) {
                problems.invalid(&path, "the type is declared twice");
            }
            if rule.priority == 0 {
                problems.invalid(format!("{path}.priority"), "priorities begin at 1, the strongest");
            } else if let Some(other) = priorities.insert(rule.priority, &rule.name) {
                problems.invalid(
                    format!("{path}.priority"),
                    format!(
                        "priority {} is that of {other} already; give each type its own, so that the order is total",
                        rule.priority
                    ),
                );
            }
            if let Some(kind) = compile(rule, &path, &globals, &mut problems) {
                compiled.push((rule.priority, kind));
            }
        }
        if !problems.0.is_empty() {
            return Err(problems.0);
        }
        compiled.sort_by_key(|(priority, _)| *priority);
        let types: Vec<Type> = compiled.into_iter().map(|(_, kind)| kind).collect();
        let by_name = types.iter().enumerate().map(|(rank, kind)| (Arc::clone(&kind.name), rank)).collect();
        Ok(Self { types, by_name, globals })
    }

    /// The names of the types, strongest first.
    pub fn type_names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.types.iter().map(|kind| &*kind.name)
    }

    pub fn globals(&self) -> &Globals {
        &self.globals
    }

    /// The match key of a value, by which it is compared with others of its type.
    ///
    /// # Errors
    /// Why the value is no identifier.
    pub fn match_key(&self, kind: &str, value: &str) -> Result<Arc<str>, Why> {
        self.accept(kind, value).map(|accepted| accepted.match_key)
    }

    pub(crate) fn accept(&self, kind: &str, raw: &str) -> Result<Accepted, Why> {
        let rank = self.rank(kind).ok_or(Why::UnknownType)?;
        let kind = &self.types[rank];
        let value = clean(raw).ok_or(Why::Invalid)?;
        if kind.blocklist.blocks_raw(&value) {
            return Err(Why::Blocked);
        }
        let normalised = kind.normaliser.apply(&value, raw).ok_or(Why::Invalid)?;
        if kind.blocklist.blocks_key(&normalised.match_key) {
            return Err(Why::Blocked);
        }
        let match_key: Arc<str> = Arc::from(&*normalised.match_key);
        let delivery = if normalised.delivery == normalised.match_key {
            Arc::clone(&match_key)
        } else {
            Arc::from(&*normalised.delivery)
        };
        Ok(Accepted { rank, match_key, delivery })
    }

    pub(crate) fn rank(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn types(&self) -> &[Type] {
        &self.types
    }
}

fn check_globals(globals: &Globals, problems: &mut Problems) {
    for (path, value, max) in [
        ("max_identifiers", globals.max_identifiers, IDENTIFIERS_MAX),
        ("max_merges", globals.max_merges, MERGES_MAX),
        ("max_ids_per_event", globals.max_ids_per_event, IDS_PER_EVENT_MAX),
    ] {
        // No merges at all is a choice; no identifiers at all is a mistake.
        let min = usize::from(path != "max_merges");
        if !(min..=max).contains(&value) {
            problems.invalid(path, format!("{value} is not between {min} and {max}"));
        }
    }
}

fn compile(rule: &TypeRule, path: &str, globals: &Globals, problems: &mut Problems) -> Option<Type> {
    let name_ok = (1..=NAME_BYTES_MAX).contains(&rule.name.len())
        && rule.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    if !name_ok {
        problems.invalid(path, format!("the name of a type has 1 to {NAME_BYTES_MAX} letters, digits, '_' and '-'"));
    }
    if rule.limit.max == 0 {
        problems.invalid(
            format!("{path}.max"),
            "a limit of 0 would refuse every value; remove the type, or allow at least 1",
        );
    } else if rule.limit.max as usize > globals.max_identifiers && rule.limit.window.is_none() {
        problems.invalid(
            format!("{path}.max"),
            format!(
                "{} is above max_identifiers ({}), so it could never be reached",
                rule.limit.max, globals.max_identifiers
            ),
        );
    }
    if rule.limit.window.is_some_and(|window| window.as_millis() == 0) {
        problems.invalid(
            format!("{path}.window"),
            "a window has to last at least a millisecond; leave it out for a limit for ever",
        );
    }
    let normaliser = rule.normaliser.compile();
    if normaliser.is_none() {
        problems.invalid(
            format!("{path}.region"),
            "the region is no ISO 3166-1 code of two capital letters, such as US or DE",
        );
    }
    let mut patterns = Vec::with_capacity(rule.blocked_patterns.len());
    for (index, pattern) in rule.blocked_patterns.iter().enumerate() {
        match Regex::new(pattern) {
            Ok(pattern) => patterns.push(pattern),
            Err(error) => {
                // The crate draws the place over several lines and says what is wrong in the last one.
                let text = error.to_string();
                let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
                problems.invalid(
                    format!("{path}.blocked_patterns[{index}]"),
                    format!("the regular expression does not parse: {reason}"),
                );
            }
        }
    }
    let normaliser = normaliser?;
    let mut exact = BTreeSet::new();
    for value in &rule.blocked {
        exact.insert(value.trim().to_owned());
        let Some(cleaned) = clean(value) else { continue };
        if let Some(normalised) = normaliser.apply(&cleaned, value) {
            exact.insert(normalised.match_key.into_owned());
        }
        exact.insert(cleaned.into_owned());
    }
    Some(Type {
        name: Arc::from(rule.name.as_str()),
        limit: rule.limit,
        normaliser,
        blocklist: Blocklist::new(globals.default_blocklist, exact, patterns),
    })
}

/// Collects what is wrong.
#[derive(Default)]
struct Problems(Vec<RuleProblem>);

impl Problems {
    fn invalid(&mut self, path: impl Into<String>, message: impl Display) {
        self.0.push(RuleProblem { path: path.into(), code: code::CONFIG_INVALID_VALUE, message: message.to_string() });
    }

    fn missing(&mut self, path: &str, message: &str) {
        self.0.push(RuleProblem { path: path.to_owned(), code: code::CONFIG_MISSING_KEY, message: message.to_owned() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_problems_are_reported_at_once_with_their_paths() {
        let types = vec![
            TypeRule::new("email", 1).max(0),
            TypeRule::new("email", 2),
            TypeRule { blocked_patterns: vec!["(".to_owned()], ..TypeRule::new("user_id", 1) },
            TypeRule::new("phone", 4).normaliser(Normaliser::Phone { region: "Mars".to_owned() }),
            TypeRule::new("a b", 0).window(Duration::ZERO),
            TypeRule::new("cookie", 9).max(2000),
        ];
        let problems = Rules::new(types, Globals { max_ids_per_event: 0, ..Globals::default() }).unwrap_err();
        let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "max_ids_per_event",
                "types.email.max",
                "types.email",
                "types.user_id.priority",
                "types.user_id.blocked_patterns[0]",
                "types.phone.region",
                "types.a b.priority",
                "types.a b",
                "types.a b.window",
                "types.cookie.max",
            ]
        );
        assert!(problems.iter().all(|problem| problem.code == code::CONFIG_INVALID_VALUE));
    }

    #[test]
    fn rules_without_types_are_refused() {
        let problems = Rules::new(Vec::new(), Globals::default()).unwrap_err();
        assert_eq!(problems[0].code, code::CONFIG_MISSING_KEY);
    }

    #[test]
    fn types_are_ordered_by_priority_not_by_declaration() {
        let rules = Rules::new(
            vec![TypeRule::new("cookie", 30), TypeRule::new("user_id", 1), TypeRule::new("email", 20)],
            Globals::default(),
        )
        .unwrap();
        assert_eq!(rules.type_names().collect::<Vec<_>>(), ["user_id", "email", "cookie"]);
    }

    #[test]
    fn blocked_values_are_compared_raw_and_normalised() {
        let rule = TypeRule {
            blocked: vec!["Test@Example.com".to_owned()],
            blocked_patterns: vec![r"@internal\.example$".to_owned()],
            ..TypeRule::new("email", 1).normaliser(Normaliser::Email)
        };
        let rules = Rules::new(vec![rule], Globals::default()).unwrap();
        assert_eq!(rules.match_key("email", "test@example.COM"), Err(Why::Blocked));
        assert_eq!(rules.match_key("email", "bot@INTERNAL.example"), Err(Why::Blocked));
        assert_eq!(rules.match_key("email", " null "), Err(Why::Blocked));
        assert_eq!(rules.match_key("email", "nobody"), Err(Why::Invalid));
        assert_eq!(rules.match_key("fax", "1"), Err(Why::UnknownType));
        assert_eq!(rules.match_key("email", "Ada@Example.com").as_deref(), Ok("ada@example.com"));
    }

    #[test]
    fn rules_can_be_shared_between_threads() {
        fn shared<T: Send + Sync + std::fmt::Debug>() {}
        shared::<Rules>();
    }
}
