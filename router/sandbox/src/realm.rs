//! One transform in one isolate: its context, with the driver and the author's code in it.

use std::cell::Cell;

use crate::answer::{self, Fault};
use crate::encode::Encoded;
use crate::error::{LoadErrorKind, RowError};
use crate::host::{self, Run};
use crate::options::{KEY_CHARACTERS_MAX, OUTPUTS_PER_ROW_MAX, Options};

const DRIVER: &str = include_str!("driver.js");
const SURFACE: &str = include_str!("surface.js");

/// As it appears in stacks, where it is left out: an author sees their own frames.
const DRIVER_NAME: &str = "tailwater:driver";

/// Characters of a source line in an error.
const EXCERPT_CHARACTERS_MAX: usize = 160;

pub(crate) struct Realm {
    context: v8::Global<v8::Context>,
    start: v8::Global<v8::Function>,
    finish: v8::Global<v8::Function>,
    describe: v8::Global<v8::Function>,
    forget: v8::Global<v8::Function>,
    /// Of its own, so that what one transform leaves behind never runs in another's turn.
    queue: v8::MicrotaskQueueHandle,
    /// How often the transform has been called.
    calls: Cell<u32>,
}

/// Why a transform cannot be loaded.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) kind: LoadErrorKind,
    pub(crate) message: String,
    pub(crate) line: Option<u32>,
    pub(crate) column: Option<u32>,
    pub(crate) excerpt: Option<String>,
}

/// A run that has no results.
#[derive(Debug)]
pub(crate) enum Failure {
    /// V8 was told to stop: a limit was hit.
    Stopped,
    Failed(RowError),
    /// The driver was not there to say what happened.
    Broken(String),
}

type Tried<'a, 'b, 'c, 'd> = v8::PinnedRef<'a, v8::TryCatch<'b, 'c, v8::HandleScope<'d>>>;

// === impl Realm ===

impl Realm {
    /// Makes a context and loads a transform into it.
    pub(crate) fn load(
        isolate: &mut v8::OwnedIsolate,
        name: &str,
        source: &str,
        options: &Options,
    ) -> Result<Self, Refusal> {
        let queue = v8::MicrotaskQueue::new(isolate, v8::MicrotasksPolicy::Explicit);
        v8::scope!(let scope, isolate);
        let queue_pointer = std::ptr::from_ref::<v8::MicrotaskQueue>(&queue).cast_mut();
        let context =
            v8::Context::new(scope, v8::ContextOptions { microtask_queue: Some(queue_pointer), ..Default::default() });
        context.set_allow_generation_from_strings(false);
        let scope = &mut v8::ContextScope::new(scope, context);
        let driver = install_driver(scope, options)?;
        let run = Run::begin(None, Vec::new(), options.console_bytes_max);
        let entry = find_entry(scope, name, source, &queue)?;
        if let Some(reason) = run.unhandled() {
            let reason = v8::Local::new(scope, reason);
            return Err(Refusal::thrown(scope, name, reason));
        }
        let install = member(scope, driver, "install").ok_or_else(Refusal::no_driver)?;
        let receiver = v8::undefined(scope).into();
        install.call(scope, receiver, &[entry.into()]).ok_or_else(Refusal::stopped)?;
        let before = v8::Function::new(scope, host::before_reaction).ok_or_else(Refusal::no_driver)?;
        scope.set_promise_hooks(None, Some(before), None, None);
        Ok(Self {
            start: driver_function(scope, driver, "start")?,
            finish: driver_function(scope, driver, "finish")?,
            describe: driver_function(scope, driver, "describe")?,
            forget: driver_function(scope, driver, "forget")?,
            context: v8::Global::new(scope, context),
            queue,
            calls: Cell::new(0),
        })
    }

    /// Runs the encoded rows and hands the driver's text (see `answer`) to `read`. `run` must have the same rows.
    pub(crate) fn run<R>(
        &self,
        isolate: &mut v8::OwnedIsolate,
        name: &str,
        encoded: &mut Encoded,
        run: &Run,
        read: impl FnOnce(&str) -> R,
    ) -> Result<R, Failure> {
        v8::scope!(let scope, isolate);
        let context = v8::Local::new(scope, &self.context);
        let scope = &mut v8::ContextScope::new(scope, context);
        v8::tc_scope!(let scope, scope);
        let receiver: v8::Local<'_, v8::Value> = v8::undefined(scope).into();
        let result = self.call(scope, receiver, name, encoded, run).map(|answer| {
            // Read where it is: nothing is allocated in the heap meanwhile, so that it cannot be moved.
            let view = v8::ValueView::new(scope, answer);
            match view.as_str() {
                Some(answer) => read(answer),
                None => read(&view.to_cow_lossy()),
            }
        });
        // After a stop nothing can be called; then the context goes anyway.
        if !matches!(result, Err(Failure::Stopped)) {
            scope.reset();
            let forget = v8::Local::new(scope, &self.forget);
            if forget.call(scope, receiver, &[]).is_none() && result.is_ok() {
                return Err(Failure::Stopped);
            }
        }
        result
    }

    fn call<'c>(
        &self,
        scope: &mut Tried<'_, '_, 'c, '_>,
        receiver: v8::Local<'c, v8::Value>,
        name: &str,
        encoded: &mut Encoded,
        run: &Run,
    ) -> Result<v8::Local<'c, v8::String>, Failure> {
        let broken = |what: &str| Failure::Broken(format!("{what} is too long for V8"));
        let call = self.calls.get().wrapping_add(1);
        self.calls.set(call);
        run.number(call);
        let number_of_call = v8::Integer::new_from_unsigned(scope, call).into();
        scope.set_continuation_preserved_embedder_data(number_of_call);
        let text = rows_text(scope, encoded).ok_or_else(|| broken("the batch"))?;
        let notes = match encoded.notes().map_err(Failure::Broken)? {
            Some(notes) => string(scope, notes).ok_or_else(|| broken("the list of overlaid values"))?.into(),
            None => v8::undefined(scope).into(),
        };
        let seed = seed(&encoded.headers);
        let headers = string(scope, &encoded.headers).ok_or_else(|| broken("the headers"))?;
        let arguments: [v8::Local<'_, v8::Value>; 7] = [
            text.into(),
            number(scope, encoded.rows.len() as f64),
            number(scope, encoded.schema as f64),
            notes,
            headers.into(),
            number(scope, encoded.now_ms as f64),
            v8::Integer::new(scope, seed).into(),
        ];
        let start = v8::Local::new(scope, &self.start);
        if start.call(scope, receiver, &arguments).is_none() {
            return Err(self.failure(scope, receiver, name));
        }
        self.queue.perform_checkpoint(scope);
        if scope.is_execution_terminating() || run.left_over() {
            return Err(Failure::Stopped);
        }
        if let Some(reason) = run.unhandled() {
            let reason = v8::Local::new(scope, reason);
            return Err(self.describe(scope, receiver, name, reason, None));
        }
        // The reactions have reset it, and turning the outputs into text runs the author's code as well.
        scope.set_continuation_preserved_embedder_data(number_of_call);
        let mode = v8::Integer::new(scope, encoded.non_finite).into();
        let finish = v8::Local::new(scope, &self.finish);
        match finish.call(scope, receiver, &[mode]) {
            Some(answer) => answer
                .try_cast::<v8::String>()
                .map_err(|_| Failure::Broken("the driver's answer is not a text".to_owned())),
            None => Err(self.failure(scope, receiver, name)),
        }
    }

    /// What was just thrown.
    fn failure<'c>(
        &self,
        scope: &mut Tried<'_, '_, 'c, '_>,
        receiver: v8::Local<'c, v8::Value>,
        name: &str,
    ) -> Failure {
        if scope.has_terminated() || !scope.can_continue() {
            return Failure::Stopped;
        }
        let Some(exception) = scope.exception() else { return Failure::Stopped };
        // A thrown value that is no Error has no stack, but V8 knows where it was thrown.
        let place = scope.message().and_then(|message| {
            let file = message.get_script_resource_name(scope)?.to_rust_string_lossy(scope);
            let line = u32::try_from(message.get_line_number(scope)?).ok()?;
            (file == name).then_some((line, u32::try_from(message.get_start_column() + 1).ok()?))
        });
        scope.reset();
        self.describe(scope, receiver, name, exception, place)
    }

    fn describe<'c>(
        &self,
        scope: &mut Tried<'_, '_, 'c, '_>,
        receiver: v8::Local<'c, v8::Value>,
        name: &str,
        exception: v8::Local<'c, v8::Value>,
        place: Option<(u32, u32)>,
    ) -> Failure {
        let describe = v8::Local::new(scope, &self.describe);
        let Some(described) = describe.call(scope, receiver, &[exception]) else {
            return if scope.has_terminated() {
                Failure::Stopped
            } else {
                Failure::Broken("an error cannot be described".to_owned())
            };
        };
        match serde_json::from_str::<Fault>(&answer::well_formed(&described.to_rust_string_lossy(scope))) {
            Ok(fault) => {
                let mut error = fault.into_error(name);
                if let (None, Some((line, column))) = (error.line, place) {
                    error.line = Some(line);
                    error.column = Some(column);
                }
                Failure::Failed(error)
            }
            Err(error) => Failure::Broken(format!("an error cannot be described: {error}")),
        }
    }
}

// === Loading ===

fn install_driver<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    options: &Options,
) -> Result<v8::Local<'s, v8::Object>, Refusal> {
    let settings = format!(
        r#"{{"outputBytesMax":{},"outputsMax":{OUTPUTS_PER_ROW_MAX},"consoleBytesMax":{},"keyMax":{KEY_CHARACTERS_MAX}}}"#,
        options.output_bytes_max, options.console_bytes_max
    );
    v8::tc_scope!(let scope, scope);
    let installed = (|| {
        let settings = string(scope, &settings)?;
        let settings = v8::json::parse(scope, settings)?;
        let driver = compile_script(scope, DRIVER_NAME, DRIVER)?.run(scope)?.try_cast::<v8::Function>().ok()?;
        let surface = compile_script(scope, DRIVER_NAME, SURFACE)?.run(scope)?;
        let host = v8::Function::new(scope, host::host)?;
        let emit = v8::Function::new(scope, host::emit)?;
        let compile = v8::Function::new(scope, host::compile)?;
        let receiver = v8::undefined(scope).into();
        let calls = driver.call(scope, receiver, &[host.into(), emit.into(), compile.into(), settings, surface])?;
        v8::Local::<v8::Object>::try_from(calls).ok()
    })();
    installed.ok_or_else(|| {
        if scope.has_terminated() {
            return Refusal::stopped();
        }
        let mut refusal = Refusal::no_driver();
        if let Some(message) = scope.message() {
            let line = message.get_line_number(scope).unwrap_or(0);
            refusal.message =
                format!("{} (line {line}: {})", refusal.message, message.get(scope).to_rust_string_lossy(scope));
        }
        refusal
    })
}

fn driver_function<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    driver: v8::Local<'s, v8::Object>,
    name: &str,
) -> Result<v8::Global<v8::Function>, Refusal> {
    let function = member(scope, driver, name).ok_or_else(Refusal::no_driver)?;
    Ok(v8::Global::new(scope, function))
}

/// The author's function: from a script (`function send(payload, headers)`), or else from a module that exports it.
fn find_entry<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    name: &str,
    source: &str,
    queue: &v8::MicrotaskQueue,
) -> Result<v8::Local<'s, v8::Function>, Refusal> {
    let as_script = {
        v8::tc_scope!(let scope, scope);
        match compile_script(scope, name, source) {
            Some(script) => Ok(script),
            None => Err(Refusal::syntax(scope)),
        }
    };
    match as_script {
        Ok(script) => {
            {
                v8::tc_scope!(let scope, scope);
                if script.run(scope).is_none() {
                    return Err(Refusal::caught(scope, name));
                }
                queue.perform_checkpoint(scope);
            }
            // The functions may be constants, which are no properties of the global object: a second script sees them.
            v8::tc_scope!(let scope, scope);
            let probe = "typeof send === 'function' ? send : typeof transform === 'function' ? transform : undefined";
            let found = compile_script(scope, DRIVER_NAME, probe).and_then(|probe| probe.run(scope));
            match found.map(v8::Local::<v8::Function>::try_from) {
                Some(Ok(function)) => Ok(function),
                Some(Err(_)) => Err(Refusal::no_function()),
                None => Err(Refusal::caught(scope, name)),
            }
        }
        // Only a module may say these words; whatever else is wrong with it, the script's error is as good.
        Err(refusal) if ["export", "import", "await"].iter().any(|word| refusal.message.contains(word)) => {
            find_export(scope, name, source, queue)
        }
        Err(refusal) => Err(refusal),
    }
}

fn find_export<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    name: &str,
    source: &str,
    queue: &v8::MicrotaskQueue,
) -> Result<v8::Local<'s, v8::Function>, Refusal> {
    v8::tc_scope!(let scope, scope);
    let (Some(text), Some(origin)) = (string(scope, source), origin(scope, name, true)) else {
        return Err(Refusal::stopped());
    };
    let mut compiled = v8::script_compiler::Source::new(text, Some(&origin));
    let Some(module) = v8::script_compiler::compile_module(scope, &mut compiled) else {
        return Err(Refusal::syntax(scope));
    };
    let requests = module.get_module_requests();
    if requests.length() > 0 {
        let mut refusal = Refusal::new(
            LoadErrorKind::Import,
            "a transform cannot import anything; bundle what it needs into its file",
        );
        if let Some(request) =
            requests.get(scope, 0).and_then(|request| v8::Local::<v8::ModuleRequest>::try_from(request).ok())
        {
            let place = module.source_offset_to_location(request.get_source_offset());
            let specifier = request.get_specifier().to_rust_string_lossy(scope);
            refusal.message = format!("it imports '{specifier}'; {}", refusal.message);
            refusal.line = u32::try_from(place.get_line_number() + 1).ok();
            refusal.column = u32::try_from(place.get_column_number() + 1).ok();
            refusal.excerpt = refusal.line.and_then(|line| source.lines().nth(line as usize - 1)).map(shorten);
        }
        return Err(refusal);
    }
    if module.instantiate_module(scope, no_module).is_none() {
        return Err(Refusal::caught(scope, name));
    }
    let Some(evaluated) = module.evaluate(scope) else { return Err(Refusal::caught(scope, name)) };
    queue.perform_checkpoint(scope);
    if scope.has_terminated() || scope.is_execution_terminating() {
        return Err(Refusal::stopped());
    }
    if let Ok(promise) = v8::Local::<v8::Promise>::try_from(evaluated) {
        match promise.state() {
            v8::PromiseState::Fulfilled => {}
            v8::PromiseState::Rejected => {
                promise.mark_as_handled();
                let reason = promise.result(scope);
                return Err(Refusal::thrown(scope, name, reason));
            }
            v8::PromiseState::Pending => {
                return Err(Refusal::new(LoadErrorKind::Pending, "its top level awaits something that never comes"));
            }
        }
    }
    let namespace =
        v8::Local::<v8::Object>::try_from(module.get_module_namespace()).map_err(|_| Refusal::no_function())?;
    ["send", "transform", "default"]
        .iter()
        .find_map(|export| member(scope, namespace, export))
        .ok_or_else(Refusal::no_function)
}

/// Never called, because a module with imports is refused before; V8 wants one.
fn no_module<'s>(
    _context: v8::Local<'s, v8::Context>,
    _specifier: v8::Local<'s, v8::String>,
    _attributes: v8::Local<'s, v8::FixedArray>,
    _referrer: v8::Local<'s, v8::Module>,
) -> Option<v8::Local<'s, v8::Module>> {
    None
}

// === impl Refusal ===

impl Refusal {
    pub(crate) fn new(kind: LoadErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), line: None, column: None, excerpt: None }
    }

    /// V8 was told to stop; whether by time or by memory is the caller's to say.
    fn stopped() -> Self {
        Self::new(LoadErrorKind::Timeout, "it was stopped")
    }

    fn no_driver() -> Self {
        Self::new(LoadErrorKind::Threw, "the sandbox's driver could not be started")
    }

    fn no_function() -> Self {
        Self::new(
            LoadErrorKind::NoFunction,
            "it has no function to call; write `async function send(payload, headers) { return payload.events.map(row => ...) }`, or export it",
        )
    }

    fn syntax(scope: &mut Tried<'_, '_, '_, '_>) -> Self {
        if scope.has_terminated() {
            return Self::stopped();
        }
        let mut refusal = Self::new(LoadErrorKind::Syntax, "it does not parse");
        refusal.locate(scope);
        refusal
    }

    /// What the top level threw.
    fn caught(scope: &mut Tried<'_, '_, '_, '_>, name: &str) -> Self {
        if scope.has_terminated() || !scope.can_continue() {
            return Self::stopped();
        }
        let mut refusal = Self::new(LoadErrorKind::Threw, "its top level threw an error");
        refusal.locate(scope);
        if let Some(message) = scope.message()
            && message.get_script_resource_name(scope).is_none_or(|file| file.to_rust_string_lossy(scope) != name)
        {
            (refusal.line, refusal.column, refusal.excerpt) = (None, None, None);
        }
        refusal
    }

    fn thrown<'s>(scope: &mut v8::PinScope<'s, '_>, name: &str, reason: v8::Local<'s, v8::Value>) -> Self {
        let message = v8::Exception::create_message(scope, reason);
        let mut refusal = Self::new(LoadErrorKind::Threw, "its top level threw an error");
        let ours = message.get_script_resource_name(scope).is_some_and(|file| file.to_rust_string_lossy(scope) == name);
        refusal.place(scope, message, ours);
        refusal
    }

    fn locate(&mut self, scope: &mut Tried<'_, '_, '_, '_>) {
        if let Some(message) = scope.message() {
            self.place(scope, message, true);
        }
    }

    fn place(&mut self, scope: &mut v8::PinScope<'_, '_>, message: v8::Local<'_, v8::Message>, with_line: bool) {
        let text = message.get(scope).to_rust_string_lossy(scope);
        self.message = text.strip_prefix("Uncaught ").unwrap_or(&text).to_owned();
        if with_line {
            self.line =
                message.get_line_number(scope).and_then(|line| u32::try_from(line).ok()).filter(|line| *line > 0);
            self.column = self.line.and_then(|_| u32::try_from(message.get_start_column() + 1).ok());
            self.excerpt = message.get_source_line(scope).map(|line| shorten(&line.to_rust_string_lossy(scope)));
        }
    }
}

// === Small things ===

fn compile_script<'s>(scope: &mut v8::PinScope<'s, '_>, name: &str, source: &str) -> Option<v8::Local<'s, v8::Script>> {
    let origin = origin(scope, name, false)?;
    let source = string(scope, source)?;
    v8::Script::compile(scope, source, Some(&origin))
}

/// Compiles a script that the driver has written.
pub(crate) fn driver_script<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    source: v8::Local<'_, v8::String>,
) -> Option<v8::Local<'s, v8::Script>> {
    let origin = origin(scope, DRIVER_NAME, false)?;
    v8::Script::compile(scope, source, Some(&origin))
}

fn origin<'s>(scope: &mut v8::PinScope<'s, '_>, name: &str, is_module: bool) -> Option<v8::ScriptOrigin<'s>> {
    let name = string(scope, name)?.into();
    Some(v8::ScriptOrigin::new(scope, name, 0, 0, false, 0, None, false, false, is_module, None))
}

fn member<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    object: v8::Local<'s, v8::Object>,
    name: &str,
) -> Option<v8::Local<'s, v8::Function>> {
    let name = string(scope, name)?;
    v8::Local::<v8::Function>::try_from(object.get(scope, name.into())?).ok()
}

fn string<'s>(scope: &mut v8::PinScope<'s, '_>, text: &str) -> Option<v8::Local<'s, v8::String>> {
    v8::String::new_from_utf8(scope, text.as_bytes(), v8::NewStringType::Normal)
}

/// V8 reads ASCII where it is; anything else has to be turned into its own encodings.
fn rows_text<'s>(scope: &mut v8::PinScope<'s, '_>, encoded: &mut Encoded) -> Option<v8::Local<'s, v8::String>> {
    let text = std::mem::take(&mut encoded.text);
    if text.len() > v8::String::MAX_LENGTH {
        return None;
    }
    if encoded.ascii {
        v8::String::new_external_onebyte(scope, text.into_boxed_slice())
    } else {
        v8::String::new_from_utf8(scope, &text, v8::NewStringType::Normal)
    }
}

/// Numbers of JavaScript; counts and milliseconds stay far below 2^53.
fn number<'s>(scope: &mut v8::PinScope<'s, '_>, value: f64) -> v8::Local<'s, v8::Value> {
    v8::Number::new(scope, value).into()
}

/// FNV-1a: the chance of a batch depends on what it is, not on when it runs.
fn seed(text: &str) -> i32 {
    text.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)).cast_signed()
}

fn shorten(line: &str) -> String {
    let line = line.trim_end();
    match line.char_indices().nth(EXCERPT_CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line.to_owned(),
    }
}
