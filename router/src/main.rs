//! `tailwater`: V8 first, then the arguments, then the command.

use std::process::ExitCode;

use tailwater::cli;

#[cfg(not(feature = "alloc-metrics"))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[cfg(feature = "alloc-metrics")]
#[global_allocator]
static ALLOCATOR: cap::Cap<mimalloc::MiMalloc> = cap::Cap::new(mimalloc::MiMalloc, usize::MAX);

fn main() -> ExitCode {
    // On the main thread and before any other thread exists: V8 hands its right to its tables down to threads made afterwards only.
    tailwater_sandbox::initialize();
    let arguments = cli::parse();
    let exit = cli::report(|| {
        cli::start_logging(&arguments)?;
        cli::dispatch(&arguments)
    });
    #[cfg(feature = "alloc-metrics")]
    tracing::info!(allocated_bytes = ALLOCATOR.total_allocated(), "the process ends");
    exit.into()
}
