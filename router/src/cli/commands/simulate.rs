//! `tailwater simulate`: a vendor on this machine.

use tailwater_core::code;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::args::SimulateArgs;
use crate::cli::{Error, Exit, output, runtime};

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// The simulator cannot be started, or its server fails.
pub fn execute(args: &SimulateArgs) -> Result<Exit, Error> {
    let runtime = runtime()?;
    runtime.block_on(async {
        // Listened to before the simulator announces itself: whoever waits for that line may send a signal right after it.
        let failed = |error: std::io::Error| Error::failed(code::TASK_FAILED, &error);
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let announce = |greeting: &str| {
            if let Err(error) = output::line(greeting) {
                tracing::warn!("{error}");
            }
        };
        args.command.run(announce, stop).await.map_err(|error| Error::failed(error.code(), &error))
    })?;
    Ok(Exit::Success)
}
