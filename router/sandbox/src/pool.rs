//! The pool of threads and the handle of a transform.

use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tailwater_core::limits::TRANSFORM_ROWS_MAX;

use crate::batch::{Batch, BatchReport, RowResult, Timing};
use crate::engine::{Chunk, Engine};
use crate::error::{Error, LoadError, LoadErrorKind};
use crate::lent::Lent;
use crate::options::{HEAP_BYTES_MIN, Options, SOURCE_BYTES_MAX};
use crate::platform;
use crate::queue::{Next, Queue};
use crate::watchdog::{Watch, Watchdog};

/// A batch is not cut into chunks smaller than this to keep all threads busy: below it, the call costs more than it brings.
const CHUNK_ROWS_MIN: usize = 100;

/// The stack of a worker's thread, well above the limit that V8 keeps for JavaScript (`--stack-size`): native code that was
/// called at that depth needs some, too.
const STACK_BYTES: usize = 8 * 1024 * 1024;

/// Threads that run transforms. Dropping it stops them; what still waits comes back as not run.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Stopped after the workers: until then somebody must be able to end a loop.
    watchdog: Option<Watchdog>,
}

struct Shared {
    queue: Queue<Job>,
    options: Options,
    counters: Arc<Counters>,
    next_id: AtomicU64,
}

/// Numbers for people, over all workers.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    heaps: Vec<AtomicUsize>,
    pub(crate) contexts: AtomicUsize,
    pub(crate) restarts: AtomicU64,
    pub(crate) terminations: AtomicU64,
}

/// How the pool fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Heap in use over all isolates, as of each one's last job.
    pub heap_bytes_used: usize,
    /// The limits of all isolates together.
    pub heap_bytes_max: usize,
    /// Isolates that were replaced because a transform exceeded the memory limit.
    pub isolate_restarts: u64,
    /// Runs that were stopped at a limit.
    pub terminations: u64,
    /// Transforms in isolates: each transform counts once per thread that has run it.
    pub contexts: usize,
    /// Jobs that wait for a thread.
    pub jobs_waiting: usize,
}

/// A transform's source, known to all workers; each loads it when it first needs it.
pub(crate) struct Program {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) source: String,
    hash: [u8; 8],
    shared: Arc<Shared>,
}

enum Job {
    Load { program: Arc<Program>, answer: mpsc::SyncSender<Result<(), LoadError>> },
    Run(RunJob),
}

/// The fields are dropped in this order: `answer` last, because its end tells the owner of the batch that the loan is over.
struct RunJob {
    program: Arc<Program>,
    lent: Lent,
    range: Range<usize>,
    answer: mpsc::SyncSender<Answer>,
}

/// A transform that is loaded. Its contexts go when the last clone is dropped; to reload, load again and drop the old one.
#[derive(Clone)]
pub struct Transform {
    program: Arc<Program>,
}

// === impl Pool ===

impl Pool {
    /// Starts the threads. [`initialize`](crate::initialize) must have been called.
    pub fn start(options: Options) -> Result<Self, Error> {
        if !platform::is_initialized() {
            return Err(Error::NotInitialized);
        }
        check(&options)?;
        let threads = options.threads.get();
        let watchdog = Watchdog::start(threads).map_err(Error::Thread)?;
        let shared = Arc::new(Shared {
            queue: Queue::new(),
            counters: Arc::new(Counters {
                heaps: (0..threads).map(|_| AtomicUsize::new(0)).collect(),
                ..Counters::default()
            }),
            options,
            next_id: AtomicU64::new(1),
        });
        let mut pool = Self { shared, workers: Vec::with_capacity(threads), watchdog: None };
        for index in 0..threads {
            let shared = Arc::clone(&pool.shared);
            let watch = watchdog.watch(index);
            let builder = std::thread::Builder::new().name(format!("sandbox-{index}")).stack_size(STACK_BYTES);
            pool.workers.push(builder.spawn(move || work(&shared, &watch, index)).map_err(Error::Thread)?);
        }
        pool.watchdog = Some(watchdog);
        Ok(pool)
    }

    /// Loads a transform: blocks until one of the threads has parsed it and run its top level. `name` is what errors and stacks
    /// call it, as the configuration has it: `transforms/ltv.js`.
    pub fn load(&self, name: &str, source: &str) -> Result<Transform, LoadError> {
        let refuse = |kind, message: String| LoadError {
            kind,
            name: name.to_owned(),
            message,
            line: None,
            column: None,
            excerpt: None,
        };
        if source.len() > SOURCE_BYTES_MAX {
            let message = format!("it has {} bytes; at most {SOURCE_BYTES_MAX} are allowed", source.len());
            return Err(refuse(LoadErrorKind::TooLarge, message));
        }
        let mut hash = [0; 8];
        for (to, from) in hash.iter_mut().zip(Sha256::digest(source.as_bytes())) {
            *to = from;
        }
        let program = Arc::new(Program {
            id: self.shared.next_id.fetch_add(1, Ordering::Relaxed),
            name: name.to_owned(),
            source: source.to_owned(),
            hash,
            shared: Arc::clone(&self.shared),
        });
        let (sender, receiver) = mpsc::sync_channel(1);
        let closed = || refuse(LoadErrorKind::Closed, "the sandbox is shut down".to_owned());
        self.shared.queue.push(Job::Load { program: Arc::clone(&program), answer: sender }).map_err(|_| closed())?;
        receiver.recv().map_err(|_| closed())??;
        Ok(Transform { program })
    }

    pub fn stats(&self) -> Stats {
        let counters = &self.shared.counters;
        Stats {
            heap_bytes_used: counters.heaps.iter().map(|heap| heap.load(Ordering::Relaxed)).sum(),
            heap_bytes_max: self.shared.options.heap_bytes_max * self.shared.options.threads.get(),
            isolate_restarts: counters.restarts.load(Ordering::Relaxed),
            terminations: counters.terminations.load(Ordering::Relaxed),
            contexts: counters.contexts.load(Ordering::Relaxed),
            jobs_waiting: self.shared.queue.len(),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.queue.close();
        for worker in self.workers.drain(..) {
            if worker.join().is_err() {
                tracing::error!("a thread of the sandbox panicked");
            }
        }
    }
}

fn check(options: &Options) -> Result<(), Error> {
    let invalid = |option, value: String, expected| Err(Error::InvalidOption { option, value, expected });
    if options.heap_bytes_max < HEAP_BYTES_MIN {
        return invalid("heap_bytes_max", options.heap_bytes_max.to_string(), "at least 16 MiB");
    }
    for (option, limit) in [("batch_timeout", options.batch_timeout), ("row_timeout", options.row_timeout)] {
        if limit < Duration::from_millis(1) {
            return invalid(option, format!("{limit:?}"), "at least 1 ms");
        }
    }
    if options.output_bytes_max == 0 {
        return invalid("output_bytes_max", "0".to_owned(), "at least 1");
    }
    Ok(())
}

impl Counters {
    pub(crate) fn set_heap(&self, index: usize, bytes: usize) {
        if let Some(heap) = self.heaps.get(index) {
            heap.store(bytes, Ordering::Relaxed);
        }
    }
}

// === The worker's thread ===

fn work(shared: &Shared, watch: &Watch, index: usize) {
    let mut seen = 0;
    loop {
        let mut engine = Engine::new(shared.options.clone(), watch.clone(), Arc::clone(&shared.counters), index);
        let ended = std::panic::catch_unwind(AssertUnwindSafe(|| serve(shared, &mut engine, &mut seen)));
        match ended {
            Ok(()) => return,
            // A fault of ours. The rows of that job come back as not run; the thread goes on with a new isolate.
            Err(_) => tracing::error!(worker = index, "a thread of the sandbox panicked and starts again"),
        }
    }
}

fn serve(shared: &Shared, engine: &mut Engine, seen: &mut u64) {
    loop {
        match shared.queue.next(*seen) {
            Next::Stop => return,
            Next::Sweep(dropped) => {
                *seen = dropped;
                engine.sweep();
            }
            Next::Job(Job::Load { program, answer }) => {
                let loaded = engine.load(&program);
                // The worker's own share goes first, so that dropping the transform is what the caller does last.
                drop(program);
                if answer.send(loaded).is_err() {
                    tracing::debug!("nobody waits for a transform that was loaded");
                }
            }
            Next::Job(Job::Run(job)) => {
                let started = Instant::now();
                let chunk = engine.run(&job.program, &job.lent, job.range.clone());
                // Somebody is there: the owner of the batch waits until `job` is gone.
                if job.answer.send((job.range.clone(), chunk, started.elapsed())).is_err() {
                    tracing::error!("nobody waits for a batch that was run");
                }
            }
        }
    }
}

// === impl Transform ===

impl Transform {
    pub fn name(&self) -> &str {
        &self.program.name
    }

    /// The first bytes of the source's SHA-256: which version of the transform made an output.
    pub fn hash(&self) -> [u8; 8] {
        self.program.hash
    }

    /// Runs a batch of any size and waits for it. Must not be called on a thread of an asynchronous runtime.
    pub fn run(&self, batch: &Batch<'_>) -> BatchReport {
        let rows = batch.rows.len();
        let shared = &self.program.shared;
        let mut report = BatchReport {
            results: Vec::with_capacity(rows),
            console: Vec::new(),
            console_dropped: 0,
            timing: Timing::default(),
        };
        // Waits for the end of every loan, also when this function unwinds; our own sender is declared after it, and so goes first.
        // It has room for every answer, so that no worker ever waits for the caller.
        let size = rows.div_ceil(shared.options.threads.get()).clamp(CHUNK_ROWS_MIN, TRANSFORM_ROWS_MAX);
        let (sender, receiver) = mpsc::sync_channel(rows.div_ceil(size));
        let answers = Answers(receiver);
        let answer = sender;
        for start in (0..rows).step_by(size) {
            let range = start..rows.min(start + size);
            let program = Arc::clone(&self.program);
            let job = Job::Run(RunJob { program, lent: lend(batch, &answers), range, answer: answer.clone() });
            report.timing.chunks += 1;
            if shared.queue.push(job).is_err() {
                break;
            }
        }
        drop(answer);
        let mut chunks: Vec<Answer> = answers.0.iter().collect();
        chunks.sort_unstable_by_key(|(range, ..)| range.start);
        for (range, mut chunk, busy) in chunks {
            // Chunks that nobody ran leave a gap.
            report.results.resize(range.start, RowResult::NotRun);
            report.results.append(&mut chunk.results);
            report.results.resize(range.end, RowResult::NotRun);
            report.console.append(&mut chunk.console);
            report.console_dropped += chunk.console_dropped;
            report.timing.busy += busy;
            report.timing.rows_alone += chunk.alone;
        }
        report.results.resize(rows, RowResult::NotRun);
        report
    }
}

type Answer = (Range<usize>, Chunk, Duration);

struct Answers(mpsc::Receiver<Answer>);

impl Drop for Answers {
    fn drop(&mut self) {
        // Ends when every job, and with it every loan and every sender, has been dropped.
        for _ in &self.0 {}
    }
}

#[allow(unsafe_code, reason = "the loan of a batch to the workers' threads")]
fn lend(batch: &Batch<'_>, _waiting: &Answers) -> Lent {
    // SAFETY: the caller holds the receiver of the job's answers. It is read to its end before the caller returns or unwinds
    // (`Answers::drop`), and its end comes only after the last job that has a sender was dropped, the loan before it. The caller
    // borrows the batch for that long.
    unsafe { Lent::new(batch) }
}

impl std::fmt::Debug for Transform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transform").field("name", &self.program.name).finish_non_exhaustive()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.shared.queue.sweep();
    }
}
