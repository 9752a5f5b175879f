//! SIGTERM and SIGINT: the first one asks for a shutdown, the second one ends the process at once.

use std::thread::JoinHandle;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};
use tracing::{error, info};

use super::Shutdown;

/// Listens on a thread of its own until it is dropped.
pub(super) struct Listener {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    pub(super) fn start(shutdown: Shutdown) -> std::io::Result<Self> {
        let mut signals = Signals::new([SIGTERM, SIGINT])?;
        let handle = signals.handle();
        let listen = move || {
            let mut heard = false;
            for signal in signals.forever() {
                let name = if signal == SIGINT { "SIGINT" } else { "SIGTERM" };
                if std::mem::replace(&mut heard, true) {
                    error!(signal = name, "a second signal: ending at once; what was not committed will be read again");
                    // Without the C library's exit handlers: they would tear down Kafka clients and V8 under running threads.
                    signal_hook::low_level::exit(128 + signal);
                }
                info!(signal = name, "asked to stop; a second signal ends at once");
                shutdown.request(format!("{name} was received"));
            }
        };
        let thread = std::thread::Builder::new().name("signals".to_owned()).spawn(listen)?;
        Ok(Self { handle, thread: Some(thread) })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("the thread that listens for signals panicked");
        }
    }
}
