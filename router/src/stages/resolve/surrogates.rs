//! Halves of surrogate pairs (`\ud83d` alone): right JSON that is no text. A producer that cuts texts by UTF-16 units leaves them at the cut. V8
//! reads such a row and nothing else does, so it would fail late and with words about something else. Each half becomes U+FFFD here, as
//! every UTF-8 encoder has it. Pure.

use std::borrow::Cow;

/// What takes the place of a half; it has the same length.
const REPLACEMENT: &[u8; 6] = b"\\ufffd";

/// The JSON with U+FFFD for each half of a surrogate pair. Rows without escapes are not looked at further.
pub fn replaced(json: &[u8]) -> Cow<'_, [u8]> {
    let mut repaired: Option<Vec<u8>> = None;
    let mut at = 0;
    // A backslash stands in texts only, so their quotes need not be followed.
    while let Some(found) = json.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == b'\\')) {
        at += found;
        match unit(json, at) {
            None => at += 2,
            Some(0xd800..=0xdbff) if matches!(unit(json, at + 6), Some(0xdc00..=0xdfff)) => at += 12,
            Some(0xd800..=0xdfff) => {
                let bytes = repaired.get_or_insert_with(|| json.to_vec());
                if let Some(place) = bytes.get_mut(at..at + 6) {
                    place.copy_from_slice(REPLACEMENT);
                }
                at += 6;
            }
            Some(_) => at += 6,
        }
    }
    repaired.map_or(Cow::Borrowed(json), Cow::Owned)
}

/// The UTF-16 unit that is escaped here.
fn unit(json: &[u8], at: usize) -> Option<u16> {
    let digits = json.get(at..at + 6)?.strip_prefix(b"\\u")?;
    u16::from_str_radix(std::str::from_utf8(digits).ok().filter(|text| !text.starts_with('+'))?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Issue 10: half an emoji got advice about plain data of moderate depth.
    #[test]
    fn halves_are_replaced_and_pairs_are_kept() {
        for (json, expected) in [
            (r#"{"a":"Zo\u00eb \ud83d"}"#, r#"{"a":"Zo\u00eb \ufffd"}"#),
            (r#"{"no\ud83dte":"x"}"#, r#"{"no\ufffdte":"x"}"#),
            (r#"{"a":"u3\udc00"}"#, r#"{"a":"u3\ufffd"}"#),
            (r#"{"a":"\udc00\ud83d\uD83D\uDE00"}"#, r#"{"a":"\ufffd\ufffd\uD83D\uDE00"}"#),
            // An escaped backslash before a `u` is no escape.
            (r#"{"a":"\\ud83d"}"#, r#"{"a":"\\ud83d"}"#),
            (r#"{"a":"\\\ud83d"}"#, r#"{"a":"\\\ufffd"}"#),
            (r#"{"a":"\ud83d\n"}"#, r#"{"a":"\ufffd\n"}"#),
            (r#"{"a":"\u12"#, r#"{"a":"\u12"#),
            (r"{\", r"{\"),
        ] {
            assert_eq!(String::from_utf8_lossy(&replaced(json.as_bytes())), expected);
        }
        assert!(matches!(replaced(br#"{"a":"\ud83d\ude00"}"#), Cow::Borrowed(_)));
    }

    proptest::proptest! {
        /// Any text, cut anywhere by its UTF-16 units, becomes JSON that can be read.
        #[test]
        fn any_cut_text_can_be_read(text in "\\PC{0,12}", from in 0_usize..8, to in 0_usize..24) {
            let units: Vec<u16> = text.encode_utf16().collect();
            let from = from.min(units.len());
            let cut = &units[from..to.clamp(from, units.len())];
            let escaped: String = cut.iter().map(|unit| format!("\\u{unit:04x}")).collect();
            let json = format!("{{\"a\":\"{escaped}\"}}");
            let read: serde_json::Value = serde_json::from_slice(&replaced(json.as_bytes())).expect("it can be read");
            proptest::prop_assert_eq!(read["a"].as_str().unwrap(), String::from_utf16_lossy(cut));
        }
    }
}
