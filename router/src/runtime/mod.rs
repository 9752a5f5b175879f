//! What every part of a running process stands on: the supervisor that starts and ends its threads and tasks, and its clocks.

pub mod clock;
pub mod supervisor;
