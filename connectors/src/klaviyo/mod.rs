//! Klaviyo: profiles with list memberships, and events.
//!
//! What the vendor documents shapes this folder. An upsert of one person is quick but slow in numbers (12 a second sustained);
//! a bulk import takes thousands at once but runs as a job whose end has to be asked for, and adds *everyone* in it to its
//! lists, so jobs are made by exact list set. A list is joined only with or after the update of the person: with, inside a
//! job; after, for single upserts. A profile is effective when its single upsert has answered or its job is complete.
//!
//! ```text
//! transform's output ─ mapping ─▶ Operation ─ grouping, requests ─▶ Request ─ session ─▶ vendor
//!                      (schema)               (plan)                   (limits, health)     │
//!                                   Outcome ◀─ deliver, parts, jobs, lookup ◀─ errors ──────┘
//! ```
//!
//! What one endpoint keeps waiting does not keep the others, and what one person's data does to a request is not their neighbors' fault
//! (`http::parts`). What has succeeded is not repeated (`work`).
//!
//! It never subscribes, never lifts a suppression, never sends an identifier that is not the profile's, and with
//! `create: false` never creates anybody: unknown people end as skipped.

mod account;
pub mod config;
mod deliver;
mod endpoint;
mod errors;
mod grouping;
mod jobs;
mod lookup;
mod mapping;
mod payload;
mod plan;
mod requests;
mod schema;
mod work;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tailwater_core::code;
use tailwater_core::delivery::{Delivery, Ticket};
use tailwater_core::operation::{Operation, OperationKind};

pub use account::{Account, BASE_URL};
pub use config::OnConflict;

pub use crate::http::RATE_SHARE;

use crate::destination::{
    ClassifyError, ClassifyInput, Context, Destination, Idempotent, Limits, OperationSpec, Planned, ProbeError, Spec,
};
use crate::error::{Error, Problem};
use crate::http::{self, Attempts, Sender, Session};
use crate::outcomes::Outcomes;
use crate::output::{NonFinite, Nulls, nearest, or_wrong_vendor};
use lookup::Known;
use mapping::Rules;
use requests::{Field, PROFILE_BYTES_MAX};
use work::{Steps, Work};

/// From this many upserts on, a batch goes as bulk imports unless the configuration says otherwise. Fewer are done one by one before a
/// job would have been asked for twice.
pub const BULK_FROM: usize = 20;

static SPEC: Spec = Spec {
    kind: "klaviyo",
    identifier_fields: &["email", "phone_number", "external_id"],
    limits: Limits {
        // One full job; the body's limit in bytes is kept by cutting.
        batch_deliveries_max: requests::BULK_PROFILES_MAX,
        batch_age_max: Duration::from_millis(250),
        // Requests wait for the account's limits anyway; a second call fills the gaps while the first one waits for answers.
        calls_max: 4,
    },
    operations: &[
        OperationSpec {
            kind: OperationKind::UpsertProfile,
            idempotent: Idempotent::Yes,
            batch_max: requests::BULK_PROFILES_MAX,
            note: "the lists that the person joins travel with the profile",
        },
        OperationSpec {
            kind: OperationKind::TrackEvent,
            idempotent: Idempotent::ById,
            batch_max: 1,
            note: "the vendor ignores a repeat of a `unique_id`, which is the delivery's key unless the transform gives one",
        },
    ],
};

/// What the configuration says about a destination.
#[derive(Debug, Clone)]
pub struct Config {
    /// Whether a sync may create people whom the vendor does not know.
    pub create: bool,
    /// The identifier type that the destination needs of every profile: the field that holds it decides when two identifiers
    /// disagree.
    pub identifier: String,
    /// The vendor's field (`email`, `phone_number`, `external_id`) → the identifier type whose values it may hold.
    pub identifiers: BTreeMap<String, String>,
    pub nulls: Nulls,
    pub non_finite: NonFinite,
    pub on_conflict: OnConflict,
    /// From how many upserts in a batch on bulk imports are used; 0 means always.
    pub bulk_from: usize,
}

/// A destination at an account.
#[derive(Debug)]
pub struct Klaviyo {
    sender: Sender,
    config: Config,
    key_field: Field,
    known: Known,
    attempts: Attempts<Steps>,
}

// === impl Config ===

impl Config {
    /// Everything that is wrong with it, without the network.
    pub fn check(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for field in self.identifiers.keys().filter(|field| Field::find(field).is_none()) {
            let hint = nearest(field, SPEC.identifier_fields.iter().copied())
                .map_or(String::new(), |near| format!("; did you mean `{near}`?"));
            let message =
                format!("the vendor has no identifier `{field}`; it knows {}{hint}", SPEC.identifier_fields.join(", "));
            problems.push(Problem::new(code::CONFIG_INVALID_VALUE, "identifiers", message).below(field));
        }
        if self.key_field().is_none() {
            let message = format!(
                "no field of the vendor holds the identifier type `{}`; add `identifiers: {{<{}>: {}}}`",
                self.identifier,
                SPEC.identifier_fields.join(" | "),
                self.identifier
            );
            problems.push(Problem::new(code::CONFIG_UNKNOWN_REFERENCE, "identifier", message));
        }
        problems
    }

    fn key_field(&self) -> Option<Field> {
        Field::ALL.into_iter().find(|field| self.identifiers.get(field.as_str()) == Some(&self.identifier))
    }
}

// === impl Klaviyo ===

impl Klaviyo {
    /// Sets a destination up; speaks to nobody yet.
    ///
    /// # Errors
    /// The configuration is wrong.
    pub fn new(account: Arc<Account>, config: Config) -> Result<Self, Error> {
        let problems = config.check();
        let (true, Some(key_field)) = (problems.is_empty(), config.key_field()) else {
            return Err(Error::Config(problems));
        };
        let sender = Sender::new(Arc::clone(&account.0));
        Ok(Self { sender, config, key_field, known: lookup::known(), attempts: Attempts::default() })
    }

    fn work<'a>(&'a self, batch: &'a [Delivery], session: &'a Session<'a>, outcomes: &'a Outcomes<'a>) -> Work<'a> {
        let shared = http::Work { session, attempts: &self.attempts, batch, outcomes };
        Work { klaviyo: self, shared }
    }
}

#[async_trait]
impl Destination for Klaviyo {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn target(&self) -> String {
        format!("{} {}", SPEC.kind, self.sender.account().target())
    }

    fn non_finite(&self) -> NonFinite {
        self.config.non_finite
    }

    fn classify(&self, input: &ClassifyInput<'_>) -> Result<Vec<Operation>, ClassifyError> {
        let rules = Rules {
            identifiers: &self.config.identifiers,
            nulls: self.config.nulls,
            non_finite: self.config.non_finite,
        };
        let operation = mapping::classify(rules, input);
        Ok(vec![operation.map_err(|error| or_wrong_vendor(SPEC.kind, input.output, error))?])
    }

    fn plan(&self, batch: &[Delivery]) -> Vec<Planned> {
        self.plan_batch(batch)
    }

    async fn deliver(&self, batch: &[Delivery], outcomes: &Outcomes<'_>, context: &Context<'_>) {
        self.deliver_batch(batch, &self.sender.session(context), outcomes).await;
    }

    async fn confirm(&self, ticket: &Ticket, members: &[Delivery], outcomes: &Outcomes<'_>, context: &Context<'_>) {
        self.confirm_job(ticket, members, &self.sender.session(context), outcomes).await;
    }

    /// Asks where the key was refused, for the scopes that were missing there; where it was refused nowhere, for the lists.
    async fn probe(&self) -> Result<(), ProbeError> {
        self.sender.probe(&self.target(), &endpoint::LISTS, requests::probe).await
    }

    fn set_share(&self, share: f64) {
        self.sender.set_share(share);
    }
}

const _: () = assert!(PROFILE_BYTES_MAX < requests::BULK_BYTES_MAX, "every profile fits into a job of its own");

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
