//! The recipes of the guides whose last block says what is sent are run as they stand: through the sandbox and the connector.

use serde_json::Value;
use serde_json::value::RawValue;
use tailwater_connectors::destination::Planned;
use tailwater_connectors::{ClassifyInput, Destination, Shared, registry};
use tailwater_core::delivery::Delivery;
use tailwater_core::{DeliveryKey, EventId, ProfileId, Timestamp};
use tailwater_sandbox::{Batch, Headers, Pool, Row, RowResult};

/// A page, and what its recipes are run with. A row's columns of these names are its person's identifiers.
struct Guide {
    page: &'static str,
    kind: &'static str,
    account: &'static str,
    options: &'static str,
    identifiers: &'static [(&'static str, &'static str)],
    recipes: usize,
}

const GUIDES: &[Guide] = &[
    Guide {
        page: include_str!("../../../docs/guides/customerio.md"),
        kind: "customerio",
        account: r#"{"secret_key": "sk_0123456789abcdef"}"#,
        options: r#"{"create": true}"#,
        identifiers: &[("id", "user_id"), ("email", "email")],
        recipes: 7,
    },
    Guide {
        page: include_str!("../../../docs/guides/iterable.md"),
        kind: "iterable",
        account: r#"{"api_key": "0123456789abcdef0123456789abcdef", "identity": "email"}"#,
        options: r#"{"create": true, "create_new_fields": false, "merge_nested_objects": true}"#,
        identifiers: &[("email", "email"), ("userId", "user_id")],
        recipes: 5,
    },
];

/// A transform with its rows and what is then sent.
#[derive(Debug, Default)]
struct Recipe {
    transform: String,
    rows: Vec<String>,
    expected: String,
}

/// The recipes of the page: blocks of `js`, `json row` and `json <kind>`, in this order.
fn recipes(page: &str, kind: &str) -> Vec<Recipe> {
    let (mut recipes, mut recipe) = (Vec::new(), Recipe::default());
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(fence) = line.strip_prefix("```") else { continue };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        match fence {
            "yaml" => {}
            "js" => recipe.transform = block.join("\n"),
            "json row" => recipe.rows = block.iter().map(|line| (*line).to_owned()).collect(),
            other if other == format!("json {kind}") => {
                recipe.expected = block.join("\n");
                recipes.push(std::mem::take(&mut recipe));
            }
            other => panic!("a block of the kind `{other}` is not run"),
        }
    }
    recipes
}

fn deliveries(guide: &Guide, destination: &dyn Destination, row: &Value, result: &RowResult) -> Vec<Delivery> {
    let RowResult::Outputs(outputs) = result else { panic!("{row}: {result:?}") };
    let own: Vec<(&str, &str)> =
        guide.identifiers.iter().filter_map(|(_, column)| Some((*column, row.get(*column)?.as_str()?))).collect();
    let event = EventId::of_fact("guide", "rows", &row.to_string());
    let time = Timestamp::parse("2026-03-02T00:00:00Z").unwrap();
    let operations = outputs.iter().enumerate().flat_map(|(ordinal, output)| {
        let json = RawValue::from_string(output.json.clone()).unwrap();
        let non_finite = &output.non_finite;
        let input = ClassifyInput { output: &json, route: "rows", ordinal, identifiers: &own, time, non_finite };
        destination.classify(&input).unwrap_or_else(|error| panic!("{}: {error}", output.json))
    });
    operations
        .map(|operation| Delivery {
            key: DeliveryKey::of(event, guide.kind, "rows", operation.kind.as_str(), &operation.place),
            profile: ProfileId::of("guide", "row", &row.to_string(), 0),
            event,
            time,
            position: None,
            identifiers: own.iter().map(|(kind, value)| ((*kind).to_owned(), (*value).to_owned())).collect(),
            backfill: false,
            attempt: 1,
            operation,
        })
        .collect()
}

/// The bodies of requests; of a batch, the items.
fn sent(planned: &[Planned]) -> Vec<Value> {
    planned
        .iter()
        .map(|planned| serde_json::from_str::<Value>(&planned.body).unwrap())
        .flat_map(|body| body["batch"].as_array().cloned().unwrap_or_else(|| vec![body]))
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

#[tokio::test(flavor = "multi_thread")]
async fn the_recipes_of_the_guides_send_what_the_pages_say() {
    tailwater_sandbox::initialize_for_tests();
    let pool = Pool::start(tailwater_sandbox::Options::default()).unwrap();
    for guide in GUIDES {
        let kind = registry::find(guide.kind).unwrap();
        let connection = kind.account(&serde_json::from_str(guide.account).unwrap()).unwrap().open().unwrap();
        let shared = Shared {
            name: guide.kind.to_owned(),
            identifier: guide.identifiers[0].1.to_owned(),
            identifiers: guide
                .identifiers
                .iter()
                .map(|(field, kind)| ((*field).to_owned(), (*kind).to_owned()))
                .collect(),
        };
        let options = kind.options(&serde_json::from_str(guide.options).unwrap()).unwrap();
        let destination = connection.connect(&options, &shared).unwrap();
        let recipes = recipes(guide.page, guide.kind);
        assert_eq!(recipes.len(), guide.recipes, "{}", guide.kind);
        for recipe in recipes {
            let transform = pool.load("recipe.js", &recipe.transform).unwrap();
            let batch = Batch {
                rows: recipe.rows.iter().map(|row| Row { data: row.as_bytes(), overlay: &[], backdrop: &() }).collect(),
                headers: Headers::default(),
                now_ms: 0,
                non_finite: tailwater_sandbox::NonFinite::Omit,
                schema: None,
            };
            let report = transform.run(&batch);
            let deliveries: Vec<Delivery> = recipe
                .rows
                .iter()
                .zip(&report.results)
                .flat_map(|(row, result)| deliveries(guide, &*destination, &serde_json::from_str(row).unwrap(), result))
                .collect();
            let found = Value::Array(sent(&destination.plan(&deliveries)));
            let expected: Value = serde_json::from_str(&recipe.expected).unwrap();
            assert!(holds(&found, &expected), "{}: the page says {expected:#}, sent is {found:#}", recipe.transform);
        }
    }
}
