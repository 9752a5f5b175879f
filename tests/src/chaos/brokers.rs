//! Where the run's broker comes from: one of its own, which outlives every process, or the child of the process under test.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use crate::kafka::{Broker, free_port};

#[derive(Debug)]
pub enum Brokers {
    Own(Broker),
    /// Started by `run --embedded`; only the port is this run's.
    Embedded {
        port: u16,
    },
}

// === impl Brokers ===

impl Brokers {
    pub fn started() -> Self {
        Self::Own(Broker::started())
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

    /// Kills the child that a process with this state folder has started. False if there is none, because the process has just ended
    /// or is about to start it.
    pub fn kill_child(state: &Path) -> bool {
        let Ok(pid) = fs::read_to_string(state.join("broker/pid")) else { return false };
        let status = Command::new("kill").arg("-KILL").arg(pid.trim()).status();
        status.unwrap_or_else(|error| panic!("kill cannot be run: {error}")).success()
    }
}
