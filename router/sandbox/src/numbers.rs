//! Finds the numbers in a JSON text that JavaScript cannot hold exactly.
//!
//! JavaScript's numbers are doubles. An integer beyond 2^53 and a decimal of more digits than a double has would be rounded without a
//! word. Nearly every row has none, and must not pay for the question: [`suspicious`] looks at one byte in sixteen. Only a text that
//! may have one is read token by token.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::value::RawValue;

/// `Number.MAX_SAFE_INTEGER`, 2^53 - 1: the largest integer that is not the rounded form of another one.
const SAFE_MAX: &[u8] = b"9007199254740991";

/// Every decimal of so many digits comes back as it was.
const DIGITS_EXACT: usize = 15;

/// The most digits that anybody writes for a double: with 17 it can be read back.
const DIGITS_OF_DOUBLE: usize = 17;

/// A step of the way to a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Key(String),
    /// A name that is no Unicode text (it has half a surrogate pair), as it stands in the JSON.
    Odd(String),
    Index(usize),
}

pub(crate) type Path = Vec<Step>;

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// Numbers that are not exact, except that those with a fraction of up to 17 digits are somebody's doubles.
    Usual,
    /// These, too: there are columns of decimals.
    Decimals,
    /// Every number: some are wanted as texts.
    All,
}

/// A number.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Number {
    /// Where it stands in the text.
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) path: Path,
    pub(crate) exactness: Exactness,
}

/// Whether JavaScript has the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exactness {
    Exact,
    /// The nearest double is another number, but one that is written with as many digits: it is most likely what was meant.
    AsDouble,
    /// It is rounded: an integer.
    Integer,
    /// It is rounded: a number with a fraction or an exponent.
    Decimal,
}

/// All numbers that may not be exact (or all, with [`Look::All`]), with their paths. A text that is not valid JSON has none, because it does not
/// get as far as being read.
pub(crate) fn find(text: &[u8], look: Look) -> Vec<Number> {
    if look == Look::All || suspicious(text, look) {
        Reader::new(text, look == Look::All).read().unwrap_or_default()
    } else {
        Vec::new()
    }
}

/// Whether a run of digits in the text looks like a number that is not exact. It may stand in a string.
fn suspicious(text: &[u8], look: Look) -> bool {
    let belongs = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
    let span = SAFE_MAX.len();
    let mut at = span - 1;
    // A run of at least `span` bytes covers every `span`-th byte at least once.
    while at < text.len() {
        if !belongs(&text[at]) {
            at += span;
            continue;
        }
        let start = text[..at].iter().rposition(|byte| !belongs(byte)).map_or(0, |before| before + 1);
        let end = text[at..].iter().position(|byte| !belongs(byte)).map_or(text.len(), |length| at + length);
        if is_suspicious(text, start, end, look) {
            return true;
        }
        // The next byte to look at that does not belong to this run.
        at = end + span - 1;
    }
    false
}

fn is_suspicious(text: &[u8], start: usize, end: usize, look: Look) -> bool {
    let run = &text[start..end];
    let exponent = matches!(text.get(end), Some(b'e' | b'E'));
    let fraction = run.contains(&b'.');
    match look {
        _ if !fraction && !exponent => too_large(run),
        Look::Usual => {
            let whole = run.iter().position(|byte| *byte == b'.').unwrap_or(run.len());
            let digits = significant(run);
            digits > DIGITS_OF_DOUBLE || whole >= SAFE_MAX.len() || (exponent && digits > DIGITS_EXACT)
        }
        Look::Decimals | Look::All => significant(run) > DIGITS_EXACT,
    }
}

/// The digits without the zeros before them.
fn significant(run: &[u8]) -> usize {
    let zeros = run.iter().position(|byte| !matches!(byte, b'0' | b'.')).unwrap_or(run.len());
    run[zeros..].iter().filter(|byte| byte.is_ascii_digit()).count()
}

fn too_large(digits: &[u8]) -> bool {
    digits.len() > SAFE_MAX.len() || (digits.len() == SAFE_MAX.len() && digits > SAFE_MAX)
}

/// Judges a number's text.
fn exactness(token: &[u8]) -> Exactness {
    let unsigned = token.strip_prefix(b"-").unwrap_or(token);
    if unsigned.iter().all(u8::is_ascii_digit) {
        return if too_large(unsigned) { Exactness::Integer } else { Exactness::Exact };
    }
    let Some(given) = Scientific::read(unsigned) else { return Exactness::Exact };
    // Within this range a double has its full precision.
    if given.digits.len() <= DIGITS_EXACT && given.exponent.abs() < 300 {
        return Exactness::Exact;
    }
    let value: f64 = std::str::from_utf8(unsigned).ok().and_then(|text| text.parse().ok()).unwrap_or(f64::INFINITY);
    if !value.is_finite() {
        return Exactness::Decimal;
    }
    // The shortest text that reads back equal, which is JavaScript's too.
    let mut shortest = String::new();
    if write!(shortest, "{value:e}").is_err() {
        return Exactness::Decimal;
    }
    if Scientific::read(shortest.as_bytes()).is_some_and(|shown| shown == given) {
        Exactness::Exact
    } else if given.digits.len() <= DIGITS_OF_DOUBLE && value < 9_007_199_254_740_992.0 && value != 0.0 {
        Exactness::AsDouble
    } else {
        Exactness::Decimal
    }
}

/// A number as its digits, without zeros around them, and the power of ten of the first digit.
#[derive(Debug, PartialEq, Eq)]
struct Scientific {
    digits: Vec<u8>,
    exponent: i64,
}

impl Scientific {
    fn read(token: &[u8]) -> Option<Self> {
        let (mantissa, exponent) = match token.iter().position(|byte| matches!(byte, b'e' | b'E')) {
            Some(at) => {
                let text = std::str::from_utf8(&token[at + 1..]).ok()?;
                // One that does not fit is far beyond any double; so is the end of the range.
                let exponent = text.parse::<i64>().unwrap_or(if text.starts_with('-') { -999_999 } else { 999_999 });
                (&token[..at], exponent.clamp(-999_999, 999_999))
            }
            None => (token, 0),
        };
        let whole = mantissa.iter().position(|byte| *byte == b'.').unwrap_or(mantissa.len());
        let mut digits: Vec<u8> = mantissa.iter().copied().filter(u8::is_ascii_digit).collect();
        let zeros = digits.iter().position(|digit| *digit != b'0').unwrap_or(digits.len());
        digits.drain(..zeros);
        while digits.last() == Some(&b'0') {
            digits.pop();
        }
        if digits.is_empty() {
            return Some(Self { digits, exponent: 0 });
        }
        let first = i64::try_from(whole).ok()? - i64::try_from(zeros).ok()? - 1;
        Some(Self { digits, exponent: first.saturating_add(exponent) })
    }
}

impl Serialize for Step {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Key(key) => serializer.serialize_str(key),
            Self::Odd(quoted) => match RawValue::from_string(quoted.clone()) {
                Ok(raw) => raw.serialize(serializer),
                // Then the whole text is no JSON, and is refused when it is parsed.
                Err(_) => serializer.serialize_str(""),
            },
            Self::Index(index) => index.serialize(serializer),
        }
    }
}

/// Reads tokens and remembers where it is. It accepts somewhat more than JSON, which does no harm: V8 parses the same text.
struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    /// One step for each open object or array: the key or index of the value that comes next.
    path: Path,
    found: Vec<Number>,
    /// Also numbers that are exact.
    all: bool,
}

impl<'a> Reader<'a> {
    fn new(text: &'a [u8], all: bool) -> Self {
        Self { text, at: 0, path: Vec::new(), found: Vec::new(), all }
    }

    fn read(mut self) -> Option<Vec<Number>> {
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
                        Step::Key(_) | Step::Odd(_) => self.key()?,
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
            *self.path.last_mut()? = match serde_json::from_slice(quoted) {
                Ok(key) => Step::Key(key),
                Err(_) => Step::Odd(std::str::from_utf8(quoted).ok()?.to_owned()),
            };
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
        let exactness = exactness(&self.text[start..self.at]);
        if self.all || exactness != Exactness::Exact {
            self.found.push(Number { start, end: self.at, path: self.path.clone(), exactness });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn paths(text: &str, look: Look) -> Vec<String> {
        find(text.as_bytes(), look)
            .into_iter()
            .map(|found| {
                let steps: Vec<String> = found
                    .path
                    .into_iter()
                    .map(|step| match step {
                        Step::Key(key) | Step::Odd(key) => key,
                        Step::Index(index) => index.to_string(),
                    })
                    .collect();
                format!("{}={}", steps.join("."), text.get(found.start..found.end).unwrap())
            })
            .collect()
    }

    #[test]
    fn the_largest_safe_integer_is_the_border() {
        for look in [Look::Usual, Look::Decimals] {
            assert!(paths(r#"{"a":9007199254740991,"b":-9007199254740991}"#, look).is_empty());
            assert_eq!(
                paths(r#"{"a":9007199254740992,"b":-9007199254740993}"#, look),
                ["a=9007199254740992", "b=-9007199254740993"]
            );
        }
    }

    #[test]
    fn nested_numbers_are_found_with_their_paths() {
        let text = r#"{"a":{"b":[1,{"c\n":12345678901234567890}]}, "d" : [[0],[99999999999999999]]}"#;
        assert_eq!(paths(text, Look::Usual), ["a.b.1.c\n=12345678901234567890", "d.1.0=99999999999999999"]);
    }

    #[test]
    fn a_name_with_half_a_surrogate_pair_hides_nothing() {
        let text = r#"{"no\ud83dte":{"id":12345678901234567890},"b":12345678901234567890}"#;
        assert_eq!(paths(text, Look::Usual), [r#""no\ud83dte".id=12345678901234567890"#, "b=12345678901234567890"]);
        let step = Step::Odd(r#""no\ud83dte""#.into());
        assert_eq!(serde_json::to_string(&[step]).unwrap(), r#"["no\ud83dte"]"#);
    }

    #[test]
    fn floats_and_strings_are_left_alone() {
        let text = r#"{"a":0.1234567890123456,"b":123456789012345.6,"c":"12345678901234567890","d":1e300}"#;
        assert!(paths(text, Look::Usual).is_empty());
        assert!(paths(r#"{"note":"x,12345678901234567890,y","\"k\\":["\\",1]}"#, Look::Usual).is_empty());
    }

    #[test]
    fn decimals_beyond_a_double_are_found() {
        for (text, exactness) in [
            ("0.1", Exactness::Exact),
            ("123456789012345.67", Exactness::Exact),
            ("0.30000000000000004", Exactness::Exact),
            ("0.10000000000000001", Exactness::AsDouble),
            ("0.100000000000000001", Exactness::Decimal),
            ("12345678901234567.89", Exactness::Decimal),
            ("9007199254740993.5", Exactness::Decimal),
            ("1234567890.12345678901234567890", Exactness::Decimal),
            ("1.50000000000000000000000", Exactness::Exact),
            ("100000000000000000000.000", Exactness::Exact),
            ("0.000000000000000000", Exactness::Exact),
            ("1e400", Exactness::Decimal),
            ("1e-400", Exactness::Decimal),
            ("12345678901234567e1", Exactness::Decimal),
            ("-1.7976931348623157E308", Exactness::Exact),
            ("5e-324", Exactness::Exact),
        ] {
            assert_eq!(super::exactness(text.as_bytes()), exactness, "{text}");
        }
    }

    #[test]
    fn a_text_that_is_no_json_does_not_confuse_it() {
        for text in ["}", "{\"a", "]12345678901234567890", "{\"a\":\"12345678901234567890\\", ",", ""] {
            let _found = find(text.as_bytes(), Look::Usual);
        }
    }

    proptest! {
        /// The quick look must never miss one that reading finds.
        #[test]
        fn what_reading_finds_is_suspicious(lead in "[ ]{0,40}", number in "-?[1-9][0-9]{10,24}", tail in "[ ]{0,40}") {
            let text = format!("{{\"k\":{lead}{number}{tail}}}");
            let read = Reader::new(text.as_bytes(), false).read().unwrap();
            let digits = number.trim_start_matches('-');
            let beyond = digits.parse::<u128>().unwrap() > 9_007_199_254_740_991;
            prop_assert_eq!(read.len(), usize::from(beyond));
            for look in [Look::Usual, Look::Decimals] {
                prop_assert_eq!(suspicious(text.as_bytes(), look), beyond);
            }
        }

        #[test]
        fn what_is_not_exact_is_suspicious(
            lead in "[ ]{0,40}",
            number in "-?(0|[1-9][0-9]{0,20})\\.[0-9]{1,25}(e-?[0-9]{1,2})?",
            tail in "[ ]{0,40}"
        ) {
            let text = format!("{{\"k\":{lead}{number}{tail}}}");
            match exactness(number.as_bytes()) {
                Exactness::Exact => {}
                Exactness::AsDouble => prop_assert!(suspicious(text.as_bytes(), Look::Decimals)),
                Exactness::Integer | Exactness::Decimal => {
                    prop_assert!(suspicious(text.as_bytes(), Look::Decimals));
                    prop_assert!(suspicious(text.as_bytes(), Look::Usual));
                }
            }
        }

        /// What is called exact comes back as the same number.
        #[test]
        fn exact_numbers_come_back(number in "(0|[1-9][0-9]{0,20})(\\.[0-9]{1,20})?(e-?[0-9]{1,2})?") {
            if exactness(number.as_bytes()) == Exactness::Exact {
                let shown = format!("{:e}", number.parse::<f64>().unwrap());
                prop_assert_eq!(Scientific::read(number.as_bytes()), Scientific::read(shown.as_bytes()));
            }
        }
    }
}
