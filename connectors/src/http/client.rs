//! The HTTP client: bounded in time and size, without redirects, and careful about what its errors say.

use std::sync::OnceLock;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect;
use url::Url;

use crate::error::Error;

/// Name and version that a vendor's support can search for.
const USER_AGENT: &str = concat!("tailwater/", env!("CARGO_PKG_VERSION"));

/// How long a client waits.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    pub connect: Duration,
    /// For the next bytes of an answer.
    pub read: Duration,
    /// For the whole exchange.
    pub request: Duration,
}

const TIMEOUTS: Timeouts = Timeouts {
    // Long enough for a TLS handshake across an ocean, short enough that a dead address is noticed within a batch's patience.
    connect: Duration::from_secs(5),
    // A server that sends nothing for this long has lost us.
    read: Duration::from_secs(30),
    // A 5 MB bulk body on a slow line, and the vendor's check of it.
    request: Duration::from_secs(60),
};

/// Those that tests have set.
static TIMEOUTS_OF_TESTS: OnceLock<Timeouts> = OnceLock::new();

/// For tests of servers that hang: how long clients wait that are made from now on. The first call counts.
#[doc(hidden)]
pub fn set_timeouts(timeouts: Timeouts) {
    TIMEOUTS_OF_TESTS.get_or_init(|| timeouts);
}

/// Connections are given up before servers do (commonly after 60 s): a request on a connection that the server is just
/// closing ends as "connection closed before message completed", which cannot be told from a request that was carried out.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// The largest answer that is read. A page of 100 bulk errors repeats payloads of up to 100 KB each.
pub const RESPONSE_BYTES_MAX: usize = 16 * 1024 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

/// What is sent to the client's host.
#[derive(Debug, Clone)]
pub struct Exchange {
    pub method: Method,
    /// Path and query, beginning with a slash, already encoded.
    pub path: String,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Option<Bytes>,
}

/// An answer, of whatever status.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// No answer, or none that could be read. The text names host and path but no query, since a query may hold people's addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// The vendor cannot have seen the request.
    #[error("could not connect to {target}: {cause}; nothing was sent")]
    NotSent { target: String, cause: String },
    /// The vendor may have carried the request out.
    #[error("got no answer from {target}: {cause}; the request may have been carried out")]
    Ambiguous { target: String, cause: String },
    /// The answer is longer than [`RESPONSE_BYTES_MAX`].
    #[error("the answer of {target} exceeds {RESPONSE_BYTES_MAX} bytes")]
    TooLarge { target: String },
}

/// A client for one host.
#[derive(Debug, Clone)]
pub struct Client {
    inner: reqwest::Client,
    base: String,
    host: String,
}

// === impl Method ===

impl Method {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

// === impl Response ===

impl Response {
    /// A header's value, if it is there and is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

// === impl Client ===

impl Client {
    /// A client for `base`, which has passed [`check_base_url`]. Its path, if any, goes before each request's.
    ///
    /// # Errors
    /// The platform's TLS or resolver cannot be set up.
    pub fn new(base: &Url) -> Result<Self, Error> {
        let timeouts = TIMEOUTS_OF_TESTS.get().copied().unwrap_or(TIMEOUTS);
        let mut builder = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            // A redirect would carry the credentials to wherever it points.
            .redirect(redirect::Policy::none())
            .referer(false)
            .connect_timeout(timeouts.connect)
            .read_timeout(timeouts.read)
            .timeout(timeouts.request)
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .tcp_keepalive(Duration::from_secs(20));
        if is_near(base) {
            // A proxy of the environment leads away from a simulator on this machine.
            builder = builder.no_proxy();
        }
        let inner = builder.build().map_err(|error| Error::Client(chain(&error)))?;
        let host = match (base.host_str(), base.port()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (Some(host), None) => host.to_owned(),
            (None, _) => return Err(Error::Client(format!("`{base}` names no host"))),
        };
        Ok(Self { inner, base: base.as_str().trim_end_matches('/').to_owned(), host })
    }

    /// Host and port, for people.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The full address of a path, for people.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// Sends a request and reads the whole answer. Never repeats, never follows a redirect.
    ///
    /// # Errors
    /// There is no answer, and whether the vendor may have seen the request.
    pub async fn send(&self, request: &Exchange) -> Result<Response, TransportError> {
        let method = match request.method {
            Method::Get => reqwest::Method::GET,
            Method::Post => reqwest::Method::POST,
            Method::Put => reqwest::Method::PUT,
            Method::Patch => reqwest::Method::PATCH,
            Method::Delete => reqwest::Method::DELETE,
        };
        let mut builder = self.inner.request(method, self.url(&request.path));
        for (name, value) in &request.headers {
            builder = builder.header(name, value);
        }
        if let Some(body) = &request.body {
            builder = builder.body(body.clone());
        }
        let mut response = builder.send().await.map_err(|error| self.transport(request, error))?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.transport(request, error))? {
            if body.len() + chunk.len() > RESPONSE_BYTES_MAX {
                return Err(TransportError::TooLarge { target: self.target(request) });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Response { status, headers, body: body.freeze() })
    }

    fn target(&self, request: &Exchange) -> String {
        let path = request.path.split('?').next().unwrap_or_default();
        format!("{} {}{path}", request.method.as_str(), self.host)
    }

    fn transport(&self, request: &Exchange, error: reqwest::Error) -> TransportError {
        let target = self.target(request);
        let not_sent = error.is_connect() || error.is_builder();
        let cause = chain(&error.without_url());
        if not_sent { TransportError::NotSent { target, cause } } else { TransportError::Ambiguous { target, cause } }
    }
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// Whether the host is this machine, or a neighbour in the same private network (a name without a dot: a service of a compose
/// file or a cluster). Only those may be spoken to without TLS.
pub(crate) fn is_near(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => !name.contains('.') || name.ends_with(".localhost"),
        None => false,
    }
}

/// Whether an address is this machine's own.
pub fn is_this_machine(base_url: &str) -> bool {
    match Url::parse(base_url).ok().as_ref().and_then(Url::host) {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// Reads a base address: `https`, or `http` where the host is this machine or a neighbour; no user, query or fragment.
///
/// # Errors
/// What is wrong with it, as a sentence.
pub fn check_base_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text)
        .map_err(|error| format!("`{text}` is no address ({error}); expected something like `https://host`"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("the address holds a user or a password; credentials have their own field".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("`{text}` has a query or a fragment; expected only scheme, host and path"));
    }
    match url.scheme() {
        "https" if url.host().is_some() => Ok(url),
        "http" if is_near(&url) => Ok(url),
        "http" => {
            Err(format!("`{text}` would send the credentials unencrypted; use https (http is for this machine only)"))
        }
        scheme => Err(format!("`{text}` has the scheme `{scheme}`; expected https")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_travel_unencrypted_to_this_machine_only() {
        for good in [
            "https://a.klaviyo.com",
            "http://127.0.0.1:8080",
            "http://localhost:9/sub",
            "http://simulator:8080",
            "http://[::1]:1",
        ] {
            assert!(check_base_url(good).is_ok(), "{good}");
        }
        for bad in
            ["http://a.klaviyo.com", "ftp://x", "a.klaviyo.com", "https://user:pw@a.klaviyo.com", "https://a/?q=1", ""]
        {
            let message = check_base_url(bad).unwrap_err();
            assert!(!message.contains("pw@"), "{message}");
        }
    }

    #[tokio::test]
    async fn a_refused_connection_was_not_sent_and_names_no_query() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let client = Client::new(&Url::parse(&format!("http://{address}")).unwrap()).unwrap();
        let request = Exchange {
            method: Method::Get,
            path: "/api/x?filter=ada@example.com".into(),
            headers: Vec::new(),
            body: None,
        };
        let error = client.send(&request).await.unwrap_err();
        assert!(matches!(error, TransportError::NotSent { .. }), "{error}");
        assert!(!error.to_string().contains("ada@example.com"), "{error}");
    }
}
