//! The asynchronous runtime, for the commands that need one.

use tailwater_core::code;
use tokio::runtime::{Builder, Runtime};

use super::Error;

/// Threads of the runtime. It carries HTTP calls and the admin port; Kafka and V8 have threads of their own.
const THREADS: usize = 2;

/// Builds the runtime. Only after `tailwater_sandbox::initialize`: its threads may run transforms' callers.
///
/// # Errors
/// The system gives no threads.
pub fn runtime() -> Result<Runtime, Error> {
    Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("async")
        .enable_all()
        .build()
        .map_err(|error| Error::failed(code::TASK_FAILED, &error))
}
