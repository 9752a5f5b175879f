use super::*;
use crate::state::Store;

fn record_at(offset: i64) -> Record {
    Record::new(Arc::from("t.resolved"), 0, offset, Timestamp::from_millis(0), None, Some(b"{}"), Some(b"\x01"), vec![])
}

fn merge_into(survivor: ProfileId, number: u64) -> Merge {
    Merge { number, survivor, absorbed: ProfileId::of("w", "email", "absorbed", 0) }
}

fn offsets(waiting: &Waiting, store: &Store, profile: ProfileId) -> Vec<i64> {
    let queue = waiting.queue(store, 0, profile, &Arc::from("t.resolved")).unwrap();
    queue.iter().map(|held| held.record.offset).collect()
}

#[test]
fn what_a_merge_handed_over_goes_before_the_survivors_own_and_nothing_else_changes_order() {
    let (mut store, _folder) = Store::without_broker(&[0]);
    let mut waiting = Waiting::default();
    let profile = ProfileId::of("w", "email", "a@b.c", 0);
    for (offset, handed_over) in [(300, false), (7, false), (900, true), (800, true)] {
        assert_eq!(
            waiting.hold(&mut store, 0, profile, &record_at(offset), handed_over, Timestamp::from_millis(1)).unwrap(),
            Hold::Waits
        );
    }
    assert_eq!(offsets(&waiting, &store, profile), [800, 900, 7, 300]);
}

// Issue 10, B6: one entry that could not be read ended the process, at every start.
#[test]
fn a_damaged_record_is_told_and_not_passed_over_and_the_others_go_on() {
    let (mut store, _folder) = Store::without_broker(&[0]);
    let mut waiting = Waiting::default();
    let profile = ProfileId::of("w", "email", "a@b.c", 0);
    let topic: Arc<str> = Arc::from("t.resolved");
    for offset in [1, 2, 3] {
        assert_eq!(
            waiting.hold(&mut store, 0, profile, &record_at(offset), false, Timestamp::from_millis(1)).unwrap(),
            Hold::Waits
        );
    }
    for bytes in [vec![], vec![9], vec![1; 30]] {
        store.put(0, held_key(profile, false, 2), Some(bytes.clone())).unwrap();
        let queue = waiting.queue(&store, 0, profile, &topic).unwrap();
        assert_eq!(queue.iter().map(|held| held.record.offset).collect::<Vec<_>>(), [1, 2, 3]);
        let damages: Vec<_> = queue.iter().map(|held| damage(&held.record)).collect();
        let reason = damages[1].as_ref().unwrap();
        assert_eq!(reason.code, code::STATE_DAMAGED);
        assert!(reason.message.contains("a waiting record"), "{}", reason.message);
        assert!(damages[0].is_none() && damages[2].is_none());
        assert_eq!((queue[1].record.value(), queue[1].owner()), (Some(&bytes[..]), Some(profile)));
        let expired = waiting.expired(&store, 0, &topic, Timestamp::from_millis(50), 10).unwrap();
        assert_eq!(expired.len(), 3);
        assert_eq!(expired[1].1.since, Timestamp::from_millis(1), "its entry by age can be removed");
    }
    let code = |error: state::Error| error.code();
    store.put(0, profile_key(IDENTIFIERS, profile), Some(b"[".to_vec())).unwrap();
    assert_eq!(identifiers(&store, 0, profile).map_err(code).unwrap_err().as_str(), "state_damaged");
}

#[test]
fn a_record_that_is_read_twice_waits_once_and_since_the_first_time() {
    let (mut store, _folder) = Store::without_broker(&[0]);
    let mut waiting = Waiting::default();
    let profile = ProfileId::of("w", "email", "a@b.c", 0);
    assert_eq!(
        waiting.hold(&mut store, 0, profile, &record_at(5), false, Timestamp::from_millis(1)).unwrap(),
        Hold::Waits
    );
    store.keep();
    assert_eq!(
        waiting.hold(&mut store, 0, profile, &record_at(5), false, Timestamp::from_millis(9)).unwrap(),
        Hold::Waits
    );
    assert_eq!(waiting.records(), 1);
    let found = |offset| find(&store, 0, profile, &Arc::new(record_at(offset))).unwrap();
    assert!(found(5).is_some() && found(6).is_none());
    let held = waiting.queue(&store, 0, profile, &Arc::from("t")).unwrap().remove(0);
    assert_eq!(held.since.as_millis(), 1);
    // Taken twice, it is gone once, and no other record's count goes with it.
    assert_eq!(
        waiting.hold(&mut store, 0, profile, &record_at(6), false, Timestamp::from_millis(9)).unwrap(),
        Hold::Waits
    );
    waiting.take(&mut store, 0, profile, &held).unwrap();
    waiting.take(&mut store, 0, profile, &held).unwrap();
    assert_eq!(waiting.get(0, profile), Some(Wait { records: 1, ..Wait::default() }));
    assert_eq!(store.scan(0, &[SINCE]).unwrap().len(), 1);
}

#[test]
fn a_profile_waits_until_each_of_its_merges_is_through() {
    let (mut store, _folder) = Store::without_broker(&[0]);
    let mut waiting = Waiting::default();
    let profile = ProfileId::of("w", "email", "a@b.c", 0);
    for merge in [5, 7, 5] {
        waiting.wait_for(&mut store, 0, merge_into(profile, merge)).unwrap();
    }
    waiting.released(&mut store, 0, profile, 9).unwrap();
    waiting.released(&mut store, 0, profile, 7).unwrap();
    assert_eq!(waiting.get(0, profile), Some(Wait { merges: 1, ..Wait::default() }));
    waiting.released(&mut store, 0, profile, 5).unwrap();
    assert_eq!(waiting.get(0, profile), None);
}

#[test]
fn a_plan_that_is_thrown_away_leaves_the_index_as_a_restart_would_find_it() {
    let (mut store, _folder) = Store::without_broker(&[0]);
    let mut waiting = Waiting::default();
    let profile = ProfileId::of("w", "email", "a@b.c", 0);
    assert_eq!(
        waiting.hold(&mut store, 0, profile, &record_at(1), false, Timestamp::from_millis(1)).unwrap(),
        Hold::Waits
    );
    waiting.wait_for(&mut store, 0, merge_into(profile, 3)).unwrap();
    store.keep();
    waiting.accept();
    assert_eq!(
        waiting.hold(&mut store, 0, profile, &record_at(2), false, Timestamp::from_millis(1)).unwrap(),
        Hold::Waits
    );
    waiting.released(&mut store, 0, profile, 3).unwrap();
    store.aborted();
    waiting.undo();
    let mut fresh = Waiting::default();
    fresh.load(&store, &[0]).unwrap();
    assert_eq!(waiting.get(0, profile), Some(Wait { records: 1, merges: 1, ..Wait::default() }));
    assert_eq!(fresh.get(0, profile), waiting.get(0, profile));
}

#[test]
fn holds_end_by_age_but_not_while_a_merge_is_waited_for() {
    let (mut store, _folder) = Store::without_broker(&[0]);
    let mut waiting = Waiting::default();
    let topic: Arc<str> = Arc::from("t.resolved");
    let (old, merging) = (ProfileId::of("w", "email", "a", 0), ProfileId::of("w", "email", "b", 0));
    for (profile, offset, since) in [(old, 1, 10), (merging, 2, 10), (old, 3, 99)] {
        assert_eq!(
            waiting.hold(&mut store, 0, profile, &record_at(offset), false, Timestamp::from_millis(since)).unwrap(),
            Hold::Waits
        );
    }
    waiting.wait_for(&mut store, 0, merge_into(merging, 1)).unwrap();
    let expired = waiting.expired(&store, 0, &topic, Timestamp::from_millis(50), 10).unwrap();
    assert_eq!(expired.iter().map(|(_, held)| held.record.offset).collect::<Vec<_>>(), [1]);
}

// Issue 10, B9.
#[test]
fn what_is_released_is_found_again_until_all_of_it_has_gone() {
    let (mut store, _folder) = Store::without_broker(&[0]);
    let mut waiting = Waiting::default();
    let profile = ProfileId::of("w", "email", "a@b.c", 0);
    let topic: Arc<str> = Arc::from("t");
    for offset in [1, 2] {
        assert_eq!(
            waiting.hold(&mut store, 0, profile, &record_at(offset), false, Timestamp::from_millis(1)).unwrap(),
            Hold::Waits
        );
    }
    assert!(waiting.going().is_empty());
    waiting.release(&mut store, 0, profile).unwrap();
    let mut after_restart = Waiting::default();
    after_restart.load(&store, &[0]).unwrap();
    for waiting in [&mut after_restart, &mut waiting] {
        assert!(waiting.going().contains(&(0, profile)));
        assert_eq!(waiting.going_records(), 2);
    }
    // A merge holds it up again, and its age does not end it.
    waiting.wait_for(&mut store, 0, merge_into(profile, 1)).unwrap();
    assert!(waiting.going().is_empty());
    waiting.released(&mut store, 0, profile, 1).unwrap();
    assert!(waiting.expired(&store, 0, &topic, Timestamp::from_millis(50), 10).unwrap().is_empty());
    for held in waiting.queue(&store, 0, profile, &topic).unwrap() {
        waiting.take(&mut store, 0, profile, &held).unwrap();
    }
    assert!(waiting.going().is_empty() && waiting.going_records() == 0);
    assert!(store.scan(0, b"").unwrap().is_empty());
}

#[test]
fn the_records_of_an_absorbed_profile_are_on_their_way_until_it_is_said_that_they_are_not() {
    let (mut store, _folder) = Store::without_broker(&[0]);
    let mut waiting = Waiting::default();
    let merge = merge_into(ProfileId::of("w", "email", "a@b.c", 0), 9);
    assert_eq!(
        waiting.hold(&mut store, 0, merge.absorbed, &record_at(1), false, Timestamp::from_millis(1)).unwrap(),
        Hold::Waits
    );
    waiting.move_to(&mut store, 0, merge).unwrap();
    let mut after_restart = Waiting::default();
    after_restart.load(&store, &[0]).unwrap();
    assert!(after_restart.going().contains(&(0, merge.absorbed)));
    assert_eq!(after_restart.moving(&store, 0, merge.absorbed).unwrap(), Some(merge));
    waiting.forget(&[0]);
    assert!(waiting.going().is_empty() && waiting.going_records() == 0);
    after_restart.moved(&mut store, 0, merge.absorbed).unwrap();
    assert!(after_restart.going().is_empty());
}

#[test]
fn a_record_that_does_not_fit_the_state_is_refused_and_leaves_no_trace() {
    let (mut store, _folder) = Store::without_broker(&[0]);
    let mut waiting = Waiting::new(Some(300));
    let profile = ProfileId::of("w", "email", "a@b.c", 0);
    let large = Record::new("t".into(), 0, 1, Timestamp::default(), None, Some(&[b'x'; 200]), None, vec![]);
    let refused = waiting.hold(&mut store, 0, profile, &large, false, Timestamp::from_millis(1)).unwrap();
    assert!(matches!(refused, Hold::TooLarge { bytes_max: 300, .. }), "{refused:?}");
    assert!(waiting.get(0, profile).is_none() && store.scan(0, b"").unwrap().is_empty());
    assert_eq!(
        waiting.hold(&mut store, 0, profile, &record_at(2), false, Timestamp::from_millis(1)).unwrap(),
        Hold::Waits
    );
}
