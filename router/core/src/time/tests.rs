//! What is read as a time, and that nothing else is. Issue 10, A8.

use proptest::prelude::*;

use super::*;

/// The first and the last instant for which every unit has to be recognised, in nanoseconds.
const FIRST: i128 = 631_152_000_000_000_000;
const LAST: i128 = 4_102_444_800_000_000_000;

#[test]
fn text_goes_there_and_back() {
    let at = Timestamp::parse("2026-03-01T08:00:00.267459Z").unwrap();
    assert_eq!(at.to_string(), "2026-03-01T08:00:00.267Z");
    assert_eq!(Timestamp::parse("2026-03-01").unwrap().to_string(), "2026-03-01T00:00:00.000Z");
    assert_eq!(Timestamp::parse("yesterday"), None);
}

#[test]
fn a_clock_that_was_set_back_gives_no_negative_duration() {
    assert_eq!(Timestamp::from_millis(5).since(Timestamp::from_millis(9)), Duration::ZERO);
}

#[test]
fn numbers_are_read_in_the_unit_that_their_magnitude_shows() {
    for (text, expected) in [
        ("1772409600", "2026-03-02T00:00:00.000Z"),
        ("1772409600.267", "2026-03-02T00:00:00.267Z"),
        ("1772409600000", "2026-03-02T00:00:00.000Z"),
        ("1772409600267.9", "2026-03-02T00:00:00.267Z"),
        ("1772409600000000", "2026-03-02T00:00:00.000Z"),
        ("1772409600000000000", "2026-03-02T00:00:00.000Z"),
        ("1.7724096e9", "2026-03-02T00:00:00.000Z"),
        ("1.772409600267E12", "2026-03-02T00:00:00.267Z"),
        (" 1772409600 ", "2026-03-02T00:00:00.000Z"),
        ("20260302", "2026-03-02T00:00:00.000Z"),
    ] {
        assert_eq!(Timestamp::read(text, None).map(|time| time.to_string()).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn a_configured_unit_decides_alone() {
    for (text, unit, expected) in [
        ("0", TimeUnit::Seconds, "1970-01-01T00:00:00.000Z"),
        ("1772409600", TimeUnit::Milliseconds, "1970-01-21T12:20:09.600Z"),
        ("1772409600267459", TimeUnit::Microseconds, "2026-03-02T00:00:00.267Z"),
        ("-1.5", TimeUnit::Seconds, "1969-12-31T23:59:58.500Z"),
        ("2026-03-02", TimeUnit::Nanoseconds, "2026-03-02T00:00:00.000Z"),
    ] {
        assert_eq!(Timestamp::read(text, Some(unit)).map(|time| time.to_string()).as_deref(), Ok(expected), "{text}");
    }
    for text in ["1772409600000000", "1e300", "-1e18", "9e2147483647"] {
        assert_eq!(Timestamp::read(text, Some(TimeUnit::Seconds)), Err(TimeProblem::OutOfRange), "{text}");
    }
}

#[test]
fn texts_in_the_formats_of_the_reference_are_read() {
    for text in [
        "2026-03-02T00:00:00Z",
        "2026-03-02t00:00:00z",
        "2026-03-02T00:00Z",
        "2026-03-02T00:00:00.000000000Z",
        "2026-03-02T00:00:00,0Z",
        "2026-03-02 00:00:00Z",
        "2026-03-02T01:00:00+01:00",
        "2026-03-02T01:00:00+0100",
        "2026-03-02T01:00:00+01",
        "2026-03-01T19:00:00-05:00",
        "2026-03-02T01:00:00+01:00[Europe/Berlin]",
        "2026-03-02 00:00:00 +0000",
        "2026-03-02 00:00:00 +0000 UTC",
        "2026-03-02 01:00:00 +0100",
        "2026-03-02T00:00:00",
        "2026-03-02 00:00:00",
        "2026-03-02 00:00:00.0",
        "2026-03-02 00:00:00 UTC",
        "2026-03-02 00:00:00.000 UTC",
        "2026-03-02T00:00:00 GMT",
        "2026-03-02",
        "20260302",
        "20260302T000000Z",
        "Mon, 02 Mar 2026 00:00:00 GMT",
        "Mon, 02 Mar 2026 00:00:00 UTC",
        "Mon, 2 Mar 2026 01:00:00 +0100",
        "\t2026-03-02\n",
    ] {
        let time = Timestamp::parse(text).map(|time| time.to_string());
        assert_eq!(time.as_deref(), Some("2026-03-02T00:00:00.000Z"), "{text}");
    }
}

#[test]
fn what_could_be_read_in_two_ways_is_not_read() {
    for text in [
        "03/02/2026",
        "02.03.2026",
        "2026-13-02",
        "2026-03",
        "2026-03-02T00:00[Europe/Berlin]",
        "2026-03-02 00:00:00 CET",
        "2026-03-02 00:00:00 PST",
        "2026-03-02 00:00:00 +0100 UTC",
        "Mon, 02 Mar 2026 00:00:00 CET",
        "today",
        "true",
        "",
        "Z",
        "{}",
        "1e",
        ".5",
    ] {
        assert_eq!(Timestamp::read(text, None), Err(TimeProblem::Unreadable), "{text}");
    }
    for text in ["0", "42", "2026", "20514", "50000000000", "20260302080000", "1e30", "-7", "5e-324"] {
        assert_eq!(Timestamp::read(text, None), Err(TimeProblem::UnitUnclear), "{text}");
    }
}

/// A count with as many decimal places as the unit leaves.
fn counted(nanoseconds: i128, unit: TimeUnit) -> String {
    let places = u32::try_from(9 - unit.places()).unwrap();
    let per_unit = 10_i128.pow(places);
    match places {
        0 => nanoseconds.to_string(),
        _ => format!(
            "{}.{:0width$}",
            nanoseconds / per_unit,
            nanoseconds % per_unit,
            width = usize::try_from(places).unwrap()
        ),
    }
}

proptest! {
    #[test]
    fn an_instant_is_read_back_from_every_unit_and_format(nanoseconds in FIRST..LAST) {
        let instant = jiff::Timestamp::from_nanosecond(nanoseconds).unwrap();
        let expected = Timestamp(i64::try_from(nanoseconds / 1_000_000).unwrap());
        for unit in TimeUnit::ALL {
            let text = counted(nanoseconds, unit);
            prop_assert_eq!(Timestamp::read(&text, None), Ok(expected), "{}", text);
            prop_assert_eq!(Timestamp::read(&text, Some(unit)), Ok(expected), "{}", text);
        }
        let seconds = nanoseconds / 1_000_000_000;
        let whole = Timestamp(i64::try_from(seconds * 1000).unwrap());
        prop_assert_eq!(Timestamp::read(&seconds.to_string(), None), Ok(whole));
        let berlin = instant.to_zoned(jiff::tz::Offset::constant(1).to_time_zone());
        for (format, to) in [
            ("%Y-%m-%dT%H:%M:%S%.fZ", expected),
            ("%Y-%m-%dT%H:%M:%S%.f", expected),
            ("%Y-%m-%d %H:%M:%S%.f", expected),
            ("%Y-%m-%d %H:%M:%S%.f UTC", expected),
            ("%Y-%m-%d %H:%M:%S%.f +0000", expected),
            ("%a, %d %b %Y %H:%M:%S GMT", whole),
            ("%Y-%m-%d", Timestamp(whole.0.div_euclid(86_400_000) * 86_400_000)),
        ] {
            let text = instant.strftime(format).to_string();
            prop_assert_eq!(Timestamp::read(&text, None), Ok(to), "{}", text);
        }
        for (format, to) in [("%Y-%m-%dT%H:%M:%S%.f%:z", expected), ("%a, %d %b %Y %H:%M:%S %z", whole)] {
            let text = berlin.strftime(format).to_string();
            prop_assert_eq!(Timestamp::read(&text, None), Ok(to), "{}", text);
        }
        prop_assert_eq!(Timestamp::parse(&expected.to_string()), Some(expected));
    }

    #[test]
    fn what_was_read_is_shown_in_a_form_that_is_read_again(text in "\\PC{0,40}|[-+]?[0-9]{1,25}(\\.[0-9]{0,12})?([eE][-+]?[0-9]{1,10})?") {
        for unit in [None, Some(TimeUnit::Seconds), Some(TimeUnit::Nanoseconds)] {
            if let Ok(time) = Timestamp::read(&text, unit) {
                prop_assert_eq!(Timestamp::parse(&time.to_string()), Some(time), "{}", text);
            }
        }
    }
}
