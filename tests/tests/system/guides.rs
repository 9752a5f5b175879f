//! The recipes of `docs/guides/klaviyo.md` are run as they stand: through the sandbox, the connector and the vendor's simulator.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use serde_json::value::RawValue;
use tailwater_connectors::klaviyo::{self, Klaviyo, OnConflict};
use tailwater_connectors::{ClassifyInput, Context, Destination, Outcomes};
use tailwater_core::delivery::{Delivery, Outcome};
use tailwater_core::{DeliveryKey, EventId, ProfileId, Timestamp};
use tailwater_sandbox::{Batch, Headers, Pool, Row, RowResult};
use tailwater_simulators::klaviyo::{DEFAULT_API_KEY, Options, Simulator};

const GUIDE: &str = include_str!("../../../docs/guides/klaviyo.md");

/// A transform with its rows and what then stands at the vendor.
#[derive(Debug, Default)]
struct Recipe {
    settings: String,
    transform: String,
    rows: Vec<String>,
    expected: String,
}

/// The recipes of the page: blocks of settings, `js`, `json row` and `json klaviyo`, in this order.
fn recipes(page: &str) -> Vec<Recipe> {
    let mut recipes = Vec::new();
    let mut recipe = Recipe::default();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(kind) = line.strip_prefix("```") else { continue };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        match kind {
            "yaml" => recipe.settings = block.join("\n"),
            "js" => recipe.transform = block.join("\n"),
            "json row" => recipe.rows = block.iter().map(|line| (*line).to_owned()).collect(),
            "json klaviyo" => {
                recipe.expected = block.join("\n");
                recipes.push(std::mem::take(&mut recipe));
            }
            other => panic!("a block of the kind `{other}` is not run"),
        }
    }
    recipes
}

fn connector(url: &str, settings: &str) -> Klaviyo {
    let account = klaviyo::config::Account {
        api_key: tailwater_connectors::config::Secret::from(DEFAULT_API_KEY),
        base_url: url.to_owned(),
        rate_share: klaviyo::RATE_SHARE,
    };
    let nulls =
        if settings == "nulls: clear" { tailwater_connectors::Nulls::Clear } else { tailwater_connectors::Nulls::Omit };
    let identifiers = [("email", "email"), ("external_id", "customer_id")];
    let config = klaviyo::Config {
        create: true,
        identifier: "email".to_owned(),
        identifiers: identifiers.map(|(field, kind)| (field.to_owned(), kind.to_owned())).into(),
        nulls,
        non_finite: tailwater_connectors::NonFinite::Omit,
        on_conflict: OnConflict::Reject,
        bulk_from: klaviyo::BULK_FROM,
    };
    Klaviyo::new(Arc::new(klaviyo::Account::new(&account).unwrap()), config).unwrap()
}

/// The deliveries of one row.
fn deliveries(klaviyo: &Klaviyo, number: usize, row: &Value, result: &RowResult) -> Vec<Delivery> {
    let RowResult::Outputs(outputs) = result else { panic!("row {number}: {result:?}") };
    let text = |name: &str| row[name].as_str().unwrap().to_owned();
    let own = [("email", text("email")), ("customer_id", text("customer_id"))];
    let identifiers: Vec<(&str, &str)> = own.iter().map(|(kind, value)| (*kind, value.as_str())).collect();
    let event = EventId::of_fact("guide", "rows", &number.to_string());
    let operations = outputs.iter().enumerate().flat_map(|(ordinal, output)| {
        let json = RawValue::from_string(output.json.clone()).unwrap();
        let input = ClassifyInput {
            output: &json,
            route: "rows",
            ordinal,
            identifiers: &identifiers,
            time: Timestamp::parse("2026-03-02T00:00:00Z").unwrap(),
            non_finite: &output.non_finite,
        };
        klaviyo.classify(&input).unwrap()
    });
    operations
        .map(|operation| Delivery {
            key: DeliveryKey::of(event, "klaviyo", "rows", operation.kind.as_str(), &operation.place),
            profile: ProfileId::of("guide", "email", &own[0].1, 0),
            event,
            time: Timestamp::parse("2026-03-02T00:00:00Z").unwrap(),
            position: None,
            identifiers: own.iter().map(|(kind, value)| ((*kind).to_owned(), value.clone())).collect(),
            backfill: false,
            attempt: 1,
            operation,
        })
        .collect()
}

/// Whether everything that is expected is there, members of objects that are not named aside.
fn holds(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => {
            expected.iter().all(|(name, expected)| holds(found.get(name).unwrap_or(&Value::Null), expected))
        }
        (Value::Array(found), Value::Array(expected)) => {
            found.len() == expected.len() && found.iter().zip(expected).all(|(found, expected)| holds(found, expected))
        }
        (Value::Number(found), Value::Number(expected)) => found.as_f64() == expected.as_f64(),
        (found, expected) => found == expected,
    }
}

/// What stands at the vendor of one person, as the page writes it.
fn at_the_vendor(simulator: &Simulator, email: &str) -> Value {
    let person = simulator.profile("email", email).unwrap_or_default();
    let events: Vec<Value> = simulator
        .events()
        .into_iter()
        .filter(|event| event["profile"] == person["id"])
        .map(|event| {
            let mut shown = event["attributes"].clone();
            shown["metric"] = event["metric"].clone();
            shown
        })
        .collect();
    serde_json::json!({"profile": person["attributes"], "lists": person["lists"], "events": events})
}

#[tokio::test(flavor = "multi_thread")]
async fn the_recipes_of_the_klaviyo_guide_do_what_the_page_says() {
    tailwater_sandbox::initialize_for_tests();
    let recipes = recipes(GUIDE);
    assert_eq!(recipes.len(), 6, "profiles, an array, nulls, lists, an event, an event for each line item");
    let pool = Pool::start(tailwater_sandbox::Options::default()).unwrap();
    for recipe in recipes {
        let options = Options { lists: vec![("WINBCK".to_owned(), "Winback".to_owned())], ..Options::default() };
        let simulator = Simulator::start(options).await.unwrap();
        let klaviyo = connector(&simulator.url(), &recipe.settings);
        let transform = pool.load("recipe.js", &recipe.transform).unwrap();
        let batch = Batch {
            rows: recipe.rows.iter().map(|row| Row { data: row.as_bytes(), overlay: &[], backdrop: &() }).collect(),
            headers: Headers::default(),
            now_ms: 0,
            non_finite: tailwater_sandbox::NonFinite::Omit,
            schema: None,
        };
        let report = transform.run(&batch);
        let rows: Vec<Value> = recipe.rows.iter().map(|row| serde_json::from_str(row).unwrap()).collect();
        for (number, (row, result)) in rows.iter().zip(&report.results).enumerate() {
            // A person's deliveries go one after the other.
            for delivery in deliveries(&klaviyo, number, row, result) {
                let outcome = std::sync::Mutex::new(BTreeMap::new());
                let outcomes = Outcomes::new(1, |indexes, told| {
                    for index in indexes {
                        outcome.lock().unwrap().insert(*index, told.clone());
                    }
                });
                klaviyo.deliver(&[delivery], &outcomes, &Context { still_owned: &|| true }).await;
                drop(outcomes);
                assert_eq!(outcome.into_inner().unwrap().get(&0), Some(&Outcome::Delivered), "{}", recipe.transform);
            }
        }
        let expected: Value = serde_json::from_str(&recipe.expected).unwrap();
        let found = at_the_vendor(&simulator, rows[0]["email"].as_str().unwrap());
        assert!(holds(&found, &expected), "the page says {expected:#}, the vendor has {found:#}");
        // Nothing that the page clears may be left.
        let properties = |value: &Value| value.pointer("/profile/properties").cloned();
        if let Some(stated) = properties(&expected) {
            assert_eq!(
                properties(&found).map(|found| found.as_object().map(serde_json::Map::len)),
                Some(stated.as_object().map(serde_json::Map::len))
            );
        }
        simulator.stop().await.unwrap();
    }
}

#[test]
fn the_table_of_limits_is_what_is_kept() {
    // The figures are compared with the vendor's specification by the connector's own tests.
    for row in ["| 75, 750 |", "| 10, 150 |", "| 350, 3,500 |"] {
        assert!(GUIDE.contains(row), "{row}");
    }
}
