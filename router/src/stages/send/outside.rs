//! What the state machine of send asks of the world: partitions, state, one transaction, the vendor, the clock.
//!
//! The machine ([`super::Session`]) decides, and asks through this seam. [`super::clients::Clients`] answers with Kafka and a
//! connector; the simulation answers with a broker and a vendor of its own, which fail in every way and at every moment. So what is
//! simulated is the very code that runs.
//!
//! Everything is asked from the one thread of the stage. Nothing here decides anything: an order, a bound or a retry that
//! lived behind this seam would be one that no simulation has seen.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tailwater_connectors::Limits;
use tailwater_core::delivery::{Delivery, Outcome, Reason, Ticket};
use tailwater_core::envelope::Merge;
use tailwater_core::ledger::End;
use tailwater_core::retry::RetryPolicy;
use tailwater_core::{Coordinates, Timestamp};

use crate::kafka::Record;
use crate::kafka::consumer::{Partition, Polled, Start};
use crate::stages::Error;
use crate::stages::shared::held::fences::FencedPartitions;
use crate::state::Map;

/// What a reload may change.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub retry: RetryPolicy,
    pub skip_unchanged: bool,
}

/// What comes back from a call.
pub(super) enum Answer {
    /// What became of some of a call's deliveries, by their index in it; the others are on their way still.
    Outcome {
        call: u64,
        indexes: Vec<usize>,
        outcome: Outcome,
    },
    /// A call has ended. If it has panicked, what it has not reported has no outcome.
    Ended {
        call: u64,
        panicked: bool,
    },
    Probed {
        works: bool,
    },
}

/// The world, as the stage's thread sees it. An error ends the session: nothing of the open transaction has happened then, and
/// everything is read again from the last commit.
pub(super) trait Outside: FencedPartitions {
    type State: Map;

    // === The clock, and chance ===

    /// The wall clock, which can be stepped.
    fn now(&self) -> Timestamp;

    /// A clock that is never stepped, for what has to wait: when a delivery may be tried again.
    fn steady(&self) -> Timestamp;

    /// The same for what is asked within the process only.
    fn instant(&self) -> Instant;

    /// Between 0 and 1, for the jitter of retries.
    fn chance(&mut self) -> f64;

    /// The loop still turns. Called wherever it may take long.
    fn alive(&self);

    /// What was reloaded since the last call, if anything was; the next calls use its credentials and limits.
    fn reload(&mut self) -> Result<Option<Settings>, Error>;

    // === Partitions ===

    /// Takes what is there, waiting up to `wait` for the first of it.
    fn poll(&mut self, wait: Duration) -> Result<Polled, Error>;

    /// The partitions that were taken over and not given back.
    fn assignment(&self) -> Vec<Partition>;

    /// Stops or goes on reading partitions.
    fn pause(&mut self, partitions: &[Partition], pause: bool) -> Result<(), Error>;

    /// Where the group has left off.
    fn starts(&mut self, partitions: &[Partition]) -> Result<Vec<Start>, Error>;

    /// The partitions are read from here on, and calls for them may be made.
    fn assigned(&mut self, starts: &[Start]) -> Result<(), Error>;

    /// Nothing new is sent for these partitions from now on: not even by calls that run already.
    fn renounce(&mut self, partitions: &[Partition]);

    /// The partitions are given back.
    fn revoked(&mut self, partitions: &[Partition]) -> Result<(), Error>;

    /// The number of partitions has changed: how much of the account's rate limit belongs to this process.
    fn share(&mut self);

    // === State and the open transaction ===

    fn state(&self) -> &Self::State;

    fn state_mut(&mut self) -> &mut Self::State;

    /// Restores the state of partitions. No transaction may be open: it can take longer than one may.
    fn restore(&mut self, partitions: &[i32]) -> Result<(), Error>;

    /// Forgets the state of partitions.
    fn release(&mut self, partitions: &[i32]);

    /// Notes an end in the ledger.
    fn end(&mut self, partition: i32, place: &Coordinates<'_>, round: u32, end: End, reason: &str);

    /// The ledger begins anew: other partitions are served now.
    fn forget_ends(&mut self);

    /// Writes an attempt, or the decision not to make one, to the history.
    fn history(&mut self, record: &Record, delivery: &Delivery, outcome: &Outcome) -> Result<(), Error>;

    fn dead_letter(&mut self, record: &Record, reason: &Reason, attempts: u32) -> Result<(), Error>;

    /// Writes to the survivor's partition that the fence of a merge is passed; `memory` is a part of what was delivered to the absorbed
    /// profile.
    fn pass_fence(&mut self, merge: Merge, memory: &[u8]) -> Result<(), Error>;

    /// Writes the fence of a merge to the absorbed profile's partition once more.
    fn ask_for_fence(&mut self, merge: Merge) -> Result<(), Error>;

    /// Commits all of it together with the next offset to read of every partition.
    fn commit(&mut self, offsets: &BTreeMap<i32, i64>) -> Result<(), Error>;

    // === The vendor ===

    fn limits(&self) -> Limits;

    /// Starts a call. [`Answer::Outcome`] comes for each delivery as soon as it is known, and [`Answer::Ended`] whatever happens.
    fn deliver(&mut self, call: u64, deliveries: Vec<Delivery>, partitions: Vec<i32>);

    /// Starts a call that asks what became of a job; it answers as one of `deliver` does.
    fn confirm(&mut self, call: u64, ticket: &Ticket, members: Vec<Delivery>, partitions: Vec<i32>);

    /// Asks whether the credentials work; [`Answer::Probed`] comes later.
    fn probe(&mut self);

    /// The next answer, waiting up to `wait` for it.
    fn answer(&mut self, wait: Duration) -> Option<Answer>;
}
