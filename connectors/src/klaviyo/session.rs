//! One call of `deliver` or `confirm` as it speaks to an account: every request passes the limits and the question whether the
//! lanes are still ours. Trouble of the whole account stops all that follows; trouble of an endpoint or of a single request ends that
//! request only, and the others go on.

use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use serde::Deserialize;
use tailwater_core::code;
use tailwater_core::delivery::{Delivery, Scope};

use super::Klaviyo;
use super::errors::{self, Halt, VendorError};
use super::requests::Request;
use crate::destination::Context;
use crate::http::{Closed, Gate, Response, TransportError, Trouble, retry_after};

/// Names identifiers that were valid in shape but ignored, on an answer that is otherwise a success.
const PARTIAL_FAILURE: &str = "x-klaviyo-partial-failure";

pub(super) struct Session<'a> {
    klaviyo: &'a Klaviyo,
    context: &'a Context<'a>,
    /// The first trouble of the whole account; once it is there, nothing more is sent.
    halt: Mutex<Option<Halt>>,
    started: Instant,
}

/// An answer that speaks of the request itself: a success, or a refusal of what was in it.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub status: u16,
    response: Response,
    account_errors: Vec<VendorError>,
}

/// Whom a request is about, for the judgement of failures: requests about the same person are not unrelated.
pub(super) fn subject(delivery: &Delivery) -> u64 {
    let bytes = delivery.profile.as_bytes();
    // The id is random enough in every part; two people who share it would only make two failures look related.
    bytes.iter().take(8).fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
        ^ bytes.iter().skip(8).fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}

// === impl Session ===

impl<'a> Session<'a> {
    pub fn new(klaviyo: &'a Klaviyo, context: &'a Context<'a>) -> Self {
        Self { klaviyo, context, halt: Mutex::new(None), started: Instant::now() }
    }

    /// Whether the call may still start a single request.
    pub fn has_time(&self) -> bool {
        self.started.elapsed() < self.klaviyo.call_time_max
    }

    /// Sends a request when its turn has come. `subjects` tells whom it is about.
    ///
    /// # Errors
    /// The request was not sent, or failed without an answer about itself. What concerns the account is remembered, and every further
    /// request ends with it at once.
    pub async fn send(&self, request: &Request, subjects: &[u64]) -> Result<Answer, Halt> {
        self.check()?;
        let account = &self.klaviyo.account;
        let (limiter, health) = (&account.limiter, &account.health);
        let endpoint = request.endpoint.index();
        let turn = tokio::select! {
            biased;
            turn = limiter.acquire(endpoint) => turn,
            () = self.context.lost() => return Err(self.stop(Halt::not_owned())),
        };
        if let Err(closed) = turn {
            let halt = closed_halt(closed, request);
            return Err(if halt.scope == Scope::Account { self.stop(halt) } else { halt });
        }
        // A sibling may have met trouble while this one waited for its turn.
        self.check()?;
        if !(self.context.still_owned)() {
            return Err(self.stop(Halt::not_owned()));
        }
        let answers = health.answers(endpoint);
        let response = match account.exchange(request).await {
            Ok(response) => response,
            Err(error) => {
                let mut halt =
                    Halt::new(code::VENDOR_UNAVAILABLE, Scope::Account, format!("{error}; it is repeated later"));
                halt.answers = answers;
                return Err(match error {
                    // What is in the request cannot be the reason.
                    TransportError::NotSent { .. } => self.stop(halt),
                    // A repeat is harmless: an upsert says the same again, and an event carries its unique id.
                    TransportError::Ambiguous { .. } | TransportError::TooLarge { .. } => {
                        self.failed(request, subjects, halt)
                    }
                });
            }
        };
        let wish = response.header("retry-after").and_then(|value| retry_after::parse(value, SystemTime::now()));
        let words = if response.is_success() {
            String::new()
        } else {
            account.redact(&errors::summary(&errors::read(&response.body)))
        };
        let Some(mut halt) = errors::halt_of(response.status, &words, request.endpoint) else {
            limiter.succeeded(endpoint);
            health.answered(endpoint);
            self.klaviyo.allowed(request.endpoint);
            let account_errors = if response.is_success() { Vec::new() } else { self.redacted(&response.body) };
            return Ok(Answer { status: response.status, response, account_errors });
        };
        halt.after = wish;
        halt.answers = answers;
        tracing::warn!(status = response.status, path = path_of(request), code = %halt.reason.code, "{}", halt.reason.message);
        Err(match halt.scope {
            Scope::Credentials => {
                self.klaviyo.denied(request.endpoint);
                self.stop(halt)
            }
            Scope::Endpoint => {
                halt.after = Some(limiter.throttled(endpoint, wish));
                halt
            }
            Scope::Account | Scope::Delivery => self.failed(request, subjects, halt),
        })
    }

    /// A request failed without an answer about itself: whose trouble is it?
    fn failed(&self, request: &Request, subjects: &[u64], mut halt: Halt) -> Halt {
        let account = &self.klaviyo.account;
        let endpoint = request.endpoint.index();
        match account.health.failed(endpoint, subjects) {
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

    fn redacted(&self, body: &[u8]) -> Vec<VendorError> {
        let mut errors = errors::read(body);
        for error in &mut errors {
            error.detail = self.klaviyo.account.redact(&error.detail);
            error.title = self.klaviyo.account.redact(&error.title);
        }
        errors
    }
}

fn path_of(request: &Request) -> &str {
    request.path.split('?').next().unwrap_or_default()
}

/// A gate is shut for longer than a request should wait.
fn closed_halt(closed: Closed, request: &Request) -> Halt {
    let label = request.endpoint.label();
    let (code, scope, message) = match closed.gate {
        Gate::Throttled => (
            code::RATE_LIMITED,
            Scope::Endpoint,
            format!("{label} waits, as the vendor has asked; other endpoints go on"),
        ),
        Gate::Failing => (
            code::VENDOR_UNAVAILABLE,
            Scope::Endpoint,
            format!("{label} fails for everybody and is tried again later; other endpoints go on"),
        ),
        Gate::Account => (
            code::VENDOR_UNAVAILABLE,
            Scope::Account,
            "the account waits, as the vendor has asked while it has trouble".to_owned(),
        ),
    };
    let mut halt = Halt::new(code, scope, message);
    halt.after = Some(closed.remaining);
    halt
}

// === impl Answer ===

impl Answer {
    pub fn is_success(&self) -> bool {
        self.response.is_success()
    }

    /// What the vendor has against the request; empty on success.
    pub fn errors(&self) -> &[VendorError] {
        &self.account_errors
    }

    /// What the vendor took the request without, in a sentence.
    pub fn remark(&self) -> Option<String> {
        let ignored = self.response.header(PARTIAL_FAILURE).filter(|ignored| !ignored.trim().is_empty())?;
        let ignored: Vec<String> = ignored.split(',').map(|field| format!("`{}`", field.trim())).collect();
        Some(format!("the vendor took the request and ignored {} as invalid", ignored.join(", ")))
    }

    /// Reads the body; `None` when it is not what it should be.
    pub fn read<'b, T: Deserialize<'b>>(&'b self) -> Option<T> {
        serde_json::from_slice(&self.response.body).ok()
    }
}
