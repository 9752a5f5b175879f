//! One isolate and the transforms that are loaded into it. It lives on one thread and never leaves it.
//!
//! When a limit was hit, what the code left half-done cannot be trusted: after the time limit the transform's context is made anew,
//! after the memory limit the whole isolate, with all contexts. Both come back when they are next needed.

use std::collections::HashMap;
use std::ffi::{c_char, c_void};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::answer;
use crate::batch::{ConsoleLevel, ConsoleLine, RowResult};
use crate::encode::encode;
use crate::error::{LoadError, LoadErrorKind, RowError, RowErrorKind};
use crate::host::{self, Run};
use crate::job::{LoadJob, RunJob};
use crate::options::{HEAP_HEADROOM_BYTES, Options, STRIKES_MAX};
use crate::pool::{Counters, Program};
use crate::realm::{Failure, Realm, Refusal};
use crate::watchdog::Watch;

pub(crate) struct Engine {
    /// `None` only in between, while one isolate is replaced by the next: a thread may have just one.
    vessel: Option<Vessel>,
    options: Options,
    watch: Watch,
    counters: Arc<Counters>,
    index: usize,
}

/// The fields are dropped in this order: contexts first, then the isolate, then what its callbacks refer to.
struct Vessel {
    realms: HashMap<u64, (std::sync::Weak<Program>, Realm)>,
    isolate: v8::OwnedIsolate,
    heap: Box<HeapGuard>,
    /// Whether rows have been run in it: what is left of that takes memory, for which the next run is not to blame.
    used: bool,
}

/// What the callback at the heap limit works on.
struct HeapGuard {
    isolate: v8::IsolateHandle,
    hit: AtomicBool,
}

/// The rows of a chunk, as they came out.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    /// In order, one per row.
    pub(crate) results: Vec<RowResult>,
    pub(crate) console: Vec<ConsoleLine>,
    pub(crate) console_dropped: u64,
    /// Rows that were run one by one.
    pub(crate) alone: usize,
}

/// A run over some rows.
enum Attempt {
    Done(Vec<RowResult>),
    /// The run as a whole failed.
    Failed {
        error: RowError,
        struck: Struck,
    },
    /// Work that an earlier run left behind was about to run. It has been dropped with its context: to be tried again.
    LeftOver,
}

/// Whether a run failed at a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Struck {
    No,
    /// By its own doing: it ran out of time.
    OutOfTime,
    /// By its own doing: it ran out of memory.
    OutOfMemory,
    /// Perhaps by what others had left in the isolate, which has been replaced: to be tried again.
    Crowded,
}

/// Tasks of V8's own that are run after a job. Some post themselves again until a helper thread has done its part (the sweeping after a garbage
/// collection does): to run them until none is left would be to wait for that thread with a busy loop.
const TASKS_PER_JOB_MAX: usize = 4;

/// What the console shows when work of an earlier run was dropped.
const LEFT_OVER: &str = "the transform left work behind in an earlier batch (a promise that nothing awaited); it was dropped, \
                         and the transform's variables with it";

/// Isolates are made and dropped one at a time in the process: it is rare, and V8 shares tables between them.
static MAKING: Mutex<()> = Mutex::new(());

// === impl Engine ===

impl Engine {
    pub(crate) fn new(options: Options, watch: Watch, counters: Arc<Counters>, index: usize) -> Self {
        Self { vessel: None, options, watch, counters, index }
    }

    /// Loads a transform and says what is wrong with it.
    pub(crate) fn load(&mut self, job: &Arc<LoadJob>) -> Result<(), LoadError> {
        self.watch.begin(Arc::clone(job) as _);
        let program = &job.program;
        let Err(refusal) = self.ensure(program) else { return Ok(()) };
        Err(LoadError {
            kind: refusal.kind,
            name: program.name.clone(),
            message: refusal.message,
            line: refusal.line,
            column: refusal.column,
            excerpt: refusal.excerpt,
        })
    }

    /// Runs a job's rows, together if it can be, else one by one.
    pub(crate) fn run(&mut self, job: &Arc<RunJob>) -> Chunk {
        let range = job.range.clone();
        let mut chunk = Chunk::default();
        if let Some(error) = job.program.quarantined() {
            chunk.results = range.map(|_| RowResult::Failed(error.clone())).collect();
            return chunk;
        }
        self.watch.begin(Arc::clone(job) as _);
        match self.attempt(job, range.clone(), self.options.batch_timeout, &mut chunk) {
            Attempt::Done(results) => chunk.results = results,
            Attempt::Failed { error, struck } if range.len() == 1 && struck != Struck::Crowded => {
                chunk.results.push(RowResult::Failed(error));
            }
            Attempt::Failed { struck, .. } => {
                // What the console showed so far will be shown again.
                chunk = Chunk { alone: range.len(), ..Chunk::default() };
                // A row needs more time to fill the memory than a row may take otherwise; it must not look like a loop because of that.
                let limit = match struck {
                    Struck::OutOfMemory | Struck::Crowded => self.options.batch_timeout,
                    Struck::No | Struck::OutOfTime => self.options.row_timeout,
                };
                self.run_alone(job, range, limit, &mut chunk);
            }
            // Twice in a row: it cannot be, because the context was new.
            Attempt::LeftOver => {}
        }
        self.settle();
        chunk
    }

    /// Says whether the thread was given up meanwhile; then it must end.
    pub(crate) fn end_job(&self) -> bool {
        self.watch.end()
    }

    fn run_alone(&mut self, job: &Arc<RunJob>, range: Range<usize>, limit: Duration, chunk: &mut Chunk) {
        let mut strikes = 0;
        for row in range {
            if strikes >= STRIKES_MAX {
                chunk.results.push(RowResult::NotRun);
                continue;
            }
            job.runs_alone(row);
            let before = chunk.console.len();
            let mut attempt = self.attempt(job, row..row + 1, limit, chunk);
            if matches!(attempt, Attempt::Failed { struck: Struck::Crowded, .. }) {
                chunk.console.truncate(before);
                attempt = self.attempt(job, row..row + 1, self.options.batch_timeout, chunk);
            }
            match attempt {
                Attempt::Done(results) => chunk.results.extend(results),
                Attempt::Failed { error, struck } => {
                    strikes += usize::from(struck != Struck::No);
                    chunk.results.push(RowResult::Failed(error));
                }
                Attempt::LeftOver => chunk.results.push(RowResult::NotRun),
            }
            for line in chunk.console.iter_mut().skip(before) {
                line.row = Some(row);
            }
        }
    }

    fn attempt(&mut self, job: &Arc<RunJob>, range: Range<usize>, limit: Duration, chunk: &mut Chunk) -> Attempt {
        let before = chunk.console.len();
        match self.attempt_once(job, range.clone(), limit, chunk) {
            Attempt::LeftOver => {
                chunk.console.truncate(before);
                chunk.console.push(ConsoleLine { level: ConsoleLevel::Warn, text: LEFT_OVER.to_owned(), row: None });
                self.attempt_once(job, range, limit, chunk)
            }
            attempt => attempt,
        }
    }

    fn attempt_once(&mut self, job: &Arc<RunJob>, range: Range<usize>, limit: Duration, chunk: &mut Chunk) -> Attempt {
        let program = &job.program;
        let file = program.name.as_str();
        let failed =
            |kind, message: String| Attempt::Failed { error: RowError::new(kind, file, message), struck: Struck::No };
        // Nobody hears of it: the job was answered when the thread was given up.
        let given_up = || failed(RowErrorKind::Timeout, "the thread was given up".to_owned());
        let first = range.start;
        let Some(mut encoded) = job.lent.with(|batch| encode(batch, range.clone(), file)) else { return given_up() };
        let failures = std::mem::take(&mut encoded.failures);
        let given = encoded.rows.clone();
        if given.is_empty() {
            return Attempt::Done(failures.into_iter().map(|(_, error)| RowResult::Failed(error)).collect());
        }
        if let Err(refusal) = self.ensure(program) {
            // It was loaded before, so that this is a matter of limits, or of a top level that is not the same every time.
            let (kind, struck) = match refusal.kind {
                LoadErrorKind::Timeout => (RowErrorKind::Timeout, Struck::OutOfTime),
                LoadErrorKind::OutOfMemory => (RowErrorKind::OutOfMemory, Struck::OutOfMemory),
                _ => (RowErrorKind::Threw, Struck::No),
            };
            let message = format!("the transform could not be loaded again: {}", refusal.message);
            return Attempt::Failed { error: RowError::new(kind, file, message), struck };
        }
        let console_left =
            self.options.console_bytes_max.saturating_sub(chunk.console.iter().map(|line| line.text.len()).sum());
        let Some(vessel) = &mut self.vessel else {
            return failed(RowErrorKind::Threw, "the sandbox has no isolate".to_owned());
        };
        let Some((_, realm)) = vessel.realms.get(&program.id) else {
            return failed(RowErrorKind::Threw, "the sandbox has lost the transform".to_owned());
        };
        let fresh = !vessel.used;
        vessel.used = true;
        if !self.watch.arm(limit) {
            return given_up();
        }
        let run = Run::begin(Some(job), given, console_left);
        let (rows, bytes_max) = (encoded.rows.len(), self.options.output_bytes_max);
        let read = |text: &str| answer::read(text, rows, file, bytes_max);
        let outcome = realm.run(&mut vessel.isolate, file, &mut encoded, &run, read);
        let console = run.console();
        let left_over = run.left_over();
        drop(run);
        let late = self.watch.disarm();
        let full = vessel.is_full(late, &self.options);
        chunk.console.extend(console.lines);
        chunk.console_dropped += console.dropped;
        let crowded = (late || full) && self.recover(program.id, full) && !fresh;
        if left_over && !late && !full {
            self.drop_left_over(program.id);
            return Attempt::LeftOver;
        }
        let outcome = match outcome {
            Ok(read) => read.map_err(|problem| RowError::new(RowErrorKind::Shape, file, problem)),
            Err(Failure::Failed(error)) => Err(error),
            Err(Failure::Broken(problem)) => Err(RowError::new(RowErrorKind::Threw, file, problem)),
            Err(Failure::Stopped) => {
                let struck = match (crowded, full) {
                    (true, _) => Struck::Crowded,
                    (false, true) => Struck::OutOfMemory,
                    (false, false) => Struck::OutOfTime,
                };
                return Attempt::Failed { error: self.limit_error(file, full, limit), struck };
            }
        };
        match outcome {
            Ok(results) => Attempt::Done(weave(first, results, failures)),
            Err(error) => Attempt::Failed { error, struck: Struck::No },
        }
    }

    /// Drops a context together with the work that an earlier run left behind in it.
    fn drop_left_over(&mut self, program: u64) {
        let Some(vessel) = &mut self.vessel else { return };
        vessel.isolate.cancel_terminate_execution();
        if vessel.realms.remove(&program).is_some() {
            self.counters.contexts.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn limit_error(&self, file: &str, full: bool, limit: Duration) -> RowError {
        if full {
            let megabytes = self.options.heap_bytes_max / (1024 * 1024);
            RowError::new(
                RowErrorKind::OutOfMemory,
                file,
                format!("the transform needs more than {megabytes} MiB of memory"),
            )
        } else {
            RowError::new(
                RowErrorKind::Timeout,
                file,
                format!("the transform ran longer than {} ms", limit.as_millis()),
            )
        }
    }

    /// Makes sure that there is an isolate with the transform in it.
    fn ensure(&mut self, program: &Arc<Program>) -> Result<(), Refusal> {
        if self.vessel.as_ref().is_some_and(|vessel| vessel.realms.contains_key(&program.id)) {
            return Ok(());
        }
        let crowded = self.vessel.as_ref().is_some_and(|vessel| vessel.used);
        match self.load_into_vessel(program) {
            // The isolate was replaced meanwhile.
            Err(_) if crowded && self.vessel.is_none() => self.load_into_vessel(program),
            loaded => loaded,
        }
    }

    fn load_into_vessel(&mut self, program: &Arc<Program>) -> Result<(), Refusal> {
        let (watch, options) = (&self.watch, &self.options);
        let vessel = self.vessel.get_or_insert_with(|| Vessel::new(options, watch));
        if !watch.arm(options.batch_timeout) {
            return Err(Refusal::new(LoadErrorKind::Timeout, "its thread was given up"));
        }
        let loaded = Realm::load(&mut vessel.isolate, &program.name, &program.source, options);
        let late = watch.disarm();
        let full = vessel.is_full(late, options);
        if late || full {
            // Before the isolate that it belongs to.
            drop(loaded);
            let refusal = if full {
                let megabytes = options.heap_bytes_max / (1024 * 1024);
                Refusal::new(
                    LoadErrorKind::OutOfMemory,
                    format!("its top level needs more than {megabytes} MiB of memory"),
                )
            } else {
                Refusal::new(
                    LoadErrorKind::Timeout,
                    format!("its top level ran longer than {} ms", options.batch_timeout.as_millis()),
                )
            };
            self.recover(program.id, full);
            return Err(refusal);
        }
        let realm = loaded?;
        vessel.realms.insert(program.id, (Arc::downgrade(program), realm));
        self.counters.contexts.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// After a limit was hit; says whether the isolate was replaced. It is as well when somebody ran out of time with the heap half
    /// full: the next one should not have to clean up first.
    fn recover(&mut self, program: u64, full: bool) -> bool {
        self.counters.terminations.fetch_add(1, Ordering::Relaxed);
        let Some(vessel) = &mut self.vessel else { return true };
        vessel.isolate.cancel_terminate_execution();
        if full || vessel.isolate.get_heap_statistics().used_heap_size() > self.options.heap_bytes_max / 2 {
            tracing::warn!(worker = self.index, full, "a transform hit a limit; its isolate is replaced");
            self.discard();
            self.counters.restarts.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        if vessel.realms.remove(&program).is_some() {
            self.counters.contexts.fetch_sub(1, Ordering::Relaxed);
        }
        false
    }

    /// Drops the isolate with everything in it.
    pub(crate) fn discard(&mut self) {
        if let Some(vessel) = self.vessel.take() {
            self.counters.contexts.fetch_sub(vessel.realms.len(), Ordering::Relaxed);
            let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
            drop(vessel);
        }
        self.counters.set_heap(self.index, 0);
    }

    /// Drops the contexts of transforms that nobody has any more.
    pub(crate) fn sweep(&mut self) {
        let Some(vessel) = &mut self.vessel else { return };
        let before = vessel.realms.len();
        vessel.realms.retain(|_, (program, _)| program.strong_count() > 0);
        let gone = before - vessel.realms.len();
        if gone > 0 {
            self.counters.contexts.fetch_sub(gone, Ordering::Relaxed);
            // What a dropped context held is collected now, not in the middle of somebody's batch.
            vessel.isolate.low_memory_notification();
        }
        self.settle();
    }

    /// After a job: V8's own tasks for this thread, and the numbers for people.
    fn settle(&mut self) {
        let Some(vessel) = &mut self.vessel else { return };
        let platform = v8::V8::get_current_platform();
        for _ in 0..TASKS_PER_JOB_MAX {
            if !v8::Platform::pump_message_loop(&platform, &vessel.isolate, false) {
                break;
            }
        }
        let used = vessel.isolate.get_heap_statistics().used_heap_size();
        self.counters.set_heap(self.index, used);
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.discard();
    }
}

/// Puts the rows that were run and those that could not be back into one order.
fn weave(first: usize, ran: Vec<RowResult>, failures: Vec<(usize, RowError)>) -> Vec<RowResult> {
    if failures.is_empty() {
        return ran;
    }
    let mut woven = Vec::with_capacity(ran.len() + failures.len());
    let mut failures = failures.into_iter().peekable();
    for result in ran {
        while let Some((_, error)) = failures.next_if(|(row, _)| *row == first + woven.len()) {
            woven.push(RowResult::Failed(error));
        }
        woven.push(result);
    }
    woven.extend(failures.map(|(_, error)| RowResult::Failed(error)));
    woven
}

// === impl Vessel ===

impl Vessel {
    fn new(options: &Options, watch: &Watch) -> Self {
        let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        let parameters = v8::CreateParams::default().heap_limits(0, options.heap_bytes_max);
        let mut isolate = v8::Isolate::new(parameters);
        isolate.set_microtasks_policy(v8::MicrotasksPolicy::Explicit);
        isolate.set_promise_reject_callback(host::rejection);
        isolate.set_oom_error_handler(out_of_memory);
        let heap = Box::new(HeapGuard { isolate: isolate.thread_safe_handle(), hit: AtomicBool::new(false) });
        let data = std::ptr::from_ref::<HeapGuard>(&heap).cast_mut().cast::<c_void>();
        isolate.add_near_heap_limit_callback(near_heap_limit, data);
        watch.enroll(isolate.thread_safe_handle());
        Self { realms: HashMap::new(), isolate, heap, used: false }
    }

    /// Whether a run that has just ended was stopped because of its memory. Code that fills the memory spends its time on garbage collection, so it
    /// often runs out of time before the limit of the heap is hit: what it holds then tells it from a loop. (Nothing has been collected
    /// since it was stopped.) Young objects do not count: a loop makes them, too.
    fn is_full(&mut self, late: bool, options: &Options) -> bool {
        let hit = self.heap.hit.load(Ordering::Relaxed);
        hit || (late && self.held() > options.heap_bytes_max / 4)
    }

    /// Bytes that objects hold which have survived a while, or are large.
    fn held(&mut self) -> usize {
        let spaces = self.isolate.number_of_heap_spaces();
        let heap: usize = (0..spaces)
            .filter_map(|space| self.isolate.get_heap_space_statistics(space))
            .filter(|space| !space.space_name().to_bytes().starts_with(b"new_"))
            .map(|space| space.space_used_size())
            .sum();
        heap.saturating_add(self.isolate.get_heap_statistics().external_memory())
    }
}

/// Stops the code that is about to exceed the limit, and lets the heap grow so that it can unwind: V8 would end the process
/// otherwise. Called on the isolate's own thread, in the middle of an allocation.
unsafe extern "C" fn near_heap_limit(data: *mut c_void, current: usize, initial: usize) -> usize {
    // SAFETY: `data` is the `HeapGuard` in its box, which is dropped after the isolate that has this callback.
    let guard = unsafe { &*data.cast::<HeapGuard>() };
    guard.hit.store(true, Ordering::Relaxed);
    guard.isolate.terminate_execution();
    // Built-in functions that do not look at the stop for long may come here more than once.
    current.max(initial).saturating_add(HEAP_HEADROOM_BYTES)
}

/// The last words before V8 aborts the process: even the headroom was not enough.
unsafe extern "C" fn out_of_memory(_location: *const c_char, _details: &v8::OomDetails) {
    tracing::error!("V8 is out of memory and ends the process; a transform allocates more at once than can be stopped");
}
