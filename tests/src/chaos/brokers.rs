//! Where the run's broker comes from: one of its own, which outlives every process, or the child of the process under test.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use crate::kafka::{Broker, free_port};
use crate::wait::{PATIENCE, eventually};

#[derive(Debug)]
pub enum Brokers {
    Own(Broker),
    /// Started by `run --embedded`; only the port is this run's.
    Embedded {
        port: u16,
    },
}

/// The process id of the broker in a state folder, if it runs: an id alone may be another process's by now.
fn child(state: &Path) -> Option<String> {
    let folder = state.join("broker");
    let pid = fs::read_to_string(folder.join("pid")).ok()?.trim().to_owned();
    let words = fs::read(Path::new("/proc").join(&pid).join("cmdline")).ok()?;
    let own = folder.join("server.properties");
    words.split(|byte| *byte == 0).any(|word| word == own.as_os_str().as_encoded_bytes()).then_some(pid)
}

// === impl Brokers ===

impl Brokers {
    pub fn started() -> Self {
        Self::Own(Broker::with_fast_cleanup())
    }

    pub fn embedded() -> Self {
        Self::Embedded { port: free_port() }
    }

    pub fn address(&self) -> String {
        match self {
            Self::Own(broker) => broker.brokers(),
            Self::Embedded { port } => format!("127.0.0.1:{port}"),
        }
    }

    /// Whether somebody listens there.
    pub fn answers(&self) -> bool {
        TcpStream::connect(self.address()).is_ok()
    }

    /// Kills the broker that a process with this state folder has started, or that its predecessor has left behind and that is about
    /// to end. False if there is none.
    pub fn kill_child(state: &Path) -> bool {
        let Some(pid) = child(state) else { return false };
        let status = Command::new("kill").arg("-KILL").arg(&pid).status();
        let killed = status.unwrap_or_else(|error| panic!("kill cannot be run: {error}")).success();
        if killed {
            eventually("the broker is gone", PATIENCE, || {
                if child(state).as_ref() == Some(&pid) { Err("it is there".into()) } else { Ok(()) }
            });
        }
        killed
    }

    /// Waits until the broker that a process with this state folder has started is gone too.
    pub fn wait_for_end(state: &Path) {
        eventually("the embedded broker has ended", PATIENCE, || match child(state) {
            Some(pid) => Err(format!("{pid} runs")),
            None => Ok(()),
        });
    }
}
