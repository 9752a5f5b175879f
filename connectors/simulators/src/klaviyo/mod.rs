//! Klaviyo, as its specification of revision 2026-07-15 and answers recorded from the live service describe it.
//!
//! ```no_run
//! # async fn example() -> Result<(), tailwater_simulators::klaviyo::Error> {
//! use tailwater_simulators::klaviyo::{Options, Prescription, Simulator};
//!
//! let simulator = Simulator::start(Options::default()).await?;
//! simulator.prescribe(Prescription::status(503).on("POST", "/api/profile-import"))?;
//! // … point a client at simulator.url() …
//! assert!(simulator.profile("email", "ann@example.com").is_some());
//! simulator.stop().await?;
//! # Ok(()) }
//! ```
//!
//! # What it keeps to
//! Authentication (401), the `revision` header (400), media types (415), sizes (413), validation with JSON pointers (400, all or
//! nothing for bulk requests), conflicts (409 with `duplicate_profile_id`), fixed-window limits per endpoint (429 with `retry-after`,
//! `ratelimit-*` on every other answer), bulk jobs that take time and put everybody in them on their lists when they complete, and
//! events that are accepted once per profile, metric and `unique_id`. `null` clears a field, an absent field stays. A key without the scope of an
//! endpoint gets a 403.
//!
//! # What nobody has documented, and how it is read here
//! The stricter way: a bulk import ignores `null`; 5 MB are 5,000,000 bytes and 100 KB are 100,000; an identifier of another person in an upsert is a 409; a list that does not
//! exist is a 400 in a bulk import and a 404 in a path; an unknown profile id refuses a whole list call (404); `any(…)` takes at most 100
//! values; windows begin at whole seconds and minutes. `meta.patch_identifiers` is refused. Every other path is a 404 and is counted
//! as unknown, so that a test can assert that nobody was subscribed.
//!
//! # The control plane
//! Under `/_simulator/`, without a key and without limits. JSON in and out.
//!
//! | request | what it does |
//! |---|---|
//! | `GET /_simulator/` | the statistics, the lists, and where to look |
//! | `GET /_simulator/requests?method=&path=&status=&contains=&after=&limit=` | what was received, in order, with the status of the answer |
//! | `GET /_simulator/profiles?after=&limit=` | everybody as the vendor would show them, with the lists they are on |
//! | `GET /_simulator/profile?email=` (or `phone_number`, `external_id`, `id`) | one person |
//! | `GET /_simulator/lists`, `GET /_simulator/lists/{id}` | lists; one list with its members |
//! | `POST /_simulator/lists` `{"id", "name"}` | makes a list known |
//! | `GET /_simulator/events?skip=&limit=` | accepted events |
//! | `GET /_simulator/stats` | counts by endpoint and status, 429s, unknown paths, profiles, events |
//! | `POST /_simulator/prescribe` | a [`Prescription`]: what the next matching requests get |
//! | `GET`, `DELETE /_simulator/prescriptions` | those that are open; removes all |
//! | `POST /_simulator/settings` `{"api_key", "scopes", "limits", "job_base_ms", "job_per_profile_us"}` | changes what is given |
//! | `POST /_simulator/reset` | back to the state at the start |

mod account;
mod answer;
mod change;
mod clock;
mod connection;
mod control;
mod endpoints;
mod events;
mod filter;
mod jobs;
mod journal;
mod limits;
mod observe;
mod page;
mod people;
mod prescribe;
mod server;
mod state;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tailwater_core::{Code, code};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub use jobs::JobDuration;
pub use journal::{Received, Stats};
pub use limits::{Tier, Tiers};
pub use observe::{Arriving, Carrier, Effects, Ending, Observer, Ruling};
pub use prescribe::{Disconnect, Effect, PrescribedAnswer, PrescribedImportError, Prescription};

use connection::{BreakableListener, Switch};
use state::Shared;

/// The key that the simulator takes where none is given: it has the form of a private key and opens nothing.
pub const DEFAULT_API_KEY: &str = "pk_simulator_0000000000000000000000";

/// How long `stop` waits for requests that are being answered.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// How a simulator behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// Port 0 takes a free one.
    pub listen: SocketAddr,
    /// The only private key that is accepted.
    pub api_key: String,
    /// The scopes of the key, such as `events:write`; all of them where none are given.
    pub scopes: Option<Vec<String>>,
    /// Whether the rate limits are enforced; without them the `ratelimit-*` headers are missing.
    pub limits: bool,
    pub tiers: Tiers,
    pub job_duration: JobDuration,
    /// Lists that exist from the start: (id, name).
    pub lists: Vec<(String, String)>,
    /// A file to which every request is appended as a line of JSON. Authorization headers are not recorded.
    pub persist: Option<PathBuf>,
    pub memory: Memory,
    /// Is told of every request that carries people or events, and may decide about it.
    pub observer: Option<Arc<dyn Observer>>,
}

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

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            api_key: DEFAULT_API_KEY.to_owned(),
            scopes: None,
            limits: true,
            tiers: Tiers::default(),
            job_duration: JobDuration::default(),
            lists: Vec::new(),
            persist: None,
            memory: Memory::default(),
            observer: None,
        }
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
}

impl Error {
    pub fn code(&self) -> Code {
        match self {
            Self::Listen { .. } | Self::Persist { .. } | Self::Serve(_) => code::TASK_FAILED,
            Self::Prescription(_) => code::CONFIG_INVALID_VALUE,
        }
    }
}

/// A simulator that runs in this process. Dropping it ends it; `stop` does so in order.
#[derive(Debug)]
pub struct Simulator {
    address: SocketAddr,
    shared: Arc<Shared>,
    shutdown: Option<oneshot::Sender<()>>,
    server: Option<JoinHandle<Result<(), Error>>>,
}

/// Runs a simulator until `shutdown` is ready; once it listens, `announce` gets the lines for a person: where it listens and where
/// to look.
///
/// # Errors
/// The address cannot be listened on, the file cannot be opened, or the server fails.
pub async fn run_cli(
    options: Options,
    announce: impl FnOnce(&str) + Send,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let described = options.clone();
    let bound = Bound::new(options).await?;
    announce(&greeting(&described, bound.address));
    bound.run(shutdown).await
}

fn greeting(options: &Options, address: SocketAddr) -> String {
    let url = format!("http://{address}");
    let limits = if options.limits { "the vendor's rate limits are enforced" } else { "rate limits are off" };
    let mut lines = vec![
        format!("klaviyo simulator on {url}; {limits}"),
        // Shown in full: it opens nothing but this process.
        format!("  api key    {}", options.api_key),
    ];
    lines.extend(options.lists.iter().map(|(id, name)| format!("  list       {id}  {name}")));
    lines.extend(options.persist.iter().map(|path| format!("  received   is appended to {}", path.display())));
    lines.push(format!("  overview   curl {url}/_simulator/"));
    lines.push(format!("  received   curl '{url}/_simulator/requests?limit=20'"));
    lines.push(format!("  a person   curl '{url}/_simulator/profile?email=…'"));
    lines.join("\n")
}

/// Runs a simulator until `shutdown` is ready, silently.
///
/// # Errors
/// The address cannot be listened on, the file cannot be opened, or the server fails.
pub async fn serve(options: Options, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<(), Error> {
    Bound::new(options).await?.run(shutdown).await
}

/// A simulator that has its address.
struct Bound {
    address: SocketAddr,
    listener: TcpListener,
    shared: Arc<Shared>,
}

// === impl Bound ===

impl Bound {
    async fn new(options: Options) -> Result<Self, Error> {
        let address = options.listen;
        let listener = TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })?;
        let address = listener.local_addr().map_err(|source| Error::Listen { address, source })?;
        let path = options.persist.clone().unwrap_or_default();
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

impl Simulator {
    /// Starts a simulator; it answers when this returns.
    ///
    /// # Errors
    /// The address cannot be listened on, or the file cannot be opened.
    pub async fn start(options: Options) -> Result<Self, Error> {
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

    /// What a client takes for `https://a.klaviyo.com`.
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

    /// One person by `email`, `phone_number`, `external_id` or `id`.
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
    pub fn change(&self, change: impl FnOnce(&mut Options)) {
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

impl Drop for Simulator {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
        }
    }
}
