//! The streaming event router: configuration, Kafka, stages, delivery, telemetry and the command line.
