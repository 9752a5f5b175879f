//! Iterable: users, events, purchases, carts, list memberships, and what changes who a person is.
//!
//! What the vendor documents shapes this folder. Single calls are quick and many (500 users a second); bulk calls carry a thousand but are
//! processed by themselves, so that a single and a bulk call for one person can be applied in either order. A bulk call is a success even
//! where every update in it failed, names failures by identifier, and fails as a whole for one field of the wrong type. A field's type is
//! fixed for the whole project by whoever wrote it first. And an update is effective some time after it was accepted: what depends on it
//! has to wait.
//!
//! ```text
//! transform's output ─ mapping ─▶ Operation ─ grouping, requests ─▶ Request ─ session ─▶ vendor
//!                      (schema)               (plan, recent)                                  │
//!                                   Outcome ◀─ deliver, lookup ◀─ answers, types ◀────────────┘
//! ```
//!
//! It changes what a person is subscribed to only by an operation of its own, never sends an identifier that is not the profile's, and with
//! `create: false` never creates anybody: unknown people end as skipped.

mod answers;
pub mod config;
mod deliver;
mod endpoint;
mod grouping;
mod lookup;
mod mapping;
mod person;
mod plan;
mod requests;
mod schema;
mod types;
mod vendor;
mod work;
mod writes;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::Value;
use tailwater_core::code;
use tailwater_core::delivery::{Delivery, Outcome, Reason, Scope, Ticket};
use tailwater_core::operation::{Operation, OperationKind};

use crate::destination::{
    ClassifyError, ClassifyInput, Context, Destination, Idempotent, Limits, OperationSpec, Planned, ProbeError, Spec,
};
use crate::error::Error;
use crate::http::{self, Attempts, Credential, Recent, Sender, Session, Setup};
use crate::outcomes::Outcomes;
use crate::output::{NonFinite, Nulls, or_wrong_vendor};
use mapping::Rules;
use person::Field;
pub use person::Identity;
use types::Types;
use writes::Writes;

/// How long the vendor may take until an update is effective: the time that it asks for before a dependent request.
pub const SETTLE: Duration = Duration::from_secs(60);

/// From this many users or events on, a batch goes in bulk unless the configuration says otherwise. Fewer go one by one, within the
/// vendor's 500 users a second.
pub const BULK_FROM: usize = 100;

static SPEC: Spec = Spec {
    kind: "iterable",
    identifier_fields: &["email", "userId"],
    limits: Limits {
        // Two full bulk requests; the body's limit in bytes is kept by cutting.
        batch_deliveries_max: 2 * requests::BULK_ITEMS_MAX,
        batch_age_max: Duration::from_millis(250),
        // Requests wait for the account's limits anyway; a second call fills the gaps while the first one waits for answers.
        calls_max: 4,
    },
    operations: &[
        OperationSpec {
            kind: OperationKind::UpsertProfile,
            idempotent: Idempotent::Yes,
            batch_max: requests::BULK_ITEMS_MAX,
            note: "a cart (`{user, items}`) is a state of its own and goes by itself",
        },
        OperationSpec {
            kind: OperationKind::TrackEvent,
            idempotent: Idempotent::ById,
            batch_max: requests::BULK_ITEMS_MAX,
            note: "an event or a purchase with an `id` that exists overwrites it; the id is the delivery's key unless the transform gives one",
        },
        OperationSpec {
            kind: OperationKind::AddToList,
            idempotent: Idempotent::Yes,
            batch_max: requests::BULK_ITEMS_MAX,
            note: "waits until the person's last update is effective",
        },
        OperationSpec {
            kind: OperationKind::RemoveFromList,
            idempotent: Idempotent::Yes,
            batch_max: requests::BULK_ITEMS_MAX,
            note: "ends no subscription",
        },
        OperationSpec {
            kind: OperationKind::ChangeIdentifier,
            idempotent: Idempotent::Yes,
            batch_max: 1,
            note: "another address for the person (`updateEmail`, or an update where the project identifies people by `userId`)",
        },
        OperationSpec {
            kind: OperationKind::MergeProfiles,
            idempotent: Idempotent::Yes,
            batch_max: 1,
            note: "needs a server-side key; the source is deleted",
        },
        OperationSpec {
            kind: OperationKind::DeleteProfile,
            idempotent: Idempotent::Yes,
            batch_max: 1,
            note: "the vendor deletes later, and takes new data about the person",
        },
        OperationSpec {
            kind: OperationKind::Suppress,
            idempotent: Idempotent::Yes,
            batch_max: 1,
            note: "the vendor's `forget`: deletes the person and takes no more data; 1,000 a day",
        },
        OperationSpec {
            kind: OperationKind::Unsuppress,
            idempotent: Idempotent::Yes,
            batch_max: 1,
            note: "the vendor's `unforget`: takes data about the person again; what was deleted stays so",
        },
        OperationSpec {
            kind: OperationKind::Subscribe,
            idempotent: Idempotent::Yes,
            batch_max: 1,
            note: "one subscription; the vendor has to enable it for the project",
        },
        OperationSpec {
            kind: OperationKind::Unsubscribe,
            idempotent: Idempotent::Yes,
            batch_max: 1,
            note: "one subscription, or fields such as `unsubscribedChannelIds`, each of which is overwritten as a whole",
        },
        OperationSpec {
            kind: OperationKind::UpsertCatalogItem,
            idempotent: Idempotent::Yes,
            batch_max: requests::BULK_ITEMS_MAX,
            note: "`value` replaces the item, `update` changes the fields that it names; the vendor writes later",
        },
        OperationSpec {
            kind: OperationKind::DeleteCatalogItem,
            idempotent: Idempotent::Yes,
            batch_max: requests::BULK_ITEMS_MAX,
            note: "the vendor deletes later",
        },
    ],
};

/// Identifiers of known people per generation, and how long a generation lasts: a person who is deleted at the vendor is created again for
/// at most twice this long.
const KNOWN_MAX: usize = 50_000;
const KNOWN_AGE_MAX: Duration = Duration::from_secs(300);

/// How long what the project has reported of its fields is good, where a field seems to be missing.
const FIELDS_AGE_MAX: Duration = Duration::from_secs(60);

/// What the configuration says about a destination and the project behind its account.
#[derive(Debug, Clone)]
pub struct Config {
    pub identity: Identity,
    /// Whether a sync may create people whom the vendor does not know.
    pub create: bool,
    pub create_new_fields: bool,
    pub merge_nested_objects: bool,
    /// The vendor's field → the identifier type whose values it may hold.
    pub identifiers: BTreeMap<String, String>,
    pub nulls: Nulls,
    pub non_finite: NonFinite,
    pub convert_dates: bool,
    /// From how many users or events in a batch on bulk requests are used; 0 means always.
    pub bulk_from: usize,
    /// How long the vendor may take until an update is effective.
    pub settle: Duration,
}

/// A destination at an account.
#[derive(Debug)]
pub struct Iterable {
    sender: Sender,
    config: Config,
    attempts: Attempts<work::Steps>,
    /// How people were written lately, and how events were recorded about them.
    users: Writes,
    events: Writes,
    known: Recent<(Field, String)>,
    types: Types,
    /// When the project was last asked for its fields.
    fields_asked: tokio::sync::Mutex<Option<Instant>>,
    share: Mutex<f64>,
}

/// Sets an account up; speaks to nobody yet.
///
/// # Errors
/// The address is wrong, or the platform gives no HTTP client.
pub fn open(api_key: &SecretString, base_url: &str, rate_share: f64) -> Result<http::Account, Error> {
    http::Account::new(Setup {
        base_url,
        rate_share,
        // In a header only: keys in a query or a body have stricter limits, and appear in logs.
        credential: Credential::header("api-key", "", api_key)?,
        headers: &[],
        media_type: "application/json",
        vendor: Box::new(vendor::Words),
    })
}

// === impl Iterable ===

impl Iterable {
    /// Sets a destination up; speaks to nobody yet.
    pub fn new(account: Arc<http::Account>, config: Config) -> Self {
        let (users, events) = (Writes::new(config.settle), Writes::new(config.settle));
        let known = Recent::new(KNOWN_MAX, KNOWN_AGE_MAX);
        let (attempts, types) = (Attempts::default(), Types::default());
        let (fields_asked, share) = (tokio::sync::Mutex::default(), Mutex::new(0.0));
        Self { sender: Sender::new(account), config, attempts, users, events, known, types, fields_asked, share }
    }

    fn rules(&self) -> Rules<'_> {
        let config = &self.config;
        Rules {
            identifiers: &config.identifiers,
            identity: config.identity,
            create: config.create,
            create_new_fields: config.create_new_fields,
            merge_nested_objects: config.merge_nested_objects,
            nulls: config.nulls,
            non_finite: config.non_finite,
            convert_dates: config.convert_dates,
        }
    }

    /// Asks for the project's fields and their types, so that rows which do not fit are told apart before they fail others.
    async fn learn_fields(&self, session: &Session<'_>) {
        #[derive(Deserialize)]
        struct Reported {
            fields: BTreeMap<String, Value>,
        }
        let answer = match session.send(&requests::fields(), &[]).await {
            Ok(answer) if answer.is_success() => answer,
            Ok(answer) => return tracing::warn!("the project's fields could not be asked for: {}", answer.words()),
            Err(halt) => return tracing::warn!("the project's fields could not be asked for: {}", halt.reason.message),
        };
        match answer.read::<Reported>() {
            Some(reported) => {
                let fields = reported.fields.iter();
                self.types.report(fields.filter_map(|(name, kind)| kind.as_str().map(|kind| (name.as_str(), kind))));
            }
            None => {
                tracing::warn!("the vendor's answer about the project's fields is not of the shape that it documents");
            }
        }
    }

    /// The fields of a profile that the project does not have. It is asked again where some seem to be missing, for they can have been
    /// created meanwhile.
    async fn missing_fields(&self, session: &Session<'_>, fields: &Value) -> Vec<String> {
        let missing = self.types.missing(fields);
        if missing.as_ref().is_some_and(Vec::is_empty) {
            return Vec::new();
        }
        // Whoever comes while somebody asks waits for the answer.
        let mut asked = self.fields_asked.lock().await;
        if asked.is_none_or(|asked| asked.elapsed() >= FIELDS_AGE_MAX) {
            *asked = Some(Instant::now());
            self.learn_fields(session).await;
        }
        self.types.missing(fields).unwrap_or_default()
    }
}

#[async_trait]
impl Destination for Iterable {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn target(&self) -> String {
        format!("{} {}", SPEC.kind, self.sender.account().target())
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

    /// Nothing of this vendor runs in a job that could be asked for, so no ticket is one of its own.
    async fn confirm(&self, _ticket: &Ticket, _members: &[Delivery], outcomes: &Outcomes<'_>, _context: &Context<'_>) {
        let reason =
            Reason::new(code::VENDOR_UNAVAILABLE, "Iterable has no jobs to ask for; the delivery is sent again");
        outcomes.set_rest(&Outcome::Retry { after: None, scope: Scope::Delivery, reason });
    }

    async fn probe(&self) -> Result<(), ProbeError> {
        // All endpoints take the same key, so one question that changes nothing tells whether it works. A merge needs a server-side key.
        let question =
            |endpoint| if endpoint == &endpoint::MERGE { requests::empty_merge() } else { requests::fields() };
        self.sender.probe(&self.target(), &endpoint::GET_FIELDS, question).await?;
        let context = Context { still_owned: &|| true };
        self.learn_fields(&self.sender.session(&context)).await;
        Ok(())
    }

    fn set_share(&self, share: f64) {
        self.sender.set_share(share);
        let before = std::mem::replace(&mut *self.share.lock().unwrap_or_else(PoisonError::into_inner), share);
        if share >= before {
            self.users.forget();
            self.events.forget();
        }
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
