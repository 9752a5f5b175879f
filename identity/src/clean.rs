//! Takes out of a value what nobody can see. A zero-width space that came with a pasted address, the byte order mark at the start of a
//! file, or the marks that turn the direction of writing make two values of one, and a vendor takes each for a person of its own.

use std::borrow::Cow;

use icu_properties::props::{DefaultIgnorableCodePoint, GeneralCategory};
use icu_properties::{CodePointMapData, CodePointSetData};
use unicode_normalization::{IsNormalized, UnicodeNormalization as _, is_nfc_quick};

/// The space characters, white space beside the plain space included: U+00A0, U+2009, U+3000, …
pub(crate) fn is_space(char: char) -> bool {
    char.is_whitespace() || category(char) == GeneralCategory::SpaceSeparator
}

pub(crate) fn category(char: char) -> GeneralCategory {
    CodePointMapData::<GeneralCategory>::new().get(char)
}

/// Without its invisible characters and the white space around it, in Unicode NFC. `None` when it holds a control character, or a mark that
/// a character was lost: U+FFFD, U+FFFC or a code point that is no character.
pub(crate) fn clean(raw: &str) -> Option<Cow<'_, str>> {
    if raw.is_ascii() {
        let value = raw.trim();
        return (!value.bytes().any(|byte| byte.is_ascii_control())).then_some(Cow::Borrowed(value));
    }
    let visible: Cow<'_, str> = if raw.chars().any(is_ignorable) {
        raw.chars().filter(|&char| !is_ignorable(char)).collect()
    } else {
        raw.into()
    };
    let value = match visible {
        Cow::Borrowed(value) => Cow::Borrowed(value.trim_matches(is_space)),
        Cow::Owned(value) => Cow::Owned(value.trim_matches(is_space).to_owned()),
    };
    if value.chars().any(is_lost) {
        return None;
    }
    Some(match is_nfc_quick(value.chars()) {
        IsNormalized::Yes => value,
        IsNormalized::No | IsNormalized::Maybe => Cow::Owned(value.nfc().collect()),
    })
}

/// Characters without a glyph of their own: Unicode's `Default_Ignorable_Code_Point` and the category `Cf`, and the blank Braille pattern.
pub(crate) fn is_ignorable(char: char) -> bool {
    !char.is_ascii()
        && (CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(char)
            || category(char) == GeneralCategory::Format
            || char == '\u{2800}')
}

fn is_lost(char: char) -> bool {
    let code = u32::from(char);
    char.is_control()
        || matches!(char, '\u{fffc}' | '\u{fffd}')
        || code & 0xfffe == 0xfffe
        || (0xfdd0..=0xfdef).contains(&code)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Issue 10, A7.
    #[test]
    fn what_cannot_be_seen_is_taken_out() {
        for hidden in [
            "\u{ad}",
            "\u{34f}",
            "\u{61c}",
            "\u{115f}",
            "\u{180e}",
            "\u{200b}",
            "\u{200c}",
            "\u{200d}",
            "\u{200e}",
            "\u{202d}",
            "\u{202e}",
            "\u{2060}",
            "\u{2066}",
            "\u{2800}",
            "\u{3164}",
            "\u{fe0f}",
            "\u{feff}",
            "\u{ffa0}",
            "\u{e0061}",
        ] {
            for value in [format!("{hidden}ada"), format!("a{hidden}da"), format!("ada {hidden} ")] {
                assert_eq!(clean(&value).as_deref(), Some("ada"), "{value:?}");
            }
        }
        for space in
            ["\u{a0}", "\u{1680}", "\u{2007}", "\u{202f}", "\u{205f}", "\u{3000}", "\u{2028}", "\u{85}", "\n", "\t"]
        {
            assert_eq!(clean(&format!("{space}ada{space}")).as_deref(), Some("ada"), "{space:?}");
        }
    }

    #[test]
    fn what_has_lost_a_character_is_refused() {
        for value in ["u3\u{fffd}", "\u{fffc}a", "a\u{ffff}", "\u{fdd0}", "a\0b", "a\u{85}b", "a\u{1b}"] {
            assert_eq!(clean(value), None, "{value:?}");
        }
    }
}
