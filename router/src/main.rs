//! `tailwater`: V8 first, then the arguments, then the command.

use std::process::ExitCode;

use tailwater::cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // On the main thread and before any other thread exists: V8 hands its right to its tables down to threads made afterwards only.
    tailwater_sandbox::initialize();
    let arguments = cli::parse();
    let exit = cli::report(|| {
        cli::start_logging(&arguments)?;
        cli::dispatch(&arguments)
    });
    exit.into()
}
