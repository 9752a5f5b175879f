//! The streaming event router: configuration, Kafka, stages, delivery, telemetry and the command line.

pub mod app;
pub mod audit;
pub mod cli;
pub mod clock;
pub mod config;
pub mod embedded;
pub mod failpoint;
pub mod kafka;
pub mod stages;
pub mod state;
pub mod supervisor;
pub mod telemetry;
pub mod tools;
