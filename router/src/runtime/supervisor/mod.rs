//! Starts every thread and task of the process, knows what to do when one ends, and ends them all in order.
//!
//! Each has a name and a [`TaskKind`] that declares its policy: what an error means (start again after a pause, or end the process),
//! how long it may drain, and whether it may end by itself. A panic always ends the process: the state of whoever panicked is unknown,
//! and a restart from the last commit is safe. Nothing is spawned past the supervisor, so nothing can end unseen.
//!
//! Shutdown has three phases. First everything that works is asked to stop and drains: it finishes its batch, commits, and gives its
//! partitions back. When that is done, or the grace period (`run --grace`) has passed, the servers stop; until then the probes and metrics show how the
//! drain goes. Last comes what all others stand on: the embedded broker. The first SIGTERM or SIGINT begins this; a second one ends the process at once, which loses nothing that was
//! promised (what was not committed is read again).

mod exit;
mod shutdown;
mod signals;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tailwater_core::code;
use tokio::runtime::Handle;
use tokio::task::{AbortHandle, JoinSet};
use tracing::{error, info, warn};

pub use exit::{Cause, ExitReason, TaskError};
pub use shutdown::Shutdown;

use crate::telemetry::Telemetry;
use crate::telemetry::events::{TaskFailed, TaskRestarted};

/// The grace period unless the command line gives another: longer than a Kafka transaction takes at worst, shorter than what an
/// orchestrator usually grants (30 s).
pub const GRACE: Duration = Duration::from_secs(25);

/// How long a server may take to answer its last requests.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// How long the embedded broker may take to end: longer than it is waited for before it is killed.
const FOUNDATION_END_MAX: Duration = Duration::from_secs(25);

/// What a task is, and with that what happens when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TaskKind {
    /// Commits batches to Kafka. What passes by itself (a broker that is away, a transaction that was aborted) makes it start again from
    /// its last commit; any other error means that Kafka, the state or we ourselves are broken, and the process ends.
    Stage,
    /// Looks after something beside the flow: watches files, reports. It is started again.
    Watcher,
    /// Answers requests, the probes among them; stops after everything else has drained.
    Server,
    /// Does one thing and ends; waits out what passes by itself.
    Once,
    /// What all others stand on: the embedded broker. It ends after everything else.
    Foundation,
}

/// What an error of a task means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnError {
    Restart(Restart),
    /// The process shuts down.
    ShutDown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Restart {
    /// After which errors; others shut the process down.
    after: After,
    /// The first pause; it doubles with each failure.
    min: Duration,
    max: Duration,
    /// A task that has run for so long has recovered: its next failure begins with the first pause again.
    recovered: Duration,
    fences: Option<Fences>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Any,
    /// What the error itself calls recoverable.
    Recoverable,
}

/// How often the broker may take a task's transactional id away. A broker that was away does it once, and its restart perhaps once
/// more. A task whose id is taken again and again shares it with another process: two copies of one state folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fences {
    max: usize,
    within: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Policy {
    on_error: OnError,
    /// How long it may take to end after it was asked to, if that is not the whole grace period.
    drain: Option<Duration>,
    /// Whether it may end without having been asked to.
    may_finish: bool,
    phase: Phase,
    /// Whether an error aborts a transaction, which is counted.
    transactional: bool,
}

/// The order in which tasks end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Work,
    Serve,
    Foundation,
}

/// Starts tasks; clones start them under the same supervisor.
#[derive(Clone)]
pub struct Spawner(Arc<Shared>);

struct Shared {
    runtime: Handle,
    telemetry: Telemetry,
    /// Asks those that work to stop.
    shutdown: Shutdown,
    /// Asks the servers to stop.
    closing: Shutdown,
    /// Asks the foundation to stop.
    ending: Shutdown,
    running: Mutex<Running>,
    /// Wakes the supervisor when there is a message.
    told: Condvar,
}

/// Tasks and messages are under one lock, so that whoever finds a task gone finds its message too.
#[derive(Default)]
struct Running {
    next_id: u64,
    tasks: BTreeMap<u64, Task>,
    /// At most one per task, and one for the wish to stop.
    messages: VecDeque<Message>,
}

struct Task {
    name: String,
    kind: TaskKind,
    abort: Option<AbortHandle>,
}

/// Runs the process until it ends.
pub struct Supervisor {
    spawner: Spawner,
}

enum Message {
    Ended {
        name: String,
        kind: TaskKind,
        end: End,
    },
    /// The wish to stop was raised.
    Requested,
}

/// How one run of a task ended.
enum End {
    Finished,
    Failed(TaskError),
    Panicked(String),
}

/// What to do after a run.
enum Next {
    End(End),
    Again(Duration),
}

/// Decides, run after run, about one task.
struct Keeper {
    name: String,
    policy: Policy,
    stop: Shutdown,
    telemetry: Telemetry,
    failures: u32,
    /// When the broker took its transactional id away, of late.
    fenced: Vec<Instant>,
}

// === impl TaskKind ===

impl TaskKind {
    const fn policy(self) -> Policy {
        /// Works for the whole grace period, and ends the process with any error.
        const PLAIN: Policy = Policy {
            on_error: OnError::ShutDown,
            drain: None,
            may_finish: false,
            phase: Phase::Work,
            transactional: false,
        };
        match self {
            Self::Stage => Policy {
                on_error: OnError::Restart(Restart {
                    after: After::Recoverable,
                    min: Duration::from_millis(200),
                    max: Duration::from_secs(10),
                    recovered: Duration::from_secs(30),
                    fences: Some(Fences { max: 5, within: Duration::from_secs(600) }),
                }),
                transactional: true,
                ..PLAIN
            },
            Self::Watcher => Policy {
                on_error: OnError::Restart(Restart {
                    after: After::Any,
                    min: Duration::from_secs(1),
                    max: Duration::from_secs(60),
                    recovered: Duration::from_secs(300),
                    fences: None,
                }),
                drain: Some(CLOSE_MAX),
                ..PLAIN
            },
            Self::Server => Policy { drain: Some(CLOSE_MAX), phase: Phase::Serve, ..PLAIN },
            Self::Once => Policy {
                on_error: OnError::Restart(Restart {
                    after: After::Recoverable,
                    min: Duration::from_millis(500),
                    max: Duration::from_secs(3),
                    recovered: Duration::from_secs(300),
                    fences: None,
                }),
                may_finish: true,
                ..PLAIN
            },
            Self::Foundation => Policy {
                on_error: OnError::Restart(Restart {
                    after: After::Any,
                    min: Duration::from_millis(200),
                    max: Duration::from_secs(10),
                    recovered: Duration::from_secs(60),
                    fences: None,
                }),
                drain: Some(FOUNDATION_END_MAX),
                may_finish: true,
                phase: Phase::Foundation,
                ..PLAIN
            },
        }
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stage => "stage",
            Self::Watcher => "watcher",
            Self::Server => "server",
            Self::Once => "once",
            Self::Foundation => "foundation",
        }
    }
}

// === impl Supervisor ===

impl Supervisor {
    /// A supervisor that starts its tasks on this runtime, and gives them this grace period to end.
    pub fn new(runtime: Handle, telemetry: Telemetry, grace: Duration) -> Self {
        let spawner = Spawner(Arc::new(Shared {
            runtime,
            telemetry,
            shutdown: Shutdown::with_grace(grace),
            closing: Shutdown::new(),
            ending: Shutdown::new(),
            running: Mutex::default(),
            told: Condvar::new(),
        }));
        Self { spawner }
    }

    /// Starts a thread; see [`Spawner::thread`].
    pub fn thread<F>(&self, name: &str, kind: TaskKind, body: F)
    where
        F: FnMut(&Shutdown) -> Result<(), TaskError> + Send + 'static,
    {
        self.spawner.thread(name, kind, body);
    }

    /// Starts a task; see [`Spawner::task`].
    pub fn task<F, T>(&self, name: &str, kind: TaskKind, body: F)
    where
        F: FnMut(Shutdown) -> T + Send + 'static,
        T: Future<Output = Result<(), TaskError>> + Send + 'static,
    {
        self.spawner.task(name, kind, body);
    }

    /// For parts that start more tasks later.
    pub fn spawner(&self) -> Spawner {
        self.spawner.clone()
    }

    /// The wish to stop that every task but the servers is given.
    pub fn shutdown(&self) -> Shutdown {
        self.spawner.0.shutdown.clone()
    }

    /// Waits until a signal, a failure or the tasks themselves end the process, drains, and says why. SIGTERM and SIGINT are handled
    /// from here on. `finally` is called when only the foundation is left. Threads that have not ended by then are still there: the
    /// caller must end the process.
    pub fn run_until_shutdown(self, finally: impl FnOnce()) -> ExitReason {
        match signals::Listener::start(self.shutdown()) {
            Ok(_listener) => self.run(finally),
            Err(error) => {
                let error = TaskError::new(code::TASK_FAILED, &error);
                self.drain(Cause::Failed { task: "signals".to_owned(), error }, finally)
            }
        }
    }

    fn run(self, finally: impl FnOnce()) -> ExitReason {
        let shutdown = self.shutdown();
        let spawner = self.spawner();
        self.spawner.0.runtime.spawn(async move {
            shutdown.requested().await;
            spawner.running().messages.push_back(Message::Requested);
            spawner.0.told.notify_all();
        });
        loop {
            let message = self.spawner.next_message(None);
            if let Some(cause) = message.and_then(|message| self.cause(message)) {
                return self.drain(cause, finally);
            }
        }
    }

    /// What a message means for the process; `None` if it goes on.
    fn cause(&self, message: Message) -> Option<Cause> {
        let Message::Ended { name, kind, end } = message else {
            let reason = self.spawner.0.shutdown.reason();
            return Some(Cause::Requested(reason.unwrap_or_else(|| "a shutdown was requested".to_owned())));
        };
        match end {
            End::Failed(error) => Some(Cause::Failed { task: name, error }),
            End::Panicked(message) => Some(Cause::Panicked { task: name, message }),
            // It noticed the wish to stop before we did.
            End::Finished if self.spawner.0.shutdown.is_requested() => None,
            // A process that has only servers is never finished.
            End::Finished if kind.policy().may_finish => {
                (self.spawner.count(Phase::Work) == 0).then_some(Cause::Finished)
            }
            End::Finished => {
                let message = "it ended although nobody asked it to".to_owned();
                Some(Cause::Failed { task: name, error: TaskError::fatal(code::TASK_FAILED, message) })
            }
        }
    }

    /// Ends everything: first what works, then what serves, then what all of it stands on.
    fn drain(self, mut cause: Cause, finally: impl FnOnce()) -> ExitReason {
        let shared = Arc::clone(&self.spawner.0);
        match &cause {
            Cause::Failed { task, error } => {
                shared.telemetry.emit(&TaskFailed { task, code: error.code, message: &error.message });
            }
            Cause::Panicked { task, message } => {
                shared.telemetry.emit(&TaskFailed { task, code: code::TASK_FAILED, message });
            }
            Cause::Requested(_) | Cause::Finished => {}
        }
        shared.telemetry.health().stopping();
        shared.shutdown.request(cause.to_string());
        let working = self.spawner.count(Phase::Work);
        info!(reason = %cause, working, "shutting down: finishing what has begun");
        let mut undrained = self.wait_for(Phase::Work, &mut cause);
        shared.closing.request(cause.to_string());
        undrained.extend(self.wait_for(Phase::Serve, &mut cause));
        finally();
        shared.ending.request(cause.to_string());
        undrained.extend(self.wait_for(Phase::Foundation, &mut cause));
        let reason = ExitReason { cause, undrained };
        if reason.exit_code() == 0 {
            info!(reason = %reason, "everything has ended");
        } else {
            error!(reason = %reason, code = %if reason.undrained.is_empty() { code::TASK_FAILED } else { code::SHUTDOWN_TIMEOUT },
                "the process ends with an error");
        }
        reason
    }

    /// Waits until the tasks of a phase have ended, at most as long as the most patient of their policies allows, and returns those
    /// that have not. An error while draining becomes the cause if none was an error before.
    fn wait_for(&self, phase: Phase, cause: &mut Cause) -> Vec<String> {
        let deadline = Instant::now() + self.spawner.longest_drain(phase);
        loop {
            // Counted first: whoever has left the list has left its message.
            let done = self.spawner.count(phase) == 0;
            match self.spawner.next_message(Some(if done { Instant::now() } else { deadline })) {
                Some(message) => note(message, cause),
                None if done => return Vec::new(),
                None => return self.spawner.abandon(phase),
            }
        }
    }
}

/// Looks at an end that came while the process drains.
fn note(message: Message, cause: &mut Cause) {
    let (name, error) = match message {
        Message::Requested | Message::Ended { end: End::Finished, .. } => return,
        Message::Ended { end: End::Failed(error), name, .. } => (name, error),
        Message::Ended { end: End::Panicked(message), name, .. } => {
            (name, TaskError::fatal(code::TASK_FAILED, message))
        }
    };
    warn!(task = name, code = %error.code, "ended with an error while it drained: {error}");
    if matches!(cause, Cause::Requested(_) | Cause::Finished) {
        *cause = Cause::Failed { task: name, error };
    }
}

// === impl Spawner ===

impl Spawner {
    /// Starts a named thread. `body` runs until it is asked to stop; it is called again where the kind's policy restarts it, so it must
    /// make everything that a run needs.
    pub fn thread<F>(&self, name: &str, kind: TaskKind, body: F)
    where
        F: FnMut(&Shutdown) -> Result<(), TaskError> + Send + 'static,
    {
        self.thread_with(name, kind, kind.policy(), body);
    }

    /// Starts a named task on the runtime, under the same rules as a thread. The future must not block.
    pub fn task<F, T>(&self, name: &str, kind: TaskKind, body: F)
    where
        F: FnMut(Shutdown) -> T + Send + 'static,
        T: Future<Output = Result<(), TaskError>> + Send + 'static,
    {
        self.task_with(name, kind, kind.policy(), body);
    }

    /// Starts a call on the runtime: work that its caller waits for itself, and that a shutdown does not wait for. `ended` is told whatever
    /// happens, and whether the call has panicked.
    pub fn call(&self, work: impl Future<Output = ()> + Send + 'static, ended: impl FnOnce(bool) + Send + 'static) {
        let running = self.0.telemetry.metrics().tasks.with_label_values(&["call"]);
        running.inc();
        let work = self.0.runtime.spawn(work);
        self.0.runtime.spawn(async move {
            let panicked = work.await.is_err();
            running.dec();
            ended(panicked);
        });
    }

    /// The wish to stop that tasks of this kind are given.
    fn stop(&self, policy: Policy) -> Shutdown {
        match policy.phase {
            Phase::Work => self.0.shutdown.clone(),
            Phase::Serve => self.0.closing.clone(),
            Phase::Foundation => self.0.ending.clone(),
        }
    }

    fn thread_with<F>(&self, name: &str, kind: TaskKind, policy: Policy, mut body: F)
    where
        F: FnMut(&Shutdown) -> Result<(), TaskError> + Send + 'static,
    {
        let id = self.register(name, kind);
        let mut keeper = self.keeper(name, policy);
        let spawner = self.clone();
        let run = move || {
            let end = loop {
                let began = Instant::now();
                let result = catch_unwind(AssertUnwindSafe(|| body(&keeper.stop)));
                match keeper.next(result.map_err(|payload| panic_text(&*payload)), began.elapsed()) {
                    Next::Again(wait) if keeper.stop.wait(wait) => break End::Finished,
                    Next::Again(_) => {}
                    Next::End(end) => break end,
                }
            };
            // What the body owns ends before the task counts as ended: clients are closed, locks are given back.
            drop(body);
            spawner.ended(id, end);
        };
        if let Err(error) = std::thread::Builder::new().name(name.to_owned()).spawn(run) {
            self.ended(id, End::Failed(TaskError::new(code::TASK_FAILED, &error)));
        }
    }

    fn task_with<F, T>(&self, name: &str, kind: TaskKind, policy: Policy, mut body: F)
    where
        F: FnMut(Shutdown) -> T + Send + 'static,
        T: Future<Output = Result<(), TaskError>> + Send + 'static,
    {
        let id = self.register(name, kind);
        let mut keeper = self.keeper(name, policy);
        let spawner = self.clone();
        let handle = self.0.runtime.spawn(async move {
            let end = loop {
                let began = Instant::now();
                // In a set of its own, so that a panic is caught and aborting this task aborts the run.
                let mut run = JoinSet::new();
                match catch_unwind(AssertUnwindSafe(|| body(keeper.stop.clone()))) {
                    Ok(future) => {
                        run.spawn(future);
                    }
                    Err(payload) => break End::Panicked(panic_text(&*payload)),
                }
                let result = match run.join_next().await {
                    Some(Ok(result)) => Ok(result),
                    Some(Err(error)) if error.is_panic() => Err(panic_text(&*error.into_panic())),
                    // Only an abandoned task is cancelled, and then nobody is here to see it.
                    Some(Err(_)) | None => Ok(Ok(())),
                };
                match keeper.next(result, began.elapsed()) {
                    Next::Again(wait) => {
                        if tokio::time::timeout(wait, keeper.stop.requested()).await.is_ok() {
                            break End::Finished;
                        }
                    }
                    Next::End(end) => break end,
                }
            };
            drop(body);
            spawner.ended(id, end);
        });
        if let Some(task) = self.running().tasks.get_mut(&id) {
            task.abort = Some(handle.abort_handle());
        }
    }

    fn keeper(&self, name: &str, policy: Policy) -> Keeper {
        Keeper {
            name: name.to_owned(),
            policy,
            stop: self.stop(policy),
            telemetry: self.0.telemetry.clone(),
            failures: 0,
            fenced: Vec::new(),
        }
    }

    fn register(&self, name: &str, kind: TaskKind) -> u64 {
        let mut running = self.running();
        let id = running.next_id;
        running.next_id += 1;
        running.tasks.insert(id, Task { name: name.to_owned(), kind, abort: None });
        drop(running);
        self.0.telemetry.metrics().tasks.with_label_values(&[kind.as_str()]).inc();
        self.0
            .telemetry
            .status(&format!("task.{name}"), serde_json::json!({"state": "running", "kind": kind.as_str()}));
        id
    }

    fn ended(&self, id: u64, end: End) {
        let mut running = self.running();
        // An abandoned task may still end; nobody waits for it any more.
        let Some(Task { name, kind, .. }) = running.tasks.remove(&id) else { return };
        self.0.telemetry.metrics().tasks.with_label_values(&[kind.as_str()]).dec();
        self.0.telemetry.status(&format!("task.{name}"), serde_json::json!({"state": "ended", "kind": kind.as_str()}));
        running.messages.push_back(Message::Ended { name, kind, end });
        self.0.told.notify_all();
    }

    /// The next message; `None` when there is none until the deadline.
    fn next_message(&self, deadline: Option<Instant>) -> Option<Message> {
        let mut running = self.running();
        loop {
            if let Some(message) = running.messages.pop_front() {
                return Some(message);
            }
            running = match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => return None,
                Some(left) => self.0.told.wait_timeout(running, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.0.told.wait(running).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn count(&self, phase: Phase) -> usize {
        self.running().tasks.values().filter(|task| task.kind.policy().phase == phase).count()
    }

    fn longest_drain(&self, phase: Phase) -> Duration {
        self.running()
            .tasks
            .values()
            .filter(|task| task.kind.policy().phase == phase)
            .map(|task| task.kind.policy().drain.unwrap_or_else(|| self.0.shutdown.left()))
            .max()
            .unwrap_or_default()
    }

    /// Gives up on the tasks of a phase and returns their names. Tasks of the runtime are aborted; a thread cannot be.
    fn abandon(&self, phase: Phase) -> Vec<String> {
        let mut running = self.running();
        let gone: Vec<u64> =
            running.tasks.iter().filter(|(_, task)| task.kind.policy().phase == phase).map(|(id, _)| *id).collect();
        let mut names = Vec::with_capacity(gone.len());
        for id in gone {
            if let Some(task) = running.tasks.remove(&id) {
                if let Some(abort) = task.abort {
                    abort.abort();
                }
                names.push(task.name);
            }
        }
        names
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Keeper ===

impl Keeper {
    /// Decides after a run that took so long. `Err` is a panic.
    fn next(&mut self, result: Result<Result<(), TaskError>, String>, took: Duration) -> Next {
        let error = match result {
            Err(panic) => return Next::End(End::Panicked(panic)),
            Ok(Ok(())) => return Next::End(End::Finished),
            Ok(Err(error)) => error,
        };
        let OnError::Restart(restart) = self.policy.on_error else { return Next::End(End::Failed(error)) };
        if restart.after == After::Recoverable && !error.recoverable {
            return Next::End(End::Failed(error));
        }
        if self.stop.is_requested() {
            // It would have been started again; there is nothing left to start it for.
            warn!(task = self.name, code = %error.code, "ended with an error while it was stopped: {error}");
            return Next::End(End::Finished);
        }
        if let Some(fences) = restart.fences
            && error.code == code::KAFKA_FENCED
        {
            self.fenced.retain(|at| at.elapsed() < fences.within);
            self.fenced.push(Instant::now());
            if self.fenced.len() > fences.max {
                return Next::End(End::Failed(error));
            }
        }
        if took >= restart.recovered {
            self.failures = 0;
        }
        let doubled = restart.min.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        let wait = doubled.min(restart.max);
        self.failures = self.failures.saturating_add(1).min(31);
        self.telemetry.emit(&TaskRestarted {
            task: &self.name,
            code: error.code,
            message: &error.message,
            wait,
            transactional: self.policy.transactional,
        });
        Next::Again(wait)
    }
}

/// Runs `work` on a named thread of its own while `wait` runs on this one; both have ended when it returns. `wait` is given a receiver that
/// is disconnected as soon as `work` is over. `Err` is a panic of `work`, or that there was no thread for it.
pub fn beside<T: Send, W>(
    name: &str,
    work: impl FnOnce() -> T + Send,
    wait: impl FnOnce(&Receiver<()>) -> W,
) -> (Result<T, String>, W) {
    // Nothing is sent: the channel is closed with the end of the work.
    let (finished, over): (SyncSender<()>, _) = sync_channel(0);
    std::thread::scope(|scope| {
        let run = move || {
            let result = work();
            drop(finished);
            result
        };
        let worker = std::thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, run);
        let waited = wait(&over);
        let result = match worker {
            Ok(worker) => worker.join().map_err(|payload| format!("it has panicked: {}", panic_text(&*payload))),
            Err(error) => Err(format!("it could not be started: {error}")),
        };
        (result, waited)
    })
}

fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}
