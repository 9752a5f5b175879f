//! A TCP proxy that spoils connections on demand: between the product and the vendor.
//!
//! It knows nothing of HTTP. A fault acts at once, on connections that run as well as on new ones, until another one or none is set.
//!
//! What a client has given up is never passed on: as soon as it closes, whatever the proxy still holds of it is dropped. Otherwise a request
//! would reach the vendor after its own repeat, and the order would be lost where no sender could have kept it.

mod connection;
mod pipe;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::check::Disturbance;
use crate::runtime;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 256;

/// What is wrong with the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Every byte arrives this much later, in each direction.
    Latency(Duration),
    /// Bytes trickle through, in each direction.
    Trickle {
        bytes_per_second: u32,
    },
    /// Connections are reset: those that run, and each new one when it comes.
    Reset,
    /// The request is read, and then the writing side is closed without an answer; the socket stays open. An idle connection waits for its
    /// next request.
    HalfClose,
    /// Connections are accepted, and nothing passes in either direction.
    Stall,
    /// Nobody listens; connections that run are reset.
    Refuse,
}

/// How long a fault was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spell {
    pub fault: Fault,
    pub from: Instant,
    /// `None` while it lasts.
    pub until: Option<Instant>,
}

/// A connection that ended otherwise than by both sides being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken {
    pub at: Instant,
    /// When the exchange began that the break cut off; equal to `at` if there was none.
    pub since: Instant,
    /// The fault at that time.
    pub fault: Fault,
    pub by: Party,
}

/// Who closed a connection first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Party {
    Proxy,
    /// While the proxy held something of the exchange back.
    Client,
    /// Without an answer; the vendor knows why.
    Vendor,
}

/// A proxy that runs until this value goes.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    fault: watch::Sender<Fault>,
    log: Arc<Log>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Log(Mutex<Pages>);

#[derive(Debug, Default)]
struct Pages {
    spells: Vec<Spell>,
    broken: Vec<Broken>,
    accepted: u64,
}

// === impl Proxy ===

impl Proxy {
    /// Starts one on a free port. To be called on a thread of its own or from within asynchronous code.
    pub fn start(target: SocketAddr) -> Self {
        let _runtime = runtime().enter();
        // Holds the port while nobody listens on it.
        let port = socket(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let address = port.local_addr().unwrap_or_else(|error| panic!("the proxy has no address: {error}"));
        let listener = listen(address);
        let (fault, faults) = watch::channel(Fault::None);
        let log = Arc::new(Log::default());
        let accepting = Accepting { address, target, listener: Some(listener), faults, log: Arc::clone(&log) };
        let task = runtime().spawn(async move {
            accepting.run().await;
            drop(port);
        });
        Self { address, fault, log, task }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn set(&self, fault: Fault) {
        self.log.spell(fault);
        self.fault.send_replace(fault);
    }

    pub fn heal(&self) {
        self.set(Fault::None);
    }

    /// The faults that were set, in order, without [`Fault::None`].
    pub fn spells(&self) -> Vec<Spell> {
        self.log.pages().spells.clone()
    }

    /// The connections that broke, in order.
    pub fn broken(&self) -> Vec<Broken> {
        self.log.pages().broken.clone()
    }

    /// Connections that were accepted.
    pub fn accepted(&self) -> u64 {
        self.log.pages().accepted
    }

    /// The broken connections as the checker takes them: each disturbs from the beginning of what it cut off until it broke. Those that
    /// the vendor broke are not among them, because it knows which of its answers did not leave.
    pub fn disturbances(&self) -> Vec<Disturbance> {
        let disturbance = |broken: &Broken| Disturbance {
            from: broken.since,
            until: broken.at,
            what: format!("a connection to the vendor broke ({})", broken.fault),
        };
        self.log.pages().broken.iter().filter(|broken| broken.by != Party::Vendor).map(disturbance).collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

// === impl Log ===

impl Log {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spell(&self, fault: Fault) {
        let now = Instant::now();
        let mut pages = self.pages();
        if let Some(last) = pages.spells.last_mut().filter(|last| last.until.is_none()) {
            last.until = Some(now);
        }
        if fault != Fault::None {
            pages.spells.push(Spell { fault, from: now, until: None });
        }
    }

    fn broke(&self, by: Party, since: Option<Instant>, fault: Fault) {
        let at = Instant::now();
        self.pages().broken.push(Broken { at, since: since.unwrap_or(at), fault, by });
    }
}

// === accepting ===

struct Accepting {
    address: SocketAddr,
    target: SocketAddr,
    /// `None` while connections are refused.
    listener: Option<TcpListener>,
    faults: watch::Receiver<Fault>,
    log: Arc<Log>,
}

impl Accepting {
    /// Runs until the proxy goes, and takes the connections with it.
    async fn run(mut self) {
        let mut connections = JoinSet::new();
        loop {
            let fault = *self.faults.borrow_and_update();
            match fault {
                Fault::Refuse => self.listener = None,
                _ if self.listener.is_none() => self.listener = Some(listen(self.address)),
                _ => {}
            }
            tokio::select! {
                changed = self.faults.changed() => if changed.is_err() { return },
                accepted = accept(self.listener.as_ref()) => match accepted {
                    Ok(client) => self.accepted(client, &mut connections),
                    Err(error) => {
                        eprintln!("proxy: a connection could not be accepted: {error}");
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                },
                _ = connections.join_next(), if !connections.is_empty() => {}
            }
        }
    }

    fn accepted(&self, client: TcpStream, connections: &mut JoinSet<()>) {
        self.log.pages().accepted += 1;
        let (target, faults, log) = (self.target, self.faults.clone(), Arc::clone(&self.log));
        connections.spawn(async move {
            let ending = connection::run(client, target, faults.clone()).await;
            if let connection::Ending::Broken { by, since } = ending {
                log.broke(by, since, *faults.borrow());
            }
        });
    }
}

/// The next connection; none ever comes while nobody listens.
async fn accept(listener: Option<&TcpListener>) -> std::io::Result<TcpStream> {
    match listener {
        Some(listener) => listener.accept().await.map(|(client, _)| client),
        None => std::future::pending().await,
    }
}

fn listen(address: SocketAddr) -> TcpListener {
    socket(address).listen(BACKLOG).unwrap_or_else(|error| panic!("the proxy cannot listen on {address}: {error}"))
}

/// A socket that is bound and does not listen. Several may hold the port, so that one can while another comes and goes.
fn socket(address: SocketAddr) -> TcpSocket {
    let bound = TcpSocket::new_v4().and_then(|socket| {
        socket.set_reuseport(true)?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(socket)
    });
    bound.unwrap_or_else(|error| panic!("the proxy cannot have {address}: {error}"))
}

// === impl Fault ===

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => formatter.write_str("no fault"),
            Self::Latency(delay) => write!(formatter, "latency of {} ms", delay.as_millis()),
            Self::Trickle { bytes_per_second } => write!(formatter, "{bytes_per_second} bytes a second"),
            Self::Reset => formatter.write_str("reset"),
            Self::HalfClose => formatter.write_str("half closed"),
            Self::Stall => formatter.write_str("stalled"),
            Self::Refuse => formatter.write_str("refused"),
        }
    }
}
