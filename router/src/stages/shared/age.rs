//! How old the oldest open record of a stage is, held against the retention of its topic: Kafka removes records silently, and a stage
//! that is paused or slow for long enough would lose them. Half of the retention is the time to say so.

use std::time::{Duration, Instant};

use prometheus::Gauge;
use tailwater_core::Timestamp;
use tracing::warn;

/// How often the warning is repeated while it holds.
const WARN_INTERVAL: Duration = Duration::from_secs(600);

/// Watches the age of one stage's oldest open record.
pub struct Age {
    stage: &'static str,
    component: String,
    retention: Duration,
    gauge: Gauge,
    warned: Option<Instant>,
}

impl Age {
    pub fn new(stage: &'static str, component: &str, retention: Duration, gauge: Gauge) -> Self {
        Self { stage, component: component.to_owned(), retention, gauge, warned: None }
    }

    /// Takes note of the oldest open record; `None` when nothing is open.
    pub fn observe(&mut self, oldest: Option<Timestamp>, now: Timestamp) {
        let age = oldest.map(|oldest| now.since(oldest)).unwrap_or_default();
        self.gauge.set(age.as_secs_f64());
        if age < self.retention / 2 {
            self.warned = None;
        } else if self.warned.is_none_or(|warned| warned.elapsed() >= WARN_INTERVAL) {
            self.warned = Some(Instant::now());
            warn!(
                stage = self.stage,
                component = self.component,
                age_hours = age.as_secs() / 3600,
                retention_hours = self.retention.as_secs() / 3600,
                "the oldest open record is past half of its topic's retention; when that is over, Kafka removes it: cure what \
                 holds it up, or raise `retention.ms` of the topic"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_is_shown_and_warned_of_from_half_of_the_retention_on() {
        let gauge = Gauge::new("age", "age").unwrap();
        let mut age = Age::new("send", "klaviyo", Duration::from_secs(100), gauge.clone());
        age.observe(Some(Timestamp::from_millis(0)), Timestamp::from_millis(49_000));
        assert!((gauge.get() - 49.0).abs() < 0.001);
        assert!(age.warned.is_none());
        age.observe(Some(Timestamp::from_millis(0)), Timestamp::from_millis(51_000));
        assert!(age.warned.is_some());
        age.observe(None, Timestamp::from_millis(60_000));
        assert!(gauge.get().abs() < 0.001 && age.warned.is_none());
    }
}
