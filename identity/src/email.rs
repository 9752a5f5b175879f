//! Email addresses.
//!
//! What came along with an address when it was copied (`mailto:`, brackets, quotes, a comma) is taken off where only one address can be
//! meant. What is left must be an address as mail servers and vendors take it: everything else is no identifier, because a vendor would make
//! a new person of it or refuse the whole row.

use std::borrow::Cow;

use icu_properties::props::GeneralCategory as Category;
use idna::AsciiDenyList;
use idna::uts46::{DnsLength, Hyphens, Uts46};
use unicode_normalization::UnicodeNormalization as _;

use crate::clean::{category, is_space};
use crate::normalise::{Normalised, after_scheme, lower, narrow};

/// What may stand around an address, opening and closing.
const PAIRS: &[(char, char)] = &[
    ('<', '>'),
    ('(', ')'),
    ('[', ']'),
    ('{', '}'),
    ('"', '"'),
    ('\'', '\''),
    ('`', '`'),
    ('\u{201c}', '\u{201d}'),
    ('\u{201e}', '\u{201c}'),
    ('\u{201e}', '\u{201d}'),
    ('\u{2018}', '\u{2019}'),
    ('\u{201a}', '\u{2018}'),
    ('\u{ab}', '\u{bb}'),
    ('\u{bb}', '\u{ab}'),
    ('\u{2039}', '\u{203a}'),
    ('\u{300c}', '\u{300d}'),
];

/// Punctuation that no address begins with; an apostrophe, for one, is a letter of addresses.
const LEADING: &[char] = &['<', '(', '[', '"', '\u{201c}', '\u{201e}', ',', ';', ':', '\u{ab}'];

/// Punctuation that no domain ends with. The dot is the one of a domain that is written in full.
const TRAILING: &[char] = &[
    '>', ')', ']', '}', '"', '\'', '`', '\u{201c}', '\u{201d}', '\u{2018}', '\u{2019}', '\u{bb}', ',', ';', ':', '.',
    '\u{3002}', '\u{ff61}', '\u{3001}',
];

/// `value` is clean; `raw` is the value as it came.
pub(crate) fn normalise<'a>(value: &'a str, raw: &str) -> Option<Normalised<'a>> {
    let narrowed = narrow(value);
    let address = unwrap(&narrowed);
    let (local, domain) = address.split_once('@')?;
    if !is_local(local) {
        return None;
    }
    let ascii = to_ascii(domain)?;
    if !domain.is_ascii() && joins_letters(raw) {
        return None;
    }
    let delivered_domain: Cow<'_, str> = if domain.is_ascii() {
        Cow::Borrowed(domain)
    } else {
        // One spelling of the domain, in its own script.
        let (unicode, result) = Uts46::new().to_unicode(ascii.as_bytes(), AsciiDenyList::URL, Hyphens::CheckFirstLast);
        result.ok()?;
        unicode
    };
    let match_key = format!("{}@{ascii}", fold(local));
    let delivery = format!("{local}@{delivered_domain}");
    let delivery = if delivery == value { Cow::Borrowed(value) } else { Cow::Owned(delivery) };
    Some(Normalised { match_key: Cow::Owned(match_key), delivery })
}

/// Takes off what stands around an address, one mark at a time: what belongs together goes together.
fn unwrap(mut value: &str) -> &str {
    loop {
        value = value.trim_matches(is_space);
        value = if let Some(address) = after_scheme(value, "mailto:") {
            // What follows a question mark is the letter that a link proposes.
            address.split('?').next().unwrap_or_default()
        } else if let Some(inner) =
            PAIRS.iter().find_map(|&(open, close)| value.strip_prefix(open)?.strip_suffix(close))
        {
            inner
        } else if let Some(rest) = value.strip_suffix(TRAILING).or_else(|| value.strip_prefix(LEADING)) {
            rest
        } else {
            return value;
        };
    }
}

/// Words of letters, digits and the marks of RFC 5322, parted by single dots. Quoted local parts are legal on paper and a mistake in a table.
fn is_local(local: &str) -> bool {
    const MARKS: &[u8] = b"!#$%&'*+-/=?^_`{|}~.";
    let part = |char: char| {
        if char.is_ascii() {
            return char.is_ascii_alphanumeric() || u8::try_from(char).is_ok_and(|byte| MARKS.contains(&byte));
        }
        !matches!(
            category(char),
            Category::SpaceSeparator
                | Category::LineSeparator
                | Category::ParagraphSeparator
                | Category::Control
                | Category::ConnectorPunctuation
                | Category::DashPunctuation
                | Category::OpenPunctuation
                | Category::ClosePunctuation
                | Category::InitialPunctuation
                | Category::FinalPunctuation
                | Category::OtherPunctuation
        )
    };
    // An apostrophe is a letter of addresses, but one that begins them is the mark of a text in a spreadsheet.
    !local.is_empty()
        && local.chars().all(part)
        && !local.starts_with(['.', '\''])
        && !local.ends_with('.')
        && !local.contains("..")
}

/// A domain of at least two labels, in ASCII.
fn to_ascii(domain: &str) -> Option<String> {
    let ascii = Uts46::new()
        .to_ascii(domain.as_bytes(), AsciiDenyList::URL, Hyphens::CheckFirstLast, DnsLength::Verify)
        .ok()?;
    let label = |label: &str| {
        // Underscores are in no standard and in real names.
        !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let (_, top) = ascii.rsplit_once('.')?;
    // The last label of an address of a machine is a number.
    (ascii.split('.').all(label) && !top.bytes().all(|byte| byte.is_ascii_digit())).then(|| ascii.into_owned())
}

/// Whether a joiner stands in the domain. Between the letters of some scripts it makes another domain, so it cannot be taken out there.
fn joins_letters(raw: &str) -> bool {
    raw.rsplit(['@', '\u{ff20}']).next().is_some_and(|domain| domain.contains(['\u{200c}', '\u{200d}']))
}

/// Lower case, and NFC again, because lower case may take a composed letter apart.
fn fold(local: &str) -> Cow<'_, str> {
    match lower(local) {
        folded if folded.is_ascii() => folded,
        folded => Cow::Owned(folded.nfc().collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clean::clean;

    fn address(raw: &str) -> Option<(String, String)> {
        let value = clean(raw)?;
        let normalised = normalise(&value, raw)?;
        Some((normalised.match_key.into_owned(), normalised.delivery.into_owned()))
    }

    /// Issue 10, A7.
    #[test]
    fn what_stands_around_an_address_is_taken_off() {
        for raw in [
            "ines@example.com,",
            "ines@example.com;",
            "ines@example.com.",
            "ines@example.com:",
            ";ines@example.com",
            "\"ines@example.com\"",
            "\"ines@example.com",
            "'ines@example.com'",
            "'ines@example.com',",
            "ines@example.com'",
            "\u{201c}ines@example.com\u{201d}",
            "\u{201e}ines@example.com\u{201c}",
            "`ines@example.com`",
            "<ines@example.com>",
            "<ines@example.com",
            "ines@example.com>",
            "(ines@example.com)",
            "ines@example.com)",
            "[ines@example.com]",
            "{ines@example.com}",
            "mailto:ines@example.com",
            "MAILTO: ines@example.com",
            "mailto:ines@example.com?subject=hello",
            "<mailto:ines@example.com>",
            "\"<ines@example.com>\";",
            "ines\u{ff20}example\u{ff0e}com",
            "ines@\u{ff45}xample.com",
            "ines@example\u{3002}com",
            "\u{200b}ines@exam\u{ad}ple.com\u{a0}",
        ] {
            let expected = "ines@example.com".to_owned();
            assert_eq!(address(raw), Some((expected.clone(), expected)), "{raw}");
        }
    }

    #[test]
    fn what_may_mean_another_address_or_none_is_refused() {
        for raw in [
            "a@example.com,b@example.com",
            "a@example.com; b@example.com",
            "a@example.com b@example.com",
            "a@example.com/b@example.com",
            "Ines <ines@example.com>",
            "ines@example.com (home)",
            "smtp:ines@example.com",
            "'ines@example.com",
            "ines@exam!ple.com",
            "ines@-example.com",
            "ines@example-.com",
            "ines@example.-com",
            "ines@exam ple.com",
            "ines@exam\u{a0}ple.com",
            "ines @example.com",
            "ines@example.com/",
            "ines@example.com!",
            "ines@example.com?x",
            "in,es@example.com",
            "in\u{2019}es@example.com",
            ".ines@example.com",
            "ines.@example.com",
            "in..es@example.com",
            "ines@.example.com",
            "ines@example..com",
            "ines@127.0.0.1",
            "ines@[127.0.0.1]",
            "ines@@example.com",
            "@example.com",
            "ines@",
            "mailto:",
            "ines%40example.com",
            "&lt;ines@example.com&gt;",
            // Another domain with the joiner than without it.
            "ines@\u{646}\u{627}\u{645}\u{647}\u{200c}\u{627}\u{6cc}.com",
        ] {
            assert_eq!(address(raw), None, "{raw}");
        }
    }

    #[test]
    fn the_delivery_value_keeps_case_and_script() {
        for (raw, key, delivery) in [
            ("<Ada@Example.COM>", "ada@example.com", "Ada@Example.COM"),
            ("o'brien+x@example.com", "o'brien+x@example.com", "o'brien+x@example.com"),
            ("ada@B\u{fc}cher.example", "ada@xn--bcher-kva.example", "ada@b\u{fc}cher.example"),
            ("JOSE\u{301}@example.com", "jos\u{e9}@example.com", "JOS\u{c9}@example.com"),
        ] {
            assert_eq!(address(raw), Some((key.to_owned(), delivery.to_owned())), "{raw}");
        }
    }
}
