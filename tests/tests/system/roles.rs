//! The stages in processes of their own, as the chart runs them, and several processes for one stage.

use std::time::Duration;

use serde_json::json;
use tailwater_simulators::klaviyo::{JobDuration, Options};
use tailwater_tests::audit::Counts;
use tailwater_tests::kafka::{self, free_port};
use tailwater_tests::process::Process;
use tailwater_tests::scene::{Scene, quick_vendor};
use tailwater_tests::wait::{PATIENCE, eventually};

/// Starts a process with a part of the roles, a state folder and an admin port of its own.
fn start(scene: &Scene, name: &str, roles: &str) -> Process {
    let text = std::fs::read_to_string(scene.folder().join("tailwater.yaml")).unwrap();
    let text: String = text
        .lines()
        .map(|line| match line {
            line if line.starts_with("admin:") => format!("admin: {{ listen: \"127.0.0.1:{}\" }}\n", free_port()),
            line if line.starts_with("state_dir:") => format!("state_dir: ./state-{name}\n"),
            line => format!("{line}\n"),
        })
        .collect();
    let file = format!("{name}.yaml");
    scene.write(&file, &text);
    scene.spawn(&format!("tailwater run --roles {roles} ({name})"), &["run", "--config", &file, "--roles", roles])
}

fn produce(scene: &Scene, from: usize, to: usize) {
    let rows: Vec<(String, serde_json::Value)> = (from..to)
        .map(|index| {
            (
                format!("c{index}"),
                json!({"customer_id": format!("c{index}"), "email": format!("c{index}@example.com"), "score": index}),
            )
        })
        .collect();
    scene.topics().produce_json(&scene.rows_topic(), rows.iter().map(|(key, row)| (key.as_str(), row.clone())));
}

fn wait_for_topics(scene: &Scene) {
    eventually("the topics are there", PATIENCE, || {
        let names = scene.topics().names(&scene.prefix);
        if names.contains(&scene.rows_topic()) { Ok(()) } else { Err(format!("{names:?}")) }
    });
}

#[test]
fn the_stages_work_in_processes_of_their_own() {
    let scene = Scene::new("roles");
    scene.configure_rows();
    let resolve = start(&scene, "resolve", "source,resolve");
    let route = start(&scene, "route", "route");
    let send = start(&scene, "send", "send");
    wait_for_topics(&scene);
    produce(&scene, 0, 100);
    scene.audits("rows", "klaviyo", &Counts::delivered(100));
    for process in [resolve, route, send] {
        process.stop();
    }
}

#[test]
fn two_processes_share_the_partitions_and_one_takes_over_when_the_other_is_killed() {
    let scene = Scene::new("share");
    scene.configure_rows();
    let resolve = start(&scene, "resolve", "source,resolve");
    let first = start(&scene, "first", "route,send");
    let mut second = start(&scene, "second", "route,send");
    wait_for_topics(&scene);
    produce(&scene, 0, 200);
    scene.audits("rows", "klaviyo", &Counts::delivered(200));
    produce(&scene, 200, 400);
    first.kill();
    scene.audits("rows", "klaviyo", &Counts::delivered(400));
    second.assert_running();
    assert_eq!(scene.vendor.emails().len(), 400);
    for process in [resolve, second] {
        process.stop();
    }
}

#[test]
fn a_process_that_was_stopped_for_a_while_and_wakes_up_changes_nothing() {
    let scene = Scene::new("zombie");
    scene.configure_rows();
    let resolve = start(&scene, "resolve", "source,resolve");
    let sleeper = start(&scene, "sleeper", "route,send");
    wait_for_topics(&scene);
    produce(&scene, 0, 50);
    scene.audits("rows", "klaviyo", &Counts::delivered(50));
    sleeper.signal("STOP");
    let successor = start(&scene, "successor", "route,send");
    produce(&scene, 50, 100);
    scene.audits("rows", "klaviyo", &Counts::delivered(100));
    sleeper.signal("CONT");
    produce(&scene, 100, 150);
    scene.audits("rows", "klaviyo", &Counts::delivered(150));
    for index in 0..150 {
        let history = scene.vendor.history(&format!("c{index}@example.com"), "score");
        assert_eq!(history.len(), 1, "c{index} was told {history:?}");
    }
    drop(sleeper);
    for process in [resolve, successor] {
        process.stop();
    }
}

#[test]
fn a_stage_whose_producer_is_fenced_starts_again_and_repeats_nothing() {
    let scene = Scene::new("fenced");
    scene.configure_rows();
    let mut process = scene.run();
    wait_for_topics(&scene);
    produce(&scene, 0, 50);
    scene.audits("rows", "klaviyo", &Counts::delivered(50));
    let instance = std::fs::read_to_string(scene.folder().join("state/instance-id")).unwrap();
    for stage in ["resolve", "route.klaviyo", "send.klaviyo"] {
        let id = format!("{}.{}", scene.topic(stage), instance.trim());
        scene.topics().fence(&id);
    }
    produce(&scene, 50, 100);
    scene.audits("rows", "klaviyo", &Counts::delivered(100));
    process.assert_running();
    for stage in ["resolve", "route.klaviyo", "send.klaviyo"] {
        process.logs(&["kafka_fenced", stage]);
    }
    for index in 0..100 {
        let history = scene.vendor.history(&format!("c{index}@example.com"), "score");
        assert_eq!(history.len(), 1, "c{index} was told {history:?}");
    }
    process.stop();
}

#[test]
fn a_job_that_runs_when_its_process_is_killed_is_asked_for_by_the_next_owner() {
    let slow = Options {
        job_duration: JobDuration { base: Duration::from_secs(12), per_profile: Duration::ZERO },
        ..quick_vendor()
    };
    let scene = Scene::with("jobs", kafka::brokers(), slow);
    scene.configure_rows();
    let process = scene.run();
    produce(&scene, 0, 100);
    // The history is committed together with the tickets, so once it is told the next owner can know.
    eventually("the vendor has taken everybody into jobs", PATIENCE, || {
        let deliveries = scene.topics().read(&scene.topic("deliveries"));
        let accepted = deliveries.iter().filter(|seen| seen.json()["outcome"] == "accepted").count();
        if accepted == 100 { Ok(()) } else { Err(format!("{accepted} of 100")) }
    });
    let jobs = scene.vendor.simulator().requests_to("POST", "/api/profile-bulk-import-jobs").len();
    process.kill();
    let next = scene.run();
    scene.audits("rows", "klaviyo", &Counts::delivered(100));
    let sent = scene.vendor.simulator().requests_to("POST", "/api/profile-bulk-import-jobs").len();
    assert_eq!(sent, jobs, "nobody was sent again");
    next.stop();
}
