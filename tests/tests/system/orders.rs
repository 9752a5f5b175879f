//! Orders in an array of structs with decimals, from the project's own Spark-written table to two vendors: each gets them as it knows
//! orders, with the amounts that Spark read.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use tailwater_simulators::iterable::{self, Iterable};
use tailwater_tests::audit::Counts;
use tailwater_tests::lake;
use tailwater_tests::scene::Scene;
use tailwater_tests::vendor::Vendor;

#[test]
fn orders_and_carts_reach_klaviyo_and_iterable_as_each_knows_them() {
    let mut scene = Scene::new("orders");
    let options = iterable::Options { bulk_delay: Duration::from_millis(200), ..iterable::Options::default() };
    let iterable: Vendor<Iterable> = Vendor::of(options);
    scene.set_variable("ITERABLE_API_KEY", iterable::DEFAULT_API_KEY);
    scene.set_variable("ITERABLE_BASE_URL", &iterable.url());
    scene.lay_out(&lake::example("orders"));
    let rows = lake::rows(&scene.folder().join("lake/expected/orders.ndjson"));
    let process = scene.run();
    scene.audits("orders", "klaviyo", &Counts::delivered(52));
    scene.audits("orders", "iterable", &Counts::delivered(52));

    let (orders, carts): (Vec<&Value>, Vec<&Value>) = rows.iter().partition(|row| row["event"] == "order.purchased");
    assert_eq!((orders.len(), carts.len()), (40, 12));
    at_klaviyo(&scene, &orders, &carts);
    at_iterable(&iterable, &orders, &carts);
    assert_eq!(scene.command(&["audit", "--config", "tailwater.yaml"]).code, Some(0));
    process.stop();
}

fn at_klaviyo(scene: &Scene, orders: &[&Value], carts: &[&Value]) {
    let events = scene.vendor.simulator().events();
    let by_id: BTreeMap<&str, &Value> =
        events.iter().map(|event| (event["attributes"]["unique_id"].as_str().unwrap(), event)).collect();
    let items = orders.iter().map(|row| row["items"].as_array().unwrap().len()).sum::<usize>();
    assert_eq!(events.len(), orders.len() + items + carts.len());
    for row in orders {
        let id = row["event_id"].as_str().unwrap();
        let placed = by_id[format!("{id}:order").as_str()];
        assert_eq!(placed["metric"], "Placed Order");
        assert_eq!(placed["attributes"]["value"].as_f64(), row["total"].as_f64(), "{id}");
        assert_eq!(placed["attributes"]["properties"]["OrderId"], row["order_id"]);
        for item in row["items"].as_array().unwrap() {
            let ordered = by_id[format!("{id}:{}", item["product_id"].as_str().unwrap()).as_str()];
            assert_eq!(ordered["metric"], "Ordered Product");
            let properties = &ordered["attributes"]["properties"];
            assert_eq!(properties["Quantity"], item["quantity"]);
            assert_eq!(properties["ItemPrice"].as_f64(), item["price"].as_f64());
            // Three cups for 0.10 are 0.3, and not 0.30000000000000004.
            let cents = (item["price"].as_f64().unwrap() * 100.0).round() * item["quantity"].as_f64().unwrap();
            assert_eq!(properties["RowTotal"].as_f64(), Some(cents / 100.0), "{id}");
        }
    }
    for row in carts {
        let abandoned = by_id[format!("{}:cart", row["event_id"].as_str().unwrap()).as_str()];
        assert_eq!(abandoned["metric"], "Abandoned Cart");
    }
}

fn at_iterable(vendor: &Vendor<Iterable>, orders: &[&Value], carts: &[&Value]) {
    let requests = vendor.simulator().requests();
    let to = |path: &str| requests.iter().filter(|request| request.path == path && request.status == 200).count();
    assert_eq!((to("/api/commerce/trackPurchase"), to("/api/commerce/updateCart")), (orders.len(), carts.len()));
    let events = vendor.simulator().events();
    let of_kind = |kind: &str| events.iter().filter(|event| event["eventType"] == kind).collect::<Vec<_>>();
    let purchases: BTreeMap<&str, &Value> =
        of_kind("purchase").into_iter().map(|event| (event["id"].as_str().unwrap(), event)).collect();
    assert_eq!(purchases.len(), orders.len());
    for row in orders {
        let purchase = purchases[row["order_id"].as_str().unwrap()];
        assert_eq!(purchase["total"].as_f64(), row["total"].as_f64(), "{purchase}");
        assert_eq!(purchase["email"], row["email"]);
    }
    let abandoned = of_kind("customEvent");
    assert_eq!(abandoned.len(), carts.len());
    assert!(abandoned.iter().all(|event| event["eventName"] == "cart.abandon" && event["total_cents"].is_i64()));
}
