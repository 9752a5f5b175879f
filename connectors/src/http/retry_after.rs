//! `Retry-After`: how long a vendor asks us to wait, as seconds or as a date (RFC 9110 §10.2.3).

use std::time::{Duration, SystemTime};

/// The longest wait that an answer can ask for. A vendor's mistake (or a clock that is far off) must not park an account for a
/// day; after five minutes one request finds out whether the wish still stands.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// Reads the header's value. `None` when it is neither whole seconds nor a date; a date that lies behind means *now*.
pub fn parse(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    let wait = if value.bytes().all(|byte| byte.is_ascii_digit()) && !value.is_empty() {
        // More digits than a u64 holds still mean "very long".
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default()
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_read_and_capped() {
        let now = httpdate::parse_http_date("Sun, 01 Mar 2026 08:00:00 GMT").unwrap();
        let cases = [
            ("1", Some(1)),
            (" 30 ", Some(30)),
            ("86400", Some(300)),
            ("99999999999999999999999", Some(300)),
            ("Sun, 01 Mar 2026 08:00:20 GMT", Some(20)),
            ("Sun, 01 Mar 2026 07:00:00 GMT", Some(0)),
            ("Sun, 01 Mar 2026 12:00:00 GMT", Some(300)),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ];
        for (value, seconds) in cases {
            assert_eq!(parse(value, now), seconds.map(Duration::from_secs), "{value:?}");
        }
    }
}
