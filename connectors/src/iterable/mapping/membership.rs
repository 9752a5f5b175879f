//! List memberships: `{_operation, listId, email | userId}`, or the vendor's `{listId, subscribers: [{…}]}` with the one person in it. A
//! subscriber with `dataFields` becomes an update and, after it, the membership.

use serde_json::{Map, Value};
use tailwater_core::operation::OperationKind;

use super::take::{coerce, invalid, object, refuse_rest};
use super::{Checker, Made};
use crate::destination::ClassifyError;
use crate::iterable::schema::Shape;

impl Checker<'_> {
    pub(super) fn membership(
        &mut self,
        kind: OperationKind,
        mut root: Map<String, Value>,
    ) -> Result<Vec<Made>, ClassifyError> {
        let list = coerce(root.remove("listId").unwrap_or_default(), Shape::Integer, "listId")?;
        if list.as_i64().is_none_or(|list| list <= 0) {
            return Err(invalid("listId", "is no list; it is the number in the list's address"));
        }
        self.flags(kind, &mut root)?;
        let (mut subscriber, at) = match root.remove("subscribers") {
            None => (std::mem::take(&mut root), ""),
            Some(Value::Array(mut people)) if people.len() == 1 => {
                let person = people.pop().unwrap_or_default();
                (object(person, "subscribers[0]", "an object with `email` or `userId`")?, "subscribers[0]")
            }
            Some(_) => {
                let message =
                    "holds not exactly one person; return one output for each person, and Tailwater puts them together";
                return Err(invalid("subscribers", message));
            }
        };
        refuse_rest(&root, "", ["listId", "subscribers", "updateExistingUsersOnly"], "")?;
        let mut made = Vec::new();
        let has_fields = subscriber
            .get("dataFields")
            .is_some_and(|fields| fields.as_object().is_none_or(|fields| !fields.is_empty()));
        if has_fields && kind == OperationKind::AddToList {
            let body = self.user(subscriber.clone(), at)?;
            made.push(Made { kind: OperationKind::UpsertProfile, target: None, body });
        } else if has_fields {
            return Err(invalid("dataFields", "belongs to an update; return it as an output of its own"));
        }
        let person = self.take_person(&mut subscriber, at)?;
        let mut body = Map::new();
        self.put_name(&person, at, &mut body)?;
        for name in ["dataFields", "preferUserId", "mergeNestedObjects"] {
            subscriber.remove(name);
        }
        refuse_rest(&subscriber, at, ["email", "userId", "dataFields", "preferUserId", "mergeNestedObjects"], "")?;
        made.push(Made { kind, target: Some(list.to_string()), body });
        Ok(made)
    }

    /// Fields that say more than the membership.
    fn flags(&self, kind: OperationKind, root: &mut Map<String, Value>) -> Result<(), ClassifyError> {
        if root.remove("channelUnsubscribe").is_some_and(|flag| flag != Value::Bool(false) && !flag.is_null()) {
            let message = "unsubscribes the person from the whole channel; taking somebody off a list does not do that. Return the \
                           subscription as an output of its own, with `_operation: 'unsubscribe'`";
            return Err(invalid("channelUnsubscribe", message));
        }
        match root.remove("updateExistingUsersOnly") {
            None | Some(Value::Null) => {}
            Some(Value::Bool(only)) if kind == OperationKind::AddToList && only != self.rules.create => {}
            Some(_) => {
                let message = format!("differs from the destination's `create: {}`; leave it out", self.rules.create);
                return Err(invalid("updateExistingUsersOnly", &message));
            }
        }
        if root.remove("campaignId").is_some_and(|campaign| !campaign.is_null()) {
            let message = "attributes an unsubscription to a campaign, which a list membership is not; leave it out";
            return Err(invalid("campaignId", message));
        }
        Ok(())
    }
}
