//! Vendors on localhost: for tests, for the demo, and for anybody who wants to see what would be sent without an account.
//!
//! A simulator answers by the vendor's published specification and by recorded answers: status, headers, bodies, limits that are
//! enforced, jobs that take time. It keeps what it received, so that a test can ask what a person looks like at the vendor.
//! Beside the vendor's interface it has a control plane of its own under `/_simulator/`.
//!
//! A simulator must never know Tailwater: it sees HTTP requests and nothing else, otherwise it would agree with our mistakes.
//! It must never be lenient either: where a vendor's behaviour is not documented it takes the stricter reading and says so.

mod command;
pub mod customerio;
pub mod engine;
pub mod iterable;
pub mod klaviyo;
mod shape;

pub use command::{Arguments, Command, Common, KINDS, Kind};
