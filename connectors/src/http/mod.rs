//! The HTTP that all destinations share: one client with sane limits, one limiter per account, and what the vendors' answers
//! have in common.
//!
//! A request goes through three doors: the account's gate (shut while a vendor has asked us to wait), the endpoint's two windows
//! (per second and per minute), and the question whether this process still owns the lane. Only then is it sent.
//! Nothing in here knows a vendor, and nothing retries: a repeat is the send stage's decision, because it keeps the order.

pub mod client;
pub mod limit;
pub mod retry_after;

pub use client::{Client, Method, Request, Response, TransportError};
pub use limit::{Closed, Limiter, Rate, Seat};
