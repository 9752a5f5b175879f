//! Customer.io: people, events, objects with relationships, devices and manual segments.
//!
//! The vendor has two APIs, and an account uses one of them. The Track API v2 takes items of all kinds in one batch and answers for each
//! of them; its item is the form in which operations are recorded. The Pipelines API takes calls of Segment's shape, which are made of the
//! items when a request is made, and is always asked in strict mode: without it, 200 is the answer to what is dropped.
//!
//! ```text
//! transform's output ─ mapping ─▶ Operation(payload) ─ requests, pipelines ─▶ Request ─ http ─▶ vendor
//!                      (limits)                        (ulid)                                     │
//!                                     Outcome ◀─ deliver ◀────────────────── errors ─────────────┘
//! ```
//!
//! What the vendor does without a word shapes this folder. It drops an update with a time before the last one: no state carries a time
//! unless the configuration says so. It reads milliseconds as the year 58,000: they are converted with a remark. It ignores a second event
//! with the same id, of whomever: ids are made of the delivery. It ignores unknown people in a segment and identifiers that somebody else
//! has: the guide says what cannot be known.
//!
//! It never sends an identifier that is not the profile's, never changes what a person has agreed to unless the output says so by name, and
//! with `create: false` updates nobody into existence.

mod account;
mod config;
mod deliver;
mod endpoint;
mod errors;
mod limits;
mod mapping;
mod payload;
mod pipelines;
mod plan;
mod probe;
mod requests;
mod ulid;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tailwater_core::code;
use tailwater_core::delivery::{Delivery, Outcome, Reason, Scope, Ticket};
use tailwater_core::operation::{Operation, OperationKind as Kind};

pub use account::Connection;
pub use config::{Account, Api, Milliseconds, Options, Region};

use crate::connector::Shared;
use crate::destination::{
    ClassifyError, ClassifyInput, Context, Destination, Idempotent, Limits, OperationSpec, Planned, ProbeError, Spec,
};
use crate::error::{Error, Problem};
use crate::http::{Attempts, Recent, Sender};
use crate::outcomes::Outcomes;
use crate::output::{NonFinite, Nulls, or_wrong_vendor};
use limits::{BATCH_ITEMS_MAX, SEGMENT_IDS_MAX};
use mapping::{Field, Rules};

/// Objects per generation that are known to exist.
const OBJECTS_MAX: usize = 50_000;

/// How long a generation lasts: an object that somebody deletes at the vendor is created again for a relationship after at most twice this.
const OBJECTS_AGE_MAX: Duration = Duration::from_secs(300);

const OPERATIONS: &[OperationSpec] = &[
    operation(
        Kind::UpsertProfile,
        Idempotent::Yes,
        "With `create: false` the vendor ignores it for unknown people, without a word.",
    ),
    operation(Kind::TrackEvent, Idempotent::ById, "Older than 72 hours, it triggers no campaign."),
    operation(Kind::DeleteProfile, Idempotent::Yes, ""),
    operation(Kind::MergeProfiles, Idempotent::Yes, "It cannot be undone; Track API only."),
    operation(
        Kind::ChangeIdentifier,
        Idempotent::Yes,
        "The vendor ignores an identifier that somebody else has, without a word.",
    ),
    segment(Kind::AddToList, "A manual segment; the vendor ignores unknown people, without a word. Track API only."),
    segment(Kind::RemoveFromList, "A manual segment; people need an `id`. Track API only."),
    operation(Kind::Subscribe, Idempotent::Yes, ""),
    operation(Kind::Unsubscribe, Idempotent::Yes, ""),
    operation(Kind::Suppress, Idempotent::Yes, "The vendor deletes the person as well."),
    operation(Kind::Unsuppress, Idempotent::Yes, ""),
    operation(Kind::UpsertObject, Idempotent::Yes, "With the Pipelines API only together with a person."),
    operation(Kind::DeleteObject, Idempotent::Yes, ""),
    operation(
        Kind::Relate,
        Idempotent::Yes,
        "An object that does not exist is created first, without attributes. A device is related in the same way.",
    ),
    operation(Kind::Unrelate, Idempotent::Yes, ""),
];

const fn operation(kind: Kind, idempotent: Idempotent, note: &'static str) -> OperationSpec {
    OperationSpec { kind, idempotent, batch_max: BATCH_ITEMS_MAX, note }
}

const fn segment(kind: Kind, note: &'static str) -> OperationSpec {
    OperationSpec { kind, idempotent: Idempotent::Yes, batch_max: SEGMENT_IDS_MAX, note }
}

static SPEC: Spec = Spec {
    kind: "customerio",
    identifier_fields: &["id", "email", "phone", "cio_id", "anonymous_id"],
    limits: Limits {
        // One full batch; the limit in bytes is kept by cutting.
        batch_deliveries_max: BATCH_ITEMS_MAX,
        batch_age_max: Duration::from_millis(250),
        // Requests wait for the account's limits anyway; other calls fill the gaps while one waits for an answer.
        calls_max: 8,
    },
    operations: OPERATIONS,
};

/// What the configuration says about a destination.
#[derive(Debug, Clone)]
struct Config {
    /// The vendor's field that holds the destination's identifier.
    key: Field,
    /// The vendor's field → the identifier type whose values it may hold.
    identifiers: BTreeMap<String, String>,
    create: bool,
    implicit_create: bool,
    nulls: Nulls,
    non_finite: NonFinite,
    milliseconds: Milliseconds,
    state_timestamps: bool,
}

/// A destination at an account.
#[derive(Debug)]
pub struct Customerio {
    connection: Arc<Connection>,
    sender: Sender,
    api: Api,
    config: Config,
    attempts: Attempts,
    /// Objects that exist at the vendor, by target.
    objects: Recent<String>,
}

// === impl Config ===

impl Config {
    /// # Errors
    /// No field of the vendor holds the destination's identifier.
    fn new(options: &Options, shared: &Shared) -> Result<Self, Error> {
        let Some(key) = config::key_field(shared) else {
            let message = format!("no field of the vendor holds the identifier type `{}`", shared.identifier);
            return Err(Error::Config(vec![Problem::new(code::CONFIG_UNKNOWN_REFERENCE, "identifier", message)]));
        };
        Ok(Self {
            key,
            identifiers: shared.identifiers.clone(),
            create: options.create,
            implicit_create: options.implicit_create,
            nulls: options.nulls,
            non_finite: options.non_finite,
            milliseconds: options.milliseconds,
            state_timestamps: options.state_timestamps,
        })
    }
}

// === impl Customerio ===

impl Customerio {
    fn new(connection: Arc<Connection>, config: Config) -> Self {
        let sender = Sender::new(Arc::clone(&connection.http));
        let api = connection.config.api;
        let objects = Recent::new(OBJECTS_MAX, OBJECTS_AGE_MAX);
        Self { connection, sender, api, config, attempts: Attempts::default(), objects }
    }

    fn rules(&self) -> Rules<'_> {
        let config = &self.config;
        Rules {
            api: self.api,
            key: config.key,
            identifiers: &config.identifiers,
            create: config.create,
            implicit_create: config.implicit_create,
            nulls: config.nulls,
            non_finite: config.non_finite,
            milliseconds: config.milliseconds,
            state_timestamps: config.state_timestamps,
        }
    }
}

#[async_trait]
impl Destination for Customerio {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn target(&self) -> String {
        format!("{} {}, {} API", SPEC.kind, self.sender.account().target(), self.api.as_str())
    }

    fn non_finite(&self) -> NonFinite {
        self.config.non_finite
    }

    fn classify(&self, input: &ClassifyInput<'_>) -> Result<Vec<Operation>, ClassifyError> {
        mapping::classify(self.rules(), input).map_err(|error| or_wrong_vendor(SPEC.kind, input.output, error))
    }

    fn plan(&self, batch: &[Delivery]) -> Vec<Planned> {
        self.plan_batch(batch)
    }

    async fn deliver(&self, batch: &[Delivery], outcomes: &Outcomes<'_>, context: &Context<'_>) {
        self.deliver_batch(batch, &self.sender.session(context), outcomes).await;
    }

    /// The vendor has no jobs, so nothing is ever accepted for later.
    async fn confirm(&self, _: &Ticket, _: &[Delivery], outcomes: &Outcomes<'_>, _: &Context<'_>) {
        let message = "the delivery was recorded as a job, which Customer.io does not have; it is sent again";
        let reason = Reason::new(code::JOB_CANCELLED, message);
        outcomes.set_rest(&Outcome::Retry { after: None, scope: Scope::Delivery, reason });
    }

    async fn probe(&self) -> Result<(), ProbeError> {
        self.probe_account().await
    }

    fn set_share(&self, share: f64) {
        self.sender.set_share(share);
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
