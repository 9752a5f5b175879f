//! The commit of a batch: the one place that knows in which order outputs, ledger, state and offsets become safe.
//!
//! A stage writes its outputs, its ledger and its state into a [`UnitOfWork`] and commits them with the offsets of what it read. With
//! transactions all of it happens at once, so the order within does not matter. A broker without transactions has to be told the order:
//!
//! 1. outputs and ledger are acknowledged, and the partitions still belong to this process;
//! 2. the state of the batch is acknowledged as one piece, which the next owner applies whole or not at all;
//! 3. the state is acknowledged under its keys;
//! 4. the offsets are committed.
//!
//! So state never says that something was done which is not in Kafka, and is never read half-written. A process that is killed between
//! two steps repeats the batch: at least once. The local disk follows at the very end, and only Kafka counts.
//!
//! The failpoints stand between the steps and add no wait of their own: what they find acknowledged is acknowledged in production too.

use rdkafka::Offset;
use rdkafka::topic_partition_list::TopicPartitionList;
use tailwater_core::Coordinates;
use tailwater_core::ledger::End;

use super::ledger::Ledger;
use crate::failpoint;
use crate::kafka::{self, Group, Log, Outgoing, Outputs, Producer};
use crate::stages::Error;
use crate::state::Store;

/// Whose batches are committed: names the failpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Source,
    Resolve,
    Route,
    Send,
}

/// The next offset to read of a partition.
pub type Next<'a> = (&'a str, i32, i64);

/// The open batch of a stage: what it has written, and how that is committed. After an error it is dropped with its stage's session;
/// nothing of the batch counts then, and everything is read again from the last commit.
pub struct UnitOfWork<L = Producer> {
    stage: Stage,
    log: L,
    store: Store,
    /// A source writes none: resolve counts what is in its topic.
    ledger: Option<Ledger>,
}

impl<L: Log> UnitOfWork<L> {
    pub const fn new(stage: Stage, log: L, store: Store, ledger: Option<Ledger>) -> Self {
        Self { stage, log, store, ledger }
    }

    pub fn is_transactional(&self) -> bool {
        self.log.is_transactional()
    }

    pub const fn store(&self) -> &Store {
        &self.store
    }

    pub const fn store_mut(&mut self) -> &mut Store {
        &mut self.store
    }

    /// Notes what became of a record; see [`Ledger::note`].
    pub fn note(
        &mut self,
        destination: &str,
        partition: i32,
        place: &Coordinates<'_>,
        round: u32,
        end: End,
        reason: &str,
    ) {
        if let Some(ledger) = &mut self.ledger {
            ledger.note(destination, partition, place, round, end, reason);
        }
    }

    /// Other partitions are served from now on: the ledger begins with empty blocks.
    pub fn reset_ledger(&mut self) {
        if let Some(ledger) = &mut self.ledger {
            ledger.reset();
        }
    }

    /// Commits what was written together with `offsets`. An offset has to travel with every commit, moved or not: it is what makes the
    /// broker refuse a process whose partitions, or whose lease, have moved on.
    ///
    /// # Errors
    /// Nothing of the batch counts; it is read again.
    pub fn commit<'a>(&mut self, offsets: impl IntoIterator<Item = Next<'a>>, group: &impl Group) -> Result<(), Error> {
        let offsets = list(offsets)?;
        if let Some(ledger) = &mut self.ledger {
            ledger.produce(&mut self.log)?;
        }
        self.write_state(group)?;
        self.log.acknowledged()?;
        produced(self.stage);
        self.log.commit(&offsets, group)?;
        committed(self.stage);
        Ok(self.store.committed(&self.log)?)
    }

    fn write_state(&mut self, group: &impl Group) -> Result<(), Error> {
        if !self.store.is_dirty() {
            return Ok(());
        }
        let whole = !self.log.is_transactional();
        if whole {
            self.log.acknowledged()?;
            // Nothing else fences this process.
            group.still_owned()?;
        }
        failpoint::hit("state.changelog");
        let batch = self.store.batch();
        if self.store.finish(&mut self.log)? && whole {
            // The pieces that hold them are about to be replaced.
            self.log.acknowledged()?;
        }
        if whole {
            self.store.write_whole(&mut self.log, &batch)?;
            self.log.acknowledged()?;
            failpoint::hit("state.promised");
        }
        Ok(self.store.write_keys(&mut self.log, &batch)?)
    }

    /// Commits outputs alone, before any state was written: what others must find before the first batch. What a crash has left
    /// unfinished waits for the first batch.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub fn commit_outputs(&mut self) -> Result<(), Error> {
        debug_assert!(!self.store.has_written(), "state needs offsets that fence its writer");
        Ok(self.log.commit_without_offsets()?)
    }
}

impl<L: Log> Outputs for UnitOfWork<L> {
    fn send(&mut self, outgoing: &Outgoing<'_>) -> Result<(), kafka::Error> {
        self.log.send(outgoing)
    }
}

fn list<'a>(offsets: impl IntoIterator<Item = Next<'a>>) -> Result<TopicPartitionList, kafka::Error> {
    let mut list = TopicPartitionList::new();
    for (topic, partition, offset) in offsets {
        list.add_partition_offset(topic, partition, Offset::Offset(offset))
            .map_err(|source| kafka::Error::Client { during: "name an offset", source })?;
    }
    Ok(list)
}

fn produced(stage: Stage) {
    match stage {
        Stage::Source => failpoint::hit("source.produced"),
        Stage::Resolve => failpoint::hit("resolve.produced"),
        Stage::Route => failpoint::hit("route.produced"),
        Stage::Send => failpoint::hit("send.produced"),
    }
}

fn committed(stage: Stage) {
    match stage {
        Stage::Source => failpoint::hit("source.committed"),
        Stage::Resolve => failpoint::hit("resolve.committed"),
        Stage::Route => failpoint::hit("route.committed"),
        Stage::Send => failpoint::hit("send.committed"),
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod without_transactions;
