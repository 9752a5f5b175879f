//! All that the simulator remembers, behind one lock: every request sees the account as the one before it has left it.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::Options;
use super::account::{Account, Call};
use super::answer::{Answer, Problem};
use super::clock::{Clock, stamp};
use super::endpoints::{Endpoint, Route, Variant};
use super::journal::{Journal, Received, Stats, UNKNOWN};
use super::limits::{Usage, Verdict};
use super::observe::{Arriving, Carrier, Effects, Leaving, Ruling};
use super::prescribe::{Disconnect, Effect, Prescription, Prescriptions, Seen};

/// A request, read completely.
#[derive(Debug)]
pub(super) struct Request {
    pub method: String,
    pub path: String,
    pub query: Vec<(String, String)>,
    pub authorization: Option<String>,
    pub revision: Option<String>,
    pub content_type: Option<String>,
    pub body: Vec<u8>,
    pub base: String,
}

/// What the server has to do with a request.
#[derive(Debug)]
pub(super) enum Reply {
    Answer {
        answer: Answer,
        delay_ms: u64,
        leaving: Option<Leaving>,
    },
    HangUp {
        leaving: Option<Leaving>,
    },
    /// No answer, and after this time the end of the connection.
    Silence {
        time: Duration,
        leaving: Option<Leaving>,
    },
}

/// What was decided about a request.
enum Fate {
    Answer(Answer, u64),
    HangUp,
    Silence(Duration),
}

#[derive(Debug)]
pub(super) struct Shared {
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    options: Options,
    account: Account,
    usage: Usage,
    prescriptions: Prescriptions,
    journal: Journal,
}

// === impl Shared ===

impl Shared {
    pub fn new(options: Options) -> std::io::Result<Self> {
        let clock = Clock::new();
        let mut journal = Journal::new(options.memory.requests_max);
        if let Some(path) = &options.persist {
            journal.persist(Path::new(path))?;
        }
        let mut state = State {
            account: Account::new(options.memory),
            options,
            usage: Usage::default(),
            prescriptions: Prescriptions::default(),
            journal,
        };
        state.add_lists(clock.now_us());
        Ok(Self { clock, state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held leaves a state that tests may still want to look at.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock with all jobs done that are due.
    fn current(&self) -> (MutexGuard<'_, State>, i64) {
        let now_us = self.clock.now_us();
        let mut guard = self.lock();
        let state = &mut *guard;
        let settled = state.account.advance(&mut state.prescriptions, now_us);
        if let Some(observer) = &state.options.observer {
            for (request, effects) in settled {
                observer.settled(request, effects);
            }
        }
        (guard, now_us)
    }

    /// Whether the connection is to be broken before the body is read. The request is recorded then.
    pub fn hangs_up_early(&self, method: &str, path: &str, query: &[(String, String)]) -> bool {
        let (mut state, now_us) = self.current();
        let seen = Seen { method, path, query, body: None, now_us };
        if state.prescriptions.take(&seen).is_none() {
            return false;
        }
        let endpoint = endpoint_name(method, path);
        state.journal.add(Received {
            number: 0,
            time: stamp(now_us),
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.to_vec(),
            revision: None,
            body: Value::Null,
            body_bytes: 0,
            status: 0,
            prescribed: true,
            endpoint,
        });
        true
    }

    /// Answers a request and records it.
    pub fn reply(&self, request: Request) -> Reply {
        let (mut guard, now_us) = self.current();
        let state = &mut *guard;
        let number = state.journal.next();
        let carrier = Carrier::of(&request.method, &request.path);
        let observer = state.options.observer.clone().zip(carrier);
        let ruling = observer.as_ref().map_or(Ruling::Normal, |(observer, carrier)| {
            observer.arrived(Arriving { request: number, carrier: *carrier, body: &request.body })
        });
        let (fate, effects, prescribed) = state.decide(ruling, carrier, number, &request, now_us);
        let leaving = observer.map(|(observer, _)| {
            if let Some(effects) = effects {
                observer.settled(number, effects);
            }
            Leaving::new(Arc::clone(&observer), number)
        });
        let (reply, status) = match fate {
            Fate::Answer(answer, delay_ms) => {
                let status = answer.status;
                (Reply::Answer { answer, delay_ms, leaving }, status)
            }
            Fate::HangUp => (Reply::HangUp { leaving }, 0),
            Fate::Silence(time) => (Reply::Silence { time, leaving }, 0),
        };
        let endpoint = endpoint_name(&request.method, &request.path);
        state.journal.add(Received {
            number: 0,
            time: stamp(now_us),
            body: if state.journal.keeps_bodies() { body_value(&request.body) } else { Value::Null },
            body_bytes: request.body.len(),
            method: request.method,
            path: request.path,
            query: request.query,
            revision: request.revision,
            status,
            prescribed,
            endpoint,
        });
        reply
    }

    // --- what the control plane and tests ask ---

    pub fn received(&self, wanted: impl Fn(&Received) -> bool, limit: usize) -> Vec<Received> {
        self.lock().journal.received().filter(|received| wanted(received)).take(limit).cloned().collect()
    }

    pub fn stats(&self) -> Stats {
        let (state, _) = self.current();
        Stats {
            profiles: state.account.people.len() as u64,
            events: state.account.events_accepted,
            events_repeated: state.account.events_repeated,
            ..state.journal.stats()
        }
    }

    /// Profiles after a cursor (a profile id), each with its attributes and the lists that it is on.
    pub fn profiles(&self, after: &str, limit: usize) -> Vec<Value> {
        let (state, _) = self.current();
        state.account.people.after(after).take(limit).map(|profile| state.account.summary(&profile.id)).collect()
    }

    pub fn profile(&self, field: &str, value: &str) -> Option<Value> {
        let (state, _) = self.current();
        let id = state.account.people.find(field, value)?.id.clone();
        Some(state.account.summary(&id))
    }

    pub fn list(&self, id: &str) -> Option<Value> {
        let (state, _) = self.current();
        let list = state.account.lists.get(id)?;
        let members: Vec<Value> = list
            .members
            .iter()
            .filter_map(|id| state.account.people.get(id))
            .map(|profile| json!({"id": profile.id, "email": profile.field("email"), "external_id": profile.field("external_id")}))
            .collect();
        Some(json!({"id": id, "name": list.name, "count": members.len(), "members": members}))
    }

    pub fn lists(&self) -> Vec<Value> {
        let (state, _) = self.current();
        let lists = state.account.lists.iter();
        lists.map(|(id, list)| json!({"id": id, "name": list.name, "count": list.members.len()})).collect()
    }

    pub fn events(&self, skip: usize, limit: usize) -> Vec<Value> {
        let (state, _) = self.current();
        let events = state.account.events.iter().skip(skip).take(limit);
        events
            .map(|event| json!({"profile": event.profile, "metric": event.metric, "attributes": event.attributes}))
            .collect()
    }

    pub fn add_list(&self, id: &str, name: &str) -> bool {
        self.lock().account.add_list(id, name, self.clock.now_us())
    }

    pub fn prescribe(&self, prescription: Prescription) -> Result<(), String> {
        if let Some(problem) = prescription.problem() {
            return Err(problem);
        }
        if self.lock().prescriptions.add(prescription, self.clock.now_us()) {
            Ok(())
        } else {
            Err(format!("at most {} prescriptions may be open", super::prescribe::PRESCRIPTIONS_MAX))
        }
    }

    pub fn prescriptions(&self) -> Vec<Prescription> {
        self.lock().prescriptions.list()
    }

    pub fn clear_prescriptions(&self) {
        self.lock().prescriptions.clear();
    }

    /// Changes settings of the running simulator.
    pub fn change(&self, change: impl FnOnce(&mut Options)) {
        change(&mut self.lock().options);
    }

    /// Back to the state at the start: no profiles, events, jobs, prescriptions or counts; the lists of the options.
    pub fn reset(&self) {
        let now_us = self.clock.now_us();
        let mut state = self.lock();
        state.account = Account::new(state.options.memory);
        state.usage = Usage::default();
        state.prescriptions.clear();
        state.journal.clear();
        state.add_lists(now_us);
    }
}

// === impl State ===

impl State {
    fn add_lists(&mut self, now_us: i64) {
        for (id, name) in &self.options.lists {
            self.account.add_list(id, name, now_us);
        }
    }

    /// What becomes of a request, what of it takes effect (`None` while that is open), and whether somebody prescribed it.
    fn decide(
        &mut self,
        ruling: Ruling,
        carrier: Option<Carrier>,
        number: u64,
        request: &Request,
        now_us: i64,
    ) -> (Fate, Option<Effects>, bool) {
        let (fate, disconnect) = match ruling {
            Ruling::Normal => return self.decide_unruled(carrier, number, request, now_us),
            Ruling::Status(status) => {
                let detail = "The answer was decided by an observer.";
                (Fate::Answer(Problem::new(status, "error", "Error.", detail, "/data").into(), 0), None)
            }
            Ruling::Throttled { seconds } => (Fate::Answer(Answer::throttled(seconds), 0), None),
            Ruling::Refused(places) => {
                (Fate::Answer(carrier.map_or_else(|| Answer::empty(400), |carrier| carrier.refuse(&places)), 0), None)
            }
            Ruling::Silence(time) => (Fate::Silence(time), None),
            Ruling::Disconnect(disconnect) => (Fate::HangUp, Some(disconnect)),
        };
        let effects = if disconnect == Some(Disconnect::AfterProcessing) {
            let answer = self.answer(request, number, now_us);
            effects_of(carrier, &answer)
        } else {
            Some(Effects::Nothing)
        };
        (fate, effects, true)
    }

    fn decide_unruled(
        &mut self,
        carrier: Option<Carrier>,
        number: u64,
        request: &Request,
        now_us: i64,
    ) -> (Fate, Option<Effects>, bool) {
        let seen = Seen {
            method: &request.method,
            path: &request.path,
            query: &request.query,
            body: Some(&request.body),
            now_us,
        };
        let effect = self.prescriptions.take(&seen);
        let prescribed = effect.is_some();
        let delay_ms = if let Some(Effect::DelayMs(delay_ms)) = effect { delay_ms } else { 0 };
        match effect {
            Some(Effect::Answer(answer)) => {
                (Fate::Answer(answer.to_answer(), answer.delay_ms), Some(Effects::Nothing), prescribed)
            }
            Some(Effect::Disconnect(Disconnect::BeforeReading | Disconnect::AfterReading)) => {
                (Fate::HangUp, Some(Effects::Nothing), prescribed)
            }
            Some(Effect::Disconnect(Disconnect::AfterProcessing)) => {
                let answer = self.answer(request, number, now_us);
                (Fate::HangUp, effects_of(carrier, &answer), prescribed)
            }
            // The last two belong to jobs and are never taken by a request.
            Some(Effect::DelayMs(_) | Effect::ImportError(_) | Effect::CancelJob) | None => {
                let answer = self.answer(request, number, now_us);
                let effects = effects_of(carrier, &answer);
                (Fate::Answer(answer, delay_ms), effects, prescribed)
            }
        }
    }

    /// The vendor's own answer. The order of the checks is the vendor's: who asks, the limits, then what is asked.
    fn answer(&mut self, request: &Request, number: u64, now_us: i64) -> Answer {
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
            match self.usage.take(endpoint, variant, &self.options.tiers, now_us) {
                Verdict::Pass { headers } => headers,
                Verdict::Throttled { retry_after_s } => return Answer::throttled(retry_after_s),
            }
        } else {
            Vec::new()
        };
        let call = Call {
            request: number,
            endpoint,
            id,
            path: &request.path,
            query: &request.query,
            body: &request.body,
            base: &request.base,
            job_duration: self.options.job_duration,
        };
        let mut answer = self.account.handle(&call, &mut self.prescriptions, now_us);
        answer.headers.extend(limit_headers);
        answer
    }

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
        let Some(given) = &request.authorization else {
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

/// What the vendor's own answer says about the items; `None` where a job will tell.
fn effects_of(carrier: Option<Carrier>, answer: &Answer) -> Option<Effects> {
    match carrier {
        _ if !(200..300).contains(&answer.status) => Some(Effects::Nothing),
        Some(Carrier::Job) => None,
        Some(Carrier::Profile | Carrier::Event) | None => Some(Effects::All),
    }
}

fn bad_headers(request: &Request) -> Option<Problem> {
    match &request.revision {
        None => return Some(Problem::invalid("The revision header is required.", "/data/")),
        Some(revision) if !is_revision(revision) => {
            return Some(Problem::invalid(format!("'{revision}' is not a valid revision."), "/data/"));
        }
        Some(_) => {}
    }
    let has_body = matches!(request.method.as_str(), "POST" | "PATCH" | "DELETE");
    let kind = request.content_type.as_deref().unwrap_or_default().split(';').next().unwrap_or_default().trim();
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

fn endpoint_name(method: &str, path: &str) -> &'static str {
    match Endpoint::find(method, path) {
        Route::To { endpoint, .. } => endpoint.name(),
        Route::WrongMethod | Route::Unknown => UNKNOWN,
    }
}

fn body_value(body: &[u8]) -> Value {
    if body.is_empty() {
        return Value::Null;
    }
    serde_json::from_slice(body).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(body).into_owned()))
}
