//! How a vendor answers: running, throttled or failing, for `/status`, one log line a change, and a metric.
//!
//! One delivery that fails is that delivery's matter. The vendor counts as unavailable when it refuses for the whole account, or when
//! nothing has got through for a while; it counts as running again with the first delivery that does get through.

use std::time::Duration;

use serde_json::json;
use tailwater_core::delivery::{Reason, Scope};
use tailwater_core::{Timestamp, code};
use tracing::{info, warn};

use super::Telemetry;

/// How long single deliveries may fail without a success between them before the vendor counts as failing.
const FAILING_AFTER: Duration = Duration::from_secs(10);

/// How often the next attempt is written to the status while nothing else changes.
const SHOWN_EVERY: Duration = Duration::from_secs(1);

/// What is known about the vendor of one destination.
#[derive(Debug)]
pub struct Vendor {
    telemetry: Telemetry,
    destination: String,
    trouble: Option<Trouble>,
}

#[derive(Debug)]
struct Trouble {
    since: Timestamp,
    state: State,
    shown: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Single deliveries fail; it is not yet clear whether that is the vendor.
    Suspected,
    Throttled,
    Failing,
}

impl State {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Suspected => "running",
            Self::Throttled => "throttled",
            Self::Failing => "failing",
        }
    }
}

impl Vendor {
    pub fn new(telemetry: &Telemetry, destination: &str) -> Self {
        telemetry.metrics().vendor_unavailable.with_label_values(&[destination]).set(0);
        Self { telemetry: telemetry.clone(), destination: destination.to_owned(), trouble: None }
    }

    /// The vendor has taken a delivery, or has answered about one in a way that ends it.
    pub fn answered(&mut self, now: Timestamp) {
        let Some(trouble) = self.trouble.take() else { return };
        if trouble.state == State::Suspected {
            return;
        }
        info!(
            destination = %self.destination,
            seconds = now.since(trouble.since).as_secs(),
            "the vendor takes deliveries again"
        );
        self.telemetry.metrics().vendor_unavailable.with_label_values(&[&self.destination]).set(0);
        self.telemetry.status(&self.entry(), json!({"state": "running", "since": now.to_string()}));
    }

    /// The vendor did not take a delivery; it is tried again at `next`.
    pub fn refused(&mut self, reason: &Reason, scope: Scope, now: Timestamp, next: Timestamp) {
        let account = match scope {
            Scope::Account => true,
            // A failure that no unrelated request has met is news only when it stays.
            Scope::Endpoint => reason.code == code::RATE_LIMITED,
            Scope::Delivery => false,
            // That is a pause, which tells itself.
            Scope::Credentials => return,
        };
        let trouble =
            self.trouble.get_or_insert(Trouble { since: now, state: State::Suspected, shown: Timestamp::default() });
        if !account && trouble.state == State::Suspected && now.since(trouble.since) < FAILING_AFTER {
            return;
        }
        let state = if reason.code == code::RATE_LIMITED { State::Throttled } else { State::Failing };
        let changed = trouble.state != state;
        if !changed && now.since(trouble.shown) < SHOWN_EVERY {
            return;
        }
        trouble.state = state;
        trouble.shown = now;
        let since = trouble.since;
        if changed {
            warn!(
                destination = %self.destination,
                code = %reason.code,
                state = state.as_str(),
                wait_ms = u64::try_from(next.since(now).as_millis()).unwrap_or(u64::MAX),
                "the vendor takes no deliveries now; they are kept and tried again: {}",
                reason.message
            );
        }
        self.telemetry.metrics().vendor_unavailable.with_label_values(&[&self.destination]).set(1);
        self.telemetry.status(
            &self.entry(),
            json!({
                "state": state.as_str(),
                "since": since.to_string(),
                "code": reason.code.as_str(),
                "message": reason.message,
                "next_attempt": next.to_string(),
            }),
        );
    }

    fn entry(&self) -> String {
        format!("destination.{}.vendor", self.destination)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + seconds * 1_000)
    }

    fn reason(code: tailwater_core::Code) -> Reason {
        Reason::new(code, "503 Service Unavailable")
    }

    fn shown(telemetry: &Telemetry) -> serde_json::Value {
        telemetry.status_page()["destination"]["klaviyo.vendor"].clone()
    }

    // Issue 10, D: a vendor that is down or throttled was not in `/status`.
    #[test]
    fn a_vendor_that_is_down_shows_since_when_why_and_when_it_is_tried_again() {
        let telemetry = Telemetry::new().unwrap();
        let mut vendor = Vendor::new(&telemetry, "klaviyo");
        vendor.refused(&reason(code::VENDOR_UNAVAILABLE), Scope::Account, at(0), at(5));
        vendor.refused(&reason(code::VENDOR_UNAVAILABLE), Scope::Account, at(5), at(15));
        let entry = shown(&telemetry);
        assert_eq!(entry["state"], "failing");
        assert_eq!(entry["since"], at(0).to_string());
        assert_eq!(entry["code"], "vendor_unavailable");
        assert_eq!(entry["next_attempt"], at(15).to_string());
        let metrics = telemetry.metrics().render().unwrap();
        assert!(metrics.contains(r#"tailwater_vendor_unavailable{destination="klaviyo"} 1"#));
        vendor.refused(&reason(code::RATE_LIMITED), Scope::Account, at(20), at(21));
        assert_eq!(shown(&telemetry)["state"], "throttled");
        vendor.answered(at(30));
        assert_eq!(shown(&telemetry)["state"], "running");
        let metrics = telemetry.metrics().render().unwrap();
        assert!(metrics.contains(r#"tailwater_vendor_unavailable{destination="klaviyo"} 0"#));
    }

    #[test]
    fn one_delivery_that_fails_is_not_the_vendor_until_nothing_else_gets_through() {
        let telemetry = Telemetry::new().unwrap();
        let mut vendor = Vendor::new(&telemetry, "klaviyo");
        let failed = reason(code::VENDOR_UNAVAILABLE);
        vendor.refused(&failed, Scope::Delivery, at(0), at(1));
        vendor.answered(at(2));
        vendor.refused(&failed, Scope::Delivery, at(11), at(12));
        assert!(shown(&telemetry).is_null());
        vendor.refused(&failed, Scope::Delivery, at(22), at(23));
        assert_eq!(shown(&telemetry)["state"], "failing");
        assert_eq!(shown(&telemetry)["since"], at(11).to_string());
    }
}
