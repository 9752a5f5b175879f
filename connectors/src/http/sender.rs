//! A destination's side of an account: its seat at the limits, and where its credentials were refused.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tailwater_core::code;

use super::account::Account;
use super::endpoint::{Endpoint, Request};
use super::limit::Seat;
use super::session::Session;
use crate::destination::{Context, ProbeError};

/// How long one call of `deliver` starts single requests. What is left is sent with a later one, so that deliveries which need another
/// endpoint get their turn: 5,000 single upserts at 12 a second take seven minutes. Much longer than a batch takes to gather, so that little
/// is lost by it.
const CALL_TIME_MAX: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub struct Sender {
    account: Arc<Account>,
    seat: Seat,
    /// The endpoints that the credentials were refused at, until they are not; by label.
    denied: Mutex<BTreeMap<&'static str, &'static Endpoint>>,
    /// [`CALL_TIME_MAX`], but in tests.
    pub call_time_max: Duration,
}

// === impl Sender ===

impl Sender {
    pub fn new(account: Arc<Account>) -> Self {
        let seat = account.limiter.sit();
        Self { account, seat, denied: Mutex::default(), call_time_max: CALL_TIME_MAX }
    }

    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// For one call of `deliver` or `confirm`.
    pub fn session<'a>(&'a self, context: &'a Context<'a>) -> Session<'a> {
        Session::new(self, context)
    }

    /// Which part of the account's limits belongs to this destination in this process.
    pub fn set_share(&self, share: f64) {
        self.seat.set_share(share);
    }

    /// The credentials were refused at the endpoint: a probe has to ask there.
    pub(super) fn denied(&self, endpoint: &'static Endpoint) {
        self.denied.lock().unwrap_or_else(PoisonError::into_inner).insert(endpoint.label, endpoint);
    }

    /// Whether that is known.
    pub(super) fn is_denied(&self, endpoint: &'static Endpoint) -> bool {
        self.denied.lock().unwrap_or_else(PoisonError::into_inner).contains_key(endpoint.label)
    }

    /// The credentials were not refused at the endpoint.
    pub fn allowed(&self, endpoint: &'static Endpoint) {
        self.denied.lock().unwrap_or_else(PoisonError::into_inner).remove(endpoint.label);
    }

    /// Asks wherever the credentials were refused; where they were refused nowhere, at `usual`. `question` makes a request that needs the
    /// same permissions as the endpoint and changes nothing. That it is refused for its content is meant: the credentials passed.
    ///
    /// # Errors
    /// The credentials do not work, or nobody answers.
    pub async fn probe(
        &self,
        target: &str,
        usual: &'static Endpoint,
        question: impl Fn(&'static Endpoint) -> Request,
    ) -> Result<(), ProbeError> {
        let context = Context { still_owned: &|| true };
        let denied: Vec<&'static Endpoint> =
            self.denied.lock().unwrap_or_else(PoisonError::into_inner).values().copied().collect();
        let asked = if denied.is_empty() { vec![usual] } else { denied };
        for endpoint in asked {
            match self.session(&context).send(&question(endpoint), &[]).await {
                Ok(answer) if answer.is_success() || (400..500).contains(&answer.status()) => self.allowed(endpoint),
                Ok(answer) => {
                    let message = format!("{target}: {} (status {})", answer.words(), answer.status());
                    return Err(ProbeError { code: code::VENDOR_REJECTED, message });
                }
                Err(halt) => {
                    let message = format!("{target}: {}", halt.reason.message);
                    return Err(ProbeError { code: halt.reason.code, message });
                }
            }
        }
        Ok(())
    }
}
