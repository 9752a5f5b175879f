//! The outcomes of one call, reported while the call runs.
//!
//! A call carries up to thousands of deliveries and takes minutes where the vendor's limits are low. An outcome that waits in it for
//! its neighbors is lost with the process: the delivery is made again although the vendor has answered. So a destination reports each
//! outcome at once, and the caller commits it while the rest of the call runs.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use tailwater_core::code;
use tailwater_core::delivery::{Outcome, Reason, Scope};

/// Is told the outcome of some deliveries.
type Report<'a> = dyn Fn(&[usize], &Outcome) + Send + Sync + 'a;

/// Takes one outcome per delivery of a call; the first one that is reported of a delivery stands.
pub struct Outcomes<'a> {
    /// Which deliveries have no outcome yet.
    open: Mutex<Vec<bool>>,
    report: Box<Report<'a>>,
}

// === impl Outcomes ===

impl<'a> Outcomes<'a> {
    /// For a call with `count` deliveries. `report` is called with the indexes of deliveries whose outcome is known now, in the order
    /// in which the destination names them, and never twice with the same one. It must not block.
    pub fn new(count: usize, report: impl Fn(&[usize], &Outcome) + Send + Sync + 'a) -> Self {
        Self { open: Mutex::new(vec![true; count]), report: Box::new(report) }
    }

    /// Reports a delivery's outcome.
    pub fn set(&self, index: usize, outcome: &Outcome) {
        self.set_all(&[index], outcome);
    }

    /// Reports the outcome of deliveries that one answer of the vendor decides. They are committed together: the members of a job must
    /// be reported at once, and in the order in which the job holds them.
    pub fn set_all(&self, indexes: &[usize], outcome: &Outcome) {
        let fresh: Vec<usize> = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            let is_fresh = |index: &&usize| open.get_mut(**index).is_some_and(std::mem::take);
            indexes.iter().filter(is_fresh).copied().collect()
        };
        if !fresh.is_empty() {
            (self.report)(&fresh, outcome);
        }
    }

    /// Reports the same outcome for every delivery that has none.
    pub fn set_rest(&self, outcome: &Outcome) {
        self.set_all(&self.all_open(), outcome);
    }

    /// Whether a delivery has no outcome yet.
    pub fn is_open(&self, index: usize) -> bool {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).get(index).copied().unwrap_or(false)
    }

    /// The call has returned. A delivery without an outcome is a mistake of the destination: it is tried again rather than lost. Answers
    /// how many there were.
    pub fn finish(&self) -> usize {
        let forgotten = self.all_open();
        if !forgotten.is_empty() {
            tracing::error!(
                deliveries = forgotten.len(),
                "the connector left deliveries without an outcome; they are tried again"
            );
            let reason =
                Reason::new(code::VENDOR_UNAVAILABLE, "the delivery was left without an outcome by the connector");
            self.set_all(&forgotten, &Outcome::Retry { after: None, scope: Scope::Delivery, reason });
        }
        forgotten.len()
    }

    /// How many deliveries have no outcome yet.
    pub fn open(&self) -> usize {
        self.all_open().len()
    }

    fn all_open(&self) -> Vec<usize> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.iter().enumerate().filter(|(_, is_open)| **is_open).map(|(index, _)| index).collect()
    }
}

impl fmt::Debug for Outcomes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outcomes").field("open", &self.open()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_outcome_of_a_delivery_stands_and_none_is_left_without() {
        let told = Mutex::new(Vec::new());
        let outcomes =
            Outcomes::new(4, |indexes, outcome| told.lock().unwrap().push((indexes.to_vec(), outcome.clone())));
        outcomes.set(1, &Outcome::Delivered);
        assert_eq!((0..5).filter(|index| outcomes.is_open(*index)).collect::<Vec<_>>(), [0, 2, 3]);
        let no = Outcome::Rejected(Reason::new(code::VENDOR_REJECTED, "no"));
        outcomes.set_all(&[3, 1, 0, 9], &no);
        assert_eq!(outcomes.finish(), 1);
        assert_eq!(outcomes.finish(), 0);
        outcomes.set_rest(&Outcome::Delivered);
        let told = told.lock().unwrap();
        assert_eq!(told[..2], [(vec![1], Outcome::Delivered), (vec![3, 0], no)]);
        assert_eq!(told.len(), 3);
        assert!(matches!(&told[2], (left, Outcome::Retry { scope: Scope::Delivery, .. }) if *left == [2]));
    }
}
