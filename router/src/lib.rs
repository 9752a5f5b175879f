//! The streaming event router: configuration, Kafka, stages, delivery, telemetry and the command line.

pub mod app;
pub mod cli;
pub mod config;
pub mod embedded;
pub mod failpoint;
pub mod kafka;
pub mod operator;
pub mod runtime;
pub mod stages;
pub mod state;
pub mod telemetry;
