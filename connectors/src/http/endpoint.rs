//! What a vendor documents of an endpoint, and a request to one.

use bytes::Bytes;
use reqwest::header::{HeaderName, HeaderValue};

use super::client::Method;
use super::limit::Rate;

/// Static data of one endpoint. Two endpoints are told apart by their labels.
#[derive(Debug, Clone, Copy)]
pub struct Endpoint {
    /// Method and path, for people: `POST /api/users/update`.
    pub label: &'static str,
    /// What the vendor counts requests by. Endpoints with the same key share one limit; the documented rate must be the same.
    pub limit_key: &'static str,
    pub rate: Rate,
    /// The permissions that the credentials need, as the vendor names them; empty where it names none.
    pub scopes: &'static [&'static str],
    /// Whether the path names something that may not exist, so that a 404 speaks of that and not of the address.
    pub names_resource: bool,
}

/// A request before its credentials.
#[derive(Debug, Clone)]
pub struct Request {
    pub endpoint: &'static Endpoint,
    pub method: Method,
    /// Path and query, encoded.
    pub path: String,
    /// Besides those that the account sends with every request.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Option<Bytes>,
}

// === impl Endpoint ===

impl Endpoint {
    /// An endpoint that the vendor counts by itself.
    pub const fn new(label: &'static str, rate: Rate) -> Self {
        Self { label, limit_key: label, rate, scopes: &[], names_resource: false }
    }

    /// Counted together with others under this key.
    #[must_use]
    pub const fn limited_by(mut self, limit_key: &'static str) -> Self {
        self.limit_key = limit_key;
        self
    }

    #[must_use]
    pub const fn scopes(mut self, scopes: &'static [&'static str]) -> Self {
        self.scopes = scopes;
        self
    }

    #[must_use]
    pub const fn names_resource(mut self) -> Self {
        self.names_resource = true;
        self
    }
}

impl PartialEq for Endpoint {
    fn eq(&self, other: &Self) -> bool {
        self.label == other.label
    }
}

impl Eq for Endpoint {}

// === impl Request ===

impl Request {
    pub fn new(endpoint: &'static Endpoint, method: Method, path: impl Into<String>) -> Self {
        Self { endpoint, method, path: path.into(), headers: Vec::new(), body: None }
    }

    pub fn get(endpoint: &'static Endpoint, path: impl Into<String>) -> Self {
        Self::new(endpoint, Method::Get, path)
    }

    /// A POST of a text that is already in the account's format.
    pub fn post(endpoint: &'static Endpoint, path: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self::new(endpoint, Method::Post, path).with_body(body)
    }

    #[must_use]
    pub fn with_body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// The path without its query, which may hold people's addresses.
    pub fn path_only(&self) -> &str {
        self.path.split('?').next().unwrap_or_default()
    }

    /// The body as it may be shown: bytes that are no text are replaced.
    pub fn body_text(&self) -> String {
        self.body.as_ref().map_or_else(String::new, |body| String::from_utf8_lossy(body).into_owned())
    }
}

/// Percent-encodes a path segment or a query value: everything but the unreserved characters of RFC 3986.
pub fn encoded(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            let _infallible = write!(out, "%{byte:02X}");
        }
    }
    out
}
