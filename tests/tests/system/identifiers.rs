//! Values as producers really write them: whoever they mean is one person, with a clean address at the vendor.

use serde_json::json;
use tailwater_tests::audit::Counts;
use tailwater_tests::scene::Scene;
use tailwater_tests::topics::New;
use tailwater_tests::wait::{PATIENCE, eventually};

const SECTIONS: &str = "identity:
  types:
    customer_id: { priority: 1, max: 1, normalise: trim }
    email: { priority: 2, max: 5, normalise: email }
    phone: { priority: 3, max: 3, normalise: { phone: { region: US } } }
    device: { priority: 4, max: 5 }
sources:
  rows:
    type: kafka
    kind: events
    id: n
    identifiers: { customer_id: customer_id, email: email, phone: phone, device: device }
    event_time: at
    strict: false
destinations:
  klaviyo:
    account: main
    create: true
    identifier: email
    identifiers: { email: email, external_id: customer_id, phone_number: phone }
    on_missing_key: hold
    routes:
      - { from: rows, transform: transforms/score.js }
";

const TRANSFORM: &str = "async function send(payload) {
  return payload.events.map(row => ({ data: { type: 'profile', attributes: {
    email: row.email, phone_number: row.phone, properties: { score: row.score } } } }));
}
";

/// People who share a device.
const SHARING: usize = 12;

/// Issue 10, A7 and A8.
#[test]
fn each_person_is_one_profile_however_their_identifiers_are_spelled() {
    let scene = Scene::new("spellings");
    scene.write("transforms/score.js", TRANSFORM);
    scene.configure(SECTIONS);
    let process = scene.run();
    let day = "2026-03-02T00:00:00Z";
    let mut rows = vec![
        json!({"customer_id": 12345, "email": "ines@example.com", "score": 1, "at": day}),
        json!({"customer_id": 12345.0, "score": 2, "at": 1_772_409_600_000_000_i64}),
        json!({"email": "\u{200b}ines@example.com", "score": 3, "at": 1_772_409_600.267}),
        json!({"email": "ines@exam\u{ad}ple.com", "score": 4, "at": "2026-03-02 00:00:00 UTC"}),
        json!({"email": "<mailto:Ines@example.com>;", "score": 5, "at": day}),
        json!({"customer_id": "u2", "email": "omar@example.com", "phone": "\u{202d}+1 415\u{a0}555\u{2011} 0123\u{202c}", "score": 6, "at": day}),
        json!({"customer_id": "u3\u{200b}", "email": "petra@example.com", "score": 7, "at": day}),
        json!({"customer_id": "u3", "score": 8, "at": "03/02/2026"}),
        json!({"customer_id": "<NA>", "email": "omar@example.com", "score": 9, "at": day}),
        // Nobody's: each of these is a dead letter.
        json!({"customer_id": "<NA>", "device": "N/A", "score": 99, "at": day}),
        json!({"customer_id": 1.5, "score": 99, "at": day}),
        json!({"customer_id": ["u2"], "email": "a@example.com,b@example.com", "score": 99, "at": day}),
    ];
    rows.extend((0..SHARING).map(
        |person| json!({"customer_id": format!("z{person}"), "email": format!("z{person}@example.com"), "device": "f00d", "score": 1, "at": day}),
    ));
    let mut texts: Vec<String> = rows
        .iter_mut()
        .enumerate()
        .map(|(n, row)| {
            row["n"] = json!(n);
            row.to_string()
        })
        .collect();
    texts.push(
        r#"{"n":"half","customer_id":"u3\udc00","email":"petra@example.com","score":10,"at":"2026-03-02"}"#.into(),
    );
    let topic = scene.rows_topic();
    scene.topics().produce(
        &topic,
        texts.iter().map(|text| New {
            partition: Some(0),
            key: Some(b"k"),
            value: Some(text.as_bytes()),
            ..New::default()
        }),
    );
    let total = texts.len() as u64;
    scene.audits("rows", "klaviyo", &Counts { total, delivered: total - 3, dead_lettered: 3, ..Counts::default() });

    let mut expected: Vec<String> = (0..SHARING).map(|person| format!("z{person}@example.com")).collect();
    expected.extend(["ines@example.com", "omar@example.com", "petra@example.com"].map(str::to_owned));
    expected.sort();
    let mut emails: Vec<String> = scene.vendor.emails().iter().map(|email| email.to_lowercase()).collect();
    emails.sort();
    assert_eq!(emails, expected);
    let omar = scene.vendor.person("omar@example.com").unwrap();
    assert_eq!(omar["attributes"]["phone_number"], "+14155550123");
    assert_eq!(scene.vendor.property("omar@example.com", "score"), 9);
    assert_eq!(scene.vendor.property("petra@example.com", "score"), 10);
    let letters = scene.topics().read(&scene.topic("dlq.source.rows"));
    assert!(letters.iter().all(|letter| letter.header("tw-error-code").as_deref() == Some("no_identifiers")));

    let times: Vec<String> =
        scene.topics().read(&scene.topic("resolved")).iter().map(|record| record.envelope().time.to_string()).collect();
    assert_eq!(times.iter().filter(|time| time.starts_with("2026-03-02T00:00:00.")).count() as u64, total - 4);
    assert!(times.iter().any(|time| time == "2026-03-02T00:00:00.267Z"));

    eventually("what was refused and shared is in the metrics", PATIENCE, || {
        let (_, text) = scene.admin("/metrics")?;
        for line in [
            r#"tailwater_event_times_invalid_total{reason="unreadable",source="rows"} 1"#.to_owned(),
            format!(r#"tailwater_identifier_shared_people{{type="device"}} {SHARING}"#),
        ] {
            if !text.contains(&line) {
                return Err(format!("{line} is missing"));
            }
        }
        Ok(())
    });
    process.stop();
}
