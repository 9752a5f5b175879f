//! The control plane: not the vendor's, for tests and for people who want to see what arrived. It needs no key and is never limited.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::prescribe::Prescription;
use super::state::Shared;
use super::vendor::Vendor;

/// Elements that one answer lists.
const PAGE_MAX: usize = 10_000;
const PAGE_DEFAULT: usize = 1_000;
const BODY_BYTES_MAX: usize = 1_000_000;

type App<V> = State<Arc<Shared<V>>>;

pub(super) fn router<V: Vendor>() -> Router<Arc<Shared<V>>> {
    Router::new()
        .route("/_simulator", get(overview::<V>))
        .route("/_simulator/", get(overview::<V>))
        .route("/_simulator/page", get(page))
        .route("/_simulator/requests", get(requests::<V>))
        .route("/_simulator/profiles", get(profiles::<V>))
        .route("/_simulator/profile", get(profile::<V>))
        .route("/_simulator/lists", get(lists::<V>).post(add_list::<V>))
        .route("/_simulator/lists/{id}", get(list::<V>))
        .route("/_simulator/objects", get(objects::<V>))
        .route("/_simulator/events", get(events::<V>))
        .route("/_simulator/stats", get(stats::<V>))
        .route("/_simulator/prescribe", post(prescribe::<V>))
        .route("/_simulator/prescriptions", get(prescriptions::<V>).delete(clear_prescriptions::<V>))
        .route("/_simulator/settings", post(settings::<V>))
        .route("/_simulator/reset", post(reset::<V>))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
}

/// For a browser the page, for everything else the same as JSON.
async fn overview<V: Vendor>(State(shared): App<V>, headers: HeaderMap) -> Response {
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accepted.contains("text/html") {
        return page().await;
    }
    let see = [
        "requests",
        "profiles",
        "profile?email=",
        "lists",
        "lists/{id}",
        "objects",
        "events",
        "stats",
        "prescriptions",
    ]
    .map(|name| format!("/_simulator/{name}"));
    Json(json!({"simulator": V::KIND, "stats": shared.stats(), "lists": shared.lists(), "see": see})).into_response()
}

/// One page for all vendors: it asks this control plane and knows nothing of its own.
async fn page() -> Response {
    // Nothing but the page's own script and style: what arrived is shown as text, whoever sent it.
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'";
    ([(header::CONTENT_SECURITY_POLICY, policy)], Html(include_str!("page.html"))).into_response()
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

async fn requests<V: Vendor>(State(shared): App<V>, Query(query): Query<RequestsQuery>) -> Response {
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

async fn profiles<V: Vendor>(State(shared): App<V>, Query(query): Query<ProfilesQuery>) -> Response {
    let limit = query.limit.unwrap_or(PAGE_DEFAULT).min(PAGE_MAX);
    let found = shared.profiles(query.after.as_deref().unwrap_or_default(), limit);
    let next = if found.len() == limit { found.last().map(|profile| profile["id"].clone()) } else { None };
    Json(json!({"profiles": found, "next_after": next})).into_response()
}

async fn profile<V: Vendor>(State(shared): App<V>, Query(query): Query<Vec<(String, String)>>) -> Response {
    let found = query.first().and_then(|(field, value)| shared.profile(field, value));
    found.map_or_else(
        || {
            problem(
                StatusCode::NOT_FOUND,
                "no such profile; ask with an identifier of the vendor, such as ?email=, or ?id=",
            )
        },
        |profile| Json(profile).into_response(),
    )
}

async fn lists<V: Vendor>(State(shared): App<V>) -> Response {
    Json(json!({"lists": shared.lists()})).into_response()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewList {
    id: String,
    name: String,
}

async fn add_list<V: Vendor>(State(shared): App<V>, Json(list): Json<NewList>) -> Response {
    if shared.add_list(&list.id, &list.name) {
        StatusCode::CREATED.into_response()
    } else {
        problem(StatusCode::CONFLICT, "there are too many lists")
    }
}

async fn list<V: Vendor>(State(shared): App<V>, Path(id): Path<String>) -> Response {
    shared.list(&id).map_or_else(|| problem(StatusCode::NOT_FOUND, "no such list"), |list| Json(list).into_response())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SkipQuery {
    skip: Option<usize>,
    limit: Option<usize>,
}

async fn events<V: Vendor>(State(shared): App<V>, Query(query): Query<SkipQuery>) -> Response {
    let limit = query.limit.unwrap_or(PAGE_DEFAULT).min(PAGE_MAX);
    Json(json!({"events": shared.events(query.skip.unwrap_or(0), limit)})).into_response()
}

async fn objects<V: Vendor>(State(shared): App<V>, Query(query): Query<SkipQuery>) -> Response {
    let limit = query.limit.unwrap_or(PAGE_DEFAULT).min(PAGE_MAX);
    Json(json!({"objects": shared.objects(query.skip.unwrap_or(0), limit)})).into_response()
}

async fn stats<V: Vendor>(State(shared): App<V>) -> Response {
    Json(shared.stats()).into_response()
}

async fn prescribe<V: Vendor>(State(shared): App<V>, Json(prescription): Json<Prescription>) -> Response {
    match shared.prescribe(prescription) {
        Ok(()) => StatusCode::CREATED.into_response(),
        Err(text) => problem(StatusCode::BAD_REQUEST, &text),
    }
}

async fn prescriptions<V: Vendor>(State(shared): App<V>) -> Response {
    Json(json!({"prescriptions": shared.prescriptions()})).into_response()
}

async fn clear_prescriptions<V: Vendor>(State(shared): App<V>) -> StatusCode {
    shared.clear_prescriptions();
    StatusCode::NO_CONTENT
}

async fn settings<V: Vendor>(State(shared): App<V>, Json(settings): Json<Value>) -> Response {
    match shared.settings(settings) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(text) => problem(StatusCode::BAD_REQUEST, &text),
    }
}

async fn reset<V: Vendor>(State(shared): App<V>) -> StatusCode {
    shared.reset();
    StatusCode::NO_CONTENT
}

fn problem(status: StatusCode, text: &str) -> Response {
    (status, Json(json!({ "error": Value::String(text.to_owned()) }))).into_response()
}
