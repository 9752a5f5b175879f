//! The ledger of a stage: notes ends while a batch is decided, and produces them within the batch's transaction.

use tailwater_core::Coordinates;
use tailwater_core::ledger::{End, Stage, Writer};

use crate::kafka::{Error, Outgoing, Outputs};

/// Blocks of 1024 ingest offsets that a writer keeps open: 4096 blocks cover four million records in flight and take a few
/// megabytes.
const BLOCKS_MAX: usize = 4096;

/// Writes the ends that one stage of one process decides.
pub struct Ledger {
    topic: String,
    writer: Writer,
    partitions: i32,
}

impl Ledger {
    /// `output partitions` is the number of partitions of the ledger topic.
    pub fn new(topic: String, stage: Stage, output_partitions: u32) -> Self {
        Self {
            topic,
            writer: Writer::new(stage, rand::random(), BLOCKS_MAX),
            partitions: i32::try_from(output_partitions.max(1)).unwrap_or(i32::MAX),
        }
    }

    /// Notes an end; `destination` is empty where it holds for all of them.
    pub fn note(
        &mut self,
        destination: &str,
        output_partition: i32,
        place: &Coordinates<'_>,
        round: u32,
        end: End,
        reason: &str,
    ) {
        self.writer.note(destination, output_partition, place, round, end, reason);
    }

    /// Produces what was noted since the last call.
    ///
    /// # Errors
    /// The client cannot go on.
    pub fn produce(&mut self, outputs: &mut impl Outputs) -> Result<(), Error> {
        for (output_partition, key, value) in self.writer.drain() {
            let partition = output_partition.rem_euclid(self.partitions);
            outputs.send(&Outgoing::to(&self.topic).partition(partition).key(&key).value(Some(&value)))?;
        }
        Ok(())
    }

    /// The transaction was aborted, or other output partitions are served now.
    pub fn reset(&mut self) {
        self.writer.reset(rand::random());
    }
}
