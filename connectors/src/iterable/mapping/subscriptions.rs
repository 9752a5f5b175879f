//! Subscriptions, which are what a person has agreed to. They change only by an operation of their own.

use serde_json::{Map, Value};
use tailwater_core::operation::OperationKind;

use super::take::{coerce, invalid, refuse_rest};
use super::{Checker, Made};
use crate::destination::ClassifyError;
use crate::iterable::schema::{SUBSCRIPTION_GROUPS, SUBSCRIPTIONS, Shape};

impl Checker<'_> {
    /// `{email | userId, unsubscribedChannelIds?, …}`. The vendor overwrites every field that is given, so this can end subscriptions and
    /// counts as `unsubscribe`.
    pub(super) fn subscriptions(&mut self, mut root: Map<String, Value>) -> Result<Made, ClassifyError> {
        let person = self.take_person(&mut root, "")?;
        let mut body = Map::new();
        self.put_name(&person, "", &mut body)?;
        for (name, shape) in SUBSCRIPTIONS {
            // The vendor leaves a field alone that is null.
            let Some(value) = root.remove(*name).filter(|value| !value.is_null()) else { continue };
            body.insert((*name).to_owned(), coerce(value, *shape, name)?);
        }
        refuse_rest(&root, "", SUBSCRIPTIONS.iter().map(|(name, _)| *name).chain(["email", "userId"]), "")?;
        Ok(Made { kind: OperationKind::Unsubscribe, target: None, body })
    }

    /// `{_operation, email | userId, subscriptionGroup, subscriptionGroupId}`: one subscription, nothing overwritten.
    pub(super) fn subscription(
        &mut self,
        kind: OperationKind,
        mut root: Map<String, Value>,
    ) -> Result<Made, ClassifyError> {
        let person = self.take_person(&mut root, "")?;
        let mut body = Map::new();
        self.put_name(&person, "", &mut body)?;
        let group = coerce(root.remove("subscriptionGroup").unwrap_or_default(), Shape::Text, "subscriptionGroup")?;
        let group = group.as_str().unwrap_or_default();
        let Some(group) = SUBSCRIPTION_GROUPS.iter().find(|known| known.eq_ignore_ascii_case(group)) else {
            let message = format!("is `{group}`; expected {}", SUBSCRIPTION_GROUPS.join(", "));
            return Err(invalid("subscriptionGroup", &message));
        };
        let id = coerce(root.remove("subscriptionGroupId").unwrap_or_default(), Shape::Integer, "subscriptionGroupId")?;
        refuse_rest(&root, "", ["email", "userId", "subscriptionGroup", "subscriptionGroupId"], "")?;
        let target = format!("{group}/{id}");
        body.insert("subscriptionGroup".to_owned(), Value::from(*group));
        body.insert("subscriptionGroupId".to_owned(), id);
        Ok(Made { kind, target: Some(target), body })
    }
}
