//! Purchases (`{user, items, total, …}`) and carts (`{user, items}`). Both create and update their user, so the user is checked as one that
//! comes by itself.

use serde_json::{Map, Value};
use tailwater_core::operation::OperationKind;

use super::event::check_id;
use super::take::{coerce, invalid, object, refuse_rest, wrong_type};
use super::{CART, Checker, Made};
use crate::destination::ClassifyError;
use crate::iterable::schema::{ITEM, ITEM_REQUIRED, PURCHASE};

const USER_EXAMPLE: &str = "has no `user`; expected `user: {email: row.email}`";

impl Checker<'_> {
    pub(super) fn purchase(&mut self, mut root: Map<String, Value>) -> Result<Made, ClassifyError> {
        let user = root.remove("user").ok_or_else(|| invalid("the purchase", USER_EXAMPLE))?;
        let mut out = Map::new();
        out.insert("user".to_owned(), Value::Object(self.inner_user(user)?));
        out.insert("items".to_owned(), self.items(root.remove("items").unwrap_or_default())?);
        for (name, shape) in PURCHASE {
            let Some(value) = root.remove(*name).filter(|value| !value.is_null()) else { continue };
            out.insert((*name).to_owned(), coerce(value, *shape, name)?);
        }
        if !out.contains_key("total") {
            return Err(invalid("the purchase", "has no `total`; give the order's total as a number"));
        }
        check_id(&mut out)?;
        self.put_time(&mut out);
        if let Some(fields) = root.remove("dataFields").filter(|fields| !fields.is_null()) {
            out.insert("dataFields".to_owned(), Value::Object(self.facts(fields, "dataFields")?));
        }
        let known = PURCHASE.iter().map(|(name, _)| *name).chain(["user", "items", "dataFields"]);
        refuse_rest(&root, "", known, "; what the purchase is about goes under dataFields")?;
        Ok(Made { kind: OperationKind::TrackEvent, target: None, body: out })
    }

    pub(super) fn cart(&mut self, mut root: Map<String, Value>) -> Result<Made, ClassifyError> {
        let user = root.remove("user").ok_or_else(|| invalid("the cart", USER_EXAMPLE))?;
        let mut out = Map::new();
        out.insert("user".to_owned(), Value::Object(self.inner_user(user)?));
        out.insert("items".to_owned(), self.items(root.remove("items").unwrap_or_default())?);
        refuse_rest(&root, "", ["user", "items"], "; a cart is `{user, items}`, and a purchase has a `total`")?;
        Ok(Made { kind: OperationKind::UpsertProfile, target: Some(CART.to_owned()), body: out })
    }

    fn items(&self, value: Value) -> Result<Value, ClassifyError> {
        let Value::Array(items) = value else {
            return Err(wrong_type("items", "an array of items", &value));
        };
        let items = items.into_iter().enumerate();
        items
            .map(|(index, item)| self.item(item, &format!("items[{index}]")))
            .collect::<Result<Vec<_>, _>>()
            .map(Value::Array)
    }

    fn item(&self, value: Value, at: &str) -> Result<Value, ClassifyError> {
        let mut item = object(value, at, "an object with `id`, `name`, `price` and `quantity`")?;
        let mut out = Map::new();
        for (name, shape) in ITEM {
            let Some(value) = item.remove(*name).filter(|value| !value.is_null()) else { continue };
            out.insert((*name).to_owned(), coerce(value, *shape, &format!("{at}.{name}"))?);
        }
        if let Some(missing) = ITEM_REQUIRED.iter().find(|name| !out.contains_key(**name)) {
            return Err(invalid(at, &format!("has no `{missing}`, which the vendor requires of every item")));
        }
        if let Some(fields) = item.remove("dataFields").filter(|fields| !fields.is_null()) {
            let fields = self.facts(fields, &format!("{at}.dataFields"))?;
            out.insert("dataFields".to_owned(), Value::Object(fields));
        }
        let known = ITEM.iter().map(|(name, _)| *name).chain(["dataFields"]);
        refuse_rest(&item, at, known, "; properties of your own go under the item's dataFields")?;
        Ok(Value::Object(out))
    }
}
