//! One person with far more events than the gate holds, and others behind them. Issue 10.

use std::cell::RefCell;
use std::rc::Rc;

use super::chance::Chance;
use super::episode::Episode;
use super::world::{Plan, World};

/// Events of the busy person: many times what the gate holds.
const EVENTS: usize = 400;

/// Rounds that the others may need. Each makes at most four steps at the vendor, so the busy person needs many more.
const ROUNDS: usize = 150;

fn episode(commit_interval: u64) -> Episode {
    let plan = Plan {
        partitions: 1,
        members: 1,
        people: 6,
        open_max: 20,
        share_max: 5,
        parked_max: 1_000,
        bytes_max: usize::MAX,
        unsettled_max: 16,
        busy: 0,
        tracked_max: 1_000,
        poll_max: 20,
        batch_max: 10,
        calls_max: 4,
        attempts_max: 3,
        commit_interval,
        open_events: usize::MAX,
        commits_fail: 0,
        faults: 0,
        merges: 0,
    };
    let world = World::new(plan, None, Chance::new(7));
    Episode::new(Rc::new(RefCell::new(world)))
}

#[test]
fn a_person_with_more_events_than_the_gate_holds_keeps_nobody_waiting() {
    let mut episode = episode(10);
    {
        let world = &mut *episode.world.borrow_mut();
        world.know_everybody();
        for _ in 0..EVENTS {
            world.event_of_kind(0, "upsert_profile");
        }
        for person in 1..6 {
            world.event(person);
        }
        world.flow_all();
    }
    for round in 0.. {
        let waiting = (1..6).find(|person| episode.world.borrow().truth.open_of(*person) > 0);
        let Some(person) = waiting else { break };
        assert!(round < ROUNDS, "person {person} still waits after {round} rounds");
        episode.calm_round();
    }
    let busy = episode.world.borrow().truth.open_of(0);
    assert!(busy > EVENTS / 2, "the busy person has only {busy} events left: this proves nothing");
    let parked = usize::try_from(episode.world.borrow().truth.parked).unwrap();
    assert_eq!(parked, EVENTS - 5, "what is beyond the share waits in state");
    episode.calm();
}

#[test]
fn a_persons_events_do_not_wait_for_commits_and_a_persons_states_do() {
    for (kind, least, most) in [("track_event", 10, 16), ("upsert_profile", 1, 1)] {
        // No commit happens unless somebody waits for one.
        let mut episode = episode(1_000_000);
        {
            let world = &mut *episode.world.borrow_mut();
            world.know_everybody();
            for _ in 0..30 {
                world.event_of_kind(0, kind);
            }
            world.flow_all();
        }
        let mut together = 0;
        for _ in 0..2_000 {
            episode.calm_round();
            together = together.max(1 + episode.world.borrow().truth.unsettled_seen);
        }
        assert!((least..=most).contains(&together), "{together} of {kind} went between two commits");
    }
}
