//! What every part of a running process stands on: what the parts share ([`Context`]), the supervisor that starts and ends their
//! threads and tasks, and the clocks. It is below the stages and knows none of them; `app` above wires the stages to it.

pub mod clock;
mod context;
pub mod supervisor;

pub use context::Context;
