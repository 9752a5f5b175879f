use super::*;
use crate::state::Map as _;

fn keys(store: &Store, prefix: &[u8]) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    store.each_key(0, prefix, |key| keys.push(key.to_vec())).unwrap();
    keys.sort();
    keys
}

#[test]
fn an_open_batch_is_seen_over_what_was_committed_and_goes_with_an_abort() {
    let (mut store, _folder) = Store::without_broker(&[0]);
    for key in [&b"ha"[..], b"hb", b"x"] {
        store.put(0, key.to_vec(), Some(b"1".to_vec())).unwrap();
    }
    store.keep();
    store.put(0, b"ha".to_vec(), None).unwrap();
    store.put(0, b"hb".to_vec(), Some(b"2".to_vec())).unwrap();
    store.put(0, b"hc".to_vec(), Some(b"3".to_vec())).unwrap();
    assert_eq!(keys(&store, b"h"), [b"hb".to_vec(), b"hc".to_vec()]);
    assert_eq!(store.scan(0, b"h").unwrap().len(), 2);
    assert_eq!(store.get(0, b"ha").unwrap(), None);
    store.aborted();
    assert_eq!(keys(&store, b"h"), [b"ha".to_vec(), b"hb".to_vec()]);
    assert_eq!(store.get(0, b"hb").unwrap().as_deref(), Some(&b"1"[..]));
}

#[test]
fn a_cache_is_followed_only_where_it_can_have_missed_no_deletion() {
    let day = 86_400_000;
    let applied = Applied { cluster: "c".into(), offset: 50, at: 10 * day, marker: None };
    let usable = |high, now| applied.is_usable(high, now, CACHE_AGE_MAX);
    assert!(usable(80, 12 * day));
    assert!(!usable(80, 14 * day), "a deletion may have been compacted away");
    assert!(usable(50, 400 * day), "nothing was written since");
    assert!(!usable(80, 9 * day), "written under a clock that was ahead: its age is not known");
    assert!(usable(80, 10 * day - 1_000), "clocks differ by a little");
    let old: Applied = serde_json::from_str(r#"{"cluster":"c","offset":50}"#).unwrap();
    assert!(!old.is_usable(80, 10 * day, CACHE_AGE_MAX));
}

// Issue 10, A14.
#[test]
fn a_cache_is_not_trusted_beyond_the_time_that_the_topic_keeps_deletions() {
    let hour = Duration::from_secs(3_600);
    assert_eq!(cache_age_max(Some(hour * 24 * 7)), CACHE_AGE_MAX);
    assert_eq!(cache_age_max(Some(hour * 24)), hour * 12, "a topic made by hand has the broker's default");
    assert_eq!(cache_age_max(None), hour * 12, "and so may one whose settings cannot be read");
    assert_eq!(cache_age_max(Some(Duration::ZERO)), Duration::ZERO);
}

#[test]
fn a_marker_is_known_by_its_key_name_and_offset() {
    let record = |offset, key: &[u8], name: &[u8]| {
        let at = tailwater_core::Timestamp::from_millis(0);
        Record::new(Arc::from("t"), 0, offset, at, Some(key), Some(name), None, vec![])
    };
    let marker = Marker::at(7, b"abc");
    assert!(marker.is(&record(7, MARKER, b"abc")));
    for other in [record(8, MARKER, b"abc"), record(7, MARKER, b"abd"), record(7, b"k", b"abc")] {
        assert!(!marker.is(&other));
    }
}

#[test]
fn a_damaged_entry_is_an_error_and_not_an_absent_one() {
    let (mut store, _folder) = Store::without_broker(&[0]);
    store.put(0, b"k1".to_vec(), Some(b"{".to_vec())).unwrap();
    let error = store.get_json::<u32>(0, b"k1", "a number").unwrap_err();
    assert_eq!(error.code(), tailwater_core::code::STATE_DAMAGED);
    assert!(error.to_string().contains("a number in t.state[0] under the key 6b31"), "{error}");
    assert_eq!(store.get_json::<u32>(0, b"k2", "a number").unwrap(), None);
}

#[test]
fn the_caches_own_keys_are_nobodys_state() {
    let (mut store, _folder) = Store::without_broker(&[0]);
    store.partitions[&0].keyspace.insert(APPLIED, store.partitions[&0].applied_bytes(store.cache.now_ms())).unwrap();
    store.put(0, b"a".to_vec(), Some(vec![])).unwrap();
    assert_eq!(keys(&store, b""), [b"a".to_vec()]);
}

#[test]
fn a_partition_that_was_not_restored_is_an_error() {
    let (store, _folder) = Store::without_broker(&[0]);
    assert!(matches!(store.get(7, b"a"), Err(Error::NotOpen { partition: 7, .. })));
}
