//! Starting V8, once per process.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

static STARTED: Once = Once::new();
static READY: AtomicBool = AtomicBool::new(false);

/// What every isolate runs with. Flags are frozen when V8 starts.
///
/// - No code from strings, in addition to each context's own setting.
/// - Bytecode is kept: a transform that rests for a while must not be compiled again.
/// - No unrolling of loops: the phase that does it takes the check for an interrupt out of short inner loops, and in this version of V8
///   sometimes out of the endless loop around one (`for (;;) new Array(1000).fill(1)`), which then nothing can stop.
/// - Young objects get 16 MiB: a batch's rows live for one call only, and should die before they are copied.
const FLAGS: &str = "--disallow-code-generation-from-strings --no-flush-bytecode --no-turboshaft-loop-unrolling --max-semi-space-size=16 --stack-size=984";

/// Starts V8. Must be called on the main thread before any other thread exists (so before an asynchronous runtime is built):
/// V8 guards its tables with a memory protection key, and only threads that are made afterwards inherit the right to it. A thread that
/// existed before would end the process with a segmentation fault as soon as it ran a transform.
///
/// Further calls do nothing.
pub fn initialize() {
    start(v8::new_default_platform);
}

/// Starts V8 without that guard, for tests, whose threads exist before anything of ours runs.
pub fn initialize_for_tests() {
    start(v8::new_unprotected_default_platform);
}

pub(crate) fn is_initialized() -> bool {
    READY.load(Ordering::Acquire)
}

fn start(platform: fn(u32, bool) -> v8::UniqueRef<v8::Platform>) {
    STARTED.call_once(|| {
        v8::V8::set_flags_from_string(FLAGS);
        // What a transform shows as a local date must not depend on the machine.
        v8::icu::set_default_locale("en-US");
        if !v8::icu::set_default_time_zone("UTC") {
            tracing::warn!(
                "the time zone of the transforms could not be set to UTC; local dates depend on this machine"
            );
        }
        v8::V8::initialize_platform(platform(0, false).make_shared());
        v8::V8::initialize();
        READY.store(true, Ordering::Release);
    });
}
