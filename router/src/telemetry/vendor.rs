//! How a vendor answers: running, throttled or failing, for `/status`, one log line a change, and a metric.
//!
//! One delivery that fails is that delivery's matter. The vendor counts as unavailable when it refuses for the whole account, or when
//! nothing has got through for a while; it counts as running again with the first delivery that does get through. A delivery that was
//! refused before others got through, and is refused again, has a fault of its own: it is shown, and the vendor is running.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use tailwater_core::delivery::{Reason, Scope};
use tailwater_core::{DeliveryKey, Timestamp, code};
use tracing::{info, warn};

use super::Telemetry;

/// How long single deliveries may fail without a success between them before the vendor counts as failing.
const FAILING_AFTER: Duration = Duration::from_secs(10);

/// How often the next attempt is written to the status while nothing else changes.
const SHOWN_EVERY: Duration = Duration::from_secs(1);

/// Deliveries that are remembered to have been refused. More would not tell more.
const REFUSED_MAX: usize = 1_000;

/// What is known about the vendor of one destination.
#[derive(Debug)]
pub struct Vendor {
    telemetry: Telemetry,
    destination: String,
    trouble: Option<Trouble>,
    /// Since when each delivery is refused that has not got through.
    refused: BTreeMap<DeliveryKey, Timestamp>,
    answered: Option<Timestamp>,
    /// A delivery with a fault of its own is shown, and since when.
    shown_own: Option<Timestamp>,
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
        Self {
            telemetry: telemetry.clone(),
            destination: destination.to_owned(),
            trouble: None,
            refused: BTreeMap::new(),
            answered: None,
            shown_own: None,
        }
    }

    /// The vendor has taken a delivery, or has answered about one in a way that ends it.
    pub fn answered(&mut self, delivery: DeliveryKey, now: Timestamp) {
        self.answered = Some(now);
        if self.refused.remove(&delivery).is_some() && self.refused.is_empty() && self.shown_own.take().is_some() {
            self.telemetry.status(&self.entry(), json!({"state": "running", "since": now.to_string()}));
        }
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
    pub fn refused(&mut self, delivery: DeliveryKey, reason: &Reason, scope: Scope, now: Timestamp, next: Timestamp) {
        if self.refused.len() >= REFUSED_MAX && !self.refused.contains_key(&delivery) {
            self.refused.pop_first();
        }
        let first = *self.refused.entry(delivery).or_insert(now);
        if scope == Scope::Delivery && self.trouble.is_none() && self.answered.is_some_and(|answered| answered > first)
        {
            self.own_fault(reason, first, now, next);
            return;
        }
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

    /// Others got through while this delivery was refused.
    fn own_fault(&mut self, reason: &Reason, since: Timestamp, now: Timestamp, next: Timestamp) {
        if self.shown_own.is_some_and(|shown| now.since(shown) < SHOWN_EVERY) {
            return;
        }
        self.shown_own = Some(now);
        let note = json!({
            "state": "running",
            "since": since.to_string(),
            "code": reason.code.as_str(),
            "message": format!(
                "{} refused again and again while others get through: {}", deliveries(self.refused.len()), reason.message
            ),
            "next_attempt": next.to_string(),
        });
        self.telemetry.status(&self.entry(), note);
    }

    /// A delivery is not tried again.
    pub fn gave_up(&mut self, delivery: DeliveryKey) {
        self.refused.remove(&delivery);
    }

    fn entry(&self) -> String {
        format!("destination.{}.vendor", self.destination)
    }
}

fn deliveries(count: usize) -> String {
    if count == 1 { "1 delivery is".to_owned() } else { format!("{count} deliveries are") }
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

    fn key(number: u8) -> DeliveryKey {
        DeliveryKey::from_bytes([number; 16])
    }

    fn shown(telemetry: &Telemetry) -> serde_json::Value {
        telemetry.status_page()["destination"]["klaviyo.vendor"].clone()
    }

    // Issue 10, D: a vendor that is down or throttled was not in `/status`.
    #[test]
    fn a_vendor_that_is_down_shows_since_when_why_and_when_it_is_tried_again() {
        let telemetry = Telemetry::new().unwrap();
        let mut vendor = Vendor::new(&telemetry, "klaviyo");
        vendor.refused(key(1), &reason(code::VENDOR_UNAVAILABLE), Scope::Account, at(0), at(5));
        vendor.refused(key(1), &reason(code::VENDOR_UNAVAILABLE), Scope::Account, at(5), at(15));
        let entry = shown(&telemetry);
        assert_eq!(entry["state"], "failing");
        assert_eq!(entry["since"], at(0).to_string());
        assert_eq!(entry["code"], "vendor_unavailable");
        assert_eq!(entry["next_attempt"], at(15).to_string());
        let metrics = telemetry.metrics().render().unwrap();
        assert!(metrics.contains(r#"tailwater_vendor_unavailable{destination="klaviyo"} 1"#));
        vendor.refused(key(1), &reason(code::RATE_LIMITED), Scope::Account, at(20), at(21));
        assert_eq!(shown(&telemetry)["state"], "throttled");
        vendor.answered(key(2), at(30));
        assert_eq!(shown(&telemetry)["state"], "running");
        let metrics = telemetry.metrics().render().unwrap();
        assert!(metrics.contains(r#"tailwater_vendor_unavailable{destination="klaviyo"} 0"#));
    }

    #[test]
    fn one_delivery_that_fails_is_not_the_vendor_until_nothing_else_gets_through() {
        let telemetry = Telemetry::new().unwrap();
        let mut vendor = Vendor::new(&telemetry, "klaviyo");
        let failed = reason(code::VENDOR_UNAVAILABLE);
        vendor.refused(key(1), &failed, Scope::Delivery, at(0), at(1));
        vendor.answered(key(2), at(2));
        vendor.refused(key(3), &failed, Scope::Delivery, at(11), at(12));
        assert!(shown(&telemetry).is_null());
        vendor.refused(key(3), &failed, Scope::Delivery, at(22), at(23));
        assert_eq!(shown(&telemetry)["state"], "failing");
        assert_eq!(shown(&telemetry)["since"], at(11).to_string());
    }

    // Issue 10, D: "klaviyo is failing" was shown while one poison row alone failed.
    #[test]
    fn a_delivery_that_fails_while_others_get_through_is_shown_as_such() {
        let telemetry = Telemetry::new().unwrap();
        let mut vendor = Vendor::new(&telemetry, "klaviyo");
        let failed = reason(code::VENDOR_UNAVAILABLE);
        vendor.refused(key(1), &failed, Scope::Delivery, at(0), at(1));
        vendor.answered(key(2), at(2));
        for second in [5, 30, 60] {
            vendor.refused(key(1), &failed, Scope::Delivery, at(second), at(second + 5));
        }
        let entry = shown(&telemetry);
        assert_eq!((entry["state"].as_str(), entry["code"].as_str()), (Some("running"), Some("vendor_unavailable")));
        assert!(entry["message"].as_str().unwrap().starts_with("1 delivery is refused"), "{entry}");
        assert_eq!(entry["next_attempt"], at(65).to_string());
        // Now the vendor is down for others as well.
        vendor.refused(key(3), &failed, Scope::Delivery, at(61), at(62));
        vendor.refused(key(3), &failed, Scope::Delivery, at(75), at(76));
        assert_eq!(shown(&telemetry)["state"], "failing");
    }
}
