//! The receiver that verifies: the Klaviyo simulator with somebody who writes down every item that arrives.
//!
//! An item is a profile of an upsert, alone or in a bulk job, or an event. Of each it is kept when it arrived, in which request, whether it took
//! effect, and whether the answer left whole; nothing else, so that an hour of chaos fits into memory. What the items mean to each
//! other is for [`super::check`] to say.
//!
//! People may have scripts: what the requests that contain them are answered, one after the other. They are played by the receiver rather
//! than by the simulator's prescriptions, which would search the body of every bulk job once for each of them.

mod body;
mod book;
mod script;
#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use tailwater_simulators::klaviyo::{self, DEFAULT_API_KEY, JobDuration, Memory, Simulator};

pub use script::{Script, Step};

use crate::runtime;
use book::Book;

/// The metric under which the workload's events are sent.
pub const METRIC: &str = "Chaos";

/// By which property the body carries an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A profile with `properties.activity_seq`.
    Activity,
    /// A profile with `properties.score_seq`.
    Score,
    /// An event with `properties.seq`.
    Track,
}

/// What arrives: the trace of one row of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Item {
    pub kind: Kind,
    pub person: u32,
    pub seq: u32,
}

/// How a request was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It has not been, yet.
    None,
    /// A 2xx left whole.
    Success,
    /// Another status left whole.
    Failure(u16),
    /// The connection broke before the answer had left.
    Broken,
}

/// One item in one request. The same item sent again is another arrival.
#[derive(Debug, Clone)]
pub struct Arrival {
    pub at: Instant,
    pub item: Item,
    /// The number of the request; the items of a bulk job share it.
    pub request: u64,
    pub answer: Answer,
    /// When the answer had left, or could no longer.
    pub answered: Option<Instant>,
    pub took_effect: bool,
    /// How many arrivals there were when it took effect. Only a bulk job takes effect later than it arrives.
    pub effect_after: Option<usize>,
    /// It was refused by its script, and pointed at: the sender shall not send it again.
    pub refused: bool,
    /// The hash of an event's `unique_id`: by it the vendor knows a repeat.
    pub key: Option<u64>,
    /// Why this is nothing that the workload may cause. The item is then as much of one as could be read.
    pub stray: Option<Box<str>>,
}

/// How the receiver behaves.
#[derive(Debug, Clone)]
pub struct Options {
    pub listen: SocketAddr,
    pub api_key: String,
    /// Whether the vendor's rate limits are enforced.
    pub limits: bool,
    pub job_duration: JobDuration,
    /// Lists that exist: (id, name).
    pub lists: Vec<(String, String)>,
    /// Requests, events and jobs that the simulator keeps for people to look at.
    pub memory: Memory,
    pub scripts: Vec<Script>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            api_key: DEFAULT_API_KEY.to_owned(),
            limits: false,
            job_duration: JobDuration::default(),
            lists: Vec::new(),
            memory: Memory { requests_max: 0, events_max: 1_000, jobs_max: 1_000 },
            scripts: Vec::new(),
        }
    }
}

/// Counts since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests that carried items.
    pub requests: u64,
    pub arrivals: u64,
    /// Requests by how they were answered.
    pub succeeded: u64,
    pub failed: u64,
    pub broken: u64,
    /// Requests that a script decided about.
    pub scripted: u64,
    pub strays: u64,
}

/// A receiver that runs until this value goes.
#[derive(Debug)]
pub struct Receiver {
    simulator: Simulator,
    book: Arc<Book>,
}

// === impl Receiver ===

impl Receiver {
    /// Starts it. To be called outside of asynchronous code.
    pub fn start(options: Options) -> Self {
        let book = Arc::new(Book::default());
        book.set_scripts(options.scripts);
        let options = klaviyo::Options {
            listen: options.listen,
            api_key: options.api_key,
            limits: options.limits,
            job_duration: options.job_duration,
            lists: options.lists,
            memory: options.memory,
            observer: Some(Arc::<Book>::clone(&book)),
            ..klaviyo::Options::default()
        };
        let simulator = runtime().block_on(Simulator::start(options));
        let simulator = simulator.unwrap_or_else(|error| panic!("the receiver could not be started: {error}"));
        Self { simulator, book }
    }

    pub fn address(&self) -> SocketAddr {
        self.simulator.address()
    }

    pub fn url(&self) -> String {
        self.simulator.url()
    }

    pub fn simulator(&self) -> &Simulator {
        &self.simulator
    }

    /// A snapshot of all arrivals, in order. Jobs that are due have taken effect.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.complete_jobs();
        self.book.arrivals()
    }

    /// The number of arrivals, repeats among them.
    pub fn count(&self) -> usize {
        self.book.count()
    }

    pub fn stats(&self) -> Stats {
        self.book.stats()
    }

    /// The items that scripts refused, each once, in order. What became of the request is in the arrivals.
    pub fn rejected(&self) -> Vec<Item> {
        self.book.rejected()
    }

    /// Puts these scripts in the place of all that there are.
    pub fn set_scripts(&self, scripts: Vec<Script>) {
        self.book.set_scripts(scripts);
    }

    /// The steps that were not played yet. Steps of people who never arrive again stay.
    pub fn steps_left(&self) -> usize {
        self.book.steps_left()
    }

    /// The simulator completes jobs when it is asked something.
    fn complete_jobs(&self) {
        self.simulator.stats();
    }
}
