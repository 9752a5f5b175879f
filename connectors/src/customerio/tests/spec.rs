//! The vendor's own specifications, against which every request of these tests is checked. They lie outside of the project (they are the
//! vendor's text): beside the checkout, or where `TAILWATER_SPECS` says. Without them the checks are skipped, visibly.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

use jsonschema::Validator;
use serde_json::{Value, json};

use super::{KEY, customerio, delivery};
use crate::customerio::payload::Payload;
use crate::customerio::{Api, endpoint, pipelines, requests};
use crate::scripted::Received;

struct Spec {
    root: Value,
    validators: Mutex<BTreeMap<String, Arc<Validator>>>,
}

struct Specs {
    track: Spec,
    pipelines: Spec,
}

fn specs() -> Option<&'static Specs> {
    static SPECS: OnceLock<Option<Specs>> = OnceLock::new();
    SPECS
        .get_or_init(|| {
            let folder = std::env::var_os("TAILWATER_SPECS")
                .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/specs"), PathBuf::from);
            let read = |name: &str, lenient: bool| {
                let path = folder.join(name);
                let Ok(text) = std::fs::read(&path) else {
                    // Past the capture of the test runner: a check that did not run must be seen.
                    let skip = format!(
                        "SKIPPED: requests are not checked against Customer.io's specification, {} is absent\n",
                        path.display()
                    );
                    std::io::stderr().write_all(skip.as_bytes()).unwrap();
                    return None;
                };
                let mut root: Value = serde_json::from_slice(&text).unwrap();
                if lenient {
                    any_of(&mut root);
                }
                Some(Spec { root, validators: Mutex::default() })
            };
            // The choices of the second one overlap: a call with a user and a browser fits two of them.
            Some(Specs { track: read("cio-track-api.json", false)?, pipelines: read("cio-pipelines-api.json", true)? })
        })
        .as_ref()
}

fn any_of(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.values_mut().for_each(any_of);
            if let Some(choices) = object.remove("oneOf") {
                object.insert("anyOf".to_owned(), choices);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(any_of),
        _ => {}
    }
}

fn fits(template: &str, path: &str) -> bool {
    let (template, path): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
    template.len() == path.len() && template.iter().zip(&path).all(|(one, other)| one.starts_with('{') || one == other)
}

/// Follows a `$ref`.
fn resolved<'a>(root: &'a Value, value: &'a Value) -> &'a Value {
    match value.get("$ref").and_then(Value::as_str) {
        Some(reference) => resolved(root, root.pointer(reference.trim_start_matches('#')).unwrap()),
        None => value,
    }
}

/// Whether one of the vendor's specifications has this request: path, method, query, headers and body.
pub fn check_request(request: &Received) -> Result<(), String> {
    let Some(specs) = specs() else { return Ok(()) };
    let name = format!("{} {}", request.method, request.path);
    let (spec, path) = match request.path.strip_prefix("/v1") {
        Some(path) => (&specs.pipelines, path),
        None => (&specs.track, request.path.as_str()),
    };
    let paths = spec.root["paths"].as_object().unwrap();
    let (template, operations) =
        paths.iter().find(|(template, _)| fits(template, path)).ok_or_else(|| format!("{name}: no such path"))?;
    let operation = operations.get(request.method.to_lowercase()).ok_or_else(|| format!("{name}: no such method"))?;
    let parameters: Vec<&Value> = [operation, operations]
        .into_iter()
        .filter_map(|holder| holder["parameters"].as_array())
        .flatten()
        .map(|parameter| resolved(&spec.root, parameter))
        .collect();
    for (key, value) in &request.query {
        let parameter = parameters
            .iter()
            .find(|parameter| parameter["in"] == "query" && parameter["name"] == key.as_str())
            .ok_or_else(|| format!("{name}: no parameter {key}"))?;
        let allowed = parameter.pointer("/schema/enum").and_then(Value::as_array);
        if allowed.is_some_and(|allowed| !allowed.iter().any(|allowed| allowed == value)) {
            return Err(format!("{name}: {key} does not take {value}"));
        }
    }
    if request.headers.get("authorization") != Some(&format!("Bearer {KEY}")) {
        return Err(format!("{name}: the credentials are {:?}", request.headers.get("authorization")));
    }
    // Without it, the vendor answers 200 to what it drops.
    let strict = request.headers.get("x-strict-mode").map(String::as_str);
    if parameters.iter().any(|parameter| parameter["name"] == "X-Strict-Mode") != (strict == Some("1")) {
        return Err(format!("{name}: the header x-strict-mode is {strict:?}"));
    }
    match operation.pointer("/requestBody/content/application~1json/schema") {
        None if request.body.is_null() => Ok(()),
        None => Err(format!("{name}: takes no body")),
        Some(schema) => misfit(spec, template, schema, &request.body).map_err(|misfit| format!("{name}: {misfit}")),
    }
}

fn misfit(spec: &Spec, name: &str, schema: &Value, body: &Value) -> Result<(), String> {
    let validator = {
        let mut validators = spec.validators.lock().unwrap();
        let made = validators.entry(name.to_owned()).or_insert_with(|| {
            let mut document = schema.clone();
            document.as_object_mut().unwrap().insert("components".to_owned(), spec.root["components"].clone());
            Arc::new(jsonschema::draft202012::new(&document).unwrap())
        });
        Arc::clone(made)
    };
    let misfits: Vec<_> =
        validator.iter_errors(body).map(|error| format!("{}: {error}", error.instance_path())).collect();
    if misfits.is_empty() { Ok(()) } else { Err(misfits.join("; ")) }
}

fn post(path: &str, body: Value) -> Received {
    let mut headers = BTreeMap::from([("authorization".to_owned(), format!("Bearer {KEY}"))]);
    if path.starts_with("/v1") {
        headers.insert("x-strict-mode".to_owned(), "1".to_owned());
    }
    Received {
        method: "POST".to_owned(),
        path: path.to_owned(),
        query: BTreeMap::new(),
        headers,
        body_bytes: body.to_string().len(),
        body,
    }
}

#[test]
fn the_specification_would_notice_a_wrong_request() {
    let Some(_) = specs() else { return };
    let good =
        json!({"type": "person", "identifiers": {"id": "42"}, "action": "identify", "attributes": {"plan": "pro"}});
    check_request(&post("/api/v2/entity", good.clone())).unwrap();
    check_request(&post("/api/v2/batch", json!({"batch": [good]}))).unwrap();
    check_request(&post("/v1/identify", json!({"type": "identify", "userId": "42", "traits": {}}))).unwrap();
    let with = |path: &str, pointer: &str, value: Value| {
        let mut body = good.clone();
        if let Some(place) = body.pointer_mut(pointer) {
            *place = value;
        }
        check_request(&post(path, body)).unwrap_err()
    };
    assert!(with("/api/v2/entities", "", json!({})).contains("no such path"));
    with("/api/v2/entity", "/identifiers", json!({"id": "42", "email": "a@b.co"}));
    with("/api/v2/entity", "/action", json!("upsert"));
    with("/api/v2/entity", "/attributes", json!([]));
    let mut without = post("/v1/identify", json!({"type": "identify", "userId": "42"}));
    without.headers.remove("x-strict-mode");
    assert!(check_request(&without).unwrap_err().contains("x-strict-mode"));
    assert!(check_request(&post("/v1/track", json!({"type": "track", "userId": "42"}))).is_err());
}

/// What an author may return, each with both forms of it.
fn outputs() -> Vec<Value> {
    let relation = json!({"identifiers": {"object_type_id": "1", "object_id": "acme"}, "relationship_attributes": {"role": "admin"}});
    let person = |action: &str, name: &str, value: Value| json!({"type": "person", "identifiers": {"id": "1"}, "action": action, name: value});
    vec![
        person(
            "identify",
            "attributes",
            json!({"email": super::email(1), "plan": "pro", "tags": ["a"], "nested": {"a": 1}}),
        ),
        person("event", "name", json!("upgrade_likely")),
        person("page", "name", json!("/pricing")),
        person("screen", "name", json!("Feed")),
        person("add_relationships", "cio_relationships", json!([relation])),
        person("delete_relationships", "cio_relationships", json!([relation])),
        person("add_device", "device", json!({"token": "t", "platform": "ios"})),
        person("delete_device", "device", json!({"token": "t"})),
        json!({"type": "person", "identifiers": {"id": "1"}, "action": "delete"}),
        json!({"type": "person", "identifiers": {"id": "1"}, "action": "suppress"}),
        json!({"type": "person", "identifiers": {"id": "1"}, "action": "unsuppress"}),
        json!({"type": "object", "identifiers": {"object_type_id": "1", "object_id": "acme"}, "action": "delete"}),
        json!({"type": "identify", "userId": "1", "traits": {"plan": "pro"}, "context": {"ip": "8.8.8.8"}}),
        json!({"type": "identify", "userId": "1", "_operation": "unsubscribe", "traits": {"unsubscribed": true}}),
        json!({"type": "group", "userId": "1", "groupId": "acme", "traits": {"plan": "pro", "relationshipAttributes": {"role": "x"}}}),
    ]
}

/// Also those that the Track API alone can carry out.
fn track_outputs() -> Vec<Value> {
    let mut outputs = outputs();
    outputs.extend([
        json!({"type": "person", "action": "merge", "primary": {"id": "1"}, "secondary": {"email": super::email(1)}}),
        json!({"type": "person", "identifiers": {"email": super::email(1)}, "action": "identify", "timestamp": 1_772_352_000_267_i64, "attributes": {"created_at": 1_772_352_000_267_i64}}),
        json!({"type": "person", "identifiers": {"id": "1"}, "action": "add_device", "device": {"token": "t", "platform": "android", "last_used": 1_772_352_000, "attributes": {"push_enabled": true, "app": 7}}}),
        json!({"type": "object", "identifiers": {"object_type_id": 1, "object_id": "acme"}, "action": "identify", "attributes": {"seats": 50}}),
        json!({"type": "object", "identifiers": {"cio_object_id": "obb7"}, "action": "identify", "attributes": {"seats": 50}}),
    ]);
    outputs
}

#[test]
fn every_item_fits_the_specification_alone_and_in_a_batch() {
    if specs().is_none() {
        return;
    }
    for (api, outputs, single, many) in
        [(Api::Track, track_outputs(), "/api/v2/entity", "/api/v2/batch"), (Api::Pipelines, outputs(), "", "/v1/batch")]
    {
        let customerio = customerio("http://127.0.0.1:1", api);
        for output in outputs {
            for delivery in super::deliveries(&customerio, 1, &output) {
                let item = requests::item(api, &delivery).unwrap();
                let body: Value = serde_json::from_str(&item.body).unwrap();
                let path = if single.is_empty() { item.path.as_str() } else { single };
                check_request(&post(path, body.clone()))
                    .unwrap_or_else(|misfit| panic!("{output}: {misfit} in {body}"));
                if !item.alone {
                    check_request(&post(many, json!({"batch": [body, body]}))).unwrap();
                }
                if let Some(first) = requests::existence(&delivery) {
                    check_request(&post("/api/v2/entity", serde_json::from_str(&first.body).unwrap())).unwrap();
                }
            }
        }
    }
}

#[test]
fn events_that_the_pipelines_api_carries_out_fit_their_own_schemas() {
    let Some(specs) = specs() else { return };
    let customerio = customerio("http://127.0.0.1:1", Api::Pipelines);
    let mut seen = 0;
    for output in outputs() {
        let delivery = &super::deliveries(&customerio, 1, &output)[0];
        let call = pipelines::call(&Payload::of(&delivery.operation).unwrap(), "").unwrap();
        let call: Value = serde_json::from_str(&call.body).unwrap();
        let schema = match call["event"].as_str() {
            Some("Device Created or Updated") => "create_update_device",
            Some("Device Deleted") => "delete_device",
            Some("User Deleted") => "delete_person",
            Some("User Suppressed") => "suppress_person",
            Some("User Unsuppressed") => "unsuppress_person",
            Some("Relationship Deleted") => "relationship_deleted",
            Some("Object Deleted") => "group_deleted",
            _ => continue,
        };
        seen += 1;
        misfit(&specs.pipelines, schema, &specs.pipelines.root["components"]["schemas"][schema], &call)
            .unwrap_or_else(|misfit| panic!("{schema}: {misfit} in {call}"));
    }
    assert_eq!(seen, 7);
}

#[test]
fn what_the_specifications_say_about_limits_is_what_is_kept() {
    let Some(specs) = specs() else { return };
    let text = |spec: &Spec| spec.root["info"]["description"].as_str().unwrap().to_owned();
    let (track, pipelines) = (text(&specs.track), text(&specs.pipelines));
    for said in [
        "rate limit of 1000 requests per second",
        "| ID | 150 bytes |",
        "| Attribute Name | 150 bytes |",
        "| Attribute Value | 1000 bytes |",
        "| Unique attributes | 300 |",
        "| Event Name | 100 bytes |",
        "limited to requests 32kb or smaller",
        "limited to requests 500kb or smaller",
    ] {
        assert!(track.contains(said), "{said}");
    }
    for said in ["3000 requests per 3 seconds", "A request is limited to 32KB", "500KB total and 32KB per call"] {
        assert!(pipelines.contains(said), "{said}");
    }
    let ids = specs.track.root.pointer("/paths/~1api~1v1~1segments~1{segment_id}~1add_customers/post/requestBody/content/application~1json/schema/properties/ids/maxItems");
    assert_eq!(ids, Some(&json!(crate::customerio::limits::SEGMENT_IDS_MAX)));
    let mut labels = [&endpoint::ENTITY, &endpoint::BATCH, &endpoint::REGION]
        .map(|endpoint| endpoint.label.split_once(' ').unwrap());
    labels.sort_unstable();
    for (method, path) in labels {
        assert!(specs.track.root["paths"][path].get(method.to_lowercase()).is_some(), "{method} {path}");
    }
}

#[test]
fn an_event_has_the_deliverys_ulid() {
    for api in [Api::Track, Api::Pipelines] {
        let customerio = customerio("http://127.0.0.1:1", api);
        let event = |number| {
            let output = json!({"type": "track", "userId": number, "event": "x"});
            requests::item(api, &delivery(&customerio, number, &output)).unwrap().body
        };
        let body: Value = serde_json::from_str(&event(1)).unwrap();
        let id = body[if api == Api::Track { "id" } else { "messageId" }].as_str().unwrap().to_owned();
        assert!(crate::customerio::ulid::is_valid(&id) && id.starts_with("01K"), "{id}");
        assert_eq!(event(1), event(1));
        assert!(!event(2).contains(&id));
    }
}
