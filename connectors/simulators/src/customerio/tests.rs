//! The simulator over real HTTP: what a client of the vendor sees, every refusal, and what is dropped without a word.

use std::time::Duration;

use reqwest::Client;
use serde_json::{Map, Value, json};

use crate::shape::against;

use super::shapes::ITEMS;
use super::vendor::TRACK_PATHS;
use super::*;

struct Vendor {
    simulator: Simulator,
    client: Client,
}

impl Vendor {
    async fn start() -> Self {
        let segments = vec![("7".to_owned(), "Trials".to_owned())];
        Self::with(Options { limits: false, segments, ..Options::default() }).await
    }

    async fn with(options: Options) -> Self {
        let client = Client::builder()
            .timeout(Duration::from_secs(10))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap();
        Self { simulator: Simulator::start(options).await.unwrap(), client }
    }

    fn request(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.post(format!("{}{path}", self.simulator.url())).header("content-type", "application/json")
    }

    async fn track(&self, path: &str, body: &Value) -> (u16, Value) {
        read(self.request(path).basic_auth(DEFAULT_SITE_ID, Some(DEFAULT_API_KEY)).body(body.to_string())).await
    }

    async fn entity(&self, item: Value) -> (u16, Value) {
        self.track("/api/v2/entity", &item).await
    }

    /// An entity that is accepted; returns what was dropped without a word.
    async fn dropped(&self, item: Value) -> usize {
        let (status, body) = self.entity(item.clone()).await;
        assert_eq!((status, &body), (200, &json!({})), "{item}");
        self.simulator.requests().pop().unwrap().dropped.len()
    }

    async fn identify(&self, id: &str, attributes: Value) {
        assert_eq!(self.dropped(identify(id, attributes)).await, 0);
    }

    async fn pipelines(&self, call: &str, body: &Value, strict: bool) -> (u16, Value) {
        let mut request =
            self.request(&format!("/v1/{call}")).basic_auth(DEFAULT_CDP_KEY, Some("")).body(body.to_string());
        if strict {
            request = request.header("x-strict-mode", "1");
        }
        read(request).await
    }

    fn person(&self, id: &str) -> Value {
        self.simulator.profile("id", id).unwrap_or_default()
    }
}

async fn read(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

fn identify(id: &str, attributes: Value) -> Value {
    json!({"type": "person", "identifiers": {"id": id}, "action": "identify", "attributes": attributes})
}

fn account(action: &str, id: &str) -> Value {
    json!({"type": "object", "identifiers": {"object_type_id": "1", "object_id": id}, "action": action})
}

fn refused(answer: &(u16, Value), field: &str) {
    assert_eq!((answer.0, answer.1["errors"][0]["field"].as_str()), (400, Some(field)), "{}", answer.1);
}

#[tokio::test]
async fn a_person_is_added_updated_and_deleted() {
    let vendor = Vendor::start().await;
    vendor.identify("1", json!({"email": "Ann@Example.com", "plan": "trial", "score": 0.5})).await;
    vendor.identify("1", json!({"plan": "paid", "score": null})).await;
    let person = vendor.person("1");
    assert_eq!(
        (&person["attributes"], &person["identifiers"]["email"]),
        (&json!({"plan": "paid"}), &json!("ann@example.com"))
    );
    let delete = json!({"type": "person", "identifiers": {"email": "ann@example.com"}, "action": "delete"});
    assert_eq!(vendor.dropped(delete.clone()).await, 0);
    assert_eq!((vendor.simulator.profiles().len(), vendor.dropped(delete).await), (0, 1));
}

#[tokio::test]
async fn what_an_item_may_not_say_is_refused_with_its_field() {
    let vendor = Vendor::start().await;
    let with = |field: &str, value: Value| {
        let mut item = identify("1", json!({}));
        item[field] = value;
        item
    };
    for (item, field) in [
        (with("type", json!("delivery")), "type"),
        (with("action", json!("upsert")), "action"),
        (with("traits", json!({})), "traits"),
        (with("timestamp", json!("2026-01-01")), "timestamp"),
        (with("identifiers", json!({})), "identifiers"),
        (with("identifiers", json!({"id": "1", "email": "a@b.co"})), "identifiers"),
        (with("identifiers", json!({"id": 1})), "identifiers.id"),
        (with("identifiers", json!({"id": "x".repeat(151)})), "identifiers.id"),
        (with("identifiers", json!({"email": "nobody"})), "identifiers.email"),
        (with("identifiers", json!({"phone": "0171"})), "identifiers.phone"),
        (with("attributes", json!({"x": "y".repeat(1_001)})), "attributes.x"),
        (
            with("cio_relationships", json!([{"identifiers": {"object_type_id": "9", "object_id": "a"}}])),
            "cio_relationships[0].identifiers.object_type_id",
        ),
        (json!({"type": "person", "identifiers": {"id": "1"}, "action": "event"}), "name"),
        (json!({"type": "person", "identifiers": {"id": "1"}, "action": "event", "name": "x".repeat(101)}), "name"),
        (json!({"type": "person", "identifiers": {"id": "1"}, "action": "event", "name": "a", "id": "order-1"}), "id"),
        (json!({"type": "person", "identifiers": {"id": "1"}, "action": "event", "name": "a", "data": {}}), "data"),
        (
            json!({"type": "person", "identifiers": {"id": "1"}, "action": "add_device", "device": {"token": "t", "platform": "web"}}),
            "device.platform",
        ),
        (
            json!({"type": "person", "action": "merge", "primary": {"id": "1"}, "secondary": {"id": "2"}, "identifiers": {"id": "1"}}),
            "identifiers",
        ),
        (
            json!({"type": "object", "identifiers": {"object_id": "a"}, "action": "identify"}),
            "identifiers.object_type_id",
        ),
    ] {
        refused(&vendor.entity(item).await, field);
    }
    refused(&vendor.entity(identify("1", json!({"a": "x".repeat(33_000)}))).await, "");
    assert_eq!(vendor.simulator.profiles().len(), 0);
}

#[tokio::test]
async fn a_batch_refuses_items_by_index_and_takes_the_others() {
    let vendor = Vendor::start().await;
    let batch = json!({"batch": [identify("1", json!({})), identify("", json!({})), account("identify", "acme"),
        identify("2", json!({"big": "x".repeat(33_000)})), identify("3", json!({}))]});
    let (status, answer) = vendor.track("/api/v2/batch", &batch).await;
    let places: Vec<_> =
        answer["errors"].as_array().unwrap().iter().map(|error| error["batch_index"].as_u64()).collect();
    assert_eq!((status, places), (207, vec![Some(1), Some(3)]));
    assert_eq!((vendor.simulator.profiles().len(), vendor.simulator.objects().len()), (2, 1));
    assert_eq!(vendor.track("/api/v2/batch", &json!({"batch": [identify("1", json!({}))]})).await, (200, json!({})));
    for bad in [json!({"batch": []}), json!({}), json!({"batch": [identify("1", json!({}))], "more": 1})] {
        refused(&vendor.track("/api/v2/batch", &bad).await, "batch");
    }
    let large: Vec<Value> =
        (0..20).map(|id| identify(&id.to_string(), json!({"a": "x".repeat(900), "b": "x".repeat(30_000)}))).collect();
    refused(&vendor.track("/api/v2/batch", &json!({ "batch": large })).await, "batch");
}

#[tokio::test]
async fn who_asks_is_checked_in_the_old_and_the_new_way() {
    let vendor = Vendor::start().await;
    let body = identify("1", json!({})).to_string();
    let request = || vendor.request("/api/v2/entity").body(body.clone());
    for wrong in [
        request(),
        request().basic_auth(DEFAULT_SITE_ID, Some("x")),
        request().bearer_auth(DEFAULT_API_KEY),
        request().basic_auth(DEFAULT_CDP_KEY, Some("")),
    ] {
        assert_eq!(read(wrong).await.0, 401);
    }
    assert_eq!(read(request().bearer_auth(DEFAULT_SECRET_KEY)).await.0, 200);
    let call = || vendor.request("/v1/identify").body(json!({"userId": "1"}).to_string());
    assert_eq!(read(call().bearer_auth(DEFAULT_SECRET_KEY).header("x-strict-mode", "1")).await.0, 200);
    assert_eq!(read(call().header("x-strict-mode", "1")).await.0, 401);
    // Without strict mode, a wrong key looks like a success.
    assert_eq!(read(call()).await.0, 200);
    assert_eq!(vendor.simulator.stats().dropped_silently, 1);
    assert_eq!(vendor.track("/api/v1/nothing", &json!({})).await.0, 404);
    assert_eq!(read(vendor.client.get(format!("{}/api/v2/entity", vendor.simulator.url()))).await.0, 405);
    let text = vendor.client.post(format!("{}/api/v2/entity", vendor.simulator.url())).bearer_auth(DEFAULT_SECRET_KEY);
    assert_eq!(read(text.body(body)).await.0, 400);
}

#[tokio::test]
async fn the_region_is_told_by_either_host_and_the_us_host_redirects() {
    let vendor = Vendor::with(Options { region: Region::Eu, ..Options::default() }).await;
    let region = vendor.client.get(format!("{}/api/v1/accounts/region", vendor.simulator.url()));
    assert_eq!(read(region.bearer_auth(DEFAULT_SECRET_KEY)).await.1["region"], "eu");
    let answer = vendor.request("/api/v2/entity").bearer_auth(DEFAULT_SECRET_KEY).body("{}").send().await.unwrap();
    assert_eq!(answer.status(), 307);
    assert_eq!(answer.headers()["location"], "https://track-eu.customer.io/api/v2/entity");
    vendor.simulator.change(|options| (options.region, options.host) = (Region::Us, Region::Eu));
    assert_eq!(vendor.entity(identify("1", json!({}))).await.0, 401);
}

#[tokio::test]
async fn a_stale_timestamp_is_dropped_with_a_200() {
    let vendor = Vendor::start().await;
    let at = |seconds: i64, plan: &str| {
        let mut item = identify("1", json!({ "plan": plan }));
        item["timestamp"] = json!(seconds);
        item
    };
    assert_eq!(vendor.dropped(at(1_700_000_100, "new")).await, 0);
    assert_eq!(vendor.dropped(at(1_700_000_000, "old")).await, 1);
    assert_eq!(vendor.person("1")["attributes"]["plan"], "new");
    // A time in milliseconds is far in the future: nothing newer ever comes.
    assert_eq!(vendor.dropped(at(1_700_000_200_000, "milliseconds")).await, 0);
    assert_eq!(vendor.dropped(at(1_700_000_300, "newer")).await, 1);
    assert_eq!(vendor.simulator.stats().dropped_silently, 2);
}

#[tokio::test]
async fn identifiers_move_only_by_cio_id_and_never_to_somebody_elses() {
    let vendor = Vendor::start().await;
    vendor.identify("1", json!({"email": "a@b.co"})).await;
    assert_eq!(vendor.dropped(identify("1", json!({"email": "c@b.co"}))).await, 1);
    assert_eq!(
        vendor.dropped(identify("2", json!({"email": "a@b.co"}))).await,
        1,
        "the email is that of another person"
    );
    let cio_id = vendor.person("1")["id"].clone();
    let change = json!({"type": "person", "identifiers": {"cio_id": cio_id}, "action": "identify", "attributes": {"email": "c@b.co"}});
    assert_eq!(vendor.dropped(change).await, 0);
    assert_eq!(vendor.person("1")["identifiers"]["email"], "c@b.co");
    // A new id with the email of somebody without an id updates that person.
    vendor.dropped(json!({"type": "person", "identifiers": {"email": "x@b.co"}, "action": "identify"})).await;
    vendor.identify("9", json!({"email": "x@b.co"})).await;
    assert_eq!(vendor.simulator.profiles().len(), 3);
    assert_eq!(vendor.dropped(identify("10", json!({"_update": true}))).await, 1);
    assert_eq!(vendor.simulator.profile("id", "10"), None);
}

#[tokio::test]
async fn an_event_counts_once_per_ulid() {
    let vendor = Vendor::start().await;
    let event = |person: &str, id: &str| json!({"type": "person", "identifiers": {"id": person}, "action": "event", "name": "purchase", "id": id, "attributes": {"total": 3}});
    assert_eq!(vendor.dropped(event("1", "01E4C4CT6YDC7Y5M7FE1GWWPQJ")).await, 0);
    assert_eq!(vendor.dropped(event("2", "01e4c4ct6ydc7y5m7fe1gwwpqj")).await, 1);
    assert_eq!((vendor.simulator.events().len(), vendor.simulator.stats().events_repeated), (1, 1));
    assert_eq!(vendor.simulator.profiles().len(), 1);
}

#[tokio::test]
async fn objects_come_before_their_relationships() {
    let vendor = Vendor::start().await;
    vendor.identify("1", json!({})).await;
    let relate = |action: &str| {
        json!({"type": "person", "identifiers": {"id": "1"}, "action": action,
            "cio_relationships": [{"identifiers": {"object_type_id": "1", "object_id": "acme"}, "relationship_attributes": {"role": "admin"}}]})
    };
    assert_eq!(vendor.dropped(relate("add_relationships")).await, 1, "there is no such object yet");
    let mut acme = account("identify", "acme");
    acme["attributes"] = json!({"name": "Acme"});
    assert_eq!(vendor.dropped(acme).await, 0);
    let mut delete = relate("delete_relationships");
    let mut add = relate("add_relationships");
    assert_eq!(vendor.dropped(add.take()).await, 0);
    assert_eq!(vendor.person("1")["relationships"][0]["attributes"]["role"], "admin");
    delete["cio_relationships"][0].as_object_mut().unwrap().remove("relationship_attributes");
    assert_eq!(vendor.dropped(delete).await, 0);
    let mut people = account("add_relationships", "acme");
    people["cio_relationships"] = json!([{"identifiers": {"id": "1"}}, {"identifiers": {"id": "nobody"}}]);
    assert_eq!(vendor.dropped(people).await, 1);
    assert_eq!(vendor.dropped(account("delete", "acme")).await, 0);
    assert_eq!(
        (vendor.person("1")["relationships"].clone(), vendor.dropped(account("delete", "acme")).await),
        (json!([]), 1)
    );
}

#[tokio::test]
async fn merging_suppressing_and_devices_do_what_they_say() {
    let vendor = Vendor::start().await;
    vendor.identify("1", json!({"a": 1})).await;
    vendor.identify("2", json!({"a": 2, "b": 2})).await;
    let merge = |primary: &str| json!({"type": "person", "action": "merge", "primary": {"id": primary}, "secondary": {"id": "2"}});
    assert_eq!(vendor.dropped(merge("nobody")).await, 1);
    assert_eq!(vendor.dropped(merge("1")).await, 0);
    assert_eq!((vendor.person("1")["attributes"].clone(), vendor.person("2")), (json!({"a": 1, "b": 2}), Value::Null));
    let bare = |action: &str| json!({"type": "person", "identifiers": {"id": "1"}, "action": action});
    let device = json!({"type": "person", "identifiers": {"id": "1"}, "action": "add_device", "device": {"token": "t", "platform": "ios"}});
    assert_eq!(vendor.dropped(device).await, 0);
    assert_eq!(vendor.person("1")["devices"]["t"]["platform"], "ios");
    assert_eq!(vendor.dropped(bare("suppress")).await, 0);
    assert_eq!(vendor.dropped(identify("1", json!({}))).await, 1);
    assert_eq!(vendor.dropped(bare("unsuppress")).await, 0);
    vendor.identify("1", json!({})).await;
}

#[tokio::test]
async fn a_segment_ignores_ids_that_it_does_not_know() {
    let vendor = Vendor::start().await;
    vendor.identify("1", json!({})).await;
    let path = "/api/v1/segments/7/add_customers";
    assert_eq!(vendor.track(path, &json!({"ids": ["1", "nobody"]})).await, (200, json!({})));
    assert_eq!(vendor.simulator.list("7").unwrap()["count"], 1);
    assert_eq!(vendor.simulator.requests().pop().unwrap().dropped.len(), 1);
    vendor.dropped(json!({"type": "person", "identifiers": {"email": "x@b.co"}, "action": "identify"})).await;
    vendor.track(&format!("{path}?id_type=email"), &json!({"ids": ["x@b.co"]})).await;
    let remove = "/api/v1/segments/7/remove_customers";
    vendor.track(&format!("{remove}?id_type=email"), &json!({"ids": ["x@b.co"]})).await;
    assert_eq!(vendor.simulator.list("7").unwrap()["count"], 2, "a person without an id cannot be removed");
    vendor.track(remove, &json!({"ids": ["1"]})).await;
    assert_eq!(vendor.simulator.list("7").unwrap()["count"], 1);
    let many: Vec<String> = (0..1_001).map(|id| id.to_string()).collect();
    for (path, body) in [
        (path, json!({"ids": []})),
        (path, json!({ "ids": many })),
        (path, json!({"ids": [1]})),
        ("/api/v1/segments/8/add_customers", json!({"ids": ["1"]})),
        ("/api/v1/segments/7/add_customers?id_type=phone", json!({"ids": ["1"]})),
    ] {
        assert_eq!(vendor.track(path, &body).await.0, 400, "{path}");
    }
}

#[tokio::test]
async fn pipelines_hides_what_is_wrong_unless_it_is_strict() {
    let vendor = Vendor::start().await;
    for (call, body, field) in [
        ("identify", json!({"traits": {}}), "userId"),
        ("identify", json!({"userId": "1", "trait": {}}), "trait"),
        ("identify", json!({"userId": 1}), "userId"),
        ("identify", json!({"userId": "1", "timestamp": 1_700_000_000}), "timestamp"),
        ("identify", json!({"userId": "1", "traits": {"x": "y".repeat(1_001)}}), "traits.x"),
        ("identify", json!({"userId": "1", "type": "track"}), "type"),
        ("track", json!({"userId": "1"}), "event"),
        ("group", json!({"userId": "1"}), "groupId"),
        ("alias", json!({"userId": "1"}), "previousId"),
        ("batch", json!({"batch": [{"type": "identify", "userId": "1"}, {"type": "nothing"}]}), "batch[1].type"),
        ("identify", json!({"userId": "1", "traits": {"a": "x".repeat(33_000)}}), ""),
    ] {
        refused(&vendor.pipelines(call, &body, true).await, field);
    }
    assert_eq!(vendor.simulator.profiles().len(), 0);
    assert_eq!(vendor.pipelines("identify", &json!({"traits": {}}), false).await, (200, json!({})));
    assert_eq!(vendor.simulator.stats().dropped_silently, 1);
    let batch = json!({"batch": [{"type": "identify", "userId": "1"}, {"type": "nothing"}]});
    assert_eq!(vendor.pipelines("batch", &batch, false).await.0, 200);
    assert_eq!((vendor.simulator.profiles().len(), vendor.simulator.stats().dropped_silently), (1, 2));
}

#[tokio::test]
async fn pipelines_calls_and_semantic_events_take_effect() {
    let vendor = Vendor::start().await;
    let call = async |name: &str, body: Value| assert_eq!(vendor.pipelines(name, &body, true).await.0, 200, "{body}");
    call("identify", json!({"type": "identify", "userId": "1", "traits": {"email": "a@b.co", "plan": "paid"}, "timestamp": "2026-01-02T03:04:05Z"})).await;
    call("track", json!({"userId": "1", "event": "upgrade", "properties": {"score": 0.7}, "messageId": "m1"})).await;
    call("track", json!({"userId": "1", "event": "upgrade", "messageId": "m1"})).await;
    call("group", json!({"userId": "1", "groupId": "acme", "traits": {"object_type_id": "1", "name": "Acme", "relationshipAttributes": {"role": "x"}}})).await;
    assert_eq!(vendor.person("1")["attributes"]["plan"], "paid");
    assert_eq!(
        (vendor.simulator.events().len(), vendor.simulator.objects()[0]["attributes"]["name"].clone()),
        (1, json!("Acme"))
    );
    assert_eq!(vendor.person("1")["relationships"][0]["attributes"]["role"], "x");
    call(
        "track",
        json!({"userId": "1", "event": "Relationship Deleted", "properties": {"objectId": "acme", "objectTypeId": 1}}),
    )
    .await;
    assert_eq!(vendor.person("1")["relationships"], json!([]));
    call(
        "track",
        json!({"anonymousId": "x", "event": "Object Deleted", "properties": {"objectId": "acme", "objectTypeId": 1}}),
    )
    .await;
    assert_eq!(vendor.simulator.objects().len(), 0);
    call("identify", json!({"userId": "2", "traits": {"extra": true}})).await;
    call("alias", json!({"userId": "1", "previousId": "2"})).await;
    assert_eq!(vendor.person("1")["attributes"]["extra"], true);
    call("track", json!({"userId": "1", "event": "User Deleted"})).await;
    assert_eq!(vendor.simulator.profiles().len(), 0);
}

#[tokio::test]
async fn limits_are_enforced_without_a_retry_after_unless_asked_for() {
    let vendor = Vendor::with(Options { track_per_second: 1, ..Options::default() }).await;
    let refused = async || {
        let body = identify("1", json!({})).to_string();
        loop {
            let request = vendor.request("/api/v2/entity").bearer_auth(DEFAULT_SECRET_KEY).body(body.clone());
            let answer = request.send().await.unwrap();
            if answer.status() == 429 {
                return answer.headers().contains_key("retry-after");
            }
        }
    };
    let refused =
        async || tokio::time::timeout(Duration::from_secs(10), refused()).await.expect("a second has two requests");
    assert!(!refused().await);
    vendor.simulator.change(|options| options.retry_after = true);
    assert!(refused().await);
}

/// Everything that a schema and what it is composed of say about properties.
fn composed(root: &Value, schema: &Value) -> (Map<String, Value>, Vec<String>) {
    let schema = against::resolved(root, schema);
    let mut properties = schema["properties"].as_object().cloned().unwrap_or_default();
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut required: Vec<String> = required.map(str::to_owned).collect();
    for part in schema["allOf"].as_array().into_iter().flatten() {
        let (more, needed) = composed(root, part);
        properties.extend(more);
        required.extend(needed);
    }
    (properties, required)
}

#[test]
fn items_are_those_of_the_specification() {
    let Some(spec) = against::specification("cio-track-api.json") else { return };
    let mut found = Vec::new();
    for (kind, action, shape, name) in ITEMS {
        let at = format!("{kind} {action}");
        let (properties, required) = composed(&spec, &spec["components"]["schemas"][*name]);
        let actions = against::resolved(&spec, &properties["action"])["enum"].clone();
        if actions != json!([action]) {
            found.push(format!("{at}: {name} is of {actions}"));
        }
        let crate::shape::Shape::Object(fields) = shape else { panic!() };
        for property in properties.keys().filter(|property| fields.iter().all(|field| field.name != property.as_str()))
        {
            found.push(format!("{at}: {property} only there"));
        }
        for field in *fields {
            match properties.get(field.name) {
                None => found.push(format!("{at}: {} only here", field.name)),
                Some(_) if required.iter().any(|name| name == field.name) && !field.required => {
                    found.push(format!("{at}: {} required there only", field.name));
                }
                Some(schema) => {
                    let kind = against::resolved(&spec, schema)["type"].as_str().unwrap_or("object").to_owned();
                    let own = match field.shape {
                        crate::shape::Shape::Text => "string",
                        crate::shape::Shape::Integer => "integer",
                        crate::shape::Shape::List(_) => "array",
                        _ => "object",
                    };
                    if kind != own {
                        found.push(format!("{at}: {} is {kind} there and {own} here", field.name));
                    }
                }
            }
        }
    }
    for (method, path) in TRACK_PATHS {
        if spec["paths"][*path][*method].is_null() {
            found.push(format!("{method} {path}: no such operation"));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn calls_and_their_fields_are_those_of_the_pipelines_specification() {
    let Some(spec) = against::specification("cio-pipelines-api.json") else { return };
    let mut known: std::collections::BTreeSet<String> = std::collections::BTreeSet::new();
    fn gather(root: &Value, schema: &Value, known: &mut std::collections::BTreeSet<String>) {
        let schema = against::resolved(root, schema);
        known.extend(schema["properties"].as_object().into_iter().flatten().map(|(name, _)| name.clone()));
        for part in ["allOf", "oneOf", "anyOf"].iter().filter_map(|kind| schema[*kind].as_array()).flatten() {
            gather(root, part, known);
        }
    }
    for call in super::pipelines::CALLS {
        let operation = &spec["paths"][format!("/{call}")]["post"];
        assert!(!operation.is_null(), "{call}");
        if *call != "batch" {
            gather(&spec, &operation["requestBody"]["content"]["application/json"]["schema"], &mut known);
        }
    }
    let here: std::collections::BTreeSet<String> =
        super::shapes::MESSAGE.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(here, known);
}
