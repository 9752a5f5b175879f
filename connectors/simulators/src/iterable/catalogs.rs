//! Catalogs: changes of items are accepted at once (202) and take effect later.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::engine::clock::stamp;
use crate::engine::{Answer, Effects};

use super::answer;
use super::project::{Call, Project, Work};
use super::updates::settled;

const NAME_CHARS_MAX: usize = 255;
const ITEMS_PER_CALL_MAX: usize = 1_000;
const ITEM_BYTES_MAX: usize = 30_000;
const CATALOGS_MAX: usize = 1_000;
const ITEMS_MAX: usize = 1_000_000;
const PAGE_MAX: usize = 1_000;

#[derive(Debug, Default)]
pub(super) struct Catalogs {
    catalogs: BTreeMap<String, BTreeMap<String, Item>>,
}

#[derive(Debug)]
struct Item {
    fields: Map<String, Value>,
    modified_us: i64,
}

/// What a request does to the items of a catalog.
#[derive(Debug)]
pub(super) struct ItemChange {
    catalog: String,
    /// `None` deletes.
    pub items: Vec<(String, Option<Map<String, Value>>)>,
    /// Fields that are not given stay.
    merge: bool,
}

// === impl Catalogs ===

impl Catalogs {
    pub fn apply(&mut self, change: ItemChange, now_us: i64) {
        // Deleted while it waited.
        let Some(catalog) = self.catalogs.get_mut(&change.catalog) else { return };
        for (id, fields) in change.items {
            match fields {
                None => {
                    catalog.remove(&id);
                }
                Some(fields) => {
                    let item = catalog.entry(id).or_insert_with(|| Item { fields: Map::new(), modified_us: now_us });
                    item.modified_us = now_us;
                    if change.merge {
                        item.fields.extend(fields);
                    } else {
                        item.fields = fields;
                    }
                }
            }
        }
    }

    pub fn len(&self) -> usize {
        self.catalogs.values().map(BTreeMap::len).sum()
    }

    pub fn objects(&self) -> impl Iterator<Item = Value> {
        self.catalogs.iter().flat_map(|(catalog, items)| {
            items.iter().map(move |(id, item)| json!({"type": catalog, "id": id, "attributes": item.fields}))
        })
    }
}

impl Item {
    fn to_json(&self, catalog: &str, id: &str) -> Value {
        json!({
            "catalogName": catalog,
            "itemId": id,
            "lastModified": stamp(self.modified_us),
            "size": Value::Object(self.fields.clone()).to_string().len(),
            "value": self.fields,
        })
    }
}

fn is_name(text: &str) -> bool {
    (1..=NAME_CHARS_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn checked_id(id: &str) -> Result<(), Answer> {
    if is_name(id) {
        return Ok(());
    }
    let message = format!("item id '{id}' must have 1 to {NAME_CHARS_MAX} alphanumeric characters and dashes");
    Err(answer::bad_params(message))
}

fn checked_item(id: &str, value: &Value) -> Result<Map<String, Value>, Answer> {
    checked_id(id)?;
    let Value::Object(fields) = value else {
        return Err(answer::bad_params(format!("item {id} must be an object")));
    };
    if value.to_string().len() > ITEM_BYTES_MAX {
        return Err(answer::bad_params(format!("item {id} is larger than 30kb")));
    }
    if let Some(field) = period_in(value) {
        return Err(answer::bad_params(format!("item {id}: the field name {field} contains a period")));
    }
    Ok(fields.clone())
}

fn period_in(value: &Value) -> Option<&str> {
    match value {
        Value::Object(fields) => fields
            .keys()
            .find(|name| name.contains('.'))
            .map(String::as_str)
            .or_else(|| fields.values().find_map(period_in)),
        Value::Array(values) => values.iter().find_map(period_in),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

impl Project {
    fn catalog(&self, call: &Call<'_>) -> Result<(&str, &BTreeMap<String, Item>), Answer> {
        let name = call.names.first().map(String::as_str).unwrap_or_default();
        let found = self.catalogs.catalogs.get_key_value(name);
        found
            .map(|(name, items)| (name.as_str(), items))
            .ok_or_else(|| answer::not_found(format!("error.catalogs.notFound: {name}")))
    }

    pub(super) fn get_catalogs(&self) -> Answer {
        let names: Vec<Value> = self.catalogs.catalogs.keys().map(|name| json!({ "name": name })).collect();
        answer::json(
            json!({"msg": "", "code": "Success", "params": {"catalogNames": names, "totalCatalogsCount": names.len()}}),
        )
    }

    pub(super) fn create_catalog(&mut self, call: &Call<'_>) -> Result<Answer, Answer> {
        let name = call.names.first().cloned().unwrap_or_default();
        if !is_name(&name) {
            let message = format!("a catalog name must have 1 to {NAME_CHARS_MAX} alphanumeric characters and dashes");
            return Err(answer::bad_params(message));
        }
        if self.catalogs.catalogs.contains_key(&name) {
            return Err(answer::bad_params(format!("catalog {name} already exists")));
        }
        if self.catalogs.catalogs.len() >= CATALOGS_MAX {
            return Err(answer::full("catalogs"));
        }
        let url = format!("/api/catalogs/{name}/items");
        self.catalogs.catalogs.insert(name, BTreeMap::new());
        let mut answer = answer::success("", json!({ "url": url }));
        answer.status = 201;
        Ok(answer)
    }

    pub(super) fn delete_catalog(&mut self, call: &Call<'_>) -> Result<Answer, Answer> {
        let name = self.catalog(call)?.0.to_owned();
        self.catalogs.catalogs.remove(&name);
        Ok(answer::success("", Value::Null))
    }

    pub(super) fn get_items(&self, call: &Call<'_>) -> Result<Answer, Answer> {
        let (name, items) = self.catalog(call)?;
        let number = |wanted: &str| {
            call.query.iter().find(|(name, _)| name == wanted).and_then(|(_, value)| value.parse::<usize>().ok())
        };
        let (page, size) = (number("page").unwrap_or(1).max(1), number("pageSize").unwrap_or(10).clamp(1, PAGE_MAX));
        let shown: Vec<Value> = items
            .iter()
            .skip((page - 1).saturating_mul(size))
            .take(size)
            .map(|(id, item)| item.to_json(name, id))
            .collect();
        let params = json!({"catalogItemsWithProperties": shown, "totalItemsCount": items.len()});
        Ok(answer::success("", params))
    }

    pub(super) fn get_item(&self, call: &Call<'_>) -> Result<Answer, Answer> {
        let (name, items) = self.catalog(call)?;
        let id = call.names.get(1).map(String::as_str).unwrap_or_default();
        let item = items.get(id).ok_or_else(|| answer::not_found(format!("no item {id} in {name}")))?;
        Ok(answer::success("", item.to_json(name, id)))
    }

    pub(super) fn bulk_upsert_items(&mut self, call: &Call<'_>) -> Result<Answer, Answer> {
        let catalog = self.catalog(call)?.0.to_owned();
        let documents = call.body.get("documents").and_then(Value::as_object).cloned().unwrap_or_default();
        if documents.is_empty() || documents.len() > ITEMS_PER_CALL_MAX {
            let message =
                format!("between 1 and {ITEMS_PER_CALL_MAX} documents are allowed; {} were given", documents.len());
            return Err(answer::bad_params(message));
        }
        let mut items = Vec::with_capacity(documents.len());
        for (id, value) in &documents {
            items.push((id.clone(), Some(checked_item(id, value)?)));
        }
        let merge = call.body.get("replaceUploadedFieldsOnly").and_then(Value::as_bool).unwrap_or(false);
        self.change_items(call, ItemChange { catalog, items, merge }, "Request to bulk upload items received")
    }

    pub(super) fn bulk_delete_items(&mut self, call: &Call<'_>) -> Result<Answer, Answer> {
        let catalog = self.catalog(call)?.0.to_owned();
        let ids = call.body.get("itemIds").and_then(Value::as_array).cloned().unwrap_or_default();
        let items = ids.iter().filter_map(Value::as_str).map(|id| (id.to_owned(), None)).collect();
        self.change_items(
            call,
            ItemChange { catalog, items, merge: false },
            "Bulk delete catalog items request received.",
        )
    }

    /// `value` replaces an item, `update` changes the given fields of it.
    pub(super) fn put_item(&mut self, call: &Call<'_>, field: &str) -> Result<Answer, Answer> {
        let catalog = self.catalog(call)?.0.to_owned();
        let id = call.names.get(1).cloned().unwrap_or_default();
        let fields = checked_item(&id, call.body.get(field).unwrap_or(&Value::Null))?;
        let change = ItemChange { catalog, items: vec![(id, Some(fields))], merge: field == "update" };
        self.change_items(call, change, "Catalog item update request received.")
    }

    pub(super) fn delete_item(&mut self, call: &Call<'_>) -> Result<Answer, Answer> {
        let catalog = self.catalog(call)?.0.to_owned();
        let id = call.names.get(1).cloned().unwrap_or_default();
        checked_id(&id)?;
        let change = ItemChange { catalog, items: vec![(id, None)], merge: false };
        self.change_items(call, change, "Received request to delete item.")
    }

    fn change_items(&mut self, call: &Call<'_>, change: ItemChange, message: &str) -> Result<Answer, Answer> {
        if self.catalogs.len() + change.items.len() > ITEMS_MAX {
            return Err(answer::full("catalog items"));
        }
        let later = self.submit(call, true, Work::Catalog(change), Effects::All)?;
        Ok(settled(answer::accepted(message), later, Effects::All))
    }
}
