//! Iterable, as its specification (snapshot of July 2026) and recorded answers describe it.
//!
//! ```no_run
//! # async fn example() -> Result<(), tailwater_simulators::engine::Error> {
//! use tailwater_simulators::iterable::{Identity, Options, Simulator};
//!
//! let simulator = Simulator::start(Options { identity: Identity::Email, ..Options::default() }).await?;
//! // … point a client at simulator.url() …
//! assert!(simulator.profile("email", "ann@example.com").is_some());
//! simulator.stop().await?;
//! # Ok(()) }
//! ```
//!
//! # What it keeps to
//! The key in the header `Api-Key` (401). Fields of a body that the specification does not know (400 `BadJsonBody` with the path).
//! The project's identity type, and email *or* userId, never both. `createNewFields`, `filteredOutFields` and `createdFields`. The type of
//! a field is fixed by its first use, for people in the whole project and for events by name; another type is a 400
//! `RequestFieldsTypesMismatched` in the recorded form and refuses a bulk request as a whole. `failedUpdates` by identifier, emails in
//! lower case. `mergeNestedObjects`. An event `id` overwrites. Limits per endpoint (429 `RateLimitExceeded`), 1,000 forgets a day.
//! 4 MB per body, 1,000 elements per bulk request.
//!
//! Bulk requests, deletions and catalogs are answered at once and take effect later ([`Options::bulk_delay`]), in a queue of their own:
//! a single call that is sent after a bulk request is overwritten by it. Single calls take effect at once, or after
//! [`Options::single_delay`].
//!
//! # What nobody has documented, and how it is read here
//! The stricter way. An event of an unknown person is refused (`UnknownEmailError`, `notFoundEmails`), unless
//! [`Options::events_create_users`] is set. `createNewFields` defaults to a project that drops unknown fields; a single update does not
//! say so (the journal does, under `dropped`). A long field takes no decimals, a double field takes both. A date is
//! `yyyy-MM-dd HH:mm:ss +00:00` and nothing else. `createdAt` is in seconds; milliseconds are refused. An event id is one per project
//! and kind. Lists take 5 requests per second. A 429 has no `Retry-After`, unless [`Options::retry_after`] is set. In a merge the
//! destination's fields win, and the lists are the union.

mod answer;
mod bodies;
mod catalogs;
mod command;
mod endpoints;
mod events;
mod lists;
mod project;
mod purchases;
mod subscriptions;
#[cfg(test)]
mod tests;
mod types;
mod updates;
mod users;
mod vendor;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::{Memory, Observer};

pub use command::Command;
pub use vendor::Iterable;

/// Iterable, running in this process.
pub type Simulator = crate::engine::Simulator<Iterable>;

/// The key that the simulator takes where none is given: it opens nothing.
pub const DEFAULT_API_KEY: &str = "iterable_simulator_00000000000000";

/// How a project identifies people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
#[value(rename_all = "camelCase")]
pub enum Identity {
    #[default]
    Email,
    UserId,
    Hybrid,
}

/// How a simulator behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// Port 0 takes a free one.
    pub listen: SocketAddr,
    /// The only key that is accepted.
    pub api_key: String,
    /// Whether the key is a server-side key; any other may not merge (403).
    pub server_side: bool,
    pub identity: Identity,
    /// The project's setting for unknown fields where a request has no `createNewFields`.
    pub creates_fields: bool,
    /// Whether an event of an unknown person creates that person.
    pub events_create_users: bool,
    /// Whether the opt-in message types feature is enabled.
    pub opt_in_message_types: bool,
    /// Whether the project has the subscription endpoints that the vendor enables on request; they are a 404 otherwise.
    pub subscriptions_api: bool,
    /// Event names that the project does not take.
    pub disallowed_event_names: Vec<String>,
    /// Whether the rate limits are enforced.
    pub limits: bool,
    /// Whether a 429 has the header `Retry-After`.
    pub retry_after: bool,
    /// From the answer to a bulk request, a deletion or a catalog change until it takes effect.
    pub bulk_delay: Duration,
    /// From the answer to a single call until it takes effect.
    pub single_delay: Duration,
    /// Unique fields of people; the soft limit of the documentation.
    pub user_fields_max: usize,
    /// Lists that exist from the start: (id, name). An id is a number.
    pub lists: Vec<(String, String)>,
    /// A file to which every request is appended as a line of JSON. Keys are not recorded.
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
            server_side: true,
            identity: Identity::Email,
            creates_fields: false,
            events_create_users: false,
            opt_in_message_types: false,
            subscriptions_api: false,
            disallowed_event_names: Vec::new(),
            limits: true,
            retry_after: false,
            bulk_delay: Duration::from_secs(1),
            single_delay: Duration::ZERO,
            user_fields_max: 1_000,
            lists: Vec::new(),
            persist: None,
            memory: Memory::default(),
            observer: None,
        }
    }
}
