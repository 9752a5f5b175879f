//! Klaviyo as the engine sees it: who may ask, limits, and the account behind them.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::engine::{Answer, Carrier, Counts, Effects, Observer, Prescriptions, Request, Setup, Took, Usage, Vendor};

use super::Options;
use super::account::{Account, BULK_BYTES_MAX, Call, too_large};
use super::answer::{self, MEDIA_TYPE, Problem};
use super::endpoints::{Endpoint, Route, Variant};
use super::jobs::JobDuration;
use super::limits;

/// An account at Klaviyo.
#[derive(Debug)]
pub struct Klaviyo {
    options: Options,
    account: Account,
    usage: Usage<(Endpoint, Variant)>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    api_key: Option<String>,
    scopes: Option<Vec<String>>,
    limits: Option<bool>,
    job_base_ms: Option<u64>,
    job_per_profile_us: Option<u64>,
}

// === impl Klaviyo ===

impl Vendor for Klaviyo {
    type Options = Options;

    const KIND: &'static str = "klaviyo";
    const MEDIA_TYPE: &'static str = MEDIA_TYPE;
    const READ_BYTES_MAX: usize = 2 * BULK_BYTES_MAX;
    const HEADERS: &'static [&'static str] = &["revision"];

    fn setup(options: &Options) -> Setup {
        Setup { listen: options.listen, persist: options.persist.clone(), requests_max: options.memory.requests_max }
    }

    fn greeting(options: &Options, url: &str) -> Vec<String> {
        // The key is shown in full: it opens nothing but this process.
        let mut lines = vec![format!("  api key    {}", options.api_key)];
        lines.extend(options.lists.iter().map(|(id, name)| format!("  list       {id}  {name}")));
        lines.push(format!("  a person   curl '{url}/_simulator/profile?email=…'"));
        lines
    }

    fn new(options: Options, now_us: i64) -> Self {
        let mut account = Account::new(options.memory);
        for (id, name) in &options.lists {
            account.add_list(id, name, now_us);
        }
        Self { options, account, usage: Usage::default() }
    }

    fn options(&self) -> &Options {
        &self.options
    }

    fn options_mut(&mut self) -> &mut Options {
        &mut self.options
    }

    fn limited(options: &Options) -> bool {
        options.limits
    }

    fn endpoint(method: &str, path: &str) -> Option<&'static str> {
        match Endpoint::find(method, path) {
            Route::To { endpoint, .. } => Some(endpoint.name()),
            Route::WrongMethod | Route::Unknown => None,
        }
    }

    /// The order of the checks is the vendor's: who asks, the limits, then what is asked.
    fn answer(&mut self, request: &Request, prescriptions: &mut Prescriptions, now_us: i64) -> Answer {
        let (endpoint, id) = match Endpoint::find(&request.method, &request.path) {
            Route::To { endpoint, id } => (endpoint, id),
            Route::WrongMethod => {
                let detail = format!("Method \"{}\" not allowed.", request.method);
                return Problem::new(405, "method_not_allowed", "Method not allowed.", detail, "/data/").into();
            }
            Route::Unknown => return Problem::not_found("The path you are requesting does not exist.").into(),
        };
        if let Some(problem) = self.unauthorized(request) {
            return problem.into();
        }
        if let Some(problem) = self.forbidden(endpoint) {
            return problem.into();
        }
        if let Some(problem) = bad_headers(request) {
            return problem.into();
        }
        let variant = Variant::of(endpoint, &request.query);
        let limit_headers = if self.options.limits {
            match limits::take(&mut self.usage, endpoint, variant, &self.options.tiers, now_us) {
                Ok(headers) => headers,
                Err(retry_after_s) => return answer::throttled(retry_after_s),
            }
        } else {
            Vec::new()
        };
        let call = Call {
            request: request.number,
            endpoint,
            id,
            path: &request.path,
            query: &request.query,
            body: &request.body,
            base: &request.base,
            job_duration: self.options.job_duration,
        };
        let mut answer = self.account.handle(&call, prescriptions, now_us);
        answer.headers.extend(limit_headers);
        if endpoint == Endpoint::CreateImportJob { answer.took(Took::Later) } else { answer }
    }

    fn advance(&mut self, prescriptions: &mut Prescriptions, now_us: i64) -> Vec<(u64, Effects)> {
        self.account.advance(prescriptions, now_us)
    }

    fn too_large() -> Answer {
        too_large(BULK_BYTES_MAX)
    }

    fn throttled(&self, seconds: u64) -> Answer {
        answer::throttled(seconds)
    }

    fn ruled(status: u16) -> Answer {
        Problem::new(status, "error", "Error.", "The answer was decided by an observer.", "/data").into()
    }

    fn observer(&self) -> Option<&Arc<dyn Observer>> {
        self.options.observer.as_ref()
    }

    fn carrier(method: &str, path: &str) -> Option<Carrier> {
        match Endpoint::find(method, path) {
            Route::To { endpoint: Endpoint::ImportProfile, .. } => Some(Carrier::Profile),
            Route::To { endpoint: Endpoint::CreateImportJob, .. } => Some(Carrier::Job),
            Route::To { endpoint: Endpoint::CreateEvent, .. } => Some(Carrier::Event),
            Route::To { .. } | Route::WrongMethod | Route::Unknown => None,
        }
    }

    /// The documented 400, with a problem for each of the items.
    fn refuse(carrier: Carrier, places: &[usize]) -> Answer {
        let pointer = |place: &usize| match carrier {
            Carrier::Profile => "/data/attributes/email".to_owned(),
            Carrier::Job => format!("/data/attributes/profiles/data/{place}/attributes/email"),
            Carrier::Event => "/data/attributes/profile/data/attributes/email".to_owned(),
        };
        let problems: Vec<Problem> =
            places.iter().map(|place| Problem::invalid("Invalid email address", pointer(place))).collect();
        answer::problems(&problems)
    }

    fn counts(&self) -> Counts {
        Counts {
            profiles: self.account.people.len() as u64,
            events: self.account.events_accepted,
            events_repeated: self.account.events_repeated,
            objects: 0,
        }
    }

    fn profiles(&self, after: &str, limit: usize) -> Vec<Value> {
        self.account.people.after(after).take(limit).map(|profile| self.account.summary(&profile.id)).collect()
    }

    fn profile(&self, field: &str, value: &str) -> Option<Value> {
        let id = self.account.people.find(field, value)?.id.clone();
        Some(self.account.summary(&id))
    }

    fn list(&self, id: &str) -> Option<Value> {
        let list = self.account.lists.get(id)?;
        let members: Vec<Value> = list
            .members
            .iter()
            .filter_map(|id| self.account.people.get(id))
            .map(|profile| json!({"id": profile.id, "email": profile.field("email"), "external_id": profile.field("external_id")}))
            .collect();
        Some(json!({"id": id, "name": list.name, "count": members.len(), "members": members}))
    }

    fn lists(&self) -> Vec<Value> {
        let lists = self.account.lists.iter();
        lists.map(|(id, list)| json!({"id": id, "name": list.name, "count": list.members.len()})).collect()
    }

    fn add_list(&mut self, id: &str, name: &str, now_us: i64) -> bool {
        self.account.add_list(id, name, now_us)
    }

    fn events(&self, skip: usize, limit: usize) -> Vec<Value> {
        let events = self.account.events.iter().skip(skip).take(limit);
        events
            .map(|event| json!({"profile": event.profile, "metric": event.metric, "attributes": event.attributes}))
            .collect()
    }

    fn settings(&mut self, settings: Value) -> Result<(), String> {
        let settings: Settings = serde_json::from_value(settings).map_err(|error| error.to_string())?;
        let options = &mut self.options;
        if let Some(key) = settings.api_key {
            options.api_key = key;
        }
        if let Some(scopes) = settings.scopes {
            options.scopes = Some(scopes);
        }
        if let Some(limits) = settings.limits {
            options.limits = limits;
        }
        options.job_duration = JobDuration {
            base: settings.job_base_ms.map_or(options.job_duration.base, Duration::from_millis),
            per_profile: settings.job_per_profile_us.map_or(options.job_duration.per_profile, Duration::from_micros),
        };
        Ok(())
    }
}

impl Klaviyo {
    fn forbidden(&self, endpoint: Endpoint) -> Option<Problem> {
        let scopes = self.options.scopes.as_ref()?;
        let missing: Vec<&str> =
            endpoint.scopes().iter().copied().filter(|scope| !scopes.iter().any(|own| own == scope)).collect();
        if missing.is_empty() {
            return None;
        }
        let detail = format!("The API key lacks the scope {}.", missing.join(" and "));
        let title = "You do not have permission to perform this action.";
        Some(Problem::new(403, "permission_denied", title, detail, "/data/"))
    }

    fn unauthorized(&self, request: &Request) -> Option<Problem> {
        let Some(given) = request.header("authorization") else {
            return Some(Problem::new(
                401,
                "not_authenticated",
                "Authentication credentials were not provided.",
                "Missing or invalid authorization scheme. Please use Klaviyo-API-Key.",
                "/data/",
            ));
        };
        if given.strip_prefix("Klaviyo-API-Key ") == Some(self.options.api_key.as_str()) {
            return None;
        }
        let text = "Incorrect authentication credentials.";
        Some(Problem::new(401, "authentication_failed", text, text, "/data/"))
    }
}

fn bad_headers(request: &Request) -> Option<Problem> {
    match request.header("revision") {
        None => return Some(Problem::invalid("The revision header is required.", "/data/")),
        Some(revision) if !is_revision(revision) => {
            return Some(Problem::invalid(format!("'{revision}' is not a valid revision."), "/data/"));
        }
        Some(_) => {}
    }
    let has_body = matches!(request.method.as_str(), "POST" | "PATCH" | "DELETE");
    let kind = request.header("content-type").unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if has_body && !matches!(kind, "application/vnd.api+json" | "application/json") {
        let detail = format!("Unsupported media type \"{kind}\" in request.");
        return Some(Problem::new(415, "unsupported_media_type", "Unsupported media type.", detail, "/data/"));
    }
    None
}

/// `YYYY-MM-DD`, and a suffix such as `.pre`.
fn is_revision(text: &str) -> bool {
    let date = text.split('.').next().unwrap_or_default();
    date.parse::<jiff::civil::Date>().is_ok() && date.len() == 10
}
