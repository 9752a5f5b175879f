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

mod account;
mod answer;
mod change;
mod command;
mod endpoints;
mod events;
mod filter;
mod jobs;
mod limits;
mod page;
mod people;
#[cfg(test)]
mod tests;
mod vendor;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

pub use command::Command;
pub use jobs::JobDuration;
pub use limits::{Tier, Tiers};
pub use vendor::Klaviyo;

pub use crate::engine::{
    Arriving, Carrier, Disconnect, Effect, Effects, Ending, Error, Memory, Observer, PrescribedAnswer,
    PrescribedImportError, Prescription, Received, Ruling, Stats,
};

/// Klaviyo, running in this process.
pub type Simulator = crate::engine::Simulator<Klaviyo>;

/// The key that the simulator takes where none is given: it has the form of a private key and opens nothing.
pub const DEFAULT_API_KEY: &str = "pk_simulator_0000000000000000000000";

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
