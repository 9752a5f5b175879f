//! Iterable as the engine sees it: who may ask, limits, the shape of bodies, and the project behind them.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::engine::{Answer, Carrier, Counts, Effects, Observer, Prescriptions, Request, Setup, Usage, Vendor};

use super::answer::{self, MEDIA_TYPE};
use super::endpoints::{Endpoint, Route};
use super::events::Event;
use super::project::{Call, PROJECT, Project};
use super::users::{Ident, User};
use super::{Identity, Options};

/// The largest body. The vendor says 4 MB; the smaller reading of it holds.
const BODY_BYTES_MAX: usize = 4_000_000;

/// A project at Iterable.
#[derive(Debug)]
pub struct Iterable {
    options: Options,
    project: Project,
    usage: Usage<Endpoint>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    api_key: Option<String>,
    server_side: Option<bool>,
    identity: Option<Identity>,
    creates_fields: Option<bool>,
    events_create_users: Option<bool>,
    subscriptions_api: Option<bool>,
    disallowed_event_names: Option<Vec<String>>,
    limits: Option<bool>,
    retry_after: Option<bool>,
    bulk_ms: Option<u64>,
    single_ms: Option<u64>,
}

impl Vendor for Iterable {
    type Options = Options;

    const KIND: &'static str = "iterable";
    const MEDIA_TYPE: &'static str = MEDIA_TYPE;
    const READ_BYTES_MAX: usize = 2 * BODY_BYTES_MAX;
    const HEADERS: &'static [&'static str] = &["content-type"];

    fn setup(options: &Options) -> Setup {
        Setup { listen: options.listen, persist: options.persist.clone(), requests_max: options.memory.requests_max }
    }

    fn limited(options: &Options) -> bool {
        options.limits
    }

    fn greeting(options: &Options, url: &str) -> Vec<String> {
        // The key is shown in full: it opens nothing but this process.
        let mut lines =
            vec![format!("  api key    {}", options.api_key), format!("  identity   {:?}", options.identity)];
        lines.extend(options.lists.iter().map(|(id, name)| format!("  list       {id}  {name}")));
        lines.push(format!("  a person   curl '{url}/_simulator/profile?email=…'"));
        lines
    }

    fn new(options: Options, now_us: i64) -> Self {
        Self { project: Project::new(&options, now_us), options, usage: Usage::default() }
    }

    fn options(&self) -> &Options {
        &self.options
    }

    fn options_mut(&mut self) -> &mut Options {
        &mut self.options
    }

    fn endpoint(method: &str, path: &str) -> Option<&'static str> {
        Endpoint::name(method, path)
    }

    fn answer(&mut self, request: &Request, prescriptions: &mut Prescriptions, now_us: i64) -> Answer {
        let (endpoint, names) = match Endpoint::find(&request.method, &request.path) {
            Route::To { endpoint, names } => (endpoint, names),
            Route::WrongMethod => return answer::error(405, "BadParams", "Method not allowed", Value::Null),
            Route::Unknown => return answer::not_found(format!("{} does not exist", request.path)),
        };
        let given = request.header("api-key").or_else(|| request.header("api_key"));
        if given != Some(self.options.api_key.as_str()) {
            return answer::error(401, "BadApiKey", "Invalid API key", Value::Null);
        }
        let allowed = endpoint.parameters();
        if let Some((name, _)) = request.query.iter().find(|(name, _)| !allowed.contains(&name.as_str())) {
            return answer::bad_params(format!("unknown parameter {name}"));
        }
        if self.options.limits
            && let Err(seconds) = self.usage.take(endpoint, &endpoint.windows(), now_us)
        {
            let path = Endpoint::name(&request.method, &request.path).unwrap_or_default();
            let path = path.split(' ').next_back().unwrap_or_default();
            return answer::throttled(path, PROJECT, self.options.retry_after.then_some(seconds));
        }
        let body = match body_of(endpoint, request) {
            Ok(body) => body,
            Err(answer) => return answer,
        };
        let Some(names) = names.into_iter().map(decoded).collect::<Option<Vec<String>>>() else {
            return answer::bad_params("the path is not valid UTF-8");
        };
        let call = Call {
            request: request.number,
            endpoint,
            options: &self.options,
            names: &names,
            query: &request.query,
            body,
            now_us,
        };
        self.project.handle(&call, prescriptions)
    }

    fn advance(&mut self, _prescriptions: &mut Prescriptions, now_us: i64) -> Vec<(u64, Effects)> {
        self.project.advance(now_us)
    }

    fn too_large() -> Answer {
        answer::too_large()
    }

    fn throttled(&self, seconds: u64) -> Answer {
        answer::throttled("/api/users/update", PROJECT, Some(seconds))
    }

    fn ruled(status: u16) -> Answer {
        answer::error(status, "GenericError", "The answer was decided by an observer.", Value::Null)
    }

    fn observer(&self) -> Option<&Arc<dyn Observer>> {
        self.options.observer.as_ref()
    }

    fn carrier(method: &str, path: &str) -> Option<Carrier> {
        match Endpoint::find(method, path) {
            Route::To { endpoint: Endpoint::UpdateUser, .. } => Some(Carrier::Profile),
            Route::To { endpoint: Endpoint::BulkUpdateUsers, .. } => Some(Carrier::Job),
            Route::To { endpoint: Endpoint::Track, .. } => Some(Carrier::Event),
            Route::To { .. } | Route::WrongMethod | Route::Unknown => None,
        }
    }

    fn refuse(_carrier: Carrier, _places: &[usize]) -> Answer {
        answer::bad_params("The request was refused by an observer.")
    }

    fn counts(&self) -> Counts {
        Counts {
            profiles: self.project.users.len() as u64,
            events: self.project.events.accepted,
            events_repeated: self.project.events.overwritten,
            objects: self.project.catalogs.len() as u64,
        }
    }

    fn profiles(&self, after: &str, limit: usize) -> Vec<Value> {
        let after = after.parse().unwrap_or(0);
        self.project.users.after(after).take(limit).map(|(id, user)| summary(id, user)).collect()
    }

    fn profile(&self, field: &str, value: &str) -> Option<Value> {
        let id = match field {
            "email" => self.project.users.find(&Ident::Email(value.to_lowercase()))?,
            "userId" => self.project.users.find(&Ident::UserId(value.to_owned()))?,
            "id" => value.parse().ok()?,
            _ => return None,
        };
        self.project.users.get(id).map(|user| summary(id, user))
    }

    fn lists(&self) -> Vec<Value> {
        self.project.show_lists()
    }

    fn list(&self, id: &str) -> Option<Value> {
        self.project.show_list(id)
    }

    fn add_list(&mut self, id: &str, name: &str, now_us: i64) -> bool {
        self.project.add_list(id, name, now_us)
    }

    fn events(&self, skip: usize, limit: usize) -> Vec<Value> {
        self.project.events.iter().skip(skip).take(limit).map(Event::to_json).collect()
    }

    fn objects(&self, skip: usize, limit: usize) -> Vec<Value> {
        self.project.catalogs.objects().skip(skip).take(limit).collect()
    }

    fn settings(&mut self, settings: Value) -> Result<(), String> {
        let settings: Settings = serde_json::from_value(settings).map_err(|error| error.to_string())?;
        let options = &mut self.options;
        options.api_key = settings.api_key.unwrap_or_else(|| options.api_key.clone());
        options.server_side = settings.server_side.unwrap_or(options.server_side);
        options.identity = settings.identity.unwrap_or(options.identity);
        options.creates_fields = settings.creates_fields.unwrap_or(options.creates_fields);
        options.events_create_users = settings.events_create_users.unwrap_or(options.events_create_users);
        options.subscriptions_api = settings.subscriptions_api.unwrap_or(options.subscriptions_api);
        if let Some(names) = settings.disallowed_event_names {
            options.disallowed_event_names = names;
        }
        options.limits = settings.limits.unwrap_or(options.limits);
        options.retry_after = settings.retry_after.unwrap_or(options.retry_after);
        options.bulk_delay = settings.bulk_ms.map_or(options.bulk_delay, Duration::from_millis);
        options.single_delay = settings.single_ms.map_or(options.single_delay, Duration::from_millis);
        Ok(())
    }
}

/// A person for tests and people. The id is the simulator's own.
fn summary(id: u64, user: &User) -> Value {
    let mut attributes = user.to_json();
    let lists: Vec<String> = user.lists.iter().map(i64::to_string).collect();
    let fields = attributes["dataFields"].take();
    json!({"id": id.to_string(), "email": user.email, "userId": user.user_id, "attributes": fields, "lists": lists})
}

fn body_of(endpoint: Endpoint, request: &Request) -> Result<Value, Answer> {
    let Some(shape) = endpoint.body() else { return Ok(Value::Null) };
    if request.body.len() > BODY_BYTES_MAX {
        return Err(answer::too_large());
    }
    let kind = request.header("content-type").unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if kind != "application/json" {
        let message = format!("Expecting application/json, not '{kind}'");
        return Err(answer::error(400, "BadJsonBody", message, Value::Null));
    }
    let body: Value = serde_json::from_slice(&request.body)
        .map_err(|error| answer::error(400, "BadJsonBody", format!("Invalid JSON: {error}"), Value::Null))?;
    let misfits = shape.misfits(&body);
    if misfits.is_empty() { Ok(body) } else { Err(answer::bad_body(&misfits)) }
}

fn decoded(segment: &str) -> Option<String> {
    // A plus sign of a path is a plus sign; only percent codes are decoded.
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let (high, low) = (rest.next()?, rest.next()?);
            let digit = |byte: u8| char::from(byte).to_digit(16);
            bytes.push(u8::try_from(digit(high)? * 16 + digit(low)?).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}
