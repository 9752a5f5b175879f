//! The JSON Schema of the configuration, generated from the types that read it.
//!
//! It is both what editors check against (`tailwater config schema`) and what the walk over the tree follows, so that
//! the two cannot disagree. Own keywords begin with `x-`: `x-expected` says in words what a pattern means, `x-secret` marks a
//! value that must be a reference, `x-secret-names` a map in which the name of an entry tells, `x-renamed` maps a former key to the
//! present one, `x-by-account` marks a section whose kind its account tells, and `x-kind` names such a kind.
//!
//! Accounts and the own keys of destinations come from the connectors. A destination has no `type` of its own, so the document allows
//! the keys of any one kind beside the shared keys; the walk knows the account and allows only those of its kind.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};
use tailwater_connectors::Kind;
use tailwater_connectors::registry::KINDS;

use super::raw::RawConfig;

/// The schema of a configuration, for certain kinds of destination.
pub struct Schema {
    /// The document.
    pub root: Value,
    /// The keys that all destinations share.
    pub shared: Value,
    kinds: Vec<KindSchema>,
}

/// What a destination of one kind may say.
struct KindSchema {
    kind: &'static str,
    /// Shared and own keys together.
    destination: Value,
    own: Vec<String>,
}

/// The schema for all kinds of the registry, made once.
pub fn schema() -> &'static Schema {
    static SCHEMA: LazyLock<Schema> = LazyLock::new(|| Schema::of(KINDS));
    &SCHEMA
}

/// The schema as text, as `docs/reference/configuration.schema.json` holds it.
pub fn text() -> String {
    format!("{:#}\n", schema().root)
}

// === impl Schema ===

impl Schema {
    pub fn of(kinds: &[Kind]) -> Self {
        let mut generator = schemars::generate::SchemaSettings::draft2020_12().into_generator();
        let parts: Vec<(&'static str, Value, Value)> = kinds
            .iter()
            .map(|kind| {
                let account = tidied(kind.account_schema(&mut generator));
                (kind.spec().kind, account, tidied(kind.options_schema(&mut generator)))
            })
            .collect();
        let mut root = tidied(generator.into_root_schema_for::<RawConfig>());
        let shared = definition(&mut root, "RawDestination").cloned().unwrap_or_default();
        let kinds: Vec<KindSchema> = parts
            .iter()
            .map(|(kind, _, options)| KindSchema {
                kind,
                destination: joined(&shared, options, kind),
                own: keys(options).map(str::to_owned).collect(),
            })
            .collect();
        if let Some(account) = definition(&mut root, "RawAccount") {
            let description = account.get("description").cloned();
            let tagged: Vec<Value> = parts.iter().map(|(kind, account, _)| tagged(kind, account)).collect();
            *account = json!({ "oneOf": tagged });
            set(account, "description", description);
        }
        if let Some(Value::Object(destination)) = definition(&mut root, "RawDestination") {
            destination.shift_remove("additionalProperties");
            let own = parts.iter().map(|(kind, _, options)| {
                let mut own = options.clone();
                if let Some(own) = own.as_object_mut() {
                    own.shift_remove("additionalProperties");
                    own.insert("x-kind".to_owned(), json!(kind));
                }
                own
            });
            destination.insert("anyOf".to_owned(), own.collect());
            destination.insert("unevaluatedProperties".to_owned(), json!(false));
            destination.insert("x-by-account".to_owned(), json!(true));
        }
        Self { root, shared, kinds }
    }

    /// A destination of that kind: shared and own keys.
    pub fn destination(&self, kind: &str) -> Option<&Value> {
        self.kinds.iter().find(|one| one.kind == kind).map(|one| &one.destination)
    }

    /// Whether a key of a destination is one that all kinds share.
    pub fn is_shared(&self, key: &str) -> bool {
        keys(&self.shared).any(|shared| shared == key)
    }

    /// The kinds of destination that have a key of their own of that name.
    pub fn kinds_with<'s>(&'s self, key: &'s str) -> impl Iterator<Item = &'static str> + 's {
        self.kinds.iter().filter(move |one| one.own.iter().any(|own| own == key)).map(|one| one.kind)
    }
}

fn tidied(schema: schemars::Schema) -> Value {
    let mut schema = schema.to_value();
    tidy(&mut schema);
    schema
}

fn definition<'r>(root: &'r mut Value, name: &str) -> Option<&'r mut Value> {
    root.get_mut("$defs")?.get_mut(name)
}

fn keys(schema: &Value) -> impl Iterator<Item = &str> {
    let properties = schema.get("properties").and_then(Value::as_object);
    properties.into_iter().flat_map(|properties| properties.keys()).map(String::as_str)
}

/// An account with its tag, first as everywhere.
fn tagged(kind: &str, account: &Value) -> Value {
    let tag = json!({ "properties": { "type": { "type": "string", "const": kind } }, "required": ["type"] });
    let (properties, required) = both(&tag, account);
    let mut tagged = json!({
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
        "required": required,
    });
    set(&mut tagged, "description", account.get("description").cloned());
    tagged
}

/// The shared keys of destinations and those of a kind.
fn joined(shared: &Value, options: &Value, kind: &str) -> Value {
    let (properties, required) = both(shared, options);
    let mut joined = shared.clone();
    set(&mut joined, "properties", Some(Value::Object(properties)));
    set(&mut joined, "required", Some(Value::Array(required)));
    set(&mut joined, "x-kind", Some(json!(kind)));
    joined
}

/// The properties and the required keys of two objects.
fn both(one: &Value, other: &Value) -> (Map<String, Value>, Vec<Value>) {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for schema in [one, other] {
        properties.extend(schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default());
        required.extend(schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default());
    }
    (properties, required)
}

fn set(schema: &mut Value, key: &str, value: Option<Value>) {
    if let (Some(object), Some(value)) = (schema.as_object_mut(), value) {
        object.insert(key.to_owned(), value);
    }
}

/// An optional key may be left out; that it might also be `null` is Rust's view of it, not the operator's.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            drop_null(object);
            join_lines(object);
            object.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn drop_null(object: &mut Map<String, Value>) {
    if object.get("default").is_some_and(Value::is_null) {
        object.shift_remove("default");
    }
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(branches)) = object.get_mut("anyOf") {
        branches.retain(|branch| branch.get("type").is_none_or(|name| name != "null"));
        if let [only] = branches.as_mut_slice() {
            let only = only.take();
            object.shift_remove("anyOf");
            if let Value::Object(only) = only {
                for (key, value) in only {
                    object.entry(key).or_insert(value);
                }
            }
        }
    }
}

/// The line breaks of a doc comment are the source's; only empty lines part paragraphs.
fn join_lines(object: &mut Map<String, Value>) {
    if let Some(Value::String(text)) = object.get_mut("description") {
        *text = text.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect::<Vec<_>>().join("\n\n");
    }
}

/// Follows a `$ref`. What stands beside the reference (a description, a default) wins over what it leads to.
pub(super) fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    let mut schema = schema;
    // A schema of ours never refers to itself; the bound is for the day on which one does.
    for _ in 0..16 {
        let Some(name) =
            schema.get("$ref").and_then(Value::as_str).and_then(|reference| reference.strip_prefix("#/$defs/"))
        else {
            break;
        };
        let Some(target) = root.get("$defs").and_then(|defs| defs.get(name)) else { break };
        schema = target;
    }
    schema
}
