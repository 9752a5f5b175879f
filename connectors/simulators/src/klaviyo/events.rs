//! Events: checked, assigned to a person, and accepted once.

use serde_json::{Map, Value};

use crate::engine::Answer;
use crate::engine::clock::SECOND_US;

use super::account::{Account, BULK_BYTES_MAX, Call, document_of, refused, resource};
use super::answer::{self, Problem};
use super::change::{self, Change, Form};

/// As documented.
const EVENT_PROPERTIES_MAX: usize = 400;
const METRIC_NAME_CHARS_MAX: usize = 128;
const TEXT_BYTES_MAX: usize = 100_000;

/// An event that was accepted.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub profile: String,
    pub metric: String,
    /// What makes it the same as another one of its person and metric.
    pub unique: String,
    pub attributes: Value,
}

impl Account {
    /// `POST /api/events`: checked, then accepted; the answer has no body.
    pub(super) fn create_event(&mut self, call: &Call<'_>, now_us: i64) -> Result<Answer, Answer> {
        let body = document_of(call, BULK_BYTES_MAX)?;
        let data = resource(&body, "event")?;
        let at = "/data/attributes";
        let Some(attributes) = data.get("attributes").and_then(Value::as_object) else {
            return Err(Problem::invalid("The attributes are required.", at).into());
        };
        let mut problems = Vec::new();
        match attributes.get("properties").and_then(Value::as_object) {
            None => problems
                .push(Problem::invalid("'properties' is required and must be an object.", format!("{at}/properties"))),
            Some(properties) if properties.len() > EVENT_PROPERTIES_MAX => {
                let detail = format!("At most {EVENT_PROPERTIES_MAX} properties are allowed.");
                problems.push(Problem::invalid(detail, format!("{at}/properties")));
            }
            Some(_) => {}
        }
        problems.extend(wrong_fields(attributes, at));
        if data.pointer("/attributes/metric/data/type").and_then(Value::as_str) != Some("metric") {
            problems.push(Problem::invalid("The type must be 'metric'.", format!("{at}/metric/data/type")));
        }
        let metric =
            data.pointer("/attributes/metric/data/attributes/name").and_then(Value::as_str).unwrap_or_default();
        if metric.is_empty() || metric.chars().count() >= METRIC_NAME_CHARS_MAX {
            let detail = format!(
                "The name of the metric is required and must have less than {METRIC_NAME_CHARS_MAX} characters."
            );
            problems.push(Problem::invalid(detail, format!("{at}/metric/data/attributes/name")));
        }
        let second = match event_second(attributes.get("time"), now_us) {
            Ok(second) => second,
            Err(detail) => {
                problems.push(Problem::invalid(detail, format!("{at}/time")));
                0
            }
        };
        let profile = data.pointer("/attributes/profile/data").unwrap_or(&Value::Null);
        let change = match change::parse(profile, &format!("{at}/profile/data"), Form::Event) {
            Ok(change) => change,
            Err(found) => {
                problems.extend(found);
                Change::default()
            }
        };
        if !problems.is_empty() {
            return Err(answer::problems(&problems));
        }
        let profile = self.people.of_event(&change, now_us).map_err(|refusal| refused(&refusal))?;
        let unique = attributes
            .get("unique_id")
            .and_then(Value::as_str)
            .map_or_else(|| format!("at {second}"), |id| format!("id {id}"));
        // The same event again is accepted and ignored: the first one wins.
        if self.event_keys.insert((profile.clone(), metric.to_owned(), unique.clone())) {
            let attributes = Value::Object(attributes.clone());
            self.keep_event(Event { profile, metric: metric.to_owned(), unique, attributes });
        } else {
            self.events_repeated += 1;
        }
        let answer = Answer::empty(202);
        Ok(match change.partial_failure {
            Some(field) => answer.with_header("x-klaviyo-partial-failure", field),
            None => answer,
        })
    }
}

impl Account {
    fn keep_event(&mut self, event: Event) {
        self.events_accepted += 1;
        self.events.push_back(event);
        while self.events.len() > self.events_max {
            let Some(Event { profile, metric, unique, .. }) = self.events.pop_front() else { break };
            self.event_keys.remove(&(profile, metric, unique));
        }
    }
}

/// Attributes that the vendor does not know or that have another type, and texts that are too long.
fn wrong_fields(attributes: &Map<String, Value>, at: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, value) in attributes {
        let expected = match name.as_str() {
            // Looked at on their own.
            "properties" | "metric" | "profile" | "time" => continue,
            _ if value.is_null() => continue,
            "value" if value.is_number() => continue,
            "value_currency" | "unique_id" if value.is_string() => continue,
            "backfill" if value.is_boolean() => continue,
            "value" => "a number",
            "value_currency" | "unique_id" => "a string",
            "backfill" => "a boolean",
            _ => {
                let detail = format!("'{name}' is not a valid field for the resource 'event'.");
                problems.push(Problem::invalid(detail, format!("{at}/{name}")));
                continue;
            }
        };
        problems.push(Problem::invalid(format!("'{name}' must be {expected}."), format!("{at}/{name}")));
    }
    let properties = attributes.get("properties").and_then(Value::as_object);
    for (name, value) in properties.into_iter().flatten() {
        if longest_text(value) > TEXT_BYTES_MAX {
            let detail = format!("A string must not exceed {TEXT_BYTES_MAX} bytes.");
            problems.push(Problem::invalid(detail, format!("{at}/properties/{name}")));
        }
    }
    problems
}

fn longest_text(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(longest_text).max().unwrap_or(0),
        Value::Object(fields) => fields.values().map(longest_text).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

/// The second of an event: a time after 1990 and at most a year ahead; the time of receipt where none is given.
fn event_second(time: Option<&Value>, now_us: i64) -> Result<i64, String> {
    const YEAR_1990_S: i64 = 631_152_000;
    const YEAR_S: i64 = 366 * 86_400;
    let now_s = now_us / SECOND_US;
    match time {
        None | Some(Value::Null) => Ok(now_s),
        Some(Value::String(text)) => {
            let second = text
                .parse::<jiff::Timestamp>()
                .map_err(|_| "'time' is no ISO 8601 date and time.".to_owned())?
                .as_second();
            if second > YEAR_1990_S && second <= now_s + YEAR_S {
                Ok(second)
            } else {
                Err("'time' must lie after 1990 and at most one year ahead.".to_owned())
            }
        }
        Some(_) => Err("'time' must be a string.".to_owned()),
    }
}
