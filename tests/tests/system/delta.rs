//! Delta tables that cannot be followed end in an error that says what to do.

use tailwater_tests::lake::{self, copy_folder};
use tailwater_tests::scene::{SCORE_TRANSFORM, Scene};

/// A configuration with one Delta table under `./table`.
fn configure(scene: &Scene, key: &str) {
    scene.write("transforms/score.js", SCORE_TRANSFORM);
    scene.configure(&format!(
        "identity:
  types:
    customer_id: {{ priority: 1, max: 1, normalise: trim }}
    email: {{ priority: 2, max: 5, normalise: email }}
sources:
  scores:
    type: delta
    table: ./table
    kind: state
    key: {key}
    identifiers: {{ {key}: customer_id }}
    poll_interval: 250ms
destinations:
  klaviyo:
    account: main
    create: true
    identifier: email
    routes:
      - {{ from: scores, transform: transforms/score.js }}
"
    ));
}

#[test]
fn a_table_without_a_change_feed_ends_in_the_statement_to_paste() {
    let Some(table) = lake::shared("no_cdf") else { return };
    let scene = Scene::new("nocdf");
    copy_folder(&table, &scene.folder().join("table"));
    configure(&scene, "id");
    let mut process = scene.spawn("tailwater run", &["run", "--config", "tailwater.yaml"]);
    process.logs(&["delta_cdf_disabled", "ALTER TABLE", "delta.enableChangeDataFeed"]);
}

#[test]
fn a_folder_that_is_no_table_is_named() {
    let scene = Scene::new("notable");
    std::fs::create_dir(scene.folder().join("table")).unwrap();
    configure(&scene, "id");
    let mut process = scene.spawn("tailwater run", &["run", "--config", "tailwater.yaml"]);
    process.logs(&["delta_not_a_table", "table"]);
}
