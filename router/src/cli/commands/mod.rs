//! The commands, one file each.

pub mod audit;
pub mod completions;
pub mod config;
pub mod destinations;
pub mod dlq;
pub mod init;
pub mod probe;
pub mod run;
pub mod simulate;
pub mod status;
pub mod tap;
pub mod topics;
pub mod trace;
pub mod validate;
