//! The identity section, in the resolver's own rules.

use std::sync::Arc;

use serde_json::Value as Json;
use tailwater_core::code;
use tailwater_identity::{Globals, Normaliser, Rules, TypeRule};

use super::Builder;
use crate::config::model::Identity;
use crate::config::problem::{Path, Problem};
use crate::config::raw::{RawIdentity, RawNormalise};

impl Builder<'_> {
    pub(super) fn identity(&mut self) -> Option<Identity> {
        let path = Path::of(["identity"]);
        let raw: RawIdentity = self.section(self.json.get("identity").unwrap_or(&Json::Null), &path)?;
        let (blocked, blocked_patterns) = self.blocklist(&path.key("blocklist"), &raw.blocklist)?;
        let types = raw.types.into_iter().map(|(name, kind)| {
            let mut rule = TypeRule::new(name, kind.priority).max(kind.max).normaliser(match kind.normalise {
                RawNormalise::Trim => Normaliser::Trim,
                RawNormalise::Lower => Normaliser::Lower,
                RawNormalise::Email => Normaliser::Email,
                RawNormalise::Phone { region } => Normaliser::Phone { region },
            });
            if let Some(window) = kind.window {
                rule = rule.window(window.0);
            }
            TypeRule { blocked: blocked.clone(), blocked_patterns: blocked_patterns.clone(), ..rule }
        });
        let globals = Globals {
            max_identifiers: raw.max_identifiers,
            max_merges: raw.max_merges,
            max_ids_per_event: raw.max_ids_per_event,
            default_blocklist: raw.default_blocklist,
        };
        match Rules::new(types.collect(), globals) {
            Ok(rules) => Some(Identity { rules: Arc::new(rules) }),
            Err(problems) => {
                for problem in problems {
                    // The rules' paths have plain names only: types are named like everything else here.
                    let written = problem.path.replace(".region", ".normalise.phone.region");
                    let path = written.split('.').fold(path.clone(), |path, key| path.key(key));
                    self.error(problem.code, &path, problem.message);
                }
                None
            }
        }
    }

    /// The exact values and the patterns of the blocklist. A broken pattern is reported once, not once per type.
    fn blocklist(&mut self, path: &Path, raw: &[String]) -> Option<(Vec<String>, Vec<String>)> {
        let (mut exact, mut patterns) = (Vec::new(), Vec::new());
        let mut right = true;
        for (index, entry) in raw.iter().enumerate() {
            let Some(pattern) =
                entry.strip_prefix('/').and_then(|rest| rest.strip_suffix('/')).filter(|pattern| !pattern.is_empty())
            else {
                exact.push(entry.clone());
                continue;
            };
            match regex::Regex::new(pattern) {
                Ok(_) => patterns.push(pattern.to_owned()),
                Err(error) => {
                    right = false;
                    let path = path.index(index);
                    let reason = error.to_string();
                    let reason =
                        reason.lines().last().unwrap_or("unknown reason").trim_start_matches("error: ").to_owned();
                    let problem = Problem::error(
                        code::CONFIG_EXPRESSION,
                        &path,
                        format!("the regular expression does not compile: {reason}"),
                    );
                    self.report(problem.hint("an entry between slashes is a regular expression; write it without slashes for an exact value"), &path);
                }
            }
        }
        right.then_some((exact, patterns))
    }
}
