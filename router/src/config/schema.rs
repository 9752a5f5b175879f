//! The JSON Schema of the configuration, generated from the types that read it.
//!
//! It is both what editors check against (`tailwater config schema`) and what the walk over the tree follows, so that
//! the two cannot disagree. Own keywords begin with `x-`: `x-expected` says in words what a pattern means, `x-secret` marks a
//! value that must be a reference, `x-secret-names` a map in which the name of an entry tells.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::raw::RawConfig;

/// The schema, made once.
pub fn schema() -> &'static Value {
    static SCHEMA: LazyLock<Value> = LazyLock::new(generate);
    &SCHEMA
}

/// The schema as text, as `docs/reference/configuration.schema.json` holds it.
pub fn text() -> String {
    format!("{:#}\n", schema())
}

fn generate() -> Value {
    let mut schema = schemars::generate::SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<RawConfig>()
        .to_value();
    tidy(&mut schema);
    schema
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
