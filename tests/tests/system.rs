//! System tests: the real binary, a real Kafka, real Delta tables. One binary, because each one links V8's weight of dependencies
//! and starts a broker; one module for each part of the story.

#[path = "system/harness.rs"]
mod harness;
