//! One call of `deliver` or `confirm` as it speaks to an account: every request passes the limits and the question whether the
//! partitions are still ours. Trouble of the whole account stops all that follows; trouble of an endpoint or of a single request ends that
//! request only, and the others go on.

use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use serde::Deserialize;
use tailwater_core::delivery::{Delivery, Reason, Scope};
use tailwater_core::{Code, code};

use super::client::{Response, TransportError};
use super::endpoint::{Endpoint, Request};
use super::halt::Halt;
use super::health::Trouble;
use super::retry_after;
use super::sender::Sender;
use crate::destination::Context;

pub struct Session<'a> {
    sender: &'a Sender,
    context: &'a Context<'a>,
    /// The first trouble of the whole account; once it is there, nothing more is sent.
    halt: Mutex<Option<Halt>>,
    started: Instant,
}

/// An answer that speaks of the request itself: a success, or a refusal of what was in it.
#[derive(Debug, Clone)]
pub struct Answer {
    response: Response,
    words: String,
    remark: Option<String>,
}

/// Whom a request is about, for the judgement of failures: requests about the same person are not unrelated.
pub fn subject(delivery: &Delivery) -> u64 {
    let bytes = delivery.profile.as_bytes();
    // The id is random enough in every part; two people who share it would only make two failures look related.
    bytes.iter().take(8).fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
        ^ bytes.iter().skip(8).fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}

// === impl Session ===

impl<'a> Session<'a> {
    pub(super) fn new(sender: &'a Sender, context: &'a Context<'a>) -> Self {
        Self { sender, context, halt: Mutex::new(None), started: Instant::now() }
    }

    pub fn sender(&self) -> &'a Sender {
        self.sender
    }

    /// Whether the call may still start a single request.
    pub fn has_time(&self) -> bool {
        self.started.elapsed() < self.sender.call_time_max
    }

    /// Sends a request when its turn has come. `subjects` tells whom it is about.
    ///
    /// # Errors
    /// The request was not sent, or failed without an answer about itself. What concerns the account is remembered, and every further
    /// request ends with it at once.
    pub async fn send(&self, request: &Request, subjects: &[u64]) -> Result<Answer, Halt> {
        self.check()?;
        let (account, endpoint) = (self.sender.account(), request.endpoint);
        let (limiter, health) = (&account.limiter, &account.health);
        let turn = tokio::select! {
            biased;
            turn = limiter.acquire(endpoint) => turn,
            () = self.context.lost() => return Err(self.stop(Halt::not_owned())),
        };
        if let Err(closed) = turn {
            let halt = Halt::closed(closed, endpoint);
            return Err(if halt.scope == Scope::Account { self.stop(halt) } else { halt });
        }
        // A sibling may have met trouble while this one waited for its turn.
        self.check()?;
        if !(self.context.still_owned)() {
            return Err(self.stop(Halt::not_owned()));
        }
        let answers = health.answers(endpoint.label);
        let response = match account.exchange(request).await {
            Ok(response) => response,
            Err(error) => return Err(self.unanswered(endpoint, subjects, answers, &error)),
        };
        let vendor = account.vendor();
        let words = if response.is_success() { String::new() } else { account.redact(&vendor.words(&response)) };
        let meaning = vendor.meaning(&response, endpoint);
        let Some(mut halt) = meaning.halt(response.status, &words, vendor, endpoint) else {
            limiter.succeeded(endpoint);
            health.answered(endpoint.label);
            self.sender.allowed(endpoint);
            let remark = vendor.remark(&response);
            return Ok(Answer { response, words, remark });
        };
        let wish = response.header("retry-after").and_then(|value| retry_after::parse(value, SystemTime::now()));
        halt.after = wish;
        halt.answers = answers;
        let (status, path, code) = (response.status, request.path_only(), halt.reason.code);
        if halt.scope == Scope::Credentials && self.sender.is_denied(endpoint) {
            // A probe has asked again, and nothing has changed.
            tracing::debug!(status, path, %code, "{}", halt.reason.message);
        } else {
            tracing::warn!(status, path, %code, "{}", halt.reason.message);
        }
        Err(match halt.scope {
            Scope::Credentials => {
                self.sender.denied(endpoint);
                self.stop(halt)
            }
            Scope::Endpoint => {
                halt.after = Some(limiter.throttled(endpoint, wish));
                halt
            }
            Scope::Account | Scope::Delivery => self.failed(endpoint, subjects, halt),
        })
    }

    fn unanswered(&self, endpoint: &'static Endpoint, subjects: &[u64], answers: u64, error: &TransportError) -> Halt {
        let message = format!("{error}; it is repeated later");
        let mut halt = Halt::new(code::VENDOR_UNAVAILABLE, Scope::Account, message);
        halt.answers = answers;
        match error {
            // What is in the request cannot be the reason.
            TransportError::NotSent { .. } => self.stop(halt),
            // Whether a repeat is harmless is the connector's to know: see `Halt::ambiguous`.
            TransportError::Ambiguous { .. } | TransportError::TooLarge { .. } => {
                halt.ambiguous = true;
                self.failed(endpoint, subjects, halt)
            }
        }
    }

    /// A request failed without an answer about itself: whose trouble is it?
    fn failed(&self, endpoint: &'static Endpoint, subjects: &[u64], mut halt: Halt) -> Halt {
        let account = self.sender.account();
        match account.health.failed(endpoint.label, subjects) {
            Trouble::Request => {
                halt.scope = Scope::Endpoint;
                halt.failed = true;
                halt
            }
            Trouble::Endpoint => {
                halt.scope = Scope::Endpoint;
                halt.after = Some(account.limiter.failing(endpoint, halt.after));
                halt
            }
            Trouble::Account => {
                halt.scope = Scope::Account;
                if let Some(wait) = halt.after {
                    account.limiter.pause(wait);
                }
                self.stop(halt)
            }
        }
    }

    /// # Errors
    /// Something has stopped the session.
    fn check(&self) -> Result<(), Halt> {
        match &*self.halt.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(halt) => Err(halt.clone()),
            None => Ok(()),
        }
    }

    /// Remembers the first trouble and answers it.
    fn stop(&self, halt: Halt) -> Halt {
        self.halt.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| halt.clone());
        halt
    }
}

// === impl Answer ===

impl Answer {
    pub fn status(&self) -> u16 {
        self.response.status
    }

    pub fn is_success(&self) -> bool {
        self.response.is_success()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.response.header(name)
    }

    pub fn body(&self) -> &[u8] {
        &self.response.body
    }

    /// What the vendor has against the request, in one sentence; empty on success.
    pub fn words(&self) -> &str {
        &self.words
    }

    /// What the vendor took the request without, in a sentence.
    pub fn remark(&self) -> Option<&str> {
        self.remark.as_deref()
    }

    /// Reads the body; `None` when it is not what it should be.
    pub fn read<'b, T: Deserialize<'b>>(&'b self) -> Option<T> {
        serde_json::from_slice(&self.response.body).ok()
    }

    /// The code of a refusal: `payload_too_large` for 413, else `vendor_rejected`.
    pub fn code(&self) -> Code {
        if self.status() == 413 { code::PAYLOAD_TOO_LARGE } else { code::VENDOR_REJECTED }
    }

    /// The refusal as a reason, in the vendor's words.
    pub fn rejection(&self) -> Reason {
        self.reason(self.words.clone())
    }

    /// The refusal as a reason, in other words.
    pub fn reason(&self, message: impl Into<String>) -> Reason {
        Reason::new(self.code(), message).with_status(self.status())
    }
}
