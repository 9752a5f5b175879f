//! Any text as an identifier, and any bytes as what the store remembers of a person.

use proptest::prelude::*;
use tailwater_core::ProfileId;
use tailwater_fuzz::{Target, effect, generated};

use crate::normalise::{Normaliser, VALUE_BYTES_MAX};
use crate::record::{Counters, Record, decode_owner, decode_record, encode_activity, encode_owner, encode_profile};
use crate::rules::{Globals, Rules, TypeRule};
use crate::{Key, Why};

const KINDS: [&str; 4] = ["email", "phone", "user", "id"];

fn rules() -> Rules {
    let types = vec![
        TypeRule::new("email", 1).normaliser(Normaliser::Email),
        TypeRule::new("phone", 2).normaliser(Normaliser::Phone { region: "DE".into() }),
        TypeRule::new("user", 3).normaliser(Normaliser::Lower),
        TypeRule::new("id", 4).normaliser(Normaliser::Trim),
    ];
    Rules::new(types, Globals::default()).expect("right rules")
}

const HIDDEN: [char; 7] = ['\u{200b}', '\u{feff}', '\u{ad}', '\u{200d}', '\u{202e}', '\u{2060}', '\u{fe0f}'];

const TOKENS: &[&str] = &[
    "mailto:",
    "<",
    ">",
    "\"",
    "'",
    ",",
    ";",
    ".0",
    "e7",
    "1.2345E4",
    "9007199254740992.0",
    "N/A",
    "<NA>",
    "\\N",
    "\u{200b}",
    "\u{feff}",
    "\u{2060}",
    "\u{2011}",
    "\u{ff20}",
    "@",
    ".",
    "ada@example.com",
    "xn--",
    "münchen.de",
    "straße",
    "İ",
    "ſ",
    "K",
    "ß",
    "\u{301}",
    "\u{200d}",
    "\u{ad}",
    "\u{202e}",
    "。",
    "+49",
    "0049",
    "0",
    " ",
    "(",
    ")",
    "-",
    "/",
    ";ext=1",
    "tel:",
    "+1 800 555 0100",
    "\u{a0}",
    "\u{3000}",
    "A",
    "null",
    "0000",
    "\u{fffd}",
    "ΑΣ",
];

#[test]
fn identifiers() {
    let rules = rules();
    let accept = |kind: &str, value: &str| {
        rules.accept(kind, value).map(|accepted| (accepted.match_key.to_string(), accepted.delivery.to_string()))
    };
    let mut values = generated(
        prop_oneof![
            "\\PC{1,12}@\\PC{1,12}\\.[a-zA-Z]{2,3}",
            "[+0-9 ()./-]{3,30}",
            "[a-zA-Z.+_-]{1,10}@[a-zß-ü0-9.-]{1,16}",
            "\\PC{0,40}"
        ]
        .prop_map(String::into_bytes),
    );
    let target = Target { name: "identifiers", tokens: TOKENS, bytes_max: 1_200 };
    target.run(Some(&mut values), |input| {
        let value = String::from_utf8_lossy(input);
        let told = KINDS.map(|kind| match rules.match_key(kind, &value) {
            Ok(key) => {
                assert!(
                    !key.is_empty() && key.len() <= VALUE_BYTES_MAX && !key.chars().any(char::is_control),
                    "{kind}: {key:?}"
                );
                // What was stored is read again by the same rules, and must be the same person.
                match rules.match_key(kind, &key) {
                    Ok(again) => assert_eq!(again, key, "{kind}: {value:?}"),
                    Err(why) => panic!("{kind}: {value:?} has the match key {key:?}, which is refused: {why:?}"),
                }
                // A vendor that gets the delivery value and gives it back must mean the same person.
                let accepted = accept(kind, &value).expect("it has a match key");
                assert_eq!(accept(kind, &accepted.1), Ok(accepted.clone()), "{kind}: {value:?}");
                // What nobody can see makes nobody else.
                for (at, _) in value.char_indices().take(24) {
                    let hidden = HIDDEN[at % HIDDEN.len()];
                    let mut with = value.to_string();
                    with.insert(at, hidden);
                    if with.len() <= VALUE_BYTES_MAX
                        && let Ok(spoiled) = accept(kind, &with)
                    {
                        assert_eq!(spoiled, accepted, "{kind}: {with:?}");
                    }
                }
                (0, key.is_ascii())
            }
            Err(Why::Blocked) => (1, false),
            Err(_) => (2, false),
        });
        effect((told, value.is_ascii(), input.len().checked_ilog2()))
    });
}

/// An input is: the length of the activity, the activity, the record.
#[test]
fn people() {
    let rules = rules();
    let id = ProfileId::of("w", "email", "a@b.c", 0);
    let tokens: &[&str] =
        &["\x01", "\x02", "\0", "\x05email", "\x05phone", "\x04gone", "a@b.c", "\x7f", "aaaaaaaaaaaaaaaa", "\u{ff}"];
    let target = Target { name: "people", tokens, bytes_max: 1_024 };
    target.run(None, |input| {
        let owner = decode_owner(Key::profile(id), input).is_ok_and(|owner| {
            assert_eq!(encode_owner(owner), input);
            true
        });
        let counters = Counters::decode(input).is_ok_and(|counters| {
            assert!(Counters::decode(&counters.encode()).is_ok());
            true
        });
        let key = Key::from_bytes(input).is_some_and(|key| {
            assert_eq!(key.to_bytes(), input);
            true
        });
        let Some((&length, rest)) = input.split_first() else { return 0 };
        let (activity, bytes) = rest.split_at(usize::from(length).min(rest.len()));
        let told = match decode_record(id, bytes, Some(activity), &rules) {
            Ok(Record::Live(profile)) => {
                assert!(profile.values.len() + profile.absorbed.len() <= bytes.len(), "nothing is made up");
                let (bytes, activity) = (encode_profile(&profile, &rules), encode_activity(&profile, &rules));
                let Ok(Record::Live(again)) = decode_record(id, &bytes, Some(&activity), &rules) else {
                    panic!("what was written can be read")
                };
                assert_eq!(encode_profile(&again, &rules), bytes);
                assert_eq!(encode_activity(&again, &rules), activity);
                (1, profile.values.len().min(5), profile.absorbed.len().min(5))
            }
            Ok(Record::Alias { .. }) => (2, 0, 0),
            Err(error) => (3, usize::from(!error.to_string().is_empty()), 0),
        };
        effect((told, owner, counters, key))
    });
}
