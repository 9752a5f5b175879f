//! Customer.io as the engine sees it: who may ask, the region, limits, and the workspace behind them.

use std::sync::Arc;

use axum::http::header;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::engine::{Answer, Carrier, Counts, Effects, Observer, Prescriptions, Request, Setup, Usage, Vendor, Window};

use super::answer::{self, MEDIA_TYPE, Refusal};
use super::people::Ident;
use super::workspace::{Event, Workspace};
use super::{Options, Region, items, pipelines, segments};

/// The number of the workspace.
const ENVIRONMENT: u32 = 3;
/// Objects and people; more are refused with a 503.
const KEPT_MAX: usize = 2_000_000;

/// A workspace at Customer.io.
#[derive(Debug)]
pub struct CustomerIo {
    options: Options,
    workspace: Workspace,
    usage: Usage<Api>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Api {
    Track,
    Pipelines,
}

/// Where a request leads.
#[derive(Debug, PartialEq, Eq)]
enum Route<'a> {
    Region,
    Entity,
    Batch,
    Segment { id: &'a str, add: bool },
    Pipelines(&'a str),
    WrongMethod,
    Unknown,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    site_id: Option<String>,
    api_key: Option<String>,
    cdp_key: Option<String>,
    secret_key: Option<String>,
    region: Option<Region>,
    host: Option<Region>,
    eu_url: Option<String>,
    limits: Option<bool>,
    track_per_second: Option<u32>,
    retry_after: Option<bool>,
    object_types: Option<Vec<String>>,
}

fn route<'a>(method: &str, path: &'a str) -> Route<'a> {
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (wanted, route) = match segments.as_slice() {
        ["api", "v1", "accounts", "region"] => ("GET", Route::Region),
        ["api", "v2", "entity"] => ("POST", Route::Entity),
        ["api", "v2", "batch"] => ("POST", Route::Batch),
        ["api", "v1", "segments", id, "add_customers"] => ("POST", Route::Segment { id, add: true }),
        ["api", "v1", "segments", id, "remove_customers"] => ("POST", Route::Segment { id, add: false }),
        ["v1", call] if pipelines::CALLS.contains(call) => ("POST", Route::Pipelines(call)),
        _ => return Route::Unknown,
    };
    if method == wanted { route } else { Route::WrongMethod }
}

/// Paths of the specifications that are simulated: method, path.
#[cfg(test)]
pub(super) const TRACK_PATHS: &[(&str, &str)] = &[
    ("get", "/api/v1/accounts/region"),
    ("post", "/api/v2/entity"),
    ("post", "/api/v2/batch"),
    ("post", "/api/v1/segments/{segment_id}/add_customers"),
    ("post", "/api/v1/segments/{segment_id}/remove_customers"),
];

impl CustomerIo {
    /// Whether the credentials are right. The value of the header is in base 64 where it is basic.
    fn admits(&self, api: Api, request: &Request) -> bool {
        let Some(given) = request.header(header::AUTHORIZATION.as_str()) else { return false };
        if let Some(token) = given.strip_prefix("Bearer ") {
            return token == self.options.secret_key;
        }
        let expected = match api {
            Api::Track => format!("{}:{}", self.options.site_id, self.options.api_key),
            Api::Pipelines => format!("{}:", self.options.cdp_key),
        };
        given.strip_prefix("Basic ").is_some_and(|given| given == BASE64.encode(&expected))
    }

    /// The answer of a host to an account that lives elsewhere.
    fn elsewhere(&self, request: &Request) -> Option<Answer> {
        match (self.options.host, self.options.region) {
            (Region::Us, Region::Us) | (Region::Eu, Region::Eu) => None,
            (Region::Us, Region::Eu) => {
                let location = format!("{}{}", self.options.eu_url.trim_end_matches('/'), request.path);
                Some(Answer::empty(307).with_header("location", location))
            }
            (Region::Eu, Region::Us) => Some(answer::unauthorized()),
        }
    }

    fn region(&self) -> Answer {
        let (url, region) = match self.options.region {
            Region::Us => ("https://track.customer.io", "us"),
            Region::Eu => ("https://track-eu.customer.io", "eu"),
        };
        answer::json(200, json!({"url": url, "region": region, "environment_id": ENVIRONMENT}))
    }
}

impl Vendor for CustomerIo {
    type Options = Options;

    const KIND: &'static str = "customerio";
    const MEDIA_TYPE: &'static str = MEDIA_TYPE;
    const READ_BYTES_MAX: usize = 4 * items::BATCH_BYTES_MAX;
    const HEADERS: &'static [&'static str] = &["content-type", "x-strict-mode"];

    fn setup(options: &Options) -> Setup {
        Setup { listen: options.listen, persist: options.persist.clone(), requests_max: options.memory.requests_max }
    }

    fn limited(options: &Options) -> bool {
        options.limits
    }

    fn greeting(options: &Options, url: &str) -> Vec<String> {
        // The credentials are shown in full: they open nothing but this process.
        let mut lines = vec![
            format!("  site id    {}", options.site_id),
            format!("  api key    {}  (Track)", options.api_key),
            format!("  cdp key    {}  (Pipelines)", options.cdp_key),
            format!("  secret     {}  (both, as Bearer)", options.secret_key),
        ];
        lines.extend(options.segments.iter().map(|(id, name)| format!("  segment    {id}  {name}")));
        lines.push(format!("  a person   curl '{url}/_simulator/profile?id=…'"));
        lines
    }

    fn new(options: Options, _now_us: i64) -> Self {
        Self { workspace: Workspace::new(&options), options, usage: Usage::default() }
    }

    fn options(&self) -> &Options {
        &self.options
    }

    fn options_mut(&mut self) -> &mut Options {
        &mut self.options
    }

    fn endpoint(method: &str, path: &str) -> Option<&'static str> {
        match route(method, path) {
            Route::Region => Some("GET /api/v1/accounts/region"),
            Route::Entity => Some("POST /api/v2/entity"),
            Route::Batch => Some("POST /api/v2/batch"),
            Route::Segment { add: true, .. } => Some("POST /api/v1/segments/{segment_id}/add_customers"),
            Route::Segment { add: false, .. } => Some("POST /api/v1/segments/{segment_id}/remove_customers"),
            Route::Pipelines("identify") => Some("POST /v1/identify"),
            Route::Pipelines("track") => Some("POST /v1/track"),
            Route::Pipelines("page") => Some("POST /v1/page"),
            Route::Pipelines("screen") => Some("POST /v1/screen"),
            Route::Pipelines("group") => Some("POST /v1/group"),
            Route::Pipelines("alias") => Some("POST /v1/alias"),
            Route::Pipelines("batch") => Some("POST /v1/batch"),
            Route::Pipelines(_) | Route::WrongMethod | Route::Unknown => None,
        }
    }

    fn answer(&mut self, request: &Request, _prescriptions: &mut Prescriptions, now_us: i64) -> Answer {
        let route = route(&request.method, &request.path);
        let api = match route {
            Route::Unknown => return answer::error(404, "not found"),
            Route::WrongMethod => return answer::error(405, "method not allowed"),
            Route::Pipelines(_) => Api::Pipelines,
            Route::Region | Route::Entity | Route::Batch | Route::Segment { .. } => Api::Track,
        };
        let strict = request.header("x-strict-mode") == Some("1");
        if !self.admits(api, request) {
            if api == Api::Pipelines && !strict {
                return pipelines::refuse(&[Refusal::invalid("", "the key is not valid")], false);
            }
            return answer::unauthorized();
        }
        // The region is told by either host.
        if route != Route::Region
            && let Some(answer) = self.elsewhere(request)
        {
            return answer;
        }
        let window = match api {
            Api::Track => Window::per_second(self.options.track_per_second),
            Api::Pipelines => Window { seconds: 3, max: 3_000 },
        };
        if self.options.limits
            && let Err(seconds) = self.usage.take(api, &[window], now_us)
        {
            return answer::throttled(self.options.retry_after.then_some(seconds));
        }
        if route != Route::Region && !is_json(request) {
            let refusal = Refusal::invalid("", "Content-Type must be application/json");
            return match api {
                Api::Track => answer::refused(&[refusal]),
                Api::Pipelines => pipelines::refuse(&[refusal], strict),
            };
        }
        if self.workspace.people.len() + self.workspace.objects.len() > KEPT_MAX {
            return answer::full("people and objects");
        }
        let now_s = now_us.div_euclid(1_000_000);
        let types = &self.options.object_types;
        match route {
            Route::Entity => items::entity(&mut self.workspace, &request.body, types, now_s),
            Route::Batch => items::batch(&mut self.workspace, &request.body, types, now_s),
            Route::Segment { id, add } => {
                segments::change(&mut self.workspace, id, request.parameter("id_type"), &request.body, add)
            }
            Route::Pipelines(name) => {
                let context = pipelines::Context { types, strict, now_s };
                pipelines::call(&mut self.workspace, name, &request.body, context)
            }
            Route::Region | Route::WrongMethod | Route::Unknown => self.region(),
        }
    }

    fn advance(&mut self, _prescriptions: &mut Prescriptions, _now_us: i64) -> Vec<(u64, Effects)> {
        Vec::new()
    }

    fn too_large() -> Answer {
        answer::refused(&[Refusal::too_long("", "request body is too large")])
    }

    fn throttled(&self, seconds: u64) -> Answer {
        answer::throttled(Some(seconds))
    }

    fn ruled(status: u16) -> Answer {
        answer::error(status, "The answer was decided by an observer.")
    }

    fn observer(&self) -> Option<&Arc<dyn Observer>> {
        self.options.observer.as_ref()
    }

    fn carrier(method: &str, path: &str) -> Option<Carrier> {
        match route(method, path) {
            Route::Entity | Route::Pipelines("identify") => Some(Carrier::Profile),
            Route::Batch | Route::Pipelines("batch") => Some(Carrier::Job),
            Route::Pipelines("track") => Some(Carrier::Event),
            Route::Region | Route::Segment { .. } | Route::Pipelines(_) | Route::WrongMethod | Route::Unknown => None,
        }
    }

    fn refuse(carrier: Carrier, places: &[usize]) -> Answer {
        let refusal = Refusal::invalid("identifiers", "The item was refused by an observer.");
        match carrier {
            Carrier::Job => answer::partly(&places.iter().map(|place| (*place, refusal.clone())).collect::<Vec<_>>()),
            Carrier::Profile | Carrier::Event => answer::refused(&[refusal]),
        }
    }

    fn counts(&self) -> Counts {
        Counts {
            profiles: self.workspace.people.len() as u64,
            events: self.workspace.events_accepted,
            events_repeated: self.workspace.events_repeated,
            objects: self.workspace.objects.len() as u64,
        }
    }

    fn profiles(&self, after: &str, limit: usize) -> Vec<Value> {
        self.workspace.people.after(after).take(limit).map(|person| self.workspace.summary(person)).collect()
    }

    fn profile(&self, field: &str, value: &str) -> Option<Value> {
        let ident = match field {
            "id" => Ident::Id(value.to_owned()),
            "email" => Ident::Email(value.to_lowercase()),
            "phone" => Ident::Phone(value.to_owned()),
            "cio_id" => Ident::CioId(value.to_owned()),
            _ => return None,
        };
        self.workspace.people.find(&ident).map(|person| self.workspace.summary(person))
    }

    fn lists(&self) -> Vec<Value> {
        let segments = self.workspace.segments.iter();
        segments
            .map(|(id, segment)| json!({"id": id.to_string(), "name": segment.name, "count": segment.members.len()}))
            .collect()
    }

    fn list(&self, id: &str) -> Option<Value> {
        let segment = self.workspace.segments.get(&id.parse().ok()?)?;
        let members: Vec<Value> = segment
            .members
            .iter()
            .filter_map(|cio_id| self.workspace.people.find(&Ident::CioId(cio_id.clone())))
            .map(super::people::Person::to_json)
            .collect();
        Some(json!({"id": id, "name": segment.name, "count": members.len(), "members": members}))
    }

    fn add_list(&mut self, id: &str, name: &str, _now_us: i64) -> bool {
        self.workspace.add_segment(id, name)
    }

    fn events(&self, skip: usize, limit: usize) -> Vec<Value> {
        self.workspace.events.iter().skip(skip).take(limit).map(Event::to_json).collect()
    }

    fn objects(&self, skip: usize, limit: usize) -> Vec<Value> {
        self.workspace.objects.iter().skip(skip).take(limit).collect()
    }

    fn settings(&mut self, settings: Value) -> Result<(), String> {
        let settings: Settings = serde_json::from_value(settings).map_err(|error| error.to_string())?;
        let options = &mut self.options;
        for (place, value) in [
            (&mut options.site_id, settings.site_id),
            (&mut options.api_key, settings.api_key),
            (&mut options.cdp_key, settings.cdp_key),
            (&mut options.secret_key, settings.secret_key),
            (&mut options.eu_url, settings.eu_url),
        ] {
            if let Some(value) = value {
                *place = value;
            }
        }
        options.region = settings.region.unwrap_or(options.region);
        options.host = settings.host.unwrap_or(options.host);
        options.limits = settings.limits.unwrap_or(options.limits);
        options.track_per_second = settings.track_per_second.unwrap_or(options.track_per_second);
        options.retry_after = settings.retry_after.unwrap_or(options.retry_after);
        if let Some(types) = settings.object_types {
            options.object_types = types;
        }
        Ok(())
    }
}

fn is_json(request: &Request) -> bool {
    let kind = request.header("content-type").unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}
