//! An account at a vendor: its address, its credentials, its limits and its health, shared by all destinations that use it.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue};
use secrecy::{ExposeSecret as _, SecretString};
use tailwater_core::code;

use super::client::{Client, Exchange, Response, TransportError, check_base_url};
use super::endpoint::Request;
use super::health::Health;
use super::limit::Limiter;
use super::vendor::Vendor;
use crate::destination::Planned;
use crate::error::{Error, Problem};

/// The part of the documented limits that is used unless the configuration says otherwise: the vendor's windows and ours
/// never begin at the same moment, and other tools share the account.
pub const RATE_SHARE: f64 = 0.95;

/// What an account is set up from.
#[derive(Debug)]
pub struct Setup<'a> {
    pub base_url: &'a str,
    /// The part of the documented limits that is used, above 0 and up to 1; of a simulator on this machine, up to [`PART_MAX`](super::limit::PART_MAX).
    pub rate_share: f64,
    pub credential: Credential,
    /// Sent with every request: a revision, say.
    pub headers: &'a [(&'static str, &'static str)],
    /// What bodies are and what answers should be: `application/json`.
    pub media_type: &'static str,
    pub vendor: Box<dyn Vendor>,
}

/// The header that carries the credentials, and how people may see it.
#[derive(Debug, Clone)]
pub struct Credential {
    name: HeaderName,
    /// Marked as sensitive, so that no log shows it.
    value: HeaderValue,
    /// The value with its secret masked: `Bearer sk_…4f2a`.
    shown: String,
    /// The secret, masked.
    masked: String,
    /// Texts that must appear nowhere, each with what stands for it.
    secrets: Vec<(SecretString, String)>,
}

/// An account that can be spoken to.
#[derive(Debug)]
pub struct Account {
    client: Client,
    credential: Credential,
    headers: Vec<(HeaderName, HeaderValue)>,
    media_type: &'static str,
    vendor: Box<dyn Vendor>,
    pub limiter: Arc<Limiter>,
    pub health: Health,
}

// === impl Credential ===

impl Credential {
    /// A header with the secret behind a prefix: `("authorization", "Bearer ", …)`, `("api-key", "", …)`.
    ///
    /// # Errors
    /// The secret cannot stand in a header.
    pub fn header(name: &'static str, prefix: &str, secret: &SecretString) -> Result<Self, Error> {
        let masked = mask(secret.expose_secret());
        let secrets = vec![(secret.clone(), masked.clone())];
        Self::with(name, &format!("{prefix}{}", secret.expose_secret()), format!("{prefix}{masked}"), masked, secrets)
    }

    /// HTTP basic authentication. The user is shown, the password is not.
    ///
    /// # Errors
    /// They cannot stand in a header.
    pub fn basic(user: &str, password: &SecretString) -> Result<Self, Error> {
        let encoded = BASE64.encode(format!("{user}:{}", password.expose_secret()));
        let masked = mask(password.expose_secret());
        let secrets = vec![(SecretString::from(encoded.clone()), "…".to_owned()), (password.clone(), masked.clone())];
        Self::with("authorization", &format!("Basic {encoded}"), format!("Basic {user}:{masked}"), masked, secrets)
    }

    /// HTTP basic authentication with a key as the user and an empty password.
    ///
    /// # Errors
    /// The key cannot stand in a header.
    pub fn basic_key(key: &SecretString) -> Result<Self, Error> {
        let encoded = BASE64.encode(format!("{}:", key.expose_secret()));
        let masked = mask(key.expose_secret());
        let secrets = vec![(SecretString::from(encoded.clone()), "…".to_owned()), (key.clone(), masked.clone())];
        Self::with("authorization", &format!("Basic {encoded}"), format!("Basic {masked}:"), masked, secrets)
    }

    fn with(
        name: &'static str,
        value: &str,
        shown: String,
        masked: String,
        secrets: Vec<(SecretString, String)>,
    ) -> Result<Self, Error> {
        let invalid = || {
            let message = "the secret cannot stand in an HTTP header".to_owned();
            Error::Config(vec![Problem::new(code::CONFIG_INVALID_VALUE, name, message)])
        };
        let mut value = HeaderValue::from_str(value).map_err(|_| invalid())?;
        value.set_sensitive(true);
        Ok(Self { name: HeaderName::from_static(name), value, shown, masked, secrets })
    }
}

// === impl Account ===

impl Account {
    /// Sets the account up; speaks to nobody yet.
    ///
    /// # Errors
    /// The address is wrong, or the platform gives no HTTP client.
    pub fn new(setup: Setup<'_>) -> Result<Self, Error> {
        let base = check_base_url(setup.base_url)
            .map_err(|message| Error::Config(vec![Problem::new(code::CONFIG_INVALID_VALUE, "base_url", message)]))?;
        let headers = setup.headers.iter();
        Ok(Self {
            client: Client::new(&base)?,
            credential: setup.credential,
            headers: headers
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
                .collect(),
            media_type: setup.media_type,
            vendor: setup.vendor,
            limiter: Limiter::new(setup.rate_share),
            health: Health::default(),
        })
    }

    pub fn vendor(&self) -> &dyn Vendor {
        &*self.vendor
    }

    /// For people: `pk_…4f2a at a.klaviyo.com`.
    pub fn target(&self) -> String {
        format!("{} at {}", self.credential.masked, self.client.host())
    }

    /// The full address of a path, for people.
    pub fn url(&self, path: &str) -> String {
        self.client.url(path)
    }

    /// The headers of a request as they may be shown.
    pub fn shown_headers(&self, request: &Request) -> Vec<(String, String)> {
        let text = |value: &HeaderValue| {
            if value.is_sensitive() { "…".to_owned() } else { String::from_utf8_lossy(value.as_bytes()).into_owned() }
        };
        let mut headers = vec![(self.credential.name.as_str().to_owned(), self.credential.shown.clone())];
        headers.extend(
            self.sent_headers(request)
                .into_iter()
                .filter(|(name, _)| *name != self.credential.name)
                .map(|(name, value)| (name.as_str().to_owned(), self.redact(&text(&value)))),
        );
        headers
    }

    /// The request as it may be shown.
    pub fn plan(&self, request: &Request, deliveries: Vec<usize>) -> Planned {
        Planned {
            method: request.method.as_str(),
            url: self.url(&request.path),
            headers: self.shown_headers(request),
            body: self.redact(&request.body_text()),
            deliveries,
        }
    }

    /// A request's own headers take the place of the account's.
    fn sent_headers(&self, request: &Request) -> Vec<(HeaderName, HeaderValue)> {
        let media = HeaderValue::from_static(self.media_type);
        let mut headers = vec![(self.credential.name.clone(), self.credential.value.clone())];
        headers.extend(self.headers.iter().cloned());
        headers.push((ACCEPT, media.clone()));
        if request.body.is_some() {
            headers.push((CONTENT_TYPE, media));
        }
        headers.retain(|(name, _)| !request.headers.iter().any(|(own, _)| own == name));
        headers.extend(request.headers.iter().cloned());
        headers
    }

    /// Sends a request and reads the answer; limits are the caller's affair. A secret that the vendor repeats is taken out of the answer
    /// before anybody sees it.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn exchange(&self, request: &Request) -> Result<Response, TransportError> {
        let (path, body) = (request.path.clone(), request.body.clone());
        let exchange = Exchange { method: request.method, path, headers: self.sent_headers(request), body };
        let mut response = self.client.send(&exchange).await?;
        self.redact_response(&mut response);
        Ok(response)
    }

    fn redact_response(&self, response: &mut Response) {
        for value in response.headers.values_mut() {
            let told = self.credential.secrets.iter().any(|(secret, _)| holds(value.as_bytes(), secret));
            if told {
                *value = HeaderValue::from_static("(redacted)");
            }
        }
        for (secret, shown) in &self.credential.secrets {
            if holds(&response.body, secret) {
                response.body = replaced(&response.body, secret.expose_secret().as_bytes(), shown.as_bytes());
            }
        }
    }

    /// Takes the secrets out of a text of the vendor's, in case it repeats what it was sent.
    pub fn redact(&self, text: &str) -> String {
        let secrets = self.credential.secrets.iter();
        secrets.fold(text.to_owned(), |text, (secret, shown)| match secret.expose_secret() {
            "" => text,
            secret => text.replace(secret, shown),
        })
    }
}

fn holds(bytes: &[u8], secret: &SecretString) -> bool {
    let secret = secret.expose_secret().as_bytes();
    !secret.is_empty() && memchr::memmem::find(bytes, secret).is_some()
}

fn replaced(bytes: &[u8], secret: &[u8], shown: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = memchr::memmem::find(rest, secret) {
        let (before, after) = rest.split_at(at);
        out.extend_from_slice(before);
        out.extend_from_slice(shown);
        rest = after.get(secret.len()..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    Bytes::from(out)
}

/// A key's beginning and end, if enough stays hidden between them.
fn mask(key: &str) -> String {
    /// A shorter key would be half told by its end.
    const HIDDEN_FROM: usize = 16;
    /// `pk_`, `sk_`, `key_`: what kind of key it is.
    const PREFIX_MAX: usize = 4;
    let is_prefix = |prefix: &str| {
        prefix.len() <= PREFIX_MAX && prefix.trim_end_matches('_').bytes().all(|byte| byte.is_ascii_lowercase())
    };
    let prefix = key.find('_').and_then(|at| key.get(..=at)).filter(|prefix| is_prefix(prefix)).unwrap_or_default();
    let end = key.len().checked_sub(4).filter(|_| key.len() >= HIDDEN_FROM).and_then(|from| key.get(from..));
    format!("{prefix}…{}", end.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Endpoint, Plain, Rate};

    static ENDPOINT: Endpoint = Endpoint::new("POST /x", Rate { windows: &[] });

    fn account(credential: Credential) -> Account {
        Account::new(Setup {
            base_url: "https://a.example.com",
            rate_share: RATE_SHARE,
            credential,
            headers: &[("revision", "1")],
            media_type: "application/json",
            vendor: Box::new(Plain),
        })
        .unwrap()
    }

    #[test]
    fn the_target_shows_enough_to_recognize_the_key_and_no_more() {
        let key = SecretString::from("pk_0123456789abcdef4f2a");
        let account = account(Credential::header("authorization", "Bearer ", &key).unwrap());
        assert_eq!(account.target(), "pk_…4f2a at a.example.com");
        assert_eq!(mask("pk_short"), "pk_…");
        assert_eq!(mask("0123456789abcdef"), "…cdef");
        assert_eq!(mask("secret_word"), "…");
        assert_eq!(mask(""), "…");
        let request = Request::post(&ENDPOINT, "/x", "{}");
        let shown = account.shown_headers(&request);
        assert_eq!(shown[0], ("authorization".to_owned(), "Bearer pk_…4f2a".to_owned()));
        assert!(shown.contains(&("revision".to_owned(), "1".to_owned())));
        assert!(!format!("{account:?}{shown:?}").contains("0123456789"));
    }

    #[test]
    fn what_the_vendor_repeats_of_the_credentials_is_taken_out() {
        let password = SecretString::from("0123456789abcdef4f2a");
        let account = account(Credential::basic("site", &password).unwrap());
        let encoded = BASE64.encode("site:0123456789abcdef4f2a");
        let body = format!("bad `Basic {encoded}`, password 0123456789abcdef4f2a or 0123456789abcdef4f2a");
        let mut response =
            Response { status: 401, headers: reqwest::header::HeaderMap::new(), body: body.clone().into() };
        response.headers.insert("x-sent", HeaderValue::from_str(&encoded).unwrap());
        account.redact_response(&mut response);
        let expected = "bad `Basic …`, password …4f2a or …4f2a";
        assert_eq!(response.body, expected.as_bytes());
        assert_eq!(account.redact(&body), expected);
        assert_eq!(response.header("x-sent"), Some("(redacted)"));
    }

    #[test]
    fn a_requests_own_headers_take_the_place_of_the_accounts() {
        let account = account(Credential::header("api-key", "", &SecretString::from("k")).unwrap());
        let mut request = Request::post(&ENDPOINT, "/x", "a=1");
        request.headers.push((CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded")));
        let sent = account.sent_headers(&request);
        assert_eq!(sent.iter().filter(|(name, _)| *name == CONTENT_TYPE).count(), 1);
    }
}
