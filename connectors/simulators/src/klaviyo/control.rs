//! The control plane: not the vendor's, for tests and for people who want to see what arrived. It needs no key and is never limited.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::jobs::JobDuration;
use super::prescribe::Prescription;
use super::state::Shared;

/// Elements that one answer lists.
const PAGE_MAX: usize = 10_000;
const PAGE_DEFAULT: usize = 1_000;
const BODY_BYTES_MAX: usize = 1_000_000;

type App = State<Arc<Shared>>;

pub(super) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/_simulator", get(overview))
        .route("/_simulator/", get(overview))
        .route("/_simulator/requests", get(requests))
        .route("/_simulator/profiles", get(profiles))
        .route("/_simulator/profile", get(profile))
        .route("/_simulator/lists", get(lists).post(add_list))
        .route("/_simulator/lists/{id}", get(list))
        .route("/_simulator/events", get(events))
        .route("/_simulator/stats", get(stats))
        .route("/_simulator/prescribe", post(prescribe))
        .route("/_simulator/prescriptions", get(prescriptions).delete(clear_prescriptions))
        .route("/_simulator/settings", post(settings))
        .route("/_simulator/reset", post(reset))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
}

async fn overview(State(shared): App) -> Response {
    let see = ["requests", "profiles", "profile?email=", "lists", "lists/{id}", "events", "stats", "prescriptions"]
        .map(|name| format!("/_simulator/{name}"));
    Json(json!({"simulator": "klaviyo", "stats": shared.stats(), "lists": shared.lists(), "see": see})).into_response()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestsQuery {
    method: Option<String>,
    /// The beginning of the path.
    path: Option<String>,
    status: Option<u16>,
    /// Text that the body contains.
    contains: Option<String>,
    /// Number of the request after which to begin.
    after: Option<u64>,
    limit: Option<usize>,
}

async fn requests(State(shared): App, Query(query): Query<RequestsQuery>) -> Response {
    let limit = query.limit.unwrap_or(PAGE_DEFAULT).min(PAGE_MAX);
    let found = shared.received(
        |received| {
            query.method.as_ref().is_none_or(|method| method.eq_ignore_ascii_case(&received.method))
                && query.path.as_ref().is_none_or(|path| received.path.starts_with(path.as_str()))
                && query.status.is_none_or(|status| status == received.status)
                && query.after.is_none_or(|after| received.number > after)
                && query.contains.as_ref().is_none_or(|text| received.body.to_string().contains(text.as_str()))
        },
        limit,
    );
    let next = (found.len() == limit).then(|| found.last().map(|received| received.number));
    Json(json!({"requests": found, "next_after": next.flatten()})).into_response()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProfilesQuery {
    /// Id of the profile after which to begin.
    after: Option<String>,
    limit: Option<usize>,
}

async fn profiles(State(shared): App, Query(query): Query<ProfilesQuery>) -> Response {
    let limit = query.limit.unwrap_or(PAGE_DEFAULT).min(PAGE_MAX);
    let found = shared.profiles(query.after.as_deref().unwrap_or_default(), limit);
    let next = if found.len() == limit { found.last().map(|profile| profile["id"].clone()) } else { None };
    Json(json!({"profiles": found, "next_after": next})).into_response()
}

async fn profile(State(shared): App, Query(query): Query<Vec<(String, String)>>) -> Response {
    let found = query.first().and_then(|(field, value)| shared.profile(field, value));
    found.map_or_else(
        || problem(StatusCode::NOT_FOUND, "no such profile; ask with ?email=, ?phone_number=, ?external_id= or ?id="),
        |profile| Json(profile).into_response(),
    )
}

async fn lists(State(shared): App) -> Response {
    Json(json!({"lists": shared.lists()})).into_response()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewList {
    id: String,
    name: String,
}

async fn add_list(State(shared): App, Json(list): Json<NewList>) -> Response {
    if shared.add_list(&list.id, &list.name) {
        StatusCode::CREATED.into_response()
    } else {
        problem(StatusCode::CONFLICT, "there are too many lists")
    }
}

async fn list(State(shared): App, Path(id): Path<String>) -> Response {
    shared.list(&id).map_or_else(|| problem(StatusCode::NOT_FOUND, "no such list"), |list| Json(list).into_response())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    skip: Option<usize>,
    limit: Option<usize>,
}

async fn events(State(shared): App, Query(query): Query<EventsQuery>) -> Response {
    let limit = query.limit.unwrap_or(PAGE_DEFAULT).min(PAGE_MAX);
    Json(json!({"events": shared.events(query.skip.unwrap_or(0), limit)})).into_response()
}

async fn stats(State(shared): App) -> Response {
    Json(shared.stats()).into_response()
}

async fn prescribe(State(shared): App, Json(prescription): Json<Prescription>) -> Response {
    match shared.prescribe(prescription) {
        Ok(()) => StatusCode::CREATED.into_response(),
        Err(text) => problem(StatusCode::BAD_REQUEST, &text),
    }
}

async fn prescriptions(State(shared): App) -> Response {
    Json(json!({"prescriptions": shared.prescriptions()})).into_response()
}

async fn clear_prescriptions(State(shared): App) -> StatusCode {
    shared.clear_prescriptions();
    StatusCode::NO_CONTENT
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

async fn settings(State(shared): App, Json(settings): Json<Settings>) -> StatusCode {
    shared.change(|options| {
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
    });
    StatusCode::NO_CONTENT
}

async fn reset(State(shared): App) -> StatusCode {
    shared.reset();
    StatusCode::NO_CONTENT
}

fn problem(status: StatusCode, text: &str) -> Response {
    (status, Json(json!({ "error": Value::String(text.to_owned()) }))).into_response()
}
