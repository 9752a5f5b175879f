//! Purchases and carts. Both update the person of the request.

use serde_json::{Map, Value, json};

use crate::engine::{Answer, Effects};

use super::answer;
use super::events::{Event, id_and_time};
use super::project::{Call, PROJECT, Project, Work};
use super::types::Category;
use super::updates::{fields_of, settled};

impl Project {
    pub(super) fn track_purchase(&mut self, call: &Call<'_>) -> Result<Answer, Answer> {
        let (id, created_us) = id_and_time(&call.body, call.now_us)?;
        let user = call.body.get("user").unwrap_or(&Value::Null);
        let who = self.admitted(call.options, user).map_err(|refusal| refusal.to_answer())?;
        let mut fields = fields_of(&call.body);
        let items = self.items(call, &mut fields)?;
        // The cart is what was bought.
        let cleared = Map::from_iter([("shoppingCartItems".to_owned(), json!([]))]);
        let (_, dropped) = self.upsert_user(call, user, cleared)?;
        fields.insert("shoppingCartItems".to_owned(), items);
        fields.insert("total".to_owned(), call.body.get("total").cloned().unwrap_or_default());
        let event = Event { who, name: None, id: id.clone(), created_us, fields };
        let later = self.submit(call, false, Work::Events(vec![event]), Effects::All)?;
        let mut answer = settled(answer::success("", json!({ "id": id })), later, Effects::All);
        answer.dropped = dropped;
        Ok(answer)
    }

    pub(super) fn update_cart(&mut self, call: &Call<'_>) -> Result<Answer, Answer> {
        let items = self.items(call, &mut Map::new())?;
        let user = call.body.get("user").unwrap_or(&Value::Null);
        let cart = Map::from_iter([("shoppingCartItems".to_owned(), items)]);
        let (later, dropped) = self.upsert_user(call, user, cart)?;
        let mut answer = settled(answer::success("", Value::Null), later, Effects::All);
        answer.dropped = dropped;
        Ok(answer)
    }

    /// The items of a purchase or a cart; the types of their own fields and of the purchase's are those of purchases.
    fn items(&mut self, call: &Call<'_>, fields: &mut Map<String, Value>) -> Result<Value, Answer> {
        let mut items = call.body.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
        let mut trial = self.types.trial();
        // Purchases have no createNewFields: their fields are always taken.
        trial.fields(&Category::Purchase, fields, true);
        for item in &mut items {
            if let Some(own) = item.get_mut("dataFields").and_then(Value::as_object_mut) {
                trial.fields(&Category::Purchase, own, true);
            }
        }
        let passed = trial.finish(PROJECT)?;
        self.types.keep(&passed);
        Ok(Value::Array(items))
    }
}
