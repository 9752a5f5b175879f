//! Makes a failing input smaller, so that a person can see what it is about.

use std::time::{Duration, Instant};

/// What making it smaller may take; a long input need not become the shortest.
const TIME_MAX: Duration = Duration::from_secs(20);

/// Leaves out parts for as long as `fails` stays true: halves first, single bytes last, and bytes that do not matter become `0`.
pub(crate) fn minimise(input: &[u8], fails: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let deadline = Instant::now() + TIME_MAX;
    let mut smallest = input.to_vec();
    let mut chunk = (smallest.len() / 2).max(1);
    while !smallest.is_empty() {
        let before = smallest.len();
        let mut at = 0;
        while at < smallest.len() && Instant::now() < deadline {
            let mut shorter = smallest.clone();
            shorter.drain(at..(at + chunk).min(smallest.len()));
            if fails(&shorter) {
                smallest = shorter;
            } else {
                at += chunk;
            }
        }
        if Instant::now() >= deadline || (chunk == 1 && smallest.len() == before) {
            break;
        }
        chunk = (chunk / 2).max(1);
    }
    for at in 0..smallest.len() {
        if smallest[at].is_ascii_alphanumeric() && smallest[at] != b'0' && Instant::now() < deadline {
            let kept = std::mem::replace(&mut smallest[at], b'0');
            if !fails(&smallest) {
                smallest[at] = kept;
            }
        }
    }
    smallest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_matters_is_left() {
        let input = [b"a".repeat(300), b"<!".to_vec(), b"b".repeat(77), b">".to_vec(), b"c".repeat(20)].concat();
        let fails = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            text.split_once("<!").is_some_and(|(_, rest)| rest.contains('>'))
        };
        assert_eq!(minimise(&input, fails), b"<!>");
    }

    #[test]
    fn an_input_that_fails_whatever_it_is_becomes_empty() {
        assert!(minimise(b"anything", |_| true).is_empty());
    }
}
