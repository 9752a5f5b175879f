//! What a run works on: its configuration, its transforms, and a vendor that answers some people by a script.

use std::fs;
use std::path::Path;

use rand::RngExt as _;
use rand::rngs::StdRng;

use crate::chaos::fleet::write;
use crate::chaos::receiver::{Script, Step};

/// People with a script of answers of their own. A job carries many people and is answered as the first of them wants, so every script
/// slows down everybody.
const SCRIPTED: u32 = 20;

/// The table of scores, in the run's folder.
pub(super) const TABLE: &str = "tables/scores";

pub(super) fn scripts(random: &mut StdRng, people: u32) -> Vec<Script> {
    let all = [
        vec![Step::Status(500), Step::Status(500), Step::Ok],
        vec![Step::Ok, Step::RetryAfter { status: 429, seconds: 1 }],
        vec![Step::DisconnectAfterReading, Step::Ok, Step::DisconnectAfterProcessing],
        vec![Step::Ok, Step::Reject(400), Step::Ok, Step::Status(503)],
    ];
    (0..SCRIPTED.min(people / 4))
        .map(|index| Script {
            person: random.random_range(0..people),
            // One time-out is enough: it costs everybody half a minute.
            steps: if index == 0 { vec![Step::Ok, Step::TimeOut] } else { all[index as usize % all.len()].clone() },
        })
        .collect()
}

pub(super) fn write_transforms(folder: &Path, generation: u32) {
    fs::create_dir_all(folder.join("transforms")).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    write(&folder.join("transforms/activity.js"), &format!("// {generation}\n{ACTIVITY}"));
    write(&folder.join("transforms/scores.js"), &format!("// {generation}\n{SCORES}"));
}

const ACTIVITY: &str = "async function send(payload, headers) {
  return payload.events.map(row => {
    const profile = { data: { type: 'profile', attributes: {
      email: row.email, properties: { person: row.person, activity_seq: row.seq } } } };
    if (!row.track) return profile;
    return [profile, { data: { type: 'event', attributes: {
      metric: 'Chaos', unique_id: row.id,
      profile: { data: { type: 'profile', attributes: { email: row.email } } },
      properties: { person: row.person, seq: row.seq } } } }];
  });
}
";

const SCORES: &str = "async function send(payload, headers) {
  return payload.events.map(row => ({ data: { type: 'profile', attributes: {
    email: row.email, properties: { person: row.person, score_seq: row.seq } } } }));
}
";

pub(super) fn configuration(brokers: &str, prefix: &str, vendor: &str) -> String {
    format!(
        "version: 1
workspace: chaos
kafka:
  brokers: \"{brokers}\"
  prefix: \"{prefix}\"
  partitions: 8
  replication_factor: 1
  latency: balanced
  session_timeout: 6s
identity:
  max_merges: 1000
  types:
    customer_id: {{ priority: 1, max: 1, normalise: trim }}
    email: {{ priority: 2, max: 5, normalise: email }}
    device_id: {{ priority: 3, max: 1000, normalise: trim }}
sources:
  activity:
    type: kafka
    kind: events
    id: id
    identifiers: {{ customer_id: customer_id, device_id: device_id, email: email }}
    schema: {{ id: string, customer_id: string, device_id: string, email: string, person: int, seq: int, track: boolean }}
  scores:
    type: kafka
    kind: state
    primary_key: customer_id
    identifiers: {{ customer_id: customer_id }}
    schema: {{ customer_id: string, person: int, seq: int }}
  tiers:
    type: delta
    table: ./{TABLE}
    kind: state
    primary_key: customer_id
    identifiers: {{ customer_id: customer_id }}
    poll_interval: 200ms
accounts:
  main: {{ type: klaviyo, api_key: \"${{env:KLAVIYO_API_KEY}}\", base_url: \"{vendor}\", rate_share: 100 }}
destinations:
  klaviyo:
    account: main
    create: true
    identifier: email
    identifiers: {{ email: email, external_id: customer_id }}
    on_missing_key: hold
    retry: {{ attempts: 100, backoff_min: 200ms, backoff_max: 2s }}
    routes:
      - {{ from: activity, transform: transforms/activity.js }}
      - {{ from: scores, transform: transforms/scores.js }}
      - {{ from: tiers, transform: transforms/scores.js }}
"
    )
}
