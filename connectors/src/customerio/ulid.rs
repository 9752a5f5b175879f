//! The ids of events. Customer.io ignores an event whose id it has seen, of whatever person: so an id must be the same whenever the same
//! delivery is sent again, and must differ between any two events.
//!
//! The vendor requires a ULID: 48 bits of milliseconds and 80 bits that are otherwise random, in Crockford's base 32. Here the time is the
//! event's own and the 80 bits are a hash of what makes the event unique. Frozen: changing it duplicates events at the vendor.

use tailwater_core::ids::ContentHash;
use tailwater_core::{DeliveryKey, Timestamp};

const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const LENGTH: usize = 26;
const TIME_MAX: u64 = (1 << 48) - 1;

/// The id of a delivery's event. The key is a hash already, so its first 80 bits are as good as any.
pub(super) fn of_delivery(time: Timestamp, key: DeliveryKey) -> String {
    encode(time, key.as_bytes())
}

/// The id of an event that its author has named (`messageId`).
pub(super) fn of_message(time: Timestamp, message: &str) -> String {
    encode(time, ContentHash::of(message.as_bytes()).as_bytes())
}

/// Whether a text is a ULID: 26 digits of base 32 within 128 bits.
pub(super) fn is_valid(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() == LENGTH
        && bytes.first().is_some_and(|first| (b'0'..=b'7').contains(first))
        && bytes.iter().all(|byte| DIGITS.contains(&byte.to_ascii_uppercase()))
}

fn encode(time: Timestamp, hash: &[u8; 16]) -> String {
    let time = u64::try_from(time.as_millis()).unwrap_or(0).min(TIME_MAX);
    let hash = hash.iter().take(10).fold(0_u128, |sum, byte| (sum << 8) | u128::from(*byte));
    let number = (u128::from(time) << 80) | hash;
    (0..LENGTH)
        .rev()
        .map(|place| {
            let digit = usize::try_from((number >> (5 * place)) & 31).unwrap_or(0);
            char::from(DIGITS.get(digit).copied().unwrap_or(b'0'))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use tailwater_core::EventId;

    use super::*;

    fn key(number: usize) -> DeliveryKey {
        let event = EventId::of_fact("acme", "orders", &number.to_string());
        DeliveryKey::of(event, "customerio", "orders", "track_event", "0")
    }

    // Frozen: another value here duplicates every event that is sent again after an update of Tailwater.
    #[test]
    fn an_id_is_made_of_the_time_and_the_key_and_of_nothing_else() {
        let time = Timestamp::from_millis(1_469_918_176_385);
        assert!(of_delivery(time, key(1)).starts_with("01ARYZ6S41"), "the example of the ULID specification");
        assert_eq!(of_delivery(time, DeliveryKey::from_bytes([0xff; 16])), "01ARYZ6S41ZZZZZZZZZZZZZZZZ");
        assert_eq!(of_delivery(Timestamp::from_millis(-5), DeliveryKey::from_bytes([0; 16])), "0".repeat(26));
        assert_eq!(
            of_delivery(Timestamp::from_millis(i64::MAX), DeliveryKey::from_bytes([0xff; 16])),
            format!("7{}", "Z".repeat(25))
        );
    }

    #[test]
    fn replays_collide_and_distinct_events_do_not() {
        let time = Timestamp::from_millis(1_772_352_000_267);
        assert_eq!(of_delivery(time, key(7)), of_delivery(time, key(7)));
        let ids: HashSet<_> = (0..1_000).map(|number| of_delivery(time, key(number))).collect();
        assert_eq!(ids.len(), 1_000);
        assert!(ids.iter().all(|id| is_valid(id)));
        assert_ne!(of_message(time, "a"), of_message(time, "b"));
    }

    // Facts §4, C4: a customer's id as the id of an event lost events.
    #[test]
    fn only_a_ulid_is_one() {
        assert!(is_valid("01ARZ3NDEKTSV4RRFFQ69G5FAV") && is_valid("01arz3ndektsv4rrffq69g5fav"));
        for bad in [
            "",
            "42",
            "cust_1",
            "81ARZ3NDEKTSV4RRFFQ69G5FAV",
            "01ARZ3NDEKTSV4RRFFQ69G5FAU",
            "01ARZ3NDEKTSV4RRFFQ69G5FA",
        ] {
            assert!(!is_valid(bad), "{bad}");
        }
    }
}
