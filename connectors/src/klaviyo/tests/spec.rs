//! The vendor's own specification, held against every request of these tests. It lies outside of the project (it is the vendor's
//! text): beside the checkout, or where `TAILWATER_SPECS` says. Without it the checks are skipped, visibly.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};

use jsonschema::Validator;
use serde_json::{Value, json};

use super::server::Received;
use super::{config, klaviyo, person};
use crate::destination::{ClassifyInput, Destination};
use crate::http::{Endpoint, Window};
use crate::klaviyo::account::{MEDIA_TYPE, REVISION};
use crate::klaviyo::endpoint;
use crate::klaviyo::requests::{self, Field};

struct Spec {
    root: Value,
    validators: Mutex<BTreeMap<String, std::sync::Arc<Validator>>>,
}

fn spec() -> Option<&'static Spec> {
    static SPEC: OnceLock<Option<Spec>> = OnceLock::new();
    SPEC.get_or_init(|| {
        let folder = std::env::var_os("TAILWATER_SPECS")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/specs"), PathBuf::from);
        let path = folder.join(format!("klaviyo-{REVISION}.json"));
        let Ok(text) = std::fs::read(&path) else {
            // Past the capture of the test runner: a check that did not run must be seen.
            let skip = format!(
                "SKIPPED: requests are not held against Klaviyo's specification, {} is absent\n",
                path.display()
            );
            std::io::stderr().write_all(skip.as_bytes()).unwrap();
            return None;
        };
        let mut root: Value = serde_json::from_slice(&text).unwrap();
        from_openapi(&mut root);
        Some(Spec { root, validators: Mutex::default() })
    })
    .as_ref()
}

/// OpenAPI 3.0 says `nullable`; JSON Schema says that null is one of the types.
fn from_openapi(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.values_mut().for_each(from_openapi);
            if object.remove("nullable") == Some(Value::Bool(true)) {
                if let Some(kind) = object.get_mut("type") {
                    *kind = json!([kind.take(), "null"]);
                }
                if let Some(Value::Array(choices)) = object.get_mut("oneOf") {
                    choices.push(json!({"type": "null"}));
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(from_openapi),
        _ => {}
    }
}

/// The path of the specification that an address is one of, and its operation.
fn operation<'a>(spec: &'a Spec, method: &str, path: &str) -> Option<(&'a str, &'a Value)> {
    let paths = spec.root["paths"].as_object().unwrap();
    // A literal path wins over one with a placeholder.
    let mut matching: Vec<_> = paths.iter().filter(|(template, _)| fits(template, path)).collect();
    matching.sort_by_key(|(template, _)| template.matches('{').count());
    matching
        .into_iter()
        .find_map(|(template, operations)| Some((template.as_str(), operations.get(method.to_lowercase())?)))
}

fn fits(template: &str, path: &str) -> bool {
    let (template, path): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
    template.len() == path.len() && template.iter().zip(&path).all(|(one, other)| one.starts_with('{') || one == other)
}

/// Whether the vendor's specification has this request: path, method, query, headers and body.
pub fn check_request(request: &Received) -> Result<(), String> {
    let Some(spec) = spec() else { return Ok(()) };
    let name = format!("{} {}", request.method, request.path);
    let (template, operation) =
        operation(spec, &request.method, &request.path).ok_or_else(|| format!("{name}: no such operation"))?;
    let parameters: Vec<_> =
        operation["parameters"].as_array().unwrap().iter().filter(|parameter| parameter["in"] == "query").collect();
    for (key, value) in &request.query {
        let parameter = parameters
            .iter()
            .find(|parameter| parameter["name"] == key.as_str())
            .ok_or_else(|| format!("{name}: no parameter {key}"))?;
        if let Some(allowed) = parameter.pointer("/schema/items/enum").and_then(Value::as_array) {
            for part in value.split(',') {
                if !allowed.iter().any(|allowed| allowed == part) {
                    return Err(format!("{name}: {key} does not take {part}"));
                }
            }
        }
        if let Some(most) = parameter.pointer("/schema/maximum").and_then(Value::as_u64)
            && value.parse::<u64>().map_or(true, |value| value > most)
        {
            return Err(format!("{name}: {key} is {value}, at most {most} is taken"));
        }
    }
    for (header, expected) in
        [("authorization", format!("Klaviyo-API-Key {}", super::KEY)), ("revision", REVISION.to_owned())]
    {
        if request.headers.get(header) != Some(&expected) {
            return Err(format!("{name}: the header {header} is {:?}", request.headers.get(header)));
        }
    }
    let content = operation.pointer("/requestBody/content").and_then(Value::as_object);
    match (content, &request.body) {
        (None, Value::Null) => Ok(()),
        (None, _) => Err(format!("{name}: takes no body")),
        (Some(content), body) => {
            let sent = request.headers.get("content-type").map(String::as_str).unwrap_or_default();
            let media = content.get(sent).ok_or_else(|| format!("{name}: does not take {sent}"))?;
            let validator = validator(spec, template, &media["schema"]);
            if endpoint::ALL.into_iter().any(|endpoint| is_probe(endpoint, body)) {
                return Ok(());
            }
            let misfits: Vec<_> =
                validator.iter_errors(body).map(|error| format!("{}: {error}", error.instance_path())).collect();
            if misfits.is_empty() { Ok(()) } else { Err(format!("{name}: {}", misfits.join("; "))) }
        }
    }
}

/// A probe is incomplete on purpose.
fn is_probe(endpoint: &'static Endpoint, body: &Value) -> bool {
    let probe = requests::probe(endpoint).body;
    probe.is_some_and(|probe| serde_json::from_slice::<Value>(&probe).is_ok_and(|probe| probe == *body))
}

fn validator(spec: &Spec, template: &str, schema: &Value) -> std::sync::Arc<Validator> {
    let mut validators = spec.validators.lock().unwrap();
    let made = validators.entry(template.to_owned()).or_insert_with(|| {
        let mut document = schema.clone();
        document.as_object_mut().unwrap().insert("components".to_owned(), spec.root["components"].clone());
        std::sync::Arc::new(jsonschema::draft202012::new(&document).unwrap())
    });
    std::sync::Arc::clone(made)
}

/// Follows a `$ref`.
fn resolved<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    match schema.get("$ref").and_then(Value::as_str) {
        Some(reference) => resolved(root, root.pointer(reference.trim_start_matches('#')).unwrap()),
        None => schema,
    }
}

fn properties<'a>(root: &'a Value, schema: &'a Value, path: &[&str]) -> &'a serde_json::Map<String, Value> {
    let mut at = resolved(root, schema);
    for step in path {
        at = resolved(root, &at["properties"][*step]);
    }
    at["properties"].as_object().unwrap()
}

#[test]
fn what_the_specification_says_about_limits_is_what_is_kept() {
    let Some(spec) = spec() else { return };
    let requests = [
        (&endpoint::PROFILE_IMPORT, requests::upsert("{}")),
        (&endpoint::BULK_IMPORT, requests::bulk_import(std::iter::empty::<&str>(), &[])),
        (&endpoint::JOB, requests::job("J")),
        (&endpoint::JOB_ERRORS, requests::import_errors("J", Some("c"))),
        (&endpoint::LIST_PROFILES, requests::add_to_list("L", std::iter::empty())),
        (&endpoint::PROFILES, requests::look_up(Field::Email, &[])),
        (&endpoint::LISTS, requests::probe(&endpoint::LISTS)),
    ];
    for (endpoint, request) in requests {
        assert_eq!(request.endpoint.label, endpoint.label);
        let path = request.path.split('?').next().unwrap();
        let (_, operation) = operation(spec, request.method.as_str(), path).unwrap();
        let [burst, steady] = endpoint.rate.windows else { panic!("{path}: two windows") };
        assert_eq!(*burst, Window::per_second(burst.requests));
        assert_eq!(*steady, Window::per_minute(steady.requests));
        assert_eq!(operation["x-klaviyo-ratelimit"]["burst"], format!("{}/s", burst.requests), "{path}");
        assert_eq!(operation["x-klaviyo-ratelimit"]["steady"], format!("{}/m", steady.requests), "{path}");
        assert_eq!(operation["x-klaviyo-scopes"], json!(endpoint.scopes), "{path}");
        assert_eq!(endpoint.label.split(' ').next(), Some(request.method.as_str()));
    }
    let (_, events) = operation(spec, "POST", "/api/events").unwrap();
    assert_eq!(events["x-klaviyo-ratelimit"], json!({"burst": "350/s", "steady": "3500/m"}));
    assert_eq!(events["x-klaviyo-scopes"], json!(endpoint::EVENTS.scopes));
    assert_eq!(spec.root["info"]["version"], REVISION);
}

// Issue 10: the probe asked for one scope only.
#[test]
fn a_probe_needs_the_scopes_of_its_endpoint_and_changes_nothing() {
    let Some(spec) = spec() else { return };
    for endpoint in endpoint::ALL {
        let probe = requests::probe(endpoint);
        let path = probe.path.split('?').next().unwrap();
        let (_, operation) = operation(spec, probe.method.as_str(), path).unwrap();
        let asked: Vec<&str> =
            operation["x-klaviyo-scopes"].as_array().unwrap().iter().map(|scope| scope.as_str().unwrap()).collect();
        assert!(endpoint.scopes.iter().all(|scope| asked.contains(scope)), "{endpoint:?}: {asked:?}");
        if let Some(body) = probe.body {
            let schema = &operation["requestBody"]["content"][MEDIA_TYPE]["schema"];
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert!(!validator(spec, path, schema).is_valid(&body), "{endpoint:?}: the vendor could carry it out");
        }
    }
}

#[test]
fn every_attribute_of_the_specification_is_taken_or_refused_with_a_reason() {
    let Some(spec) = spec() else { return };
    let body = |path: &str| &spec.root["paths"][path]["post"]["requestBody"]["content"][MEDIA_TYPE]["schema"];
    let profile = properties(&spec.root, body("/api/profile-import"), &["data", "attributes"]);
    let location = properties(&spec.root, body("/api/profile-import"), &["data", "attributes", "location"]);
    let event = properties(&spec.root, body("/api/events"), &["data", "attributes"]);
    let klaviyo = klaviyo(crate::klaviyo::BASE_URL, config());
    let own = person(1);
    let identifiers: Vec<_> = own.iter().map(|(kind, value)| (kind.as_str(), value.as_str())).collect();
    let classify = |output: &Value| {
        let output = serde_json::value::RawValue::from_string(output.to_string()).unwrap();
        klaviyo.classify(&ClassifyInput {
            output: &output,
            route: "r",
            ordinal: 0,
            identifiers: &identifiers,
            time: tailwater_core::Timestamp::default(),
            non_finite: &[],
        })
    };
    let value = |name: &str| match name {
        "email" => json!(own[0].1),
        "phone_number" => json!(own[1].1),
        "external_id" => json!(own[2].1),
        "location" | "properties" => json!({}),
        "value" => json!(1.5),
        "backfill" => json!(true),
        "time" => json!("2026-03-01T08:00:00Z"),
        "metric" => json!("Placed Order"),
        "profile" => json!({"data": {"type": "profile", "attributes": {"email": own[0].1}}}),
        _ => json!("text"),
    };
    for name in profile.keys() {
        let taken =
            classify(&json!({"data": {"type": "profile", "attributes": {"email": own[0].1, name: value(name)}}}));
        match name.as_str() {
            "_kx" => assert!(taken.unwrap_err().message.contains("is refused"), "{name}"),
            _ => assert!(taken.is_ok(), "{name}: {taken:?}"),
        }
    }
    for name in location.keys() {
        let taken = classify(
            &json!({"data": {"type": "profile", "attributes": {"email": own[0].1, "location": {name: "text"}}}}),
        );
        assert!(taken.is_ok(), "{name}: {taken:?}");
    }
    for name in event.keys() {
        let mut attributes = json!({"metric": value("metric"), "profile": value("profile")});
        attributes[name.as_str()] = value(name);
        let taken = classify(&json!({"data": {"type": "event", "attributes": attributes}}));
        assert!(taken.is_ok(), "{name}: {taken:?}");
    }
    // And nothing that the specification does not have.
    let known = |names: &[(&str, crate::klaviyo::schema::Shape)], of: &serde_json::Map<String, Value>| {
        names.iter().for_each(|(name, _)| assert!(of.contains_key(*name), "{name} is not in the specification"));
    };
    known(crate::klaviyo::schema::PROFILE, profile);
    known(crate::klaviyo::schema::LOCATION, location);
    known(crate::klaviyo::schema::EVENT, event);
}

#[test]
fn the_specification_would_notice_a_wrong_request() {
    let Some(_) = spec() else { return };
    let headers = [
        ("authorization", format!("Klaviyo-API-Key {}", super::KEY)),
        ("revision", REVISION.to_owned()),
        ("content-type", MEDIA_TYPE.to_owned()),
    ];
    let good = Received {
        method: "POST".to_owned(),
        path: "/api/profile-import".to_owned(),
        query: BTreeMap::new(),
        headers: headers.map(|(name, value)| (name.to_owned(), value)).into(),
        body: json!({"data": {"type": "profile", "attributes": {"email": "a@example.com", "first_name": null}}}),
        body_bytes: 0,
    };
    check_request(&good).unwrap();
    let with = |change: &dyn Fn(&mut Received)| {
        let mut request = good.clone();
        change(&mut request);
        check_request(&request).unwrap_err()
    };
    assert!(with(&|request| request.path = "/api/profiles-import".to_owned()).contains("no such operation"));
    assert!(with(&|request| request.method = "DELETE".to_owned()).contains("no such operation"));
    assert!(with(&|request| request.body = json!({"data": {"type": "person", "attributes": {}}})).contains("type"));
    assert!(
        with(&|request| request.body = json!({"data": {"type": "profile", "attributes": {"first_name": 7}}}))
            .contains("first_name")
    );
    assert!(
        with(&|request| drop(request.headers.insert("revision".to_owned(), "2020".to_owned()))).contains("revision")
    );
    assert!(
        with(&|request| drop(request.query.insert("nonsense".to_owned(), "1".to_owned()))).contains("no parameter")
    );
}
