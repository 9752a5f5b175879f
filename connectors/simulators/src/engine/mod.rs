//! What every simulator has in common: the server, connections that break on purpose, the journal, limits, prescribed answers,
//! observers, the control plane and the page for a browser. A vendor supplies the rest through [`Vendor`].
//!
//! One lock guards the account, so every request sees it as the one before has left it. Work that a vendor does later (bulk jobs) is
//! done in [`Vendor::advance`], which runs before anything else looks at the account: no timer, and a test with paused time sees it.
//!
//! # The control plane
//! Under `/_simulator/`, without a key and without limits. JSON in and out.
//!
//! | request | what it does |
//! |---|---|
//! | `GET /_simulator/` | the statistics, the lists, and where to look; for a browser, the page that shows it all as it arrives |
//! | `GET /_simulator/requests?method=&path=&status=&contains=&after=&limit=` | what was received, in order, with the status of the answer |
//! | `GET /_simulator/profiles?after=&limit=` | everybody as the vendor would show them, with the lists they are on |
//! | `GET /_simulator/profile?email=` (or another identifier of the vendor) | one person |
//! | `GET /_simulator/lists`, `GET /_simulator/lists/{id}` | lists; one list with its members |
//! | `POST /_simulator/lists` `{"id", "name"}` | makes a list known |
//! | `GET /_simulator/events?skip=&limit=` | accepted events |
//! | `GET /_simulator/objects?skip=&limit=` | objects and catalog items |
//! | `GET /_simulator/stats` | counts by endpoint and status, 429s, unknown paths, profiles, events |
//! | `POST /_simulator/prescribe` | a [`Prescription`]: what the next matching requests get |
//! | `GET`, `DELETE /_simulator/prescriptions` | those that are open; removes all |
//! | `POST /_simulator/settings` `{"limits": false, …}` | changes what is given; the keys are the vendor's |
//! | `POST /_simulator/reset` | back to the state at the start |

pub(crate) mod answer;
pub(crate) mod clock;
mod connection;
mod control;
mod journal;
mod limits;
mod observe;
mod prescribe;
mod server;
mod state;
mod vendor;

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tailwater_core::{Code, code};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub use answer::{Answer, Body, Took};
pub use journal::{Received, Stats};
pub use limits::{Usage, Window};
pub use observe::{Arriving, Carrier, Effects, Ending, Observer, Ruling};
pub use prescribe::{Disconnect, Effect, PrescribedAnswer, PrescribedImportError, Prescription, Prescriptions};
pub use vendor::{Counts, Request, Setup, Vendor};

use connection::{BreakableListener, Switch};
use state::Shared;

/// How long `stop` waits for requests that are being answered.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// How much is kept of what is over, for tests to ask. The oldest make room; the counts in the statistics go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Requests with their bodies.
    pub requests_max: usize,
    /// Accepted events. The repeat of one that was forgotten counts as new.
    pub events_max: usize,
    /// Bulk jobs. One that is not finished is kept in any case.
    pub jobs_max: usize,
}

impl Default for Memory {
    fn default() -> Self {
        Self { requests_max: 100_000, events_max: 1_000_000, jobs_max: 10_000 }
    }
}

/// Why a simulator does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen on {address}: {source}; choose another address with --listen, or stop what listens there")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("cannot open {path} for the requests that arrive: {source}; its folder must exist and be writable", path = path.display())]
    Persist { path: PathBuf, source: std::io::Error },
    #[error("the simulator's server failed: {0}")]
    Serve(std::io::Error),
    #[error("the prescription is not valid: {0}")]
    Prescription(String),
    #[error("{0}")]
    Arguments(String),
}

impl Error {
    pub fn code(&self) -> Code {
        match self {
            Self::Listen { .. } | Self::Persist { .. } | Self::Serve(_) => code::TASK_FAILED,
            Self::Prescription(_) | Self::Arguments(_) => code::CONFIG_INVALID_VALUE,
        }
    }
}

/// A simulator that runs in this process. Dropping it ends it; `stop` does so in order.
#[derive(Debug)]
pub struct Simulator<V: Vendor> {
    address: SocketAddr,
    shared: Arc<Shared<V>>,
    shutdown: Option<oneshot::Sender<()>>,
    server: Option<JoinHandle<Result<(), Error>>>,
}

/// Runs a simulator until `shutdown` is ready; once it listens, `announce` gets the lines for a person: where it listens and where
/// to look.
///
/// # Errors
/// The address cannot be listened on, the file cannot be opened, or the server fails.
pub async fn serve<V: Vendor>(
    options: V::Options,
    announce: impl FnOnce(&str) + Send,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let described = options.clone();
    let bound = Bound::<V>::new(options).await?;
    let url = format!("http://{}", bound.address);
    let limits = if V::limited(&described) { "the vendor's rate limits are enforced" } else { "rate limits are off" };
    let mut lines = vec![format!("{} simulator on {url}; {limits}", V::KIND)];
    lines.extend(V::greeting(&described, &url));
    lines.extend(V::setup(&described).persist.map(|path| format!("  received   is appended to {}", path.display())));
    lines.push(format!("  overview   {url}/_simulator/ in a browser, or with curl"));
    lines.push(format!("  received   curl '{url}/_simulator/requests?limit=20'"));
    announce(&lines.join("\n"));
    bound.run(shutdown).await
}

/// A simulator that has its address.
struct Bound<V: Vendor> {
    address: SocketAddr,
    listener: TcpListener,
    shared: Arc<Shared<V>>,
}

// === impl Bound ===

impl<V: Vendor> Bound<V> {
    async fn new(options: V::Options) -> Result<Self, Error> {
        let setup = V::setup(&options);
        let address = setup.listen;
        let listener = TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })?;
        let address = listener.local_addr().map_err(|source| Error::Listen { address, source })?;
        let path = setup.persist.unwrap_or_default();
        let shared = Shared::new(options).map_err(|source| Error::Persist { path, source })?;
        Ok(Self { address, listener, shared: Arc::new(shared) })
    }

    async fn run(self, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<(), Error> {
        let (ended, end) = oneshot::channel::<()>();
        let app = server::router(self.shared).into_make_service_with_connect_info::<Switch>();
        let server = axum::serve(BreakableListener(self.listener), app).with_graceful_shutdown(async move {
            shutdown.await;
            drop(ended);
        });
        // A request that is answered late on purpose must not hold up the end.
        tokio::select! {
            result = server => result.map_err(Error::Serve),
            () = async {
                // The sender is only ever dropped, when the end was asked for.
                end.await.ok();
                tokio::time::sleep(STOP_TIMEOUT).await;
            } => Ok(()),
        }
    }
}

// === impl Simulator ===

impl<V: Vendor> Simulator<V> {
    /// Starts a simulator; it answers when this returns.
    ///
    /// # Errors
    /// The address cannot be listened on, or the file cannot be opened.
    pub async fn start(options: V::Options) -> Result<Self, Error> {
        let bound = Bound::new(options).await?;
        let address = bound.address;
        let shared = Arc::clone(&bound.shared);
        let (shutdown, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(bound.run(async move {
            // Both a message and a dropped sender mean the end.
            stopped.await.ok();
        }));
        Ok(Self { address, shared, shutdown: Some(shutdown), server: Some(server) })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The base URL that a client takes for the vendor's.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Everything that was received, in order.
    pub fn requests(&self) -> Vec<Received> {
        self.shared.received(|_| true, usize::MAX)
    }

    /// What was received at one path, in order.
    pub fn requests_to(&self, method: &str, path: &str) -> Vec<Received> {
        self.shared
            .received(|received| received.method == method && received.path.trim_end_matches('/') == path, usize::MAX)
    }

    /// Everybody: `{"id", "attributes", "lists"}` each.
    pub fn profiles(&self) -> Vec<Value> {
        self.shared.profiles("", usize::MAX)
    }

    /// One person by an identifier of the vendor, such as `email`, or by `id`.
    pub fn profile(&self, field: &str, value: &str) -> Option<Value> {
        self.shared.profile(field, value)
    }

    /// A list with its members, or `None` if there is no such list.
    pub fn list(&self, id: &str) -> Option<Value> {
        self.shared.list(id)
    }

    /// The accepted events.
    pub fn events(&self) -> Vec<Value> {
        self.shared.events(0, usize::MAX)
    }

    /// What the vendor keeps beside people and events: `{"type", "id", "attributes"}` each.
    pub fn objects(&self) -> Vec<Value> {
        self.shared.objects(0, usize::MAX)
    }

    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Makes a list known.
    pub fn add_list(&self, id: &str, name: &str) {
        self.shared.add_list(id, name);
    }

    /// Decides about the next matching requests.
    ///
    /// # Errors
    /// The prescription contradicts itself, or there are too many.
    pub fn prescribe(&self, prescription: Prescription) -> Result<(), Error> {
        self.shared.prescribe(prescription).map_err(Error::Prescription)
    }

    pub fn prescriptions(&self) -> Vec<Prescription> {
        self.shared.prescriptions()
    }

    pub fn clear_prescriptions(&self) {
        self.shared.clear_prescriptions();
    }

    /// Changes options of the running simulator; `listen`, `lists`, `persist` and
    /// `memory` take no effect any more.
    pub fn change(&self, change: impl FnOnce(&mut V::Options)) {
        self.shared.change(change);
    }

    /// Back to the state at the start.
    pub fn reset(&self) {
        self.shared.reset();
    }

    /// Ends the server; requests that are being answered get two seconds.
    ///
    /// # Errors
    /// The server had failed.
    pub async fn stop(mut self) -> Result<(), Error> {
        self.shutdown.take();
        match self.server.take() {
            Some(server) => server.await.unwrap_or_else(|error| Err(Error::Serve(std::io::Error::other(error)))),
            None => Ok(()),
        }
    }
}

impl<V: Vendor> Drop for Simulator<V> {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
        }
    }
}
