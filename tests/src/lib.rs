//! The workshop for system tests: a real Kafka, the real binary, real Delta tables, and a vendor that keeps what it received.
//!
//! The tests themselves are in `tests/system/main.rs`, one binary with a module for each part of the story. They run the program that users
//! run and look only at what a user can see: topics, the vendor, the command line, the files. Nothing here may reach into the
//! router's own crates, except for the words of `tailwater-core` in which its records are written.
//!
//! No test waits for a fixed time: [`wait::eventually`] asks again until something is so, and says what it saw last when it gives up.

#![allow(
    clippy::panic,
    clippy::print_stderr,
    reason = "a test stops at the first surprise, and says on standard error what it saw and what it skips"
)]

pub mod audit;
pub mod chaos;
pub mod kafka;
pub mod lake;
pub mod process;
pub mod scene;
pub mod table;
pub mod topics;
pub mod vendor;
pub mod wait;

use std::path::PathBuf;
use std::sync::LazyLock;

use tokio::runtime::Runtime;

/// The root of the checkout.
pub fn root() -> PathBuf {
    let root = std::env::var_os("TAILWATER_ROOT")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".."), PathBuf::from);
    root.canonicalize().unwrap_or_else(|error| panic!("the checkout at {} cannot be read: {error}", root.display()))
}

/// The runtime for the few things that are asynchronous; tests themselves are not, because they mostly wait for processes.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap_or_else(|error| panic!("no runtime could be started: {error}"))
    });
    &RUNTIME
}
