//! Named maxima that several stages share, each with the reason for its size.

/// A vendor's or a transform's message in a dead letter, in bytes. Headers count towards `message.max.bytes`, so a long text
/// could keep a record from reaching its dead-letter topic.
pub const REASON_BYTES_MAX: usize = 4096;

/// Records that a stage takes from Kafka at once. Large enough that a transaction's cost is spread thin, small enough
/// that a batch of 1 KB rows stays within a few megabytes.
pub const BATCH_RECORDS_MAX: usize = 5_000;

/// Bytes that a stage takes from Kafka at once, whatever the number of records.
pub const BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Rows that cross into V8 at once: the time limit covers a whole batch, so a longer one would make it loose.
pub const TRANSFORM_ROWS_MAX: usize = 500;

/// Deliveries that one destination keeps open at once; beyond it the partitions wait.
pub const DELIVERIES_OPEN_MAX: usize = 20_000;

/// Bytes of all deliveries that one destination keeps open at once: a record may have a megabyte, and 20,000 of those would be far
/// more than a process has.
pub const DELIVERIES_OPEN_BYTES_MAX: usize = 128 * 1024 * 1024;

/// Deliveries of one person among them. The rest of that person's waits in state, so that one person with very many keeps nobody from
/// being read. One is in flight at a time, so a few dozen bridge the time until more are taken from state.
pub const DELIVERIES_OPEN_PER_PERSON_MAX: usize = 64;

/// Deliveries that wait in state only for that reason: some hundred megabytes of disk. Beyond it the partitions wait.
pub const DELIVERIES_PARKED_MAX: u64 = 500_000;

/// Events of one person that were answered and are not committed: a crash repeats them, in order and with their keys. As many as a quick
/// vendor answers within a slow commit.
pub const DELIVERIES_UNSETTLED_MAX: usize = 16;

/// Offsets that one partition keeps in its tracker, finished ones behind an open one included: 2 MB of memory, and what would be read
/// again after a crash. One slow person may let this many others go by before the partition waits.
pub const OFFSETS_TRACKED_MAX: usize = 262_144;

/// How often a dead letter may be replayed before it needs `--force`: poison must not loop.
pub const REPLAYS_MAX: u32 = 5;
