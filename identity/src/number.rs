//! Numbers as identifiers. A data frame turns a column of integers into doubles as soon as one value is missing, and each program
//! writes a double in its own way: `12345`, `12345.0`, `1.2345e4`. An integer is one identifier, however it is written.

use std::borrow::Cow;

/// From here on a double no longer tells two integers apart: 2^53.
const EXACT_END: u64 = 1 << 53;

/// Decimal digits of [`EXACT_END`].
const EXACT_DIGITS: usize = 16;

/// The digits of a JSON number that is an integer. Digits without a fraction or an exponent are exact and kept, however many. `None` when
/// the number is no integer, or is so large that its spelling with a fraction or an exponent is a rounded double.
pub fn integer(json: &str) -> Option<Cow<'_, str>> {
    let (sign, digits) = match json.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", json),
    };
    if !digits.contains(['.', 'e', 'E']) {
        return match digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.is_empty() {
            true if digits == "0" => Some(Cow::Borrowed("0")),
            true => Some(Cow::Borrowed(json)),
            false => None,
        };
    }
    let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (digits, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let all = format!("{whole}{fraction}");
    let significant = all.trim_end_matches('0');
    if significant.is_empty() {
        return Some(Cow::Borrowed("0"));
    }
    // Zeros that follow the significant digits; a negative number of them leaves a fraction.
    let zeros = i64::from(exponent) + i64::try_from(whole.len()).ok()? - i64::try_from(significant.len()).ok()?;
    let significant = significant.trim_start_matches('0');
    let zeros = usize::try_from(zeros).ok().filter(|zeros| significant.len() + zeros <= EXACT_DIGITS)?;
    let integer = format!("{significant}{}", "0".repeat(zeros));
    integer.parse::<u64>().is_ok_and(|integer| integer < EXACT_END).then(|| Cow::Owned(format!("{sign}{integer}")))
}

/// A text that is a number as programs write a double: `12345.0`, `1.2345E4`, `1e+20`. A text of digits only is an opaque id whose leading
/// zeros count, `1e7` may be hexadecimal, and `1234567890.1772409600` is the id of a web client, so none of these is one.
pub(crate) fn is_written_as_double(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let canonical = digits(whole) && (whole == "0" || !whole.starts_with('0')) && fraction.is_none_or(digits);
    canonical
        && match (fraction, exponent) {
            (Some(fraction), None) => fraction.bytes().all(|byte| byte == b'0'),
            (fraction, Some(exponent)) => {
                let signed = exponent.starts_with(['+', '-']);
                (fraction.is_some() || signed) && whole.len() == 1 && digits(exponent.trim_start_matches(['+', '-']))
            }
            (None, None) => false,
        }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Issue 10, A7.
    #[test]
    fn an_integer_has_one_spelling() {
        for (json, expected) in [
            ("12345", Some("12345")),
            ("12345.0", Some("12345")),
            ("12345.000", Some("12345")),
            ("1.2345e4", Some("12345")),
            ("123450e-1", Some("12345")),
            ("1e7", Some("10000000")),
            ("1E+7", Some("10000000")),
            ("1.0e7", Some("10000000")),
            ("-5.0", Some("-5")),
            ("0", Some("0")),
            ("-0", Some("0")),
            ("-0.0", Some("0")),
            ("0e999999", Some("0")),
            ("9007199254740991.0", Some("9007199254740991")),
            ("9007199254740992.0", None),
            ("9.007199254740993e15", None),
            ("1e16", None),
            ("1e2147483647", None),
            ("1e99999999999", None),
            ("9007199254740993", Some("9007199254740993")),
            ("123456789012345678901234567890", Some("123456789012345678901234567890")),
            ("1.5", None),
            ("15e-1", None),
            ("0.1", None),
            ("1e-7", None),
        ] {
            assert_eq!(integer(json).as_deref(), expected, "{json}");
        }
    }

    #[test]
    fn a_text_counts_as_a_number_only_where_it_can_be_nothing_else() {
        for text in ["12345.0", "0.0", "-5.00", "1.2345E4", "1.0e7", "1e+07", "1E-7", "9007199254740992.0"] {
            assert!(is_written_as_double(text), "{text}");
        }
        for text in [
            "12345",
            "007",
            "007.0",
            "1e7",
            "12e5",
            "1.5",
            "1234567890.1772409600",
            ".0",
            "5.",
            "1.0.0",
            "a.0",
            "e",
            "1e",
            "12.0e+5",
            "",
            "-",
        ] {
            assert!(!is_written_as_double(text), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_spelling_of_an_integer_is_the_same_identifier(value in 0..EXACT_END, zeros in 0..4_usize) {
            let plain = value.to_string();
            #[allow(clippy::cast_precision_loss, reason = "it is below 2^53")]
            let double = value as f64;
            for spelling in [
                plain.clone(),
                format!("{plain}.0{}", "0".repeat(zeros)),
                format!("{plain}{}e-{zeros}", "0".repeat(zeros)),
                format!("{double:?}"),
                format!("{double:e}"),
                format!("{double:E}"),
            ] {
                let got = integer(&spelling);
                prop_assert_eq!(got.as_deref(), Some(plain.as_str()), "{}", spelling);
            }
        }

        #[test]
        fn an_integer_is_its_own_spelling(json in "-?[0-9]{1,20}(\\.[0-9]{0,5})?([eE][+-]?[0-9]{1,12})?") {
            if let Some(once) = integer(&json) {
                let again = integer(&once);
                prop_assert_eq!(again.as_deref(), Some(&*once));
            }
        }
    }
}
