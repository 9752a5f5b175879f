//! The HTTP that all destinations share: one client with sane limits, one limiter per account, and what the vendors' answers
//! have in common.
//!
//! A request goes through three doors: the gates of the account and the endpoint (shut while a vendor has asked us to wait), the endpoint's
//! two windows (per second and per minute), and the question whether this process still owns the lane. Only then is it sent.
//! What a failure means for the others is judged in [`health`]. Nothing in here knows a vendor, and nothing retries: a repeat is the send stage's decision, because it keeps the order.

pub mod client;
pub mod health;
pub mod limit;
pub mod retry_after;

pub use client::{Client, Method, Request, Response, TransportError};
pub use health::{Health, Trouble};
pub use limit::{Closed, Gate, Limiter, Rate, Seat};
