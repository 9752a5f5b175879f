//! The rows that go through: about 1 KB each, like those of a lifetime-value model's table, and what a transform makes of them.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::config::{ClientConfig, FromClientConfig as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

/// The list that some people join, as in the winback example.
pub const LIST: &str = "WINBCK";

/// The transform of the winback example, and the time at which the row was due, for the receiver to read.
pub const WINBACK: &str = "const WINBACK_LIST = 'WINBCK';
async function send(payload, headers) {
  return payload.events.map(row => {
    const summary = row.feature_summary;
    const profile = {
      type: 'profile',
      attributes: {
        email: row.email,
        external_id: row.customer_id,
        properties: {
          rfm_segment: row.rfm_segment,
          lifetime_value: row.ltv_predicted,
          last_purchase_date: row.last_purchase_date,
          orders_count: summary?.orders,
          average_order_value: summary?.avg_order_value,
          days_since_purchase: summary?.days_since_purchase,
          due_us: row.due_us,
        },
      },
    };
    if (row.rfm_segment === 'champions' && summary?.days_since_purchase > 90) {
      profile.relationships = { lists: { data: [{ type: 'list', id: WINBACK_LIST }] } };
    }
    return { data: profile };
  });
}
";

/// One event a row, which the vendor takes one request at a time.
pub const EVENTS: &str = "async function send(payload, headers) {
  return payload.events.map(row => ({ data: { type: 'event', attributes: {
    metric: { data: { type: 'metric', attributes: { name: 'Scored' } } },
    profile: { data: { type: 'profile', attributes: { email: row.email } } },
    properties: { rfm_segment: row.rfm_segment, lifetime_value: row.ltv_predicted } } } }));
}
";

/// The columns of a row, as the configuration declares them.
pub const SCHEMA: &str = "{ customer_id: string, email: string, ltv_predicted: double, rfm_segment: string, \
last_purchase_date: string, feature_summary: 'struct<orders:int,avg_order_value:double,days_since_purchase:int>', \
scores: array<double>, notes: string, updated_at: string, due_us: double }";

/// The row of a person. `due_us` is the time at which it ought to be sent, in microseconds since 1970.
pub fn row(person: usize, due_us: i64) -> String {
    format!(
        r#"{{"customer_id":"C{person:07}","email":"customer{person}@example.com","ltv_predicted":{}.5,"rfm_segment":"{}","last_purchase_date":"2026-02-{:02}","feature_summary":{{"orders":{},"avg_order_value":{}.25,"days_since_purchase":{}}},"scores":[0.{person},0.25,0.125,0.5,0.75,0.0625],"notes":"{}","updated_at":"2026-03-15T04:05:06.789Z","due_us":{due_us}}}"#,
        100 + person % 900,
        ["champions", "at_risk", "loyal"][person % 3],
        1 + person % 28,
        person % 7,
        20 + person % 50,
        person % 120,
        "model run of the night, features frozen at midnight; ".repeat(13),
    )
}

/// Microseconds since 1970.
pub fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

fn producer(brokers: &str, linger_ms: &str) -> BaseProducer {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .set("compression.type", "lz4")
        .set("linger.ms", linger_ms)
        .set("partitioner", "murmur2_random")
        .set("queue.buffering.max.messages", "400000");
    BaseProducer::from_config(&config).unwrap_or_else(|error| panic!("no producer: {error}"))
}

fn send(producer: &BaseProducer, topic: &str, person: usize, due_us: i64) {
    let (key, value) = (format!("C{person:07}"), row(person, due_us));
    let mut record = BaseRecord::to(topic).key(&key).payload(&value);
    while let Err((error, back)) = producer.send(record) {
        assert!(
            matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)),
            "a row was refused: {error}"
        );
        producer.poll(Duration::from_millis(5));
        record = back;
    }
}

fn flush(producer: &BaseProducer) {
    producer.flush(Duration::from_secs(60)).unwrap_or_else(|error| panic!("rows were not taken: {error}"));
}

/// Writes a row of each of these people as fast as the broker takes them.
pub fn produce(brokers: &str, topic: &str, people: std::ops::Range<usize>) {
    let producer = producer(brokers, "20");
    for person in people {
        send(&producer, topic, person, 0);
    }
    flush(&producer);
}

/// Writes rows at a constant rate, each with the time at which it was due: one that is late because the machine was busy counts
/// from when it ought to have been sent. `people` are taken in turns.
pub fn produce_at(brokers: &str, topic: &str, people: usize, rate: f64, time: Duration) -> usize {
    let producer = producer(brokers, "1");
    let count = (rate * time.as_secs_f64()).ceil().max(1.0) as usize;
    let (started, started_us) = (Instant::now(), now_us());
    for index in 0..count {
        let due = Duration::from_secs_f64(index as f64 / rate);
        let mut wait = due.saturating_sub(started.elapsed());
        while !wait.is_zero() {
            // Waiting is what serves the client's reports.
            producer.poll(Duration::ZERO);
            std::thread::sleep(wait.min(Duration::from_millis(5)));
            wait = due.saturating_sub(started.elapsed());
        }
        send(&producer, topic, index % people, started_us + i64::try_from(due.as_micros()).unwrap_or(0));
    }
    flush(&producer);
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_json_of_about_a_kilobyte() {
        let row = row(17, 1_788_529_177_131_026);
        assert!((950..1100).contains(&row.len()), "{} bytes", row.len());
        let row: serde_json::Value = serde_json::from_str(&row).unwrap();
        assert_eq!(row["due_us"].as_i64(), Some(1_788_529_177_131_026));
    }
}
