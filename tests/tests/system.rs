//! System tests: the real binary, a real Kafka, real Delta tables. One binary, because each one links a world of dependencies and
//! needs a broker; one module for each part of the story.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise, in its helpers too")]

#[path = "system/audit.rs"]
mod audit;
#[path = "system/bad_input.rs"]
mod bad_input;
#[path = "system/commands.rs"]
mod commands;
#[path = "system/deleted.rs"]
mod deleted;
#[path = "system/delta.rs"]
mod delta;
#[path = "system/embedded.rs"]
mod embedded;
#[path = "system/failpoints.rs"]
mod failpoints;
#[path = "system/flow.rs"]
mod flow;
#[path = "system/harness.rs"]
mod harness;
#[path = "system/identifiers.rs"]
mod identifiers;
#[path = "system/ingest.rs"]
mod ingest;
#[path = "system/roles.rs"]
mod roles;
#[path = "system/routes.rs"]
mod routes;
#[path = "system/state.rs"]
mod state;
#[path = "system/stops.rs"]
mod stops;
#[path = "system/trouble.rs"]
mod trouble;
#[path = "system/winback.rs"]
mod winback;
