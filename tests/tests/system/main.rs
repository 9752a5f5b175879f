//! System tests: the real binary, a real Kafka, real Delta tables. One binary, because each one links a world of dependencies and
//! needs a broker; one module for each part of the story.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at the first surprise, in its helpers too"
)]

mod audit;
mod bad_input;
mod churn;
mod commands;
mod deleted;
mod delta;
mod destination;
mod embedded;
mod failpoints;
mod flow;
mod guide_requests;
mod guides;
mod harness;
mod identifiers;
mod ingest;
mod orders;
mod postbox;
mod retransform;
mod roles;
mod routes;
mod state;
mod stops;
mod trouble;
mod upgrade;
mod winback;
