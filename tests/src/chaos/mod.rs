//! The chaos harness: many processes of the product, a workload, faults all the while, and at the end a judgement over everything that arrived.
//!
//! [`receiver`] is the vendor, and remembers every item that reached it. [`proxy`] stands between the product and it and spoils connections. [`check`]
//! compares what was produced with what arrived, without looking at anything else.

pub mod check;
pub mod proxy;
pub mod receiver;
