//! The commands around the flow: dry run, tap, topics, trace, validate, the simulator.

use serde_json::json;
use tailwater_simulators::klaviyo::Prescription;
use tailwater_tests::audit::Counts;
use tailwater_tests::kafka::{self, free_port};
use tailwater_tests::process::Process;
use tailwater_tests::scene::Scene;
use tailwater_tests::wait::{PATIENCE, eventually};

fn one_row(scene: &Scene) {
    scene.topics().produce_json(
        &scene.rows_topic(),
        [("c1", json!({"customer_id": "c1", "email": "c1@example.com", "score": 42}))],
    );
}

#[test]
fn a_dry_run_shows_the_requests_and_sends_none() {
    let scene = Scene::new("dry");
    scene.configure_rows();
    scene.topics().create(&scene.rows_topic(), 4, &[]);
    one_row(&scene);
    let mut process = scene.spawn("tailwater run --dry-run", &["run", "--config", "tailwater.yaml", "--dry-run"]);
    process.logs(&["\"score\":42"]);
    assert!(process.has_logged(&["/api/profile"]));
    assert!(!process.log().contains(tailwater_simulators::klaviyo::DEFAULT_API_KEY), "the key is masked");
    process.stop();
    assert_eq!(scene.vendor.stats().requests, 0);
}

#[test]
fn tap_prints_records_with_their_envelope_decoded() {
    let scene = Scene::new("tap");
    scene.configure_rows();
    let process = scene.run();
    one_row(&scene);
    scene.audits("rows", "klaviyo", &Counts::delivered(1));
    let ended =
        scene.command(&["tap", "resolved", "--config", "tailwater.yaml", "--from", "beginning", "--limit", "1"]);
    let text = ended.expect(0);
    for word in ["c1@example.com", "customer_id", "42"] {
        assert!(text.contains(word), "{word} is missing in {text}");
    }
    process.stop();
}

#[test]
fn trace_tells_what_became_of_a_persons_events() {
    let scene = Scene::new("trace");
    scene.configure_rows();
    let process = scene.run();
    one_row(&scene);
    scene.topics().produce_json(&scene.rows_topic(), [("c2", json!({"customer_id": "c2", "email": null, "score": 1}))]);
    scene.audits("rows", "klaviyo", &Counts { total: 2, delivered: 1, held: 1, ..Counts::default() });
    let delivered = scene.command(&["trace", "c1@example.com", "--config", "tailwater.yaml"]);
    assert!(delivered.expect(0).contains("delivered"), "{}", delivered.stdout);
    let held = scene.command(&["trace", "c2", "--config", "tailwater.yaml"]);
    assert!(held.expect(0).contains("held"), "{}", held.stdout);
    process.stop();
}

#[test]
fn topics_are_planned_then_applied_then_fine() {
    let scene = Scene::new("topics");
    scene.configure_rows();
    let plan = scene.command(&["topics", "plan", "--config", "tailwater.yaml"]);
    assert!(plan.stdout.contains(&scene.topic("resolved")), "{}", plan.stdout);
    assert!(scene.topics().names(&scene.prefix).is_empty(), "a plan changes nothing");
    scene.command(&["topics", "apply", "--config", "tailwater.yaml"]).expect(0);
    assert!(scene.topics().names(&scene.prefix).contains(&scene.topic("outbound.klaviyo")));
    scene.command(&["topics", "plan", "--config", "tailwater.yaml"]).expect(0);
}

#[test]
fn all_problems_of_a_configuration_are_told_at_once() {
    let scene = Scene::new("validate");
    scene.configure_rows();
    scene.command(&["validate", "--config", "tailwater.yaml"]).expect(0);
    let text = std::fs::read_to_string(scene.folder().join("tailwater.yaml")).unwrap();
    scene.write(
        "tailwater.yaml",
        &text.replace("partitions: 4", "partitions: none").replace("from: rows", "from: rosw"),
    );
    let ended = scene.command(&["validate", "--config", "tailwater.yaml"]);
    assert_ne!(ended.code, Some(0));
    let told = format!("{}{}", ended.stdout, ended.stderr);
    for word in ["kafka.partitions", "rosw", "rows"] {
        assert!(told.contains(word), "{word} is missing in {told}");
    }
}

#[test]
fn an_unreachable_broker_ends_a_command_with_its_own_exit_code() {
    let scene = Scene::with("nobroker", &format!("127.0.0.1:{}", free_port()), tailwater_tests::scene::quick_vendor());
    scene.configure_rows();
    let ended = scene.command(&["audit", "--config", "tailwater.yaml", "--json"]);
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(ended.stderr.contains("kafka_unreachable"), "{}", ended.stderr);
}

// Issue 10, D: the client's cryptic texts were all that was told.
#[test]
fn a_port_that_speaks_something_else_is_told_with_what_to_check() {
    let scene = Scene::new("foreign-port");
    scene.configure_rows();
    let text = std::fs::read_to_string(scene.folder().join("tailwater.yaml")).unwrap();
    // A web server, and the plaintext broker of the tests with TLS configured.
    let web = scene.vendor.url().trim_start_matches("http://").trim_end_matches('/').to_owned();
    let brokers = format!("brokers: \"{}\"", kafka::brokers());
    assert!(text.contains(&brokers));
    scene.write("web.yaml", &text.replace(&brokers, &format!("brokers: \"{web}\"")));
    scene.write("tls.yaml", &text.replace(&brokers, &format!("{brokers}\n  options: {{ security.protocol: ssl }}")));
    std::thread::scope(|scope| {
        for (file, words) in [
            ("web.yaml", ["something other than Kafka answers at this port (a web server)", "kafka.brokers"]),
            ("tls.yaml", ["the broker's port does not speak TLS", "security.protocol"]),
        ] {
            let scene = &scene;
            scope.spawn(move || {
                let ended = scene.command(&["audit", "--config", file]);
                assert_eq!(ended.code, Some(4), "{ended:?}");
                for word in words {
                    assert!(ended.stderr.contains(word), "{file}: {word} is missing in {}", ended.stderr);
                }
            });
        }
    });
}

// Issue 10, D.
#[test]
fn a_dry_run_whose_source_fails_names_it_and_fails() {
    let scene = Scene::new("dry-fails");
    scene.write("transforms/score.js", tailwater_tests::scene::SCORE_TRANSFORM);
    scene.configure(
        "identity: { types: { email: { priority: 1, max: 5, normalise: email } } }
sources:
  scores: { type: delta, table: ./nowhere, kind: state, primary_key: email, identifiers: { email: email } }
destinations:
  klaviyo: { account: main, create: true, identifier: email, routes: [{ from: scores, transform: transforms/score.js }] }
",
    );
    let ended = scene.command(&["run", "--config", "tailwater.yaml", "--dry-run"]);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    for word in ["the dry run is not complete", "source scores is failing", "delta_not_a_table"] {
        assert!(ended.stderr.contains(word), "{word} is missing in {}", ended.stderr);
    }
}

// Issue 10, D: a vendor that is down was in no status; and nothing showed everything on one screen.
#[test]
fn status_shows_what_works_what_does_not_and_what_is_left() {
    let scene = Scene::new("status");
    scene.configure_rows();
    let process = scene.run();
    one_row(&scene);
    scene.audits("rows", "klaviyo", &Counts::delivered(1));
    let status = || scene.command(&["status", "--config", "tailwater.yaml", "--json", "--sample", "0.5"]);
    let fine = status();
    let seen: serde_json::Value = serde_json::from_str(fine.expect(0)).unwrap();
    assert_eq!(seen["fine"], true);
    for line in [&seen["sources"][0], &seen["routes"][0], &seen["destinations"][0]] {
        assert_eq!((line["state"].as_str(), line["lag"].as_u64()), (Some("idle"), Some(0)), "{seen}");
    }

    scene.vendor.prescribe(Prescription {
        times: 1_000,
        for_seconds: Some(600),
        ..Prescription::status(503).on("POST", "/api/*")
    });
    scene.topics().produce_json(
        &scene.rows_topic(),
        [("c2", json!({"customer_id": "c2", "email": "c2@example.com", "score": 1}))],
    );
    eventually("the vendor that is down is shown", PATIENCE, || {
        let seen = status();
        let line = seen.json()["destinations"][0].clone();
        let shown = line["state"] == "failing" && line["lag"] == 1 && line["next_attempt"].is_string();
        if shown && seen.code == Some(6) { Ok(()) } else { Err(format!("{seen:?}")) }
    });
    let page = scene.status("klaviyo");
    assert!(page["klaviyo.vendor"]["since"].is_string(), "{page}");
    process.stop();
    let text = scene.command(&["status", "--config", "tailwater.yaml", "--sample", "0.5"]);
    assert!(text.expect(6).contains("stopped"), "{}", text.stdout);
}

#[test]
fn the_simulator_runs_from_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    let arguments = ["simulate", "klaviyo", "--listen", &address, "--list", "LISTAB=A list"];
    let mut process = Process::spawn("tailwater simulate", folder.path(), &[], &arguments);
    process.logs(&["klaviyo simulator on", &address]);
    let url = format!("http://{address}/_simulator/lists/LISTAB");
    eventually("the list is there", PATIENCE, || {
        tailwater_tests::runtime().block_on(async {
            let response =
                reqwest::Client::builder().build().map_err(|error| error.to_string())?.get(&url).send().await;
            let status = response.map_err(|error| error.to_string())?.status().as_u16();
            if status == 200 { Ok(()) } else { Err(status.to_string()) }
        })
    });
    process.stop();
}

#[test]
fn prefixes_keep_two_workspaces_on_one_cluster_apart() {
    let (one, two) = (Scene::new("one"), Scene::new("two"));
    assert_ne!(kafka::prefix("same"), kafka::prefix("same"));
    one.configure_rows();
    two.configure_rows();
    let (first, second) = (one.run(), two.run());
    one_row(&one);
    one.audits("rows", "klaviyo", &Counts::delivered(1));
    two.audits("rows", "klaviyo", &Counts::default());
    assert!(two.vendor.emails().is_empty());
    first.stop();
    second.stop();
}
