//! Keeps what references stand for out of every problem, whichever part of the configuration the problem is about.
//!
//! Whoever writes a problem takes the text as the file has it; this is the net under them, for the name that one section takes from
//! another. It must never be the only one: a parser may quote a piece of a value, which no search for the whole of it finds.

use std::collections::BTreeMap;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

use super::problem::Problem;

/// Bytes from which on a value is looked for. A shorter one (`8`, `eu`) is no secret.
const BYTES_MIN: usize = 4;

/// Bytes from which on a value is hidden within words too; a shorter one (`test`) stands in words that it is not.
const WITHIN_WORDS_BYTES_MIN: usize = 8;

pub struct Mask {
    values: AhoCorasick,
    references: Vec<String>,
}

impl Mask {
    /// `values` are what came from outside, each with the reference that stands for it. `None` where there is nothing to hide.
    ///
    /// # Errors
    /// The values are too many and too long to be looked for.
    pub fn new(values: &BTreeMap<String, String>) -> Result<Option<Self>, aho_corasick::BuildError> {
        let (values, references): (Vec<&String>, Vec<String>) = values
            .iter()
            .filter(|(value, _)| value.len() >= BYTES_MIN)
            .map(|(value, reference)| (value, reference.clone()))
            .unzip();
        if values.is_empty() {
            return Ok(None);
        }
        // Of the kinds of automata the one that stays small: a referenced file may be a megabyte.
        let mut builder = AhoCorasick::builder();
        builder.match_kind(MatchKind::LeftmostLongest).kind(Some(AhoCorasickKind::ContiguousNFA));
        Ok(Some(Self { values: builder.build(values)?, references }))
    }

    pub fn apply(&self, problem: &mut Problem) {
        for text in [Some(&mut problem.message), problem.hint.as_mut()].into_iter().flatten() {
            let mut masked = String::new();
            let mut rest = 0;
            for found in self.values.find_iter(text.as_str()) {
                let is_word = |at: Option<char>| at.is_some_and(char::is_alphanumeric);
                let within = is_word(text.get(..found.start()).and_then(|before| before.chars().next_back()))
                    || is_word(text.get(found.end()..).and_then(|behind| behind.chars().next()));
                if within && found.len() < WITHIN_WORDS_BYTES_MIN {
                    continue;
                }
                masked.push_str(text.get(rest..found.start()).unwrap_or_default());
                masked.push_str(self.references.get(found.pattern().as_usize()).map_or("${…}", String::as_str));
                rest = found.end();
            }
            if rest > 0 {
                masked.push_str(text.get(rest..).unwrap_or_default());
                *text = masked;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tailwater_core::code;

    use super::*;
    use crate::config::Path;

    fn mask(values: &[(&str, &str)]) -> Mask {
        let values = values.iter().map(|(value, reference)| ((*value).to_owned(), (*reference).to_owned()));
        Mask::new(&values.collect()).unwrap().unwrap()
    }

    fn problem(message: &str) -> Problem {
        Problem::error(code::CONFIG_INVALID_VALUE, &Path::default(), message)
    }

    #[test]
    fn values_are_replaced_by_their_references_and_short_ones_left_alone() {
        let mask = mask(&[("hunter22", "${env:PASSWORD}"), ("hunter", "${env:NAME}"), ("8", "${env:LANES}")]);
        let mut problem = problem("`xhunter22x` is not one of 8").hint("hunter?");
        mask.apply(&mut problem);
        assert_eq!(problem.message, "`x${env:PASSWORD}x` is not one of 8");
        assert_eq!(problem.hint.as_deref(), Some("${env:NAME}?"));
    }

    #[test]
    fn words_that_hold_a_short_value_by_chance_are_left_alone() {
        let mask = mask(&[("test", "${env:STAGE}")]);
        let mut problem = problem("`test` is not one of snapshot, latest");
        mask.apply(&mut problem);
        assert_eq!(problem.message, "`${env:STAGE}` is not one of snapshot, latest");
    }

    #[test]
    fn a_value_as_large_as_a_file_may_be_needs_no_more_than_some_of_its_size() {
        let value: String = (0..1_000_000_u32)
            .map(|number| char::from(b'a' + (number.wrapping_mul(2_654_435_761) >> 27) as u8 % 26))
            .collect();
        let mask = mask(&[(value.as_str(), "${file:ca.pem}")]);
        assert!(mask.values.memory_usage() < 64 * 1024 * 1024, "{}", mask.values.memory_usage());
        let mut problem = problem(&format!("<{value}>"));
        mask.apply(&mut problem);
        assert_eq!(problem.message, "<${file:ca.pem}>");
    }
}
