//! The vendor's own specification, checked against every request of these tests. It lies outside of the project (it is the vendor's
//! text): beside the checkout, or where `TAILWATER_SPECS` says. Without it the checks are skipped, visibly.
//!
//! The specification does not forbid fields that it does not have, and the vendor drops those in silence; so the check does.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

use jsonschema::Validator;
use serde_json::{Value, json};

use super::server::Received;
use crate::iterable::{endpoint, schema};

struct Spec {
    root: Value,
    validators: Mutex<BTreeMap<String, Arc<Validator>>>,
}

fn spec() -> Option<&'static Spec> {
    static SPEC: OnceLock<Option<Spec>> = OnceLock::new();
    SPEC.get_or_init(|| {
        let folder = std::env::var_os("TAILWATER_SPECS")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/specs"), PathBuf::from);
        let path = folder.join("iterable.json");
        let Ok(text) = std::fs::read(&path) else {
            // Past the capture of the test runner: a check that did not run must be seen.
            let skip = format!(
                "SKIPPED: requests are not checked against Iterable's specification, {} is absent\n",
                path.display()
            );
            std::io::stderr().write_all(skip.as_bytes()).unwrap();
            return None;
        };
        let mut root: Value = serde_json::from_slice(&text).unwrap();
        for definition in root["definitions"].as_object_mut().unwrap().values_mut() {
            if let Some(definition) =
                definition.as_object_mut().filter(|definition| definition.contains_key("properties"))
            {
                definition.insert("additionalProperties".to_owned(), Value::Bool(false));
            }
        }
        Some(Spec { root, validators: Mutex::default() })
    })
    .as_ref()
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
    let none = Vec::new();
    let parameters = operation["parameters"].as_array().unwrap_or(&none);
    for key in request.query.keys() {
        if !parameters.iter().any(|parameter| parameter["in"] == "query" && parameter["name"] == key.as_str()) {
            return Err(format!("{name}: no parameter {key}"));
        }
    }
    if request
        .query
        .keys()
        .chain(request.body.as_object().into_iter().flat_map(serde_json::Map::keys))
        .any(|key| key == "api_key")
    {
        return Err(format!("{name}: the key is outside of its header"));
    }
    if request.headers.get("api-key").map(String::as_str) != Some(super::KEY) {
        return Err(format!("{name}: the header api-key is {:?}", request.headers.get("api-key")));
    }
    let body = parameters.iter().find(|parameter| parameter["in"] == "body");
    match (body, &request.body) {
        (None, Value::Null) => Ok(()),
        (None, _) => Err(format!("{name}: takes no body")),
        (Some(parameter), body) => {
            let sent = request.headers.get("content-type").map(String::as_str);
            if sent != Some("application/json") {
                return Err(format!("{name}: the body is {sent:?}"));
            }
            let validator = validator(spec, &format!("{} {template}", request.method), &parameter["schema"]);
            let misfits: Vec<_> =
                validator.iter_errors(body).map(|error| format!("{}: {error}", error.instance_path())).collect();
            if misfits.is_empty() {
                both_identifiers(&name, body)
            } else {
                Err(format!("{name}: {}", misfits.join("; ")))
            }
        }
    }
}

/// "Provide an email or a userId (but not both)".
fn both_identifiers(name: &str, value: &Value) -> Result<(), String> {
    match value {
        Value::Object(object) if object.contains_key("email") && object.contains_key("userId") => {
            Err(format!("{name}: a person is named by both identifiers"))
        }
        Value::Object(object) => object
            .iter()
            .filter(|(key, _)| *key != "dataFields")
            .try_for_each(|(_, value)| both_identifiers(name, value)),
        Value::Array(items) => items.iter().try_for_each(|item| both_identifiers(name, item)),
        _ => Ok(()),
    }
}

fn validator(spec: &Spec, operation: &str, schema: &Value) -> Arc<Validator> {
    let mut validators = spec.validators.lock().unwrap();
    let made = validators.entry(operation.to_owned()).or_insert_with(|| {
        let mut document = schema.clone();
        document.as_object_mut().unwrap().insert("definitions".to_owned(), spec.root["definitions"].clone());
        Arc::new(jsonschema::draft4::new(&document).unwrap())
    });
    Arc::clone(made)
}

#[test]
fn the_endpoints_are_the_specifications_and_their_limits_are_kept() {
    let Some(spec) = spec() else { return };
    for endpoint in endpoint::ALL {
        let (method, path) = endpoint.label.split_once(' ').unwrap();
        let operation = &spec.root["paths"][path][method.to_lowercase()];
        assert!(operation.is_object(), "{}", endpoint.label);
        let text = operation["description"].as_str().unwrap_or_default();
        if let Some((_, limit)) = text.split_once("Rate limit</b>: ") {
            let documented: u32 = limit.split(' ').next().unwrap().replace(',', "").parse().unwrap();
            assert_eq!(endpoint.rate.windows[0].requests, documented, "{}", endpoint.label);
            assert_eq!(endpoint.rate.windows[0].per.as_secs(), 1, "{limit}");
        }
        if text.contains("Daily Cap") {
            assert!(text.contains("Daily Cap</b>: 1000"), "{text}");
            assert_eq!(endpoint.rate.windows[1].requests, 1_000);
        }
    }
}

#[test]
fn the_fields_are_the_specifications() {
    let Some(spec) = spec() else { return };
    let own = |names: &[(&str, schema::Shape)], others: &[&str]| {
        let mut names: Vec<String> =
            names.iter().map(|(name, _)| *name).chain(others.iter().copied()).map(str::to_owned).collect();
        names.sort_unstable();
        names
    };
    let of = |definition: &str| {
        let mut names: Vec<String> =
            spec.root["definitions"][definition]["properties"].as_object().unwrap().keys().cloned().collect();
        names.sort_unstable();
        names
    };
    let person = ["email", "userId", "dataFields"];
    assert_eq!(own(schema::USER, &person), of("ApiUserUpdateRequest"));
    assert_eq!(own(schema::EVENT, &person), of("TrackRequest"));
    assert_eq!(own(schema::PURCHASE, &["user", "items", "dataFields"]), of("TrackPurchaseRequest"));
    assert_eq!(own(schema::ITEM, &["dataFields"]), of("CommerceItem"));
    assert_eq!(own(schema::SUBSCRIPTIONS, &["email", "userId"]), of("UpdateSubscriptionsRequest"));
    let required = &spec.root["definitions"]["CommerceItem"]["required"];
    assert_eq!(required, &json!(schema::ITEM_REQUIRED));
}

#[test]
fn the_specification_would_notice_a_wrong_request() {
    let Some(_) = spec() else { return };
    let headers = [("api-key", super::KEY.to_owned()), ("content-type", "application/json".to_owned())];
    let good = Received {
        method: "POST".to_owned(),
        path: "/api/users/update".to_owned(),
        query: BTreeMap::new(),
        headers: headers.map(|(name, value)| (name.to_owned(), value)).into(),
        body: json!({"email": "a@example.com", "dataFields": {"x": 1}, "createNewFields": false}),
        body_bytes: 0,
    };
    check_request(&good).unwrap();
    let with = |change: &dyn Fn(&mut Received)| {
        let mut request = good.clone();
        change(&mut request);
        check_request(&request).unwrap_err()
    };
    assert!(with(&|request| request.path = "/api/users/upsert".to_owned()).contains("no such operation"));
    assert!(with(&|request| request.body["email"] = json!(7)).contains("email"));
    assert!(with(&|request| request.body["_operation"] = json!("x")).contains("_operation"));
    assert!(with(&|request| request.body["userId"] = json!("u")).contains("both identifiers"));
    assert!(with(&|request| drop(request.headers.remove("api-key"))).contains("api-key"));
    assert!(with(&|request| drop(request.query.insert("api_key".to_owned(), "1".to_owned()))).contains("no parameter"));
}
