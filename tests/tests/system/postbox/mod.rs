//! Postbox, a vendor that exists in the guide `a-destination-in-an-afternoon` only: one call, `POST /folders/<folder>/contacts`.

mod config;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tailwater_connectors::config::{check_base_url, check_credential};
use tailwater_connectors::destination::Idempotent;
use tailwater_connectors::http::{
    self, Attempts, Credential, Endpoint, Plain, Rate, Request, Sender, Setup, Window, Work,
};
use tailwater_connectors::{
    ClassifyError, ClassifyInput, Connector, Context, Destination, Error, Limits, OperationSpec, Outcomes, Planned,
    ProbeError, Problem, Shared, Spec,
};
use tailwater_core::code;
use tailwater_core::delivery::{Delivery, Outcome, Reason, Scope, Ticket};
use tailwater_core::operation::{Operation, OperationKind};

use config::{Account, Options};

const BASE_URL: &str = "https://api.postbox.example";

static SPEC: Spec = Spec {
    kind: "postbox",
    identifier_fields: &["email"],
    limits: Limits { batch_deliveries_max: 100, batch_age_max: Duration::from_millis(100), calls_max: 2 },
    operations: &[OperationSpec {
        kind: OperationKind::UpsertProfile,
        idempotent: Idempotent::Yes,
        batch_max: 1,
        note: "the fields that an output leaves out stay as they are",
    }],
};

static CONTACTS: Endpoint =
    Endpoint::new("POST /folders/…/contacts", Rate { windows: &[Window::per_second(50)] }).scopes(&["contacts:write"]);

pub struct Postbox {
    sender: Sender,
    attempts: Attempts,
    folder: String,
    /// The identifier type that goes into `email`.
    email: String,
}

impl Connector for Postbox {
    const SPEC: &'static Spec = &SPEC;

    type Account = Account;
    type Options = Options;
    type Connection = Arc<http::Account>;

    fn check_account(account: &Account) -> Vec<Problem> {
        let mut problems = check_base_url("base_url", &account.base_url, BASE_URL);
        problems.extend(check_credential("token", &account.token, "an API token"));
        problems
    }

    fn check(_: &Account, options: &Options, _: &Shared) -> Vec<Problem> {
        if options.folder.is_empty() || options.folder.contains('/') {
            let problem = Problem::new(code::CONFIG_INVALID_VALUE, "folder", "expected the name of a folder");
            return vec![problem.hint("take the last part of the folder's address at Postbox")];
        }
        Vec::new()
    }

    fn open(account: &Account) -> Result<Self::Connection, Error> {
        Ok(Arc::new(http::Account::new(Setup {
            base_url: &account.base_url,
            rate_share: http::RATE_SHARE,
            credential: Credential::header("authorization", "Bearer ", account.token.inner())?,
            headers: &[],
            media_type: "application/json",
            vendor: Box::new(Plain),
        })?))
    }

    fn connect(
        connection: &Arc<Self::Connection>,
        options: &Options,
        shared: &Shared,
    ) -> Result<Arc<dyn Destination>, Error> {
        Ok(Arc::new(Self {
            sender: Sender::new(Arc::clone(connection)),
            attempts: Attempts::default(),
            folder: options.folder.clone(),
            email: shared.identifiers.get("email").cloned().unwrap_or_default(),
        }))
    }
}

impl Postbox {
    fn request(&self, delivery: &Delivery) -> Request {
        let path = format!("/folders/{}/contacts", http::encoded(&self.folder));
        Request::post(&CONTACTS, path, delivery.operation.body.get().to_owned())
    }
}

#[async_trait]
impl Destination for Postbox {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn target(&self) -> String {
        format!("{} {}", SPEC.kind, self.sender.account().target())
    }

    fn classify(&self, input: &ClassifyInput<'_>) -> Result<Vec<Operation>, ClassifyError> {
        let invalid = |message: String| ClassifyError { code: code::OUTPUT_INVALID, message };
        let output: Map<String, Value> = serde_json::from_str(input.output.get()).map_err(|_| {
            invalid("expected an object such as {email: row.email, fields: {score: row.score}}".to_owned())
        })?;
        if let Some(name) = output.keys().find(|name| !["email", "fields"].contains(&name.as_str())) {
            return Err(invalid(format!("`{name}` is no key of a contact; put it into `fields`")));
        }
        let Some(email) = output.get("email").and_then(Value::as_str) else {
            return Err(invalid("the contact names nobody; give its `email`".to_owned()));
        };
        // An address that is not this person's would put the fields on somebody else.
        if !input.identifiers.contains(&(self.email.as_str(), email)) {
            let message = "`email` is none of the person's addresses; return one of them".to_owned();
            return Err(ClassifyError { code: code::FOREIGN_IDENTIFIER, message });
        }
        Ok(vec![Operation {
            kind: OperationKind::UpsertProfile,
            route: input.route.to_owned(),
            place: input.ordinal.to_string(),
            target: None,
            body: RawValue::from_string(Value::Object(output).to_string())
                .map_err(|error| invalid(error.to_string()))?,
            non_finite: input.non_finite.to_vec(),
        }])
    }

    fn plan(&self, batch: &[Delivery]) -> Vec<Planned> {
        let account = self.sender.account();
        let show = |(index, delivery): (usize, &Delivery)| account.plan(&self.request(delivery), vec![index]);
        batch.iter().enumerate().map(show).collect()
    }

    async fn deliver(&self, batch: &[Delivery], outcomes: &Outcomes<'_>, context: &Context<'_>) {
        let session = self.sender.session(context);
        let work = Work { session: &session, attempts: &self.attempts, batch, outcomes };
        work.begin();
        for (index, delivery) in batch.iter().enumerate() {
            if let Some(answer) = work.send_one(&self.request(delivery), index).await {
                work.delivered(index, answer.remark());
            }
        }
    }

    async fn confirm(&self, _: &Ticket, _: &[Delivery], outcomes: &Outcomes<'_>, _: &Context<'_>) {
        // Postbox has no jobs, so no delivery of it ever waits for one.
        let reason = Reason::new(code::JOB_ITEM_FAILED, "Postbox has no jobs");
        outcomes.set_rest(&Outcome::Retry { reason, scope: Scope::Delivery, after: None });
    }

    async fn probe(&self) -> Result<(), ProbeError> {
        // A contact without content is refused after the token has been checked, so nothing changes.
        self.sender
            .probe(&self.target(), &CONTACTS, |endpoint| Request::post(endpoint, "/folders/-/contacts", "{}"))
            .await
    }

    fn set_share(&self, share: f64) {
        self.sender.set_share(share);
    }
}
