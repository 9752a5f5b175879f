//! How Iterable words its answers, and where a status means something else than elsewhere.

use super::answers::Plain;
use super::endpoint;
use crate::http::{Endpoint, Meaning, Response, Vendor};

#[derive(Debug)]
pub(super) struct Words;

impl Vendor for Words {
    fn valid_credentials(&self) -> &'static str {
        "a valid server-side key of the project, from the project's data center (US or EU)"
    }

    fn meaning(&self, response: &Response, endpoint: &Endpoint) -> Meaning {
        if response.is_success() {
            return Meaning::Request;
        }
        let plain = Plain::read(&response.body);
        match plain.code.as_str() {
            "BadApiKey" | "BadAuthorizationHeader" | "InvalidJwtPayload" | "Unauthorized" => Meaning::Unauthorized,
            "RateLimitExceeded" => Meaning::Throttled,
            // The key may use the endpoint, but not this parameter.
            "ForbiddenParamsError" => Meaning::Request,
            // The vendor has to enable the endpoint for the project, and no other key changes that.
            _ if *endpoint == endpoint::SUBSCRIPTION && matches!(response.status, 403..=405) => Meaning::Request,
            // With a code of the vendor's own, the request was understood, and what it names is not there.
            code if response.status == 404 && !code.is_empty() => Meaning::Request,
            _ => Meaning::of_status(response.status, endpoint),
        }
    }

    fn words(&self, response: &Response) -> String {
        Plain::read(&response.body).describe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_of_the_vendors_own_tells_what_a_status_leaves_open() {
        let cases = [
            (400, r#"{"code":"BadApiKey","msg":"Invalid API key"}"#, Meaning::Unauthorized),
            (400, r#"{"code":"BadParams","msg":"no"}"#, Meaning::Request),
            (401, "", Meaning::Unauthorized),
            (403, r#"{"code":"Forbidden"}"#, Meaning::Forbidden),
            (403, r#"{"code":"ForbiddenParamsError"}"#, Meaning::Request),
            (404, r#"{"code":"NotFound","msg":"no such list"}"#, Meaning::Request),
            (404, "<html>", Meaning::WrongPlace),
            (429, r#"{"code":"RateLimitExceeded"}"#, Meaning::Throttled),
            (503, "<html>", Meaning::Unavailable),
            (302, "", Meaning::WrongPlace),
        ];
        for (status, body, expected) in cases {
            let response = Response { status, headers: reqwest::header::HeaderMap::new(), body: body.into() };
            assert_eq!(Words.meaning(&response, &endpoint::USER_UPDATE), expected, "{status} {body}");
        }
    }
}
