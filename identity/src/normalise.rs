//! From a raw value to its match key and its delivery value.
//!
//! Two values are kept. The *match key* decides who somebody is: `Ada@Example.com` and `ada@example.com` are one. The
//! *delivery value* is what a vendor gets: as the source wrote it in case and script, and as clean as the match key otherwise, because
//! a vendor that gets two spellings makes two people of them. A phone number's delivery value is its E.164 form, since vendors take no
//! other. Dots and plus signs of an address are left alone: what they mean is each provider's own affair, and a plus address is a
//! mailbox of its own to whoever sends mail.
//!
//! Two properties hold for every value: a match key and a delivery value have the same match key as the value that they were made of, and
//! an invisible character anywhere in a value leaves its match key as it is, or has the value refused.
//!
//! Match keys are frozen like the formats: a change here makes a known person a stranger.

use std::borrow::Cow;

use phonenumber::country;
use unicode_normalization::UnicodeNormalization as _;

use crate::clean::is_space;
use crate::{email, number, phone};

/// The longest value that can be an identifier, in bytes after cleaning. Adobe draws the line at 1024 characters as well; it
/// also bounds what one profile can grow to.
pub const VALUE_BYTES_MAX: usize = 1024;

/// How values of a type are compared. Whatever the type, invisible characters and the white space around a value do not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Normaliser {
    /// As it is, in Unicode NFC; case counts. For opaque ids. An integer that was written as a double (`12345.0`) is the integer.
    Trim,
    /// The same in lower case.
    Lower,
    /// Lower case, the domain in its ASCII form (IDNA), without punctuation around the address. What is no address is no identifier.
    Email,
    /// E.164. A number without a country code is read as one of `region` (ISO 3166-1: `US`, `DE`); what is no valid number,
    /// or has an extension, is no identifier.
    Phone { region: String },
}

/// The normaliser with its region looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compiled {
    Trim,
    Lower,
    Email,
    Phone(country::Id),
}

/// What a raw value stands for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Normalised<'a> {
    pub(crate) match_key: Cow<'a, str>,
    pub(crate) delivery: Cow<'a, str>,
}

// === impl Normaliser ===

impl Normaliser {
    /// `None` when the region does not exist.
    pub(crate) fn compile(&self) -> Option<Compiled> {
        Some(match self {
            Self::Trim => Compiled::Trim,
            Self::Lower => Compiled::Lower,
            Self::Email => Compiled::Email,
            Self::Phone { region } => Compiled::Phone(region.parse().ok()?),
        })
    }
}

// === impl Compiled ===

impl Compiled {
    /// `None` when the value is none of its type. `value` is [clean](crate::clean::clean); `raw` is the value as it came.
    pub(crate) fn apply<'a>(self, value: &'a str, raw: &str) -> Option<Normalised<'a>> {
        if value.is_empty() || value.len() > VALUE_BYTES_MAX {
            return None;
        }
        let normalised = match self {
            Self::Trim => {
                let id = opaque(value)?;
                Normalised { match_key: id.clone(), delivery: id }
            }
            Self::Lower => {
                let id = opaque(value)?;
                let folded = match lower(&id) {
                    folded if folded.is_ascii() => folded.into_owned(),
                    folded => folded.nfc().collect(),
                };
                Normalised { match_key: Cow::Owned(folded), delivery: id }
            }
            Self::Email => email::normalise(value, raw)?,
            Self::Phone(region) => {
                let number = phone::e164(value, region)?;
                Normalised { match_key: Cow::Owned(number.clone()), delivery: Cow::Owned(number) }
            }
        };
        (normalised.match_key.len().max(normalised.delivery.len()) <= VALUE_BYTES_MAX).then_some(normalised)
    }
}

/// An id that means nothing to us. A space other than the plain one looks like it and is not, so which id is meant cannot be known.
fn opaque(value: &str) -> Option<Cow<'_, str>> {
    if number::is_written_as_double(value) {
        return number::integer(value);
    }
    (!value.chars().any(|char| char != ' ' && is_space(char))).then_some(Cow::Borrowed(value))
}

pub(crate) fn lower(value: &str) -> Cow<'_, str> {
    if value.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase()) {
        Cow::Borrowed(value)
    } else {
        Cow::Owned(value.to_lowercase())
    }
}

/// What follows the scheme of a link, whose case does not count.
pub(crate) fn after_scheme<'a>(value: &'a str, scheme: &str) -> Option<&'a str> {
    let (start, rest) = value.split_at_checked(scheme.len())?;
    start.eq_ignore_ascii_case(scheme).then_some(rest)
}

/// Full-width letters, digits and marks, which an East Asian keyboard writes, as the ASCII that they stand for.
pub(crate) fn narrow(value: &str) -> Cow<'_, str> {
    let ascii = |char: char| match u32::from(char) {
        code @ 0xff01..=0xff5e => char::from_u32(code - 0xfee0).unwrap_or(char),
        _ => char,
    };
    if value.chars().any(|char| ascii(char) != char) {
        value.chars().map(ascii).collect()
    } else {
        Cow::Borrowed(value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clean::{clean, is_ignorable};

    fn both(normaliser: &Normaliser, raw: &str) -> Option<(String, String)> {
        let value = clean(raw)?;
        let Normalised { match_key, delivery } = normaliser.compile().unwrap().apply(&value, raw)?;
        Some((match_key.into_owned(), delivery.into_owned()))
    }

    fn key(normaliser: &Normaliser, raw: &str) -> Option<String> {
        both(normaliser, raw).map(|(key, _)| key)
    }

    fn phone_of(region: &str) -> Normaliser {
        Normaliser::Phone { region: region.to_owned() }
    }

    #[test]
    fn addresses_meet_across_case_composition_and_script() {
        let cases = [
            (" Ada@Example.COM ", Some("ada@example.com")),
            ("ada+news@example.com", Some("ada+news@example.com")),
            ("a.d.a@gmail.com", Some("a.d.a@gmail.com")),
            ("ada@B\u{fc}cher.example", Some("ada@xn--bcher-kva.example")),
            ("ada@bu\u{308}cher.example", Some("ada@xn--bcher-kva.example")),
            ("ada@xn--bcher-kva.example", Some("ada@xn--bcher-kva.example")),
            ("JOSE\u{301}@example.com", Some("jos\u{e9}@example.com")),
            ("ada@mail_1.example.com", Some("ada@mail_1.example.com")),
            ("ada", None),
            ("@example.com", None),
            ("ada@", None),
            ("ada@localhost", None),
            ("ada@example..com", None),
            ("ada@example.com.", Some("ada@example.com")),
            ("a@b@example.com", None),
            ("ada lovelace@example.com", None),
            ("Ada <ada@example.com>", None),
        ];
        for (value, expected) in cases {
            assert_eq!(key(&Normaliser::Email, value).as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn an_unknown_region_is_noticed() {
        assert_eq!(phone_of("Germany").compile(), None);
    }

    #[test]
    fn opaque_ids_keep_their_case_and_lose_the_space_around_them() {
        assert_eq!(key(&Normaliser::Trim, " aB1 ").as_deref(), Some("aB1"));
        assert_eq!(key(&Normaliser::Lower, " aB1 ").as_deref(), Some("ab1"));
    }

    /// Issue 10, A7.
    #[test]
    fn an_opaque_id_is_one_whatever_hides_in_it() {
        for (raw, expected) in [
            ("u3\u{200b}", Some("u3")),
            ("\u{feff}u3", Some("u3")),
            ("u\u{2060}3", Some("u3")),
            ("\u{3000}u3\u{a0}", Some("u3")),
            ("u 3", Some("u 3")),
            ("u\u{a0}3", None),
            ("u3\u{fffd}", None),
            ("cafe\u{301}", Some("caf\u{e9}")),
            ("12345.0", Some("12345")),
            ("1.2345E4", Some("12345")),
            ("9007199254740992.0", None),
            ("1.5", Some("1.5")),
            ("007", Some("007")),
            ("1e7", Some("1e7")),
            ("GA1.2.1234567890.1772409600", Some("GA1.2.1234567890.1772409600")),
        ] {
            assert_eq!(both(&Normaliser::Trim, raw), expected.map(|id| (id.to_owned(), id.to_owned())), "{raw:?}");
        }
    }

    #[test]
    fn what_is_too_long_or_has_control_characters_is_no_identifier() {
        assert_eq!(key(&Normaliser::Trim, &"x".repeat(VALUE_BYTES_MAX + 1)), None);
        assert!(key(&Normaliser::Trim, &"x".repeat(VALUE_BYTES_MAX)).is_some());
        assert_eq!(key(&Normaliser::Trim, "a\0b"), None);
    }

    #[test]
    fn the_delivery_value_keeps_its_case_and_a_phone_number_is_in_e164() {
        assert_eq!(both(&Normaliser::Email, "Ada@Example.com").unwrap().1, "Ada@Example.com");
        assert_eq!(both(&phone_of("US"), "(415) 555-2671").unwrap().1, "+14155552671");
    }

    fn normalisers() -> Vec<Normaliser> {
        vec![Normaliser::Trim, Normaliser::Lower, Normaliser::Email, phone_of("US"), phone_of("DE"), phone_of("BR")]
    }

    /// Values as tables have them: right ones, and ones with something in or around them.
    fn values() -> impl Strategy<Value = String> {
        prop_oneof![
            "\\PC{0,12}@\\PC{1,8}\\.(com|example|b\u{fc}cher)",
            "[<\"'(]?[a-zA-Z.'+]{1,8}@[a-z\u{e4}-]{1,8}\\.(com|example\u{3002}com|COM)[>\"');,.]{0,2}",
            "[+0-9\u{660}-\u{669}\u{ff10}-\u{ff19} ()./\u{2011}\u{a0}-]{0,24}",
            "-?[0-9]{1,18}(\\.[0-9]{0,3})?([eE][+-]?[0-9]{1,2})?",
            "\\PC{0,40}",
        ]
    }

    fn hidden() -> impl Strategy<Value = char> {
        prop_oneof![
            prop::sample::select(vec![
                '\u{ad}',
                '\u{34f}',
                '\u{61c}',
                '\u{180e}',
                '\u{200b}',
                '\u{200c}',
                '\u{200d}',
                '\u{200e}',
                '\u{202c}',
                '\u{202d}',
                '\u{2060}',
                '\u{2069}',
                '\u{2800}',
                '\u{3164}',
                '\u{fe0f}',
                '\u{feff}',
                '\u{e0020}',
            ]),
            any::<char>().prop_filter("ignorable", |char| is_ignorable(*char)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

        #[test]
        fn a_match_key_and_a_delivery_value_have_the_match_key_that_they_were_made_with(value in values()) {
            for normaliser in normalisers() {
                if let Some((match_key, delivery)) = both(&normaliser, &value) {
                    prop_assert_eq!(key(&normaliser, &match_key), Some(match_key.clone()), "{:?} {:?}", normaliser, value);
                    prop_assert_eq!(
                        both(&normaliser, &delivery), Some((match_key, delivery.clone())), "{:?} {:?}", normaliser, value
                    );
                }
            }
        }

        #[test]
        fn an_invisible_character_anywhere_changes_no_match_key(
            value in values(), hidden in hidden(), place in any::<prop::sample::Index>(),
        ) {
            let mut places: Vec<usize> = value.char_indices().map(|(at, _)| at).collect();
            places.push(value.len());
            let mut with = value.clone();
            with.insert(*place.get(&places), hidden);
            for normaliser in normalisers() {
                let (plain, spoiled) = (both(&normaliser, &value), both(&normaliser, &with));
                prop_assert!(spoiled.is_none() || spoiled == plain, "{:?} {:?}: {:?}, without {:?}", normaliser, with, spoiled, plain);
            }
        }
    }
}
