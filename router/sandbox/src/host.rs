//! What the driver may ask of us while a batch runs, and what V8 tells us then: the callbacks.
//!
//! An isolate stays on its thread, so what the callbacks work on stands in a variable of the thread: the *stage*. It is set for
//! the length of one run and cleared after it.

use std::cell::RefCell;
use std::sync::Arc;

use crate::batch::{ConsoleLevel, ConsoleLine};
use crate::encode;
use crate::job::RunJob;

/// Rejected promises that are remembered until somebody handles them. Beyond it they are not, which changes nothing: the run
/// fails for the first one already.
const REJECTIONS_MAX: usize = 1000;

/// Lines of the console per run, whatever their length.
const CONSOLE_LINES_MAX: usize = 200;

#[derive(Default)]
struct Stage {
    loan: Option<Loan>,
    console: Vec<ConsoleLine>,
    console_bytes: usize,
    console_bytes_max: usize,
    console_dropped: u64,
    rejections: Vec<(v8::Global<v8::Promise>, v8::Global<v8::Value>)>,
    /// The run's number within its context; 0 while the transform is loaded.
    call: u32,
    left_over: bool,
}

/// The batch of the run, and which of its rows the driver was given.
struct Loan {
    job: Arc<RunJob>,
    rows: Vec<usize>,
}

thread_local! {
    static STAGE: RefCell<Stage> = RefCell::default();
}

/// What a run left behind on the stage.
#[derive(Debug, Default)]
pub(crate) struct Console {
    pub(crate) lines: Vec<ConsoleLine>,
    pub(crate) dropped: u64,
}

/// A run's time on the stage.
pub(crate) struct Run(());

impl Run {
    /// Without a job's rows while a transform is loaded: its top level runs, too.
    pub(crate) fn begin(job: Option<&Arc<RunJob>>, rows: Vec<usize>, console_bytes_max: usize) -> Self {
        STAGE.with_borrow_mut(|stage| {
            let loan = job.map(|job| Loan { job: Arc::clone(job), rows });
            *stage = Stage { loan, console_bytes_max, ..Stage::default() };
        });
        Self(())
    }

    /// From now on, what is put off belongs to the run of this number.
    pub(crate) fn number(&self, call: u32) {
        STAGE.with_borrow_mut(|stage| stage.call = call);
    }

    /// Whether work of an earlier run was about to run.
    pub(crate) fn left_over(&self) -> bool {
        STAGE.with_borrow(|stage| stage.left_over)
    }

    /// Takes what was written to the console.
    pub(crate) fn console(&self) -> Console {
        STAGE.with_borrow_mut(|stage| Console {
            lines: std::mem::take(&mut stage.console),
            dropped: std::mem::take(&mut stage.console_dropped),
        })
    }

    /// The reason of a promise that was rejected and that nobody handles, if there is one.
    pub(crate) fn unhandled(&self) -> Option<v8::Global<v8::Value>> {
        STAGE.with_borrow(|stage| stage.rejections.first().map(|(_, reason)| reason.clone()))
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        STAGE.with_borrow_mut(|stage| *stage = Stage::default());
    }
}

// === The driver's questions ===

/// `host(what, index)`: the text of a row's event, profile or data, or of the schema.
pub(crate) fn host(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments<'_>,
    mut result: v8::ReturnValue<'_>,
) {
    let what = arguments.get(0).uint32_value(scope).unwrap_or(u32::MAX);
    let index = arguments.get(1).uint32_value(scope).unwrap_or(u32::MAX);
    let text = STAGE.with_borrow(|stage| stage.loan.as_ref().and_then(|loan| loan.text(what, index)));
    match text.and_then(|text| v8::String::new_from_utf8(scope, &text, v8::NewStringType::Normal)) {
        Some(text) => result.set(text.into()),
        None => {
            let message = v8::String::new_from_utf8(scope, b"the sandbox has no such text", v8::NewStringType::Normal);
            if let Some(message) = message {
                let error = v8::Exception::error(scope, message);
                scope.throw_exception(error);
            }
        }
    }
}

/// `compile(source)`: the value of a script of the driver's own making. The contexts themselves allow no code from texts, and the driver
/// hands this to nobody.
pub(crate) fn compile(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments<'_>,
    mut result: v8::ReturnValue<'_>,
) {
    // Where it fails, the exception that V8 has thrown is the driver's to handle.
    let value = arguments
        .get(0)
        .to_string(scope)
        .and_then(|source| crate::realm::driver_script(scope, source))
        .and_then(|script| script.run(scope));
    if let Some(value) = value {
        result.set(value);
    }
}

impl Loan {
    fn text(&self, what: u32, index: u32) -> Option<Vec<u8>> {
        self.job.lent.with(|batch| {
            let schema = batch.schema.as_deref();
            if what == 3 {
                return schema.map(|schema| schema.text().as_bytes().to_vec());
            }
            let row = batch.rows.get(*self.rows.get(usize::try_from(index).ok()?)?)?;
            match what {
                0 => encode::lend(&row.backdrop.event(), None),
                1 => encode::lend(&row.backdrop.profile(), None),
                2 => encode::lend(row.data, schema),
                _ => return None,
            }
            .ok()
        })?
    }
}

/// Lets the calls return that stand for a built-in function that does not.
#[cfg(test)]
pub(crate) static RELEASED: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

/// `emit(level, text)`: keeps a line of the console.
pub(crate) fn emit(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments<'_>,
    _result: v8::ReturnValue<'_>,
) {
    let level = match arguments.get(0).to_rust_string_lossy(scope).as_str() {
        "error" => ConsoleLevel::Error,
        "warn" => ConsoleLevel::Warn,
        "debug" => ConsoleLevel::Debug,
        _ => ConsoleLevel::Info,
    };
    let text = arguments.get(1).to_rust_string_lossy(scope);
    #[cfg(test)]
    if text == "test: do not return" {
        while !RELEASED.load(std::sync::atomic::Ordering::Relaxed) {
            std::hint::spin_loop();
        }
    }
    STAGE.with_borrow_mut(|stage| {
        if stage.console_bytes + text.len() > stage.console_bytes_max || stage.console.len() >= CONSOLE_LINES_MAX {
            stage.console_dropped += 1;
            return;
        }
        stage.console_bytes += text.len();
        stage.console.push(ConsoleLine { level, text, row: None });
    });
}

// === What V8 tells ===

/// Called before a promise's reaction runs. One that belongs to an earlier run of the transform must not: it would act on a row that
/// is gone, and its failure would be blamed on another one. So the run is stopped, and tried again in a new context.
///
/// V8 keeps the number of the run with everything that is put off (see `Realm::call`). What the transform's top level has put off
/// has none, and may run.
pub(crate) fn before_reaction(
    scope: &mut v8::PinScope<'_, '_>,
    _arguments: v8::FunctionCallbackArguments<'_>,
    _result: v8::ReturnValue<'_>,
) {
    let origin = scope.get_continuation_preserved_embedder_data();
    if !origin.is_uint32() {
        return;
    }
    let origin = origin.uint32_value(scope).unwrap_or_default();
    let left_over = STAGE.with_borrow_mut(|stage| {
        stage.left_over |= origin != stage.call;
        stage.left_over
    });
    if left_over {
        scope.terminate_execution();
    }
}

/// Keeps the book on promises that were rejected without a handler: a failure that nobody looks at must not be lost.
pub(crate) unsafe extern "C" fn rejection(message: v8::PromiseRejectMessage<'_>) {
    v8::callback_scope!(unsafe scope, &message);
    let promise = message.get_promise();
    match message.get_event() {
        v8::PromiseRejectEvent::PromiseRejectWithNoHandler => {
            let Some(reason) = message.get_value() else { return };
            let entry = (v8::Global::new(scope, promise), v8::Global::new(scope, reason));
            STAGE.with_borrow_mut(|stage| {
                if stage.rejections.len() < REJECTIONS_MAX {
                    stage.rejections.push(entry);
                }
            });
        }
        v8::PromiseRejectEvent::PromiseHandlerAddedAfterReject => {
            let promise = v8::Global::new(scope, promise);
            STAGE.with_borrow_mut(|stage| stage.rejections.retain(|(other, _)| *other != promise));
        }
        // Settling a settled promise again does nothing, and is no failure.
        v8::PromiseRejectEvent::PromiseRejectAfterResolved | v8::PromiseRejectEvent::PromiseResolveAfterResolved => {}
    }
}
