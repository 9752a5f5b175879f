//! Finds the integers in a JSON text that JavaScript cannot hold exactly.
//!
//! Nearly every row has none, and must not pay for the question: [`suspicious`] looks at one byte in sixteen. Only a text that
//! may have one is read token by token.

use serde::Serialize;

/// `Number.MAX_SAFE_INTEGER`, 2^53 - 1: the largest integer that is not the rounded form of another one.
const SAFE_MAX: &[u8] = b"9007199254740991";

/// A step of the way to a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

pub(crate) type Path = Vec<Step>;

/// An integer beyond what is safe.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unsafe {
    /// Where its digits (and sign) stand in the text.
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) path: Path,
}

/// All of them, with their paths. A text that is not valid JSON has none, because it does not get as far as being read.
pub(crate) fn find(text: &[u8]) -> Vec<Unsafe> {
    if suspicious(text) { Reader::new(text).read().unwrap_or_default() } else { Vec::new() }
}

/// Whether a run of digits in the text looks like an integer that is too large. It may stand in a string.
fn suspicious(text: &[u8]) -> bool {
    let span = SAFE_MAX.len();
    let mut at = span - 1;
    // A run of at least `span` digits covers every `span`-th byte at least once.
    while at < text.len() {
        if !text[at].is_ascii_digit() {
            at += span;
            continue;
        }
        let start = text[..at].iter().rposition(|byte| !byte.is_ascii_digit()).map_or(0, |before| before + 1);
        let end = text[at..].iter().position(|byte| !byte.is_ascii_digit()).map_or(text.len(), |length| at + length);
        let before = start.checked_sub(1).map(|index| text[index]);
        let fraction = matches!(before, Some(b'.')) || matches!(text.get(end), Some(b'.' | b'e' | b'E'));
        if !fraction && too_large(&text[start..end]) {
            return true;
        }
        // The next byte to look at that does not belong to this run.
        at = end + span - 1;
    }
    false
}

fn too_large(digits: &[u8]) -> bool {
    digits.len() > SAFE_MAX.len() || (digits.len() == SAFE_MAX.len() && digits > SAFE_MAX)
}

/// Reads tokens and remembers where it is. It accepts somewhat more than JSON, which does no harm: V8 parses the same text.
struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    /// One step for each open object or array: the key or index of the value that comes next.
    path: Path,
    found: Vec<Unsafe>,
}

impl<'a> Reader<'a> {
    fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0, path: Vec::new(), found: Vec::new() }
    }

    fn read(mut self) -> Option<Vec<Unsafe>> {
        while let Some(&byte) = self.text.get(self.at) {
            match byte {
                b'{' => {
                    self.at += 1;
                    self.path.push(Step::Key(String::new()));
                    self.key()?;
                }
                b'[' => {
                    self.at += 1;
                    self.path.push(Step::Index(0));
                }
                b'}' | b']' => {
                    self.at += 1;
                    self.path.pop()?;
                }
                b',' => {
                    self.at += 1;
                    match self.path.last_mut()? {
                        Step::Index(index) => *index += 1,
                        Step::Key(_) => self.key()?,
                    }
                }
                b'"' => {
                    self.string()?;
                }
                b'-' | b'0'..=b'9' => self.number(),
                _ => self.at += 1,
            }
        }
        Some(self.found)
    }

    /// Reads the key that comes next, if one does.
    fn key(&mut self) -> Option<()> {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        if self.text.get(self.at) == Some(&b'"') {
            let quoted = self.string()?;
            let key = serde_json::from_slice(quoted).ok()?;
            *self.path.last_mut()? = Step::Key(key);
        }
        Some(())
    }

    /// Reads a string and returns it with its quotes.
    fn string(&mut self) -> Option<&'a [u8]> {
        let start = self.at;
        self.at += 1;
        loop {
            match self.text.get(self.at)? {
                b'"' => {
                    self.at += 1;
                    return Some(&self.text[start..self.at]);
                }
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
    }

    fn number(&mut self) {
        let start = self.at;
        while self.text.get(self.at).is_some_and(|byte| matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9'))
        {
            self.at += 1;
        }
        let token = &self.text[start..self.at];
        let digits = token.strip_prefix(b"-").unwrap_or(token);
        if digits.iter().all(u8::is_ascii_digit) && too_large(digits) {
            self.found.push(Unsafe { start, end: self.at, path: self.path.clone() });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn paths(text: &str) -> Vec<String> {
        find(text.as_bytes())
            .into_iter()
            .map(|found| {
                let steps: Vec<String> = found
                    .path
                    .into_iter()
                    .map(|step| match step {
                        Step::Key(key) => key,
                        Step::Index(index) => index.to_string(),
                    })
                    .collect();
                format!("{}={}", steps.join("."), text.get(found.start..found.end).unwrap())
            })
            .collect()
    }

    #[test]
    fn the_largest_safe_integer_is_the_border() {
        assert!(paths(r#"{"a":9007199254740991,"b":-9007199254740991}"#).is_empty());
        assert_eq!(
            paths(r#"{"a":9007199254740992,"b":-9007199254740993}"#),
            ["a=9007199254740992", "b=-9007199254740993"]
        );
    }

    #[test]
    fn nested_integers_are_found_with_their_paths() {
        let text = r#"{"a":{"b":[1,{"c\n":12345678901234567890}]}, "d" : [[0],[99999999999999999]]}"#;
        assert_eq!(paths(text), ["a.b.1.c\n=12345678901234567890", "d.1.0=99999999999999999"]);
    }

    #[test]
    fn floats_and_strings_are_left_alone() {
        assert!(
            paths(r#"{"a":0.12345678901234567,"b":12345678901234567.5,"c":"12345678901234567890","d":1e300}"#)
                .is_empty()
        );
        assert!(paths(r#"{"note":"x,12345678901234567890,y","\"k\\":["\\",1]}"#).is_empty());
    }

    #[test]
    fn a_text_that_is_no_json_does_not_confuse_it() {
        for text in ["}", "{\"a", "]12345678901234567890", "{\"a\":\"12345678901234567890\\", ",", ""] {
            let _found = find(text.as_bytes());
        }
    }

    proptest! {
        /// The quick look must never miss one that reading finds.
        #[test]
        fn what_reading_finds_is_suspicious(lead in "[ ]{0,40}", number in "-?[1-9][0-9]{10,24}", tail in "[ ]{0,40}") {
            let text = format!("{{\"k\":{lead}{number}{tail}}}");
            let read = Reader::new(text.as_bytes()).read().unwrap();
            let digits = number.trim_start_matches('-');
            let beyond = digits.parse::<u128>().unwrap() > 9_007_199_254_740_991;
            prop_assert_eq!(read.len(), usize::from(beyond));
            prop_assert_eq!(suspicious(text.as_bytes()), beyond);
        }
    }
}
