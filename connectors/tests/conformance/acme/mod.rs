//! Acme, a vendor that does not exist, and the shortest destination that there can be: people go as JSON to one endpoint, up to 100 in a
//! request, and the answer names those that were not taken.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tailwater_connectors::config::Secret;
use tailwater_connectors::connector::kind;
use tailwater_connectors::destination::{Idempotent, Limits, OperationSpec};
use tailwater_connectors::http::{
    self, Answer, Attempts, Credential, Endpoint, Rate, Request, Sender, Setup, Size, Window, Work, cut_by_size, opaque,
    send_parts,
};
use tailwater_connectors::output::or_wrong_vendor;
use tailwater_connectors::{
    ClassifyError, ClassifyInput, Connector, Context, Destination, Error, Outcomes, Planned, ProbeError, Problem, Shared,
    Spec,
};
use tailwater_core::code;
use tailwater_core::delivery::{Delivery, Outcome, Ticket};
use tailwater_core::operation::{Operation, OperationKind};

use crate::suite::server::{Received, Reply};
use crate::suite::{Subject, email};

// 1. What the vendor documents.

static PEOPLE: Endpoint =
    Endpoint::new("POST /people", Rate { windows: &[Window::per_second(10), Window::per_minute(300)] });

static SPEC: Spec = Spec {
    kind: "acme",
    identifier_fields: &["email"],
    limits: Limits { batch_deliveries_max: 100, batch_age_max: Duration::from_millis(100), calls_max: 2 },
    operations: &[OperationSpec {
        kind: OperationKind::UpsertProfile,
        idempotent: Idempotent::Yes,
        batch_max: 100,
        note: "",
    }],
};

// 2. What its users configure.

/// An account at Acme.
#[derive(PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// The secret key.
    key: Secret,
    /// Where the API answers.
    base_url: String,
}

/// A destination at Acme.
#[derive(PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Options {}

struct Acme {
    sender: Sender,
    attempts: Attempts,
}

impl Connector for Acme {
    const SPEC: &'static Spec = &SPEC;

    type Account = Account;
    type Options = Options;
    type Connection = http::Account;

    fn check_account(_: &Account) -> Vec<Problem> {
        Vec::new()
    }

    fn check(_: &Account, _: &Options, _: &Shared) -> Vec<Problem> {
        Vec::new()
    }

    fn open(account: &Account) -> Result<http::Account, Error> {
        http::Account::new(Setup {
            base_url: &account.base_url,
            rate_share: if account.base_url.starts_with("http:") { 10_000.0 } else { http::RATE_SHARE },
            credential: Credential::header("authorization", "Bearer ", &account.key.expose().into())?,
            headers: &[],
            media_type: "application/json",
            vendor: Box::new(http::Plain),
        })
    }

    fn connect(account: &Arc<http::Account>, _: &Options, _: &Shared) -> Result<Arc<dyn Destination>, Error> {
        Ok(Arc::new(Self { sender: Sender::new(Arc::clone(account)), attempts: Attempts::default() }))
    }
}

// 3. What a transform's output becomes. `{email, …}` is a person.

fn classify(input: &ClassifyInput<'_>) -> Result<Operation, ClassifyError> {
    let invalid = |message: &str| ClassifyError { code: code::OUTPUT_INVALID, message: message.to_owned() };
    let output: Value = serde_json::from_str(input.output.get()).map_err(|error| invalid(&error.to_string()))?;
    let Some(email) = output.get("email").and_then(Value::as_str) else {
        return Err(invalid("the output: has no `email`; expected `{email: row.email, …}`"));
    };
    if !input.identifiers.contains(&("email", email)) {
        let message = "email: the value is no identifier of this profile; use the row's own column".to_owned();
        return Err(ClassifyError { code: code::FOREIGN_IDENTIFIER, message });
    }
    let body: Box<RawValue> = input.output.to_owned();
    let (route, place) = (input.route.to_owned(), input.ordinal.to_string());
    let kind = OperationKind::UpsertProfile;
    Ok(Operation { kind, route, place, target: None, body, non_finite: input.non_finite.to_vec() })
}

// 4. What is sent, and what the answers mean.

fn people(batch: &[Delivery], members: &[usize]) -> Request {
    let bodies: Vec<&str> = members.iter().map(|&index| batch[index].operation.body.get()).collect();
    Request::post(&PEOPLE, "/people", format!(r#"{{"people":[{}]}}"#, bodies.join(",")))
}

/// `{"failed":[{"index":0,"message":"…"}]}`
#[derive(Default, Deserialize)]
#[serde(default)]
struct Failures {
    failed: Vec<Failure>,
}

#[derive(Deserialize)]
struct Failure {
    index: usize,
    message: String,
}

#[async_trait]
impl Destination for Acme {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn target(&self) -> String {
        format!("acme {}", self.sender.account().target())
    }

    fn classify(&self, input: &ClassifyInput<'_>) -> Result<Vec<Operation>, ClassifyError> {
        let operation = classify(input).map_err(|error| or_wrong_vendor(SPEC.kind, input.output, error))?;
        Ok(vec![operation])
    }

    fn plan(&self, batch: &[Delivery]) -> Vec<Planned> {
        let all: Vec<usize> = (0..batch.len()).collect();
        let chunks = all.chunks(100).map(<[usize]>::to_vec);
        chunks.map(|members| self.sender.account().plan(&people(batch, &members), members)).collect()
    }

    async fn deliver(&self, batch: &[Delivery], outcomes: &Outcomes<'_>, context: &Context<'_>) {
        let session = self.sender.session(context);
        let work = Work { session: &session, attempts: &self.attempts, batch, outcomes };
        work.begin();
        let size = Size { count_max: 100, bytes_max: 1_000_000, frame_bytes: 16 };
        let bytes = |index: usize| batch[index].operation.body.get().len() + 1;
        let parts = cut_by_size(&work.all_open(), size, &|index| work.part_max(index), &bytes);
        let make = |members: &[usize]| people(batch, members);
        let taken = |members: &[usize], answer: &Answer| {
            for failure in answer.read::<Failures>().unwrap_or_default().failed {
                if let Some(&index) = members.get(failure.index) {
                    work.set(index, &Outcome::Rejected(answer.reason(failure.message)));
                }
            }
            work.delivered_all(members, answer.remark());
        };
        send_parts(work, parts, &make, &opaque, &taken).await;
    }

    /// It has no jobs.
    async fn confirm(&self, _: &Ticket, _: &[Delivery], outcomes: &Outcomes<'_>, _: &Context<'_>) {
        outcomes.set_rest(&Outcome::Delivered);
    }

    async fn probe(&self) -> Result<(), ProbeError> {
        let question = |_: &'static Endpoint| Request::post(&PEOPLE, "/people", r#"{"people":[]}"#);
        self.sender.probe(&self.target(), &PEOPLE, question).await
    }

    fn set_share(&self, share: f64) {
        self.sender.set_share(share);
    }
}

// 5. How the suite uses it.

const KEY: &str = "key_0123456789abcdef";

pub fn subject() -> Subject {
    Subject {
        kind: kind::<Acme>(),
        account: |url| json!({"key": KEY, "base_url": url}),
        options: json!({}),
        identifiers: &[("email", "email")],
        output: |number, note| json!({"email": email(number), "score": number, "note": note}),
        healthy: |_: &Received| Reply::json(200, &json!({"failed": []})),
        secret: KEY,
    }
}
