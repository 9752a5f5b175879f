//! A small history for each rule: one that keeps it and one that breaks it.

mod random;

use super::*;

/// A history in the making; times are in seconds from its start.
struct History {
    start: Instant,
    produced: Vec<Produced>,
    arrivals: Vec<Arrival>,
    rejected: Vec<Item>,
    held: HashSet<(Source, u32, u32)>,
    unaccounted: u64,
    disturbances: Vec<Disturbance>,
}

const PERSON: u32 = 7;
const CUSTOMER: &[u32] = &[0];

impl History {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            produced: Vec::new(),
            arrivals: Vec::new(),
            rejected: Vec::new(),
            held: HashSet::new(),
            unaccounted: 0,
            disturbances: Vec::new(),
        }
    }

    /// Rows that name the customer.
    fn of(seqs: impl IntoIterator<Item = u32>) -> Self {
        let mut history = Self::new();
        seqs.into_iter().for_each(|seq| history.produce(seq, CUSTOMER));
        history
    }

    fn produce(&mut self, seq: u32, nodes: &[u32]) {
        self.produced.push(Produced {
            person: PERSON,
            seq,
            source: Source::Activity,
            component_event: ComponentEvent::of(nodes),
            repeated: false,
            tracks: false,
        });
    }

    fn at(&self, seconds: f64) -> Instant {
        self.start + Duration::from_secs_f64(seconds)
    }

    /// An upsert that succeeds at once.
    fn arrive(&mut self, seq: u32, seconds: f64) -> &mut Arrival {
        self.arrive_as(Kind::Activity, seq, seconds)
    }

    fn arrive_as(&mut self, kind: Kind, seq: u32, seconds: f64) -> &mut Arrival {
        let at = self.at(seconds);
        let place = self.arrivals.len();
        self.arrivals.push(Arrival {
            at,
            item: Item { kind, person: PERSON, seq },
            request: place as u64 + 1,
            answer: Answer::Success,
            answered: Some(at),
            took_effect: true,
            effect_after: Some(place + 1),
            refused: false,
            key: None,
            stray: None,
        });
        self.arrivals.last_mut().unwrap()
    }

    fn fail(&mut self, seq: u32, seconds: f64, answer: Answer) {
        let arrival = self.arrive(seq, seconds);
        (arrival.answer, arrival.took_effect, arrival.effect_after) = (answer, false, None);
    }

    fn disturb(&mut self, from: f64, until: f64) {
        let (from, until) = (self.at(from), self.at(until));
        self.disturbances.push(Disturbance { from, until, what: "a kill".to_owned() });
    }

    fn check(&self) -> Verdict {
        check_with(
            Settings { start: Some(self.start), ..Settings::default() },
            &self.produced,
            &self.arrivals,
            &self.rejected,
            &self.held,
            self.unaccounted,
            &self.disturbances,
        )
    }

    /// The counts: lost, duplicated, reordered, unseen, strays, ambiguous.
    fn counts(&self) -> [usize; 6] {
        counts(&self.check())
    }
}

fn counts(verdict: &Verdict) -> [usize; 6] {
    [
        verdict.lost.len(),
        verdict.duplicated.len(),
        verdict.reordered.len(),
        verdict.unseen.len(),
        verdict.strays.len(),
        verdict.ambiguous,
    ]
}

const CLEAN: [usize; 6] = [0; 6];
const LOST: [usize; 6] = [1, 0, 0, 0, 0, 0];
const DUPLICATED: [usize; 6] = [0, 1, 0, 0, 0, 0];
const REORDERED: [usize; 6] = [0, 0, 1, 0, 0, 0];
const UNSEEN: [usize; 6] = [0, 0, 0, 1, 0, 0];
const STRAY: [usize; 6] = [0, 0, 0, 0, 1, 0];
const AMBIGUOUS: [usize; 6] = [0, 0, 0, 0, 0, 1];

#[test]
fn a_history_in_which_everything_came_once_and_in_order_is_clean() {
    let mut history = History::of([1, 2]);
    history.produced.push(history.produced[1].clone());
    history.produced[1].repeated = true;
    history.produced[0].tracks = true;
    history.arrive(1, 1.0);
    history.arrive(2, 2.0);
    history.arrive_as(Kind::Track, 1, 3.0);
    let verdict = history.check();
    assert_eq!(counts(&verdict), CLEAN);
    assert!(verdict.is_clean());
    assert_eq!((verdict.arrivals, verdict.expected), (3, 3));
}

#[test]
fn what_never_arrived_is_lost() {
    let mut history = History::of([1, 2]);
    history.arrive(2, 1.0);
    assert_eq!(history.counts(), LOST);
    assert_eq!(history.check().lost[0].text, "person 7 activity 1: it never arrived");
}

#[test]
fn an_event_of_a_row_is_expected_beside_its_upsert() {
    let mut history = History::of([1]);
    history.produced[0].tracks = true;
    history.arrive(1, 1.0);
    assert_eq!(history.counts(), LOST);
}

#[test]
fn what_arrived_without_effect_is_lost() {
    let mut history = History::of([1]);
    history.fail(1, 1.0, Answer::Failure(500));
    assert_eq!(
        history.check().lost[0].text,
        "person 7 activity 1: none of its 1 attempts took effect, the last arrived at 1.000 s (request 1, answered 500 at 1.000 s, no effect)"
    );
}

#[test]
fn what_was_rejected_is_not_lost() {
    let mut history = History::of([1]);
    history.fail(1, 1.0, Answer::Failure(400));
    history.arrivals[0].refused = true;
    history.rejected.push(history.arrivals[0].item);
    assert_eq!(history.counts(), CLEAN);
}

#[test]
fn what_was_rejected_does_not_come_again() {
    let mut history = History::of([1]);
    history.fail(1, 1.0, Answer::Failure(400));
    history.arrivals[0].refused = true;
    history.rejected.push(history.arrivals[0].item);
    history.arrive(1, 2.0);
    assert_eq!(history.counts(), DUPLICATED);
    history.disturb(1.5, 1.5);
    assert_eq!(history.counts(), AMBIGUOUS);
}

#[test]
fn a_device_that_nobody_linked_may_be_held() {
    let mut history = History::new();
    history.produce(1, &[1]);
    history.held.insert((Source::Activity, PERSON, 1));
    assert_eq!(history.counts(), CLEAN);
    assert_eq!(history.check().expected, 0);
}

#[test]
fn a_device_that_was_linked_may_not_be_held() {
    let mut history = History::new();
    history.produce(1, &[1]);
    history.produce(2, &[0, 1]);
    history.arrive(2, 1.0);
    history.held.insert((Source::Activity, PERSON, 1));
    assert_eq!(history.counts(), UNSEEN);
}

#[test]
fn what_the_ledger_holds_does_not_arrive() {
    let mut history = History::new();
    history.produce(1, &[1]);
    history.held.insert((Source::Activity, PERSON, 1));
    history.arrive(1, 1.0);
    assert_eq!(history.counts(), UNSEEN);
}

#[test]
fn what_the_ledger_cannot_account_for_is_unseen() {
    let history = History { unaccounted: 3, ..History::new() };
    assert_eq!(history.counts(), UNSEEN);
    assert_eq!(history.check().unseen[0].text, "3 deliveries have no end in the ledger");
}

#[test]
fn what_nobody_produced_is_a_stray() {
    let mut history = History::of([1]);
    history.arrive(1, 1.0);
    history.arrive(2, 2.0);
    assert_eq!(history.counts(), STRAY);
}

#[test]
fn what_is_about_the_wrong_person_is_a_stray_and_no_arrival() {
    let mut history = History::of([1]);
    history.arrive(1, 1.0).stray = Some("its email is another one".into());
    assert_eq!(history.counts(), [1, 0, 0, 0, 1, 0]);
}

#[test]
fn an_event_without_its_row_is_a_stray() {
    let mut history = History::of([1]);
    history.arrive(1, 1.0);
    history.arrive_as(Kind::Track, 1, 2.0);
    assert_eq!(history.counts(), STRAY);
}

#[test]
fn an_earlier_row_behind_a_later_one_is_reordered() {
    let mut history = History::of([1, 2]);
    history.arrive(2, 1.0);
    history.arrive(1, 2.0);
    assert_eq!(history.counts(), REORDERED);
    assert_eq!(
        history.check().reordered[0].text,
        "person 7 activity 1: it arrived at 2.000 s (request 2, answered at 2.000 s), behind 2 of the same person, which had arrived \
         at 1.000 s (request 1, answered at 1.000 s)"
    );
}

#[test]
fn a_repeat_behind_a_later_row_is_reordered_whatever_was_disturbed() {
    let mut history = History::of([1, 2]);
    history.arrive(1, 1.0);
    history.arrive(2, 1.1);
    history.arrive(1, 2.0);
    history.disturb(0.0, 3.0);
    assert_eq!(history.counts(), [0, 0, 1, 0, 0, 1]);
    assert!(history.check().reordered[0].text.contains("it arrived again at 2.000 s"));
}

#[test]
fn a_repeat_of_the_last_one_after_a_kill_is_ambiguous_only() {
    let mut history = History::of([1, 2, 3]);
    history.arrive(1, 1.0);
    history.arrive(2, 1.1);
    history.disturb(1.5, 1.5);
    history.arrive(2, 2.0);
    history.arrive(3, 3.0);
    assert_eq!(history.counts(), AMBIGUOUS);
}

#[test]
fn events_that_a_kill_repeats_in_their_order_are_ambiguous_only() {
    // Issue 10: a few events of a person may go before what became of the ones before is committed.
    let mut history = History::of([1, 2]);
    for row in &mut history.produced {
        row.tracks = true;
    }
    history.arrive(1, 0.1);
    history.arrive(2, 0.2);
    for (seq, seconds) in [(1, 1.0), (2, 1.1), (1, 2.0), (2, 2.1)] {
        history.arrive_as(Kind::Track, seq, seconds).key = Some(u64::from(seq));
    }
    history.disturb(1.2, 1.2);
    assert_eq!(history.counts(), [0, 0, 0, 0, 0, 2]);
    // For the first time they come in their order all the same.
    let mut history = History::of([1, 2]);
    for row in &mut history.produced {
        row.tracks = true;
    }
    history.arrive(1, 0.1);
    history.arrive(2, 0.2);
    history.arrive_as(Kind::Track, 2, 1.0).key = Some(2);
    history.arrive_as(Kind::Track, 1, 2.0).key = Some(1);
    assert_eq!(history.counts(), [0, 0, 1, 0, 0, 0]);
}

#[test]
fn two_sides_have_no_order_before_their_merge() {
    let mut history = History::new();
    history.produce(1, &[1]);
    history.produce(2, CUSTOMER);
    history.produce(3, &[0, 1]);
    for (seq, seconds) in [(2, 1.0), (1, 2.0), (3, 3.0)] {
        history.arrive(seq, seconds);
    }
    assert_eq!(history.counts(), CLEAN);
}

#[test]
fn a_merge_comes_after_both_of_its_sides() {
    let mut history = History::new();
    history.produce(1, &[1]);
    history.produce(2, CUSTOMER);
    history.produce(3, &[0, 1]);
    for (seq, seconds) in [(2, 1.0), (3, 2.0), (1, 3.0)] {
        history.arrive(seq, seconds);
    }
    assert_eq!(history.counts(), REORDERED);
}

#[test]
fn kinds_have_no_order_between_them() {
    let mut history = History::of([1, 2]);
    history.produced.iter_mut().for_each(|row| row.tracks = true);
    history.arrive_as(Kind::Track, 1, 1.0);
    history.arrive_as(Kind::Track, 2, 1.0);
    history.arrive(1, 2.0);
    history.arrive(2, 2.0);
    assert_eq!(history.counts(), CLEAN);
}

#[test]
fn an_attempt_that_failed_is_no_arrival_for_the_order() {
    for (answer, expected) in [(Answer::Failure(500), CLEAN), (Answer::Broken, AMBIGUOUS)] {
        let mut history = History::of([1, 2]);
        history.fail(2, 1.0, answer);
        history.arrive(1, 2.0);
        history.arrive(2, 3.0);
        assert_eq!(history.counts(), expected, "{answer:?}");
    }
}

#[test]
fn an_attempt_that_broke_with_effect_is_an_arrival_for_the_order() {
    let mut history = History::of([1, 2]);
    history.arrive(2, 1.0).answer = Answer::Broken;
    history.arrive(1, 2.0);
    assert_eq!(history.counts(), REORDERED);
}

#[test]
fn a_row_that_comes_before_the_job_of_an_earlier_one_is_over_is_reordered() {
    let mut history = History::of([1, 2]);
    history.arrive(1, 1.0).effect_after = Some(2);
    history.arrive(2, 1.5);
    assert_eq!(history.counts(), REORDERED);
    assert!(history.check().reordered[0].text.contains("before the job was over with 1"));
}

#[test]
fn two_rows_of_a_person_in_one_job_are_reordered() {
    let mut history = History::of([1, 2]);
    history.arrive(1, 1.0).effect_after = Some(2);
    let second = history.arrive(2, 1.0);
    (second.request, second.effect_after) = (1, Some(2));
    assert_eq!(history.counts(), REORDERED);
}

#[test]
fn a_row_that_comes_after_the_job_of_an_earlier_one_is_in_order() {
    let mut history = History::of([1, 2]);
    history.arrive(1, 1.0).effect_after = Some(1);
    history.arrive(2, 1.5);
    assert_eq!(history.counts(), CLEAN);
}

#[test]
fn a_repeat_for_no_reason_is_duplicated() {
    let mut history = History::of([1]);
    history.arrive(1, 1.0);
    history.arrive(1, 2.0);
    assert_eq!(history.counts(), DUPLICATED);
    assert_eq!(
        history.check().duplicated[0].text,
        "person 7 activity 1: it arrived at 1.000 s (request 1, answered at 1.000 s) and again at 2.000 s (request 2, answered at \
         2.000 s), for no reason"
    );
}

#[test]
fn a_repeat_of_an_attempt_that_the_sender_was_not_told_of_is_ambiguous() {
    for answer in [Answer::None, Answer::Broken, Answer::Failure(503)] {
        let mut history = History::of([1]);
        let attempt = history.arrive(1, 1.0);
        (attempt.answer, attempt.took_effect) = (answer, true);
        history.arrive(1, 2.0);
        assert_eq!(history.counts(), AMBIGUOUS, "{answer:?}");
        assert_eq!(history.check().asked, 0, "{answer:?}");
    }
}

#[test]
fn a_repeat_that_the_vendor_asked_for_is_counted_apart() {
    for answer in [Answer::Success, Answer::Failure(429), Answer::Failure(503)] {
        let mut history = History::of([1]);
        history.fail(1, 1.0, answer);
        history.arrive(1, 2.0);
        assert_eq!(history.counts(), CLEAN, "{answer:?}");
        assert_eq!(history.check().asked, 1, "{answer:?}");
    }
}

#[test]
fn a_disturbance_excuses_what_it_may_have_touched_and_nothing_else() {
    // The attempt arrives at 10 and is answered at 11; three seconds are granted before and after.
    let cases = [
        ((10.2, 10.4), AMBIGUOUS),
        ((9.0, 20.0), AMBIGUOUS),
        ((13.9, 15.0), AMBIGUOUS),
        ((14.1, 15.0), DUPLICATED),
        ((6.0, 7.1), AMBIGUOUS),
        ((6.0, 6.9), DUPLICATED),
    ];
    for ((from, until), expected) in cases {
        let mut history = History::of([1]);
        let answered = history.at(11.0);
        history.arrive(1, 10.0).answered = Some(answered);
        history.arrive(1, 30.0);
        history.disturb(0.0, 1.0);
        history.disturb(from, until);
        history.disturb(40.0, 41.0);
        assert_eq!(history.counts(), expected, "{from} to {until}");
    }
}

#[test]
fn a_long_disturbance_excuses_behind_the_end_of_a_short_one_within_it() {
    let mut history = History::of([1]);
    history.arrive(1, 50.0);
    history.arrive(1, 60.0);
    history.disturb(0.0, 100.0);
    history.disturb(1.0, 2.0);
    assert_eq!(history.counts(), AMBIGUOUS);
}

#[test]
fn a_repeat_under_another_key_is_duplicated_whatever_was_disturbed() {
    let mut history = History::of([1]);
    history.produced[0].tracks = true;
    history.arrive(1, 0.5);
    history.arrive_as(Kind::Track, 1, 1.0).key = Some(1);
    history.arrive_as(Kind::Track, 1, 2.0).key = Some(2);
    history.disturb(0.0, 3.0);
    assert_eq!(history.counts(), DUPLICATED);
}

#[test]
fn people_do_not_touch_each_other() {
    let mut history = History::of([1, 2]);
    history.produced[1].person = 8;
    history.arrive(2, 1.0).item.person = 8;
    history.arrive(1, 2.0);
    assert_eq!(history.counts(), CLEAN);
}

#[test]
fn the_report_tells_the_counts_and_the_first_findings() {
    let mut history = History::of(1..=12);
    history.arrive(12, 1.0);
    let report = history.check().to_string();
    let lines: Vec<&str> = report.lines().collect();
    assert_eq!(
        lines[0],
        "11 lost, 0 duplicated, 0 reordered, 0 unseen, 0 strays, 0 ambiguous repeats (0.0 %); 0 repeats that the \
         vendor asked for; 1 arrivals for 12 expected"
    );
    assert_eq!(lines.len(), 12);
    assert_eq!(lines[1], "  lost: person 7 activity 1: it never arrived");
    assert_eq!(lines[11], "  lost: and 1 more");
}
