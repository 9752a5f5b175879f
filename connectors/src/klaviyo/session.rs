//! One call of `deliver` or `confirm` as it speaks to an account: every request passes the limits and the question whether the
//! lanes are still ours, and the first trouble that is nobody's delivery stops all that follows.

use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use serde::Deserialize;
use tailwater_core::code;
use tailwater_core::delivery::Scope;

use super::account::Account;
use super::errors::{self, Halt, VendorError};
use super::requests::Request;
use crate::destination::Context;
use crate::http::{Response, TransportError, retry_after};

/// Names identifiers that were valid in shape but ignored, on an answer that is otherwise a success.
const PARTIAL_FAILURE: &str = "x-klaviyo-partial-failure";

pub(super) struct Session<'a> {
    account: &'a Account,
    context: &'a Context<'a>,
    /// The first trouble; once it is there, nothing more is sent.
    halt: Mutex<Option<Halt>>,
}

/// An answer that speaks of the request itself: a success, or a refusal of what was in it.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub status: u16,
    response: Response,
    account_errors: Vec<VendorError>,
}

// === impl Session ===

impl<'a> Session<'a> {
    pub fn new(account: &'a Account, context: &'a Context<'a>) -> Self {
        Self { account, context, halt: Mutex::new(None) }
    }

    /// Sends a request when its turn has come.
    ///
    /// # Errors
    /// Something that is not this request's fault stands in the way of all: it is remembered, and every further request ends
    /// with it at once.
    pub async fn send(&self, request: &Request) -> Result<Answer, Halt> {
        self.check()?;
        let limiter = &self.account.limiter;
        let endpoint = request.endpoint.index();
        let turn = tokio::select! {
            biased;
            turn = limiter.acquire(endpoint) => turn,
            () = self.context.lost() => return Err(self.stop(Halt::not_owned())),
        };
        if let Err(closed) = turn {
            let mut halt =
                Halt::new(code::RATE_LIMITED, Scope::Account, "the account waits, as the vendor has asked it to");
            halt.after = Some(closed.remaining);
            return Err(self.stop(halt));
        }
        // A sibling may have met trouble while this one waited for its turn.
        self.check()?;
        if !(self.context.still_owned)() {
            return Err(self.stop(Halt::not_owned()));
        }
        let response = match self.account.exchange(request).await {
            Ok(response) => response,
            Err(error) => return Err(self.stop(transport_halt(&error))),
        };
        let wish = response.header("retry-after").and_then(|value| retry_after::parse(value, SystemTime::now()));
        let words = if response.is_success() {
            String::new()
        } else {
            self.account.redact(&errors::summary(&errors::read(&response.body)))
        };
        if let Some(mut halt) = errors::halt_of(response.status, &words, request.endpoint.names_resource()) {
            if response.status == 429 {
                halt.after = Some(limiter.throttled(endpoint, wish));
            } else if let Some(wait) = wish {
                limiter.pause(wait);
                halt.after = Some(wait);
            }
            tracing::warn!(status = response.status, path = path_of(request), code = %halt.reason.code, "{}", halt.reason.message);
            return Err(self.stop(halt));
        }
        limiter.succeeded(endpoint);
        if let Some(ignored) = response.header(PARTIAL_FAILURE) {
            tracing::warn!(
                ignored,
                path = path_of(request),
                "the vendor took the request and ignored part of it as invalid"
            );
        }
        let account_errors = if response.is_success() { Vec::new() } else { self.redacted(&response.body) };
        Ok(Answer { status: response.status, response, account_errors })
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
            error.detail = self.account.redact(&error.detail);
            error.title = self.account.redact(&error.title);
        }
        errors
    }
}

fn path_of(request: &Request) -> &str {
    request.path.split('?').next().unwrap_or_default()
}

fn transport_halt(error: &TransportError) -> Halt {
    // A repeat is harmless in both cases: an upsert says the same again, and an event carries its unique id.
    Halt::new(code::VENDOR_UNAVAILABLE, Scope::Account, format!("{error}; it is repeated later"))
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

    /// Reads the body; `None` when it is not what it should be.
    pub fn read<'b, T: Deserialize<'b>>(&'b self) -> Option<T> {
        serde_json::from_slice(&self.response.body).ok()
    }
}
