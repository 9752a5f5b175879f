//! A look over the simulator's shoulder, for tests that judge everything that ever arrived: which request carried people or events, what
//! took effect, and whether its answer left whole.
//!
//! The journal answers questions afterwards and holds bodies; an observer is told at once and holds what it likes. It may also decide
//! about an answer, because a hundred prescriptions that each search a body of a thousand people would cost more than the vendor itself.
//!
//! An observer is called in the request's way and partly under the simulator's lock: it must be quick and must not ask the simulator anything.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use super::prescribe::Disconnect;

/// Which requests are told: those that carry people or events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// One person, such as Klaviyo's `POST /api/profile-import`.
    Profile,
    /// People in bulk, an item each, in the order of the body, such as `POST /api/profile-bulk-import-jobs`.
    Job,
    /// One event, such as `POST /api/events`.
    Event,
}

/// A request that was read completely and has not been looked at.
#[derive(Debug, Clone, Copy)]
pub struct Arriving<'a> {
    /// Its number in the journal.
    pub request: u64,
    pub carrier: Carrier,
    pub body: &'a [u8],
}

/// What is to become of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ruling {
    /// What the vendor would do (or a prescription, if one is open).
    Normal,
    /// Nothing takes effect, and the answer has this status.
    Status(u16),
    /// 429 with `retry-after`; nothing takes effect.
    Throttled { seconds: u64 },
    /// 400 that points at the items at these places; nothing takes effect.
    Refused(Vec<usize>),
    /// [`Disconnect::BeforeReading`] comes too late here and is taken as `AfterReading`.
    Disconnect(Disconnect),
    /// Nothing takes effect, and no answer comes until the client gives up; after this time the connection breaks.
    Silence(Duration),
}

/// Which items of a request took effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effects {
    All,
    Nothing,
    /// All but those at these places, in ascending order.
    AllBut(Vec<usize>),
}

/// How the answer to a request left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Every byte was handed to the transport.
    Written(u16),
    /// The connection broke before.
    Broken,
}

/// Is told of every request with people or events, in this order: `arrived` and then, in either order, `settled` and `ended`, each once.
pub trait Observer: Debug + Send + Sync {
    /// A request has arrived. Requests are told one at a time, in the order in which they take effect.
    fn arrived(&self, arriving: Arriving<'_>) -> Ruling;

    /// What took effect: with the request itself, or when its job is over.
    fn settled(&self, request: u64, effects: Effects);

    /// The answer has left, or never will.
    fn ended(&self, request: u64, ending: Ending);
}

/// An answer that has not left yet. Dropped before that, it tells that the answer never will.
#[derive(Debug)]
pub(super) struct Leaving {
    observer: Arc<dyn Observer>,
    request: u64,
    ending: Ending,
}

// === impl Leaving ===

impl Leaving {
    pub fn new(observer: Arc<dyn Observer>, request: u64) -> Self {
        Self { observer, request, ending: Ending::Broken }
    }

    pub fn written(mut self, status: u16) {
        self.ending = Ending::Written(status);
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.observer.ended(self.request, self.ending);
    }
}
