//! Schemas and values, side by side: which forms a schema allows, whether a value has one of them, and how both are called in a
//! message.

use serde_json::{Number, Value as Json};

use super::schema::resolve;
use super::tree::{Node, Value};

/// Characters of a value that a message quotes.
const QUOTED_CHARS_MAX: usize = 60;

/// The forms among which a schema lets one choose.
pub(super) fn branches<'a>(root: &'a Json, schema: &'a Json) -> Vec<&'a Json> {
    let list = schema.get("oneOf").or_else(|| schema.get("anyOf")).and_then(Json::as_array);
    let mut flat = Vec::new();
    for branch in list.into_iter().flatten().map(|branch| resolve(root, branch)) {
        let inner = branches(root, branch);
        if inner.is_empty() { flat.push(branch) } else { flat.extend(inner) }
    }
    // A choice between constants only is one scalar with several values.
    if flat.iter().all(|branch| branch.get("const").is_some()) { Vec::new() } else { flat }
}

/// The constants that a schema allows, if it is made of constants.
pub(super) fn constants(root: &Json, schema: &Json) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(text) = schema.get("const").and_then(Json::as_str) {
        found.push(text.to_owned());
    }
    found.extend(
        schema.get("enum").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str).map(str::to_owned),
    );
    for branch in schema.get("oneOf").or_else(|| schema.get("anyOf")).and_then(Json::as_array).into_iter().flatten() {
        found.extend(constants(root, resolve(root, branch)));
    }
    found
}

/// The key whose constant value tells all branches apart.
pub(super) fn common_tag<'a>(branches: &[&'a Json]) -> Option<&'a str> {
    let first = branches.first()?.get("properties")?.as_object()?;
    let tag =
        first.keys().map(String::as_str).find(|key| branches.iter().all(|branch| tag_value(branch, key).is_some()))?;
    Some(tag)
}

pub(super) fn tag_value<'a>(branch: &'a Json, tag: &str) -> Option<&'a str> {
    branch.get("properties")?.get(tag)?.get("const")?.as_str()
}

pub(super) fn admits(schema: &Json, kind: &str) -> bool {
    match schema.get("type") {
        Some(Json::String(only)) => only == kind,
        Some(Json::Array(several)) => several.iter().any(|one| one == kind),
        // Without a type, a constant tells: all of ours are texts.
        _ => kind == "string" && (schema.get("const").is_some() || schema.get("enum").is_some()),
    }
}

/// The kinds of schema that can describe a node.
pub(super) fn kinds(node: &Node) -> &'static [&'static str] {
    match &node.value {
        Value::Null => &[],
        Value::Bool(_) => &["boolean"],
        Value::Number(_) => &["integer", "number"],
        Value::Text(text) if text.references().any => &["string", "boolean", "integer", "number"],
        Value::Text(_) => &["string"],
        Value::List(_) => &["array"],
        Value::Map(_) => &["object"],
    }
}

/// A scalar's text as the type that is wanted; a number stays the text that stands there where texts are allowed too.
pub(super) fn typed(text: &str, schema: &Json) -> Option<Json> {
    if admits(schema, "string") && (admits(schema, "number") || admits(schema, "integer")) {
        return Some(Json::String(text.to_owned()));
    }
    if admits(schema, "boolean")
        && let Ok(flag) = text.parse::<bool>()
    {
        return Some(Json::Bool(flag));
    }
    if admits(schema, "integer") {
        return text.parse::<i64>().ok().map(|number| Json::Number(number.into()));
    }
    if admits(schema, "number") {
        return text.parse::<f64>().ok().and_then(Number::from_f64).map(Json::Number);
    }
    None
}

/// Something of the right form that stands for a value that is not known.
pub(super) fn placeholder(outer: &Json, schema: &Json) -> Option<Json> {
    if let Some(default) = outer.get("default").or_else(|| schema.get("default")) {
        return Some(default.clone());
    }
    if let Some(least) = schema.get("minimum") {
        return Some(least.clone());
    }
    if admits(schema, "string") {
        Some(Json::String("unresolved".to_owned()))
    } else if admits(schema, "boolean") {
        Some(Json::Bool(false))
    } else {
        admits(schema, "array").then(|| Json::Array(Vec::new()))
    }
}

pub(super) fn is(outer: &Json, schema: &Json, keyword: &str) -> bool {
    outer.get(keyword).or_else(|| schema.get(keyword)).and_then(Json::as_bool) == Some(true)
}

pub(super) fn written(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Text(text) => Some(text.resolved()),
        Value::Number(text) => Some(text),
        Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) => None,
    }
}

/// A value as the file has it, cut to a length that fits a line. Never what a reference resolved to.
pub(super) fn quote(node: &Node) -> String {
    let text = match &node.value {
        Value::Text(text) => text.written(),
        Value::Number(text) => text,
        Value::Bool(true) => "true",
        Value::Bool(false) => "false",
        Value::Null => "null",
        Value::List(_) => "a list",
        Value::Map(_) => "a map",
    };
    let shown: String = text.chars().take(QUOTED_CHARS_MAX).collect();
    if shown.len() == text.len() { format!("`{text}`") } else { format!("`{shown}…`") }
}

pub(super) fn describe(node: &Node) -> String {
    match &node.value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(_) => format!("the truth value {}", quote(node)),
        Value::Number(_) => format!("the number {}", quote(node)),
        Value::Text(_) => format!("the text {}", quote(node)),
        Value::List(_) => "a list".to_owned(),
        Value::Map(_) => "a map".to_owned(),
    }
}

/// What a schema wants, in words.
pub(super) fn expectation(root: &Json, schema: &Json) -> String {
    if let Some(expected) = schema.get("x-expected").and_then(Json::as_str) {
        return expected.to_owned();
    }
    let choices = constants(root, schema);
    let forms = branches(root, schema);
    let mut words: Vec<String> = choices.iter().map(|choice| format!("`{choice}`")).collect();
    for form in forms.iter().filter(|form| constants(root, form).is_empty()) {
        words.push(expectation(root, form));
    }
    for (kind, word) in [
        ("object", "a map"),
        ("array", "a list"),
        ("boolean", "true or false"),
        ("integer", "a whole number"),
        ("number", "a number"),
        ("string", "a text"),
    ] {
        if forms.is_empty() && choices.is_empty() && admits(schema, kind) {
            words.push(match (kind, schema.get("properties").and_then(Json::as_object)) {
                ("object", Some(properties)) => {
                    format!(
                        "a map with {}",
                        properties.keys().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ")
                    )
                }
                _ => word.to_owned(),
            });
        }
    }
    words.join(" or ")
}

/// The known name that is meant, if one is near enough to be a slip of the pen.
pub(super) fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let plain = |text: &str| text.to_lowercase().replace(['-', '_'], "");
    let name = plain(name);
    known
        .map(|candidate| (strsim::damerau_levenshtein(&name, &plain(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= 1.max(candidate.chars().count() / 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// All patterns are our own; one that did not compile would admit everything, and a test compiles them all.
pub(super) fn matches_pattern(pattern: &str, text: &str) -> bool {
    regex::Regex::new(pattern).is_ok_and(|regex| regex.is_match(text))
}
