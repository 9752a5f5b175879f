//! Changes an input: bytes, ranges, pieces of the format, parts of another input.

use std::ops::Range;

use rand::RngExt as _;

use crate::Random;

/// Numbers at which readers go wrong, as text.
const NUMBERS: &[&str] = &[
    "0",
    "-0",
    "-1",
    "1",
    "127",
    "128",
    "255",
    "256",
    "65535",
    "65536",
    "2147483647",
    "2147483648",
    "-2147483648",
    "4294967295",
    "4294967296",
    "9007199254740991",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e308",
    "1e309",
    "1e-400",
    "0.1",
    "-0.0",
    "99999999999999999999999999999999",
    "NaN",
    "Infinity",
    "-Infinity",
    "0x7f",
    "1_000",
];

/// Bytes at which readers go wrong: signs, ends, cut and overlong UTF-8, a byte order mark, surrogates.
const BYTES: &[&[u8]] = &[
    b"\0",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\x80\x00\x00\x00",
    b"\xc3",
    b"\xc0\x80",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xef\xbb\xbf",
    b"\xe2\x80\xa8",
    "é".as_bytes(),
    "\u{1F600}".as_bytes(),
    b"\r\n",
    b"\n",
    b"\t",
    b" ",
    b"\"",
    b"'",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"\\udc00",
    b"$",
    b"%",
    b",",
    b".",
    b"/",
    b":",
];

/// Repeats of a part at once: enough to nest deeper than any limit, few enough for thousands of inputs a second.
const REPEATS_MAX: usize = 2_000;

pub(crate) struct Mutator<'a> {
    /// Pieces of the format.
    pub tokens: &'a [&'a str],
    /// No input becomes longer.
    pub bytes_max: usize,
}

impl Mutator<'_> {
    /// Some changes to an input; `other` gives parts.
    pub fn mutate(&self, random: &mut Random, input: &[u8], other: &[u8]) -> Vec<u8> {
        let mut bytes = input.to_vec();
        // Mostly few: many changes at once hide one another.
        let changes = if random.random_ratio(3, 4) { random.random_range(1..=3) } else { random.random_range(4..=16) };
        for _ in 0..changes {
            self.change(random, &mut bytes, other);
        }
        bytes.truncate(self.bytes_max);
        bytes
    }

    fn change(&self, random: &mut Random, bytes: &mut Vec<u8>, other: &[u8]) {
        let at = random.random_range(0..=bytes.len());
        match random.random_range(0..12) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
            1 if at < bytes.len() => bytes[at] = random.random(),
            2 => bytes.insert(at, random.random()),
            3 => drop(bytes.drain(range(random, bytes.len()))),
            4 => {
                let part = bytes[range(random, bytes.len())].to_vec();
                put(bytes, at, &part);
            }
            5 => {
                let part = &other[range(random, other.len())];
                put(bytes, at, part);
            }
            6 => {
                // The beginning of one, the end of the other.
                bytes.truncate(at);
                bytes.extend_from_slice(&other[random.random_range(0..=other.len())..]);
            }
            7 => {
                let number = NUMBERS[random.random_range(0..NUMBERS.len())];
                replace_number(random, bytes, at, number);
            }
            8 => put(bytes, at, BYTES[random.random_range(0..BYTES.len())]),
            9 => {
                let part = match self.token(random) {
                    Some(token) => token.as_bytes().to_vec(),
                    None => bytes[range(random, bytes.len())].to_vec(),
                };
                let room = self.bytes_max.saturating_sub(bytes.len()) / part.len().max(1);
                let most = REPEATS_MAX.min(room).max(1);
                // Powers of two: most repeats are few, some are many.
                let times = (1_usize << random.random_range(0..12)).min(most);
                put(bytes, at, &part.repeat(times));
            }
            _ => match self.token(random) {
                Some(token) if random.random() => put(bytes, at, token.as_bytes()),
                Some(token) => {
                    let part = range(random, bytes.len());
                    bytes.splice(part, token.bytes());
                }
                None => bytes.truncate(at),
            },
        }
    }

    fn token(&self, random: &mut Random) -> Option<&str> {
        (!self.tokens.is_empty()).then(|| self.tokens[random.random_range(0..self.tokens.len())])
    }
}

/// A range within so many bytes, mostly a short one.
fn range(random: &mut Random, length: usize) -> Range<usize> {
    let start = random.random_range(0..=length);
    let longest = if random.random_ratio(3, 4) { 16 } else { length };
    start..(start + random.random_range(0..=longest)).min(length)
}

fn put(bytes: &mut Vec<u8>, at: usize, part: &[u8]) {
    bytes.splice(at..at, part.iter().copied());
}

/// Takes the place of the digits that stand behind `at`, if there are any.
fn replace_number(random: &mut Random, bytes: &mut Vec<u8>, at: usize, number: &str) {
    let start = bytes[at..].iter().position(u8::is_ascii_digit).map(|ahead| at + ahead);
    match start {
        Some(start) if random.random_ratio(3, 4) => {
            let length = bytes[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            bytes.splice(start..start + length, number.bytes());
        }
        Some(_) | None => put(bytes, at, number.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn inputs_change_and_stay_within_their_limit() {
        let mutator = Mutator { tokens: &["{", "\"key\":"], bytes_max: 500 };
        let mut random = Random::seed_from_u64(7);
        let mut changed = 0;
        for round in 0..5_000 {
            let input = b"[1, 2]".repeat(round % 20);
            let mutated = mutator.mutate(&mut random, &input, b"{\"a\": 17}");
            assert!(mutated.len() <= 500);
            changed += usize::from(mutated != input);
        }
        assert!(changed > 4_000, "{changed}");
    }
}
