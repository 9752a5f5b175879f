//! What a vendor supplies to the engine.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::http::HeaderMap;
use serde_json::Value;

use super::answer::Answer;
use super::observe::{Carrier, Effects, Observer};
use super::prescribe::Prescriptions;

/// A request, read completely.
#[derive(Debug)]
pub struct Request {
    /// Its number in the journal.
    pub number: u64,
    pub method: String,
    pub path: String,
    /// Decoded, in the order of the address.
    pub query: Vec<(String, String)>,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    /// The address under which the client knows this service.
    pub base: String,
}

/// What the engine itself needs of a vendor's options.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Port 0 takes a free one.
    pub listen: SocketAddr,
    /// A file to which every request is appended as a line of JSON. Credentials are not recorded.
    pub persist: Option<PathBuf>,
    /// Requests with their bodies that are kept in memory.
    pub requests_max: usize,
}

/// What the statistics show of an account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub profiles: u64,
    pub events: u64,
    /// Events that were ignored because the same one had been accepted before.
    pub events_repeated: u64,
    pub objects: u64,
}

/// A vendor's account: what it accepts, what it answers, and what it remembers. Called under one lock; the time is an argument.
pub trait Vendor: Debug + Send + Sized + 'static {
    type Options: Clone + Debug + Default + Send + 'static;

    const KIND: &'static str;
    /// Of prescribed answers whose body is JSON.
    const MEDIA_TYPE: &'static str;
    /// Bytes of a body that are read at all: enough to tell a client that it has sent too much.
    const READ_BYTES_MAX: usize;
    /// Headers that the journal records, in lower case; never credentials.
    const HEADERS: &'static [&'static str];

    fn setup(options: &Self::Options) -> Setup;
    /// Whether the rate limits are enforced.
    fn limited(options: &Self::Options) -> bool;
    /// Lines for a person, after the one that says where the simulator listens.
    fn greeting(options: &Self::Options, url: &str) -> Vec<String>;
    /// The account at the start.
    fn new(options: Self::Options, now_us: i64) -> Self;
    fn options(&self) -> &Self::Options;
    fn options_mut(&mut self) -> &mut Self::Options;

    /// The name of an operation, or `None` for one that is not simulated.
    fn endpoint(method: &str, path: &str) -> Option<&'static str>;
    fn answer(&mut self, request: &Request, prescriptions: &mut Prescriptions, now_us: i64) -> Answer;
    /// Does the work that is due, and returns the numbers of its requests with what took effect.
    fn advance(&mut self, prescriptions: &mut Prescriptions, now_us: i64) -> Vec<(u64, Effects)>;

    /// The vendor's answer to a body that is too large to be read.
    fn too_large() -> Answer;
    fn throttled(&self, seconds: u64) -> Answer;
    /// An error with this status that an observer decided on.
    fn ruled(status: u16) -> Answer;

    fn observer(&self) -> Option<&Arc<dyn Observer>> {
        None
    }
    /// Whether a request carries people or events.
    fn carrier(_method: &str, _path: &str) -> Option<Carrier> {
        None
    }
    /// The vendor's refusal of the items at these places.
    fn refuse(_carrier: Carrier, _places: &[usize]) -> Answer {
        Answer::empty(400)
    }

    fn counts(&self) -> Counts;
    /// People after a cursor (an id): `{"id", "attributes", "lists"}` each.
    fn profiles(&self, after: &str, limit: usize) -> Vec<Value>;
    fn profile(&self, field: &str, value: &str) -> Option<Value>;
    /// `{"id", "name", "count"}` each.
    fn lists(&self) -> Vec<Value>;
    fn list(&self, id: &str) -> Option<Value>;
    /// Makes a list known; false if there are too many, or if it cannot be.
    fn add_list(&mut self, id: &str, name: &str, now_us: i64) -> bool;
    fn events(&self, skip: usize, limit: usize) -> Vec<Value>;
    /// Objects, catalog items, whatever the vendor keeps beside people: `{"type", "id", "attributes"}` each.
    fn objects(&self, _skip: usize, _limit: usize) -> Vec<Value> {
        Vec::new()
    }
    /// Changes settings of the running simulator.
    ///
    /// # Errors
    /// A setting is unknown or has the wrong type.
    fn settings(&mut self, settings: Value) -> Result<(), String>;
}

// === impl Request ===

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// A parameter of the query.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}
