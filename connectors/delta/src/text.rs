//! Dates, times, decimals and floating point numbers as JSON, without loss.
//!
//! The calendar is counted here and not by a crate: Delta's dates reach far beyond the year 9999, where the crates stop, and
//! the hot path needs no more than this. A test holds it against `jiff` over all years that both know.

const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// Year, month and day of a day since 1970-01-01 in the proleptic Gregorian calendar
/// (<https://howardhinnant.github.io/date_algorithms.html#civil_from_days>).
fn civil(days: i64) -> (i64, u32, u32) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    // Both lie between 1 and 31 by construction.
    (year, u32::try_from(month).unwrap_or_default(), u32::try_from(day).unwrap_or_default())
}

fn digits(out: &mut Vec<u8>, number: u32, width: usize) {
    let mut buffer = itoa::Buffer::new();
    let text = buffer.format(number);
    out.extend(std::iter::repeat_n(b'0', width.saturating_sub(text.len())));
    out.extend_from_slice(text.as_bytes());
}

fn date(out: &mut Vec<u8>, days: i64) {
    let (year, month, day) = civil(days);
    // ISO 8601 wants a sign as soon as four digits are not enough.
    if year < 0 {
        out.push(b'-');
    } else if year > 9_999 {
        out.push(b'+');
    }
    digits(out, u32::try_from(year.unsigned_abs()).unwrap_or(u32::MAX), 4);
    out.push(b'-');
    digits(out, month, 2);
    out.push(b'-');
    digits(out, day, 2);
}

/// `"2026-01-02"`.
pub(crate) fn write_date(out: &mut Vec<u8>, days: i32) {
    out.push(b'"');
    date(out, i64::from(days));
    out.push(b'"');
}

/// `"2026-01-02T03:04:05.123456Z"`; without the `Z` for a time of no zone. Always six decimals.
pub(crate) fn write_timestamp(out: &mut Vec<u8>, micros: i64, utc: bool) {
    let seconds = micros.div_euclid(MICROS_PER_SECOND);
    let fraction = micros.rem_euclid(MICROS_PER_SECOND);
    let second_of_day = seconds.rem_euclid(SECONDS_PER_DAY);
    let part = |number: i64| u32::try_from(number).unwrap_or_default();
    out.push(b'"');
    date(out, seconds.div_euclid(SECONDS_PER_DAY));
    out.push(b'T');
    digits(out, part(second_of_day / 3_600), 2);
    out.push(b':');
    digits(out, part(second_of_day / 60 % 60), 2);
    out.push(b':');
    digits(out, part(second_of_day % 60), 2);
    out.push(b'.');
    digits(out, part(fraction), 6);
    out.extend_from_slice(if utc { b"Z\"" } else { b"\"" });
}

/// `1.50`: all digits of the scale.
pub(crate) fn write_decimal(out: &mut Vec<u8>, unscaled: i128, scale: u8) {
    if unscaled < 0 {
        out.push(b'-');
    }
    let mut buffer = itoa::Buffer::new();
    let text = buffer.format(unscaled.unsigned_abs()).as_bytes();
    let scale = usize::from(scale);
    if scale == 0 {
        out.extend_from_slice(text);
        return;
    }
    let whole = text.len().saturating_sub(scale);
    if whole == 0 {
        out.extend_from_slice(b"0.");
        out.extend(std::iter::repeat_n(b'0', scale - text.len()));
    } else {
        out.extend_from_slice(&text[..whole]);
        out.push(b'.');
    }
    out.extend_from_slice(&text[whole..]);
}

/// The shortest number that reads back equal; what is not finite as a string, as JSON has no number for it.
pub(crate) fn write_float<F: ryu::Float + Into<f64>>(out: &mut Vec<u8>, value: F) {
    let wide: f64 = value.into();
    if wide.is_finite() {
        out.extend_from_slice(ryu::Buffer::new().format_finite(value).as_bytes());
    } else if wide.is_nan() {
        out.extend_from_slice(b"\"NaN\"");
    } else if wide > 0.0 {
        out.extend_from_slice(b"\"Infinity\"");
    } else {
        out.extend_from_slice(b"\"-Infinity\"");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_ends_of_the_calendar() {
        for (days, expected) in [
            (0, "\"1970-01-01\""),
            (-719_162, "\"0001-01-01\""),
            (-719_163, "\"0000-12-31\""),
            (-719_529, "\"-0001-12-31\""),
            (2_932_896, "\"9999-12-31\""),
            (2_932_897, "\"+10000-01-01\""),
            (11_016, "\"2000-02-29\""),
        ] {
            assert_eq!(text(|out| write_date(out, days)), expected);
        }
        assert_eq!(text(|out| write_timestamp(out, -1, true)), "\"1969-12-31T23:59:59.999999Z\"");
        assert_eq!(text(|out| write_timestamp(out, 0, false)), "\"1970-01-01T00:00:00.000000\"");
        // The extremes have years of six digits and must not panic.
        assert!(text(|out| write_timestamp(out, i64::MIN, true)).starts_with("\"-290308-"));
        assert!(text(|out| write_timestamp(out, i64::MAX, true)).starts_with("\"+294247-"));
        assert!(text(|out| write_date(out, i32::MIN)).starts_with("\"-5877641-"));
    }

    #[test]
    fn decimals_keep_their_scale() {
        for (unscaled, scale, expected) in [
            (150, 2, "1.50"),
            (-5, 2, "-0.05"),
            (0, 18, "0.000000000000000000"),
            (7, 0, "7"),
            (i128::from(i64::MAX), 3, "9223372036854775.807"),
            (-10_i128.pow(37), 38, "-0.10000000000000000000000000000000000000"),
        ] {
            assert_eq!(text(|out| write_decimal(out, unscaled, scale)), expected);
        }
    }

    #[test]
    fn what_is_not_finite_is_a_string() {
        assert_eq!(text(|out| write_float(out, f64::NAN)), "\"NaN\"");
        assert_eq!(text(|out| write_float(out, f32::NEG_INFINITY)), "\"-Infinity\"");
        assert_eq!(text(|out| write_float(out, -0.0_f64)), "-0.0");
        assert_eq!(text(|out| write_float(out, 0.1_f32)), "0.1");
    }

    proptest! {
        #[test]
        fn the_calendar_agrees_with_jiff(days in -719_162_i32..=2_932_896) {
            let date = jiff::civil::date(1970, 1, 1).checked_add(jiff::Span::new().days(days)).unwrap();
            prop_assert_eq!(text(|out| write_date(out, days)), format!("\"{date}\""));
        }

        #[test]
        fn a_double_reads_back_equal(bits: u64) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            let read: f64 = text(|out| write_float(out, value)).parse().unwrap();
            prop_assert_eq!(read.to_bits(), bits);
        }
    }
}
