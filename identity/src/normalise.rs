//! From a raw value to its match key and its delivery value.
//!
//! Two values are kept. The *match key* decides who somebody is: `Ada@Example.com` and `ada@example.com` are one. The
//! *delivery value* is what a vendor gets: the value as it came, trimmed. A phone number is the exception: its delivery value is
//! its E.164 form, because vendors take no other. Dots and plus signs of an address are left alone: what they mean is each
//! provider's own affair, and a plus address is a mailbox of its own to whoever sends mail.
//!
//! Match keys are frozen like the formats: a change here makes a known person a stranger.

use std::borrow::Cow;
use std::fmt::Write as _;

use idna::AsciiDenyList;
use idna::uts46::{DnsLength, Hyphens, Uts46};
use phonenumber::country;
use unicode_normalization::{IsNormalized, UnicodeNormalization as _, is_nfc_quick};

/// The longest value that can be an identifier, in bytes after trimming. Adobe draws the line at 1024 characters as well; it
/// also bounds what one profile can grow to.
pub const VALUE_BYTES_MAX: usize = 1024;

/// The most characters of a phone number as people write it. E.164 has 15 digits; the rest is brackets and blanks.
const PHONE_CHARS_MAX: usize = 40;

/// How values of a type are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Normaliser {
    /// Without the white space around it; case counts. For opaque ids.
    Trim,
    /// Trimmed, in lower case.
    Lower,
    /// Trimmed, Unicode NFC, lower case, the domain in its ASCII form (IDNA). What is no address is no identifier.
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
    /// `None` when the value is none of its type. `value` is trimmed already.
    pub(crate) fn apply<'a>(self, value: &'a str) -> Option<Normalised<'a>> {
        if value.is_empty() || value.len() > VALUE_BYTES_MAX || value.chars().any(char::is_control) {
            return None;
        }
        let (match_key, delivery) = match self {
            Self::Trim => (Cow::Borrowed(value), Cow::Borrowed(value)),
            Self::Lower => (lower(value), Cow::Borrowed(value)),
            Self::Email => (email(value)?, Cow::Borrowed(value)),
            Self::Phone(region) => {
                let number = phone(value, region)?;
                (Cow::Owned(number.clone()), Cow::Owned(number))
            }
        };
        (match_key.len() <= VALUE_BYTES_MAX).then_some(Normalised { match_key, delivery })
    }
}

fn lower(value: &str) -> Cow<'_, str> {
    if value.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase()) {
        Cow::Borrowed(value)
    } else {
        Cow::Owned(value.to_lowercase())
    }
}

/// NFC, lower case, and NFC again, because lower case may take a composed letter apart.
fn fold(value: &str) -> Cow<'_, str> {
    if value.is_ascii() {
        return lower(value);
    }
    Cow::Owned(nfc(&nfc(value).to_lowercase()).into_owned())
}

fn nfc(value: &str) -> Cow<'_, str> {
    match is_nfc_quick(value.chars()) {
        IsNormalized::Yes => Cow::Borrowed(value),
        IsNormalized::No | IsNormalized::Maybe => Cow::Owned(value.nfc().collect()),
    }
}

/// A local part, an at sign, and a domain with at least one dot. Quoted local parts with white space or a second at sign are
/// legal on paper and a mistake in a table.
fn email(value: &str) -> Option<Cow<'_, str>> {
    let folded = fold(value);
    let with_ascii_domain = {
        let (local, domain) = folded.split_once('@')?;
        if local.is_empty() || folded.contains(char::is_whitespace) {
            return None;
        }
        // The URL standard's list forbids what no domain can hold, such as a second at sign, and lets the underscores of
        // real-world names pass.
        let ascii =
            Uts46::new().to_ascii(domain.as_bytes(), AsciiDenyList::URL, Hyphens::Allow, DnsLength::Verify).ok()?;
        if !ascii.contains('.') {
            return None;
        }
        (ascii != domain).then(|| format!("{local}@{ascii}"))
    };
    Some(with_ascii_domain.map_or(folded, Cow::Owned))
}

/// Only digits and the marks that people put between them reach the parser: a number with letters (`1-800-FLOWERS`, an
/// extension) does not name one person's phone.
fn phone(value: &str, region: country::Id) -> Option<String> {
    let plain = value.len() <= PHONE_CHARS_MAX
        && value
            .bytes()
            .all(|byte| byte.is_ascii_digit() || matches!(byte, b'+' | b' ' | b'(' | b')' | b'-' | b'.' | b'/'));
    if !plain {
        return None;
    }
    let number = phonenumber::parse(Some(region), value).ok()?;
    if number.extension().is_some() || !phonenumber::is_valid(&number) {
        return None;
    }
    let mut text = String::with_capacity(16);
    // The formatter can fail on a country code without metadata, where `to_string` would panic.
    write!(text, "{}", number.format().mode(phonenumber::Mode::E164)).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(normaliser: &Normaliser, value: &str) -> Option<String> {
        normaliser.compile().unwrap().apply(value.trim()).map(|normalised| normalised.match_key.into_owned())
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
            ("ada@example.com.", None),
            ("a@b@example.com", None),
            ("ada lovelace@example.com", None),
            ("Ada <ada@example.com>", None),
        ];
        for (value, expected) in cases {
            assert_eq!(key(&Normaliser::Email, value).as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn phone_numbers_become_e164_or_no_identifier() {
        let cases = [
            ("US", "(415) 555-2671", Some("+14155552671")),
            ("US", "+1 415.555.2671", Some("+14155552671")),
            ("US", "14155552671", Some("+14155552671")),
            ("DE", "030 901820", Some("+4930901820")),
            ("DE", "0049 30 901820", Some("+4930901820")),
            ("DE", "+1 415 555 2671", Some("+14155552671")),
            ("IT", "06 69812345", Some("+390669812345")),
            ("US", "555-2671", None),
            ("US", "123", None),
            ("US", "1-800-FLOWERS", None),
            ("US", "(415) 555-2671 ext. 3", None),
            ("US", "+999 123 456 789", None),
            ("US", "", None),
        ];
        for (region, value, expected) in cases {
            assert_eq!(key(&phone_of(region), value).as_deref(), expected, "{region} {value}");
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

    #[test]
    fn what_is_too_long_or_has_control_characters_is_no_identifier() {
        assert_eq!(key(&Normaliser::Trim, &"x".repeat(VALUE_BYTES_MAX + 1)), None);
        assert!(key(&Normaliser::Trim, &"x".repeat(VALUE_BYTES_MAX)).is_some());
        assert_eq!(key(&Normaliser::Trim, "a\0b"), None);
    }

    #[test]
    fn the_delivery_value_is_as_received_and_a_phone_number_in_e164() {
        let address = Compiled::Email.apply("Ada@Example.com").unwrap();
        assert_eq!(address.delivery, "Ada@Example.com");
        let number = phone_of("US").compile().unwrap().apply("(415) 555-2671").unwrap();
        assert_eq!(number.delivery, "+14155552671");
    }

    proptest! {
        #[test]
        fn a_match_key_is_its_own_match_key(value in "\\PC{0,12}@\\PC{1,8}\\.(com|example|b\u{fc}cher)") {
            for normaliser in [Normaliser::Trim, Normaliser::Lower, Normaliser::Email] {
                if let Some(once) = key(&normaliser, &value) {
                    prop_assert_eq!(key(&normaliser, &once), Some(once.clone()), "{:?} {}", normaliser, value);
                }
            }
        }

        #[test]
        fn no_text_makes_a_normaliser_panic(value in "\\PC{0,40}|[0-9+ ()./-]{0,40}") {
            for normaliser in [Normaliser::Trim, Normaliser::Lower, Normaliser::Email, phone_of("US"), phone_of("BR"), phone_of("AR")] {
                let _ = key(&normaliser, &value);
            }
        }

        #[test]
        fn an_e164_number_is_its_own_match_key_in_every_region(value in "\\+?[0-9]{6,15}") {
            if let Some(number) = key(&phone_of("DE"), &value) {
                prop_assert_eq!(key(&phone_of("DE"), &number), Some(number.clone()));
            }
        }
    }
}
