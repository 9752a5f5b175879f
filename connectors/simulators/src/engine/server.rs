//! From HTTP to the state and back.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body as HttpBody, Bytes};
use axum::extract::{ConnectInfo, Request as HttpRequest, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::answer::{Answer, Body};
use super::connection::Switch;
use super::control;
use super::observe::Leaving;
use super::state::{Reply, Shared};
use super::vendor::{Request, Vendor};

/// The longest wait for the body of a request.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) fn router<V: Vendor>(shared: Arc<Shared<V>>) -> Router {
    Router::new().merge(control::router()).fallback(vendor::<V>).with_state(shared)
}

async fn vendor<V: Vendor>(
    State(shared): State<Arc<Shared<V>>>,
    ConnectInfo(switch): ConnectInfo<Switch>,
    request: HttpRequest,
) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let query: Vec<(String, String)> =
        url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    if shared.hangs_up_early(parts.method.as_str(), &path, &query) {
        switch.throw();
        return StatusCode::NO_CONTENT.into_response();
    }
    let body = match read::<V>(body).await {
        Ok(body) => body,
        Err(answer) => return to_http(answer),
    };
    let host = parts.headers.get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or("localhost");
    let request = Request {
        number: 0,
        method: parts.method.as_str().to_owned(),
        path,
        query,
        base: format!("http://{host}"),
        headers: parts.headers,
        body: body.into(),
    };
    match shared.reply(request) {
        Reply::Answer { answer, delay_ms, leaving } => {
            if delay_ms > 0 {
                tokio::time::sleep(Duration::from_millis(delay_ms)).await;
            }
            if let Some(leaving) = leaving {
                switch.answering(leaving, answer.status);
            }
            to_http(answer)
        }
        Reply::HangUp { leaving } => hang_up(&switch, leaving),
        Reply::Silence { time, leaving } => {
            tokio::time::sleep(time).await;
            hang_up(&switch, leaving)
        }
    }
}

fn hang_up(switch: &Switch, leaving: Option<Leaving>) -> Response {
    switch.throw();
    drop(leaving);
    StatusCode::NO_CONTENT.into_response()
}

async fn read<V: Vendor>(body: HttpBody) -> Result<Bytes, Answer> {
    match tokio::time::timeout(READ_TIMEOUT, axum::body::to_bytes(body, V::READ_BYTES_MAX)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) => {
            tracing::warn!(%error, "the body of a request could not be read");
            Err(V::too_large())
        }
        Err(_) => Err(Answer::empty(408)),
    }
}

fn to_http(answer: Answer) -> Response {
    let body = match answer.body {
        Body::Empty => HttpBody::empty(),
        Body::Json(value) => HttpBody::from(value.to_string()),
        Body::Text(text) => HttpBody::from(text),
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in answer.headers {
        // Prescribed headers were checked when they were given; all others are our own.
        if let (Ok(name), Ok(value)) = (header::HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().append(name, value);
        }
    }
    response
}
