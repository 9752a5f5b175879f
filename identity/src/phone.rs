//! Phone numbers.

use std::fmt::Write as _;

use icu_properties::props::GeneralCategory as Category;
use phonenumber::country;

use crate::clean::{category, is_space};
use crate::normalise::after_scheme;
use crate::number;

/// The most characters of a phone number as people write it. E.164 has 15 digits; the rest is brackets and blanks.
const CHARS_MAX: usize = 40;

/// What may stand around a number: the quotes of an export, the mark of a text in a spreadsheet, a list that ends after its first item.
const AROUND: &[char] = &['"', '\'', '`', '<', '>', '\u{201c}', '\u{201d}', '\u{2018}', '\u{2019}', ',', ';'];

/// The E.164 form. Only digits and the marks that people put between them are read: a number with letters (`1-800-FLOWERS`, an
/// extension) does not name one person's phone.
pub(crate) fn e164(value: &str, region: country::Id) -> Option<String> {
    let value = unwrap(value);
    if value.chars().count() > CHARS_MAX {
        return None;
    }
    let (plus, bare) = value.strip_prefix('+').map_or(("", value), |bare| ("+", bare));
    // A column of numbers that became doubles: without this, the zero of `14155552671.0` would be a digit of the number.
    let digits = match number::is_written_as_double(bare) {
        true => format!("{plus}{}", number::integer(bare)?),
        false => dialled(value)?,
    };
    let number = phonenumber::parse(Some(region), &digits).ok()?;
    if number.extension().is_some() || !phonenumber::is_valid(&number) {
        return None;
    }
    let mut text = String::with_capacity(16);
    // The formatter can fail on a country code without metadata, where `to_string` would panic.
    write!(text, "{}", number.format().mode(phonenumber::Mode::E164)).ok()?;
    Some(text)
}

fn unwrap(value: &str) -> &str {
    let around = |char: char| is_space(char) || AROUND.contains(&char);
    let value = value.trim_matches(around);
    after_scheme(value, "tel:").map_or(value, |number| number.trim_matches(around))
}

/// The digits, and the plus sign if there is one before them.
fn dialled(value: &str) -> Option<String> {
    let mut dialled = String::with_capacity(value.len());
    for char in value.chars() {
        match char {
            '0'..='9' => dialled.push(char),
            '+' | '\u{ff0b}' if dialled.is_empty() => dialled.push('+'),
            '(' | ')' | '.' | '/' | '\u{ff08}' | '\u{ff09}' | '\u{ff0e}' | '\u{ff0f}' | '\u{2212}' => {}
            other if is_space(other) => {}
            other => match category(other) {
                Category::DashPunctuation => {}
                Category::DecimalNumber => dialled.push(digit(other)?),
                _ => return None,
            },
        }
    }
    Some(dialled)
}

/// The ASCII digit of a digit of another script. Unicode puts the ten digits of a script in a row, and rows of ten one after the other.
fn digit(char: char) -> Option<char> {
    let is_digit = |code: u32| char::from_u32(code).is_some_and(|char| category(char) == Category::DecimalNumber);
    let code = u32::from(char);
    let before = (1..=code).take_while(|distance| is_digit(code - distance)).count();
    char::from_digit(u32::try_from(before % 10).ok()?, 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clean::clean;

    #[test]
    fn phone_numbers_become_e164_or_no_identifier() {
        for (region, raw, expected) in [
            ("US", "(415) 555-2671", Some("+14155552671")),
            ("US", "+1 415.555.2671", Some("+14155552671")),
            ("US", "14155552671", Some("+14155552671")),
            ("DE", "030 901820", Some("+4930901820")),
            ("DE", "030/901820", Some("+4930901820")),
            ("DE", "0049 30 901820", Some("+4930901820")),
            ("DE", "+1 415 555 2671", Some("+14155552671")),
            ("IT", "06 69812345", Some("+390669812345")),
            ("US", "555-2671", None),
            ("US", "123", None),
            ("US", "1-800-FLOWERS", None),
            ("US", "(415) 555-2671 ext. 3", None),
            ("US", "+999 123 456 789", None),
            ("US", "", None),
        ] {
            assert_eq!(number_of(region, raw).as_deref(), expected, "{region} {raw}");
        }
    }

    /// Issue 10, A7.
    #[test]
    fn what_came_along_with_a_number_is_taken_off() {
        for raw in [
            "\u{202d}+1 415\u{a0}555\u{2011} 2671\u{202c}",
            "\u{feff}+1 415\u{2013}555\u{2212}2671",
            "+1\u{2009}415\u{3000}555\u{202f}2671",
            "\u{ff0b}\u{ff11}4155552671",
            "+\u{661}\u{664}\u{661}\u{665}\u{665}\u{665}\u{665}\u{662}\u{666}\u{667}\u{661}",
            "+1 (415) 555-26\u{ad}71",
            "'+14155552671",
            "\"+14155552671\"",
            "+14155552671,",
            "<+14155552671>",
            "tel:+14155552671",
            "TEL: +1-415-555-2671;",
            "(+1) 415 555 2671",
            "14155552671.0",
            "4155552671.0",
            "+14155552671.0",
            "1.4155552671E10",
            "1.4155552671e+10",
        ] {
            assert_eq!(number_of("US", raw).as_deref(), Some("+14155552671"), "{raw:?}");
        }
        for raw in [
            "+14155552671,+14155552672",
            "+14155552671 / +14155552672",
            "+14155552671;ext=3",
            "4155552671.5",
            "1.41555526715e10",
            "++14155552671",
            "\u{2460}4155552671",
        ] {
            assert_eq!(number_of("US", raw), None, "{raw:?}");
        }
    }

    fn number_of(region: &str, raw: &str) -> Option<String> {
        e164(&clean(raw)?, region.parse().unwrap())
    }
}
