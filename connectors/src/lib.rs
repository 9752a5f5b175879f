//! Destinations: one folder per vendor, and the HTTP they share.
//!
//! A destination has a pure half (`mapping`: a transform's output → operations → requests) and a half that does I/O (`deliver`,
//! `confirm`, `probe`). The pure half can show every request without sending it. Nothing in here knows Kafka, V8 or the stages:
//! a destination is handed deliveries and reports one outcome for each, as soon as it is known.

pub mod config;
pub mod connector;
pub mod customerio;
pub mod destination;
pub mod error;
pub mod http;
pub mod iterable;
pub mod klaviyo;
pub mod outcomes;
pub mod output;
pub mod registry;
#[cfg(test)]
mod scripted;

pub use connector::{Connector, Kind, Shared};
pub use destination::{
    ClassifyError, ClassifyInput, Context, Destination, Limits, OperationSpec, Planned, ProbeError, Spec,
};
pub use error::{Error, Problem, Severity};
pub use outcomes::Outcomes;
pub use output::{NonFinite, Nulls};
