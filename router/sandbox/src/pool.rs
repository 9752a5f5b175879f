//! The pool of threads and the handle of a transform.

use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tailwater_core::limits::TRANSFORM_ROWS_MAX;

use crate::batch::{Batch, BatchReport, RowResult, Timing};
use crate::engine::Engine;
use crate::error::{Error, LoadError, LoadErrorKind, RowError, RowErrorKind};
use crate::job::{Answer, LoadJob, RunJob};
use crate::lent::Lent;
use crate::options::{HEAP_BYTES_MIN, Options, SOURCE_BYTES_MAX, THREADS_LOST_PER_TRANSFORM_MAX};
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
    /// Stopped after the workers: until then somebody must be able to end a loop.
    watchdog: Option<Watchdog>,
}

struct Shared {
    queue: Queue<Job>,
    options: Options,
    counters: Arc<Counters>,
    next_id: AtomicU64,
    /// The threads that somebody waits for when the pool is dropped; those that were given up are not among them.
    workers: Mutex<usize>,
    worker_left: Condvar,
}

/// Numbers for people, over all workers.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    heaps: Vec<AtomicUsize>,
    pub(crate) contexts: AtomicUsize,
    pub(crate) restarts: AtomicU64,
    pub(crate) terminations: AtomicU64,
    lost: AtomicU64,
    lost_now: AtomicUsize,
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
    /// Threads that were replaced because a built-in function did not return.
    pub threads_lost: u64,
    /// Those of them that still run.
    pub threads_lost_now: usize,
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
    /// Threads that were lost while they ran it.
    pub(crate) lost: AtomicU64,
    hash: [u8; 8],
    shared: Arc<Shared>,
}

enum Job {
    Load(Arc<LoadJob>),
    Run(Arc<RunJob>),
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
        let shared = Arc::new(Shared {
            queue: Queue::new(),
            counters: Arc::new(Counters {
                heaps: (0..threads).map(|_| AtomicUsize::new(0)).collect(),
                ..Counters::default()
            }),
            options,
            next_id: AtomicU64::new(1),
            workers: Mutex::new(0),
            worker_left: Condvar::new(),
        });
        let replaced = Arc::clone(&shared);
        let grace = shared.options.stop_grace;
        let watchdog =
            Watchdog::start(grace, move |index, watch| replace(&replaced, index, watch)).map_err(Error::Thread)?;
        let mut pool = Self { shared, watchdog: None };
        for index in 0..threads {
            spawn(&pool.shared, index, watchdog.watch(index)).map_err(Error::Thread)?;
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
            lost: AtomicU64::new(0),
            hash,
            shared: Arc::clone(&self.shared),
        });
        let (sender, receiver) = mpsc::sync_channel(1);
        let closed = || refuse(LoadErrorKind::Closed, "the sandbox is shut down".to_owned());
        let job = LoadJob::new(Arc::clone(&program), sender);
        self.shared.queue.push(Job::Load(Arc::new(job))).map_err(|_| closed())?;
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
            threads_lost: counters.lost.load(Ordering::Relaxed),
            threads_lost_now: counters.lost_now.load(Ordering::Relaxed),
            contexts: counters.contexts.load(Ordering::Relaxed),
            jobs_waiting: self.shared.queue.len(),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.queue.close();
        let mut workers = self.shared.workers();
        while *workers > 0 {
            workers = self.shared.worker_left.wait(workers).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Shared {
    /// A count has no state that a panic could leave half-changed.
    fn workers(&self) -> MutexGuard<'_, usize> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self) {
        let mut workers = self.workers();
        *workers = workers.saturating_sub(1);
        self.worker_left.notify_all();
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

fn spawn(shared: &Arc<Shared>, index: usize, watch: Watch) -> std::io::Result<()> {
    let mine = Arc::clone(shared);
    *shared.workers() += 1;
    let builder = std::thread::Builder::new().name(format!("sandbox-{index}")).stack_size(STACK_BYTES);
    // Nobody joins it: a thread that was given up never ends. The others are counted when they leave.
    let spawned = builder.spawn(move || work(&mine, &watch, index));
    if spawned.is_err() {
        shared.leave();
    }
    spawned.map(drop)
}

/// Puts a thread in the place of one that was given up.
fn replace(shared: &Arc<Shared>, index: usize, watch: Watch) {
    shared.counters.lost.fetch_add(1, Ordering::Relaxed);
    let lost = shared.counters.lost_now.fetch_add(1, Ordering::Relaxed) + 1;
    tracing::error!(
        worker = index,
        lost,
        "a transform called a built-in function that does not return; its thread was given up and another one started"
    );
    if let Err(error) = spawn(shared, index, watch) {
        tracing::error!(worker = index, "no thread could be started in its place: {error}");
    }
    shared.leave();
}

fn work(shared: &Shared, watch: &Watch, index: usize) {
    let mut seen = 0;
    loop {
        let mut engine = Engine::new(shared.options.clone(), watch.clone(), Arc::clone(&shared.counters), index);
        let ended = std::panic::catch_unwind(AssertUnwindSafe(|| serve(shared, &mut engine, &mut seen)));
        drop(engine);
        match ended {
            Ok(Ended::Closed) => return shared.leave(),
            Ok(Ended::GivenUp) => {
                // It came back after all.
                shared.counters.lost_now.fetch_sub(1, Ordering::Relaxed);
                tracing::info!(worker = index, "a thread that was given up has returned and ends");
                return;
            }
            // A fault of ours. The rows of that job come back as not run; the thread goes on with a new isolate.
            Err(_) => tracing::error!(worker = index, "a thread of the sandbox panicked and starts again"),
        }
        if watch.end() {
            shared.counters.lost_now.fetch_sub(1, Ordering::Relaxed);
            return;
        }
    }
}

/// Why a worker ends.
enum Ended {
    Closed,
    /// Another thread has taken its place.
    GivenUp,
}

fn serve(shared: &Shared, engine: &mut Engine, seen: &mut u64) -> Ended {
    loop {
        match shared.queue.next(*seen) {
            Next::Stop => return Ended::Closed,
            Next::Sweep(dropped) => {
                *seen = dropped;
                engine.sweep();
            }
            Next::Job(Job::Load(job)) => {
                let loaded = engine.load(&job);
                if engine.end_job() {
                    return Ended::GivenUp;
                }
                job.finish(loaded);
            }
            Next::Job(Job::Run(job)) => {
                let started = Instant::now();
                let chunk = engine.run(&job);
                if engine.end_job() {
                    return Ended::GivenUp;
                }
                job.finish(chunk, started.elapsed());
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
        let lost_before = shared.counters.lost.load(Ordering::Relaxed);
        let mut report = BatchReport {
            results: vec![RowResult::NotRun; rows],
            console: Vec::new(),
            console_dropped: 0,
            threads_lost: 0,
            exhausted: false,
            timing: Timing::default(),
        };
        // A transform that has lost a thread is run row by row, so that it loses one for the offending row and none for the batch.
        let size = match self.program.lost.load(Ordering::Relaxed) {
            0 => rows.div_ceil(shared.options.threads.get()).clamp(CHUNK_ROWS_MIN, TRANSFORM_ROWS_MAX),
            _ => 1,
        };
        let mut ranges: Vec<Range<usize>> =
            (0..rows).step_by(size).map(|start| start..rows.min(start + size)).collect();
        // The second time for rows whose thread was lost while it ran them together, one by one.
        while !ranges.is_empty() {
            let mut again = Vec::new();
            for answer in self.run_ranges(batch, &ranges, &mut report.timing) {
                match answer {
                    Answer::Done { range, mut chunk, busy } => {
                        report.console.append(&mut chunk.console);
                        report.console_dropped += chunk.console_dropped;
                        report.timing.busy += busy;
                        report.timing.rows_alone += chunk.alone;
                        for (place, result) in report.results.iter_mut().skip(range.start).zip(chunk.results) {
                            *place = result;
                        }
                    }
                    Answer::Lost { range, alone } => {
                        let offending = alone.or_else(|| (range.len() == 1).then_some(range.start));
                        if let Some(place) = offending.and_then(|row| report.results.get_mut(row)) {
                            *place = RowResult::Failed(self.program.stuck());
                        }
                        again.extend(range.filter(|row| Some(*row) != offending).map(|row| row..row + 1));
                    }
                }
            }
            ranges = again;
        }
        report.threads_lost = shared.counters.lost.load(Ordering::Relaxed).saturating_sub(lost_before);
        report.exhausted = shared.counters.lost_now.load(Ordering::Relaxed) >= shared.options.threads_lost_max;
        report
    }

    /// Runs parts of a batch; the answers are in the order of the parts.
    fn run_ranges(&self, batch: &Batch<'_>, ranges: &[Range<usize>], timing: &mut Timing) -> Vec<Answer> {
        // Waits for the end of every loan, also when this function unwinds; our own sender is declared after it, and so goes first.
        // It has room for every answer, so that no worker ever waits for the caller.
        let (sender, receiver) = mpsc::sync_channel(ranges.len());
        let answers = Answers(receiver);
        let answer = sender;
        for range in ranges {
            let program = Arc::clone(&self.program);
            let job = RunJob::new(program, lend(batch, &answers), range.clone(), answer.clone());
            timing.chunks += 1;
            if self.program.shared.queue.push(Job::Run(Arc::new(job))).is_err() {
                break;
            }
        }
        drop(answer);
        let mut chunks: Vec<Answer> = answers.0.iter().collect();
        chunks.sort_unstable_by_key(Answer::start);
        chunks
    }
}

impl Program {
    /// The result of a row that a thread was lost for.
    fn stuck(&self) -> RowError {
        RowError::new(
            RowErrorKind::Timeout,
            &self.name,
            "the transform called a built-in function that does not return; its thread was given up",
        )
    }

    /// What its rows end with once it has cost too many threads.
    pub(crate) fn quarantined(&self) -> Option<RowError> {
        (self.lost.load(Ordering::Relaxed) >= THREADS_LOST_PER_TRANSFORM_MAX).then(|| {
            RowError::new(
                RowErrorKind::Timeout,
                &self.name,
                "the transform is not run until it is reloaded, because it has called built-in functions that do not return",
            )
        })
    }
}

struct Answers(mpsc::Receiver<Answer>);

impl Drop for Answers {
    fn drop(&mut self) {
        // Ends when the last sender is gone; each went after its job's loan had ended.
        for _ in &self.0 {}
    }
}

#[allow(unsafe_code, reason = "the loan of a batch to the workers' threads")]
fn lend(batch: &Batch<'_>, _waiting: &Answers) -> Lent {
    // SAFETY: the caller holds the receiver of the job's answers. It is read to its end before the caller returns or unwinds
    // (`Answers::drop`), and its end comes only after the last job has given up its sender, before which it ended its loan
    // (`RunJob::end`). The caller borrows the batch for that long.
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
