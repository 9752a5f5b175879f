//! Catalog items: `{catalogName, itemId, value | update}`. `value` replaces the item, `update` changes the fields that it names.

use serde_json::{Map, Value};
use tailwater_core::operation::OperationKind;

use super::take::{coerce, invalid, object, refuse_rest};
use super::{Checker, Made};
use crate::destination::ClassifyError;
use crate::iterable::schema::{CATALOG_ITEM_BYTES_MAX, CATALOG_NAME_CHARS_MAX, Shape};

impl Checker<'_> {
    pub(super) fn catalog_item(
        &mut self,
        kind: OperationKind,
        mut root: Map<String, Value>,
    ) -> Result<Made, ClassifyError> {
        let catalog = name(root.remove("catalogName").unwrap_or_default(), "catalogName")?;
        let item = name(root.remove("itemId").unwrap_or_default(), "itemId")?;
        let target = format!("{catalog}/{item}");
        let mut body = Map::new();
        body.insert("catalogName".to_owned(), Value::from(catalog));
        body.insert("itemId".to_owned(), Value::from(item));
        if kind == OperationKind::UpsertCatalogItem {
            let (part, value) = match (root.remove("value"), root.remove("update")) {
                (Some(value), None) => ("value", value),
                (None, Some(update)) => ("update", update),
                (None, None) => {
                    return Err(invalid(
                        "the output",
                        "has neither `value` (replaces the item) nor `update` (changes fields of it)",
                    ));
                }
                (Some(_), Some(_)) => return Err(invalid("the output", "has `value` and `update`; give one of them")),
            };
            let fields = object(value, part, "an object")?;
            if let Some(field) = fields.keys().find(|field| field.contains('.')) {
                return Err(invalid(
                    &format!("{part}.{field}"),
                    "has a period in its name, which the vendor does not take in a catalog",
                ));
            }
            let bytes = serde_json::to_string(&fields).map_or(0, |text| text.len());
            if bytes > CATALOG_ITEM_BYTES_MAX {
                let message = format!("{part}: {bytes} bytes, the limit of a catalog item is {CATALOG_ITEM_BYTES_MAX}");
                return Err(ClassifyError { code: tailwater_core::code::PAYLOAD_TOO_LARGE, message });
            }
            body.insert(part.to_owned(), Value::Object(fields));
        }
        refuse_rest(
            &root,
            "",
            ["catalogName", "itemId", "value", "update"],
            "; fields of the item go under `value` or `update`",
        )?;
        Ok(Made { kind, target: Some(target), body })
    }
}

fn name(value: Value, at: &str) -> Result<String, ClassifyError> {
    let value = coerce(value, Shape::Text, at)?;
    let text = value.as_str().unwrap_or_default();
    let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if text.is_empty() || text.len() > CATALOG_NAME_CHARS_MAX || !is_plain {
        return Err(invalid(
            at,
            &format!("is no name that the vendor takes: 1 to {CATALOG_NAME_CHARS_MAX} letters, digits and dashes"),
        ));
    }
    Ok(text.to_owned())
}
