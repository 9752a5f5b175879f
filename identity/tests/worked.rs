//! Worked examples: what the guide tells, and what other systems document for the same policy.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

mod support;

use support::{Story, rules, types};
use tailwater_core::Timestamp;
use tailwater_core::envelope::{Identifier, Merge};
use tailwater_identity::{Decision, Globals, Incoming, Key, MemoryStore, Resolver, Rules, TypeRule, Why, Write};

/// user_id at most 1, email and anonymous_id at most 5: the published defaults of the policy *keep*.
fn story() -> Story {
    Story::new(rules())
}

#[test]
fn a_second_user_with_a_known_address_becomes_a_profile_of_its_own() {
    let mut story = story();
    let jane = story.event(&[("user_id", "abc123"), ("email", "jane@example1.com")]);
    let other = story.event(&[("user_id", "abc456"), ("email", "jane@example1.com")]);
    assert!(other.created);
    assert_ne!(other.profile, jane.profile);
    assert_eq!(other.why(), [("email", Why::OwnedByAnother)]);
    assert_eq!(story.holds(other.profile), ["user_id abc456"]);
    assert_eq!(story.holds(jane.profile), ["user_id abc123", "email jane@example1.com"]);
}

#[test]
fn two_devices_become_one_person_at_the_second_login_and_the_older_profile_survives() {
    let mut story = story();
    let first = story.event(&[("anonymous_id", "5285")]);
    let login = story.event(&[("anonymous_id", "5285"), ("email", "jane.kim@example.com")]);
    let second = story.event(&[("anonymous_id", "b50e")]);
    assert_eq!(first.profile, login.profile);
    assert_ne!(first.profile, second.profile);

    let merged = story.event(&[("anonymous_id", "b50e"), ("email", "jane.kim@example.com")]);
    assert_eq!(merged.profile, first.profile);
    assert_eq!(merged.merges, [Merge { number: 1, survivor: first.profile, absorbed: second.profile }]);
    assert_eq!(story.holds(first.profile), ["email jane.kim@example.com", "anonymous_id b50e", "anonymous_id 5285"]);
    // Whoever still has the old id finds the person.
    assert_eq!(story.get(second.profile).profile, first.profile);
    // Two events of the first device, one of the second, and this one.
    assert_eq!(merged.sequence, 4);
}

#[test]
fn a_shared_device_stays_with_its_first_user() {
    let mut story = story();
    let first = story.event(&[("user_id", "u1"), ("anonymous_id", "x")]);
    let second = story.event(&[("user_id", "u2"), ("anonymous_id", "x")]);
    let anonymous = story.event(&[("anonymous_id", "x")]);
    assert_ne!(first.profile, second.profile);
    assert_eq!(second.why(), [("anonymous_id", Why::OwnedByAnother)]);
    assert_eq!(anonymous.profile, first.profile);
    // Nothing of the first user shows in the second one's row.
    assert_eq!(second.in_use(), [("user_id", "u2")]);
}

#[test]
fn an_order_links_a_customer_to_an_address_and_later_scores_show_it() {
    let mut story = story();
    let score = story.event(&[("user_id", "cust_1")]);
    assert_eq!(score.in_use(), [("user_id", "cust_1")]);
    let order = story.event(&[("user_id", "cust_1"), ("email", "Ada@Example.com ")]);
    assert_eq!(order.in_use(), [("user_id", "cust_1"), ("email", "Ada@Example.com")]);
    let later = story.event(&[("user_id", "cust_1")]);
    assert_eq!(later.profile, score.profile);
    assert_eq!(later.in_use(), [("user_id", "cust_1"), ("email", "Ada@Example.com")]);
    assert_eq!((score.sequence, order.sequence, later.sequence), (1, 2, 3));
}

#[test]
fn the_value_in_use_is_the_one_that_an_event_brought_most_recently() {
    let mut story = story();
    story.event(&[("user_id", "u1"), ("email", "old@example.com")]);
    story.event(&[("user_id", "u1"), ("email", "new@example.com")]);
    assert_eq!(story.event(&[("user_id", "u1")]).in_use()[1], ("email", "new@example.com"));
    assert_eq!(story.event(&[("email", "old@example.com")]).in_use()[1], ("email", "old@example.com"));
    // One event with both: the first that it lists.
    let both = story.event(&[("email", "new@example.com"), ("email", "old@example.com")]);
    assert_eq!(both.in_use()[1], ("email", "new@example.com"));
    // Another spelling of the same address is not a second one.
    let spelled = story.event(&[("email", "NEW@example.com")]);
    assert_eq!(spelled.in_use()[1], ("email", "NEW@example.com"));
    assert_eq!(story.holds(spelled.profile).len(), 3);
}

#[test]
fn after_a_merge_the_more_recent_of_both_values_is_in_use() {
    let mut story = story();
    story.event(&[("user_id", "u1"), ("email", "a@example.com")]);
    story.event(&[("anonymous_id", "x"), ("email", "b@example.com")]);
    // The first address is seen again: no new link, but it is the more recent one now.
    story.event(&[("user_id", "u1"), ("email", "a@example.com")]);
    let merged = story.event(&[("user_id", "u1"), ("anonymous_id", "x")]);
    assert_eq!(merged.in_use(), [("user_id", "u1"), ("email", "a@example.com"), ("anonymous_id", "x")]);
}

#[test]
fn a_full_type_takes_no_further_value_and_the_event_still_resolves() {
    let mut story = story();
    let mut profile = None;
    for n in 0..5 {
        profile = Some(story.event(&[("user_id", "u1"), ("email", &format!("{n}@example.com"))]).profile);
    }
    let sixth = story.event(&[("user_id", "u1"), ("email", "5@example.com")]);
    assert_eq!(Some(sixth.profile), profile);
    assert_eq!(sixth.why(), [("email", Why::Demoted)]);
    assert_eq!(sixth.in_use()[1], ("email", "4@example.com"));
    // The refused address belongs to nobody, so it can still become somebody's.
    assert!(story.event(&[("email", "5@example.com")]).created);
}

#[test]
fn a_conflict_sets_the_weakest_aside_first_and_what_is_the_persons_own_comes_back() {
    let mut story = story();
    let first = story.event(&[("user_id", "u1"), ("anonymous_id", "x1")]);
    let second = story.event(&[("user_id", "u2"), ("email", "two@example.com")]);
    let mixed =
        story.event(&[("anonymous_id", "x1"), ("anonymous_id", "x3"), ("email", "two@example.com"), ("user_id", "u1")]);
    assert_eq!(mixed.profile, first.profile);
    // x1 is the person's own. x3 is nobody's, but it came with somebody else's address, so it is not believed.
    assert_eq!(mixed.why(), [("anonymous_id", Why::Demoted), ("email", Why::OwnedByAnother)]);
    assert_eq!(story.holds(first.profile), ["user_id u1", "anonymous_id x1"]);
    assert_eq!(story.holds(second.profile), ["user_id u2", "email two@example.com"]);
}

#[test]
fn the_highest_priority_decides_whose_event_it_is_not_the_order_in_the_row() {
    let mut story = story();
    story.event(&[("user_id", "u1"), ("email", "one@example.com")]);
    let two = story.event(&[("user_id", "u2")]);
    let event = story.event(&[("email", "one@example.com"), ("user_id", "u2")]);
    assert_eq!(event.profile, two.profile);
    assert_eq!(event.refused[0].index, 0);
}

#[test]
fn two_values_of_a_unique_type_on_one_event_are_decided_by_their_bytes() {
    for ids in [["u1", "u2"], ["u2", "u1"]] {
        let mut story = story();
        let event = story.event(&[("user_id", ids[0]), ("user_id", ids[1])]);
        assert_eq!(event.in_use(), [("user_id", "u1")]);
        assert_eq!(event.why(), [("user_id", Why::Demoted)]);
        assert_eq!(&*event.refused[0].value, "u2");
    }
}

#[test]
fn an_event_whose_identifiers_are_all_refused_belongs_to_nobody_and_changes_nothing() {
    let mut story = story();
    let batch = story.decide(&[("user_id", " null "), ("email", "not an address"), ("fax", "1")]);
    assert!(batch.writes.is_empty());
    let Decision::NoIdentifiers { refused } = &batch.decisions[0] else { panic!("resolved {batch:?}") };
    let why: Vec<Why> = refused.iter().map(|refusal| refusal.why).collect();
    assert_eq!(why, [Why::Blocked, Why::Invalid, Why::UnknownType]);
    assert_eq!(&*refused[0].value, " null ");

    let batch = story.decide(&[]);
    assert_eq!(batch.decisions, [Decision::NoIdentifiers { refused: Vec::new() }]);
}

#[test]
fn a_blocked_identifier_leaves_the_others_to_decide() {
    let mut story = story();
    let event = story.event(&[("user_id", "u1"), ("anonymous_id", "00000000-0000-0000-0000-000000000000")]);
    assert_eq!(event.why(), [("anonymous_id", Why::Blocked)]);
    assert_eq!(story.holds(event.profile), ["user_id u1"]);
}

#[test]
fn an_event_with_too_many_identifiers_is_resolved_by_its_strongest() {
    let mut story = Story::new(Rules::new(types(), Globals { max_ids_per_event: 3, ..Globals::default() }).unwrap());
    let event =
        story.event(&[("anonymous_id", "b"), ("anonymous_id", "a"), ("email", "a@example.com"), ("user_id", "u1")]);
    assert_eq!(event.why(), [("anonymous_id", Why::TooMany)]);
    assert_eq!(&*event.refused[0].value, "b");
}

#[test]
fn a_profile_that_is_full_links_nothing_more_and_merges_with_nobody() {
    let globals = Globals { max_identifiers: 3, max_merges: 1, ..Globals::default() };
    let types = vec![TypeRule::new("user_id", 1).max(3), TypeRule::new("anonymous_id", 2).max(3)];
    let mut story = Story::new(Rules::new(types, globals).unwrap());
    let person = story.event(&[("user_id", "u1"), ("anonymous_id", "x1"), ("anonymous_id", "x2")]);
    let full = story.event(&[("user_id", "u1"), ("anonymous_id", "x3")]);
    assert_eq!((full.profile, full.why()), (person.profile, vec![("anonymous_id", Why::Demoted)]));
    assert_eq!(story.holds(person.profile).len(), 3);
}

#[test]
fn no_more_profiles_are_absorbed_than_max_merges_counting_those_absorbed_before() {
    let mut story = Story::new(Rules::new(types(), Globals { max_merges: 2, ..Globals::default() }).unwrap());
    for x in ["x1", "x2", "x3", "x4"] {
        story.event(&[("anonymous_id", x)]);
    }
    let one = story.event(&[("email", "a@example.com"), ("anonymous_id", "x1")]);
    story.event(&[("anonymous_id", "x2"), ("anonymous_id", "x3")]);
    // x2 has absorbed x3, so both together count as two.
    let two = story.event(&[("email", "a@example.com"), ("anonymous_id", "x2")]);
    assert_eq!(two.merges.len(), 1);
    assert_eq!(story.get(one.profile).absorbed.len(), 2);
    let three = story.event(&[("email", "a@example.com"), ("anonymous_id", "x4")]);
    assert_eq!((three.merges.len(), three.why()), (0, vec![("anonymous_id", Why::OwnedByAnother)]));
}

#[test]
fn every_absorbed_profile_leads_straight_to_the_one_that_survived() {
    let mut story = story();
    let d = story.event(&[("anonymous_id", "d")]).profile;
    let a = story.event(&[("anonymous_id", "a")]).profile;
    let b = story.event(&[("anonymous_id", "b")]).profile;
    let c = story.event(&[("anonymous_id", "c")]).profile;
    story.event(&[("anonymous_id", "a"), ("anonymous_id", "b"), ("anonymous_id", "c")]);
    let last = story.event(&[("anonymous_id", "a"), ("anonymous_id", "d")]);
    assert_eq!(last.merges, [Merge { number: 3, survivor: d, absorbed: a }]);
    for absorbed in [a, b, c] {
        assert_eq!(story.get(absorbed).profile, d);
    }
    assert_eq!(story.get(d).absorbed, [b, c, a]);
    assert_eq!(last.sequence, 6);
}

#[test]
fn a_window_admits_a_new_value_once_the_older_ones_have_left_it() {
    let day = std::time::Duration::from_secs(24 * 3600);
    let types = vec![TypeRule::new("user_id", 1).max(1), TypeRule::new("anonymous_id", 2).max(2).window(day * 7)];
    let mut story = Story::new(Rules::new(types, Globals::default()).unwrap());
    let at = |days: i64| Timestamp::from_millis(days * 24 * 3600 * 1000);
    for (days, x, admitted) in
        [(0, "x1", true), (3, "x2", true), (6, "x3", false), (7, "x3", true), (8, "x4", false), (10, "x4", true)]
    {
        story.time = at(days);
        let event = story.event(&[("user_id", "u1"), ("anonymous_id", x)]);
        assert_eq!(event.refused.is_empty(), admitted, "day {days} {x}");
    }
}

#[test]
fn stricter_rules_leave_what_is_linked_and_add_nothing() {
    let mut story = story();
    let person = story.event(&[("user_id", "u1"), ("email", "a@example.com"), ("email", "b@example.com")]).profile;
    story.rules =
        Rules::new(vec![TypeRule::new("user_id", 1).max(1), TypeRule::new("email", 2).max(1)], Globals::default())
            .unwrap();
    assert_eq!(story.event(&[("email", "b@example.com")]).profile, person);
    let more = story.event(&[("user_id", "u1"), ("email", "c@example.com")]);
    assert_eq!((more.profile, more.why()), (person, vec![("email", Why::Demoted)]));
    assert_eq!(story.holds(person).len(), 3);
}

#[test]
fn a_type_that_is_no_longer_declared_keeps_its_values_and_stops_deciding() {
    let mut story = story();
    let person = story.event(&[("user_id", "u1"), ("anonymous_id", "x")]).profile;
    let all = std::mem::replace(
        &mut story.rules,
        Rules::new(vec![TypeRule::new("user_id", 1).max(1)], Globals::default()).unwrap(),
    );
    let event = story.event(&[("anonymous_id", "x"), ("user_id", "u1")]);
    assert_eq!((event.profile, event.why()), (person, vec![("anonymous_id", Why::UnknownType)]));
    assert_eq!(event.in_use(), [("user_id", "u1")]);
    // Declared again, it is as if it had never been away.
    story.rules = all;
    assert_eq!(story.event(&[("anonymous_id", "x")]).profile, person);
}

#[test]
fn an_id_that_is_taken_is_never_given_out_again() {
    let mut story = story();
    let first = story.event(&[("user_id", "u1")]).profile;
    // An erasure removes the identifier; the record under the retired id stays.
    let owner = Key::identifier("acme", "user_id", "u1");
    story.store.apply(&[Write { key: owner, value: None }]);
    let again = story.event(&[("user_id", "u1")]);
    assert!(again.created);
    assert_ne!(again.profile, first);
    assert_eq!(again.profile, tailwater_core::ProfileId::of("acme", "user_id", "u1", 1));
}

#[test]
fn a_store_that_contradicts_itself_is_an_error_not_a_new_person() {
    let mut story = story();
    let profile = story.event(&[("user_id", "u1")]).profile;
    story.store.apply(&[Write { key: Key::profile(profile), value: None }]);
    let error = story.try_decide(&[("user_id", "u1")]).unwrap_err();
    assert_eq!(error.code(), tailwater_core::code::STATE_UNREADABLE);
    assert!(error.to_string().contains(&profile.to_string()));
}

#[test]
fn workspaces_do_not_meet() {
    let rules = rules();
    let mut store = MemoryStore::default();
    let identifiers = [Identifier { kind: "user_id", value: "u1" }];
    let event = [Incoming { identifiers: &identifiers, time: Timestamp::default() }];
    let mut seen = Vec::new();
    for workspace in ["acme", "acme_stage"] {
        let batch = Resolver::new(&rules, workspace).resolve(&store, &event).unwrap();
        store.apply(&batch.writes);
        seen.push(batch.decisions[0].resolution().unwrap().clone());
    }
    assert!(seen[0].created && seen[1].created);
    assert_ne!(seen[0].profile, seen[1].profile);
}
