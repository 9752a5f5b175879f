//! Customer.io, as the specifications of its Track and Pipelines APIs (snapshots of August 2026) describe it.
//!
//! ```no_run
//! # async fn example() -> Result<(), tailwater_simulators::engine::Error> {
//! use tailwater_simulators::customerio::{Options, Simulator};
//!
//! let simulator = Simulator::start(Options::default()).await?;
//! // … point a client at simulator.url(): /api/v2 is Track, /v1 is Pipelines …
//! assert!(simulator.profile("id", "42").is_some());
//! simulator.stop().await?;
//! # Ok(()) }
//! ```
//!
//! # What it keeps to
//! Track v2 `entity` (32 KB) and `batch` (500 KB, 32 KB an item) with people, objects, relationships, devices, merges and suppression; a 207
//! lists the items that were refused by `batch_index`, all others are accepted. 300 attributes, 150 bytes for ids and names, 1,000 bytes
//! for values, 100 bytes for event names. Events are accepted once per `id`, which must be a ULID. Manual segments of Track v1, and the
//! account's region. The Pipelines API with its semantic events; without `X-Strict-Mode: 1` it answers 200 to anything and drops what is
//! wrong. Basic credentials of old, and one `sk_` key as Bearer for everything.
//!
//! What the vendor accepts with a 200 and drops is in the journal under `dropped`, and counted: an update with a timestamp older than the
//! last applied one, `_update` of nobody, a merge into nobody, ids that a segment does not know, an identifier of somebody else.
//!
//! # What nobody has documented, and how it is read here
//! The stricter way. Fields of an item that the specification does not know are refused. A relationship needs both sides to exist, else
//! it is dropped; an event creates its person. `id` and `email`, once set, change only for a person named by `cio_id`. An event id is
//! one for the whole workspace. A timestamp in milliseconds is a time in the far future: later updates in seconds are dropped. `delivery`
//! items are not simulated. Limits are the documented 1,000 per second (Track) and 3,000 per three seconds (Pipelines), enforced.

mod answer;
mod attributes;
mod command;
mod items;
mod people;
mod pipelines;
mod relations;
mod segments;
mod shapes;
#[cfg(test)]
mod tests;
mod vendor;
mod workspace;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use crate::engine::{Memory, Observer};

pub use command::Command;
pub use vendor::CustomerIo;

/// Customer.io, running in this process.
pub type Simulator = crate::engine::Simulator<CustomerIo>;

/// The credentials that the simulator takes where none are given: they open nothing.
pub const DEFAULT_SITE_ID: &str = "simulator_site_0000";
pub const DEFAULT_API_KEY: &str = "simulator_track_0000000000000000";
/// The key of the source that the Pipelines API takes as the user of basic credentials.
pub const DEFAULT_CDP_KEY: &str = "simulator_cdp_000000000000000000";
/// One key for all APIs, as Bearer.
pub const DEFAULT_SECRET_KEY: &str = "sk_simulator_0000000000000000000";

/// Where an account lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Region {
    #[default]
    Us,
    Eu,
}

/// How a simulator behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// Port 0 takes a free one.
    pub listen: SocketAddr,
    pub site_id: String,
    pub api_key: String,
    pub cdp_key: String,
    pub secret_key: String,
    /// Where the account lives.
    pub region: Region,
    /// Which host the simulator stands for. The US host redirects accounts of the EU; the EU host refuses accounts of the US.
    pub host: Region,
    /// The URL that stands for the EU host in a redirect.
    pub eu_url: String,
    /// Whether the rate limits are enforced.
    pub limits: bool,
    /// What the Track API takes per second. The specification says 1,000, other pages of the vendor 100.
    pub track_per_second: u32,
    /// Whether a 429 has the header `Retry-After`.
    pub retry_after: bool,
    /// Object types that exist: the vendor's ids, such as `1`.
    pub object_types: Vec<String>,
    /// Manual segments that exist from the start: (id, name). An id is a number.
    pub segments: Vec<(String, String)>,
    /// A file to which every request is appended as a line of JSON. Credentials are not recorded.
    pub persist: Option<PathBuf>,
    pub memory: Memory,
    /// Is told of every request that carries people or events, and may decide about it.
    pub observer: Option<Arc<dyn Observer>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            site_id: DEFAULT_SITE_ID.to_owned(),
            api_key: DEFAULT_API_KEY.to_owned(),
            cdp_key: DEFAULT_CDP_KEY.to_owned(),
            secret_key: DEFAULT_SECRET_KEY.to_owned(),
            region: Region::Us,
            host: Region::Us,
            eu_url: "https://track-eu.customer.io".to_owned(),
            limits: true,
            track_per_second: 1_000,
            retry_after: false,
            object_types: vec!["1".to_owned()],
            segments: Vec::new(),
            persist: None,
            memory: Memory::default(),
            observer: None,
        }
    }
}
