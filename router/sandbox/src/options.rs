//! The sandbox's limits.

use std::num::NonZeroUsize;
use std::time::Duration;

/// The limits of a [`Pool`](crate::Pool), each with the reason for its default.
#[derive(Debug, Clone)]
pub struct Options {
    /// Threads, with one isolate each. Default: the machine's cores, at most 4, because Kafka's clients need cores too.
    pub threads: NonZeroUsize,
    /// The heap of one isolate, which all transforms share that run on its thread. Default 128 MiB: a batch of 500 rows of
    /// 1 KB takes about 5. An isolate that exceeds it is replaced; until its code has unwound it may grow beyond the limit by
    /// the size of one allocation.
    pub heap_bytes_max: usize,
    /// Processor time for a batch of up to [`TRANSFORM_ROWS_MAX`](tailwater_core::limits::TRANSFORM_ROWS_MAX) rows. Default
    /// 1 s, a thousand times what an ordinary batch takes. Processor time and not wall time, so that a busy machine does
    /// not make good rows fail (where the system cannot tell, it is wall time).
    pub batch_timeout: Duration,
    /// Processor time for a single row, once a batch has failed and its rows are run one by one. Default 50 ms.
    pub row_timeout: Duration,
    /// All outputs of one row together. Default 1 MiB: a record's default limit in Kafka.
    pub output_bytes_max: usize,
    /// What is kept of the console per batch; the rest is counted. Default 8 KiB.
    pub console_bytes_max: usize,
    /// Processor time that a thread gets to return after it was stopped; then it is given up. Default 3 s: a garbage collection of a full heap
    /// with its headroom takes up to a second, and so does a built-in function over the largest text that transforms may use.
    pub stop_grace: Duration,
    /// Threads that may be stuck in built-in functions before the process should end. Each of them keeps a core busy with what others leave. The default is
    /// four for each thread of the pool, at least 16: enough for a transform's failures to be recognized and its route to be paused.
    pub threads_lost_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let threads = cores.min(4);
        Self {
            threads: NonZeroUsize::new(threads).unwrap_or(NonZeroUsize::MIN),
            heap_bytes_max: 128 * 1024 * 1024,
            batch_timeout: Duration::from_secs(1),
            row_timeout: Duration::from_millis(50),
            output_bytes_max: 1024 * 1024,
            console_bytes_max: 8 * 1024,
            stop_grace: Duration::from_secs(3),
            threads_lost_max: 16.max(threads * 4),
        }
    }
}

/// The smallest heap that an isolate starts with and still runs a batch.
pub(crate) const HEAP_BYTES_MIN: usize = 16 * 1024 * 1024;

/// Outputs that one row may make: beyond it a transform has most likely looped over the wrong thing.
pub(crate) const OUTPUTS_PER_ROW_MAX: usize = 1000;

/// Characters of an author's `_key`, which becomes part of an idempotency key.
pub(crate) const KEY_CHARACTERS_MAX: usize = 256;

/// Bytes of a transform's source.
pub(crate) const SOURCE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Rows of a batch that may hit a limit, run one by one, before the rest of the batch is given back unjudged: with the default limits
/// 500 endless loops would otherwise hold a thread for half a minute, and 500 endless allocations for much longer.
pub(crate) const STRIKES_MAX: usize = 10;

/// Jobs that wait for a thread. Callers block beyond it, so it only bounds how many threads can call at once.
pub(crate) const JOBS_MAX: usize = 1024;

/// What an isolate may grow beyond its limit while the code that hit it unwinds: V8 aborts the process when the one allocation
/// that is under way cannot be served, and a string may have up to 2^29 characters of two bytes.
pub(crate) const HEAP_HEADROOM_BYTES: usize = 1280 * 1024 * 1024;

/// Threads that a transform may cost before it is not run any more: its rows then fail without a thread, which pauses its route. A
/// single offending row costs two at first (its batch and itself), then one.
pub(crate) const THREADS_LOST_PER_TRANSFORM_MAX: u64 = 5;
