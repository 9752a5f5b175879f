//! Holds the tree against the schema and finds everything that is wrong with its form, at once.
//!
//! What comes out beside the problems is the tree as JSON *without* the parts that are wrong, so that the checks of meaning
//! can run on the rest: an unknown key in one destination must not hide a wrong reference in another.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json};
use tailwater_core::code;

use super::forms::{
    admits, branches, common_tag, constants, describe, expectation, is, kinds, matches_pattern, nearest, placeholder,
    quote, tag_value, typed, written,
};
use super::problem::{Path, Problem};
use super::schema::{Schema, resolve};
use super::secrets;
use super::tree::{Entry, Node, Value};

pub(super) struct Walk<'a> {
    schema: &'a Schema,
    root: &'a Json,
    /// The kind of each account: it is the kind of the destinations that use it.
    kinds: BTreeMap<String, String>,
    pub problems: Vec<Problem>,
    /// Values that are missing, wrong or could not be resolved: a placeholder stands for each, so nothing may be said about their meaning.
    pub unresolved: BTreeSet<Path>,
}

impl<'a> Walk<'a> {
    pub fn new(schema: &'a Schema) -> Self {
        Self { schema, root: &schema.root, kinds: BTreeMap::new(), problems: Vec::new(), unresolved: BTreeSet::new() }
    }

    /// The whole tree.
    pub fn tree(&mut self, node: &Node) -> Option<Json> {
        for entry in node.get("accounts").map(Node::entries).unwrap_or_default() {
            if let Some(Value::Text(kind)) = entry.node.get("type").map(|kind| &kind.value) {
                self.kinds.insert(entry.key.clone(), kind.resolved().to_owned());
            }
        }
        match node.value {
            Value::Null => self.map(&[], node, self.root, &Path::default()),
            _ => self.value(node, self.root, &Path::default()),
        }
    }

    /// One value against its schema; `None` when it is of no use, which has been reported then.
    fn value(&mut self, node: &Node, schema: &'a Json, path: &Path) -> Option<Json> {
        let outer = schema;
        let schema = resolve(self.root, schema);
        if is(outer, schema, "x-secret") && !self.secret_is_reference(node, path) {
            return None;
        }
        if let Value::Text(text) = &node.value
            && text.references().unresolved
        {
            self.unresolved.insert(path.clone());
            return placeholder(outer, schema);
        }
        if is(outer, schema, "x-by-account") {
            return self.destination(node, path);
        }
        let branches = branches(self.root, schema);
        if !branches.is_empty() {
            return self.one_of(node, schema, &branches, path);
        }
        match &node.value {
            Value::Map(entries) if admits(schema, "object") => self.map(entries, node, schema, path),
            Value::List(items) if admits(schema, "array") => self.list(items, node, schema, path),
            _ => self.scalar(node, schema, path),
        }
    }

    /// A destination: what it may say depends on the type of its account.
    fn destination(&mut self, node: &Node, path: &Path) -> Option<Json> {
        let schema = self.schema;
        let Value::Map(entries) = &node.value else { return self.scalar(node, &schema.shared, path) };
        let account = match node.get("account").map(|account| &account.value) {
            Some(Value::Text(account)) => self.kinds.get(account.resolved()),
            _ => None,
        };
        if let Some(known) = account.and_then(|kind| schema.destination(kind)) {
            return self.map(entries, node, known, path);
        }
        // Which kind it is has to be put right first. Until then a key that any kind has passes.
        let shared: Vec<Entry> =
            entries.iter().filter(|entry| schema.kinds_with(&entry.key).next().is_none()).cloned().collect();
        self.map(&shared, node, &schema.shared, path)
    }

    fn map(&mut self, entries: &[Entry], node: &Node, schema: &'a Json, path: &Path) -> Option<Json> {
        let properties = schema.get("properties").and_then(Json::as_object);
        let others = schema.get("additionalProperties");
        let mut out = Map::new();
        let mut meant = Vec::new();
        for entry in entries {
            // A former name still works, so that an upgrade stops nobody; the warning says what to write.
            let key = self.renamed(entry, entries, schema, path).unwrap_or(&entry.key);
            let path = path.key(key);
            let property = properties.and_then(|properties| properties.get(key));
            let child = match (property, others) {
                (Some(property), _) => property,
                (None, Some(others)) if others.is_object() => {
                    self.name(entry, schema, &path);
                    if is(schema, schema, "x-secret-names")
                        && secrets::is_secret_name(&entry.key)
                        && !self.secret_is_reference(&entry.node, &path)
                    {
                        continue;
                    }
                    others
                }
                (None, _) => {
                    meant.extend(self.unknown(entry, schema, &path));
                    continue;
                }
            };
            // `key:` with nothing behind it counts as left out; where it is required, the loop below says so.
            if matches!(entry.node.value, Value::Null) {
                if property.is_none() {
                    self.problems.push(wrong_type(&path, "it is empty").at(entry.key_place));
                }
                continue;
            }
            if let Some(value) = self.value(&entry.node, child, &path) {
                out.insert(key.to_owned(), value);
                meant.extend(
                    properties.and_then(|properties| properties.get_key_value(key)).map(|(key, _)| key.as_str()),
                );
            }
        }
        self.required(entries, node, schema, path, &meant);
        self.fill_in(&mut out, schema, path);
        if let Some(1) = schema.get("minProperties").and_then(Json::as_u64)
            && entries.is_empty()
        {
            self.problems.push(invalid(path, "it must have at least one entry").at(node.place));
        }
        Some(Json::Object(out))
    }

    /// The key that an entry under a former name stands for, with a warning. Not if the section has the new one as well.
    fn renamed(&mut self, entry: &Entry, entries: &[Entry], schema: &'a Json, path: &Path) -> Option<&'a str> {
        let new = schema.get("x-renamed")?.get(&entry.key)?.as_str()?;
        if entries.iter().any(|other| other.key == new) {
            return None;
        }
        let message = format!("the key `{}` is called `{new}` now; the former name still works", entry.key);
        let problem = Problem::warning(code::CONFIG_UNKNOWN_KEY, &path.key(&entry.key), message);
        self.problems.push(problem.hint(format!("write `{new}:` in its place")).at(entry.key_place));
        Some(new)
    }

    /// Keys that must be there. One that was only misspelt (`meant`) has been reported.
    fn required(&mut self, entries: &[Entry], node: &Node, schema: &'a Json, path: &Path, meant: &[&str]) {
        let required = schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str);
        for key in required {
            let present = entries.iter().find(|entry| entry.key == key);
            if present.is_some_and(|entry| !matches!(entry.node.value, Value::Null)) || meant.contains(&key) {
                continue;
            }
            let message = if present.is_some() { "the key is empty" } else { "the key is missing" };
            let property = schema.get("properties").and_then(|properties| properties.get(key));
            let problem = Problem::error(code::CONFIG_MISSING_KEY, &path.key(key), message);
            let place = present.map_or(node.place, |entry| entry.key_place);
            self.problems.push(problem.hint(self.advice(key, property)).at(place));
        }
    }

    /// Puts something in the place of required values that are missing or wrong, so that the rest of the section can be checked. Choices
    /// are not made up: what else is right depends on them.
    fn fill_in(&mut self, out: &mut Map<String, Json>, schema: &'a Json, path: &Path) {
        let required = schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str);
        let missing: Vec<&str> = required.filter(|key| !out.contains_key(*key)).collect();
        for key in missing {
            let Some(outer) = schema.get("properties").and_then(|properties| properties.get(key)) else { continue };
            let property = resolve(self.root, outer);
            if constants(self.root, property).is_empty()
                && let Some(value) = placeholder(outer, property)
            {
                self.unresolved.insert(path.key(key));
                out.insert(key.to_owned(), value);
            }
        }
    }

    /// What to write for a missing key: its values where there are few, and its documentation.
    fn advice(&self, key: &str, property: Option<&'a Json>) -> String {
        let Some(outer) = property else { return format!("add `{key}`") };
        let schema = resolve(self.root, outer);
        let choice = match constants(self.root, schema) {
            choices if !choices.is_empty() => format!("`{key}: {}`", choices.join(" | ")),
            _ if admits(schema, "boolean") => format!("`{key}: true` or `{key}: false`"),
            _ => format!("`{key}`"),
        };
        match outer.get("description").or_else(|| schema.get("description")).and_then(Json::as_str) {
            Some(description) => format!("add {choice}: {}", lower_first(description)),
            None => format!("add {choice}"),
        }
    }

    /// Reports an unknown key, and returns the key that was probably meant.
    fn unknown(&mut self, entry: &Entry, schema: &'a Json, path: &Path) -> Option<&'a str> {
        let properties = schema.get("properties").and_then(Json::as_object);
        let known: Vec<&'a str> =
            properties.map(|properties| properties.keys().map(String::as_str).collect()).unwrap_or_default();
        let renamed = schema.get("x-renamed").and_then(|renamed| renamed.get(&entry.key)).and_then(Json::as_str);
        let kind = schema.get("x-kind").and_then(Json::as_str);
        let meant = renamed.or_else(|| nearest(&entry.key, known.iter().copied()));
        let others: Vec<&str> = match kind {
            Some(_) => self.schema.kinds_with(&entry.key).collect(),
            None => Vec::new(),
        };
        let message = match (renamed, kind) {
            (Some(new), _) => format!("the key `{}` is the former name of `{new}`, which is here as well", entry.key),
            (None, Some(kind)) => format!("a destination of type `{kind}` has no such key"),
            (None, None) => "there is no such key".to_owned(),
        };
        let hint = match (renamed, meant) {
            (Some(_), _) => "remove it".to_owned(),
            (None, _) if !others.is_empty() => {
                format!("remove it: it is a key of destinations of type {}", others.join(", "))
            }
            (None, Some(near)) => format!("did you mean `{near}`?"),
            (None, None) => format!("known keys here: {}", known.join(", ")),
        };
        let problem = Problem::error(code::CONFIG_UNKNOWN_KEY, path, message);
        self.problems.push(problem.hint(hint).at(entry.key_place));
        meant
    }

    /// The key of a map whose keys are names of the operator's choice.
    fn name(&mut self, entry: &Entry, schema: &Json, path: &Path) {
        let pattern = schema.pointer("/propertyNames/pattern").and_then(Json::as_str);
        if pattern.is_some_and(|pattern| !matches_pattern(pattern, &entry.key)) {
            self.problems.push(
                invalid(path, format!("`{}` is no allowed name", entry.key))
                    .hint("a name has lower-case letters, digits, `_` and `-`, begins with a letter, and has at most 64 characters")
                    .at(entry.key_place),
            );
        }
    }

    fn list(&mut self, items: &[Node], node: &Node, schema: &'a Json, path: &Path) -> Option<Json> {
        if let Some(least) = schema.get("minItems").and_then(Json::as_u64)
            && (items.len() as u64) < least
        {
            self.problems.push(invalid(path, "the list must have at least one entry").at(node.place));
            return None;
        }
        let Some(item_schema) = schema.get("items") else { return Some(Json::Array(Vec::new())) };
        let values = items
            .iter()
            .enumerate()
            .filter_map(|(index, item)| self.value(item, item_schema, &path.index(index)))
            .collect();
        Some(Json::Array(values))
    }

    /// A choice between several forms: by the tag for kinds of objects, else by the kind of the value.
    fn one_of(&mut self, node: &Node, schema: &'a Json, branches: &[&'a Json], path: &Path) -> Option<Json> {
        if let Some(tag) = common_tag(branches) {
            return self.tagged(node, branches, tag, path);
        }
        let fitting: Vec<&'a Json> =
            branches.iter().copied().filter(|branch| kinds(node).iter().any(|kind| admits(branch, kind))).collect();
        let choices = constants(self.root, schema);
        match fitting.as_slice() {
            [only] if constants(self.root, only).is_empty() => self.value(node, only, path),
            [] => {
                self.problems.push(
                    wrong_type(path, format!("expected {}, got {}", expectation(self.root, schema), describe(node)))
                        .at(node.place),
                );
                None
            }
            _ if !matches!(node.value, Value::Map(_) | Value::List(_)) => self.constant(node, &choices, path),
            several => {
                // Objects with one key each (`{ version: 12 }`): the key tells which one is meant.
                let by_key = several.iter().copied().find(|branch| {
                    let properties = branch.get("properties").and_then(Json::as_object);
                    properties.is_some_and(|properties| node.keys().any(|key| properties.contains_key(key)))
                });
                self.value(node, by_key.or_else(|| several.first().copied())?, path)
            }
        }
    }

    /// Objects that a tag tells apart: `type: delta`.
    fn tagged(&mut self, node: &Node, branches: &[&'a Json], tag: &str, path: &Path) -> Option<Json> {
        let Value::Map(entries) = &node.value else {
            self.problems.push(
                wrong_type(path, format!("expected a map with the key `{tag}`, got {}", describe(node))).at(node.place),
            );
            return None;
        };
        let kinds: Vec<&str> = branches.iter().filter_map(|branch| tag_value(branch, tag)).collect();
        let path_of_tag = path.key(tag);
        match node.get(tag).map(|node| (&node.value, node)) {
            Some((Value::Text(text), value)) => {
                match branches.iter().find(|branch| tag_value(branch, tag) == Some(text.resolved())) {
                    Some(branch) => self.map(entries, node, branch, path),
                    None => {
                        let allowed: Vec<String> = kinds.iter().map(|kind| (*kind).to_owned()).collect();
                        self.constant(value, &allowed, &path_of_tag);
                        None
                    }
                }
            }
            Some((Value::Null, _)) | None => {
                let problem = Problem::error(code::CONFIG_MISSING_KEY, &path_of_tag, "the key is missing");
                self.problems.push(problem.hint(format!("add `{tag}: {}`", kinds.join(" | "))).at(node.place));
                None
            }
            Some((_, value)) => {
                self.problems.push(
                    wrong_type(&path_of_tag, format!("expected one of {}, got {}", kinds.join(", "), describe(value)))
                        .at(value.place),
                );
                None
            }
        }
    }

    fn constant(&mut self, node: &Node, allowed: &[String], path: &Path) -> Option<Json> {
        let Value::Text(text) = &node.value else {
            self.problems.push(
                wrong_type(path, format!("expected one of {}, got {}", allowed.join(", "), describe(node)))
                    .at(node.place),
            );
            return None;
        };
        if allowed.iter().any(|choice| choice == text.resolved()) {
            return Some(Json::String(text.resolved().to_owned()));
        }
        let mut problem =
            invalid(path, format!("`{}` is not one of {}", text.written(), allowed.join(", "))).at(node.place);
        if let Some(near) = nearest(text.resolved(), allowed.iter().map(String::as_str)) {
            problem = problem.hint(format!("did you mean `{near}`?"));
        }
        self.problems.push(problem);
        None
    }

    fn scalar(&mut self, node: &Node, schema: &'a Json, path: &Path) -> Option<Json> {
        let choices = constants(self.root, schema);
        if !choices.is_empty() {
            return self.constant(node, &choices, path);
        }
        let referenced = matches!(&node.value, Value::Text(text) if text.references().any);
        let value = match (&node.value, written(node)) {
            (Value::Text(_), Some(text)) if admits(schema, "string") => Some(Json::String(text.to_owned())),
            // What a reference resolved to has no type of its own: it takes the one that is wanted.
            (Value::Text(_), Some(text)) if referenced => typed(text.trim(), schema),
            (Value::Number(_), Some(text)) => typed(text, schema),
            (Value::Bool(flag), _) if admits(schema, "boolean") => {
                Some(if admits(schema, "string") { Json::String(flag.to_string()) } else { Json::Bool(*flag) })
            }
            _ => None,
        };
        let Some(value) = value else {
            let mut problem =
                wrong_type(path, format!("expected {}, got {}", expectation(self.root, schema), describe(node)))
                    .at(node.place);
            if admits(schema, "string") && matches!(node.value, Value::Number(_) | Value::Bool(_)) {
                problem = problem.hint("put it in quotes");
            } else if !referenced && written(node).is_some_and(|text| typed(text, schema).is_some()) {
                problem = problem.hint("write it without quotes");
            }
            self.problems.push(problem);
            return None;
        };
        self.bounds(&value, node, schema, path).then_some(value)
    }

    /// Range, length and pattern of a scalar.
    fn bounds(&mut self, value: &Json, node: &Node, schema: &Json, path: &Path) -> bool {
        let number = value.as_f64();
        let (least, most) =
            (schema.get("minimum").and_then(Json::as_f64), schema.get("maximum").and_then(Json::as_f64));
        if number
            .is_some_and(|number| least.is_some_and(|least| number < least) || most.is_some_and(|most| number > most))
        {
            let range = match (least, most) {
                (Some(least), Some(most)) if least >= most => format!("{least}"),
                (Some(least), Some(most)) => format!("between {least} and {most}"),
                (Some(least), None) => format!("at least {least}"),
                (None, Some(most)) => format!("at most {most}"),
                (None, None) => "in range".to_owned(),
            };
            self.problems
                .push(invalid(path, format!("{} is not allowed: it must be {range}", quote(node))).at(node.place));
            return false;
        }
        let Some(text) = value.as_str() else { return true };
        if text.is_empty() && schema.get("minLength").is_some() {
            self.problems.push(invalid(path, "it must not be empty").at(node.place));
            return false;
        }
        let pattern = schema.get("pattern").and_then(Json::as_str);
        if pattern.is_some_and(|pattern| !matches_pattern(pattern, text)) {
            let expected = schema.get("x-expected").and_then(Json::as_str).unwrap_or("another form");
            self.problems
                .push(invalid(path, format!("{} is not allowed: expected {expected}", quote(node))).at(node.place));
            return false;
        }
        true
    }

    /// A secret must be a reference, and one without a default: the default would stand in the file.
    fn secret_is_reference(&mut self, node: &Node, path: &Path) -> bool {
        let Value::Text(text) = &node.value else {
            if matches!(node.value, Value::Number(_) | Value::Bool(_)) {
                self.problems.push(secrets::inline(path).at(node.place));
                return false;
            }
            return true;
        };
        let references = text.references();
        if references.any && !references.with_default {
            return true;
        }
        if text.resolved().is_empty() {
            self.problems.push(invalid(path, "it must not be empty").at(node.place));
        } else {
            self.problems.push(secrets::inline(path).at(node.place));
        }
        false
    }
}

fn lower_first(text: &str) -> String {
    let first = text.split("\n\n").next().unwrap_or(text);
    let acronym = first.chars().take(2).all(char::is_uppercase);
    let mut letters = first.chars();
    match letters.next() {
        Some(letter) if !acronym => letter.to_lowercase().chain(letters).collect(),
        _ => first.to_owned(),
    }
}

fn invalid(path: &Path, message: impl Into<String>) -> Problem {
    Problem::error(code::CONFIG_INVALID_VALUE, path, message)
}

fn wrong_type(path: &Path, message: impl Into<String>) -> Problem {
    Problem::error(code::CONFIG_WRONG_TYPE, path, message)
}
