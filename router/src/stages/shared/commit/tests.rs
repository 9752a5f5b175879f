//! The order of the steps, with and without transactions, over a producer that writes them down.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tailwater_core::ledger::Stage as LedgerStage;

use super::*;

/// What reaches the broker, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Output,
    Ledger,
    /// A piece of the batch's state.
    Piece,
    State,
    Acknowledged,
    Owned,
    Offsets(i64),
}

type Tape = Rc<RefCell<Vec<Step>>>;

struct Recorder {
    transactional: bool,
    tape: Tape,
}

impl Outputs for Recorder {
    fn send(&mut self, outgoing: &Outgoing<'_>) -> Result<(), kafka::Error> {
        let key = outgoing.key.unwrap_or_default();
        self.tape.borrow_mut().push(match outgoing.topic {
            "t.state" if key.starts_with(b"\0redo") => Step::Piece,
            "t.state" => Step::State,
            "t.ledger" => Step::Ledger,
            _ => Step::Output,
        });
        Ok(())
    }
}

impl Log for Recorder {
    fn is_transactional(&self) -> bool {
        self.transactional
    }

    fn send_tracked(&mut self, outgoing: &Outgoing<'_>) -> Result<(), kafka::Error> {
        self.send(outgoing)
    }

    fn send_noted(&mut self, outgoing: &Outgoing<'_>) -> Result<(), kafka::Error> {
        self.send(outgoing)
    }

    fn end_of(&self, _: &str, _: i32) -> Option<i64> {
        None
    }

    fn offset_of(&self, _: &str, _: i32) -> Option<i64> {
        None
    }

    fn acknowledged(&mut self) -> Result<(), kafka::Error> {
        self.tape.borrow_mut().push(Step::Acknowledged);
        Ok(())
    }

    fn commit(&mut self, offsets: &TopicPartitionList, _: &impl Group) -> Result<(), kafka::Error> {
        let Some(Offset::Offset(next)) =
            offsets.elements().first().map(rdkafka::topic_partition_list::TopicPartitionListElem::offset)
        else {
            panic!("no offset")
        };
        self.tape.borrow_mut().push(Step::Offsets(next));
        Ok(())
    }

    fn commit_without_offsets(&mut self) -> Result<(), kafka::Error> {
        self.acknowledged()
    }
}

struct Members {
    tape: Tape,
    owned: Cell<bool>,
}

impl Group for Members {
    fn group_metadata(&self) -> Result<rdkafka::consumer::ConsumerGroupMetadata, kafka::Error> {
        Err(kafka::Error::Aborted { during: "test", detail: String::new() })
    }

    fn still_owned(&self) -> Result<(), kafka::Error> {
        self.tape.borrow_mut().push(Step::Owned);
        if self.owned.get() { Ok(()) } else { self.group_metadata().map(drop) }
    }

    fn commit(&self, _: &TopicPartitionList) -> Result<(), kafka::Error> {
        Ok(())
    }
}

struct Scene {
    unit: UnitOfWork<Recorder>,
    members: Members,
    tape: Tape,
    _folder: tempfile::TempDir,
}

fn scene(transactional: bool) -> Scene {
    let tape = Tape::default();
    let (store, folder) = Store::without_broker(&[0]);
    let ledger = Ledger::new("t.ledger".into(), LedgerStage::Route, 1);
    let log = Recorder { transactional, tape: Rc::clone(&tape) };
    let members = Members { tape: Rc::clone(&tape), owned: Cell::new(true) };
    let unit = UnitOfWork::new(Stage::Route, log, store, Some(ledger));
    Scene { unit, members, tape, _folder: folder }
}

impl Scene {
    fn write(&mut self) {
        // State first: the order in which a stage writes must not matter.
        self.unit.store_mut().put(0, b"a".to_vec(), Some(b"1".to_vec())).unwrap();
        self.unit.send(&Outgoing::to("t.out")).unwrap();
        let place = Coordinates { topic: "t.ingest", partition: 0, offset: 7 };
        self.unit.note("k", 0, &place, 0, End::Routed, "");
    }

    fn commit(&mut self) -> Result<(), Error> {
        self.unit.commit([("t.in", 0, 8)], &self.members)
    }

    fn steps(&self) -> Vec<Step> {
        std::mem::take(&mut self.tape.borrow_mut())
    }
}

#[test]
fn a_transaction_holds_everything_and_waits_once() {
    let mut scene = scene(true);
    scene.write();
    scene.commit().unwrap();
    // State twice: the first write of a partition's life names it.
    let steps = [Step::Output, Step::Ledger, Step::State, Step::State, Step::Acknowledged, Step::Offsets(8)];
    assert_eq!(scene.steps(), steps);
    assert_eq!(scene.unit.store().get(0, b"a").unwrap().as_deref(), Some(&b"1"[..]));
}

// Issue 10, A13, and issue 11: state must not be durable before outputs are acknowledged.
#[test]
fn without_transactions_every_step_is_acknowledged_before_the_next() {
    let mut scene = scene(false);
    scene.write();
    scene.commit().unwrap();
    let steps = scene.steps();
    let kinds = [Step::Output, Step::Ledger, Step::Acknowledged, Step::Owned, Step::Piece, Step::Acknowledged];
    assert_eq!(steps[..6], kinds);
    assert_eq!(steps[6..], [Step::State, Step::State, Step::Acknowledged, Step::Offsets(8)]);
    // Wherever it is killed, and whatever of the unacknowledged is safe all the same: what is safe rests on what was acknowledged.
    for killed in 0..=steps.len() {
        let before = &steps[..killed];
        let acknowledged = before.iter().rposition(|step| *step == Step::Acknowledged).unwrap_or(0);
        let safe = |step: &Step| steps.iter().rposition(|one| one == step).is_some_and(|last| last < acknowledged);
        if before.contains(&Step::Piece) {
            assert!(safe(&Step::Output) && safe(&Step::Ledger), "killed at {killed}: state without its outputs");
        }
        if before.contains(&Step::State) {
            assert!(safe(&Step::Piece), "killed at {killed}: half of the batch's state");
        }
        if before.contains(&Step::Offsets(8)) {
            assert!(safe(&Step::State), "killed at {killed}: offsets without their state");
        }
    }
}

#[test]
fn a_process_that_owns_the_partitions_no_more_writes_no_state() {
    let mut scene = scene(false);
    scene.members.owned.set(false);
    scene.write();
    assert!(scene.commit().is_err());
    let steps = scene.steps();
    assert!(!steps.iter().any(|step| matches!(step, Step::Piece | Step::State | Step::Offsets(_))), "{steps:?}");
    assert_eq!(scene.unit.store().get(0, b"b").unwrap(), None);
}

#[test]
fn offsets_alone_are_committed_without_a_look_at_the_state() {
    for transactional in [true, false] {
        let mut scene = scene(transactional);
        scene.commit().unwrap();
        assert_eq!(scene.steps(), [Step::Acknowledged, Step::Offsets(8)]);
    }
}
