//! Custom events and purchases: an id overwrites what had it.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value, json};

use crate::engine::Answer;

use super::answer;
use super::project::{Call, PROJECT, Project, Refusal, Work};
use super::types::Category;
use super::updates::{Failures, elements, fields_of, flag, settled};
use super::users::{Ident, date};

const EVENT_ID_BYTES_MAX: usize = 512;
/// A later second than this is milliseconds.
const SECONDS_MAX: i64 = 100_000_000_000;

#[derive(Debug, Clone)]
pub(super) struct Event {
    pub who: Ident,
    /// `None` is a purchase.
    pub name: Option<String>,
    pub id: String,
    pub created_us: i64,
    pub fields: Map<String, Value>,
}

/// The events that are kept, in the order of their first arrival.
#[derive(Debug)]
pub(super) struct Events {
    events: BTreeMap<u64, Event>,
    index: HashMap<(bool, String), u64>,
    max: usize,
    next: u64,
    pub accepted: u64,
    /// Events that replaced one with the same id.
    pub overwritten: u64,
}

// === impl Events ===

impl Events {
    pub fn new(max: usize) -> Self {
        Self { events: BTreeMap::new(), index: HashMap::new(), max, next: 0, accepted: 0, overwritten: 0 }
    }

    pub fn put(&mut self, event: Event) {
        let key = (event.name.is_none(), event.id.clone());
        if let Some(place) = self.index.get(&key) {
            self.overwritten += 1;
            self.events.insert(*place, event);
            return;
        }
        self.next += 1;
        self.accepted += 1;
        self.index.insert(key, self.next);
        self.events.insert(self.next, event);
        while self.events.len() > self.max {
            let Some((_, event)) = self.events.pop_first() else { break };
            self.index.remove(&(event.name.is_none(), event.id));
        }
    }

    pub fn hand_over(&mut self, from: &Ident, to: &Ident) {
        self.events.values_mut().filter(|event| event.who == *from).for_each(|event| event.who.clone_from(to));
    }

    pub fn iter(&self) -> impl Iterator<Item = &Event> {
        self.events.values()
    }
}

// === impl Event ===

impl Event {
    pub fn to_json(&self) -> Value {
        let mut fields = self.fields.clone();
        fields.insert("eventName".to_owned(), json!(self.name));
        fields.insert("createdAt".to_owned(), json!(date(self.created_us)));
        fields.insert("id".to_owned(), json!(self.id));
        let kind = if self.name.is_some() { "customEvent" } else { "purchase" };
        fields.insert("eventType".to_owned(), json!(kind));
        let name = if matches!(self.who, Ident::Email(_)) { "email" } else { "userId" };
        fields.insert(name.to_owned(), json!(self.who.text()));
        Value::Object(fields)
    }
}

/// The id and the time of an event or a purchase.
pub(super) fn id_and_time(event: &Value, now_us: i64) -> Result<(String, i64), Answer> {
    let id = match event.get("id").and_then(Value::as_str) {
        Some("") => return Err(answer::bad_params("id must not be empty")),
        Some(id) if id.len() > EVENT_ID_BYTES_MAX => {
            return Err(answer::bad_params(format!("id cannot be longer than {EVENT_ID_BYTES_MAX} bytes")));
        }
        Some(id) => id.to_owned(),
        None => uuid::Uuid::new_v4().simple().to_string(),
    };
    let created_us = match event.get("createdAt").filter(|value| !value.is_null()) {
        None => now_us,
        Some(value) => match value.as_i64().filter(|seconds| (0..SECONDS_MAX).contains(seconds)) {
            Some(seconds) => seconds.saturating_mul(1_000_000),
            None => return Err(answer::bad_params(format!("createdAt {value} is no unix timestamp in seconds"))),
        },
    };
    Ok((id, created_us))
}

impl Project {
    pub(super) fn track(&mut self, call: &Call<'_>) -> Result<Answer, Answer> {
        let name = call.body.get("eventName").and_then(Value::as_str).unwrap_or_default();
        if call.options.disallowed_event_names.iter().any(|disallowed| disallowed == name) {
            // Accepted by the status, refused by the message.
            let mut answer = answer::success(&format!("Disallowed Event Name: {name}"), Value::Null);
            answer.dropped = vec![format!("event {name}: the name is disallowed")];
            return Ok(answer);
        }
        let who = self.of_event(call, &call.body).map_err(|refusal| refusal.to_answer())?;
        let (event, dropped) = self.event(call, &call.body, who)?;
        let id = event.id.clone();
        let later = self.submit(call, false, Work::Events(vec![event]), crate::engine::Effects::All)?;
        let mut answer = settled(answer::success("", json!({ "id": id })), later, crate::engine::Effects::All);
        answer.dropped = dropped;
        Ok(answer)
    }

    fn event(&mut self, call: &Call<'_>, body: &Value, who: Ident) -> Result<(Event, Vec<String>), Answer> {
        let name = body.get("eventName").and_then(Value::as_str).unwrap_or_default();
        if name.is_empty() {
            return Err(answer::bad_params("eventName must not be empty"));
        }
        let (id, created_us) = id_and_time(body, call.now_us)?;
        let mut fields = fields_of(body);
        let mut trial = self.types.trial();
        let create = flag(body, "createNewFields").unwrap_or(call.options.creates_fields);
        trial.fields(&Category::Event(name.to_owned()), &mut fields, create);
        let passed = trial.finish(PROJECT)?;
        self.types.keep(&passed);
        let dropped = passed.filtered.iter().map(|field| format!("field {field}: createNewFields is off")).collect();
        Ok((Event { who, name: Some(name.to_owned()), id, created_us, fields }, dropped))
    }

    /// The person of an event, who must exist unless the options say otherwise.
    fn of_event(&mut self, call: &Call<'_>, body: &Value) -> Result<Ident, Refusal> {
        let who = self.named(call.options, body)?;
        if self.users.find(&who).is_none() {
            if !call.options.events_create_users {
                return Err(Refusal::NotFound(who));
            }
            self.users.find_or_create(&who, call.now_us);
        }
        Ok(who)
    }

    pub(super) fn track_bulk(&mut self, call: &Call<'_>) -> Result<Answer, Answer> {
        let bodies = elements(call, "events")?;
        let mut failures = Failures::default();
        let mut disallowed: Vec<&str> = Vec::new();
        let mut events = Vec::with_capacity(bodies.len());
        let mut pending = Vec::with_capacity(bodies.len());
        for (place, body) in bodies.iter().enumerate() {
            let name = body.get("eventName").and_then(Value::as_str).unwrap_or_default();
            if name.is_empty() {
                return Err(answer::bad_params(format!("events[{place}].eventName must not be empty")));
            }
            let (id, created_us) = id_and_time(body, call.now_us)?;
            if call.options.disallowed_event_names.iter().any(|disallowed| disallowed == name) {
                failures.places.push(place);
                if !disallowed.contains(&name) {
                    disallowed.push(name);
                }
                continue;
            }
            match self.of_event(call, body) {
                Ok(who) => pending
                    .push((body, Event { who, name: Some(name.to_owned()), id, created_us, fields: fields_of(body) })),
                Err(refusal) => failures.add(place, refusal, true)?,
            }
        }
        let mut trial = self.types.trial();
        for (body, mut event) in pending {
            let create = flag(body, "createNewFields").unwrap_or(call.options.creates_fields);
            let category = Category::Event(event.name.clone().unwrap_or_default());
            trial.fields(&category, &mut event.fields, create);
            events.push(event);
        }
        let passed = trial.finish(PROJECT)?;
        self.types.keep(&passed);
        let effects = failures.effects();
        let later = self.submit(call, true, Work::Events(events), effects.clone())?;
        let reasons = [
            "invalidEmails",
            "invalidUserIds",
            "forgottenEmails",
            "forgottenUserIds",
            "notFoundEmails",
            "notFoundUserIds",
        ];
        let mut body = failures.to_json(bodies.len(), &reasons);
        body.insert("disallowedEventNames".to_owned(), json!(disallowed));
        body.insert("createdFields".to_owned(), json!(passed.created));
        body.insert("filteredOutFields".to_owned(), json!(passed.filtered));
        Ok(settled(answer::json(Value::Object(body)), later, effects))
    }

    pub(super) fn events_of(&self, call: &Call<'_>, by: &str) -> Answer {
        let Some(name) = call.names.first() else { return answer::bad_params(format!("{by} is required")) };
        let who = if by == "email" { Ident::Email(name.to_lowercase()) } else { Ident::UserId(name.clone()) };
        let id = self.users.find(&who);
        let limit = call.query.iter().find(|(name, _)| name == "limit").and_then(|(_, value)| value.parse().ok());
        let of_person = |event: &&Event| event.who == who || (id.is_some() && self.users.find(&event.who) == id);
        let events: Vec<Value> =
            self.events.iter().filter(of_person).take(limit.unwrap_or(30).min(200)).map(Event::to_json).collect();
        answer::json(json!({ "events": events }))
    }
}
