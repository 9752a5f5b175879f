//! Keeps what references stand for out of every problem, whichever part of the configuration the problem is about.
//!
//! Whoever writes a problem takes the text as the file has it; this is the net under them, for the name that one section takes from
//! another. It must never be the only one: a parser may quote a piece of a value, which no search for the whole of it finds.

use std::collections::BTreeMap;

use aho_corasick::{AhoCorasick, MatchKind};

use super::problem::Problem;

/// Characters from which on a value is looked for. A shorter one (`8`, `eu`) is no secret, and stands in words that it is not.
const CHARACTERS_MIN: usize = 4;

pub struct Mask {
    /// None where there is nothing to hide.
    values: Option<AhoCorasick>,
    references: Vec<String>,
}

impl Mask {
    /// `values` are what came from outside, each with the reference that stands for it.
    pub fn new(values: &BTreeMap<String, String>) -> Self {
        let hidden = || values.iter().filter(|(value, _)| value.chars().count() >= CHARACTERS_MIN);
        let references: Vec<String> = hidden().map(|(_, reference)| reference.clone()).collect();
        let automaton =
            || AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(hidden().map(|(value, _)| value));
        // Values too many and too long for an automaton (2^31 states) cannot come from a file of a few megabytes.
        let values = if references.is_empty() { None } else { automaton().ok() };
        Self { values, references }
    }

    pub fn apply(&self, problem: &mut Problem) {
        let Some(values) = &self.values else { return };
        for text in [Some(&mut problem.message), problem.hint.as_mut()].into_iter().flatten() {
            if values.is_match(text.as_str()) {
                *text = values.replace_all(text, &self.references);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tailwater_core::code;

    use super::*;
    use crate::config::Path;

    #[test]
    fn values_are_replaced_by_their_references_and_short_ones_left_alone() {
        let values = [("hunter2", "${env:PASSWORD}"), ("hunter", "${env:NAME}"), ("8", "${env:LANES}")];
        let mask = Mask::new(&values.map(|(value, reference)| (value.to_owned(), reference.to_owned())).into());
        let mut problem =
            Problem::error(code::CONFIG_INVALID_VALUE, &Path::default(), "`hunter2x` is not one of 8").hint("hunter?");
        mask.apply(&mut problem);
        assert_eq!(problem.message, "`${env:PASSWORD}x` is not one of 8");
        assert_eq!(problem.hint.as_deref(), Some("${env:NAME}?"));
    }
}
