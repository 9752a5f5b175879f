//! Checks that accounts at vendors share. None of them quotes a secret.

use tailwater_core::code;
use url::Url;

use super::Secret;
use crate::error::Problem;
use crate::http::client::{is_near, is_this_machine};
use crate::http::limit::PART_MAX;

/// The address of a vendor's API: `https`, or `http` for a simulator on this machine or in the same private network. `example` is the
/// vendor's own address.
pub fn check_base_url(key: &str, text: &str, example: &str) -> Vec<Problem> {
    let invalid = |message: String| vec![Problem::new(code::CONFIG_INVALID_VALUE, key, message)];
    let expected = || invalid(format!("expected an URL such as {example}"));
    let Ok(url) = Url::parse(text) else { return expected() };
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return expected();
    }
    if !url.username().is_empty() || url.password().is_some() {
        return vec![secret_inline(key)];
    }
    if url.query().is_some() || url.fragment().is_some() {
        return invalid(format!("it has a query or a fragment; expected scheme, host and path, such as {example}"));
    }
    if url.scheme() == "https" || is_this_machine(text) {
        return Vec::new();
    }
    if is_near(&url) {
        let message = "the credentials travel unencrypted to another machine";
        let problem = Problem::warning(code::CONFIG_INVALID_VALUE, key, message);
        return vec![problem.hint("use https://, unless this is a simulator")];
    }
    let problem = Problem::new(code::CONFIG_INVALID_VALUE, key, "http would send the credentials unencrypted");
    vec![problem.hint("use https://; http is for a simulator on this machine")]
}

/// The part of the vendor's documented limits that is used; more than all of it only where the account's address, if it has one, is
/// this machine's.
pub fn check_rate_share(key: &str, share: f64, base_url: &str) -> Option<Problem> {
    // Of a simulator more can be asked than any of them answers.
    let most = if is_this_machine(base_url) { PART_MAX } else { 1.0 };
    if share > 0.0 && share <= most {
        return None;
    }
    let message = if share > 1.0 {
        format!("{share} is more than the vendor's documented limits")
    } else {
        format!("{share} is no part of a limit")
    };
    let problem = Problem::new(code::CONFIG_INVALID_VALUE, key, message);
    Some(problem.hint("keep it between 0.01 and 1; more is for a simulator, with a loopback address as `base_url`"))
}

/// A credential that goes into a header: something, and nothing that a header cannot carry. `expected` says what it looks like.
pub fn check_credential(key: &str, secret: &Secret, expected: &str) -> Option<Problem> {
    let message = if secret.is_empty() {
        "it must not be empty".to_owned()
    } else if !secret.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
        format!("it holds a blank, a line break or a character that is not ASCII; expected {expected} and nothing else")
    } else {
        return None;
    };
    Some(Problem::new(code::CONFIG_INVALID_VALUE, key, message))
}

/// A secret that is written out where a reference is wanted.
pub fn secret_inline(key: &str) -> Problem {
    Problem::new(code::CONFIG_SECRET_INLINE, key, "a secret must not stand in the file")
        .hint("refer to it: \"${env:NAME}\" or \"${file:/run/secrets/name}\", without a default; and change the secret if the file was shared")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Severity;

    const EXAMPLE: &str = "https://api.vendor.example";

    fn first(text: &str) -> Option<(Severity, String)> {
        check_base_url("base_url", text, EXAMPLE).first().map(|problem| (problem.severity, problem.message.clone()))
    }

    #[test]
    fn credentials_travel_unencrypted_to_this_machine_only() {
        for good in ["https://api.vendor.example", "http://127.0.0.1:8080", "http://localhost:9/sub", "http://[::1]:1"]
        {
            assert_eq!(first(good), None, "{good}");
        }
        assert_eq!(first("http://simulator:8080").map(|(severity, _)| severity), Some(Severity::Warning));
        for bad in [
            "http://api.vendor.example",
            "ftp://x",
            "api.vendor.example",
            "https://user:pw@api.vendor.example",
            "https://a/?q=1",
            "",
        ] {
            let (severity, message) = first(bad).unwrap();
            assert_eq!(severity, Severity::Error, "{bad}");
            assert!(!message.contains("pw@"), "{message}");
        }
    }

    #[test]
    fn more_than_the_documented_limits_is_for_this_machine_only() {
        for near in ["http://127.0.0.1:8080", "http://localhost:9", "http://[::1]:1"] {
            assert_eq!(check_rate_share("rate_share", 10_000.0, near), None, "{near}");
            assert!(check_rate_share("rate_share", 10_001.0, near).is_some());
        }
        for far in [EXAMPLE, "http://simulator:8080"] {
            assert_eq!(check_rate_share("rate_share", 1.0, far), None);
            let problem = check_rate_share("rate_share", 1.1, far).unwrap();
            assert!(problem.hint.unwrap().contains("loopback"), "{far}");
        }
        for none in [0.0, -1.0, f64::NAN] {
            assert!(check_rate_share("rate_share", none, EXAMPLE).is_some(), "{none}");
        }
    }

    #[test]
    fn a_credential_fits_into_a_header_and_is_not_quoted() {
        assert_eq!(check_credential("api_key", &Secret::from("pk_1"), "a key"), None);
        for wrong in ["", "pk secret", "pk\nsecret", "schlüssel"] {
            let problem = check_credential("api_key", &Secret::from(wrong), "a key").unwrap();
            assert!(!problem.message.contains("secret") && !problem.message.contains("schl"), "{problem:?}");
        }
    }
}
