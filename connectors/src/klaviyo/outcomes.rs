//! The outcomes of a batch while they come in: each place is filled once, and none is left empty.

use tailwater_core::code;
use tailwater_core::delivery::{Outcome, Reason, Scope};

#[derive(Debug)]
pub(super) struct Outcomes(Vec<Option<Outcome>>);

impl Outcomes {
    pub fn new(count: usize) -> Self {
        Self((0..count).map(|_| None).collect())
    }

    /// Sets a delivery's outcome; the first one stands.
    pub fn set(&mut self, index: usize, outcome: Outcome) {
        if let Some(place) = self.0.get_mut(index)
            && place.is_none()
        {
            *place = Some(outcome);
        }
    }

    pub fn set_all(&mut self, indexes: &[usize], outcome: &Outcome) {
        for &index in indexes {
            self.set(index, outcome.clone());
        }
    }

    pub fn is_open(&self, index: usize) -> bool {
        self.0.get(index).is_some_and(Option::is_none)
    }

    /// One outcome per delivery, in order. A place that nobody filled is a mistake of ours; it is tried again rather than lost.
    pub fn finish(self) -> Vec<Outcome> {
        debug_assert!(self.0.iter().all(Option::is_some), "a delivery was left without an outcome");
        self.0.into_iter().map(|outcome| outcome.unwrap_or_else(forgotten)).collect()
    }
}

fn forgotten() -> Outcome {
    tracing::error!("a delivery was left without an outcome; it is tried again");
    let reason = Reason::new(code::VENDOR_UNAVAILABLE, "the delivery was left without an outcome by the connector");
    Outcome::Retry { after: None, scope: Scope::Delivery, reason }
}
